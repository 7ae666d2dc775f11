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
	seen             *os.File // open for reading: what the file is to be, by stage or by is; nil: it is not known yet, or to go
}

// openPlace opens the folder that path is in. It goes there from the root, folder by
// folder, and through no symbolic link: whoever owns a folder on the way could make one, and
// so choose which file of the system it is.
func openPlace(path string) (*place, error) {
	dir, name := filepath.Split(path)
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	parts := strings.FieldsFunc(dir, func(r rune) bool { return r == '/' })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	way := "/"
	for i, part := range parts {
		way = filepath.Join(way, part)
		access := passing
		if i == len(parts)-1 {
			access = unix.O_RDONLY // it is synced
		}
		next, err := unix.Openat(fd, part, access|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
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
var errLink = errors.New("a symbolic link, which the agent does not follow; name the folder that it leads to")

func isLink(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func (p *place) Close() {
	if p.seen != nil {
		p.seen.Close()
	}
	p.dir.Close()
}

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

// open opens what has a name in the folder, if that is a file, for reading.
func (p *place) open(name string) (*os.File, fs.FileInfo, error) {
	fd, err := unix.Openat(p.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, p.fail("open", err)
	}
	f := os.NewFile(uintptr(fd), p.path)
	i, err := f.Stat()
	if err == nil && !i.Mode().IsRegular() {
		err = p.fail("open", errors.New("it is no file"))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, i, nil
}

// upToDate tells whether the file is there already as it is to be.
func (p *place) upToDate(data []byte, o owned) bool {
	f, i, err := p.open(p.name)
	if err != nil {
		return false
	}
	same := i.Size() == int64(len(data)) && i.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) == o.mode
	if st := i.Sys().(*syscall.Stat_t); int(st.Uid) != o.uid || int(st.Gid) != o.gid {
		same = false
	}
	if same {
		has, err := io.ReadAll(io.LimitReader(f, int64(len(data))+1))
		same = err == nil && bytes.Equal(has, data)
	}
	if !same {
		f.Close()
		return false
	}
	p.seen = f
	return true
}

// keep has the file that is there seen as it is. One with several names may be another
// user's, whom who owns the folder cannot read.
func (p *place) keep() error {
	f, i, err := p.open(p.name)
	if err != nil {
		return err
	}
	if i.Sys().(*syscall.Stat_t).Nlink != 1 {
		f.Close()
		return p.fail("open", errors.New("it has several names (hard links), so that a check does not get it"))
	}
	p.seen = f
	return nil
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
		f.Close() // before anybody runs it: a program that is open for writing does not run
		if err != nil {
			p.drop()
		}
	}()
	if err := p.see(f); err != nil { // now, while the agent may read it
		return err
	}
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

// see opens what stage writes to f for reading.
func (p *place) see(f *os.File) error {
	is, err := f.Stat()
	if err != nil {
		return err
	}
	seen, i, err := p.open(p.temp)
	if err != nil {
		return err
	}
	p.seen = seen
	if !os.SameFile(is, i) {
		return p.fail("create", errOther)
	}
	return nil
}

// errOther is why what has the new file's name is not put in place.
var errOther = errors.New("somebody has put another file in place of the new one; who else may write the folder?")

// drop removes what stage has written.
func (p *place) drop() { _ = unix.Unlinkat(p.fd(), p.temp, 0) }

// commit puts what stage has written in the file's place, for good. It refuses what
// somebody who owns the folder has put there instead by then; what he does to the file
// afterwards is his affair, as with any file in a folder of his.
func (p *place) commit() error {
	var is, st unix.Stat_t
	if err := unix.Fstat(int(p.seen.Fd()), &is); err != nil {
		return p.fail("stat", err)
	}
	if err := unix.Fstatat(p.fd(), p.temp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p.fail("stat", err)
	}
	if is.Dev != st.Dev || is.Ino != st.Ino {
		return p.fail("rename", errOther)
	}
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
