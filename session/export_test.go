package session

// Claims is how often the sessions that have a key were claimed.
func (s *Server) Claims() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.byKey {
		n += k.claims
	}
	return n
}

// Noted is the most that any session that has a key has gathered for the journal: numbers
// of fids, and tags.
func (s *Server) Noted() (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.byKey {
		if g := n.noted.since; g != nil {
			most = max(most, len(g.dirty), len(g.fresh))
		}
	}
	return most
}

// WouldHand is what would be handed over of the one connection, on which nothing goes on.
func (s *Server) WouldHand() (h Handed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		h = c.state()
		c.mu.Unlock()
	}
	return h
}
