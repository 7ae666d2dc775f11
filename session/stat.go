package session

import (
	"math"
	"strconv"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// userName is the name of a user or group in dialects that have names: root, or the
// number.
func userName(id uint32) string {
	if id == 0 {
		return "root"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// tstat tells what there is to know of a file.
func tstat(c *conn, f *fid, m *wire.Msg) error {
	st := &c.work.st
	if err := c.sess.stat(f, st); err != nil {
		return err
	}
	r := wire.Msg{Type: wire.Rstat, Tag: m.Tag}
	record(&r.Dir, st)
	c.answer(&r)
	return nil
}

// stat returns what Tstat and Tgetattr say of a fid. An object that is gone is still
// described as long as the session has it open: Linux asks by the fid of its lookup about
// a file that a program has open, and reads no further than the length in the reply. After
// that the fid becomes what its name leads to, or led to when a clone of it was opened.
func (s *session) stat(f *fid, st *fs.Stat) error {
	err := f.stat(st)
	if err == nil || f.handle != nil || errs.KindOf(err) != errs.NotFound {
		return err
	}
	if f.running == 0 { // a change that waits means the object that the fid had when it came
		if other := s.foundBy(f); other != nil {
			f.ref = other.ref
			s.touch(f.num)
		}
	}
	if other := s.openOn(f); other != nil && other.handle.Stat(st) == nil {
		f.ref.Show(st)
		return nil
	}
	s.touch(f.num)
	return f.lookAt(func(at *fs.Ref) error { return at.Stat(st) })
}

// stat returns the file's attributes as this fid's client sees them: with a truncation
// that the fid holds, if it is open.
func (f *fid) stat(st *fs.Stat) error {
	if f.handle == nil {
		return f.ref.Stat(st)
	}
	if err := f.handle.Stat(st); err != nil {
		return err
	}
	f.ref.Show(st)
	return nil
}

// record fills a stat record from st.
func record(d *wire.Dir, st *fs.Stat) {
	*d = wire.Dir{
		QID: st.QID, Mode: uint32(st.Mode & 0o777),
		Mtime: seconds(st.Mtime), Atime: seconds(st.Mtime), Length: st.Length,
		Name: st.Name, UID: userName(st.UID), GID: userName(st.GID), Muid: st.Muid,
		NUID: st.UID, NGID: st.GID, NMuid: wire.NoUID,
	}
	if st.IsDir() {
		d.Mode |= wire.DMDir
	}
}

// seconds converts Unix nanoseconds to seconds, as far as a stat record can hold them.
func seconds(ns int64) uint32 {
	return uint32(max(0, min(ns/1e9, math.MaxUint32)))
}

// twstat changes what a stat record says (stat(5)), all of it or nothing. One
// that touches nothing makes durable what the fid holds: it is Linux's fsync. It
// waits for the fid's earlier writes, as a length that overtakes one would cut
// other bytes than the client meant.
func twstat(c *conn, f *fid, m *wire.Msg) error {
	st := &c.work.st
	if err := f.stat(st); err != nil {
		return err
	}
	if err := unchangeable(&m.Dir, st); err != nil {
		return err
	}
	change, err := changeOf(&m.Dir, st)
	if err != nil {
		return err
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, fid: f, size: len(m.Dir.Name), reply: replied, answer: wire.Rwstat}
	c.begin(r, true, func() { f.change(r, change) })
	return nil
}

func (f *fid) change(r *request, change fs.Change) {
	switch {
	case f.handle == nil && change.Empty():
		r.ended(nil)
	case f.handle == nil:
		f.ref.SetStat(change, r.ended)
	case change.Empty():
		f.handle.Sync(f.ref.By(), r.ended)
	default:
		f.handle.SetStat(change, f.ref.By(), r.ended)
	}
}

// unchangeable refuses a record that would change what no client can change. type, dev and
// qid may also be zero, as LING's client sends them. The server sets muid and atime; Linux
// sends both, and they are ignored.
func unchangeable(d *wire.Dir, st *fs.Stat) error {
	switch {
	case d.Type != 0 && d.Type != math.MaxUint16,
		d.Dev != 0 && d.Dev != math.MaxUint32,
		uint8(d.QID.Type) != 0 && uint8(d.QID.Type) != math.MaxUint8 && d.QID.Type != st.QID.Type,
		d.QID.Version != 0 && d.QID.Version != math.MaxUint32 && d.QID.Version != st.QID.Version,
		d.QID.Path != 0 && d.QID.Path != math.MaxUint64 && d.QID.Path != st.QID.Path:
		return errs.New(errs.WstatProhibited, "type, dev and qid are not to be changed")
	case d.UID != "" && d.UID != userName(st.UID), d.GID != "" && d.GID != userName(st.GID),
		d.NUID != st.UID && d.NUID != wire.NoUID, d.NGID != st.GID && d.NGID != wire.NoUID:
		return errs.New(errs.WstatProhibited, "this file belongs to %s and the group %s", userName(st.UID), userName(st.GID))
	}
	return nil
}

// changeOf returns the change that the record asks for: each field that it does not leave
// out, and the name if it is not the file's.
func changeOf(d *wire.Dir, st *fs.Stat) (ch fs.Change, err error) {
	if d.Mode != math.MaxUint32 {
		if d.Mode&^0o777 != kindBits(st) {
			return ch, errs.New(errs.WstatProhibited, "of the mode only the bits 0777 change, it was %#o", d.Mode)
		}
		mode := uint16(d.Mode & 0o777)
		ch.Mode = &mode
	}
	if d.Length != math.MaxUint64 {
		length := d.Length
		ch.Length = &length
	}
	if d.Mtime != math.MaxUint32 {
		mtime := int64(d.Mtime) * 1e9
		ch.Mtime = &mtime
	}
	if d.Name != "" && d.Name != st.Name {
		name := d.Name
		ch.Name = &name
	}
	return ch, nil
}

// kindBits are the bits of a mode above the permissions.
func kindBits(st *fs.Stat) uint32 {
	if st.IsDir() {
		return wire.DMDir
	}
	return 0
}
