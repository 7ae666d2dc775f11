package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"meta9/tests/daemon"
)

// way is how an entry of a row is measured.
type way struct {
	// pinned: the server has one CPU and the load another. A scheduler that moves
	// them about makes reads of open fids wander from 0.4 to 1.2 of the echo's.
	pinned bool
	// base: meta9d is that of the commit to compare with.
	base bool
}

// build is what a commit's source gives.
type build struct {
	root   string // its source tree
	dir    string // of the binaries
	meta9d string
	meta9  string           // the client, once built
	scale  map[fleet]string // the folders of many VMs, once made
	etcd   daemon.Options   // of a host that has VMs in etcd, once made
}

// has tells whether the source has that folder.
func (u *build) has(folder string) bool {
	if folder == "" {
		return true
	}
	_, err := os.Stat(filepath.Join(u.root, folder))
	return err == nil
}

// client builds the meta9 of the tree at its first use.
func (u *build) client() (string, error) {
	var err error
	if u.meta9 == "" {
		u.meta9, err = daemon.BuildIn(u.root, u.dir, "meta9")
	}
	return u.meta9, err
}

// checkOut makes a worktree of a commit under tmp and builds its meta9d. done
// takes the worktree away.
func checkOut(tmp, commit string) (u *build, id string, done func(), err error) {
	root, err := daemon.Root()
	if err != nil {
		return nil, "", nil, err
	}
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	if id, err = git("rev-parse", "--short=9", "--verify", commit+"^{commit}"); err != nil {
		return nil, "", nil, fmt.Errorf("no commit %s: %w", commit, err)
	}
	u = &build{root: filepath.Join(tmp, "base"), dir: filepath.Join(tmp, "base-bin")}
	if err := os.Mkdir(u.dir, 0o700); err != nil {
		return nil, "", nil, err
	}
	if _, err := git("worktree", "add", "--quiet", "--detach", u.root, id); err != nil {
		return nil, "", nil, fmt.Errorf("git worktree: %w", err)
	}
	done = func() { _, _ = git("worktree", "remove", "--force", u.root) }
	if u.meta9d, err = daemon.BuildIn(u.root, u.dir, "meta9d"); err != nil {
		done()
		return nil, "", nil, err
	}
	return u, id, done, nil
}

// cpus are those that this process may use, and the two of pinned measurements.
type cpus struct {
	all          unix.CPUSet
	server, load unix.CPUSet
}

// twoCPUs finds them; ok is false on a machine that has only one.
func twoCPUs() (c cpus, ok bool) {
	if err := unix.SchedGetaffinity(0, &c.all); err != nil {
		return c, false
	}
	n := 0
	for cpu := 0; n < 2 && cpu < 1024; cpu++ {
		if c.all.IsSet(cpu) {
			[]*unix.CPUSet{&c.server, &c.load}[n].Set(cpu)
			n++
		}
	}
	return c, n == 2
}

// apply puts this process, which makes the load, on its CPU or lets it go.
func (c *cpus) apply(pinned bool) error {
	set, procs := &c.all, c.all.Count()
	if pinned {
		set, procs = &c.load, 1
	}
	runtime.GOMAXPROCS(procs)
	// A thread that is made meanwhile has the set of the thread that makes it, so
	// that after a pass without a new thread all have it.
	for done := map[int]bool{}; ; {
		before := len(done)
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || done[tid] {
				continue
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && err != unix.ESRCH {
				return err
			}
			done[tid] = true
		}
		if len(done) == before {
			return nil
		}
	}
}

// startOn runs start, which starts a server, so that in a pinned measurement that server has
// those CPUs: a process inherits them from the thread that starts it.
func (b *bench) startOn(set *unix.CPUSet, start func() error) error {
	if !b.way.pinned {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, set); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &b.cpus.load)
	return start()
}
