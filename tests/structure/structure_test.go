package structure

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/vm"
	"meta9/tests/testenv"
)

var (
	seed   = flag.Uint64("seed", 20121217, "what the images grow from")
	images = flag.Int("images", 250, "how many images are made")
)

func TestMain(m *testing.M) { testenv.Main(m) }

// longest is how long a start or a check of an image may take.
const longest = 20 * time.Second

var options = bolt.Options{Segment: 64 << 10}

// base is a data folder that is sound, and what it holds.
type base struct {
	name  string
	file  image
	log   []byte // nil: none
	acked []byte // what says which batch of it is the newest; nil: nothing
	rows  map[string]string
	older []image // states of the file before
}

func uuidOf(i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-00000000000a", uint32(i)*2654435761)
}

const vms = 24

// memory is a folder in which syncing costs nothing, where there is one.
func memory(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "meta9-structure")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

type folder struct {
	dir string
	s   *store.Store
	e   *bolt.Engine
}

// start opens the folder as meta9d does.
func start(dir string, o bolt.Options) (*folder, error) {
	e, err := bolt.Open(dir, o)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(e, store.Config{Salvage: o.Salvage})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &folder{dir, s, e}, nil
}

func (f *folder) put(i int, name string, size int, fill byte) error {
	return f.s.Do(&store.Intent{Kind: store.Put, Cell: f.s.Cell(uuidOf(i)), Name: name, Data: strings.Repeat(string(rune('a'+fill%26)), size)}).Err
}

// rows is all there is of each VM.
func (f *folder) rows() map[string]string {
	all := map[string]string{}
	f.s.Snapshot(func(list []*vm.VM, _ uint64) {
		for _, v := range list {
			b := fmt.Appendf(v.AppendRecord(nil), " %d %d %d", v.ID, v.Rev, v.Mtime)
			for sp := range vm.NumSpaces {
				for e := range v.Entries(sp) {
					b = fmt.Appendf(b, " %+v", *e)
				}
			}
			all[v.UUID] = string(b)
		}
	})
	return all
}

// others are all rows but that of one VM.
func others(rows map[string]string, mine int) map[string]string {
	rows = maps.Clone(rows)
	delete(rows, uuidOf(mine))
	return rows
}

// settle waits for the checkpoint that is under way.
func (f *folder) settle(t testing.TB) {
	must(t, f.e.Scan(func(_, _ []byte) error { return nil }))
}

// read is the files as they are.
func read(t testing.TB, dir string) (file image, log, acked []byte) {
	b, err := os.ReadFile(filepath.Join(dir, bolt.FileName))
	must(t, err)
	maybe := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return b
	}
	return b[:len(b)/pageSize*pageSize], maybe(bolt.LogName), maybe(bolt.AckedName)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bases makes folders of VMs with keys of all sizes, which have seen many changes: after
// a stop, after a kill with changes in the log, after a kill right after a change that
// went past the log, and after a kill right after the first change of a process.
func bases(t testing.TB, r *rand.Rand) (list []base) {
	dir := memory(t)
	f, err := start(dir, options)
	must(t, err)
	var older []image
	for i := range vms {
		must(t, f.s.Do(&store.Intent{Kind: store.CreateVM, Data: fmt.Sprintf(`{"uuid":%q,"alias":"vm%d","ram":%d}`, uuidOf(i), i, i)}).Err)
	}
	step := func(n int) {
		i := r.IntN(vms)
		name := fmt.Sprintf("key-%d", r.IntN(12))
		size := 1 + r.IntN(400)
		switch r.IntN(30) {
		case 0:
			size = 3000 + r.IntN(20000)
		case 1, 2, 3:
			size = 1000 + r.IntN(2000)
		}
		must(t, f.put(i, name, size, byte(n)))
		if r.IntN(6) == 0 {
			must(t, f.s.Do(&store.Intent{Kind: store.Remove, Cell: f.s.Cell(uuidOf(i)), Name: name}).Err)
		}
	}
	keep := func() {
		f.settle(t)
		file, _, _ := read(t, dir)
		older = append(older, file)
	}
	take := func(name string) {
		f.settle(t)
		rows := f.rows()
		if name == "stopped" {
			must(t, f.s.Close())
		}
		file, log, acked := read(t, dir)
		list = append(list, base{name, file, log, acked, rows, older})
		older = append(older, file)
	}
	for n := range 500 {
		if step(n); n > 300 && n%15 == 0 {
			keep()
		}
	}
	take("killed")
	must(t, f.put(3, "large", 50<<10, 'x'))
	take("killed after a large change")
	for n := range 40 {
		step(n)
	}
	keep()
	take("stopped")
	f, err = start(dir, options)
	must(t, err)
	step(1)
	take("killed after the first change")
	must(t, f.s.Close())
	return list
}

// check is what meta9d --check does.
func check(dir string) (err error) {
	e, err := bolt.Open(dir, bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	var damage error
	_, err = store.Check(e, func(d store.Damage) { damage = errors.Join(damage, errors.New(d.String())) })
	return errors.Join(damage, err, e.Close())
}

// salvage starts on an image that a start has refused: it serves what is whole, or says
// that nothing is. If it did, the next start finds no damage, but for records that are
// wrong by themselves.
func salvage(dir string) error {
	f, err := start(dir, bolt.Options{Segment: options.Segment, Salvage: true})
	if err != nil {
		if !strings.Contains(err.Error(), "nothing can be salvaged") {
			return err
		}
		return nil
	}
	left := f.s.Salvaged()
	if err := f.s.Do(&store.Intent{Kind: store.Note, Event: store.QMP}).Err; err != nil {
		return errors.Join(err, f.s.Close())
	}
	if err := f.s.Close(); err != nil {
		return err
	}
	if f, err = start(dir, options); err != nil {
		if len(left) > 0 {
			return nil
		}
		return fmt.Errorf("a start after it: %w", err)
	}
	return f.s.Close()
}

// write makes an image's folder.
func (b *base) write(dir string, file image) error {
	err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, bolt.FileName), file, 0o600))
	for name, b := range map[string][]byte{bolt.LogName: b.log, bolt.AckedName: b.acked} {
		if b != nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
	}
	return err
}

// judge starts on an image, and says what is wrong with what became of it: "refused" or
// "right" is not.
func (b *base) judge(dir string, file image) (verdict string, err error) {
	if err := b.write(dir, file); err != nil {
		return "", err
	}
	checked := check(dir)
	if now, err := os.ReadFile(filepath.Join(dir, bolt.FileName)); err != nil || !bytes.Equal(now, file) {
		return "", errors.Join(errors.New("a check changes the file"), err)
	}
	f, err := start(dir, options)
	if err != nil {
		if checked == nil {
			return "", fmt.Errorf("--check finds nothing, and a start says: %w", err)
		}
		return "refused", nil
	}
	if !maps.Equal(f.rows(), b.rows) {
		return "", errors.Join(fmt.Errorf("it starts, and serves what is wrong; a check says %v", checked), f.s.Close())
	}
	// Writes to one VM do no harm to the others, before and after a restart.
	const mine = 5
	for n := range 60 {
		size := 10 + n*37%900
		if n%20 == 19 {
			size = 40 << 10
		}
		if err := f.put(mine, fmt.Sprintf("mine-%d", n%17), size, byte(n)); err != nil {
			return "", errors.Join(fmt.Errorf("write %d: %w", n, err), f.s.Close())
		}
	}
	want := f.rows()
	if !maps.Equal(others(want, mine), others(b.rows, mine)) {
		return "", errors.Join(errors.New("writes harm the keys of others"), f.s.Close())
	}
	if err := f.s.Close(); err != nil {
		return "", err
	}
	if err := check(dir); err != nil && checked == nil {
		return "", fmt.Errorf("after writes: %w", err)
	}
	f, err = start(dir, options)
	if err != nil {
		return "", fmt.Errorf("after writes: %w", err)
	}
	if !maps.Equal(f.rows(), want) {
		err = errors.New("after writes and a restart the rows differ")
	}
	return "right", errors.Join(err, f.s.Close())
}

// in calls fn, and ends the test if that takes too long.
func in[T any](t *testing.T, what string, fn func() T) T {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- fn() }()
	select {
	case v := <-done:
		return v
	case <-time.After(longest):
		t.Fatalf("%s: it does not end", what)
		panic("never")
	}
}

// try judges an image.
func (b *base) try(t *testing.T, dir, what string, file image) (verdict string) {
	t.Helper()
	what = b.name + ", " + what
	err := in(t, what, func() (err error) {
		verdict, err = b.judge(dir, file)
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return verdict
}

// TestImages changes one thing at random in each image.
func TestImages(t *testing.T) {
	memory := memory(t)
	list := bases(t, rand.New(rand.NewPCG(*seed, 0)))
	for _, b := range list {
		if v := b.try(t, filepath.Join(memory, "sound "+b.name), "as it is", b.file); v != "right" {
			t.Fatalf("%s, as it is: %s", b.name, v)
		}
	}
	verdicts := map[string]int{}
	for n := range *images {
		r := rand.New(rand.NewPCG(*seed, uint64(n)+1))
		b := list[n%len(list)]
		file := append(image(nil), b.file...)
		what := fmt.Sprintf("seed %d, image %d: %s", *seed, n, file.mutate(r, b.older))
		dir := filepath.Join(memory, fmt.Sprint(n))
		v := b.try(t, dir, what, file)
		if v == "refused" {
			if err := in(t, what, func() error { return salvage(dir) }); err != nil {
				t.Errorf("%s, %s: salvaging: %v", b.name, what, err)
			}
		}
		must(t, os.RemoveAll(dir))
		if verdicts[v]++; verdicts[""] > 10 {
			t.Fatal("and more")
		}
	}
	t.Logf("%v", verdicts)
	if verdicts["refused"] < *images/3 {
		t.Errorf("too few are refused: %v", verdicts)
	}
}

// TestFaults has faults that were not seen once, one kind after the other.
func TestFaults(t *testing.T) {
	memory := memory(t)
	list := bases(t, rand.New(rand.NewPCG(*seed, 0)))
	killed, stopped := &list[0], &list[2]
	p := killed.file.plan()
	for _, c := range []struct {
		name  string
		fault func(try func(b *base, what string, change func(f image)))
	}{
		{"a bit of the list of free pages", func(try func(*base, string, func(image))) {
			p := stopped.file.plan()
			for i := range min(count(stopped.file.page(p.freelist)), 8) {
				for bit := range 8 {
					x := field{"id", p.freelist*pageSize + head + 8*i, 8}
					try(stopped, fmt.Sprintf("bit %d of %d", bit, i), func(f image) { f.set(x, f.get(x)^1<<bit) })
				}
			}
		}},
		{"a page that leads to itself", func(try func(*base, string, func(image))) {
			for _, id := range p.branches {
				for i := 0; i < count(killed.file.page(id)); i += 3 {
					for _, to := range []int{id, p.branches[0]} {
						try(killed, fmt.Sprintf("child %d of branch %d is %d", i, id, to), func(f image) { f.set(f.elementFields(id, i)[2], uint64(to)) })
					}
				}
			}
		}},
		{"a bit of a leaf's count", func(try func(*base, string, func(image))) {
			for n, id := range p.leaves {
				try(killed, fmt.Sprintf("leaf %d", id), func(f image) { f.page(id)[10] ^= 1 << (n % 4) })
			}
		}},
		{"a bit of an element", func(try func(*base, string, func(image))) {
			for n, id := range p.leaves {
				x := killed.file.elementFields(id, n%count(killed.file.page(id)))[n%4]
				try(killed, fmt.Sprintf("leaf %d, %s", id, x.what), func(f image) { f.set(x, f.get(x)^1<<(n%12)) })
			}
		}},
		{"a root without its bucket", func(try func(*base, string, func(image))) {
			try(killed, "an empty root", func(f image) { f.page(p.root)[10] = 0 })
			try(killed, "another name", func(f image) {
				b := f.page(p.root)
				copy(b[bytes.Index(b, []byte("meta9")):], "meta8")
			})
		}},
		{"a bit of the newest meta page", func(try func(*base, string, func(image))) {
			for i := range list {
				b := &list[i]
				for at := i; at < head+64; at += len(list) {
					try(b, fmt.Sprintf("byte %d", at), func(f image) { f.page(f.newest())[at] ^= 1 << (at % 8) })
				}
			}
		}},
		{"a write that was lost", func(try func(*base, string, func(image))) {
			for i := range list {
				b := &list[i]
				p := b.file.plan()
				for n, id := range slices.Concat([]int{b.file.newest(), p.root, p.freelist}, p.branches, p.leaves) {
					o := b.older[len(b.older)-1-n%4]
					if id < o.pages() && (n < 6 || n%4 == i) {
						try(b, fmt.Sprintf("page %d", id), func(f image) { copy(f.page(id), o.page(id)) })
					}
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdicts := map[string]int{}
			c.fault(func(b *base, what string, change func(f image)) {
				file := append(image(nil), b.file...)
				change(file)
				dir := filepath.Join(memory, "image")
				verdicts[b.try(t, dir, what, file)]++
				must(t, os.RemoveAll(dir))
			})
			if t.Log(verdicts); len(verdicts) == 0 {
				t.Error("there was nothing to damage")
			}
		})
	}
}

// TestLog changes a bit of each record of the log after a kill, the newest among them:
// what it held is in the data file, or a start refuses it.
func TestLog(t *testing.T) {
	dir := filepath.Join(memory(t), "image")
	list := bases(t, rand.New(rand.NewPCG(*seed, 0)))
	for _, b := range list {
		whole, verdicts := b.log, map[string]int{}
		for at := 0; at < len(whole); at += pageSize {
			if string(whole[at:at+4]) != "m9lg" {
				continue
			}
			b.log = bytes.Clone(whole)
			b.log[at+at/pageSize%50] ^= 1 << (at / pageSize % 8)
			verdicts[b.try(t, dir, fmt.Sprintf("the record at %d", at), b.file)]++
			must(t, os.RemoveAll(dir))
		}
		if b.name == "killed" && verdicts["refused"] == 0 || len(verdicts) == 0 {
			t.Errorf("%s: no record is missed", b.name)
		}
		t.Log(b.name, verdicts)
	}
}
