package wire_test

import (
	"errors"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/session/wire"
)

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{
		"",
		" ",
		"Tnonsense tag 5",
		"tread tag 5 fid 7 offset 0 count 100",
		"type200 tag 5",
		"Tread",
		"Tread tag",
		"Tread tag x fid 7 offset 0 count 100",
		"Tread tag 65536 fid 7 offset 0 count 100",
		"Tread tag -1 fid 7 offset 0 count 100",
		"Tread tag 5 fid 4294967296 offset 0 count 100",
		"Tread tag 5 fid 7 count 100 offset 0",
		"Tread tag 5 fid 7 offset 0",
		"Tread tag 5 fid 7 offset 0 count 100 more",
		"Tversion tag 5 msize 1 version 9P2000",
		`Tversion tag 5 msize 1 version "9P2000`,
		`Twalk tag 5 fid 1 newfid 2 names "a" 5`,
		"Rwalk tag 5 qids 0x80.5",
		"Rwalk tag 5 qids 0x80.5.17.3",
		"Rwalk tag 5 qids 0x180.5.17",
		"Tsession tag 5 key 0102",
		"Tsession tag 5 key zz02030405060708",
		`Tsession tag 5 node "n" group "g" key 0102030405060708`,
		"Rresume tag 5 states 256",
		"Topen tag 5 fid 7 mode 256",
	} {
		if m, err := wire.Parse(line); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q is read as %v, %v", line, m, err)
		}
	}
}

// TestParseTakes has spellings that Format does not write.
func TestParseTakes(t *testing.T) {
	for line, want := range map[string]string{
		"  Tread  tag 0x5 fid 0o7 offset 0b0\tcount 100 ":                 "Tread tag 5 fid 7 offset 0 count 100",
		"Tflush tag 65535 oldtag ~0":                                      "Tflush tag ~0 oldtag ~0",
		"Rread tag 1 data `a\"b`":                                         `Rread tag 1 data "a\"b"`,
		`Rerror tag 1 ename "x" errno 0`:                                  `Rerror tag 1 ename "x"`,
		`Tauth tag 1 afid 2 uname "" aname "" n_uname 4294967295`:         `Tauth tag 1 afid 2 uname "" aname ""`,
		`Tcreate tag 1 fid 2 name "a  b" perm 0x180 mode 0`:               `Tcreate tag 1 fid 2 name "a  b" perm 0600 mode 0x0`,
		"Rwalk tag 1 qids":                                                "Rwalk tag 1 qids",
		`Tsession tag ~0 node "" group "" key 01020304`:                   `Tsession tag ~0 node "" group "" key 01020304`,
		"Rattach tag 1 qid ~0.~0.0x10":                                    "Rattach tag 1 qid ~0.~0.16",
		`Twrite tag 1 fid 2 offset ~0 data "\x00\n\u20ac\ufffd` + `\xff"`: `Twrite tag 1 fid 2 offset ~0 data "\x00\n€` + "\ufffd" + `\xff"`,
	} {
		m, err := wire.Parse(line)
		if err != nil || m.String() != want {
			t.Errorf("%s is read as %v, %v, want %s", line, m, err, want)
		}
	}
}

func TestFormatShowsWhatTheDialectHas(t *testing.T) {
	m := &wire.Msg{Type: wire.Rerror, Ename: "x"}
	if got := m.Format(wire.U); got != `Rerror tag 0 ename "x" errno 0` {
		t.Error(got)
	}
	m.Errno = 5
	if got := m.Format(wire.Plain); got != `Rerror tag 0 ename "x" errno 5` {
		t.Error(got)
	}
	if got := (&wire.Msg{Type: 200, Tag: 3}).String(); got != "type200 tag 3" {
		t.Error(got)
	}
}

func TestMask(t *testing.T) {
	secret := func(fid uint32) bool { return fid == 66 }
	for line, want := range map[string]string{
		`Tsession tag ~0 key 0102030405060708`:                     `Tsession tag ~0 key ***8`,
		`Tsession tag ~0 node "n" group "g" key 01020304`:          `Tsession tag ~0 node "n" group "g" key ***4`,
		`Twrite tag 1 fid 66 offset 0 data "hunter2"`:              `Twrite tag 1 fid 66 offset 0 data ***7`,
		`Twrite tag 1 fid 67 offset 0 data "hunter2"`:              `Twrite tag 1 fid 67 offset 0 data "hunter2"`,
		`Twrite tag 1 fid 67 offset 0 data "MUMBLE:AAHo9hM9AkDL:"`: `Twrite tag 1 fid 67 offset 0 data ***20`,
		`Tswrite tag 1 fid 1 names "internal" "root_pw" data "pw"`: `Tswrite tag 1 fid 1 names "internal" "root_pw" data ***2`,
		`Tswrite tag 1 fid 1 names "root_pw" "x" data "pw"`:        `Tswrite tag 1 fid 1 names "root_pw" "x" data "pw"`,
		`Tswrite tag 1 fid 66 names data "pw"`:                     `Tswrite tag 1 fid 66 names data ***2`,
		`Tsread tag 1 fid 66 names "root_pw"`:                      `Tsread tag 1 fid 66 names "root_pw"`,
		`Rread tag 1 data "hunter2"`:                               `Rread tag 1 data "hunter2"`,
	} {
		m, err := wire.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := wire.Mask(m, secret); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestMaskReply gives replies what their requests named.
func TestMaskReply(t *testing.T) {
	for _, m := range []*wire.Msg{
		{Type: wire.Rread, Fid: 66, Data: []byte("hunter2")},
		{Type: wire.Rsread, Names: []string{"internal", "root_pw"}, Data: []byte("hunter2")},
	} {
		got := wire.Mask(m, func(fid uint32) bool { return fid == 66 })
		if strings.Contains(got, "hunter2") || !strings.HasSuffix(got, "data ***7") {
			t.Error(got)
		}
	}
}
