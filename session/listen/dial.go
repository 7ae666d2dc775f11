package listen

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"meta9/descriptors"
	"meta9/fs"
	"meta9/fs/vm"
	"meta9/rarelog"
)

// redial is how often a device that is not connected is dialled.
const redial = 100 * time.Millisecond

// Device is a character device of the hypervisor: a unix socket that it owns and
// that is dialled, and dialled again whenever it is gone.
type Device struct {
	Property string  // the VM's property that holds the socket's path: "9p_chardev"
	Handle   Handler // of one whose property is "unix:PATH" or PATH
	Link     Handler // of one whose property ends with linkOption; nil: there is none
}

// linkOption ends the property of a device that carries packets.
const linkOption = ",link"

// dialled is one VM's device. Without a connection it costs no goroutine, since
// the VMs that are switched off may be thousands: VMs dials them all in turn.
type dialled struct {
	text   string // as the property has it
	path   string
	who    fs.Principal
	handle Handler
	rare   rarelog.Log

	ctx  context.Context
	end  context.CancelCauseFunc
	busy atomic.Bool // serve runs
}

// errHungUp is the cause of an end that closes the connection too: the VM is
// gone, or has another device. Any other end leaves it to the Handler.
var errHungUp = errors.New("hung up")

// device makes, moves or ends the VM's device d as its property says now.
func (m *VMs) device(d Device, v *vm.VM, k *kept) {
	text := v.Text(d.Property)
	if now := k.devices[d.Property]; now != nil {
		if now.text == text {
			return
		}
		m.hangUp(now, errHungUp)
		delete(k.devices, d.Property)
	}
	if text == "" {
		return
	}
	log := m.cfg.Log.With().Str("vm", v.UUID).Logger()
	path, handle := strings.TrimPrefix(text, "unix:"), d.Handle
	if plain, ok := strings.CutSuffix(path, linkOption); ok && d.Link != nil {
		path, handle = plain, d.Link
	}
	if !filepath.IsAbs(path) || len(path) > maxPath {
		log.Error().Str(d.Property, text).Msgf("not dialled: an absolute path of at most %d bytes is needed", maxPath)
		return
	}
	now := &dialled{text: text, path: path, who: fs.Principal{VM: v.UUID}, handle: handle, rare: rarelog.Log{Log: log}}
	now.ctx, now.end = context.WithCancelCause(context.Background())
	k.devices[d.Property] = now
	m.devices[now] = true
	now.dial()
}

// hangUp ends a device.
func (m *VMs) hangUp(d *dialled, cause error) {
	d.end(cause)
	delete(m.devices, d)
}

// dial dials the device unless it is connected. It first looks whether the path
// is there at all, which it is not where the VM is switched off.
func (d *dialled) dial() {
	if d.busy.Load() {
		return
	}
	if err := unix.Access(d.path, unix.F_OK); err != nil {
		d.absent(err)
		return
	}
	d.busy.Store(true)
	go d.serve()
}

// serve connects and serves the device until its connection ends.
func (d *dialled) serve() {
	defer d.busy.Store(false)
	var dialer net.Dialer
	c, err := dialer.DialContext(d.ctx, "unix", d.path)
	if err != nil {
		d.absent(reason(err))
		return
	}
	if err := descriptors.Check(c); err != nil {
		c.Close()
		d.absent(err)
		return
	}
	stop := context.AfterFunc(d.ctx, func() {
		if context.Cause(d.ctx) == errHungUp {
			c.Close()
		}
	})
	defer stop()
	d.handle(c, d.who, d.via(), "")
}

func (d *dialled) via() string { return "dial:" + d.path }

// absent tells the log; not of a device that was hung up while it was dialled.
func (d *dialled) absent(err error) {
	if d.ctx.Err() == nil {
		d.rare.Warn("").Str("via", d.via()).Err(err).Msg("the device is not there; dialling on")
	}
}
