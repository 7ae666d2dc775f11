//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/session/client"
)

// hasTree tells whether a mount may show meta9d's tree: by a keeper, or by v9fs alone. A root
// file system by 9P, as some VMs have, does not: each path would lead there, also that of a
// connection.
func (e *mountEntry) hasTree() bool { return e.ours() || e.fstype == "9p" && e.dir != "/" }

// mountsOfOurs are the folders of mounts that may show meta9d's tree.
func mountsOfOurs() (dirs []string) {
	list, _ := mountTable()
	for _, e := range list {
		if e.hasTree() {
			dirs = append(dirs, e.dir)
		}
	}
	return dirs
}

// mountedPlace finds the mount that a path of the file system leads into; place.mount is "" if
// none may show meta9d's tree. The path need not exist.
func mountedPlace(ctx context.Context, name string) (place, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return place{}, err
	}
	list, err := mountTable()
	if err != nil {
		return place{}, err
	}
	if at := placeIn(list, abs); at.mount != "" {
		return at, nil
	}
	plain, err := within(ctx, func() (string, error) { return plainPath(abs), nil })
	return placeIn(list, plain), err
}

// placeIn is mountedPlace for a path without symbolic links. It asks no file system anything:
// that of a mount may be away.
func placeIn(list []mountEntry, abs string) place {
	var on mountEntry
	for _, e := range list {
		if below(e.dir, abs) && len(e.dir) >= len(on.dir) { // of two in the same place the last is on top
			on = e
		}
	}
	if !on.hasTree() {
		return place{}
	}
	return place{on.dir, strings.TrimPrefix(abs, on.dir)}
}

// below tells whether a path is a folder, or in it.
func below(dir, path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// plainPath is an absolute path without symbolic links. The part of it that does not exist
// stays as it is.
func plainPath(abs string) string {
	rest := ""
	for dir := abs; dir != "/"; dir = filepath.Dir(dir) {
		if plain, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(plain, rest)
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
	return abs
}

// openMount is the source that the mount on dir is. What it waits for, its keeper waits for.
func openMount(dir string) source { return mountSource(dir) }

// mountSource is the folder of a mount.
type mountSource string

func (m mountSource) Close() error { return nil }

// open opens an events file. By FUSE that also drops what the keeper has kept, so that what is
// read from then on is no older than the first event that may come.
func (m mountSource) open(ctx context.Context, file string) (stream, error) {
	name := filepath.Join(string(m), file)
	fd, err := within(ctx, func() (int, error) { return openStream(ctx, name) })
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%s: %w: the mount shows no events; mount all of the VM (without aname=), from meta9d", name, errs.NotFound)
	case err != nil:
		return nil, mountError(name, err)
	}
	return &mountStream{name: name, fd: fd, buf: make([]byte, 64<<10)}, nil
}

// openStream opens an events file, whose length is always 0; a key may have that name, too. It
// is not opened by package os, whose Close waits for a read that waits.
func openStream(ctx context.Context, name string) (fd int, err error) {
	fd, err = again(ctx, func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Size != 0 {
		err = unix.ENOENT
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// read reads a file whole. One that is replaced meanwhile is read again.
func (m mountSource) read(ctx context.Context, file string) ([]byte, error) {
	name := filepath.Join(string(m), file)
	const tries = 3
	for try := 1; ; try++ {
		data, err := within(ctx, func() ([]byte, error) { return os.ReadFile(name) })
		if err = mountError(name, err); !errors.Is(err, errs.Stale) || try == tries {
			return data, err
		}
	}
}

// settle drops what the keeper has kept, by opening the events: another program's read that was
// under way at the same time as ours may have had an older answer, which is kept until its
// event comes.
func (m mountSource) settle(ctx context.Context, events string) error {
	s, err := m.open(ctx, events)
	if err != nil {
		return err
	}
	return s.Close()
}

// mountStream is an open events file of a mount. One goroutine uses it.
type mountStream struct {
	name string
	fd   int
	buf  []byte // whoever reads has it, also after his ReadAt has ended
}

func (s *mountStream) Close() error { return unix.Close(s.fd) }

// ReadAt is one read(2), which is left alone when ctx ends.
func (s *mountStream) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := within(ctx, func() (int, error) {
		return again(ctx, func() (int, error) { return unix.Pread(s.fd, s.buf[:min(len(s.buf), len(p))], off) })
	})
	switch {
	case err != nil:
		return 0, mountError(s.name, err)
	case n == 0 && off == 0:
		return 0, fmt.Errorf("%s: no events come by this mount: by cache=loose and fscache they do not", s.name)
	case n == 0:
		return 0, io.EOF
	}
	return copy(p, s.buf[:n]), nil
}

// again does what a signal has interrupted again, as Go's own signals do.
func again(ctx context.Context, do func() (int, error)) (n int, err error) {
	for {
		if n, err = do(); err != unix.EINTR || ctx.Err() != nil {
			return n, err
		}
	}
}

// mountError is what an error of the kernel's says of a file of a mount.
func mountError(name string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.ENOENT:
		return fmt.Errorf("%s: %w", name, errs.NotFound)
	case unix.ENOTDIR:
		return fmt.Errorf("%s: %w", name, errs.NotDir)
	case unix.EISDIR:
		return fmt.Errorf("%s: %w", name, errs.IsDir)
	case unix.ESTALE:
		return fmt.Errorf("%s: %w: the mount's session with meta9d was lost", name, errs.Stale)
	case unix.ENOTCONN, unix.EIO, unix.ECONNABORTED:
		return fmt.Errorf("%s: %w: the mount is dead, since its keeper or its connection is gone (%v): unmount it and mount it again", name, client.ErrUnavailable, errno)
	}
	return fmt.Errorf("%s: %w", name, errno)
}
