package mount

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/agent"
	"meta9/tests/guest/machine"
	"meta9/tests/mount/work"
	"meta9/tests/testenv"
)

var updates = flag.Int("updates", 5, "how often TestUpdated updates meta9d")

// TestUpdated: live updates of meta9d under work in a guest that has it mounted in each
// way: v9fs by tcp and by guestfwd, meta9 mount by link.sock, and v9fs by a unix socket of a
// meta9d within the guest, which is updated as well. Clients of the Joyent protocol are
// beside them. Nobody gets an error, and every connection is the one that it was.
func TestUpdated(t *testing.T) {
	w := &world{Server: testenv.Start(t, daemon.Options{TCP: []string{"as=vm:" + uuid}}), via: "virtio", addr: "virtio:" + port}
	w.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"guest","customer_metadata":{"motd":"hello"}}`)
	w.Guest = guest.Boot(t, machine.Options{
		Files:   map[string]string{"/bin/meta9": guest.Static(t, "cmd/meta9"), "/bin/meta9d": guest.Static(t, "cmd/meta9d")},
		Connect: "tcp:" + w.TCPAddrs[0], Via: machine.User, Forward: w.VM(uuid), Memory: 512,
		QEMU: []string{
			"-chardev", "socket,id=link,server=off,reconnect=1,path=" + w.link(),
			"-device", "virtserialport,bus=vs.0,nr=3,chardev=link,name=" + port,
		},
	})
	_, tcp, err := net.SplitHostPort(w.TCPAddrs[0])
	if err != nil {
		t.Fatal(err)
	}
	w.Sh(t, "mkdir -p "+dir+" /mnt/tcp /mnt/fwd /mnt/unix /tmp/in")
	w.mount(t, "")
	w.Sh(t, "mount -t 9p -o trans=tcp,version=9p2000.L,cache=none,port="+tcp+" 10.0.2.2 /mnt/tcp")
	w.Sh(t, "mount -t 9p -o trans=tcp,version=9p2000.L,cache=none,port=564 10.0.2.100 /mnt/fwd")
	const inside = "/bin/meta9 --addr unix:/tmp/in/run/admin.sock "
	w.Sh(t, "meta9d --run /tmp/in/run --data /tmp/in/data >/tmp/in/out 2>/tmp/in/log & "+
		"until grep -q ready /tmp/in/out 2>/dev/null; do sleep 0.1; done")
	w.Sh(t, "echo '{\"uuid\":\""+uuid+"\",\"alias\":\"inner\"}' | "+inside+"vm create && until [ -S /tmp/in/run/"+uuid+"/9p.sock ]; do sleep 0.1; done")
	w.Sh(t, "mount -t 9p -o trans=unix,version=9p2000.L,cache=none /tmp/in/run/"+uuid+"/9p.sock /mnt/unix")

	mounts := []string{dir, "/mnt/tcp", "/mnt/fwd", "/mnt/unix"}
	var done []<-chan agent.Reply
	for id, at := range mounts {
		ch, err := w.Start("/", 0, fmt.Sprintf("worker -id %d -dir %s/keys -seed %d -stop /tmp/stop -tell /tmp/steps%d", id, at, *seed, id))
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, ch)
	}
	stop := make(chan struct{})
	var beside sync.WaitGroup
	asked := w.askBeside(t, stop, &beside)
	c := &crew{world: w, done: done}
	c.progress(t, 5)
	before := w.sockets(t)
	inner := w.Sh(t, "pidof meta9d; ls -l /proc/$(pidof meta9d)/fd | grep -c socket:")

	var longest time.Duration
	var log strings.Builder
	for i := range *updates {
		w.LiveUpdate()
		pause := w.figure(t, "upgrade_pause_ms")
		longest = max(longest, time.Duration(pause)*time.Millisecond)
		fmt.Fprintf(&log, " %d", pause)
		if i%4 == 0 { // in a guest, whose processor is emulated, it takes a second
			w.Sh(t, inside+"upgrade")
		}
		c.progress(t, 2)
	}
	after := w.sockets(t)
	for socket, what := range before {
		if _, is := after[socket]; !is {
			t.Errorf("of %d sockets one is not there any more: %s, %s", len(before), socket, what)
		}
	}
	if got := w.Sh(t, "pidof meta9d; ls -l /proc/$(pidof meta9d)/fd | grep -c socket:"); got != inner {
		t.Errorf("in the guest meta9d and its sockets are %q, before %q", got, inner)
	}
	w.Sh(t, "touch /tmp/stop")
	values := w.values(t)
	for id, ch := range done {
		var r work.Report
		select {
		case reply := <-ch:
			if err := json.Unmarshal(reply.Output, &r); err != nil || reply.Status != 0 {
				t.Fatalf("worker %d: exit %d: %s", id, reply.Status, reply.Output)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("worker %d does not end", id)
		}
		if r.Wrongs > 0 || r.Refused > 0 {
			t.Errorf("worker %d at %s: %d refused; %q", id, mounts[id], r.Refused, r.Wrong)
		}
		t.Logf("worker %d at %s: %v", id, mounts[id], r.Done)
	}
	close(stop)
	beside.Wait()
	if n := w.figure(t, "upgrades_failed"); n != 0 {
		t.Errorf("%d updates have failed", n)
	}
	if asked.n == 0 {
		t.Error("nobody has asked by the Joyent protocol")
	}
	t.Logf("%d updates, pauses in ms:%s; %d keys, %d questions of the Joyent protocol", *updates, log.String(), len(values), asked.n)
	w.Sh(t, "umount /mnt/tcp /mnt/fwd /mnt/unix; kill $(pidof meta9d)")
	w.unmount(t)
	longestUpdate = max(longestUpdate, longest)
}

// longestUpdate is the longest pause of an update so far.
var longestUpdate time.Duration

// figure is one of ctl's.
func (w *world) figure(t *testing.T, name string) (n int) {
	t.Helper()
	c, err := w.Dial("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := c.Sread(0, "ctl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, name+" %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("ctl has no %s", name)
	return 0
}

// sockets are those that meta9d has, by their inodes, and the lines of /proc/net/unix on them.
func (w *world) sockets(t *testing.T) map[string]string {
	t.Helper()
	folder := fmt.Sprintf("/proc/%d/fd", w.PID())
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(folder, e.Name()))
		inode, is := strings.CutPrefix(to, "socket:[")
		if err != nil || !is {
			continue
		}
		inode = strings.TrimSuffix(inode, "]")
		all[inode] = "tcp"
		for line := range strings.Lines(string(known)) {
			if f := strings.Fields(line); len(f) > 6 && f[6] == inode {
				all[inode] = strings.Join(f[5:], " ")
			}
		}
	}
	return all
}

// asked is how many questions were answered.
type asked struct{ n int }

// askBeside asks for a key by the Joyent protocol, again and again on one connection.
func (w *world) askBeside(t *testing.T, stop <-chan struct{}, running *sync.WaitGroup) *asked {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(w.Daemon.Run(), uuid, "mdata.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var a asked
	running.Go(func() {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := fmt.Fprint(c, "GET motd\n"); err != nil {
				t.Error(err)
				return
			}
			for _, want := range []string{"SUCCESS\n", "hello\n", ".\n"} {
				if got, err := in.ReadString('\n'); err != nil || got != want {
					t.Errorf("the Joyent protocol says %q, %v", got, err)
					return
				}
			}
			a.n++
		}
	})
	return &a
}
