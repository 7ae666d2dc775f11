package mount

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// unmount unmounts, and sees to it that nothing stays: no process in the guest, no
// session on the host.
func (w *world) unmount(t *testing.T) {
	t.Helper()
	w.Sh(t, "meta9 umount "+dir)
	w.gone(t)
	testenv.Eventually(t, "no session is left on the host", func() bool { return len(w.sessions(t)) == 0 })
}

// open lets the guest reach meta9d again, after w.cut.close.
func (w *world) open(t *testing.T) {
	t.Helper()
	if err := w.cut.open(); err != nil {
		t.Fatal(err)
	}
}

// gone waits until there is no process of meta9's in the guest.
func (w *world) gone(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "meta9 ends in the guest", func() bool { return w.Sh(t, "pidof meta9 || :") == "" })
}

// fails runs a command as root that must fail and say that, in that time.
func (w *world) fails(t *testing.T, shell, want string, within time.Duration) {
	t.Helper()
	begin := time.Now()
	out, status, err := w.Guest.Run("/", 0, shell)
	if err != nil || status == 0 || !strings.Contains(out, want) {
		t.Errorf("%s\n\texit %d, %v: %.300q, want a failure with %q", shell, status, err, out, want)
	}
	if took := time.Since(begin); took > within {
		t.Errorf("%s\n\ttook %v", shell, took)
	}
}

// maxMemory is what a keeper may take, in KiB.
const (
	maxMemory     = 20 << 10
	maxFUSEMemory = 24 << 10
)

// modest looks at what the keeper has taken at most.
func (w *world) modest(t *testing.T) {
	t.Helper()
	var peak int
	if _, err := fmt.Sscan(w.Sh(t, "sed -n 's/VmHWM://p' /proc/$(pidof meta9)/status"), &peak); err != nil || peak == 0 {
		t.Fatalf("the keeper's memory: %d, %v", peak, err)
	}
	t.Logf("the keeper has taken %d KiB", peak)
	most := maxMemory
	if w.fuse() {
		most = maxFUSEMemory
	}
	if peak >= most {
		t.Errorf("the keeper has taken %d KiB", peak)
	}
}

// soon is how long what happens at once may take in a guest.
const soon = 5 * time.Second

// TestLife: mounts are made, used and ended, in each of the ways in which that can
// happen.
func TestLife(t *testing.T) {
	byWay(t, func(t *testing.T, via string) {
		w := newWorld(t, via, daemon.Options{Config: "[session]\nlifetime = \"2s\"\n"})
		for _, s := range []struct {
			name string
			do   func(t *testing.T, w *world)
			via  string // "": every way
		}{
			{"big values", bigValues, ""},
			{"many values", manyValues, "fuse"},
			{"two mounts", twoMounts, "tcp fuse"},
			{"one port, one mount", onePort, "virtio"},
			{"mount helper", mountHelper, "tcp virtio"},
			{"umount without a server", umountAlone, ""},
			{"keeper killed", keeperKilled, ""},
			{"keeper ended", keeperEnded, ""},
			{"no such server", noServer, ""},
		} {
			if s.via == "" || strings.Contains(s.via, via) {
				t.Run(s.name, func(t *testing.T) { s.do(t, w) })
			}
		}
	})
}

// bigValues: values of 1 MiB go through, by many programs at once, and the keeper
// stays small.
func bigValues(t *testing.T, w *world) {
	w.mount(t, "")
	w.Sh(t, `dd if=/dev/urandom of=/tmp/big bs=64k count=16 2>/dev/null
		cd `+keys+`; for i in 1 2 3 4 5 6 7 8; do { cp /tmp/big big$i && cmp /tmp/big big$i || touch /tmp/bad; } & done; wait
		for i in 1 2 3 4 5 6 7 8; do { dd if=big$i bs=1M 2>/dev/null | cmp - /tmp/big || touch /tmp/bad; } & done; wait
		[ ! -e /tmp/bad ] && rm big*`)
	w.modest(t)
	w.unmount(t)
}

// manyValues: where what is kept fills the room that it has, the keeper collects garbage a few
// times, and not with each request.
func manyValues(t *testing.T, w *world) {
	const many = 800 // of 4 KiB: more than are kept at once
	w.Sh(t, "{ GODEBUG=gctrace=1 exec "+w.mountCommand()+" --foreground "+w.addr+" "+dir+"; } >/dev/null 2>/tmp/collections </dev/null & until grep -q "+dir+" /proc/mounts; do sleep 0.1; done")
	w.Sh(t, fmt.Sprintf(`dd if=/dev/urandom of=/tmp/value bs=4k count=1 2>/dev/null
		cd %s; for i in $(seq %d); do cp /tmp/value many$i; done; for i in $(seq %[2]d); do cmp /tmp/value many$i || exit 1; done; rm many*`, keys, many))
	n, err := strconv.Atoi(strings.TrimSpace(w.Sh(t, "grep -c ^gc /tmp/collections")))
	if t.Logf("%d collections", n); err != nil || n == 0 || n > many/2 {
		t.Errorf("%d collections (%v)", n, err)
	}
	w.modest(t)
	w.unmount(t)
}

// twoMounts: two mounts at once, each with a session of its own.
func twoMounts(t *testing.T, w *world) {
	w.mount(t, "")
	w.Sh(t, "mkdir -p /mnt/two && "+w.mountCommand()+" -o ro,aname=keys "+w.addr+" /mnt/two")
	w.Sh(t, "echo one > "+keys+"/both && [ \"$(cat /mnt/two/both)\" = one ] && echo two > "+keys+"/both")
	w.until(t, "the other mount shows it", func() bool { return w.Sh(t, "cat /mnt/two/both") == "two\n" }) // by FUSE when the event has come
	w.fails(t, "echo x > /mnt/two/both", "Read-only file system", soon)
	if n := len(w.sessions(t)); n != 2 {
		t.Errorf("%d sessions", n)
	}
	w.fails(t, w.mountCommand()+" "+w.addr+" "+dir, "is mounted there", soon)
	w.Sh(t, "meta9 umount /mnt/two")
	w.Sh(t, "rm "+keys+"/both")
	w.fails(t, "cd "+keys+" && meta9 umount "+dir, "busy", soon)
	w.unmount(t)
	w.fails(t, "meta9 umount "+dir, "nothing is mounted there", soon)
}

// onePort: a port is for one mount at a time. The first does not suffer.
func onePort(t *testing.T, w *world) {
	w.mount(t, "")
	w.Sh(t, "mkdir -p /mnt/two")
	w.fails(t, "meta9 mount "+w.addr+" /mnt/two", "busy", soon)
	w.Sh(t, "echo on > "+keys+"/on && rm "+keys+"/on")
	w.unmount(t)
	w.mount(t, "") // at once
	w.unmount(t)
}

// mountHelper: what mount(8) and fstab call.
func mountHelper(t *testing.T, w *world) {
	w.Sh(t, "ln -sf /bin/meta9 /bin/mount.meta9; mkdir -p /sbin; ln -sf /bin/meta9 /sbin/mount.meta9")
	w.Sh(t, "mount.meta9 "+w.addr+" "+dir+" -o rw,noatime,_netdev,cache=mmap && grep -qE '"+dir+" 9p .*noatime.*(mmap|cache=0x5)' /proc/mounts && cat "+keys+"/motd")
	w.Sh(t, "umount "+dir)
	w.gone(t)
	w.Sh(t, "mount -t meta9 -o aname=keys "+w.addr+" "+dir+" && cat "+dir+"/motd")
	w.unmount(t)
	w.fails(t, "mount.meta9 "+w.addr+" "+dir+" -o nonsense", "nonsense", soon)
}

// umountAlone: umount does not wait for a server that is away, and a mount that is
// made when it is back finds all.
func umountAlone(t *testing.T, w *world) {
	w.mount(t, "")
	w.Sh(t, "echo here > "+keys+"/here")
	w.cut.close()
	begin := time.Now()
	w.Sh(t, "meta9 umount "+dir)
	w.gone(t)
	t.Logf("it took %v", time.Since(begin))
	w.open(t)
	w.mount(t, "")
	w.Sh(t, "cat "+keys+"/here && rm "+keys+"/here")
	w.unmount(t)
}

// keeperKilled: without its keeper a mount is what v9fs alone is without its server.
func keeperKilled(t *testing.T, w *world) {
	w.mount(t, "")
	reader, err := w.Start("/", 0, "dd if="+dir+"/events") // busybox's cat asks for no events where it may sendfile from FUSE
	if err != nil {
		t.Fatal(err)
	}
	w.Sh(t, "cat "+keys+"/motd && kill -9 $(pidof meta9)")
	if r := <-reader; r.Status == 0 {
		t.Errorf("a reader that waits ends well: %q", r.Output)
	}
	w.fails(t, "cat "+keys+"/motd", w.dead(), soon)
	w.fails(t, w.mountCommand()+" "+w.addr+" "+dir, "is mounted there", soon)
	w.Sh(t, "meta9 umount "+dir)
	w.mount(t, "") // by which a port's host hears that it is another
	w.Sh(t, "cat "+keys+"/motd")
	w.unmount(t)
}

// dead is what a mount without its keeper says.
func (w *world) dead() string {
	if w.fuse() {
		return "Transport endpoint is not connected"
	}
	return "Input/output error"
}

// keeperEnded: at SIGTERM it unmounts, also where a program has a file open, which
// gets EIO then.
func keeperEnded(t *testing.T, w *world) {
	for _, open := range []bool{false, true} {
		w.mount(t, "")
		if open {
			w.Sh(t, "rm -f /tmp/end /tmp/open; (exec 3<"+keys+"/motd; touch /tmp/open; until [ -e /tmp/end ]; do sleep 0.1; done; cat <&3 2>/tmp/said) >/dev/null 2>&1 & until [ -e /tmp/open ]; do sleep 0.1; done")
		}
		w.Sh(t, "kill $(pidof meta9)")
		w.gone(t)
		w.Sh(t, "! grep -q "+dir+" /proc/mounts")
		if open {
			w.Sh(t, "touch /tmp/end; until grep '"+w.dead()+"' /tmp/said; do sleep 0.1; done")
		}
	}
	w.mount(t, "")
	w.unmount(t)
}

// noServer: what is wrong is said, and nothing stays.
func noServer(t *testing.T, w *world) {
	w.cut.close()
	defer w.open(t)
	w.fails(t, "meta9 mount --timeout 5s "+w.addr+" "+dir, w.addr, 15*time.Second)
	w.fails(t, "meta9 mount virtio:none "+dir, `no virtio-serial port "none"`, soon)
	w.fails(t, "meta9 mount nonsense:x "+dir, "an address is", soon)
	w.fails(t, "meta9 mount "+w.addr+" /mnt/none", "no such file", soon)
	w.fails(t, "meta9 mount "+w.addr+" /bin/meta9", "not a folder", soon)
	w.gone(t)
	w.Sh(t, "! grep -q "+dir+" /proc/mounts")
}
