package session

import (
	"bytes"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// tread reads an open file or folder. It waits for no write.
func tread(c *conn, m *wire.Msg) error {
	f, err := c.sess.find(m.Fid)
	if err != nil {
		return err
	}
	count := int(min(m.Count, c.msize-wire.ReadLen))
	switch {
	case !f.auth && (f.handle == nil || f.flags&fs.Read == 0):
		return errs.BadUse
	case f.auth || count == 0: // a read of 0 bytes never blocks
		_, err := c.reserve(0)
		if err == nil {
			c.answerRead(wire.Rread, m.Tag, 0, f.num, nil)
		}
		return err
	case f.folder:
		return c.readFolder(m.Tag, f, m.Offset, count)
	}
	err = c.readFile(m.Tag, f, m.Offset, count)
	if err != fs.ErrWait || f.flags&fs.NonBlock != 0 {
		return err
	}
	return c.block(m.Tag, f, m.Offset, count)
}

// readFile answers with what is there. fs.ErrWait: there is nothing yet.
func (c *conn) readFile(tag uint16, f *fid, off uint64, count int) error {
	n, err := c.readInto(f, off, count)
	switch {
	case err == fs.ErrWait && c.pauses(f, tag, off, count):
	case err != nil:
		return err
	case f.stream:
		c.noteRead(f, off, n, count)
	}
	c.answerRead(wire.Rread, tag, n, f.num, nil)
	return nil
}

// readInto reads into the room of an Rread, which it makes. errShort: there is no
// memory for it.
func (c *conn) readInto(f *fid, off uint64, count int) (int, error) {
	room := count
	if room > max(c.free(), smallest) {
		room = f.most(off, count)
	}
	for {
		b, err := c.reserve(room)
		if err != nil {
			return 0, err
		}
		n, err := f.handle.Read(b, off)
		if err != nil || n < room || room == count {
			return n, err
		}
		more := f.most(off, count)
		if more <= room {
			return n, nil
		}
		room = more // a commit has made the value longer meanwhile
	}
}

// most is how many bytes a read of count bytes at off can get at most, so that no memory
// is taken for bytes that are not there. What is not a value is given in parts.
func (f *fid) most(off uint64, count int) int {
	h, ok := f.handle.(fs.Sized)
	if !ok {
		return min(count, midSize-outSlack)
	}
	size := h.Size()
	return int(min(uint64(count), size-min(off, size)))
}

// block enters a read that waits for the file to have something.
func (c *conn) block(tag uint16, f *fid, off uint64, count int) error {
	if !f.stream {
		return fs.ErrWait
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	if err := c.waits.pays(requestBytes); err != nil {
		return err
	}
	r := &request{tag: tag, fid: f, again: readAgain, off: off, count: count}
	c.enter(r)
	r.watch()
	return nil
}

// watch registers r to be woken when there is something to read.
func (r *request) watch() {
	cancel, ready := r.fid.handle.(fs.Waiter).Wait(r.woken)
	r.cancel = cancel
	if ready {
		r.handOver()
	}
}

// readAgain goes on with a read that was woken: it is answered, or waits on, or waits
// until the peer takes the replies that it has.
func readAgain(r *request) {
	c := r.c
	if len(c.out)+c.sending > c.srv.cfg.Limits.Unsent {
		c.stalled = append(c.stalled, r)
		return
	}
	err := c.takeRoom(r)
	if err == nil {
		err = c.readFile(r.tag, r.fid, r.off, r.count)
	}
	c.granted = 0
	c.settleOut()
	switch err {
	case fs.ErrWait:
		r.watch()
		return
	case errShort:
		c.awaitRoomFor(r)
		return
	}
	delete(c.waiting, r.tag)
	if err != nil {
		c.refuse(r.tag, err)
	}
}

// twrite writes an open file, or authenticates. The reply waits until the bytes
// are durable.
func twrite(c *conn, m *wire.Msg) error {
	f, err := c.sess.find(m.Fid)
	if err != nil {
		return err
	}
	if f.auth {
		return c.authenticate(m)
	}
	if !f.making && (f.handle == nil || f.flags&fs.Write == 0) {
		return errs.BadUse
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	data, off := m.Data, m.Offset
	if !f.free(false) {
		data = bytes.Clone(data) // m.Data lives as long as this call
	}
	r := &request{tag: m.Tag, fid: f, size: len(data), reply: replied, answer: wire.Rwrite}
	c.begin(r, false, func() { f.write(r, data, off) })
	return nil
}

// write runs a write when its turn has come. An earlier create may have failed meanwhile.
func (f *fid) write(r *request, data []byte, off uint64) {
	if f.handle == nil || f.flags&fs.Write == 0 {
		r.ended(errs.BadUse)
		return
	}
	f.handle.Write(data, off, f.ref.By(), r.wrote)
}
