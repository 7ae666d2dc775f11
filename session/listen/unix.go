package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// shortEnough says that a path is too long for a unix socket.
func shortEnough(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("the path has %d bytes, a unix socket's has at most %d", len(path), maxPath)
	}
	return nil
}

// CheckRun says that a run folder's name is too long for the sockets in it: the daemon's, and
// those of the VMs where they are to have some.
func CheckRun(dir string, vms bool) error {
	longest := filepath.Join(dir, "vminfo.sock")
	if vms {
		longest = filepath.Join(dir, "01234567-0123-0123-0123-0123456789ab", "mdata.sock")
	}
	if extra := len(longest) - maxPath; extra > 0 {
		return fmt.Errorf("the folder's name is %d bytes too long: %s would have %d, and a unix socket's path has at most %d", extra, longest, len(longest), maxPath)
	}
	return nil
}

// Perm is who may connect to a unix socket, as far as its file says so.
type Perm struct {
	Mode     os.FileMode
	UID, GID int // -1: the daemon's
}

// place is where a unix socket is made.
type place struct {
	path string
	// foreign: the folder may belong to another user, who may change it while the daemon
	// works in it. Then nothing is made or removed by its path, but in the folder to which
	// the path led at the beginning; and no lock is waited for, because that user could hold
	// it.
	foreign bool
}

// in calls f with a path to the place that leads to the same folder until f returns.
func (at place) in(f func(path string) error) error {
	if !at.foreign {
		return f(at.path)
	}
	dir, err := unix.Open(filepath.Dir(at.path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("folder %s: %w", filepath.Dir(at.path), err)
	}
	defer unix.Close(dir)
	err = f(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(at.path)))
	var pe *os.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", pe.Op, pe.Err) // the log line has the path
	}
	return err
}

// socket is a unix listener that removes its own file, and no other's, and makes it
// again when somebody has taken it away.
type socket struct {
	at   place
	perm Perm // when it was made; heal may get another

	mu     sync.Mutex
	on     *net.UnixListener
	made   os.FileInfo // the file
	closed bool

	foreign bool // the file is systemd's
	stays   bool // the file stays when the socket is closed; mu guards it
}

// unix is bind, unless the socket was inherited.
func (in *Inherited) unix(at place, asked string, p Perm) (*socket, error) {
	nl, systemd := in.Take(asked, &net.UnixAddr{Name: at.path, Net: "unix"})
	on, ok := nl.(*net.UnixListener)
	if !ok {
		return bind(at, p)
	}
	s := &socket{on: on, at: at, perm: p, foreign: systemd, stays: systemd}
	err := at.in(func(path string) (err error) {
		s.made, err = os.Lstat(path)
		if err == nil && !systemd {
			err = p.applyAgain(path)
		}
		return err
	})
	if err != nil && !missing(err) { // a missing file is made again by heal
		return nil, errors.Join(err, on.Close())
	}
	return s, nil
}

// keep lets the file stay when the socket is closed.
func (s *socket) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stays = true
}

// bind makes a unix socket and, where that is the daemon's to do, its folder. A socket
// that nobody answers on is left over from a crash and is replaced; one that somebody
// answers on is in use. The folder is locked meanwhile, so that of two daemons that
// start at once only one finds the left-over.
func bind(at place, p Perm) (s *socket, err error) {
	if err := shortEnough(at.path); err != nil {
		return nil, err
	}
	if !at.foreign {
		dir := filepath.Dir(at.path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		unlock, err := lock(dir)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	err = at.in(func(path string) error {
		if err := clearStale(path); err != nil {
			return err
		}
		s, err = create(at, path, p)
		return err
	})
	return s, err
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

// create binds a socket at path, which leads to its place, that nobody but the daemon can
// connect to before p says who may: Linux makes the file with the mode of the socket itself.
func create(at place, path string, p Perm) (*socket, error) {
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
	s := &socket{on: nl.(*net.UnixListener), at: at, perm: p}
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

// apply gives the socket or folder at path, which the daemon has made, its owner, and then
// its mode. It changes the file that it has checked, even if another one comes to be at
// path meanwhile; and it changes no file that is not the daemon's.
func (p Perm) apply(path string) error { return p.give(path, unix.Geteuid()) }

// applyAgain is apply for a file that an earlier program has given to its owner already.
func (p Perm) applyAgain(path string) error { return p.give(path, unix.Geteuid(), p.UID) }

// give is apply for a file that belongs to one of the users in from.
func (p Perm) give(path string, from ...int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && (kind != unix.S_IFSOCK || st.Nlink != 1) || !slices.Contains(from, int(st.Uid)) {
		return errors.New("somebody else has put something in the place of what was made")
	}
	if p.UID >= 0 || p.GID >= 0 {
		if err := unix.Fchownat(fd, "", p.UID, p.GID, unix.AT_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "chown", Path: path, Err: err}
		}
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), p.Mode) // fchmod wants more than O_PATH
}

// listening returns the listener of now; nil: the socket is closed.
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

// SyscallConn gives access to the descriptor.
func (s *socket) SyscallConn() (syscall.RawConn, error) {
	on := s.listening()
	if on == nil {
		return nil, net.ErrClosed
	}
	return on.SyscallConn()
}

// Addr is the path.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.at.path, Net: "unix"} }

// Close removes the file first: once nobody answers on it, it is another
// daemon's to replace.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	_ = s.at.in(func(path string) error {
		if s.stays || goneFrom(path, s.made) {
			return nil
		}
		return os.Remove(path)
	})
	return s.on.Close()
}

// gone says whether the path no longer leads to our file.
func (s *socket) gone() (gone bool) {
	s.mu.Lock()
	made := s.made
	s.mu.Unlock()
	err := s.at.in(func(path string) error {
		gone = goneFrom(path, made)
		return nil
	})
	return gone || missing(err) // the folder is
}

// goneFrom says whether path leads to something else than the file, or to nothing.
func goneFrom(path string, made os.FileInfo) bool {
	fi, err := os.Lstat(path)
	if err != nil {
		return missing(err)
	}
	return made == nil || !os.SameFile(fi, made)
}

// missing tells whether err says that a path does not exist.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// heal makes the file again if it is gone. Connections by the old file stay. If something
// else has taken its place, heal leaves it alone, except a socket that nobody answers on.
func (s *socket) heal(p Perm) (healed bool, err error) {
	if !s.gone() {
		return false, nil
	}
	now, err := bind(s.at, p)
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
