package listen_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
)

// bound is a VM's property 9p_listen, and more.
func bound(path, more string) string { return `,"9p_listen":"` + path + `"` + more }

const anyUser = `,"vsock_unprivileged":true`

// newBinding is a bench whose VMs have 9p_listen alone.
func newBinding(t *testing.T, nobody bool, payloads ...string) *bench {
	t.Helper()
	return newBench(t, func(cfg *listen.VMConfig) {
		desk := cfg.Devices[0].Handle
		cfg.Bound = []listen.Device{{Property: "9p_listen", Handle: serving(desk)}}
		cfg.Sockets, cfg.Devices, cfg.Nobody = nil, nil, nobody
	}, payloads...)
}

// TestBound: the socket is there with the VM, again when somebody takes it away, with its
// folder when that comes, elsewhere when the property says so; it goes with the VM.
func TestBound(t *testing.T) {
	dir := shortDir(t)
	one, two := join(dir, "one_564"), join(dir, "later", "two_564")
	b := newBinding(t, false, vmJSON(vm1, bound(one, anyUser)))
	dial(t, "unix:"+one)
	a := b.d.next()
	if a.who != (fs.Principal{VM: vm1}) || a.via != "unix:"+one {
		t.Errorf("handed over %+v", a)
	}
	if m := mode(t, one); m != 0o660 {
		t.Errorf("mode %o", m)
	}
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	old := dialLate(t, one)
	a = b.d.next()
	b.change(vm1, bound("unix:"+two, anyUser))
	closed(t, old)
	if exists(one) || exists(two) {
		t.Error("the old socket is still there, or the new one before its folder")
	}
	if s := b.log.String(); b.log.lines() != 1 || !strings.Contains(s, "trying on") || !strings.Contains(s, two) {
		t.Errorf("log: %s", s)
	}
	if err := os.Mkdir(join(dir, "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := dialLate(t, two)
	b.d.next()
	b.vms.remove(vm1)
	b.Changed(vm1)
	b.Settle()
	closed(t, c)
	if exists(two) {
		t.Error("the socket is still there")
	}
}

// TestBoundAsksForUsers: the socket shows the VM, not root in it.
func TestBoundAsksForUsers(t *testing.T) {
	path := join(shortDir(t), "s")
	b := newBinding(t, false, vmJSON(vm1, bound(path, "")))
	closed(t, dial(t, "unix:"+path))
	b.d.none()
	if s := b.log.String(); !strings.Contains(s, "vsock_unprivileged") || !strings.Contains(s, vm1) {
		t.Errorf("log: %s", s)
	}
	b.change(vm1, bound(path, anyUser))
	c := dial(t, "unix:"+path)
	b.d.next()
	b.change(vm1, bound(path, ""))
	closed(t, c)

	path = join(shortDir(t), "s")
	b = newBinding(t, true, vmJSON(vm1, bound(path, "")))
	dial(t, "unix:"+path)
	if a := b.d.next(); !a.who.Nobody() {
		t.Errorf("%s was handed over: MUMBLE is to say who it is", a.who)
	}
}

// TestBoundInHostileFolder: what the folder's owner puts in the socket's way is neither
// followed, changed nor removed.
func TestBoundInHostileFolder(t *testing.T) {
	dir := shortDir(t)
	precious := join(dir, "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, err := net.Listen("unix", join(dir, "theirs"))
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := os.Mkdir(join(dir, "vm"), 0o777); err != nil {
		t.Fatal(err)
	}
	path := join(dir, "vm", "s")
	for _, to := range []string{precious, join(dir, "theirs"), join(dir, "nowhere")} {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		b := newBinding(t, false, vmJSON(vm1, bound(path, anyUser)))
		if s := b.log.String(); !strings.Contains(s, "no socket") {
			t.Errorf("%s: log: %s", to, s)
		}
		b.Close()
		if now, err := os.Readlink(path); err != nil || now != to {
			t.Errorf("the link is %s, %v", now, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if m := mode(t, precious); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	if exists(join(dir, "nowhere")) {
		t.Error("made by a link")
	}
	// A folder that is another by now: what it has of that name is not ours to remove.
	b := newBinding(t, false, vmJSON(vm1, bound(path, anyUser)))
	if err := os.Rename(join(dir, "vm"), join(dir, "was")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(join(dir, "vm"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if !exists(path) {
		t.Error("another's file was removed")
	}
}

// TestManyAway: however many devices are not there, that is one line with their number.
func TestManyAway(t *testing.T) {
	dir := shortDir(t)
	b := newServing(t)
	for i := range 200 {
		uuid := "01b2c898-945f-11e1-a523-0000000" + string(rune('a'+i/100)) + string(rune('0'+i/10%10)) + string(rune('0'+i%10)) + "00"
		b.vms.put(vmJSON(uuid, device(join(dir, uuid[24:]))))
		b.Changed(uuid)
	}
	b.Settle()
	until(t, "a line that they are absent", func() bool { return b.log.lines() > 0 })
	if s := b.log.String(); b.log.lines() != 1 || !strings.Contains(s, `"devices":200`) {
		t.Errorf("log: %s", s)
	}
}
