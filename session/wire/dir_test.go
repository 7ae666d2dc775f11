package wire_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hugelgupf/p9/p9"
	"pgregory.net/rapid"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// TestFolder reads back what a folder's Rread would carry: records end to end.
func TestFolder(t *testing.T) {
	for _, d := range []wire.Dialect{wire.Plain, wire.U, wire.E} {
		rapid.Check(t, func(t *rapid.T) {
			g := gen{t, d}
			var dirs []wire.Dir
			var b []byte
			g.list(8, func() {
				dir := g.dir()
				dirs = append(dirs, dir)
				before := len(b)
				b = wire.AppendDir(b, &dir, d)
				if len(b)-before != wire.DirSize(&dir, d) {
					t.Fatalf("a record of %d, DirSize %d", len(b)-before, wire.DirSize(&dir, d))
				}
			})
			for i, want := range dirs {
				got, rest, err := wire.DecodeDir(b, d)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("record %d: %s", i, diff)
				}
				b = rest
			}
			if len(b) != 0 {
				t.Fatalf("%d bytes are left", len(b))
			}
		})
	}
}

func TestDecodeDirRefuses(t *testing.T) {
	dir := mustParse(t, hotStat).Dir
	good := wire.AppendDir(nil, &dir, wire.Plain)
	shorter, longer := append([]byte{}, good...), append([]byte{}, good...)
	shorter[0]--
	longer[0]++
	for name, b := range map[string][]byte{
		"nothing":              nil,
		"a byte":               {5},
		"cut":                  good[:len(good)-1],
		"size too small":       shorter,
		"size past the end":    longer,
		"size not that of its": append(longer, 0),
		"a record of 9P2000.u": wire.AppendDir(nil, &dir, wire.U),
	} {
		if got, rest, err := wire.DecodeDir(b, wire.Plain); !errors.Is(err, errs.Protocol) || rest != nil || got != (wire.Dir{}) {
			t.Errorf("%s: %+v, %d bytes left, %v", name, got, len(rest), err)
		}
	}
}

// TestDirTooLong appends nothing of what no Rstat could carry.
func TestDirTooLong(t *testing.T) {
	dir := wire.Dir{Muid: strings.Repeat("x", wire.MaxDir)}
	if b := wire.AppendDir([]byte("before"), &dir, wire.Plain); string(b) != "before" {
		t.Errorf("%d bytes appended", len(b)-len("before"))
	}
	dir.Muid = dir.Muid[:wire.MaxDir-49]
	if b := wire.AppendDir(nil, &dir, wire.Plain); len(b) != wire.MaxDir {
		t.Errorf("%d bytes appended, want %d", len(b), wire.MaxDir)
	}
}

// TestDirent: an entry of a folder is read as it was written, and nothing past its end.
func TestDirent(t *testing.T) {
	want := p9.Dirent{QID: p9.QID{Type: p9.TypeDir, Version: 2, Path: 3}, Offset: 4, Type: 5, Name: "näme"}
	b := wire.AppendDirent(nil, &want)
	got, rest, err := wire.DecodeDirent(append(b, "rest"...))
	if err != nil || got != want || string(rest) != "rest" || len(b) != wire.DirentSize(&want) {
		t.Errorf("%+v, %q, %v", got, rest, err)
	}
	for n := range len(b) {
		if _, _, err := wire.DecodeDirent(b[:n]); err == nil {
			t.Errorf("%d bytes of %d are an entry", n, len(b))
		}
	}
}
