package wire

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/hugelgupf/p9/p9"
)

// text goes through a message's fields in one of two directions, so that each
// field's place in the line is written down once: it appends them to out, or
// while parsing takes them off tokens. After the first field that is not as it
// should be, bad says why and the rest stay as they are. A message that is being
// written is only read.
type text struct {
	d       Dialect
	parsing bool
	masking bool // keys are not for people to see
	hidden  bool // nor is this message's data
	out     []byte
	tokens  []string
	bad     string
}

func (x *text) fail(why string) {
	if x.bad == "" {
		x.bad = why
	}
	x.tokens = nil
}

// next takes a token; "" when there is none.
func (x *text) next() string {
	if len(x.tokens) == 0 {
		return ""
	}
	t := x.tokens[0]
	x.tokens = x.tokens[1:]
	return t
}

// begin begins the field of that name. While parsing it tells whether the name
// stands there, and so whether a value may be taken.
func (x *text) begin(name string) bool {
	if !x.parsing {
		x.out = append(append(x.out, ' '), name...)
		return true
	}
	if x.bad == "" && x.next() != name {
		x.fail("no " + name + " where it should be")
	}
	return x.bad == ""
}

// optional tells whether a field that some dialect lacks is there: when have
// says so, or while parsing when its name comes next.
func (x *text) optional(name string, have bool) bool {
	if x.parsing {
		return len(x.tokens) > 0 && x.tokens[0] == name
	}
	return have
}

// value appends one value to the line.
func (x *text) value(v string) { x.out = append(append(x.out, ' '), v...) }

// listed tells whether another value of a list comes next: values begin with a
// digit, ~ or a quote, field names with a letter.
func (x *text) listed() bool {
	return len(x.tokens) > 0 && !('a' <= x.tokens[0][0] && x.tokens[0][0] <= 'z')
}

type number interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

// num is a number in base 8, 10 or 16, written as Go writes it; ~0 is all ones.
func num[T number](x *text, name string, base int, v *T) {
	if !x.begin(name) {
		return
	}
	if !x.parsing {
		x.value(formatNum(*v, base))
		return
	}
	n, ok := parseNum[T](x.next())
	if !ok {
		x.fail(name + " is no number of its range")
		return
	}
	*v = n
}

// formatNum writes what parseNum, and strconv.ParseUint with base 0, read back.
func formatNum[T number](v T, base int) string {
	if v == ^T(0) {
		return "~0"
	}
	s := strconv.FormatUint(uint64(v), base)
	switch {
	case base == 16:
		return "0x" + s
	case base == 8 && v != 0:
		return "0" + s
	}
	return s
}

func parseNum[T number](s string) (T, bool) {
	if s == "~0" {
		return ^T(0), true
	}
	n, err := strconv.ParseUint(s, 0, 64)
	return T(n), err == nil && n <= uint64(^T(0))
}

// list is numbers side by side.
func list[T number](x *text, name string, v *[]T) {
	if !x.begin(name) {
		return
	}
	if !x.parsing {
		for _, n := range *v {
			x.value(formatNum(n, 10))
		}
		return
	}
	for x.listed() {
		n, ok := parseNum[T](x.next())
		if !ok {
			x.fail(name + " has no number of its range")
		}
		*v = append(*v, n)
	}
}

func (x *text) str(name string, v *string) {
	if !x.begin(name) {
		return
	}
	if !x.parsing {
		x.value(strconv.Quote(*v))
		return
	}
	*v = x.quoted(name)
}

// quoted takes a quoted string off the tokens.
func (x *text) quoted(name string) string {
	s, err := strconv.Unquote(x.next())
	if err != nil {
		x.fail(name + " is not a quoted string")
	}
	return s
}

func (x *text) names(v *[]string) {
	if !x.begin("names") {
		return
	}
	if !x.parsing {
		for _, s := range *v {
			x.value(strconv.Quote(s))
		}
		return
	}
	for x.listed() {
		*v = append(*v, x.quoted("names"))
	}
}

// data is a quoted string of any bytes, or while it is hidden its length.
func (x *text) data(name string, v *[]byte) {
	switch {
	case !x.begin(name):
	case x.parsing:
		*v = []byte(x.quoted(name))
	case x.hidden:
		x.value(fmt.Sprintf("***%d", len(*v)))
	default:
		x.value(strconv.Quote(string(*v)))
	}
}

// key is the hexadecimal bytes of a session key, as many as v has.
func (x *text) key(name string, v []byte) {
	switch {
	case !x.begin(name):
	case x.masking:
		x.value(fmt.Sprintf("***%d", len(v)))
	case !x.parsing:
		x.value(hex.EncodeToString(v))
	default:
		b, err := hex.DecodeString(x.next())
		if err != nil || len(b) != len(v) {
			x.fail(fmt.Sprintf("%s is not %d hexadecimal bytes", name, len(v)))
		}
		copy(v, b)
	}
}

// qid is type.version.path, of which type is hexadecimal.
func (x *text) qid(name string, v *p9.QID) {
	if !x.begin(name) {
		return
	}
	if !x.parsing {
		x.value(formatQID(v))
		return
	}
	*v = x.parseQID(name)
}

func (x *text) qids(v *[]p9.QID) {
	if !x.begin("qids") {
		return
	}
	if !x.parsing {
		for i := range *v {
			x.value(formatQID(&(*v)[i]))
		}
		return
	}
	for x.listed() {
		*v = append(*v, x.parseQID("qids"))
	}
}

func formatQID(q *p9.QID) string {
	return formatNum(q.Type, 16) + "." + formatNum(q.Version, 10) + "." + formatNum(q.Path, 10)
}

func (x *text) parseQID(name string) p9.QID {
	parts := append(strings.SplitN(x.next(), ".", 3), "", "") // a missing part is no number
	t, ok1 := parseNum[uint8](parts[0])
	version, ok2 := parseNum[uint32](parts[1])
	path, ok3 := parseNum[uint64](parts[2])
	if !ok1 || !ok2 || !ok3 {
		x.fail(name + " has no type.version.path")
	}
	return p9.QID{Type: p9.QIDType(t), Version: version, Path: path}
}

// attrMask is a mask as its bits. m is written only while parsing: others may be
// reading a message that is being formatted.
func (x *text) attrMask(name string, m *p9.AttrMask) {
	bits := attrBits(m)
	num(x, name, 16, &bits)
	if x.parsing {
		*m = attrMask(bits)
	}
}

func (x *text) setAttrMask(name string, m *p9.SetAttrMask) {
	bits := setAttrBits(m)
	num(x, name, 16, &bits)
	if x.parsing {
		*m = setAttrMask(bits)
	}
}

func (x *text) attr(a *p9.Attr) {
	num(x, "mode", 8, &a.Mode)
	num(x, "uid", 10, &a.UID)
	num(x, "gid", 10, &a.GID)
	num(x, "nlink", 10, &a.NLink)
	num(x, "rdev", 10, &a.RDev)
	num(x, "size", 10, &a.Size)
	num(x, "blksize", 10, &a.BlockSize)
	num(x, "blocks", 10, &a.Blocks)
	num(x, "atime", 10, &a.ATimeSeconds)
	num(x, "atime_nsec", 10, &a.ATimeNanoSeconds)
	num(x, "mtime", 10, &a.MTimeSeconds)
	num(x, "mtime_nsec", 10, &a.MTimeNanoSeconds)
	num(x, "ctime", 10, &a.CTimeSeconds)
	num(x, "ctime_nsec", 10, &a.CTimeNanoSeconds)
	num(x, "btime", 10, &a.BTimeSeconds)
	num(x, "btime_nsec", 10, &a.BTimeNanoSeconds)
	num(x, "gen", 10, &a.Gen)
	num(x, "data_version", 10, &a.DataVersion)
}

func (x *text) setAttr(a *p9.SetAttr) {
	num(x, "mode", 8, &a.Permissions)
	num(x, "uid", 10, &a.UID)
	num(x, "gid", 10, &a.GID)
	num(x, "size", 10, &a.Size)
	num(x, "atime", 10, &a.ATimeSeconds)
	num(x, "atime_nsec", 10, &a.ATimeNanoSeconds)
	num(x, "mtime", 10, &a.MTimeSeconds)
	num(x, "mtime_nsec", 10, &a.MTimeNanoSeconds)
}

// split cuts a line at its blanks, but not within quotes. A quote that does not
// end is left in pieces, which no field takes.
func split(line string) (tokens []string) {
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			return tokens
		}
		n := strings.IndexAny(line, " \t")
		if q, err := strconv.QuotedPrefix(line); err == nil {
			n = len(q)
		}
		if n < 0 {
			n = len(line)
		}
		tokens = append(tokens, line[:n])
		line = line[n:]
	}
}
