package session

import (
	"slices"
	"sync/atomic"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session/wire"
)

// Journal records the sessions that outlive a kill of the process (see journalled): each
// whole, and then its changes. A change is recorded before the reply that shows it is
// sent; in a dialect with tokens also before a request that must not be done twice is
// submitted to the store. So the journal has each session as of the last reply that its
// client may have got.
//
// It has epochs. Records of earlier epochs will be dropped, so after a new one has begun
// the next record of a session must be the whole. The methods are called from any
// goroutine, with locks of package session held, and must not call back into it.
type Journal interface {
	// Epoch is the current epoch, from 1 on; 0: the journal has ended.
	Epoch() uint64
	// Whole records all of a session, in place of all earlier records of it, in at most room
	// bytes. It returns how many bytes that took, and the epoch. 0 bytes: the session is not
	// in the journal.
	Whole(id uint64, st *State, room int) (size int, epoch uint64)
	// Change records what has changed since the last record.
	Change(id uint64, ch *Change)
	// Receipt records what changes in the session, and the reply to a request, if the
	// store's batch of that number is durable.
	Receipt(number, id uint64, ch *Change)
	// Gone records that the session has ended.
	Gone(id uint64)
}

// Change is what has changed in a session.
type Change struct {
	Count  uint64      `json:"count,omitempty"`  // as State's
	Fids   []FidState  `json:"fids,omitempty"`   // those that are new or different
	Gone   []uint32    `json:"gone,omitempty"`   // those that have ended
	Tokens *Tokens     `json:"tokens,omitempty"` // if they have changed
	Doubt  []uint64    `json:"doubt,omitempty"`  // numbers of replies in Kept that count only if there is no Receipt
	Kept   []KeptReply `json:"kept,omitempty"`   // those that are new
}

// receipt is what the journal needs of a change that is submitted to the store. All but
// effect is set before that.
type receipt struct {
	keys   bool             // it is one change of one key
	makes  func() *FidState // a create: the fid when it is done, but for what the key is
	effect atomic.Pointer[Change]
}

// noted is what the journal knows of a session. Its epoch and its size change under
// Server.mu; the monitor guards the rest.
type noted struct {
	size  atomic.Int64 // bytes of the session's last record as a whole; 0: it is not in the journal, and nothing is gathered
	since *gathered    // nil: nothing has changed
}

// gathered is what has changed since the session's last record.
type gathered struct {
	dirty  []uint32 // the numbers of the fids that may have changed
	fresh  []uint16 // the tags of the replies that are new
	tokens bool     // the tokens have changed
}

func (g *gathered) nothing() bool {
	return len(g.dirty) == 0 && len(g.fresh) == 0 && !g.tokens
}

// gather returns the session's gathered; nil: the session is not in the journal.
func (n *noted) gather() *gathered {
	if n.size.Load() == 0 {
		return nil
	}
	if n.since == nil {
		n.since = new(gathered)
	}
	return n.since
}

// otherTokens notes that the session's tokens have changed.
func (n *noted) otherTokens() {
	if g := n.gather(); g != nil {
		g.tokens = true
	}
}

// rest frees the memory for gathering in a session that is parked.
func (n *noted) rest() {
	if n.since != nil && n.since.nothing() {
		n.since = nil
	}
}

// maxNotedOfVM is how many bytes of the journal the sessions of one VM may take, and
// maxNoted those of one session.
const (
	maxNotedOfVM = 4 << 20
	maxNoted     = 1 << 20
)

// journalled tells whether the session belongs in the journal: it has a key, and its
// dialect is not numbered or has tokens. Sessions of the numbered dialects without tokens
// do not belong there, because their clients could not be told that a request was not
// done. Such a client makes a new session after a kill, and decides itself about requests
// in doubt.
func (s *session) journalled() bool {
	return s.key.set && (!s.dialect.Numbered() || s.dialect.Tokens())
}

// touch notes that the fid of that number may have changed.
func (s *session) touch(num uint32) {
	g := s.noted.gather()
	if g == nil {
		return
	}
	if d := g.dirty; len(d) == 0 || d[len(d)-1] != num {
		g.dirty = append(d, num)
	}
}

// touchLocks is touch for all fids that may have locks: when a process takes a lock by one
// fid, the locks that it has by other fids may go.
func (s *session) touchLocks() {
	if s.noted.size.Load() == 0 {
		return
	}
	for num, f := range s.fids {
		if f.locks != nil {
			s.touch(num)
		}
	}
}

// asked calls touch for the fids that a request may have changed.
func (s *session) asked(m *wire.Msg) {
	if s.noted.size.Load() == 0 {
		return
	}
	switch m.Type {
	case wire.Tauth:
		s.touch(m.Afid)
	case wire.Twalk:
		s.touch(m.Newfid)
	case wire.Tlock:
		s.touch(m.Fid)
		s.touchLocks()
	case wire.Tread, wire.Twrite:
		if f := s.fids[m.Fid]; f != nil && !f.steady() {
			s.touch(m.Fid)
		}
	case wire.Tattach, wire.Topen, wire.Tcreate, wire.Tlopen, wire.Tlcreate, wire.Tclunk, wire.Tremove, wire.Twstat, wire.Tsetattr:
		s.touch(m.Fid)
	}
}

// steady tells that reads and writes of the fid do not change its FidState.
func (f *fid) steady() bool {
	_, is := f.handle.(fs.Sized)
	return is
}

// ended calls touch for what a request that has waited may have changed.
func (s *session) ended(r *request) {
	switch f := r.fid; {
	case s == nil || f == nil || s.noted.size.Load() == 0:
	case r.n > 0 && r.err == nil && f.steady(): // a write
	default:
		s.touch(f.num)
		if f.locks != nil {
			s.touchLocks()
		}
	}
}

// note records all changes of the session, so that replies may be sent. begun is a change
// that is about to be submitted; nil: none.
func (c *conn) note(begun *request) {
	j, s := c.srv.cfg.Journal, c.sess
	if j == nil || s == nil || s.view == nil || !s.journalled() {
		return
	}
	n := &s.noted
	switch epoch := j.Epoch(); {
	case epoch == 0:
		n.clear()
		return
	case s.epoch.Load() < epoch:
		c.srv.mu.Lock()
		defer c.srv.mu.Unlock()
		c.srv.noteWhole(s, c.nowWaiting())
		return
	}
	g := n.gather()
	if g == nil {
		n.clear()
		return
	}
	if g.nothing() && begun == nil {
		return
	}
	ch := Change{Count: s.numbers.count}
	if g.tokens {
		ch.Tokens = new(s.numbers.tokens)
	}
	slices.Sort(g.dirty)
	for _, num := range slices.Compact(g.dirty) {
		if f := s.there(num, c.nowWaiting()); f != nil {
			ch.Fids = append(ch.Fids, f.state(nil))
		} else {
			ch.Gone = append(ch.Gone, num)
		}
	}
	for _, tag := range g.fresh {
		if k := s.numbers.kept[tag]; k != nil {
			ch.Kept = append(ch.Kept, KeptReply{k.number, k.frame})
		}
	}
	if begun != nil {
		ch.Kept = append(ch.Kept, s.inDoubt(begun))
		ch.Doubt = []uint64{begun.number}
	}
	n.clear()
	j.Change(s.id, &ch)
}

// noteBefore records, before a change is submitted, what came before it, and also the
// change itself if afterwards nobody could tell whether it was done.
func (c *conn) noteBefore(r *request) {
	if !r.once || c.srv.cfg.Journal == nil || !c.sess.journalled() {
		r.keys = false
		return
	}
	switch f := r.fid; {
	case f == nil: // Tswrite, which knows
	case r.answer == wire.Rwrite:
		r.keys = f.making || f.steady() && f.ref.Keys()
	default:
		r.keys = f.ref != nil && f.ref.Keys()
	}
	if r.keys {
		c.note(nil)
	} else {
		c.note(r)
	}
}

// submit runs the function that submits a change, with its receipt. A session that is not
// in the journal may be recorded before the change is done; then that record has the
// change as in doubt.
func (c *conn) submit(r *request, run func()) {
	s := c.sess
	if !r.keys || s.view == nil || s.noted.size.Load() == 0 {
		r.keys = false
		run()
		return
	}
	var made *FidState
	if r.makes != nil {
		made = r.makes()
	}
	j, id, d, iounit := c.srv.cfg.Journal, s.id, s.dialect, c.iounit() // as they are now: the session may be resumed meanwhile
	s.view.Receipt(func(number uint64, res store.Result) {
		ch := r.changes(d, res, made, iounit)
		r.effect.Store(ch)
		j.Receipt(number, id, ch)
	})
	run()
	s.view.Receipt(nil)
}

// changes returns the changes of the session when the change is done. The committer calls
// it, so it reads nothing that can change meanwhile.
func (r *request) changes(d wire.Dialect, res store.Result, made *FidState, iounit uint32) *Change {
	m := wire.Msg{Type: r.answer, Tag: r.tag}
	ch := &Change{Count: r.number}
	switch r.answer {
	case wire.Rwrite:
		m.Count = uint32(res.N)
	case wire.Rswrite:
		m.Count = uint32(r.size)
	case wire.Rcreate, wire.Rlcreate:
		m.QID, m.Iounit = fs.KeyQID(res.Entry), iounit
		f := *made
		f.Node.ID = res.Entry.ID
		if h := f.Handle; h.Flags&fs.Trunc != 0 && res.Entry.Value != "" {
			h.Held, h.Rev = true, res.Entry.Rev
		}
		f.Handle.Flags &^= fs.Trunc | fs.Excl
		ch.Fids = []FidState{f}
	case wire.Rclunk, wire.Rremove:
		ch.Gone = []uint32{r.fid.num}
	}
	frame, err := wire.Append(nil, &m, d)
	if err == nil {
		ch.Kept = []KeptReply{{r.number, frame}}
	}
	return ch
}

func (n *noted) clear() {
	g := n.since
	if g == nil {
		return
	}
	g.tokens, g.dirty, g.fresh = false, g.dirty[:0], g.fresh[:0]
	if cap(g.dirty) > maxIdle {
		g.dirty = nil
	}
	if cap(g.fresh) > maxIdle {
		g.fresh = nil
	}
}

// maxIdle is the largest capacity of a list that is kept for its next use.
const maxIdle = 16

// nowWaiting returns the session's requests that wait.
func (c *conn) nowWaiting() map[uint16]*request {
	if c.sess.carried != nil {
		return c.sess.nowCarried()
	}
	return c.waiting
}

// nowCarried returns those that wait without a connection.
func (s *session) nowCarried() map[uint16]*request {
	if s.carried == nil {
		return nil
	}
	return s.carried.waiting
}

// there returns the fid that the client knows by the number. A fid whose clunk has no
// reply yet is still included, because the client sends the clunk again if the reply is
// lost. In a numbered dialect without tokens that clunk is answered errInDoubt.
func (s *session) there(num uint32, waiting map[uint16]*request) *fid {
	f := s.fids[num]
	if f != nil || s.dialect.Numbered() && !s.dialect.Tokens() {
		return f
	}
	for _, r := range waiting {
		if r.fid != nil && r.fid.num == num && r.cancel == nil {
			return r.fid
		}
	}
	return nil
}

// leaving returns the numbers of the fids whose clunk has no reply yet.
func (s *session) leaving(waiting map[uint16]*request) (list []uint32) {
	for _, r := range waiting {
		if f := r.fid; f != nil && s.fids[f.num] == nil && s.there(f.num, waiting) != nil {
			list = append(list, f.num)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// noteWhole records all of a session. Server.mu is held, and the session's monitor if it
// has a connection.
func (s *Server) noteWhole(n *session, waiting map[uint16]*request) {
	if !n.kept || !n.journalled() {
		return
	}
	st := n.state(waiting, 0) // a read from offset 0, which changes what is being read, is not recorded
	for _, r := range waiting {
		if r.once && r.cancel == nil && !r.keys {
			st.Doubt = append(st.Doubt, r.number)
		}
	}
	for _, r := range n.over(waiting) {
		if ch := r.effect.Load(); ch != nil && r.err == nil {
			st.apply(ch)
		}
	}
	room := maxNoted
	if n.who.VM != "" {
		room = min(room, maxNotedOfVM-int(s.use(n.who.VM).noted)+int(n.noted.size.Load()))
	}
	size, epoch := s.cfg.Journal.Whole(n.id, &st, room)
	s.countNoted(n, size)
	n.noted.clear()
	n.epoch.Store(epoch)
}

// over returns the requests that have ended and whose replies are not made yet: they are
// in the list of ended ones, or were just taken from it.
func (s *session) over(waiting map[uint16]*request) (list []*request) {
	for _, r := range waiting {
		r.done.mu.Lock()
		if r.over || slices.Contains(r.done.list, r) {
			list = append(list, r)
		}
		r.done.mu.Unlock()
	}
	return list
}

// apply changes the State as a change that was done has changed the session.
func (st *State) apply(ch *Change) {
	st.Fids = slices.DeleteFunc(st.Fids, func(f FidState) bool {
		return slices.Contains(ch.Gone, f.Fid) || slices.ContainsFunc(ch.Fids, func(o FidState) bool { return o.Fid == f.Fid })
	})
	st.Fids = append(st.Fids, ch.Fids...)
	for _, k := range ch.Kept {
		st.Kept = slices.DeleteFunc(st.Kept, func(o KeptReply) bool { return o.Number == k.Number })
		st.Kept = append(st.Kept, k)
		st.Doubt = slices.DeleteFunc(st.Doubt, func(n uint64) bool { return n == k.Number })
	}
}

// countNoted notes how many bytes of the journal n takes.
func (s *Server) countNoted(n *session, size int) {
	if n.who.VM != "" {
		s.use(n.who.VM).noted += int64(size) - n.noted.size.Load()
	}
	n.noted.size.Store(int64(size))
}

// forgetNoted removes a session from the journal. Server.mu is held.
func (s *Server) forgetNoted(n *session) {
	if n.epoch.Load() == 0 {
		return
	}
	s.cfg.Journal.Gone(n.id)
	n.epoch.Store(0)
	s.countNoted(n, 0)
}

// Note records all sessions that are not in the current epoch yet. It returns how many are
// left: they are just being parked or resumed, or are parked while the server stops.
func (s *Server) Note() (left int) {
	epoch := s.cfg.Journal.Epoch()
	s.mu.Lock()
	var due []*session
	for _, n := range s.byKey {
		if n.epoch.Load() < epoch {
			due = append(due, n)
		}
	}
	s.mu.Unlock()
	for _, n := range due {
		if !s.noteDue(n, epoch) {
			left++
		}
	}
	return left
}

// noteDue records a session. false: it is just being parked or resumed.
func (s *Server) noteDue(n *session, epoch uint64) bool {
	s.mu.Lock()
	c := n.owner
	if c == nil {
		defer s.mu.Unlock()
		// settleParked works on parked sessions without this mutex.
		if s.closing || n.kept && n.inParked == nil {
			return false
		}
		s.noteWhole(n, n.nowCarried())
		return true
	}
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess != n {
		return false
	}
	if n.epoch.Load() < epoch {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.noteWhole(n, c.nowWaiting())
	}
	return true
}
