package server

import (
	"math"

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
