package work

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// Hold GO MODE:FILE... opens files, makes GO.held, and waits for GO. Then it tries
// what each file is good for, in a line each: "FILE: read VALUE, wrote", or an
// errno in place of either. Modes: r reads, rn with O_NONBLOCK, w reads and writes
// over the start, a appends, lock is w under a lock, trunc is w after a truncation.
func Hold(args []string) error {
	var files []*os.File
	for _, arg := range args[1:] {
		mode, name, _ := strings.Cut(arg, ":")
		f, err := open(mode, name)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	if err := os.WriteFile(args[0]+".held", nil, 0o644); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(args[0]); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for i, f := range files {
		mode, name, _ := strings.Cut(args[1+i], ":")
		fmt.Printf("%s: %s\n", name, try(mode, f))
	}
	return nil
}

func open(mode, name string) (*os.File, error) {
	flags := map[string]int{
		"r": os.O_RDONLY, "rn": os.O_RDONLY | syscall.O_NONBLOCK, "w": os.O_RDWR,
		"a": os.O_WRONLY | os.O_APPEND, "lock": os.O_RDWR, "trunc": os.O_RDWR | os.O_TRUNC,
	}[mode]
	fd, err := syscall.Open(name, flags, 0)
	if err == nil && mode == "lock" {
		err = syscall.Flock(fd, syscall.LOCK_EX)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// try says what a file is good for.
func try(mode string, f *os.File) string {
	var said []string
	if mode != "a" {
		b := make([]byte, 100)
		n, err := syscall.Pread(int(f.Fd()), b, 0)
		said = append(said, outcome(fmt.Sprintf("read %s", b[:max(n, 0)]), err))
	}
	if mode[0] != 'r' {
		_, err := syscall.Pwrite(int(f.Fd()), []byte("W"), 0)
		said = append(said, outcome("wrote", err))
	}
	return strings.Join(said, ", ")
}

func outcome(well string, err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case err != nil:
		return err.Error()
	}
	return well
}
