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

// expectation is a VM of another host's that has its sockets here: its guest is on the way,
// or was here and may come back.
type expectation struct {
	vm    *vm.VM // as it was then
	until time.Time
}

// The bounds of what is expected.
const (
	expectFor   = time.Hour
	leftFor     = 10 * time.Minute // of a VM that was here
	maxExpected = 4096
	maxWaiting  = 64 // connections for one VM
)

// Expect has the VM's sockets made here, for an hour or until it comes: the first byte of its
// guest claims it. Errors: NotFound: no host has it; Quota: too many are expected; those of the
// cluster.
func (f *Fleet) Expect(ctx context.Context, uuid string) error {
	if f.cfg.Store.Cell(uuid) != nil {
		return nil
	}
	v, err := store.Peek(ctx, f.cluster, uuid)
	if err != nil {
		return err
	}
	f.mu.Lock()
	if f.expected[uuid] == nil && len(f.expected) >= maxExpected {
		f.mu.Unlock()
		return errs.New(errs.Quota, "%d VMs are expected here already", maxExpected)
	}
	f.expect(uuid, v, expectFor)
	f.mu.Unlock()
	f.cfg.Changed(uuid)
	return nil
}

// expect enters a VM that is expected, if there is room. Fleet.mu is held.
func (f *Fleet) expect(uuid string, v *vm.VM, long time.Duration) {
	if f.expected[uuid] != nil || len(f.expected) < maxExpected {
		f.expected[uuid] = &expectation{v, time.Now().Add(long)}
	}
}

// Unexpect takes that back.
func (f *Fleet) Unexpect(uuid string) {
	f.mu.Lock()
	delete(f.expected, uuid)
	f.mu.Unlock()
	f.cfg.Changed(uuid)
}

// Expected is the VM as it was when it was expected, or left; nil: it is not expected.
func (f *Fleet) Expected(uuid string) *vm.VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.expected[uuid]; e != nil {
		return e.vm
	}
	return nil
}

// sweep forgets VMs that were expected for too long.
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

// Arrive is for each new connection on a channel of the VM's own, before it is served. Where
// the VM is at home it returns at once. Where it is expected, it waits for the first
// byte of the guest, which is left unread, has the VM claimed, and waits for that. After an
// error the connection is to be closed. Of a stream that carries links each link is such a
// connection.
func (f *Fleet) Arrive(nc net.Conn, uuid string) error {
	f.mu.Lock()
	c, going := f.claims[uuid], f.giving[uuid]
	here := f.cfg.Store.Cell(uuid) != nil
	expected := f.expected[uuid] != nil
	if here && c == nil && going == nil {
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

// awaitByte waits until something can be read. A link in packets (session/packet) begins
// when its guest has asked for it.
func (f *Fleet) awaitByte(nc net.Conn) error {
	if _, link := nc.(interface{ Past() bool }); link {
		return nil
	}
	sc, is := nc.(syscall.Conn)
	if !is {
		return errs.New(errs.Unsupported, "on such a channel it cannot be seen that the guest speaks")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if err := nc.SetReadDeadline(time.Now().Add(expectFor)); err != nil {
		return err
	}
	stop := context.AfterFunc(f.ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
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
	if err == nil {
		err = nc.SetReadDeadline(time.Time{})
	}
	return err
}
