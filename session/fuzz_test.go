package session_test

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/session"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// fuzzLimits are small, so that a fuzzer reaches them.
func fuzzLimits(c *session.Config) {
	c.Limits = session.Limits{Fids: 16, Waiting: 8, Unsent: 64 << 10, Msize: 16 << 10, VMSessions: 2, Parked: 4}
}

// fuzzMemory is what the process may at most have in use after one connection
// under fuzzLimits: what the store of a test keeps of its writes, and the 100 MiB
// that a worker of the fuzzer needs itself.
const fuzzMemory = 148 << 20

// abuse gives streams of bytes to connections of the first VM's, one after the
// other. Each must end, and all have taken no more than they may; the server must
// still serve another, and leave no goroutine (TestMain sees that).
func abuse(t *testing.T, piece int, streams ...[]byte) {
	w := newWorld(t, fuzzLimits)
	w.put("color", "blue")
	for _, input := range streams {
		w.abuse(t, input, piece)
	}
	w.until("the end", func() bool { return w.server.Stats().Conns == 0 })
	a := w.dial("pipe", peers["vm"])
	a.hello("9P2000.e")
	a.do(&wire.Msg{Type: wire.Tsread, Tag: 2, Names: []string{"keys"}}, wire.Rsread)
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapInuse > fuzzMemory {
		if took := memory(); took > fuzzMemory { // without what nobody uses any more
			t.Fatalf("%d bytes are in use", took)
		}
	}
}

// abuse gives bytes to one connection, all at once or in pieces, and hangs up.
func (w *world) abuse(t *testing.T, input []byte, piece int) {
	server, nc := redialtest.Pair(t)
	w.serve(server, peers["vm"])
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, nc)
	}()
	for len(input) > 0 {
		n := min(len(input), max(1, piece))
		if _, err := nc.Write(input[:n]); err != nil {
			break
		}
		input = input[n:]
	}
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	select {
	case <-drained:
	case <-time.After(patient):
		t.Fatal("the connection does not end")
	}
	nc.Close()
}

// FuzzConn gives a connection any bytes. The seeds are the messages of the
// scripts, each connection's in one stream.
func FuzzConn(f *testing.F) {
	for _, stream := range scriptStreams(f) {
		f.Add(stream, uint16(len(stream)))
	}
	hello, _ := hex.DecodeString("1300000064ffff00200000060039503230303017000000680000000000000000ffffffff00000000")
	f.Add(hello, uint16(1))
	f.Fuzz(func(t *testing.T, input []byte, piece uint16) { abuse(t, int(piece), input) })
}

// FuzzMessages gives a connection messages that are well formed: each takes a few
// bytes of the input for its fields, from small ranges, so that fids, tags and
// names meet.
func FuzzMessages(f *testing.F) {
	seeds(f, 400)
	f.Fuzz(func(t *testing.T, input []byte) {
		g := generator{input}
		d := []wire.Dialect{wire.Plain, wire.U, wire.E, wire.L}[g.below(4)]
		frames := frame(t, nil, wire.None, versionOf(d))
		if d == wire.E && g.below(2) == 0 {
			frames = frame(t, frames, d, g.session())
		}
		frames = frame(t, frames, d, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID})
		for len(g.b) > 0 && len(frames) < 64<<10 {
			frames = frame(t, frames, d, g.message())
		}
		abuse(t, len(frames), frames)
	})
}

// FuzzNumbered gives well-formed messages to three connections in turn, in the
// numbered dialects: the later ones ask for a session of the earlier ones', and
// Tresume, Tsession and Tversion also come where they should not.
func FuzzNumbered(f *testing.F) {
	seeds(f, 3000)
	f.Fuzz(func(t *testing.T, input []byte) {
		g := generator{input}
		d := []wire.Dialect{wire.LE, wire.EN}[g.below(2)]
		var streams [][]byte
		for i := range 3 {
			frames := frame(t, nil, wire.None, versionOf(d))
			frames = frame(t, frames, d, g.session())
			if i > 0 && g.below(8) > 0 {
				frames = frame(t, frames, d, g.resume())
			}
			frames = frame(t, frames, d, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID})
			for until := len(g.b) * (2 - i) / (3 - i); len(g.b) > until && len(frames) < 64<<10; {
				frames = frame(t, frames, d, g.anywhere(d))
			}
			streams = append(streams, frames)
		}
		abuse(t, 64<<10, streams...)
	})
}

// seeds adds random inputs of size bytes for a generator.
func seeds(f *testing.F, size int) {
	for seed := range uint64(8) {
		b := make([]byte, size)
		r := rand.New(rand.NewPCG(seed, 0))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
}

// versionOf is the Tversion that asks for d.
func versionOf(d wire.Dialect) *wire.Msg {
	return &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()}
}

// frame appends a message, or nothing where the dialect has none of it.
func frame(t *testing.T, b []byte, d wire.Dialect, m *wire.Msg) []byte {
	if wire.MaxSize(m.Type, d, 8192) == wire.HeaderLen {
		return b
	}
	b, err := wire.Append(b, m, d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// generator makes messages out of a fuzzer's input.
type generator struct{ b []byte }

func (g *generator) below(n byte) byte {
	if len(g.b) == 0 {
		return 0
	}
	v := g.b[0] % n
	g.b = g.b[1:]
	return v
}

var fuzzTypes = []wire.Type{
	wire.Twalk, wire.Twalk, wire.Topen, wire.Topen, wire.Tcreate, wire.Tread, wire.Tread, wire.Twrite, wire.Twrite,
	wire.Tclunk, wire.Tremove, wire.Tstat, wire.Twstat, wire.Tflush, wire.Tsread, wire.Tswrite, wire.Tattach, wire.Tauth,
	wire.Tlopen, wire.Tlopen, wire.Tlcreate, wire.Tgetattr, wire.Tsetattr, wire.Treaddir, wire.Tfsync, wire.Tlock, wire.Tlock,
	wire.Tgetlock, wire.Trename, wire.Trenameat, wire.Tunlinkat, wire.Tmkdir, wire.Tstatfs, wire.Txattrwalk, wire.Tsymlink,
}

var fuzzNames = []string{"keys", "internal", "events", "vm.json", "txn", "color", "new", "..", "root_pw", "", "a/b", strings.Repeat("n", 256), "sdc"}

var fuzzNumbers = []uint64{0, 1, 2, 4, 100, 8192, 1 << 20, 1<<32 - 1, 1<<63 - 1, 1<<64 - 1}

func (g *generator) name() string   { return fuzzNames[g.below(byte(len(fuzzNames)))] }
func (g *generator) number() uint64 { return fuzzNumbers[g.below(byte(len(fuzzNumbers)))] }

func (g *generator) message() *wire.Msg {
	m := &wire.Msg{
		Type: fuzzTypes[g.below(byte(len(fuzzTypes)))], Tag: uint16(g.below(200)), Fid: uint32(g.below(8)),
		Newfid: uint32(g.below(8)), Afid: wire.NoFid, Oldtag: uint16(g.below(200)), NUname: wire.NoUID,
	}
	switch m.Type {
	case wire.Twalk, wire.Tsread, wire.Tswrite:
		for range g.below(4) {
			m.Names = append(m.Names, g.name())
		}
		m.Data = make([]byte, g.below(100))
	case wire.Topen, wire.Tcreate:
		m.Name, m.Mode = g.name(), g.below(255)
		m.Perm = uint32(g.below(4)) << 30
	case wire.Tread, wire.Twrite:
		m.Offset, m.Count = g.number(), uint32(g.number())
		m.Data = make([]byte, 10*int(g.below(100)))
	case wire.Twstat:
		m.Dir = wire.Dir{
			Name: g.name(), Length: g.number(), Mode: uint32(g.number()), Mtime: uint32(g.number()), Atime: uint32(g.number()),
			NUID: wire.NoUID, NGID: wire.NoUID, NMuid: wire.NoUID,
		}
	case wire.Tattach, wire.Tauth:
		m.Aname, m.Uname = g.name(), g.name()
	default:
		g.linux(m)
	}
	return m
}

// anywhere is mostly a message, and sometimes one that begins or resumes a session.
func (g *generator) anywhere(d wire.Dialect) *wire.Msg {
	switch g.below(120) {
	case 0:
		return g.resume()
	case 1:
		return g.session()
	case 2:
		return versionOf(d)
	}
	return g.message()
}

func (g *generator) session() *wire.Msg {
	return &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(int(g.below(2)))}
}

// resume is a Tresume that names some numbers in a row, mostly as it must.
func (g *generator) resume() *wire.Msg {
	m := &wire.Msg{Type: wire.Tresume, Tag: wire.NoTag}
	number := uint64(g.below(16))
	for range g.below(32) {
		m.Numbers = append(m.Numbers, number)
		if number++; g.below(64) == 63 {
			number = g.number()
		}
	}
	return m
}

// linux sets the fields of 9P2000.L's messages.
func (g *generator) linux(m *wire.Msg) {
	m.Name, m.Ext, m.Offset, m.Count = g.name(), g.name(), g.number(), uint32(g.number())
	m.L.Flags = uint32(g.below(4)) | uint32(g.below(64))<<6
	m.L.LockType = p9.LockType(g.below(4))
	m.L.Start, m.L.Length, m.L.ProcID = g.number(), g.number(), uint32(g.below(3))
	m.L.SetMask = p9.SetAttrMask{Size: g.below(2) == 0, MTime: g.below(2) == 0, Permissions: g.below(4) == 0, UID: g.below(8) == 1}
	m.L.SetAttr.Size = g.number()
}

// scriptStreams are what the scripts send, without what they wait for.
func scriptStreams(f *testing.F) (streams [][]byte) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		streams = append(streams, scriptStream(string(text)))
	}
	return streams
}

func scriptStream(text string) (stream []byte) {
	d := wire.E
	for _, line := range strings.Split(text, "\n") {
		if name, rest, ok := strings.Cut(line, ": "); ok && !strings.ContainsAny(name, " \"#") {
			line = rest
		}
		if before, only, ok := strings.Cut(line, " only"); ok {
			line = before + wstat(only)
		}
		version, hello := strings.CutPrefix(line, "hello ")
		if hello {
			line = `Tversion tag ~0 msize 8192 version "` + version + `"`
		}
		m, err := wire.Parse(line)
		if err != nil || m.Type%2 == 1 {
			continue
		}
		stream, _ = wire.Append(stream, m, d)
		if hello {
			stream, _ = wire.Append(stream, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, d)
		}
	}
	return stream
}

// TestStreams: the seeds of FuzzConn are frames.
func TestStreams(t *testing.T) {
	stream := scriptStream("conn a vm\na: hello 9P2000\nTclunk tag 2 fid 0\nRclunk tag 2\n")
	if n := binary.LittleEndian.Uint32(stream); n != 19 || len(stream) != 19+19+11 {
		t.Errorf("%x", stream)
	}
}
