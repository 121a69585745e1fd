//go:build !linux || lb_portable

package loop

import (
	"sync"
	"time"
)

// poller waits for what goroutines that block in the net package have posted.
type poller struct {
	wake    chan struct{}
	live    map[*Conn]struct{}
	helpers sync.WaitGroup // goroutines that read, write, or dial for the loop
}

func (l *Loop) open() error {
	l.wake = make(chan struct{}, 1)
	l.live = map[*Conn]struct{}{}
	return nil
}

func (l *Loop) close() { l.helpers.Wait() }

func (l *Loop) trimPoller() {}

func (l *Loop) closeListeners() {} // their goroutines end by Listener.Close

func (l *Loop) abortAll() {
	for c := range l.live {
		c.Abort()
	}
}

func (l *Loop) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Loop) poll() {
	if l.busy() {
		return
	}
	wait := l.wheel.wait(Clock())
	l.sleeping.Store(true)
	defer l.sleeping.Store(false)
	if l.npost.Load() > 0 || wait == 0 {
		return
	}
	if wait < 0 {
		<-l.wake
		return
	}
	timer := time.NewTimer(time.Duration(wait))
	defer timer.Stop()
	select {
	case <-l.wake:
	case <-timer.C:
	}
}

func (l *Loop) dispatch() {} // what happens is posted
