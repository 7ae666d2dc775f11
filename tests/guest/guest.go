// Package guest boots real Linux guests in QEMU (package machine) and runs commands
// in them, so that meta9d meets the kernel's own 9P client. An agent in the guest
// (guesttool) runs what the test sends.
package guest

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"meta9/tests/guest/agent"
	"meta9/tests/guest/kernel"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// Kernel is the kernel that tests boot which do not name one.
var Kernel = flag.String("kernel", "", "the guests' kernel: a Debian suite, the packages of a kernel, or an image (default "+kernel.Default+")")

// patience is how long one command may take in a guest that shares two cores with
// all else.
const patience = 3 * time.Minute

// Guest is a running guest. Its methods may be called from any goroutine.
type Guest struct {
	in  io.Writer
	out io.Reader
	// stop ends the guest, wait says why it has ended, and log is the end of what its
	// kernel says.
	stop func()
	wait func() error
	log  func() string

	mu      sync.Mutex
	lastID  int
	waiting map[int]chan agent.Reply
	ended   chan struct{}
	why     error // set before ended is closed
}

// Boot starts a guest as o says, which leaves the script to it, and waits until it is
// up. It ends with the test. Where Debian's mirror serves the kernel no more, the test
// is skipped.
func Boot(t testing.TB, o machine.Options) *Guest {
	t.Helper()
	if o.Kernel == "" {
		o.Kernel = *Kernel
	}
	return begin(t, o, machine.Start)
}

// Contain is Boot for a container on this machine's kernel (machine.Contain), to mount by
// FUSE. Where that cannot be the test is skipped.
func Contain(t testing.TB, o machine.Options) *Guest {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		_ = exec.Command("modprobe", "fuse").Run()
		f, err = os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	}
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("a mount by FUSE on this machine needs root and /dev/fuse (%v)", err)
	}
	f.Close()
	return begin(t, o, machine.Contain)
}

// Image writes what Boot would boot into dir, for a guest that somebody else runs, who
// gives it virtio-serial ports of the names out and status. Join is for what comes after.
func Image(t testing.TB, o machine.Options, dir string) (image, initrd string) {
	t.Helper()
	image, initrd, err := machine.Image(withAgent(t, o), dir)
	if err != nil {
		t.Fatal(err)
	}
	return image, initrd
}

// Join waits until a guest is up that somebody else runs. conn is the other end of its
// port out, which is closed when the test ends.
func Join(t testing.TB, conn io.ReadWriteCloser) *Guest {
	t.Helper()
	return up(t, &Guest{
		in: conn, out: conn, stop: func() { conn.Close() },
		wait: func() error { return errors.New("its port is closed") }, log: func() string { return "" },
	})
}

// withAgent is o with the agent as its script.
func withAgent(t testing.TB, o machine.Options) machine.Options {
	t.Helper()
	files := map[string]string{"/bin/guesttool": Static(t, "tests/guest/guesttool")}
	for to, from := range o.Files {
		files[to] = from
	}
	o.Files, o.Script, o.Input = files, "exec /bin/guesttool\n", true
	return o
}

func begin(t testing.TB, o machine.Options, start func(machine.Options) (*machine.Machine, error)) *Guest {
	t.Helper()
	m, err := start(withAgent(t, o))
	if errors.Is(err, kernel.ErrGone) && o.Kernel != "" && o.Kernel != kernel.Default {
		t.Skipf("kernel %s: %v", o.Kernel, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return up(t, &Guest{
		in: m.In, out: m.Out, stop: m.Stop, log: m.KernelLog,
		wait: func() error {
			_, err := m.Wait()
			return err
		},
	})
}

// up waits until a guest is up.
func up(t testing.TB, g *Guest) *Guest {
	t.Helper()
	isUp := make(chan agent.Reply, 1)
	g.waiting, g.ended = map[int]chan agent.Reply{0: isUp}, make(chan struct{})
	go g.receive()
	t.Cleanup(g.end)
	select {
	case <-isUp:
	case <-g.ended:
		t.Fatalf("the guest did not come up: %v", g.why)
	case <-time.After(patience):
		t.Fatalf("the guest did not come up in time; the end of its kernel's log:\n%s", g.log())
	}
	return g
}

// receive hands the replies out until the guest ends.
func (g *Guest) receive() {
	defer close(g.ended)
	lines := bufio.NewScanner(g.out)
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
	io.Copy(io.Discard, g.out) // after a line that is too long
	g.why = g.wait()
}

// end ends the guest.
func (g *Guest) end() {
	g.stop()
	<-g.ended
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
		return "", 0, fmt.Errorf("the guest has ended: %w", g.why)
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
	paths map[string]string // by the folder
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
	dir, err := testenv.Folder()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "static", filepath.Base(folder))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Dir = filepath.Join(testenv.Root(t), folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", folder, err, out)
	}
	if static.paths == nil {
		static.paths = map[string]string{}
	}
	static.paths[folder] = path
	return path
}
