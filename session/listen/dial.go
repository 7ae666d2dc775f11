package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"meta9/descriptors"
	"meta9/fs"
	"meta9/fs/vm"
)

// redial is the time between two tries to dial a device.
const redial = 100 * time.Millisecond

// Device is a character device of the hypervisor: a unix socket that it owns and
// that is dialled, and dialled again whenever it is gone.
type Device struct {
	Property string  // the VM's property that holds the socket's path: "9p_chardev"
	Handle   Handler // for a property "unix:PATH" or PATH
	Tally    *Tally  // of the connections of all VMs; nil: none
	Link     Handler // for a property that ends with linkOption; nil: that is not allowed
}

// linkOption ends the property of a device that carries packets.
const linkOption = ",link"

// dialled is one VM's device. Without a connection it has no goroutine, because thousands
// of VMs may be switched off: VMs dials all their devices in turn.
type dialled struct {
	text   string // the property's text
	path   string
	who    fs.Principal
	handle Handler
	tally  *Tally

	ctx  context.Context
	end  context.CancelCauseFunc
	busy atomic.Bool           // it is being dialled, or its connection has not ended
	away atomic.Pointer[error] // why it is not connected; nil: it is, or was not dialled yet
}

// errHungUp is the cause of an end that closes the connection too: the VM is
// gone, or has another device. Any other end leaves it to the Handler.
var errHungUp = errors.New("hung up")

// device makes, moves or ends the VM's device d, as its property says now.
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
	path, handle := strings.TrimPrefix(text, "unix:"), d.Handle
	if plain, ok := strings.CutSuffix(path, linkOption); ok && d.Link != nil {
		path, handle = plain, d.Link
	}
	if err := checkPath(path); err != nil {
		m.cfg.Log.Error().Str("vm", v.UUID).Str(d.Property, text).Msgf("not dialled: %v", err)
		return
	}
	now := &dialled{text: text, path: path, who: fs.Principal{VM: v.UUID}, handle: handle, tally: d.Tally}
	now.ctx, now.end = context.WithCancelCause(context.Background())
	k.devices[d.Property] = now
	m.devices[now] = true
	if list := m.cfg.Inherited.adopted(now.via()); len(list) > 0 {
		now.busy.Store(true)
		go now.goOn(list[0])
		return
	}
	now.dial()
}

// checkPath refuses what cannot be the path of a property's socket. A payload is refused
// for the same; a data folder may have what older versions took.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || len(path) > maxPath || strings.Contains(path, ",") {
		return fmt.Errorf("an absolute path of at most %d bytes is needed, without options that are not known", maxPath)
	}
	return nil
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
	var dialer net.Dialer
	c, err := dialer.DialContext(d.ctx, "unix", d.path)
	if err != nil {
		d.absent(reason(err))
		d.busy.Store(false)
		return
	}
	if err := descriptors.Check(c); err != nil {
		c.Close()
		d.absent(err)
		d.busy.Store(false)
		return
	}
	d.away.Store(nil)
	d.handle(c, d.who, d.via(), "", d.hold(c))
}

// goOn is serve of a connection that an earlier program has made.
func (d *dialled) goOn(a Adopted) { a.Run(d.hold(a.Conn)) }

// hold ends the connection when the device is hung up. The caller calls ended when the
// connection has ended.
func (d *dialled) hold(c net.Conn) (ended func()) {
	stop := context.AfterFunc(d.ctx, func() {
		if context.Cause(d.ctx) == errHungUp {
			hangUp(c)
		}
	})
	d.tally.Begin()
	return func() {
		stop()
		d.tally.End()
		d.busy.Store(false)
	}
}

func (d *dialled) via() string { return "dial:" + d.path }

// absent notes why the device is not connected, for sayAway.
func (d *dialled) absent(err error) { d.away.Store(&err) }

// sayAway logs how many devices are not there, if the number has changed; only work calls
// it. However many VMs are switched off and on, it logs one line a minute.
func (m *VMs) sayAway() {
	n, example := 0, (*dialled)(nil)
	var why error
	for d := range m.devices {
		err := d.away.Load()
		if err == nil {
			continue
		}
		n++
		// Most VMs are switched off. Another reason is a mistake, and a better example.
		if example == nil || missing(why) && !missing(*err) {
			example, why = d, *err
		}
	}
	if n == m.away || time.Since(m.saidAway) < time.Minute {
		return
	}
	m.away, m.saidAway = n, time.Now()
	if n == 0 {
		m.cfg.Log.Info().Msg("all devices of VMs are there")
		return
	}
	m.cfg.Log.Warn().Int("devices", n).Str("via", example.via()).Str("vm", example.who.VM).Err(why).
		Msg("devices of VMs are not there; dialling on")
}
