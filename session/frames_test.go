package session_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"meta9/session/wire"
)

// conversation are frames and how many replies they get, all of them in order.
func conversation(t testing.TB, size int) (frames []byte, replies int) {
	value := bytes.Repeat([]byte("v"), size)
	for _, m := range []*wire.Msg{
		{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.e"},
		{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid},
		{Type: wire.Twalk, Tag: 2, Newfid: 1, Names: []string{"keys"}},
		{Type: wire.Tcreate, Tag: 3, Fid: 1, Name: "k", Perm: 0o600, Mode: wire.ORdWr},
		{Type: wire.Twrite, Tag: 4, Fid: 1, Data: value},
		{Type: wire.Tclunk, Tag: 5, Fid: 1},
	} {
		d := wire.E
		if m.Type == wire.Tversion {
			d = wire.None
		}
		var err error
		if frames, err = wire.Append(frames, m, d); err != nil {
			t.Fatal(err)
		}
		replies++
	}
	return frames, replies
}

// TestSplitFrames: it is all the same how the bytes of the frames arrive.
func TestSplitFrames(t *testing.T) {
	for transport := range transports {
		for name, c := range map[string]struct {
			value int
			piece func() int
		}{
			"one by one": {100, func() int { return 1 }},
			"at once":    {1 << 20, func() int { return 4 << 20 }},
			"4096":       {1 << 20, func() int { return 4096 }},
			"65536":      {1 << 20, func() int { return 65536 }},
			"random":     {300 << 10, func() int { return 1 + rand.IntN(100<<10) }},
			"small":      {9000, func() int { return 1 + rand.IntN(100) }},
		} {
			t.Run(transport+"/"+name, func(t *testing.T) {
				w := newWorld(t, nil)
				a := w.dial(transport, peers["vm"])
				frames, replies := conversation(t, c.value)
				for len(frames) > 0 {
					n := min(len(frames), c.piece())
					a.write(frames[:n])
					frames = frames[n:]
				}
				for range replies {
					if m := a.receive(); m == nil || m.Type == wire.Rerror {
						t.Fatal(m)
					}
				}
				if got := len(w.value("k")); got != c.value {
					t.Errorf("%d bytes were written, %d came", c.value, got)
				}
				if m := a.do(&wire.Msg{Type: wire.Tsread, Names: []string{"keys", "k"}}, wire.Rsread); len(m.Data) != c.value {
					t.Errorf("%d bytes were read", len(m.Data))
				}
			})
		}
	}
}

// TestLongFrames: what a frame has beyond its fields is skipped, however long it
// is, and costs no memory.
func TestLongFrames(t *testing.T) {
	w := newWorld(t, nil)
	a := w.dial("unix", peers["vm"])
	a.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.e"}, wire.Rversion)
	a.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid}, wire.Rattach)
	for i, typ := range []wire.Type{wire.Tclunk, 254, wire.Tstat} {
		frame := make([]byte, wire.MaxMsize)
		copy(frame, []byte{0, 0, 0x11, 0, byte(typ), byte(i), 0, 9})
		a.write(frame)
		if m := a.receive(); m == nil || m.Type != wire.Rerror || m.Tag != uint16(i) {
			t.Fatal(m)
		}
	}
	a.do(&wire.Msg{Type: wire.Tclunk, Tag: 7}, wire.Rclunk)
}
