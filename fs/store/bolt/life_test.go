package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/storetest"
)

// copyFiles copies the files of a data folder, as they are after a SIGKILL now.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{bolt.FileName, bolt.LogName, bolt.AckedName} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// killed is a data folder whose log holds the last of so many keys, and the rows.
func killed(t *testing.T, keys int) (dir, rows string) {
	t.Helper()
	from := t.TempDir()
	s := openStore(t, from, bolt.Options{})
	fill(t, s, keys)
	dir, rows = t.TempDir(), fmt.Sprint(storetest.Rows(s))
	copyFiles(t, from, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, rows
}

// raw is the data file as a version sees it that knows of no log.
type raw struct {
	store.Engine
	path string
}

func (r raw) Scan(fn func(key, value []byte) error) error {
	db, err := bbolt.Open(r.path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta9")).ForEach(fn) })
}

// TestOlderVersions: while the log holds anything they refuse the folder, with the
// words that they have for a format; after a stop they find everything.
func TestOlderVersions(t *testing.T) {
	dir, rows := killed(t, 10)
	older := raw{path: filepath.Join(dir, bolt.FileName)}
	var damage []string
	if _, err := store.Check(older, func(d store.Damage) { damage = append(damage, d.String()) }); err != nil {
		t.Fatal(err)
	}
	if len(damage) == 0 || !strings.Contains(damage[0], "format 2 is not known to this version") {
		t.Errorf("it finds %q", damage)
	}
	s := openStore(t, dir, bolt.Options{})
	if got := fmt.Sprint(storetest.Rows(s)); got != rows {
		t.Error("the log's keys are not there")
	}
	write(s, "last", 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := store.Check(older, func(d store.Damage) { t.Error("after a stop:", d) })
	if err != nil || st.Keys != 11 {
		t.Errorf("after a stop: %+v, %v", st, err)
	}
}

// TestCheckReadsTheLog: a check sees what the log holds, and changes neither file.
func TestCheckReadsTheLog(t *testing.T) {
	dir, _ := killed(t, 10)
	before, err := os.ReadFile(filepath.Join(dir, bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, dir, bolt.Options{ReadOnly: true})
	st, err := store.Check(e, func(d store.Damage) { t.Error(d) })
	if err != nil || st.Keys != 10 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, bolt.FileName)); err != nil || string(after) != string(before) {
		t.Error("a check changes the file")
	}
}

// TestWrongLog: a log that the data file needs must be there, be its own and whole;
// one that it does not need may be anything.
func TestWrongLog(t *testing.T) {
	dir, rows := killed(t, 10)
	other, _ := killed(t, 3)
	log := filepath.Join(dir, bolt.LogName)
	good, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other, bolt.LogName))
	if err != nil {
		t.Fatal(err)
	}
	half := 4 << 20
	flipped := append([]byte(nil), good...)
	flipped[half+4096*3+100] ^= 1 // the log begins in its second segment
	for _, c := range []struct {
		name, says string
		file       []byte
	}{
		{"none", "not there", nil},
		{"cut", "bytes", good[:len(good)-4096]},
		{"a record damaged", "damaged", flipped},
	} {
		if err := os.WriteFile(log, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.file == nil {
			_ = os.Remove(log)
		}
		for _, o := range []bolt.Options{{ReadOnly: true}, {}} {
			e, err := bolt.Open(dir, o)
			if errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), bolt.LogName) {
				t.Errorf("%s: %v", c.name, err)
			}
			if err == nil {
				_ = e.Close()
			}
		}
		to := t.TempDir()
		copyFiles(t, dir, to)
		e := open(t, to, bolt.Options{Salvage: true})
		if len(e.Remarks()) == 0 {
			t.Errorf("%s: nothing is said of what salvage lost", c.name)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(log, good, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, bolt.Options{})
	if got := fmt.Sprint(storetest.Rows(s)); got != rows {
		t.Error("the log's keys are not there")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range [][]byte{good, foreign, []byte("noise")} {
		if err := os.WriteFile(log, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir, bolt.Options{})
		if got := fmt.Sprint(storetest.Rows(s)); got != rows {
			t.Error("after a stop, a log that is not needed changes the rows")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNewestRecord damages the newest record of a log after a kill: what it held was
// acknowledged, so that a start and a check refuse the log. A salvage goes on without it.
// The file that says what was acknowledged may be missing, damaged or older, as a loss of
// power leaves it: then the record may be one that was cut off.
func TestNewestRecord(t *testing.T) {
	dir, rows := killed(t, 10)
	log, acked := filepath.Join(dir, bolt.LogName), filepath.Join(dir, bolt.AckedName)
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(acked)
	if err != nil {
		t.Fatal(err)
	}
	newest := bytes.LastIndex(whole, []byte("m9lg"))
	for at := newest; at < newest+60; at += 7 {
		file := bytes.Clone(whole)
		file[at] ^= 4
		if err := os.WriteFile(log, file, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, o := range []bolt.Options{{ReadOnly: true}, {}} {
			e, err := bolt.Open(dir, o)
			if errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), "was acknowledged") {
				t.Errorf("byte %d of the newest record damaged: %v", at-newest, err)
			}
			if err == nil {
				_ = e.Close()
			}
		}
	}
	for name, b := range map[string][]byte{"missing": nil, "cut": said[:20], "damaged": append(bytes.Clone(said[:31]), 9), "another log's": append(bytes.Clone(said[:8]), make([]byte, 24)...)} {
		to := t.TempDir()
		copyFiles(t, dir, to)
		if err := os.WriteFile(filepath.Join(to, bolt.AckedName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if b == nil {
			_ = os.Remove(filepath.Join(to, bolt.AckedName))
		}
		s := openStore(t, to, bolt.Options{})
		if got := fmt.Sprint(storetest.Rows(s)); got == rows {
			t.Error("the damaged record was read")
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := open(t, dir, bolt.Options{Salvage: true})
	if r := fmt.Sprint(e.Remarks()); !strings.Contains(r, "was acknowledged") {
		t.Errorf("salvage says %s", r)
	}
	if err := e.Scan(func(_, _ []byte) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if s := openStore(t, dir, bolt.Options{}); fmt.Sprint(storetest.Rows(s)) == rows {
		t.Error("after that, the damaged record is there")
	}
}

// TestFullDiskAtStart starts on a disk that has no room to take the log into the data
// file: all is there and can be read, a write is refused, and when there is room
// again it is taken.
func TestFullDiskAtStart(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=12m"); err != nil {
		t.Skip("cannot mount a small file system here:", err)
	}
	defer func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	}()
	from := t.TempDir()
	s := openStore(t, from, bolt.Options{})
	fill(t, s, 3)
	for i := range 8 {
		if r := write(s, fmt.Sprint("large", i), 400<<10); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	rows := fmt.Sprint(storetest.Rows(s))
	copyFiles(t, from, small)
	_ = s.Close()
	blocker := filepath.Join(small, "blocker")
	f, err := os.Create(blocker)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
	s = openStore(t, small, bolt.Options{})
	if got := fmt.Sprint(storetest.Rows(s)); got != rows {
		t.Fatal("the log's keys are not there")
	}
	if r := write(s, "more", 10); !errors.Is(r.Err, errs.NoSpace) || strings.Contains(r.Err.Error(), small) || s.Err() != nil {
		t.Errorf("a write on a full disk: %v; %v", r.Err, s.Err())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, small, bolt.Options{}) // the log is still there
	if got := fmt.Sprint(storetest.Rows(s)); got != rows {
		t.Fatal("the log's keys are not there after a stop")
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	if r := write(s, "more", 10); r.Err != nil {
		t.Errorf("a write when there is room again: %v", r.Err)
	}
	rows = fmt.Sprint(storetest.Rows(s))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, small, bolt.Options{})
	if got := fmt.Sprint(storetest.Rows(s)); got != rows {
		t.Error("not all is there in the end")
	}
	_ = s.Close()
}

// TestManyRounds has a log turn over many times, with batches of all sizes, and finds
// after a kill at any of them what a map has.
func TestManyRounds(t *testing.T) {
	dir := t.TempDir()
	l := openLogged(t, dir)
	content := func(e store.Engine) map[string]string {
		is := map[string]string{}
		if err := e.Scan(func(k, v []byte) error { is[string(k)] = string(v); return nil }); err != nil {
			t.Fatal(err)
		}
		return is
	}
	_ = content(l)
	want := map[string]string{}
	for n := range uint64(400) {
		key := fmt.Sprint("key", n%23)
		op := store.Op{Key: []byte(key), Value: []byte{byte(n)}, Tail: strings.Repeat("t", int(n*n%7000))}
		want[key] = string(op.Value) + op.Tail
		if n%13 == 12 {
			op.Value, op.Tail = nil, ""
			delete(want, key)
		}
		if err := l.Apply([]store.Group{{Number: n + 1, Ops: []store.Op{op}}}); err != nil {
			t.Fatal(err)
		}
		if n%50 != 49 {
			continue
		}
		if got := content(l); !maps.Equal(got, want) {
			t.Fatalf("after %d: %d keys, want %d", n, len(got), len(want))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLogged(t, dir)
		if got := content(l); !maps.Equal(got, want) || l.Number("") != n+1 {
			t.Fatalf("after %d and a kill: %d keys, want %d; number %d", n, len(got), len(want), l.Number(""))
		}
	}
	_ = l.Close()
}

// TestFilesTaken takes a file away under a store: nothing is acknowledged that is
// lost with the process, and the store says so within its time also when nobody
// writes.
func TestFilesTaken(t *testing.T) {
	for _, c := range []struct {
		name, file, says string
		replace, write   bool
	}{
		{"data file deleted, a write", bolt.FileName, "deleted", false, true},
		{"data file replaced, a write", bolt.FileName, "replaced", true, true},
		{"log deleted, a write", bolt.LogName, "deleted", false, true},
		{"log replaced, a write", bolt.LogName, "replaced", true, true},
		{"data file deleted", bolt.FileName, "deleted", false, false},
		{"log replaced", bolt.LogName, "replaced", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			every := time.Hour
			if !c.write {
				every = time.Millisecond
			}
			s, err := store.Open(open(t, dir, bolt.Options{}), store.Config{LookEvery: every})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			fill(t, s, 3)
			path := filepath.Join(dir, c.file)
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			if c.replace {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.write {
				if r := write(s, "k", 1); errs.KindOf(r.Err) != errs.IO || !strings.Contains(r.Err.Error(), c.says) {
					t.Errorf("a write: %v", r.Err)
				}
			}
			select {
			case <-s.Failed():
			case <-time.After(10 * time.Second):
				t.Fatal("the store does not notice")
			}
			if err := s.Err(); !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
		})
	}
}
