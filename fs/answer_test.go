package fs_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
)

// echo is a verb that answers what it was given, and fails if that is "fail".
func echo(c fs.Call, done func(error)) {
	c.Answer([]byte("<" + c.Arg + ">"))
	if c.Arg == "fail" {
		done(errs.New(errs.Invalid, "as asked"))
		return
	}
	done(nil)
}

func echoWorld(t *testing.T) *client {
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) { tree.VMVerb("echo", echo) })
	c := w.admin()
	t.Cleanup(c.view.Close)
	return c
}

// TestAnswers: what a verb answers is read from the Handle that it was written to,
// from wherever the reader goes on, and by nobody else.
func TestAnswers(t *testing.T) {
	c := echoWorld(t)
	h, other := c.open(fs.Read|fs.Write, "vms", vmA, "ctl"), c.open(fs.Read, "vms", vmA, "ctl")
	state := c.mustRead(h, 0, 1000)
	if state == "" || state != c.mustRead(other, 0, 1000) {
		t.Fatalf("state %q", state)
	}
	say := func(line, want string) {
		t.Helper()
		if _, err := c.write(h, 0, line); kindName(err) != want {
			t.Errorf("%q: %v", line, err)
		}
	}
	reads := func(off uint64, n int, want string) {
		t.Helper()
		if got := c.mustRead(h, off, n); got != want {
			t.Errorf("at %d: %q, want %q", off, got, want)
		}
	}
	say("echo one\n", "ok")
	reads(9, 3, "<on") // where a Linux file stands after the write
	reads(12, 100, "e>")
	reads(14, 100, "")
	reads(9, 100, "<one>")
	reads(0, 100, "<one>")
	reads(1, 100, "one>")
	say("echo two\necho three\n", "ok")
	reads(0, 100, "<three>")
	reads(1<<40, 100, "")
	say("echo fail\necho never\n", "Invalid")
	reads(0, 100, "<fail>")
	if got := c.mustRead(other, 0, 1000); got != state {
		t.Errorf("another reads %q", got)
	}
	blind := c.open(fs.Write, "vms", vmA, "ctl")
	if _, err := c.write(blind, 0, "echo x\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.read(blind, 0, 10); kindName(err) != "BadUse" {
		t.Errorf("read of what is open for writing: %v", err)
	}
}

// TestAnswersRestore: an answer is still there when the session is, read or not.
func TestAnswersRestore(t *testing.T) {
	c := echoWorld(t)
	h := c.open(fs.Read|fs.Write, "vms", vmA, "ctl")
	restore := func() fs.Handle {
		t.Helper()
		r, err := c.walk("vms", vmA, "ctl").RestoreHandle(h.State())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := c.write(h, 0, "echo one\nec"); err != nil {
		t.Fatal(err)
	}
	h = restore()
	if got := c.mustRead(h, 5, 2) + c.mustRead(h, 7, 100); got != "<one>" {
		t.Errorf("%q", got)
	}
	h = restore()
	if got := c.mustRead(h, 7, 100); got != "ne>" {
		t.Errorf("%q", got)
	}
	if _, err := c.write(h, 0, "ho two\n"); err != nil {
		t.Fatal(err)
	}
	if got := c.mustRead(h, 0, 100); got != "<two>" {
		t.Errorf("%q", got)
	}
}

// list is a Source that keeps its last lines.
type list struct {
	mu    sync.Mutex
	lines []string
	first uint64 // how many were dropped
	wakes []func()
}

func (l *list) add(line string) {
	l.mu.Lock()
	l.lines = append(l.lines, line)
	if len(l.lines) > 3 {
		l.lines, l.first = l.lines[1:], l.first+1
	}
	wakes := l.wakes
	l.wakes = nil
	l.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

func (l *list) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first + uint64(len(l.lines))
}

func (l *list) Lines(after uint64, _ int) (b []byte, to uint64, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if to = after; to < l.first {
		b = fs.AppendLost(b, to+1, l.first)
		to = l.first
	}
	for _, line := range l.lines[to-l.first:] {
		b = append(append(b, line...), '\n')
		to++
		ended = ended || line == "end"
	}
	return b, to, ended
}

func (l *list) Wait(after uint64, wake func()) (cancel func(), ready bool) {
	if l.Last() > after {
		return func() {}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakes = append(l.wakes, wake)
	return func() {}, false
}

// TestStream: a stream that is grafted behaves as events do.
func TestStream(t *testing.T) {
	var src list
	src.add("before the open")
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) {
		tree.GraftVM("log", func(_ *fs.View, c *store.Cell) fs.Node {
			return fs.NewStream(fs.DerivedPath(c.ID(), "", "log"), 0o400, &src)
		}, true)
	})
	c := w.admin()
	defer c.view.Close()
	var st fs.Stat
	if err := c.walk("vms", vmA, "log").Stat(&st); err != nil || st.Name != "log" || st.Mode != 0o400 || st.Length != 0 || st.QID.Version != 0 {
		t.Errorf("%+v: %v", st, err)
	}
	if _, err := c.walk("vms", vmA, "log").Open(fs.Write); kindName(err) != "Permission" && kindName(err) != "NotPermitted" {
		t.Errorf("open for writing: %v", err)
	}
	h := c.open(fs.Read, "vms", vmA, "log")
	if _, err := c.read(h, 0, 100); kindName(err) != "Again" {
		t.Errorf("nothing is there: %v", err)
	}
	woken := false
	if _, ready := h.(fs.Waiter).Wait(func() { woken = true }); ready {
		t.Error("ready")
	}
	src.add("one")
	if !woken {
		t.Error("not woken")
	}
	if got := c.mustRead(h, 0, 100) + c.mustRead(h, 0, 100); got != "one\none\n" {
		t.Errorf("%q", got)
	}
	for _, line := range []string{"2", "3", "4", "end"} {
		src.add(line)
	}
	if got := c.mustRead(h, 4, 100); got != `{"type":"lost","from":3,"to":3}`+"\n3\n4\nend\n" {
		t.Errorf("%q", got)
	}
	if _, err := c.read(h, 1000, 100); kindName(err) != "Gone" {
		t.Errorf("after the end: %v", err)
	}
}

// TestLinesLeaveCommitter: what follows a line that has waited for its commit is not run in
// the committer, which others wait for.
func TestLinesLeaveCommitter(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) {
		tree.VMVerb("long", func(_ fs.Call, done func(error)) {
			close(begun)
			<-end
			done(nil)
		})
	})
	c := w.admin()
	t.Cleanup(c.view.Close)
	h := c.open(fs.Write, "vms", vmA, "ctl")
	written := make(chan error, 1)
	line := `update {"hostname":"other"}` + "\nlong\n" + `update {"ram":9}` + "\n"
	h.Write([]byte(line), 0, c.root.By(), func(_ int, err error) { written <- err })
	<-begun
	put := make(chan error, 1)
	w.st.Submit(&store.Intent{
		Kind: store.Put, Cell: w.cell(vmB), Name: "color", Data: "x", By: "other",
		Done: func(r store.Result) { put <- r.Err },
	})
	select {
	case err := <-put:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(wait):
		t.Error("another VM's change waits for the line")
	}
	close(end)
	if err := c.settle(written); err != nil {
		t.Error(err)
	}
}

// receipts is a journal that takes nothing.
type receipts struct{}

func (receipts) Begun(uint64, []store.Event) {}
func (receipts) Failed(uint64, []string)     {}

// TestReceiptOfKeys: the receipt of a request on a key is not given to a transaction, also not
// to one that is only sent then, because the line before it had to wait.
func TestReceiptOfKeys(t *testing.T) {
	e := &storetest.Recorder{Engine: store.NewMemory()}
	w := worldOn(t, e, store.Config{Journal: receipts{}}, nil)
	c := w.guest(vmA)
	t.Cleanup(c.view.Close)
	h, key := c.open(fs.Write, "txn"), c.open(fs.Write, "keys", "color")
	entered, release := e.Block()
	written := make(chan error, 1)
	h.Write([]byte(`{"do":[{"put":"a","value":"1"}]}`+"\n"+`{"do":[{"put":"b","value":"2"}]}`+"\n"), 0, c.root.By(),
		func(_ int, err error) { written <- err })
	<-entered
	var of []string
	c.view.Receipt(func(_ uint64, r store.Result) {
		name := "a transaction"
		if r.Entry != nil {
			name = r.Entry.Name
		}
		of = append(of, name)
	})
	release()
	if err := c.settle(written); err != nil {
		t.Fatal(err)
	}
	if _, err := c.write(key, 0, "red"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(of, []string{"color"}) {
		t.Errorf("the receipt is of %q", of)
	}
}
