package wire

import (
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// MaxDir is the length in bytes of the longest stat record, its size field
// included, that an Rstat or a Twstat can carry behind n[2].
const MaxDir = 1<<16 - 1

// The fixed part of a stat record, its size field included, and what 9P2000.u
// adds to it, in bytes.
const (
	dirLen  = 2 + 2 + 4 + 13 + 4*3 + 8 + 4*2
	dirMore = 2 + 4*3
)

// DirSize is the length in bytes of dir's stat record, its size field included.
// Over MaxDir there is no such record.
func DirSize(dir *Dir, d Dialect) int {
	n := dirLen + len(dir.Name) + len(dir.UID) + len(dir.GID) + len(dir.Muid)
	if d.IsU() {
		n += dirMore + len(dir.Extension)
	}
	return n
}

// AppendDir appends dir's stat record, as it stands in an Rstat behind n[2] and
// in the data of a folder's Rread: size[2] type[2] dev[4] qid[13] mode[4]
// atime[4] mtime[4] length[8] name[s] uid[s] gid[s] muid[s], and in 9P2000.u
// extension[s] n_uid[4] n_gid[4] n_muid[4]. Of a record over MaxDir it appends
// nothing: whoever takes names in keeps them shorter.
func AppendDir(b []byte, dir *Dir, d Dialect) []byte {
	n := DirSize(dir, d)
	if n > MaxDir {
		return b
	}
	le := binary.LittleEndian
	b = le.AppendUint16(b, uint16(n-2))
	b = le.AppendUint16(b, dir.Type)
	b = le.AppendUint32(b, dir.Dev)
	b = appendQID(b, &dir.QID)
	b = le.AppendUint32(b, dir.Mode)
	b = le.AppendUint32(b, dir.Atime)
	b = le.AppendUint32(b, dir.Mtime)
	b = le.AppendUint64(b, dir.Length)
	b = appendStr(b, dir.Name)
	b = appendStr(b, dir.UID)
	b = appendStr(b, dir.GID)
	b = appendStr(b, dir.Muid)
	if d.IsU() {
		b = appendStr(b, dir.Extension)
		b = le.AppendUint32(b, dir.NUID)
		b = le.AppendUint32(b, dir.NGID)
		b = le.AppendUint32(b, dir.NMuid)
	}
	return b
}

// DecodeDir reads the stat record that begins b and gives what follows it. The
// error is errs.Protocol: the record runs past b, or its size is not that of its
// fields.
func DecodeDir(b []byte, d Dialect) (dir Dir, rest []byte, err error) {
	r := reader{b: b}
	fields := reader{b: r.take(int(r.u16())), bad: r.bad}
	fields.dir(&dir, d)
	if fields.bad != "" {
		return Dir{}, nil, errs.New(errs.Protocol, "stat record: %s", fields.bad)
	}
	return dir, r.b, nil
}

// stat reads n[2] stat[n], whose two sizes must agree. docker/go-p9p sends a
// Twstat without n, so there a record that has only its own size passes too.
func (r *reader) stat(m *Msg, d Dialect) {
	n := int(r.u16())
	b := r.take(n)
	switch {
	case n >= 2 && len(b) == n && int(binary.LittleEndian.Uint16(b)) == n-2:
		b = b[2:]
	case m.Type != Twstat:
		r.fail("the two sizes of a stat disagree")
	}
	fields := reader{b: b, bad: r.bad}
	fields.dir(&m.Dir, d)
	r.bad = fields.bad
}

// dir reads the fields of a stat record, which must use up r.
func (r *reader) dir(dir *Dir, d Dialect) {
	dir.Type, dir.Dev, dir.QID = r.u16(), r.u32(), r.qid()
	dir.Mode, dir.Atime, dir.Mtime, dir.Length = r.u32(), r.u32(), r.u32(), r.u64()
	dir.Name, dir.UID, dir.GID, dir.Muid = r.str(), r.str(), r.str(), r.str()
	dir.NUID, dir.NGID, dir.NMuid = NoUID, NoUID, NoUID
	if d.IsU() {
		dir.Extension = r.str()
		dir.NUID, dir.NGID, dir.NMuid = r.u32(), r.u32(), r.u32()
	}
	if len(r.b) != 0 {
		r.fail("the size of a stat is not that of its fields")
	}
}

func appendQID(b []byte, q *p9.QID) []byte {
	b = append(b, byte(q.Type))
	b = binary.LittleEndian.AppendUint32(b, q.Version)
	return binary.LittleEndian.AppendUint64(b, q.Path)
}

// appendStr appends s[s]; the caller has seen to its length.
func appendStr(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}
