package restart

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"meta9/tests/proc"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// manager is what systemd is to a service: it has its sockets (sd_listen_fds(3)) and hears
// how it is (sd_notify(3)).
type manager struct {
	t      *testing.T
	dir    string
	notes  *net.UnixConn
	socket *os.File
}

func newManager(t *testing.T) *manager {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{t: t, dir: dir}
	if m.notes, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.admin(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if m.socket, err = l.File(); err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	t.Cleanup(func() { m.notes.Close(); m.socket.Close() })
	return m
}

func (m *manager) admin() string { return filepath.Join(m.dir, "run", "admin.sock") }

// start starts the service.
func (m *manager) start() *proc.Proc {
	m.t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`, testenv.Binary(m.t, "meta9d"),
		"--run", filepath.Join(m.dir, "run"), "--data", filepath.Join(m.dir, "data"))
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"))
	cmd.ExtraFiles = []*os.File{m.socket}
	p, err := proc.Start(cmd, patient)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.Kill)
	return p
}

// hears wants the next notes to be these.
func (m *manager) hears(want ...string) {
	m.t.Helper()
	b := make([]byte, 4096)
	for _, w := range want {
		_ = m.notes.SetReadDeadline(time.Now().Add(patient))
		n, err := m.notes.Read(b)
		if err != nil || !regexp.MustCompile("^"+w+"$").Match(b[:n]) {
			m.t.Fatalf("systemd hears %q, %v; want %q", b[:n], err, w)
		}
	}
}

// asks connects, and sends a Tversion. answered waits for the reply, and attaches.
func (m *manager) asks() (answered func() *raw.Conn) {
	m.t.Helper()
	c, err := raw.Dial("unix", m.admin())
	if err != nil {
		m.t.Fatalf("a command that is started while meta9d is away: %v", err)
	}
	m.t.Cleanup(func() { c.Close() })
	return func() *raw.Conn {
		if _, got, err := c.Version(64<<10, "9P2000.e"); err != nil || got != "9P2000.e" {
			m.t.Fatalf("%q, %v", got, err)
		}
		if err := c.Attach(0, ""); err != nil {
			m.t.Fatal(err)
		}
		return c
	}
}

// TestSystemd: with a socket of systemd's, who connects while meta9d is away waits, and is
// served when it is there; the socket is never removed. systemd hears of each reload and
// live update that it begins and that it is done, from the process that is the main one
// all the time.
func TestSystemd(t *testing.T) {
	m := newManager(t)
	file, err := os.Stat(m.admin())
	if err != nil {
		t.Fatal(err)
	}
	const reloading = `RELOADING=1\nMONOTONIC_USEC=[0-9]+`
	early := m.asks()
	p := m.start()
	m.hears("READY=1")
	c := early()
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.hears(reloading, "READY=1")
	for range 2 {
		if err := c.Swrite(0, []byte("upgrade\n"), "ctl"); err != nil {
			t.Fatal(err)
		}
		m.hears(reloading, "READY=1")
		if _, err := c.Sread(0, "ctl"); err != nil {
			t.Errorf("the connection after a live update: %v", err)
		}
		m.asks()()
	}
	if err := p.Stop(patient); err != nil {
		t.Fatal(err)
	}
	m.hears("STOPPING=1")
	away := m.asks()
	p = m.start()
	m.hears("READY=1")
	away()
	if now, err := os.Stat(m.admin()); err != nil || !os.SameFile(file, now) {
		t.Errorf("the socket is another one: %v", err)
	}
	if err := p.Stop(patient); err != nil {
		t.Fatal(err)
	}
}
