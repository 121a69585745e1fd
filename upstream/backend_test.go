package upstream

import "testing"

func TestMemory(t *testing.T) {
	var m Memory
	made := 0
	recall := func(name string) *int {
		return m.Recall(name, func() any { made++; return new(int) }).(*int)
	}
	a := recall("a")
	if recall("a") != a || recall("b") == a || recall("a") != a || made != 2 {
		t.Errorf("%d were made for two names", made)
	}
}

// TestAdoptTunnel: what another process's tunnel is to is looked for by name and address, and counts here.
func TestAdoptTunnel(t *testing.T) {
	p := newPool("a b c")
	p.SetWanted(backend(t, p, "c"), Draining)
	a, b := backend(t, p, "a"), backend(t, p, "b")
	l, ok := p.AdoptTunnel("b", b.Addr.String(), 1, 7)
	if !ok || l.Backend() != b || l.Start() != 7 || b.Tunnels() != 1 || b.Inflight() != 0 {
		t.Fatalf("%v, at %v since %d, %d tunnels and %d requests", ok, l.Backend(), l.Start(), b.Tunnels(), b.Inflight())
	}
	for name, addr := range map[string]string{"a": b.Addr.String(), "d": a.Addr.String(), "c": backend(t, p, "c").Addr.String()} {
		if _, ok := p.AdoptTunnel(name, addr, 1, 7); ok {
			t.Errorf("%s at %s took it", name, addr)
		}
	}
	l.Done(Outcome{Now: 8})
	for _, x := range p.Snapshot().All {
		if n := x.Tunnels() + x.Inflight(); n != 0 {
			t.Errorf("%s counts %d in the end", x.Name, n)
		}
	}
}
