package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"lb/upstream"
)

// Probe asks a backend once. An error says what is wrong with it; ErrDrain, that it is well and wants to be drained.
type Probe func(ctx context.Context, a upstream.Addr) error

// ErrDrain is the answer of a backend that is going away: status 503 with the header X-LB-Drain: 1.
var ErrDrain = errors.New("the backend asks to be drained")

// drainHeader is how an application says on its check path that it wants no new requests.
const drainHeader = "X-Lb-Drain"

const maxBody = 64 << 10

// probe is what c asks by.
func (c *Check) probe() Probe {
	if c.Kind == HTTP {
		return c.http()
	}
	return c.tcp
}

// dialed is what c connects to for a backend at a.
func (c *Check) dialed(a upstream.Addr) upstream.Addr {
	if c.Port != 0 && a.Path == "" {
		a.AddrPort = netip.AddrPortFrom(a.AddrPort.Addr(), c.Port)
	}
	return a
}

// dial connects for a check of a backend at a.
func (c *Check) dial(ctx context.Context, a upstream.Addr) (conn net.Conn, err error) {
	a = c.dialed(a)
	if a.Path != "" {
		return new(net.Dialer).DialContext(ctx, "unix", a.Path)
	}
	conn, err = new(net.Dialer).DialContext(ctx, "tcp", a.AddrPort.String())
	if other, ok := a.Other(); ok && errors.Is(err, syscall.ECONNREFUSED) {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", other.AddrPort.String()); !upstream.Absent(err) {
			return conn, err
		}
	}
	return conn, err
}

// knock makes a connection and closes it.
func knock(ctx context.Context, a upstream.Addr) error {
	return (&Check{}).tcp(ctx, a)
}

func (c *Check) tcp(ctx context.Context, a upstream.Addr) error {
	conn, err := c.dial(ctx, a)
	if err != nil {
		return cause(err)
	}
	return conn.Close()
}

// http makes a connection for each check: that new connections are taken is part of what is asked, and a kept one would
// hold up a backend that waits for its connections to end.
func (c *Check) http() Probe {
	t := &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxBody,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.dial(ctx, ctx.Value(addrKey{}).(upstream.Addr))
		},
	}
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, a upstream.Addr) error {
		host := "localhost"
		if a.Path == "" {
			a := a
			a.AddrPort = netip.AddrPortFrom(a.AddrPort.Addr().WithZone(""), a.AddrPort.Port()) // it means something on this machine only
			host = c.dialed(a).String()
		}
		r, err := http.NewRequestWithContext(context.WithValue(ctx, addrKey{}, a), c.Method, "http://"+host+c.Path, nil)
		if err != nil {
			return err
		}
		r.Header.Set("User-Agent", "lb-health")
		for k, v := range c.Header {
			r.Header[http.CanonicalHeaderKey(k)] = v
		}
		if c.Host != "" {
			r.Host = c.Host
		}
		resp, err := client.Do(r)
		if err != nil {
			return cause(err)
		}
		defer resp.Body.Close()
		return c.judge(resp)
	}
}

type addrKey struct{}

// judge is what an answer says.
func (c *Check) judge(resp *http.Response) error {
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get(drainHeader) == "1" {
		return ErrDrain
	}
	well := false
	for _, r := range c.Status {
		well = well || resp.StatusCode >= r.From && resp.StatusCode <= r.To
	}
	if !well {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	if c.Body == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if bytes.Contains(body, []byte(c.Body)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("body: %w", cause(err))
	}
	return fmt.Errorf("body of %d bytes without %q", len(body), c.Body)
}

// cause is the part of a network error that people want to read, without addresses that are known anyway.
func cause(err error) error {
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return ErrTimeout
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if sys := errors.Unwrap(op.Err); sys != nil {
			return sys
		}
		return op.Err
	}
	if u, ok := errors.AsType[interface {
		error
		Unwrap() error
	}](err); ok && u.Unwrap() != nil {
		return u.Unwrap()
	}
	return err
}

// ErrTimeout is a Probe's error when nothing came in time.
var ErrTimeout = errors.New("timed out")

// run asks once, within timeout.
func (p Probe) run(ctx context.Context, a upstream.Addr, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p(ctx, a)
}
