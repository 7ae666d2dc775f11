// Package machine boots a Linux kernel of Debian's in QEMU with a script to run,
// and a way from the guest to a server on this host. The guest is busybox in an
// initramfs, or a whole system of Debian's, and is thrown away; QEMU emulates its
// processor (TCG), so that it runs on every machine alike.
//
// A Machine's methods may be called from any goroutine.
package machine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"meta9/tests/guest/kernel"
	"meta9/tests/testenv"
)

// Ways from the guest to the server (Options.Via).
const (
	// Net is v9fs's trans=tcp to 10.0.2.100:564, which QEMU's user network hands to
	// the server: one connection of the host's a mount. The guest's network is
	// closed otherwise.
	Net = "net"
	// User is trans=tcp to the same port of 10.0.2.2, the host's loopback, of which
	// the guest reaches all.
	User = "user"
	// Serial is trans=fd over a virtio-serial port, which QEMU itself connects to the
	// server, at boot and again whenever that goes: each mount begins with Tversion.
	Serial = "serial"
)

// Ways are all of them.
var Ways = []string{Net, User, Serial}

// MaxPorts is how many ports there may be with Serial: of many more QEMU 7.2 loses
// messages that announce them.
const MaxPorts = 8

// Options say what boots.
type Options struct {
	Kernel  string            // as kernel.Get takes it
	Connect string            // the server: unix:PATH or tcp:HOST:PORT; "": none
	Via     string            // "" is Net
	Forward string            // with User: a unix socket that 10.0.2.100:564 leads to, as with Net
	Ports   int               // with Serial, their number; 0 is 4. They are named 9p0, 9p1, ...
	Script  string            // run by sh as root
	Input   bool              // Script reads Machine.In
	Env     map[string]string // what Script finds in its environment
	Files   map[string]string // more files of the guest: its path, and the host's
	Debian  bool              // Debian's programs, see kernel.Programs, in /debian
	Memory  int               // MB; 0 is 256
	Root    string            // a folder that is the guest, see systemInit
	QEMU    []string          // more arguments
}

// A guest that is a folder (Options.Root) boots the folder's own /sbin/init, which is to be
// systemd, and the modules that it has: of the other options only Kernel, Memory and QEMU
// hold. What it writes to /dev/virtio-ports/out is Machine.Out, a number that it writes to
// /dev/virtio-ports/status is its exit status, and it ends by a reboot.
const systemInit = "rdinit=/sbin/init systemd.show_status=1 random.trust_cpu=on"

// Machine is a guest that runs.
type Machine struct {
	In  io.WriteCloser // what Script reads, if it does. It must not be closed before the end
	Out io.Reader      // what Script prints. Read it to its end, and then Wait

	cmd *exec.Cmd
	dir string
}

// Start boots a guest. It ends with its script, by Stop, and with this process.
func Start(o Options) (*Machine, error) {
	if err := need(&o); err != nil {
		return nil, err
	}
	k, err := kernel.Get(o.Kernel)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "guest-")
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir}
	if err := m.start(o, k); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return m, nil
}

// Image writes the initramfs of a guest into dir, and gives its path and the kernel's, for
// a guest that is not started here.
func Image(o Options, dir string) (image, initrd string, err error) {
	if err := need(&o); err != nil {
		return "", "", err
	}
	k, err := kernel.Get(o.Kernel)
	if err != nil {
		return "", "", err
	}
	m := &Machine{dir: dir}
	return k.Image, m.path("initrd"), m.pack(o, k)
}

// need fills in what o leaves open and installs what its guest takes of the host.
func need(o *Options) error {
	if o.Via == "" {
		o.Via = Net
	}
	if o.Ports == 0 {
		o.Ports = 4
	}
	if o.Memory == 0 {
		o.Memory = 256
	}
	if o.Ports < 0 || o.Ports > MaxPorts {
		return fmt.Errorf("%d ports: at most %d work", o.Ports, MaxPorts)
	}
	logf := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	if o.Root != "" {
		if err := testenv.Debian(logf, "cpio", "cpio"); err != nil {
			return err
		}
	}
	if o.Connect != "" && o.Via == Net || o.Forward != "" {
		if err := testenv.Debian(logf, "socat", "socat"); err != nil {
			return err
		}
	}
	return testenv.Debian(logf, "qemu-system-x86_64", "qemu-system-x86")
}

func (m *Machine) start(o Options, k kernel.Kernel) error {
	link, err := o.link()
	if err != nil {
		return err
	}
	boot := commandLine
	if o.Root != "" {
		boot += " " + systemInit
		err = m.packRoot(o.Root)
	} else {
		err = m.pack(o, k)
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.path("status"), nil, 0o600); err != nil {
		return err
	}
	args := []string{"-serial", "file:" + comma(m.path("kernel.log"))}
	args = append(args, o.arguments(k.Image, m.path("initrd"), boot, "stdio,signal=off", "file,path="+comma(m.path("status")))...)
	m.cmd = exec.Command("qemu-system-x86_64", append(append(args, link...), o.QEMU...)...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(m.path("qemu.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	m.cmd.Stderr = said
	// At the end of its standard input QEMU would close the script's output, too.
	if m.In, err = m.cmd.StdinPipe(); err != nil {
		return err
	}
	if m.Out, err = m.cmd.StdoutPipe(); err != nil {
		return err
	}
	return m.cmd.Start()
}

// commandLine is the kernel's.
const commandLine = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr"

// Arguments are those of a QEMU for a guest that Image has written with the same Options, and
// that the caller runs, maybe in several QEMUs one after the other: it migrates. out and status
// are what the guest's ports of those names are ("socket,path=/run/out").
func Arguments(o Options, image, initrd, out, status string) ([]string, error) {
	if err := need(&o); err != nil {
		return nil, err
	}
	link, err := o.link()
	if err != nil {
		return nil, err
	}
	return append(append(o.arguments(image, initrd, commandLine, out, status), link...), o.QEMU...), nil
}

// arguments are QEMU's but for the way to the server, and for what o.QEMU adds.
func (o *Options) arguments(image, initrd, boot, out, status string) []string {
	chardev := func(id, is string) string {
		backend, more, _ := strings.Cut(is, ",")
		return backend + ",id=" + id + "," + more
	}
	return []string{
		"-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", strconv.Itoa(o.Memory),
		"-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none",
		"-kernel", image, "-initrd", initrd, "-append", boot,
		"-device", "virtio-serial-pci,id=vs,max_ports=31",
		"-chardev", chardev("out", out),
		"-device", "virtserialport,bus=vs.0,nr=1,chardev=out,name=out",
		"-chardev", chardev("status", status),
		"-device", "virtserialport,bus=vs.0,nr=2,chardev=status,name=status",
	}
}

// link are QEMU's arguments for the way to the server.
func (o *Options) link() ([]string, error) {
	if o.Connect == "" {
		return nil, nil
	}
	scheme, addr, ok := strings.Cut(o.Connect, ":")
	host, port := "", ""
	if scheme == "tcp" {
		var err error
		if host, port, err = net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("%q: %w", o.Connect, err)
		}
	}
	if !ok || scheme != "tcp" && scheme != "unix" {
		return nil, fmt.Errorf("%q is neither unix:PATH nor tcp:HOST:PORT", o.Connect)
	}
	const device = "virtio-net-pci,netdev=net,romfile="
	switch o.Via {
	case Net:
		to := "UNIX-CONNECT:" + addr
		if scheme == "tcp" {
			to = "TCP:" + addr + ",nodelay"
		}
		return []string{"-netdev", "user,id=net,restrict=on," + guestfwd(to), "-device", device}, nil
	case User:
		if scheme != "tcp" {
			return nil, errors.New("by the host's loopback the guest reaches a tcp port only")
		}
		netdev := "user,id=net"
		if o.Forward != "" {
			netdev += "," + guestfwd("UNIX-CONNECT:"+o.Forward)
		}
		return []string{"-netdev", netdev, "-device", device}, nil
	case Serial:
		chardev := "path=" + comma(addr)
		if scheme == "tcp" {
			chardev = "host=" + host + ",port=" + port
		}
		var args []string
		for i := range o.Ports {
			args = append(args,
				"-chardev", fmt.Sprintf("socket,id=p%d,%s,server=off,reconnect=1", i, chardev),
				"-device", fmt.Sprintf("virtserialport,bus=vs.0,nr=%d,chardev=p%d,name=9p%d", i+3, i, i))
		}
		return args, nil
	}
	return nil, fmt.Errorf("no way %q: %s", o.Via, strings.Join(Ways, ", "))
}

// guestfwd hands what a guest sends to 10.0.2.100:564 to a socat address. QEMU starts
// socat for each connection that the guest makes. Its standard error would go to the
// guest, too.
func guestfwd(to string) string {
	return "guestfwd=tcp:10.0.2.100:564-cmd:" + comma("sh -c 'exec socat -t 0 STDIO "+to+" 2>/dev/null'")
}

// comma is a value in QEMU's option syntax.
func comma(value string) string { return strings.ReplaceAll(value, ",", ",,") }

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// Stop ends the guest at once; Wait is still to be called.
func (m *Machine) Stop() { m.cmd.Process.Kill() }

// Wait waits until the guest has ended and gives its script's exit status. The
// error says why there is none, with the end of the kernel's log.
func (m *Machine) Wait() (int, error) {
	defer os.RemoveAll(m.dir)
	ended := m.cmd.Wait()
	b, err := os.ReadFile(m.path("status"))
	if err != nil {
		return 0, err
	}
	if status, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		return status, nil
	}
	said, _ := os.ReadFile(m.path("qemu.log"))
	return 0, fmt.Errorf("no exit status from the guest (QEMU: %v); %s\nthe end of its kernel's log:\n%s", ended, said, m.KernelLog())
}

// KernelLog is the end of what the guest's kernel has said by now.
func (m *Machine) KernelLog() string {
	const most = 4 << 10
	b, _ := os.ReadFile(m.path("kernel.log"))
	return string(b[max(0, len(b)-most):])
}
