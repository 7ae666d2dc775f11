package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"meta9/mdbridge/vminfo"
	"meta9/mdbridge/vminfo/server/mirror"
)

// newMirror makes the mirror, if one is configured; claimFolder has found that it may replace
// the folder's VMs.
func (d *daemon) newMirror() (err error) {
	if d.cfg.VminfodFrom != "" {
		d.mirror, err = mirror.New(d.cfg.VminfodFrom, d.store, d.log) // checkMirror has tried the address
	}
	return err
}

// readOnly is the reason why only the mirror may change VMs; "": there is no mirror.
func (d *daemon) readOnly() string {
	if d.cfg.VminfodFrom == "" {
		return ""
	}
	return "this meta9d mirrors " + d.cfg.VminfodFrom + "; change it there"
}

// mirrorMark is the file that says that a data folder is a mirror's.
const mirrorMark = "mirror"

// claimFolder refuses to mirror into a folder that has VMs of its own, which the
// first list would delete. Without a mirror the VMs become the folder's own.
func (d *daemon) claimFolder() error {
	if d.cfg.Data == "" {
		return nil
	}
	mark := filepath.Join(d.cfg.Data, mirrorMark)
	if d.cfg.VminfodFrom == "" {
		if err := os.Remove(mark); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := os.Stat(mark); err != nil && d.store.Count() > 0 {
		return misused("vminfod_from: the data folder %s has %d VMs of its own; a mirror needs a folder of its own", d.cfg.Data, d.store.Count())
	}
	return os.WriteFile(mark, []byte(d.cfg.VminfodFrom+"\n"), 0o600)
}

// runMirror follows the upstream until the end.
func (d *daemon) runMirror() {
	if d.mirror == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.mirror.Run(ctx)
	}()
	d.atEnd(func() {
		cancel()
		<-done
	})
}

// mirrorStatus is what /ctl says of it.
func (d *daemon) mirrorStatus() string {
	if d.mirror == nil {
		return ""
	}
	st := d.mirror.State()
	how := "current"
	if st.Stale {
		how = "stale"
	}
	return fmt.Sprintf("upstream %s %s\n", st.From, how)
}

// mirrorMetrics are its figures for Prometheus.
func (d *daemon) mirrorMetrics(gauge func(name, help string, is func() float64)) {
	if d.mirror != nil {
		gauge("mirror_stale", "1 while what the mirror shows may be old.", func() float64 { return float64(one(d.mirror.State().Stale)) })
	}
}

func checkMirror(c *config) error {
	if c.VminfodFrom == "" {
		return nil
	}
	if _, err := vminfo.New(c.VminfodFrom, ""); err != nil {
		return fmt.Errorf("vminfod_from: %w", err)
	}
	return nil
}
