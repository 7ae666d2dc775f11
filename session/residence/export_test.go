package residence

import (
	"bytes"

	tree "meta9/fs"
	"meta9/session"
)

// Image restores what the bytes of a file say.
func Image(b []byte, home Home, srv *session.Server, t *tree.Tree) (r Report) {
	r.read(srv, t, func(take func(any) error, lost func(error)) error {
		return read(bytes.NewReader(b), int64(len(b)), home, take, lost)
	})
	return r
}

// Sealed is a file of this home that has one record, whatever its body is.
func Sealed(home Home, kind byte, body []byte) []byte {
	var b bytes.Buffer
	w := newWriter(&b)
	_ = w.home(home) // into memory
	_ = w.record(kind, body)
	_ = w.end()
	_ = w.out.Flush()
	return b.Bytes()
}

// Body is a session's record.
func Body(st session.State) []byte {
	w := newWriter(new(bytes.Buffer))
	_ = w.session(st) // into memory
	return w.body
}
