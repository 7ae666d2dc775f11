// Package backup is the format of a backup: records of keys and values, and at the end
// their number and a checksum of all, so that a file that was cut or altered is no backup.
// It knows nothing of what the records say: that is fs/store's.
//
// A file is the 16 bytes of magic; for each record the lengths of key and value as
// uvarints, then both; a zero byte; the number of records, 8 bytes, big-endian; and the
// SHA-256 of all that. No key is empty.
//
// A Writer belongs to one goroutine. Nothing here keeps a file in memory.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

const magic = "meta9 backup 1\r\n"

// Bounds of one record; what is larger is no backup of ours.
const (
	maxKey   = 64 << 10
	maxValue = 1<<30 + 64<<10
)

// Writer writes a backup.
type Writer struct {
	w   *bufio.Writer
	sum hash.Hash
	n   uint64
	err error
}

// NewWriter begins a backup on w.
func NewWriter(w io.Writer) *Writer {
	sum := sha256.New()
	b := &Writer{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10), sum: sum}
	b.text(magic)
	return b
}

// Record writes one; its value is the parts of value, one after the other.
func (b *Writer) Record(key []byte, value []byte, tail string) {
	head := binary.AppendUvarint(nil, uint64(len(key)))
	b.text(string(binary.AppendUvarint(head, uint64(len(value)+len(tail)))))
	b.text(string(key))
	b.bytes(value)
	b.text(tail)
	b.n++
}

func (b *Writer) text(s string) {
	if b.err == nil {
		_, b.err = b.w.WriteString(s)
	}
}

func (b *Writer) bytes(s []byte) {
	if b.err == nil {
		_, b.err = b.w.Write(s)
	}
}

// Err is the first error of writing.
func (b *Writer) Err() error { return b.err }

// Close ends the backup: without it there is none.
func (b *Writer) Close() error {
	b.bytes(binary.BigEndian.AppendUint64([]byte{0}, b.n))
	if b.err == nil {
		b.err = b.w.Flush()
	}
	b.bytes(b.sum.Sum(nil))
	if b.err == nil {
		b.err = b.w.Flush()
	}
	return b.err
}

// ErrNone is what Read returns of what is no whole backup.
var ErrNone = errors.New("no whole backup")

func none(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNone, fmt.Sprintf(format, args...))
}

// Read reads a backup to its end and calls fn for each record, whose slices live as long
// as the call; an error of fn ends it. Only the end shows that the backup is whole, and
// unaltered: who makes something of the records reads it twice, with fn nil before.
func Read(r io.Reader, fn func(key, value []byte) error) (records uint64, err error) {
	in := &summed{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	head := make([]byte, len(magic))
	if err := in.full(head); err != nil {
		return 0, err
	}
	if string(head) != magic {
		if bytes.HasPrefix(head, []byte("meta9 backup ")) {
			return 0, none("it is of another version, %q", head)
		}
		return 0, none("it does not begin as one")
	}
	var key, value []byte
	for {
		n, err := in.size(maxKey)
		if err != nil {
			return records, err
		}
		if n == 0 {
			return records, in.end(records)
		}
		m, err := in.size(maxValue)
		if err != nil {
			return records, err
		}
		if key, err = in.take(key, n); err == nil {
			value, err = in.take(value, m)
		}
		if err == nil && fn != nil {
			err = fn(key, value)
		}
		if err != nil {
			return records, err
		}
		records++
	}
}

// summed reads, and sums up what was read.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (in *summed) full(b []byte) error {
	_, err := io.ReadFull(in.r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return none("it was cut off")
	}
	in.sum.Write(b)
	return err
}

// ReadByte is for binary.ReadUvarint.
func (in *summed) ReadByte() (byte, error) {
	var b [1]byte
	err := in.full(b[:])
	return b[0], err
}

func (in *summed) size(most uint64) (int, error) {
	n, err := binary.ReadUvarint(in)
	if err == nil && n > most {
		err = none("a record has %d bytes", n)
	}
	if err != nil && !errors.Is(err, ErrNone) {
		err = none("%v", err)
	}
	return int(n), err
}

// take reads n bytes into b. Memory comes with the bytes: a length alone takes none.
func (in *summed) take(b []byte, n int) ([]byte, error) {
	b = b[:0]
	for len(b) < n {
		part := min(n-len(b), 64<<10)
		from := len(b)
		b = append(b, make([]byte, part)...)
		if err := in.full(b[from:]); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (in *summed) end(records uint64) error {
	var count [8]byte
	if err := in.full(count[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint64(count[:]); n != records {
		return none("it has %d records, and says %d", records, n)
	}
	want := in.sum.Sum(nil)
	got := make([]byte, len(want))
	if err := in.full(got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return none("its checksum is wrong: it was altered")
	}
	if _, err := in.r.ReadByte(); err != io.EOF {
		return none("something follows its end")
	}
	return nil
}
