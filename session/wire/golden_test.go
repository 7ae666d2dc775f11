package wire_test

import (
	"encoding/hex"
	"errors"
	"testing"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// golden are frames that programs of others made. 9P2000.e: LING and qp, byte
// for byte alike.
var golden = []struct {
	d    wire.Dialect
	line string
	hex  string
}{
	{wire.None, `Tversion tag ~0 msize 8192 version "9P2000.e"`, "1500000064ffff0020000008003950323030302e65"},
	{wire.E, `Tsession tag ~0 key 0102030405060708`, "0f00000096ffff0102030405060708"},
	{wire.E, `Rsession tag ~0`, "0700000097ffff"},
	{wire.E, `Tsread tag 5 fid 7 names "vm" "meta"`, "170000009805000700000002000200766d04006d657461"},
	{wire.E, `Tsread tag 5 fid 7 names`, "0d000000980500070000000000"},
	{wire.E, `Rsread tag 5 data "hello"`, "100000009905000500000068656c6c6f"},
	{wire.E, `Tswrite tag 6 fid 7 names "vm" "meta" data "world!"`, "210000009a06000700000002000200766d04006d65746106000000776f726c6421"},
	{wire.E, `Tswrite tag 6 fid 7 names data "w"`, "120000009a06000700000000000100000077"},
	{wire.E, `Rswrite tag 6 count 6`, "0b0000009b060006000000"},
	{wire.E, `Rerror tag ~0 ename "cannot recover"`, "170000006bffff0e0063616e6e6f74207265636f766572"},
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestGoldenFrames(t *testing.T) {
	for _, g := range golden {
		m, err := wire.Parse(g.line)
		if err != nil {
			t.Errorf("%s: %v", g.line, err)
			continue
		}
		if got := hex.EncodeToString(mustAppend(t, m, g.d)); got != g.hex {
			t.Errorf("%s: encoded\n %s, want\n %s", g.line, got, g.hex)
		}
		var back wire.Msg
		if err := wire.Decode(&back, unhex(t, g.hex), g.d); err != nil {
			t.Errorf("%s: %v", g.line, err)
		}
		if diff := diff(m, &back); diff != "" {
			t.Errorf("%s: %s", g.line, diff)
		}
		if back.Format(g.d) != g.line {
			t.Errorf("decoded as %s, want %s", back.Format(g.d), g.line)
		}
	}
}

// TestStrictness has the frames on which 9P2000.e servers differ (LING closes
// the connection on most of them) and what meta9 makes of them. They start as
// tag 5, fid 7.
func TestStrictness(t *testing.T) {
	for _, c := range []struct{ name, hex, want string }{
		{"Tsession, 4-byte key alone", "0b00000096ffff01020304", ""},
		{"Tsession, the draft's form", "1200000096ffff01006e0200677201020304", `Tsession tag ~0 node "n" group "gr" key 01020304`},
		{"Tsession, the draft's form and a byte", "1300000096ffff01006e020067720102030405", ""},
		{"Tsession, 9-byte key", "1000000096ffff010203040506070809", ""},
		{"Tsession, tag not NOTAG", "0f0000009601000102030405060708", `Tsession tag 1 key 0102030405060708`},
		{"Tsread, trailing bytes", "0f0000009805000700000000000102", `Tsread tag 5 fid 7 names`},
		{"Tsread, more names than present", "0f0000009805000700000002000000", ""},
		{"Tsread, 17 names", "2f000000980500070000001100" + zeros(34), ""},
		{"Tsread, 16 names", "2d000000980500070000001000" + zeros(32), `Tsread tag 5 fid 7 names "" "" "" "" "" "" "" "" "" "" "" "" "" "" "" ""`},
		{"Tswrite, count past the end", "120000009a06000700000000000200000077", ""},
		{"Tswrite, trailing bytes", "130000009a0600070000000000010000007778", `Tswrite tag 6 fid 7 names data "w"`},
	} {
		var m wire.Msg
		err := wire.Decode(&m, unhex(t, c.hex), wire.E)
		switch {
		case c.want == "" && !errors.Is(err, errs.Protocol):
			t.Errorf("%s: %v, %v", c.name, &m, err)
		case c.want != "" && (err != nil || m.String() != c.want):
			t.Errorf("%s: %v, %v", c.name, &m, err)
		}
	}
}

// zeros is n zero bytes in hexadecimal.
func zeros(n int) string { return hex.EncodeToString(make([]byte, n)) }
