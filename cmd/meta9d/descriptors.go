package main

import (
	"meta9/descriptors"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// ownDescriptors is about how many files the daemon opens for itself: data files, the
// runtime's, a log.
const ownDescriptors = 32

// needs are the descriptors that the limits and the VMs may come to.
type needs struct{ sockets, devices, conns, http, qemus int }

func (n needs) sum() int {
	return n.sockets + n.devices + 2*n.conns + n.http + n.qemus + ownDescriptors + descriptors.Reserved
}

// needs counts them.
func (d *daemon) needs() needs {
	n := needs{conns: int(d.cfg.Limits.Conns), qemus: len(d.cfg.QMP.Sockets)}
	own := d.ownSockets()
	d.store.Cells(0, func(c *store.Cell) bool {
		m := c.VM()
		if m == nil {
			return true
		}
		for _, s := range own {
			if on, _ := m.Prop(s.If); s.If == "" || on.Kind == ordjson.True {
				n.sockets++
			}
		}
		for _, p := range []string{vm.Prop9PChardev, vm.PropMdataChardev, vm.Prop9PListen} {
			if m.Text(p) != "" {
				n.devices++
			}
		}
		return true
	})
	n.http = n.conns * (1 + len(d.cfg.HTTP.Listen))
	if len(d.cfg.QMP.Dirs) > 0 {
		n.qemus += d.cfg.QMP.VMs
	}
	return n
}

// warnDescriptors warns the operator when the limits of connections allow more open files
// than the system does: guests' connections would then be refused (package descriptors).
// It is called when all listeners are open.
func (d *daemon) warnDescriptors() {
	limit, err := descriptors.Limit()
	if err != nil {
		d.log.Warn().Err(err).Msg("descriptors")
		return
	}
	n := d.needs()
	e, text := d.log.Info(), "descriptors"
	if uint64(n.sum()) > limit {
		e, text = d.log.Warn(), "more descriptors may be needed than the system allows; past that guests are refused, and the last ones are the admin's: "+
			"raise the limit (systemd: LimitNOFILE=, shell: ulimit -n), or lower limits.connections"
	}
	e.Uint64("limit", limit).Int("needed", n.sum()).Int("vm_sockets", n.sockets).Int("vm_devices", n.devices).
		Int("connections", n.conns).Int("mdata", n.conns).Int("http", n.http).Int("qemus", n.qemus).Int("admin", descriptors.Reserved).Msg(text)
}
