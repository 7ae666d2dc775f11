package session

import (
	"meta9/fs"
	"meta9/fs/errs"
	"meta9/macro"
	"meta9/session/wire"
)

// tsread answers with a whole file, or a folder's stat records, and uses up no
// fid (9P2000.e). Never a part: what does not fit is errs.TooBig.
func tsread(c *conn, f *fid, m *wire.Msg) error {
	room := int(c.msize - wire.ReadLen)
	for {
		n, err := c.putWhole(f.ref, m.Names, min(room, c.free()))
		size := errs.SizeOf(err)
		switch {
		case err == nil:
			c.answerRead(wire.Rsread, m.Tag, n, m.Fid, m.Names)
			return nil
		case errs.KindOf(err) == errs.IsDir:
			return c.readWholeFolder(m, f, room)
		case size > room:
			return errs.Big(size, room)
		case size == 0:
			return err
		}
		if _, err := c.reserve(size); err != nil { // what is there has no room for it
			return err
		}
	}
}

// putWhole puts a whole file where the data of an Rsread stands, if there is room for
// as many bytes as max, and tells how many it has.
func (c *conn) putWhole(ref *fs.Ref, names []string, max int) (int, error) {
	if max < 0 {
		if _, err := c.reserve(0); err != nil {
			return 0, err
		}
		max = c.free()
	}
	data := c.out[:len(c.out)+wire.ReadLen]
	b, err := wholeFile(data, ref, names, max)
	if err == nil {
		c.out = b[:len(c.out)]
	}
	return len(b) - len(data), err
}

// wholeFile appends the file. If names is empty and the fid's file is gone, it reads the
// file that the fid's name leads to now; but the fid stays what it is, since no qid in the
// reply tells the client of another file.
func wholeFile(b []byte, ref *fs.Ref, names []string, room int) ([]byte, error) {
	if len(names) > 0 {
		return macro.Get(b, ref, names, room)
	}
	_, err := ref.LookAt(func(at *fs.Ref) (err error) {
		b, err = macro.Get(b, at, nil, room)
		return err
	})
	return b, err
}

func (c *conn) readWholeFolder(m *wire.Msg, f *fid, room int) error {
	ref, err := macro.Find(f.ref, m.Names)
	if err != nil {
		return err
	}
	form := c.form()
	var p page
	used, err := ref.WithListing(&form.Form, func(text string, rev uint64) (err error) {
		if len(text) > room {
			return errs.Big(len(text), room)
		}
		p, err = c.cut(text, form, Place{}, rev, len(text))
		return err
	})
	if err == nil && !used {
		p, err = c.allRecords(ref, room)
	}
	if err == nil {
		c.answerRead(wire.Rsread, m.Tag, p.used, m.Fid, m.Names)
	}
	return err
}

// allRecords puts the stat records of a folder where the data of an Rsread stands.
// errs.TooBig: they are over max bytes.
func (c *conn) allRecords(ref *fs.Ref, max int) (page, error) {
	for {
		size, err := c.recordsSize(ref, max)
		if err != nil {
			return page{}, err
		}
		p, err := c.entries(ref, 0, size)
		if err != nil || !p.more {
			return p, err
		}
		// Files came meanwhile.
	}
}

// tswrite creates or replaces a whole file (9P2000.e). The reply waits until it
// is durable.
func tswrite(c *conn, f *fid, m *wire.Msg) error {
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, size: len(m.Data), n: len(m.Data), reply: replied, answer: wire.Rswrite}
	r.keys = c.srv.cfg.Journal != nil && macro.IsKey(f.ref, m.Names)
	c.begin(r, false, func() { macro.Put(f.ref, m.Names, m.Data, r.ended) })
	return nil
}
