package main

import (
	"fmt"
	"net"
	"strings"

	"meta9/fs"
	mdata "meta9/mdbridge/mdata/server"
	"meta9/mdbridge/mdata/server/upstream"
)

// newMdata makes the server of the Joyent metadata protocol. Its connections are
// bounded as those of 9P are, and counted apart.
func (d *daemon) newMdata(t *fs.Tree) *mdata.Server {
	l := &d.cfg.Limits
	return mdata.New(mdata.Config{
		Tree:   t,
		Limits: mdata.Limits{Conns: int(l.Conns), VMConns: int(l.VMConns)},
		Budget: d.budget,
		Fresh:  d.fresh(),
	})
}

// serveMdata hands a VM's connection to the server of the Joyent metadata protocol, once the
// daemon is open.
func (d *daemon) serveMdata(c net.Conn, who fs.Principal, via, addr string, ended func()) {
	defer ended()
	if !d.waitOpen() {
		c.Close()
		return
	}
	if !d.arrives(c, waitingConn{VM: who.VM, Via: via, Addr: addr, Lines: true}) {
		return
	}
	d.mdata.Serve(c, who, via)
}

// status is what /ctl shows after the tree's own figures.
func (d *daemon) status() string {
	s, m, b := d.server.Stats(), d.mdata.Stats(), d.budget.Stats()
	sessions, bytes := d.journal.Stats()
	return d.mirrorStatus() + d.fleetStatus() + d.upgradeStatus() + d.libvirtStatus() + d.facts() + d.tallies.status() + d.commitStatus() +
		fmt.Sprintf("bytes_limit %d\nconnections_limit %d\nsessions_parked_limit %d\nmemory_limit %d\n",
			d.cfg.Limits.Bytes, d.cfg.Limits.Conns, d.cfg.Limits.Parked, d.cfg.Limits.Memory) +
		fmt.Sprintf("connections %d\nconnections_refused %d\nsessions %d\nsessions_parked %d\nrequests %d\nrequest_errors %d\n",
			s.Conns, s.Refused, s.Sessions, s.Parked, s.Requests, s.Errors) +
		fmt.Sprintf("memory_in_flight %d\nmemory_waits %d\nmemory_refused %d\n", b.Used, b.Waits, b.Refused) +
		fmt.Sprintf("session_key_misses %d\nmumble_refused %d\n", s.Misses, s.AuthFailures) +
		fmt.Sprintf("guests_set_back %d\n", s.Past) +
		fmt.Sprintf("sessions_restored %d\nsessions_not_restored %d\n", d.restored.Sessions, d.restored.Lost) +
		fmt.Sprintf("requests_found_done %d\nrequests_in_doubt %d\nrequests_undone %d\n", d.restored.Receipts, d.restored.Doubtful, s.Undone) +
		fmt.Sprintf("journal_sessions %d\njournal_bytes %d\n", sessions, bytes) +
		fmt.Sprintf("mdata_connections %d\nmdata_refused %d\nmdata_requests %d\nmdata_damaged %d\nmdata_dropped %d\n",
			m.Conns, m.Refused, m.Requests, m.Damaged, m.Dropped)
}

// vmStatus is what a VM's ctl shows after the tree's own lines.
func (d *daemon) vmStatus(uuid string) string {
	conns, sessions, parked := d.server.VMStats(uuid)
	return d.staleStatus() + fmt.Sprintf("connections %d\nsessions %d\nsessions_parked %d\n", conns, sessions, parked)
}

// graftUpstream adds the folder of an existing metadata service to the admin's root, if one
// is configured.
func (d *daemon) graftUpstream(t *fs.Tree) {
	if d.cfg.MdataFrom == "" {
		return
	}
	_, path, _ := strings.Cut(d.cfg.MdataFrom, ":")
	s := upstream.New(path)
	t.GraftRoot("upstream", func(_ fs.Principal, v *fs.View) fs.Node { return s.Node(v) })
	d.atEnd(s.Close)
}

func checkMdata(c *config) error {
	kind, path, _ := strings.Cut(c.MdataFrom, ":")
	if c.MdataFrom != "" && (kind != "unix" && kind != "tty" || path == "") {
		return fmt.Errorf("mdata_from %q: it is unix:PATH or tty:PATH", c.MdataFrom)
	}
	return nil
}
