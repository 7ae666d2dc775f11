package hostile

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"meta9/session/wire"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// TestForgedAuthor: what a guest calls itself never stands where the principal
// does: in the muid of what it writes and in "by" of the events of it, in any
// dialect that has a user's name, for the admin and for the guest itself.
func TestForgedAuthor(t *testing.T) {
	g := newTarget(t, "")
	self := "vm:" + testenv.UUID(attacker)
	admin := g.Conn("")
	events := g.events(admin, 1)
	for _, version := range []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L"} {
		for _, uname := range []string{"admin", "vm:" + testenv.UUID(innocent), "qmp", "mirror", "", "admin\x00", `","by":"admin`} {
			c := g.dial(attacker)
			g.attachAs(c, version, uname)
			g.writeKey(c, version)
			c.Close()

			if got := g.muid(admin, "vms", testenv.UUID(attacker), "keys", "key"); got != self {
				t.Errorf("%s: uname %q: muid %q, want %q", version, uname, got, self)
			}
			e := events.next("key-set")
			as, named := e["as"]
			if e["by"] != self || named != (uname != "") || named && as != uname {
				t.Errorf("%s: uname %q: event %v", version, uname, e)
			}
		}
	}
	guest := g.attached(attacker)
	if err := admin.Swrite(0, []byte("v"), "vms", testenv.UUID(attacker), "keys", "key"); err != nil {
		t.Fatal(err)
	}
	if got := g.muid(guest, "keys", "key"); got != "admin" {
		t.Errorf("the guest sees the admin's write as by %q", got)
	}
	if e := events.next("key-set"); e["by"] != "admin" {
		t.Errorf("the admin's write: %v", e)
	}
	guest.Close()
	admin.Close()
	g.survived()
}

// attachAs greets and attaches fid 0 under a user's name.
func (g *target) attachAs(c *raw.Conn, version, uname string) {
	g.t.Helper()
	if _, got, err := c.Version(64<<10, version); err != nil || got != version {
		g.t.Fatalf("%s: answered %q, %v", version, got, err)
	}
	fields := []any{uint32(0), raw.NoFid, uname, ""}
	if version == "9P2000.u" || strings.HasPrefix(version, "9P2000.L") {
		fields = append(fields, uint32(0))
	}
	g.rpc(c, wire.Tattach, fields...)
}

func (g *target) rpc(c *raw.Conn, typ wire.Type, fields ...any) raw.Reply {
	g.t.Helper()
	r, err := c.RPC(typ, 1, fields...)
	if err != nil {
		g.t.Fatalf("message %d %v: %v", typ, fields, err)
	}
	return r
}

// writeKey writes keys/key, as a client of the dialect does.
func (g *target) writeKey(c *raw.Conn, version string) {
	g.t.Helper()
	if err := c.Walk(0, 1, "keys", "key"); err != nil {
		g.t.Fatal(err)
	}
	if version == "9P2000.L" {
		g.rpc(c, wire.Tlopen, uint32(1), uint32(1))
	} else if err := c.Open(1, wire.OWrite); err != nil {
		g.t.Fatal(err)
	}
	if err := c.Write(1, 0, []byte(version)); err != nil {
		g.t.Fatal(err)
	}
}

// muid is who wrote the file last, in Rstat of 9P2000.
func (g *target) muid(c *raw.Conn, path ...string) string {
	g.t.Helper()
	const fid = 99
	if err := c.Walk(0, fid, path...); err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = c.Clunk(fid) }()
	r := g.rpc(c, wire.Tstat, uint32(fid))
	const texts = 2 + 2 + 2 + 4 + 13 + 4 + 4 + 4 + 8 // stat(5): what stands before name[s]
	rest := r.Body[texts:]
	var text string
	for range 4 { // name, uid, gid, muid
		n := int(rest[0]) | int(rest[1])<<8
		text, rest = string(rest[2:2+n]), rest[2+n:]
	}
	return text
}

// eventReader reads an events file, one event at a time.
type eventReader struct {
	g      *target
	c      *raw.Conn
	fid    uint32
	offset uint64
	rest   []byte
}

// events opens the events file of the connection's root.
func (g *target) events(c *raw.Conn, fid uint32) *eventReader {
	g.t.Helper()
	if err := c.Walk(0, fid, "events"); err != nil {
		g.t.Fatal(err)
	}
	if err := c.Open(fid, wire.ORead); err != nil {
		g.t.Fatal(err)
	}
	return &eventReader{g: g, c: c, fid: fid}
}

// next is the next event of the type.
func (l *eventReader) next(typ string) map[string]any {
	l.g.t.Helper()
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			b, err := l.c.Read(l.fid, l.offset, 8192)
			if err != nil {
				l.g.t.Fatal(err)
			}
			l.offset += uint64(len(b))
			l.rest = append(l.rest, b...)
			continue
		}
		l.rest = rest
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			l.g.t.Fatalf("event %q: %v", line, err)
		}
		if e["type"] == typ {
			return e
		}
	}
}
