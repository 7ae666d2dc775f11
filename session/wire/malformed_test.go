package wire_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// malformed are frames whose header is right and whose fields are not. All are
// tag 1.
var malformed = []struct {
	name string
	d    wire.Dialect
	hex  string
	says string // what the error must mention
}{
	{"no header", wire.Plain, "0600000064ff", "shorter than its header"},
	{"nothing", wire.Plain, "", "shorter than its header"},
	{"Tread, a byte short", wire.Plain, "1600000074010004000000000000000200000000000000"[:44], "shorter than 23"},
	{"Tversion, string past the end", wire.None, "0d000000640100" + "00200000" + "0100", "past the end"},
	{"Tversion, string of 65535", wire.None, "0e000000640100" + "00200000" + "ffff" + "39", "past the end"},
	{"Tattach, second string past the end", wire.Plain, "13000000680100" + "00000000" + "ffffffff" + "0000" + "0100", "past the end"},
	{"Tattach of 9P2000 in 9P2000.u", wire.U, "15000000680100" + "00000000" + "ffffffff" + "01006e" + "01006e", "shorter than 23"},
	{"Tattach, no room for n_uname", wire.U, "17000000680100" + "00000000" + "ffffffff" + "0200" + "6e6e" + "0000" + "0000", "past the end"},
	{"Twalk, 17 names", wire.Plain, "33000000" + "6e0100" + "01000000" + "02000000" + "1100" + zeros(34), "more than 16 names"},
	{"Twalk, 65535 names", wire.Plain, "11000000" + "6e0100" + "01000000" + "02000000" + "ffff", "more than 16 names"},
	{"Twalk, fewer names than said", wire.Plain, "13000000" + "6e0100" + "01000000" + "02000000" + "0200" + "0000", "past the end"},
	{"Rwalk, 17 qids", wire.Plain, "e6000000" + "6f0100" + "1100" + zeros(221), "more than 16 qids"},
	{"Rwalk, half a qid", wire.Plain, "0f000000" + "6f0100" + "0100" + zeros(6), "past the end"},
	{"Rread, count past the end", wire.Plain, "0c000000" + "750100" + "02000000" + "61", "past the end"},
	{"Rread, count of 4 GiB", wire.Plain, "0c000000" + "750100" + "ffffffff" + "61", "past the end"},
	{"Twrite, count past the end", wire.Plain, "18000000" + "760100" + "04000000" + zeros(8) + "02000000" + "61", "past the end"},
	{"Tcreate of 9P2000 in 9P2000.u", wire.U, "13000000" + "720100" + "04000000" + "01006b" + "80010000" + "01", "shorter than 20"},
	{"Rstat, n past the end", wire.Plain, "3a000000" + "7d0100" + "ffff" + "2f00" + zeros(47), "past the end"},
	{"Rstat, inner size too large", wire.Plain, "3a000000" + "7d0100" + "3100" + "3000" + zeros(47), "two sizes"},
	{"Rstat, inner size too small", wire.Plain, "3a000000" + "7d0100" + "3100" + "2e00" + zeros(47), "two sizes"},
	{"Rstat, n of 0", wire.Plain, "3a000000" + "7d0100" + "0000" + "2f00" + zeros(47), "two sizes"},
	{"Rstat, n of 1", wire.Plain, "3a000000" + "7d0100" + "0100" + "2f00" + zeros(47), "two sizes"},
	{"Rstat, a byte after the fields", wire.Plain, "3b000000" + "7d0100" + "3200" + "3000" + zeros(48), "not that of its fields"},
	{"Twstat, sizes disagree", wire.Plain, "3e000000" + "7e0100" + "04000000" + "3100" + "2e00" + zeros(47), "not that of its fields"},
	{"Twstat, n past the end", wire.Plain, "3e000000" + "7e0100" + "04000000" + "3400" + "2f00" + zeros(47), "past the end"},
	{"Twstat of 9P2000 in 9P2000.u", wire.U, "4d000000" + "7e0100" + "04000000" + "4000" + "3e00" + zeros(62), "not that of its fields"},
	{"Tresume, 513 numbers", wire.EN, "11100000" + "9c0100" + "0102" + zeros(513*8), "than 512"},
	{"Tresume, fewer numbers than said", wire.EN, "11000000" + "9c0100" + "0200" + zeros(8), "than the frame holds"},
	{"Rresume, 513 states", wire.EN, "0a020000" + "9d0100" + "0102" + zeros(513), "more than 512"},
	{"Rresume, fewer states than said", wire.EN, "0a000000" + "9d0100" + "0200" + "00", "past the end"},
	{"Tfsync, half a datasync", wire.L, "0d000000" + "320100" + "01000000" + "0100", "past the end"},
	{"Tlock, no room for client_id", wire.L, "26000000" + "340100" + zeros(29) + "0100", "past the end"},
}

func TestMalformed(t *testing.T) {
	for _, c := range malformed {
		m := wire.Msg{Fid: 99, Data: []byte("old"), Ename: "old"}
		err := wire.Decode(&m, unhex(t, c.hex), c.d)
		if !errors.Is(err, errs.Protocol) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want one that says %q", c.name, err, c.says)
		}
		if len(c.hex) >= 14 && (m.Type.String() != strings.Fields(strings.ReplaceAll(c.name, ",", " "))[0] || m.Tag != 1) {
			t.Errorf("%s: type %v, tag %d", c.name, m.Type, m.Tag)
		}
	}
}

// TestTolerated has frames that are odd and yet pass.
func TestTolerated(t *testing.T) {
	for _, c := range []struct {
		name string
		d    wire.Dialect
		hex  string
		want string
	}{
		{"a byte after Tclunk", wire.Plain, "0c000000" + "780100" + "04000000" + "ff", `Tclunk tag 1 fid 4`},
		{"bytes after data", wire.Plain, "0e000000" + "750100" + "01000000" + "616263", `Rread tag 1 data "a"`},
		{"n_uname in 9P2000", wire.Plain, "17000000" + "680100" + "01000000" + "ffffffff" + "0000" + "0000" + "e8030000", `Tattach tag 1 fid 1 afid ~0 uname "" aname ""`},
		{"NUL and no UTF-8", wire.Plain, "15000000" + "6e0100" + "01000000" + "02000000" + "0100" + "0200" + "00ff", `Twalk tag 1 fid 1 newfid 2 names "\x00\xff"`},
		{"Tfsync without datasync", wire.L, "0b000000" + "320100" + "01000000", `Tfsync tag 1 fid 1 datasync 0`},
		{
			"docker/go-p9p's Twstat, a stat without n", wire.Plain,
			"4a0000007e0100040000003d0001000200000080050000001100000000000000ed0100800300000004000000050000000000000004006e616d650300756964030067696404006d756964",
			`Twstat tag 1 fid 4 type 1 dev 2 qid 0x80.5.17 mode 020000000755 atime 3 mtime 4 length 5 name "name" uid "uid" gid "gid" muid "muid"`,
		},
	} {
		var m wire.Msg
		if err := wire.Decode(&m, unhex(t, c.hex), c.d); err != nil || m.Format(c.d) != c.want {
			t.Errorf("%s: %v, %v", c.name, &m, err)
		}
	}
}

// TestNoFrame has messages that cannot be written.
func TestNoFrame(t *testing.T) {
	long := strings.Repeat("x", math.MaxUint16+1)
	for _, c := range []struct {
		name string
		d    wire.Dialect
		m    wire.Msg
	}{
		{"a string of 65,536", wire.Plain, wire.Msg{Type: wire.Rerror, Ename: long}},
		{"17 names", wire.Plain, wire.Msg{Type: wire.Twalk, Names: make([]string, 17)}},
		{"a name of 65,536", wire.E, wire.Msg{Type: wire.Tsread, Names: []string{long}}},
		{"17 qids", wire.Plain, wire.Msg{Type: wire.Rwalk, QIDs: make([]p9.QID, 17)}},
		{"513 numbers", wire.EN, wire.Msg{Type: wire.Tresume, Numbers: make([]uint64, 513)}},
		{"513 states", wire.EN, wire.Msg{Type: wire.Rresume, States: make([]uint8, 513)}},
		{"a stat of 65,536", wire.Plain, wire.Msg{Type: wire.Rstat, Dir: wire.Dir{Name: long[:65536-49]}}},
		{"a string of 65,536 in a stat", wire.Plain, wire.Msg{Type: wire.Twstat, Dir: wire.Dir{Muid: long}}},
		{"data over the largest msize", wire.Plain, wire.Msg{Type: wire.Rread, Data: make([]byte, wire.MaxMsize+1)}},
		{"a frame over the largest msize", wire.Plain, wire.Msg{Type: wire.Rread, Data: make([]byte, wire.MaxMsize-10)}},
		{"a draft that looks published", wire.E, wire.Msg{Type: wire.Tsession, Draft: true}},
		{"Tlopen in 9P2000", wire.Plain, wire.Msg{Type: wire.Tlopen}},
		{"Tsread in 9P2000", wire.Plain, wire.Msg{Type: wire.Tsread}},
	} {
		b, err := wire.Append([]byte("before"), &c.m, c.d)
		if !errors.Is(err, errs.Invalid) || string(b) != "before" {
			t.Errorf("%s: %d bytes, %v", c.name, len(b), err)
		}
	}
	full := wire.Msg{Type: wire.Rread, Data: make([]byte, wire.MaxMsize-wire.ReadLen)}
	if b := mustAppend(t, &full, wire.Plain); len(b) != wire.MaxMsize {
		t.Errorf("the largest Rread has %d bytes", len(b))
	}
}

// TestReusedStorage shows that a decoded list does not share with what its
// message held before, and that no name that is too long for a file stays behind.
func TestReusedStorage(t *testing.T) {
	var m wire.Msg
	decode := func(names ...string) []string {
		t.Helper()
		frame := mustAppend(t, &wire.Msg{Type: wire.Twalk, Names: names}, wire.Plain)
		if err := wire.Decode(&m, frame, wire.Plain); err != nil {
			t.Fatal(err)
		}
		clear(frame)
		return m.Names
	}
	for _, names := range [][]string{{"a", "b", "c"}, {"a"}, {"a", "x", "c"}, {}, {strings.Repeat("l", 256), "b"}, {"a", "b", "c", "d", "e"}} {
		if got := decode(names...); strings.Join(got, "/") != strings.Join(names, "/") {
			t.Errorf("decoded %q, want %q", got, names)
		}
	}
	decode(strings.Repeat("l", 256))
	frame := mustAppend(t, &wire.Msg{Type: wire.Tclunk}, wire.Plain)
	if err := wire.Decode(&m, frame, wire.Plain); err != nil {
		t.Fatal(err)
	}
	for _, name := range m.Names[:cap(m.Names)] {
		if len(name) > 255 {
			t.Errorf("a name of %d bytes is kept", len(name))
		}
	}
}

// TestDataAliases shows that data is not copied and cannot grow over the frame.
func TestDataAliases(t *testing.T) {
	frame := mustAppend(t, &wire.Msg{Type: wire.Rread, Data: []byte("abc")}, wire.Plain)
	frame = append(frame, "next"...)
	var m wire.Msg
	if err := wire.Decode(&m, frame[:len(frame)-4], wire.Plain); err != nil {
		t.Fatal(err)
	}
	if &m.Data[0] != &frame[wire.ReadLen] || cap(m.Data) != len(m.Data) {
		t.Errorf("data is a copy, or has room for %d bytes", cap(m.Data))
	}
}
