package main

import (
	"meta9/descriptors"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// ownDescriptors is about how many files the daemon opens for itself: data files, the
// runtime's, a log.
const ownDescriptors = 32

// warnDescriptors warns the operator when the limits of connections allow more open files
// than the system does: guests' connections would then be refused (package descriptors).
// It is called when all listeners are open.
func (d *daemon) warnDescriptors() {
	limit, err := descriptors.Limit()
	if err != nil {
		d.log.Warn().Err(err).Msg("descriptors")
		return
	}
	sockets, devices := 0, 0
	d.store.Cells(0, func(c *store.Cell) bool {
		m := c.VM()
		if m == nil {
			return true
		}
		if d.cfg.Sockets.Enabled {
			sockets += len(d.vmSockets())
		}
		for _, p := range []string{vm.Prop9PChardev, vm.PropMdataChardev, vm.Prop9PListen} {
			if m.Text(p) != "" {
				devices++
			}
		}
		return true
	})
	conns := int(d.cfg.Limits.Conns)
	http := conns * (1 + len(d.cfg.HTTP.Listen))
	qemus := len(d.cfg.QMP.Sockets)
	if len(d.cfg.QMP.Dirs) > 0 {
		qemus += d.cfg.QMP.VMs
	}
	sum := sockets + devices + 2*conns + http + qemus + ownDescriptors + descriptors.Reserved
	e, text := d.log.Info(), "descriptors"
	if uint64(sum) > limit {
		e, text = d.log.Warn(), "more descriptors may be needed than the system allows; past that guests are refused, and the last ones are the admin's: "+
			"raise the limit (systemd: LimitNOFILE=, shell: ulimit -n), or lower limits.connections"
	}
	e.Uint64("limit", limit).Int("needed", sum).Int("vm_sockets", sockets).Int("vm_devices", devices).
		Int("connections", conns).Int("mdata", conns).Int("http", http).Int("qemus", qemus).Int("admin", descriptors.Reserved).Msg(text)
}
