package interop

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kennylevinsen/qp"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// The fids of a session under test.
const (
	fidRoot, fidColor, fidEvents qp.Fid = 1, 2, 3
)

// channel is how a client of one VM's comes to a meta9d: connect gives a
// connection after Tversion; begin makes it a new session with the key.
type channel struct {
	srv     *testenv.Server
	connect func(t *testing.T) *dote
	begin   func(d *dote)
	key     [8]byte
}

// channels are a VM's own socket, which proves the VM, and plain tcp, where
// MUMBLE does.
var channels = map[string]func(t *testing.T, config string) channel{
	"unix": func(t *testing.T, config string) channel {
		srv, uuid := startVM(t, daemon.Options{Config: config})
		ch := channel{srv: srv, key: [8]byte{9, 8, 7, 6, 5, 4, 3, 2}}
		ch.connect = func(t *testing.T) *dote { return dialDote(t, "unix", srv.VM(uuid)) }
		ch.begin = func(d *dote) { d.refused("an unknown key", "cannot recover", d.session(ch.key)) }
		return ch
	},
	"tcp with MUMBLE": func(t *testing.T, config string) channel {
		srv, uuid := startVM(t, daemon.Options{TCP: []string{""}, Config: mumbleConfig + config})
		ch := channel{srv: srv, key: [8]byte{7, 7, 7, 7, 1, 2, 3, 4}}
		ch.connect = func(t *testing.T) *dote { return dialDote(t, "tcp", srv.TCPAddrs[0]) }
		ch.begin = func(d *dote) {
			now := uint32(time.Now().Unix())
			d.must("authenticate", d.authenticate(raw.Mumble(mumbleSecret, ch.key, now, 0, uuid, "swarm1")))
		}
		return ch
	},
}

// start is a session with a half-written key and a read that waits for events.
func (ch channel) start(t *testing.T) *dote {
	t.Helper()
	d := ch.connect(t)
	d.version(8192, qp.VersionDote)
	ch.begin(d)
	d.must("attach", d.attach(fidRoot, ""))
	d.must("open", d.open(fidRoot, fidColor, qp.ORDWR|oTrunc, "keys", "color"))
	d.must("half a value", d.writeAt(fidColor, 0, "gr"))
	d.must("open", d.open(fidRoot, fidEvents, qp.OREAD, "events"))
	d.block()
	return d
}

// resume presents the key on a new connection.
func (ch channel) resume(t *testing.T) *dote {
	t.Helper()
	d := ch.connect(t)
	d.version(8192, qp.VersionDote)
	d.must("Tsession", d.session(ch.key))
	return d
}

// block sends a Tread of the events, which waits, and does not wait for it.
func (d *dote) block() {
	d.t.Helper()
	const tag = 0x5000
	frame := raw.Frame(wire.Tread, tag, uint32(fidEvents), uint64(0), uint32(1000))
	if _, err := d.conn.Write(frame); err != nil {
		d.t.Fatal(err)
	}
}

// intact wants both fids to be as they were, and finishes the value.
func (ch channel) intact(t *testing.T, d *dote) {
	t.Helper()
	got, err := d.readAt(fidColor, 0)
	d.must("read the half", err)
	if !strings.HasPrefix(got, "gr") {
		t.Fatalf("the half-written key reads %q", got)
	}
	d.must("the other half", d.writeAt(fidColor, 2, "een"))
	d.value("green", fidRoot, "keys", "color")
	line, err := d.readAt(fidEvents, 0)
	d.must("read the events", err)
	var event struct{ Type, Key string }
	first, _, _ := strings.Cut(line, "\n")
	if err := json.Unmarshal([]byte(first), &event); err != nil || event.Type == "" {
		t.Errorf("the event fid reads %q: %v", line, err)
	}
}

// endings are the ways in which a transport goes; each gives the connection that
// goes on.
var endings = map[string]func(t *testing.T, ch channel, d *dote) *dote{
	"closed by the client": func(t *testing.T, ch channel, d *dote) *dote {
		d.conn.Close()
		return ch.resume(t)
	},
	"closed by the server": func(t *testing.T, ch channel, d *dote) *dote {
		if _, err := d.conn.Write([]byte{3, 0, 0, 0, byte(wire.Tread), 1, 0}); err != nil { // bad framing
			t.Fatal(err)
		}
		d.hungUp()
		return ch.resume(t)
	},
	"taken over": func(t *testing.T, ch channel, d *dote) *dote {
		next := ch.resume(t)
		d.hungUp()
		return next
	},
	"dropped twice": func(t *testing.T, ch channel, d *dote) *dote {
		d.conn.Close()
		d = ch.resume(t)
		d.conn.Close()
		return ch.resume(t)
	},
}

func TestSessionSurvives(t *testing.T) {
	for name, open := range channels {
		for how, end := range endings {
			t.Run(name+"/"+how, func(t *testing.T) {
				ch := open(t, "")
				first := ch.start(t)
				ch.intact(t, end(t, ch, first))
			})
		}
	}
}

// TestSessionExpires: after its lifetime a session is gone, and the key begins
// another.
func TestSessionExpires(t *testing.T) {
	const lifetime = time.Second
	ch := channels["unix"](t, "[session]\nlifetime = \"1s\"\n")
	ch.start(t).conn.Close()
	time.Sleep(lifetime + 500*time.Millisecond) // an attempt before would resume it
	d := ch.connect(t)
	d.version(8192, qp.VersionDote)
	d.refused("an expired key", "cannot recover", d.session(ch.key))
	if _, err := d.readAt(fidColor, 0); err == nil {
		t.Error("a fid of the expired session reads")
	}
	d.must("attach anew", d.attach(fidRoot, ""))
	d.value("gr", fidRoot, "keys", "color")
}

// TestSecondVersion: another Tversion ends the session, and its key with it.
func TestSecondVersion(t *testing.T) {
	ch := channels["unix"](t, "")
	d := ch.start(t)
	d.version(8192, qp.VersionDote)
	if _, err := d.readAt(fidColor, 0); err == nil {
		t.Error("a fid survived Tversion")
	}
	other := ch.connect(t)
	other.version(8192, qp.VersionDote)
	other.refused("its key", "cannot recover", other.session(ch.key))
}
