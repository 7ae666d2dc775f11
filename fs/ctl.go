package fs

import (
	"github.com/hugelgupf/p9/p9"
)

// ctlFile is ctl: a VM's, or with no dir the root's. It takes verbs, one a line,
// and reads as the state of what it controls.
type ctlFile struct {
	v   *View
	dir *vmDir
}

func (n *ctlFile) QID() p9.QID { return n.dir.streamQID(slotCtl, pathCtl) }

func (n *ctlFile) Stat(st *Stat) error {
	err := n.v.statStream(st, n.QID(), n.dir, "ctl", 0o600)
	st.OwnMode = true // it stays the admin's, whatever uid, gid and mode the mount asks for
	return err
}

// Open renders the state if the file is opened for reading. It ignores truncation.
func (n *ctlFile) Open(f Flags) (Handle, error) {
	h := newLineHandle(n, f, n.status)
	if f&Read == 0 {
		_, err := n.status() // only to know that it is still there
		return h, err
	}
	return h, h.take()
}

// AppendValue appends the state.
func (n *ctlFile) AppendValue(b []byte, max int) ([]byte, error) {
	text, err := n.status()
	if err != nil {
		return b, err
	}
	return appendWhole(b, text, max)
}

// PutValue runs the lines of data; its end ends the last one.
func (n *ctlFile) PutValue(data []byte, by Author, done func(error)) {
	putLines(n, data, by, done)
}

// SetStat is setLineFile.
func (n *ctlFile) SetStat(c Change, _ Author, done func(error)) { setLineFile(n, c, done) }
