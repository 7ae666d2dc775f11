package listen_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
)

// hypervisor owns a device's socket.
func hypervisor(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func device(path string) string { return `,"9p_chardev":"` + path + `"` }

// TestDevice: dialled once it is there, again when it was lost, elsewhere when
// the property says so, and hung up with the VM.
func TestDevice(t *testing.T) {
	dir := shortDir(t)
	one, two := join(dir, "one"), join(dir, "two")
	b := newServing(t, vmJSON(vm1, device(one)))
	until(t, "a line that it is absent", func() bool { return b.log.lines() == 1 })
	if s := b.log.String(); !strings.Contains(s, one) || !strings.Contains(s, vm1) {
		t.Errorf("log: %s", s)
	}
	l := hypervisor(t, one)
	c := accept(t, l)
	if a := b.d.next(); a.who != (fs.Principal{VM: vm1}) || a.via != "dial:"+one {
		t.Errorf("handed over %+v", a)
	}
	c.Close()
	c = accept(t, l) // dialled again
	b.d.next()
	b.change(vm1, device(one)+`,"alias":"x"`) // of no concern
	other := hypervisor(t, two)
	b.change(vm1, device("unix:"+two))
	closed(t, c)
	c = accept(t, other)
	b.d.next()
	b.vms.remove(vm1)
	b.Changed(vm1)
	closed(t, c)
	if b.log.lines() != 1 {
		t.Errorf("log: %s", b.log)
	}
}

// TestManyDevicesAway: 200 VMs that are switched off are one line, which counts.
func TestManyDevicesAway(t *testing.T) {
	dir := shortDir(t)
	var payloads []string
	for i := range 200 {
		payloads = append(payloads, vmJSON(fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", i), device(join(dir, fmt.Sprint(i)))))
	}
	b := newServing(t, payloads...)
	until(t, "a line that they are absent", func() bool { return b.log.lines() > 0 })
	for i := range 200 { // each is looked at again, as when it changes
		b.Changed(fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", i))
	}
	b.Settle()
	if s := b.log.String(); b.log.lines() != 1 || !strings.Contains(s, `"devices":200`) {
		t.Errorf("log: %s", s)
	}
}

func TestDevicePathRefused(t *testing.T) {
	for _, path := range []string{"relative", "tcp:127.0.0.1:1", "unix:", "/" + strings.Repeat("x", 107), "/x,unknown"} {
		b := newServing(t)
		b.vms.keep(vm1, "9p_chardev", path)
		b.Changed(vm1)
		b.Settle()
		if s := b.log.String(); b.log.lines() != 1 || !strings.Contains(s, "absolute path") || !strings.Contains(s, vm1) {
			t.Errorf("%s: log: %s", path, s)
		}
	}
}

// TestCloseLeavesDevice: at the end connections are the Handler's to end.
func TestCloseLeavesDevice(t *testing.T) {
	path := join(shortDir(t), "dev")
	l := hypervisor(t, path)
	b := newServing(t, vmJSON(vm1, device(path)))
	c := accept(t, l)
	a := b.d.next()
	b.Close()
	if _, err := a.c.Write([]byte("x")); err != nil {
		t.Errorf("closed: %v", err)
	}
	c.Close()
}

// newServing is a bench whose Handler serves until its connection ends.
func newServing(t *testing.T, payloads ...string) *bench {
	t.Helper()
	return newBench(t, func(cfg *listen.VMConfig) {
		cfg.Sockets = nil
		cfg.Devices[0].Handle = serving(cfg.Devices[0].Handle)
	}, payloads...)
}

// serving is a Handler that returns when its connection ends.
func serving(h listen.Handler) listen.Handler {
	return func(c net.Conn, who fs.Principal, via, addr string, ended func()) {
		defer ended()
		h(c, who, via, addr, func() {})
		c.Read(make([]byte, 1))
		c.Close()
	}
}
