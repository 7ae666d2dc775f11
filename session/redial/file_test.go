package redial

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// script answers each request with the next answer, and notes what it was asked.
type script struct {
	answers []any // *wire.Msg, or an error
	asked   []string
}

func (s *script) ask(m *wire.Msg) (*wire.Msg, error) {
	text := fmt.Sprint(m.Type, " ", m.Fid)
	if m.Type == wire.Twalk {
		text += fmt.Sprint("-", m.Newfid, " ", strings.Join(m.Names, "/"))
	} else {
		text += fmt.Sprintf(" %#x", uint32(m.Mode)|m.L.Flags)
	}
	s.asked = append(s.asked, text)
	if len(s.answers) == 0 {
		return nil, io.EOF
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	if err, ok := answer.(error); ok {
		return nil, err
	}
	return answer.(*wire.Msg), nil
}

func walked(paths ...uint64) *wire.Msg {
	m := &wire.Msg{Type: wire.Rwalk}
	for _, p := range paths {
		m.QIDs = append(m.QIDs, p9.QID{Path: p, Version: 1})
	}
	return m
}

func openedAs(path uint64) *wire.Msg { return &wire.Msg{Type: wire.Ropen, QID: p9.QID{Path: path}} }

func refusedAs(kind errs.Kind) error { return &Refusal{Text: kind.Text(), Kind: kind} }

// TestRestore: when a file is restored, what is asked for it, and what is there when it
// is not.
func TestRestore(t *testing.T) {
	file := File{Path: []string{"keys", "a"}, QID: p9.QID{Path: 7, Version: 3}}
	open := file
	open.Open, open.Flags = true, 2
	linux := open
	linux.Linux, linux.Flags = true, 0o2001
	with := func(f File, change func(f *File)) File {
		change(&f)
		return f
	}
	const walk, there = "Twalk 9-5 keys/a", "; Topen 5 0x2"
	for _, tt := range []struct {
		name    string
		file    File
		d       wire.Dialect
		answers []any
		asked   string
		made    bool
		err     error
	}{
		{"a fid that is not open", file, wire.EN, []any{walked(1, 7)}, walk, true, nil},
		{"an open one", open, wire.EN, []any{walked(1, 7), openedAs(7)}, walk + there, true, nil},
		{"opened by Tlopen", linux, wire.LE, []any{walked(1, 7), openedAs(7)}, walk + "; Tlopen 5 0x401", true, nil},
		{"the attach itself", with(file, func(f *File) { f.Path, f.QID.Path = nil, 1 }), wire.EN, []any{walked()}, "Twalk 9-5 ", true, nil},
		{"another file", file, wire.EN, []any{walked(1, 8)}, walk, true, errs.Stale},
		{"another file, not opened", open, wire.EN, []any{walked(1, 8)}, walk, true, errs.Stale},
		{"another file when it is opened", open, wire.EN, []any{walked(1, 7), openedAs(8)}, walk + there, true, errs.Stale},
		{"gone", open, wire.EN, []any{refusedAs(errs.NotFound)}, walk, false, errs.Stale},
		{"its folder is there", open, wire.EN, []any{walked(1)}, walk, true, errs.Stale},
		{"gone when it is opened", open, wire.EN, []any{walked(1, 7), refusedAs(errs.NotFound)}, walk + there, true, errs.Stale},
		{"refused", open, wire.EN, []any{walked(1, 7), refusedAs(errs.Permission)}, walk + there, true, errs.Permission},
		{"busy", open, wire.EN, []any{refusedAs(errs.Busy)}, walk, false, errs.Busy},
		{"cut", open, wire.EN, []any{walked(1, 7)}, walk + there, true, io.EOF},
		{"too many qids", file, wire.EN, []any{walked(1, 2, 7)}, walk, true, errs.Protocol},
		{"a lock", with(open, func(f *File) { f.Locked = true }), wire.LE, nil, "", false, errs.Stale},
		{"a truncation", with(open, func(f *File) { f.Held = true }), wire.EN, nil, "", false, errs.Stale},
		{"a stream", with(open, func(f *File) { f.QID.Version = 0 }), wire.E, nil, "", false, errs.Stale},
		{"version 0 without sessions", with(open, func(f *File) { f.QID.Version = 0 }), wire.L, []any{walked(1, 7), openedAs(7)}, walk + there, true, nil},
		{"a folder of version 0", with(open, func(f *File) { f.QID.Version, f.QID.Type = 0, p9.TypeDir }), wire.EN, []any{walked(1, 7), openedAs(7)}, walk + there, true, nil},
		{"version 0, not open", with(file, func(f *File) { f.QID.Version = 0 }), wire.EN, []any{walked(1, 7)}, walk, true, nil},
	} {
		s := &script{answers: tt.answers}
		opened, made, err := tt.file.Restore(s.ask, tt.d, Root{9, p9.QID{Path: 1}}, 5)
		if !errors.Is(err, tt.err) || made != tt.made || (opened != nil) != (err == nil && tt.file.Open) && tt.err == nil {
			t.Errorf("%s: %v, made %v, opened %v; want %v", tt.name, err, made, opened, tt.err)
		}
		if got := strings.Join(s.asked, "; "); got != tt.asked {
			t.Errorf("%s: asked %q, want %q", tt.name, got, tt.asked)
		}
	}
}

// TestWalk: a path longer than a Twalk takes goes in steps, from the fid itself.
func TestWalk(t *testing.T) {
	names := strings.Split(strings.Repeat("d/", 20)+"e", "/")
	all := make([]uint64, wire.MaxWalk)
	rest := []uint64{1, 2, 3, 4, 5}
	s := &script{answers: []any{walked(all...), walked(rest...)}}
	qid, made, err := Walk(s.ask, Root{Fid: 9}, 5, names)
	if err != nil || !made || qid.Path != 5 {
		t.Errorf("%v, %v, %v", qid, made, err)
	}
	if len(s.asked) != 2 || s.asked[1] != "Twalk 5-5 d/d/d/d/e" {
		t.Errorf("asked %q", s.asked)
	}
	s = &script{answers: []any{walked(all...), walked(rest[1:]...)}}
	if qid, made, err := Walk(s.ask, Root{Fid: 9}, 5, names); !errors.Is(err, errs.NotFound) || !made || qid.Path != 5 {
		t.Errorf("%v, made %v, %v", qid, made, err)
	}
	s = &script{}
	if _, made, err := Walk(s.ask, Root{Fid: 9}, 5, names); !errors.Is(err, io.EOF) || made {
		t.Errorf("made %v, %v", made, err)
	}
}
