package session

import (
	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// Listing is how far an open folder was read. A Tread may go on, begin anew at 0,
// or repeat the last one, whose reply may have been lost with a transport.
type Listing struct {
	Last Place `json:"last"`           // where the last Tread began
	Next Place `json:"next"`           // where the next goes on
	Most int   `json:"most,omitempty"` // the largest count of a Tread, in bytes
}

// Place is a point in a folder's stat records: the bytes before it, and the
// cookie of the entry before it.
type Place struct {
	Offset uint64 `json:"offset"`
	Cookie uint64 `json:"cookie"`
}

// at finds the place of an offset.
func (l *Listing) at(off uint64) (Place, error) {
	switch off {
	case 0:
		return Place{}, nil
	case l.Next.Offset:
		return l.Next, nil
	case l.Last.Offset:
		return l.Last, nil
	}
	return Place{}, errs.BadOffset
}

// rest tells whether a Tread at off, which has no room for the next record, asks for
// the rest of a buffer that it has read records into already. Linux does: v9fs
// repeats Tread until its buffer of msize - 24 bytes is full or nothing comes, and
// fails the whole read on an error (p9_client_read). It gets nothing then, and goes
// on at the same offset with an empty buffer. A client with one fixed small count
// must get the error: nothing would mean to it that it has read all.
func (l *Listing) rest(off uint64, count int) bool {
	return off > 0 && count < l.Most
}

// readFolder answers a Tread of a folder: whole stat records, as many as fit.
// 9P2000.L has none, and Treaddir instead.
func (c *conn) readFolder(tag uint16, f *fid, off uint64, count int) error {
	if c.dialect.IsL() {
		return errs.IsDir
	}
	from, err := f.listing.at(off)
	if err != nil {
		return err
	}
	b, err := c.reserve(min(count, listSize))
	if err != nil {
		return err
	}
	used, cookie, more, err := c.records(f.ref, from.Cookie, b)
	if err != nil {
		return err
	}
	f.listing.Most = max(f.listing.Most, count)
	switch {
	case used > 0 || !more:
		f.listing.Last, f.listing.Next = from, Place{off + uint64(used), cookie}
	case !f.listing.rest(off, count):
		return errs.New(errs.Invalid, "count %d is too small for the next stat record", count)
	}
	c.answerRead(wire.Rread, tag, used, f.num, nil)
	return nil
}

// listSize is how many bytes of a folder one reply has at most.
const listSize = midSize - outSlack - wire.ReadLen

// recordsSize is how many bytes the stat records of a folder take. errs.TooBig: it is
// over max.
func (c *conn) recordsSize(ref *fs.Ref, max int) (size int, err error) {
	d := &c.work.dir
	err = ref.List(0, func(_ uint64, st *fs.Stat) bool {
		record(d, st)
		size += wire.DirSize(d, c.dialect)
		return size <= max
	})
	if err == nil && size > max {
		err = errs.TooBig
	}
	return size, err
}

// records fills b with the stat records of a folder's entries after a cookie. It
// tells how many bytes they take, the cookie of the last, and whether there are
// more.
func (c *conn) records(ref *fs.Ref, after uint64, b []byte) (used int, cookie uint64, more bool, err error) {
	d := &c.work.dir
	cookie = after
	err = ref.List(after, func(at uint64, st *fs.Stat) bool {
		record(d, st)
		if used+wire.DirSize(d, c.dialect) > len(b) {
			more = true
			return false
		}
		used = len(wire.AppendDir(b[:used], d, c.dialect))
		cookie = at
		return true
	})
	return used, cookie, more, err
}
