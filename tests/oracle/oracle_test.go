// Package oracle sends generated requests of 9P2000.L to two servers at once,
// hugelgupf/p9's Server and meta9d over the keys of a VM, and wants the same replies
// wherever meta9's rules are not deliberately other. p9's Server has a real folder
// (localfs), or the keys of a VM, too (package session/p9fs).
package oracle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hugelgupf/p9/fsimpl/localfs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session/p9fs"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

var seed = flag.Uint64("seed", 0, "of the generated requests; 0 is another one each time")

func TestMain(m *testing.M) { testenv.Main(m) }

const requests = 10_000

type exception struct {
	why          string
	t            wire.Type
	theirs, ours linux.Errno
}

// exceptions are the deliberate differences, by what p9's server answers and what
// we do: the request, p9's errno, ours. Type 0 is any request.
var exceptions = []exception{
	{"a fid that is not open, or is open, is bad use of a fid: EBADF as in fs/errs", 0, linux.EINVAL, linux.EBADF},
	{"Linux answers EBADF for reading what is open for writing only", wire.Tread, linux.EPERM, linux.EBADF},
	{"and for writing what is open for reading only", wire.Twrite, linux.EPERM, linux.EBADF},
	{"a file where a folder must be is ENOTDIR", 0, linux.EINVAL, linux.ENOTDIR},
	{"no attributes is EOPNOTSUPP, which v9fs takes for an answer", wire.Txattrwalk, linux.EINVAL, linux.EOPNOTSUPP},
}

// Not generated, since p9's localfs cannot do it or meta9 deliberately does
// otherwise, and what came after would differ: folders, links and devices to be
// made; appends (its WriteAt refuses); Tlcreate without O_EXCL (it always has it);
// a newfid in use (it replaces); ".." (it refuses); walks of several names (it
// answers an error where they stop half way); changes by an open folder's fid (it
// refuses); names that are equal in a rename (it succeeds without the file); modes
// and owners (it has none); locks; sizes and offsets past a value's limit.
// Of a file that was removed we answer ESTALE, or ENOENT where it is not open, to
// whatever would change it, while a Unix file lives on without a name: see gone.

// place is a fid as both servers must have it.
type place struct {
	name  string // "": the folder
	open  bool
	flags p9.OpenFlags
	gone  bool // its file was removed or replaced
}

// world is the two servers and what both must have by now.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	theirs *raw.Conn
	ours   *raw.Conn
	fids   map[uint32]*place
	files  map[string]bool
	log    []string
	count  map[string]int // replies by kind
}

func TestOracle(t *testing.T) { compare(t, localfs.Attacher(t.TempDir()), "", requests) }

// TestP9FS compares meta9d with p9's Server over the same tree.
func TestP9FS(t *testing.T) {
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	tree := fs.New(st, fs.Config{})
	uuid := testenv.UUID(2)
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`}); r.Err != nil {
		t.Fatal(r.Err)
	}
	compare(t, p9fs.New(tree, fs.Principal{VM: uuid}), "keys", requests/3)
}

// compare sends the same n requests to p9's Server over the attacher, from aname on, and
// to meta9d.
func compare(t *testing.T, theirs p9.Attacher, aname string, n int) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(*seed, 1)), theirs: peer(t, theirs), ours: meta9(t),
		fids: map[uint32]*place{0: {}}, files: map[string]bool{}, count: map[string]int{},
	}
	w.hello(aname)
	for range n {
		w.step(w.draw())
		if t.Failed() {
			t.Fatalf("-seed %d; the last requests:\n%s", *seed, strings.Join(w.log[max(0, len(w.log)-20):], "\n"))
		}
	}
	w.compareFolder()
	t.Logf("seed %d: %v", *seed, w.count)
	for _, want := range []string{"Rwalk", "Rlopen", "Rlcreate", "Rread", "Rwrite", "Rclunk", "Rremove", "Rgetattr", "Rsetattr", "Rreaddir", "Rfsync", "Rrename", "Rrenameat", "Runlinkat"} {
		if w.count[want] < n/500 {
			t.Errorf("only %d times %s: the generator does not reach it", w.count[want], want)
		}
	}
}

// peer is a connection to p9's server.
func peer(t *testing.T, at p9.Attacher) *raw.Conn {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	s := p9.NewServer(at)
	go s.Handle(server, server)
	return raw.New(client)
}

// meta9 is a connection to meta9d as a VM without keys.
func meta9(t *testing.T) *raw.Conn {
	uuid := testenv.UUID(1)
	s := testenv.Start(t, daemon.Options{Memory: true})
	s.NewVM(uuid, `{"uuid":"`+uuid+`"}`)
	c, err := raw.Dial("unix", s.VM(uuid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) hello(aname string) {
	v := &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 65536, Version: "9P2000.L"}
	a := &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "root", Aname: aname}
	for _, c := range []*raw.Conn{w.theirs, w.ours} {
		w.ask(c, v)
		if c == w.ours {
			a.Aname = "keys"
		}
		if r := w.ask(c, a); r.Type != wire.Rattach {
			w.t.Fatal(r)
		}
	}
}

// ask sends one request and takes its reply.
func (w *world) ask(c *raw.Conn, m *wire.Msg) *wire.Msg {
	w.t.Helper()
	frame, err := wire.Append(nil, m, wire.L)
	if err == nil {
		err = c.Send(frame)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	reply, err := c.Recv()
	if err != nil {
		w.t.Fatalf("%s: %v", m, err)
	}
	r := new(wire.Msg)
	if err := wire.Decode(r, raw.Frame(reply.Type, reply.Tag, reply.Body), wire.L); err != nil {
		w.t.Fatalf("%s: %v", m, err)
	}
	return r
}

// step sends m to both and compares what they answer.
func (w *world) step(m *wire.Msg) {
	theirs, ours := w.ask(w.theirs, m), w.ask(w.ours, m)
	w.log = append(w.log, fmt.Sprintf("%s\n\tp9   %s\n\tours %s", m, clip(theirs), clip(ours)))
	w.count[ours.Type.String()]++
	at := w.fids[m.Fid]
	if at != nil && at.gone {
		w.gone(m, ours)
	} else if diff := cmp.Diff(say(theirs), say(ours)); diff != "" && !excused(m, theirs, ours) {
		w.t.Errorf("the replies differ (-p9 +ours):\n%s", diff)
	}
	w.follow(m, ours)
}

// gone wants what is ours for a fid whose file is no longer there: reading goes on,
// all else but its end is refused.
func (w *world) gone(m, ours *wire.Msg) {
	errno := linux.Errno(ours.Errno)
	switch m.Type {
	case wire.Tclunk, wire.Tread, wire.Tfsync, wire.Tgetattr, wire.Tremove, wire.Txattrwalk, wire.Twalk, wire.Treaddir:
		return // each has its say in session's scripts
	}
	refusals := []linux.Errno{linux.ENOENT, linux.ESTALE, linux.EBADF, linux.ENOTDIR}
	if ours.Type != wire.Rlerror || !slices.Contains(refusals, errno) {
		w.t.Errorf("of a removed file: %s", ours)
	}
}

func excused(m, theirs, ours *wire.Msg) bool {
	return slices.ContainsFunc(exceptions, func(e exception) bool {
		return theirs.Type == wire.Rlerror && ours.Type == wire.Rlerror && (e.t == 0 || e.t == m.Type) &&
			linux.Errno(theirs.Errno) == e.theirs && linux.Errno(ours.Errno) == e.ours
	})
}

// say is what a reply says to a client, without numbers and times that every
// server has its own of.
func say(r *wire.Msg) string {
	switch r.Type {
	case wire.Rlerror:
		return "errno " + fmt.Sprint(r.Errno)
	case wire.Rwalk:
		var types []p9.QIDType
		for _, q := range r.QIDs {
			types = append(types, q.Type)
		}
		return fmt.Sprint("walked ", types)
	case wire.Rlopen, wire.Rlcreate:
		return fmt.Sprint("opened ", r.QID.Type)
	case wire.Rgetattr:
		a := &r.L.Attr
		if a.Mode.IsDir() {
			return fmt.Sprint("a folder, qid ", r.QID.Type)
		}
		return fmt.Sprint("type ", a.Mode.FileType(), " size ", a.Size, " links ", a.NLink, " qid ", r.QID.Type)
	case wire.Rread:
		return "data " + fmt.Sprintf("%q", r.Data)
	case wire.Rreaddir:
		return fmt.Sprint("entries ", names(r.Data))
	case wire.Rwrite:
		return "wrote " + fmt.Sprint(r.Count)
	}
	return r.Type.String()
}

func clip(r *wire.Msg) string { return fmt.Sprintf("%.150s", r) }

// names are those in the data of an Rreaddir, sorted.
func names(b []byte) (list []string) {
	for len(b) >= 24 {
		n := 24 + int(b[22]) + int(b[23])<<8
		list = append(list, string(b[24:n]))
		b = b[n:]
	}
	slices.Sort(list)
	return list
}

// compareFolder lists what both have in the end.
func (w *world) compareFolder() {
	const fid = 99
	w.step(&wire.Msg{Type: wire.Twalk, Newfid: fid})
	w.step(&wire.Msg{Type: wire.Tlopen, Fid: fid})
	w.step(&wire.Msg{Type: wire.Treaddir, Fid: fid, Count: 60000})
}
