package restart

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/session/packet"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

var updates = flag.Int("updates", 4, "how often TestLiveUpdate updates meta9d")

// upgrade runs meta9 upgrade.
func (w *world) upgrade(binary string) (string, error) {
	w.t.Helper()
	args := []string{"--addr", "unix:" + w.Admin(), "upgrade"}
	if binary != "" {
		args = append(args, "--binary", binary)
	}
	out, err := exec.CommandContext(w.ctx, testenv.Binary(w.t, "meta9"), args...).CombinedOutput()
	return string(out), err
}

// pause is that of the last update, in ms.
func (w *world) pause() time.Duration {
	return time.Duration(w.figure("upgrade_pause_ms")) * time.Millisecond
}

// lines is a client of the Joyent protocol, on one connection.
type lines struct {
	net.Conn
	in *bufio.Reader
}

func (w *world) lines() *lines {
	w.t.Helper()
	c, err := net.Dial("unix", filepath.Join(w.Run(), uuid, "mdata.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return &lines{c, bufio.NewReader(c)}
}

// get asks for a key; what comes is the value.
func (l *lines) get(key string) (string, error) {
	_ = l.SetDeadline(time.Now().Add(patient))
	if _, err := fmt.Fprintf(l, "GET %s\n", key); err != nil {
		return "", err
	}
	var got []string
	for range 3 {
		s, err := l.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		got = append(got, s)
	}
	if got[0] != "SUCCESS\n" || got[2] != ".\n" {
		return "", fmt.Errorf("%q", got)
	}
	return strings.TrimSuffix(got[1], "\n"), nil
}

// plain is a client of one of the kernel's dialects, without a session, on a transport
// that it cannot make again.
func (w *world) plain(network, addr, version string) *raw.Conn {
	w.t.Helper()
	c, err := raw.Dial(network, addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.speaks(c, version)
}

// speaks begins on a connection.
func (w *world) speaks(c *raw.Conn, version string) *raw.Conn {
	w.t.Helper()
	w.t.Cleanup(func() { c.Close() })
	if _, got, err := c.Version(64<<10, version); err != nil || got != version {
		w.t.Fatalf("%s, %v", got, err)
	}
	attach := []any{uint32(0), wire.NoFid, "", ""}
	if version != "9P2000" && version != "9P2000.e" {
		attach = append(attach, uint32(wire.NoUID))
	}
	w.rpc(c, wire.Tattach, attach...)
	return c
}

// link is a link of packets on the VM's link.sock.
func (w *world) link() net.Conn { return w.linkOf(uuid) }

func (w *world) linkOf(vm string) net.Conn {
	w.t.Helper()
	c, err := net.Dial("unix", filepath.Join(w.Run(), vm, "link.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, patient)
	defer cancel()
	l, err := packet.Dial(ctx, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// pace is how often those beside the writers do something: they are not to hold them up.
const pace = 2 * time.Millisecond

// device is the VM's character device, which meta9d dials.
type device struct {
	t     *testing.T
	conns chan net.Conn
}

func (w *world) device() *device { return w.deviceOf(uuid, "device") }

// deviceOf is device for that VM, as a file of that name.
func (w *world) deviceOf(vm, name string) *device {
	w.t.Helper()
	path := filepath.Join(w.Dir, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	d := &device{w.t, make(chan net.Conn, 16)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.conns <- c
		}
	}()
	if err := w.Ctl(`update ` + vm + ` {"9p_chardev":"unix:` + path + `"}`); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// accept is the connection that meta9d has made.
func (d *device) accept() net.Conn {
	d.t.Helper()
	select {
	case c := <-d.conns:
		return c
	case <-time.After(patient):
		d.t.Fatal("the device is not dialled")
		return nil
	}
}

// beside runs step again and again until stop is closed; an error ends it.
func (w *world) beside(what string, stop <-chan struct{}, steps *int, step func(i int) error) {
	w.running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				*steps = i
				return
			case <-time.After(pace):
			}
			if err := step(i); err != nil {
				w.t.Errorf("%s, step %d: %v", what, i, err)
				return
			}
		}
	})
}

// TestLiveUpdate: under writers, a reader of events, a holder of a lock and one who waits
// for it, clients of the kernel's dialects by unix, tcp and a link of packets, and one of the Joyent protocol,
// every live update is a pause. Nobody gets an error, and nobody's connection is another
// than before: session/client would resume its session, the others cannot connect again.
func TestLiveUpdate(t *testing.T) {
	testenv.Binary(t, "meta9") // it is not to be built while they work
	w := newWorldWith(t, daemon.Options{TCP: []string{"as=vm:" + uuid}})
	events := w.watch()
	for _, name := range []string{"lock", "open", "wait"} {
		w.put(name, "of "+name)
	}
	stop := make(chan struct{})
	var did [writers]writer
	for id := range did {
		w.running.Go(func() { w.write(id, stop, &did[id]) })
	}
	var steps [7]int
	device := w.device()
	for i, version := range []string{"9P2000", "9P2000.u", "9P2000.L", "9P2000.e", "9P2000.L", "9P2000.L"} {
		var c *raw.Conn
		if i == 5 {
			c = w.speaks(raw.New(w.link()), version)
		} else if i < 4 {
			c = w.plain("tcp", w.TCPAddrs[0], version)
		} else {
			c = w.speaks(raw.New(device.accept()), version)
		}
		w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
		if version == "9P2000.L" {
			w.rpc(c, wire.Tlopen, uint32(1), uint32(0))
		} else {
			w.rpc(c, wire.Topen, uint32(1), uint8(0))
		}
		w.beside(version, stop, &steps[i], func(int) error {
			b, err := c.Read(1, 0, 100)
			if err == nil && string(b) != "of open" {
				err = fmt.Errorf("it reads %q", b)
			}
			return err
		})
	}
	mdata := w.lines()
	w.beside("the Joyent protocol", stop, &steps[6], func(int) error {
		v, err := mdata.get("open")
		if err == nil && v != "of open" {
			err = fmt.Errorf("it is told %q", v)
		}
		return err
	})
	// One holds a lock, one waits for it; a third reads the next events, of which there is
	// no end, with an offset that only its own connection's bytes make right.
	holder, waiter := w.plain("unix", w.VM(uuid), "9P2000.L"), w.plain("unix", w.VM(uuid), "9P2000.L")
	w.openLock(holder)
	w.openLock(waiter)
	if got := w.lock(holder); got != 0 {
		t.Fatalf("the lock's status is %d", got)
	}
	// P9_LOCK_FLAGS_BLOCK
	if err := waiter.Send(raw.Frame(wire.Tlock, 5, uint32(1), uint8(1), uint32(1), uint64(0), uint64(0), uint32(9), "other")); err != nil {
		t.Fatal(err)
	}
	pid := w.PID()
	var longest time.Duration
	for i := range *updates {
		w.goesOn(&did)
		if i%2 == 0 {
			if out, err := w.upgrade(""); err != nil {
				t.Fatalf("update %d: %v\n%s\n%s", i, err, out, w.Log())
			}
		} else {
			if err := w.Signal(syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the update is done", func() bool { return w.figure("upgrades") == i+1 })
		}
		longest = max(longest, w.pause())
		if other := w.plain("unix", w.VM(uuid), "9P2000.L"); true {
			w.openLock(other)
			if got := w.lock(other); got != 1 {
				t.Errorf("update %d: another takes the lock: status %d", i, got)
			}
			other.Close()
		}
	}
	w.goesOn(&did)
	close(stop)
	w.running.Wait()
	w.rpc(holder, wire.Tlock, uint32(1), uint8(2), uint32(1), uint64(0), uint64(0), uint32(7), "guest")
	if r, err := waiter.Recv(); err != nil || r.Type != wire.Rlock || r.Tag != 5 || r.Body[0] != 0 {
		t.Errorf("who waits for the lock gets %v, %v", r, err)
	}
	if w.resumed.Load()+w.renewed.Load() != 0 {
		t.Errorf("%d sessions were resumed and %d were not, though their connections are there", w.resumed.Load(), w.renewed.Load())
	}
	if n := len(device.conns); n != 0 {
		t.Errorf("the device was dialled again, %d times", n)
	}
	if w.PID() != pid || w.figure("upgrades_failed") != 0 {
		t.Errorf("process %d, before %d; %d updates have failed", w.PID(), pid, w.figure("upgrades_failed"))
	}
	changes, seen := w.verify(events, &did)
	quiet, cold := w.quietPause(), w.coldStart()
	if quiet > cold+100*time.Millisecond {
		t.Errorf("with nothing to do the pause is %v, a start takes %v", quiet, cold)
	}
	longestPause = max(longestPause, longest)
	t.Logf("%d updates, the longest pause %v (%v with nothing to do, a start takes %v): %d changes, %d events, %v steps of others",
		*updates, longest, quiet, cold, changes, seen, steps)
}

// longestPause is that of all updates under load.
var longestPause time.Duration

// quietPause is that of an update while nobody does anything: the shortest of three, as
// the machine has others to serve.
func (w *world) quietPause() time.Duration {
	w.t.Helper()
	var all []time.Duration
	for range 3 {
		if out, err := w.upgrade(""); err != nil {
			w.t.Fatalf("%v: %s", err, out)
		}
		all = append(all, w.pause())
	}
	return slices.Min(all)
}

// coldStart is how long meta9d takes to start on the same data.
func (w *world) coldStart() time.Duration {
	w.t.Helper()
	if err := w.Stop(patient); err != nil {
		w.t.Fatal(err)
	}
	begin := time.Now()
	d, err := daemon.Start(w.Options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Daemon = d
	return time.Since(begin)
}

// goesOn waits until every writer has done something more.
func (w *world) goesOn(did *[writers]writer) {
	w.t.Helper()
	var before [writers]int64
	for i := range did {
		before[i] = did[i].lines.Load()
	}
	testenv.Eventually(w.t, "the writers go on", func() bool {
		for i := range did {
			if did[i].lines.Load() <= before[i]+1 {
				return w.t.Failed()
			}
		}
		return true
	})
}

// TestUpdateRefused: what is no meta9d that can take over, or that somebody else could
// have made, is refused with a reason, and nothing has changed.
func TestUpdateRefused(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	alien := file("alien", "#!/bin/sh\n", 0o755)
	if err := os.Chown(alien, 65534, 65534); err != nil {
		t.Fatalf("this test is root's: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	c := w.plain("unix", w.VM(uuid), "9P2000.L")
	for binary, want := range map[string]string{
		filepath.Join(dir, "nowhere"): "no such file",
		dir:                           "is no program",
		fifo:                          "is no program",
		file("text", "it cannot be executed", 0o755):           "exec format error",
		file("data", "", 0o644):                                "is no program",
		file("open", "#!/bin/sh\n", 0o777):                     "others may change it",
		file("fails", "#!/bin/sh\necho no >&2\nexit 1", 0o755): "its check says: no",
		file("other", "#!/bin/sh\necho hello", 0o755):          "no meta9d that can take over",
		alien: "user 65534's",
	} {
		out, err := w.upgrade(binary)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %q does not say %q", binary, err, out, want)
		}
	}
	w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys"})
	if n := w.figure("upgrades"); n != 0 {
		t.Errorf("%d updates", n)
	}
}

// TestRestartNeeded: exit code 6 says that a good program cannot take over here; a bad one
// is refused with another, since nobody should restart into it.
func TestRestartNeeded(t *testing.T) {
	program := func(text string) string {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	memory, disk := newWorldWith(t, daemon.Options{Memory: true}), newWorld(t)
	bad := program("echo no >&2; exit 1")
	for _, c := range []struct {
		w      *world
		binary string
		code   int
		want   string
	}{
		{memory, "", 6, "in memory only"},
		{memory, bad, 1, "its check says: no"},
		{disk, bad, 1, "its check says: no"},
		{disk, program("cat >/dev/null; echo a restart is needed; echo older >&2; exit 1"), 6, "older"},
	} {
		out, err := c.w.upgrade(c.binary)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%q: %v, %q; want %d and %q", c.binary, err, out, c.code, c.want)
		}
	}
	cmd := exec.Command(testenv.Binary(t, "meta9d"), "--check-upgrade", "--data", t.TempDir(), "--run", t.TempDir())
	cmd.Stdin = strings.NewReader(`{"handover":0,"session":0}`)
	if out, err := cmd.Output(); err == nil || string(out) != "a restart is needed\n" {
		t.Errorf("the check of another handover: %v, %q", err, out)
	}
}

// next is a program that passes the check of the real one, and then fails.
func next(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "next")
	if out, err := exec.Command("go", "build", "-o", bin, "./testdata/next").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// nextWorld is a world whose meta9d is to be upgraded to next, which fails as mode says.
func nextWorld(t *testing.T, mode string) *world {
	return newWorldWith(t, daemon.Options{Env: []string{"NEXT_MODE=" + mode, "NEXT_REAL=" + testenv.Binary(t, "meta9d")}})
}

// TestUpdateFails: a program that fails when it is executed, at once or when it has much
// of what it needs, makes room for the one before it: the update is refused, and nobody's
// connection has ended.
func TestUpdateFails(t *testing.T) {
	bin := next(t)
	for mode, want := range map[string]string{"refuses": "log level", "fails": "/proc/nowhere"} {
		w := nextWorld(t, mode)
		w.put("lock", "of lock")
		w.put("open", "of open")
		holder, mdata := w.plain("unix", w.VM(uuid), "9P2000.L"), w.lines()
		if _, err := mdata.get("open"); err != nil {
			t.Fatal(err)
		}
		w.openLock(holder)
		w.lock(holder)
		c := w.client()
		for range 2 {
			out, err := w.upgrade(bin)
			if err == nil || !strings.Contains(out, "goes on") || !strings.Contains(out, want) {
				t.Errorf("%s: %v, %q does not say %q", mode, err, out, want)
			}
			if err := c.WriteFile(w.ctx, "keys/open", []byte("of "+mode)); err != nil {
				t.Error(err)
			}
			if got, err := mdata.get("open"); err != nil || got != "of "+mode {
				t.Errorf("%s: the Joyent protocol says %q, %v", mode, got, err)
			}
			if b, err := holder.Read(1, 0, 100); err != nil || string(b) != "of lock" {
				t.Errorf("%s: the holder of the lock reads %q, %v", mode, b, err)
			}
		}
		if out, err := w.upgrade(""); err != nil {
			t.Errorf("%s: a good one after it: %v, %s", mode, err, out)
		}
		if n := w.figure("upgrades_failed"); n != 2 || w.figure("upgrades") != 1 {
			t.Errorf("%s: %d updates have failed, %d not", mode, n, w.figure("upgrades"))
		}
		if w.resumed.Load()+w.renewed.Load() != 0 {
			t.Errorf("%s: a connection has ended", mode)
		}
		c.Close()
	}
}

// TestSettingsThatFail: where the new settings pass the check, and then fail, the program
// before goes on with those that it had.
func TestSettingsThatFail(t *testing.T) {
	w := newWorld(t)
	c := w.plain("unix", w.VM(uuid), "9P2000.L")
	file := filepath.Join(w.Dir, "meta9d.toml")
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("listen = [\"unix:/proc/nowhere/x.sock\"]\n"), was...), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := w.upgrade("")
		if err == nil || !strings.Contains(out, "goes on") || !strings.Contains(out, "/proc/nowhere") {
			t.Fatalf("%v, %q", err, out)
		}
	}
	if err := os.WriteFile(file, was, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := w.upgrade(""); err != nil {
		t.Errorf("%v, %q", err, out)
	}
	w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys"})
}

// TestHangupInThePause: SIGHUP, which begins a reload, does not end the process in a live
// update, nor the update.
func TestHangupInThePause(t *testing.T) {
	w := nextWorld(t, "hangup")
	c := w.plain("unix", w.VM(uuid), "9P2000.L")
	if out, err := w.upgrade(next(t)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys"})
}

// TestUpdateDies: a program that is killed before it serves leaves what a planned stop
// leaves: whoever starts meta9d again, as systemd does, resumes the sessions.
func TestUpdateDies(t *testing.T) {
	w := nextWorld(t, "dies")
	c := w.client()
	defer c.Close()
	if err := c.WriteFile(w.ctx, "keys/a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	f, err := c.OpenFile(w.ctx, "keys/a", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	asked := w.Ctl("upgrade " + next(t)) // the answer may be on its way when the program dies
	select {
	case <-w.Exited():
	case <-time.After(patient):
		t.Fatal("it lives; the answer was:", asked)
	}
	d, err := daemon.Start(w.Options)
	if err != nil {
		t.Fatal(err)
	}
	w.Daemon = d
	if _, err := f.WriteAt(w.ctx, []byte("2"), 1); err != nil {
		t.Error(err)
	}
	if b, err := c.ReadFile(w.ctx, "keys/a"); err != nil || string(b) != "12" {
		t.Errorf("%q, %v", b, err)
	}
	if w.resumed.Load() != 1 || w.renewed.Load() != 0 {
		t.Errorf("%d sessions were resumed, %d not", w.resumed.Load(), w.renewed.Load())
	}
}

// TestUpdatesAtOnce: of several that are asked for at once, one is done at a time, and the
// others are told so.
func TestUpdatesAtOnce(t *testing.T) {
	w := newWorld(t)
	c := w.plain("unix", w.VM(uuid), "9P2000.L")
	var asked sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 4 {
		asked.Go(func() {
			out, err := w.upgrade("")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done++
			case !strings.Contains(out, "another live update is under way"):
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	asked.Wait()
	if done == 0 || w.figure("upgrades") > 4 || w.figure("upgrades_failed") != 0 {
		t.Errorf("%d say that they are done, %d are, %d have failed", done, w.figure("upgrades"), w.figure("upgrades_failed"))
	}
	w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys"})
}
