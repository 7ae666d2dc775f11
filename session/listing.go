package session

import (
	"encoding/binary"
	"errors"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/posix"
	"meta9/session/wire"
)

// Listing is how far an open folder was read. A Tread may go on, begin anew at 0, or
// repeat the last one, whose reply may have been lost with a transport. A Treaddir may
// begin at any cookie.
//
// A folder of a VM is listed as it was when the listing began: if it does not fit one
// reply, the whole text is kept with the open file (fs.Lister). If it could not be kept,
// as over a restart, Rev tells whether the same text can be made once more.
type Listing struct {
	Last Place  `json:"last"`           // where the last message began
	Next Place  `json:"next"`           // where the next goes on
	Most int    `json:"most,omitempty"` // the largest count of a Tread, in bytes
	Rev  uint64 `json:"rev,omitempty"`  // the VM's revision of the kept text; 0: nothing is kept
	End  bool   `json:"end,omitempty"`  // nothing comes after Next
}

// Place is a point in a folder's records: the bytes before it, and the cookie of the
// entry before it.
type Place struct {
	Offset uint64 `json:"offset"`
	Cookie uint64 `json:"cookie"`
}

// at returns the place of a Tread's offset.
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

// after returns the place of a Treaddir's cookie. If no message has ended there, its
// Offset is 0.
func (l *Listing) after(cookie uint64) Place {
	switch cookie {
	case 0:
		return Place{}
	case l.Next.Cookie:
		return l.Next
	case l.Last.Cookie:
		return l.Last
	}
	return Place{Cookie: cookie}
}

// rest tells whether a Tread at off, which has no room for the next record, only asks to
// fill the rest of a buffer that has got records already. Linux does that: v9fs repeats
// Tread until its buffer of msize - 24 bytes is full or nothing comes, and an error fails
// the whole read (p9_client_read). Such a Tread gets 0 bytes, and the client goes on at
// the same offset with an empty buffer. A client with one fixed small count must get the
// error instead: 0 bytes would tell it that it has read all.
func (l *Listing) rest(off uint64, count int) bool {
	return off > 0 && count < l.Most
}

// form is how the entries of folders are written in some dialects.
type form struct {
	fs.Form
	record func(text string) int // bytes of the record that begins text
	cookie int                   // offset of the cookie in a record; 0: it has none

	path, length int // offsets of qid.path and length in a record; 0: it has no length
}

// The forms. Package fs keeps listings of different IDs apart.
var (
	statForm  = newStatForm(1, wire.Plain)
	statFormU = newStatForm(2, wire.U)
	dirForm   = form{
		Form: fs.Form{
			ID: 3,
			Size: func(st *fs.Stat) int {
				d := posix.Dirent(0, st)
				return wire.DirentSize(&d)
			},
			Append: func(b []byte, cookie uint64, st *fs.Stat) []byte {
				d := posix.Dirent(cookie, st)
				return wire.AppendDirent(b, &d)
			},
		},
		record: func(text string) int { return 13 + 8 + 1 + 2 + int(number(text[22:24])) }, // qid[13] offset[8] type[1] name[s]
		cookie: 13,
	}
)

func newStatForm(id uint8, dialect wire.Dialect) form {
	return form{
		Form: fs.Form{
			ID: id, Owner: true,
			Size: func(st *fs.Stat) int {
				var d wire.Dir
				record(&d, st)
				return wire.DirSize(&d, dialect)
			},
			Append: func(b []byte, _ uint64, st *fs.Stat) []byte {
				var d wire.Dir
				record(&d, st)
				return wire.AppendDir(b, &d, dialect)
			},
		},
		record: func(text string) int { return 2 + int(number(text[:2])) },
		path:   2 + 2 + 4 + 1 + 4,    // size[2] type[2] dev[4] qid.type[1] qid.version[4]
		length: 2 + 2 + 4 + 13 + 3*4, // then the rest of qid[13], mode[4] atime[4] mtime[4]
	}
}

// number decodes a number of 9P.
func number(text string) (n uint64) {
	for i := range len(text) {
		n |= uint64(text[i]) << (8 * i)
	}
	return n
}

// form returns that of the connection's dialect.
func (c *conn) form() *form {
	switch {
	case c.dialect.IsL():
		return &dirForm
	case c.dialect.IsU():
		return &statFormU
	}
	return &statForm
}

// readFolder answers a Tread of a folder: whole stat records, as many as fit.
// 9P2000.L has none, and Treaddir instead.
func (c *conn) readFolder(tag uint16, f *fid, off uint64, count int) error {
	if c.dialect.IsL() {
		return errs.IsDir
	}
	from, err := f.progress().at(off)
	if err != nil {
		return err
	}
	p, err := c.list(f, &from, min(count, listSize))
	if err != nil {
		return err
	}
	f.progress().Most = max(f.progress().Most, count)
	if p.used == 0 && p.more {
		if !f.progress().rest(off, count) {
			return errs.New(errs.Invalid, "count %d is too small for the next stat record", count)
		}
	} else {
		f.listed(from, p)
	}
	c.answerRead(wire.Rread, tag, p.used, f.num, nil)
	return nil
}

// page is the part of a listing in one reply, in the room that conn.reserve gives.
type page struct {
	used   int    // bytes
	cookie uint64 // of the last entry, in .L or where nothing is kept
	more   bool   // there are more
	rev    uint64 // of the kept text
}

// progress returns how far the open folder was read.
func (f *fid) progress() *Listing {
	if f.listing == nil {
		f.listing = new(Listing)
	}
	return f.listing
}

// listed notes that a reply has given p, from that place on.
func (f *fid) listed(from Place, p page) {
	l := f.progress()
	l.Last, l.Next = from, Place{from.Offset + uint64(p.used), p.cookie}
	l.Rev, l.End = p.rev, !p.more
	if h, ok := f.handle.(fs.Lister); ok && p.used == 0 {
		h.Unlist() // the client has read it all
		l.Rev = 0
	}
}

// list writes entries of a folder, from that place on, into the room of an Rread of at
// most max bytes; from gets the offset, if it had only a cookie. At the beginning of a listing, or where nothing was read before, it
// writes the folder's entries of now; elsewhere those of the listing's beginning.
// errShort: there is no memory for it. errs.Again: the entries of the beginning are not
// known any more.
func (c *conn) list(f *fid, from *Place, max int) (page, error) {
	h, ok := f.handle.(fs.Lister)
	l, form := f.progress(), c.form()
	begun := *from != Place{}
	switch {
	case !ok: // such as vms/: no change is of two of its entries
		return c.entries(f.ref, from.Cookie, max)
	case begun && l.End && *from == l.Next:
		_, err := c.reserve(0)
		return page{cookie: from.Cookie}, err
	case begun && l.Rev != 0:
		text, err := c.kept(func(room *int64) (string, error) { return h.Listed(&form.Form, l.Rev, room) })
		if err != nil {
			return page{}, err
		}
		if from.Offset == 0 {
			from.Offset = form.find(text, from.Cookie)
		}
		return c.cut(text, form, *from, l.Rev, max)
	case begun && !c.dialect.IsL(): // an older meta9d has begun it
		return c.entries(f.ref, from.Cookie, max)
	case !h.Large(&form.Form, max):
		p, err := c.entries(f.ref, from.Cookie, max)
		if err != nil || !p.more {
			return p, err
		}
	}
	var rev uint64
	text, err := c.kept(func(room *int64) (text string, err error) {
		text, rev, err = h.Listing(&form.Form, room)
		return text, err
	})
	if err != nil {
		return page{}, err
	}
	if begun { // a Treaddir at a cookie that this fid has not reached
		from.Offset = form.find(text, from.Cookie)
	}
	return c.cut(text, form, *from, rev, max)
}

// kept makes the text of a folder, in memory that is taken from the VM's account: what
// this request has waited for, or else what is available now. errShort: that is too
// little, also for the reply.
func (c *conn) kept(take func(room *int64) (string, error)) (string, error) {
	room := c.granted
	text, err := take(&room)
	c.output.bill.paid -= c.granted - room // it is the listing's
	c.granted = room
	var short *fs.ShortError
	if errors.As(err, &short) {
		c.need = short.Need + cost(midSize)
		return "", errShort
	}
	return text, err
}

// cut writes a part of a kept listing. Files whose truncation this session holds get the
// length 0, as they have in its other replies.
func (c *conn) cut(text string, form *form, from Place, rev uint64, max int) (page, error) {
	if from.Offset > uint64(len(text)) {
		return page{}, errs.BadOffset
	}
	b, err := c.reserve(max)
	if err != nil {
		return page{}, err
	}
	rest := text[from.Offset:]
	p := page{cookie: from.Cookie, rev: rev}
	last := 0
	for p.used < len(rest) {
		size := form.record(rest[p.used:])
		if p.used+size > len(b) {
			break
		}
		last, p.used = p.used, p.used+size
	}
	copy(b, rest[:p.used])
	if form.cookie > 0 && p.used > 0 {
		p.cookie = number(rest[last+form.cookie:][:8])
	}
	if form.length > 0 && c.sess.view.Truncates() {
		for at := b[:p.used]; len(at) > 0; at = at[form.record(rest[p.used-len(at):]):] {
			if c.sess.view.Empties(binary.LittleEndian.Uint64(at[form.path:])) {
				clear(at[form.length : form.length+8])
			}
		}
	}
	p.more = p.used < len(rest)
	return p, nil
}

// find returns the offset of the first entry after a cookie.
func (f *form) find(text string, after uint64) (at uint64) {
	for len(text) > int(at) {
		if number(text[at:][f.cookie:][:8]) > after {
			break
		}
		at += uint64(f.record(text[at:]))
	}
	return at
}

// listSize is the most bytes of a folder that one reply has.
const listSize = midSize - outSlack - wire.ReadLen

// recordsSize returns how many bytes the stat records of a folder have. errs.TooBig: more
// than max.
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

// entries writes entries of a folder, as they are now, into the room of an Rread.
func (c *conn) entries(ref *fs.Ref, after uint64, max int) (page, error) {
	b, err := c.reserve(max)
	if err != nil {
		return page{}, err
	}
	if c.dialect.IsL() {
		return dirents(ref, after, b)
	}
	return c.records(ref, after, b)
}

// records fills b with the stat records of a folder's entries after a cookie.
func (c *conn) records(ref *fs.Ref, after uint64, b []byte) (p page, err error) {
	d := &c.work.dir
	p.cookie = after
	err = ref.List(after, func(at uint64, st *fs.Stat) bool {
		record(d, st)
		if p.used+wire.DirSize(d, c.dialect) > len(b) {
			p.more = true
			return false
		}
		p.used = len(wire.AppendDir(b[:p.used], d, c.dialect))
		p.cookie = at
		return true
	})
	return p, err
}
