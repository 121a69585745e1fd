package accesslog

import (
	"fmt"
	"os"
	"time"
)

// Next is where a log will be written to, and how: opened already, so that using it cannot fail for want of rights or
// directories.
type Next struct {
	l *Log
	opened
}

// Prepare opens what o asks for (Loops and OnError stay as they are) and leaves the log as it is. Follow it by Use or
// by Discard.
func (l *Log) Prepare(o Options) (*Next, error) {
	n, err := o.open()
	if err != nil {
		return nil, err
	}
	return &Next{l, n}, nil
}

// Discard closes what Prepare opened.
func (n *Next) Discard() { n.target.close() }

// useWait is how long the lines that were there before may take to be written where they belong.
const useWait = time.Second

// Use turns the log to n. Lines up to here are written to the old file, in its format, and it is closed; lines from
// here on, those of requests that are under way too, go to the new one. An error means that a write to the old file
// hangs: the new one is used once it returns, or that the log was closed.
func (n *Next) Use() error {
	l := n.l
	l.ctl.Lock()
	defer l.ctl.Unlock()
	if l.closing.Load() {
		n.Discard()
		return fmt.Errorf("access log: %w", os.ErrClosed)
	}
	l.path = n.path
	h := &handover{target: n.target, format: n.format, taken: make(chan struct{})}
	if !l.started.Load() {
		l.next.Store(h)
		l.takeOver()
		if l.On() {
			l.start()
		}
		return nil
	}
	if err := l.hand(h, useWait); err != nil {
		return fmt.Errorf("access log: %w", err)
	}
	return nil
}
