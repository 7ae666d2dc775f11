package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"meta9/cmd/version"
	tree "meta9/fs"
	"meta9/fs/vm"
	"meta9/mdbridge/qmp/hosts"
	qmp "meta9/mdbridge/qmp/server"
	"meta9/session/listen"
)

// qmpSettings are about QEMUs, and about the daemon's own QMP sockets.
type qmpSettings struct {
	Sockets []string          `toml:"sockets"` // unix:PATH: of QEMUs
	Dirs    []string          `toml:"dirs"`    // patterns of the paths of more of them
	Bind    map[string]string `toml:"bind"`    // UUIDs of the QEMUs, by the paths of their sockets
	VMs     int               `toml:"vms"`     // that have or had a QEMU, before no QEMU makes another
	Listen  []string          `toml:"listen"`  // unix:PATH: our own
	Reply   size              `toml:"reply"`   // bytes of one message of a QEMU
}

// defaultQMP is what is so if nothing is set.
func defaultQMP() qmpSettings {
	return qmpSettings{Sockets: []string{}, Dirs: []string{}, Listen: []string{}, Reply: 64 << 20, VMs: 4096}
}

// checkQMP says what cannot be meant.
func checkQMP(c *config) error {
	q := &c.QMP
	for _, addr := range q.Sockets {
		if kind, path, _ := strings.Cut(addr, ":"); kind != "unix" || path == "" {
			return fmt.Errorf("qmp.sockets %q: it is unix:PATH", addr)
		}
	}
	for _, text := range q.Listen {
		if _, err := adminOnly(text); err != nil {
			return fmt.Errorf("qmp.listen: %w", err)
		}
	}
	for _, pattern := range q.Dirs {
		if _, err := filepath.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("qmp.dirs %q: no pattern of paths such as /run/vm/*/qmp.sock", pattern)
		}
	}
	for path, uuid := range q.Bind {
		if _, err := vm.ParseUUID(uuid); err != nil {
			return fmt.Errorf("qmp.bind %q: %w", path, err)
		}
	}
	if q.VMs < 0 {
		return errors.New("qmp.vms: it is at least 0")
	}
	if q.Reply < 4<<10 || q.Reply > 1<<30 {
		return errors.New("qmp.reply: it is from 4KiB to 1GiB")
	}
	return nil
}

// followsQEMUs tells whether there are monitors of QEMUs to look for.
func (q *qmpSettings) followsQEMUs() bool { return len(q.Sockets)+len(q.Dirs) > 0 }

// newQMP adds to the tree what follows QEMUs, if there is to be any, and makes the
// server of the daemon's own QMP.
func (d *daemon) newQMP(t *tree.Tree) {
	d.qmp = qmp.New(qmp.Config{
		Tree: t, Budget: d.budget, Version: version.String(), Quit: d.quit, Log: d.log,
		Sessions: func() []json.RawMessage { return d.server.Sessions() },
		Trace:    func(on bool) { d.server.SetTrace(d.trace(on)) },
		Fresh:    d.fresh(),
	})
	q := &d.cfg.QMP
	if !q.followsQEMUs() {
		return
	}
	cfg := hosts.Config{Tree: t, Globs: q.Dirs, Bind: q.Bind, Limit: int(q.Reply), VMs: q.VMs, Log: d.log}
	if d.member != nil {
		cfg.Elsewhere = d.seen
	}
	for _, addr := range q.Sockets {
		cfg.Sockets = append(cfg.Sockets, strings.TrimPrefix(addr, "unix:"))
	}
	d.hosts = hosts.New(cfg)
	d.atEnd(d.hosts.Close)
}

// qmpMetrics are its figures for Prometheus.
func (d *daemon) qmpMetrics(gauge func(name, help string, is func() float64)) {
	if !d.cfg.QMP.followsQEMUs() { // d.hosts is made after this
		return
	}
	gauge("qemus", "QEMUs that are connected by QMP.", func() float64 { return float64(d.hosts.Stats().Connected) })
	gauge("qemus_unresponsive", "QEMUs that do not answer.", func() float64 { return float64(d.hosts.Stats().Unresponsive) })
}

// startQMP opens the daemon's own QMP sockets. It comes last, so that its clients are told
// first that the daemon ends.
func (d *daemon) startQMP() error {
	d.atEnd(d.qmp.Shutdown)
	cfg := listen.Config{
		Handle: func(c net.Conn, _ tree.Principal, _, _ string, ended func()) {
			defer ended()
			if !d.waitOpen() {
				c.Close()
				return
			}
			d.qmp.Serve(c)
		},
		Admins: d.admins, Log: d.log,
	}
	for _, text := range d.cfg.QMP.Listen {
		if err := d.open(cfg, text); err != nil {
			return usageError{fmt.Errorf("qmp.%w", err)}
		}
	}
	return nil
}
