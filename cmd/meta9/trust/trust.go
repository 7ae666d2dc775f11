//go:build unix

// Package trust reads files that say what root is to do, or who may have which secret:
// such as others than root and the caller may write are refused. What is looked at is what
// is read, an open file. It keeps no state.
package trust

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens a file, or a folder, for reading. The error says what is to be done about one
// that others may write.
func Open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo has nobody wait
	if err != nil {
		return nil, err
	}
	i, err := f.Stat()
	if err == nil {
		err = check(name, i)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func check(name string, i os.FileInfo) error {
	uid := int(i.Sys().(*syscall.Stat_t).Uid)
	switch {
	case uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("%s: it belongs to user %d, who is neither root nor you; chown root %[1]s", name, uid)
	case i.Mode()&0o022 != 0:
		return fmt.Errorf("%s: others may write it (mode %#o); chmod go-w %[1]s", name, i.Mode().Perm())
	}
	return nil
}

// Read reads a file of at most so many bytes.
func Read(name string, most int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s: longer than %d bytes", name, most)
	}
	return text, err
}
