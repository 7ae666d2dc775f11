// Command guesttool is what a guest of the tests needs and busybox lacks. It is
// static, is put into the guest beside busybox, and goes by the name that it is
// called by: flock, fsync, and so on (see tools). Called guesttool it is the
// agent: it runs the commands that the test on the host sends it.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"meta9/tests/guest/agent"
	"meta9/tests/mount/work"
)

// tools are the programs, by their names.
var tools = map[string]func(args []string) error{
	"flock":    flock,
	"lockf":    lockf,
	"fsync":    fsync,
	"direct":   direct,
	"excl":     excl,
	"mmapset":  mmapSet,
	"xattr":    xattr,
	"nonblock": nonblock,
	"rewrite":  rewrite,
	"listings": listings,
	"opens":    opens,
	"cats":     cats,
	"ask":      ask,
	"worker":   work.Run,
	"hold":     work.Hold,
	"fsx":      work.Fsx,
	"posix":    work.Posix,
	"fresh":    work.Fresh,
	"told":     work.Told,
	"pace":     work.Pace,
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "guesttool" {
		install()
		agent.Serve()
		return
	}
	if err := tools[name](os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// install makes the tools commands of the guest.
func install() {
	for name := range tools {
		if err := os.Symlink("/bin/guesttool", "/bin/"+name); err != nil && !os.IsExist(err) {
			fmt.Fprintln(os.Stderr, "guesttool:", err)
		}
	}
}

// flock FD locks an open file as util-linux's flock(1) does: the lock stays when
// this process is gone. flock FILE COMMAND... holds it while the command runs,
// which has the file open too. -n does not wait, -s shares, -u unlocks.
func flock(args []string) error {
	how := unix.LOCK_EX
	for ; strings.HasPrefix(args[0], "-"); args = args[1:] {
		switch args[0] {
		case "-s":
			how = how&^unix.LOCK_EX | unix.LOCK_SH
		case "-n":
			how |= unix.LOCK_NB
		case "-u":
			how = unix.LOCK_UN
		}
	}
	if fd, err := strconv.Atoi(args[0]); err == nil {
		return unix.Flock(fd, how)
	}
	f, err := os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return err
	}
	return run(args[1:], f)
}

// lockf FILE START LENGTH COMMAND... holds a range of a file by fcntl(2) while
// the command runs; with "test" as its command it prints who is in the way.
func lockf(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if l.Start, err = strconv.ParseInt(args[1], 10, 64); err != nil {
		return err
	}
	if l.Len, err = strconv.ParseInt(args[2], 10, 64); err != nil {
		return err
	}
	if slices.Equal(args[3:], []string{"test"}) {
		err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l)
		fmt.Println(l.Type, l.Start, l.Len)
		return err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLKW, &l); err != nil {
		return err
	}
	return run(args[3:], nil)
}

// fsync FILE makes what was written durable; -d is fdatasync(2).
func fsync(args []string) error {
	f, err := os.OpenFile(args[len(args)-1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if args[0] == "-d" {
		return unix.Fdatasync(int(f.Fd()))
	}
	return f.Sync()
}

// direct FILE VALUE writes and reads it back past the page cache (O_DIRECT).
func direct(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(args[1]), 0); err != nil {
		return err
	}
	b := make([]byte, len(args[1])+1)
	n, _ := f.ReadAt(b, 0)
	if string(b[:n]) != args[1] {
		return fmt.Errorf("read %q", b[:n])
	}
	return nil
}

// excl FILE makes a file that must not be there yet.
func excl(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// mmapSet FILE VALUE writes over the start of a file through a shared mapping.
func mmapSet(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, len(args[1]), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(b, args[1])
	if err := unix.Msync(b, unix.MS_SYNC); err != nil {
		return err
	}
	return unix.Munmap(b)
}

// xattr FILE gets, lists and sets an extended attribute and prints what each gave.
func xattr(args []string) error {
	b := make([]byte, 100)
	_, get := unix.Getxattr(args[0], "user.x", b)
	_, list := unix.Listxattr(args[0], b)
	set := unix.Setxattr(args[0], "user.x", []byte("v"), 0)
	fmt.Println(get, list, set)
	return nil
}

// nonblock FILE reads once with O_NONBLOCK and prints what came, or the error.
func nonblock(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	_, err = os.Stdout.Write(b[:n])
	return err
}

// rewrite FILE VALUE opens with truncation, writes and fsyncs: what is durable
// when it ends well.
func rewrite(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(args[1]); err != nil {
		return err
	}
	return f.Sync()
}

// listings FOLDER lists a folder twice, by two descriptors that take turns, and prints
// the two lists with an empty line between.
func listings(args []string) error {
	var dirs [2]*os.File
	var lists [2][]string
	for i := range dirs {
		d, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer d.Close()
		dirs[i] = d
	}
	for going := 2; going > 0; {
		going = 0
		for i, d := range dirs {
			names, err := d.Readdirnames(100)
			if err != nil && err != io.EOF {
				return err
			}
			if len(names) > 0 {
				going++
			}
			lists[i] = append(lists[i], names...)
		}
	}
	fmt.Println(strings.Join(lists[0], "\n") + "\n\n" + strings.Join(lists[1], "\n"))
	return nil
}

// opens FILE TIMES opens and reads a file so many times. Each time it must be a line
// that begins with "value". The error counts each kind of failure.
func opens(args []string) error {
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	failed, other := make(map[string]int), 0
	for range times {
		n, size, err := openOnce(args[0])
		if err != nil {
			failed[err.Error()]++
		} else if n != size {
			other++
		}
	}
	fmt.Println(other, "times stat told of another size")
	if len(failed) > 0 {
		return fmt.Errorf("%v", failed)
	}
	return nil
}

// openOnce gives how much it has read, and the size that stat tells of the open file.
func openOnce(name string) (n, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, 0, err
	}
	if s := string(b); !strings.HasPrefix(s, "value ") || strings.Index(s, "\n") != len(s)-1 {
		return 0, 0, errors.New("a value that is not whole")
	}
	return int64(len(b)), stat.Size(), nil
}

// cats TIMES FILE opens, reads to its end and closes a file so many times, as cat does, but
// in one process, and prints the nanoseconds that it took. Its system calls are not Go's,
// whose runtime would do more around each than some of them do. For the same reason
// GODEBUG=asyncpreemptoff=1 is to be set: a request that a signal interrupts is two.
func cats(args []string) error {
	times, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	path, err := unix.BytePtrFromString(args[1])
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	begin := time.Now()
	for range times {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, 0, uintptr(unsafe.Pointer(path)), unix.O_RDONLY, 0, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("open", errno)
		}
		all := 0
		for {
			n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
			if errno != 0 {
				return os.NewSyscallError("read", errno)
			}
			if n == 0 {
				break
			}
			all += int(n)
		}
		if all == 0 {
			return errors.New("the file is empty")
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
			return os.NewSyscallError("close", errno)
		}
	}
	fmt.Println(time.Since(begin).Nanoseconds())
	return nil
}

// ask ADDRESS PATH TIMES gets a file by HTTP, on a connection each time, which it closes
// without having said so; and prints it.
func ask(args []string) error {
	times, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var body []byte
	for i := range times {
		if body, err = askOnce(args[0], args[1]); err != nil {
			return fmt.Errorf("number %d: %w", i+1, err)
		}
	}
	_, err = os.Stdout.Write(body)
	return err
}

func askOnce(address, path string) ([]byte, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, address); err != nil {
		return nil, err
	}
	in := textproto.NewReader(bufio.NewReader(c))
	status, err := in.ReadLine()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return nil, errors.New(status)
	}
	header, err := in.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	length, err := strconv.Atoi(header.Get("Content-Length"))
	if err != nil {
		return nil, err
	}
	body := make([]byte, length)
	_, err = io.ReadFull(in.R, body)
	return body, err
}

// run runs a command, which has f open if there is one.
func run(argv []string, f *os.File) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	if f != nil {
		cmd.ExtraFiles = []*os.File{f}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
