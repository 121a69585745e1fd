package upstream

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Decision is how Acquire answered one Selection, for people to see. It is made while somebody asks, and only then: see
// Pool.Record.
type Decision struct {
	Time     time.Time
	Pool     string
	Request  string        // what Selection.Of says
	Chosen   string        // a Candidate's name; "" when nobody was
	Why      string        // in the strategy's words
	Attempt  int           // of the same request, from 1
	Held     time.Duration // in the queue before
	Waiting  int64         // requests in the queue
	Refused  int           // of this choice: who was chosen first and had no place any more
	Again    int           // the strategy was asked again because another loop changed the load meanwhile
	FailOpen bool          // nobody is fit: those are candidates who are not known to be dead

	Candidates []Candidate // all backends of the pool

	end *ending // of the attempt; nil when nobody was chosen
}

// Ended is what became of an attempt.
type Ended struct {
	Outcome
	Took time.Duration // since the decision
}

// ending is who wants to know what becomes of an attempt.
type ending struct{ told []func(Ended) }

// Watch has f told once of what becomes of the attempt, on the loop that it is on. It may be called only while the decision
// is told, by the func that Record was given; f must not block. It reports whether there is an attempt.
func (d *Decision) Watch(f func(Ended)) bool {
	if d.end == nil {
		return false
	}
	d.end.told = append(d.end.told, f)
	return true
}

func (e *ending) tell(o Outcome, took int64) {
	for _, f := range e.told {
		f(Ended{o, time.Duration(took)})
	}
}

// Candidate is a backend at the time of a Decision.
type Candidate struct {
	Name   string
	Load   Load // before the choice
	Weight float64
	Share  float64 // of its weight that it counts with: below 1 during slow start
	Out    string  // why it could not be chosen; "" when it could
	Score  string  // how the strategy sees it, in its own words; "" when it does not look at it
}

// Explainer is a Strategy that can say why it chose. Explain is called on the loop that picked, right after Pick, and only
// while somebody asks; it may allocate, and changes nothing. It returns why v.Chosen was chosen, or nobody, and a score for
// each of the ready backends, by Backend.Index.
type Explainer interface {
	Explain(v *View) (why string, scores []string)
}

// View is what an Explainer goes by.
type View struct {
	*Selection
	Loads  []Load   // by Backend.Index: before the choice was counted
	Chosen *Backend // nil: nobody
}

// Asker says which request a Selection is for. It is called on the loop that acquires.
type Asker interface{ Asks() string }

// witness is somebody who asks.
type witness struct {
	f    func(Decision)
	gap  int64 // ns between decisions that are told
	next atomic.Int64
}

// Record has decisions of the pool told to f until stop is called, at most one every gap. f is called on loops, possibly
// on several at once and once more after stop: it must not block.
func (p *Pool) Record(gap time.Duration, f func(Decision)) (stop func()) {
	r := &witness{f: f, gap: int64(gap)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setWitnesses(append(slices.Clone(p.recording()), r))
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.setWitnesses(slices.DeleteFunc(slices.Clone(p.recording()), func(o *witness) bool { return o == r }))
	}
}

func (p *Pool) recording() []*witness {
	if all := p.witnesses.Load(); all != nil {
		return *all
	}
	return nil
}

// setWitnesses also sets the bit by which requests know that somebody asks. The caller holds p.mu.
func (p *Pool) setWitnesses(all []*witness) {
	p.witnesses.Store(&all)
	if len(all) > 0 {
		p.attention.Or(explaining)
	} else {
		p.attention.And(^int64(explaining))
	}
}

// tell tells those who ask how s was answered with chosen, nil for nobody. load is that of chosen before it was counted.
// It returns those who want to know what becomes of the attempt, nil when there are none.
func (p *Pool) tell(n *Snapshot, s *Selection, chosen *Backend, load Load, again int, err error) *ending {
	var due []*witness
	for _, r := range p.recording() {
		// Without a gap nothing is left out: the time of one loop's round may be before that of another's.
		if next := r.next.Load(); r.gap <= 0 || s.Now >= next && r.next.CompareAndSwap(next, s.Now+r.gap) {
			due = append(due, r)
		}
	}
	if len(due) == 0 {
		return nil
	}
	d := n.decision(p, s, chosen, load)
	d.Again, d.Attempt = again, s.leases+1
	if s.refused {
		d.Refused = s.n - s.before.n
	}
	if w := s.waiter; w != nil {
		d.Held = time.Duration(s.Now - w.since)
	}
	if err != nil {
		d.Why = err.Error()
	}
	if s.Of != nil {
		d.Request = s.Of.Asks()
	}
	if chosen != nil {
		d.end = new(ending)
	}
	for _, r := range due {
		r.f(d)
	}
	if d.end == nil || len(d.end.told) == 0 {
		return nil
	}
	return d.end
}

// View is how the pool's strategy sees its backends at time now, without a request.
func (p *Pool) View(now int64) Decision {
	var s Selection
	s.Reset(now, 0)
	a := p.attention.Load()
	s.ramping, s.waiting = a&ramping != 0, a&waiters
	d := p.snap.Load().decision(p, &s, nil, 0)
	d.Why = ""
	return d
}

// decision looks at all backends as s did.
func (n *Snapshot) decision(p *Pool, s *Selection, chosen *Backend, load Load) Decision {
	d := Decision{Time: time.Now(), Pool: p.Name, Waiting: s.waiting, FailOpen: n.Panic}
	v := &View{Selection: s, Loads: make([]Load, len(n.Ready)), Chosen: chosen}
	for i, b := range n.Ready {
		v.Loads[i] = b.Load()
		if chosen != nil && b.Live == chosen.Live {
			v.Loads[i] = load
		}
	}
	var scores []string
	if e, ok := n.pick.(Explainer); ok {
		d.Why, scores = e.Explain(v)
	}
	if chosen != nil {
		d.Chosen = chosen.Name
		switch own := s.Prefer; {
		case s.said == saidPreferred && s.Bound:
			d.Why = "it has the client's session, and nobody else can serve that"
		case s.said == saidPreferred:
			d.Why = "it serves this client already"
		case len(n.Ready) == 1:
			d.Why = "the only one that is ready"
		case own != nil && own.Live != chosen.Live:
			d.Why += fmt.Sprintf("; %s, which served this client, takes nothing", own.Name)
		}
	}
	for _, b := range n.All {
		c := Candidate{Name: b.Name, Weight: b.Weighs(), Share: 1, Load: b.Load()}
		if b.index >= 0 {
			c.Load, c.Share = v.Loads[b.index], b.Share(s.Now)
			if len(scores) > 0 {
				c.Score = scores[b.index]
			}
		}
		c.Out = n.out(s, b, c.Load, chosen)
		d.Candidates = append(d.Candidates, c)
	}
	return d
}

// out is why b could not be chosen.
func (n *Snapshot) out(s *Selection, b *Backend, load Load, chosen *Backend) string {
	life := b.Life()
	switch {
	case chosen != nil && b.Live == chosen.Live:
		return ""
	case life.Wanted != In:
		return "draining"
	case life.dead():
		return "down"
	case b.Weight <= 0:
		return "weight 0"
	case b.index < 0 && !life.Ejected.IsZero():
		return "ejected"
	case b.index < 0:
		return "no check has passed yet"
	case b.MaxInflight > 0 && load.requests() >= b.MaxInflight:
		return "at max_inflight"
	case s.Has(b.Live):
		return "tried before"
	}
	return ""
}

// What a Pick says of its choice where that does not follow from loads and scores.
const (
	saidNothing   = iota
	SaidWarmUp    // the backend is in slow start, and was given its share by chance
	saidPreferred // nobody was asked: it serves the client already
)

// Say notes why a Pick is about to return its choice.
func (s *Selection) Say(what uint8) { s.said = what }

// Said is what Say noted in the last Pick, 0 if nothing.
func (s *Selection) Said() uint8 { return s.said }

// Drew notes which two of the ready backends a Pick compared, by Backend.Index.
func (s *Selection) Drew(a, b int) { s.drawn = [2]int32{int32(a), int32(b)} }

// Drawn is what Drew noted.
func (s *Selection) Drawn() (a, b int) { return int(s.drawn[0]), int(s.drawn[1]) }
