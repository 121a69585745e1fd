package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"lb/admin"
	"lb/rollout"
)

// rolloutLink is the lb of a rollout. The rollout lives as long as a connection to lb does; when lb is restarted
// meanwhile, the link begins it again there, and says what is out.
type rolloutLink struct {
	find      func() (socket string, err error)
	pool, who string
	note      func(string) // nil: nobody

	attaching sync.Mutex // held while it begins anew

	mu      sync.Mutex
	current *rolloutSession   // guarded by mu; nil when the rollout has to be begun
	all     []*rolloutSession // guarded by mu
	out     map[string]string // guarded by mu: by backend, an admin.Out...
}

// rolloutSession is the rollout as one lb knows it. In an upgrade of lb there are two for a while, and it may be called
// off: the older one has to last, or that lb would put back what is out.
type rolloutSession struct {
	client *http.Client
	id     string
	stream io.Closer // what it lives as long as
	over   bool      // guarded by mu of the link: lb has ended it
}

func newRolloutLink(find func() (string, error), pool, who string) *rolloutLink {
	return &rolloutLink{find: find, pool: pool, who: who, out: map[string]string{}}
}

// begin begins the rollout, or goes on with it.
func (l *rolloutLink) begin(ctx context.Context) error {
	socket, err := l.find()
	if err != nil {
		return err
	}
	client := overSocket(socket)
	l.mu.Lock()
	o := admin.RolloutOrder{Pool: l.pool, Who: l.who, Out: map[string]string{}}
	for name, how := range l.out {
		o.Out[name] = how
	}
	l.mu.Unlock()
	// Not with ctx: lb has to know whether the rest was meant to go on, and close says that it is over.
	res, err := post(context.WithoutCancel(ctx), client, "/rollouts", o)
	if err != nil {
		r, refused := errors.AsType[*rolloutRefusal](err)
		switch {
		case refused && r.Is(admin.ErrUnknown):
			return coded(exitUnknown, err)
		case refused:
			return err
		}
		return unreachable(socket, err)
	}
	lines := bufio.NewReader(res.Body)
	line, err := lines.ReadBytes('\n')
	var begun admin.Rollout
	if err == nil {
		err = json.Unmarshal(line, &begun)
	}
	if err != nil {
		res.Body.Close()
		return fmt.Errorf("%s: lb does not know rollouts: %w", socket, err)
	}
	se := &rolloutSession{client: client, id: begun.ID, stream: res.Body}
	l.mu.Lock()
	l.current, l.all = se, append(l.all, se)
	l.mu.Unlock()
	go func() {
		io.Copy(io.Discard, lines) // until lb is gone, or close
		l.mu.Lock()
		se.over = true
		l.mu.Unlock()
		l.forget(se)
	}()
	return nil
}

// close ends the rollout: lb puts back what is out and not bad. When lb does not answer, it sees the connection end.
func (l *rolloutLink) close() {
	l.mu.Lock()
	se, all := l.current, l.all
	l.mu.Unlock()
	if se != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if res, err := post(ctx, se.client, "/rollouts/"+se.id+"/end", admin.RolloutStep{}); err == nil {
			res.Body.Close()
		}
	}
	for _, se := range all {
		se.stream.Close()
	}
}

// forget is for an lb that does not answer for the rollout any more.
func (l *rolloutLink) forget(se *rolloutSession) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == se {
		l.current = nil
	}
}

// recall looks for an lb that still knows the rollout: that which an upgrade was called off for.
func (l *rolloutLink) recall(ctx context.Context) bool {
	l.mu.Lock()
	all := slices.Clone(l.all)
	l.mu.Unlock()
	for _, se := range slices.Backward(all) {
		res, err := send(ctx, se.client, "GET", "/rollouts/"+se.id, nil)
		if err != nil {
			continue
		}
		res.Body.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		if !se.over {
			l.current = se
		}
		return !se.over
	}
	return false
}

// lbAway is how long lb may be away in the middle of a rollout: a restart of it takes a second or two.
const lbAway = 20 * time.Second

// attached is the rollout as the lb in charge knows it. If need be it is begun again there.
func (l *rolloutLink) attached(ctx context.Context) (*rolloutSession, error) {
	l.attaching.Lock()
	defer l.attaching.Unlock()
	for begin := time.Now(); ; {
		l.mu.Lock()
		se := l.current
		l.mu.Unlock()
		if se != nil {
			return se, nil
		}
		if l.recall(ctx) {
			continue
		}
		err := l.begin(ctx)
		if err == nil {
			if l.note != nil {
				l.note("lb was restarted or upgraded: the rollout goes on with the new one")
			}
			continue
		}
		if _, refused := errors.AsType[*rolloutRefusal](err); refused && !errors.Is(err, admin.ErrNotNow) {
			return nil, err
		}
		if time.Since(begin) > lbAway {
			return nil, fmt.Errorf("%w: %w", rollout.ErrGone, err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask sends an order of the rollout, again when lb was restarted meanwhile.
func (l *rolloutLink) ask(ctx context.Context, verb string, step, answer any) error {
	for {
		se, err := l.attached(ctx)
		if err != nil {
			return err
		}
		client, path := se.client, "/rollouts/"+se.id
		var res *http.Response
		if verb == "" {
			res, err = send(ctx, client, "GET", path, nil)
		} else {
			res, err = post(ctx, client, path+"/"+verb, step)
		}
		if err == nil {
			err = json.NewDecoder(res.Body).Decode(answer)
			res.Body.Close()
		}
		_, refused := errors.AsType[*rolloutRefusal](err)
		switch {
		case err == nil, ctx.Err() != nil, refused && !errors.Is(err, admin.ErrRolloutOver) && !errors.Is(err, admin.ErrNotNow):
			return err
		}
		l.forget(se)
	}
}

// setOut notes what a new lb would have to know; "" is that the backend is in use.
func (l *rolloutLink) setOut(backend, how string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if how == "" {
		delete(l.out, backend)
	} else {
		l.out[backend] = how
	}
}

func (l *rolloutLink) View(ctx context.Context) (v admin.RolloutView, err error) {
	err = l.ask(ctx, "", nil, &v)
	return v, err
}

func (l *rolloutLink) Drain(ctx context.Context, backend string, wait time.Duration) (d admin.RolloutDrained, err error) {
	l.setOut(backend, admin.OutDraining)
	err = l.ask(ctx, "drain", admin.RolloutStep{Backend: backend, Wait: wait.String()}, &d)
	if _, refused := errors.AsType[*rolloutRefusal](err); refused {
		l.setOut(backend, "")
	}
	return d, err
}

func (l *rolloutLink) Restart(ctx context.Context, backend string) (before string, err error) {
	var s admin.RolloutStep
	err = l.ask(ctx, "restart", admin.RolloutStep{Backend: backend}, &s)
	if err == nil {
		l.setOut(backend, admin.OutRestarting)
	}
	return s.Before, err
}

func (l *rolloutLink) Check(ctx context.Context, backend, before string, wait time.Duration) (c admin.RolloutChecked, err error) {
	err = l.ask(ctx, "check", admin.RolloutStep{Backend: backend, Before: before, Wait: wait.String()}, &c)
	return c, err
}

func (l *rolloutLink) Ready(ctx context.Context, backend string) error {
	err := l.ask(ctx, "ready", admin.RolloutStep{Backend: backend}, new(admin.RolloutStep))
	if err == nil {
		l.setOut(backend, "")
	}
	return err
}

func (l *rolloutLink) Bad(ctx context.Context, backend, why string) error {
	err := l.ask(ctx, "bad", admin.RolloutStep{Backend: backend, Why: why}, new(admin.RolloutStep))
	if err == nil {
		l.setOut(backend, admin.OutBad)
	}
	return err
}

// tell says how it goes, to the lb that knows the rollout if there is one now.
func (l *rolloutLink) tell(ctx context.Context, p admin.RolloutProgress) {
	l.mu.Lock()
	se := l.current
	l.mu.Unlock()
	if se == nil {
		return
	}
	if res, err := post(ctx, se.client, "/rollouts/"+se.id+"/progress", p); err == nil {
		res.Body.Close()
	}
}

func post(ctx context.Context, client *http.Client, path string, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return send(ctx, client, "POST", path, bytes.NewReader(text))
}

// send asks lb for something. An answer other than 200 is a rolloutRefusal.
func send(ctx context.Context, client *http.Client, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://lb"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil || res.StatusCode == http.StatusOK {
		return res, err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var f admin.Fault
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		f.Error = fmt.Sprintf("%s: whoever is there does not know rollouts", res.Status)
	}
	return nil, &rolloutRefusal{f.Error, res.StatusCode}
}

// rolloutRefusal is lb's answer that it does not do something.
type rolloutRefusal struct {
	text   string
	status int
}

func (r *rolloutRefusal) Error() string { return r.text }

func (r *rolloutRefusal) Is(err error) bool { return admin.RolloutStatuses[err] == r.status }
