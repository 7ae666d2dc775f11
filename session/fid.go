package session

import (
	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// fid is a place in the tree that the client gave a number: a file or folder,
// open or not, or an authentication under way.
type fid struct {
	num     uint32
	auth    bool
	rclose  bool       // it is removed when it is clunked
	folder  bool       // it is open, and a folder
	stream  bool       // it is open, and its reads wait for lines (fs.Waiter)
	making  bool       // a change that runs is a create, which all later ones wait for
	flags   fs.Flags   // how it is open
	ref     *fs.Ref    // nil: auth
	walked  *fs.Ref    // what ref was before the open found another object; see foundBy
	handle  fs.Handle  // nil: not open
	listing *Listing   // an open folder, once it is read: see progress
	pause   *Pause     // an open stream; nil: nothing is known
	locks   *lockTable // nil: it has never locked anything
	running int        // changes that are submitted and not answered
	unsure  int        // of these, those that the client does not send again when it is told that they were not done
	queue   []queued   // changes that wait for earlier ones
}

// queued is a change that waits for its turn.
type queued struct {
	alone bool
	r     *request
	run   func()
}

// free tells whether a change may run now. alone: it must wait for all earlier ones.
func (f *fid) free(alone bool) bool {
	return len(f.queue) == 0 && f.ready(alone)
}

func (f *fid) ready(alone bool) bool {
	return !f.making && (!alone || f.running == 0)
}

// advance runs the changes whose turn has come.
func (f *fid) advance() {
	for len(f.queue) > 0 && f.ready(f.queue[0].alone) {
		q := f.queue[0]
		f.queue = f.queue[1:]
		q.r.c.note(nil)
		start(q.r, q.run)
	}
}

// find returns the fid of that number. A fid is gone from the moment that its Tclunk or
// Tremove has come, even while that still waits for earlier writes: a client that does not
// wait for the reply may use the number for something else.
func (s *session) find(num uint32) (*fid, error) {
	if f := s.fids[num]; f != nil {
		return f, nil
	}
	return nil, errs.UnknownFid
}

// file returns the fid of that number, if it is a file or folder.
func (s *session) file(num uint32) (*fid, error) {
	f, err := s.find(num)
	switch {
	case err != nil:
		return nil, err
	case f.auth:
		return nil, errs.BadUse
	case f.stale():
		return nil, errs.Stale
	}
	return f, nil
}

// lookAt runs look, which asks about an unopened fid and gives its qid to the client. If
// the fid's object is gone, the fid becomes, for good, what its name leads to now
// (fs.Ref.LookAt): a client that has looked a name up and goes on with the fid still means
// the name. The qid in the reply tells the client that it is another object, and only such
// a reply changes what a fid is. So a change never reaches an object that the client was
// not told of, and neither does a request that was sent earlier.
func (f *fid) lookAt(look func(at *fs.Ref) error) error {
	if f.running > 0 {
		return look(f.ref)
	}
	at, err := f.ref.LookAt(look)
	f.ref = at
	return err
}

// openOn returns another fid that has the same object open; nil: there is none.
func (s *session) openOn(f *fid) *fid {
	path := f.ref.QID().Path
	for _, other := range s.fids {
		if other.handle != nil && other.ref.QID().Path == path {
			return other
		}
	}
	return nil
}

// foundBy returns a fid that was cloned together with f, and whose open for reading has
// found another object, because the one that both were walked to had been replaced. nil:
// there is none. A fid is returned once, to the first that asks.
//
// Linux opens a clone of the fid of its lookup, asks by that fid for the length of
// what a program has open, and since 6.8 reads by it: where the name had still
// another object by then, the length would be that one's.
func (s *session) foundBy(f *fid) *fid {
	for _, other := range s.fids {
		if other.walked == f.ref {
			other.walked = nil
			return other
		}
	}
	return nil
}

// opened returns the fid of that number, if it is open for all that want says.
func (s *session) opened(num uint32, want fs.Flags) (*fid, error) {
	f, err := s.file(num)
	if err == nil && (f.handle == nil || f.flags&want != want) {
		return nil, errs.BadUse
	}
	return f, err
}

// vacant returns an error if num cannot be the number of a new fid.
func (c *conn) vacant(num uint32) error {
	switch s := c.sess; {
	case num == wire.NoFid:
		return errs.New(errs.Invalid, "the fid ~0 means none")
	case s.fids[num] != nil:
		return errs.FidInUse
	case len(s.fids) >= c.srv.cfg.Limits.Fids:
		return errs.New(errs.TooManyFids, "%d is the limit", c.srv.cfg.Limits.Fids)
	}
	return c.sess.pays(1, 0)
}

// add adds a fid under its number, which is vacant.
func (s *session) add(f *fid) {
	if s.fids == nil {
		s.fids = make(map[uint32]*fid)
	}
	s.fids[f.num] = f
	if f.stream {
		s.streams++
	}
	s.nfids.Store(int32(len(s.fids)))
}

// remove frees the fid's number.
func (s *session) remove(f *fid) {
	delete(s.fids, f.num)
	if f.stream {
		s.streams--
	}
	s.nfids.Store(int32(len(s.fids)))
	s.settleBill()
}
