package hosts

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/macro"
	"meta9/mdbridge/qmp/qmptest"
	"meta9/rarelog/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func uuid(n int) string { return fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", n) }

// world is Hosts that look for sockets in a folder, over a store in memory.
type world struct {
	t     *testing.T
	dir   string
	log   logtest.Log
	store *store.Store
	hosts *Hosts
	view  *fs.View
	root  *fs.Ref
}

func newWorld(t *testing.T, cfg Config, payloads ...string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9q-") // t.TempDir's are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, store: st}
	cfg.Tree, cfg.Log = fs.New(st, fs.Config{}), zerolog.New(&w.log)
	cfg.VMs = cmp.Or(cfg.VMs, 100)
	cfg.Globs = append(cfg.Globs, filepath.Join(dir, "*.qmp"))
	for path, uuid := range cfg.Bind {
		cfg.Bind[w.path(path)] = uuid
	}
	w.hosts = New(cfg)
	for _, p := range payloads {
		w.do(store.Intent{Kind: store.CreateVM, Data: p})
	}
	w.view = cfg.Tree.View(fs.Principal{Admin: true})
	if w.root, err = w.view.Attach("", ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.hosts.Close()
		w.view.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) do(in store.Intent) {
	w.t.Helper()
	if r := w.store.Do(&in); r.Err != nil {
		w.t.Fatal(r.Err)
	}
}

// eventually waits until ok.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not so: %s\n%s", what, w.log.String())
		}
	}
}

// text is a property of a VM; "" also when there is no VM.
func (w *world) text(uuid, name string) string {
	if c := w.store.Cell(uuid); c != nil {
		if v := c.VM(); v != nil {
			return v.Text(name)
		}
	}
	return ""
}

func (w *world) state(uuid, want string) {
	w.t.Helper()
	w.eventually("VM "+uuid+" is "+want, func() bool { return w.text(uuid, "state") == want })
}

// logged waits until the log has the text.
func (w *world) logged(text string) {
	w.t.Helper()
	w.eventually("the log says "+text, func() bool { return w.log.Count(text) > 0 })
}

// get reads a file of a VM whole.
func (w *world) get(uuid string, path ...string) (string, error) {
	b, err := macro.Get(nil, w.root, append([]string{"vms", uuid}, path...), 1<<20)
	return string(b), err
}

// verb writes a line to a VM's ctl, and gives the answer that is read back.
func (w *world) verb(uuid, line string) (string, error) {
	w.t.Helper()
	at, err := macro.Find(w.root, []string{"vms", uuid, "ctl"})
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := at.Open(fs.Read | fs.Write)
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	h.Write([]byte(line+"\n"), 0, fs.Author{By: "test"}, func(_ int, err error) { done <- err })
	err = <-done
	p := make([]byte, 1000)
	n, _ := h.Read(p, 0)
	return string(p[:n]), err
}

// TestLife goes through the life of a QEMU that nobody registered.
func TestLife(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	if c := w.store.Alias("web"); c == nil || c.UUID() != uuid(1) {
		t.Error("the name is no alias")
	}
	want := `{"alias":"web","qmp_socket":"` + w.path("a.qmp") + `","state":"running","unlinked_alias":"web","uuid":"` + uuid(1) + `","zonename":"` + uuid(1) +
		`","customer_metadata":{},"internal_metadata":{},"tags":{},"routes":{}}`
	if got, err := w.get(uuid(1), "vm.json"); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if got, err := w.get(uuid(1), "qmp", "status"); err != nil || got != `{"status":"running","singlestep":false,"running":true}`+"\n" {
		t.Errorf("status %q: %v", got, err)
	}
	if got, err := w.get(uuid(1), "qmp", "version"); err != nil || !strings.Contains(got, `"major":7`) {
		t.Errorf("version %q: %v", got, err)
	}
	q.Set("paused", "STOP")
	w.state(uuid(1), "paused")
	q.Set("guest-panicked", "GUEST_PANICKED")
	w.state(uuid(1), "guest-panicked")
	q.Kill()
	w.state(uuid(1), "stopped")
	if got, err := w.get(uuid(1), "qmp", "status"); err != nil || got != `{"running":false,"status":"stopped"}`+"\n" {
		t.Errorf("status %q: %v", got, err)
	}
	qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
}

func TestVerbs(t *testing.T) {
	w := newWorld(t, Config{CallTime: 5 * time.Second})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	for _, step := range []struct{ line, state string }{
		{"stop", "paused"}, {"stop", "paused"}, {"start", "running"}, {"powerdown", "running"}, {"reset", "running"},
	} {
		if _, err := w.verb(uuid(1), step.line); err != nil {
			t.Errorf("%s: %v", step.line, err)
		}
		w.state(uuid(1), step.state)
	}
	for _, step := range []struct{ line, answer, err string }{
		{"stop it", "", "stop takes nothing more"},
		{"qmp {'execute': 'query-name', 'id': 'x'}", `{"return": {"name":"web"}, "id": "x"}` + "\n", ""},
		{`qmp {"execute": "nope"}`, `{"error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}` + "\n", "VM " + uuid(1) + ": QEMU: The command nope"},
		{`qmp nonsense`, "", "invalid keyword"},
		{`qmp`, "", "not a command"},
	} {
		answer, err := w.verb(uuid(1), step.line)
		if step.answer != "" && answer != step.answer {
			t.Errorf("%s: %q", step.line, answer)
		}
		if (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("%s: %v", step.line, err)
		}
	}
	q.DieInAnswer()
	// How a dying QEMU ends the connection is the kernel's choice: end of file or a reset.
	if _, err := w.verb(uuid(1), "stop"); err == nil || !strings.Contains(err.Error(), "VM "+uuid(1)+": stop: no answer: ") {
		t.Errorf("died in an answer: %v", err)
	}
	w.state(uuid(1), "stopped")
	if _, err := w.verb(uuid(1), "stop"); errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), "no QEMU") {
		t.Errorf("of a QEMU that is gone: %v", err)
	}
	qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	if _, err := w.verb(uuid(1), "quit"); err != nil {
		t.Errorf("quit: %v", err)
	}
	w.state(uuid(1), "stopped")
}

// TestHangs: a QEMU that does not answer costs a verb its time, and no more.
func TestHangs(t *testing.T) {
	w := newWorld(t, Config{CallTime: 50 * time.Millisecond})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	q.Hang()
	if _, err := w.verb(uuid(1), "stop"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error %v", err)
	}
}

// TestUnresponsive: a QEMU that stands still says nothing, and its VM says so; when it
// goes on, the VM is as it is.
func TestUnresponsive(t *testing.T) {
	w := newWorld(t, Config{CallTime: 50 * time.Millisecond, ProbeTime: 10 * time.Millisecond})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	if st := w.hosts.Stats(); st != (Stats{Connected: 1}) {
		t.Errorf("%+v", st)
	}
	for _, then := range []string{"running", "paused"} {
		q.Hang()
		w.state(uuid(1), "unresponsive")
		status, err := w.get(uuid(1), "qmp", "status")
		if want := `{"status":"unresponsive","last":{"status":"running","singlestep":false,"running":true}}` + "\n"; err != nil || status != want {
			t.Errorf("%v: %s", err, status)
		}
		if st := w.hosts.Stats(); st != (Stats{Connected: 1, Unresponsive: 1, Silent: w.path("a.qmp")}) {
			t.Errorf("%+v", st)
		}
		if then == "paused" {
			q.Set(then, "STOP")
		}
		q.GoOn()
		w.state(uuid(1), then)
		if st := w.hosts.Stats(); st != (Stats{Connected: 1}) {
			t.Errorf("%+v", st)
		}
	}
	q.Hang()
	w.state(uuid(1), "unresponsive")
	q.Kill()
	w.state(uuid(1), "stopped")
	if st := w.hosts.Stats(); st != (Stats{}) {
		t.Errorf("%+v", st)
	}
	if n := w.log.Count("the QEMU does not answer"); n != 3 {
		t.Errorf("said %d times", n)
	}
}

// TestKnown: a VM that is known from a payload keeps all that it has.
func TestKnown(t *testing.T) {
	w := newWorld(t, Config{}, `{"uuid":"`+uuid(1)+`","alias":"mine","ram":512,"customer_metadata":{"k":"v"},"internal_metadata":{"i":"v"}}`)
	w.hosts.Start()
	qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	got, err := w.get(uuid(1), "vm.json")
	want := `{"uuid":"` + uuid(1) + `","alias":"mine","ram":512,"customer_metadata":{"k":"v"},"internal_metadata":{"i":"v"},"zonename":"` + uuid(1) + `","state":"running","tags":{},"routes":{},"qmp_socket":"` + w.path("a.qmp") + `"}`
	if err != nil || strings.TrimSpace(got) != want {
		t.Errorf("%s: %v", got, err)
	}
}

// TestAlias: a name that another VM has is kept, but leads to the other.
func TestAlias(t *testing.T) {
	w := newWorld(t, Config{}, `{"uuid":"`+uuid(1)+`","alias":"web"}`, `{"uuid":"`+uuid(3)+`"}`)
	w.hosts.Start()
	qmptest.Start(t, w.path("a.qmp"), uuid(2), "web")
	qmptest.Start(t, w.path("b.qmp"), uuid(3), "web")
	qmptest.Start(t, w.path("c.qmp"), uuid(4), "\x01")
	for n := 2; n <= 4; n++ {
		w.state(uuid(n), "running")
	}
	if a, b, c := w.text(uuid(2), "alias"), w.text(uuid(3), "alias"), w.text(uuid(4), "alias"); a != "web" || b != "web" || c != "" {
		t.Errorf("aliases %q, %q, %q", a, b, c)
	}
	if c := w.store.Alias("web"); c == nil || c.UUID() != uuid(1) {
		t.Error("names/web leads elsewhere")
	}
}

func TestNoUUID(t *testing.T) {
	w := newWorld(t, Config{Bind: map[string]string{"bound.qmp": uuid(2)}})
	w.hosts.Start()
	qmptest.Start(t, w.path("bound.qmp"), "", "bound")
	q := qmptest.Start(t, w.path("a.qmp"), "", "free")
	w.state(uuid(2), "running")
	w.logged("this QEMU has no UUID: start it with -uuid UUID")
	if n := w.store.Count(); n != 1 {
		t.Errorf("%d VMs", n)
	}
	q.Kill()
	qmptest.Start(t, w.path("a.qmp"), uuid(3), "free")
	w.state(uuid(3), "running")
}

// TestTwoSockets: a VM has one QEMU; the second socket comes into its own when the
// first is gone.
func TestTwoSockets(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	second := qmptest.Start(t, w.path("b.qmp"), uuid(1), "web")
	w.logged("VM " + uuid(1) + " is at " + w.path("a.qmp") + " already")
	second.Set("paused", "STOP")
	if got := w.text(uuid(1), "state"); got != "running" {
		t.Errorf("the second socket tells %q", got)
	}
	q.Kill()
	w.eventually("the second is taken", func() bool { return w.text(uuid(1), "qmp_socket") == w.path("b.qmp") })
	w.state(uuid(1), "paused")
}

// TestSlowGreeting: a QEMU whose socket is another client's is found when that one
// leaves.
func TestSlowGreeting(t *testing.T) {
	w := newWorld(t, Config{})
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	q.Mute()
	w.hosts.Start()
	w.eventually("it is connected", func() bool {
		w.hosts.mu.Lock()
		defer w.hosts.mu.Unlock()
		return w.hosts.links[w.path("a.qmp")] != nil
	})
	qmptest.Start(t, w.path("b.qmp"), uuid(2), "other") // is not held up
	w.state(uuid(2), "running")
	if w.store.Cell(uuid(1)) != nil {
		t.Error("found without a greeting")
	}
	q.Unmute()
	w.state(uuid(1), "running")
}

// TestEvents: qmp/events has what QEMU told, and the VM's events that it did.
func TestEvents(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	w.eventually("qmp/ is there", func() bool { _, err := w.get(uuid(1), "qmp", "status"); return err == nil })
	at, err := macro.Find(w.root, []string{"vms", uuid(1), "qmp", "events"})
	if err != nil {
		t.Fatal(err)
	}
	h, err := at.Open(fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{})
	if _, ready := h.(fs.Waiter).Wait(func() { close(woken) }); ready {
		t.Error("there is something before there is")
	}
	after := w.store.Cell(uuid(1)).Ring().Last()
	q.Set("paused", "STOP")
	<-woken
	p := make([]byte, 1000)
	n, err := h.Read(p, 0)
	if want := `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}` + "\n"; err != nil || string(p[:n]) != want {
		t.Errorf("%q: %v", p[:n], err)
	}
	w.eventually("the VM's events tell it", func() bool {
		events, _ := w.store.Cell(uuid(1)).Ring().After(after, 0, nil)
		for _, e := range events {
			if e.Type == store.QMP && e.Key == "STOP" {
				return true
			}
		}
		return false
	})
}

// TestDeleted: a VM that is deleted stays so while its QEMU runs, and is current
// when it is made anew.
func TestDeleted(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(1))})
	q.Set("paused", "STOP")
	qmptest.Start(t, w.path("b.qmp"), uuid(2), "other")
	w.state(uuid(2), "running")
	if w.store.Cell(uuid(1)) != nil {
		t.Error("it came back")
	}
	w.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid(1) + `"}`})
	w.state(uuid(1), "paused")
}

// TestLeftOvers: a QEMU that ended while the daemon was not there is found out.
func TestLeftOvers(t *testing.T) {
	w := newWorld(t, Config{})
	dead, other := w.path("dead.qmp"), w.path("other.qmp")
	for n, path := range map[int]string{1: w.path("gone.qmp"), 2: dead, 3: other, 4: w.path("alive.qmp")} {
		w.do(store.Intent{Kind: store.CreateVM, Data: fmt.Sprintf(`{"uuid":%q,"state":"running","qmp_socket":%q}`, uuid(n), path)})
	}
	qmptest.Start(t, dead, uuid(2), "").Kill()
	qmptest.Start(t, other, uuid(5), "")
	qmptest.Start(t, w.path("alive.qmp"), uuid(4), "").Set("paused", "STOP")
	w.hosts.Start()
	for n, state := range map[int]string{1: "stopped", 2: "stopped", 3: "stopped", 4: "paused", 5: "running"} {
		w.state(uuid(n), state)
	}
}

// TestComeAndGo: sockets that come and go leave nothing behind.
func TestComeAndGo(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	const n = 50
	all := make([]*qmptest.QEMU, n)
	for i := range all {
		all[i] = qmptest.Start(t, w.path(fmt.Sprint(i, ".qmp")), uuid(i), fmt.Sprint("vm", i))
	}
	for i := range all {
		w.state(uuid(i), "running")
	}
	for _, q := range all {
		q.Kill()
		if err := os.Remove(q.Path); err != nil {
			t.Fatal(err)
		}
	}
	for i := range all {
		w.state(uuid(i), "stopped")
	}
	w.eventually("no link is left", func() bool {
		w.hosts.mu.Lock()
		defer w.hosts.mu.Unlock()
		return len(w.hosts.links) == 0
	})
	for i := range all {
		w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(i))})
	}
	w.eventually("no machine is left", func() bool {
		w.hosts.mu.Lock()
		defer w.hosts.mu.Unlock()
		return len(w.hosts.machines) == 0
	})
}

// TestCloseLeavesTheStates: the QEMUs run on when the daemon ends.
func TestCloseLeavesTheStates(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	w.hosts.Close()
	if got := w.text(uuid(1), "state"); got != "running" {
		t.Errorf("state %q", got)
	}
	if _, err := w.verb(uuid(1), "stop"); err == nil {
		t.Error("a verb works after the end")
	}
}

func TestJournalIsBounded(t *testing.T) {
	j := newJournal(0)
	for i := range 2 * maxLines {
		j.add([]byte(fmt.Sprint(i)))
	}
	b, to, _ := j.Lines(0, 10)
	if want := fmt.Sprintf(`{"type":"lost","from":1,"to":%d}`+"\n", maxLines); string(b) != want || to != maxLines {
		t.Errorf("%q up to %d", b, to)
	}
	if b, to, _ = j.Lines(to, 8); string(b) != "256\n257\n" || to != maxLines+2 {
		t.Errorf("%q up to %d", b, to)
	}
	for range 20 {
		j.add(make([]byte, maxLineBytes-1))
	}
	if b, to, _ = j.Lines(j.Last()-4, 1<<20); len(b) != maxBytes || to != j.Last() {
		t.Errorf("%d bytes up to %d", len(b), to)
	}
	if _, lost := j.After(j.Last()-5, 0, nil); lost != j.Last()-4 {
		t.Errorf("lost up to %d of %d", lost, j.Last())
	}
}

// TestRestored: a fid on qmp/events that outlives the daemon is restored before QEMUs are
// looked for, and is told that it may have lost something; a VM that never had a QEMU
// has no qmp/ then either.
func TestRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone.qmp")
	w := newWorld(t, Config{}, `{"uuid":"`+uuid(1)+`","qmp_socket":"`+path+`"}`, `{"uuid":"`+uuid(2)+`"}`)
	if _, err := w.get(uuid(2), "qmp", "status"); err == nil {
		t.Error("a VM without a QEMU has qmp/")
	}
	id := fs.DerivedPath(w.store.Cell(uuid(1)).ID(), "qmp", "events")
	ref, err := w.view.Restore(fs.NodeState{Path: []string{"vms", uuid(1), "qmp", "events"}, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	h, err := ref.RestoreHandle(fs.HandleState{Flags: fs.Read, Rev: 12, Offset: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Drop()
	b := make([]byte, 1000)
	n, err := h.Read(b, 100)
	if want := `{"type":"lost","from":13,"to":`; err != nil || !strings.HasPrefix(string(b[:n]), want) {
		t.Errorf("%q, %v", b[:n], err)
	}
	w.hosts.Start()
	if _, err := h.Read(b, uint64(100+n)); err != fs.ErrWait {
		t.Errorf("then %v", err)
	}
}

// TestElsewhere: a QEMU whose VM another host has makes none, but brings it when its guest runs;
// one whose VM no host has makes it.
func TestElsewhere(t *testing.T) {
	var mu sync.Mutex
	told := map[string][]string{}
	fails := true
	w := newWorld(t, Config{ProbeTime: 10 * time.Millisecond, Elsewhere: func(_ context.Context, uuid, state string) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if fails {
			fails = false
			return false, errs.New(errs.IO, "it cannot be known now")
		}
		told[uuid] = append(told[uuid], state)
		return strings.HasSuffix(uuid, "1"), nil
	}})
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	q.Set("inmigrate", "STOP")
	w.hosts.Start()
	was := func(states ...string) {
		t.Helper()
		w.eventually(fmt.Sprint("told of ", states), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(told[uuid(1)], states)
		})
	}
	was("inmigrate")
	w.logged("it cannot be known now")
	q.Set("running", "RESUME")
	was("inmigrate", "running")
	qmptest.Start(t, w.path("b.qmp"), uuid(2), "new") // and probes of the first meanwhile
	w.state(uuid(2), "running")
	was("inmigrate", "running")
	if w.store.Cell(uuid(1)) != nil {
		t.Error("a VM is made that another host has")
	}
	w.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid(1) + `"}`}) // it has come
	w.state(uuid(1), "running")
	w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(1))}) // it has gone
	was("inmigrate", "running", "running")
}

// TestRuns: whether a guest runs is what its QEMU's newest event says, also while the QEMU does
// not answer, or has answered before that event.
func TestRuns(t *testing.T) {
	w := newWorld(t, Config{}, `{"uuid":"`+uuid(1)+`","qmp_socket":"x","state":"running"}`, `{"uuid":"`+uuid(3)+`","state":"running"}`)
	w.hosts.findEarlier()
	if !w.hosts.Runs(uuid(1)) || w.hosts.Runs(uuid(3)) || w.hosts.Runs(uuid(4)) {
		t.Error("before a QEMU was asked")
	}
	w.hosts.Start()
	w.state(uuid(1), "stopped") // there is no socket
	q := qmptest.Start(t, w.path("a.qmp"), uuid(2), "")
	w.state(uuid(2), "running")
	runs := func(want bool) {
		t.Helper()
		w.eventually(fmt.Sprint("it runs: ", want), func() bool { return w.hosts.Runs(uuid(2)) == want })
	}
	runs(true)
	q.Hang()
	q.Set("finish-migrate", "STOP")
	runs(false)
	q.GoOn()
	w.state(uuid(2), "finish-migrate")
	q.Hang()
	q.Set("running", "RESUME")
	runs(true)
	q.GoOn()
	w.state(uuid(2), "running")
	q.Kill()
	runs(false)

	m := newMachine(uuid(5))
	turn := m.turn()
	m.turned(false)
	m.setStatus([]byte("{}"), true, turn) // an answer to what was asked before the event
	if m.runs {
		t.Error("an old answer hides an event")
	}
}
