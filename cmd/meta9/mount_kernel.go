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

// hasV9fs tells whether the kernel has a 9P client, after loading what the kernel would
// not load by itself in a guest that has no udev, or a modprobe elsewhere than the kernel
// thinks.
func hasV9fs(ctx context.Context) bool {
	has := func() bool {
		known, _ := os.ReadFile("/proc/filesystems")
		return strings.Contains(string(known), "\t9p\n")
	}
	if _, err := os.Stat("/sys/module/9pnet_fd"); err != nil || !has() {
		loadModules(ctx, "9p", "9pnet_fd")
	}
	return has()
}

// loadModules loads modules; where they are built in, or cannot be loaded, mounting says
// so.
func loadModules(ctx context.Context, names ...string) {
	modprobe, err := exec.LookPath("modprobe")
	if err != nil {
		modprobe = "/sbin/modprobe"
	}
	_ = exec.CommandContext(ctx, modprobe, append([]string{"-a"}, names...)...).Run()
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
		return errors.New(noV9fs() + "; --fuse does without")
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
