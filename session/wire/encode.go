package wire

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// Append appends the frame of m in dialect d to b and allocates nothing when b
// has room. The error is errs.Invalid for what has no frame: a type that d lacks,
// a string over 65,535 bytes, more than MaxWalk names, a frame over MaxMsize; b
// is then as it was.
func Append(b []byte, m *Msg, d Dialect) ([]byte, error) {
	if _, ok := spanOf(m.Type, d); !ok {
		return b, errs.New(errs.Invalid, "there is no %s in %s", m.Type, d)
	}
	w := writer{b: append(b, 0, 0, 0, 0, byte(m.Type), byte(m.Tag), byte(m.Tag>>8))}
	w.message(m, d)
	size := len(w.b) - len(b)
	if size > MaxMsize {
		w.fail("over the largest msize")
	}
	if w.bad != "" {
		return b, errs.New(errs.Invalid, "%s: %s", m.Type, w.bad)
	}
	binary.LittleEndian.PutUint32(w.b[len(b):], uint32(size))
	return w.b, nil
}

// PutRead writes the first ReadLen bytes of an Rread, Rsread or Rreaddir whose n
// bytes of data stand at b[ReadLen:] already.
func PutRead(b []byte, t Type, tag uint16, n int) {
	_ = b[ReadLen-1]
	binary.LittleEndian.PutUint32(b, uint32(ReadLen+n))
	b[4] = byte(t)
	binary.LittleEndian.PutUint16(b[5:], tag)
	binary.LittleEndian.PutUint32(b[HeaderLen:], uint32(n))
}

// AppendError appends the reply that err is in d: Rlerror with Linux's errno, or
// Rerror with the exact text of err's kind, in 9P2000.u its errno, and where d
// allows it a colon and the detail of an *errs.Error. The text of any other error
// stays here: it may name what is the host's. At most 255 bytes of text go out, so
// that the frame fits any msize, and in a numbered dialect MaxKept.
func AppendError(b []byte, tag uint16, err error, d Dialect) []byte {
	kind, detail := explain(err)
	m := Msg{Type: Rlerror, Tag: tag, Errno: uint32(kind.ErrnoL())}
	if !d.IsL() {
		m.Type, m.Errno, m.Ename = Rerror, uint32(kind.Errno()), kind.Text()
		if detail != "" && d.Detail() {
			m.Ename = clip(m.Ename+": "+detail, maxErrorText(d))
		}
	}
	b, _ = Append(b, &m, d) // every dialect has one of the two, and the text is short
	return b
}

// maxErrorText is how many bytes an error's text has at most: a reply to a change must be
// short enough to be kept, in a dialect with numbers.
func maxErrorText(d Dialect) int {
	if d.Numbered() {
		return MaxKept - HeaderLen - 2
	}
	return 255
}

// explain is errs.KindOf and the detail, without an allocation for the errors
// that requests end with all the time.
func explain(err error) (errs.Kind, string) {
	switch e := err.(type) {
	case errs.Kind:
		return e, ""
	case *errs.Error:
		return e.Kind, e.Detail
	}
	var e *errs.Error
	if errors.As(err, &e) {
		return e.Kind, e.Detail
	}
	return errs.KindOf(err), ""
}

// clip cuts s to at most n bytes, between two runes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// message writes the fields of a type that d has.
func (w *writer) message(m *Msg, d Dialect) {
	switch m.Type {
	case Tread, Treaddir:
		w.u32(m.Fid)
		w.u64(m.Offset)
		w.u32(m.Count)
	case Rread, Rsread, Rreaddir:
		w.data(m.Data)
	case Twrite:
		w.u32(m.Fid)
		w.u64(m.Offset)
		w.data(m.Data)
	case Rwrite, Rswrite:
		w.u32(m.Count)
	case Tclunk, Tremove, Tstat, Tstatfs, Treadlink:
		w.u32(m.Fid)
	case Rclunk, Rremove, Rwstat, Rflush, Rsession, Rrename, Rsetattr, Rxattrcreate, Rfsync, Rlink, Rrenameat, Runlinkat:
	case Twalk:
		w.u32(m.Fid)
		w.u32(m.Newfid)
		w.names(m.Names)
	case Rwalk:
		w.qids(m.QIDs)
	case Topen:
		w.u32(m.Fid)
		w.u8(m.Mode)
	case Ropen, Rcreate, Rlopen, Rlcreate:
		w.qid(&m.QID)
		w.u32(m.Iounit)
	case Rauth, Rattach, Rsymlink, Rmknod, Rmkdir:
		w.qid(&m.QID)
	case Tsread:
		w.u32(m.Fid)
		w.names(m.Names)
	case Tswrite:
		w.u32(m.Fid)
		w.names(m.Names)
		w.data(m.Data)
	case Tflush:
		w.u16(m.Oldtag)
	case Rstat:
		w.stat(&m.Dir, d)
	case Twstat:
		w.u32(m.Fid)
		w.stat(&m.Dir, d)
	default:
		w.rare(m, d)
	}
}

// rare writes what reader.rare reads.
func (w *writer) rare(m *Msg, d Dialect) {
	switch m.Type {
	case Tversion, Rversion:
		w.u32(m.Msize)
		w.str(m.Version)
	case Tauth:
		w.u32(m.Afid)
		w.who(m, d)
	case Tattach:
		w.u32(m.Fid)
		w.u32(m.Afid)
		w.who(m, d)
	case Rerror:
		w.str(m.Ename)
		if d.IsU() {
			w.u32(m.Errno)
		}
	case Tcreate:
		w.u32(m.Fid)
		w.str(m.Name)
		w.u32(m.Perm)
		w.u8(m.Mode)
		if d.IsU() {
			w.str(m.Ext)
		}
	case Tsession:
		w.session(m)
	case Tresume:
		if d.Tokens() {
			w.u64(m.Counted)
			w.u64(m.Token)
		}
		w.numbers(m.Numbers)
	case Rresume:
		if d.Tokens() {
			w.u64(m.Token)
		}
		w.states(m.States)
	default:
		w.linux(m)
	}
}

// who is the end of a Tauth and of a Tattach.
func (w *writer) who(m *Msg, d Dialect) {
	w.str(m.Uname)
	w.str(m.Aname)
	if d.numericIDs() {
		w.u32(m.NUname)
	}
}

// session writes either form of a Tsession. A draft without node and group would
// have the published form's 15 bytes and be taken for it.
func (w *writer) session(m *Msg) {
	if !m.Draft {
		w.b = append(w.b, m.Key[:]...)
		return
	}
	if m.Node == "" && m.Group == "" {
		w.fail("a draft without node and group")
	}
	w.str(m.Node)
	w.str(m.Group)
	w.b = append(w.b, m.Key[:draftKeyLen]...)
}

func (w *writer) names(names []string) {
	w.count(len(names), MaxWalk)
	for _, s := range names {
		w.str(s)
	}
}

func (w *writer) qids(qids []p9.QID) {
	w.count(len(qids), MaxWalk)
	for i := range qids {
		w.qid(&qids[i])
	}
}

func (w *writer) numbers(numbers []uint64) {
	w.count(len(numbers), MaxNumbers)
	for _, n := range numbers {
		w.u64(n)
	}
}

func (w *writer) states(states []uint8) {
	w.count(len(states), MaxNumbers)
	w.b = append(w.b, states...)
}

// writer appends fields to b; bad says why the message has no frame.
type writer struct {
	b   []byte
	bad string
}

func (w *writer) fail(why string) {
	if w.bad == "" {
		w.bad = why
	}
}

func (w *writer) u8(v uint8)   { w.b = append(w.b, v) }
func (w *writer) u16(v uint16) { w.b = binary.LittleEndian.AppendUint16(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

func (w *writer) qid(q *p9.QID) { w.b = appendQID(w.b, q) }

// str refuses what length[2] cannot say; cut short it would be another string.
func (w *writer) str(s string) {
	if len(s) > maxStr {
		w.fail("a string over 65,535 bytes")
		return
	}
	w.b = appendStr(w.b, s)
}

// data writes count[4] data[count], unless the frame could be nobody's.
func (w *writer) data(data []byte) {
	if len(data) > MaxMsize {
		w.fail("over the largest msize")
		return
	}
	w.u32(uint32(len(data)))
	w.b = append(w.b, data...)
}

// count writes the length of a list, at most limit.
func (w *writer) count(n, limit int) {
	if n > limit {
		w.fail("a list that is too long")
	}
	w.u16(uint16(n))
}

// stat writes n[2] stat[n]: the size stands there twice (stat(5), BUGS).
func (w *writer) stat(dir *Dir, d Dialect) {
	n := DirSize(dir, d)
	if n > MaxDir {
		w.fail("a stat over 65,535 bytes")
		return
	}
	w.u16(uint16(n))
	w.b = AppendDir(w.b, dir, d)
}
