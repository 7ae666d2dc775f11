package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"meta9/session/packet"
	"meta9/session/wire"
	"meta9/tests/raw"
)

// The kinds of packets, written down once more: see the package comment of
// session/packet.
const (
	helloKind = 1
	askKind   = 2
	dataKind  = 3
	endKind   = 4

	controlLen = 33
)

// pack is a packet as a guest's root writes it by hand.
func pack(kind byte, link uint64, seq uint32, payload []byte) []byte {
	b := append([]byte{0xa9, 'm', '9', 0x1a}, kind)
	b = binary.LittleEndian.AppendUint64(b, link)
	b = binary.LittleEndian.AppendUint32(b, seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func asks(nonce uint64) []byte {
	return pack(askKind, 0, 0, binary.LittleEndian.AppendUint64(nil, nonce))
}

// port is the guest's end of a device that carries packets.
type port struct {
	net.Conn
	g *target
}

func (g *target) port() *port {
	g.t.Helper()
	nc, err := net.Dial("unix", g.linkSocket())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &port{nc, g}
}

// begin asks for a link and gives its number; what comes before the answer is
// another link's.
func (p *port) begin(nonce uint64) (link uint64) {
	p.g.t.Helper()
	if _, err := p.Write(asks(nonce)); err != nil {
		p.g.t.Fatal(err)
	}
	want := binary.LittleEndian.AppendUint64(nil, nonce)
	var got []byte
	for {
		var b [512]byte
		n, err := p.Read(b[:])
		if err != nil {
			p.g.t.Fatalf("no answer to Ask: %v", err)
		}
		got = append(got, b[:n]...)
		for i := 0; i+controlLen <= len(got); i++ {
			if got[i] == 0xa9 && got[i+4] == helloKind && bytes.Equal(got[i+21:i+29], want) {
				return binary.LittleEndian.Uint64(got[i+5:])
			}
		}
	}
}

// works wants the port good for another link, or hung up and another port good.
func (p *port) works(what string) {
	p.g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p.SetDeadline(time.Time{})
	link, err := packet.Dial(ctx, p.Conn)
	if err != nil && ctx.Err() == nil {
		link, err = packet.Dial(ctx, p.g.port().Conn)
	}
	if err != nil {
		p.g.t.Fatalf("after %s: no link: %v", what, err)
	}
	c := raw.New(link)
	defer c.Close()
	if _, _, err := c.Version(8192, "9P2000.L.e"); err != nil {
		p.g.t.Fatalf("after %s: %v", what, err)
	}
}

func TestPackets(t *testing.T) {
	version := raw.Frame(wire.Tversion, raw.NoTag, uint32(8192), "9P2000.L.e")
	damaged := pack(dataKind, 0, 1, version)
	damaged[len(damaged)-1] ^= 1
	huge := func(length uint32) []byte {
		b := pack(dataKind, 0, 1, version)
		binary.LittleEndian.PutUint32(b[17:], length)
		return b
	}
	g := newTarget(t, "")
	end := g.watch()
	for what, attack := range map[string]func(p *port, link uint64) []byte{
		"a Hello of the guest": func(_ *port, link uint64) []byte { return pack(helloKind, link, 0, make([]byte, 8)) },
		"a Hello of another":   func(*port, uint64) []byte { return pack(helloKind, 7, 0, make([]byte, 8)) },
		"another link's data":  func(_ *port, link uint64) []byte { return pack(dataKind, link+1, 1, version) },
		"data of link 0":       func(*port, uint64) []byte { return pack(dataKind, 0, 1, version) },
		"a replay":             func(_ *port, link uint64) []byte { return bytes.Repeat(pack(dataKind, link, 1, version), 2) },
		"a hole":               func(_ *port, link uint64) []byte { return pack(dataKind, link, 2, version) },
		"a wrong checksum":     func(*port, uint64) []byte { return damaged },
		"64 KiB and a byte":    func(*port, uint64) []byte { return huge(64<<10 + 1) },
		"4 GiB":                func(*port, uint64) []byte { return huge(^uint32(0)) },
		"a kind that is none":  func(_ *port, link uint64) []byte { return pack(9, link, 1, nil) },
		"an end with data":     func(_ *port, link uint64) []byte { return pack(endKind, link, 1, version) },
		"an end out of turn":   func(_ *port, link uint64) []byte { return pack(endKind, link, 5, nil) },
		"an Ask of 9 bytes":    func(*port, uint64) []byte { return pack(askKind, 0, 0, make([]byte, 9)) },
		"data after the end": func(_ *port, link uint64) []byte {
			return append(pack(endKind, link, 1, nil), pack(dataKind, link, 2, version)...)
		},
		"plain 9P":               func(*port, uint64) []byte { return version },
		"empty data":             emptyData,
		"an Ask in a Data":       func(_ *port, link uint64) []byte { return pack(dataKind, link, 1, asks(3)) },
		"a packet that was torn": func(_ *port, link uint64) []byte { return pack(dataKind, link, 1, make([]byte, 60<<10))[:40<<10] },
		"marks":                  func(*port, uint64) []byte { return bytes.Repeat([]byte{0xa9, 'm', '9', 0x1a}, 50<<10) },
		"a bad frame in it": func(_ *port, link uint64) []byte {
			return pack(dataKind, link, 1, []byte{0xff, 0xff, 0xff, 0x7f, 1, 1, 1})
		},
	} {
		p := g.port()
		p.Write(attack(p, p.begin(1))) // it may have hung up already
		p.works(what)
		p.Close()
	}
	end()
	g.quiet()
	g.survived()
}

// emptyData is a great many packets of nothing.
func emptyData(_ *port, link uint64) (b []byte) {
	for seq := range uint32(5000) {
		b = append(b, pack(dataKind, link, seq+1, nil)...)
	}
	return b
}

// TestRandomPackets sends what looks like packets, at random.
func TestRandomPackets(t *testing.T) {
	g := newTarget(t, "")
	end := g.watch()
	random := rand.New(rand.NewPCG(*seed, 77))
	for range 200 {
		p := g.port()
		link := p.begin(random.Uint64() | 1)
		var b []byte
		for range 1 + random.IntN(20) {
			one := pack(byte(random.IntN(6)), []uint64{0, link, link, random.Uint64()}[random.IntN(4)], uint32(random.IntN(4)), make([]byte, random.IntN(20)))
			switch random.IntN(4) {
			case 0:
				one[random.IntN(len(one))] ^= 1 << random.IntN(8)
			case 1:
				one = one[:random.IntN(len(one))]
			}
			b = append(b, one...)
		}
		p.Write(b)
		p.Close()
	}
	p := g.port()
	p.works("all of them")
	p.Close()
	end()
	g.quiet()
	g.survived()
}

// TestAskFlood: a guest that asks and asks for another link costs no memory, and
// nobody else's time, whether it reads the answers or not.
func TestAskFlood(t *testing.T) {
	g := newTarget(t, "")
	end := g.watch()
	deaf, keen := g.port(), g.port()
	var flood []byte
	for nonce := range uint64(30000) {
		flood = append(flood, asks(nonce+1)...)
	}
	deaf.SetDeadline(time.Now().Add(time.Second))
	deaf.Write(flood) // until nobody takes more
	go keen.Write(flood)
	last := binary.LittleEndian.AppendUint64(nil, 30000)
	for got := []byte(nil); !bytes.Contains(got, last); {
		var b [64 << 10]byte
		n, err := keen.Read(b[:])
		if err != nil {
			t.Fatalf("%v; the last that came: %x", err, got)
		}
		got = append(got[max(0, len(got)-controlLen):], b[:n]...)
	}
	deaf.Close()
	keen.works("a flood of Ask")
	keen.Close()
	end()
	g.quiet()
	g.survived()
}
