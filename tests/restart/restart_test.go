// Package restart stops meta9d and starts it again while clients of each kind are at
// work, and holds what they saw against what was promised: a pause.
package restart

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/session/client"
	"meta9/session/client/eventtest"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	writers = 8
	patient = 30 * time.Second
)

var uuid = testenv.UUID(1)

var (
	restarts = flag.Int("restarts", 4, "how often TestPlanned restarts meta9d")
	kills    = flag.Int("kills", 20, "how often TestKilled does")
)

// world is a meta9d that is restarted, and who works with it.
type world struct {
	*testenv.Server
	t       *testing.T
	ctx     context.Context
	resumed atomic.Int64 // sessions of session/client that were resumed
	renewed atomic.Int64 // that were not
	done    int          // requests under way at a kill that were done
	undone  int          // that were not

	linux   string // the numbered dialect of 9P2000.L that the locker speaks
	token   uint64 // of its last resume
	running sync.WaitGroup
}

func newWorld(t *testing.T) *world { return newWorldWith(t, daemon.Options{}) }

func newWorldWith(t *testing.T, o daemon.Options) *world {
	// A reader that waits up to 2 s before it tries to connect again is behind by what
	// the writers, who were faster, have done meanwhile.
	o.Config = "[limits]\nvm_events = 100000\nconnections = 1000\n" + o.Config
	w := &world{t: t, linux: "9P2000.L.e", Server: testenv.Start(t, o)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w.ctx = ctx
	w.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"web"}`)
	return w
}

// client is a session/client of the VM's.
func (w *world) client() *client.Client {
	w.t.Helper()
	c, err := client.Dial(w.ctx, "unix:"+w.VM(uuid), client.Options{Patience: patient, Notify: func(s client.State) {
		switch {
		case s.Up && s.Resumed:
			w.resumed.Add(1)
		case s.Up:
			w.renewed.Add(1)
		}
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// writer has a key open and adds a line to it with each write, and makes, renames and
// removes others in between: what is done twice, or not, shows.
type writer struct {
	lines atomic.Int64 // that were written, and then values of another key
}

// write works until stop is closed.
func (w *world) write(id int, stop <-chan struct{}, did *writer) {
	c := w.client()
	defer c.Close()
	name := fmt.Sprintf("keys/log%d", id)
	f, err := c.OpenFile(w.ctx, name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer f.Close()
	off := int64(0)
	for {
		select {
		case <-stop:
			return
		default:
		}
		line := fmt.Appendf(nil, "%d\n", did.lines.Load())
		n, err := f.WriteAt(w.ctx, line, off)
		if err != nil || n != len(line) {
			w.t.Errorf("writer %d, line %q: %d, %v", id, line, n, err)
			return
		}
		off += int64(n)
		if err := c.WriteFile(w.ctx, fmt.Sprintf("keys/put%d", id), line); err != nil {
			w.t.Errorf("writer %d, value %q: %v", id, line, err)
			return
		}
		did.lines.Add(1)
		tmp := fmt.Sprintf("tmp%d", id)
		if err := c.WriteFile(w.ctx, "keys/"+tmp, nil); err != nil {
			w.t.Errorf("writer %d: create: %v", id, err)
			return
		}
		if err := c.Rename(w.ctx, "keys/"+tmp, "keys/"+tmp+"b"); err != nil {
			w.t.Errorf("writer %d: rename: %v", id, err)
			return
		}
		if err := c.Remove(w.ctx, "keys/"+tmp+"b"); err != nil {
			w.t.Errorf("writer %d: remove: %v", id, err)
			return
		}
	}
}

// watch reads events until it has seen the key "end", by a file that was opened before
// it returns.
func (w *world) watch() (events func() []eventtest.Event) {
	w.t.Helper()
	c := w.client()
	f, err := c.Open(w.ctx, "events")
	if err != nil {
		w.t.Fatal(err)
	}
	var seen []eventtest.Event
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.Close()
		var err error
		if seen, err = eventtest.Until(w.ctx, f, 8192, "end"); err != nil {
			w.t.Errorf("events: %v", err)
		}
	}()
	return func() []eventtest.Event {
		select {
		case <-done:
		case <-time.After(patient):
			w.t.Fatal("the reader of events does not see the end")
		}
		return seen
	}
}

// dial is a raw connection to the VM that has asked for a session; known: it is there.
func (w *world) dial(version string, key byte, known bool) *raw.Conn {
	w.t.Helper()
	return w.dialBy(w.VM(uuid), version, key, known)
}

// dialBy is dial by a socket.
func (w *world) dialBy(socket, version string, key byte, known bool) *raw.Conn {
	w.t.Helper()
	c, err := raw.Dial("unix", socket)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.announces(c, version, key, known)
}

// announces asks for a session on a connection that is new.
func (w *world) announces(c *raw.Conn, version string, key byte, known bool) *raw.Conn {
	w.t.Helper()
	if _, got, err := c.Version(64<<10, version); err != nil || got != version {
		w.t.Fatalf("%s, %v", got, err)
	}
	_, err := c.RPC(wire.Tsession, wire.NoTag, bytes.Repeat([]byte{key}, wire.KeyLen))
	if known != (err == nil) {
		w.t.Fatalf("the session of key %d: known %v, %v", key, known, err)
	}
	return c
}

// locker holds a lock on keys/lock by fid 1 of a session of 9P2000.L.e or .L.e.2.
func (w *world) locker() *raw.Conn {
	w.t.Helper()
	c := w.dial(w.linux, 1, false)
	w.rpc(c, wire.Tattach, uint32(0), wire.NoFid, "", "", uint32(wire.NoUID))
	w.openLock(c)
	if got := w.lock(c); got != 0 {
		w.t.Fatalf("the lock's status is %d", got)
	}
	return c
}

// relock is the locker on another connection.
func (w *world) relock() *raw.Conn {
	w.t.Helper()
	c := w.dial(w.linux, 1, true)
	fields := []any{uint16(0)}
	if w.linux == "9P2000.L.e.2" {
		fields = []any{uint64(4), w.token, uint16(0)} // it has sent what locker and openLock do
	}
	r, err := c.RPC(wire.Tresume, wire.NoTag, fields...)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if w.linux == "9P2000.L.e.2" {
		w.token = binary.LittleEndian.Uint64(r.Body)
	}
	return c
}

func (w *world) openLock(c *raw.Conn) {
	w.t.Helper()
	w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys", "lock"})
	w.rpc(c, wire.Tlopen, uint32(1), uint32(2))
}

// lock asks for a lock on fid 1: 0 is success, 1 blocked.
func (w *world) lock(c *raw.Conn) uint8 {
	w.t.Helper()
	return w.rpc(c, wire.Tlock, uint32(1), uint8(1), uint32(0), uint64(0), uint64(0), uint32(7), "guest").Body[0]
}

func (w *world) rpc(c *raw.Conn, t wire.Type, fields ...any) raw.Reply {
	w.t.Helper()
	r, err := c.RPC(t, 1, fields...)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		w.t.Fatalf("%s: %v", t, err)
	}
	return r
}

// TestPlanned: under writers, a reader of events, a holder of a lock, and a client of
// 9P2000.e, every restart is a pause: nobody gets an error, each change is done once, no
// event is lost, the lock is nobody else's in between, fids are what they were.
func TestPlanned(t *testing.T) {
	w := newWorld(t)
	w.restarts(*restarts, w.PlannedRestart)
}

// foundDone and foundUndone are those of all runs of TestKilled, for the soak.
var foundDone, foundUndone int

// TestKilled: the same with SIGKILL. What was under way was done, and is answered, or was
// not, and is asked for again: there is some of both.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	w.linux = "9P2000.L.e.2"
	w.restarts(*kills, func() string {
		w.undone += w.figure("requests_undone") // since the last kill
		w.Restart()
		w.done += w.figure("requests_found_done")
		if n := w.figure("requests_in_doubt"); n != 0 {
			t.Errorf("of %d requests it is not known whether they were done", n)
		}
		return w.Log()
	})
	w.undone += w.figure("requests_undone")
	if w.done == 0 || w.undone == 0 {
		t.Errorf("%d requests under way were done, %d were not", w.done, w.undone)
	}
	foundDone, foundUndone = foundDone+w.done, foundUndone+w.undone
	t.Logf("%d requests under way were done, %d were not", w.done, w.undone)
}

// restarts is what each way of a restart must hold.
func (w *world) restarts(restarts int, restart func() (log string)) {
	t := w.t
	events := w.watch()
	admin := w.Conn("vms/" + uuid)
	for _, name := range []string{"lock", "open"} {
		if err := admin.Swrite(0, []byte("of "+name), "keys", name); err != nil {
			t.Fatal(err)
		}
	}
	locker := w.locker()
	plain := w.dial("9P2000.e", 2, false)
	w.rpc(plain, wire.Tattach, uint32(0), wire.NoFid, "", "")
	w.rpc(plain, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
	w.rpc(plain, wire.Topen, uint32(1), wire.ORdWr)

	stop := make(chan struct{})
	var did [writers]writer
	for id := range did {
		w.running.Go(func() { w.write(id, stop, &did[id]) })
	}
	sessions := writers + 3
	var longest time.Duration
	for i := range restarts {
		w.settle(i, &did)
		begin := time.Now()
		log := restart()
		longest = max(longest, time.Since(begin))
		if strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
			t.Errorf("restart %d: %s", i, log)
		}
		if n := w.figure("sessions_restored"); n != sessions {
			t.Errorf("restart %d: %d sessions were restored, there were %d", i, n, sessions)
		}
		other := w.dial("9P2000.L.e", 3, false)
		w.rpc(other, wire.Tattach, uint32(0), wire.NoFid, "", "", uint32(wire.NoUID))
		w.openLock(other)
		if got := w.lock(other); got != 1 {
			t.Errorf("restart %d: another takes the lock before its holder is back: status %d", i, got)
		}
		w.rpc(other, wire.Tversion, uint32(8192), "9P2000") // ends its session
		other.Close()
		locker.Close()
		locker = w.relock()
		plain.Close()
		plain = w.dial("9P2000.e", 2, true)
		if b, err := plain.Read(1, 3, 100); err != nil || string(b) != "open" {
			t.Errorf("restart %d: fid 1 reads %q, %v", i, b, err)
		}
	}
	w.settle(restarts, &did)
	close(stop)
	w.running.Wait()
	changes, seen := w.verify(events, &did)
	if n := w.renewed.Load(); n != 0 {
		t.Errorf("%d sessions were not resumed", n)
	}
	if n := w.resumed.Load(); n != int64(restarts*(writers+1)) {
		t.Errorf("%d sessions were resumed at %d restarts", n, restarts)
	}
	t.Logf("%d restarts, the longest %v: %d changes, %d events, %d sessions resumed", restarts, longest, changes, seen, w.resumed.Load())
}

// verify holds the keys and the events against what the writers, who have ended, did.
func (w *world) verify(events func() []eventtest.Event, did *[writers]writer) (changes, seenEvents int) {
	w.t.Helper()
	w.put("end", "")
	seen := events()
	puts := make(map[string]int)
	last := uint64(0)
	for _, ev := range seen {
		if ev.Rev <= last {
			w.t.Errorf("event %d after %d", ev.Rev, last)
		}
		last = ev.Rev
		if ev.Type == "key-set" {
			puts[ev.Key]++
		}
	}
	admin := w.Conn("vms/" + uuid)
	for id := range did {
		var want strings.Builder
		lines := int(did[id].lines.Load())
		for i := range lines {
			fmt.Fprintln(&want, i)
		}
		changes += 5 * lines
		if got, err := admin.Sread(0, "keys", fmt.Sprintf("log%d", id)); err != nil || string(got) != want.String() {
			w.t.Errorf("log %d is %q, want %q, %v", id, got, want.String(), err)
		}
		// The file was created, and each line and value is an event of its own.
		for name, n := range map[string]int{"log": 1 + lines, "put": lines} {
			if key := fmt.Sprint(name, id); puts[key] != n {
				w.t.Errorf("%d events of %s, want %d", puts[key], key, n)
			}
		}
	}
	return changes, len(seen)
}

// settle waits until all are back after so many restarts, and every writer has gone on.
func (w *world) settle(restarts int, did *[writers]writer) {
	w.t.Helper()
	testenv.Eventually(w.t, "all are back", func() bool { return w.resumed.Load() >= int64(restarts*(writers+1)) })
	var before [writers]int64
	for i := range did {
		before[i] = did[i].lines.Load()
	}
	testenv.Eventually(w.t, "the writers go on", func() bool {
		for i := range did {
			if did[i].lines.Load() <= before[i]+1 {
				return w.t.Failed()
			}
		}
		return true
	})
}

// figure is one of ctl's.
func (w *world) figure(name string) (n int) {
	w.t.Helper()
	c, err := w.Dial("")
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	b, err := c.Sread(0, "ctl")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, name+" %d", &n); err == nil {
			return n
		}
	}
	w.t.Fatalf("ctl has no %s:\n%s", name, b)
	return 0
}

// put sets a key, as an admin.
func (w *world) put(name, value string) {
	w.t.Helper()
	if err := w.Conn("vms/"+uuid).Swrite(0, []byte(value), "keys", name); err != nil {
		w.t.Fatal(err)
	}
}

// TestForeign: a residence that is not this folder's is set aside with a line, and
// nobody's session is restored. Without one a session is new.
func TestForeign(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.dial("9P2000.e", 1, false).Attach(0, "")
	other.dial("9P2000.e", 1, false).Attach(0, "")
	for _, s := range []*world{w, other} {
		if err := s.Stop(patient); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(w.Data(), "residence")
	if err := os.Rename(filepath.Join(other.Data(), "residence"), file); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.dial("9P2000.e", 1, false)
	if log := w.Log(); !strings.Contains(log, "it belongs to another data folder") || !strings.Contains(log, `"level":"warn"`) {
		t.Errorf("the log says\n%s", log)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is there still")
	}
	if aside, err := filepath.Glob(file + ".aside-*"); len(aside) != 1 || err != nil {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

// stopsWithoutRoom: where the sessions find no room at the end, the stop ends in time and one
// line says what becomes of them, and why, if that is not "": they are lost, unless there is a
// journal. What was acknowledged is there at the next start. In a world that setUp makes, fill
// takes the room, and free gives it back.
func stopsWithoutRoom(t *testing.T, why string, setUp func() (w *world, fill, free func())) {
	for config, want := range map[string]struct {
		line  string
		known bool
	}{
		"[session]\njournal = false\n": {"the sessions are lost", false},
		"":                             {"the sessions are left in the journal", true},
	} {
		w, fill, free := setUp()
		if err := w.Stop(patient); err != nil {
			t.Fatal(err)
		}
		w.Config = config
		w.start()
		if err := w.dial("9P2000.e", 1, false).Attach(0, ""); err != nil {
			t.Fatal(err)
		}
		w.put("color", "blue")
		fill()
		begin := time.Now()
		if err := w.Stop(patient); err != nil {
			t.Errorf("%v\n%s", err, w.Log())
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if log := w.Log(); strings.Count(log, want.line) != 1 || !strings.Contains(log, why) {
			t.Errorf("the log says\n%s", log)
		}
		free()
		w.start()
		w.dial("9P2000.e", 1, want.known)
		if b, err := w.Conn("vms/"+uuid).Sread(0, "keys", "color"); err != nil || string(b) != "blue" {
			t.Errorf("the key is %q, %v", b, err)
		}
	}
}

// TestNoRoom: a folder that has something in it, in the place of the file that is to be written,
// fails it as a full disk does.
func TestNoRoom(t *testing.T) {
	stopsWithoutRoom(t, "", func() (w *world, fill, free func()) {
		w = newWorld(t)
		full := filepath.Join(w.Data(), "residence.new")
		return w, func() {
				if err := os.MkdirAll(filepath.Join(full, "full"), 0o700); err != nil {
					t.Fatal(err)
				}
			}, func() {
				if err := os.RemoveAll(full); err != nil {
					t.Fatal(err)
				}
			}
	})
}

func (w *world) start() {
	w.t.Helper()
	d, err := daemon.Start(w.Options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Daemon = d
}
