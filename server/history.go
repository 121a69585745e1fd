package server

import (
	"math"
	"net"
	"net/netip"

	"lb/admin"
	"lb/history"
	"lb/upstream"
)

// upstreams are the pools in force.
func (s *Server) upstreams() (all []*upstream.Pool) {
	for _, p := range *s.pools.Load() {
		all = append(all, p.Pool)
	}
	return all
}

// addRecent adds to the status of a pool how it did of late.
func (s *Server) addRecent(p *admin.Pool) {
	p.Recent = recent(s.history.Recent(p.Name, ""))
	for i := range p.Backends {
		b := &p.Backends[i]
		r := s.history.Recent(p.Name, b.Name)
		b.Recent, b.Share = recent(r), math.Round(r.Share*1e6)/1e6
	}
}

func recent(r history.Recent) admin.Recent {
	return admin.Recent{Rate: math.Round(r.Rate*100) / 100, ErrorRate: math.Round(r.ErrorRate*1e6) / 1e6, P50: admin.Millis(r.P50), P99: admin.Millis(r.P99)}
}

// newLive makes what the live page follows.
func (s *Server) newLive() {
	s.live = admin.NewLive(admin.LiveSources{
		Status: s.Status, Samples: s.history.Samples, Events: s.checks.events.after,
		Actions: func() bool { return s.Config().Admin.PageActions },
	})
	s.checks.events.told = s.live.News
	s.page = admin.NewPage(func() (bool, string) {
		a := &s.Config().Admin
		return a.PageActions, a.PageHost
	}, s.actions(), s.log)
}

// warnPage says it when more may change what runs than those who may change the configuration.
func (s *Server) warnPage() {
	a := &s.Config().Admin
	host, _, _ := net.SplitHostPort(a.Address)
	ip, err := netip.ParseAddr(host)
	here := host == "localhost" || err == nil && ip.IsLoopback()
	if a.PageActions && a.Address != "" && !here {
		s.log.Warn("whoever reaches the admin address may drain backends on its page: there is no login", "address", a.Address)
	}
}
