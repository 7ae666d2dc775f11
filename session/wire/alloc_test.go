package wire_test

import (
	"testing"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// hot are the messages that a busy connection is made of.
var hot = []struct {
	d    wire.Dialect
	line string
}{
	{wire.Plain, `Tread tag 5 fid 7 offset 0 count 8192`},
	{wire.Plain, `Rread tag 5 data "a value"`},
	{wire.Plain, `Twrite tag 5 fid 7 offset 3 data "a value"`},
	{wire.Plain, `Rwrite tag 5 count 7`},
	{wire.Plain, `Tstat tag 5 fid 7`},
	{wire.Plain, `Tclunk tag 5 fid 7`},
	{wire.Plain, `Rclunk tag 5`},
	{wire.Plain, `Topen tag 5 fid 7 mode 0x0`},
	{wire.Plain, `Ropen tag 5 qid 0x0.1.2 iounit 0`},
	{wire.Plain, `Rwalk tag 5 qids 0x80.1.2 0x0.3.4`},
	{wire.Plain, `Twalk tag 5 fid 1 newfid 2 names "keys" "name"`},
	{wire.E, `Tsread tag 5 fid 1 names "keys" "name"`},
	{wire.E, `Tswrite tag 5 fid 1 names "keys" "name" data "a value"`},
	{wire.E, `Rswrite tag 5 count 7`},
	{wire.L, `Tgetattr tag 5 fid 7 mask 0x7ff`},
	{wire.L, `Rgetattr tag 5 valid 0x7ff qid 0x80.1.2 mode 040755 uid 1 gid 2 nlink 3 rdev 4 size 5 blksize 6 blocks 7 atime 8 atime_nsec 9 mtime 10 mtime_nsec 11 ctime 12 ctime_nsec 13 btime 14 btime_nsec 15 gen 16 data_version 17`},
	{wire.L, `Treaddir tag 5 fid 7 offset 0 count 8192`},
}

const hotStat = `Rstat tag 5 type 0 dev 0 qid 0x0.1.2 mode 0600 atime 3 mtime 4 length 5 name "name" uid "0" gid "0" muid "nobody"`

func mustParse(tb testing.TB, line string) *wire.Msg {
	tb.Helper()
	m, err := wire.Parse(line)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func wantNoAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%s: %v allocations", what, n)
	}
}

// TestNoAllocations decodes into a message that had the like before, and encodes
// into a buffer that has room.
func TestNoAllocations(t *testing.T) {
	out := make([]byte, 0, 8192)
	for _, h := range hot {
		m := mustParse(t, h.line)
		frame := mustAppend(t, m, h.d)
		var got wire.Msg
		wantNoAllocs(t, "Decode "+h.line, func() { _ = wire.Decode(&got, frame, h.d) })
		wantNoAllocs(t, "Append "+h.line, func() { _, _ = wire.Append(out, m, h.d) })
	}
	stat := mustParse(t, hotStat)
	wantNoAllocs(t, "Append Rstat", func() { _, _ = wire.Append(out, stat, wire.Plain) })
	wantNoAllocs(t, "AppendDir", func() { wire.AppendDir(out, &stat.Dir, wire.Plain) })
	wantNoAllocs(t, "AppendError", func() { wire.AppendError(out, 5, errs.NotFound, wire.Plain) })
	wantNoAllocs(t, "AppendError with an unused detail", func() { wire.AppendError(out, 5, full, wire.Plain) })
	wantNoAllocs(t, "PutRead", func() { wire.PutRead(out[:wire.ReadLen], wire.Rread, 5, 100) })
}

var full = errs.New(errs.NoSpace, "a detail")

func TestPutRead(t *testing.T) {
	for _, typ := range []wire.Type{wire.Rread, wire.Rsread} {
		b := append(make([]byte, wire.ReadLen), "value"...)
		wire.PutRead(b, typ, 0x1234, 5)
		want := mustAppend(t, &wire.Msg{Type: typ, Tag: 0x1234, Data: []byte("value")}, wire.E)
		if string(b) != string(want) {
			t.Errorf("%x, want %x", b, want)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, h := range hot {
		m := mustParse(b, h.line)
		b.Run(m.Type.String(), func(b *testing.B) {
			frame := mustAppend(b, m, h.d)
			var got wire.Msg
			b.ReportAllocs()
			for b.Loop() {
				_ = wire.Decode(&got, frame, h.d)
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, h := range append(hot, struct {
		d    wire.Dialect
		line string
	}{wire.Plain, hotStat}) {
		m := mustParse(b, h.line)
		b.Run(m.Type.String(), func(b *testing.B) {
			out := make([]byte, 0, 8192)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = wire.Append(out, m, h.d)
			}
		})
	}
}

func BenchmarkAppendError(b *testing.B) {
	out := make([]byte, 0, 8192)
	b.ReportAllocs()
	for b.Loop() {
		wire.AppendError(out, 5, errs.NotFound, wire.Plain)
	}
}
