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
	As   fs.Principal // tcp: who everyone there is
}

const forms = "a listener is unix:PATH, tcp:HOST:PORT, tcp:HOST:PORT,as=admin, tcp:HOST:PORT,as=vm:UUID, tls:HOST:PORT or vsock:PORT"

// Parse reads the text of a listener's address. The error says what is allowed.
func Parse(text string) (Addr, error) {
	kind, rest, _ := strings.Cut(text, ":")
	a := Addr{Net: Network(kind)}
	var err error
	switch a.Net {
	case Unix:
		a.Path = rest
		if rest == "" {
			err = fmt.Errorf("no path")
		}
	case TCP:
		var as string
		a.Host, as, _ = strings.Cut(rest, ",")
		if err = checkHost(a.Host); err == nil && a.Host != rest {
			a.As, err = parseAs(as)
		}
	case TLS:
		a.Host, err = rest, checkHost(rest)
	case Vsock:
		a.Port, err = parsePort(rest)
	default:
		err = fmt.Errorf("unknown kind")
	}
	if err != nil {
		return Addr{}, fmt.Errorf("listener %q: %w; %s", text, err, forms)
	}
	return a, nil
}

// checkHost wants a port in digits: a service's name would be looked up on the
// host, and fail there only when the daemon is started.
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

// parseAs reads as=admin or as=vm:UUID.
func parseAs(s string) (fs.Principal, error) {
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
	switch {
	case a.Net == Unix:
		return "unix:" + a.Path
	case a.Net == Vsock:
		return "vsock:" + strconv.FormatUint(uint64(a.Port), 10)
	case a.As.Admin:
		return string(a.Net) + ":" + a.Host + ",as=admin"
	case a.As.VM != "":
		return string(a.Net) + ":" + a.Host + ",as=vm:" + a.As.VM
	}
	return string(a.Net) + ":" + a.Host
}
