package hostile

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// The limits of docs/tree.md, each gone past.

// TestFids: 4,096 fids a connection, and an error for more; the connection
// lives and the fids can be given back.
func TestFids(t *testing.T) {
	g := newTarget(t, "")
	c := g.attached(attacker)
	granted := 0
	for fid := uint32(1); fid <= 5000; fid++ {
		err := c.Walk(0, fid)
		var refused *raw.Error
		switch {
		case err == nil:
			granted++
		case !errors.As(err, &refused) || !strings.HasPrefix(refused.Text, "Too many open files"):
			t.Fatalf("fid %d: %v", fid, err)
		}
	}
	if granted != 4095 { // and fid 0
		t.Errorf("%d fids beside the first, want 4095", granted)
	}
	if err := c.Clunk(1); err != nil {
		t.Error(err)
	}
	if err := c.Walk(0, 5000); err != nil {
		t.Errorf("after one was given back: %v", err)
	}
	if err := c.Walk(0, 2); err == nil {
		t.Error("a fid in use was taken")
	}
	c.Close()
	g.survived()
}

// TestWaiting: 256 requests may wait; the next gets an error, and all end when
// they are flushed.
func TestWaiting(t *testing.T) {
	g := newTarget(t, "")
	c := g.attached(attacker)
	if err := c.Walk(0, 1, "events"); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(1, wire.ORead); err != nil {
		t.Fatal(err)
	}
	const limit = 256
	var out []byte
	for tag := range uint16(limit + 1) {
		out = raw.Append(out, wire.Tread, tag+1, uint32(1), uint64(0), uint32(8192))
	}
	if err := c.Send(out); err != nil {
		t.Fatal(err)
	}
	r, err := c.Recv()
	if err != nil || r.Err() == nil {
		t.Fatalf("request %d that waits: %v tag %d, %v", limit+1, r.Type, r.Tag, err)
	}
	refused := r.Tag
	for tag := range uint16(limit + 1) {
		if tag+1 == refused {
			continue
		}
		r, err := c.RPC(wire.Tflush, 0x4000, tag+1)
		if err != nil {
			t.Fatalf("Tflush of %d: %v (%v)", tag+1, err, r.Type)
		}
	}
	if b, err := c.Sread(0, "keys", "key"); err != nil || string(b) != value {
		t.Errorf("afterwards: %q, %v", b, err)
	}
	c.Close()
	g.survived()
}

// TestTagInUse: a tag that is still in use closes the connection, since an
// error would be a second reply to it.
func TestTagInUse(t *testing.T) {
	g := newTarget(t, "")
	c := g.attached(attacker)
	if err := c.Walk(0, 1, "events"); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(1, wire.ORead); err != nil {
		t.Fatal(err)
	}
	read := raw.Frame(wire.Tread, 3, uint32(1), uint64(0), uint32(8192))
	if err := c.Send(append(read, read...)); err != nil {
		t.Fatal(err)
	}
	g.wantClosed("a tag in use", c)
	c.Close()
	g.survived()
}

// TestSlowReader: a client asks for 900 MB and reads nothing. The server stops taking its
// requests, so that the memory that it holds for the replies is bounded, and serves others. When the
// client reads, its replies come.
func TestSlowReader(t *testing.T) {
	g := newTarget(t, "")
	c := g.attached(attacker)
	big := make([]byte, 900<<10)
	if err := c.Swrite(0, big, "keys", "big"); err != nil {
		t.Fatal(err)
	}
	const asked = 1000 // 900 MB of replies
	frame := raw.Frame(wire.Tsread, 1, uint32(0), []string{"keys", "big"})
	sent := 0
	c.Net.SetWriteDeadline(time.Now().Add(2 * time.Second))
	for range asked {
		if _, err := c.Net.Write(frame); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		sent++
	}
	g.serves()
	rss, err := g.RSS()
	if err != nil || rss > g.rss+rssGrowth() {
		t.Errorf("with %d replies unread: RSS was %d MiB and is %d MiB, %v", sent, g.rss>>20, rss>>20, err)
	}
	for i := range min(sent, 20) { // it is only slow: what it asked for comes
		r, err := c.Recv()
		if err != nil || len(r.Data()) != len(big) {
			t.Fatalf("reply %d: %v of %d bytes, %v", i, r.Type, len(r.Data()), err)
		}
	}
	c.Close()
	g.survived()
}

// TestConnections: a VM has 64 connections, and one more is turned away; the
// bystander has its own. The admin's socket takes thousands.
func TestConnections(t *testing.T) {
	g := newTarget(t, "")
	var conns []*raw.Conn
	for range 64 {
		conns = append(conns, g.attached(attacker))
	}
	for range 200 {
		c := g.dial(attacker)
		if _, _, err := c.Version(8192, "9P2000"); err == nil {
			t.Fatal("connection 65 of a VM was served")
		}
		c.Close()
	}
	g.serves()
	for _, c := range conns {
		c.Close()
	}
	g.attached(attacker).Close() // the VM is served again

	var admins []net.Conn
	for range 3000 {
		c, err := net.Dial("unix", g.Admin())
		if err != nil {
			t.Fatal(err)
		}
		admins = append(admins, c)
	}
	g.serves()
	for _, c := range admins {
		c.Close()
	}
	g.survived()
}

// TestChurn opens, blocks and drops connections in masses: no thread, fid or
// descriptor stays behind.
func TestChurn(t *testing.T) {
	g := newTarget(t, "")
	threads, err := g.Threads()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		c := g.attached(attacker)
		if err := c.Walk(0, 1, "events"); err != nil {
			t.Fatal(err)
		}
		if err := c.Open(1, wire.ORead); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(raw.Frame(wire.Tread, 1, uint32(1), uint64(0), uint32(8192))); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := c.Send(raw.Frame(wire.Tswrite, 2, uint32(0), []string{"keys", "churn"}, raw.Data("x"))); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	g.survived()
	if now, err := g.Threads(); err != nil || now > threads+16 {
		t.Errorf("%d threads, were %d, %v", now, threads, err)
	}
}
