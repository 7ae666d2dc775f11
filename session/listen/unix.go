package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Modes of the admin's sockets, whatever the umask is: without and with a group of admins.
const (
	adminMode  = 0o600
	adminsMode = 0o660
)

// adminPerm is what the admin's sockets get.
var adminPerm = Perm{Mode: adminMode, UID: -1, GID: -1}

// maxPath is the longest path of a unix socket in bytes (sun_path, less its NUL).
const maxPath = 107

// Perm is who may connect to a unix socket, as far as its file says so.
type Perm struct {
	Mode     os.FileMode
	UID, GID int // -1: the daemon's
}

// socket is a unix listener that removes its own file, and no other's, and makes it
// again when somebody has taken it away.
type socket struct {
	path string
	perm Perm // when it was made; heal may be told another

	mu     sync.Mutex
	on     *net.UnixListener
	made   os.FileInfo // the file
	closed bool
}

// bind makes a unix socket and its folder. A socket that nobody answers on is
// left over from a crash and is replaced; one that somebody answers on is in use.
// The folder is locked meanwhile, so that of two daemons that start at once only
// one finds the left-over.
func bind(path string, p Perm) (*socket, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path has %d bytes, a unix socket's has at most %d", len(path), maxPath)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := clearStale(path); err != nil {
		return nil, err
	}
	return create(path, p)
}

// lock takes the advisory lock of a folder.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// clearStale removes what is left at path, if it is a socket that nobody answers on.
func clearStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return errors.New("the path is taken by something that is no socket")
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return errors.New("in use: somebody answers there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("in use, or not ours to use: %w", reason(err))
	}
	return os.Remove(path)
}

// create binds a socket that nobody but the daemon can connect to before p says
// who may: Linux makes the file with the mode of the socket itself.
func create(path string, p Perm) (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if e := rc.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), adminMode) }); e != nil {
			return e
		}
		return err
	}}
	nl, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, reason(err)
	}
	s := &socket{on: nl.(*net.UnixListener), path: path, perm: p}
	s.on.SetUnlinkOnClose(false)
	if s.made, err = os.Lstat(path); err == nil {
		err = p.apply(path)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// apply gives path to its owner, then opens it to the others.
func (p Perm) apply(path string) error {
	if p.UID >= 0 || p.GID >= 0 {
		if err := os.Lchown(path, p.UID, p.GID); err != nil {
			return err
		}
	}
	return os.Chmod(path, p.Mode)
}

// listening is what is listened on now; nil: it is closed.
func (s *socket) listening() *net.UnixListener {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.on
}

// Accept goes on with the new file when the old one was taken away.
func (s *socket) Accept() (net.Conn, error) {
	for {
		on := s.listening()
		if on == nil {
			return nil, net.ErrClosed
		}
		c, err := on.Accept()
		if errors.Is(err, net.ErrClosed) && s.listening() != on {
			continue
		}
		return c, err
	}
}

// SyscallConn is for who wants to know the descriptor's number.
func (s *socket) SyscallConn() (syscall.RawConn, error) {
	on := s.listening()
	if on == nil {
		return nil, net.ErrClosed
	}
	return on.SyscallConn()
}

// Addr is the path.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the file first: once nobody answers on it, it is another
// daemon's to replace.
func (s *socket) Close() error {
	gone := s.gone()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.closed = true; !gone {
		_ = os.Remove(s.path)
	}
	return s.on.Close()
}

// gone says whether the path no longer leads to our file.
func (s *socket) gone() bool {
	fi, err := os.Lstat(s.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made == nil || !os.SameFile(fi, s.made)
}

// heal makes the file again if it is gone; who has connected by the old one stays. What
// is in its place now is not touched, but for a socket that nobody answers on.
func (s *socket) heal(p Perm) (healed bool, err error) {
	if !s.gone() {
		return false, nil
	}
	now, err := bind(s.path, p)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, now.Close()
	}
	old := s.on
	s.on, s.made = now.on, now.made
	_ = old.Close()
	return true, nil
}
