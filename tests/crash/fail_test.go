package crash

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/tests/testenv"
)

var failures = flag.Int("failures", 24, "how many failed system calls are tried; 0: each")

// failing is the folder in which this process is to be the one whose calls fail.
const failing = "META9_CRASH_FAILING"

// failSteps is how many changes that process makes, with a restart in the middle.
const failSteps = 60

// failHere makes the changes, whatever fails, and prints a line for each that was
// acknowledged. A change that found no room is tried again, and a start, which nothing
// depends on.
func failHere(root string) error {
	var s *store.Store
	var err error
	open := func() error {
		for range 2 {
			if s, _, err = start(folder(root)); err == nil {
				return nil
			}
			fmt.Println("start:", err)
		}
		return err
	}
	if err := open(); err != nil {
		return nil // it is said why
	}
	for step := range failSteps {
		if step == failSteps/2 {
			closeHere(s)
			if err := open(); err != nil {
				return nil
			}
		}
		err := do(s, step)
		if errors.Is(err, errs.NoSpace) && s.Err() == nil {
			fmt.Println("full:", err)
			err = do(s, step)
		}
		switch {
		case err == nil:
			fmt.Println("done")
		case errors.Is(err, errs.NoSpace) && s.Err() == nil:
			fmt.Println("still full:", err)
			closeHere(s)
			return nil
		case s.Err() == nil:
			return fmt.Errorf("step %d: %w; and the store says that it is well", step, err)
		default:
			fmt.Println("failed:", err)
			before := content(s)
			if err := do(s, step); err == nil {
				return fmt.Errorf("a write after %w", s.Err())
			}
			if !same(before, content(s)) {
				return errors.New("reads change after a failure")
			}
			closeHere(s)
			return nil
		}
	}
	closeHere(s)
	return nil
}

func closeHere(s *store.Store) {
	if err := s.Close(); err != nil {
		fmt.Println("close:", err)
	}
}

// calls are the system calls by which the engine changes files and reads them; not the
// syncs, whose failures tests/durability has.
var calls = []struct{ name, error string }{
	{"pwrite64", "EIO"},
	{"pwrite64", "ENOSPC"},
	{"ftruncate", "EIO"},
	{"ftruncate", "ENOSPC"},
	{"pread64", "EIO"},
	{"openat", "EMFILE"},
	{"statx", "EIO"},
	{"flock", "EIO"},
	{"mkdirat", "ENOSPC"},
	{"renameat", "EIO"},
	{"renameat2", "ENOSPC"},
}

// TestFailingCalls has each system call of the engine fail in turn, once, or from then
// on: nothing that was acknowledged is lost, the store says when it is over, and a
// restart is right.
func TestFailingCalls(t *testing.T) {
	testenv.NeedDebian(t, "strace", "strace")
	memory := t.TempDir()
	if dir, err := os.MkdirTemp("/dev/shm", "meta9-failing"); err == nil {
		memory = dir
		defer os.RemoveAll(dir)
	}
	type point struct {
		call  int
		nth   int
		after bool // all from there on
	}
	var points []point
	for i, n := range count(t, memory) {
		for nth := 1; nth <= n; nth++ {
			points = append(points, point{i, nth, false}, point{i, nth, true})
		}
	}
	if *failures > 0 {
		r := rand.New(rand.NewPCG(*seed, 0))
		r.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		points = points[:min(*failures, len(points))]
	}
	saw := map[string]int{}
	for i, p := range points {
		root := filepath.Join(memory, fmt.Sprint(i))
		when := fmt.Sprint(p.nth)
		if p.after {
			when += "+"
		}
		inject := fmt.Sprintf("inject=%s:error=%s:when=%s", calls[p.call].name, calls[p.call].error, when)
		out, err := underStrace(root, filepath.Join(memory, "trace"), "-e", inject)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 127 {
			continue // the loader's, before there was a process of ours
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", inject, err, strings.ReplaceAll(out, "done\n", ""))
			continue
		}
		acked := strings.Count(out, "done\n")
		if err := judgeFailed(root, acked); err != nil {
			t.Errorf("%s, of which the process said\n%s: %v", inject, strings.ReplaceAll(out, "done\n", ""), err)
		}
		for _, word := range []string{"start:", "close:", "full:", "failed:"} {
			if strings.Contains(out, word) {
				saw[word]++
			}
		}
		if acked == failSteps {
			saw["all done"]++
		}
		must(t, os.RemoveAll(root))
	}
	t.Logf("%d points: %v", len(points), saw)
}

// judgeFailed starts on what the process has left.
func judgeFailed(root string, acked int) error {
	dir := folder(root)
	if _, err := os.Stat(filepath.Join(dir, bolt.FileName)); err != nil && acked == 0 {
		return nil
	}
	if err := check(dir); err != nil {
		return err
	}
	s, _, err := start(dir)
	if err != nil {
		return err
	}
	is := content(s)
	if !same(is, expected(acked)) && !same(is, expected(acked+1)) {
		err = fmt.Errorf("%d steps were acknowledged; the keys are %.300q", acked, fmt.Sprint(is))
	}
	return errors.Join(err, s.Close())
}

// underStrace runs the process whose calls fail.
func underStrace(root, trace string, args ...string) (string, error) {
	args = append([]string{"-f", "-o", trace}, append(args, os.Args[0])...)
	cmd := exec.Command("strace", args...)
	cmd.Env = append(os.Environ(), failing+"="+root)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// count is how often each call is made when none fails.
func count(t *testing.T, memory string) (list []int) {
	trace := filepath.Join(memory, "trace")
	root := filepath.Join(memory, "count")
	names := map[string]bool{}
	for _, c := range calls {
		names[c.name] = true
	}
	var all []string
	for name := range names {
		all = append(all, name)
	}
	if out, err := underStrace(root, trace, "-e", "trace="+strings.Join(all, ",")); err != nil || strings.Count(out, "done\n") != failSteps {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(trace)
	must(t, err)
	must(t, os.RemoveAll(root))
	for _, c := range calls {
		list = append(list, strings.Count(string(b), " "+c.name+"("))
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
