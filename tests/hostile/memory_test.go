package hostile

import (
	"strings"
	"testing"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// What a VM can make the server hold, at all of its connections together.

// bounded wants memory within its bound while the attacker still holds all it
// has.
func (g *target) bounded(what string) {
	g.t.Helper()
	g.serves()
	rss, err := g.RSS()
	g.t.Logf("%s: RSS was %d MiB and is %d MiB", what, g.rss>>20, rss>>20)
	if err != nil || rss > g.rss+rssGrowth() {
		g.t.Errorf("%s: RSS was %d MiB and is %d MiB, %v", what, g.rss>>20, rss>>20, err)
	}
}

// pour sends frames and takes as many replies, whatever they are.
func (g *target) pour(c *raw.Conn, frames []byte, replies int) {
	g.t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- c.Send(frames) }()
	for range replies {
		if _, err := c.Recv(); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		g.t.Fatal(err)
	}
}

// TestStreams has connections open events as often as they may, and read what all
// of it keeps.
func TestStreams(t *testing.T) {
	const conns, fids, writes = 24, 4000, 40
	g := newTarget(t, "")
	var all []*raw.Conn
	for range conns {
		c := g.attached(attacker)
		var out []byte
		for fid := uint32(1); fid <= fids; fid++ {
			out = raw.Append(out, wire.Twalk, 1, uint32(0), fid, []string{"events"})
			out = raw.Append(out, wire.Topen, 1, fid, uint8(0))
		}
		g.pour(c, out, 2*fids)
		all = append(all, c)
	}
	name := strings.Repeat("n", 250)
	for range writes { // 16 KiB of events
		if err := all[0].Swrite(0, []byte("x"), "keys", name); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range all {
		var out []byte
		for fid := uint32(1); fid <= fids; fid++ {
			out = raw.Append(out, wire.Tread, uint16(fid), fid, uint64(0), uint32(8192))
		}
		g.pour(c, out, fids)
	}
	g.bounded("with as many streams as may be")
	for _, c := range all {
		c.Close()
	}
	g.survived()
}
