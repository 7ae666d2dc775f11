package wire

import (
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// p9 keeps its masks as words and the conversion to bits to itself. An array of
// pointers states the order of the bits once for both directions, and stays on
// the stack.

// attrFlags are the words of an AttrMask in the order of their bits, from
// P9_GETATTR_MODE up.
func attrFlags(m *p9.AttrMask) [14]*bool {
	return [14]*bool{
		&m.Mode, &m.NLink, &m.UID, &m.GID, &m.RDev, &m.ATime, &m.MTime, &m.CTime,
		&m.INo, &m.Size, &m.Blocks, &m.BTime, &m.Gen, &m.DataVersion,
	}
}

// setAttrFlags are the words of a SetAttrMask in the order of their bits, from
// P9_SETATTR_MODE up.
func setAttrFlags(m *p9.SetAttrMask) [9]*bool {
	return [9]*bool{
		&m.Permissions, &m.UID, &m.GID, &m.Size, &m.ATime, &m.MTime, &m.CTime,
		&m.ATimeNotSystemTime, &m.MTimeNotSystemTime,
	}
}

func attrBits(m *p9.AttrMask) (bits uint64) {
	for i, f := range attrFlags(m) {
		if *f {
			bits |= 1 << i
		}
	}
	return bits
}

func attrMask(bits uint64) (m p9.AttrMask) {
	for i, f := range attrFlags(&m) {
		*f = bits>>i&1 != 0
	}
	return m
}

func setAttrBits(m *p9.SetAttrMask) (bits uint32) {
	for i, f := range setAttrFlags(m) {
		if *f {
			bits |= 1 << i
		}
	}
	return bits
}

func setAttrMask(bits uint32) (m p9.SetAttrMask) {
	for i, f := range setAttrFlags(&m) {
		*f = bits>>i&1 != 0
	}
	return m
}

// DirentSize is the length in bytes of e in the data of an Rreaddir.
func DirentSize(e *p9.Dirent) int { return 13 + 8 + 1 + 2 + len(e.Name) }

// AppendDirent appends e as it stands in the data of an Rreaddir: qid[13]
// offset[8] type[1] name[s]. A name over 65,535 bytes has no such form: nothing
// is appended. Linux shows type to programs as d_type: 4 is a folder, 8 a file.
func AppendDirent(b []byte, e *p9.Dirent) []byte {
	if len(e.Name) > maxStr {
		return b
	}
	b = appendQID(b, &e.QID)
	b = binary.LittleEndian.AppendUint64(b, e.Offset)
	b = append(b, byte(e.Type))
	return appendStr(b, e.Name)
}

// DecodeDirent takes the first entry of an Rreaddir's data off. The name is its own.
func DecodeDirent(b []byte) (e p9.Dirent, rest []byte, err error) {
	r := reader{b: b}
	e.QID, e.Offset, e.Type, e.Name = r.qid(), r.u64(), p9.QIDType(r.u8()), r.str()
	if r.bad != "" {
		return e, nil, errs.New(errs.Protocol, "an entry of a folder: %s", r.bad)
	}
	return e, r.b, nil
}
