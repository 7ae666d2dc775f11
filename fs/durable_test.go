package fs_test

import (
	"errors"
	"testing"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/storetest"
)

// TestScriptsOnBolt plays all scripts over the real engine.
func TestScriptsOnBolt(t *testing.T) {
	playScripts(t, func(t *testing.T) store.Engine {
		e, err := bolt.Open(t.TempDir()+"/db", bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	})
}

// pending is an answer that may not have come yet.
type pending chan error

func (p pending) done(err error) { p <- err }

func (p pending) answered() bool { return len(p) > 0 }

// TestNothingIsSeenBeforeItIsDurable: while a commit is on its way to the disk,
// everybody reads what was there before; a truncation that a clunk commits is
// seen by its own View all the time.
func TestNothingIsSeenBeforeItIsDurable(t *testing.T) {
	rec := &storetest.Recorder{Engine: store.NewMemory()}
	w := worldOn(t, rec, store.Config{}, nil)
	a, b := w.guest(vmA), w.guest(vmA)
	defer a.view.Close()
	defer b.view.Close()
	look := func(c *client) string {
		h := c.open(fs.Read, "keys", "color")
		defer h.Drop()
		return c.mustRead(h, 0, 9)
	}
	check := func(when, wantA, wantB string) {
		t.Helper()
		if gotA, gotB := look(a), look(b); gotA != wantA || gotB != wantB {
			t.Errorf("%s: %q and %q, want %q and %q", when, gotA, gotB, wantA, wantB)
		}
	}
	h := a.open(fs.Write, "keys", "color")
	entered, release := rec.Block()
	write := make(pending, 1)
	h.Write([]byte("B"), 0, fs.Author{By: "a"}, func(_ int, err error) { write.done(err) })
	await(t, entered)
	check("write on its way", "blue", "blue")
	if write.answered() {
		t.Error("answered before it is durable")
	}
	release()
	if err := a.settle(write); err != nil {
		t.Fatal(err)
	}
	check("written", "Blue", "Blue")

	var zero uint64
	if err := a.await(func(done func(error)) { h.SetStat(fs.Change{Length: &zero}, fs.Author{By: "a"}, done) }); err != nil {
		t.Fatal(err)
	}
	entered, release = rec.Block()
	clunk := make(pending, 1)
	h.Clunk(fs.Author{By: "a"}, clunk.done)
	await(t, entered)
	check("clunk on its way", "", "Blue")
	release()
	if err := a.settle(clunk); err != nil {
		t.Fatal(err)
	}
	check("clunked", "", "")
}

func await(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(wait):
		t.Fatal("nothing came")
	}
}

// TestFailingDisk: a commit that fails is an error to who waits for it; a
// truncation that it was to commit is forgotten, and reads go on.
func TestFailingDisk(t *testing.T) {
	for _, failure := range []error{errors.New("the disk is gone"), errs.NoSpace} {
		w := worldOn(t, &storetest.Failing{Engine: store.NewMemory(), Nth: 3, Err: failure}, store.Config{}, nil)
		c := w.guest(vmA)
		defer c.view.Close()
		r := c.open(fs.Read, "keys", "color")
		h := c.open(fs.Write|fs.Trunc, "keys", "color")
		if got := c.mustRead(r, 0, 9); got != "" {
			t.Errorf("truncated: %q", got)
		}
		err := c.await(func(done func(error)) { h.Clunk(fs.Author{By: "me"}, done) })
		if err == nil || errs.KindOf(err) != errs.KindOf(failure) {
			t.Errorf("clunk: %v, want %v", err, failure)
		}
		if got := c.mustRead(r, 0, 9); got != "blue" {
			t.Errorf("after the failure: %q", got)
		}
		h = c.open(fs.Write, "keys", "color")
		_, err = c.write(h, 0, "x")
		if full := failure == errs.NoSpace; full != (err == nil) {
			t.Errorf("the next write after %v: %v", failure, err)
		}
	}
}

// TestViewClosedWhileACreateIsOnItsWay leaves nothing open.
func TestViewClosedWhileACreateIsOnItsWay(t *testing.T) {
	rec := &storetest.Recorder{Engine: store.NewMemory()}
	w := worldOn(t, rec, store.Config{}, nil)
	c := w.guest(vmA)
	entered, release := rec.Block()
	created := make(pending, 1)
	c.walk("keys").Create("new", fs.Read, false, func(_ *fs.Ref, _ fs.Handle, err error) { created.done(err) })
	await(t, entered)
	c.view.Close()
	release()
	if err := c.settle(created); err != nil {
		t.Fatal(err)
	}
	w.checkClosed()
}

// TestUnsettledView: a View that makes a thousand changes without a settle need not know
// of each: it looks at everything anew once.
func TestUnsettledView(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	h, other := c.open(fs.Read|fs.Write, "keys", "color"), c.open(fs.Read|fs.Write, "keys", "motd")
	answers := make(pending, 1000)
	for range 1000 {
		h.Write([]byte("x"), 0, fs.Author{By: "me"}, func(_ int, err error) { answers.done(err) })
	}
	for range 1000 {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	w.put(vmA, "motd", "Hello")
	c.view.Settle()
	if got := c.mustRead(h, 1, 9) + c.mustRead(other, 1, 9); got != "lueello" {
		t.Errorf("read %q", got)
	}
	w.put(vmA, "color", "green")
	if got := c.mustRead(h, 1, 9); got != "lue" {
		t.Errorf("read %q after another's commit", got)
	}
}

// TestStatFS tells limits and use of a VM.
func TestStatFS(t *testing.T) {
	w := newWorld(t, store.Config{})
	guest, admin := w.guest(vmB), w.admin()
	defer guest.view.Close()
	defer admin.view.Close()
	lim := w.st.Limits()
	for _, r := range []*fs.Ref{guest.root, guest.walk("keys", "color"), admin.walk("vms", vmB), admin.walk("names", "db%2F1", "sdc")} {
		st := r.StatFS()
		if got := int64(st.Blocks) * int64(st.BlockSize); got != lim.Bytes || int(st.Files) != lim.Keys {
			t.Errorf("%d bytes and %d keys, want %d and %d", got, st.Files, lim.Bytes, lim.Keys)
		}
		if st.BlocksFree != st.Blocks-1 || st.BlocksAvailable != st.BlocksFree || st.FilesFree != st.Files-1 {
			t.Errorf("free: %d of %d blocks, %d of %d files", st.BlocksFree, st.Blocks, st.FilesFree, st.Files)
		}
		if st.NameLength != 255 || st.FSID != w.cell(vmB).ID() {
			t.Errorf("%+v", st)
		}
	}
	st := admin.root.StatFS()
	if st.Files != uint64(2*lim.Keys) || st.Files-st.FilesFree != 10 {
		t.Errorf("root: %+v", st)
	}
}
