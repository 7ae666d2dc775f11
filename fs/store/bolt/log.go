package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"go.etcd.io/bbolt"

	"meta9/fs/store"
)

// LogName is the log's file in the data folder.
const LogName = "meta9.log"

const (
	// blockSize is what a record begins at a multiple of, so that no write ever
	// touches a block of the disk in which an older record is.
	blockSize = 4096
	// segments is how many parts the file has: one is written while the other is
	// taken into the data file.
	segments = 2
	// defaultSegment is the size of one.
	defaultSegment = 4 << 20
)

// logID is drawn when a log is begun. Who does not know it cannot make bytes that
// are taken for a record, wherever a guest's values come to lie in the file.
type logID [16]byte

// The head of a record, little-endian:
//
//	 0  magic   "m9lg"
//	 4  CRC32C  of the rest of the head and of the body
//	 8  id      of the log
//	24  number  of the batch
//	32  prev    the number of the batch before it, in this log or in the data file
//	40  length  of the body
//
// The body is the batch's ops: for each the length of the key, the key, the length
// of the value plus one (0: the key is deleted), the value. Lengths inside the body are
// uvarints. If number == prev and there is no body, the record only says that this batch
// was already in the data file when the record was written.
const (
	logMagic = "m9lg"
	logHead  = 48
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is a batch as the log has it.
type record struct {
	number, prev uint64
	body         []byte
	blocks       int64
}

// logFile is the file of a log that is begun, and where the next record goes.
type logFile struct {
	file    *os.File
	inode   inode    // the file's
	acked   *os.File // says which batch is the newest (acked.go); nil: nobody does
	id      logID
	segment int64 // bytes of each
	part    int   // which segment is written
	at      int64 // from its start
	buf     []byte
}

// createLog makes the file, all of it written, so that a write to it later needs no
// room and no metadata. One of the right size that is there already is taken as it
// is.
func createLog(dir string, segment int64) (*os.File, error) {
	path := filepath.Join(dir, LogName)
	if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		if info, err := f.Stat(); err == nil && info.Size() == segments*segment {
			return f, nil
		}
		_ = f.Close()
	}
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, min(segment, 1<<20))
	for at := int64(0); at < segments*segment && err == nil; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, at)
	}
	if err == nil {
		err = errors.Join(f.Truncate(segments*segment), f.Sync())
	}
	if err == nil {
		err = errors.Join(os.Rename(path+".new", path), store.SyncDir(dir))
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		_ = os.Remove(path + ".new")
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// fits says whether a record of a body of that size fits into what is left of the
// segment.
func (l *logFile) fits(body int64) bool { return l.at+blocks(body)*blockSize <= l.segment }

func blocks(body int64) int64 { return (logHead + body + blockSize - 1) / blockSize }

// sizeOf is the most that the groups' body takes. The error is that of an op that the
// data file would refuse, when it is too late.
func sizeOf(groups []store.Group) (n int64, err error) {
	for i := range groups {
		for j := range groups[i].Ops {
			op := &groups[i].Ops[j]
			switch {
			case len(op.Key) == 0 || len(op.Key) > bbolt.MaxKeySize:
				return 0, fmt.Errorf("a key of %d bytes", len(op.Key))
			case int64(len(op.Value))+int64(len(op.Tail)) > bbolt.MaxValueSize:
				return 0, fmt.Errorf("a value of %d bytes", int64(len(op.Value))+int64(len(op.Tail)))
			}
			n += int64(2*binary.MaxVarintLen64 + len(op.Key) + len(op.Value) + len(op.Tail))
		}
	}
	return n, nil
}

// append writes a record and syncs it. wrote is false when the write failed, and so
// there is no record; any other error leaves open whether there is one.
func (l *logFile) append(groups []store.Group, number, prev uint64) (wrote bool, err error) {
	b, tails := appendRecord(l.buf[:0], l.id, number, prev, groups)
	if l.buf = b[:0]; cap(b) > 1<<20 {
		l.buf = nil
	}
	var size int64
	err = pieces(b, 0, tails, func(p []byte) error {
		_, err := l.file.WriteAt(p, int64(l.part)*l.segment+l.at+size)
		size += int64(len(p))
		return err
	})
	if err != nil {
		return false, err
	}
	if err := fdatasync(l.file); err != nil {
		return true, err
	}
	l.at += size
	return true, nil
}

// retract makes sure that the record whose sync has just failed for want of room is
// not there. NFS, quotas and file systems that never write in place say so at the sync
// alone. nil: it is gone, and the next one goes in its place.
func (l *logFile) retract() error {
	if _, err := l.file.WriteAt(make([]byte, blockSize), int64(l.part)*l.segment+l.at); err != nil {
		return err
	}
	return fdatasync(l.file)
}

// close closes the files.
func (l *logFile) close() error {
	if l.acked != nil {
		_ = l.acked.Close()
	}
	return l.file.Close()
}

func fdatasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// next goes on in the other segment, whose records are in the data file.
func (l *logFile) next() { l.part, l.at = (l.part+1)%segments, 0 }

// largeTail is from where on a Tail is written from where it is: to copy it costs more
// than another write.
const largeTail = 32 << 10

// tail is a large Tail, and how much of the record's other bytes comes before it.
type tail struct {
	at   int
	text string
}

// appendRecord appends a record in whole blocks, but for its large Tails.
func appendRecord(b []byte, id logID, number, prev uint64, groups []store.Group) ([]byte, []tail) {
	from, size := len(b), 0
	var tails []tail
	b = append(b, make([]byte, logHead)...)
	for i := range groups {
		for j := range groups[i].Ops {
			op := &groups[i].Ops[j]
			b = binary.AppendUvarint(b, uint64(len(op.Key)))
			b = append(b, op.Key...)
			if op.Value == nil {
				b = append(b, 0)
				continue
			}
			b = binary.AppendUvarint(b, uint64(len(op.Value)+len(op.Tail))+1)
			b = append(b, op.Value...)
			if len(op.Tail) < largeTail {
				b = append(b, op.Tail...)
				continue
			}
			tails = append(tails, tail{len(b) - from, op.Tail})
			size += len(op.Tail)
		}
	}
	r := b[from:]
	size += len(r)
	copy(r, logMagic)
	copy(r[8:], id[:])
	binary.LittleEndian.PutUint64(r[24:], number)
	binary.LittleEndian.PutUint64(r[32:], prev)
	binary.LittleEndian.PutUint64(r[40:], uint64(size-logHead))
	var sum uint32
	_ = pieces(r, 8, tails, func(p []byte) error {
		sum = crc32.Update(sum, castagnoli, p)
		return nil
	})
	binary.LittleEndian.PutUint32(r[4:], sum)
	if over := size % blockSize; over > 0 {
		b = append(b, make([]byte, blockSize-over)...)
	}
	return b, tails
}

// pieces calls fn for the bytes of a record in their order, beginning with that byte of
// its head.
func pieces(b []byte, from int, tails []tail, fn func(p []byte) error) error {
	for _, t := range tails {
		if err := fn(b[from:t.at]); err != nil {
			return err
		}
		// fn only reads the bytes.
		if err := fn(unsafe.Slice(unsafe.StringData(t.text), len(t.text))); err != nil {
			return err
		}
		from = t.at
	}
	if from == len(b) {
		return nil
	}
	return fn(b[from:])
}

// readRecord reads the record that begins at the start of b, if one of that log
// does.
func readRecord(b []byte, id logID) (record, bool) {
	if len(b) < logHead || string(b[:4]) != logMagic || logID(b[8:24]) != id {
		return record{}, false
	}
	length := binary.LittleEndian.Uint64(b[40:])
	if length > uint64(len(b)-logHead) {
		return record{}, false
	}
	end := logHead + int(length)
	if binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:end], castagnoli) {
		return record{}, false
	}
	r := record{
		number: binary.LittleEndian.Uint64(b[24:]), prev: binary.LittleEndian.Uint64(b[32:]),
		body: b[logHead:end], blocks: blocks(int64(length)),
	}
	return r, r.number > r.prev || r.held()
}

// held says that the record is of a batch that is in the data file.
func (r record) held() bool { return r.number == r.prev && len(r.body) == 0 }

// ops calls fn for each op of the body; value is nil where the key is deleted. A
// body whose checksum is right was written by appendRecord, so that an error is that
// of another program.
func (r record) ops(fn func(key, value []byte)) error {
	for b := r.body; len(b) > 0; {
		key, rest, ok := cutBytes(b, 0)
		if !ok {
			return errBody
		}
		if len(rest) > 0 && rest[0] == 0 {
			fn(key, nil)
			b = rest[1:]
			continue
		}
		value, rest, ok := cutBytes(rest, 1)
		if !ok {
			return errBody
		}
		fn(key, value)
		b = rest
	}
	return nil
}

var errBody = errors.New("a record's body is wrong")

// cutBytes cuts a length, less than which the text is by that much, and the text.
func cutBytes(b []byte, more uint64) (text, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n < more || n-more > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n-more)
	return b[size:end:end], b[end:], true
}

// readLog gives the records of the log that come after the batch of that number, in
// their order. It reads each segment from its start up to the first block in which
// no record begins that follows: there the log ended, or an older round did.
//
// The error is damage: a record is missing that was acknowledged, since one that
// was written later is there, and none is written before the one before it is
// synced. The records are those before it then.
func readLog(file []byte, id logID, after uint64) ([]record, error) {
	segment := len(file) / segments / blockSize * blockSize
	var parts [segments][]record
	var damage error
	for i := range parts {
		var err error
		parts[i], err = readSegment(file[i*segment:(i+1)*segment], id, after)
		damage = errors.Join(damage, err)
	}
	if a, b := parts[0], parts[1]; len(a) > 0 && len(b) > 0 && a[0].number > b[0].number {
		parts[0], parts[1] = b, a
	}
	var all []record
	for _, part := range parts {
		for _, r := range part {
			if r.prev != after {
				return all, errors.Join(damage, fmt.Errorf("damaged: what follows batch %d is missing, and batch %d is there", after, r.number))
			}
			all, after = append(all, r), r.number
		}
	}
	return all, damage
}

// readSegment gives the records of one segment that come after that batch.
func readSegment(b []byte, id logID, after uint64) ([]record, error) {
	var list []record
	var last record
	at := 0
	for at < len(b) {
		r, ok := readRecord(b[at:], id)
		if !ok || last.number > 0 && r.prev != last.number {
			break
		}
		last = r
		switch {
		case r.number <= after:
		case r.held():
			return list, fmt.Errorf("damaged: batch %d was in the data file, which ends with batch %d", r.number, after)
		default:
			list = append(list, r)
		}
		at += int(r.blocks) * blockSize
	}
	newest := max(last.number, after)
	for from := at; from < len(b); from += blockSize {
		if r, ok := readRecord(b[from:], id); ok && r.number > newest {
			return list, fmt.Errorf("damaged at byte %d: what follows batch %d is missing, and batch %d is there", at, last.number, r.number)
		}
	}
	return list, nil
}

// newestStart is the newest batch of those that a segment begins with, of any log; 0:
// there is none.
func newestStart(path string) (newest uint64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	segment := info.Size() / segments / blockSize * blockSize
	for i := range int64(segments) {
		b := make([]byte, min(segment, blockSize))
		if _, err := f.ReadAt(b, i*segment); err != nil || len(b) < logHead {
			return newest, err
		}
		if length := binary.LittleEndian.Uint64(b[40:]); string(b[:4]) == logMagic && length < uint64(segment) {
			b = make([]byte, blocks(int64(length))*blockSize)
			if _, err := f.ReadAt(b, i*segment); err != nil {
				continue // a damaged length, and no record
			}
		}
		if r, ok := readRecord(b, logID(b[8:24])); ok {
			newest = max(newest, r.number)
		}
	}
	return newest, nil
}

// readFile reads the whole file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
