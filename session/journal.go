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
	// Whole keeps what a session is, in place of all that it has of it, in at most room
	// bytes, and tells how many it took and the epoch. 0 bytes: it is not kept.
	Whole(id uint64, st *State, room int) (size int, epoch uint64)
	// Change keeps what has changed since.
	Change(id uint64, ch *Change)
	// Receipt keeps what changes of the session if the store's batch of that number is
	// found to be durable, and with it the reply to a request.
	Receipt(number, id uint64, ch *Change)
	// Gone forgets the session.
	Gone(id uint64)
}

// Change is what has changed of a session.
type Change struct {
	Count  uint64      `json:"count,omitempty"`  // as State's
	Fids   []FidState  `json:"fids,omitempty"`   // those that are new or different
	Gone   []uint32    `json:"gone,omitempty"`   // those that are no more
	Tokens *Tokens     `json:"tokens,omitempty"` // if they are others
	Doubt  []uint64    `json:"doubt,omitempty"`  // of Kept, those that are the replies only if no Receipt says more
	Kept   []KeptReply `json:"kept,omitempty"`   // those that were kept since
}

// receipt is what a change that is submitted needs for the journal. All but effect is set
// before that.
type receipt struct {
	keys   bool             // it is one change of one key
	makes  func() *FidState // a create: the fid when it is done, but for what the key is
	effect atomic.Pointer[Change]
}

// noted is what the journal knows of a session. Its epoch, and whether it is kept there,
// change under Server.mu; the rest belongs to the monitor.
type noted struct {
	size  atomic.Int64 // bytes of the session as it was noted last; 0: it is not kept, and nothing is gathered
	since *gathered    // nil: nothing is
}

// gathered is what the journal is to be told next.
type gathered struct {
	dirty  []uint32 // the numbers of the fids that may be other than they were noted
	fresh  []uint16 // the tags of the replies that were kept since
	tokens bool     // the tokens are other than was noted
}

func (g *gathered) nothing() bool {
	return len(g.dirty) == 0 && len(g.fresh) == 0 && !g.tokens
}

// gather is where to add to what is gathered; nil: the session is not kept.
func (n *noted) gather() *gathered {
	if n.size.Load() == 0 {
		return nil
	}
	if n.since == nil {
		n.since = new(gathered)
	}
	return n.since
}

// otherTokens notes that the session's tokens are others.
func (n *noted) otherTokens() {
	if g := n.gather(); g != nil {
		g.tokens = true
	}
}

// rest gives up the memory of a session that is parked.
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

// journalled tells whether the session is one for the journal: one that has a key, of a
// dialect that is not numbered, or has tokens. Those of the numbered dialects without
// tokens are not: a client could not be told that what it asked for was
// not done. It makes a new session after a kill, and judges by itself what is in doubt.
func (s *session) journalled() bool {
	return s.key.set && (!s.dialect.Numbered() || s.dialect.Tokens())
}

// touch notes that the fid of that number may be other than the journal says.
func (s *session) touch(num uint32) {
	g := s.noted.gather()
	if g == nil {
		return
	}
	if d := g.dirty; len(d) == 0 || d[len(d)-1] != num {
		g.dirty = append(d, num)
	}
}

// touchLocks is touch for all fids that may have locks: one that is taken by a process
// takes what the process has locked by others.
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

// asked touches the fids that a request may have changed.
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

// steady tells that reading and writing the fid does not change what its State says.
func (f *fid) steady() bool {
	_, is := f.handle.(fs.Sized)
	return is
}

// ended touches what a request that has waited may have changed.
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

// note brings the journal to what the session is now: what follows may leave. begun is a
// change that is about to be submitted; nil: none.
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
			ch.Fids = append(ch.Fids, f.state())
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

// noteBefore has the journal know of a change before it may be submitted: of what came
// before it, and of the change itself where nobody could tell whether it was done.
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

// submit runs what submits a change, with its receipt. Where the session is not in the
// journal, it may get there before the change is done: then that is in doubt.
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
	j, id, iounit := c.srv.cfg.Journal, s.id, c.iounit()
	s.view.Receipt(func(number uint64, res store.Result) {
		ch := r.changes(s.dialect, res, made, iounit)
		r.effect.Store(ch)
		j.Receipt(number, id, ch)
	})
	run()
	s.view.Receipt(nil)
}

// changes are those of the session when the change is done. It is called by the committer,
// and looks at nothing that changes.
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

// maxIdle is how long a list may be that is kept for the next time.
const maxIdle = 16

// nowWaiting are the session's requests that wait.
func (c *conn) nowWaiting() map[uint16]*request {
	if c.sess.carried != nil {
		return c.sess.nowCarried()
	}
	return c.waiting
}

// nowCarried are those that wait without a connection.
func (s *session) nowCarried() map[uint16]*request {
	if s.carried == nil {
		return nil
	}
	return s.carried.waiting
}

// there is the fid that the client knows by the number. One whose clunk has no reply yet is
// there still, as the clunk comes again if the reply does not; but in a numbered dialect
// without tokens it is answered errInDoubt.
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

// leaving are the numbers of the fids that are there still though they have no number any
// more.
func (s *session) leaving(waiting map[uint16]*request) (list []uint32) {
	for _, r := range waiting {
		if f := r.fid; f != nil && s.fids[f.num] == nil && s.there(f.num, waiting) != nil {
			list = append(list, f.num)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// noteWhole keeps all of a session. Server.mu is held, and the session's monitor where it
// has one.
func (s *Server) noteWhole(n *session, waiting map[uint16]*request) {
	if !n.kept || !n.journalled() {
		return
	}
	st := n.state(waiting)
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

// over are those of the requests that have ended, and whose replies are not made yet:
// they wait in the list, or were just taken from it.
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

// apply makes it the State after a change that was done.
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

// forgetNoted has the journal forget a session. Server.mu is held.
func (s *Server) forgetNoted(n *session) {
	if n.epoch.Load() == 0 {
		return
	}
	s.cfg.Journal.Gone(n.id)
	n.epoch.Store(0)
	s.countNoted(n, 0)
}

// Note has the journal keep all sessions that were not told of in its epoch. It tells how
// many are left, which are just on their way from or to a connection, or are parked while
// the server stops.
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

// noteDue notes a session if it is where its owner has it.
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
