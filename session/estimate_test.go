package session_test

import (
	"runtime"
	"strings"
	"syscall"
	"testing"

	"meta9/session/wire"
)

// TestEstimate: what parked sessions are thought to take is true within a fifth,
// whatever their fids are.
func TestEstimate(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of fids")
	}
	notUnderRace(t)
	long, other := strings.Repeat("n", 255), strings.Repeat("o", 255)
	walk := func(fid uint32, names ...string) []step {
		return []step{{9 + 13*len(names), &wire.Msg{Type: wire.Twalk, Newfid: fid, Names: names}}}
	}
	open := func(fid uint32, mode uint8, names ...string) []step {
		return append(walk(fid, names...), step{24, &wire.Msg{Type: wire.Topen, Fid: fid, Mode: mode}})
	}
	read := func(fid uint32, size int, names ...string) []step {
		return append(open(fid, wire.ORead, names...), step{wire.ReadLen + size, &wire.Msg{Type: wire.Tread, Fid: fid, Count: uint32(size)}})
	}
	for _, tt := range []struct {
		name     string
		sessions int
		fids     int
		each     func(fid uint32) []step
	}{
		{"attached", 1500, 0, nil},
		{"one walked", 1500, 1, func(fid uint32) []step { return walk(fid, "keys") }},
		{"clones", 5, 2000, func(fid uint32) []step { return walk(fid) }},
		{"keys walked", 5, 2000, func(fid uint32) []step { return walk(fid, "keys", "color") }},
		{"long names walked", 5, 2000, func(fid uint32) []step { return walk(fid, "keys", long) }},
		{"two long names in turn", 5, 2000, func(fid uint32) []step { return walk(fid, "keys", []string{long, other}[fid%2]) }},
		{"keys read", 5, 2000, func(fid uint32) []step { return read(fid, 4, "keys", "color") }},
		{"keys open for writing", 5, 2000, func(fid uint32) []step { return open(fid, wire.OWrite, "keys", "color") }},
		{"vm.json read", 5, 1000, func(fid uint32) []step { return read(fid, 100, "vm.json") }},
		{"folders listed", 5, 1000, func(fid uint32) []step { return open(fid, wire.ORead, "keys") }},
		{"ctl read", 5, 1000, func(fid uint32) []step { return read(fid, 4, "ctl") }},
		{"ctl half a line", 5, 1000, func(fid uint32) []step {
			return append(open(fid, wire.OWrite, "ctl"), step{11, &wire.Msg{Type: wire.Twrite, Fid: fid, Data: []byte(strings.Repeat("x", 3000))}})
		}},
		{"events", 50, 200, func(fid uint32) []step { return open(fid, wire.ORead, "events") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.put("color", "blue")
			w.put(long, "blue")
			w.put(other, "blue")
			before := live()
			for i := range tt.sessions {
				c := w.rawDial(peers["admin"])
				c.ask(21+23, version(), &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(i)})
				c.ask(20, attach(0))
				for fid := range uint32(tt.fids) {
					for _, s := range tt.each(1 + fid) {
						c.ask(s.size, s.msg)
					}
				}
				syscall.Close(c.fd)
			}
			w.until("parked", func() bool { return w.server.Stats().Parked == tt.sessions && w.server.Stats().Conns == 0 })
			took, thought, n := live()-before, w.server.Stats().ParkedBytes, int64(tt.sessions)
			t.Logf("%d bytes each, %d thought (%.2f)", took/n, thought/n, float64(thought)/float64(took))
			if thought < took*4/5 || thought > took*6/5 {
				t.Errorf("%d bytes each, %d thought", took/n, thought/n)
			}
		})
	}
}

// live is what the objects in the heap take, after a collection: not the holes that
// others have left between them, which are filled in time.
func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// step is a message and the size of its reply.
type step struct {
	size int
	msg  *wire.Msg
}
