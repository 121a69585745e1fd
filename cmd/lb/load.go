package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// maxClients bounds the requests of the demo's load that are under way; more are not sent.
const maxClients = 64

// load is clients that come at random moments, so many a second on average.
type load struct {
	url    string
	client *http.Client
	end    context.CancelFunc
	ended  sync.WaitGroup

	sent, failed atomic.Int64
}

// tally is what a load has done.
type tally struct{ sent, failed int64 }

func startLoad(url string, rate int) *load {
	ctx, end := context.WithCancel(context.Background())
	l := &load{url: url, end: end, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: maxClients, IdleConnTimeout: 30 * time.Second},
	}}
	if rate > 0 {
		l.ended.Add(1)
		go l.run(ctx, float64(rate))
	}
	return l
}

func (l *load) run(ctx context.Context, rate float64) {
	defer l.ended.Done()
	slots := make(chan struct{}, maxClients)
	next := time.Now()
	for {
		// Independent clients: the gaps between them are exponentially distributed.
		next = next.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		select {
		case slots <- struct{}{}:
		default:
			next = time.Now() // all are waiting: what could not be sent is not made up for
			continue
		}
		l.ended.Add(1)
		go func() {
			defer l.ended.Done()
			l.ask()
			<-slots
		}()
	}
}

func (l *load) ask() {
	l.sent.Add(1)
	res, err := l.client.Get(l.url + "/whoami")
	if err != nil {
		l.failed.Add(1)
		return
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		l.failed.Add(1)
	}
}

func (l *load) count() tally { return tally{l.sent.Load(), l.failed.Load()} }

// stop sends nothing more and waits for what is under way.
func (l *load) stop() {
	l.end()
	l.ended.Wait()
	l.client.CloseIdleConnections()
}
