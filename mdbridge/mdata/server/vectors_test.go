package server_test

import (
	"io"
	"net"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"meta9/fs/store"
	"meta9/mdbridge/mdata/mdatatest"
	"meta9/mdbridge/mdata/server"
)

const vectors = "../../../../shared/vectors/mdata.json"

func recorded(t *testing.T) (mdatatest.Recorded, *world) {
	r := mdatatest.Load(t, vectors)
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(string(r.VM))
	return r, w
}

func TestRecordedApart(t *testing.T) {
	r, w := recorded(t)
	r.Apart(t, w.dial)
}

func TestRecordedTogether(t *testing.T) {
	r, w := recorded(t)
	r.Together(t, w.dial())
}

func TestRecordedPTY(t *testing.T) {
	r, w := recorded(t)
	r.Together(t, joinPTY(t, w.dial()))
}

// joinPTY makes a pseudo terminal whose other end is c, and gives the end that a
// guest has, in raw mode.
func joinPTY(t *testing.T, c net.Conn) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	guest := openPTY(t, master)
	go func() { io.Copy(c, master); c.Close() }()
	go func() { io.Copy(master, c); master.Close() }()
	t.Cleanup(func() { c.Close(); guest.Close(); master.Close() })
	return guest
}

// openPTY opens the other end of a pseudo terminal, in raw mode.
func openPTY(t *testing.T, master *os.File) *os.File {
	t.Helper()
	rc, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	rc.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	guest, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if rc, err = guest.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { _, err = term.MakeRaw(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
	return guest
}
