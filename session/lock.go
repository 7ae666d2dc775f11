package session

import (
	"math"
	"slices"
	"sync"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// The bounds of locks: of one file, and of one session. A Tlock that would exceed them, or
// an unlock that would split a lock, is refused as with a full lock table
// (LockStatusError, which is ENOLCK). Also bounded is how many requests wait for the locks
// of one file, because each lock that goes makes all of them try again; one more gets
// LockStatusBlocked.
const (
	maxFileLocks    = 1024
	maxSessionLocks = 1024
	maxFileWaits    = 256
)

// span is a range of bytes of a file, both ends in it.
type span struct{ from, to uint64 }

func (s span) meets(o span) bool { return s.from <= o.to && o.from <= s.to }

// lock is one range that is locked. A lock belongs to its fid, with which it
// goes, and to the process that asked. Linux settles conflicts within one mount
// itself, before it asks.
type lock struct {
	span
	write  bool
	fid    *fid
	sess   *session
	client string
	pid    uint32
}

// owns tells whether l and o have the same owner, and so never conflict: for flock(2) the
// owner is the open file, for fcntl(2) the process.
func (l *lock) owns(o *lock) bool { return l.fid == o.fid || l.sameProcess(o) }

func (l *lock) sameProcess(o *lock) bool {
	return l.sess == o.sess && l.pid == o.pid && l.client == o.client
}

// lockOp is what a Tlock does.
type lockOp uint8

const (
	// lockRange takes a range, whatever else the owner has there.
	lockRange lockOp = iota
	// freeProcess frees the process's locks in the range. Linux sends it for fcntl(2), and
	// for every close(2) of the file by any process. So it must not free what another
	// process has locked through the same fid.
	freeProcess
	// freeFid frees all locks of the fid, whichever process took them: flock(2) with
	// LOCK_UN. Linux sets the flag "may wait" only on this one.
	freeFid
)

// replaces tells whether op on l's range takes that range away from o.
func (op lockOp) replaces(l, o *lock) bool {
	if op == freeProcess {
		return l.sameProcess(o)
	}
	return l.owns(o)
}

func (l *lock) conflicts(o *lock) bool {
	return (l.write || o.write) && l.meets(o.span) && !l.owns(o)
}

// lockTable has the locks of all files, by qid path. Its mutex comes after the monitor of
// a conn; with it held nothing is called but request.woken.
type lockTable struct {
	mu    sync.Mutex
	files map[uint64]*fileLocks
}

// fileLocks has the locks of one file, and the requests that wait for them.
type fileLocks struct {
	held  []lock
	waits []*request
}

// set does op on a file.
func (t *lockTable) set(path uint64, l lock, op lockOp) p9.LockStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.file(path)
	defer t.forgetUnused(path, f)
	if op == lockRange && f.conflict(&l) != nil {
		return p9.LockStatusBlocked
	}
	held, fewer := f.without(&l, op)
	if op == lockRange {
		held = append(held, l)
	}
	more := len(held) - len(f.held) // all of them l.sess's
	if more > 0 && (len(held) > maxFileLocks || l.sess.locks+more > maxSessionLocks) {
		return p9.LockStatusError
	}
	f.held = held
	l.sess.locks += more
	if fewer {
		f.wake()
	}
	return p9.LockStatusOK
}

// file returns the locks of a file, and makes them if there are none; then the caller must
// call forgetUnused in the end.
func (t *lockTable) file(path uint64) *fileLocks {
	f := t.files[path]
	if f == nil {
		f = &fileLocks{}
		if t.files == nil {
			t.files = make(map[uint64]*fileLocks)
		}
		t.files[path] = f
	}
	return f
}

func (t *lockTable) forgetUnused(path uint64, f *fileLocks) {
	if len(f.held) == 0 && len(f.waits) == 0 {
		delete(t.files, path)
	}
}

// conflict returns a lock that conflicts with l, or nil.
func (f *fileLocks) conflict(l *lock) *lock {
	i := slices.IndexFunc(f.held, func(o lock) bool { return l.conflicts(&o) })
	if i < 0 {
		return nil
	}
	return &f.held[i]
}

// without returns the locks after op has taken l's range from its owner. Of a lock that
// reaches beyond the range, the ends stay. fewer: something was taken out.
func (f *fileLocks) without(l *lock, op lockOp) (held []lock, fewer bool) {
	held = make([]lock, 0, len(f.held)+2)
	for _, o := range f.held {
		if !op.replaces(l, &o) || !l.meets(o.span) {
			held = append(held, o)
			continue
		}
		fewer = true
		for _, end := range o.without(l.span) {
			rest := o
			rest.span = end
			held = append(held, rest)
		}
	}
	return held, fewer
}

// without returns what is left of s when o is taken out: none, one or two ends.
func (s span) without(o span) []span {
	var ends []span
	if s.from < o.from {
		ends = append(ends, span{s.from, o.from - 1})
	}
	if s.to > o.to {
		ends = append(ends, span{o.to + 1, s.to})
	}
	return ends
}

// wake lets all requests that wait try again; those that are still in conflict wait on.
func (f *fileLocks) wake() {
	for _, r := range f.waits {
		r.woken()
	}
	f.waits = nil
}

// wait adds a request that waits for l. ready: nothing conflicts any more, and woken will
// not be called. If cancel is nil, too many wait already.
func (t *lockTable) wait(path uint64, l *lock, r *request) (cancel func(), ready bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[path]
	if f == nil || f.conflict(l) == nil {
		return func() {}, true
	}
	if len(f.waits) >= maxFileWaits {
		return nil, false
	}
	f.waits = append(f.waits, r)
	return func() { t.forget(path, r) }, false
}

func (t *lockTable) forget(path uint64, r *request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.files[path]; f != nil {
		f.waits = slices.DeleteFunc(f.waits, func(o *request) bool { return o == r })
		t.forgetUnused(path, f)
	}
}

// test returns a lock that conflicts with l; false: there is none.
func (t *lockTable) test(path uint64, l *lock) (lock, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.files[path]; f != nil {
		if o := f.conflict(l); o != nil {
			return *o, true
		}
	}
	return lock{}, false
}

// unlock frees the fid's locks, because the fid ends.
func (f *fid) unlock() {
	if f.locks != nil {
		f.locks.drop(f.ref.QID().Path, f)
		f.locks = nil
	}
}

// drop frees the locks of one fid on the file of that qid.path.
func (t *lockTable) drop(path uint64, owner *fid) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[path]
	if f == nil {
		return
	}
	before := len(f.held)
	f.held = slices.DeleteFunc(f.held, func(l lock) bool {
		if l.fid == owner {
			l.sess.locks--
		}
		return l.fid == owner
	})
	if len(f.held) < before {
		f.wake()
	}
	t.forgetUnused(path, f)
}

// lockOf returns the lock that a Tlock or Tgetlock means. The fid must be open: then no
// walk or create can make it another file and leave its locks behind.
func (c *conn) lockOf(m *wire.Msg) (l lock, f *fid, err error) {
	if f, err = c.sess.opened(m.Fid, 0); err != nil {
		return l, nil, err
	}
	l = lock{
		span: span{m.L.Start, math.MaxUint64}, write: m.L.LockType == p9.WriteLock,
		fid: f, sess: c.sess, client: m.L.ClientID, pid: m.L.ProcID,
	}
	switch {
	case m.L.LockType > p9.Unlock, m.L.Length > 0 && m.L.Start+m.L.Length-1 < m.L.Start:
		return l, nil, errs.New(errs.Invalid, "a lock of type %d from %d, %d bytes", m.L.LockType, m.L.Start, m.L.Length)
	case len(l.client) > maxClientID:
		return l, nil, errs.New(errs.NameTooLong, "a client_id has at most %d bytes", maxClientID)
	case m.L.Length > 0:
		l.to = m.L.Start + m.L.Length - 1
	}
	return l, f, nil
}

// maxClientID is the length in bytes of the longest client_id, which is a host's
// name.
const maxClientID = 255

// tlock locks or unlocks a range of a file. A request that may wait waits here for a lock
// in conflict, so a flock(1) goes on at once when it can (Linux would ask again after 30
// s).
func tlock(c *conn, m *wire.Msg) error {
	l, f, err := c.lockOf(m)
	if err != nil {
		return err
	}
	wait := m.L.Flags&uint32(p9.LockFlagsBlock) != 0
	op := lockRange
	switch {
	case m.L.LockType == p9.Unlock && wait:
		op = freeFid
	case m.L.LockType == p9.Unlock:
		op = freeProcess
	}
	status := c.srv.locks.set(f.ref.QID().Path, l, op)
	f.locks = &c.srv.locks
	if status == p9.LockStatusBlocked && wait {
		c.awaitLock(m, f, l)
		return nil
	}
	c.lockStatus(m.Tag, status)
	return nil
}

func (c *conn) lockStatus(tag uint16, status p9.LockStatus) {
	r := wire.Msg{Type: wire.Rlock, Tag: tag}
	r.L.Status = status
	c.answer(&r)
}

// awaitLock adds a Tlock that waits; a Tflush or the fid's clunk ends it. Tlocks may be at
// most half of a connection's waiting requests: the holder of the lock that the others
// wait for must still be able to write. Tlocks beyond that, or beyond the bound of a file,
// are answered, and Linux asks again after 30 s.
func (c *conn) awaitLock(m *wire.Msg, f *fid, l lock) {
	if len(c.waiting) >= c.srv.cfg.Limits.Waiting/2 {
		c.lockStatus(m.Tag, p9.LockStatusBlocked)
		return
	}
	r := &request{tag: m.Tag, fid: f, msg: &wire.Msg{Type: wire.Tlock, Tag: m.Tag, Fid: m.Fid, L: m.L}}
	r.again = func(r *request) { r.lockAgain(&l) }
	c.enter(r)
	r.watchLock(&l)
}

func (r *request) watchLock(l *lock) {
	cancel, ready := r.c.srv.locks.wait(r.fid.ref.QID().Path, l, r)
	r.cancel = cancel
	switch {
	case ready:
		r.handOver()
	case cancel == nil:
		r.locked(p9.LockStatusBlocked)
	}
}

// locked answers a Tlock that has waited.
func (r *request) locked(status p9.LockStatus) {
	delete(r.c.waiting, r.tag)
	r.c.lockStatus(r.tag, status)
}

// lockAgain tries once more after some lock of the file went.
func (r *request) lockAgain(l *lock) {
	status := r.c.srv.locks.set(r.fid.ref.QID().Path, *l, lockRange)
	if status == p9.LockStatusBlocked {
		r.watchLock(l)
		return
	}
	r.locked(status)
}

// tgetlock answers which lock conflicts.
func tgetlock(c *conn, m *wire.Msg) error {
	l, f, err := c.lockOf(m)
	if err != nil {
		return err
	}
	r := wire.Msg{Type: wire.Rgetlock, Tag: m.Tag}
	r.L.LockType, r.L.Start, r.L.Length = p9.Unlock, m.L.Start, m.L.Length
	r.L.ProcID, r.L.ClientID = m.L.ProcID, m.L.ClientID
	if o, ok := c.srv.locks.test(f.ref.QID().Path, &l); ok {
		r.L.LockType, r.L.Start, r.L.Length = p9.ReadLock, o.from, o.length()
		r.L.ProcID, r.L.ClientID = o.pid, o.client
		if o.write {
			r.L.LockType = p9.WriteLock
		}
	}
	c.answer(&r)
	return nil
}

// length is the length of a range in an Rgetlock: 0 means to the end.
func (s span) length() uint64 {
	if s.to == math.MaxUint64 {
		return 0
	}
	return s.to - s.from + 1
}
