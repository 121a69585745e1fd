package loop

// Runner is what a task runs.
type Runner interface{ Run() }

// Task is a coroutine of one loop. Only code on that loop may touch it. A *Task is valid until its
// Runner returns; the loop uses it again afterwards, so whoever keeps one to wake or interrupt it
// forgets it before then.
type Task struct {
	loop   *Loop
	run    Runner
	conn   *Conn // closed if the task panics; may be nil
	parked bool
	intr   error
	timer  Timer
	sys    taskSys
}

// Loop returns the loop the task runs on.
func (t *Task) Loop() *Loop { return t.loop }

// Park waits for Wake, for Interrupt, or until the given time of the loop's clock (0: no end). It
// returns the interruption or ErrTimeout, and may return nil without a Wake: ask again what was
// waited for.
func (t *Task) Park(until int64) error {
	if t.intr != nil {
		return t.intr
	}
	if until != 0 {
		if until <= t.loop.now {
			return ErrTimeout
		}
		t.timer.target = t
		t.loop.wheel.arm(&t.timer, until)
	}
	t.park()
	if until != 0 {
		t.loop.wheel.stop(&t.timer)
		if t.intr == nil && t.loop.now >= until {
			return ErrTimeout
		}
	}
	return t.intr
}

// Wake lets a parked task go on in this round or the next.
func (t *Task) Wake() {
	if t.parked {
		t.parked = false
		t.loop.enqueue(t)
	}
}

// Interrupt makes the task's present wait, and every later one, return err until ClearInterrupt.
// The first interruption wins.
func (t *Task) Interrupt(err error) {
	if t.intr == nil {
		t.intr = err
	}
	t.Wake()
}

// Interrupted returns what Interrupt said, or nil.
func (t *Task) Interrupted() error { return t.intr }

// ClearInterrupt lets the task wait again.
func (t *Task) ClearInterrupt() { t.intr = nil }

func (t *Task) fire(*Timer, int64) { t.Wake() }

// exec is one use of the task, with a panic held to the connection it served.
func (t *Task) exec() {
	done := false
	defer func() {
		if !done { // a panic, which stops here, or Goexit, which Loop.left sees next
			t.crashed(recover())
		}
	}()
	t.run.Run()
	done = true
}

func (t *Task) crashed(v any) {
	t.intr = nil
	if t.conn != nil {
		t.conn.Abort()
	}
	t.loop.group.crashed(v)
}

// Sleep waits for d nanoseconds.
func (l *Loop) Sleep(d int64) error {
	t, until := l.cur, l.now+d
	for {
		// Park returns for a Wake, too, that was meant for another wait.
		if err := t.Park(until); err == ErrTimeout {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Current returns the task that runs; nil in a Handler, a Post or a timer.
func (l *Loop) Current() *Task { return l.cur }

// Yield lets everybody else on the loop go first. Code that can go on for long without waiting calls it
// now and then, so that one fast connection starves nobody.
func (l *Loop) Yield() error {
	t := l.cur
	l.later = append(l.later, t)
	// Not parked: it will go on, and a Wake must not make it go on twice.
	t.sys.yield(struct{}{})
	return t.intr
}

type afterFunc struct{ fn func() }

func (a afterFunc) fire(*Timer, int64) { a.fn() }

// AfterFunc arms t to call fn on the loop at the given time of its clock. fn must not wait. Arming an
// armed timer moves it.
func (l *Loop) AfterFunc(t *Timer, at int64, fn func()) {
	t.target = afterFunc{fn}
	l.wheel.arm(t, at)
}

// Stop keeps the timer from firing.
func (l *Loop) Stop(t *Timer) { l.wheel.stop(t) }

// Handler is told on the loop when a connection that waits by Conn.Await has something to say: bytes,
// the end of the stream, or its read deadline. Ready must not wait; to do so it starts a task with Loop.Go.
type Handler interface {
	Ready(c *Conn, timeout bool)
}
