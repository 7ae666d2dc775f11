package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	tree "meta9/fs"
	"meta9/fs/cpu"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/session"
	"meta9/session/listen"
	"meta9/session/packet"
)

// listen opens every channel: the admin's, the configured ones, the VMs' own. At
// the end they close, and then the connections are drained. The VMs are followed
// from before the first client can change one.
func (d *daemon) listen() error {
	d.atEnd(d.drain)
	perm, err := d.cfg.Sockets.perm()
	if err != nil {
		return err
	}
	conf, err := d.tls()
	if err != nil {
		return err
	}
	if _, err := d.denied.Load(d.cfg.TLS.Deny); err != nil {
		return usageError{fmt.Errorf("tls.deny: %w", err)}
	}
	if d.admins, err = groupID("admin_group", d.cfg.AdminGroup); err != nil {
		return err
	}
	vms := d.vms(perm)
	d.own = vms
	cfg := listen.Config{
		Handle: d.serve, Insecure: d.cfg.Insecure, VMPerm: perm, Admins: d.admins,
		TLS: conf, Admin: d.cfg.TLS.Admin, Denied: &d.denied, VM: d.vm, ByCID: d.byCID, Log: d.log,
	}
	admin := "unix:" + filepath.Join(d.cfg.Run, "admin.sock")
	for _, text := range append([]string{admin}, d.cfg.Listen...) {
		if err := d.open(cfg, text); err != nil {
			return usageError{err}
		}
	}
	// Only now that nobody else has the run folder.
	vms.Sweep()
	d.store.Cells(0, func(c *store.Cell) bool {
		vms.Changed(c.UUID())
		return true
	})
	if d.fleet != nil {
		d.fleet.EachExpected(vms.Changed)
	}
	vms.Settle()
	return nil
}

// adminOnly reads the address of a listener that serves nobody but the admin.
func adminOnly(text string) (listen.Addr, error) {
	a, err := listen.Parse(text)
	switch {
	case err != nil:
		return a, err
	case a.Net != listen.Unix:
		return a, fmt.Errorf("%q: it is unix:PATH", text)
	case a.As.VM != "":
		return a, fmt.Errorf("%q: it is the admin's alone, and cannot be a VM's", text)
	}
	return a, nil
}

// open opens one listener, and says where if the system chose the port.
func (d *daemon) open(cfg listen.Config, text string) error {
	a, err := listen.Parse(text)
	if err != nil {
		return err
	}
	cfg.Inherited, cfg.Tally = d.inherited, new(listen.Tally)
	l, err := cfg.Listen(a)
	if err != nil {
		return err
	}
	d.tallies.name(l.String(), cfg.Tally)
	d.atEnd(func() { d.closeListener(l) })
	d.mu.Lock()
	d.shared = append(d.shared, l)
	d.mu.Unlock()
	d.log.Info().Str("via", l.String()).Msg("listening")
	if a.Net == listen.TCP && a.As.Nobody() && d.cfg.Mumble.off() {
		d.log.Warn().Str("via", l.String()).Msg("nobody can say who he is there: mumble.secret is not set")
	}
	return nil
}

// serve hands a connection to the sessions. What proves nobody cannot resume by
// a key alone.
func (d *daemon) serve(c net.Conn, who tree.Principal, via, addr string, ended func()) {
	if !d.waitOpen() {
		c.Close()
		ended()
		return
	}
	if !d.arrives(c, waitingConn{VM: who.VM, Via: via, Addr: addr}) {
		ended()
		return
	}
	d.server.Go(c, session.Peer{Who: who, Via: via, Addr: addr, Resumes: !who.Nobody()}, ended)
}

// serveLink does the same with each link that a connection carries in packets.
func (d *daemon) serveLink(c net.Conn, who tree.Principal, via, addr string, ended func()) {
	defer ended()
	packet.Serve(c, d.reader(c, who.VM), func(link net.Conn) { d.serve(link, who, via, addr, func() {}) })
}

// goOnWithLinks is serveLink for a connection that an earlier program has handed over, with
// the link that it had: run serves that.
func (d *daemon) goOnWithLinks(l *packet.Link, who tree.Principal, via, addr string, run func(ended func())) func(ended func()) {
	return func(ended func()) {
		defer ended()
		l.GoOn(d.reader(l.NetConn(), who.VM), func(link net.Conn) {
			if link == l {
				run(func() {})
			} else {
				d.serve(link, who, via, addr, func() {})
			}
		})
	}
}

// cpu is the share of the CPUs that a VM works with; nil: it is gone.
func (d *daemon) cpu(uuid string) *cpu.Share {
	if c := d.store.Cell(uuid); c != nil {
		return c.CPU()
	}
	return nil
}

// reader reads a connection in the time of its VM.
func (d *daemon) reader(c net.Conn, uuid string) *cpu.Reader {
	return cpu.NewReader(c, func() *cpu.Share { return d.cpu(uuid) })
}

// vms follows what becomes of the VMs, for their own channels.
func (d *daemon) vms(perm listen.Perm) *listen.VMs {
	cfg := listen.VMConfig{
		Run: d.cfg.Run, Perm: perm, VM: d.vmHere, CPU: d.cpu, Log: d.log, Inherited: d.inherited,
		Devices: []listen.Device{
			{Property: vm.Prop9PChardev, Handle: d.serve, Link: d.serveLink, Tally: d.tallies.kind(vm.Prop9PChardev)},
			{Property: vm.PropMdataChardev, Handle: d.serveMdata, Tally: d.tallies.kind(vm.PropMdataChardev)},
		},
		Bound:  []listen.Device{{Property: vm.Prop9PListen, Handle: d.serve, Tally: d.tallies.kind(vm.Prop9PListen)}},
		Nobody: !d.cfg.Mumble.off(),
	}
	cfg.Sockets = d.ownSockets()
	for i := range cfg.Sockets {
		cfg.Sockets[i].Tally = d.tallies.kind(cfg.Sockets[i].Name)
	}
	m := listen.NewVMs(cfg)
	d.atEnd(func() { d.closeVMs(m) })
	d.store.Observe(func(c store.Committed) {
		if c.After == nil && d.fleet == nil { // which does it itself
			// It closes connections, which must not hold up the committer.
			go d.dropVM(c.Cell.UUID())
		}
		if propertiesChanged(c) {
			m.Changed(c.Cell.UUID())
		}
		if vsockChanged(c) {
			go d.recheck()
		}
	})
	return m
}

// ownSockets are the sockets that each VM has.
func (d *daemon) ownSockets() []listen.Socket {
	if !d.cfg.Sockets.Enabled {
		return nil
	}
	return []listen.Socket{
		{Name: "9p.sock", Handle: d.serve},
		{Name: "link.sock", Handle: d.serveLink},
		{Name: "mdata.sock", Handle: d.serveMdata},
		{Name: "http.sock", Handle: d.serveNoCloud, If: vm.PropNoCloudHTTP},
	}
}

// made answers for a new VM when its sockets are there.
func (d *daemon) made(uuid string, done func()) {
	d.own.Changed(uuid)
	d.own.Await(done)
}

// propertiesChanged tells a change of more than metadata.
func propertiesChanged(c store.Committed) bool {
	if c.Before == nil || c.After == nil {
		return true
	}
	for _, ch := range c.Changes {
		if ch.Type == vm.Changed {
			return true
		}
	}
	return false
}

// vsockChanged tells that another may be the VM by vsock than before.
func vsockChanged(c store.Committed) bool {
	if c.Before == nil || c.After == nil || !propertiesChanged(c) {
		return false
	}
	for _, name := range []string{vm.PropVsockCID, vm.PropVsockUnprivileged} {
		was, _ := c.Before.Prop(name)
		is, _ := c.After.Prop(name)
		if was.Kind != is.Kind || was.Text != is.Text {
			return true
		}
	}
	return false
}

// recheck ends connections whose proof holds no more.
func (d *daemon) recheck() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.shared {
		l.Recheck()
	}
}

// vm is the VM as it is now; nil: there is none.
func (d *daemon) vm(uuid string) *vm.VM {
	if c := d.store.Cell(uuid); c != nil {
		return c.VM()
	}
	return nil
}

// byCID is the VM that has the vsock_cid; nil: there is none.
func (d *daemon) byCID(cid uint32) *vm.VM {
	if c := d.store.ByCID(cid); c != nil {
		return c.VM()
	}
	return nil
}

// perm is who may connect to VMs' sockets.
func (s *sockets) perm() (listen.Perm, error) {
	p := listen.Perm{Mode: os.FileMode(s.Mode), UID: -1, GID: -1}
	if s.Group == "" {
		return p, nil
	}
	gid, err := groupID("sockets.group", s.Group)
	p.GID = gid
	return p, err
}

// groupID is the number of the group that a setting names, or has as its number; 0 for "".
func groupID(setting, group string) (int, error) {
	if group == "" {
		return 0, nil
	}
	if _, err := strconv.ParseUint(group, 10, 31); err != nil {
		g, err := user.LookupGroup(group)
		if err != nil {
			return 0, misused("%s: %w", setting, err)
		}
		group = g.Gid
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", setting, err)
	}
	return gid, nil
}

// tls is what tls listeners use; nil where it is not configured. A connection takes the
// certificates that were loaded last.
func (d *daemon) tls() (*tls.Config, error) {
	conf, err := d.cfg.TLS.load()
	if conf == nil {
		return nil, err
	}
	d.certs.Store(conf)
	first := conf.Clone()
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return d.certs.Load(), nil }
	return first, nil
}

// load reads the certificates' files; nil: none are set.
func (t *tlsFiles) load() (*tls.Config, error) {
	if t.Cert == "" {
		return nil, nil
	}
	conf, err := listen.LoadTLS(t.Cert, t.Key, t.CA)
	if err != nil {
		return nil, usageError{err}
	}
	return conf, nil
}
