package bolt_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const uuid = "00000000-0000-4000-8000-00000000000a"

func open(t *testing.T, dir string, o bolt.Options) *bolt.Engine {
	t.Helper()
	e, err := bolt.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func openStore(t *testing.T, dir string, o bolt.Options) *store.Store {
	t.Helper()
	s, err := store.Open(open(t, dir, o), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(dir string) store.Engine { return open(t, dir, bolt.Options{}) })
}

// TestFailpoints has every call of the engine fail once.
func TestFailpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("every call of every round: not with -short")
	}
	storetest.RunFailpoints(t, func(dir string) store.Engine { return open(t, dir, bolt.Options{}) })
}

// smallLog has a log that is full after a few batches.
var smallLog = bolt.Options{Segment: 16 << 10}

// TestSuiteLogged runs the suite with a log that is begun at once and turns over
// often, and is left as by a kill.
func TestSuiteLogged(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite once more: TestSuite is enough with -short")
	}
	storetest.Run(t, func(dir string) store.Engine { return openLogged(t, dir) })
}

// logged is an engine whose log was begun before its user's first Apply: that takes a
// record of the marks, which it hides.
type logged struct {
	*bolt.Engine
	t     testing.TB
	dir   string
	marks []byte
}

func openLogged(t testing.TB, dir string) *logged {
	e, err := bolt.Open(dir, smallLog)
	if err != nil {
		t.Fatal(err)
	}
	l := &logged{Engine: e, t: t, dir: dir, marks: someMarks(t)}
	if e.Number("") == 0 {
		op := store.Op{Key: store.MarksKey(), Value: l.marks}
		if err := e.Apply([]store.Group{{Number: 1, Ops: []store.Op{op}}}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// someMarks is the record of the marks of some store.
func someMarks(t testing.TB) []byte {
	disk := storetest.NewDisk()
	s, err := store.Open(disk, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.Do(&store.Intent{Kind: store.Note, Event: store.QMP})
	_ = s.Close()
	return disk.Get(string(store.MarksKey()))
}

// Number counts from the user's first.
func (l *logged) Number(vm string) uint64 { return l.Engine.Number(vm) - 1 }

func (l *logged) Apply(groups []store.Group) []error {
	for i := range groups {
		groups[i].Number++
	}
	return l.Engine.Apply(groups)
}

func (l *logged) Scan(fn func(key, value []byte) error) error {
	return l.Engine.Scan(func(key, value []byte) error {
		if string(key) == string(store.MarksKey()) && string(value) == string(l.marks) {
			return nil
		}
		return fn(key, value)
	})
}

// Close closes the engine and leaves the files as they were before that.
func (l *logged) Close() error {
	var files [][]byte
	_ = l.Scan(func(_, _ []byte) error { return nil }) // a checkpoint is over
	names := []string{bolt.FileName, bolt.LogName}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		if err != nil {
			l.t.Error(err)
		}
		files = append(files, b)
	}
	if err := l.Engine.Close(); err != nil {
		return err
	}
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(l.dir, name), files[i], 0o600); err != nil {
			l.t.Error(err)
		}
	}
	return nil
}

func TestModes(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "a", "data")
	defer func() { _ = open(t, dir, bolt.Options{}).Close() }()
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, bolt.FileName): 0o600} {
		e := open(t, dir, bolt.Options{})
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
		_ = e.Close()
	}
}

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir, bolt.Options{})
	for _, o := range []bolt.Options{{Timeout: time.Millisecond}, {Timeout: time.Millisecond, ReadOnly: true}} {
		if _, err := bolt.Open(dir, o); !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	_ = e.Close()
	a, b := open(t, dir, bolt.Options{ReadOnly: true}), open(t, dir, bolt.Options{ReadOnly: true})
	_, _ = a.Close(), b.Close()
}

func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := bolt.Open(dir, bolt.Options{ReadOnly: true}); errs.KindOf(err) != errs.IO {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a check makes the folder:", err)
	}
	s := openStore(t, dir, bolt.Options{})
	fill(t, s, 10)
	_ = s.Close()
	before, err := os.ReadFile(filepath.Join(dir, bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, dir, bolt.Options{ReadOnly: true})
	st, err := store.Check(e, func(d store.Damage) { t.Error(d) })
	if err != nil || st.VMs != 1 || st.Keys != 10 {
		t.Errorf("%+v, %v", st, err)
	}
	groups := []store.Group{{Number: 1 << 20, Ops: []store.Op{{Key: []byte("k"), Value: []byte("v")}}}}
	if err := e.Apply(groups); len(err) != 1 || errs.KindOf(err[0]) != errs.IO {
		t.Error("Apply:", err)
	}
	_ = e.Close()
	if after, err := os.ReadFile(filepath.Join(dir, bolt.FileName)); err != nil || string(after) != string(before) {
		t.Error("a check changes the file")
	}
}

func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/no such folder"} {
		if _, err := bolt.Open(dir, bolt.Options{}); errs.KindOf(err) != errs.IO {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// fill creates the VM and so many keys of 1000 bytes.
func fill(t *testing.T, s *store.Store, keys int) {
	t.Helper()
	if r := s.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for i := range keys {
		if r := write(s, fmt.Sprintf("key-%d", i), 1000); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

func write(s *store.Store, name string, size int) store.Result {
	return s.Do(&store.Intent{Kind: store.Put, Cell: s.Cell(uuid), Name: name, Data: strings.Repeat("x", size)})
}

// TestSizeLimit lets the file grow to a limit: what does not fit is refused, all
// that was acknowledged is there, and what fits later is taken.
func TestSizeLimit(t *testing.T) {
	testFull(t, t.TempDir(), bolt.Options{MaxSize: 40 << 20})
}

// TestFullDisk does the same on a file system that is full.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skip("cannot mount a small file system here:", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	testFull(t, filepath.Join(dir, "data"), bolt.Options{})
}

func testFull(t *testing.T, dir string, o bolt.Options) {
	s := openStore(t, dir, o)
	fill(t, s, 10)
	full, said := false, ""
	for i := 0; i < 200 && !full; i++ {
		r := write(s, fmt.Sprintf("large-%d", i%14), 1<<20-i)
		if full = r.Err != nil; full && !errors.Is(r.Err, errs.NoSpace) {
			t.Fatal(r.Err)
		}
		if full {
			said = r.Err.Error()
		}
	}
	if !full || s.Err() != nil {
		t.Fatalf("full: %v, Err: %v", full, s.Err())
	}
	if strings.Contains(said, dir) {
		t.Errorf("a guest learns where the data is: %s", said)
	}
	for i := range 14 {
		s.Do(&store.Intent{Kind: store.Remove, Cell: s.Cell(uuid), Name: fmt.Sprintf("large-%d", i)})
	}
	if r := write(s, "small", 100); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := write(s, "large", 1<<20); r.Err != nil {
		t.Fatal(r.Err)
	}
	rows := storetest.Rows(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e := open(t, dir, bolt.Options{ReadOnly: true})
	if _, err := store.Check(e, func(d store.Damage) { t.Error(d) }); err != nil {
		t.Error(err)
	}
	_ = e.Close()
	s = openStore(t, dir, o)
	if got := storetest.Rows(s); fmt.Sprint(got) != fmt.Sprint(rows) || s.Cell(uuid).VM().Get(vm.Keys, "small") == nil {
		t.Error("after reopen the rows differ")
	}
	_ = s.Close()
}
