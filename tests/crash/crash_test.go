package crash

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/vm"
	"meta9/tests/testenv"
)

var (
	seed   = flag.Uint64("seed", 20121217, "what the images grow from")
	images = flag.Int("images", 1000, "how many images are made")
)

// child is the folder in which this process is to be the one that is traced.
const child = "META9_CRASH_CHILD"

func TestMain(m *testing.M) {
	if root := os.Getenv(failing); root != "" {
		if err := failHere(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	root, from, ok := strings.Cut(os.Getenv(child), ":")
	if !ok {
		testenv.Main(m)
		return
	}
	if err := work(root, from); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// What the traced process does: it makes the data folder and the folders above it, and one VM,
// changes a key in each step, and starts anew twice.
const (
	uuid  = "00000000-0000-4000-8000-00000000000a"
	keys  = 9         // whose values change
	steps = 150       // the first makes the VM
	stops = steps / 3 // after so many steps it starts anew: first after a stop, then as after SIGKILL
)

var options = bolt.Options{Segment: 64 << 10} // a log that turns over often

// folder is where the data is below root.
func folder(root string) string { return filepath.Join(root, "made", "also", "data") }

// value is the value of a key in that step: most are small, and some so large that
// they do not go into the log.
func value(step int) string {
	size := step * 7 % 500
	switch {
	case step%11 == 0:
		size = 40000
	case step%5 == 0:
		size = 5000
	}
	return fmt.Sprintf("%d:%s", step, strings.Repeat(string(rune('a'+step%26)), size))
}

// do is the change of a step, which another process does the same.
func do(s *store.Store, step int) error {
	in := &store.Intent{Kind: store.Put, Cell: s.Cell(uuid), Name: fmt.Sprint("key", step%keys), Data: value(step)}
	switch {
	case step == 0:
		in = &store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`}
	case step%17 == 16:
		in = &store.Intent{Kind: store.Remove, Cell: s.Cell(uuid), Name: fmt.Sprint("key", (step-1)%keys)}
	}
	return s.Do(in).Err
}

// expected is what the keys hold after so many steps; nil: there is no VM.
func expected(steps int) map[string]string {
	if steps == 0 {
		return nil
	}
	is := map[string]string{}
	for step := 1; step < steps; step++ {
		if step%17 == 16 {
			delete(is, fmt.Sprint("key", (step-1)%keys))
			continue
		}
		is[fmt.Sprint("key", step%keys)] = value(step)
	}
	return is
}

// work does the steps from that one on. A third is ended by a stop, the next by
// another program that takes this process over, which leaves what SIGKILL does.
func work(root, from string) error {
	first, err := strconv.Atoi(from)
	if err != nil {
		return err
	}
	s, e, err := start(folder(root))
	if err != nil {
		return err
	}
	for step := first; step < steps; step++ {
		switch {
		case step == stops:
			if err := s.Close(); err != nil {
				return err
			}
			if s, e, err = start(folder(root)); err != nil {
				return err
			}
		case step == 2*stops && first == 0:
			// A checkpoint under way would go on in the kernel, unseen by strace.
			if err := e.Scan(func(_, _ []byte) error { return nil }); err != nil {
				return err
			}
			if err := os.Setenv(child, fmt.Sprintf("%s:%d", root, step)); err != nil {
				return err
			}
			return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		}
		if err := do(s, step); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if _, err := os.Stdout.WriteString("done\n"); err != nil {
			return err
		}
	}
	return s.Close()
}

func start(dir string) (*store.Store, *bolt.Engine, error) {
	e, err := bolt.Open(dir, options)
	if err != nil {
		return nil, nil, err
	}
	s, err := store.Open(e, store.Config{})
	if err != nil {
		return nil, nil, errors.Join(err, e.Close())
	}
	return s, e, nil
}

// traced runs the child under strace.
func traced(t *testing.T) *disk {
	testenv.NeedDebian(t, "strace", "strace")
	root, out := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-xx", "-s", "1048576", "-o", out,
		"-e", "trace=openat,mkdirat,renameat,renameat2,unlinkat,pwrite64,write,ftruncate,fsync,fdatasync", os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:0", child, root))
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	calls, lines, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDisk(root, calls, lines)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.acks) != steps {
		t.Fatalf("the trace has %d acknowledgements of %d", len(d.acks), steps)
	}
	return d
}

// TestTrace makes the folder of the whole trace: it is what the child has left.
func TestTrace(t *testing.T) {
	d := traced(t)
	to := t.TempDir()
	if err := d.image(to, damager{Rand: rand.New(rand.NewPCG(0, 0)), way: kept, at: d.end}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bolt.FileName, bolt.LogName} {
		want, err := os.ReadFile(filepath.Join(folder(d.root), name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(folder(to), name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d; %v", name, len(got), len(want), err)
		}
	}
}

// TestImages cuts the power at random moments, a fifth of them in the creation of
// the folder.
func TestImages(t *testing.T) {
	d := traced(t)
	memory := t.TempDir()
	if dir, err := os.MkdirTemp("/dev/shm", "meta9-crash"); err == nil { // syncing costs nothing there
		memory = dir
		defer os.RemoveAll(dir)
	}
	made := map[string]int{}
	for n := range *images {
		g := damager{Rand: rand.New(rand.NewPCG(*seed, uint64(n))), way: n % ways, block: []int{512, 4096}[n/ways%2]}
		if g.at = g.IntN(d.end + 1); n%5 == n/ways%5 {
			g.at = g.IntN(d.acks[0] + 1)
		}
		root := filepath.Join(memory, fmt.Sprint(n))
		what := fmt.Sprintf("seed %d, image %d: %s in blocks of %d at line %d of %d", *seed, n, wayNames[g.way], g.block, g.at, d.end)
		err := os.Mkdir(root, 0o700)
		if err == nil {
			err = d.image(root, g)
		}
		if err == nil {
			err = judge(root, d.acked(g.at), g.way == garbage)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			if made["bad"]++; made["bad"] > 10 {
				t.Fatal("and more")
			}
		}
		made[wayNames[g.way]]++
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("images: %v", made)
}

// otherMeta is what a check says of a file of which one meta page holds anything. bbolt
// writes them in turn and needs one; after a loss of power the next start mends it.
var otherMeta = regexp.MustCompile(`page [01]: the meta page is not whole`)

// judge starts on an image, and says what is wrong with it.
func judge(root string, acked int, garbage bool) error {
	dir := folder(root)
	if _, err := os.Stat(filepath.Join(dir, bolt.FileName)); err == nil || acked > 0 {
		if err := check(dir); err != nil && !(garbage && otherMeta.MatchString(err.Error())) {
			return fmt.Errorf("as it is: %w", err)
		}
	}
	for _, then := range []string{"started", "started again"} {
		s, _, err := start(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", then, err)
		}
		is := content(s)
		if !same(is, expected(acked)) && !same(is, expected(acked+1)) {
			return errors.Join(fmt.Errorf("%s: %d steps were acknowledged; the keys are %.300q", then, acked, fmt.Sprint(is)), s.Close())
		}
		// It can be written: a note alone stores the marks, as the first of its process.
		if err := s.Do(&store.Intent{Kind: store.Note, Event: store.QMP}).Err; err != nil {
			return errors.Join(fmt.Errorf("%s: %w", then, err), s.Close())
		}
		mode := uint16(0o640)
		for name := range is {
			if err := s.Do(&store.Intent{Kind: store.Set, Cell: s.Cell(uuid), Name: name, Mode: &mode}).Err; err != nil {
				return errors.Join(fmt.Errorf("%s: %w", then, err), s.Close())
			}
		}
		if err := s.Close(); err != nil {
			return fmt.Errorf("%s: %w", then, err)
		}
	}
	return check(dir)
}

func check(dir string) error {
	e, err := bolt.Open(dir, bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	var damage error
	_, err = store.Check(e, func(d store.Damage) { damage = errors.Join(damage, errors.New(d.String())) })
	return errors.Join(err, damage, e.Close())
}

func content(s *store.Store) map[string]string {
	c := s.Cell(uuid)
	if c == nil {
		return nil
	}
	is := map[string]string{}
	for e := range c.VM().Entries(vm.Keys) {
		is[e.Name] = e.Value
	}
	return is
}

func same(a, b map[string]string) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }
