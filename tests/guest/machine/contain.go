package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"meta9/tests/guest/kernel"
)

// contained is the init of a guest that is a container: what machine's init does, as far
// as it is not the kernel's. The shell stays, as the one who buries what others leave.
const contained = `/bin/busybox mkdir -p /proc /tmp /mnt
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t tmpfs tmp /tmp
mount -t tmpfs mnt /mnt
chmod 1777 /tmp
sh /run9p/script
exit $?
`

// Contain starts a guest that is a container on this machine's kernel: a root, processes
// and mounts of its own, and this machine's network. Of o it takes Script and Files;
// Script reads Machine.In. It is for what this kernel has as any guest's has, as FUSE,
// and takes milliseconds. Only root may.
func Contain(o Options) (*Machine, error) {
	programs, err := kernel.Programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "contained-")
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir}
	if err := m.contain(o, programs); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("a container: %w", err)
	}
	return m, nil
}

func (m *Machine) contain(o Options, programs string) error {
	root := m.path("root")
	files := map[string][]byte{
		"etc/passwd": []byte("root:x:0:0:root:/root:/bin/sh\n"), "etc/group": []byte("root:x:0:\n"), "root/.keep": nil,
		"run9p/script": []byte(o.Script), "init": []byte(contained),
	}
	for to, from := range o.Files {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		files[to] = b
	}
	busybox, err := os.ReadFile(filepath.Join(programs, "busybox"))
	if err != nil {
		return err
	}
	files["bin/busybox"] = busybox
	for name, b := range files {
		to := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		return err
	}
	for name, dev := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "urandom": unix.Mkdev(1, 9), "fuse": unix.Mkdev(10, 229),
	} {
		node := filepath.Join(root, "dev", name)
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(dev)); err != nil {
			return err
		}
		if err := os.Chmod(node, 0o666); err != nil {
			return err
		}
	}
	m.cmd = exec.Command("/bin/busybox", "sh", "/init")
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Chroot: root, Pdeathsig: syscall.SIGKILL,
	}
	m.cmd.Env = []string{}
	m.cmd.Dir = "/"
	said, err := os.Create(m.path("kernel.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	m.cmd.Stderr = said
	if m.In, err = m.cmd.StdinPipe(); err != nil {
		return err
	}
	if m.Out, err = m.cmd.StdoutPipe(); err != nil {
		return err
	}
	return m.cmd.Start()
}
