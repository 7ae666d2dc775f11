//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"meta9/session/client"
	"meta9/session/keep"
)

const (
	// leaveTime is how long the kernel may take to end a mount that is unmounted.
	leaveTime = 5 * time.Second

	// keeperMemory is the memory limit of Go in a keeper, in bytes: Go collects garbage to stay
	// below it, and may use more. fuseMemory is that with FUSE, where the keeper also keeps
	// what the host has told. 7 MiB of either are not heap. The rest must be well above what is in use, or Go collects
	// garbage at each request: 10 MiB cost a mount by FUSE 20 times the CPU. A request that
	// waits may be as long as msize.
	keeperMemory, fuseMemory = 10 << 20, 15 << 20
)

// serve mounts, and carries the mount until somebody unmounts it or ctx ends.
func (m *mounting) serve(ctx context.Context) error {
	if m.ready < 0 { // a daemon has no terminal that could go
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	} else {
		signal.Ignore(syscall.SIGHUP)
	}
	memory := int64(keeperMemory)
	if m.fuse {
		memory = fuseMemory
	}
	debug.SetMemoryLimit(memory)
	links := new(transports)
	k, err := m.dial(ctx, links)
	if err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil { // or the folder that it came from could not be unmounted
		return err
	}
	end, err := m.mount(ctx, k)
	if err != nil {
		return err
	}
	end.links = links
	go end.watch()
	m.beDaemon()
	select {
	case err = <-end.served:
	case <-ctx.Done():
		err = m.leave(end)
	}
	return err
}

// dial makes the first connection, so that what is wrong with it is said before
// anything is mounted.
func (m *mounting) dial(ctx context.Context, links *transports) (*keep.Keeper, error) {
	opt := keep.Options{Version: m.opt.dialect(), Msize: m.opt.msize, Log: m.keeperLog()}
	if m.fuse {
		opt.Msize = m.opt.msize + minMsize // so that what the kernel gives at once is one message
	}
	var err error
	if opt.Mumble, err = m.message(); err != nil {
		return nil, err
	}
	var conf *tls.Config
	if strings.HasPrefix(m.source, "tls:") {
		if conf, err = m.tlsConfig(); err != nil {
			return nil, err
		}
	}
	dial, err := client.Dialer(dialed(m.source), conf)
	if err != nil {
		return nil, misused("%w", err)
	}
	opt.Dial = links.counted(dial)
	m.progress.say("connecting to " + m.source)
	ctx, cancel := m.withTimeout(ctx)
	defer cancel()
	k, err := keep.Dial(ctx, opt)
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, context.Canceled):
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s: %w", client.ErrUnavailable, m.source, err)
}

// mounted is a mount that a keeper carries.
type mounted struct {
	id     string             // in the table of mounts
	links  *transports        // to the server
	stop   context.CancelFunc // ends the session, and with it all that the kernel asks
	served chan error
}

// mount mounts, in the time of --timeout; k carries what the kernel asks meanwhile.
func (m *mounting) mount(ctx context.Context, k *keep.Keeper) (*mounted, error) {
	run, stop := context.WithCancel(context.Background())
	end := &mounted{stop: stop, served: make(chan error, 1)}
	limited, cancel := m.withTimeout(ctx)
	defer cancel()
	defer context.AfterFunc(limited, stop)()
	m.progress.say("waiting for the server")
	by := m.mountV9fs
	if m.fuse {
		by = m.mountFUSE
	}
	err := by(run, k, end.served)
	if err == nil {
		var e mountEntry
		e, err = findMount(m.dir)
		end.id = e.id
	}
	if err != nil {
		stop()
		if served := <-end.served; err == nil {
			err = served // never: it is here for its end
		}
		if limited.Err() != nil {
			return nil, context.Cause(limited)
		}
		return nil, m.explain(err)
	}
	return end, nil
}

// mountV9fs mounts by the kernel's 9P client. served hears of the end of the mount, or of
// what did not become one.
func (m *mounting) mountV9fs(run context.Context, k *keep.Keeper, served chan<- error) error {
	near, far, err := socketPair()
	if err != nil {
		served <- k.Close()
		return err
	}
	defer far.Close() // the kernel has its own then
	go func() { served <- k.Serve(run, near) }()
	return unix.Mount(m.source, m.dir, "9p", m.opt.flags, m.opt.kernelData(int(far.Fd())))
}

// socketPair is the way between keeper and kernel; the kernel's end is far.
func socketPair() (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), "keeper")
	defer f.Close()
	far = os.NewFile(uintptr(fds[1]), "kernel")
	if near, err = net.FileConn(f); err != nil {
		far.Close()
	}
	return near, far, err
}

// beDaemon tells whoever waits that it is mounted, and leaves its streams alone
// from then on.
func (m *mounting) beDaemon() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) // not to be had without root of the host
	m.progress.hide()
	if m.ready < 0 {
		return
	}
	if null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup3(null, fd, 0)
		}
		unix.Close(null)
	}
	_, _ = unix.Write(m.ready, []byte("\n"))
	unix.Close(m.ready)
}

// leave unmounts, since a signal said so. Where programs have files open the mount
// goes all the same, as it would if the keeper were killed, but leaves DIR free.
func (m *mounting) leave(end *mounted) error {
	if e, err := findMount(m.dir); err == nil && e.id == end.id {
		go func() { // it waits until the keeper has carried the last of it
			if err := detachMount(m.dir, false); errors.Is(err, unix.EBUSY) {
				_ = detachMount(m.dir, true)
				end.stop()
			}
		}()
	}
	t := time.NewTimer(leaveTime)
	defer t.Stop()
	select {
	case err := <-end.served:
		return err
	case <-t.C:
		end.stop()
		return <-end.served
	}
}

// keeperLog is where the keeper says what it lost and found again.
func (m *mounting) keeperLog() zerolog.Logger {
	if m.ready >= 0 {
		return lineLog(&systemLog{fmt.Sprintf("meta9[%d]: %s: ", os.Getpid(), m.dir), syslogSocket, kernelLog})
	}
	return lineLog(m.err)
}
