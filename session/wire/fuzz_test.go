package wire_test

import (
	"testing"

	"meta9/session/wire"
)

// FuzzDecode gives any bytes to Decode. What it accepts must be written and read
// again to the same message, in binary and as text, and stay within its limits.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex), uint8(g.d))
	}
	for _, c := range malformed {
		f.Add(unhex(f, c.hex), uint8(c.d))
	}
	f.Fuzz(func(t *testing.T, frame []byte, dialect uint8) {
		d := wire.Dialect(dialect % 8)
		var m, again wire.Msg
		if err := wire.Decode(&m, frame, d); err != nil || len(frame) > wire.MaxMsize {
			return
		}
		if n, ok := wire.MinSize(m.Type, d); !ok || len(frame) < int(n) {
			t.Fatalf("%d bytes of a %v decoded in %v", len(frame), m.Type, d)
		}
		out, err := wire.Append(nil, &m, d)
		if err != nil {
			t.Fatal(err)
		}
		if most := wire.MaxSize(m.Type, d, wire.MaxMsize); len(out) > int(most) {
			t.Fatalf("%d bytes of a %v, MaxSize is %d", len(out), m.Type, most)
		}
		if err := wire.Decode(&again, out, d); err != nil {
			t.Fatal(err)
		}
		if diff := diff(&m, &again); diff != "" {
			t.Fatal(diff)
		}
		parsed, err := wire.Parse(m.Format(d))
		if err != nil {
			t.Fatal(err)
		}
		if diff := diff(&m, parsed); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzParse gives any line to Parse. What it accepts must be written and read
// again to the same message.
func FuzzParse(f *testing.F) {
	for _, g := range golden {
		f.Add(g.line)
	}
	f.Add(hotStat)
	f.Add("Rread tag 1 data `a")
	f.Add("Rwalk tag 1 qids ~0.0x.1 \"")
	f.Fuzz(func(t *testing.T, line string) {
		m, err := wire.Parse(line)
		if err != nil {
			return
		}
		again, err := wire.Parse(m.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := diff(m, again); diff != "" {
			t.Fatal(diff)
		}
		wire.Mask(m, func(uint32) bool { return true })
	})
}

// FuzzDecodeDir gives any bytes to DecodeDir. A record that it accepts must be
// written again to the bytes that it was read from.
func FuzzDecodeDir(f *testing.F) {
	dir := mustParse(f, hotStat).Dir
	for _, d := range []wire.Dialect{wire.Plain, wire.U} {
		one := wire.AppendDir(nil, &dir, d)
		f.Add(one, d == wire.U)
		f.Add(append(one, one...), d == wire.U)
		f.Add(one[:len(one)-1], d == wire.U)
	}
	f.Add([]byte{1}, false)
	f.Add([]byte{0xff, 0xff, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, unix bool) {
		d := wire.Plain
		if unix {
			d = wire.U
		}
		dir, rest, err := wire.DecodeDir(b, d)
		if err != nil {
			return
		}
		record := b[:len(b)-len(rest)]
		if len(record) > wire.MaxDir {
			return
		}
		if n := wire.DirSize(&dir, d); n != len(record) {
			t.Fatalf("DirSize %d of a record of %d", n, len(record))
		}
		if again := wire.AppendDir(nil, &dir, d); string(again) != string(record) {
			t.Fatalf("%x written as %x", record, again)
		}
	})
}
