package durability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"meta9/session/wire"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// writer is a client that changes keys of its own, one acknowledged step after
// the other, and knows what it must find after a kill. Fid 0 of the connection
// is the folder of the keys.
type writer interface {
	// step makes the next change; nil: it was acknowledged.
	step(c *raw.Conn) error
	// check says what of the acknowledged is missing, or what is there by half,
	// and takes what it finds for acknowledged.
	check(c *raw.Conn) error
}

func newWriter(i int) writer {
	switch i % 5 {
	case 0:
		return &replacer{key: fmt.Sprintf("macro%d", i), put: putMacro}
	case 1:
		return &replacer{key: fmt.Sprintf("file%d", i), put: putFile}
	case 2:
		return &appender{n: i}
	case 3:
		return &transactor{n: i}
	}
	return &flipper{key: fmt.Sprintf("flip%d", i)}
}

// value is the whole value number seq of a key: no other has a part of it, and
// its length is in it.
func value(key string, seq int) []byte {
	random := rand.New(rand.NewPCG(uint64(len(key)), uint64(seq)))
	n := random.IntN(3000)
	b := fmt.Appendf(nil, "%s %d %d ", key, seq, n)
	for range n {
		b = append(b, byte(random.Uint32()))
	}
	return b
}

// get reads a whole key; nil: there is none.
func get(c *raw.Conn, key string) ([]byte, error) {
	b, err := c.Sread(0, key)
	var refused *raw.Error
	if errors.As(err, &refused) && bytes.HasPrefix([]byte(refused.Text), []byte("file does not exist")) {
		return nil, nil
	}
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// replacer replaces a value whole, again and again.
type replacer struct {
	key          string
	acked, tried int // of the values; 0: none yet
	put          func(c *raw.Conn, key string, value []byte) error
}

func (w *replacer) step(c *raw.Conn) error {
	w.tried++
	if err := w.put(c, w.key, value(w.key, w.tried)); err != nil {
		return err
	}
	w.acked = w.tried
	return nil
}

// putMacro is one Tswrite.
func putMacro(c *raw.Conn, key string, value []byte) error { return c.Swrite(0, value, key) }

// putFile is what a shell's "echo value > key" does: open with truncation, one
// Twrite, clunk. The truncation is held, so no moment shows an empty value.
func putFile(c *raw.Conn, key string, value []byte) error {
	if err := c.Walk(0, 1); err != nil {
		return err
	}
	open := func() error { return c.Open(1, wire.OWrite|wire.OTrunc) }
	err := c.Walk(0, 2, key)
	if err == nil {
		if err = c.Clunk(1); err != nil {
			return err
		}
		if err = c.Walk(2, 1); err != nil {
			return err
		}
		if err = c.Clunk(2); err != nil {
			return err
		}
	} else {
		open = func() error {
			_, err := c.RPC(wire.Tcreate, 0, uint32(1), key, uint32(0o600), wire.OWrite)
			return err
		}
	}
	if err := open(); err != nil {
		return err
	}
	if err := c.Write(1, 0, value); err != nil {
		return err
	}
	return c.Clunk(1)
}

func (w *replacer) check(c *raw.Conn) error {
	got, err := get(c, w.key)
	if err != nil {
		return err
	}
	for _, seq := range []int{w.acked, w.tried} {
		if seq == 0 && got == nil || seq > 0 && bytes.Equal(got, value(w.key, seq)) {
			w.acked, w.tried = seq, seq
			return nil
		}
	}
	if w.acked == 0 && len(got) == 0 {
		w.tried = 0 // Tcreate commits an empty value at once, before the Twrite
		return nil
	}
	return fmt.Errorf("%s: acknowledged was %d, tried %d; found %d bytes %.40q", w.key, w.acked, w.tried, len(got), got)
}

// appender appends lines to a key by a fid opened for that; a key has some
// hundred lines, then comes the next.
type appender struct {
	n            int
	acked, tried int // lines, of all keys
}

const linesPerKey = 400

func (w *appender) key(seq int) string { return fmt.Sprintf("log%d-%d", w.n, (seq-1)/linesPerKey) }

func (w *appender) line(seq int) string { return fmt.Sprintf("line %d of writer %d\n", seq, w.n) }

func (w *appender) step(c *raw.Conn) error {
	w.tried++
	if err := w.appendLine(c, w.tried); err != nil {
		return err
	}
	w.acked = w.tried
	return nil
}

// appendLine writes at the end, which only this writer moves.
func (w *appender) appendLine(c *raw.Conn, seq int) error {
	line := []byte(w.line(seq))
	first := (seq - 1) / linesPerKey * linesPerKey
	if seq-1 == first {
		return c.Swrite(0, line, w.key(seq))
	}
	if err := c.Walk(0, 1, w.key(seq)); err != nil {
		return err
	}
	if err := c.Open(1, wire.OWrite); err != nil {
		return err
	}
	if err := c.Write(1, uint64(len(w.lines(first, seq-1))), line); err != nil {
		return err
	}
	return c.Clunk(1)
}

// lines are the lines after first up to last.
func (w *appender) lines(first, last int) []byte {
	var b []byte
	for seq := first + 1; seq <= last; seq++ {
		b = append(b, w.line(seq)...)
	}
	return b
}

func (w *appender) check(c *raw.Conn) error {
	if w.tried == 0 {
		return nil
	}
	got, err := get(c, w.key(w.tried))
	if err != nil {
		return err
	}
	first := (w.tried - 1) / linesPerKey * linesPerKey
	for _, seq := range []int{w.acked, w.tried} {
		if bytes.Equal(got, w.lines(first, seq)) {
			w.acked, w.tried = seq, seq
			return nil
		}
	}
	return fmt.Errorf("%s: acknowledged to line %d, tried %d; found %d bytes, the end %.60q", w.key(w.tried), w.acked, w.tried, len(got), tail(got))
}

func tail(b []byte) []byte { return b[max(0, len(b)-60):] }

// flipper creates a key and removes it again.
type flipper struct {
	key          string
	acked, tried int // odd: it is there
}

func (w *flipper) step(c *raw.Conn) error {
	w.tried++
	if err := w.flip(c); err != nil {
		return err
	}
	w.acked = w.tried
	return nil
}

func (w *flipper) flip(c *raw.Conn) error {
	if w.tried%2 == 1 {
		return c.Swrite(0, []byte(w.key), w.key)
	}
	if err := c.Walk(0, 1, w.key); err != nil {
		return err
	}
	_, err := c.RPC(wire.Tremove, 0, uint32(1))
	return err
}

func (w *flipper) check(c *raw.Conn) error {
	got, err := get(c, w.key)
	if err != nil {
		return err
	}
	for _, seq := range []int{w.acked, w.tried} {
		if (got != nil) == (seq%2 == 1) && (got == nil || string(got) == w.key) {
			w.acked, w.tried = seq, seq
			return nil
		}
	}
	return fmt.Errorf("%s: acknowledged was step %d, tried %d; found %q", w.key, w.acked, w.tried, got)
}

// transactor changes ten keys at once, by transactions that also create one or remove
// it again.
type transactor struct {
	n            int
	acked, tried int
}

func (w *transactor) key(i int) string { return fmt.Sprintf("txn%d-%d", w.n, i) }

// there is the key that only odd transactions leave.
func (w *transactor) there() string { return fmt.Sprintf("txn%d-there", w.n) }

const txnKeys = 10

// value is what transaction number seq leaves in the key number i.
func (w *transactor) value(i, seq int) string { return fmt.Sprintf("%d of %d", i, seq) }

func (w *transactor) step(c *raw.Conn) error {
	w.tried++
	line := fmt.Appendf(nil, `{"do":[{"remove":%q}`, w.there())
	if w.tried%2 == 1 {
		line = fmt.Appendf(nil, `{"if":[{"key":%q,"absent":true}],"do":[{"put":%q,"value":""}`, w.there(), w.there())
	}
	for i := range txnKeys {
		line = fmt.Appendf(line, `,{"put":%q,"value":%q}`, w.key(i), w.value(i, w.tried))
	}
	if err := w.transact(c, append(line, "]}"...)); err != nil {
		return err
	}
	w.acked = w.tried
	return nil
}

// transact writes a line to the txn of the VM, whose folder of keys is fid 0.
func (w *transactor) transact(c *raw.Conn, line []byte) error {
	const vm = 3
	if err := c.Attach(vm, "vms/"+testenv.UUID(w.n%nVMs)); err != nil {
		return err
	}
	err := c.Swrite(vm, line, "txn")
	if err == nil {
		err = c.Clunk(vm)
	}
	return err
}

func (w *transactor) check(c *raw.Conn) error {
	var found []string
	for i := range txnKeys {
		b, err := get(c, w.key(i))
		if err != nil {
			return err
		}
		found = append(found, string(b))
	}
	there, err := get(c, w.there())
	if err != nil {
		return err
	}
	for _, seq := range []int{w.acked, w.tried} {
		whole := (there != nil) == (seq%2 == 1)
		for i, got := range found {
			whole = whole && (got == w.value(i, seq) || seq == 0 && got == "")
		}
		if whole {
			w.acked, w.tried = seq, seq
			return nil
		}
	}
	return fmt.Errorf("transactions of %d: acknowledged was %d, tried %d; found %q, %s: %v", w.n, w.acked, w.tried, found, w.there(), there != nil)
}
