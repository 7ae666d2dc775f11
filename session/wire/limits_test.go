package wire_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// smallest is the smallest frame of a type: all zero, nothing optional.
func smallest(t *testing.T, typ wire.Type, d wire.Dialect) []byte {
	b := mustAppend(t, &wire.Msg{Type: typ}, d)
	switch typ {
	case wire.Twstat: // without n[2], as docker/go-p9p sends it
		b = append(b[:11], b[13:]...)
	case wire.Tfsync: // without datasync[4], as hugelgupf/p9 sends it
		b = b[:11]
	}
	return b
}

func TestMinSize(t *testing.T) {
	for _, d := range dialects {
		eachType(d, func(typ wire.Type) {
			frame := smallest(t, typ, d)
			if n, _ := wire.MinSize(typ, d); int(n) != len(frame) {
				t.Errorf("%v %v: MinSize %d, the smallest frame has %d", d, typ, n, len(frame))
			}
			var m wire.Msg
			if err := wire.Decode(&m, frame, d); err != nil {
				t.Errorf("%v %v: %v", d, typ, err)
			}
			err := wire.Decode(&m, frame[:len(frame)-1], d)
			if !errors.Is(err, errs.Protocol) {
				t.Errorf("%v %v, a byte short: %v", d, typ, err)
			}
		})
	}
}

// largest has every string and every list of a message at its limit.
func largest(typ wire.Type, d wire.Dialect) *wire.Msg {
	s := strings.Repeat("x", math.MaxUint16)
	m := &wire.Msg{
		Type: typ, Version: s, Uname: s, Aname: s, Name: s, Ext: s, Ename: s, Draft: true, Node: s, Group: s,
		QIDs: make([]p9.QID, wire.MaxWalk), Numbers: make([]uint64, wire.MaxNumbers), States: make([]uint8, wire.MaxNumbers),
		L: wire.MsgL{ClientID: s},
	}
	for range wire.MaxWalk {
		m.Names = append(m.Names, s)
	}
	m.Dir.Name = s[:wire.MaxDir-wire.DirSize(&m.Dir, d)]
	return m
}

func TestMaxSize(t *testing.T) {
	for _, d := range dialects {
		eachType(d, func(typ wire.Type) {
			got := wire.MaxSize(typ, d, wire.MaxMsize)
			switch typ {
			case wire.Rread, wire.Twrite, wire.Rreaddir, wire.Rsread, wire.Tswrite:
				if got != wire.MaxMsize {
					t.Errorf("%v %v: MaxSize %d, data is bounded by msize alone", d, typ, got)
				}
				return
			}
			if want := len(mustAppend(t, largest(typ, d), d)); int(got) != want {
				t.Errorf("%v %v: MaxSize %d, the largest frame has %d", d, typ, got, want)
			}
			if got := wire.MaxSize(typ, d, 8); got > 8 {
				t.Errorf("%v %v: MaxSize %d for an msize of 8", d, typ, got)
			}
		})
	}
}

// TestWhoHasWhat says of a sample of each group of messages which dialects have
// it; the others know it neither in a table nor in a frame.
func TestWhoHasWhat(t *testing.T) {
	type in []wire.Dialect
	all := in(dialects)
	negotiated := in{wire.Plain, wire.U, wire.L, wire.E, wire.LE, wire.EN, wire.LE2, wire.EN2}
	plain := in{wire.Plain, wire.U, wire.E, wire.EN, wire.EN2}
	linux := in{wire.L, wire.LE, wire.LE2}
	macros := in{wire.E, wire.LE, wire.EN, wire.LE2, wire.EN2}
	for _, c := range []struct {
		in    in
		types []wire.Type
	}{
		{all, []wire.Type{wire.Tversion, wire.Rversion}},
		{negotiated, []wire.Type{wire.Tattach, wire.Tauth, wire.Twalk, wire.Tread, wire.Rread, wire.Twrite, wire.Tclunk, wire.Tremove, wire.Tflush}},
		{plain, []wire.Type{wire.Topen, wire.Tcreate, wire.Tstat, wire.Rstat, wire.Twstat}},
		{append(in{wire.None, wire.Unknown}, plain...), []wire.Type{wire.Rerror}},
		{append(in{wire.None, wire.Unknown}, linux...), []wire.Type{wire.Rlerror}},
		{linux, []wire.Type{wire.Tlopen, wire.Tgetattr, wire.Rgetattr, wire.Treaddir, wire.Tunlinkat}},
		{macros, []wire.Type{wire.Tsession, wire.Rsession, wire.Tsread, wire.Rsread, wire.Tswrite, wire.Rswrite}},
		{in{wire.LE, wire.EN, wire.LE2, wire.EN2}, []wire.Type{wire.Tresume, wire.Rresume}},
		{nil, []wire.Type{0, 6, 106, 128, 149, 158, 255}},
	} {
		for _, typ := range c.types {
			for _, d := range append(all[:len(all):len(all)], wire.Unknown+1, 255) {
				checkHas(t, typ, d, slices.Contains(c.in, d))
			}
		}
	}
}

func checkHas(t *testing.T, typ wire.Type, d wire.Dialect, want bool) {
	t.Helper()
	if _, has := wire.MinSize(typ, d); has != want {
		t.Errorf("%v has %v: %v, want %v", d, typ, has, want)
	}
	if want {
		return
	}
	if got := wire.MaxSize(typ, d, wire.MaxMsize); got != wire.HeaderLen {
		t.Errorf("%v in %v: MaxSize %d", typ, d, got)
	}
	frame := []byte{200, 0, 0, 0, byte(typ), 0x34, 0x12, 199: 0}
	var m wire.Msg
	if err := wire.Decode(&m, frame, d); !errors.Is(err, errs.Unsupported) || m.Type != typ || m.Tag != 0x1234 {
		t.Errorf("%v in %v: decoded as %v, %v", typ, d, &m, err)
	}
	if b, err := wire.Append([]byte("x"), &wire.Msg{Type: typ}, d); !errors.Is(err, errs.Invalid) || string(b) != "x" {
		t.Errorf("%v in %v: encoded as %x, %v", typ, d, b, err)
	}
}
