//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelData is what v9fs is told: the options, and where its transport is.
func (o *mountOptions) kernelData(fd int) string {
	return fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%d,version=%s,msize=%d,%s",
		fd, fd, o.version, o.msize, strings.Join(slices.Concat(o.data, o.look()), ","))
}

// loadModules loads what the kernel would not load by itself in a guest that has
// no udev, or a modprobe elsewhere than the kernel thinks. Where it is built in, or
// cannot be loaded, mounting says so.
func (m *mounting) loadModules(ctx context.Context) {
	known, _ := os.ReadFile("/proc/filesystems")
	_, err := os.Stat("/sys/module/9pnet_fd")
	if strings.Contains(string(known), "\t9p\n") && err == nil {
		return
	}
	modprobe, err := exec.LookPath("modprobe")
	if err != nil {
		modprobe = "/sbin/modprobe"
	}
	_ = exec.CommandContext(ctx, modprobe, "-a", "9p", "9pnet_fd").Run()
}

// mayMount tells whether the kernel is going to let us, as far as can be known.
func mayMount() bool {
	var caps [2]unix.CapUserData // 64 bits, since version 3
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])
	return err != nil || caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// explain says in words what an error of mount(2) means here. What the server says
// to Tattach comes as one, too.
func (m *mounting) explain(err error) error {
	text := "mounting " + m.source + " on " + m.dir
	switch {
	case errors.Is(err, unix.ENODEV):
		return errors.New("this kernel has no 9p: it needs the modules 9p and 9pnet_fd, which Debian's linux-image-amd64 has and its cloud kernel has not")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: a container that may not mount?", text, err)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%s: meta9d wants to know who is there: give it a message of 'meta9 mumble', with -o mumble=FILE", text)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w: the kernel does not take version=%s,%s, or it has no module 9pnet_fd; dmesg may say more", text, err, m.opt.version, strings.Join(m.opt.data, ","))
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w: what aname= names is not there", text, err)
	}
	return fmt.Errorf("%s: %w", text, err)
}
