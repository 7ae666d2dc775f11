//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// detach runs the keeper as a daemon, and waits until it has mounted or said why
// not.
func (m *mounting) detach(ctx context.Context) error {
	told, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer told.Close()
	// What a shell has open beside (a lock, somebody's pipe) is not the daemon's.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	cmd, err := m.daemon()
	if err != nil {
		tell.Close()
		return err
	}
	cmd.ExtraFiles = []*os.File{tell}
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if _, err := io.ReadFull(told, make([]byte, 1)); err == nil {
		return cmd.Process.Release()
	}
	return ended(ctx, cmd.Wait())
}

// daemon is this program, about to be the keeper: file descriptor 3 is where it
// tells that it has mounted. Until then it has our streams for what goes wrong.
func (m *mounting) daemon() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"mount", "--ready-fd=3", "--timeout=" + m.timeout.String()}
	for _, f := range []struct{ name, value string }{
		{"options", m.list}, {"mumble", m.mumble}, {"cert", m.cert}, {"key", m.key}, {"ca", m.ca},
	} {
		if f.value != "" {
			args = append(args, "--"+f.name+"="+f.value)
		}
	}
	if m.fuse {
		args = append(args, "--fuse")
	}
	if m.direct {
		args = append(args, "--no-cache")
	}
	if m.sloppy {
		args = append(args, "--sloppy")
	}
	cmd := exec.Command(self, append(args, "--", m.source, m.dir)...)
	cmd.Args[0] = "meta9"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// ended is what became of a daemon that did not mount.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return saidError{exit.ExitCode()}
	}
	return fmt.Errorf("the keeper has ended: %w", err)
}
