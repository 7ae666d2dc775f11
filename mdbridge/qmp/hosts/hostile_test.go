package hosts

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"meta9/fs"
	"meta9/fs/cpu"
	"meta9/fs/store"
	"meta9/macro"
	"meta9/mdbridge/qmp/qmptest"
)

// TestStates: a state that no QEMU has is shown as unknown, and said once; a state that
// one has follows.
func TestStates(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	for _, state := range []string{"installed", "\x1b[31mrunning", "run\u202eing", strings.Repeat("x", maxUnasked/2), ""} {
		q.Set(state, "STOP")
		w.state(uuid(1), "unknown")
		if got, err := w.get(uuid(1), "qmp", "status"); err != nil || got != `{"status":"unknown","running":false}`+"\n" {
			t.Errorf("%.80q: status %.200q: %v", state, got, err)
		}
		q.Set("paused", "STOP")
		w.state(uuid(1), "paused")
	}
	if n := w.log.Count("says a state that none has"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestTexts: what a QEMU says is printable and short in the log and in the files.
func TestTexts(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web\u202e"+strings.Repeat("x", 100_000))
	w.state(uuid(1), "running")
	if got := w.text(uuid(1), "alias"); got != "" {
		t.Errorf("an alias of %d bytes", len(got))
	}
	q.Set("paused", "E\u202e\u009b"+strings.Repeat("x", 10_000))
	q.Set("paused", "STOP")
	w.state(uuid(1), "paused")
	journal, _, _ := w.hosts.machine(uuid(1)).events.Lines(0, 1<<20)
	log := w.log.String()
	for what, text := range map[string]string{"the log": log, "qmp/events": string(journal)} {
		if text == "" || strings.ContainsAny(text, "\u202e\u009b") {
			t.Errorf("%s: %.300q", what, text)
		}
	}
	if len(log) > 10_000 {
		t.Errorf("the log has %d bytes", len(log))
	}
	events, _ := w.store.Cell(uuid(1)).Ring().After(0, 0, nil)
	for _, e := range events {
		if e.Type == store.QMP && (len(e.Key) > 300 || strings.ContainsAny(e.Key, "\u202e\u009b")) {
			t.Errorf("an event of %d bytes: %.80q", len(e.Key), e.Key)
		}
	}
}

// TestSocketMakesOneVM: a QEMU that is another each time makes no VM each time; it is a
// known one all the same, and makes another when the one was deleted.
func TestSocketMakesOneVM(t *testing.T) {
	w := newWorld(t, Config{}, `{"uuid":"`+uuid(9)+`"}`)
	w.hosts.Start()
	for _, n := range []int{1, 9} {
		q := qmptest.Start(t, w.path("a.qmp"), uuid(n), "")
		w.state(uuid(n), "running")
		q.Kill()
	}
	qmptest.Start(t, w.path("a.qmp"), uuid(2), "")
	w.logged("has made VM " + uuid(1))
	if n := w.store.Count(); n != 2 {
		t.Errorf("%d VMs", n)
	}
	w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(1))})
	w.state(uuid(2), "running")
}

// TestVMs: past the number that QEMUs may make there are those that were known.
func TestVMs(t *testing.T) {
	w := newWorld(t, Config{VMs: 2}, `{"uuid":"`+uuid(9)+`"}`)
	w.hosts.Start()
	for n := range 2 {
		qmptest.Start(t, w.path(fmt.Sprint(n, ".qmp")), uuid(n), "")
		w.state(uuid(n), "running")
	}
	qmptest.Start(t, w.path("2.qmp"), uuid(2), "")
	qmptest.Start(t, w.path("9.qmp"), uuid(9), "")
	w.state(uuid(9), "running")
	w.logged("qmp.vms in the settings is 2")
	if n := w.store.Count(); n != 3 {
		t.Errorf("%d VMs", n)
	}
}

// TestPinned: a socket that is bound to a VM is no other's.
func TestPinned(t *testing.T) {
	w := newWorld(t, Config{Bind: map[string]string{"a.qmp": strings.ToUpper(uuid(1)), "b.qmp": uuid(3)}})
	w.hosts.Start()
	qmptest.Start(t, w.path("a.qmp"), uuid(1), "")
	qmptest.Start(t, w.path("b.qmp"), uuid(2), "")
	w.state(uuid(1), "running")
	w.logged("its socket is VM " + uuid(3) + "'s")
	if n := w.store.Count(); n != 1 {
		t.Errorf("%d VMs", n)
	}
}

// TestEventRate: of events without end some are kept, and the state is followed.
func TestEventRate(t *testing.T) {
	const events = 5000
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	journal := w.hosts.machine(uuid(1)).events
	before := journal.Last()
	for range events {
		q.Set("running", "RESUME")
	}
	q.Set("paused", "STOP")
	w.state(uuid(1), "paused")
	if n := journal.Last() - before; n < eventBurst || n > events/2 {
		t.Errorf("%d of %d events are kept", n, events)
	}
}

// TestLongMessage: a QEMU that sends a long message unasked is left, and is met again.
func TestLongMessage(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	q.Set("paused", strings.Repeat("x", 2*maxUnasked))
	w.logged("larger than the limit")
	w.state(uuid(1), "paused")
}

// TestReadingCosts: what is read of a QEMU takes the time of its VM.
func TestReadingCosts(t *testing.T) {
	w := newWorld(t, Config{}, fmt.Sprintf(`{"uuid":%q}`, uuid(2)))
	w.hosts.Start()
	q := qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	share, other := w.store.Cell(uuid(1)).CPU(), w.store.Cell(uuid(2)).CPU()
	end := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				q.Set("running", "RESUME")
			}
		}
	})
	defer busy.Wait()
	defer close(end)
	w.eventually("the VM has to rest", func() bool {
		var place cpu.Place // a VM that is alone never rests
		place.Take(other)
		place.Give()
		return share.Rest() > 0
	})
}

// TestAliasGivenUp: the name of a QEMU is its VM's alias while nobody else asks for that.
func TestAliasGivenUp(t *testing.T) {
	w := newWorld(t, Config{})
	w.hosts.Start()
	qmptest.Start(t, w.path("a.qmp"), uuid(1), "web")
	w.state(uuid(1), "running")
	leads := func(n int) {
		t.Helper()
		if c := w.store.Alias("web"); c == nil || c.UUID() != uuid(n) {
			t.Errorf("web does not lead to VM %d", n)
		}
		if at, err := macro.Find(w.root, []string{"names", "web"}); err != nil || at.QID().Path != w.store.Cell(uuid(n)).ID() {
			t.Errorf("names/web does not lead to VM %d: %v", n, err)
		}
		listed := 0
		err := macro.List(w.root, []string{"names"}, func(st *fs.Stat) bool {
			if listed++; st.Name != "web" || st.QID.Path != w.store.Cell(uuid(n)).ID() {
				t.Errorf("names/ lists %s", st.Name)
			}
			return true
		})
		if err != nil || listed != 1 {
			t.Errorf("names/ lists %d: %v", listed, err)
		}
	}
	leads(1)
	w.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid(2) + `","alias":"web"}`})
	leads(2)
	w.do(store.Intent{Kind: store.UpdateVM, Cell: w.store.Cell(uuid(2)), Data: `{"alias":null}`})
	leads(1)
	w.do(store.Intent{Kind: store.UpdateVM, Cell: w.store.Cell(uuid(2)), Data: `{"alias":"web"}`})
	leads(2)
	w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(2))})
	leads(1)
	if got := w.text(uuid(1), "alias"); got != "web" {
		t.Errorf("its alias is %q", got)
	}
}
