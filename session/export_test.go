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
