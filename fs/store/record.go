package store

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"unsafe"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// The layout of an engine's keys and values.
//
//	m                      the high-water marks: revision, id
//	v uuid[16] 0           a VM: id, rev, date, properties
//	v uuid[16] 1+space key an entry: id, rev, mtime, date, mode, kind, muid, value
//
// Every value is a format byte, the CRC32C (little-endian) of key, format byte
// and rest, and the rest: varints, and one text without a length at the end. date
// is when the record was committed. A VM's Rev and Mtime are those of its newest
// record, so that a write to a key need not write the VM.
const (
	formatByte = 1
	logFormat  = 2 // of the marks while an engine has a log (see LogMark)
	headSize   = 1 + crc32.Size
	uuidSize   = 16

	prefixMarks = 'm'
	prefixVM    = 'v'
	tagVM       = 0
	tagSpace    = 1 // and the space
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxValue bounds a value where no limit is set. It is what fits the engines and
// an int of any size.
const maxValue = 1 << 30

// marks are the numbers up to which revisions and ids may have been handed out.
type marks struct{ rev, id uint64 }

// entryRecord is an entry and when it was committed.
type entryRecord struct {
	entry vm.Entry
	date  int64
}

// vmRecord is what the record of a VM says.
type vmRecord struct {
	id, rev uint64
	date    int64
	props   []byte
}

func marksKey() []byte { return []byte{prefixMarks} }

// appendKey appends the key of the VM's record (tagVM, no name), or of an entry.
func appendKey(b []byte, uuid string, tag byte, name string) []byte {
	b = append(b, prefixVM)
	b = appendUUID(b, uuid)
	return append(append(b, tag), name...)
}

// appendUUID appends the 16 bytes of a uuid that vm has found valid.
func appendUUID(b []byte, uuid string) []byte {
	var text [2 * uuidSize]byte
	n := 0
	for i := 0; i < len(uuid) && n < len(text); i++ {
		if uuid[i] != '-' {
			text[n] = uuid[i]
			n++
		}
	}
	var raw [uuidSize]byte
	_, _ = hex.Decode(raw[:], text[:])
	return append(b, raw[:]...)
}

// uuidText is the uuid's text: 8-4-4-4-12 digits.
func uuidText(raw []byte) string {
	h := hex.EncodeToString(raw)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// begin begins a value with room for its head.
func begin(b []byte) []byte { return append(b, make([]byte, headSize)...) }

// seal writes the head of a value whose rest is complete, with the tail that
// follows it.
func seal(key, value []byte, tail string) { sealAs(formatByte, key, value, tail) }

func sealAs(format byte, key, value []byte, tail string) {
	value[0] = format
	sum := checksum(key, value)
	if tail != "" {
		// The checksum only reads the bytes, and copies of large values cost more.
		sum = crc32.Update(sum, castagnoli, unsafe.Slice(unsafe.StringData(tail), len(tail)))
	}
	binary.LittleEndian.PutUint32(value[1:], sum)
}

func checksum(key, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, value[:1])
	return crc32.Update(sum, castagnoli, value[headSize:])
}

// unseal is the rest of a value, if it is whole.
func unseal(key, value []byte) ([]byte, error) { return unsealAs(formatByte, key, value) }

func unsealAs(format byte, key, value []byte) ([]byte, error) {
	switch {
	case len(value) < headSize:
		return nil, errs.New(errs.IO, "the record has %d bytes, %d are the least", len(value), headSize)
	case binary.LittleEndian.Uint32(value[1:]) != checksum(key, value):
		return nil, errs.New(errs.IO, "the checksum is wrong")
	case value[0] != format:
		return nil, errs.New(errs.IO, "format %d is not known to this version", value[0])
	}
	return value[headSize:], nil
}

// value is the record of the marks.
func (m marks) value() []byte {
	b := begin(nil)
	b = binary.AppendUvarint(b, m.rev)
	b = binary.AppendUvarint(b, m.id)
	seal(marksKey(), b, "")
	return b
}

// LogMark names a log that an engine keeps in front of its own file. While the log
// may hold what the file does not, the mark is part of the record of the marks in
// the file, whose format is then one that versions without logs refuse.
type LogMark struct {
	ID   [16]byte
	Size int64 // of the log's file
}

// MarksKey is the key of the record of the marks.
func MarksKey() []byte { return marksKey() }

// WithMark is the record of the marks with a mark.
func WithMark(plain []byte, m LogMark) ([]byte, error) {
	rest, err := unseal(marksKey(), plain)
	if err != nil {
		return nil, err
	}
	b := append(append(begin(nil), rest...), m.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	sealAs(logFormat, marksKey(), b, "")
	return b, nil
}

// CutMark is the record of the marks without its mark; has is false for one that has
// none, and for one that is damaged, which stays as it is.
func CutMark(value []byte) (plain []byte, m LogMark, has bool) {
	rest, err := unsealAs(logFormat, marksKey(), value)
	n := len(rest) - len(m.ID) - 8
	if err != nil || n < 0 {
		return value, m, false
	}
	copy(m.ID[:], rest[n:])
	m.Size = int64(binary.BigEndian.Uint64(rest[n+len(m.ID):]))
	plain = append(begin(nil), rest[:n]...)
	seal(marksKey(), plain, "")
	return plain, m, true
}

// Whole says whether that is a record as a store makes it.
func Whole(key, value []byte) bool {
	_, err := unseal(key, value)
	if string(key) == string(marksKey()) && err != nil {
		_, _, has := CutMark(value)
		return has
	}
	return err == nil
}

func readMarks(key, value []byte) (marks, error) {
	rest, err := unseal(key, value)
	if err != nil {
		return marks{}, err
	}
	f := fields{b: rest}
	m := marks{rev: f.uvarint(), id: f.uvarint()}
	return m, f.end()
}

// drop appends the op that deletes the VM's record, or an entry.
func (b *batch) drop(uuid string, tag byte, name string) {
	from := len(b.arena)
	b.arena = appendKey(b.arena, uuid, tag, name)
	b.ops = append(b.ops, Op{Key: b.arena[from:len(b.arena):len(b.arena)]})
}

// sealed appends an op whose key is in the arena between the two places, and whose
// value is what follows there, and tail.
func (b *batch) sealed(from, value int, tail string) {
	end := len(b.arena)
	op := Op{Key: b.arena[from:value:value], Value: b.arena[value:end:end], Tail: tail}
	seal(op.Key, op.Value, tail)
	b.ops = append(b.ops, op)
}

// putVM appends the op that writes the VM's record.
func (b *batch) putVM(v *vm.VM) {
	from := len(b.arena)
	a := appendKey(b.arena, v.UUID, tagVM, "")
	value := len(a)
	a = begin(a)
	a = binary.AppendUvarint(a, v.ID)
	a = binary.AppendUvarint(a, v.Rev)
	a = binary.AppendVarint(a, v.Mtime)
	b.arena = v.AppendRecord(a)
	b.sealed(from, value, "")
}

// putEntry appends the op that writes an entry, in a commit of that date.
func (b *batch) putEntry(uuid string, date int64, sp vm.Space, e *vm.Entry) {
	from := len(b.arena)
	a := appendKey(b.arena, uuid, tagSpace+byte(sp), e.Name)
	value := len(a)
	a = begin(a)
	a = binary.AppendUvarint(a, e.ID)
	a = binary.AppendUvarint(a, e.Rev)
	a = binary.AppendVarint(a, e.Mtime)
	a = binary.AppendVarint(a, date-e.Mtime)
	a = binary.AppendUvarint(a, uint64(e.Mode))
	a = append(a, byte(e.Kind))
	a = binary.AppendUvarint(a, uint64(len(e.Muid)))
	b.arena = append(a, e.Muid...)
	b.sealed(from, value, e.Value)
}

func readVM(key, value []byte) (vmRecord, error) {
	rest, err := unseal(key, value)
	if err != nil {
		return vmRecord{}, err
	}
	f := fields{b: rest}
	r := vmRecord{id: f.uvarint(), rev: f.uvarint(), date: f.varint()}
	r.props = f.rest()
	return r, f.err()
}

// readEntry reads all but the name. text makes the strings that many entries
// have alike.
func readEntry(key, value []byte, text func([]byte) string) (entryRecord, error) {
	rest, err := unseal(key, value)
	if err != nil {
		return entryRecord{}, err
	}
	f := fields{b: rest}
	var r entryRecord
	r.entry.ID, r.entry.Rev, r.entry.Mtime = f.uvarint(), f.uvarint(), f.varint()
	r.date = r.entry.Mtime + f.varint()
	r.entry.Mode = uint16(f.uvarint())
	r.entry.Kind = vm.Kind(f.byte())
	muid := f.take(f.uvarint())
	if f.bad || r.entry.Kind > vm.Bool || r.entry.ID == 0 {
		return entryRecord{}, errMalformed
	}
	r.entry.Muid = text(muid)
	r.entry.Value = string(f.rest())
	return r, nil
}

var errMalformed = errs.New(errs.IO, "the record's fields are wrong")

// fields reads the rest of a record; bad stays true after the first field that
// is not there.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	return skip(f, v, n)
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	return skip(f, v, n)
}

func skip[T uint64 | int64](f *fields, v T, n int) T {
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) byte() byte {
	b := f.take(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (f *fields) take(n uint64) []byte {
	if n > uint64(len(f.b)) {
		f.bad = true
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) rest() []byte {
	b := f.b
	f.b = nil
	return b
}

func (f *fields) err() error {
	if f.bad {
		return errMalformed
	}
	return nil
}

// end is err, and an error too when there is more than was asked for.
func (f *fields) end() error {
	if len(f.b) > 0 {
		return errMalformed
	}
	return f.err()
}
