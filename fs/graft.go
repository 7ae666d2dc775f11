package fs

import (
	"cmp"
	"errors"
	"slices"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
)

type rootGraft struct {
	name string
	node func(p Principal, v *View) Node
}

type vmGraft struct {
	name  string
	node  func(v *View, c *store.Cell) Node
	admin bool
}

// GraftRoot adds a name to the admin's root. f makes the Node for one View, each
// time that it is looked up; nil: it is not there now.
func (t *Tree) GraftRoot(name string, f func(p Principal, v *View) Node) {
	t.rootGrafts = append(t.rootGrafts, rootGraft{name, f})
}

// GraftVM adds a name to the folder of every VM, with admin for the admin only. f
// is as for GraftRoot.
func (t *Tree) GraftVM(name string, f func(v *View, c *store.Cell) Node, admin bool) {
	t.vmGrafts = append(t.vmGrafts, vmGraft{name, f, admin})
}

// found is the result of a walk to a graft.
func found(n Node, name string) (Node, error) {
	if n == nil {
		return nil, errs.NotFound
	}
	return named(n, name), nil
}

// named sets the name of a node that was made by NewFile or NewFolder. Other Nodes know
// their names, or Ref fills them in.
func named(n Node, name string) Node {
	switch n := n.(type) {
	case *file:
		n.name = name
	case *folder:
		n.name = name
	case *streamFile:
		n.file.name = name
	}
	return n
}

// NewFile makes a read-only file whose content is taken when it is opened, and
// again by every read at offset 0 but the first. Its qid.version and length are 0, as it changes
// without commits; qidPath must be its own (see DerivedPath).
func NewFile(qidPath uint64, mode uint16, content func() ([]byte, error)) Node {
	return &file{path: qidPath, mode: mode, content: content}
}

type file struct {
	path    uint64
	name    string
	mode    uint16
	content func() ([]byte, error)
}

func (n *file) QID() p9.QID { return streamQID(n.path) }

func (n *file) Stat(st *Stat) error {
	*st = Stat{QID: n.QID(), Mode: n.mode, Name: n.name}
	return nil
}

// Open fails with content's error, such as IO for an upstream that is silent.
func (n *file) Open(f Flags) (Handle, error) {
	if err := refuseWrite(n, f); err != nil {
		return nil, err
	}
	h := &fileHandle{plain: plain{node: n, flags: f}, content: n.content}
	return h, h.take()
}

func (n *file) AppendValue(b []byte, max int) ([]byte, error) {
	data, err := n.content()
	if err != nil {
		return b, err
	}
	return appendWhole(b, data, max)
}

// fileHandle reads a content that it took.
type fileHandle struct {
	plain
	content func() ([]byte, error)
	data    []byte
	begun   bool // a read at offset 0 has used data
}

// take renders the content.
func (h *fileHandle) take() (err error) {
	h.data, err = h.content()
	return err
}

// Read returns the content that was taken. A second read at offset 0 takes it again.
func (h *fileHandle) Read(p []byte, off uint64) (int, error) {
	if !h.readable() {
		return 0, errs.BadUse
	}
	if off == 0 {
		if h.begun {
			if err := h.take(); err != nil {
				return 0, err
			}
		}
		h.begun = true
	}
	if off >= uint64(len(h.data)) {
		return 0, nil
	}
	return copy(p, h.data[off:]), nil
}

// NamedNode is an entry of a folder.
type NamedNode struct {
	Name string // file name
	Node Node
}

// NewFolder makes a read-only folder. Each walk and listing calls list for its entries;
// their cookies are their qid paths.
func NewFolder(qidPath uint64, list func() []NamedNode) Node {
	return &folder{path: qidPath, entries: list}
}

type folder struct {
	path    uint64
	name    string
	entries func() []NamedNode
}

func (n *folder) readOnly() {}

func (n *folder) QID() p9.QID { return p9.QID{Type: p9.TypeDir, Path: n.path} }

func (n *folder) Stat(st *Stat) error {
	*st = Stat{QID: n.QID(), Mode: dirMode, Name: n.name}
	return nil
}

func (n *folder) Walk(name string) (Node, error) {
	for _, e := range n.entries() {
		if e.Name == name {
			return named(e.Node, name), nil
		}
	}
	return nil, errs.NotFound
}

func (n *folder) List(after uint64, fn func(uint64, *Stat) bool) error {
	var l lister
	for _, e := range n.entries() {
		l.addGraft(e.Name, e.Node)
	}
	return l.list(after, fn)
}

// lister lists nodes in the order of their cookies.
type lister struct{ entries []listed }

type listed struct {
	cookie uint64
	name   string
	node   Node
}

func (l *lister) add(cookie uint64, name string, n Node) {
	l.entries = append(l.entries, listed{cookie, name, n})
}

// addGraft adds a node under its qid.path, which is above every slot's number; nil
// is nothing.
func (l *lister) addGraft(name string, n Node) {
	if n != nil {
		l.add(n.QID().Path, name, n)
	}
}

// list calls fn with the entries, without those that are gone by now.
func (l *lister) list(after uint64, fn func(uint64, *Stat) bool) error {
	slices.SortFunc(l.entries, func(a, b listed) int { return cmp.Compare(a.cookie, b.cookie) })
	var st Stat
	for _, e := range l.entries {
		if e.cookie <= after {
			continue
		}
		switch err := e.node.Stat(&st); {
		case errors.Is(err, errs.NotFound), errors.Is(err, errs.Gone):
			continue
		case err != nil:
			return err
		}
		st.Name = e.name
		if !fn(e.cookie, &st) {
			return nil
		}
	}
	return nil
}
