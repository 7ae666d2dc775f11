package session

import (
	"container/list"
	"strconv"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session/wire"
)

// table has every attached session, and finds those that have a key. It is part of the
// Server, whose mu guards it.
//
// A session is in byID from its first attach to its end. It is kept, that is in
// byKey and counted for its VM, from then on if it has a key, until another takes
// the key, the VM is dropped, or it ends. It has an owner or is in parked, never
// both; what is parked is kept.
type table struct {
	byID      map[uint64]*session
	byKey     map[indexID]*session
	lastID    uint64
	vms       map[string]*vmUse // by UUID; "" is the admin
	parkedVMs parkedHeap        // of vms, those with parked sessions
	parked    list.List         // of *session, the longest parked first
	bytes     int64             // the sizes of the parked ones
	timer     *time.Timer
}

// vmUse counts what one VM has at this server.
type vmUse struct {
	conns      int
	kept       int       // sessions with a key, parked ones included
	parked     list.List // of *session, the longest parked first
	bytes      int64     // the sizes of the parked ones
	noted      int64     // bytes of the journal that its sessions take
	admin      bool
	frozen     bool    // its new connections are refused; see FreezeVM
	parkedPart float64 // its part of what may be parked; see parkedHeap
	heapAt     int     // its index in parkedVMs; -1: it is not there
}

// use returns the VM's vmUse, and makes it if there is none.
func (t *table) use(uuid string) *vmUse {
	u := t.vms[uuid]
	if u == nil {
		u = &vmUse{heapAt: -1, admin: uuid == ""}
		t.vms[uuid] = u
	}
	return u
}

// forgetUnused deletes the vmUse of a VM that has nothing here.
func (t *table) forgetUnused(uuid string) {
	if u := t.vms[uuid]; u != nil && u.conns == 0 && u.kept == 0 && u.parked.Len() == 0 && !u.frozen {
		delete(t.vms, uuid)
	}
}

// enroll adds a session at its first attach, and again when it gets another key. From then
// on it is in sessions/ and, if it has a key, is kept.
func (s *Server) enroll(c *conn, n *session) {
	s.mu.Lock()
	var gone []*session
	if n.id == 0 {
		s.lastID++
		n.id, n.via, n.since = s.lastID, c.peer.Via, s.cfg.Now()
		s.byID[n.id] = n
		n.owner = c
	}
	if n.kept {
		s.forget(n)
	}
	if n.key.set {
		gone = s.enterKey(n)
	}
	s.mu.Unlock()
	closeAll(gone)
}

// enterKey makes the key lead to n. A key leads to the newest session that has it; but on
// a foreign channel a key never takes another principal's place. If the VM has too many
// sessions, it loses the one that was parked longest; if none is parked, n stays without a
// key.
func (s *Server) enterKey(n *session) (gone []*session) {
	n.index = s.indexer.id(&n.key, n.who, n.foreign)
	if old := s.byKey[n.index]; old != nil {
		if old.who != n.who {
			return nil
		}
		gone = s.release(old)
	}
	if n.who.VM != "" {
		u := s.use(n.who.VM)
		if u.kept >= s.cfg.Limits.VMSessions {
			if u.parked.Len() == 0 {
				return gone
			}
			gone = append(gone, s.release(u.parked.Front().Value.(*session))...)
			u = s.use(n.who.VM)
		}
		u.kept++
	}
	s.byKey[n.index] = n
	n.kept = true
	return gone
}

// enterParked adds n, which is a restored session, to the parked ones, if its key can lead
// to it. A journal that has begun is told of it.
func (s *Server) enterParked(n *session) (gone []*session) {
	gone = s.enterKey(n)
	if !n.kept {
		return append(gone, n)
	}
	s.lastID++
	n.id = s.lastID
	s.byID[n.id] = n
	gone = append(gone, s.park(n)...)
	if j := s.cfg.Journal; j != nil && j.Epoch() != 0 {
		s.noteWhole(n, n.nowCarried()) // not where n itself had to go
	}
	return gone
}

// forget undoes enterKey.
func (s *Server) forget(n *session) {
	if !n.kept {
		return
	}
	n.kept = false
	s.forgetNoted(n)
	delete(s.byKey, n.index)
	if n.who.VM != "" {
		s.use(n.who.VM).kept--
		s.forgetUnused(n.who.VM)
	}
}

// release takes the key from a session. That ends a parked one: the caller must close it
// when Server.mu is free, because closing takes the locks of the tree.
func (s *Server) release(n *session) []*session {
	if n.owner != nil {
		s.forget(n)
		return nil
	}
	s.unpark(n)
	s.forget(n)
	delete(s.byID, n.id)
	return []*session{n}
}

// park keeps n, which has a key and whose size is known, without an owner, together with
// its waiting requests. If there is no room, it evicts sessions of the VM that has most,
// the longest parked first: a VM that fills the table loses its own sessions.
func (s *Server) park(n *session) (gone []*session) {
	n.owner, n.since = nil, s.cfg.Now()
	n.inParked = s.parked.PushBack(n)
	s.bytes += n.size
	u, l := s.use(n.who.VM), &s.cfg.Limits
	n.inVMParked = u.parked.PushBack(n)
	u.bytes += n.size
	s.parkedVMs.update(u)
	over := n.bill.account.Over()
	for n.who.VM != "" && (u.bytes > l.vmParkedBytes() || over > 0 && u.parked.Len() > 0) {
		over -= u.oldest().bill.paid
		gone = append(gone, s.release(u.oldest())...)
	}
	for s.parked.Len() > l.Parked || s.bytes > l.ParkedBytes {
		gone = append(gone, s.release(s.parkedVMs.most())...)
	}
	s.forgetUnused(n.who.VM)
	s.stats.Expired.Add(int64(len(gone)))
	if s.parked.Len() == 1 {
		s.arm()
	}
	return gone
}

func (s *Server) oldest() *session { return s.parked.Front().Value.(*session) }

// unpark removes n from the parked sessions.
func (s *Server) unpark(n *session) {
	s.parked.Remove(n.inParked)
	s.bytes -= n.size
	u := s.use(n.who.VM)
	u.parked.Remove(n.inVMParked)
	u.bytes -= n.size
	s.parkedVMs.update(u)
	s.forgetUnused(n.who.VM)
	n.inParked, n.inVMParked = nil, nil
}

// arm sets the timer to the end of the session that was parked longest; one timer is
// enough, because all sessions have the same lifetime.
func (s *Server) arm() {
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.parked.Len() > 0 && !s.closing {
		s.timer = time.AfterFunc(s.cfg.Lifetime-s.cfg.Now().Sub(s.oldest().since), s.expire)
	}
}

// expire ends the sessions whose lifetime is over.
func (s *Server) expire() {
	var gone []*session
	s.mu.Lock()
	now := s.cfg.Now()
	for s.parked.Len() > 0 && !s.closing && now.Sub(s.oldest().since) >= s.cfg.Lifetime {
		gone = append(gone, s.release(s.oldest())...)
	}
	s.arm()
	s.mu.Unlock()
	closeAll(gone)
	s.stats.Expired.Add(int64(len(gone)))
}

func closeAll(gone []*session) {
	for _, n := range gone {
		n.close()
	}
}

// parkOrEnd takes the session of a connection that ends or begins another: it parks the
// session if it may, else it ends it. None of its requests wait any more, or they are
// carried.
func (s *Server) parkOrEnd(n *session, mayPark bool) {
	mayPark = mayPark && n.view != nil
	if mayPark {
		n.view.Park()
		n.noted.rest()
		n.size = n.estimate() // before Server.mu is taken: it may take long
		n.bill.keep(0)
		n.bill.force(n.size)
	}
	s.mu.Lock()
	var gone []*session
	parks := mayPark && n.kept && (!s.closing || s.frozen)
	if parks {
		gone = s.park(n)
	} else {
		s.forget(n)
		delete(s.byID, n.id)
		n.owner = nil
		gone = []*session{n}
	}
	if n.freed != nil {
		close(n.freed)
		n.freed = nil
	}
	s.mu.Unlock()
	closeAll(gone)
	if parks {
		s.note(n, store.SessionParked)
	}
}

// claim returns the session that a key leads to, or nil if there is none, and makes c its
// owner. If another connection has the session, claim closes that transport and waits
// until it gives the session up: after a guest has moved, its old transport may look alive
// for minutes. The last connection that claims a session gets it, since the client has
// given up the others. Any error is errs.CannotResume, and leaves the session where it is:
// when its old connection has ended, it is parked.
func (s *Server) claim(c *conn, id indexID, d wire.Dialect) (*session, error) {
	limit := time.NewTimer(s.cfg.Limits.TakeOver)
	defer limit.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byKey[id]
	switch {
	case n == nil:
		return nil, nil
	case !d.Follows(n.dialect):
		return nil, errs.New(errs.CannotResume, "the session speaks %s", n.dialect)
	}
	n.claims++
	mine := n.claims
	for n.owner != nil {
		freed := s.awaitFreed(n, limit.C)
		if s.closing || s.isFrozen(n.who.VM) {
			break
		}
		if !freed || n.claims != mine || s.byKey[id] != n {
			return nil, errs.New(busyOrLost(d), "the session is still in use")
		}
	}
	if _, there := s.conns[c]; s.closing || !there || s.isFrozen(n.who.VM) { // c may have ended meanwhile
		return nil, errClosed
	}
	if s.count(c, n.who.VM) != nil {
		return nil, errs.New(busyOrLost(d), "the VM has too many connections")
	}
	s.uncountNobody(c)
	s.unpark(n)
	n.owner, n.via, n.since, n.dialect = c, c.peer.Via, s.cfg.Now(), d
	return n, nil
}

// busyOrLost is the kind of error for a session that exists and cannot be resumed now. Our
// own programs, which speak a numbered dialect, try again after Busy. Other clients would
// not, so for them the session is lost.
func busyOrLost(d wire.Dialect) errs.Kind {
	if d.Numbered() {
		return errs.Busy
	}
	return errs.CannotResume
}

// awaitFreed closes the owner's transport and waits until the owner has given the session
// up; false: that took too long. It releases Server.mu meanwhile.
func (s *Server) awaitFreed(n *session, limit <-chan time.Time) bool {
	if n.freed == nil {
		n.freed = make(chan struct{})
	}
	freed, owner := n.freed, n.owner
	s.mu.Unlock()
	defer s.mu.Lock()
	owner.kill()
	select {
	case <-freed:
		return true
	case <-limit:
	case <-s.quit:
	}
	return false
}

// note adds an event about a session to its VM's events, or for the admin's to the root's.
func (s *Server) note(n *session, what store.EventType) {
	st := s.cfg.Tree.Store()
	in := &store.Intent{
		Kind: store.Note, Event: what, Name: strconv.FormatUint(n.id, 10),
		By: n.who.String(), Done: func(store.Result) {},
	}
	if n.who.VM != "" {
		if in.Cell = st.Cell(n.who.VM); in.Cell == nil {
			return
		}
	}
	st.Submit(in)
}
