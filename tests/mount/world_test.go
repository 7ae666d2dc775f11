package mount

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/agent"
	"meta9/tests/guest/kernel"
	"meta9/tests/guest/machine"
	"meta9/tests/mount/work"
	"meta9/tests/testenv"
)

var seed = flag.Uint64("seed", 20121217, "what the random moments and values grow from")

func TestMain(m *testing.M) { testenv.Main(m) }

// uuid is the VM whose guest is tested.
var uuid = testenv.UUID(1)

const (
	dir  = "/mnt/meta"
	keys = dir + "/keys"
	port = "9p0" // the virtio-serial port, as package machine names them
)

// world is meta9d with one VM, its guest, and the cutter between them.
type world struct {
	*testenv.Server
	*guest.Guest
	via   string // tcp or virtio; fuse is tcp, by FUSE on this machine's kernel
	cloud bool   // the guest's kernel has no 9P
	cut   *cutter
	addr  string // for meta9 mount

	mu  sync.Mutex
	tcp string // meta9d's listener
}

// newWorld starts all.
func newWorld(t *testing.T, via string, o daemon.Options) *world {
	t.Helper()
	return newWorldOn(t, via, "", o)
}

// newWorldOn is newWorld with a kernel for the guest; "": the one that tests boot.
func newWorldOn(t *testing.T, via, boots string, o daemon.Options) *world {
	t.Helper()
	t.Logf("-seed %d", *seed)
	o.TCP = []string{"as=vm:" + uuid}
	w := &world{Server: testenv.Start(t, o), via: via, cloud: strings.HasSuffix(boots, kernel.CloudSuffix)}
	w.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"guest","customer_metadata":{"motd":"hello"}}`)
	w.tcp = w.TCPAddrs[0]
	boot := machine.Options{Kernel: boots, Files: map[string]string{"/bin/meta9": guest.Static(t, "cmd/meta9")}}
	var err error
	if via != "virtio" {
		free := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
		w.cut, err = newCutter(free, *seed, frames, false, func() (net.Conn, error) { return net.Dial("tcp", w.listener()) })
		if err != nil {
			t.Fatal(err)
		}
		_, p, _ := net.SplitHostPort(w.cut.addr.String())
		w.addr = "tcp:10.0.2.2:" + p
		boot.Connect, boot.Via = "tcp:"+w.cut.addr.String(), machine.User
		if via == "fuse" {
			w.addr = "tcp:127.0.0.1:" + p
		}
	} else {
		path := &net.UnixAddr{Net: "unix", Name: filepath.Join(w.Dir, "cutter.sock")}
		w.cut, err = newCutter(path, *seed, packets, true, func() (net.Conn, error) { return net.Dial("unix", w.link()) })
		if err != nil {
			t.Fatal(err)
		}
		w.addr = "virtio:" + port
		boot.Connect, boot.Via, boot.Ports = "unix:"+path.Name, machine.Serial, 1
	}
	t.Cleanup(w.cut.close)
	if via == "fuse" {
		w.Guest = guest.Contain(t, boot)
	} else {
		w.Guest = guest.Boot(t, boot)
	}
	w.Sh(t, "mkdir -p "+dir)
	return w
}

// fuse tells whether the guest mounts by FUSE.
func (w *world) fuse() bool { return w.via == "fuse" || w.cloud }

// link is the socket for virtio-serial ports. (Guest has a Run, too.)
func (w *world) link() string { return filepath.Join(w.Daemon.Run(), uuid, "link.sock") }

// listener is where meta9d listens by now.
func (w *world) listener() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tcp
}

// kill restarts meta9d by SIGKILL on what it left.
func (w *world) kill() {
	w.Restart()
	w.moved()
}

// moved notes where a meta9d that was started again listens.
func (w *world) moved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tcp = w.TCPAddrs[0]
}

// mount runs meta9 mount in the guest.
func (w *world) mount(t *testing.T, options string) {
	t.Helper()
	w.Sh(t, strings.Join([]string{w.mountCommand(), options, w.addr, dir}, " "))
}

// mountCommand is meta9 mount, by what the guest mounts.
func (w *world) mountCommand() string {
	if w.fuse() && !w.cloud { // there it is chosen by itself
		return "meta9 mount --fuse"
	}
	return "meta9 mount"
}

// values are the VM's keys, as everyone else sees them.
func (w *world) values(t *testing.T) map[string]string {
	t.Helper()
	c := w.Conn("vms/" + uuid)
	values := make(map[string]string)
	list, err := c.Sread(0, "keys")
	for err == nil && len(list) > 0 {
		var d wire.Dir
		if d, list, err = wire.DecodeDir(list, wire.E); err == nil {
			var b []byte
			b, err = c.Sread(0, "keys", d.Name)
			values[d.Name] = string(b)
		}
	}
	if err != nil {
		t.Fatalf("reading the keys on the host: %v", err)
	}
	return values
}

// put sets a key from the host; remove removes it.
func (w *world) put(t *testing.T, key, value string) {
	t.Helper()
	if err := w.Conn("vms/"+uuid).Swrite(0, []byte(value), "keys", key); err != nil {
		t.Fatal(err)
	}
}

func (w *world) remove(t *testing.T, key string) {
	t.Helper()
	c := w.Conn("vms/" + uuid)
	err := c.Walk(0, 1, "keys", key)
	if err == nil {
		_, err = c.RPC(wire.Tremove, 0, uint32(1))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sessions are those that the guest has, live or parked, as meta9d tells.
func (w *world) sessions(t *testing.T) []string {
	t.Helper()
	var list []string
	c := w.Conn("")
	names, err := c.Sread(0, "sessions")
	for err == nil && len(names) > 0 {
		var d wire.Dir
		if d, names, err = wire.DecodeDir(names, wire.E); err != nil {
			break
		}
		b, gone := c.Sread(0, "sessions", d.Name)
		if gone == nil && strings.Contains(string(b), uuid) {
			list = append(list, string(b))
		}
	}
	if err != nil {
		t.Fatalf("reading sessions/: %v", err)
	}
	return list
}

// crew is workers in the guest.
type crew struct {
	*world
	lossy bool
	done  []<-chan agent.Reply
}

// workers is how many there are.
const workers = 4

// work starts workers in the guest's mount.
func (w *world) work(t *testing.T, lossy bool) *crew {
	t.Helper()
	w.Sh(t, "rm -f /tmp/stop /tmp/steps*")
	c := &crew{world: w, lossy: lossy}
	for id := range workers {
		done, err := w.Start("/", 0, fmt.Sprintf("worker -id %d -dir %s -seed %d -lossy=%v -stop /tmp/stop -tell /tmp/steps%d", id, keys, *seed, lossy, id))
		if err != nil {
			t.Fatal(err)
		}
		c.done = append(c.done, done)
	}
	c.progress(t, 20)
	return c
}

// steps are how many steps each worker has done.
func (c *crew) steps(t *testing.T) (steps [workers]int) {
	t.Helper()
	for i := range steps {
		n, _ := strconv.Atoi(c.Sh(t, fmt.Sprintf("cat /tmp/steps%d 2>/dev/null || echo 0", i)))
		steps[i] = n
	}
	return steps
}

// progress waits until each worker has done n steps more.
func (c *crew) progress(t *testing.T, n int) {
	t.Helper()
	before := c.steps(t)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		now := c.steps(t)
		least := now[0] - before[0]
		for i := range now {
			least = min(least, now[i]-before[i])
		}
		if least >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the workers stand still: %v steps, before %v; sessions: %v", now, before, c.sessions(t))
		}
	}
}

// stop ends the workers, and holds what is on the host against what they tell.
func (c *crew) stop(t *testing.T) []work.Report {
	t.Helper()
	c.Sh(t, "touch /tmp/stop")
	var reports []work.Report
	for id, done := range c.done {
		var r work.Report
		select {
		case reply := <-done:
			if err := json.Unmarshal(reply.Output, &r); err != nil || reply.Status != 0 {
				t.Fatalf("worker %d: exit %d: %s", id, reply.Status, reply.Output)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("worker %d does not end; sessions: %v", id, c.sessions(t))
		}
		for _, wrong := range r.Wrong {
			t.Errorf("worker %d: %s", id, wrong)
		}
		if r.Refused > 0 && !c.lossy {
			t.Errorf("worker %d was refused %d changes", id, r.Refused)
		}
		t.Logf("worker %d: %v, %d refused, %d wrong", id, r.Done, r.Refused, r.Wrongs)
		reports = append(reports, r)
	}
	c.verify(t, reports)
	return reports
}

// verify holds the host's keys against the reports.
func (c *crew) verify(t *testing.T, reports []work.Report) {
	t.Helper()
	values := c.values(t)
	for id, r := range reports {
		seen := make(map[string]string)
		for name, value := range values {
			if strings.HasPrefix(name, work.Prefix(id)) {
				seen[name] = work.Digest(value)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(r.Keys)) {
			if seen[name] != r.Keys[name] {
				t.Errorf("on the host %s is %q, worker %d left %q", name, seen[name], id, r.Keys[name])
			}
			delete(seen, name)
		}
		for name := range seen {
			t.Errorf("on the host is %s, which worker %d has removed", name, id)
		}
		if err := work.Judge(values[work.Log], id, r); err != nil {
			t.Errorf("worker %d: the log: %v", id, err)
		}
	}
}
