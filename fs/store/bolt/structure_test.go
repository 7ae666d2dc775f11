package bolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/storetest"
)

// values is what a VM's keys hold.
func values(s *store.Store) map[string]string {
	is := map[string]string{}
	for _, r := range storetest.Rows(s) {
		for _, e := range r.Entries[0] {
			is[e.Name] = e.Value
		}
	}
	return is
}

// filled is a folder of so many keys that was stopped, and what they hold.
func filled(t *testing.T, keys int) (dir string, is map[string]string) {
	t.Helper()
	dir = t.TempDir()
	s := openStore(t, dir, bolt.Options{})
	fill(t, s, keys)
	is = values(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, is
}

// pagesOf finds the pages in use of a kind, and gives the file.
func pagesOf(t *testing.T, dir string, kind uint16) (list []int, file []byte) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(dir, bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	newest := file[:pageSize]
	if binary.LittleEndian.Uint64(file[pageSize+64:]) > binary.LittleEndian.Uint64(file[64:]) {
		newest = file[pageSize:]
	}
	free := file[binary.LittleEndian.Uint64(newest[48:])*pageSize:]
	is := map[uint64]bool{}
	for i := range binary.LittleEndian.Uint16(free[10:]) {
		is[binary.LittleEndian.Uint64(free[16+8*int(i):])] = true
	}
	for id := uint64(2); id < binary.LittleEndian.Uint64(newest[56:]); id++ {
		if p := file[id*pageSize:]; !is[id] && binary.LittleEndian.Uint16(p[8:]) == kind {
			list = append(list, int(id))
		}
	}
	return list, file
}

// TestSalvageStructure makes a new file of what is whole, which is all that lies below a
// damaged branch, and all but one leaf where a leaf is damaged.
func TestSalvageStructure(t *testing.T) {
	const branch, leaf = 1, 2
	for _, c := range []struct {
		name  string
		kind  uint16
		least int
	}{{"branch", branch, 200}, {"leaf", leaf, 190}} {
		t.Run(c.name, func(t *testing.T) {
			dir, want := filled(t, 200)
			list, file := pagesOf(t, dir, c.kind)
			file[list[len(list)/2]*pageSize+10] ^= 1
			path := filepath.Join(dir, bolt.FileName)
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			e := open(t, dir, bolt.Options{ReadOnly: true})
			st, err := store.Check(e, func(store.Damage) {})
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("page %d: ", list[len(list)/2])) || !strings.Contains(err.Error(), "--salvage") {
				t.Errorf("--check: %+v, %v", st, err)
			}
			_ = e.Close()
			if err := tryStart(dir); errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), "meta9.db: damaged: page ") {
				t.Errorf("a start: %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
				t.Error("a start that is refused changes the file")
			}

			e = open(t, dir, bolt.Options{Salvage: true})
			if r := e.Remarks(); len(r) != 1 || !strings.Contains(r[0], "meta9.db.damaged") {
				t.Errorf("it says %q", r)
			}
			s, err := store.Open(e, store.Config{Salvage: true})
			if err != nil {
				t.Fatal(err)
			}
			got := values(s)
			if len(got) < c.least || len(s.Salvaged()) > 0 {
				t.Errorf("%d keys; skipped: %v", len(got), s.Salvaged())
			}
			for name, v := range got {
				if want[name] != v {
					t.Errorf("%s is %.20q", name, v)
				}
			}
			write(s, "more", 10)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if old, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(old, file) {
				t.Error("the old file is not kept")
			}
			if !checkFile(dir) {
				t.Error("a check of the new file finds damage")
			}
			s = openStore(t, dir, bolt.Options{})
			if len(values(s)) != len(got)+1 {
				t.Errorf("then there are %d keys", len(values(s)))
			}
		})
	}
}

// TestNothingToSalvage says so, and leaves the file where it is.
func TestNothingToSalvage(t *testing.T) {
	dir, _ := filled(t, 3)
	path := filepath.Join(dir, bolt.FileName)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(file[2*pageSize:])
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Open(dir, bolt.Options{Salvage: true}); errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), "restore a backup") {
		t.Error(err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
		t.Error("the file is another")
	}
}

// older changes a folder as a meta9d does that knows of no sum over all keys.
func older(t *testing.T, dir string, change func(b *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, bolt.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket([]byte("meta9"))) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOlderWrites: what an older meta9d wrote after a stop is taken, and what is gone
// without a batch is damage.
func TestOlderWrites(t *testing.T) {
	dir, want := filled(t, 20)
	key := func(b *bbolt.Bucket) (k, v []byte) {
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if bytes.HasSuffix(k, []byte("key-7")) {
				return bytes.Clone(k), bytes.Clone(v)
			}
		}
		return nil, nil
	}
	older(t, dir, func(b *bbolt.Bucket) error {
		k, _ := key(b)
		if err := b.Delete(k); err != nil {
			return err
		}
		return b.SetSequence(b.Sequence() + 1)
	})
	delete(want, "key-7")
	for range 2 { // the second has a sum again
		s := openStore(t, dir, bolt.Options{})
		if !maps.Equal(values(s), want) {
			t.Errorf("%d keys", len(values(s)))
		}
		write(s, "more", 10)
		want["more"] = "xxxxxxxxxx"
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	older(t, dir, func(b *bbolt.Bucket) error { return b.Delete([]byte("none")) })
	if err := tryStart(dir); err == nil || !strings.Contains(err.Error(), "transaction") {
		t.Errorf("a transaction without a batch: %v", err)
	}
}

// tryStart starts and stops.
func tryStart(dir string) error {
	e, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		return err
	}
	s, err := store.Open(e, store.Config{})
	if err != nil {
		return errors.Join(err, e.Close())
	}
	return s.Close()
}

// TestOlderFileBesideNewerLog is what a damaged meta page looks like, and a backup put
// back: it says which to remove.
func TestOlderFileBesideNewerLog(t *testing.T) {
	dir, want := filled(t, 3)
	path := filepath.Join(dir, bolt.FileName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, bolt.Options{})
	write(s, "more", 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []bolt.Options{{ReadOnly: true}, {}} {
		if _, err := bolt.Open(dir, o); errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), "remove "+bolt.LogName) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	e := open(t, dir, bolt.Options{Salvage: true})
	if len(e.Remarks()) != 1 {
		t.Errorf("it says %q", e.Remarks())
	}
	_ = e.Close()
	s = openStore(t, dir, bolt.Options{})
	if !maps.Equal(values(s), want) {
		t.Errorf("%d keys", len(values(s)))
	}
}
