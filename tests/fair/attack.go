package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meta9/mdbridge/mdata"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
)

// attackEnv makes a test binary of this package be the attacker.
const attackEnv = "META9_FAIR_ATTACK"

// attack is one way to be hostile.
type attack struct {
	name    string
	doc     string
	conns   int   // 0: 64
	keys    int   // that the VM has
	nameLen int   // bytes of a key's name
	value   int   // bytes of a value
	stores  int64 // bytes that the attack adds to what is stored
	// do is one connection's work, until the connection fails. ready says that it is
	// under way.
	do func(p *peer, ready func()) error
}

// vmConns is how many connections a VM may have.
const vmConns = 64

// attacks are those of the table.
var attacks = []attack{
	{
		name: "vmjson64", doc: "Tsread of vm.json of 15 MiB, 64 in flight a connection",
		keys: 15, value: 1<<20 - 64, do: sread(64, "vm.json"),
	},
	{
		name: "vmjson8", doc: "the same, one in flight on 8 connections",
		conns: 8, keys: 15, value: 1<<20 - 64, do: sread(1, "vm.json"),
	},
	{
		name: "listing", doc: "Tsread of keys/ with 4,000 long names, 16 in flight",
		keys: 4000, nameLen: 180, value: 10, do: sread(16, "keys"),
	},
	{
		name: "holds", doc: "4,000 held truncations a connection, which is dropped at once",
		keys: 4000, nameLen: 10, value: 10, do: holds,
	},
	{
		name: "events", doc: "250 blocked readers of events on each of 63 connections, and a writer",
		keys: 1, nameLen: 10, value: 10, do: eventReaders,
	},
	{
		name: "mdatakeys", doc: "KEYS of the metadata protocol with 4,000 keys",
		keys: 4000, nameLen: 180, value: 10, do: mdataKeys,
	},
	{
		name: "chmods", doc: "256 waiting chmods of 4,000 keys a connection",
		keys: 4000, nameLen: 10, value: 10, do: chmods,
	},
	{
		name: "onebyte", doc: "256 waiting one-byte writes a connection",
		keys: 64, nameLen: 10, value: 10, do: byteAt(0, 256),
	},
	{
		name: "large", doc: "values of 1 MiB, 8 in flight a connection",
		keys: 1, nameLen: 10, value: 10, stores: 8 << 20, do: large,
	},
	{
		name: "locks", doc: "a lock with 256 waiters, taken and given back",
		keys: 1, nameLen: 10, value: 10, do: locks,
	},
	{
		name: "walks", doc: "walks of 16 names, 64 in flight",
		keys: 1, nameLen: 10, value: 10, do: walks,
	},
	{
		name: "dials", doc: "dial, attach and close",
		keys: 1, nameLen: 10, value: 10, do: dials,
	},
	{
		name: "reads", doc: "reads of 1 MiB, 8 in flight a connection",
		keys: 1, nameLen: 10, value: 1 << 20, do: reads,
	},
	// Six of our own, and more.
	{
		name: "openkey", doc: "4,000 open fids of one key a connection, and a writer of it",
		keys: 1, nameLen: 10, value: 10, do: openKey,
	},
	{
		name: "splices", doc: "one byte written into the middle of values of 200 KiB, 64 waiting a connection",
		keys: 64, nameLen: 10, value: 200 << 10, do: byteAt(1000, 64),
	},
	{
		name: "renames", doc: "renames to and fro with 4,000 keys, 64 waiting a connection",
		keys: 4000, nameLen: 180, value: 10, do: renames,
	},
	{
		name: "readdir", doc: "9P2000.L: Treaddir of 4,000 keys from the start, 64 in flight",
		keys: 4000, nameLen: 180, value: 10, do: readdir,
	},
	{
		name: "versions", doc: "4,000 walks and a Tversion that drops them",
		keys: 1, nameLen: 10, value: 10, do: versions,
	},
	{
		name: "sessions", doc: "sessions with 1,000 fids that are parked and resumed",
		keys: 4000, nameLen: 10, value: 10, do: sessions,
	},
	{
		name: "missing", doc: "Tsread of keys that are not there, 256 in flight",
		keys: 4000, nameLen: 180, value: 10, do: sread(256, "keys", "no-such-key"),
	},
	{
		name: "mdataput", doc: "PUT of 1 MiB by the metadata protocol",
		keys: 1, nameLen: 10, value: 10, stores: 8 << 20, do: mdataPut,
	},
	{
		name: "vmjsonkeys", doc: "Tsread of vm.json with 4,000 keys, 250 KB, 8 in flight",
		keys: 4000, nameLen: 40, value: 10, do: sread(8, "vm.json"),
	},
	{
		name: "lines", doc: "a transaction, and behind it a line of 1 MiB that is none, 4 messages in flight a connection",
		keys: 1, nameLen: 10, value: 10, do: txnLines,
	},
}

func attackNames() (list []string) {
	for _, a := range attacks {
		list = append(list, a.name)
	}
	return list
}

// keyName is the name of the VM's i-th key.
func (a attack) keyName(i int) string {
	name := fmt.Sprintf("k%06d", i)
	return name + strings.Repeat("x", max(0, a.nameLen-len(name)))
}

// prepare makes the hostile VM.
func (a attack) prepare(d *daemon.Daemon, vm string) error {
	var keys []string
	value := strings.Repeat("v", a.value)
	for i := range a.keys {
		if a.value < 1000 {
			keys = append(keys, fmt.Sprintf("%q:%q", a.keyName(i), value))
		}
	}
	if err := d.Create(fmt.Appendf(nil, `{"uuid":%q,"customer_metadata":{%s}}`, vm, strings.Join(keys, ","))); err != nil {
		return err
	}
	c, err := hello(d.VM(vm), "9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	for i := len(keys); i < a.keys; i++ {
		if err := c.Swrite(0, []byte(value), "keys", a.keyName(i)); err != nil {
			return err
		}
	}
	return nil
}

// hello dials a VM's socket, negotiates a dialect and attaches fid 0.
func hello(socket, dialect string) (*raw.Conn, error) {
	c, err := raw.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := greet(c, dialect); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func greet(c *raw.Conn, dialect string) error {
	if dialect != "9P2000.L" {
		return daemon.Hello(c, dialect, "")
	}
	if _, _, err := c.Version(wire.MaxMsize, dialect); err != nil {
		return err
	}
	_, err := c.RPC(wire.Tattach, 0, uint32(0), raw.NoFid, "nobody", "", uint32(0))
	return err
}

// attackFor is the attacker's process: it attacks until in ends, and prints how many
// requests were answered.
func attackFor(name, dir string, in io.Reader, out io.Writer) error {
	at := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
	if at < 0 {
		return fmt.Errorf("no attack %q", name)
	}
	a := attacks[at]
	if a.conns == 0 {
		a.conns = vmConns
	}
	var all world
	var ready sync.WaitGroup
	for i := range a.conns {
		p := &peer{world: &all, attack: a, dir: dir, i: i, Rand: rand.New(rand.NewPCG(1, uint64(i)))}
		ready.Add(1)
		first := sync.OnceFunc(ready.Done)
		go func() {
			for failures := 0; ; failures++ {
				if err := a.do(p, first); err != nil && all.done.Load() == 0 && failures == 20 {
					fmt.Fprintf(os.Stderr, "fair: %s, connection %d: %v\n", name, i, err)
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	under := make(chan struct{})
	go func() { ready.Wait(); close(under) }()
	select {
	case <-under:
	case <-time.After(60 * time.Second):
		return fmt.Errorf("not under way after a minute")
	}
	all.done.Store(0)
	fmt.Fprintln(out, "ready")
	_, err := io.Copy(io.Discard, in)
	fmt.Fprintln(out, all.done.Load())
	return err
}

// world is what the attacker's connections share.
type world struct {
	done atomic.Int64 // requests that were answered
}

// peer is one connection of the attacker, or one after the other.
type peer struct {
	*world
	attack
	*rand.Rand
	dir     string // of the VM's sockets
	i       int
	walking [64]bool // walks: what is under way
}

// hello is a connection in a dialect.
func (p *peer) hello(dialect string) (*raw.Conn, error) {
	return hello(filepath.Join(p.dir, "9p.sock"), dialect)
}

// flood keeps depth requests in flight: frame makes one. It ends with the
// connection.
func (p *peer) flood(c net.Conn, depth int, frame func(b []byte, tag uint16) []byte) error {
	var out []byte
	for tag := range depth {
		out = frame(out, uint16(tag))
	}
	if _, err := c.Write(out); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 256<<10)
	for out = out[:0]; ; {
		tag, err := discard(in)
		if err != nil {
			return err
		}
		p.done.Add(1)
		out = frame(out, tag)
		if in.Buffered() < raw.HeaderLen {
			if _, err := c.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
}

// discard reads a reply and tells its tag.
func discard(in *bufio.Reader) (tag uint16, err error) {
	h, err := in.Peek(raw.HeaderLen)
	if err != nil {
		return 0, err
	}
	tag = binary.LittleEndian.Uint16(h[5:])
	_, err = in.Discard(int(binary.LittleEndian.Uint32(h)))
	return tag, err
}

// each sends n frames and reads their replies.
func (p *peer) each(c net.Conn, n int, frame func(b []byte, i int) []byte) error {
	const most = 200
	in := bufio.NewReaderSize(c, 64<<10)
	for from := 0; from < n; from += most {
		to := min(n, from+most)
		var out []byte
		for i := from; i < to; i++ {
			out = frame(out, i)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		for range to - from {
			if _, err := discard(in); err != nil {
				return err
			}
			p.done.Add(1)
		}
	}
	return nil
}

// repeat floods with one frame, whose tag changes.
func (p *peer) repeat(c net.Conn, depth int, t wire.Type, fields ...any) error {
	one := raw.Frame(t, 0, fields...)
	return p.flood(c, depth, func(b []byte, tag uint16) []byte {
		from := len(b)
		b = append(b, one...)
		binary.LittleEndian.PutUint16(b[from+5:], tag)
		return b
	})
}

func sread(depth int, names ...string) func(p *peer, ready func()) error {
	return func(p *peer, ready func()) error {
		c, err := p.hello("9P2000.e")
		if err != nil {
			return err
		}
		defer c.Close()
		ready()
		return p.repeat(c.Net, depth, wire.Tsread, uint32(0), names)
	}
}

const (
	oRead, oWrite, oTrunc = uint8(0), uint8(1), uint8(0x10)
)

func holds(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	ready()
	return p.each(c.Net, 2*p.keys, func(b []byte, i int) []byte {
		fid := uint32(1 + i/2)
		if i%2 == 0 {
			return raw.Append(b, wire.Twalk, 1, uint32(0), fid, []string{"keys", p.keyName(i / 2)})
		}
		return raw.Append(b, wire.Topen, 2, fid, oWrite|oTrunc)
	})
}

func eventReaders(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	if p.i == 0 {
		ready()
		return p.repeat(c.Net, 1, wire.Tswrite, uint32(0), []string{"keys", p.keyName(0)}, raw.Data("x"))
	}
	const readers = 250
	if err := p.each(c.Net, 2*readers, func(b []byte, i int) []byte {
		fid := uint32(1 + i/2)
		if i%2 == 0 {
			return raw.Append(b, wire.Twalk, 1, uint32(0), fid, []string{"events"})
		}
		return raw.Append(b, wire.Topen, 2, fid, oRead)
	}); err != nil {
		return err
	}
	ready()
	offsets := make([]uint64, readers)
	return p.flood(c.Net, readers, func(b []byte, tag uint16) []byte {
		offsets[tag]++
		return raw.Append(b, wire.Tread, tag, uint32(1+tag), offsets[tag], uint32(8192))
	})
}

func (p *peer) mdata() (net.Conn, error) {
	return net.Dial("unix", filepath.Join(p.dir, "mdata.sock"))
}

func mdataKeys(p *peer, ready func()) error {
	return p.mdataLoop(ready, mdata.AppendFrame(nil, []byte("abcd1234"), mdata.Keys, nil))
}

func mdataPut(p *peer, ready func()) error {
	put := base64.StdEncoding.AppendEncode(nil, fmt.Appendf(nil, "put%d", p.i%8))
	put = base64.StdEncoding.AppendEncode(append(put, ' '), make([]byte, 1<<20))
	return p.mdataLoop(ready, mdata.AppendFrame(nil, []byte("abcd1234"), mdata.Put, put))
}

// mdataLoop sends one line again and again, each when the one before was answered.
func (p *peer) mdataLoop(ready func(), line []byte) error {
	c, err := p.mdata()
	if err != nil {
		return err
	}
	defer c.Close()
	ready()
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		if _, err := c.Write(line); err != nil {
			return err
		}
		for {
			_, err := in.ReadSlice('\n')
			if err == nil {
				break
			}
			if err != bufio.ErrBufferFull {
				return err
			}
		}
		p.done.Add(1)
	}
}

func chmods(p *peer, ready func()) error {
	c, err := p.hello("9P2000.L")
	if err != nil {
		return err
	}
	defer c.Close()
	const fids = 1000
	first := p.i * fids
	if err := p.each(c.Net, fids, func(b []byte, i int) []byte {
		return raw.Append(b, wire.Twalk, 1, uint32(0), uint32(1+i), []string{"keys", p.keyName((first + i) % p.keys)})
	}); err != nil {
		return err
	}
	ready()
	n := 0
	return p.flood(c.Net, 256, func(b []byte, tag uint16) []byte {
		n++
		const mode = uint32(1)
		return raw.Append(b, wire.Tsetattr, tag, uint32(1+n%fids), mode, uint32(0o600|n&0o77), uint32(0), uint32(0),
			uint64(0), uint64(0), uint64(0), uint64(0), uint64(0))
	})
}

// open is a connection with fid 1 open on the peer's own key.
func (p *peer) open(mode uint8) (*raw.Conn, error) {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return nil, err
	}
	if err = c.Walk(0, 1, "keys", p.keyName(p.i%p.keys)); err == nil {
		err = c.Open(1, mode)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// byteAt writes one byte at an offset, with so many writes waiting.
func byteAt(off uint64, waiting int) func(p *peer, ready func()) error {
	return func(p *peer, ready func()) error {
		c, err := p.open(oWrite)
		if err != nil {
			return err
		}
		defer c.Close()
		ready()
		return p.repeat(c.Net, waiting, wire.Twrite, uint32(1), off, raw.Data("x"))
	}
}

func large(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	ready()
	return p.repeat(c.Net, 8, wire.Tswrite, uint32(0), []string{"keys", fmt.Sprintf("large%d", p.i%8)}, raw.Data(make([]byte, 1<<20)))
}

func locks(p *peer, ready func()) error {
	c, err := p.hello("9P2000.L")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Walk(0, 1, "keys", p.keyName(0)); err != nil {
		return err
	}
	if _, err := c.RPC(wire.Tlopen, 0, uint32(1), uint32(2)); err != nil {
		return err
	}
	ready()
	n := 0
	return p.flood(c.Net, 256, func(b []byte, tag uint16) []byte {
		n++
		kind := uint8(1) // F_WRLCK
		if n%2 == 0 {
			kind = 2 // F_UNLCK
		}
		const wait = uint32(1)
		return raw.Append(b, wire.Tlock, tag, uint32(1), kind, wait, uint64(n%512), uint64(1), uint32(n%256), "host")
	})
}

func walks(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	ready()
	p.walking = [64]bool{}
	names := make([]string, 16)
	for i := range names {
		names[i] = []string{"keys", ".."}[i%2]
	}
	names[15] = p.keyName(0)
	const clunks = 1000 // the tag of a clunk, above that of its walk
	return p.flood(c.Net, 64, func(b []byte, tag uint16) []byte {
		switch {
		case tag >= clunks:
			tag -= clunks
		case p.walking[tag]:
			return b
		}
		p.walking[tag] = true
		b = raw.Append(b, wire.Twalk, tag, uint32(0), uint32(1+tag), names)
		return raw.Append(b, wire.Tclunk, clunks+tag, uint32(1+tag))
	})
}

func dials(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	ready()
	p.done.Add(1)
	return c.Close()
}

func reads(p *peer, ready func()) error {
	c, err := p.open(oRead)
	if err != nil {
		return err
	}
	defer c.Close()
	ready()
	return p.repeat(c.Net, 8, wire.Tread, uint32(1), uint64(0), uint32(1<<20))
}

func openKey(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	const fids = 4000
	if err := p.each(c.Net, 2*fids, func(b []byte, i int) []byte {
		fid := uint32(1 + i/2)
		if i%2 == 0 {
			return raw.Append(b, wire.Twalk, 1, uint32(0), fid, []string{"keys", p.keyName(0)})
		}
		return raw.Append(b, wire.Topen, 2, fid, oRead)
	}); err != nil {
		return err
	}
	ready()
	n := 0
	return p.flood(c.Net, 4, func(b []byte, tag uint16) []byte {
		n++
		if n%2 == 0 {
			return raw.Append(b, wire.Tread, tag, uint32(1+n%fids), uint64(0), uint32(100))
		}
		return raw.Append(b, wire.Tswrite, tag, uint32(0), []string{"keys", p.keyName(0)}, raw.Data("x"))
	})
}

func renames(p *peer, ready func()) error {
	c, err := p.hello("9P2000.L")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Walk(0, 1, "keys"); err != nil {
		return err
	}
	ready()
	n := 0
	other := fmt.Sprintf("other%d", p.i)
	return p.flood(c.Net, 64, func(b []byte, tag uint16) []byte {
		n++
		from, to := p.keyName(p.i), other
		if n%2 == 0 {
			from, to = to, from
		}
		return raw.Append(b, wire.Trenameat, tag, uint32(1), from, uint32(1), to)
	})
}

func readdir(p *peer, ready func()) error {
	c, err := p.hello("9P2000.L")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Walk(0, 1, "keys"); err != nil {
		return err
	}
	if _, err := c.RPC(wire.Tlopen, 0, uint32(1), uint32(0)); err != nil {
		return err
	}
	ready()
	return p.repeat(c.Net, 64, wire.Treaddir, uint32(1), uint64(0), uint32(1<<20))
}

func versions(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	ready()
	for {
		if err := p.each(c.Net, 4000, func(b []byte, i int) []byte {
			return raw.Append(b, wire.Twalk, 1, uint32(0), uint32(1+i), []string{"keys", p.keyName(0)})
		}); err != nil {
			return err
		}
		if err := greet(c, "9P2000.e"); err != nil {
			return err
		}
	}
}

func sessions(p *peer, ready func()) error {
	key := binary.LittleEndian.AppendUint64(nil, 1<<32|uint64(p.i))
	resumed := true
	c, err := raw.Dial("unix", filepath.Join(p.dir, "9p.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.Version(wire.MaxMsize, "9P2000.e"); err != nil {
		return err
	}
	if _, err := c.RPC(wire.Tsession, raw.NoTag, key); err != nil {
		resumed = false
	}
	if !resumed {
		if err := c.Attach(0, ""); err != nil {
			return err
		}
		if err := p.each(c.Net, 2000, func(b []byte, i int) []byte {
			fid := uint32(1 + i/2)
			if i%2 == 0 {
				return raw.Append(b, wire.Twalk, 1, uint32(0), fid, []string{"keys", p.keyName(i / 2)})
			}
			return raw.Append(b, wire.Topen, 2, fid, oRead)
		}); err != nil {
			return err
		}
	}
	ready()
	p.done.Add(1)
	return nil
}

// txnLines writes to txn a transaction, and then lines that take long to read and are refused.
func txnLines(p *peer, ready func()) error {
	c, err := p.hello("9P2000.e")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Walk(0, 1, "txn"); err != nil {
		return err
	}
	if err := c.Open(1, oWrite); err != nil {
		return err
	}
	ready()
	data := raw.Data(fmt.Sprintf(`{"if":[{"key":%q}]}`+"\n", p.keyName(0)) + `{"do":[{"put":"x","value":"` + strings.Repeat(`\/`, 1<<19-50) + "\n")
	return p.repeat(c.Net, 4, wire.Twrite, uint32(1), uint64(0), data)
}
