package listen

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"meta9/fs"
	"meta9/fs/vm"
)

// redial is the pause before a device is dialled again.
const redial = 100 * time.Millisecond

// Device is a character device of the hypervisor: a unix socket that it owns and
// that is dialled, and dialled again whenever it is gone.
type Device struct {
	Property string // the VM's property that holds the socket's path: "9p_chardev"
	Handle   Handler
}

// dialled is one VM's device: a goroutine that dials and serves until end.
type dialled struct {
	path string // as the property has it
	end  context.CancelCauseFunc
}

// errHungUp is the cause of an end that closes the connection too: the VM is
// gone, or has another device. Any other end leaves it to the Handler.
var errHungUp = errors.New("hung up")

// dial starts, moves or ends the VM's device d as its property says now.
func (k *kept) dial(d Device, v *vm.VM, log zerolog.Logger) {
	want := v.Text(d.Property)
	if now := k.devices[d.Property]; now != nil {
		if now.path == want {
			return
		}
		now.end(errHungUp)
		delete(k.devices, d.Property)
	}
	if want == "" {
		return
	}
	log = log.With().Str("vm", v.UUID).Logger()
	path := strings.TrimPrefix(want, "unix:")
	if !filepath.IsAbs(path) || len(path) > maxPath {
		log.Error().Str(d.Property, want).Msgf("not dialled: an absolute path of at most %d bytes is needed", maxPath)
		return
	}
	ctx, end := context.WithCancelCause(context.Background())
	k.devices[d.Property] = &dialled{path: want, end: end}
	go redialling(ctx, path, d.Handle, fs.Principal{VM: v.UUID}, &rare{log: log})
}

// endDevices ends all the VM's devices.
func (k *kept) endDevices(cause error) {
	for _, d := range k.devices {
		d.end(cause)
	}
	clear(k.devices)
}

// redialling serves the device at path, one connection after the other.
func redialling(ctx context.Context, path string, handle Handler, who fs.Principal, r *rare) {
	via := "dial:" + path
	for {
		c, err := dialUnix(ctx, path)
		if err == nil {
			stop := context.AfterFunc(ctx, func() {
				if context.Cause(ctx) == errHungUp {
					c.Close()
				}
			})
			handle(c, who, via, "")
			stop()
		} else if ctx.Err() == nil {
			r.warn(via, "the device is not there; dialling on", err)
		}
		if !sleep(ctx, redial) {
			return
		}
	}
}

// dialUnix first looks whether the path is there, which is all that a thousand
// devices of stopped VMs cost ten times a second.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	if err := unix.Access(path, unix.F_OK); err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	return c, reason(err)
}
