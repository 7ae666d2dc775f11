package listen_test

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"meta9/fs"
	"meta9/session/listen"
)

// inherit is what the next program in the process gets.
func inherit(t *testing.T, passed ...listen.Passed) *listen.Inherited {
	t.Helper()
	in := new(listen.Inherited)
	for _, p := range passed {
		if err := in.Socket(p); err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(p.FD); err != nil {
			t.Error(err)
		}
	}
	return in
}

// TestListenerHandedOver: who connects while nobody accepts is served by the next; the
// address, also one that the system chose, and the file stay.
func TestListenerHandedOver(t *testing.T) {
	for _, text := range []string{"unix:" + join(shortDir(t), "s"), "tcp:127.0.0.1:0", "tls:127.0.0.1:0"} {
		a, d := newAuthority(t), newDesk(t)
		conf, err := listen.LoadTLS(a.files(t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		cfg := listen.Config{Handle: d.handle, TLS: conf, VM: newVMs(t, vmJSON(vm1, "")).get, Log: (&logs{}).logger()}
		l := open(t, cfg, text)
		was := l.String()
		p, err := l.HandOver()
		if err != nil {
			t.Fatal(err)
		}
		_, addr, _ := strings.Cut(was, ":")
		reaches := make(chan error, 1)
		var c net.Conn
		switch {
		case strings.HasPrefix(text, "tls"):
			go func() {
				_, err := a.dialTLS(addr, 0, *a.client(vm1, nil))
				reaches <- err
			}()
		default:
			c = dial(t, was)
			reaches <- nil
		}
		cfg.Inherited = inherit(t, p)
		next := open(t, cfg, text)
		if next.String() != was {
			t.Errorf("%s was listened on, and now %s", was, next)
		}
		if err := <-reaches; err != nil {
			t.Errorf("%s: %v", text, err)
		}
		d.next()
		if c != nil {
			dial(t, was)
			d.next()
		}
		if left := cfg.Inherited.Rest(); left != nil {
			t.Errorf("left: %v", left)
		}
	}
}

// TestSystemdSocket: a socket that somebody else holds is found by its address; its file is
// not removed, nor changed.
func TestSystemdSocket(t *testing.T) {
	path := join(shortDir(t), "s")
	held, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	held.SetUnlinkOnClose(false)
	defer held.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := held.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := new(listen.Inherited)
	if err := in.Socket(listen.Passed{FD: int(f.Fd()), Systemd: true}); err != nil {
		t.Fatal(err)
	}
	d := newDesk(t)
	l := open(t, listen.Config{Handle: d.handle, Inherited: in}, "unix:"+path)
	dial(t, "unix:"+path)
	d.next()
	if m := mode(t, path); m != 0o666 {
		t.Errorf("mode %o", m)
	}
	p, err := l.HandOver()
	if err != nil || !p.Systemd {
		t.Errorf("%+v, %v", p, err)
	}
	l = open(t, listen.Config{Handle: d.handle, Inherited: inherit(t, p)}, "unix:"+path)
	if err := l.Close(); err != nil || !exists(path) {
		t.Errorf("the file is gone; %v", err)
	}
	if err := in.Socket(listen.Passed{FD: int(os.Stdin.Fd())}); err == nil {
		t.Error("what is no socket is taken")
	}
}

// TestVMsHandedOver: a VM's socket stays, and its device's connection goes on and is not
// dialled again; where the VM gets another device, it ends. What nobody wants is closed.
func TestVMsHandedOver(t *testing.T) {
	dir := shortDir(t)
	path := join(dir, "device")
	l := hypervisor(t, path)
	b := newBench(t, func(cfg *listen.VMConfig) {
		cfg.Devices[0].Handle = func(_ net.Conn, _ fs.Principal, _, _ string, ended func()) { ended() }
	}, vmJSON(vm1, device(path)))
	c := accept(t, l)
	defer c.Close()
	passed, err := b.HandOver()
	if err != nil || len(passed) != 1 {
		t.Fatalf("%d sockets, %v", len(passed), err)
	}
	dial(t, "unix:"+b.sock(vm1))
	in := inherit(t, passed...)
	ends := make(map[string]net.Conn)
	ran := make(chan string, 8)
	adopt := func(via string) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var both [2]net.Conn
		for i, fd := range pair {
			if both[i], err = listen.FromDescriptor(fd); err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(fd)
		}
		ends[via] = both[1]
		t.Cleanup(func() { both[1].Close() })
		in.Conn(via, listen.Adopted{Conn: both[0], Who: fs.Principal{VM: vm1}, Run: func(ended func()) {
			defer ended()
			ran <- via
			_, _ = both[0].Read(make([]byte, 1))
			_ = both[0].Close()
		}})
	}
	for _, via := range []string{"dial:" + path, "unix:" + b.sock(vm1), "unix:/gone"} {
		adopt(via)
	}
	next := &bench{vms: b.vms, d: newDesk(t), log: &logs{}, run: b.run}
	next.VMs = listen.NewVMs(listen.VMConfig{
		Run: b.run, Inherited: in, Perm: listen.Perm{Mode: 0o660, UID: -1, GID: -1}, VM: b.vms.get, Log: next.log.logger(),
		Sockets: []listen.Socket{{Name: "9p.sock", Handle: next.d.handle}},
		Devices: []listen.Device{{Property: "9p_chardev", Handle: next.d.handle}},
	})
	t.Cleanup(next.Close)
	next.Changed(vm1)
	next.Settle()
	if a := next.d.next(); a.via != "unix:"+b.sock(vm1) { // who has connected in between; nobody has dialled
		t.Errorf("handed over %+v", a)
	}
	if got := <-ran + <-ran; !strings.Contains(got, "dial:"+path) || !strings.Contains(got, b.sock(vm1)) {
		t.Errorf("what goes on is %q", got)
	}
	if left := in.Rest(); len(left) != 1 || !strings.Contains(left[0], "unix:/gone") {
		t.Errorf("left: %v", left)
	}
	<-ran
	closed(t, ends["unix:/gone"])
	next.change(vm1, device(join(dir, "other")))
	closed(t, ends["dial:"+path])
	ends["unix:"+b.sock(vm1)].Close()
}

// TestOwnersSocketsHandedOver: sockets that were given to a VM's owner are taken over, are
// still his, and serve.
func TestOwnersSocketsHandedOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	b := newBench(t, nil, vmJSON(vm1, `,"9p_owner":1234`))
	passed, err := b.HandOver()
	if err != nil || len(passed) != 1 {
		t.Fatalf("%d sockets, %v", len(passed), err)
	}
	dial(t, "unix:"+b.sock(vm1))
	next := &bench{vms: b.vms, d: newDesk(t), log: &logs{}, run: b.run}
	next.VMs = listen.NewVMs(listen.VMConfig{
		Run: b.run, Inherited: inherit(t, passed...), Perm: listen.Perm{Mode: 0o660, UID: -1, GID: -1}, VM: b.vms.get, Log: next.log.logger(),
		Sockets: []listen.Socket{{Name: "9p.sock", Handle: next.d.handle}},
	})
	t.Cleanup(next.Close)
	next.Changed(vm1)
	next.Settle()
	if said := next.log.String(); said != "" {
		t.Fatal(said)
	}
	next.d.next() // who has connected in between
	dial(t, "unix:"+b.sock(vm1))
	next.d.next()
	fi, err := os.Lstat(b.sock(vm1))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 1234 {
		t.Errorf("the socket is user %d's", st.Uid)
	}
}

// TestVsockConn: a connection that package vsock cannot make of a descriptor reads and
// writes, and ends while it reads.
func TestVsockConn(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, other := os.NewFile(uintptr(pair[0]), "a"), os.NewFile(uintptr(pair[1]), "b")
	defer other.Close()
	c, err := listen.NewVsockConn(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("ab")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(other, b); err != nil || string(b) != "ab" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := listen.Descriptor(c); err != nil {
		t.Error(err)
	}
	read := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; err == nil {
		t.Error("a read of what is closed has no error")
	}
}

// TestPassNothing: what has no descriptor is passed as none, and not as the standard input.
func TestPassNothing(t *testing.T) {
	if p, err := listen.Pass("x", struct{ net.Listener }{}); err == nil || p.FD != -1 {
		t.Errorf("%+v, %v", p, err)
	}
}
