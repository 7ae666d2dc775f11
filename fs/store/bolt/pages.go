package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"
)

// The pages of bbolt's file (bbolt's internal/common). The head of a page, 16 bytes:
//
//	 0  id        of the page, uint64
//	 8  flags     what it is
//	10  count     of elements
//	12  overflow  how many pages more it takes, uint32
//
// Elements of 16 bytes follow, then the keys and values of the first element, of the
// second, and so on, without a gap. pos counts from the element.
//
//	branch  pos uint32, key size uint32, page uint64; the key is the first of that page
//	leaf    flags uint32, pos uint32, key size uint32, value size uint32
//
// A page of free ones has their ids in order, 8 bytes each; where count is 0xFFFF the
// first is how many there are. Numbers have the machine's order of bytes.
const (
	pageHead     = 16
	elementSize  = 16
	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freePage     = 0x10
	bucketFlag   = 0x01 // of a leaf's element: the value is a bucket
	bucketHead   = 16   // root page uint64, sequence uint64; root 0: a page follows that is all of it
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	metaSize     = 64
	noFreelist   = ^uint64(0)
	firstPage    = 2 // after the two meta pages
	maxDepth     = 32
	maxFound     = 100 // pieces of damage that are told
	maxKeySize   = 1 << 15
	minPageSize  = 1 << 10
	maxPageSize  = 1 << 16
	manyFreeMark = 0xFFFF
)

var order = binary.NativeEndian

// meta is a meta page, which says where everything is. bbolt writes the two in turn.
type meta struct {
	pageSize                    int
	root, freelist, pages, txid uint64
}

// bucketAt is a bucket as its parent has it.
type bucketAt struct {
	there    bool
	root     uint64
	sequence uint64
	inline   []byte // the page, where root is 0
}

// reader reads a data file by itself. It trusts nothing there: it takes each page once,
// and only if it is what the page above says. It is used by one goroutine.
type reader struct {
	file io.ReaderAt
	size int64
	meta
	torn  error // which of the two meta pages is not whole, and why; nil: both are
	found []error
	more  int // what found has no room for

	all    bool // go on past what is damaged; found has what that was
	anySum bool // do not compare the sum

	main, sums        bucketAt
	others            []bucketAt           // which walk only looks at
	free, used, given bitmap               // pages; given: the leaves whose keys walk has given
	freeRead          bool                 // free is right
	buf               [maxDepth + 1][]byte // for a page of each level
	keyed             tally                // what walk has given
}

// newReader reads the meta pages of a file of that size.
func newReader(file io.ReaderAt, size int64) (*reader, error) {
	r := &reader{file: file, size: size}
	metas, errs := [2]meta{}, [2]error{}
	if metas[0], errs[0] = r.readMeta(0, 0); errs[0] == nil {
		metas[1], errs[1] = r.readMeta(1, int64(metas[0].pageSize))
	} else {
		for at := int64(minPageSize); at <= maxPageSize; at *= 2 {
			if metas[1], errs[1] = r.readMeta(1, at); errs[1] == nil || !errors.Is(errs[1], errTorn) {
				break
			}
		}
	}
	for i, err := range errs {
		if err != nil && !errors.Is(err, errTorn) {
			return nil, damaged(uint64(i), "%w", err)
		}
	}
	switch {
	case errs[0] != nil && errs[1] != nil:
		return nil, fmt.Errorf("damaged: both meta pages: page 0: %w; page 1: %w", errs[0], errs[1])
	case errs[0] != nil:
		r.meta, r.torn = metas[1], tornPage(0, errs[0])
	case errs[1] != nil:
		r.meta, r.torn = metas[0], tornPage(1, errs[1])
	case metas[0].txid == metas[1].txid+1:
		r.meta = metas[0]
	case metas[1].txid == metas[0].txid+1:
		r.meta = metas[1]
	default:
		return nil, fmt.Errorf("damaged: pages 0 and 1: of the transactions %d and %d, which do not follow each other", metas[0].txid, metas[1].txid)
	}
	if r.pages > uint64(size)/uint64(r.pageSize) {
		return nil, fmt.Errorf("damaged: cut short: it has %d bytes, and %d pages of %d are in use", size, r.pages, r.pageSize)
	}
	return r, nil
}

// warm has the disk read the file in its order, since walk does not.
func (r *reader) warm(fd int) {
	const part = 1 << 20 // Linux reads about so much for one call
	for at := int64(0); at < r.size; at += part {
		_ = unix.Fadvise(fd, at, part, unix.FADV_WILLNEED) // walk reads it anyhow
	}
}

// errTorn is a meta page that a loss of power leaves half written, or later damage.
var errTorn = errors.New("the meta page is not whole")

func tornPage(id uint64, err error) error {
	return fmt.Errorf("%w; a start uses the other one, as after a loss of power, and mends it", damaged(id, "%w", err))
}

// readMeta reads a meta page. Any error but errTorn is of a page that is whole, and
// not what bbolt writes there.
func (r *reader) readMeta(slot uint64, at int64) (m meta, err error) {
	var b [pageHead + metaSize]byte
	if _, err := r.file.ReadAt(b[:], at); err == io.EOF {
		return m, fmt.Errorf("%w: the file ends before it", errTorn)
	} else if err != nil {
		return m, err
	}
	p := b[pageHead:]
	if order.Uint32(p) != metaMagic {
		return m, fmt.Errorf("%w: it is none", errTorn)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(p[:metaSize-8])
	if sum.Sum64() != order.Uint64(p[metaSize-8:]) {
		return m, fmt.Errorf("%w: its checksum is wrong", errTorn)
	}
	size := order.Uint32(p[8:])
	m = meta{
		pageSize: int(size), root: order.Uint64(p[16:]),
		freelist: order.Uint64(p[32:]), pages: order.Uint64(p[40:]), txid: order.Uint64(p[48:]),
	}
	switch {
	case order.Uint32(p[4:]) != metaVersion:
		return m, fmt.Errorf("version %d of the file's format is not known", order.Uint32(p[4:]))
	case size < minPageSize || size > maxPageSize || bits.OnesCount32(size) != 1:
		return m, fmt.Errorf("pages of %d bytes", size)
	case order.Uint64(b[:]) != slot || order.Uint16(b[8:]) != metaPage || m.txid%2 != slot || slot == 1 && at != int64(size):
		return m, fmt.Errorf("it is the meta page of another place (page %d, transaction %d)", order.Uint64(b[:]), m.txid)
	case m.pages < firstPage:
		return m, fmt.Errorf("it says that there are %d pages", m.pages)
	}
	return m, nil
}

// damaged is the error of a page.
func damaged(page uint64, format string, args ...any) error {
	return fmt.Errorf("damaged: page %d: "+format, append([]any{page}, args...)...)
}

// bad notes damage; the error is nil if the reader is to go on.
func (r *reader) bad(page uint64, format string, args ...any) error {
	return r.note(damaged(page, format, args...))
}

func (r *reader) note(err error) error {
	if err == nil {
		return nil
	}
	if !r.all {
		return withAdvice(err)
	}
	if len(r.found) < maxFound {
		r.found = append(r.found, err)
	} else {
		r.more++
	}
	return nil
}

// readRoot finds the buckets.
func (r *reader) readRoot() error {
	r.main, r.sums, r.others = bucketAt{}, bucketAt{}, nil
	p, err := r.page(r.root, 0)
	if err != nil {
		return r.note(err)
	}
	if p.kind != leafPage {
		return r.bad(r.root, "it is %s, where the root should be", kindName(p.kind))
	}
	if err := p.check(nil, nil); err != nil {
		return r.note(err)
	}
	for i := range p.count {
		flags, name, value := p.leaf(i)
		if flags != bucketFlag || len(value) < bucketHead {
			return r.bad(r.root, "the root holds %q, which is no bucket", name)
		}
		b := bucketAt{there: true, root: order.Uint64(value), sequence: order.Uint64(value[8:])}
		if b.root == 0 {
			b.inline = slices.Clone(value[bucketHead:])
		}
		switch {
		case string(name) == string(bucket):
			r.main = b
		case string(name) == string(sumBucket):
			r.sums = b
		default:
			r.others = append(r.others, b)
		}
	}
	if !r.main.there && r.txid > 1 { // of a file in the making, an older meta9d left even that
		return r.bad(r.root, "the bucket of all keys is not there")
	}
	return nil
}

// bucketRoot is the top page of a bucket.
func (r *reader) bucketRoot(b bucketAt, level int) (page, error) {
	if b.root == 0 {
		return inlinePage(r.root, b.inline)
	}
	return r.page(b.root, level)
}

// lookup finds the value of a key of the main bucket; nil: it is not there.
func (r *reader) lookup(key []byte) ([]byte, error) {
	if !r.main.there {
		return nil, nil
	}
	p, err := r.bucketRoot(r.main, 0)
	for level := 1; err == nil; level++ {
		if err = p.check(nil, nil); err != nil {
			break
		}
		if p.kind == leafPage {
			for i := range p.count {
				if _, k, v := p.leaf(i); bytes.Equal(k, key) {
					return v, nil
				}
			}
			return nil, nil
		}
		if p.kind != branchPage || level > maxDepth {
			return nil, damaged(p.id, "it is %s, where a leaf or a branch should be", kindName(p.kind))
		}
		_, child := p.branch(0)
		for i := 1; i < p.count; i++ {
			k, id := p.branch(i)
			if bytes.Compare(k, key) > 0 {
				break
			}
			child = id
		}
		p, err = r.page(child, level)
	}
	return nil, err
}

// walk goes through all pages, and gives the keys of the main bucket, in order; the
// slices live as long as the call. The error is the first damage, unless the reader is
// to go on, or fn's. readRoot has been called.
func (r *reader) walk(fn func(key, value []byte) error) error {
	r.used, r.given, r.keyed = newBitmap(r.pages), newBitmap(r.pages), tally{}
	if err := r.readFree(); err != nil {
		return err
	}
	if p, err := r.page(r.root, 0); err == nil { // else readRoot has said so
		if err := r.note(r.claim(&p)); err != nil {
			return err
		}
	}
	if err := r.walkBucket(r.main, func(key, value []byte) error {
		r.keyed.add(key, value, "")
		return fn(key, value)
	}); err != nil {
		return err
	}
	var sum []byte
	if err := r.walkBucket(r.sums, func(key, value []byte) error {
		if string(key) != string(sumKey) {
			return r.bad(r.root, "%q is beside the sum of all keys", key)
		}
		sum = slices.Clone(value)
		return nil
	}); err != nil {
		return err
	}
	for _, b := range r.others {
		if err := r.walkBucket(b, func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
	}
	if r.anySum || len(r.found) > 0 { // a sum of less than all keys says nothing
		return nil
	}
	return r.note(r.checkSum(sum))
}

func (r *reader) walkBucket(b bucketAt, fn func(key, value []byte) error) error {
	if !b.there {
		return nil
	}
	p, err := r.bucketRoot(b, 1)
	if err != nil {
		return r.note(err)
	}
	return r.walkPage(p, 1, nil, nil, fn)
}

// walkPage goes through a page at that level, whose first key is low, unless that is
// nil, and whose keys are all before high.
func (r *reader) walkPage(p page, level int, low, high []byte, fn func(key, value []byte) error) error {
	if p.kind == freePage || level >= maxDepth {
		return r.bad(p.id, "it is %s, where a leaf or a branch should be", kindName(p.kind))
	}
	if !p.inline {
		if err := r.claim(&p); err != nil {
			return r.note(err)
		}
	}
	if err := p.check(low, high); err != nil {
		return r.note(err)
	}
	if p.kind == leafPage && !p.inline {
		for i := range p.takes(r.pageSize) {
			r.given.add(p.id + i)
		}
	}
	for i := range p.count {
		if p.kind == leafPage {
			flags, key, value := p.leaf(i)
			if flags != 0 {
				if err := r.bad(p.id, "element %d has flags", i); err != nil {
					return err
				}
				continue
			}
			if err := fn(key, value); err != nil {
				return err
			}
			continue
		}
		key, id := p.branch(i)
		end := high
		if i+1 < p.count {
			end, _ = p.branch(i + 1)
		}
		child, err := r.page(id, level+1)
		if err != nil {
			err = r.note(fmt.Errorf("%w (page %d leads to it)", err, p.id))
		} else {
			err = r.walkPage(child, level+1, key, end, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
