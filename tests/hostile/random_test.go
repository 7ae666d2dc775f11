package hostile

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// TestRandomRequests has many connections of one VM send well made requests that
// make no sense together: every request must get one reply, of its own type or
// an error, and no other. Blocking files are left out, so that all answer.
func TestRandomRequests(t *testing.T) {
	g := newTarget(t, "")
	var wg sync.WaitGroup
	versions := []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L", "9P2000.L.e", "9P2000.e.n"}
	for i, version := range append(versions, versions...) {
		c := g.dial(attacker)
		wg.Go(func() {
			defer c.Close()
			if err := askRandomly(c, version, rand.New(rand.NewPCG(*seed, uint64(i)))); err != nil {
				t.Errorf("seed %d, connection %d, %s: %v", *seed, i, version, err)
			}
		})
	}
	wg.Wait()
	g.survived()
}

const (
	rounds   = 150
	perRound = 32 // requests in flight
)

func askRandomly(c *raw.Conn, version string, random *rand.Rand) error {
	if _, _, err := c.Version(64<<10, version); err != nil {
		return err
	}
	m := maker{random, version}
	for range rounds {
		asked := map[uint16]wire.Type{}
		out := m.attach()
		asked[0] = wire.Tattach
		for tag := uint16(1); tag < perRound; tag++ {
			frame := m.request(tag)
			asked[tag] = wire.Type(frame[4])
			out = append(out, frame...)
		}
		if err := c.Send(out); err != nil {
			return err
		}
		if err := answers(c, asked); err != nil {
			return err
		}
	}
	return nil
}

// answers takes one reply for each tag.
func answers(c *raw.Conn, asked map[uint16]wire.Type) error {
	for len(asked) > 0 {
		r, err := c.Recv()
		if err != nil {
			return fmt.Errorf("with %d to be answered (%v): %w", len(asked), asked, err)
		}
		t, ok := asked[r.Tag]
		if !ok {
			return fmt.Errorf("%v for tag %d, which waits for nothing", r.Type, r.Tag)
		}
		if r.Type != t+1 && r.Err() == nil {
			return fmt.Errorf("%v answers %v", r.Type, t)
		}
		delete(asked, r.Tag)
	}
	return nil
}

// maker makes requests of one dialect.
type maker struct {
	*rand.Rand
	version string
}

func (m maker) dotu() bool { return m.version == "9P2000.u" }

func (m maker) linux() bool { return strings.HasPrefix(m.version, "9P2000.L") }

// macros tells whether the dialect has Tsread and Tswrite.
func (m maker) macros() bool { return strings.Contains(m.version, ".e") }

func (m maker) fid() uint32 { return uint32(m.IntN(6)) }

func (m maker) pick(of ...string) string { return of[m.IntN(len(of))] }

func (m maker) name() string {
	return m.pick("keys", "internal", "sdc", "key", "a", "b", "c", "..", ".", "", "a/b", "%2F", "vm.json", "txn", "\xff", "root_pw")
}

func (m maker) names() []string {
	names := []string{}
	for range m.IntN(4) {
		names = append(names, m.name())
	}
	return names
}

func (m maker) data() raw.Data { return make(raw.Data, m.IntN(300)) }

// attach brings fid 0 back, whatever the round before did to it.
func (m maker) attach() []byte {
	fields := []any{uint32(0), raw.NoFid, "", ""}
	if m.dotu() || m.linux() {
		fields = append(fields, uint32(0))
	}
	return raw.Frame(wire.Tattach, 0, fields...)
}

func (m maker) request(tag uint16) []byte {
	if m.linux() && m.IntN(3) > 0 {
		return m.linuxRequest(tag)
	}
	switch m.IntN(16) {
	case 0, 1, 2, 3:
		return raw.Frame(wire.Twalk, tag, m.fid(), m.fid(), m.names())
	case 4, 5:
		return raw.Frame(wire.Topen, tag, m.fid(), uint8([]int{0, 1, 2, 3, 0x11, 0x12, 0x40, 0x81, 0xff}[m.IntN(9)]))
	case 6:
		fields := []any{m.fid(), m.name(), uint32(0o600) | uint32(m.IntN(2))<<30, uint8(m.IntN(3))}
		if m.dotu() {
			fields = append(fields, "")
		}
		return raw.Frame(wire.Tcreate, tag, fields...)
	case 7, 8:
		return raw.Frame(wire.Tread, tag, m.fid(), uint64(m.IntN(400)), uint32(m.IntN(9000)))
	case 9, 10:
		return raw.Frame(wire.Twrite, tag, m.fid(), uint64(m.IntN(400)), m.data())
	case 11:
		return raw.Frame(wire.Tclunk, tag, m.fid())
	case 12:
		return raw.Frame(wire.Tremove, tag, m.fid())
	case 13:
		return raw.Frame(wire.Tstat, tag, m.fid())
	case 14:
		return m.wstat(tag)
	}
	if m.macros() && m.IntN(2) == 0 {
		return raw.Frame(wire.Tswrite, tag, m.fid(), m.names(), m.data())
	}
	return raw.Frame(wire.Tsread, tag, m.fid(), m.names())
}

// wstat changes length, name, mode or nothing.
func (m maker) wstat(tag uint16) []byte {
	const none = ^uint32(0)
	length, name, mode := ^uint64(0), "", none
	switch m.IntN(4) {
	case 0:
		length = uint64(m.IntN(500))
	case 1:
		name = m.name()
	case 2:
		mode = uint32(m.IntN(0o1000))
	}
	dir := []any{uint16(0xffff), none, make([]byte, 13), mode, none, none, length, name, "", "", ""}
	if m.dotu() {
		dir = append(dir, "", none, none, none)
	}
	record := raw.Frame(0, 0, dir...)[raw.HeaderLen:]
	return raw.Frame(wire.Twstat, tag, m.fid(), uint16(len(record)+2), uint16(len(record)), record)
}
