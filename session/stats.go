package session

import "sync/atomic"

// counters are what Stats counts since the start.
type counters struct {
	Requests, Errors, Protocol, Refused    atomic.Int64
	Stuck                                  atomic.Int64
	Resumed, Expired, Misses, AuthFailures atomic.Int64
	Past, Undone                           atomic.Int64
}

// Stats are figures of a Server. Conns, Sessions, Parked and ParkedBytes are as of
// now, the rest counts since New.
type Stats struct {
	Conns       int   // connections
	Asleep      int   // of them, those that are silent and have no goroutine
	Sessions    int   // attached sessions, live and parked
	Parked      int   // parked sessions
	ParkedBytes int64 // memory that they are thought to take

	Requests       int64 // T-messages
	Errors         int64 // of them, those that got an error reply
	ProtocolErrors int64 // connections closed for bad framing or a tag in use
	Refused        int64 // connections closed at once, for a limit
	Stuck          int64 // connections closed that held memory and stood still, when it was short
	Resumed        int64 // sessions that were resumed
	Expired        int64 // parked sessions whose time or room was over
	Past           int64 // connections of guests that went back in time
	Undone         int64 // requests of which a client was told that they were not done, since the server was killed
	Misses         int64 // keys that led nowhere, where no peer is proved
	AuthFailures   int64 // MUMBLE messages that were refused
}

// VMStats says how many connections a VM has, and how many sessions that can be
// resumed, of which some are parked.
func (s *Server) VMStats(uuid string) (conns, sessions, parked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.vms[uuid]
	if u == nil {
		return 0, 0, 0
	}
	return u.conns, u.kept, u.parked.Len()
}

// Stats reads the figures.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	st := Stats{Conns: len(s.conns), Sessions: len(s.byID), Parked: s.parked.Len(), ParkedBytes: s.bytes}
	s.mu.Unlock()
	st.Asleep = s.sleepers.count()
	n := &s.stats
	st.Requests, st.Errors, st.ProtocolErrors = n.Requests.Load(), n.Errors.Load(), n.Protocol.Load()
	st.Stuck = n.Stuck.Load()
	st.Refused, st.Resumed, st.Expired = n.Refused.Load(), n.Resumed.Load(), n.Expired.Load()
	st.Past, st.Undone = n.Past.Load(), n.Undone.Load()
	st.Misses, st.AuthFailures = n.Misses.Load(), n.AuthFailures.Load()
	return st
}
