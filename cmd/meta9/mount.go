//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

const mountHelp = `Mount the metadata that meta9d serves at ADDR on the folder DIR, and keep the mount
over lost connections: requests of programs wait until there is another one, and
each is executed exactly once. Only Linux has it.

The kernel's own 9P client is used, by root, where there is one (the modules 9p and
9pnet_fd). Where there is none, for other users than root, or with --fuse, it is FUSE:
that needs /dev/fuse, and fusermount3 for who is not root.

ADDR is virtio:NAME (a virtio-serial port), vsock:CID:PORT (CID may be host),
unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, or dev:PATH (a port or a terminal). Without
it, it is that of --addr, of META9_ADDR, or ` + defaultPort + `.

A process of its own keeps the mount, in the background unless --foreground says
otherwise, until somebody unmounts DIR. SIGTERM makes it unmount by itself; programs
that still have files open get EIO then.

Where meta9 is also called /sbin/mount.meta9 (a symbolic link will do), mount(8) and
fstab have it as a file system of the type meta9; the exit codes are mount(8)'s then.

Mount options:
` + mountOptionsHelp

// mounting is a mount that is asked for.
type mounting struct {
	*app
	source string // ADDR, as it was given and as /proc/mounts is to show it
	dir    string // absolute, without symbolic links
	list   string // the options, as they were given
	opt    mountOptions
	fuse   bool // by FUSE
	direct bool // --no-cache
	ready  int  // the file descriptor to tell that it is mounted; -1: none
	sloppy bool
}

// newMount is `meta9 mount`.
func newMount(a *app) *cobra.Command {
	m := &mounting{app: a}
	var options []string
	foreground := false
	cmd := &cobra.Command{
		Use:   "mount [-o OPTION,...] [--fuse] [--no-cache] [--foreground] [ADDR] DIR",
		Short: "mount a VM's metadata, in the guest",
		Example: `meta9 mount /metadata
meta9 mount -o ro,aname=keys vsock:host:564 /metadata
meta9 mount --fuse -o umask=077 virtio:meta9 ~/metadata
mount -t meta9 virtio:meta9 /metadata
virtio:meta9 /metadata meta9 nosuid,nodev,noexec,nofail 0 0   (in /etc/fstab)`,
		Long:              mountHelp,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeMount,
		RunE: func(cmd *cobra.Command, args []string) error {
			m.source = cmp.Or(a.addr, os.Getenv("META9_ADDR"), defaultPort)
			if len(args) == 2 {
				m.source = args[0]
			}
			m.list = strings.Join(options, ",")
			if err := m.prepare(cmd.Context(), args[len(args)-1]); err != nil {
				return err
			}
			if foreground || m.ready >= 0 {
				return m.serve(cmd.Context())
			}
			return m.detach(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&options, "options", "o", nil, "mount with `OPTIONS`, which commas separate")
	f.BoolVar(&m.fuse, "fuse", false, "mount by FUSE, not by the kernel's 9P client")
	f.BoolVar(&m.direct, "no-cache", false, "by FUSE, keep nothing of what the host has told: the same as -o nocache")
	f.BoolVar(&foreground, "foreground", false, "keep the mount here, until it is unmounted or a signal comes")
	f.IntVar(&m.ready, "ready-fd", -1, "write a line to `FD` when it is mounted, and be a daemon from then on")
	f.BoolVar(&m.sloppy, "sloppy", false, "leave out options that nobody knows")
	_ = f.MarkHidden("ready-fd")
	_ = f.MarkHidden("sloppy")
	return cmd
}

// prepare checks all that can be checked before somebody is asked.
func (m *mounting) prepare(ctx context.Context, dir string) (err error) {
	if m.opt, err = parseMountOptions(m.list, m.sloppy); err != nil {
		return err
	}
	m.opt.noCache = m.opt.noCache || m.direct
	m.mumble = cmp.Or(m.mumble, m.opt.mumble)
	m.cert = cmp.Or(m.cert, m.opt.cert)
	m.key = cmp.Or(m.key, m.opt.key)
	m.ca = cmp.Or(m.ca, m.opt.ca)
	if err := m.chooseKind(ctx); err != nil {
		return err
	}
	m.dir, err = mountPoint(dir)
	return err
}

// errNotRoot is why nobody else can unmount; it is os.ErrPermission.
var errNotRoot = fmt.Errorf("only root may unmount that: %w", os.ErrPermission)

// mountPoint is dir as /proc/mounts is going to show it. It touches no file below a
// mount of ours: that may be one whose server is away, and would not answer.
func mountPoint(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := unmounted(abs); err != nil {
		return "", err
	}
	abs, err = filepath.EvalSymlinks(abs)
	var path *os.PathError
	if errors.As(err, &path) {
		return "", fmt.Errorf("%s: %w", dir, path.Err)
	}
	if err != nil {
		return "", err
	}
	if i, err := os.Stat(abs); err != nil {
		return "", err
	} else if !i.IsDir() {
		return "", fmt.Errorf("%s: not a folder", dir)
	}
	return abs, unmounted(abs)
}

// unmounted says no where a mount of ours is: a second one would hide the first,
// which is then left over when the second is unmounted.
func unmounted(dir string) error {
	e, err := findMount(dir)
	if err != nil || !e.ours() {
		return err
	}
	return fmt.Errorf("%s: %s is mounted there; 'meta9 umount %s' first, also where that mount is dead", dir, e.source, dir)
}

// dialed is the address to dial again and again, for a process whose folder is /.
func dialed(addr string) string {
	kind, path, ok := strings.Cut(addr, ":")
	switch {
	case strings.HasPrefix(addr, "/"):
		return addr
	case strings.HasPrefix(addr, "."), !ok:
		kind, path = "", addr
	case kind != "unix" && kind != "dev":
		return addr
	}
	abs, err := filepath.Abs(path)
	if err != nil || path == "" {
		return addr
	}
	if kind == "" {
		return abs
	}
	return kind + ":" + abs
}

// completeMount completes to folders, which a path of ADDR and DIR are in.
func completeMount(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}
