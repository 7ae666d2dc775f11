package listen_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
)

func TestAdminSocket(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	d, path := newDesk(t), join(shortDir(t), "deep", "er", "admin.sock")
	l := open(t, listen.Config{Handle: d.handle}, "unix:"+path)
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	dial(t, "unix:"+path)
	a := d.next()
	if a.who != (fs.Principal{Admin: true}) || a.via != "unix:"+path || a.addr != "" {
		t.Errorf("handed over %+v", a)
	}
	if _, ok := a.c.(*net.UnixConn); !ok {
		t.Errorf("a %T: the session's loop wants the connection itself", a.c)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if exists(path) {
		t.Error("the socket is still there")
	}
}

// TestUmask: a tight umask does not keep the socket from its mode.
func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o777))
	path := join(shortDir(t), "s")
	if os.Geteuid() != 0 {
		t.Skip("needs root, to use the folder that it makes under this umask")
	}
	open(t, listen.Config{}, "unix:"+path)
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %o", m)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	d := newDesk(t)
	open(t, listen.Config{Handle: d.handle}, "unix:"+path)
	dial(t, "unix:"+path)
	d.next()
}

func TestSocketInUse(t *testing.T) {
	path := join(shortDir(t), "s")
	d := newDesk(t)
	open(t, listen.Config{Handle: d.handle}, "unix:"+path)
	refuse(t, listen.Config{}, "unix:"+path, "in use")
	dial(t, "unix:"+path) // the first one still works
	d.next()
}

func TestPathTaken(t *testing.T) {
	dir := shortDir(t)
	if err := os.WriteFile(join(dir, "f"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse(t, listen.Config{}, "unix:"+join(dir, "f"), "no socket")
	refuse(t, listen.Config{}, "unix:"+join(dir, "f", "s"), "not a directory")
	if b, _ := os.ReadFile(join(dir, "f")); string(b) != "precious" {
		t.Error("the file was touched")
	}
}

func TestPathTooLong(t *testing.T) {
	dir := shortDir(t)
	fits := join(dir, strings.Repeat("x", 107-len(dir)-1))
	open(t, listen.Config{}, "unix:"+fits)
	refuse(t, listen.Config{}, "unix:"+fits+"x", "at most 107")
}

// TestCloseLeavesSuccessor: a socket that took the path over is not removed.
func TestCloseLeavesSuccessor(t *testing.T) {
	path := join(shortDir(t), "s")
	l := open(t, listen.Config{}, "unix:"+path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next := open(t, listen.Config{}, "unix:"+path)
	l.Close()
	if !exists(path) {
		t.Error("the successor's socket was removed")
	}
	next.Close()
}

// dialAsEnv makes this test binary connect to the path that it holds and report
// whether it is talked to: a process of another user is needed for SO_PEERCRED.
const dialAsEnv = "LISTEN_TEST_DIAL"

func dialAs() {
	c, err := net.Dial("unix", os.Getenv(dialAsEnv))
	if err != nil {
		os.Exit(3)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		os.Exit(4)
	}
}

// dialFrom runs dialAs as another user, and returns its exit code: 0 is served, 4 is
// closed unheard.
func dialFrom(t *testing.T, dir, path string, who syscall.Credential) int {
	t.Helper()
	self := join(dir, "test")
	if err := exec.Command("cp", os.Args[0], self).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), dialAsEnv+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &who}
	cmd.Run()
	return cmd.ProcessState.ExitCode()
}

func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start a process of another user")
	}
	dir, log, d := shortDir(t), &logs{}, newDesk(t)
	path := join(dir, "s")
	open(t, listen.Config{Handle: d.handle, Log: log.logger()}, "unix:"+path)
	for _, p := range []string{dir, path} { // what the file's mode would have refused
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if code := dialFrom(t, dir, path, syscall.Credential{Uid: 65534, Gid: 65534}); code != 4 {
		t.Errorf("exit %d, want 4: connected, and closed unheard", code)
	}
	d.none()
	if s := log.String(); !strings.Contains(s, "user 65534 is not the admin") {
		t.Errorf("log: %s", s)
	}
}

// TestAdminGroup: a member of the group is the admin, be it his first group or his last
// of many; nobody else is, whatever the file's mode.
func TestAdminGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start processes of other users")
	}
	const admins = 4711
	many := make([]uint32, 100) // more than fit at the first try
	for i := range many {
		many[i] = uint32(10_000 + i)
	}
	for name, c := range map[string]struct {
		who  syscall.Credential
		mode os.FileMode // of the file; 0: as it is made
		code int
	}{
		"first group":    {syscall.Credential{Uid: 65534, Gid: admins}, 0, 0},
		"last of many":   {syscall.Credential{Uid: 65534, Gid: 65534, Groups: append(many, admins)}, 0, 0},
		"the only other": {syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{admins}}, 0, 0},
		"none":           {syscall.Credential{Uid: 65534, Gid: 65534, Groups: many}, 0o666, 4},
		"kept out":       {syscall.Credential{Uid: 65534, Gid: 65534}, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir, log := shortDir(t), &logs{}
			path := join(dir, "s")
			open(t, listen.Config{Handle: greetAdmin(t), Admins: admins, Log: log.logger()}, "unix:"+path)
			if m := mode(t, path); m != 0o660 {
				t.Errorf("mode %o", m)
			}
			if c.mode != 0 {
				if err := os.Chmod(path, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if code := dialFrom(t, dir, path, c.who); code != c.code {
				t.Errorf("exit %d, want %d; log: %s", code, c.code, log)
			}
		})
	}
}

// greetAdmin says one byte to the admin.
func greetAdmin(t *testing.T) listen.Handler {
	return func(c net.Conn, who fs.Principal, _, _ string, ended func()) {
		defer ended()
		if who != (fs.Principal{Admin: true}) {
			t.Errorf("%s was let in", who)
		}
		c.Write([]byte("!"))
		c.Close()
	}
}

// TestSocketOfVM: whoever can open the file is the VM, root too.
func TestSocketOfVM(t *testing.T) {
	d, path := newDesk(t), join(shortDir(t), "s")
	l := open(t, listen.Config{Handle: d.handle, VMPerm: listen.Perm{Mode: 0o620, UID: -1, GID: -1}}, "unix:"+path+",as=vm:"+vm1)
	if m := mode(t, path); m != 0o620 {
		t.Errorf("mode %o", m)
	}
	dial(t, "unix:"+path)
	if a := d.next(); a.who != (fs.Principal{VM: vm1}) || a.via != l.String() || a.via != "unix:"+path+",as=vm:"+vm1 {
		t.Errorf("handed over %+v", a)
	}
}
