package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	libvirt "meta9/mdbridge/libvirt/server"
)

// libvirtOff is the setting for no libvirt.
const libvirtOff = "off"

// checkLibvirt says what cannot be meant.
func checkLibvirt(c *config) error {
	switch {
	case c.Libvirt == libvirtOff:
		return nil
	case c.VminfodFrom != "":
		return errors.New("libvirt: a mirror (vminfod_from) has the states of what it mirrors")
	case c.Libvirt != "" && !filepath.IsAbs(c.Libvirt):
		return fmt.Errorf(`libvirt %q: it is the absolute path of libvirt's read-only socket, "" for the usual one, or %s`, c.Libvirt, libvirtOff)
	}
	return nil
}

// newLibvirt makes what follows the libvirtd, if one is to be followed. A QEMU that has
// a QMP socket of our own says more, and at once: its VM's state is QMP's.
func (d *daemon) newLibvirt() {
	if d.cfg.Libvirt == libvirtOff {
		return
	}
	cfg := libvirt.Config{Store: d.store, Socket: d.cfg.Libvirt, Log: d.log}
	if d.hosts != nil {
		cfg.Owned = d.hosts.Owns
	}
	if d.member != nil {
		cfg.Elsewhere = d.seen
	}
	d.libvirt = libvirt.New(cfg)
	d.atEnd(d.libvirt.Close)
}

// libvirtStatus is what /ctl says of it.
func (d *daemon) libvirtStatus() string {
	if d.libvirt == nil {
		return ""
	}
	is := d.libvirt.State()
	how := "connected"
	switch {
	case is.Connected:
	case is.Error == "":
		how = "not connected yet"
	default:
		how = "not connected: " + is.Error
	}
	return fmt.Sprintf("libvirt %s\nlibvirt_since %s\nlibvirt_domains %d\nlibvirt_vms %d\n", how, is.Since.UTC().Format(time.RFC3339), is.Domains, is.VMs)
}

// libvirtMetrics are its figures for Prometheus.
func (d *daemon) libvirtMetrics(gauge, counter func(name, help string, is func() float64)) {
	if d.cfg.Libvirt == libvirtOff { // d.libvirt is made after this
		return
	}
	gauge("libvirt_connected", "1 while libvirt is followed.", func() float64 { return float64(one(d.libvirt.State().Connected)) })
	gauge("libvirt_domains", "Domains that libvirt had when it was last asked.", func() float64 { return float64(d.libvirt.State().Domains) })
	gauge("libvirt_vms", "Those of them that are VMs.", func() float64 { return float64(d.libvirt.State().VMs) })
	counter("libvirt_connects_total", "Connections to libvirt.", func() float64 { return float64(d.libvirt.State().Connects) })
}
