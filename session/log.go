package session

import (
	"errors"

	"meta9/session/packet"
)

// warn logs what a peer has caused. rarelog limits how often, for each who.
func (s *Server) warn(p Peer, who, what string, err error) {
	s.rare.Warn(who).Str("who", who).Str("via", p.Via).Str("addr", p.Addr).Err(err).Msg(what)
}

// logEnd counts and logs a connection that ended because its peer broke the protocol.
// Other ends are not logged.
func (s *Server) logEnd(c *conn, who string, err error) {
	var framing framingError
	if errors.Is(err, packet.ErrPast) {
		s.stats.Past.Add(1)
		s.warn(c.peer, who, "its session is ended", err)
		return
	}
	if errors.As(err, &framing) || errors.Is(err, errTag) {
		s.stats.Protocol.Add(1)
		s.warn(c.peer, who, "connection closed", err)
	}
}
