package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/affinity"
	"lb/config"
	"lb/health"
	"lb/strategy"
	"lb/upstream"
)

// TestEveryKeyArrives fills a table of the configuration with values unlike the defaults and looks for each in what is
// built from it, by the name of the field.
func TestEveryKeyArrives(t *testing.T) {
	var p config.Pool
	fill(reflect.ValueOf(&p).Elem())
	// Names, Hash: see TestPlan. MaxInflight is in each backend already. Health, Ejection: see TestChecks. Affinity, HashBound: see TestAffinityOptions.
	// Rollout is for `lb rollout`, which reads the file itself.
	set := poolSettings(&p)
	arrived(t, reflect.ValueOf(p), reflect.ValueOf(*set), "Name", "Backends", "Strategy", "Hash", "HashBound", "MaxInflight", "RetryBudget", "Health", "Ejection", "Affinity", "Rollout", "Pos")
	if want := float64(p.RetryBudget) / 100; set.RetryShare != want {
		t.Errorf("retry share: %v, want %v", set.RetryShare, want)
	}

	var s config.Server
	fill(reflect.ValueOf(&s).Elem())
	s.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	front := proxySettings(&s, nil, nil)
	arrived(t, reflect.ValueOf(s), reflect.ValueOf(*front), "Workers", "Grace", "StopPause", "TrustedProxies")
	if !slices.Equal(s.TrustedProxies, front.Trusted) {
		t.Errorf("trusted: %v", front.Trusted)
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

// TestDefaults holds that a pool that sets nothing is what the packages say it is.
func TestDefaults(t *testing.T) {
	p := config.DefaultPool("app")
	if diff := cmp.Diff(upstream.DefaultSettings(), poolSettings(&p)); diff != "" {
		t.Error(diff)
	}
	check, passive := poolChecks(&p)
	want := health.DefaultCheck()
	want.Method, want.Status = "GET", []health.Range{{From: 200, To: 399}}
	if diff := cmp.Diff(want, check); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(health.DefaultPassive(), passive); diff != "" {
		t.Error(diff)
	}
}

func TestChecks(t *testing.T) {
	p := parse(t, `
[pool.app]
backends = [3000]
health = { path = "/h?a", method = "POST", host = "a", port = 65535, headers = { x-a = "1" }, status = [200, "300-301"], body = "b",
  interval = "1s", changing = "2s", down = "3s", timeout = "4s", fall = 5, rise = 6, jitter = 7 }
ejection = { faults = 8, share = 9, window = "10s", out = "11s", max_out = "12s" }
`).Pools[0]
	check, passive := poolChecks(&p)
	want := health.Check{
		Kind: health.HTTP, Path: "/h?a", Method: "POST", Host: "a", Port: 65535, Header: http.Header{"X-A": {"1"}},
		Status: []health.Range{{From: 200, To: 200}, {From: 300, To: 301}}, Body: "b",
		Interval: time.Second, Changing: 2 * time.Second, Down: 3 * time.Second, Timeout: 4 * time.Second, Fall: 5, Rise: 6, Jitter: .07,
	}
	if diff := cmp.Diff(want, check); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(health.Passive{Faults: 8, Ratio: .09, Window: 10 * time.Second, Out: 11 * time.Second, MaxOut: 12 * time.Second}, passive); diff != "" {
		t.Error(diff)
	}
	p = parse(t, "[pool.app]\nbackends = [3000]\nhealth.kind = \"off\"\nejection.faults = \"off\"").Pools[0]
	if check, passive = poolChecks(&p); check.Kind != health.Off || !passive.Off {
		t.Errorf("%v %v", check.Kind, passive)
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
			"app.internal": {netip.MustParseAddr("::ffff:10.0.0.2"), netip.MustParseAddr("10.0.0.1")},
		}[host], nil
	})
	p, err := newPlan(context.Background(), cfg, names, &keyring{})
	if err != nil {
		t.Fatal(err)
	}
	ap := func(s string) upstream.Addr { return upstream.Addr{AddrPort: netip.MustParseAddrPort(s)} }
	want := []upstream.Spec{
		{Name: "localhost:3000", Addr: upstream.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:3000"), Localhost: true}, Weight: 1},
		{Name: "app.internal:80", Addr: ap("10.0.0.2:80"), Weight: 1},
		{Name: "unix:/run/app.sock", Addr: upstream.Addr{Path: "/run/app.sock"}, Weight: 3},
		{Name: "six", Addr: ap("[::1]:3001"), Weight: 1, MaxInflight: 7},
	}
	if !slices.Equal(p.pools[0].specs, want) {
		t.Errorf("got  %v\nwant %v", p.pools[0].specs, want)
	}
	if got := p.pools[0].affinity; got.Kind != affinity.Hash || got.Hash != (affinity.HashKey{Source: affinity.FromCookie, Name: "session"}) {
		t.Errorf("hash: %+v", got)
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
