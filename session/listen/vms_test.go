package listen_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
)

// bench is a VMs under test, with the VMs that it looks at.
type bench struct {
	*listen.VMs
	vms *vms
	d   *desk
	log *logs
	run string
}

func newBench(t *testing.T, change func(*listen.VMConfig), payloads ...string) *bench {
	t.Helper()
	b := &bench{vms: newVMs(t, payloads...), d: newDesk(t), log: &logs{}, run: join(shortDir(t), "run")}
	cfg := listen.VMConfig{
		Run:     b.run,
		Sockets: []listen.Socket{{Name: "9p.sock", Handle: b.d.handle}},
		Devices: []listen.Device{{Property: "9p_chardev", Handle: b.d.handle}},
		Perm:    listen.Perm{Mode: 0o660, UID: -1, GID: -1},
		VM:      b.vms.get, Log: b.log.logger(),
	}
	if change != nil {
		change(&cfg)
	}
	b.VMs = listen.NewVMs(cfg)
	t.Cleanup(b.Close)
	for uuid := range b.vms.m {
		b.Changed(uuid)
	}
	b.Sweep()
	b.Settle()
	return b
}

func (b *bench) sock(uuid string) string { return join(b.run, uuid, "9p.sock") }

func (b *bench) change(uuid, more string) {
	b.vms.put(vmJSON(uuid, more))
	b.Changed(uuid)
	b.Settle()
}

func TestVMSockets(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	b := newBench(t, nil, vmJSON(vm1, ""), vmJSON(vm2, ""))
	for _, uuid := range []string{vm1, vm2} {
		via := "unix:" + b.sock(uuid)
		dial(t, via)
		if a := b.d.next(); a.who != (fs.Principal{VM: uuid}) || a.via != via || a.addr != "" {
			t.Errorf("%s: handed over %+v", uuid, a)
		}
		if m, f := mode(t, b.sock(uuid)), mode(t, join(b.run, uuid)); m != 0o660 || f != 0o710 {
			t.Errorf("%s: modes %o, folder %o", uuid, m, f)
		}
	}
	b.vms.remove(vm1)
	b.Changed(vm1)
	b.Settle()
	if exists(join(b.run, vm1)) || !exists(b.sock(vm2)) {
		t.Error("the deleted VM's folder is there, or the other's socket is not")
	}
	b.Close()
	if exists(b.sock(vm2)) || !exists(join(b.run, vm2)) {
		t.Error("after Close the folder stays, the socket goes")
	}
}

func TestVMComesAndGoesAtOnce(t *testing.T) {
	b := newBench(t, nil)
	for range 50 {
		b.vms.put(vmJSON(vm1, ""))
		b.Changed(vm1)
		b.vms.remove(vm1)
		b.Changed(vm1)
	}
	b.vms.put(vmJSON(vm1, ""))
	b.Changed(vm1)
	b.Settle()
	dial(t, "unix:"+b.sock(vm1))
	b.d.next()
}

// TestCrashLeftovers: what an earlier run left is used again or cleared away;
// what is not ours stays.
func TestCrashLeftovers(t *testing.T) {
	b := newBench(t, func(cfg *listen.VMConfig) {
		for _, uuid := range []string{vm1, vm2} {
			dir := join(cfg.Run, uuid)
			if err := os.MkdirAll(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: join(dir, "9p.sock"), Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}
		if err := os.Mkdir(join(cfg.Run, "other"), 0o700); err != nil {
			t.Fatal(err)
		}
	}, vmJSON(vm1, ""))
	dial(t, "unix:"+b.sock(vm1))
	b.d.next()
	if m := mode(t, join(b.run, vm1)); m != 0o710 {
		t.Errorf("the folder kept its mode %o", m)
	}
	if exists(join(b.run, vm2)) || !exists(join(b.run, "other")) {
		t.Error("the folder of no VM is there, or another's is gone")
	}
}

func TestSwitchedOff(t *testing.T) {
	b := newBench(t, func(cfg *listen.VMConfig) { cfg.Sockets = nil }, vmJSON(vm1, ""))
	if exists(b.run) {
		t.Error("folders were made")
	}
}

func TestOwnerAndGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	b := newBench(t, func(cfg *listen.VMConfig) { cfg.Perm.GID = 4321 },
		vmJSON(vm1, ""), vmJSON(vm2, `,"9p_owner":"1234"`))
	check := func(path string, uid, gid uint32, m os.FileMode) {
		t.Helper()
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := fi.Sys().(*syscall.Stat_t)
		if st.Uid != uid || st.Gid != gid || fi.Mode().Perm() != m {
			t.Errorf("%s: owner %d, group %d, mode %o", path, st.Uid, st.Gid, fi.Mode().Perm())
		}
	}
	check(b.sock(vm1), 0, 4321, 0o660)
	check(join(b.run, vm1), 0, 4321, 0o710)
	check(b.sock(vm2), 1234, 4321, 0o660)
	check(join(b.run, vm2), 0, 4321, 0o711)
	b.change(vm2, `,"9p_owner":99`)
	check(b.sock(vm2), 99, 4321, 0o660)
	b.change(vm2, `,"9p_owner":"root"`)
	check(b.sock(vm2), 0, 4321, 0o660)
	b.change(vm2, "")
	check(join(b.run, vm2), 0, 4321, 0o710)
	dial(t, "unix:"+b.sock(vm2))
	b.d.next()
}

// TestOwnerMoves: with another owner the connections end that have come by the old one's
// sockets; with any other change, and those of other VMs, they stay.
func TestOwnerMoves(t *testing.T) {
	b := newBench(t, nil)
	b = newBench(t, func(cfg *listen.VMConfig) { cfg.Sockets[0].Handle = b.d.reading }, vmJSON(vm1, ""), vmJSON(vm2, ""))
	c, other := dial(t, "unix:"+b.sock(vm1)), dial(t, "unix:"+b.sock(vm2))
	b.change(vm1, `,"alias":"web"`)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b.change(vm1, fmt.Sprintf(`,"9p_owner":%d`, os.Geteuid()))
	closed(t, c)
	if _, err := other.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	dial(t, "unix:"+b.sock(vm1))
}

// TestOneVMInVain: a VM whose sockets cannot be made is named in the log, and
// the others get theirs.
func TestOneVMInVain(t *testing.T) {
	b := newBench(t, nil, vmJSON(vm1, `,"9p_owner":"no-such-user"`), vmJSON(vm2, ""))
	dial(t, "unix:"+b.sock(vm2))
	b.d.next()
	if s := b.log.String(); !strings.Contains(s, vm1) || !strings.Contains(s, "no-such-user") || !strings.Contains(s, "9p_owner") {
		t.Errorf("log: %s", s)
	}
	b.change(vm1, "")
	dial(t, "unix:"+b.sock(vm1))
	b.d.next()
}

// TestForeignFolder: a folder that another user could have filled is not used.
func TestForeignFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make another user's folder")
	}
	var target string
	b := newBench(t, func(cfg *listen.VMConfig) {
		target = join(shortDir(t), "target")
		for _, err := range []error{
			os.MkdirAll(join(cfg.Run, vm1), 0o755), os.Chown(join(cfg.Run, vm1), 1234, 1234),
			os.Mkdir(target, 0o700), os.Symlink(target, join(cfg.Run, vm2)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}, vmJSON(vm1, ""), vmJSON(vm2, ""))
	for _, uuid := range []string{vm1, vm2} {
		if exists(b.sock(uuid)) || !strings.Contains(b.log.String(), uuid+" is not a folder of the daemon's own user") {
			t.Errorf("%s: used; log: %s", uuid, b.log)
		}
	}
	if m := mode(t, target); m != 0o700 {
		t.Errorf("the link was followed, mode %o", m)
	}
}

// BenchmarkVMSockets shows what one VM's socket costs while nobody connects.
func BenchmarkVMSockets(b *testing.B) {
	s := &vms{}
	run, err := os.MkdirTemp("", "m9")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(run)
	before := rss(b)
	m := listen.NewVMs(listen.VMConfig{
		Run: run, Sockets: []listen.Socket{{Name: "9p.sock"}},
		Perm: listen.Perm{Mode: 0o660, UID: -1, GID: -1}, VM: s.any,
	})
	for i := range b.N {
		m.Changed(fmt.Sprintf("%08x-945f-11e1-a523-af1afbe22821", i))
	}
	m.Settle()
	b.StopTimer()
	b.ReportMetric(float64(rss(b)-before)/float64(b.N), "rss-B/op")
	m.Close()
}
