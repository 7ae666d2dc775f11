package session

import "encoding/json"

// Sessions describes every session, live or parked: what the files in sessions/
// say, at once.
func (s *Server) Sessions() []json.RawMessage {
	s.mu.Lock()
	all := make([]*session, 0, len(s.byID))
	for _, n := range s.byID {
		all = append(all, n)
	}
	s.mu.Unlock()
	texts := make([]json.RawMessage, 0, len(all))
	for _, n := range all {
		if b, err := s.describe(n); err == nil {
			texts = append(texts, b)
		}
	}
	return texts
}
