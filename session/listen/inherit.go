package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"meta9/fs"
)

// Passed is a listening socket that goes to the next program in this process.
type Passed struct {
	Asked   string `json:"asked"` // the listener, as the settings have it
	FD      int    `json:"fd"`    // it is open, and stays so when a program is executed
	Systemd bool   `json:"systemd,omitempty"`
}

// Inherited are sockets that were open before this program began: those of the program
// before it in this process (a live update), and listening ones of systemd's
// (sd_listen_fds(3)). Listeners find theirs in it. A nil *Inherited is empty.
type Inherited struct {
	mu    sync.Mutex
	socks []*inherited
	conns map[string][]Adopted // by the text of the listener, or device, that they came by
}

// inherited is a listening socket.
type inherited struct {
	asked   string // "": whose address it is
	nl      net.Listener
	systemd bool // its file is not ours to remove
}

// Adopted is a connection that goes on. Run serves it, as a Handler would.
type Adopted struct {
	Conn net.Conn
	Who  fs.Principal
	Run  func(ended func())
}

// Socket adds a listening socket; the descriptor stays the caller's. Asked is "" for one
// that is found by its address.
func (in *Inherited) Socket(p Passed) error {
	f, err := dupFile(p.FD)
	if err != nil {
		return err
	}
	defer f.Close()
	nl, err := fileListener(f)
	if err != nil {
		return fmt.Errorf("descriptor %d is no socket that listens: %w", p.FD, err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.socks = append(in.socks, &inherited{p.Asked, nl, p.Systemd})
	return nil
}

// dupFile is another descriptor of the same file.
func dupFile(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(n), "inherited"), nil
}

// Again returns the same listening sockets once more, for a caller that serves them for a
// while before those of in are taken.
func (in *Inherited) Again() (*Inherited, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	again := new(Inherited)
	for _, s := range in.socks {
		p, err := Pass(s.asked, s.nl)
		if err != nil {
			return nil, err
		}
		p.Systemd = s.systemd
		if err := errors.Join(again.Socket(p), unix.Close(p.FD)); err != nil {
			return nil, err
		}
	}
	return again, nil
}

// isVsock tells whether f is a vsock socket, the one kind that package net does not know.
func isVsock(f *os.File) bool {
	domain, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_VSOCK
}

func fileListener(f *os.File) (net.Listener, error) {
	if isVsock(f) {
		return vsock.FileListener(f)
	}
	return net.FileListener(f)
}

// Conn adds a connection that came by via.
func (in *Inherited) Conn(via string, a Adopted) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.conns == nil {
		in.conns = make(map[string][]Adopted)
	}
	in.conns[via] = append(in.conns[via], a)
}

// Take returns the socket for a listener of the settings. systemd's are found by address,
// in the form of net.Addr. nil: there is none.
func (in *Inherited) Take(asked string, address net.Addr) (nl net.Listener, systemd bool) {
	if in == nil {
		return nil, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, s := range in.socks {
		if s.asked == asked || s.asked == "" && sameAddr(s.nl.Addr(), address) {
			in.socks = append(in.socks[:i], in.socks[i+1:]...)
			return s.nl, s.systemd
		}
	}
	return nil, false
}

func (in *Inherited) take(a Addr) (net.Listener, bool) { return in.Take(a.String(), a.address()) }

// address returns the listener's address as a net.Addr; nil: it has no fixed one.
func (a Addr) address() net.Addr {
	switch a.Net {
	case Unix:
		return &net.UnixAddr{Name: a.Path, Net: "unix"}
	case Vsock:
		return &vsock.Addr{Port: a.Port}
	}
	tcp, err := net.ResolveTCPAddr("tcp", a.Host)
	if err != nil {
		return nil
	}
	return tcp
}

// sameAddr tells whether a socket has the address that is wanted.
func sameAddr(is, want net.Addr) bool {
	switch want := want.(type) {
	case *net.UnixAddr:
		a, ok := is.(*net.UnixAddr)
		return ok && a.Name == want.Name
	case *vsock.Addr:
		a, ok := is.(*vsock.Addr)
		return ok && a.Port == want.Port
	case *net.TCPAddr:
		a, ok := is.(*net.TCPAddr)
		every := len(want.IP) == 0 || want.IP.IsUnspecified()
		return ok && a.Port == want.Port && (a.IP.Equal(want.IP) || every && a.IP.IsUnspecified())
	}
	return false
}

// adopted returns the connections that came by via.
func (in *Inherited) adopted(via string) []Adopted {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	list := in.conns[via]
	delete(in.conns, via)
	return list
}

// Rest closes the sockets that no listener has taken, and returns their names.
func (in *Inherited) Rest() (left []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.socks {
		left = append(left, s.nl.Addr().Network()+":"+s.nl.Addr().String())
		_ = s.nl.Close()
		if a, ok := s.nl.Addr().(*net.UnixAddr); ok && !s.systemd {
			_ = os.Remove(a.Name)
		}
	}
	for via, list := range in.conns {
		left = append(left, fmt.Sprintf("%d connections of %s", len(list), via))
		for _, a := range list {
			_ = a.Conn.Close()
			go a.Run(func() {}) // it ends, as with any transport that is lost
		}
	}
	in.socks, in.conns = nil, nil
	return left
}

// adopt goes on with the connections that came by this listener, in an earlier program.
func (l *Listener) adopt(in *Inherited) {
	for _, a := range in.adopted(l.via) {
		go l.goOn(a)
	}
}

func (l *Listener) goOn(a Adopted) {
	if l.again == nil {
		l.served.add(a.Conn, nil)
	} else {
		l.served.add(a.Conn, &a.Who)
		if who, err := l.again(a.Conn); err != nil || who != a.Who {
			hangUp(a.Conn)
		}
	}
	a.Run(func() { l.served.remove(a.Conn) })
}

// HandOver is Close for a socket that goes to the next program: the socket is not closed,
// and its file stays. Connections that come meanwhile wait in its queue. If it returns an
// error, FD is -1.
func (l *Listener) HandOver() (Passed, error) {
	systemd := false
	if s, ok := l.nl.(*socket); ok {
		systemd = s.foreign
		s.keep()
	}
	nl := l.nl
	if t, ok := nl.(tlsListener); ok {
		nl = t.under
	}
	p, err := Pass(l.asked, nl)
	p.Systemd = systemd
	if err = errors.Join(err, l.Close()); err != nil && p.FD >= 0 {
		_ = unix.Close(p.FD)
		p.FD = -1
	}
	return p, err
}

// Pass makes a Passed from a listener, which may be closed then. If it returns an error,
// FD is -1.
func Pass(asked string, nl net.Listener) (Passed, error) {
	fd, err := Descriptor(nl)
	if err != nil {
		return Passed{FD: -1}, err
	}
	fd, err = unix.Dup(fd) // -1 with an error
	return Passed{Asked: asked, FD: fd}, err
}

// Descriptor is the number of the descriptor of a connection or a listener. Its owner
// must keep it meanwhile.
func Descriptor(x any) (fd int, err error) {
	c, ok := x.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("a %T has no descriptor", x)
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := rc.Control(func(n uintptr) { fd = int(n) }); e != nil {
		return 0, e
	}
	return fd, nil
}

// HandOver is Close for sockets that go to the next program, as those of a Listener.
func (m *VMs) HandOver() ([]Passed, error) {
	m.mu.Lock()
	m.handing = true
	m.mu.Unlock()
	m.Close()
	return m.passed, m.unpassed
}

// pass hands one VM's sockets over.
func (m *VMs) pass(k *kept) {
	all := k.sockets
	for _, b := range k.bound {
		if b.l != nil {
			all = append(all, b.l)
		}
	}
	for _, l := range all {
		p, err := l.HandOver()
		if err != nil {
			m.unpassed = errors.Join(m.unpassed, err)
			continue
		}
		m.passed = append(m.passed, p)
	}
}

// FromDescriptor is the connection of a descriptor that was inherited, which stays the
// caller's.
func FromDescriptor(fd int) (net.Conn, error) {
	f, err := dupFile(fd)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if isVsock(f) {
		return newVsockConn(f)
	}
	return net.FileConn(f)
}

// vsockConn is a vsock connection that was inherited: package vsock makes none of a
// descriptor.
type vsockConn struct {
	*os.File
	local, remote net.Addr
}

func newVsockConn(f *os.File) (*vsockConn, error) {
	fd := int(f.Fd())
	local, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	remote, err := unix.Getpeername(fd)
	if err != nil {
		return nil, err
	}
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// f.Fd has made it one that blocks, and for those there is no poller.
	if err := unix.SetNonblock(n, true); err != nil {
		return nil, errors.Join(err, unix.Close(n))
	}
	return &vsockConn{os.NewFile(uintptr(n), "vsock"), vsockAddr(local), vsockAddr(remote)}, nil
}

func vsockAddr(a unix.Sockaddr) net.Addr {
	v, ok := a.(*unix.SockaddrVM)
	if !ok {
		return &vsock.Addr{}
	}
	return &vsock.Addr{ContextID: v.CID, Port: v.Port}
}

func (c *vsockConn) LocalAddr() net.Addr  { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }
