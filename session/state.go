package session

import (
	"cmp"
	"iter"
	"slices"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// StateVersion is the version of State that is written, and the only one that is read.
const StateVersion = 4

// State is a parked session as plain data, which outlives the process and can move to
// another host.
type State struct {
	Version int        `json:"version"`
	Admin   bool       `json:"admin,omitempty"`
	VM      string     `json:"vm,omitempty"`      // UUID
	Foreign bool       `json:"foreign,omitempty"` // authenticated by MUMBLE on a channel that proves nobody
	Dialect string     `json:"dialect"`
	Key     []byte     `json:"key"`             // 8 bytes; of the draft's form the first 4 count
	Draft   bool       `json:"draft,omitempty"` // the draft's form: node and group are part of the key
	Node    []byte     `json:"node,omitempty"`  // any bytes, as they came
	Group   []byte     `json:"group,omitempty"`
	Fids    []FidState `json:"fids"`

	Count uint64      `json:"count,omitempty"` // of a numbered dialect: requests that came
	Kept  []KeptReply `json:"kept,omitempty"`  // and replies that may have been lost, the oldest first
	Doubt []uint64    `json:"doubt,omitempty"` // in a journal: as Change's

	Undone uint64 `json:"undone,omitempty"` // of 9P2000.L.e.2 and .e.n.2: requests up to this one without a kept reply were not done
	Tokens Tokens `json:"tokens,omitzero"`  // of the same dialects
}

// FidState is one fid of a parked session.
type FidState struct {
	Fid     uint32          `json:"fid"`
	Auth    bool            `json:"auth,omitempty"`   // an auth fid: the rest is empty
	Node    *fs.NodeState   `json:"node,omitempty"`   // where it is
	Handle  *fs.HandleState `json:"handle,omitempty"` // nil: it is not open
	Stale   bool            `json:"stale,omitempty"`  // it was open and could not be restored; of Handle only Flags are used
	Rclose  bool            `json:"rclose,omitempty"` // removed when it is clunked
	Listing Listing         `json:"listing,omitzero"` // an open folder
	Pause   *Pause          `json:"pause,omitempty"`  // an open stream
	Locks   []LockState     `json:"locks,omitempty"`  // an open file or folder of 9P2000.L.e
}

// state returns the State of a session; waiting are its requests that wait, old is how many
// bytes of old values it may have.
func (s *session) state(waiting map[uint16]*request, old int) State {
	st := State{
		Version: StateVersion, Admin: s.who.Admin, VM: s.who.VM, Foreign: s.foreign, Dialect: s.dialect.String(),
		Key: s.key.bytes[:], Draft: s.key.draft, Node: []byte(s.key.node), Group: []byte(s.key.group),
		Count: s.numbers.count, Kept: s.keptState(waiting),
		Undone: s.numbers.undone, Tokens: s.numbers.tokens,
	}
	for _, f := range s.fids {
		st.Fids = append(st.Fids, f.state(&old))
	}
	for _, num := range s.leaving(waiting) {
		st.Fids = append(st.Fids, s.there(num, waiting).state(&old))
	}
	slices.SortFunc(st.Fids, func(a, b FidState) int { return cmp.Compare(a.Fid, b.Fid) })
	return st
}

// key is what the client shows to get the session back.
func (st *State) key() key {
	k := key{draft: st.Draft, node: string(st.Node), group: string(st.Group)}
	copy(k.bytes[:], st.Key)
	k.set = k.bytes != [wire.KeyLen]byte{}
	return k
}

// KeyID is that of the session's key.
func (st *State) KeyID() KeyID {
	return KeyID{st.key(), scopeOf(fs.Principal{Admin: st.Admin, VM: st.VM}, st.Foreign)}
}

// Readers adds to positions, by qid.path, how far the session has read its streams; where
// positions has a path already, the smaller value stays. fs.Tree.Tails needs it.
func (st *State) Readers(positions map[uint64]uint64) {
	for i := range st.Fids {
		f := &st.Fids[i]
		if f.Node == nil || f.Handle == nil || f.Handle.Rev == 0 || f.Handle.Held {
			continue
		}
		if at, has := positions[f.Node.ID]; !has || f.Handle.Rev < at {
			positions[f.Node.ID] = f.Handle.Rev
		}
	}
}

// state returns the fid's. The bytes of an old value are taken from old; nil, or too few: the
// value is left out.
func (f *fid) state(old *int) FidState {
	st := FidState{Fid: f.num, Auth: f.auth, Rclose: f.rclose, Pause: f.pause, Stale: f.stale(), Locks: f.lockStates()}
	if f.listing != nil {
		st.Listing = *f.listing
	}
	if f.ref != nil {
		ns := f.ref.State()
		st.Node = &ns
	}
	if f.handle != nil {
		hs := f.handle.State()
		switch {
		case len(hs.Old) == 0:
		case old == nil || len(hs.Old) > *old:
			hs.Old, hs.Rev = nil, 0
		default:
			*old -= len(hs.Old)
		}
		// In another process a change that is under way has failed, unless the client sends it
		// again. Its truncation must not be done without the write that was to follow: as
		// after a refused write, the clunk drops it.
		hs.Refused = hs.Refused || hs.Held && f.unsure > 0
		st.Handle = &hs
	}
	return st
}

// Parked gives the states of all parked sessions, the longest parked first. They are made
// one by one, because there may be many. After Freeze these are all sessions that are
// kept; before, it leaves out a session that is no longer parked when its turn comes.
func (s *Server) Parked() iter.Seq[State] {
	return func(yield func(State) bool) {
		s.mu.Lock()
		all := make([]*session, 0, s.parked.Len())
		for e := s.parked.Front(); e != nil; e = e.Next() {
			all = append(all, e.Value.(*session))
		}
		s.mu.Unlock()
		for _, n := range all {
			s.mu.Lock()
			is := n.inParked != nil
			var st State
			if is {
				st = n.state(n.nowCarried(), fs.MaxOld)
			}
			s.mu.Unlock()
			if is && !yield(st) {
				return
			}
		}
	}
}

// States gives the states of all sessions that are kept: the parked ones, and after
// HandOver those of connections that have a key, as if they were parked.
func (s *Server) States() iter.Seq[State] {
	return func(yield func(State) bool) {
		for st := range s.Parked() {
			if !yield(st) {
				return
			}
		}
		s.mu.Lock()
		all := slices.Clone(s.handed)
		s.mu.Unlock()
		for _, c := range all {
			if c.sess.kept && !c.dead.Load() && !yield(c.sess.state(c.nowWaiting(), fs.MaxOld)) {
				return
			}
		}
	}
}

// Restore parks a session from its State, of this or another process, for another
// lifetime. A fid whose file is gone, or whose lock somebody else has by now, answers
// errs.Stale from then on. Call Restore before the first Serve, or while the VM is frozen,
// so that nobody takes a lock before it is restored. errs.Invalid: the State cannot be
// used.
func (s *Server) Restore(st State) error {
	n, err := s.restored(&st)
	if err != nil {
		return err
	}
	n.size = n.estimate()
	n.bill.keep(0)
	n.bill.force(n.size)
	s.mu.Lock()
	gone := s.enterParked(n)
	s.mu.Unlock()
	closeAll(gone)
	return nil
}

// restored makes the session that st describes, as far as its files are still there.
func (s *Server) restored(st *State) (*session, error) {
	if (fs.Principal{Admin: st.Admin, VM: st.VM}).Nobody() || !slices.ContainsFunc(st.Key, func(b byte) bool { return b != 0 }) {
		return nil, errNoState
	}
	return s.rebuilt(st, true)
}

var errNoState = errs.New(errs.Invalid, "not a session of version %d", StateVersion)

// rebuilt is restored for a session that may have no key. attached: it has a View.
func (s *Server) rebuilt(st *State, attached bool) (*session, error) {
	n := &session{
		who: fs.Principal{Admin: st.Admin, VM: st.VM}, dialect: wire.Negotiate(st.Dialect), foreign: st.Foreign,
		key: st.key(),
	}
	if !attached && st.Dialect == wire.None.String() {
		n.dialect = wire.None // no Tversion has come
	}
	if st.Version != StateVersion || n.dialect.String() != st.Dialect || attached && n.who.Nobody() ||
		len(st.Key) != wire.KeyLen || len(st.Fids) > s.cfg.Limits.Fids+2*s.cfg.Limits.Waiting { // including fids whose clunk was under way
		return nil, errNoState
	}
	n.numbers.count, n.numbers.undone, n.numbers.tokens = st.Count, st.Undone, st.Tokens
	if err := n.restoreKept(st.Kept); err != nil {
		return nil, err
	}
	n.bill.account = s.account(n.who)
	if attached {
		n.view = s.cfg.Tree.View(n.who)
	}
	for i := range st.Fids {
		f, err := restoreFid(n.view, &st.Fids[i])
		if err == nil {
			n.add(f)
			err = s.relock(n, f, st.Fids[i].Locks)
		}
		if err != nil {
			n.close()
			return nil, err
		}
	}
	return n, nil
}

// restoreFid makes the fid that st describes; if its file is gone, the fid is stale.
func restoreFid(v *fs.View, st *FidState) (*fid, error) {
	f := &fid{num: st.Fid, auth: st.Auth, pause: st.Pause}
	if l := st.Listing; l != (Listing{}) {
		f.listing = &l
	}
	if f.auth {
		return f, nil
	}
	if st.Node == nil || v == nil {
		return nil, errs.New(errs.Invalid, "fid %d is nowhere", st.Fid)
	}
	ref, err := v.Restore(*st.Node)
	if err != nil {
		return nil, err
	}
	f.ref = ref
	if st.Handle != nil {
		f.opened(restoreHandle(ref, st), st.Handle.Flags, st.Rclose)
	}
	return f, nil
}

// restoreHandle opens the file that st describes.
func restoreHandle(ref *fs.Ref, st *FidState) fs.Handle {
	if !st.Stale {
		if h, err := ref.RestoreHandle(*st.Handle); err == nil {
			return h
		}
	}
	return staleHandle(st.Handle.Flags)
}
