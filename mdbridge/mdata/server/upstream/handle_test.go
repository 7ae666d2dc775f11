package upstream_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
)

// open opens keys/NAME.
func open(t *testing.T, root place, name string, f fs.Flags) opened {
	t.Helper()
	r, err := root.find("keys", name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := r.open(f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func write(h fs.Handle, off uint64, data string) error {
	return wait(func(done func(error)) {
		h.Write([]byte(data), off, fs.Author{}, func(_ int, err error) { done(err) })
	})
}

func read(t *testing.T, h fs.Handle, off uint64) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := h.Read(b, off)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func clunk(t *testing.T, h fs.Handle) {
	t.Helper()
	if err := wait(func(done func(error)) { h.Clunk(fs.Author{}, done) }); err != nil {
		t.Error(err)
	}
}

func setLength(h fs.Handle, n uint64) error {
	return wait(func(done func(error)) { h.SetStat(fs.Change{Length: &n}, fs.Author{}, done) })
}

// What programs do with open files, and what the service then has.
func TestHandles(t *testing.T) {
	path, cell, _ := there(t)
	root := shown(t, path)
	has := func(want string) {
		t.Helper()
		if got := stored(cell)["color"]; got != want {
			t.Errorf("the service has %q, want %q", got, want)
		}
	}

	h := open(t, root, "color", fs.Read|fs.Write|fs.Trunc) // echo red >color
	has("blue")
	if got := read(t, h, 0); got != "" {
		t.Errorf("read %q after the truncation", got)
	}
	if err := write(h, 0, "red\n"); err != nil {
		t.Error(err)
	}
	has("red\n")
	if got := read(t, h, 0); got != "red\n" {
		t.Errorf("read %q", got)
	}
	clunk(t, h)

	h = open(t, root, "color", fs.Write|fs.AppendTo) // echo too >>color
	if err := errors.Join(write(h, 0, "too"), write(h, 0, "\n")); err != nil {
		t.Error(err)
	}
	clunk(t, h)
	has("red\ntoo\n")

	h = open(t, root, "color", fs.Read|fs.Write)
	if err := write(h, 1, "EE"); err != nil {
		t.Error(err)
	}
	var st fs.Stat
	if err := h.Stat(&st); err != nil || st.Length != 8 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := setLength(h, 2); err != nil {
		t.Error(err)
	}
	has("rE")
	if got := read(t, h, 0) + read(t, h, 1); got != "rEE" {
		t.Errorf("read %q", got)
	}
	if err := setLength(h, 0); err != nil {
		t.Error(err)
	}
	has("rE")
	clunk(t, h) // :>color
	has("")
}

// The value is that of the last read at offset 0, and then the newest.
func TestReadsAgain(t *testing.T) {
	path, cell, st := there(t)
	root := shown(t, path)
	h := open(t, root, "color", fs.Read)
	defer clunk(t, h)
	st.Do(&store.Intent{Kind: store.Put, Cell: cell, Name: "color", Data: "green"})
	for _, want := range []string{"blue", "lue"} {
		if got := read(t, h, uint64(4-len(want))); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	if got := read(t, h, 0); got != "green" {
		t.Errorf("read %q", got)
	}
	if err := write(h, 0, "x"); !errors.Is(err, errs.BadUse) {
		t.Error(err)
	}
}

// A new file is the service's with its first write, or with its clunk.
func TestCreate(t *testing.T) {
	path, cell, _ := there(t)
	root := shown(t, path)
	keys, err := root.Walk("keys")
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string, f fs.Flags) (h opened, err error) {
		err = wait(func(done func(error)) {
			keys.Create(name, f, false, func(_ *fs.Ref, made fs.Handle, err error) {
				h = opened{made, root}
				done(err)
			})
		})
		return h, err
	}
	h, err := create("new", fs.Write)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := stored(cell)["new"]; there {
		t.Error("it is there already")
	}
	if err := write(h, 0, "v"); err != nil {
		t.Error(err)
	}
	clunk(t, h)
	if h, err = create("touched", fs.Read); err != nil {
		t.Fatal(err)
	}
	clunk(t, h)
	if h, err = create("color", fs.Read); err != nil || read(t, h, 0) != "blue" {
		t.Error(err)
	}
	if _, err = create("color", fs.Write|fs.Excl); !errors.Is(err, errs.Exists) {
		t.Error(err)
	}
	if _, err = create("a\nb", fs.Write); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	if s := stored(cell); s["new"] != "v" || s["color"] != "blue" || len(s) != 5 {
		t.Errorf("%q", s)
	}
}

// A refused write keeps the old value: the truncation before it is dropped.
func TestRefusedWrite(t *testing.T) {
	path, cell, _ := there(t)
	root := shown(t, path)
	h := open(t, root, "color", fs.Write|fs.Trunc)
	if err := write(h, 0, strings.Repeat("x", 2<<20)); !errors.Is(err, errs.NotPermitted) || !strings.Contains(err.Error(), "1048576") {
		t.Error(err)
	}
	if err := write(h, 1<<60, "x"); !errors.Is(err, errs.TooLarge) {
		t.Error(err)
	}
	clunk(t, h)
	if got := stored(cell)["color"]; got != "blue" {
		t.Error(got)
	}
}

// Writes that come before the first is done are made in order.
func TestWritesInOrder(t *testing.T) {
	path, cell, _ := there(t)
	h := open(t, shown(t, path), "color", fs.Write|fs.Trunc)
	var wg sync.WaitGroup
	var want strings.Builder
	for i := range 50 {
		piece := strings.Repeat(string(rune('a'+i%26)), i)
		wg.Add(1)
		h.Write([]byte(piece), uint64(want.Len()), fs.Author{}, func(_ int, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		})
		want.WriteString(piece)
	}
	wg.Wait()
	clunk(t, h)
	if got := stored(cell)["color"]; got != want.String() {
		t.Errorf("%q", got)
	}
}
