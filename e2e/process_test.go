package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a condition may take to come true before its test fails. It bounds hangs and measures
// nothing: other work on the machine may make everything slow.
var patience = 30 * time.Second

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// process is a child of the test, which does not outlive it.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when it has ended and all it wrote is in lines

	mu  sync.Mutex
	out []string // lines of standard output, guarded by mu
	err []string // and of standard error, guarded by mu
}

// start runs cmd until it ends, or the test does.
func start(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = dieWithParent()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	var readers sync.WaitGroup
	if cmd.Stdout == nil {
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() { p.read(out, &p.out) })
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	readers.Go(func() { p.read(errs, &p.err) })
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		readers.Wait()
		cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s (%v) said:\n%s", name, cmd.ProcessState, strings.Join(tail(append(p.stdout(), p.stderr()...), 40), "\n"))
		}
	})
	return p
}

func (p *process) read(r io.Reader, lines *[]string) {
	for s := bufio.NewReader(r); ; {
		line, err := s.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			*lines = append(*lines, strings.TrimSuffix(line, "\n"))
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func (p *process) stdout() []string { return p.copy(&p.out) }
func (p *process) stderr() []string { return p.copy(&p.err) }

func (p *process) copy(lines *[]string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(*lines)
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v: %v", p.name, s, err)
	}
}

// wait waits for the process to end by itself and returns its exit code, -1 after a signal.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // a Go program shows its goroutines
		time.Sleep(200 * time.Millisecond)
		p.t.Fatalf("%s does not end", p.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// order writes a line to the process's standard input.
func (p *process) order(words ...string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, strings.Join(words, " ")+"\n"); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// said counts lines of standard output that begin with words, and returns the rest of the last one.
func (p *process) said(words string) (n int, rest string) {
	for _, line := range p.stdout() {
		if r, ok := strings.CutPrefix(line, words); ok && (r == "" || r[0] == ' ') {
			n++
			rest = strings.TrimSpace(r)
		}
	}
	return n, rest
}

// hears waits until standard output has a line that begins with words, and returns the rest of it.
func (p *process) hears(words string) string {
	p.t.Helper()
	return p.hearsTimes(words, 1)
}

// hearsTimes waits until there are n such lines.
func (p *process) hearsTimes(words string, n int) string {
	p.t.Helper()
	rest := ""
	eventually(p.t, p.name+" says: "+words, func() bool {
		k, r := p.said(words)
		rest = r
		select {
		case <-p.done:
			if k < n {
				p.t.Fatalf("%s ended (%v) before it said %q: %s", p.name, p.cmd.ProcessState, words, strings.Join(p.stderr(), "\n"))
			}
		default:
		}
		return k >= n
	})
	return rest
}

// run runs a command that ends by itself.
func run(t testing.TB, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, name, exec.Command(name, args...))
	p.in.Close()
	code = p.wait()
	return code, strings.Join(p.stdout(), "\n"), strings.Join(p.stderr(), "\n")
}

func tail(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }
