package keep

import (
	"slices"

	"github.com/hugelgupf/p9/p9"

	"meta9/session/redial"
	"meta9/session/wire"
)

// attach is how a client attached, so that the keeper can attach again.
type attach struct {
	uname, aname string
	nuname       uint32
}

// fid is what is needed to restore a fid of the client's. File.Held is only set when it is
// restored; until then fids.held has it.
type fid struct {
	redial.File
	attach attach
	stale  bool // it could not be restored
}

// fids are the client's fids, as the server's answers say. A fid that is not in it does not
// exist in the server either, or its request failed.
type fids struct {
	byNum map[uint32]*fid
	// held has, by qid path, the files that open fids have truncated to 0, and those fids:
	// it is not known that such a truncation is committed before the next write is.
	held map[uint64]map[uint32]bool
}

func (t *fids) reset() { t.byNum, t.held = make(map[uint32]*fid), make(map[uint64]map[uint32]bool) }

// hold notes that a fid has truncated its file.
func (t *fids) hold(num uint32, f *fid) {
	set := t.held[f.QID.Path]
	if set == nil {
		set = make(map[uint32]bool)
		t.held[f.QID.Path] = set
	}
	set[num] = true
}

// holds tells whether the fid has a truncation that is perhaps not committed yet.
func (t *fids) holds(num uint32, f *fid) bool { return t.held[f.QID.Path][num] }

// drop forgets a fid.
func (t *fids) drop(num uint32) {
	f := t.byNum[num]
	if f == nil {
		return
	}
	delete(t.byNum, num)
	if set := t.held[f.QID.Path]; set != nil {
		if delete(set, num); len(set) == 0 {
			delete(t.held, f.QID.Path)
		}
	}
}

// learners are functions that learn about fids from a request that succeeded and its
// reply. Other types say nothing about fids.
var learners = map[wire.Type]func(t *fids, m, r *wire.Msg){
	wire.Tattach:   (*fids).attached,
	wire.Twalk:     (*fids).walked,
	wire.Topen:     (*fids).opened,
	wire.Tlopen:    (*fids).opened,
	wire.Tcreate:   (*fids).created,
	wire.Tlcreate:  (*fids).created,
	wire.Twrite:    (*fids).wrote,
	wire.Tsetattr:  (*fids).set,
	wire.Twstat:    (*fids).set,
	wire.Tfsync:    (*fids).synced,
	wire.Tlock:     (*fids).locked,
	wire.Trename:   (*fids).renamed,
	wire.Trenameat: (*fids).renamedAt,
}

// learn learns about fids from a request and its reply. Tclunk and Tremove end their fid
// also when they fail.
func (t *fids) learn(m, r *wire.Msg) {
	switch {
	case m.Type == wire.Tclunk, m.Type == wire.Tremove:
		t.drop(m.Fid)
	case r.Type == m.Type+1 && learners[m.Type] != nil:
		learners[m.Type](t, m, r)
	}
}

func (t *fids) attached(m, r *wire.Msg) {
	t.byNum[m.Fid] = &fid{attach: attach{m.Uname, m.Aname, m.NUname}, File: redial.File{QID: r.QID}}
}

// walked makes newfid, unless the walk ended early.
func (t *fids) walked(m, r *wire.Msg) {
	from := t.byNum[m.Fid]
	if from == nil || len(r.QIDs) < len(m.Names) {
		return
	}
	f := &fid{attach: from.attach, File: redial.File{Path: step(from.Path, m.Names), QID: from.QID}}
	if n := len(r.QIDs); n > 0 {
		f.QID = r.QIDs[n-1]
	}
	t.byNum[m.Newfid] = f
}

// step is the path after a walk of names from path.
func step(path, names []string) []string {
	path = slices.Clone(path)
	for _, name := range names {
		switch {
		case name != "..":
			path = append(path, name)
		case len(path) > 0:
			path = path[:len(path)-1]
		}
	}
	return path
}

// The flags of open(2) that must not be used when a fid is restored.
const (
	linuxCreat = 0o100
	linuxExcl  = 0o200
	linuxTrunc = 0o1000
	linuxWrite = 3 // O_WRONLY or O_RDWR
)

func (t *fids) opened(m, r *wire.Msg) {
	f := t.byNum[m.Fid]
	if f == nil {
		return
	}
	f.Open, f.QID = true, r.QID
	trunc := m.Mode&wire.OTrunc != 0
	if m.Type == wire.Tlopen {
		f.Linux = true
		f.Flags, trunc = m.L.Flags&^(linuxCreat|linuxExcl|linuxTrunc), m.L.Flags&linuxTrunc != 0
	} else {
		f.Flags = uint32(m.Mode &^ wire.OTrunc)
	}
	if trunc {
		t.hold(m.Fid, f)
	}
}

// created makes the fid the new file. A new file is committed empty: no truncation is held.
func (t *fids) created(m, r *wire.Msg) {
	f := t.byNum[m.Fid]
	if f == nil {
		return
	}
	f.Path = step(f.Path, []string{m.Name})
	trunc := m.L.Flags & linuxTrunc
	m.L.Flags &^= linuxTrunc
	m.Mode &^= wire.OTrunc
	if m.Type == wire.Tlcreate {
		m.Type = wire.Tlopen
	}
	t.opened(m, r)
	if trunc != 0 { // the file may have existed before
		t.hold(m.Fid, f)
	}
}

// wrote ends a held truncation of the file: it was committed with the write.
func (t *fids) wrote(m, r *wire.Msg) {
	if f := t.byNum[m.Fid]; f != nil && r.Count > 0 {
		delete(t.held, f.QID.Path)
	}
}

// set notes a truncation of an open file, and a new name.
func (t *fids) set(m, _ *wire.Msg) {
	f := t.byNum[m.Fid]
	if f == nil {
		return
	}
	if f.writable() && (m.L.SetMask.Size && m.L.SetAttr.Size == 0 || m.Type == wire.Twstat && m.Dir.Length == 0) {
		t.hold(m.Fid, f)
	}
	if m.Type == wire.Twstat && m.Dir.Name != "" && len(f.Path) > 0 {
		t.move(f.attach.aname, f.Path, step(f.Path, []string{"..", m.Dir.Name}))
	}
}

func (f *fid) writable() bool { return f.Open && f.Flags&linuxWrite != 0 }

// synced ends a held truncation of the file: it is durable.
func (t *fids) synced(m, _ *wire.Msg) {
	if f := t.byNum[m.Fid]; f != nil {
		delete(t.held, f.QID.Path)
	}
}

// locked notes that the fid may hold a lock, until an unlock of the whole file.
func (t *fids) locked(m, r *wire.Msg) {
	f := t.byNum[m.Fid]
	switch {
	case f == nil || r.L.Status != p9.LockStatusOK:
	case m.L.LockType != p9.Unlock:
		f.Locked = true
	case m.L.Start == 0 && m.L.Length == 0:
		f.Locked = false
	}
}

func (t *fids) renamed(m, _ *wire.Msg) {
	f, dir := t.byNum[m.Fid], t.byNum[m.Newfid]
	if f != nil && dir != nil {
		t.move(f.attach.aname, f.Path, step(dir.Path, []string{m.Name}))
	}
}

func (t *fids) renamedAt(m, _ *wire.Msg) {
	from, to := t.byNum[m.Fid], t.byNum[m.Newfid]
	if from != nil && to != nil {
		t.move(from.attach.aname, step(from.Path, []string{m.Name}), step(to.Path, []string{m.Ext}))
	}
}

// move changes the path of all fids at or below from. Fids that had the path to before are
// of a file that was replaced; a restore will see it by their qids.
func (t *fids) move(aname string, from, to []string) {
	for _, f := range t.byNum {
		n := len(from)
		if f.attach.aname == aname && len(f.Path) >= n && slices.Equal(f.Path[:n], from) {
			f.Path = slices.Concat(to, f.Path[n:])
		}
	}
}
