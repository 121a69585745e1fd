package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/config"
	"lb/strategy"
	"lb/upstream"
)

// TestEveryKeyArrives fills a table of the configuration with values unlike the defaults and looks for each in what is
// built from it, by the name of the field.
func TestEveryKeyArrives(t *testing.T) {
	var p config.Pool
	fill(reflect.ValueOf(&p).Elem())
	// Names, Hash: see TestPlan. MaxInflight is in each backend already.
	arrived(t, reflect.ValueOf(p), reflect.ValueOf(*poolSettings(&p)), "Name", "Backends", "Strategy", "Hash", "MaxInflight", "Pos")

	var s config.Server
	fill(reflect.ValueOf(&s).Elem())
	s.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	set := proxySettings(&s, nil, nil)
	arrived(t, reflect.ValueOf(s), reflect.ValueOf(*set), "Workers", "Grace", "TrustedProxies")
	if !slices.Equal(s.TrustedProxies, set.Trusted) {
		t.Errorf("trusted: %v", set.Trusted)
	}
}

func fill(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(1000 + i))
		case reflect.Bool:
			f.SetBool(true)
		}
	}
}

func arrived(t *testing.T, from, to reflect.Value, except ...string) {
	t.Helper()
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		if slices.Contains(except, name) {
			continue
		}
		f := to.FieldByName(name)
		switch {
		case !f.IsValid():
			t.Errorf("%s.%s goes nowhere: %s has no such field", from.Type(), name, to.Type())
		case f.Interface() != from.Field(i).Interface():
			t.Errorf("%s.%s is %v, want %v", to.Type(), name, f, from.Field(i))
		}
	}
}

func TestStrategiesOfConfigExist(t *testing.T) {
	a, b := config.Strategies(), strategy.Names()
	if a[0] != strategy.Default() {
		t.Errorf("the default is %s in config and %s in strategy", a[0], strategy.Default())
	}
	slices.Sort(a)
	b = slices.Sorted(slices.Values(b))
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
}

func TestPlan(t *testing.T) {
	cfg := parse(t, `
[pool.app]
backends = [
  "localhost:3000",
  "app.internal:80",
  { address = "unix:/run/app.sock", weight = 3 },
  { address = "[::1]:3001", name = "six", max_inflight = 7 },
]
strategy = "hash"
hash = "cookie:session"
`)
	names := newResolver(func(_ context.Context, host string) ([]netip.Addr, error) {
		return map[string][]netip.Addr{
			"localhost":    {netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")},
			"app.internal": {netip.MustParseAddr("::ffff:10.0.0.2"), netip.MustParseAddr("10.0.0.1")},
		}[host], nil
	})
	p, err := newPlan(context.Background(), cfg, names)
	if err != nil {
		t.Fatal(err)
	}
	ap := func(s string) upstream.Addr { return upstream.Addr{AddrPort: netip.MustParseAddrPort(s)} }
	want := []upstream.Spec{
		{Name: "localhost:3000", Addr: ap("127.0.0.1:3000"), Weight: 1},
		{Name: "app.internal:80", Addr: ap("10.0.0.2:80"), Weight: 1},
		{Name: "unix:/run/app.sock", Addr: upstream.Addr{Path: "/run/app.sock"}, Weight: 3},
		{Name: "six", Addr: ap("[::1]:3001"), Weight: 1, MaxInflight: 7},
	}
	if !slices.Equal(p.pools[0].specs, want) {
		t.Errorf("got  %v\nwant %v", p.pools[0].specs, want)
	}
	if got := p.pools[0].settings.Hash; got != (upstream.HashKey{Source: upstream.HashCookie, Name: "session"}) {
		t.Errorf("hash: %v", got)
	}
}

// TestLookupKeepsAddress holds that a reload does not change backends because DNS shuffled its answer.
func TestLookupKeepsAddress(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	var answer []netip.Addr
	r := newResolver(func(context.Context, string) ([]netip.Addr, error) { return slices.Clone(answer), nil })
	for i, step := range []struct {
		answer []netip.Addr
		want   netip.Addr
	}{
		{[]netip.Addr{a, b}, a},
		{[]netip.Addr{b, a}, a},
		{[]netip.Addr{c, b}, c},
		{[]netip.Addr{b, c, a}, c},
	} {
		answer = step.answer
		if got := r.lookup(context.Background(), []string{"app"})["app"]; got.err != nil || got.addr != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestLookupFaults(t *testing.T) {
	for want, err := range map[string]error{
		`host "x" is not known: check its spelling, or write its address`: &net.DNSError{IsNotFound: true},
		`host "x": no answer from the name servers in time`:               &net.DNSError{IsTimeout: true},
		`host "x" cannot be looked up: boom`:                              errors.New("boom"),
	} {
		if got := lookupFault("x", err).Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	// A resolver that hangs is given up with the context.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	r := newResolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if got := r.lookup(ctx, []string{"x"})["x"]; got.err == nil {
		t.Error("no error")
	}
}
