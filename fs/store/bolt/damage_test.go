package bolt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/storetest"
)

// pageSize is the size of a page where these tests run, and that of the damage.
const pageSize = 4096

// TestDamagedFile damages the file itself: it is an error or what Check reports,
// or it hit nothing that is in use; it is never a panic, and the rows are what they
// were. The two meta pages are left alone: without the newer one bbolt goes back
// to the transaction before, as after a crash.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, bolt.Options{})
	fill(t, s, 200)
	want := fmt.Sprint(storetest.Rows(s))
	_ = s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	pages := used(whole)
	whole = whole[:pages*pageSize]
	rnd := rand.New(rand.NewPCG(1, 2))
	found := 0
	for i := range 200 {
		file := append([]byte(nil), whole...)
		what := damage(rnd, i, file, pages)
		if i%8 == 7 {
			file = file[:rnd.IntN(pages*pageSize)]
			what = fmt.Sprintf("cut at %d", len(file))
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, bolt.FileName), file, 0o600); err != nil {
			t.Fatal(err)
		}
		if sound(t, what, dir, want) {
			continue
		}
		found++
	}
	if found < 60 {
		t.Errorf("only %d of 200 were found", found)
	}
}

// used is how many pages from the start of the file hold anything.
func used(file []byte) int {
	n := len(file)
	for n > 0 && file[n-1] == 0 {
		n--
	}
	return (n + pageSize - 1) / pageSize
}

// damage flips a bit or a byte, or writes noise or zeros over a page or its head.
func damage(rnd *rand.Rand, i int, file []byte, pages int) string {
	page := 2 + rnd.IntN(pages-2)
	at := page*pageSize + rnd.IntN(pageSize)
	switch i % 4 {
	case 0:
		file[at] ^= 1 << rnd.IntN(8)
		return fmt.Sprintf("a bit at %d", at)
	case 1:
		head := page*pageSize + rnd.IntN(32)
		file[head] = byte(rnd.Int())
		return fmt.Sprintf("the head of a page, at %d", head)
	case 2:
		for j := range pageSize {
			file[page*pageSize+j] = byte(rnd.Int())
		}
		return fmt.Sprintf("noise in page %d", page)
	}
	clear(file[page*pageSize : (page+1)*pageSize])
	return fmt.Sprintf("zeros in page %d", page)
}

// sound checks and opens the file and says whether both find nothing wrong.
func sound(t *testing.T, what, dir, want string) bool {
	t.Helper()
	checked := checkFile(dir)
	e, err := bolt.Open(dir, bolt.Options{Timeout: time.Second, Segment: -1})
	if err != nil {
		if errs.KindOf(err) != errs.IO {
			t.Errorf("%s: %v", what, err)
		}
		return false
	}
	s, err := store.Open(e, store.Config{})
	if err != nil {
		_ = e.Close()
		return false
	}
	defer func() { _ = s.Close() }()
	if got := fmt.Sprint(storetest.Rows(s)); got != want && checked {
		t.Errorf("%s: nothing is found, but the rows differ", what)
	}
	s.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"00000000-0000-4000-8000-00000000000b"}`})
	return checked
}

func checkFile(dir string) bool {
	e, err := bolt.Open(dir, bolt.Options{ReadOnly: true})
	if err != nil {
		return false
	}
	defer func() { _ = e.Close() }()
	st, err := store.Check(e, func(store.Damage) {})
	return err == nil && st.Damaged == 0
}

// TestDamagedMeta damages the two pages that say where everything is: with one of
// them left the file opens, with none it does not. A check finds either.
func TestDamagedMeta(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, bolt.Options{})
	fill(t, s, 3)
	_ = s.Close()
	path := filepath.Join(dir, bolt.FileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, pages := range [][]int{{0}, {1}, {0, 1}} {
		file := append([]byte(nil), whole...)
		for _, p := range pages {
			clear(file[p*pageSize : (p+1)*pageSize])
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if checkFile(dir) {
			t.Errorf("pages %d: nothing is found", pages)
		}
		e, err := bolt.Open(dir, bolt.Options{})
		if (err == nil) != (len(pages) == 1) {
			t.Errorf("pages %d: %v", pages, err)
		}
		if err == nil {
			_ = e.Close()
		}
	}
}
