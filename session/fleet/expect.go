package fleet

import (
	"context"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// expectation is another host's VM for which this host has sockets: its guest is about to
// come, or was here and may come back.
type expectation struct {
	vm    *vm.VM // as it was when the expectation began
	until time.Time
}

// The bounds of expectations.
const (
	expectFor   = time.Hour
	leftFor     = 10 * time.Minute // for a VM that was here
	maxExpected = 4096
	maxWaiting  = 64 // connections for one VM
)

// Expect makes the VM's sockets on this host, for an hour or until the VM comes: the first
// byte from its guest starts a claim. Errors: NotFound: no host has it; Quota: too many
// VMs are expected; Busy: this host is being drained, or is fenced; and the cluster's.
func (f *Fleet) Expect(ctx context.Context, uuid string) error {
	if f.cfg.Store.Cell(uuid) != nil {
		return nil
	}
	v, err := store.Peek(ctx, f.cluster, uuid)
	if err != nil {
		return err
	}
	if err := f.expectNew(uuid, v); err != nil {
		return err
	}
	f.cfg.Changed(uuid)
	return nil
}

func (f *Fleet) expectNew(uuid string, v *vm.VM) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	none := f.takesNone()
	switch {
	case none != nil:
		return none
	case f.expected[uuid] == nil && len(f.expected) >= maxExpected:
		return errs.New(errs.Quota, "%d VMs are expected here already", maxExpected)
	}
	f.expect(uuid, v, expectFor)
	return nil
}

// expect adds an expectation, if there is room. Fleet.mu is held.
func (f *Fleet) expect(uuid string, v *vm.VM, long time.Duration) {
	if f.expected[uuid] != nil || len(f.expected) < maxExpected {
		f.expected[uuid] = &expectation{v, time.Now().Add(long)}
	}
}

// Unexpect ends the expectation.
func (f *Fleet) Unexpect(uuid string) {
	f.mu.Lock()
	delete(f.expected, uuid)
	f.mu.Unlock()
	f.cfg.Changed(uuid)
}

// Expected returns the VM as it was when it was expected or when it left. nil: it is not
// expected.
func (f *Fleet) Expected(uuid string) *vm.VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.expected[uuid]; e != nil {
		return e.vm
	}
	return nil
}

// sweep ends expectations that are too old.
func (f *Fleet) sweep(now time.Time) {
	var gone []string
	f.mu.Lock()
	for uuid, e := range f.expected {
		if now.After(e.until) {
			gone = append(gone, uuid)
			delete(f.expected, uuid)
		}
	}
	f.mu.Unlock()
	for _, uuid := range gone {
		f.cfg.Changed(uuid)
	}
}

// Arrive must be called for each new connection on a channel of the VM's own, before the
// connection is served. If the VM is here, it returns at once. If the VM is expected, it
// waits for the first byte from the guest (which stays unread), starts a claim, and waits
// for its end. After an error the caller must close the connection. Where a stream carries
// links, each link is such a connection.
func (f *Fleet) Arrive(nc net.Conn, uuid string) error {
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return errs.New(errs.Busy, "meta9d is ending")
	}
	f.working.Add(1)
	defer f.working.Done()
	c, giving := f.claims[uuid], f.giving[uuid]
	here := f.cfg.Store.Cell(uuid) != nil
	expected := f.expected[uuid] != nil
	if here && c == nil && giving == nil {
		f.mu.Unlock()
		return nil
	}
	switch {
	case f.waiting[uuid] >= maxWaiting:
		f.mu.Unlock()
		return errs.New(errs.Quota, "%d connections wait for VM %s already", maxWaiting, uuid)
	case !here && !expected && c == nil:
		f.mu.Unlock()
		return errs.New(errs.NotFound, "VM %s is not here", uuid)
	}
	f.waiting[uuid]++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.waiting[uuid]--; f.waiting[uuid] == 0 {
			delete(f.waiting, uuid)
		}
	}()
	if err := f.awaitByte(nc); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Patience)
	defer cancel()
	return f.Claim(ctx, uuid)
}

// awaitByte waits until the connection has a byte to read; of a link in packets
// (session/packet) until its guest has asked for it.
func (f *Fleet) awaitByte(nc net.Conn) error {
	await := func() error {
		return errs.New(errs.Unsupported, "on such a channel it cannot be seen that the guest speaks")
	}
	switch c := nc.(type) {
	case interface{ Await() error }:
		await = c.Await
	case syscall.Conn:
		await = func() error { return readable(c) }
	}
	if err := nc.SetReadDeadline(time.Now().Add(expectFor)); err != nil {
		return err
	}
	stop := context.AfterFunc(f.ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := await(); err != nil {
		return err
	}
	return nc.SetReadDeadline(time.Time{})
}

// readable waits until a byte is there, and leaves it.
func readable(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var seen error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		for err == unix.EINTR {
			n, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			seen = err
		case n == 0:
			seen = io.EOF
		}
		return true
	})
	if err == nil {
		err = seen
	}
	return err
}
