package main

import (
	"context"
	"errors"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/packet"
)

// runsHere tells that a QEMU of this host runs the VM, by QMP.
func (d *daemon) runsHere(uuid string) bool { return d.hosts != nil && d.hosts.Runs(uuid) }

// seen is called when a hypervisor of this host has a VM that this meta9d does not have.
// state is in QEMU's words (RunState of qapi/run-state.json). A VM that runs is claimed; one
// that waits for its migration to this host gets its sockets. elsewhere: some host of the
// fleet has the VM, so no new one must be created.
func (d *daemon) seen(ctx context.Context, uuid, state string) (elsewhere bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if state == "inmigrate" {
		err = d.fleet.Expect(ctx, uuid)
	} else {
		_, err = d.fleet.Where(ctx, uuid)
	}
	if errors.Is(err, errs.NotFound) {
		return false, nil
	}
	if err == nil && state == "running" {
		d.fleet.Appears(uuid, "its hypervisor says that it runs here")
	}
	return err == nil, err
}

// quietVMTime is how long a VM's requests by other protocols than 9P may delay its move to
// another host.
const quietVMTime = 2 * time.Second

// quietVM ends a VM's connections of other protocols than 9P before the VM moves. Whole
// requests by the metadata protocol are answered first, so that none fails. The guest
// connects again, and is served after again was called, or on the other host.
func (d *daemon) quietVM(uuid string) (again func()) {
	ctx, cancel := context.WithTimeout(context.Background(), quietVMTime)
	defer cancel()
	again = d.mdata.Quiet(ctx, uuid)
	d.nocloud.DropVM(uuid)
	return again
}

// dropVM ends all connections of a VM.
func (d *daemon) dropVM(uuid string) {
	d.server.DropVM(uuid)
	d.mdata.DropVM(uuid)
	d.nocloud.DropVM(uuid)
}

// vmHere is the VM as it is now. Where another host has it and this one expects it
// (fleet.Fleet.Expect), it is the VM as it was when that began. nil: neither.
func (d *daemon) vmHere(uuid string) *vm.VM {
	if v := d.vm(uuid); v != nil || d.fleet == nil {
		return v
	}
	return d.fleet.Expected(uuid)
}

// arrives waits until the VM whose guest has come by c is here; false: c is not to be
// served. It is closed then, or a live update hands it over.
func (d *daemon) arrives(c net.Conn, w waitingConn) bool {
	if d.fleet == nil || w.VM == "" {
		return true
	}
	u := d.upgrades
	u.mu.Lock()
	if u.arriving == nil {
		u.arriving = make(map[net.Conn]waitingConn)
	}
	u.arriving[c] = w
	u.mu.Unlock()
	err := d.fleet.Arrive(c, w.VM)
	_, link := c.(*packet.Link)
	if err != nil && d.leaves() && !link {
		return false
	}
	u.mu.Lock()
	delete(u.arriving, c)
	u.mu.Unlock()
	if err != nil {
		d.log.Debug().Str("vm", w.VM).Err(err).Msg("a guest's connection is closed: its VM is not here")
		_ = c.Close()
		return false
	}
	return true
}
