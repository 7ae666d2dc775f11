// Package libvirt holds meta9 against a real libvirtd, which the tests start in mounts and
// processes of their own: the machine's libvirt is not touched.
package libvirt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// inside says which process of the test this is: "" is what go test has started, "init"
// the first one of a process namespace, whose end ends all in it, and "test" is there.
const inside = "META9_TEST_LIBVIRT"

func TestMain(m *testing.M) {
	switch os.Getenv(inside) {
	case "test":
		testenv.Main(m)
	case "init":
		cmd := again("test", nil)
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(reap(cmd.Process.Pid))
	default:
		attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
		as := "init"
		if os.Geteuid() != 0 {
			as, attr = "test", nil // which says what it needs
		}
		cmd := again(as, attr)
		if err := cmd.Run(); cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
}

// again is this program once more.
func again(as string, attr *syscall.SysProcAttr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+as)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	return cmd
}

// reap waits for every process that is left to the first one, as libvirtd's are, until
// the one of that number ends.
func reap(pid int) int {
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 1
		case got == pid && status.Exited():
			return status.ExitStatus()
		case got == pid:
			return 1
		}
	}
}

// host is a machine with a libvirtd.
type host struct {
	t     *testing.T
	dir   string
	meta9 string
	virtd *exec.Cmd
}

// users are those that libvirtd's package makes.
const (
	users  = "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n"
	groups = "libvirt-qemu:x:64055:\nkvm:x:64056:\n"
)

// newHost makes the places of libvirtd this process's own, and starts it.
func newHost(t *testing.T) *host {
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, for mounts of its own")
	}
	testenv.NeedDebian(t, "qemu-system-x86_64", "qemu-system-x86")
	testenv.NeedDebian(t, "virsh", "libvirt-clients")
	testenv.NeedDebian(t, "libvirtd", "libvirt-daemon", "libvirt-daemon-driver-qemu")
	h := &host{t: t, dir: t.TempDir(), meta9: testenv.Binary(t, "meta9")}
	h.mount("proc", "/proc", "proc")
	for _, dir := range []string{"/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"} {
		h.must("mkdir", "-p", dir)
		h.mount("tmpfs", dir, "tmpfs")
	}
	h.must("mkdir", "-p", "/var/lib/libvirt/qemu")
	h.must("cp", "-r", "/etc/libvirt", h.path("etc"))
	h.add(h.path("etc/qemu.conf"), "stdio_handler = \"file\"\nnamespaces = []\n")
	h.bind(h.path("etc"), "/etc/libvirt")
	for file, lines := range map[string]string{"passwd": users, "group": groups} {
		h.must("cp", "/etc/"+file, h.path(file))
		if exec.Command("grep", "-q", "^libvirt-qemu:", h.path(file)).Run() != nil {
			h.add(h.path(file), lines)
		}
		h.bind(h.path(file), "/etc/"+file)
	}
	t.Cleanup(h.end)
	h.start()
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// mount covers a folder until the test ends.
func (h *host) mount(what, where, kind string) {
	h.t.Helper()
	if err := syscall.Mount(what, where, kind, 0, ""); err != nil {
		h.t.Fatalf("mount %s: %v", where, err)
	}
	h.t.Cleanup(func() { _ = syscall.Unmount(where, syscall.MNT_DETACH) })
}

func (h *host) bind(what, where string) {
	h.t.Helper()
	if err := syscall.Mount(what, where, "", syscall.MS_BIND, ""); err != nil {
		h.t.Fatalf("bind %s: %v", where, err)
	}
	h.t.Cleanup(func() { _ = syscall.Unmount(where, syscall.MNT_DETACH) })
}

func (h *host) add(file, text string) {
	h.t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// start starts libvirtd, and waits until it answers.
func (h *host) start() {
	h.t.Helper()
	log, err := os.Create(h.path("libvirtd.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.virtd = exec.Command("libvirtd", "--pid-file", h.path("libvirtd.pid"))
	h.virtd.Stdout, h.virtd.Stderr = log, log
	if err := h.virtd.Start(); err != nil {
		h.t.Fatal(err)
	}
	testenv.Eventually(h.t, "libvirtd answers", func() bool {
		_, err := h.run(10*time.Second, "virsh", "-q", "-c", "qemu:///system", "version")
		return err == nil
	})
}

// stop ends libvirtd; its QEMUs run on.
func (h *host) stop() {
	_ = h.virtd.Process.Signal(syscall.SIGTERM)
	_ = h.virtd.Wait()
}

func (h *host) end() {
	if names, err := h.run(10*time.Second, "virsh", "-q", "-c", "qemu:///system", "list", "--name"); err == nil {
		for _, name := range strings.Fields(names) {
			_, _ = h.run(10*time.Second, "virsh", "-q", "-c", "qemu:///system", "destroy", name)
		}
	}
	h.stop()
	if h.t.Failed() {
		log, _ := os.ReadFile(h.path("libvirtd.log"))
		h.t.Logf("libvirtd:\n%s", log)
	}
}

// run runs a command, and gives all that it says.
func (h *host) run(limit time.Duration, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	stuck := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *host) must(argv ...string) string {
	h.t.Helper()
	out, err := h.run(30*time.Second, argv...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

func (h *host) virsh(args ...string) string {
	h.t.Helper()
	return h.must(append([]string{"virsh", "-q", "-c", "qemu:///system"}, args...)...)
}

// controller is what domains have that virt-install made.
const controller = "<controller type='virtio-serial'/>"

// define defines a domain.
func (h *host) define(name, uuid, devices string) {
	h.t.Helper()
	h.virsh("define", h.xml(name, uuid, devices, ""))
}

// xml is a file with a domain; more comes after its devices.
func (h *host) xml(name, uuid, devices, more string) string {
	h.t.Helper()
	file := h.path(name + ".xml")
	text := fmt.Sprintf(`<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>%s</devices>%s</domain>`, name, uuid, devices, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// channel is a file with the channel that meta9 gives a domain.
func (h *host) channel(name string) string {
	h.t.Helper()
	file := h.path("channel.xml")
	text := "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/" + name + ".meta9'/><target type='virtio' name='meta9'/></channel>"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// connected waits until meta9d has connected to the domain's channel.
func (h *host) connected(name string) {
	h.t.Helper()
	testenv.Eventually(h.t, "meta9d is connected to the channel of "+name, func() bool {
		out := h.virsh("qemu-monitor-command", name, "--hmp", "info chardev")
		for line := range strings.Lines(out) {
			if strings.Contains(line, ".meta9,server=on") {
				return !strings.Contains(line, "disconnected")
			}
		}
		return false
	})
}

// TestLibvirt has one libvirtd, which takes its time to find out what each QEMU can do.
func TestLibvirt(t *testing.T) {
	h := newHost(t)
	t.Run("adopt", func(t *testing.T) { h.in(t).adopt(t) })
	t.Run("monitor", func(t *testing.T) { h.in(t).monitor(t) })
	t.Run("states", func(t *testing.T) { h.in(t).states(t) })
	t.Run("guest", func(t *testing.T) { h.in(t).guest(t) })
}

// in is the host for a part of the test.
func (h *host) in(t *testing.T) *host {
	h.t = t
	return h
}

// adopt: one command makes VMs of all domains and gives them their channels; what
// libvirt cannot do while a domain runs is said, and is so at its next start.
func (h *host) adopt(t *testing.T) {
	d := testenv.Start(t, daemon.Options{})
	meta9 := func(args ...string) (string, error) {
		return h.run(30*time.Second, append([]string{h.meta9, "--addr", "unix:" + d.Admin()}, args...)...)
	}
	web, off, bare := testenv.UUID(1), testenv.UUID(2), testenv.UUID(3)
	h.define("web", web, controller)
	h.define("off", off, "")
	h.define("bare", bare, "")
	h.virsh("start", "web")
	h.virsh("start", "bare")

	out, err := meta9("host", "adopt", "--libvirt")
	for _, want := range []string{
		web + " web: is a VM now; it has its channel now, /var/lib/libvirt/qemu/web.meta9\n",
		off + " off: is a VM now; it will have its channel when it is started, /var/lib/libvirt/qemu/off.meta9\n",
		"bare: it will have its channel when it is shut down and started again: it has no virtio-serial controller",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("host adopt does not say %q", want)
		}
	}
	if err == nil || t.Failed() {
		t.Fatalf("host adopt: %v\n%s", err, out)
	}
	h.connected("web")
	h.virsh("start", "off")
	h.connected("off")
	h.virsh("destroy", "bare")
	h.virsh("start", "bare")
	h.connected("bare")

	out, err = meta9("host", "adopt", "--libvirt")
	if err != nil || strings.Count(out, "it has its channel already") != 3 {
		t.Errorf("once more: %v\n%s", err, out)
	}
	if out, err := meta9("vm", "list", "-H", "-o", "alias", "-s", "alias"); err != nil || out != "bare\noff\nweb\n" {
		t.Errorf("vm list: %v\n%s", err, out)
	}

	// One domain, by its name; and one whose name is another VM's.
	for uuid, name := range map[string]string{testenv.UUID(4): "one", testenv.UUID(5): "taken"} {
		h.define(name, uuid, "")
	}
	if out, err := meta9("vm", "create", "taken"); err != nil {
		t.Fatalf("vm create: %v\n%s", err, out)
	}
	if out, err := meta9("host", "adopt", "--libvirt", "one"); err != nil || !strings.HasPrefix(out, testenv.UUID(4)+" one: is a VM now; it will have its channel") || strings.Contains(out, "taken") {
		t.Errorf("host adopt of one: %v\n%s", err, out)
	}
	if out, err := meta9("host", "adopt", "--libvirt", testenv.UUID(5)); err != nil || !strings.HasPrefix(out, testenv.UUID(5)+" taken: is a VM now, without an alias") {
		t.Errorf("host adopt of one whose name is taken: %v\n%s", err, out)
	}
	for _, name := range []string{"one", "taken"} {
		h.virsh("undefine", name)
	}

	// The hypervisor is found.
	if out, err := meta9("vm", "attach", "web"); err != nil || !strings.Contains(out, "for libvirt\n") || !strings.Contains(out, "9p_chardev=/var/lib/libvirt/qemu/web.meta9,link") {
		t.Errorf("vm attach: %v\n%s", err, out)
	}
	h.virsh("destroy", "off")
	if out, err := meta9("vm", "attach", "--live", "off"); err == nil || !strings.Contains(out, "the domain off is shut off: start it") {
		t.Errorf("vm attach --live of one that is off: %v\n%s", err, out)
	}
	h.virsh("detach-device", "web", h.channel("web"), "--live", "--config") // by hand
	h.pasted(t, d.Admin(), "web")
	h.connected("web")
	h.virsh("detach-device", "web", h.channel("web"), "--live", "--config")
	if out, err := meta9("vm", "attach", "--live", "web"); err != nil || !strings.Contains(out, "it has its channel now") {
		t.Errorf("vm attach --live: %v\n%s", err, out)
	}
	h.connected("web")
}

// pasted: the lines that `meta9 vm attach` prints for the host do what they are for, as they
// stand.
func (h *host) pasted(t *testing.T, admin, name string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(h.meta9, filepath.Join(bin, "meta9")); err != nil {
		t.Fatal(err)
	}
	out := h.must(h.meta9, "--addr", "unix:"+admin, "vm", "attach", name)
	lines, _, found := strings.Cut(out, "\n# In the guest")
	if !found {
		t.Fatalf("vm attach:\n%s", out)
	}
	cmd := exec.Command("sh", "-e", "-c", lines)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "LC_ALL=C", "META9_ADDR=unix:"+admin, "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", lines, err, out)
	}
}

// monitor: a meta9d that is pointed at libvirt's monitors leaves them alone, so that
// libvirtd finds them when it is restarted.
func (h *host) monitor(t *testing.T) {
	d := testenv.Start(t, daemon.Options{Args: []string{"--qmp-dir", "/var/lib/libvirt/qemu/domain-*/monitor.sock"}})
	testenv.Eventually(t, "the log says whose monitor it is", func() bool {
		return strings.Contains(d.Log(), "this is libvirt's own monitor")
	})
	h.stop()
	h.start()
	if state := h.virsh("domstate", "web"); state != "running\n\n" && state != "running\n" {
		t.Errorf("after a restart of libvirtd: %q", state)
	}
	h.virsh("suspend", "web")
	h.virsh("resume", "web")
	if n := strings.Count(d.Log(), "libvirt's own monitor"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
