package upstream

import (
	"slices"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
)

// file is one key. Its qid.version is 0, so that no client caches it: other clients of
// the service change the value without our seeing it.
type file struct {
	dir    *dir
	name   string // of the file
	key    string // as the service names it
	length int    // of the value, when the file was walked to
}

// QID is made of the service's path and the file's name, so that it stays the same.
func (f *file) QID() p9.QID { return p9.QID{Path: f.dir.service.qidPath(f.dir.name, f.name)} }

// Stat gives the length as of the walk to the file.
func (f *file) Stat(st *fs.Stat) error {
	*st = fs.Stat{QID: f.QID(), Mode: f.dir.mode, Length: uint64(f.length), Name: f.name}
	return nil
}

// valueOf is the question of a step that needs a key's value (fs.Ask).
type valueOf struct {
	service *Service
	key     string
}

// get asks for the value.
func (f *file) get() ([]byte, error) {
	s := f.dir.service
	return fs.Ask(f.dir.view, valueOf{s, f.key}, func() ([]byte, error) { return s.get(f.key) })
}

// AppendValue asks for the value.
func (f *file) AppendValue(b []byte, max int) ([]byte, error) {
	value, err := f.get()
	if err != nil {
		return b, err
	}
	return appendValue(b, value, max)
}

func appendValue(b, value []byte, max int) ([]byte, error) {
	if len(value) > max {
		return b, errs.Big(len(value), max)
	}
	return append(b, value...), nil
}

// sdcFile is a derived key: read only.
type sdcFile struct{ file }

// Open asks for the value.
func (n *sdcFile) Open(f fs.Flags) (fs.Handle, error) {
	if f&(fs.Write|fs.Trunc|fs.AppendTo) != 0 {
		return nil, fs.Missing(n, fs.OpWrite)
	}
	h := &handle{file: &n.file, node: n, flags: f}
	return h, h.fetch()
}

// keyFile is a key that is read and written through.
type keyFile struct {
	file
	created bool // made by a create, not put to the service yet, and not open yet

	// The value that a create has found. Open may not ask the service then, since it is
	// called without the View.
	found bool
	value []byte
}

// PutValue replaces the value.
func (n *keyFile) PutValue(data []byte, _ fs.Author, done func(error)) {
	data = slices.Clone(data)
	go func() { done(n.dir.service.put(n.key, data)) }()
}

// Remove removes the key.
func (n *keyFile) Remove(_ fs.Author, done func(error)) {
	go func() { done(n.dir.service.remove(n.key)) }()
}

// SetStat sets the length. Times are ignored: the service keeps them, and clients send
// them along with lengths.
func (n *keyFile) SetStat(c fs.Change, _ fs.Author, done func(error)) {
	if c.Mode != nil || c.Name != nil {
		done(errs.New(errs.NotPermitted, "a key of another service's has no mode here, and no other name"))
		return
	}
	if c.Length == nil {
		done(nil)
		return
	}
	size := *c.Length
	go func() {
		done(n.dir.service.change(n.key, func(old []byte) ([]byte, error) { return resized(old, size) }))
	}()
}

// maxValue is the largest value, in bytes, that a write or a truncation may make here.
// The service may have a lower limit.
const maxValue = 16 << 20

// maxOpenBytes bounds the bytes of all open keys of a service: the service decides how
// large they are.
const maxOpenBytes = 64 << 20

// resized cuts old, or fills it up with zeros.
func resized(old []byte, size uint64) ([]byte, error) {
	if size > maxValue {
		return nil, errs.New(errs.TooLarge, "%d bytes is the limit of a value", maxValue)
	}
	if size <= uint64(len(old)) {
		return old[:size], nil
	}
	return append(old, make([]byte, size-uint64(len(old)))...), nil
}

// Open asks for the value, unless it is to be truncated.
func (n *keyFile) Open(f fs.Flags) (fs.Handle, error) {
	h := &handle{file: &n.file, node: n, flags: f, truncated: n.created || f&fs.Trunc != 0}
	value, found := n.value, n.found
	n.created, n.found, n.value = false, false, nil // the node may be opened again
	switch {
	case f&fs.Read == 0 || h.truncated:
		return h, nil
	case found:
		return h, h.setValue(value)
	}
	return h, h.fetch()
}
