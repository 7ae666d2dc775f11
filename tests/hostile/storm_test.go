package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/session/packet"
	"meta9/session/wire"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

const (
	secretKey = "bystander" // a session's
	marker    = "what only the bystander has"
)

var errLeak = errors.New("a hostile VM was told what another has")

// longest is how long a bystander may wait for anything while others attack, on
// a machine that runs other tests as well.
const longest = 5 * time.Second

// watch has a bystander read and write all the while, in a session of its own
// under secretKey, and gives a function that ends it.
func (g *target) watch() (end func()) {
	g.t.Helper()
	c := g.dial(innocent)
	if _, _, err := c.Version(8192, "9P2000.e.n"); err != nil {
		g.t.Fatal(err)
	}
	if _, err := c.RPC(wire.Tsession, raw.NoTag, []byte(secretKey)[:8]); err != nil {
		err = c.Attach(0, "") // the key was announced
		if err != nil {
			g.t.Fatal(err)
		}
	} else if _, err := c.RPC(wire.Tresume, raw.NoTag, uint16(0)); err != nil { // it is still parked since the last watch
		g.t.Fatal(err)
	}
	if err := c.Swrite(0, []byte(marker), "keys", "marker"); err != nil {
		g.t.Fatal(err)
	}
	stop, worst := make(chan struct{}), time.Duration(0)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			from := time.Now()
			err := c.Swrite(0, fmt.Append(nil, n), "keys", "other")
			if _, rerr := c.Sread(0, "keys", "key"); err == nil {
				err = rerr
			}
			worst = max(worst, time.Since(from))
			if err != nil {
				g.t.Errorf("the bystander, after %d rounds: %v", n, err)
				return
			}
		}
	})
	return func() {
		g.t.Helper()
		close(stop)
		wg.Wait()
		c.Close()
		g.t.Logf("the bystander waited at most %v for a write and a read", worst)
		if worst > longest {
			g.t.Errorf("the bystander waited %v for a write and a read", worst)
		}
	}
}

// quiet wants a log that a guest did not fill.
func (g *target) quiet() {
	g.t.Helper()
	if n := strings.Count(g.Log(), "\n"); n > 60 {
		g.t.Errorf("%d lines of log", n)
	}
}

func (g *target) linkSocket() string { return g.socketOf(attacker, "link.sock") }

// socketOf is a socket of a VM.
func (g *target) socketOf(vm int, name string) string {
	return filepath.Join(filepath.Dir(g.VM(testenv.UUID(vm))), name)
}

// TestSessionStorm has many connections fight for a few sessions, each in some
// dialect that has them, over the plain socket and over packets: they resume, tell
// lies in Tresume, take over, ask for what waits, flush it, and are cut off.
func TestSessionStorm(t *testing.T) {
	g := newTarget(t, "[session]\nlifetime = \"2s\"\n")
	end := g.watch()
	const attackers, rounds = 12, 40
	var wg sync.WaitGroup
	for i := range attackers {
		wg.Go(func() {
			s := storm{g, attacker, rand.New(rand.NewPCG(*seed, uint64(1000+i)))}
			for round := range rounds {
				if err := s.round(i%2 == 0); err != nil {
					t.Errorf("seed %d, attacker %d, round %d: %v", *seed, i, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
	end()
	g.quiet()
	g.survived()
}

// storm is one attacker of TestSessionStorm.
type storm struct {
	g  *target
	vm int
	*rand.Rand
}

// round is the life of one connection. The error says what no server may do; that
// it hangs up is its right.
func (s storm) round(packets bool) error {
	c, err := s.connect(packets)
	if err != nil {
		return err
	}
	defer c.Close()
	c.Timeout = 20 * time.Second
	m := maker{s.Rand, []string{"9P2000.L.e", "9P2000.e.n", "9P2000.L.e", "9P2000.e"}[s.IntN(4)]}
	err = s.talk(c, m)
	if gone(err) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// connect dials one of the VM's sockets.
func (s storm) connect(packets bool) (*raw.Conn, error) {
	path := s.g.socketOf(s.vm, "9p.sock")
	if packets {
		path = s.g.socketOf(s.vm, "link.sock")
	}
	nc, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	if packets {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		link, err := packet.Dial(ctx, nc)
		if err != nil {
			return raw.New(nc), nil // turned away: nc is closed
		}
		nc = link
	}
	return raw.New(nc), nil
}

func (s storm) talk(c *raw.Conn, m maker) error {
	if _, _, err := c.Version(64<<10, m.version); err != nil {
		return err
	}
	// The last is the bystander's, and to others a key like any.
	key := []string{"sessionA", "sessionB", "sessionC", secretKey[:8]}[s.IntN(4)]
	_, err := c.RPC(wire.Tsession, raw.NoTag, []byte(key))
	var refused *raw.Error
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if err == nil && m.version != "9P2000.e" {
		if err := c.Send(s.resume()); err != nil {
			return err
		}
	}
	for range 1 + s.IntN(3) {
		if err := s.burst(c, m); err != nil {
			return err
		}
	}
	return nil
}

// resume is a Tresume, or what is none.
func (s storm) resume() []byte {
	body := []any{uint16(0)}
	switch s.IntN(5) {
	case 0:
	case 1: // as it should be
		from := uint64(1 + s.IntN(300))
		body = []any{uint16(3), from, from + 1, from + 5}
	case 2: // numbers that nobody has
		body = []any{uint16(2), ^uint64(0), ^uint64(0)}
	case 3: // as many as may be, and more
		body = []any{uint16(500 + s.IntN(30))}
		for i := range body[0].(uint16) {
			body = append(body, uint64(i)+1)
		}
	case 4: // a count that lies
		body = []any{uint16(0xffff), uint64(1)}
	}
	good := raw.Frame(wire.Tresume, raw.NoTag, body...)
	if s.IntN(2) == 0 {
		good = append(good, raw.Frame(wire.Tresume, raw.NoTag, uint16(0))...)
	}
	return good
}

// burst sends requests, some of which wait, and takes some of the replies.
func (s storm) burst(c *raw.Conn, m maker) error {
	out := m.attach()
	for tag := uint16(1); tag < perRound; tag++ {
		out = append(out, s.request(m, tag)...)
	}
	if s.IntN(4) == 0 {
		out = out[:s.IntN(len(out))]
	}
	if err := c.Send(out); err != nil {
		return err
	}
	for range s.IntN(perRound) {
		c.Timeout = 50 * time.Millisecond // what waits need not be answered
		r, err := c.Recv()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if bytes.Contains(r.Body, []byte(marker)) {
			return fmt.Errorf("%w: in a reply of type %v", errLeak, r.Type)
		}
	}
	return nil
}

// request is one that may wait, or any other.
func (s storm) request(m maker, tag uint16) []byte {
	switch s.IntN(10) {
	case 0:
		return raw.Frame(wire.Twalk, tag, uint32(0), uint32(6), []string{"events"})
	case 1:
		if m.linux() {
			return raw.Frame(wire.Tlopen, tag, uint32(6), uint32(0))
		}
		return raw.Frame(wire.Topen, tag, uint32(6), uint8(0))
	case 2:
		return raw.Frame(wire.Tread, tag, uint32(6), uint64(s.IntN(100)), uint32(8192))
	case 3:
		return raw.Frame(wire.Tflush, tag, uint16(s.IntN(perRound)))
	case 4:
		if m.linux() {
			return m.lock(tag, 1)
		}
	case 5:
		return raw.Frame(wire.Tclunk, tag, uint32(6))
	case 6:
		return raw.Frame(wire.Tswrite, tag, uint32(0), []string{"keys", m.name()}, m.data())
	}
	return m.request(tag)
}
