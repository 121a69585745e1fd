package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// successor is the process that is to take over.
type successor struct {
	*link
	pid     int
	version string
	process *os.Process
	news    chan news // what it says, and at last why it says no more
	cut     func()    // what it may have this process do, once it is in charge
	obey    func(*message)
	gone    chan struct{} // closed when it says no more
}

type news struct {
	*message
	err error
}

// startSuccessor starts binary with the arguments and in the environment of this process, and a link to it.
func (s *Server) startSuccessor(binary string) (*successor, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	theirs := os.NewFile(uintptr(fds[1]), "link")
	defer theirs.Close()
	l, err := newLink(os.NewFile(uintptr(fds[0]), "link"))
	if err != nil {
		return nil, err
	}
	const fd = 3 // after standard input, output and error
	env := []string{upgradeVariable + "=" + strconv.Itoa(fd)}
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case upgradeVariable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES": // not its
		case "WATCHDOG_PID": // whose it is from now on; without it, everybody's
		default:
			env = append(env, v)
		}
	}
	p, err := spawn(binary, append([]string{binary}, s.opt.Args...), &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs}})
	if err != nil {
		l.close()
		return nil, err
	}
	return s.newSuccessor(l, p), nil
}

// newSuccessor is p at the other end of l.
func (s *Server) newSuccessor(l *link, p *os.Process) *successor {
	n := &successor{link: l, pid: p.Pid, process: p, cut: s.Cut, news: make(chan news, 16), gone: make(chan struct{})}
	n.obey = func(m *message) { s.obey(n, m) }
	s.upgrades.mu.Lock()
	s.upgrades.all = slices.DeleteFunc(s.upgrades.all, func(o *successor) bool { return !o.alive() })
	s.upgrades.all = append(s.upgrades.all, n)
	s.upgrades.mu.Unlock()
	s.tasks.Go(n.listen)
	return n
}

// listen takes in what the successor says.
func (n *successor) listen() {
	defer n.close()
	defer close(n.gone)
	for {
		m, err := n.receive()
		if m != nil {
			closeAll(m.fds)
			switch m.Kind {
			case "cut":
				n.cut()
				continue
			case "drain", "ready":
				n.obey(m)
				continue
			}
		}
		select {
		case n.news <- news{m, err}:
		default:
			if err == nil {
				continue // nobody asked
			}
		}
		if err != nil {
			return
		}
	}
}

// errLeaves is an end of the successor's that is in order.
var errLeaves = errors.New("the new lb was told to stop")

func (n *successor) alive() bool {
	select {
	case <-n.gone:
		return false
	default:
		return true
	}
}

// kill ends it, and returns when it has ended.
func (n *successor) kill() {
	n.process.Kill()
	select {
	case <-n.gone:
	case <-time.After(cutWait):
	}
	n.close()
}

// await waits for a message of that kind; any other, and the end of the process, is an error.
func (n *successor) await(ctx context.Context, kind string) (*message, error) {
	select {
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errStopping) {
			return nil, errStopping
		}
		return nil, fmt.Errorf("the new lb: %w", context.Cause(ctx))
	case m := <-n.news:
		switch {
		case errors.Is(m.err, io.EOF), errors.Is(m.err, unix.ECONNRESET):
			return nil, n.ended(kind)
		case m.err != nil:
			return nil, fmt.Errorf("the new lb: %w", m.err)
		case m.Kind == kind:
			return m.message, nil
		case m.Kind == "failed":
			var f upgradeFailure
			if err := json.Unmarshal(m.Body, &f); err != nil {
				return nil, err
			}
			return nil, errors.New(f.Why)
		case m.Kind == "leaving":
			return nil, errLeaves
		}
		return nil, fmt.Errorf("the new lb said %q and not %q", m.Kind, kind)
	}
}

// ended says what it means that the process is gone.
func (n *successor) ended(waitedFor string) error {
	switch waitedFor {
	case "prepared":
		return errors.New("the new lb ended before it was ready, without saying why to this one: see its log, and whether that binary knows how to take over")
	case "serving":
		return errors.New("the new lb ended as it was about to serve: see its log")
	}
	return errors.New("the new lb ended right after it had begun to serve: see its log")
}

// prepare has the successor do all that can fail, and returns what it has then.
func (n *successor) prepare(ctx context.Context, h *hello, files []*os.File) (*preparation, error) {
	if err := n.send("hello", h); err != nil {
		return nil, n.reason(ctx, err)
	}
	for i := 0; i < len(files); i += maxFiles {
		if err := n.send("sockets", nil, files[i:min(i+maxFiles, len(files))]...); err != nil {
			return nil, n.reason(ctx, err)
		}
	}
	m, err := n.await(ctx, "prepared")
	if err != nil {
		return nil, err
	}
	var p preparation
	if err := json.Unmarshal(m.Body, &p); err != nil {
		return nil, err
	}
	n.version = p.Version
	return &p, nil
}

// reason is why a message could not be sent: what the successor said before it ended.
func (n *successor) reason(ctx context.Context, err error) error {
	if _, why := n.await(ctx, "prepared"); why != nil {
		return why
	}
	return err
}

// watch looks for a while whether the successor lives, and at the end whether it is well.
func (n *successor) watch(ctx context.Context, d time.Duration) error {
	quiet, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if _, err := n.await(quiet, "nothing"); ctx.Err() != nil || quiet.Err() == nil {
		return err
	}
	if err := n.send("well?", nil); err != nil {
		return n.reason(ctx, err)
	}
	late, cancel := context.WithTimeoutCause(ctx, wellWait, errors.New("its event loops do not answer"))
	defer cancel()
	_, err := n.await(late, "well")
	return err
}

// wellWait is how long event loops may take to answer: they do within a round, and a busy machine lets them wait.
const wellWait = 10 * time.Second
