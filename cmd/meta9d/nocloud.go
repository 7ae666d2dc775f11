package main

import (
	"net"

	"meta9/fs"
	nocloud "meta9/mdbridge/nocloud/server"
)

// newNoCloud makes the server of the VMs' http.sock.
func (d *daemon) newNoCloud() {
	d.nocloud = nocloud.New(nocloud.Config{
		Store: d.store, Budget: d.budget, Limits: nocloud.Limits{Conns: int(d.cfg.Limits.Conns)}, Fresh: d.fresh(),
	})
	d.atEnd(d.nocloud.Close)
}

// serveNoCloud hands a VM's connection to it.
func (d *daemon) serveNoCloud(c net.Conn, who fs.Principal, _, _ string, ended func()) {
	defer ended()
	if !d.waitOpen() {
		c.Close()
		return
	}
	d.nocloud.Serve(c, who.VM)
}
