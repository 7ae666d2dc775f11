package work

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// refusals are system calls and how each must end, in the folder keys of a VM's mount as
// root; 0: well. There is a key "k", and "sdc/uuid" beside keys/.
var refusals = []struct {
	name string
	do   func() error
	want syscall.Errno
}{
	{"open none", opens("none", unix.O_RDONLY), unix.ENOENT},
	{"open in none", opens("none/x", unix.O_RDONLY|unix.O_CREAT), unix.ENOENT},
	{"open below a file", opens("k/x", unix.O_RDONLY), unix.ENOTDIR},
	{"open a file as a folder", opens("k", unix.O_RDONLY|unix.O_DIRECTORY), unix.ENOTDIR},
	{"open a folder to write", opens(".", unix.O_WRONLY), unix.EISDIR},
	{"open a folder to make it", opens("../internal", unix.O_RDONLY|unix.O_CREAT), unix.EISDIR},
	{"open O_EXCL", opens("k", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL), unix.EEXIST},
	{"open a long name", opens(long, unix.O_RDONLY), unix.ENAMETOOLONG},
	{"make a long name", opens(long, unix.O_WRONLY|unix.O_CREAT), unix.ENAMETOOLONG},
	{"make a name that is none", opens("a%2fb", unix.O_WRONLY|unix.O_CREAT), unix.EINVAL},
	{"make a key that is not a guest's", opens("root_pw", unix.O_WRONLY|unix.O_CREAT), unix.EPERM},
	{"make a file beside keys", opens("../x", unix.O_WRONLY|unix.O_CREAT), unix.EPERM},
	{"make a derived file", opens("../sdc/x", unix.O_WRONLY|unix.O_CREAT), unix.EROFS},
	{"write a derived file", opens("../sdc/uuid", unix.O_WRONLY), unix.EACCES},
	{"read what is open to write", with("k", unix.O_WRONLY, func(fd int) error { _, err := unix.Read(fd, make([]byte, 1)); return err }), unix.EBADF},
	{"write what is open to read", with("k", unix.O_RDONLY, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err }), unix.EBADF},
	{"write past the limit", with("k", unix.O_WRONLY, func(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 1<<20); return err }), unix.EFBIG},
	{"seek before the start", with("k", unix.O_RDONLY, func(fd int) error { _, err := unix.Seek(fd, -1, 0); return err }), unix.EINVAL},
	{"read a folder", with(".", unix.O_RDONLY, func(fd int) error { _, err := unix.Read(fd, make([]byte, 1)); return err }), unix.EISDIR},

	{"rename none", func() error { return unix.Rename("none", "x") }, unix.ENOENT},
	{"rename to itself", func() error { return unix.Rename("k", "k") }, 0},
	{"rename over a folder", func() error { return unix.Rename("k", "../internal") }, unix.EISDIR},
	{"rename a folder over a file", func() error { return unix.Rename("../internal", "k") }, unix.ENOTDIR},
	{"rename to another folder", func() error { return unix.Rename("k", "../internal/k_pw") }, unix.EXDEV},
	{"rename to a long name", func() error { return unix.Rename("k", long) }, unix.ENAMETOOLONG},
	{"rename to a name that is none", func() error { return unix.Rename("k", "%41") }, unix.EINVAL},
	{"rename and keep", func() error {
		return unix.Renameat2(unix.AT_FDCWD, "k", unix.AT_FDCWD, "x", unix.RENAME_NOREPLACE)
	}, unix.EINVAL},

	{"unlink none", func() error { return unix.Unlink("none") }, unix.ENOENT},
	{"unlink a folder", func() error { return unix.Unlink("../internal") }, unix.EISDIR},
	{"unlink a derived file", func() error { return unix.Unlink("../sdc/uuid") }, unix.EROFS},
	{"rmdir none", func() error { return unix.Rmdir("none") }, unix.ENOENT},
	{"rmdir a file", func() error { return unix.Rmdir("k") }, unix.ENOTDIR},
	{"rmdir a folder", func() error { return unix.Rmdir("../keys") }, unix.ENOTEMPTY},

	{"truncate none", func() error { return unix.Truncate("none", 0) }, unix.ENOENT},
	{"truncate a folder", func() error { return unix.Truncate(".", 0) }, unix.EISDIR},
	{"truncate below 0", func() error { return unix.Truncate("k", -1) }, unix.EINVAL},
	{"truncate past the limit", func() error { return unix.Truncate("k", 1<<20+1) }, unix.EFBIG},
	{"ftruncate what is open to read", with("k", unix.O_RDONLY, func(fd int) error { return unix.Ftruncate(fd, 0) }), unix.EINVAL},

	{"chmod none", func() error { return unix.Chmod("none", 0o600) }, unix.ENOENT},
	{"chmod", func() error { return unix.Chmod("k", 0o640) }, 0},
	{"chmod a folder", func() error { return unix.Chmod(".", 0o700) }, unix.EPERM},
	{"chown", func() error { return unix.Chown("k", 1000, -1) }, unix.EPERM},
	{"chown to the same", func() error { return unix.Chown("k", 0, 0) }, 0},

	{"utimensat none", func() error { return unix.UtimesNano("none", times) }, unix.ENOENT},
	{"utimensat", func() error { return unix.UtimesNano("k", times) }, 0},
	{"utimensat of a folder", func() error { return unix.UtimesNano(".", times) }, 0},

	{"mkdir", func() error { return unix.Mkdir("d", 0o755) }, unix.EPERM},
	{"mkdir what is there", func() error { return unix.Mkdir("k", 0o755) }, unix.EEXIST},
	{"mkdir below a file", func() error { return unix.Mkdir("k/d", 0o755) }, unix.ENOTDIR},
	{"mkdir in a derived folder", func() error { return unix.Mkdir("../sdc/d", 0o755) }, unix.EROFS},

	{"link none", func() error { return unix.Link("none", "l") }, unix.ENOENT},
	{"link", func() error { return unix.Link("k", "l") }, unix.EPERM},
	{"link to what is there", func() error { return unix.Link("k", "k") }, unix.EEXIST},
	{"link a folder", func() error { return unix.Link("../internal", "l") }, unix.EPERM},
	{"symlink", func() error { return unix.Symlink("k", "l") }, unix.EPERM},
	{"mkfifo", func() error { return unix.Mkfifo("p", 0o600) }, unix.EPERM},
	{"readlink", func() error { _, err := unix.Readlink("k", make([]byte, 9)); return err }, unix.EINVAL},
	{"getxattr", func() error { _, err := unix.Getxattr("k", "user.x", make([]byte, 9)); return err }, unix.EOPNOTSUPP},
}

var (
	long  = strings.Repeat("n", 256)
	times = []unix.Timespec{{Sec: 1}, {Sec: 2}}
)

func opens(name string, flags int) func() error {
	return with(name, flags, func(int) error { return nil })
}

// with does something with an open file.
func with(name string, flags int, do func(fd int) error) func() error {
	return func() error {
		fd, err := unix.Open(name, flags, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(do(fd), unix.Close(fd))
	}
}

// Posix DIR makes each of the calls in a folder of keys; the error lists those that ended
// otherwise than they must.
func Posix(args []string) error {
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	if err := os.WriteFile("k", []byte("value"), 0o600); err != nil {
		return err
	}
	var wrong []string
	for _, r := range refusals {
		err := r.do()
		if r.want == 0 && err == nil || r.want != 0 && errors.Is(err, r.want) {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%s: %v, want %v", r.name, err, r.want))
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return os.Remove("k")
}
