//go:build unix

package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// place is where a file of a recipe is: its folder, which is held open, and its name
// there. All that is done goes by the open folder, so that whoever renames folders or puts
// symbolic links in the way meanwhile leads it nowhere else. Close it.
type place struct {
	path, name, temp string
	dir              *os.File
}

// openPlace opens the folder that path is in. It goes there from the root, folder by
// folder, and through no symbolic link: whoever owns a folder on the way could make one, and
// so choose which file of the system it is.
func openPlace(path string) (*place, error) {
	dir, name := filepath.Split(path)
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	way := "/"
	for _, part := range strings.FieldsFunc(dir, func(r rune) bool { return r == '/' }) {
		way = filepath.Join(way, part)
		next, err := unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil && isLink(fd, part) {
			err = errLink
		}
		unix.Close(fd)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: way, Err: err}
		}
		fd = next
	}
	sum := sha256.Sum256([]byte(name))
	return &place{path: path, name: name, temp: fmt.Sprintf(".meta9-%x", sum[:8]), dir: os.NewFile(uintptr(fd), dir)}, nil
}

// errLink is why a way is not gone.
var errLink = errors.New("a symbolic link, which the agent does not follow; name in the recipe the folder that it leads to")

func isLink(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func (p *place) Close() { p.dir.Close() }

func (p *place) fd() int { return int(p.dir.Fd()) }

// fail is err, about the file or what stands for it meanwhile.
func (p *place) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: p.path, Err: err}
}

// owned is who has a file, and its permissions.
type owned struct {
	uid, gid int
	mode     fs.FileMode
}

// is tells whether the file is there already as it is to be.
func (p *place) is(data []byte, o owned) bool {
	fd, err := unix.Openat(p.fd(), p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), p.path)
	defer f.Close()
	i, err := f.Stat()
	if err != nil || !i.Mode().IsRegular() || i.Size() != int64(len(data)) || i.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != o.mode {
		return false
	}
	if st := i.Sys().(*syscall.Stat_t); int(st.Uid) != o.uid || int(st.Gid) != o.gid {
		return false
	}
	has, err := io.ReadAll(io.LimitReader(f, int64(len(data))+1))
	return err == nil && bytes.Equal(has, data)
}

// absent tells whether nothing has the name.
func (p *place) absent() bool {
	var st unix.Stat_t
	return errors.Is(unix.Fstatat(p.fd(), p.name, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT)
}

// stage writes data beside the file, with its owner and mode, onto the disk. What an agent
// that was killed has left there goes.
func (p *place) stage(data []byte, o owned) (err error) {
	p.drop()
	fd, err := unix.Openat(p.fd(), p.temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return p.fail("create", err)
	}
	f := os.NewFile(uintptr(fd), p.beside())
	defer func() {
		f.Close()
		if err != nil {
			p.drop()
		}
	}()
	if _, err := f.Write(data); err != nil {
		return p.fail("write", errors.Unwrap(err))
	}
	if err := f.Chown(o.uid, o.gid); err != nil {
		return p.fail("chown", errors.Unwrap(err))
	}
	if err := f.Chmod(o.mode); err != nil { // after chown, which may take bits away
		return p.fail("chmod", errors.Unwrap(err))
	}
	if err := f.Sync(); err != nil {
		return p.fail("sync", errors.Unwrap(err))
	}
	return nil
}

// beside is the path of what stage has written.
func (p *place) beside() string { return filepath.Join(filepath.Dir(p.path), p.temp) }

// drop removes what stage has written.
func (p *place) drop() { _ = unix.Unlinkat(p.fd(), p.temp, 0) }

// commit puts what stage has written in the file's place, for good.
func (p *place) commit() error {
	if err := unix.Renameat(p.fd(), p.temp, p.fd(), p.name); err != nil {
		return p.fail("rename", err)
	}
	return p.fail("sync", p.dir.Sync())
}

// remove removes the file, for good. That it is not there is no error.
func (p *place) remove() error {
	if err := unix.Unlinkat(p.fd(), p.name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return p.fail("remove", err)
	}
	return p.fail("sync", p.dir.Sync())
}

// ownerOf is the number of the user who has a file.
func ownerOf(i fs.FileInfo) int { return int(i.Sys().(*syscall.Stat_t).Uid) }
