// Package host is machines with a real libvirtd each, for tests: each has mounts and a name
// of its own, and all have the test's processes and network. The machine's own libvirt is
// not touched. A Host is used by one goroutine.
package host

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/testenv"
)

// Host is a machine with a libvirtd.
type Host struct {
	t      *testing.T
	name   string
	dir    string
	keeper *exec.Cmd // does nothing; the mounts and the name are its
	virtd  *exec.Cmd
}

// places are folders that are a host's own, and empty at first.
var places = []string{"/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"}

// dbus is a way to the machine's systemd, which would take the domains of two hosts for one's.
const dbus = "/run/dbus"

// users are those that libvirtd's package makes.
const (
	users  = "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n"
	groups = "libvirt-qemu:x:64055:\nkvm:x:64056:\n"
)

// settings are added to libvirt's qemu.conf. A machine has one hierarchy of control groups,
// in which two hosts would have groups of one name.
const settings = "stdio_handler = \"file\"\nnamespaces = []\ncgroup_controllers = []\n"

// New makes a host for each name, and starts their libvirtds. They end with the test. The
// test's package must run by Main.
func New(t *testing.T, names ...string) []*Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, for mounts of its own")
	}
	testenv.NeedDebian(t, "qemu-system-x86_64", "qemu-system-x86")
	testenv.NeedDebian(t, "virsh", "libvirt-clients")
	testenv.NeedDebian(t, "libvirtd", "libvirt-daemon", "libvirt-daemon-driver-qemu")
	var all []*Host
	for i, name := range names {
		h := &Host{t: t, name: name, dir: t.TempDir()}
		h.make(testenv.UUID(1000 + i))
		h.launch()
		all = append(all, h)
	}
	for _, h := range all {
		h.answers()
	}
	return all
}

// make makes the host's own places. uuid is by what libvirt knows it from others.
func (h *Host) make(uuid string) {
	h.t.Helper()
	h.keeper = exec.Command("cat")
	h.keeper.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	in, err := h.keeper.StdinPipe()
	if err == nil {
		err = h.keeper.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	t := h.t // the whole test; In sets others
	t.Cleanup(func() { h.end(t, in) })
	h.Must("hostname", h.name)
	for _, dir := range places {
		h.Must("mkdir", "-p", dir)
		h.Must("mount", "-t", "tmpfs", "tmpfs", dir)
	}
	if _, err := os.Stat(dbus); err == nil {
		h.Must("mount", "-t", "tmpfs", "tmpfs", dbus)
	}
	h.Must("mkdir", "-p", "/var/lib/libvirt/qemu")
	// All of /etc, since a mount on a file goes when a program of the machine replaces that file,
	// as useradd does with /etc/passwd. A file may also go while it is copied.
	h.Must("sh", "-c", `cp -a /etc "$0" || [ -e "$0/libvirt/qemu.conf" -a -e "$0/passwd" ]`, h.Path("etc"))
	h.add("libvirt/qemu.conf", settings)
	h.add("libvirt/libvirtd.conf", fmt.Sprintf("host_uuid = %q\n", uuid))
	if exec.Command("grep", "-q", "^libvirt-qemu:", h.Path("etc/passwd")).Run() != nil {
		h.add("passwd", users)
		h.add("group", groups)
	}
	h.add("hosts", "127.0.1.1 "+h.name+"\n")
	h.Must("mount", "--bind", h.Path("etc"), "/etc")
}

// add adds to a file of the host's /etc.
func (h *Host) add(name, text string) {
	h.t.Helper()
	f, err := os.OpenFile(h.Path(filepath.Join("etc", name)), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// In is the host for a part of the test.
func (h *Host) In(t *testing.T) *Host {
	h.t = t
	return h
}

// Path is a file of the test's own, which has the same path at the host.
func (h *Host) Path(name string) string { return filepath.Join(h.dir, name) }

// Write writes such a file, and gives its path.
func (h *Host) Write(name, text string) string {
	h.t.Helper()
	if err := os.WriteFile(h.Path(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return h.Path(name)
}

// File is the path by which the test finds a file of the host's.
func (h *Host) File(path string) string {
	return filepath.Join("/proc", fmt.Sprint(h.keeper.Process.Pid), "root", path)
}

// URI is the host's libvirtd for another host's, and for who is at no host.
func (h *Host) URI() string {
	return "qemu+unix:///system?socket=" + h.File("/run/libvirt/libvirt-sock")
}

// Wrap begins a command that is to run at the host: for daemon.Options.
func (h *Host) Wrap() []string {
	return []string{"nsenter", "--target", fmt.Sprint(h.keeper.Process.Pid), "--mount", "--uts", "--"}
}

// Command is a command line at the host, with its messages in English.
func (h *Host) Command(argv ...string) *exec.Cmd {
	argv = slices.Concat(h.Wrap(), argv)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// Start starts the libvirtd that Stop has ended, and waits until it answers.
func (h *Host) Start() {
	h.t.Helper()
	h.launch()
	h.answers()
}

func (h *Host) launch() {
	h.t.Helper()
	log, err := os.OpenFile(h.Path("libvirtd.log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.virtd = h.Command("libvirtd", "--pid-file", h.Path("libvirtd.pid"))
	h.virtd.Stdout, h.virtd.Stderr = log, log
	if err := h.virtd.Start(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *Host) answers() {
	h.t.Helper()
	var said string
	var err error
	defer func() {
		if err != nil {
			h.t.Logf("virsh at %s: %v\n%s", h.name, err, said)
		}
	}()
	testenv.Eventually(h.t, "libvirtd answers", func() bool {
		said, err = h.Run(10*time.Second, "virsh", "-q", "-c", "qemu:///system", "version")
		return err == nil
	})
}

// Stop ends libvirtd; its QEMUs run on.
func (h *Host) Stop() {
	_ = h.virtd.Process.Signal(syscall.SIGTERM)
	_ = h.virtd.Wait()
}

// end ends all that the host has. in is what its keeper waits for.
func (h *Host) end(t *testing.T, in io.Closer) {
	if h.virtd != nil {
		if names, err := h.Run(10*time.Second, "virsh", "-q", "-c", "qemu:///system", "list", "--name"); err == nil {
			for _, name := range strings.Fields(names) {
				_, _ = h.Run(10*time.Second, "virsh", "-q", "-c", "qemu:///system", "destroy", name)
			}
		}
		h.Stop()
	}
	in.Close()
	_ = h.keeper.Wait()
	if t.Failed() {
		log, _ := os.ReadFile(h.Path("libvirtd.log"))
		t.Logf("libvirtd of %s:\n%s", h.name, log)
	}
}

// Run runs a command at the host, and gives all that it says.
func (h *Host) Run(limit time.Duration, argv ...string) (string, error) {
	cmd := h.Command(argv...)
	stuck := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Must is Run for what must not fail.
func (h *Host) Must(argv ...string) string {
	h.t.Helper()
	out, err := h.Run(30*time.Second, argv...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// Virsh runs a command of virsh's, which must not fail.
func (h *Host) Virsh(args ...string) string {
	h.t.Helper()
	return h.Must(append([]string{"virsh", "-q", "-c", "qemu:///system"}, args...)...)
}

// HookFile is where a host's libvirt looks for the hook.
const HookFile = "/etc/libvirt/hooks/qemu.d/meta9"

// SetHook installs the hook that the documents have, and has libvirtd see it. meta9 is the
// command that it runs.
func (h *Host) SetHook(meta9, required string) {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(h.t), "docs", "libvirt-hook.sh"))
	if err != nil {
		h.t.Fatal(err)
	}
	script := string(text)
	for from, to := range map[string]string{"\nmeta9=meta9\n": "\nmeta9='" + meta9 + "'\n", "\nrequired=no\n": "\nrequired=" + required + "\n"} {
		if strings.Count(script, from) != 1 {
			h.t.Fatalf("the hook has no line%s", from)
		}
		script = strings.Replace(script, from, to, 1)
	}
	file := h.File(HookFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.Stop()
	h.Start()
}

// boot is where a host has what its guests boot.
const boot = "/var/lib/libvirt/boot"

// Boots gives the host a guest of package guest, for Linux. libvirt gives the files to its
// QEMUs' user, so that they are the host's own.
func (h *Host) Boots(image, initrd string) {
	h.t.Helper()
	h.Must("mkdir", boot)
	h.Must("cp", image, boot+"/kernel")
	h.Must("cp", initrd, boot+"/initrd")
}

// Linux is the XML of a domain that boots such a guest.
func Linux(name, uuid, channels string) string {
	return fmt.Sprintf(`<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>%s/kernel</kernel><initrd>%s/initrd</initrd>
<cmdline>console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr</cmdline></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='virtio-serial'/>%s</devices></domain>`, name, uuid, boot, boot, channels)
}

// Channel is a channel of a domain's, whose other end is the socket at path, which libvirt makes.
func Channel(name, path string) string {
	return "<channel type='unix'><source mode='bind' path='" + path + "'/><target type='virtio' name='" + name + "'/></channel>"
}
