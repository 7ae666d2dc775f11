package listen

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"

	"meta9/fs"
	"meta9/fs/vm"
)

// Network is the kind of a listener.
type Network string

// The kinds.
const (
	Unix  Network = "unix"  // the admin, proved by SO_PEERCRED
	TCP   Network = "tcp"   // nobody, or the principal that it is bound to
	TLS   Network = "tls"   // whom the client's certificate names
	Vsock Network = "vsock" // the VM whose vsock_cid the peer has
)

// Addr is a listener's address.
type Addr struct {
	Net  Network
	Path string       // unix
	Host string       // tcp, tls: HOST:PORT; no HOST: every address
	Port uint32       // vsock
	As   fs.Principal // unix, tcp: who is served there, as the option "as" says
}

const forms = "a listener is unix:PATH or tcp:HOST:PORT, each also with ,as=admin or ,as=vm:UUID, or tls:HOST:PORT or vsock:PORT"

// Parse reads the text of a listener's address. Options begin at the first comma, on
// every kind: what a listener does not know is an error, never part of a path. The
// error says what is allowed.
func Parse(text string) (Addr, error) {
	kind, rest, _ := strings.Cut(text, ":")
	place, option, has := strings.Cut(rest, ",")
	a := Addr{Net: Network(kind)}
	var err error
	switch a.Net {
	case Unix:
		a.Path = place
		if place == "" {
			err = fmt.Errorf("no path")
		}
	case TCP, TLS:
		a.Host, err = place, checkHost(place)
	case Vsock:
		a.Port, err = parsePort(place)
	default:
		err = fmt.Errorf("unknown kind")
	}
	if err == nil && has {
		a.As, err = a.Net.parseAs(option)
	}
	if err != nil {
		return Addr{}, fmt.Errorf("listener %q: %w; %s", text, err, forms)
	}
	return a, nil
}

// checkHost requires the port in digits: a service's name would be looked up on the host,
// and a wrong one would fail only when the daemon starts.
func checkHost(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

// parsePort reads a vsock port; the highest number stands for "any".
func parsePort(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n == math.MaxUint32 {
		return 0, fmt.Errorf("port %q is not a number from 1 to %d", s, uint32(math.MaxUint32-1))
	}
	return uint32(n), nil
}

// parseAs reads as=admin or as=vm:UUID, where the channel itself does not prove more.
func (n Network) parseAs(s string) (fs.Principal, error) {
	switch n {
	case TLS:
		return fs.Principal{}, fmt.Errorf("unknown option %q: the client's certificate says who it is", s)
	case Vsock:
		return fs.Principal{}, fmt.Errorf("unknown option %q: the peer's CID says which VM it is", s)
	}
	if s == "as=admin" {
		return fs.Principal{Admin: true}, nil
	}
	text, ok := strings.CutPrefix(s, "as=vm:")
	if !ok {
		return fs.Principal{}, fmt.Errorf("unknown option %q", s)
	}
	uuid, err := vm.ParseUUID(text)
	return fs.Principal{VM: uuid}, err
}

// String is the text that Parse reads.
func (a Addr) String() string {
	place, as := a.Host, ""
	switch {
	case a.Net == Unix:
		place = a.Path
	case a.Net == Vsock:
		place = strconv.FormatUint(uint64(a.Port), 10)
	}
	switch {
	case a.As.Admin:
		as = ",as=admin"
	case a.As.VM != "":
		as = ",as=vm:" + a.As.VM
	}
	return string(a.Net) + ":" + place + as
}
