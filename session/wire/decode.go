package wire

import (
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// Split reads the header of the frame that begins b: its size in bytes (its own
// four included, unchecked), type and tag. ok is false while b has fewer than
// HeaderLen bytes.
func Split(b []byte) (size uint32, t Type, tag uint16, ok bool) {
	if len(b) < HeaderLen {
		return 0, 0, 0, false
	}
	return binary.LittleEndian.Uint32(b), Type(b[4]), binary.LittleEndian.Uint16(b[5:]), true
}

// Decode reads one whole frame, from its size field (which must be true) to its
// end, into m and zeroes every field of m that the type does not use. It writes
// over the lists that m had, so they must be m's own. Bytes after the fields of a
// message are ignored, except in a draft Tsession and in a stat. Names are not
// judged: any bytes pass.
//
// The error is errs.Unsupported for a type that d does not have and errs.Protocol
// for a malformed frame; of m only Type and Tag mean anything then.
func Decode(m *Msg, frame []byte, d Dialect) error {
	m.reset()
	_, t, tag, ok := Split(frame)
	if !ok {
		return errs.New(errs.Protocol, "a frame of %d bytes, shorter than its header", len(frame))
	}
	m.Type, m.Tag = t, tag
	s, ok := spanOf(t, d)
	if !ok {
		return errs.New(errs.Unsupported, "%s in %s", t, d)
	}
	if len(frame) < int(s.min) {
		return errs.New(errs.Protocol, "%s of %d bytes, shorter than %d", t, len(frame), s.min)
	}
	r := reader{b: frame[HeaderLen:]}
	r.message(m, d)
	if r.bad != "" {
		return errs.New(errs.Protocol, "%s: %s", t, r.bad)
	}
	return nil
}

// DecodeRead is Decode for the message that comes most: a Tread, into an m that
// never was given to anything else, so that the fields it does not have are zero
// without being zeroed each time. false: it is another message or malformed, and m
// is as it was.
func DecodeRead(m *Msg, frame []byte, d Dialect) bool {
	if len(frame) < int(table[Tread].min) || Type(frame[4]) != Tread || !table[Tread].in.has(d) {
		return false
	}
	m.Type, m.Tag = Tread, binary.LittleEndian.Uint16(frame[5:])
	b := frame[HeaderLen:]
	m.Fid = binary.LittleEndian.Uint32(b)
	m.Offset = binary.LittleEndian.Uint64(b[4:])
	m.Count = binary.LittleEndian.Uint32(b[12:])
	return true
}

// reset zeroes m but keeps the storage of its lists. The strings in Names stay
// behind their end, where names finds them again; long ones go, so that a peer
// cannot make an idle connection hold them.
func (m *Msg) reset() {
	for i, name := range m.Names {
		if len(name) > maxKept {
			m.Names[i] = ""
		}
	}
	names, qids := m.Names[:0], m.QIDs[:0]
	numbers, states := m.Numbers[:0], m.States[:0]
	*m = Msg{}
	m.Names, m.QIDs, m.Numbers, m.States = names, qids, numbers, states
}

// maxKept is the length in bytes of the longest name whose string is kept for
// the next message: no file name is longer.
const maxKept = 255

// message reads the fields of a type that d has. The assignments below lean on
// Go's order of calls, left to right, which is the order of the wire.
func (r *reader) message(m *Msg, d Dialect) {
	switch m.Type {
	case Tread, Treaddir:
		m.Fid, m.Offset, m.Count = r.u32(), r.u64(), r.u32()
	case Rread, Rsread, Rreaddir:
		m.Data = r.data()
	case Twrite:
		m.Fid, m.Offset, m.Data = r.u32(), r.u64(), r.data()
		m.Count = uint32(len(m.Data))
	case Rwrite, Rswrite:
		m.Count = r.u32()
	case Tclunk, Tremove, Tstat, Tstatfs, Treadlink:
		m.Fid = r.u32()
	case Rclunk, Rremove, Rwstat, Rflush, Rsession, Rrename, Rsetattr, Rxattrcreate, Rfsync, Rlink, Rrenameat, Runlinkat:
	case Twalk:
		m.Fid, m.Newfid = r.u32(), r.u32()
		r.names(m)
	case Rwalk:
		r.qids(m)
	case Topen:
		m.Fid, m.Mode = r.u32(), r.u8()
	case Ropen, Rcreate, Rlopen, Rlcreate:
		m.QID, m.Iounit = r.qid(), r.u32()
	case Rauth, Rattach, Rsymlink, Rmknod, Rmkdir:
		m.QID = r.qid()
	case Tsread:
		m.Fid = r.u32()
		r.names(m)
	case Tswrite:
		m.Fid = r.u32()
		r.names(m)
		m.Data = r.data()
		m.Count = uint32(len(m.Data))
	case Tflush:
		m.Oldtag = r.u16()
	case Rstat:
		r.stat(m, d)
	case Twstat:
		m.Fid = r.u32()
		r.stat(m, d)
	default:
		r.rare(m, d)
	}
}

// rare reads the messages that a connection seldom carries: those that begin it
// or a session, Rerror, Tcreate, and whatever only 9P2000.L has.
func (r *reader) rare(m *Msg, d Dialect) {
	switch m.Type {
	case Tcreate:
		m.Fid, m.Name, m.Perm, m.Mode = r.u32(), r.str(), r.u32(), r.u8()
		if d.IsU() {
			m.Ext = r.str()
		}
	case Tversion, Rversion:
		m.Msize, m.Version = r.u32(), r.str()
	case Tauth:
		m.Afid, m.Uname, m.Aname = r.u32(), r.str(), r.str()
		m.NUname = r.nuname(d)
	case Tattach:
		m.Fid, m.Afid, m.Uname, m.Aname = r.u32(), r.u32(), r.str(), r.str()
		m.NUname = r.nuname(d)
	case Rerror:
		m.Ename = r.str()
		if d.IsU() {
			m.Errno = r.u32()
		}
	case Tsession:
		r.session(m)
	case Tresume:
		if d.Tokens() {
			m.Counted, m.Token = r.u64(), r.u64()
		}
		r.numbers(m)
	case Rresume:
		if d.Tokens() {
			m.Token = r.u64()
		}
		r.states(m)
	default:
		r.linux(m)
	}
}

// nuname is NoUID where the dialect has none: 0 would be root.
func (r *reader) nuname(d Dialect) uint32 {
	if d.numericIDs() {
		return r.u32()
	}
	return NoUID
}

// session reads either form of a Tsession. Only a frame of 15 bytes carries the
// published key; it could be a draft as well, without node and group, but no
// such peer was ever seen.
func (r *reader) session(m *Msg) {
	if len(r.b) == KeyLen {
		copy(m.Key[:], r.b)
		return
	}
	m.Draft = true
	m.Node, m.Group = r.str(), r.str()
	copy(m.Key[:], r.take(draftKeyLen))
	if len(r.b) != 0 {
		r.fail("bytes after the key")
	}
}

// draftKeyLen is the length in bytes of a session key in the draft's form.
const draftKeyLen = 4

// names reads nwname[2] nwname*(wname[s]). A client that polls a path sends the
// same names again and again, so a string of the last time is taken if it fits.
func (r *reader) names(m *Msg) {
	n := int(r.u16())
	if n > MaxWalk {
		r.fail("more than 16 names")
		return
	}
	old := m.Names[:cap(m.Names)]
	for i := range n {
		b := r.take(int(r.u16()))
		if i < len(old) && old[i] == string(b) {
			m.Names = old[:i+1]
			continue
		}
		m.Names = append(m.Names, string(b))
	}
}

func (r *reader) qids(m *Msg) {
	n := int(r.u16())
	if n > MaxWalk {
		r.fail("more than 16 qids")
		return
	}
	for range n {
		m.QIDs = append(m.QIDs, r.qid())
	}
}

// numbers looks at the frame before it makes room for 8 bytes a number.
func (r *reader) numbers(m *Msg) {
	n := int(r.u16())
	if n > MaxNumbers || len(r.b) < 8*n {
		r.fail("more numbers than 512 or than the frame holds")
		return
	}
	for range n {
		m.Numbers = append(m.Numbers, r.u64())
	}
}

func (r *reader) states(m *Msg) {
	n := int(r.u16())
	if n > MaxNumbers {
		r.fail("more than 512 states")
		return
	}
	m.States = append(m.States, r.take(n)...)
}

// reader takes fields off the front of b. After the first that is not there, bad
// says what is wrong, b is empty and every field is zero.
type reader struct {
	b   []byte
	bad string
}

// fail keeps the first reason and lets every later field fail as well.
func (r *reader) fail(why string) {
	if r.bad == "" {
		r.bad = why
	}
	r.b = nil
}

// take gives the next n bytes without copying them; their capacity ends with
// them, so that nobody appends over the rest of the frame.
func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail("a field runs past the end of the frame")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// str copies: strings outlive the frame.
func (r *reader) str() string { return string(r.take(int(r.u16()))) }

// data reads count[4] data[count]. The count is compared before it is an int,
// which may have 32 bits.
func (r *reader) data() []byte {
	n := r.u32()
	if uint64(n) > uint64(len(r.b)) {
		r.fail("count runs past the end of the frame")
		return nil
	}
	return r.take(int(n))
}

func (r *reader) qid() p9.QID {
	return p9.QID{Type: p9.QIDType(r.u8()), Version: r.u32(), Path: r.u64()}
}
