package oracle

import (
	"maps"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/p9"

	"meta9/session/wire"
)

// How much there is of everything: few, so that requests meet.
const (
	maxFid   = 8
	maxValue = 3000
)

// name is a name that may or may not be there; now and then one that cannot be.
func (w *world) name() string {
	switch n := w.rnd.IntN(40); {
	case n == 0:
		return strings.Repeat("n", 256)
	case n < 20 && len(w.files) > 0:
		files := slices.Sorted(maps.Keys(w.files))
		return files[w.rnd.IntN(len(files))]
	}
	return string(rune('a' + w.rnd.IntN(6)))
}

// fid is a fid that may be anything; now and then nothing.
func (w *world) fid() uint32 {
	if fids := slices.Sorted(maps.Keys(w.fids)); w.rnd.IntN(12) > 0 {
		return fids[w.rnd.IntN(len(fids))]
	}
	return uint32(w.rnd.IntN(maxFid + 1))
}

// usable is mostly a fid of a file that is open, and not in the mode that is of no
// use.
func (w *world) usable(useless p9.OpenFlags) uint32 {
	for _, fid := range slices.Sorted(maps.Keys(w.fids)) {
		if p := w.fids[fid]; p.open && p.name != "" && !p.gone && p.flags&3 != useless && w.rnd.IntN(2) == 0 {
			return fid
		}
	}
	return w.fid()
}

// other is a fid but 0, which stays the folder.
func (w *world) other() uint32 { return max(1, w.fid()) }

// vacant is a fid that is not in use, if there is one; else 0, which always is.
func (w *world) vacant() uint32 {
	for fid := uint32(1); fid <= maxFid; fid++ {
		if w.fids[fid] == nil {
			return fid
		}
	}
	return 0
}

// folder is a fid that is the folder, not opened.
func (w *world) folder() uint32 { return 0 }

// draw is the next request.
func (w *world) draw() *wire.Msg {
	m := &wire.Msg{Fid: w.fid()}
	at := w.fids[m.Fid]
	// One that is not open would go by its name from here on: see TestReplacedAlways
	// of package session.
	if at != nil && at.gone && (!at.open || w.rnd.IntN(4) > 0) {
		m.Type = wire.Tclunk
		return m
	}
	switch w.rnd.IntN(16) {
	case 0, 1, 2:
		return w.walk()
	case 3, 4:
		m.Type, m.L.Flags = wire.Tlopen, w.openFlags(at)
		if m.Fid == 0 {
			m.Type = wire.Tgetattr // fid 0 stays the folder
		}
	case 5:
		return w.create()
	case 6, 7:
		m.Fid = w.usable(p9.WriteOnly)
		m.Type, m.Offset, m.Count = wire.Tread, w.offset(), uint32(w.rnd.IntN(2*maxValue))
	case 8, 9:
		m.Fid = w.usable(p9.ReadOnly)
		m.Type, m.Offset, m.Data = wire.Twrite, w.offset(), w.data()
		m.Count = uint32(len(m.Data))
	case 10:
		m.Type = wire.Tgetattr
	case 11:
		w.setattr(m)
	case 12:
		w.end(m)
	case 13:
		return w.rename()
	case 14:
		m.Type, m.Fid, m.Name = wire.Tunlinkat, w.folder(), w.name()
	case 15:
		return w.rare(m)
	}
	return m
}

// walk goes to a name, or clones, from a fid that is not open.
func (w *world) walk() *wire.Msg {
	m := &wire.Msg{Type: wire.Twalk, Fid: w.fid(), Newfid: w.vacant()}
	if m.Newfid == 0 {
		return &wire.Msg{Type: wire.Tclunk, Fid: w.other()}
	}
	if at := w.fids[m.Fid]; at != nil && (at.open || at.gone || w.rnd.IntN(3) > 0) {
		m.Fid = 0
	}
	if w.rnd.IntN(4) > 0 {
		m.Names = []string{w.name()}
	}
	return m
}

func (w *world) openFlags(at *place) uint32 {
	flags := []p9.OpenFlags{p9.ReadOnly, p9.WriteOnly, p9.ReadWrite}[w.rnd.IntN(3)]
	if at != nil && at.name != "" && flags != p9.ReadOnly && w.rnd.IntN(3) == 0 {
		flags |= 0o1000 // O_TRUNC
	}
	return uint32(flags)
}

// create makes a file by a clone of the folder's fid, or tries it with a file's.
func (w *world) create() *wire.Msg {
	m := &wire.Msg{Type: wire.Tlcreate, Fid: w.vacant(), Name: w.name(), Perm: 0o100644}
	if m.Fid == 0 || w.rnd.IntN(8) == 0 {
		m.Fid = w.other()
	} else {
		w.step(&wire.Msg{Type: wire.Twalk, Newfid: m.Fid})
	}
	if w.rnd.IntN(20) == 0 {
		m.Name = "x/y"
	}
	m.L.Flags = 0o100 | 0o200 | uint32(w.rnd.IntN(3)) // O_CREAT|O_EXCL
	return m
}

func (w *world) offset() uint64 {
	if w.rnd.IntN(2) == 0 {
		return 0
	}
	return uint64(w.rnd.IntN(maxValue))
}

func (w *world) data() []byte {
	b := make([]byte, w.rnd.IntN(200))
	for i := range b {
		b[i] = byte(w.rnd.Uint32())
	}
	return b
}

// setattr sets a size, as truncate(2) and as open(2) with O_TRUNC do, or times.
func (w *world) setattr(m *wire.Msg) {
	m.Type = wire.Tsetattr
	if m.Fid == 0 || w.fids[m.Fid] != nil && w.fids[m.Fid].name == "" {
		m.Type = wire.Tgetattr // a folder's are not to be set
		return
	}
	mask := &m.L.SetMask
	switch w.rnd.IntN(3) {
	case 0:
		mask.Size, m.L.SetAttr.Size = true, uint64(w.rnd.IntN(maxValue))
	case 1:
		mask.Size, mask.MTime, mask.CTime = true, true, true
		m.L.SetAttr.Size = uint64(w.rnd.IntN(2) * w.rnd.IntN(maxValue))
	case 2:
		mask.ATime, mask.MTime, mask.CTime = true, true, true
	}
}

// end clunks, or removes, some fid but 0.
func (w *world) end(m *wire.Msg) {
	m.Type, m.Fid = wire.Tclunk, w.other()
	if at := w.fids[m.Fid]; at != nil && at.name != "" && !at.gone && w.rnd.IntN(3) == 0 {
		m.Type = wire.Tremove
	}
}

// rename gives a file another name, by the folder or by the file's own fid.
func (w *world) rename() *wire.Msg {
	m := &wire.Msg{Type: wire.Trenameat, Fid: w.folder(), Newfid: w.folder(), Name: w.name(), Ext: w.name()}
	if w.rnd.IntN(2) == 0 {
		if fid := w.fid(); w.fids[fid] == nil || w.fids[fid].name != "" {
			return &wire.Msg{Type: wire.Trename, Fid: fid, Newfid: w.folder(), Name: w.name()}
		}
	}
	if m.Name == m.Ext {
		m.Type, m.Ext, m.Newfid = wire.Tunlinkat, "", 0
	}
	return m
}

// rare is what comes less often.
func (w *world) rare(m *wire.Msg) *wire.Msg {
	switch w.rnd.IntN(4) {
	case 0:
		m.Type = wire.Tfsync
	case 1:
		m.Type, m.Newfid, m.Name = wire.Txattrwalk, 50, "user.x"
	case 2: // the whole folder, from its start and a fid that was opened just now
		m.Newfid = w.vacant()
		if m.Newfid == 0 {
			return &wire.Msg{Type: wire.Tclunk, Fid: w.other()}
		}
		w.step(&wire.Msg{Type: wire.Twalk, Newfid: m.Newfid})
		w.step(&wire.Msg{Type: wire.Tlopen, Fid: m.Newfid})
		w.step(&wire.Msg{Type: wire.Treaddir, Fid: m.Newfid, Count: 60000})
		return &wire.Msg{Type: wire.Tclunk, Fid: m.Newfid}
	case 3: // a folder cannot be made where a name is taken
		for name := range w.files {
			return &wire.Msg{Type: wire.Tmkdir, Fid: w.folder(), Name: name, Perm: 0o755}
		}
		m.Type = wire.Tgetattr
	}
	return m
}

// follow keeps the model up with what m has done.
func (w *world) follow(m, r *wire.Msg) {
	at := w.fids[m.Fid]
	if m.Type == wire.Tclunk || m.Type == wire.Tremove {
		if r.Type == wire.Rremove {
			w.lost(at.name)
		}
		if m.Fid != 0 {
			delete(w.fids, m.Fid)
		}
		return
	}
	if r.Type == wire.Rlerror {
		return
	}
	switch m.Type {
	case wire.Twalk:
		to := *at
		if len(m.Names) > 0 {
			to.name = m.Names[0]
		}
		w.fids[m.Newfid] = &to
	case wire.Tlopen:
		at.open, at.flags = true, p9.OpenFlags(m.L.Flags)
	case wire.Tlcreate:
		*at = place{name: m.Name, open: true, flags: p9.OpenFlags(m.L.Flags)}
		w.files[m.Name] = true
	case wire.Tunlinkat:
		w.lost(m.Name)
	case wire.Trenameat:
		w.renamed(m.Name, m.Ext)
	case wire.Trename:
		w.renamed(at.name, m.Name)
	}
}

// lost marks the fids of a file that is gone.
func (w *world) lost(name string) {
	delete(w.files, name)
	for _, p := range w.fids {
		if p.name == name {
			p.gone, p.name = true, "(gone)"
		}
	}
}

func (w *world) renamed(from, to string) {
	if from == to {
		return
	}
	w.lost(to)
	delete(w.files, from)
	w.files[to] = true
	for _, p := range w.fids {
		if p.name == from {
			p.name = to
		}
	}
}
