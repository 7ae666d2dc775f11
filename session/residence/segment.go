package residence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A segment is a file of the journal, of segmentSize bytes, all of them there from the
// beginning, so that a mapped write finds room:
//
//	magic     "meta9 journal 1\n"
//	end[8]    where the records end (4 bytes), and the CRC32C of these 4
//	records   as in a residence; the first says what the journal belongs to
//
// A record is written and then end, as one word. So where the process is killed, what is
// before end is whole, and what is not whole is behind it; anything else is damage.
const (
	journalMagic = "meta9 journal 1\n"
	endAt        = len(journalMagic)
	recordsAt    = endAt + 8
)

// segmentSize is the size of a segment, in bytes; tests have smaller ones.
var segmentSize = 8 << 20

type segment struct {
	number uint64
	path   string
	mem    []byte // the file, mapped
	used   int
}

func segmentName(number uint64) string { return fmt.Sprintf("%012d", number) }

// newSegment makes a segment with its first record, under a temporary name.
func newSegment(dir string, number uint64, home []byte) (_ *segment, err error) {
	draft := filepath.Join(dir, "draft")
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(draft, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(segmentSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("making room for %d bytes: %w", segmentSize, err), os.Remove(draft))
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, segmentSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, os.Remove(draft))
	}
	s := &segment{number: number, path: filepath.Join(dir, segmentName(number)), mem: mem, used: recordsAt}
	copy(mem, journalMagic)
	s.append(kindHome, home)
	if err := os.Rename(draft, s.path); err != nil {
		return nil, errors.Join(err, s.unmap())
	}
	return s, nil
}

// fits tells whether there is room for a record with a body of n bytes.
func (s *segment) fits(n int) bool { return s.used+headLen+n <= len(s.mem) }

// append adds a record that fits.
func (s *segment) append(kind byte, body []byte) {
	head := appendHead(s.mem[s.used:s.used], kind, body)
	copy(s.mem[s.used+len(head):], body)
	s.used += len(head) + len(body)
	// The address is aligned to 8 bytes, because a mapping begins at a page.
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.mem[endAt])), binary.NativeEndian.Uint64(endWord(s.used)))
}

func endWord(used int) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 8), uint32(used))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (s *segment) unmap() error { return unix.Munmap(s.mem) }

// remove unmaps the segment and deletes its file.
func (s *segment) remove() error { return errors.Join(s.unmap(), os.Remove(s.path)) }

// segmentRecords returns the part of a segment's bytes that holds its records.
func segmentRecords(b []byte) ([]byte, error) {
	switch {
	case len(b) != segmentSize:
		return nil, fmt.Errorf("a file has %d bytes, not %d", len(b), segmentSize)
	case string(b[:endAt]) != journalMagic:
		if string(b[:len(anyJournal)]) == anyJournal {
			return nil, fmt.Errorf("its format %q is not known to this version", b[len(anyJournal):endAt-1])
		}
		return nil, errors.New("it is no journal of meta9's")
	}
	used := int(binary.LittleEndian.Uint32(b[endAt:]))
	if used < recordsAt || used > len(b) || string(endWord(used)) != string(b[endAt:recordsAt]) {
		return nil, errors.New("it does not say where it ends")
	}
	return b[recordsAt:used], nil
}

const anyJournal = "meta9 journal "
