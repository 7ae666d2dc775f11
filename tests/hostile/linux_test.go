package hostile

import (
	"math"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// odd is a number that some sum might pass the end with.
func (m maker) odd() uint64 {
	return []uint64{0, 1, 7, 400, 1 << 20, 1<<20 + 1, 1 << 32, math.MaxInt64, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}[m.IntN(11)]
}

// linuxRequest is a request that only 9P2000.L has. It never waits for long: a
// Tlock does not ask to.
func (m maker) linuxRequest(tag uint16) []byte {
	switch m.IntN(16) {
	case 0, 1:
		return raw.Frame(wire.Tlopen, tag, m.fid(), m.openFlags())
	case 2:
		return raw.Frame(wire.Tlcreate, tag, m.fid(), m.name(), m.openFlags(), uint32(m.odd()), uint32(m.IntN(2)))
	case 3:
		return raw.Frame(wire.Tgetattr, tag, m.fid(), m.odd())
	case 4, 5:
		return m.setattr(tag)
	case 6, 7:
		return raw.Frame(wire.Treaddir, tag, m.fid(), m.odd(), uint32(m.IntN(9000)))
	case 8:
		return m.pickFrame(tag, wire.Tstatfs, wire.Tfsync, wire.Treadlink)
	case 9, 10:
		return m.lock(tag, uint32(m.IntN(2)<<1))
	case 11:
		return raw.Frame(wire.Tgetlock, tag, m.fid(), uint8(m.IntN(4)), m.odd(), m.odd(), uint32(m.IntN(3)), m.name())
	case 12:
		return raw.Frame(wire.Trename, tag, m.fid(), m.fid(), m.name())
	case 13:
		return raw.Frame(wire.Trenameat, tag, m.fid(), m.name(), m.fid(), m.name())
	case 14:
		return raw.Frame(wire.Tunlinkat, tag, m.fid(), m.name(), uint32(m.IntN(2)*0x200|m.IntN(2)))
	}
	return m.unsupported(tag)
}

// openFlags are some of open(2)'s, but not those of blocking files.
func (m maker) openFlags() uint32 {
	flags := uint32(m.IntN(4))
	for _, bit := range []uint32{0o100, 0o200, 0o1000, 0o2000, 0o4000, 0o200000, 0o100000, 1 << 31} {
		if m.IntN(4) == 0 {
			flags |= bit
		}
	}
	return flags
}

func (m maker) setattr(tag uint16) []byte {
	mask := uint32(m.IntN(1 << 9))
	return raw.Frame(wire.Tsetattr, tag, m.fid(), mask, uint32(m.IntN(0o1000)), uint32(m.IntN(2)), uint32(m.IntN(2)),
		m.odd(), m.odd(), m.odd(), m.odd(), m.odd())
}

// lock locks or unlocks; flags 1 asks to wait.
func (m maker) lock(tag uint16, flags uint32) []byte {
	return raw.Frame(wire.Tlock, tag, m.fid(), uint8(m.IntN(4)), flags, m.odd(), m.odd(), uint32(m.IntN(3)), m.name())
}

// pickFrame is a request of one of these types that names a fid and no more.
func (m maker) pickFrame(tag uint16, types ...wire.Type) []byte {
	return raw.Frame(types[m.IntN(len(types))], tag, m.fid())
}

// unsupported is a request for what no file here has.
func (m maker) unsupported(tag uint16) []byte {
	switch m.IntN(5) {
	case 0:
		return raw.Frame(wire.Tsymlink, tag, m.fid(), m.name(), m.name(), uint32(0))
	case 1:
		return raw.Frame(wire.Tmknod, tag, m.fid(), m.name(), uint32(0o10600), uint32(1), uint32(3), uint32(0))
	case 2:
		return raw.Frame(wire.Txattrwalk, tag, m.fid(), m.fid()+100, m.name())
	case 3:
		return raw.Frame(wire.Tlink, tag, m.fid(), m.fid(), m.name())
	}
	return raw.Frame(wire.Tmkdir, tag, m.fid(), m.name(), uint32(0o755), uint32(0))
}
