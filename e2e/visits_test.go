package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// visit is one session of Socket.IO, as its client knows it: by long polling, and of every second from then on by a
// WebSocket.
type visit struct {
	ids        []string // of its requests
	instance   string
	begin, end time.Time
	last       time.Time // when its last request, or what was said last, began
	how        string    // what it was about then
	said       int
	tunnel     bool // it went over to a WebSocket
	code       websocket.StatusCode
	ours       bool // ended by its client, when all was said
	closed     bool // ended by its instance, with a packet that says so
	unknown    bool // an instance knew nothing of it
	strange    string
	err        error
}

func (v *visit) String() string {
	return fmt.Sprintf("session %v with %s, from %s to %s, WebSocket: %t, said %d, then %s from %s on: %v", v.ids, v.instance, clock(v.begin), clock(v.end),
		v.tunnel, v.said, v.how, clock(v.last), v.err)
}

// What lb's clients say and hear in Engine.IO and Socket.IO: https://socket.io/docs/v4/engine-io-protocol/
const (
	eioOpen, eioClose, eioPing, eioPong, eioUpgrade, eioNoop = "0", "1", "2", "3", "5", "6"

	sioConnect, sioDisconnect, sioEvent = "40", "41", "42"
)

var (
	errClosed  = errors.New("the instance ended the session")
	errUnknown = errors.New("the instance does not know the session")
)

// startVisits adds n clients of Socket.IO to a load.
func (m *mixed) startVisits(n int, seed uint64) {
	for i := range n {
		m.workers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(300+i)))
			for m.rest(time.Duration(r.IntN(200)) * time.Millisecond) {
				v := m.visit(r)
				m.visited.Add(1)
				m.mu.Lock()
				if m.keep || !v.ours {
					m.visits = append(m.visits, v)
				}
				m.mu.Unlock()
			}
		})
	}
}

// visitor is the client in a session.
type visitor struct {
	*visit
	m    *mixed
	r    *rand.Rand
	c    conn // polls
	sid  string
	ws   *websocket.Conn
	ctx  context.Context
	left []string // packets that came and were not yet looked at
}

// visit is a session for as long as it lives, fifteen seconds at most.
func (m *mixed) visit(r *rand.Rand) (v visit) {
	v = visit{begin: time.Now(), code: -1}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	p := &visitor{visit: &v, m: m, r: r, c: conn{to: m.door.dial}, ctx: ctx}
	defer p.c.close()
	defer func() {
		if p.ws != nil {
			p.ws.CloseNow()
		}
		v.end = time.Now()
	}()
	v.err = p.live()
	v.closed, v.unknown = errors.Is(v.err, errClosed), errors.Is(v.err, errUnknown)
	if v.err == nil {
		v.ours = true
	}
	return v
}

func (p *visitor) live() error {
	if err := p.open(); err != nil {
		return err
	}
	upgrade := p.r.IntN(2) == 0
	until := p.begin.Add(time.Duration(float64(15*time.Second) * p.r.Float64()))
	for time.Now().Before(until) && p.m.rest(time.Duration(p.r.IntN(300))*time.Millisecond) {
		if upgrade && p.ws == nil && p.said > 1 {
			if err := p.goOver(); err != nil {
				return err
			}
		}
		text := fmt.Sprintf("%s-%d", p.sid, p.said)
		if err := p.send(sioEvent + `["say","` + text + `"]`); err != nil {
			return err
		}
		if err := p.hear(sioEvent + `["heard","` + text + `"]`); err != nil {
			return err
		}
		p.said++
		if p.r.IntN(4) == 0 { // and wait for nothing in particular
			if err := p.hear(eioPing); err != nil {
				return err
			}
		}
	}
	p.how = "bye"
	if p.ws != nil {
		p.ws.Close(websocket.StatusNormalClosure, "")
		return nil
	}
	return p.send(eioClose)
}

// open begins the session and waits until it is there.
func (p *visitor) open() error {
	a := p.ask("GET", "", "the handshake")
	if !a.ok() {
		return fmt.Errorf("%s", a.String())
	}
	p.instance = a.instance
	var open struct{ SID string }
	if text, ok := strings.CutPrefix(a.body, eioOpen); !ok || json.Unmarshal([]byte(text), &open) != nil || open.SID == "" {
		p.strange = "no handshake"
		return fmt.Errorf("the handshake is %q", a.body)
	}
	p.sid = open.SID
	if err := p.send(sioConnect); err != nil {
		return err
	}
	return p.hear(sioConnect)
}

// ask sends one request of the session.
func (p *visitor) ask(method, body, how string) answer {
	id := fmt.Sprint(p.m.ids.Add(1))
	p.ids = append(p.ids, id)
	p.last, p.how = time.Now(), how
	path := "/socket.io/" + id + "?EIO=4&transport=polling"
	if p.sid != "" {
		path += "&sid=" + p.sid
	}
	return p.c.do(method, path, body, "Content-Type: text/plain")
}

// outcome is the error of an answer.
func (p *visitor) outcome(a answer) error {
	switch {
	case a.err == nil && a.status == 400 && strings.Contains(a.body, `"code":1`):
		return errUnknown
	case !a.ok():
		return fmt.Errorf("%s", a.String())
	case a.instance != p.instance:
		p.strange = "it went to " + a.instance
		return fmt.Errorf("%s answered", a.instance)
	}
	return nil
}

func (p *visitor) send(packet string) error {
	if p.ws != nil {
		p.last, p.how = time.Now(), "say"
		return p.failed(p.ws.Write(p.ctx, websocket.MessageText, []byte(packet)))
	}
	return p.outcome(p.ask("POST", packet, "POST"))
}

// failed is err, or what the peer said before it.
func (p *visitor) failed(err error) error {
	if err == nil {
		return nil
	}
	if p.code = websocket.CloseStatus(err); p.code == -1 {
		for { // the peer's close frame may be there to be read
			_, _, other := p.ws.Read(p.ctx)
			if other == nil {
				continue
			}
			if p.code = websocket.CloseStatus(other); p.code != -1 {
				err = other
			}
			break
		}
	}
	return err
}

// hear waits for a packet that begins like that; pings are answered.
func (p *visitor) hear(want string) error {
	for {
		for len(p.left) > 0 {
			packet := p.left[0]
			p.left = p.left[1:]
			switch {
			case packet == eioPing:
				if err := p.send(eioPong); err != nil {
					return err
				}
			case packet == eioClose, packet == sioDisconnect:
				return errClosed
			case packet == eioNoop, strings.HasPrefix(packet, want):
			default:
				p.strange = "an unexpected packet"
				return fmt.Errorf("heard %q and not %q", packet, want)
			}
			if strings.HasPrefix(packet, want) {
				return nil
			}
		}
		if p.ws != nil {
			p.last, p.how = time.Now(), "listen"
			_, text, err := p.ws.Read(p.ctx)
			if err := p.failed(err); err != nil {
				return err
			}
			p.left = append(p.left, string(text))
			continue
		}
		a := p.ask("GET", "", "poll")
		if err := p.outcome(a); err != nil {
			return err
		}
		p.left = strings.Split(a.body, "\x1e")
	}
}

// goOver takes the session from polling to a WebSocket.
func (p *visitor) goOver() error {
	for _, packet := range p.left { // which belongs to the polling
		if packet == eioPing {
			if err := p.send(eioPong); err != nil {
				return err
			}
		}
	}
	p.left = nil
	id := fmt.Sprint(p.m.ids.Add(1))
	p.ids = append(p.ids, id)
	p.last, p.how = time.Now(), "upgrade"
	dial, stop := context.WithTimeout(p.ctx, patience)
	defer stop()
	ws, err := p.m.websocket(dial, "/socket.io/"+id+"?EIO=4&transport=websocket&sid="+p.sid)
	if err != nil {
		if strings.Contains(err.Error(), "got 400") { // what it says of the session is no more to be had
			return errUnknown
		}
		return err
	}
	p.ws, p.tunnel = ws, true
	if err := p.send(eioPing + "probe"); err != nil {
		return err
	}
	if err := p.hear(eioPong + "probe"); err != nil {
		return err
	}
	return p.send(eioUpgrade)
}

// Sessions live through reloads and upgrades, and while other instances come and go: only what befalls their own instance
// ends them. The judge of a chaos asks why.
func (c *chaos) judgeVisits(load *mixed, stories map[string]*story, lines map[string]record, complain func(string, ...any)) (requests int) {
	ends := map[string]int{}
	for i := range load.visits {
		v := &load.visits[i]
		requests += len(v.ids)
		for _, id := range v.ids {
			if _, logged := lines[id]; !logged {
				complain("request %s is not in the access log: %s", id, v)
			}
		}
		how := ""
		st := stories[v.instance]
		last := lines[v.ids[len(v.ids)-1]].Backend
		switch {
		case v.strange != "":
		case v.ours:
			how = "by the client"
			if v.tunnel {
				how += ", over a WebSocket"
			}
		case st == nil:
			if under(stories, v.begin, v.end) >= 3 {
				how = "before it began, by three instances that went away"
			} else if st := stories[last]; st != nil && within(st.deaths, v.begin, v.end, killed) {
				how = "before it began, by its instance's death"
			}
		case st.ended(v.begin, v.end):
			how = "its instance ended"
		case within(st.drains, v.begin, v.end, gone):
			how = "its instance was drained"
		case within(st.stalls, v.last.Add(-10*time.Second), v.end, gone):
			how = "its instance stood still, and was left out for that"
		}
		if how == "" {
			complain("%s %s\nthe last request went to %s\n%s", v, v.strange, last, c.history(v.begin, v.end))
		}
		ends[how]++
	}
	c.t.Logf("sessions of Socket.IO: %d, ended: %v", len(load.visits), ends)
	return requests
}
