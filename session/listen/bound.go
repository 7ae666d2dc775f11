package listen

import (
	"context"
	"fmt"
	"net"
	"strings"

	"meta9/fs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// bound is a unix socket whose path a VM's property gives: Firecracker and
// cloud-hypervisor connect to PATH_PORT when the guest connects to the host's vsock PORT.
// Its folder exists while the hypervisor does, and may belong to the hypervisor's user.
type bound struct {
	is   claims
	path string
	perm Perm
	l    *Listener // nil: it could not be made yet
	said string    // the last error in the log
}

// claims is what a bound socket was made for. When that changes, a new socket is made, and
// connections by the old one end.
type claims struct {
	text, owner string
	open        bool // any user of the guest may connect
}

// bind makes, moves or removes the VM's socket of the property d, as the property says
// now.
func (m *VMs) bind(d Device, v *vm.VM, k *kept) {
	open, _ := v.Prop(vm.PropVsockUnprivileged)
	is := claims{v.Text(d.Property), k.owner, open.Kind == ordjson.True}
	if b := k.bound[d.Property]; b != nil {
		if b.is == is {
			return
		}
		b.end((*Listener).End)
		delete(k.bound, d.Property)
	}
	if is.text == "" {
		return
	}
	path := strings.TrimPrefix(is.text, "unix:")
	perm, err := m.perm(is.owner)
	if err == nil {
		err = checkPath(path)
	}
	if err != nil {
		m.cfg.Log.Error().Str("vm", v.UUID).Str(d.Property, is.text).Msgf("not listened on: %v", err)
		return
	}
	b := &bound{is: is, path: path, perm: perm}
	k.bound[d.Property] = b
	m.make(b, v.UUID, d)
}

// make makes the socket, if that is possible now; else healBound tries again.
func (m *VMs) make(b *bound, uuid string, d Device) {
	l, err := m.listen(uuid, place{path: b.path, foreign: true}, b.perm, &Listener{prove: m.proveBound(uuid, b.is.open), handle: d.Handle, served: served{tally: d.Tally}})
	if err != nil {
		m.sayBound(b, uuid, d, err)
		return
	}
	b.l, b.said = l, ""
}

// sayBound logs once what is wrong. For folders that do not exist, because the VMs are
// switched off, it logs one line a minute with their number.
func (m *VMs) sayBound(b *bound, uuid string, d Device, err error) {
	text := err.Error()
	if text == b.said {
		return
	}
	b.said = text
	e := m.cfg.Log.Error()
	if missing(err) {
		e = m.rare.Warn("bound")
	}
	e.Str("vm", uuid).Str(d.Property, b.path).Err(err).Msg("the VM's socket cannot be made; trying on")
}

// healBound makes the sockets that could not be made before, or were removed. Only work
// calls it.
func (m *VMs) healBound() {
	for uuid, k := range m.kept {
		for _, d := range m.cfg.Bound {
			b := k.bound[d.Property]
			switch {
			case b == nil:
			case b.l == nil:
				m.make(b, uuid, d)
			default:
				if _, err := b.l.nl.(*socket).heal(b.perm); err != nil {
					m.sayBound(b, uuid, d, err)
				} else {
					b.said = ""
				}
			}
		}
	}
}

// proveBound knows the VM by its socket, but not which user of the guest has connected:
// the hypervisor does not pass on the guest's port. So it proves the VM only if the VM
// lets any user connect; see proveVsock.
func (m *VMs) proveBound(uuid string, open bool) prover {
	switch {
	case open:
		return always(fs.Principal{VM: uuid})
	case m.cfg.Nobody:
		return always(fs.Principal{})
	}
	return func(context.Context, net.Conn) (fs.Principal, error) {
		return fs.Principal{}, fmt.Errorf("VM %s: its socket does not tell root in the guest from other users: "+
			"set the VM's vsock_unprivileged to true if any user of the guest may have its metadata, or let it authenticate by MUMBLE", uuid)
	}
}

// end removes the socket, if there is one, by Listener.Close or Listener.End.
func (b *bound) end(by func(*Listener) error) {
	if b.l != nil {
		_ = by(b.l)
	}
}
