package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meta9/session/client"
	"meta9/session/client/eventtest"
	"meta9/session/wire"
	"meta9/tests/cluster/link"
	"meta9/tests/raw"
)

// load is who works with the VM of the host a, while that is updated or started anew.
type load struct {
	t       *testing.T
	ctx     context.Context
	host    *proc // as it is now
	other   *proc
	link    *link.Link // from host to etcd
	running sync.WaitGroup
	stop    chan struct{}
	lines   [4]atomic.Int64
	plain   atomic.Int64
	lost    atomic.Int64 // sessions
	seen    chan map[string]int
}

// newLoad starts two hosts, of which a has the VM.
func newLoad(t *testing.T) (w *load, again func() *proc) {
	dir := folder(t)
	e := started(t, dir)
	const more = "[limits]\nvm_events = 100000\n"
	k := link.New(t, e.endpoints[0])
	again = func() *proc {
		h := begin(t, dir, "a", (&etcds{endpoints: []string{k.URL()}}).settingsOf(t, dir)+more)
		h.until("fleet_etcd ok", "cat", "/ctl")
		return h
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w = &load{t: t, ctx: ctx, link: k, host: again(), other: begin(t, dir, "b", e.settingsOf(t, dir)+more), stop: make(chan struct{}), seen: make(chan map[string]int, 1)}
	w.other.until("fleet_etcd ok", "cat", "/ctl")
	w.host.create(`{"uuid":"` + vm + `","customer_metadata":{"open":"here","plain":"here"}}`)
	return w, again
}

func (w *load) socket() string { return filepath.Join(w.host.run, vm, "9p.sock") }

func (w *load) client() *client.Client {
	w.t.Helper()
	return w.clientAt(w.socket())
}

func (w *load) clientAt(socket string) *client.Client {
	w.t.Helper()
	c, err := client.Dial(w.ctx, "unix:"+socket, client.Options{Patience: patience, Notify: func(s client.State) {
		if s.Up && !s.Resumed {
			w.lost.Add(1)
		}
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// write adds lines to a key of its own until the load is stopped.
func (w *load) write(id int, c *client.Client) {
	defer c.Close()
	f, err := c.OpenFile(w.ctx, fmt.Sprint("keys/log", id), os.O_RDWR|os.O_CREATE)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer f.Close()
	for off := int64(0); ; {
		select {
		case <-w.stop:
			return
		default:
		}
		line := fmt.Appendf(nil, "%d\n", w.lines[id].Load())
		n, err := f.WriteAt(w.ctx, line, off)
		if err != nil || n != len(line) {
			w.t.Errorf("writer %d, line %q: %d, %v", id, line, n, err)
			return
		}
		off += int64(n)
		w.lines[id].Add(1)
	}
}

// watch counts the changes of each key, until it has seen the key "end".
func (w *load) watch(c *client.Client, f *client.File) {
	defer c.Close()
	all, err := eventtest.Until(w.ctx, f, 8192, "end")
	if err != nil {
		w.t.Errorf("events: %v", err)
	}
	seen := make(map[string]int)
	for _, e := range all {
		seen[e.Key]++
	}
	w.seen <- seen
}

// speak reads and writes by a connection of 9P2000.L, whose client cannot make it again.
func (w *load) speak() {
	c, err := raw.Dial("unix", w.socket())
	if err != nil {
		w.t.Error(err)
		return
	}
	defer c.Close()
	rpc := func(t wire.Type, fields ...any) raw.Reply {
		r, rpcErr := c.RPC(t, 1, fields...)
		if rpcErr == nil {
			rpcErr = r.Err()
		}
		if rpcErr != nil && err == nil {
			err = fmt.Errorf("%s: %w", t, rpcErr)
		}
		return r
	}
	if _, got, err := c.Version(64<<10, "9P2000.L"); err != nil || got != "9P2000.L" {
		w.t.Error(got, err)
		return
	}
	rpc(wire.Tattach, uint32(0), wire.NoFid, "", "", uint32(wire.NoUID))
	for fid, name := range map[uint32]string{1: "open", 2: "plain"} {
		rpc(wire.Twalk, uint32(0), fid, []string{"keys", name})
		rpc(wire.Tlopen, fid, uint32(2))
	}
	for i := 0; err == nil; i++ {
		select {
		case <-w.stop:
			w.plain.Store(int64(i))
			return
		default:
		}
		if got := rpc(wire.Tread, uint32(1), uint64(0), uint32(100)); err == nil && string(got.Data()) != "here" {
			err = fmt.Errorf("it reads %q", got.Data())
		}
		rpc(wire.Twrite, uint32(2), uint64(0), raw.Data(fmt.Sprintf("%08d", i)))
	}
	w.t.Errorf("a client that cannot connect again: %v", err)
}

// begin has all begin; plain: also who cannot connect again.
func (w *load) begin(plain bool) {
	w.t.Helper()
	c := w.client()
	f, err := c.Open(w.ctx, "events")
	if err != nil {
		w.t.Fatal(err)
	}
	go w.watch(c, f)
	for id := range w.lines {
		c := w.client()
		w.running.Go(func() { w.write(id, c) })
	}
	if plain {
		w.running.Go(w.speak)
	}
}

// progress waits until every writer has gone on.
func (w *load) progress() {
	w.t.Helper()
	var from [4]int64
	for id := range w.lines {
		from[id] = w.lines[id].Load()
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		all := true
		for id := range w.lines {
			all = all && w.lines[id].Load() > from[id]+3
		}
		if all {
			return
		}
		if w.t.Failed() || time.Now().After(deadline) {
			w.t.Fatalf("not all writers go on\n%s", w.host.log.String())
		}
	}
}

// end ends the load, and looks whether all that was acknowledged was done once.
func (w *load) end() {
	w.t.Helper()
	close(w.stop)
	w.running.Wait()
	w.host.must("put", "/vms/"+vm+"/keys/end", "x")
	var seen map[string]int
	select {
	case seen = <-w.seen:
	case <-time.After(patience):
		w.t.Fatal("the reader of events does not see the end")
	}
	for id := range w.lines {
		n := int(w.lines[id].Load())
		var want strings.Builder
		for i := range n {
			want.WriteString(strconv.Itoa(i) + "\n")
		}
		name := fmt.Sprint("log", id)
		if got := w.host.must("cat", "/vms/"+vm+"/keys/"+name); got != want.String() {
			w.t.Errorf("%s has %d bytes, %d were written", name, len(got), want.Len())
		}
		if seen[name] != n+1 { // it was created
			w.t.Errorf("%d changes of %s were told of, %d were made", seen[name], name, n+1)
		}
	}
	if n := w.lost.Load(); n != 0 {
		w.t.Errorf("%d sessions were lost", n)
	}
}

// figure is a number of the host's ctl.
func (w *load) figure(name string) int {
	w.t.Helper()
	_, rest, _ := strings.Cut("\n"+w.host.must("cat", "/ctl"), "\n"+name+" ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		w.t.Fatalf("ctl has no %s: %v", name, err)
	}
	return n
}

// lives looks, until the load is stopped, whether the host lives to the other one.
func (w *load) lives() (looked *atomic.Int64) {
	looked = new(atomic.Int64)
	w.running.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			out, err := w.other.meta9("cat", "/fleet/hosts")
			if err != nil || !strings.Contains(out, `{"host":"a","state":"lives"`) {
				w.t.Errorf("the host that is updated does not live: %v, %s", err, out)
				return
			}
			looked.Add(1)
		}
	})
	return looked
}

// unmoved wants the VM at its host, and no move since that program's start.
func (w *load) unmoved() {
	w.t.Helper()
	for _, name := range []string{"fleet_given", "fleet_taken", "fleet_claimed", "fleet_lost"} {
		if n := w.figure(name); n != 0 {
			w.t.Errorf("%s %d", name, n)
		}
	}
	if out := w.other.must("fleet", "where", vm); !strings.Contains(out, vm+" a ") {
		w.t.Errorf("it is %s", out)
	}
}

// TestLiveUpdate: a host of a fleet is updated while clients of each kind work with its VM. Nobody
// gets an error or another connection; the host lives all the time, to another one, and
// stays the owner.
func TestLiveUpdate(t *testing.T) {
	w, _ := newLoad(t)
	w.begin(true)
	const updates = 4
	looked := w.lives()
	var pauses []time.Duration
	for i := range updates {
		w.progress()
		w.host.must("upgrade")
		w.host.until(fmt.Sprintf("upgrades %d\n", i+1), "cat", "/ctl")
		pauses = append(pauses, time.Duration(w.figure("upgrade_pause_ms"))*time.Millisecond)
	}
	w.progress()
	w.end()
	t.Logf("%d lines, %d exchanges of a client that cannot connect again, %d looks at the host; pauses %v", w.lines[0].Load()*4, w.plain.Load(), looked.Load(), pauses)
	w.unmoved()

	// What the program before was told, the next one knows.
	w.host.must("fleet", "drain")
	w.host.must("upgrade")
	w.host.until(fmt.Sprintf("upgrades %d\n", updates+1), "cat", "/ctl")
	if n := w.figure("fleet_draining"); n != 1 {
		t.Error("it is drained no longer")
	}
	if n := w.figure("fleet_expected"); n != 1 {
		t.Error("it forgets what has left it")
	}
	w.host.must("fleet", "drain", "--undo")
	c := w.client() // its sockets are there, and its guest speaks
	if b, err := c.ReadFile(w.ctx, "keys/open"); err != nil || string(b) != "here" {
		t.Errorf("a guest that comes back: %q, %v", b, err)
	}
	if err := c.Close(); err != nil { // else it would claim the VM back
		t.Error(err)
	}

	// A QEMU that waits for its guest has connected, and is not hung up on.
	w.other.must("fleet", "expect", vm)
	waits, err := raw.Dial("unix", filepath.Join(w.other.run, vm, "9p.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	w.other.must("upgrade")
	w.other.until("upgrades 1\n", "cat", "/ctl")
	if _, got, err := waits.Version(8192, "9P2000"); err != nil || got != "9P2000" {
		t.Errorf("it speaks after the update: %q, %v", got, err)
	}
	if out := w.other.must("fleet", "where", vm); !strings.Contains(out, vm+" b ") {
		t.Errorf("it is %s", out)
	}
}

// TestUpdateGoesBack: the next program of a host passes the check and then fails, before it has
// reached etcd or when it has all its VMs. The one before goes on: nobody gets an error or another
// connection, the host lives all the time, and what it owns, expects and was given meanwhile, with
// its sessions, is there.
func TestUpdateGoesBack(t *testing.T) {
	const expected, given = "00000000-0000-4000-8000-0000000000e0", "00000000-0000-4000-8000-0000000000e1"
	w, _ := newLoad(t)
	for _, uuid := range []string{expected, given} {
		w.other.create(`{"uuid":"` + uuid + `","customer_metadata":{"motd":"hello"}}`)
	}
	w.host.must("fleet", "expect", expected)
	waits, err := raw.Dial("unix", filepath.Join(w.host.run, expected, "9p.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	settings := filepath.Join(filepath.Dir(w.host.run), "a.toml")
	was, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	noEtcd := httptest.NewServer(http.NotFoundHandler())
	defer noEtcd.Close()
	early := bytes.Replace(was, []byte(w.link.URL()), []byte(noEtcd.URL), 1)
	late := append([]byte("listen = [\"unix:/proc/nowhere/x.sock\"]\n"), was...)
	failed := 0
	update := func(text []byte, why string) {
		t.Helper()
		if err := os.WriteFile(settings, text, 0o600); err != nil {
			t.Fatal(err)
		}
		failed++
		if out, err := w.host.meta9("upgrade"); err == nil || !strings.Contains(out, "goes on") || !strings.Contains(out, why) {
			t.Errorf("an update that fails: %v, %q does not say %q", err, out, why)
		}
		if n := w.figure("upgrades_failed"); n != failed {
			t.Errorf("%d updates have failed, want %d", n, failed)
		}
		if n := w.figure("fleet_expected"); n != 1 {
			t.Errorf("%d VMs are expected", n)
		}
	}
	w.begin(true)
	looked := w.lives()
	for _, f := range []struct {
		text []byte
		why  string
	}{{early, "that is no etcd"}, {late, "/proc/nowhere"}} {
		w.progress()
		update(f.text, f.why)
		w.unmoved()
	}

	// A VM is given to the host while its next program starts.
	guest := filepath.Join(filepath.Dir(w.host.run), "guest")
	lead := func(to *proc) {
		t.Helper()
		if err := os.Symlink(filepath.Join(to.run, given, "9p.sock"), guest+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(guest+".new", guest); err != nil {
			t.Fatal(err)
		}
	}
	lead(w.other)
	c := w.clientAt(guest)
	defer c.Close()
	f, err := c.Open(w.ctx, "keys/motd")
	if err != nil {
		t.Fatal(err)
	}
	held := w.link.HoldAt(`"instance":`) // it joins the fleet, and reads its VMs then
	over := make(chan struct{})
	go func() {
		defer close(over)
		update(late, "/proc/nowhere")
	}()
	select {
	case <-held:
	case <-time.After(patience):
		t.Fatal("the next program never joins the fleet")
	}
	lead(w.host)
	w.other.must("fleet", "release", given, "--to", "a")
	w.link.Open()
	<-over
	text := make([]byte, 5)
	if _, err := f.ReadAt(w.ctx, text, 0); err != nil || string(text) != "hello" {
		t.Errorf("by a file that was open at the host before: %q, %v", text, err)
	}
	w.progress()

	if err := os.WriteFile(settings, was, 0o600); err != nil {
		t.Fatal(err)
	}
	w.host.must("upgrade")
	w.host.until("upgrades 1\n", "cat", "/ctl")
	w.progress()
	w.end()
	w.unmoved()
	t.Logf("%d lines, %d exchanges of a client that cannot connect again, %d looks at the host", w.lines[0].Load()*4, w.plain.Load(), looked.Load())
	if _, got, err := waits.Version(8192, "9P2000"); err != nil || got != "9P2000" {
		t.Errorf("a QEMU that has waited speaks: %q, %v", got, err)
	}
	if out := w.other.must("fleet", "where", expected); !strings.Contains(out, expected+" a ") {
		t.Errorf("it is %s", out)
	}
}

// TestUpdateOfAnother: with another name of the host, or another secret, there is no live update,
// but a restart; nothing has changed.
func TestUpdateOfAnother(t *testing.T) {
	dir := folder(t)
	settings := started(t, dir).settingsOf(t, dir)
	a := begin(t, dir, "a", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	file := filepath.Join(dir, "a.toml")
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		file:                      strings.Replace(string(was), `host = "a"`, `host = "c"`, 1),
		filepath.Join(dir, "key"): "another secret of this test's\n",
	} {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if out, err := a.meta9("upgrade"); !errors.As(err, &exit) || exit.ExitCode() != 6 || !strings.Contains(out, "host, prefix or secret in [cluster] are others") {
			t.Errorf("%s: %v, %s", path, err, out)
		}
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.must("vm", "create", "web0")
	a.must("upgrade")
	a.until("upgrades 1\n", "cat", "/ctl")
	a.must("cat", "/names/web0/vm.json")
}

// TestUpdateWithoutEtcd: while etcd does not answer there is no live update, and the host goes on.
func TestUpdateWithoutEtcd(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	a := begin(t, dir, "a", e.settingsOf(t, dir)+"ttl = \"2s\"\n")
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.must("vm", "create", "web0", "-m", "motd=hello")
	e.close()
	a.until("fleet_etcd the lease is lost", "cat", "/ctl")
	if out, err := a.meta9("upgrade"); err == nil || !strings.Contains(out, "no answer of its fleet's cluster since") {
		t.Errorf("an update without etcd: %v, %s", err, out)
	}
	if out := a.must("cat", "/names/web0/keys/motd"); out != "hello" {
		t.Errorf("after it: %q", out)
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.must("upgrade")
	a.until("upgrades 1\n", "cat", "/ctl")
	a.must("put", "/names/web0/keys/motd", "again")
}

// TestEndInUpdate: a host is told to end while its next program starts and etcd is silent. Where
// etcd answers soon, the sessions are left beside their VMs; where it does not, the host ends all
// the same, and they are in the journal. The next start resumes them.
func TestEndInUpdate(t *testing.T) {
	t.Parallel() // it waits most of the time
	for _, answers := range []bool{true, false} {
		dir := folder(t)
		e := started(t, dir)
		k := link.New(t, e.endpoints[0])
		settings := (&etcds{endpoints: []string{k.URL()}}).settingsOf(t, dir)
		want := "told to end before it has served"
		if answers { // and nothing else has them
			settings += "[session]\njournal = false\n"
			want = "kept beside their VMs in etcd"
		}
		a := begin(t, dir, "a", settings)
		a.until("fleet_etcd ok", "cat", "/ctl")
		a.create(`{"uuid":"` + vm + `","customer_metadata":{"motd":"hello"}}`)
		var lost atomic.Int64
		c, err := client.Dial(t.Context(), "unix:"+filepath.Join(a.run, vm, "9p.sock"), client.Options{Patience: patience, Notify: func(s client.State) {
			if s.Up && !s.Resumed {
				lost.Add(1)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held := k.HoldAt(`"epoch":2`)
		for _, signal := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGTERM} {
			if err := a.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			select {
			case <-held:
			case <-time.After(patience):
				t.Fatal("the next program never takes the VM over")
			}
		}
		if answers {
			k.Open()
		}
		if code, log := a.end(); code != 0 || !strings.Contains(log, want) {
			t.Errorf("etcd answers %v: exit %d, want %q in the log:\n%s", answers, code, want, log)
		}
		k.Open()
		a = begin(t, dir, "a", settings)
		a.until("fleet_etcd ok", "cat", "/ctl")
		if b, err := c.ReadFile(t.Context(), "keys/motd"); err != nil || string(b) != "hello" || lost.Load() > 0 {
			t.Errorf("etcd answers %v: %q, %v; %d sessions are lost\n%s", answers, b, err, lost.Load(), a.log.String())
		}
	}
}

// TestPlannedRestart: a host of a fleet is stopped and started anew while clients work with its VM.
// They are resumed, and nothing is lost or done twice.
func TestPlannedRestart(t *testing.T) {
	w, again := newLoad(t)
	w.begin(false)
	const restarts = 3
	for range restarts {
		w.progress()
		if code, log := w.host.stop(); code != 0 {
			t.Fatalf("exit %d\n%s", code, log)
		}
		w.host = again()
	}
	w.progress()
	w.end()
}

// TestKilled: the same with SIGKILL. What was under way was done and is answered, or was not and is
// asked for again.
func TestKilled(t *testing.T) {
	w, again := newLoad(t)
	w.begin(false)
	const kills = 6
	done, undone := 0, 0
	for range kills {
		w.progress()
		undone += w.figure("requests_undone") // since the last kill
		w.host.kill()
		w.host = again()
		done += w.figure("requests_found_done")
		if n := w.figure("requests_in_doubt"); n != 0 {
			t.Errorf("of %d requests it is not known whether they were done", n)
		}
		if n := w.figure("sessions_not_restored"); n != 0 {
			t.Errorf("%d sessions were not restored\n%s", n, w.host.log.String())
		}
	}
	w.progress()
	t.Logf("%d requests under way were done, %d were not", done, undone+w.figure("requests_undone"))
	w.end()
}

// TestKilledTwice: a host is killed, and so is what starts next and takes its VMs over, before it
// serves: here that is an export. The sessions are there at the start after that.
func TestKilledTwice(t *testing.T) {
	w, again := newLoad(t)
	w.begin(false)
	w.progress()
	w.host.kill()
	dir := filepath.Dir(w.host.run)
	if code, out := meta9d(dir, "--export", "copy", "--config", filepath.Join(dir, "a.toml")); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	w.host = again()
	if n := w.figure("sessions_not_restored"); n != 0 {
		t.Errorf("%d sessions were not restored\n%s", n, w.host.log.String())
	}
	w.progress()
	w.end()
}
