package main

import (
	"fmt"
	"net"

	"meta9/fs"
	mdata "meta9/mdbridge/mdata/server"
)

// newMdata makes the server of the Joyent metadata protocol. Its connections are
// bounded as those of 9P are, and counted apart.
func (d *daemon) newMdata(t *fs.Tree) *mdata.Server {
	l := &d.cfg.Limits
	return mdata.New(mdata.Config{
		Tree:   t,
		Limits: mdata.Limits{Conns: int(l.Conns), VMConns: int(l.VMConns)},
	})
}

// serveMdata hands a VM's connection to it.
func (d *daemon) serveMdata(c net.Conn, who fs.Principal, _, _ string) { d.mdata.Serve(c, who) }

// status is what /ctl says beside the tree's own figures.
func (d *daemon) status() string {
	s := d.mdata.Stats()
	return fmt.Sprintf("mdata_connections %d\nmdata_refused %d\nmdata_requests %d\nmdata_damaged %d\nmdata_dropped %d\n",
		s.Conns, s.Refused, s.Requests, s.Damaged, s.Dropped)
}
