// Package guest boots real Linux guests in QEMU, each a Debian kernel and busybox
// in an initramfs, and runs commands in them, so that meta9d meets the kernel's
// own 9P client. guest.sh makes and boots them (it can be run by hand); an agent
// in the guest (guesttool) runs what the test sends.
package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest/agent"
	"meta9/tests/testenv"
)

// patience is how long one command may take in a guest that shares two cores with
// all else.
const patience = 3 * time.Minute

// Guest is a running guest. Its methods may be called from any goroutine.
type Guest struct {
	cmd *exec.Cmd
	log *strings.Builder // what guest.sh said; read it once it has ended

	mu      sync.Mutex
	in      io.WriteCloser
	lastID  int
	waiting map[int]chan agent.Reply
	ended   chan struct{}
}

// Boot starts a guest that reaches a server as guest.sh's flags say, and waits
// until it is up. It ends with the test.
func Boot(t testing.TB, flags ...string) *Guest {
	t.Helper()
	ready(t)
	g := &Guest{log: new(strings.Builder), waiting: map[int]chan agent.Reply{}, ended: make(chan struct{})}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("exec /bin/guesttool\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := make(chan agent.Reply, 1)
	g.waiting[0] = up
	g.cmd = exec.Command(here(t, "guest.sh"), append(flags,
		"--no-mount", "--input", "--timeout", "3600",
		"--script", script, "--add", Static(t, "tests/guest/guesttool")+":/bin/guesttool")...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	g.cmd.Stderr = g.log
	var err error
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go g.receive(out)
	t.Cleanup(func() { g.end(t) })
	select {
	case <-up:
	case <-g.ended:
		t.Fatalf("the guest did not come up:\n%s", g.log)
	case <-time.After(patience):
		t.Fatal("the guest did not come up in time")
	}
	return g
}

// receive hands the replies out until the guest ends.
func (g *Guest) receive(out io.Reader) {
	defer close(g.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r agent.Reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // something that the guest says beside
		}
		g.mu.Lock()
		if ch := g.waiting[r.ID]; ch != nil {
			delete(g.waiting, r.ID)
			ch <- r
		}
		g.mu.Unlock()
	}
	g.cmd.Wait()
}

// end lets guest.sh end its QEMU.
func (g *Guest) end(t testing.TB) {
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.ended:
	case <-time.After(20 * time.Second):
		g.cmd.Process.Kill()
		t.Error("guest.sh did not end")
	}
}

// Start sends a command and gives its reply when it comes.
func (g *Guest) Start(dir string, uid uint32, shell string) (<-chan agent.Reply, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastID++
	ch := make(chan agent.Reply, 1)
	g.waiting[g.lastID] = ch
	b, err := json.Marshal(agent.Request{ID: g.lastID, Shell: shell, Dir: dir, UID: uid})
	if err == nil {
		_, err = g.in.Write(append(b, '\n'))
	}
	return ch, err
}

// Run runs a shell command in the guest and waits for it.
func (g *Guest) Run(dir string, uid uint32, shell string) (string, int, error) {
	ch, err := g.Start(dir, uid, shell)
	if err != nil {
		return "", 0, err
	}
	select {
	case r := <-ch:
		return string(r.Output), r.Status, nil
	case <-g.ended:
		return "", 0, fmt.Errorf("the guest has ended")
	case <-time.After(patience):
		return "", 0, fmt.Errorf("no end after %v", patience)
	}
}

// Sh runs a shell command as root, which must exit with 0, and gives its output.
func (g *Guest) Sh(t testing.TB, shell string) string {
	t.Helper()
	out, status, err := g.Run("/", 0, shell)
	if err != nil || status != 0 {
		t.Fatalf("%s\n\texit %d, %v: %s", shell, status, err, out)
	}
	return out
}

var static struct {
	sync.Mutex
	dir   string
	paths map[string]string
}

// Static builds the program in a folder of the tree ("cmd/meta9") so that it runs
// in a guest, once a test process, and gives its path.
func Static(t testing.TB, folder string) string {
	t.Helper()
	static.Lock()
	defer static.Unlock()
	if path, ok := static.paths[folder]; ok {
		return path
	}
	root, err := daemon.Root()
	if err == nil && static.dir == "" {
		static.paths = map[string]string{}
		static.dir, err = os.MkdirTemp("", "static-")
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(static.dir, filepath.Base(folder))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Dir = filepath.Join(root, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", folder, err, out)
	}
	static.paths[folder] = path
	return path
}

// here is the path of something that stands beside this file.
func here(t testing.TB, name string) string {
	t.Helper()
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "tests", "guest", name)
}

var prepared sync.Once

// ready makes sure that a guest can be booted: QEMU is there, and what guests boot
// from was fetched and made.
func ready(t testing.TB) {
	t.Helper()
	testenv.NeedDebian(t, "qemu-system-x86_64", "qemu-system-x86")
	prepared.Do(func() {
		if out, err := exec.Command(here(t, "guest.sh"), "--prepare").CombinedOutput(); err != nil {
			t.Fatalf("guest.sh --prepare: %v\n%s", err, out)
		}
	})
}
