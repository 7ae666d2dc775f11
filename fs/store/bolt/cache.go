package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// distrust makes what is read of a file from now on come from the disk. Linux takes
// pages whose write has failed for written: the process that was told of it ends, and
// the next one would read from memory what the disk does not have, and what is gone at
// the next loss of power. A file that is not there is none of its business.
//
// The error is that the disk does not take what is still to be written, or that memory
// cannot be emptied and says something else than the disk.
func distrust(path string) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return os.NewSyscallError("fadvise", err)
	}
	left, err := resident(f)
	if err != nil || len(left) == 0 {
		return err
	}
	return compare(f, left)
}

// resident gives the numbers of the pages that are in memory.
func resident(f *os.File) ([]int64, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	defer func() { _ = unix.Munmap(m) }()
	page := os.Getpagesize()
	in := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		return nil, os.NewSyscallError("mincore", errno)
	}
	var left []int64
	for i, b := range in {
		if b&1 != 0 {
			left = append(left, int64(i))
		}
	}
	return left, nil
}

// compare looks whether the disk has what memory has of these pages, which somebody
// else has mapped or has just read. A file system that cannot be read past its memory
// (tmpfs, whose memory is all there is) is believed.
func compare(f *os.File, pages []int64) (err error) {
	direct, err := os.OpenFile(f.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	page := os.Getpagesize()
	buf := make([]byte, 3*page) // O_DIRECT wants it aligned
	skip := page - int(uintptr(unsafe.Pointer(&buf[0]))%uintptr(page))
	disk, memory := buf[skip:skip+page], make([]byte, page)
	for _, p := range pages {
		n, err := direct.ReadAt(disk, p*int64(page))
		if errors.Is(err, unix.EINVAL) {
			return nil
		}
		m, merr := f.ReadAt(memory, p*int64(page))
		if err = errors.Join(notEnd(err), notEnd(merr)); err != nil {
			return err
		}
		if !bytes.Equal(disk[:n], memory[:m]) {
			return fmt.Errorf("memory has something else than the disk at byte %d, after a write that failed: restart the machine, or see that nobody has the file open and drop its caches", p*int64(page))
		}
	}
	return nil
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
