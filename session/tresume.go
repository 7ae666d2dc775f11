package session

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"slices"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// When a session of a numbered dialect loses its transport, its requests are not waited
// for. They go on, and are answered on the next connection, after Tresume has told the
// client which requests these are (docs/protocol.md).

// carried are the waiting requests of a session without a connection, or whose connection
// has not yet sent Tresume.
type carried struct {
	srv *Server
	waits
	done *doneList
}

// carries tells whether the session goes on without its transport, which has ended: then
// it will be parked, and the client can ask for what it has missed.
func (c *conn) carries() bool {
	return c.dialect.Numbered() && c.sess.view != nil && c.srv.keeps(c.sess)
}

// keeps tells whether a session would be parked now.
func (s *Server) keeps(n *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.kept && !s.closing && !s.isFrozen(n.who.VM)
}

// carry moves the requests that wait from the connection to its session.
func (c *conn) carry() {
	if c.resuming {
		return // the session has them already: Tresume has not come yet
	}
	c.done.detach()
	c.sess.carried = &carried{srv: c.srv, waits: c.waits, done: c.done}
	c.waits, c.done = waits{bill: bill{account: c.account.Load()}}, &doneList{to: c}
}

// adopt moves the carried requests of the session to its connection. Those that have ended
// meanwhile are answered when the holder of the monitor collects.
func (c *conn) adopt() {
	c.resuming = false
	from := c.sess.carried
	if from == nil {
		return // the session came from another process
	}
	c.sess.carried = nil
	c.waits.bill.keep(0)
	c.waits, c.done = from.waits, from.done
	for _, r := range c.waiting {
		r.c = c
	}
	c.done.attach(c)
	c.serving = true
}

// nobody makes a connection without a transport for n, whose requests are k. It drops all
// replies except those that are kept. Requests that can be cancelled are cancelled, so
// only changes still wait.
func (k *carried) nobody(n *session) *conn {
	c := &conn{srv: k.srv, dialect: n.dialect}
	c.begins(n)
	c.moved.L = &c.mu
	c.closed = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adopt()
	c.cancelReads()
	c.collect()
	return c
}

// settle waits for the changes, and keeps their replies with n. Clients send the other
// requests again.
func (k *carried) settle(n *session) {
	c := k.nobody(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.waits.bill.keep(0)
}

// close ends the requests, of which no client will hear, and then n, whose requests they
// are. It waits for the changes that were begun, for the same reason as conn.finishAll.
func (k *carried) close(n *session) {
	c := k.nobody(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == 0 {
		c.waits.bill.keep(0)
		n.close()
		return
	}
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settle()
		c.waits.bill.keep(0)
		n.close()
	}()
}

// tresume answers what has become of the requests that the client names because it got no
// reply to them, and gives the replies that are kept.
func tresume(c *conn, m *wire.Msg) error {
	if !c.resuming || m.Tag != wire.NoTag {
		return errs.New(errs.Invalid, "Tresume comes right after Rsession, with the tag ~0")
	}
	states, replies, err := c.fates(m)
	if err != nil {
		return err
	}
	c.answer(&wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, Token: c.sess.numbers.tokens.Now, States: states})
	for _, k := range replies {
		from := len(c.out)
		c.out = append(c.out, k.frame...)
		c.traceReply(from, wire.NoFid, nil)
	}
	c.sess.losePauses(m.Numbers)
	c.adopt()
	c.goOnWithStalled()
	return nil
}

// fates returns what a Tresume asks for. In a dialect with tokens, the Tresume of a client
// that is not the session's gives the session back: errs.CannotResume, and the connection
// goes on with a new session.
func (c *conn) fates(m *wire.Msg) (states []uint8, replies []*kept, err error) {
	s := c.sess
	n, tokens := &s.numbers, c.dialect.Tokens()
	if tokens {
		if err := n.check(m); err != nil {
			c.giveBack()
			return nil, nil, err
		}
	}
	if states, replies, err = s.fates(m); err != nil || !tokens {
		return states, replies, err
	}
	c.srv.stats.Undone.Add(int64(bytes.Count(states, []byte{wire.Undone})))
	// The count stays: if the Rresume is lost, the client asks again about requests that
	// never came.
	n.tokens = Tokens{Now: newToken(), Before: m.Token, Sent: m.Counted}
	s.noted.otherTokens()
	return states, replies, nil
}

// check refuses a client that has sent fewer requests than came, or that does not have the
// last token: it went back in time, or another client goes on with the session.
func (n *numbers) check(m *wire.Msg) error {
	switch t := n.tokens; {
	case m.Counted < n.count:
		return errs.New(errs.CannotResume, "%d requests have come, the client knows of %d", n.count, m.Counted)
	case m.Token == t.Now, m.Token == t.Before && !t.Used:
		return nil
	}
	return errs.New(errs.CannotResume, "another client has resumed the session")
}

// newToken returns a random token that is not 0.
func newToken() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// giveBack parks the session that the connection has just got, and gives it a new one,
// which has no key.
func (c *conn) giveBack() {
	n := c.sess
	c.resuming = false
	c.begins(c.srv.newSession(n.who))
	c.sess.dialect, c.sess.foreign = c.dialect, c.foreign()
	c.srv.stats.Past.Add(1)
	c.srv.parkOrEnd(n, true)
}

// fates returns the states of the requests that a Tresume names, and the replies that are
// kept to some of them, in the order of their numbers. The client names all requests
// without a reply; it has the replies to the others, also to those that this process has
// not seen, because an earlier one was killed.
func (s *session) fates(m *wire.Msg) (states []uint8, replies []*kept, err error) {
	running, answered, tokens := s.running(), s.answered(), s.dialect.Tokens()
	last := uint64(0)
	for _, number := range m.Numbers {
		state := wire.Answered
		switch {
		case number <= last:
			return nil, nil, errs.New(errs.Invalid, "numbers ascend from 1")
		case tokens && number > m.Counted:
			return nil, nil, errs.New(errs.Invalid, "request %d is named, %d were sent", number, m.Counted)
		case !tokens && number > max(last, s.numbers.count)+1:
			return nil, nil, errs.New(errs.Invalid, "request %d is named, the one before was not; %d have come", number, s.numbers.count)
		case number > s.numbers.count:
			state = wire.Unseen
		case running[number]:
			state = wire.Running
		case answered[number] != nil:
			replies = append(replies, answered[number])
		case number <= s.numbers.undone:
			state = wire.Undone
		}
		states = append(states, state)
		last = number
	}
	return states, replies, nil
}

// running returns the numbers of the requests that are carried.
func (s *session) running() map[uint64]bool {
	set := make(map[uint64]bool)
	if s.carried != nil {
		for _, r := range s.carried.waiting {
			set[r.number] = true
		}
	}
	return set
}

// answered returns the kept replies, by the numbers of their requests.
func (s *session) answered() map[uint64]*kept {
	set := make(map[uint64]*kept)
	for _, k := range s.numbers.kept {
		set[k.number] = k
	}
	return set
}

// KeptReply is a reply that the client may not have got.
type KeptReply struct {
	Number uint64 `json:"number"` // of the request
	Frame  []byte `json:"frame"`
}

// keptState returns the kept replies, the oldest first. A change that is under way has no
// reply yet; another process could not tell whether it will be done, so it gets the reply
// errs.IO.
func (s *session) keptState(waiting map[uint16]*request) []KeptReply {
	list := make([]*kept, 0, len(s.numbers.kept))
	for _, k := range s.numbers.kept {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b *kept) int { return cmp.Compare(a.given, b.given) })
	var st []KeptReply
	for _, k := range list {
		st = append(st, KeptReply{k.number, slices.Clone(k.frame)})
	}
	begun := len(st)
	for _, r := range waiting {
		if r.once && r.cancel == nil && !r.keys {
			st = append(st, s.inDoubt(r))
		}
	}
	slices.SortFunc(st[begun:], func(a, b KeptReply) int { return cmp.Compare(a.Number, b.Number) })
	return st
}

// inDoubt returns the reply for a change of which another process cannot tell whether it
// was done.
func (s *session) inDoubt(r *request) KeptReply {
	return KeptReply{r.number, wire.AppendError(nil, r.tag, errInDoubt, s.dialect)}
}

var errInDoubt = errs.New(errs.IO, "this may or may not have been done")

// restoreKept undoes keptState.
func (s *session) restoreKept(st []KeptReply) error {
	if len(st) > 2*maxKept {
		return errs.New(errs.Invalid, "%d kept replies", len(st))
	}
	var m wire.Msg
	for _, k := range st {
		size, _, tag, ok := wire.Split(k.Frame)
		if !ok || int(size) != len(k.Frame) || size > wire.MaxKept || wire.Decode(&m, k.Frame, s.dialect) != nil {
			return errs.New(errs.Invalid, "the kept reply to request %d is none", k.Number)
		}
		s.numbers.keepReply(tag, k.Number, k.Frame)
	}
	return nil
}
