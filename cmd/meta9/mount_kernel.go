package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelData is what v9fs is told: the options, and where its transport is.
func (o *mountOptions) kernelData(fd int) string {
	return fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%d,version=%s,msize=%d,%s",
		fd, fd, o.version, o.msize, strings.Join(o.data, ","))
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

// explain says in words what an error of mount(2) means here.
func (m *mounting) explain(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return errors.New("this kernel has no 9p: it needs the modules 9p and 9pnet_fd, which Debian's linux-image-amd64 has and its cloud kernel has not")
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("mounting: the kernel says no (CAP_SYS_ADMIN is needed): %w", errNotRoot)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("mounting: the kernel does not take the options, or has no module 9pnet_fd; its log says which: version=%s,%s", m.opt.version, strings.Join(m.opt.data, ","))
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("mounting: %w: what aname= names is not there", err)
	}
	return fmt.Errorf("mounting %s on %s: %w", m.source, m.dir, err)
}
