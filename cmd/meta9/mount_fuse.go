//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// fuseDevice is where the kernel's FUSE is.
const fuseDevice = "/dev/fuse"

// chooseKind decides by what is mounted, and says what is missing for it.
func (m *mounting) chooseKind(ctx context.Context) error {
	why := ""
	switch {
	case m.fuse:
	case !mayMount():
		m.fuse, why = true, "only root may mount by the kernel's 9P client"
	case !hasV9fs(ctx):
		m.fuse, why = true, noV9fs()
	}
	if !m.fuse {
		return m.opt.v9fs()
	}
	if missing := missingFUSE(ctx); missing != nil {
		if why != "" {
			return fmt.Errorf("%s; and FUSE cannot be used instead: %w", why, missing)
		}
		return missing
	}
	if !mayMount() {
		m.opt.ownedBy(os.Getuid(), os.Getgid())
	}
	return m.opt.fuse()
}

// missingFUSE is what a mount by FUSE lacks, and how to get it.
func missingFUSE(ctx context.Context) error {
	if errNotBuilt != nil {
		return errNotBuilt
	}
	if _, err := os.Stat(fuseDevice); err != nil {
		loadModules(ctx, "fuse")
	}
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w: its mode lets only some users in, or this is a container that was not given the device", fuseDevice, os.ErrPermission)
	default:
		return fmt.Errorf("there is no %s: the kernel's module fuse is not loaded, or this is a container that was not given the device. As root: modprobe fuse%s", fuseDevice, fuseModule())
	}
	if mayMount() || fusermount() != "" {
		return nil
	}
	return fmt.Errorf("only root may mount without fusermount3, which is not here; as root: %s: %w", installFUSE(), os.ErrPermission)
}

// fusermount is the program by which others than root mount and unmount; "": there is
// none.
func fusermount() string {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// fuseWords are the general options as FUSE's mounts take them beside their flags.
func (m *mounting) fuseWords() []string {
	if mayMount() {
		return nil
	}
	return slices.Clone(m.opt.words)
}

// distributions are how the package fuse3 is had, by ID or ID_LIKE of os-release(5), where
// the module fuse is, where that is not in every kernel's package, and where a 9P client
// is. The first that fits counts.
var distributions = []struct{ id, install, module, v9fs string }{
	{"ubuntu", "apt-get install fuse3", "", "Ubuntu's cloud kernels have it in linux-modules-extra-$(uname -r), where that is"},
	{"debian", "apt-get install fuse3", "", "Debian's linux-image-amd64 (arm64, ...) has it, its cloud kernel has not"},
	{"alpine", "apk add fuse3", " (in the package linux-virt or linux-lts)", "Alpine's linux-virt and linux-lts have it"},
	{"rhel", "dnf install fuse3", " (in kernel-modules-core)", "RHEL and its kin build none"},
	{"fedora", "dnf install fuse3", " (in kernel-modules-core)", ""},
	{"suse", "zypper install fuse3", "", ""},
	{"arch", "pacman -S fuse3", "", "Arch's kernels have it: a kernel that was updated wants a restart"},
	{"nixos", "programs.fuse.enable = true in configuration.nix", "", ""},
}

// osRelease is the file that names the distribution.
var osRelease = "/etc/os-release"

func installFUSE() string {
	if i := distribution(); i >= 0 {
		return distributions[i].install
	}
	return "install the package fuse3"
}

func fuseModule() string {
	if i := distribution(); i >= 0 {
		return distributions[i].module
	}
	return ""
}

// noV9fs is that the kernel has no 9P client, and who has one.
func noV9fs() string {
	text := "this kernel has no 9P client (the modules 9p and 9pnet_fd)"
	if i := distribution(); i >= 0 && distributions[i].v9fs != "" {
		text += ": " + distributions[i].v9fs
	}
	return text
}

// distribution is the index of the one that this is; -1: another.
func distribution() int {
	b, _ := os.ReadFile(osRelease)
	var ids []string
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		if name == "ID" || name == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	for i := range distributions {
		if slices.Contains(ids, distributions[i].id) {
			return i
		}
	}
	return -1
}
