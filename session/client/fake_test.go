package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
	"go.uber.org/goleak"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fate is what the fake does with a request.
type fate int

const (
	serve  fate = iota
	hang        // no reply until it is flushed
	silent      // no reply, and none to its flush
	late        // served when it is flushed: its reply, then Rflush
	cut         // the connection ends, nothing was done
	doCut       // it is done, and the connection ends without a reply
	torn        // it is done, and half of the reply is sent
	garble      // it is done, and the reply comes under another tag
	wrong       // the reply is of another type
	huge        // the reply says that it is larger than msize
	half        // half of the reply is sent, and no more
	deaf        // it is done, but nothing is read from then on
)

// node is a file, or a folder when it is nil-valued in fake.nodes with a slash.
type node struct {
	qid   p9.QID
	value []byte
}

// table is what a session keeps: fids by number.
type table map[uint32]*place

type place struct {
	path string // "" is the root
	open bool
	held bool // truncated, not yet written
}

// fake is a small server of plain 9P2000 and 9P2000.e over a map. What servers of
// 9P2000.e do not agree on it does as LING's: Tswrite writes at offset 0, and neither
// truncates nor creates; Tauth must name "/".
type fake struct {
	t *testing.T

	mu       sync.Mutex
	version  string // the best it speaks
	msize    uint32
	sessions map[[8]byte]table // nil: Tsession is refused
	proves   bool              // the channel says who is there
	mumble   string            // what authenticates
	deny     error             // of Tattach
	down     bool              // nobody listens
	nodes    map[string]*node
	ids      uint64
	fates    []func(m *wire.Msg) (fate, bool) // the first that knows a request decides
	twist    func(r *wire.Msg)                // changes replies; nil: no
	seen     []string                         // requests, as text
	conns    map[net.Conn]bool
	fids     table // of the last connection
	ended    sync.WaitGroup
	gone     chan struct{} // closed when the test is over
}

func newFake(t *testing.T) *fake {
	f := &fake{
		t: t, version: "9P2000.e", msize: 64 << 10, proves: true, sessions: map[[8]byte]table{},
		nodes: map[string]*node{}, conns: map[net.Conn]bool{}, gone: make(chan struct{}),
	}
	f.put("", nil)
	f.put("keys", nil)
	t.Cleanup(f.stop)
	return f
}

// put makes a file, or a folder for a nil value.
func (f *fake) put(name string, value []byte) {
	f.ids++
	typ := p9.TypeRegular
	if value == nil {
		typ = p9.TypeDir
	}
	f.nodes[name] = &node{qid: p9.QID{Type: typ, Version: 1, Path: f.ids}, value: value}
}

// with runs do while nothing else uses f.
func (f *fake) with(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// next gives the next request of a type its fate, once.
func (f *fake) next(t wire.Type, what fate) {
	f.with(func() {
		done := false
		f.fates = append(f.fates, func(m *wire.Msg) (fate, bool) {
			if done || m.Type != t {
				return serve, false
			}
			done = true
			return what, true
		})
	})
}

// count is how many requests so far begin with s.
func (f *fake) count(s string) (n int) {
	f.with(func() {
		for _, line := range f.seen {
			if strings.HasPrefix(line, s+" ") {
				n++
			}
		}
	})
	return n
}

// until polls for a state that another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// drop closes all connections.
func (f *fake) drop() {
	f.with(func() {
		for c := range f.conns {
			c.Close()
		}
	})
}

func (f *fake) stop() {
	close(f.gone)
	f.drop()
	f.ended.Wait()
}

// Dial is a client's Options.Dial.
func (f *fake) Dial(context.Context) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, io.ErrClosedPipe
	}
	ours, theirs := net.Pipe()
	f.conns[ours] = true
	f.ended.Add(1)
	go f.serve(ours)
	return theirs, nil
}

// dial gives a client of f.
func (f *fake) dial(opt client.Options) *client.Client {
	f.t.Helper()
	opt.Dial = f.Dial
	c, err := client.Dial(f.t.Context(), "fake", opt)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// talk is one connection of the fake.
type talk struct {
	*fake
	conn    net.Conn
	dialect wire.Dialect
	key     [8]byte
	fids    table
	known   bool
	waiting map[uint16]*wire.Msg // hung requests
	mute    map[uint16]bool      // flushes that get no answer
	deaf    bool
}

func (f *fake) serve(conn net.Conn) {
	defer f.ended.Done()
	defer conn.Close()
	k := &talk{fake: f, conn: conn, fids: table{}, waiting: map[uint16]*wire.Msg{}, mute: map[uint16]bool{}}
	f.with(func() { k.known = f.proves })
	for {
		if k.deaf {
			<-f.gone
			break
		}
		header := make([]byte, 4)
		if _, err := io.ReadFull(conn, header); err != nil {
			break
		}
		frame := make([]byte, binary.LittleEndian.Uint32(header))
		copy(frame, header)
		if _, err := io.ReadFull(conn, frame[4:]); err != nil {
			break
		}
		m := new(wire.Msg)
		if err := wire.Decode(m, frame, k.dialect); err != nil {
			f.t.Errorf("the client sent nonsense: %v", err)
			break
		}
		if !k.request(m) {
			break
		}
	}
	f.with(func() { delete(f.conns, conn) })
}

// request does m, and sends what its fate leaves of the reply; false: the
// connection ends.
func (k *talk) request(m *wire.Msg) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, m.String())
	for _, decide := range k.fates {
		if what, ok := decide(m); ok && what != serve {
			return k.suffer(m, what)
		}
	}
	if m.Type == wire.Tflush {
		return k.flush(m)
	}
	return k.send(k.reply(m))
}

func (k *talk) suffer(m *wire.Msg, what fate) bool {
	switch what {
	case hang:
		k.waiting[m.Tag] = nil
		return true
	case silent:
		k.mute[m.Tag] = true
		return true
	case late:
		k.waiting[m.Tag] = m
		return true
	case cut:
		return false
	}
	d := k.dialect
	r := k.reply(m)
	switch what {
	case garble:
		r.Tag = 500
	case wrong:
		r = &wire.Msg{Type: wire.Rattach, Tag: m.Tag}
	}
	frame, err := wire.Append(nil, r, d)
	if err != nil {
		k.t.Error(err)
	}
	switch what {
	case doCut:
		return false
	case torn, half:
		frame = frame[:len(frame)-1]
	case deaf:
		k.deaf = true
		return true
	case huge:
		binary.LittleEndian.PutUint32(frame, 1<<30)
	}
	k.conn.Write(frame)
	return what != torn
}

func (k *talk) flush(m *wire.Msg) bool {
	if k.mute[m.Oldtag] {
		return true
	}
	if old := k.waiting[m.Oldtag]; old != nil && !k.send(k.reply(old)) {
		return false
	}
	return k.send(&wire.Msg{Type: wire.Rflush, Tag: m.Tag})
}

func (k *talk) send(r *wire.Msg) bool {
	frame, err := wire.Append(nil, r, k.dialect)
	if err != nil {
		k.t.Error(err)
	}
	_, err = k.conn.Write(frame)
	return err == nil
}

// reply does m.
func (k *talk) reply(m *wire.Msg) *wire.Msg {
	r := &wire.Msg{Type: m.Type + 1, Tag: m.Tag}
	if err := k.do(m, r); err != nil {
		r = &wire.Msg{Type: wire.Rerror, Tag: m.Tag, Ename: err.Error()}
	}
	if k.twist != nil {
		k.twist(r)
	}
	return r
}

func (k *talk) do(m, r *wire.Msg) error {
	switch m.Type {
	case wire.Tversion:
		return k.doVersion(m, r)
	case wire.Tsession:
		return k.doSession(m)
	case wire.Tauth:
		switch {
		case k.mumble == "":
			return errs.Unsupported
		case m.Aname != "/":
			return errInvalidAname
		}
		k.fids[m.Afid] = &place{path: "auth", open: true}
		return nil
	case wire.Tattach:
		switch {
		case k.deny != nil:
			return k.deny
		case !k.known:
			return errs.Permission
		case k.fids[m.Fid] != nil:
			return errs.FidInUse
		}
		k.fids[m.Fid], r.QID = &place{}, k.nodes[""].qid
		return nil
	}
	p := k.fids[m.Fid]
	if p == nil {
		return errs.UnknownFid
	}
	if p.path == "auth" {
		return k.doAuth(m, r)
	}
	return k.doFile(p, m, r)
}

func (k *talk) doVersion(m, r *wire.Msg) error {
	delete(k.sessions, k.key)
	clear(k.fids)
	k.key = [8]byte{}
	r.Msize, r.Version = min(m.Msize, k.msize), m.Version
	switch {
	case k.version == "error" && m.Version != "9P2000":
		return errs.Protocol
	case k.version == "unknown" && m.Version != "9P2000":
		r.Msize, r.Version = 0, "unknown" // as hugelgupf/p9 answers
	case k.version != "9P2000.e" || m.Version == "9P2000":
		r.Version = "9P2000"
	default:
		r.Version = "9P2000.e"
	}
	k.dialect = wire.Negotiate(r.Version)
	k.fake.fids = k.fids
	return nil
}

func (k *talk) doSession(m *wire.Msg) error {
	old, ok := k.sessions[m.Key]
	switch {
	case k.sessions == nil:
		return errs.Unsupported
	case ok:
		k.key, k.fids, k.known = m.Key, old, true
		k.fake.fids = old
		return nil
	case k.known:
		k.key = m.Key
		k.sessions[m.Key] = k.fids
	}
	return errs.CannotResume
}

func (k *talk) doAuth(m, r *wire.Msg) error {
	switch m.Type {
	case wire.Twrite:
		if string(m.Data) != k.mumble {
			return errs.AuthFailed
		}
		k.known = true
		k.sessions[[8]byte{1, 2, 3, 4, 5, 6, 7, 8}] = k.fids
		r.Count = uint32(len(m.Data))
	case wire.Tclunk:
		delete(k.fids, m.Fid)
	}
	return nil
}

func (k *talk) doFile(p *place, m, r *wire.Msg) error {
	n := k.nodes[p.path]
	if n == nil && m.Type != wire.Tclunk && m.Type != wire.Tsread && m.Type != wire.Tswrite {
		return errs.Gone
	}
	switch m.Type {
	case wire.Twalk:
		return k.doWalk(p, m, r)
	case wire.Tsread:
		return k.doSread(path.Join(p.path, path.Join(m.Names...)), r)
	case wire.Tswrite:
		r.Count = uint32(len(m.Data))
		return k.doSwrite(path.Join(p.path, path.Join(m.Names...)), m.Data)
	case wire.Topen:
		if p.open {
			return errs.BadUse
		}
		p.open, p.held, r.QID = true, m.Mode&wire.OTrunc != 0, n.qid
	case wire.Tcreate:
		return k.doCreate(p, m, r)
	case wire.Tread:
		return k.doRead(p, m, r)
	case wire.Twrite:
		if !p.open {
			return errs.BadUse
		}
		k.doWrite(p, n, m)
		r.Count = uint32(len(m.Data))
	case wire.Tstat:
		r.Dir = k.dir(p.path)
	case wire.Twstat:
		return k.doRename(p, m.Dir.Name)
	case wire.Tremove:
		delete(k.fids, m.Fid)
		delete(k.nodes, p.path)
	case wire.Tclunk:
		if p.held && n != nil {
			n.value = []byte{}
		}
		delete(k.fids, m.Fid)
	}
	return nil
}

func (k *talk) doWalk(p *place, m, r *wire.Msg) error {
	if k.fids[m.Newfid] != nil && m.Newfid != m.Fid {
		return errs.FidInUse
	}
	at := p.path
	for _, name := range m.Names {
		at = path.Join(at, name)
		n := k.nodes[at]
		if n == nil {
			break
		}
		r.QIDs = append(r.QIDs, n.qid)
	}
	if len(r.QIDs) < len(m.Names) {
		if len(r.QIDs) == 0 {
			return errs.NotFound
		}
		return nil
	}
	k.fids[m.Newfid] = &place{path: at}
	return nil
}

func (k *talk) doSread(at string, r *wire.Msg) error {
	n := k.nodes[at]
	if n == nil {
		return errs.NotFound
	}
	if r.Data = n.value; n.value == nil {
		r.Data = k.list(at)
	}
	if len(r.Data) > int(k.msize)-wire.ReadLen {
		return errs.TooBig
	}
	return nil
}

// LING's words for what it does not do, which no kind of error has.
var (
	errInvalidAname = errors.New("invalid aname")
	errCannotWrite  = errors.New("cannot write")
)

func (k *talk) doSwrite(at string, data []byte) error {
	n := k.nodes[at]
	if n == nil || n.value == nil {
		return errCannotWrite
	}
	n.value = append(slices.Clone(data), n.value[min(len(data), len(n.value)):]...)
	n.qid.Version++
	return nil
}

func (k *talk) doCreate(p *place, m, r *wire.Msg) error {
	at := path.Join(p.path, m.Name)
	if k.nodes[at] != nil {
		return errs.Exists
	}
	k.put(at, []byte{})
	p.path, p.open = at, true
	r.QID = k.nodes[at].qid
	return nil
}

func (k *talk) doRead(p *place, m, r *wire.Msg) error {
	if !p.open {
		return errs.BadUse
	}
	data := k.nodes[p.path].value
	if data == nil {
		data = k.list(p.path)
	}
	data = data[min(m.Offset, uint64(len(data))):]
	r.Data = data[:min(len(data), int(m.Count))]
	return nil
}

func (k *talk) doWrite(p *place, n *node, m *wire.Msg) {
	if p.held {
		p.held, n.value = false, []byte{}
	}
	end := int(m.Offset) + len(m.Data)
	if end > len(n.value) {
		n.value = append(n.value, make([]byte, end-len(n.value))...)
	}
	copy(n.value[m.Offset:], m.Data)
	n.qid.Version++
}

func (k *talk) doRename(p *place, name string) error {
	to := path.Join(path.Dir(p.path), name)
	k.nodes[to] = k.nodes[p.path]
	delete(k.nodes, p.path)
	p.path = to
	return nil
}

func (k *talk) dir(at string) wire.Dir {
	n := k.nodes[at]
	d := wire.Dir{Name: path.Base("/" + at), QID: n.qid, Mode: 0o600, Length: uint64(len(n.value)), Mtime: 1780000000, UID: "0", GID: "0", Muid: "root"}
	if n.value == nil {
		d.Mode = wire.DMDir | 0o755
	}
	return d
}

func (k *talk) list(at string) (b []byte) {
	for _, name := range slices.Sorted(maps.Keys(k.nodes)) {
		if name != "" && path.Dir("/"+name) == path.Clean("/"+at) {
			d := k.dir(name)
			b = wire.AppendDir(b, &d, wire.E)
		}
	}
	return b
}
