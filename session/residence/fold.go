package residence

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	tree "meta9/fs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/wire"
)

// folded is the result of reading a journal: the state that all its records together
// describe.
type folded struct {
	place    Place // of the oldest segment
	sessions map[uint64]*foldedSession
	records  int
	tails    map[string]*store.Tail // by VM
	batches  []batchForm            // in their order
	made     []made
	failed   map[uint64]bool
	alone    map[uint64][]string                 // of a batch: the VMs of which alone it has failed
	done     func(number uint64, vm string) bool // whether what a batch has made of a VM is durable; settle sets it
	gone     []error                             // sessions that are not to be restored, and why
}

type foldedSession struct {
	state session.State // its fids and kept replies are in the maps below
	fids  map[uint32]session.FidState
	kept  map[uint16]foldedReply // by tag
	doubt map[uint16]foldedReply // by tag: the reply to send if no later record says more
	last  int                    // the number of the last record about this session
	stay  uint64                 // Stays.Stay of its VM
}

// made is a change of a session that is true only if its batch became durable.
type made struct {
	number, id uint64
	change     session.Change
	at         int
}

type foldedReply struct {
	session.KeptReply
	at int
}

func newFolded() *folded {
	return &folded{sessions: make(map[uint64]*foldedSession), tails: make(map[string]*store.Tail), failed: make(map[uint64]bool), alone: make(map[uint64][]string)}
}

// Restore restores the sessions and events from the journal of a meta9d that was killed,
// if that ran in the same boot and on the same data folder as this one. It does not change
// the journal, except that it renames one that cannot be used (Report.Aside). A session in
// the journal that cannot be restored is no reason for that. Call it before the first
// connection is served, and then Begin.
func (j *Journal) Restore(p Place, srv *session.Server, t *tree.Tree) (r Report, err error) {
	switch _, err := os.Lstat(j.dir); {
	case errors.Is(err, os.ErrNotExist):
		return r, nil
	case err != nil:
		return r, err
	}
	f, err := readJournal(j.dir, p)
	switch {
	case err != nil:
	case p.Stays != nil:
		f.settleEach(p.Stays)
	default:
		err = f.settle(p.Number)
	}
	if err == nil {
		f.restore(&r, srv, t)
		return r, nil
	}
	r.lost(err)
	r.Aside, err = j.SetAside()
	return r, err
}

// Spare looks at the journal where a residence has the sessions, as they were later. It restores
// nothing. A journal that is whole and of this boot and folder stays, for Begin to replace; any
// other is set aside.
func (j *Journal) Spare(p Place) (r Report, err error) {
	if _, err := readJournal(j.dir, p); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.lost(err)
		r.Aside, err = j.SetAside()
		return r, err
	}
	return r, nil
}

// SetAside renames the journal, if there is one, and deletes the one that was renamed
// before: they are large. It returns the new name.
func (j *Journal) SetAside() (string, error) {
	to := j.dir + ".aside"
	if err := os.RemoveAll(to); err != nil {
		return "", err
	}
	err := os.Rename(j.dir, to)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return to, err
}

// readJournal reads the segments in a folder, which may be of another time (settle). An error
// means that none of it can be used.
func readJournal(dir string, p Place) (*folded, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if st := info.Sys().(*syscall.Stat_t); !info.IsDir() || info.Mode().Perm()&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		return nil, errors.New("it is no folder of meta9d's alone")
	}
	numbers, err := segmentNumbers(dir)
	if err != nil {
		return nil, err
	}
	f := newFolded()
	for i, n := range numbers {
		b, err := readSegment(filepath.Join(dir, segmentName(n)))
		if err == nil {
			err = f.segment(b, p, i == 0)
		}
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", segmentName(n), err)
		}
	}
	return f, nil
}

func readSegment(path string) (b []byte, err error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != int64(segmentSize) {
		return nil, fmt.Errorf("it has %d bytes, not %d", info.Size(), segmentSize)
	}
	b = make([]byte, segmentSize)
	_, err = f.ReadAt(b, 0)
	return b, err
}

// segment applies the records of one segment.
func (f *folded) segment(b []byte, p Place, first bool) error {
	b, err := segmentRecords(b)
	if err != nil {
		return err
	}
	r := &reader{in: bufio.NewReader(bytes.NewReader(b)), left: int64(len(b))}
	kind, body, err := r.next()
	if err != nil {
		return err
	}
	if kind != kindHome {
		return errors.New("it does not say what it belongs to")
	}
	var place placeForm
	if err := json.Unmarshal(body, &place); err != nil {
		return err
	}
	switch {
	case string(place.Folder) != string(p.Folder[:]):
		return errors.New("it belongs to another data folder")
	case place.Boot != p.Boot:
		return errors.New("it is of another boot of the host")
	}
	if first {
		f.place = Place{Home: Home{p.Folder, place.Number}, Boot: p.Boot, Rev: place.Rev}
	}
	for r.left > 0 {
		kind, body, err := r.next()
		if err == nil {
			f.records++
			err = f.record(kind, body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *folded) record(kind byte, body []byte) error {
	switch kind {
	case kindBatch:
		var b batchForm
		if err := json.Unmarshal(body, &b); err != nil {
			return err
		}
		f.batches = append(f.batches, b)
		return nil
	case kindTail:
		t, err := readTail(body)
		if err == nil {
			f.tails[t.VM] = t
		}
		return err
	}
	id, n := binary.Uvarint(body)
	if n <= 0 {
		return errSession
	}
	switch body = body[n:]; kind {
	case kindMade:
		return f.receipt(id, body)
	case kindFailed:
		return f.failure(id, body)
	case kindStay:
		stay, n := binary.Uvarint(body)
		if n <= 0 {
			return errSession
		}
		if s := f.sessions[id]; s != nil {
			s.stay = stay
		}
	case kindGone:
		delete(f.sessions, id)
	case kindWhole:
		return f.whole(id, body)
	case kindChange:
		return f.change(id, body)
	default:
		return fmt.Errorf("a record of the kind %q is not known to this version", kind)
	}
	return nil
}

func (f *folded) whole(id uint64, body []byte) error {
	var st session.State
	kept, err := readKept(body, &st)
	if err != nil {
		return err
	}
	s := &foldedSession{
		state: st, fids: make(map[uint32]session.FidState),
		kept: make(map[uint16]foldedReply), doubt: make(map[uint16]foldedReply),
	}
	s.state.Fids, s.state.Kept, s.state.Doubt = nil, nil, nil
	if was := f.sessions[id]; was != nil {
		s.stay = was.stay // its own record follows, unless a kill came between
	}
	f.sessions[id] = s
	s.apply(&session.Change{Count: st.Count, Fids: st.Fids, Kept: kept, Doubt: st.Doubt}, f.records)
	return nil
}

func (f *folded) change(id uint64, body []byte) error {
	s := f.sessions[id]
	if s == nil {
		return nil // the session's first record is not here: a later record has all of it, or says that it is gone
	}
	var ch session.Change
	kept, err := readKept(body, &ch)
	if err == nil {
		ch.Kept = kept
		s.apply(&ch, f.records)
	}
	return err
}

func (s *foldedSession) apply(ch *session.Change, at int) {
	s.last = at
	s.state.Count = max(s.state.Count, ch.Count)
	if ch.Tokens != nil {
		s.state.Tokens = *ch.Tokens
	}
	for _, num := range ch.Gone {
		delete(s.fids, num)
	}
	for _, fid := range ch.Fids {
		s.fids[fid.Fid] = fid
	}
	for _, k := range ch.Kept {
		to := s.kept
		if slices.Contains(ch.Doubt, k.Number) {
			to = s.doubt
		}
		if tag, ok := tagOf(k.Frame); ok {
			to[tag] = foldedReply{k, at}
		}
	}
}

func tagOf(frame []byte) (tag uint16, ok bool) {
	_, _, tag, ok = wire.Split(frame)
	return tag, ok
}

func (f *folded) receipt(number uint64, body []byte) error {
	id, n := binary.Uvarint(body)
	if n <= 0 {
		return errSession
	}
	m := made{number: number, id: id, at: f.records}
	kept, err := readKept(body[n:], &m.change)
	if err == nil {
		m.change.Kept = kept
		f.made = append(f.made, m)
	}
	return err
}

// judge decides about each request that was under way: if a durable batch contains its
// change, the reply is restored (made); otherwise it gets the reply in doubt.
func (f *folded) judge() (made, doubtful int) {
	for _, m := range f.made {
		s := f.sessions[m.id]
		if s == nil || !f.done(m.number, s.state.VM) || len(m.change.Kept) != 1 || s.answered(m.change.Kept[0]) {
			continue
		}
		s.apply(&m.change, s.last)
		made++
	}
	for _, s := range f.sessions {
		for tag, k := range s.doubt {
			if !s.answered(k.KeptReply) {
				s.kept[tag] = k
				doubtful++
			}
		}
	}
	return made, doubtful
}

// answered tells whether the journal has the reply to the request, or to a later request
// under the same tag. In both cases the client has received the reply.
func (s *foldedSession) answered(k session.KeptReply) bool {
	tag, _ := tagOf(k.Frame)
	has, is := s.kept[tag]
	return is && has.Number >= k.Number
}

// dropCopies drops a session for whose key there is a newer record, under another id: the
// process was killed when Frozen.Thaw had recorded the session again, and had not removed the
// old record yet. Both would be restored, and the newer one would lose its locks.
func (f *folded) dropCopies() {
	newest := make(map[session.KeyID]uint64)
	for id, s := range f.sessions {
		key := s.state.KeyID()
		other, has := newest[key]
		if has && f.sessions[other].last > s.last {
			delete(f.sessions, id)
			continue
		}
		if has {
			delete(f.sessions, other)
		}
		newest[key] = id
	}
}

// restore restores the events, then the sessions.
func (f *folded) restore(r *Report, srv *session.Server, t *tree.Tree) {
	f.dropCopies()
	for _, why := range f.gone {
		r.lost(why)
	}
	r.Receipts, r.Doubtful = f.judge()
	sessions := slices.SortedFunc(maps.Values(f.sessions), func(a, b *foldedSession) int { return cmp.Compare(b.last, a.last) })
	states := make([]session.State, len(sessions))
	readers := make(map[uint64]uint64)
	for i, s := range sessions {
		states[i] = s.whole()
		states[i].Readers(readers)
	}
	for path := range readers {
		if vm, is := t.EventsOf(path); is {
			if err := t.Store().RestoreTail(f.tail(vm)); err != nil {
				r.lost(err)
			}
		}
	}
	// Newest first: where two sessions have the same lock, the one with the newer record
	// holds it. The other has given it up since, without a record of its own.
	for _, st := range states {
		if err := srv.Restore(st); err != nil {
			r.lost(err)
		} else {
			r.Sessions++
		}
	}
}

// whole builds the session's State.
func (s *foldedSession) whole() session.State {
	st := s.state
	st.Fids = slices.SortedFunc(maps.Values(s.fids), func(a, b session.FidState) int { return cmp.Compare(a.Fid, b.Fid) })
	kept := slices.SortedFunc(maps.Values(s.kept), func(a, b foldedReply) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.Number, b.Number))
	})
	for _, k := range kept[max(0, len(kept)-wire.MaxNumbers):] { // the client has received the others
		st.Kept = append(st.Kept, k.KeptReply)
	}
	st.Undone = st.Count
	return st
}

// tail builds the tail of a VM's ring, or for "" of the root's.
func (f *folded) tail(vm string) store.Tail {
	t := store.Tail{VM: vm, After: f.place.Rev, Last: f.place.Rev}
	if had := f.tails[vm]; had != nil {
		t = *had
	}
	seen := uint64(0)
	if n := len(t.Events); n > 0 {
		seen = t.Events[n-1].Rev
	}
	for _, b := range f.batches {
		if b.Lost > max(t.After, seen) {
			t.After, t.Last, t.Events, seen = b.Lost, max(t.Last, b.Lost), nil, 0
		}
		for i := range b.Events {
			ev := b.Events[i].event()
			t.Last = max(t.Last, ev.Rev)
			if (vm == "" || ev.VM == vm) && ev.Rev > max(t.After, seen) {
				t.Events, seen = append(t.Events, ev), ev.Rev
			}
		}
	}
	return t
}
