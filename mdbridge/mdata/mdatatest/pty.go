package mdatatest

import (
	"io"
	"net"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// PTY makes a pseudo terminal: host is one end, and path is the device that is the
// other, as a guest has a serial line. It is as new: it echoes, and is not raw.
func PTY(t testing.TB) (host *os.File, path string) {
	t.Helper()
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	var n int
	control(t, host, func(fd int) error {
		err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
		if err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	return host, "/dev/pts/" + strconv.Itoa(n)
}

// OpenRaw opens a terminal in raw mode.
func OpenRaw(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	control(t, f, func(fd int) error {
		_, err := term.MakeRaw(fd)
		return err
	})
	return f
}

func control(t testing.TB, f *os.File, do func(fd int) error) {
	t.Helper()
	rc, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := rc.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
}

// Join passes on what comes in at either end to the other, as a hypervisor does
// between a serial port and its character device, until the test ends.
func Join(t testing.TB, host *os.File, c net.Conn) {
	done := make(chan struct{}, 2)
	copyAll := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from)
		done <- struct{}{}
	}
	go copyAll(c, host)
	go copyAll(host, c)
	t.Cleanup(func() {
		host.Close()
		c.Close()
		<-done
		<-done
	})
}
