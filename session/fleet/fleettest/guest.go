package fleettest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/session/wire"
)

// Guest is a program in a VM that speaks 9P2000.L.e.2 as meta9's own do. Fid 1 is open on
// keys/log, to append, and locked; 2 is events, of which a read waits.
type Guest struct {
	t     testing.TB
	uuid  string
	nc    net.Conn
	key   byte
	count uint64 // requests that were sent
	token uint64

	read   uint64 // the number of the read that waits
	events string // what it has read
}

const (
	tagRead  = 8
	tagWrite = 9
	logFid   = 1
	eventFid = 2
)

// NewGuest begins a session at the VM's host. Each of a VM's has a key of
// its own; the session of key 0 ends with its connection.
func NewGuest(h *Host, uuid string, key byte) *Guest {
	g := &Guest{t: h.T, uuid: uuid, key: key}
	g.connect(h, wire.Rlerror)
	g.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "guest", NUname: wire.NoUID}, wire.Rattach)
	g.open(logFid, uint32(p9.ReadWrite)|0x400, "keys", "log") // O_APPEND
	g.open(eventFid, 0, "events")
	g.wait()
	return g
}

// connect connects and asks for the session.
func (g *Guest) connect(h *Host, want wire.Type) {
	g.t.Helper()
	g.nc = h.dial(g.uuid)
	g.t.Cleanup(func() { _ = g.nc.Close() })
	g.uncounted(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: wire.LE2.String()}, wire.Rversion)
	m := &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag}
	for i := range m.Key {
		m.Key[i] = g.key
	}
	g.uncounted(m, want)
}

// Hello only asks the host for its version, as whoever is new there.
func Hello(h *Host, uuid string) error {
	nc := h.dial(uuid)
	defer func() { _ = nc.Close() }()
	frame, _ := wire.Append(nil, &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: "9P2000"}, wire.None)
	_ = nc.SetDeadline(time.Now().Add(Patience))
	if _, err := nc.Write(frame); err != nil {
		return err
	}
	_, err := io.ReadFull(nc, make([]byte, 4))
	return err
}

func (g *Guest) send(m *wire.Msg) {
	g.t.Helper()
	d := wire.LE2
	if m.Type == wire.Tversion {
		d = wire.None
	}
	frame, err := wire.Append(nil, m, d)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = g.nc.SetDeadline(time.Now().Add(Patience))
	if _, err := g.nc.Write(frame); err != nil {
		g.t.Fatalf("%s: %v", m, err)
	}
}

// receive gives the next reply; nil: the host has hung up.
func (g *Guest) receive() *wire.Msg {
	g.t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(g.nc, size[:]); err != nil {
		return nil
	}
	frame := make([]byte, binary.LittleEndian.Uint32(size[:]))
	copy(frame, size[:])
	if _, err := io.ReadFull(g.nc, frame[4:]); err != nil {
		return nil
	}
	m := new(wire.Msg)
	if err := wire.Decode(m, frame, wire.LE2); err != nil {
		g.t.Fatal(err)
	}
	m.Data = slices.Clone(m.Data)
	return m
}

func (g *Guest) uncounted(m *wire.Msg, want wire.Type) *wire.Msg {
	g.t.Helper()
	g.send(m)
	r := g.receive()
	if r == nil || r.Type != want {
		g.t.Fatalf("%s was answered %v, want %s", m, r, want)
	}
	return r
}

func (g *Guest) do(m *wire.Msg, want wire.Type) *wire.Msg {
	g.t.Helper()
	g.count++
	return g.uncounted(m, want)
}

func (g *Guest) open(fid, flags uint32, names ...string) {
	g.t.Helper()
	g.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: names}, wire.Rwalk)
	m := &wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}
	m.L.Flags = flags
	g.do(m, wire.Rlopen)
}

// Lock tells whether the log can be locked by the guest, for itself alone.
func (g *Guest) Lock() bool {
	g.t.Helper()
	m := &wire.Msg{Type: wire.Tlock, Tag: 1, Fid: logFid}
	m.L.LockType, m.L.ProcID, m.L.ClientID = p9.WriteLock, 7, fmt.Sprint("guest", g.key)
	return g.do(m, wire.Rlock).L.Status == p9.LockStatusOK
}

// wait sends a read of the events, which waits at the server.
func (g *Guest) wait() {
	g.t.Helper()
	g.send(&wire.Msg{Type: wire.Tread, Tag: tagRead, Fid: eventFid, Offset: uint64(len(g.events)), Count: 1000})
	g.count++
	g.read = g.count
}

// Events reads until it has got this many changes of keys.
func (g *Guest) Events(changes int) {
	g.t.Helper()
	for strings.Count(g.events, `"key-set"`) < changes {
		m := g.receive()
		if m == nil || m.Type != wire.Rread || m.Tag != tagRead {
			g.t.Fatalf("a read of events was answered %v; told before:\n%s", m, g.events)
		}
		g.events += string(m.Data)
		g.wait()
	}
	if strings.Contains(g.events, `"lost"`) {
		g.t.Errorf("events were lost:\n%s", g.events)
	}
}

// Append sends a write of a line to the log, and does not wait for the reply.
func (g *Guest) Append(line string) (number uint64) {
	g.t.Helper()
	g.send(&wire.Msg{Type: wire.Twrite, Tag: tagWrite, Fid: logFid, Data: []byte(line), Count: uint32(len(line))})
	g.count++
	return g.count
}

// Appended waits for the reply to Append.
func (g *Guest) Appended() {
	g.t.Helper()
	for {
		m := g.receive()
		switch {
		case m == nil:
			g.t.Fatal("the host has hung up")
		case m.Type == wire.Rread && m.Tag == tagRead:
			g.events += string(m.Data)
			g.wait()
		case m.Type == wire.Rwrite && m.Tag == tagWrite:
			return
		default:
			g.t.Fatalf("an append was answered %s", m)
		}
	}
}

// HungUp waits until the host has ended the connection, and drops what comes before that.
func (g *Guest) HungUp() {
	for g.receive() != nil {
	}
	_ = g.nc.Close()
}

// Resume resumes the session at a host. Append has sent line as request number; if the
// host has not done it, it is sent again. 0: there is none.
func (g *Guest) Resume(h *Host, number uint64, line string) {
	g.t.Helper()
	g.connect(h, wire.Rsession)
	numbers := []uint64{g.read}
	if number != 0 {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	r := g.uncounted(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Numbers: numbers, Counted: g.count, Token: g.token}, wire.Rresume)
	g.token = r.Token
	// A request that the server has not seen is sent again, under a new number. The read
	// changes nothing, so it is always sent anew.
	for i, n := range numbers {
		switch state := r.States[i]; {
		case n == number && state == wire.Unseen:
			g.Append(line)
		case state != wire.Answered && state != wire.Unseen:
			g.t.Fatalf("request %d is in state %d", n, state)
		}
	}
	g.wait()
	if number != 0 {
		g.Appended()
	}
}

// Log returns the value of the log at the VM's host.
func Log(h *Host, uuid string) string {
	c := h.Store.Cell(uuid)
	if c == nil {
		return ""
	}
	return c.VM().Get(0, "log").Value
}

// Create makes a VM with a log at the host.
func Create(h *Host, uuid string) {
	h.T.Helper()
	h.Do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `","customer_metadata":{"log":""}}`})
}
