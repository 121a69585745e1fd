package server

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// supervisor is the service manager that started the process and wants to hear how it does: systemd, over the socket
// that NOTIFY_SOCKET names, in the words of sd_notify(3). A nil supervisor is told nothing.
type supervisor struct {
	addr  *net.UnixAddr
	watch time.Duration // it wants to hear WATCHDOG=1 at least so often, or it ends the process; 0: it does not
	log   *slog.Logger

	status string      // last told; of the goroutine in attend
	deaf   atomic.Bool // the last message did not arrive
	mute   atomic.Bool // another process speaks: systemd hears the main one only
}

// hush has nothing told until speak.
func (v *supervisor) hush() {
	if v != nil {
		v.mute.Store(true)
	}
}

func (v *supervisor) speak() {
	if v != nil {
		v.mute.Store(false)
	}
}

// newSupervisor returns nil when nobody wants to hear.
func newSupervisor(getenv func(string) string, log *slog.Logger) *supervisor {
	name := getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	// Package net takes the "@" of an abstract socket as systemd means it.
	v := &supervisor{addr: &net.UnixAddr{Name: name, Net: "unixgram"}, log: log}
	// WATCHDOG_PID tells apart whom the variables are for: a child inherits them, but is not watched.
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if text := getenv("WATCHDOG_USEC"); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if v.watch = time.Duration(n) * time.Microsecond; err != nil || v.watch <= 0 {
				log.Warn("WATCHDOG_USEC is no time, there will be no watchdog", "value", text)
				v.watch = 0
			}
		}
	}
	return v
}

// notifyWait bounds a message: the queue of the socket is full while systemd does not read, and nothing of lb may wait
// for that.
const notifyWait = time.Second

// tell sends one message of one assignment a line.
func (v *supervisor) tell(lines ...string) {
	if v == nil || v.mute.Load() {
		return
	}
	// A connection for each message, as sd_notify does: the socket may be another one after systemd restarted itself.
	err := func() error {
		c, err := net.DialUnix("unixgram", nil, v.addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(notifyWait))
		_, err = c.Write([]byte(strings.Join(lines, "\n")))
		return err
	}()
	if was := v.deaf.Swap(err != nil); err != nil && !was {
		v.log.Warn("the service manager cannot be told how lb does", "socket", v.addr.Name, "err", err)
	}
}

// reloading says that a reload begins. The caller calls done at its end, whatever came of it.
func (s *Server) reloading() (done func()) {
	if s.supervisor == nil {
		return func() {}
	}
	// From version 253 on, systemd tells by the time whether this is the reload that it asked for, and else waits on.
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		s.log.Warn("no monotonic clock", "err", err)
	}
	s.supervisor.tell("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
	return func() {
		s.tellReady()
	}
}

// tellReady says that lb serves, unless it is on its way out.
func (s *Server) tellReady() {
	if s.supervisor != nil && s.state.Load() == running {
		s.supervisor.tell("READY=1", "STATUS="+s.summary())
	}
}

// tellStop says that the process ends. It asks for as long as the configuration allows, because systemd kills after
// TimeoutStopSec, which knows nothing of a longer grace. systemd never gives less time for it.
func (s *Server) tellStop() {
	if s.supervisor == nil {
		return
	}
	c := &s.Config().Server
	most := c.StopPause + c.Grace + cutWait + flushWait + 2*time.Second // of the admin server's end, and to spare
	s.supervisor.tell("STOPPING=1", "STATUS="+s.summary(), "EXTEND_TIMEOUT_USEC="+strconv.FormatInt(most.Microseconds(), 10))
}

// attend keeps the supervisor informed until over is closed.
//
// The watchdog is fed by the loops: each is asked to run a function, and only when all have is WATCHDOG=1 sent. A
// process whose timers still fire but whose loops are stuck serves nobody and has to be restarted.
func (s *Server) attend(over <-chan struct{}) {
	v := s.supervisor
	if v == nil {
		return
	}
	period := time.Second // of the status
	if v.watch > 0 {
		period = min(period, v.watch/8)
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	var (
		answers = make(chan int, s.group.Len()) // a loop never waits to answer
		owing   = map[int]bool{}                // loops that were asked and have not answered
		asked   time.Time
		told    bool // that some do not answer
	)
	for {
		select {
		case <-over:
			return
		case i := <-answers:
			delete(owing, i)
			if len(owing) > 0 {
				continue
			}
			v.tell("WATCHDOG=1")
			if told {
				told = false
				s.log.Info("the event loops answer again", "after", time.Since(asked).Round(time.Millisecond))
			}
		case now := <-tick.C:
			if line := s.summary(); line != v.status {
				v.status = line
				v.tell("STATUS=" + line)
			}
			// Half of the time: what a loop takes to answer, and a busy machine to let us run, must not end lb.
			switch late := now.Sub(asked) >= v.watch/2-period/2; {
			case v.watch == 0 || !late:
			case len(owing) == 0:
				asked = now
				for i := range s.group.Len() {
					owing[i] = true
					s.group.Loop(i).Post(func() { answers <- i })
				}
			case !told && s.state.Load() == running: // stopped loops answer nobody
				told = true
				var which []int
				for i := range s.group.Len() {
					if owing[i] {
						which = append(which, i)
					}
				}
				s.log.Error("event loops do not answer: the watchdog is not fed", "loops", which, "watchdog", v.watch)
			}
		}
	}
}

// summary is what `systemctl status` shows: one line about the whole, and the pools that lack backends.
func (s *Server) summary() string {
	switch s.state.Load() {
	case starting:
		return "starting"
	case stopping:
		requests, tunnels := s.underWay()
		return fmt.Sprintf("stopping: %d requests and %d tunnels under way", requests, tunnels)
	}
	const most = 5 // pools by name; with fifty of them nobody reads on
	all := *s.pools.Load()
	ready, total, short := 0, 0, 0
	var b strings.Builder
	for _, p := range all {
		snap := p.Snapshot()
		r, n := len(snap.Ready), len(snap.All)
		if snap.Panic {
			r = 0 // Ready are those that get requests because there is nobody better
		}
		ready, total = ready+r, total+n
		if r == n && n > 0 {
			continue
		}
		if short++; short <= most {
			fmt.Fprintf(&b, "; %s %d of %d", p.Name, r, n)
		}
	}
	if short > most {
		fmt.Fprintf(&b, "; and %d more pools", short-most)
	}
	if len(all) == 1 {
		return fmt.Sprintf("%s: %d of %d backends ready", all[0].Name, ready, total)
	}
	return fmt.Sprintf("%d pools, %d of %d backends ready", len(all), ready, total) + b.String()
}
