package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// naming is what tells a command which instance it is for.
var naming = []string{"{port}", "{address}", "{name}", "{index}", "LB_PORT", "LB_ADDRESS", "LB_BACKEND", "LB_INDEX"}

// plain is what the shell takes as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9_.,:@%+=/\[\]-]*$`)

// Expand fills in what a command says of its instance. Shell variables such as ${port} and other words in braces are left
// alone: what looks like a slip is config.CheckCommand's to find.
func Expand(command string, t Target) (string, error) {
	values := map[string]string{
		"{port}": t.Port, "{host}": t.Host, "{address}": t.Address, "{name}": t.Name, "{index}": strconv.Itoa(t.Index), "{pool}": t.Pool,
	}
	var b strings.Builder
	for rest := command; ; {
		i := strings.IndexByte(rest, '{')
		j := -1
		if i >= 0 {
			j = strings.IndexByte(rest[i:], '}')
		}
		if j < 0 {
			b.WriteString(rest)
			return b.String(), nil
		}
		word := rest[i : i+j+1]
		b.WriteString(rest[:i])
		value, known := values[word]
		switch {
		case i > 0 && rest[i-1] == '$', !known:
			b.WriteByte('{') // the shell's; and there may be another in it
			rest = rest[i+1:]
			continue
		case value == "" && word != "{pool}":
			return "", fmt.Errorf("%s: %s has none, it is a unix socket", word, t.Name)
		case !plain.MatchString(value):
			return "", fmt.Errorf("%s would put %q into a shell command: use the variables LB_BACKEND and LB_ADDRESS", word, value)
		}
		b.WriteString(value)
		rest = rest[i+j+1:]
	}
}

const (
	// killWait is how long a command that was told to end has until it is killed.
	killWait = 5 * time.Second
	// pipeWait is how long output is waited for when the command has ended, and something that it left behind holds on
	// to it.
	pipeWait = time.Second
)

// guard is the shell script that runs a command, $1, beside somebody who watches over its process group: when the pipe at
// descriptor 3 closes without a line, this process was killed, and nobody sees the command through. lb puts the backend
// back then, and the command would restart it in the middle of requests.
var guard = fmt.Sprintf(`(trap '' TERM INT HUP; read -r _ || { kill -TERM 0; sleep %d; kill -KILL 0; }) <&3 >/dev/null 2>&1 3<&- &
exec 3<&-; exec sh -c "$1"`, int(killWait.Seconds()))

// Shell is the Command that runs line by sh, in a process group of its own, with what it is for filled in and in the
// environment. When ctx ends, or this process does, the whole group is told to end, and killed if it does not.
func Shell(line string) Command {
	return func(ctx context.Context, t Target, out func(string)) error {
		text, err := Expand(line, t)
		if err != nil {
			return err
		}
		watched, alive, err := os.Pipe()
		if err != nil {
			return err
		}
		defer alive.Close()
		cmd := exec.Command("sh", "-c", guard, "sh", text)
		cmd.ExtraFiles = []*os.File{watched}
		cmd.Env = append(os.Environ(), "LB_POOL="+t.Pool, "LB_BACKEND="+t.Name, "LB_ADDRESS="+t.Address, "LB_HOST="+t.Host, "LB_PORT="+t.Port,
			"LB_INDEX="+strconv.Itoa(t.Index))
		lines := &lineWriter{out: out}
		cmd.Stdout, cmd.Stderr = lines, lines
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.WaitDelay = pipeWait
		err = cmd.Start()
		watched.Close()
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err = <-ended:
		case <-ctx.Done():
			signal(cmd, syscall.SIGTERM)
			select {
			case err = <-ended:
			case <-time.After(killWait):
				signal(cmd, syscall.SIGKILL)
				err = <-ended
			}
			signal(cmd, syscall.SIGKILL) // what is left of the group
			err = errors.Join(ctx.Err(), err)
		}
		alive.WriteString("\n") // what it left behind on purpose may go on
		lines.end()
		if ctx.Err() == nil && errors.Is(err, exec.ErrWaitDelay) {
			err = nil // it has ended well; a process in the background still holds its output
		}
		return err
	}
}

func signal(cmd *exec.Cmd, sig syscall.Signal) {
	syscall.Kill(-cmd.Process.Pid, sig) // it may have ended just now
}

// lineWriter gives whole lines to out. What comes after end is dropped.
type lineWriter struct {
	out func(string)

	mu   sync.Mutex
	rest []byte // guarded by mu
	over bool   // guarded by mu
}

// longLine is how long a line may be until it is given out in pieces.
const longLine = 16 << 10

func (l *lineWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return 0, io.ErrClosedPipe
	}
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 && len(l.rest) >= longLine {
			i = longLine - 1
		}
		if i < 0 {
			return len(b), nil
		}
		l.out(strings.TrimRight(string(l.rest[:i+1]), "\r\n"))
		l.rest = l.rest[i+1:]
	}
}

func (l *lineWriter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 && !l.over {
		l.out(string(l.rest))
	}
	l.over = true
}
