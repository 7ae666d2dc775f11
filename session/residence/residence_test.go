package residence_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hugelgupf/p9/p9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session"
	"meta9/session/residence"
	"meta9/session/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	vmUUID  = "550e8400-e29b-41d4-a716-446655440000"
	patient = 10 * time.Second
)

// load is residence.Load where there is no journal.
func load(dir string, home residence.Home, srv *session.Server, t *fs.Tree) (residence.Report, error) {
	return residence.Load(dir, home, srv, t, func(*residence.Report) error { return nil })
}

var home = residence.Home{Folder: [16]byte{1, 2, 3}, Number: 7}

// world is a server over a VM that has a few keys.
type world struct {
	testing.TB
	disk   *storetest.Disk
	store  *store.Store
	tree   *fs.Tree
	server *session.Server
	served sync.WaitGroup

	numbered [2]wire.Dialect // what work's clients speak
	stays    residence.Stays // nil: it is no host of a fleet's
}

func newWorld(t testing.TB) *world { return newWorldWith(t, nil) }

// books is a journal as the store and the server know it.
type books interface {
	store.Journal
	session.Journal
}

func newWorldWith(t testing.TB, j books) *world {
	w := openWorldWith(t, storetest.NewDisk(), j)
	w.do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmUUID + `","alias":"web"}`})
	for _, name := range []string{"color", "size", "temp"} {
		w.put(name, "of "+name)
	}
	return w
}

func openWorld(t testing.TB, disk *storetest.Disk) *world { return openWorldWith(t, disk, nil) }

// openWorldWith is openWorld with a journal, if it is not nil.
func openWorldWith(t testing.TB, disk *storetest.Disk, j books) *world {
	w := &world{TB: t, disk: disk, numbered: [2]wire.Dialect{wire.EN, wire.LE}}
	stores, sessions := store.Config{Log: zerolog.Nop(), Now: func() time.Time { return time.Unix(1e9, 0) }}, session.Config{Log: zerolog.Nop(), Lifetime: time.Hour}
	if j != nil {
		stores.Journal, sessions.Journal = j, j
	}
	var err error
	// Files of earlier versions name revisions and ids: these are always the same.
	if w.store, err = store.Open(disk, stores); err != nil {
		t.Fatal(err)
	}
	w.tree = fs.New(w.store, fs.Config{Log: zerolog.Nop()})
	sessions.Tree = w.tree
	w.server = session.New(sessions)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		if err := w.server.Drain(ctx); err != nil {
			t.Error(err)
		}
		w.served.Wait()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) do(in *store.Intent) {
	w.Helper()
	if r := w.store.Do(in); r.Err != nil {
		w.Fatal(r.Err)
	}
}

func (w *world) put(name, value string) {
	w.Helper()
	w.do(&store.Intent{Kind: store.Put, Cell: w.store.Cell(vmUUID), Name: name, Data: value, By: "admin"})
}

// states are the parked sessions, by their keys.
func (w *world) states() []session.State {
	return slices.SortedFunc(w.server.States(), func(a, b session.State) int { return slices.Compare(a.Key, b.Key) })
}

// client is a guest's connection in one dialect.
type client struct {
	w  *world
	nc net.Conn
	d  wire.Dialect
}

// dial connects and announces a session by a key that is all k.
func (w *world) dial(d wire.Dialect, k byte, uname string) *client {
	w.Helper()
	server, end := net.Pipe()
	w.served.Go(func() {
		w.server.Serve(server, session.Peer{Who: fs.Principal{VM: vmUUID}, Via: "pipe", Resumes: true})
	})
	c := &client{w: w, nc: end, d: wire.None}
	w.Cleanup(func() { end.Close() })
	c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()})
	c.d = d
	m := &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag}
	for i := range m.Key {
		m.Key[i] = k
	}
	c.do(m)
	c.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: uname, NUname: wire.NoUID})
	return c
}

// do sends a request and gives the reply, whatever it is.
func (c *client) do(m *wire.Msg) *wire.Msg {
	c.w.Helper()
	frame, err := wire.Append(nil, m, c.d)
	if err != nil {
		c.w.Fatal(err)
	}
	_ = c.nc.SetDeadline(time.Now().Add(patient))
	if _, err := c.nc.Write(frame); err != nil {
		c.w.Fatal(err)
	}
	b := make([]byte, 0, 8192)
	for {
		if size, _, _, ok := wire.Split(b); ok && len(b) >= int(size) {
			r := new(wire.Msg)
			if err := wire.Decode(r, b, c.d); err != nil {
				c.w.Fatal(err)
			}
			return r
		}
		n, err := c.nc.Read(b[len(b):cap(b)])
		if err != nil {
			c.w.Fatalf("%s: %v", m, err)
		}
		b = b[:len(b)+n]
	}
}

func (c *client) open(fid uint32, mode uint8, names ...string) {
	c.w.Helper()
	c.do(&wire.Msg{Type: wire.Twalk, Newfid: fid, Names: names})
	m := &wire.Msg{Type: wire.Topen, Fid: fid, Mode: mode}
	if c.d.IsL() {
		m = &wire.Msg{Type: wire.Tlopen, Fid: fid}
		m.L.Flags = uint32(mode)
	}
	if r := c.do(m); r.Type == wire.Rerror || r.Type == wire.Rlerror {
		c.w.Fatal(r)
	}
}

// live leaves sessions of each kind in the frozen server: open files, a held truncation,
// locks, half read folders and events, replies that are kept, a name that is no UTF-8.
func (w *world) live() []session.State {
	w.Helper()
	w.work()
	w.freeze()
	st := w.states()
	if len(st) != 3 {
		w.Fatalf("%d sessions", len(st))
	}
	return st
}

// work is what the clients of live do.
func (w *world) work() {
	w.Helper()
	e := w.dial(wire.E, 1, "glenda")
	e.open(1, wire.OWrite|wire.OTrunc, "keys", "color")
	e.open(2, wire.ORead, "keys")
	e.do(&wire.Msg{Type: wire.Tread, Fid: 2, Count: 70})
	e.open(3, wire.ORead, "events")
	e.open(4, wire.ORead, "keys", "size") // whose value is an old one when size is put
	n := w.dial(w.numbered[0], 2, "\xff\xfe")
	n.open(1, wire.OWrite, "keys", "size")
	n.do(&wire.Msg{Type: wire.Twrite, Tag: 3, Fid: 1, Data: []byte("LARGE")})
	n.do(&wire.Msg{Type: wire.Tclunk, Tag: 4, Fid: 99})
	l := w.dial(w.numbered[1], 3, "root")
	l.open(1, 2, "keys", "temp")
	lock := &wire.Msg{Type: wire.Tlock, Fid: 1}
	lock.L.LockType, lock.L.Length, lock.L.ProcID, lock.L.ClientID = p9.WriteLock, 5, 7, "guest\xff"
	l.do(lock)
	w.put("size", "larger")
}

func (w *world) freeze() {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := w.server.Freeze(ctx); err != nil {
		w.Fatal(err)
	}
	w.store.Stop()
}

// save writes the residence of a world that has live's sessions.
func save(t testing.TB) (dir string, st []session.State, disk *storetest.Disk) {
	w := newWorld(t)
	st = w.live()
	dir = t.TempDir()
	if n, _, err := residence.Save(dir, home, w.server, w.tree); n != len(st) || err != nil {
		t.Fatalf("%d sessions, %v", n, err)
	}
	return dir, st, w.disk
}

func diff(a, b any) string { return cmp.Diff(a, b, cmpopts.EquateEmpty()) }

// TestRoundTrip: sessions and what an event file has not read are there after Load as
// they were, and the file is not.
func TestRoundTrip(t *testing.T) {
	dir, want, disk := save(t)
	info, err := os.Stat(filepath.Join(dir, residence.FileName))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	w := openWorld(t, disk.Clone())
	r, err := load(dir, home, w.server, w.tree)
	if err != nil || r != (residence.Report{Found: true, Sessions: len(want)}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if d := diff(want, w.states()); d != "" {
		t.Error(d)
	}
	events, lost := w.store.Cell(vmUUID).Ring().After(want[0].Fids[3].Handle.Rev, 0, nil)
	if len(events) < 2 || lost != 0 || events[0].Key != "size" {
		t.Errorf("%d events, lost up to %d: %v", len(events), lost, events)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if r, err = load(dir, home, w.server, w.tree); err != nil || r != (residence.Report{}) {
		t.Errorf("without a file: %+v, %v", r, err)
	}
}

// TestNothing: without a session there is no file.
func TestNothing(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.freeze()
	n, _, err := residence.Save(dir, home, w.server, w.tree)
	if left, _ := os.ReadDir(dir); n != 0 || err != nil || len(left) > 0 {
		t.Errorf("%d, %v, %v", n, err, left)
	}
}

// TestAside: a file that cannot be trusted restores nothing, says why, and stays under
// another name.
func TestAside(t *testing.T) {
	dir, _, disk := save(t)
	good, err := os.ReadFile(filepath.Join(dir, residence.FileName))
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, disk.Clone())
	for why, do := range map[string]func(path string) (residence.Home, error){
		"another data folder": func(path string) (residence.Home, error) {
			return residence.Home{Number: home.Number}, os.WriteFile(path, good, 0o600)
		},
		"served or put back since": func(path string) (residence.Home, error) {
			return residence.Home{Folder: home.Folder, Number: home.Number + 1}, os.WriteFile(path, good, 0o600)
		},
		"its mode is 0640": func(path string) (residence.Home, error) {
			return home, os.WriteFile(path, good, 0o640)
		},
		"format \"2\"": func(path string) (residence.Home, error) {
			return home, os.WriteFile(path, []byte(strings.Replace(string(good), "residence 1", "residence 2", 1)), 0o600)
		},
		"no residence of meta9's": func(path string) (residence.Home, error) {
			return home, os.WriteFile(path, make([]byte, 4096), 0o600)
		},
		"cut short": func(path string) (residence.Home, error) {
			return home, os.WriteFile(path, nil, 0o600)
		},
		"a symbolic link": func(path string) (residence.Home, error) {
			return home, os.Symlink("/dev/null", path)
		},
		"no regular file": func(path string) (residence.Home, error) {
			return home, syscall.Mkfifo(path, 0o600)
		},
		"user 65534 owns it": func(path string) (residence.Home, error) {
			return home, errors.Join(os.WriteFile(path, good, 0o600), os.Chown(path, 65534, 65534))
		},
	} {
		if strings.HasPrefix(why, "user") && os.Geteuid() != 0 {
			continue // only root can give it away
		}
		dir := t.TempDir()
		path := filepath.Join(dir, residence.FileName)
		home, err := do(path)
		if err != nil {
			t.Fatal(err)
		}
		was, _ := os.Lstat(path)
		r, err := load(dir, home, w.server, w.tree)
		if err != nil || r.Sessions != 0 || !r.Refused || !strings.Contains(r.Why, why) {
			t.Errorf("%s: %+v, %v", why, r, err)
		}
		if is, err := os.Lstat(r.Aside); err != nil || !strings.HasPrefix(r.Aside, path) || !os.SameFile(is, was) || is.Size() != was.Size() {
			t.Errorf("%s: aside: %v", why, err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: it is there still", why)
		}
	}
	if n := w.server.Stats().Parked; n != 0 {
		t.Errorf("%d sessions were restored", n)
	}
}

// TestAsideTwice: what was set aside is not lost to the next.
func TestAsideTwice(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	seen := make(map[string]bool)
	for range 3 {
		if err := os.WriteFile(filepath.Join(dir, residence.FileName), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := load(dir, home, w.server, w.tree)
		if err != nil || r.Aside == "" || seen[r.Aside] {
			t.Fatalf("%+v, %v", r, err)
		}
		seen[r.Aside] = true
	}
}

// TestFull: where there is no room nothing is left, and the error says so. It runs in a
// process of its own: the limit holds for each file that a process writes, and go test
// has one open where it notes what the test looked at.
func TestFull(t *testing.T) {
	if os.Getenv("META9_TEST_FULL") == "" {
		full := exec.Command(os.Args[0], "-test.run=^TestFull$")
		full.Env = append(os.Environ(), "META9_TEST_FULL=1")
		if out, err := full.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	w := newWorld(t)
	w.live()
	dir := t.TempDir()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100, Max: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	_, _, err := residence.Save(dir, home, w.server, w.tree)
	if left, _ := os.ReadDir(dir); err == nil || len(left) > 0 {
		t.Errorf("%v, left: %v", err, left)
	}
}

// TestImages: of a file that is cut at any length, and of one with any bit turned, only
// sessions come back that were in it, each as it was; and the loss is told.
func TestImages(t *testing.T) {
	dir, want, disk := save(t)
	good, err := os.ReadFile(filepath.Join(dir, residence.FileName))
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, disk.Clone())
	text := func(st session.State) string {
		b, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	were := make(map[string]bool)
	for _, st := range want {
		were[text(st)] = true
	}
	check := func(what string, at int, image []byte) {
		r := residence.Image(image, home, w.server, w.tree)
		if r.Why == "" || r.Lost == 0 {
			t.Fatalf("%s at %d: nothing is said: %+v", what, at, r)
		}
		got := w.states()
		if len(got) != r.Sessions {
			t.Fatalf("%s at %d: %d sessions, %d said", what, at, len(got), r.Sessions)
		}
		for _, st := range got {
			if !were[text(st)] {
				t.Fatalf("%s at %d: a session that never was: %+v", what, at, st)
			}
		}
		w.server.DropVM(vmUUID)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for n := 0; n < len(good); n += step {
		check("cut", n, good[:n])
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < len(good); n += step {
		image := slices.Clone(good)
		image[n] ^= 1 << rng.IntN(8)
		check("turned", n, image)
	}
	check("followed", len(good), append(slices.Clone(good), 0))
	t.Logf("%d bytes", len(good))
}

// TestOneBad: a session that is damaged costs that session.
func TestOneBad(t *testing.T) {
	dir, want, disk := save(t)
	path := filepath.Join(dir, residence.FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(b), `"9P2000.e.n"`)
	b[i+1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, disk.Clone())
	r, err := load(dir, home, w.server, w.tree)
	if err != nil || r.Sessions != 2 || r.Lost != 1 || r.Aside == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if d := diff(slices.DeleteFunc(want, func(st session.State) bool { return st.Dialect == "9P2000.e.n" }), w.states()); d != "" {
		t.Error(d)
	}
}

var makeFormat = flag.Bool("make-format", false, "make testdata/format-N of this version, which must not be there")

// TestFormats: the files of earlier versions are read. Each was made by a server over
// the same store, and stands beside the sessions that were in it.
func TestFormats(t *testing.T) {
	if *makeFormat {
		dir, st, _ := save(t)
		to := filepath.Join("testdata", "format-1")
		text, err := json.MarshalIndent(st, "", "\t")
		if err == nil {
			err = os.Mkdir(to, 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "states.json"), append(text, '\n'), 0o644)
		}
		if err == nil {
			err = os.Rename(filepath.Join(dir, residence.FileName), filepath.Join(to, residence.FileName))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	formats, err := filepath.Glob("testdata/format-*")
	if err != nil || len(formats) == 0 {
		t.Fatalf("%v, %v", formats, err)
	}
	_, _, disk := save(t)
	for _, format := range formats {
		b, err := os.ReadFile(filepath.Join(format, residence.FileName))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(format, "states.json"))
		if err != nil {
			t.Fatal(err)
		}
		var want []session.State
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		w := openWorld(t, disk.Clone())
		if r := residence.Image(b, home, w.server, w.tree); r != (residence.Report{Found: true, Sessions: len(want)}) {
			t.Errorf("%s: %+v", format, r)
		}
		if d := diff(want, w.states()); d != "" {
			t.Errorf("%s: %s", format, d)
		}
	}
}

// FuzzFile: whatever a file holds, nothing breaks, and a session in it that never was is
// not restored.
func FuzzFile(f *testing.F) {
	dir, _, disk := save(f)
	good, err := os.ReadFile(filepath.Join(dir, residence.FileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	w := openWorld(f, disk.Clone())
	f.Fuzz(func(t *testing.T, b []byte) {
		residence.Image(b, home, w.server, w.tree)
		w.server.DropVM(vmUUID)
	})
}

// FuzzRecord: the same for a record whose checksums are right. A fid that is restored
// stands for the object that its State names.
func FuzzRecord(f *testing.F) {
	_, states, disk := save(f)
	for _, st := range states {
		f.Add(byte('s'), residence.Body(st))
	}
	f.Add(byte('t'), []byte(`{"vm":"`+vmUUID+`","after":3,"last":5,"events":[{"rev":4,"type":"key-set","vm":"`+vmUUID+`"}]}`))
	f.Add(byte('e'), []byte{1})
	w := openWorld(f, disk.Clone())
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		r := residence.Image(residence.Sealed(home, kind, body), home, w.server, w.tree)
		if r.Sessions == 0 {
			return
		}
		defer w.server.DropVM(vmUUID)
		sent := slices.Collect(w.server.States())
		st := sent[len(sent)-1] // it was parked last
		var asked session.State
		if err := json.Unmarshal(jsonOf(body), &asked); err != nil {
			t.Fatal(err)
		}
		for _, fid := range st.Fids {
			if fid.Node == nil {
				continue
			}
			if !slices.ContainsFunc(asked.Fids, func(was session.FidState) bool {
				return was.Fid == fid.Fid && was.Node != nil && was.Node.ID == fid.Node.ID
			}) {
				t.Fatalf("fid %d stands for %+v; asked for were %+v", fid.Fid, fid.Node, asked.Fids)
			}
		}
	})
}

// jsonOf is the JSON of a session's record.
func jsonOf(body []byte) []byte {
	from := slices.Index(body, '{')
	dec := json.NewDecoder(strings.NewReader(string(body[from:])))
	var raw json.RawMessage
	if dec.Decode(&raw) != nil {
		return nil
	}
	return raw
}
