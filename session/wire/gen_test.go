package wire_test

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hugelgupf/p9/p9"
	"pgregory.net/rapid"

	"meta9/session/wire"
)

var dialects = []wire.Dialect{wire.None, wire.Plain, wire.U, wire.L, wire.E, wire.LE, wire.EN, wire.LE2, wire.EN2, wire.Unknown}

// eachType calls f for every message type that exists in d.
func eachType(d wire.Dialect, f func(wire.Type)) {
	for i := range 256 {
		if _, ok := wire.MinSize(wire.Type(i), d); ok {
			f(wire.Type(i))
		}
	}
}

// diff compares messages; a list without storage is an empty list. cmp is asked
// only how they differ: it takes many times as long as the codec.
func diff(want, got *wire.Msg) string {
	if reflect.DeepEqual(bare(want), bare(got)) {
		return ""
	}
	return "-want +got: " + cmp.Diff(want, got, cmpopts.EquateEmpty())
}

// bare is m without the storage of its empty lists.
func bare(m *wire.Msg) wire.Msg {
	b := *m
	b.Names, b.QIDs, b.Data = some(b.Names), some(b.QIDs), some(b.Data)
	b.Numbers, b.States = some(b.Numbers), some(b.States)
	return b
}

func some[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func mustAppend(tb testing.TB, m *wire.Msg, d wire.Dialect) []byte {
	tb.Helper()
	b, err := wire.Append(nil, m, d)
	if err != nil {
		tb.Fatalf("Append %v in %v: %v", m, d, err)
	}
	return b
}

// gen draws the fields of one message.
type gen struct {
	*rapid.T
	d wire.Dialect
}

func (g gen) u8() uint8     { return rapid.Uint8().Draw(g.T, "u8") }
func (g gen) u16() uint16   { return rapid.Uint16().Draw(g.T, "u16") }
func (g gen) u32() uint32   { return rapid.Uint32().Draw(g.T, "u32") }
func (g gen) u64() uint64   { return rapid.Uint64().Draw(g.T, "u64") }
func (g gen) bool() bool    { return rapid.Bool().Draw(g.T, "bool") }
func (g gen) bytes() []byte { return rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(g.T, "bytes") }

// str has any bytes: NUL, blanks, quotes, invalid UTF-8.
func (g gen) str() string {
	if g.bool() {
		return rapid.String().Draw(g.T, "text")
	}
	return string(g.bytes())
}

func (g gen) qid() p9.QID {
	return p9.QID{Type: p9.QIDType(g.u8()), Version: g.u32(), Path: g.u64()}
}

func (g gen) list(most int, add func()) {
	for range rapid.IntRange(0, most).Draw(g.T, "len") {
		add()
	}
}

func (g gen) dir() wire.Dir {
	dir := wire.Dir{
		Type: g.u16(), Dev: g.u32(), QID: g.qid(), Mode: g.u32(), Atime: g.u32(), Mtime: g.u32(), Length: g.u64(),
		Name: g.str(), UID: g.str(), GID: g.str(), Muid: g.str(),
		NUID: wire.NoUID, NGID: wire.NoUID, NMuid: wire.NoUID,
	}
	if g.d.IsU() {
		dir.Extension, dir.NUID, dir.NGID, dir.NMuid = g.str(), g.u32(), g.u32(), g.u32()
	}
	return dir
}

// message draws a message of type typ as Decode would give it in g.d.
func (g gen) message(typ wire.Type) *wire.Msg {
	m := &wire.Msg{Type: typ, Tag: g.u16()}
	switch typ {
	case wire.Tversion, wire.Rversion:
		m.Msize, m.Version = g.u32(), g.str()
	case wire.Tauth, wire.Tattach:
		m.Afid, m.Uname, m.Aname, m.NUname = g.u32(), g.str(), g.str(), wire.NoUID
		if typ == wire.Tattach {
			m.Fid = g.u32()
		}
		if g.d.IsU() || g.d.IsL() {
			m.NUname = g.u32()
		}
	case wire.Rauth, wire.Rattach, wire.Rsymlink, wire.Rmknod, wire.Rmkdir:
		m.QID = g.qid()
	case wire.Rerror:
		m.Ename = g.str()
		if g.d.IsU() {
			m.Errno = g.u32()
		}
	case wire.Tflush:
		m.Oldtag = g.u16()
	case wire.Twalk:
		m.Fid, m.Newfid = g.u32(), g.u32()
		g.list(wire.MaxWalk, func() { m.Names = append(m.Names, g.str()) })
	case wire.Rwalk:
		g.list(wire.MaxWalk, func() { m.QIDs = append(m.QIDs, g.qid()) })
	case wire.Topen:
		m.Fid, m.Mode = g.u32(), g.u8()
	case wire.Ropen, wire.Rcreate, wire.Rlopen, wire.Rlcreate:
		m.QID, m.Iounit = g.qid(), g.u32()
	case wire.Tcreate:
		m.Fid, m.Name, m.Perm, m.Mode = g.u32(), g.str(), g.u32(), g.u8()
		if g.d.IsU() {
			m.Ext = g.str()
		}
	case wire.Tread, wire.Treaddir:
		m.Fid, m.Offset, m.Count = g.u32(), g.u64(), g.u32()
	case wire.Rread, wire.Rsread, wire.Rreaddir:
		m.Data = g.bytes()
	case wire.Twrite:
		m.Fid, m.Offset, m.Data = g.u32(), g.u64(), g.bytes()
		m.Count = uint32(len(m.Data))
	case wire.Rwrite, wire.Rswrite:
		m.Count = g.u32()
	case wire.Tclunk, wire.Tremove, wire.Tstat, wire.Tstatfs, wire.Treadlink:
		m.Fid = g.u32()
	case wire.Rstat:
		m.Dir = g.dir()
	case wire.Twstat:
		m.Fid, m.Dir = g.u32(), g.dir()
	case wire.Tsession, wire.Tsread, wire.Tswrite, wire.Tresume, wire.Rresume:
		g.extended(m)
	default:
		g.linux(m)
	}
	return m
}

func (g gen) extended(m *wire.Msg) {
	switch m.Type {
	case wire.Tsession:
		key := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(g.T, "key")
		if m.Draft = g.bool(); m.Draft {
			m.Node, m.Group, key = "n"+g.str(), g.str(), key[:4]
		}
		copy(m.Key[:], key)
	case wire.Tsread, wire.Tswrite:
		m.Fid = g.u32()
		g.list(wire.MaxWalk, func() { m.Names = append(m.Names, g.str()) })
		if m.Type == wire.Tswrite {
			m.Data = g.bytes()
			m.Count = uint32(len(m.Data))
		}
	case wire.Tresume:
		if g.d.Tokens() {
			m.Counted, m.Token = g.u64(), g.u64()
		}
		g.list(wire.MaxNumbers, func() { m.Numbers = append(m.Numbers, g.u64()) })
	case wire.Rresume:
		if g.d.Tokens() {
			m.Token = g.u64()
		}
		g.list(wire.MaxNumbers, func() { m.States = append(m.States, g.u8()) })
	}
}

func (g gen) linux(m *wire.Msg) {
	l := &m.L
	switch m.Type {
	case wire.Rlerror:
		m.Errno = g.u32()
	case wire.Rstatfs:
		l.Stat = p9.FSStat{
			Type: g.u32(), BlockSize: g.u32(), Blocks: g.u64(), BlocksFree: g.u64(), BlocksAvailable: g.u64(),
			Files: g.u64(), FilesFree: g.u64(), FSID: g.u64(), NameLength: g.u32(),
		}
	case wire.Tlopen:
		m.Fid, l.Flags = g.u32(), g.u32()
	case wire.Tlcreate:
		m.Fid, m.Name, l.Flags, m.Perm, l.GID = g.u32(), g.str(), g.u32(), g.u32(), g.u32()
	case wire.Tsymlink:
		m.Fid, m.Name, m.Ext, l.GID = g.u32(), g.str(), g.str(), g.u32()
	case wire.Tmknod:
		m.Fid, m.Name, m.Perm, l.Major, l.Minor, l.GID = g.u32(), g.str(), g.u32(), g.u32(), g.u32(), g.u32()
	case wire.Tmkdir:
		m.Fid, m.Name, m.Perm, l.GID = g.u32(), g.str(), g.u32(), g.u32()
	case wire.Trename, wire.Tlink, wire.Txattrwalk:
		m.Fid, m.Newfid, m.Name = g.u32(), g.u32(), g.str()
	case wire.Rreadlink:
		m.Ext = g.str()
	case wire.Tgetattr:
		m.Fid, l.Mask = g.u32(), g.attrMask()
	case wire.Rgetattr:
		l.Mask, m.QID, l.Attr = g.attrMask(), g.qid(), g.attr()
	case wire.Tsetattr:
		m.Fid, l.SetMask, l.SetAttr = g.u32(), g.setAttrMask(), g.setAttr()
	case wire.Rxattrwalk:
		l.Size = g.u64()
	case wire.Txattrcreate:
		m.Fid, m.Name, l.Size, l.Flags = g.u32(), g.str(), g.u64(), g.u32()
	case wire.Tfsync:
		m.Fid, l.Datasync = g.u32(), g.u32()
	case wire.Tlock:
		m.Fid, l.Flags = g.u32(), g.u32()
		g.lock(l)
	case wire.Tgetlock:
		m.Fid = g.u32()
		g.lock(l)
	case wire.Rgetlock:
		g.lock(l)
	case wire.Rlock:
		l.Status = p9.LockStatus(g.u8())
	case wire.Trenameat:
		m.Fid, m.Name, m.Newfid, m.Ext = g.u32(), g.str(), g.u32(), g.str()
	case wire.Tunlinkat:
		m.Fid, m.Name, l.Flags = g.u32(), g.str(), g.u32()
	}
}

func (g gen) lock(l *wire.MsgL) {
	l.LockType, l.Start, l.Length = p9.LockType(g.u8()), g.u64(), g.u64()
	l.ProcID, l.ClientID = g.u32(), g.str()
}

func (g gen) attrMask() p9.AttrMask {
	return p9.AttrMask{
		Mode: g.bool(), NLink: g.bool(), UID: g.bool(), GID: g.bool(), RDev: g.bool(), ATime: g.bool(), MTime: g.bool(),
		CTime: g.bool(), INo: g.bool(), Size: g.bool(), Blocks: g.bool(), BTime: g.bool(), Gen: g.bool(), DataVersion: g.bool(),
	}
}

func (g gen) setAttrMask() p9.SetAttrMask {
	return p9.SetAttrMask{
		Permissions: g.bool(), UID: g.bool(), GID: g.bool(), Size: g.bool(), ATime: g.bool(), MTime: g.bool(),
		CTime: g.bool(), ATimeNotSystemTime: g.bool(), MTimeNotSystemTime: g.bool(),
	}
}

func (g gen) attr() p9.Attr {
	return p9.Attr{
		Mode: p9.FileMode(g.u32()), UID: p9.UID(g.u32()), GID: p9.GID(g.u32()), NLink: p9.NLink(g.u64()), RDev: p9.Dev(g.u64()),
		Size: g.u64(), BlockSize: g.u64(), Blocks: g.u64(),
		ATimeSeconds: g.u64(), ATimeNanoSeconds: g.u64(), MTimeSeconds: g.u64(), MTimeNanoSeconds: g.u64(),
		CTimeSeconds: g.u64(), CTimeNanoSeconds: g.u64(), BTimeSeconds: g.u64(), BTimeNanoSeconds: g.u64(),
		Gen: g.u64(), DataVersion: g.u64(),
	}
}

func (g gen) setAttr() p9.SetAttr {
	return p9.SetAttr{
		Permissions: p9.FileMode(g.u32()), UID: p9.UID(g.u32()), GID: p9.GID(g.u32()), Size: g.u64(),
		ATimeSeconds: g.u64(), ATimeNanoSeconds: g.u64(), MTimeSeconds: g.u64(), MTimeNanoSeconds: g.u64(),
	}
}
