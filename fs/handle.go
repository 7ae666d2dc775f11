package fs

import "meta9/fs/errs"

// plain is what the Handles of files without a key have in common: they cannot be
// changed, and there is nothing to end.
type plain struct {
	node  Node
	flags Flags
}

// Stat is the node's.
func (h *plain) Stat(st *Stat) error { return opened(h.node.Stat(st)) }

// Write is refused.
func (h *plain) Write(_ []byte, _ uint64, _ Author, done func(int, error)) {
	done(0, errs.BadUse)
}

// SetStat is the node's, if it has one.
func (h *plain) SetStat(c Change, by Author, done func(error)) {
	setStat(h.node, c, by, done)
}

// setStat changes n as c says. A folder's time is that of its newest commit, and its mode
// is fixed: a change of its times, or to the mode that it has, succeeds and does nothing,
// for touch, cp -a and rsync -t.
func setStat(n Node, c Change, by Author, done func(error)) {
	switch s, ok := n.(Setter); {
	case c.Empty():
		done(nil)
	case ok:
		s.SetStat(c, by, done)
	case touches(n, c):
		done(nil)
	default:
		done(Missing(n, OpSetStat))
	}
}

// touches tells whether n is a folder and c sets only times and the mode that n has.
func touches(n Node, c Change) bool {
	var st Stat
	_, folder := n.(Folder)
	return folder && c.Length == nil && c.Name == nil && n.Stat(&st) == nil && (c.Mode == nil || *c.Mode == st.Mode)
}

// Sync has nothing to do.
func (h *plain) Sync(_ Author, done func(error)) { done(nil) }

// Clunk has nothing to do.
func (h *plain) Clunk(_ Author, done func(error)) { done(nil) }

// Drop has nothing to do.
func (h *plain) Drop() {}

// State is the flags.
func (h *plain) State() HandleState { return HandleState{Flags: h.flags} }

// readable tells whether the Handle was opened for reading.
func (h *plain) readable() bool { return h.flags&Read != 0 }

// refuseWrite is the error for opening a read-only file for writing, or nil.
func refuseWrite(n Node, f Flags) error {
	if f&(Write|Trunc|AppendTo) != 0 {
		return Missing(n, OpWrite)
	}
	return nil
}

// dirHandle is an open folder. It is read with Ref.List.
type dirHandle struct{ plain }

// Read answers IsDir.
func (h *dirHandle) Read([]byte, uint64) (int, error) { return 0, errs.IsDir }

// Write answers IsDir.
func (h *dirHandle) Write(_ []byte, _ uint64, _ Author, done func(int, error)) {
	done(0, errs.IsDir)
}
