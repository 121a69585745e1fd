package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child pinned to one core.
type process struct {
	name string
	cmd  *exec.Cmd
	log  tail
	done chan struct{} // closed when it has ended; err is set then
	err  error
}

const stopWait = 3 * time.Second

// startPinned starts cmd on core cpu, below 0 on any. The child takes over the affinity of the thread that starts it, so that its
// first instruction already runs there and a Go program sets GOMAXPROCS accordingly.
func startPinned(name string, cmd *exec.Cmd, cpu int) (*process, error) {
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.log
	}
	cmd.Stderr = &p.log
	cmd.WaitDelay = time.Second // should something it started keep its standard error open
	// A group of its own, so that Ctrl-C comes to this process alone, which then stops its children in order; and the
	// kernel stops them should it die itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	start := cmd.Start
	if cpu >= 0 {
		start = func() error { return onCore(cpu, cmd.Start) }
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// onCore calls f on a thread that runs on core cpu meanwhile.
func onCore(cpu int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &before))
}

// stop ends the process and what it started: politely, and by force when that takes too long.
func (p *process) stop() {
	pids, _ := tree(p.cmd.Process.Pid)
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(stopWait):
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.done
}

// ended says whether the process is no more.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// waitAnswer asks for a page until it comes whole, and returns it.
func (p *process) waitAnswer(ctx context.Context, addr, path string) (string, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		body, err := ask(addr, path)
		if err == nil {
			return body, nil
		}
		select {
		case <-p.done:
			return "", fmt.Errorf("%s ended: %v\n%s", p.name, p.err, p.log.String())
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%s does not answer: %w\n%s", p.name, err, p.log.String())
		}
	}
}

// ask makes one request, with a small head as the load generator's, and returns the answer's body.
func ask(addr, path string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\n%s\r\n", path, requestFields[headSmall])
	var all []byte
	for {
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		all = append(all, buf[:n]...)
		if end := headEnd(all); end > 0 {
			if statusOf(all[:end]) != 200 {
				return "", fmt.Errorf("answer %.60q", all)
			}
			if int64(len(all)-end) >= contentLength(all[:end]) {
				return string(all[end:]), nil
			}
		}
		if err != nil {
			return "", err
		}
	}
}

// Children of this program are itself, with what they are to be in the environment.
const (
	childEnv = "LB_BENCH_CHILD"
	argEnv   = "LB_BENCH_ARG"
)

// childMain runs the process as a child if it is one, and says whether it was.
func childMain() (ran bool) {
	var err error
	switch os.Getenv(childEnv) {
	case "":
		return false
	case "origin":
		err = runOrigin(os.Getenv(argEnv))
	case "load":
		err = runLoad(os.Getenv(argEnv))
	default:
		err = errors.New("unknown child")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	return true
}

func selfCommand(child, arg string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	// poller says why there must be no collection; the signals of preemption would only cut waits short.
	cmd.Env = append(os.Environ(), childEnv+"="+child, argEnv+"="+arg,
		"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	return cmd, nil
}

// startOrigin returns the origin and its address.
func startOrigin(head string, cpu int) (*process, string, error) {
	cmd, err := selfCommand("origin", head)
	if err != nil {
		return nil, "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	cmd.Stdout = w
	p, err := startPinned("origin", cmd, cpu)
	w.Close()
	if err != nil {
		return nil, "", err
	}
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, "", fmt.Errorf("origin: %w\n%s", err, p.log.String())
	}
	return p, strings.TrimSpace(line), nil
}

// runJob runs a load generator. For a job that holds connections it calls whileHeld when all are there, and the
// result includes what became of them until it returned.
func runJob(ctx context.Context, j job, cpu int, whileHeld func() error) (result, error) {
	spec, err := json.Marshal(j)
	if err != nil {
		return result{}, err
	}
	cmd, err := selfCommand("load", string(spec))
	if err != nil {
		return result{}, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return result{}, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return result{}, err
	}
	defer out.Close()
	cmd.Stdout = w
	p, err := startPinned("load generator", cmd, cpu)
	w.Close()
	if err != nil {
		return result{}, err
	}
	defer p.stop()
	// Reads end when the child does, and at the latest then:
	defer context.AfterFunc(ctx, func() { out.SetReadDeadline(time.Now()) })()
	out.SetReadDeadline(time.Now().Add(j.Duration + 15*time.Second))

	var r result
	dec := json.NewDecoder(out)
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("load generator: %w\n%s", errors.Join(ctx.Err(), err), p.log.String())
	}
	if !j.Hold {
		return r, nil
	}
	if err := whileHeld(); err != nil {
		return r, err
	}
	stdin.Close()
	out.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("load generator: %w\n%s", errors.Join(ctx.Err(), err), p.log.String())
	}
	return r, nil
}

// tail keeps the first few KB that a process says: enough for why it would not start.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(b[:min(len(b), max(0, 4096-t.b.Len()))])
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
