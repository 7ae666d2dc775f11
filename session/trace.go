package session

import (
	"strconv"
	"strings"

	"meta9/session/wire"
)

// SetTrace makes f what Config.Trace was; nil turns tracing off.
func (s *Server) SetTrace(f func(line string)) {
	if f == nil {
		s.trace.Store(nil)
		return
	}
	s.trace.Store(&f)
}

// traceRequest traces a request, without secrets.
func (c *conn) traceRequest(m *wire.Msg) {
	hidden := c.hides(m.Fid, m.Names)
	c.traceLine("<-", m, hidden)
}

// traceReply traces the reply that begins at from in the output. It answers a request on
// fid, with those names.
func (c *conn) traceReply(from int, fid uint32, names []string) {
	if c.srv.trace.Load() == nil {
		return
	}
	var m wire.Msg
	if wire.Decode(&m, c.out[from:], c.dialect) == nil {
		c.traceLine("->", &m, c.hides(fid, names))
	}
}

func (c *conn) traceLine(way string, m *wire.Msg, hidden bool) {
	line := wire.Mask(m, func(uint32) bool { return hidden })
	if trace := c.srv.trace.Load(); trace != nil {
		(*trace)(c.sess.who.String() + " " + strconv.FormatUint(c.id, 10) + " " + way + " " + line)
	}
}

// hides tells whether the data of a file may be secret: passwords are in keys
// whose name ends so, in the VM as a whole, in the verbs that make one, and in
// transactions.
func (c *conn) hides(num uint32, names []string) bool {
	name := ""
	if len(names) > 0 {
		name = names[len(names)-1]
	} else if f := c.sess.fids[num]; f != nil && f.ref != nil {
		if path := f.ref.State().Path; len(path) > 0 {
			name = path[len(path)-1]
		}
	}
	return strings.HasSuffix(name, "_pw") || name == "vm.json" || name == "ctl" || name == "txn"
}
