package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/session/packet"
)

func TestDialerRefuses(t *testing.T) {
	for _, addr := range []string{
		"", "unix:", "tcp:", "tcp:host", "tls:1:2:3", "udp:h:1", "vsock:", "vsock:3", "vsock:x:1", "vsock:3:-1",
		"vsock:3:4294967296", "virtio:", "virtio:a/b", "virtio:..", "dev:",
	} {
		if _, err := Dialer(addr, nil); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestSplitAddr(t *testing.T) {
	for addr, want := range map[string][2]string{
		"unix:/a:b":      {"unix", "/a:b"},
		"/run/a:b":       {"unix", "/run/a:b"},
		"./a:b":          {"unix", "./a:b"},
		"nowhere.sock":   {"unix", "nowhere.sock"},
		"/dev/null":      {"dev", "/dev/null"},
		"dev:/dev/ttyS1": {"dev", "/dev/ttyS1"},
		"vsock:host:564": {"vsock", "host:564"},
		"virtio:org.m.0": {"virtio", "org.m.0"},
		"tcp:[::1]:564":  {"tcp", "[::1]:564"},
	} {
		if kind, rest := splitAddr(addr); kind != want[0] || rest != want[1] {
			t.Errorf("%s: %s, %s", addr, kind, rest)
		}
	}
}

func TestParseVsock(t *testing.T) {
	for s, want := range map[string][2]uint32{"host:564": {2, 564}, "42:1": {42, 1}, "4294967295:4294967295": {1<<32 - 1, 1<<32 - 1}} {
		if cid, port, err := parseVsock(s); err != nil || cid != want[0] || port != want[1] {
			t.Errorf("%s: %d:%d, %v", s, cid, port, err)
		}
	}
}

// TestFindPort: udev's link first, then what the driver says.
func TestFindPort(t *testing.T) {
	dir := t.TempDir()
	links, class := filepath.Join(dir, "links"), filepath.Join(dir, "class")
	if _, err := findPort(links, class, "meta9"); err == nil || !strings.Contains(err.Error(), "has none") {
		t.Errorf("no ports at all: %v", err)
	}
	for port, name := range map[string]string{"vport0p1": "com.redhat.spice.0\n", "vport1p2": "meta9\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(class, port), 0o755), os.WriteFile(filepath.Join(class, port, "name"), []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findPort(links, class, "meta9"); err != nil || got != "/dev/vport1p2" {
		t.Errorf("by the class: %s, %v", got, err)
	}
	if _, err := findPort(links, class, "meta"); err == nil || !strings.Contains(err.Error(), `["com.redhat.spice.0" "meta9"]`) {
		t.Errorf("another name: %v", err)
	}
	link := filepath.Join(links, "meta9")
	if err := errors.Join(os.Mkdir(links, 0o755), os.WriteFile(link, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got, err := findPort(links, class, "meta9"); err != nil || got != link {
		t.Errorf("by the link: %s, %v", got, err)
	}
}

// terminal makes a pair of terminals: the master's end, and the slave's path.
func terminal(t *testing.T) (master *file, slave string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	if master, err = newFile(fd, fileAddr{"dev", "ptmx"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

// TestDevice: every byte passes a terminal as it is, in marked packets; closing the
// connection opens the way for the next.
func TestDevice(t *testing.T) {
	defer goleak.VerifyNone(t)
	master, slave := terminal(t)
	keeper, err := os.OpenFile(slave, os.O_RDWR|unix.O_NOCTTY, 0) // or the master sees a hang-up between two
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		packet.Serve(master, nil, func(link net.Conn) { _, _ = io.Copy(link, link); link.Close() })
	}()
	all := make([]byte, 3<<16)
	for i := range all {
		all[i] = byte(i ^ i>>8)
	}
	for _, addr := range []string{"dev:" + slave, slave} {
		dial, err := Dialer(addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := dial(t.Context())
		if err != nil {
			t.Fatal(addr, err)
		}
		go nc.Write(all)
		got := make([]byte, len(all))
		if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, all) {
			t.Errorf("%s: not what was sent: %v", addr, err)
		}
		_ = nc.SetReadDeadline(time.Now())
		if _, err := nc.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a deadline: %v", addr, err)
		}
		if s := nc.RemoteAddr().Network() + ":" + nc.RemoteAddr().String(); s != "dev:"+slave {
			t.Errorf("%s: its address is %s", addr, s)
		}
		nc.Close()
	}
	master.Close()
	<-served
}

// TestDeviceSilent: nobody answers in packets; ctx ends the wait.
func TestDeviceSilent(t *testing.T) {
	defer goleak.VerifyNone(t)
	_, slave := terminal(t)
	dial, err := Dialer("dev:"+slave, nil)
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, reason)
	defer cancel()
	if _, err := dial(ctx); !errors.Is(err, reason) {
		t.Errorf("%v", err)
	}
}

func TestDeviceRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"dev:/dev/null":     "cannot be waited for",
		"dev:" + file:       "cannot be waited for",
		"dev:" + file + "x": "no such file",
	} {
		dial, err := Dialer(addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dial(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
}

// TestVsock: from a port of root's, if that can be had. Few build machines have
// vsock to themselves.
func TestVsock(t *testing.T) {
	const local = 1 // CID
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("no vsock here:", err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrVM{CID: local, Port: unix.VMADDR_PORT_ANY}), unix.Listen(fd, 1)); err != nil {
		t.Skip("no vsock here:", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	dial, err := Dialer(fmt.Sprintf("vsock:%d:%d", local, sa.(*unix.SockaddrVM).Port), nil)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	in, from, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	if port := from.(*unix.SockaddrVM).Port; port >= rootPorts && os.Geteuid() == 0 {
		t.Errorf("from port %d", port)
	}
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if n, err := unix.Read(in, make([]byte, 9)); n != 1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestVsockNobody: an error, and soon.
func TestVsockNobody(t *testing.T) {
	dial, err := Dialer("vsock:1:4000000000", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	nc, err := dial(ctx)
	if err == nil {
		nc.Close()
		t.Error("connected to nobody")
	}
	t.Log(err)
}

// TestOpenOnce: what is busy, or not there yet, is waited for; nothing else is.
func TestOpenOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "port")
	tries := 0
	fd, err := openOnce(t.Context(), func() (string, error) {
		switch tries++; tries {
		case 1:
			return "", fmt.Errorf("%w: yet", errNoPort)
		case 2:
			return "", errBusy
		}
		return file, os.WriteFile(file, nil, 0o600)
	})
	if err != nil || tries != 3 {
		t.Fatalf("%v after %d tries", err, tries)
	}
	unix.Close(fd)
	tries = 0
	_, err = openOnce(t.Context(), func() (string, error) { tries++; return file + ".none", nil })
	if !errors.Is(err, os.ErrNotExist) || tries != 1 {
		t.Errorf("no device: %v after %d tries", err, tries)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	_, err = openOnce(ctx, func() (string, error) { cancel(reason); return "", errBusy })
	if !errors.Is(err, reason) {
		t.Errorf("ended: %v", err)
	}
}
