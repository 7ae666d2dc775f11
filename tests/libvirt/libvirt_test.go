// Package libvirt holds meta9 against a real libvirtd.
package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/libvirt/host"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { host.Main(m) }

// virt is a host for a part of the test, and the command meta9.
type virt struct {
	*host.Host
	t     *testing.T
	meta9 string
}

// meta9d starts one at the host.
func (h *virt) meta9d(o daemon.Options) *testenv.Server {
	h.t.Helper()
	o.Wrap = h.Wrap()
	return testenv.Start(h.t, o)
}

// controller is what domains have that virt-install made.
const controller = "<controller type='virtio-serial'/>"

// define defines a domain.
func (h *virt) define(name, uuid, devices string) {
	h.t.Helper()
	h.Virsh("define", h.xml(name, uuid, devices, ""))
}

// xml is a file with a domain; more comes after its devices.
func (h *virt) xml(name, uuid, devices, more string) string {
	h.t.Helper()
	return h.Write(name+".xml", fmt.Sprintf(`<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>%s</devices>%s</domain>`, name, uuid, devices, more))
}

// channel is a file with the channel that meta9 gives a domain.
func (h *virt) channel(name string) string {
	h.t.Helper()
	return h.Write("channel.xml", host.Channel("meta9", "/var/lib/libvirt/qemu/"+name+".meta9"))
}

// connected waits until meta9d has connected to the domain's channel.
func (h *virt) connected(name string) {
	h.t.Helper()
	testenv.Eventually(h.t, "meta9d is connected to the channel of "+name, func() bool {
		out := h.Virsh("qemu-monitor-command", name, "--hmp", "info chardev")
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
	h := host.New(t, "metal")[0]
	part := func(name string, run func(*virt)) {
		t.Run(name, func(t *testing.T) { run(&virt{h.In(t), t, testenv.Binary(t, "meta9")}) })
	}
	part("adopt", (*virt).adopt)
	part("monitor", (*virt).monitor)
	part("states", (*virt).states)
	part("guest", (*virt).guest)
}

// adopt: one command makes VMs of all domains and gives them their channels; what
// libvirt cannot do while a domain runs is said, and is so at its next start.
func (h *virt) adopt() {
	t := h.t
	d := h.meta9d(daemon.Options{})
	meta9 := func(args ...string) (string, error) {
		return h.Run(30*time.Second, append([]string{h.meta9, "--addr", "unix:" + d.Admin()}, args...)...)
	}
	web, off, bare := testenv.UUID(1), testenv.UUID(2), testenv.UUID(3)
	h.define("web", web, controller)
	h.define("off", off, "")
	h.define("bare", bare, "")
	h.Virsh("start", "web")
	h.Virsh("start", "bare")

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
	h.Virsh("start", "off")
	h.connected("off")
	h.Virsh("destroy", "bare")
	h.Virsh("start", "bare")
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
		h.Virsh("undefine", name)
	}

	// The hypervisor is found.
	if out, err := meta9("vm", "attach", "web"); err != nil || !strings.Contains(out, "for libvirt\n") || !strings.Contains(out, "9p_chardev=/var/lib/libvirt/qemu/web.meta9,link") {
		t.Errorf("vm attach: %v\n%s", err, out)
	}
	h.Virsh("destroy", "off")
	if out, err := meta9("vm", "attach", "--live", "off"); err == nil || !strings.Contains(out, "the domain off is shut off: start it") {
		t.Errorf("vm attach --live of one that is off: %v\n%s", err, out)
	}
	h.Virsh("detach-device", "web", h.channel("web"), "--live", "--config") // by hand
	h.pasted(t, d.Admin(), "web")
	h.connected("web")
	h.Virsh("detach-device", "web", h.channel("web"), "--live", "--config")
	if out, err := meta9("vm", "attach", "--live", "web"); err != nil || !strings.Contains(out, "it has its channel now") {
		t.Errorf("vm attach --live: %v\n%s", err, out)
	}
	h.connected("web")
}

// pasted: the lines that `meta9 vm attach` prints for the host do what they are for, as they
// stand.
func (h *virt) pasted(t *testing.T, admin, name string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(h.meta9, filepath.Join(bin, "meta9")); err != nil {
		t.Fatal(err)
	}
	out := h.Must(h.meta9, "--addr", "unix:"+admin, "vm", "attach", name)
	lines, _, found := strings.Cut(out, "\n# In the guest")
	if !found {
		t.Fatalf("vm attach:\n%s", out)
	}
	cmd := h.Command("sh", "-e", "-c", "cd '"+t.TempDir()+"'\n"+lines)
	cmd.Env = append(cmd.Env, "META9_ADDR=unix:"+admin, "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", lines, err, out)
	}
}

// monitor: a meta9d that is pointed at libvirt's monitors leaves them alone, so that
// libvirtd finds them when it is restarted.
func (h *virt) monitor() {
	t := h.t
	d := h.meta9d(daemon.Options{Args: []string{"--qmp-dir", "/var/lib/libvirt/qemu/domain-*/monitor.sock"}})
	testenv.Eventually(t, "the log says whose monitor it is", func() bool {
		return strings.Contains(d.Log(), "this is libvirt's own monitor")
	})
	h.Stop()
	h.Start()
	if state := h.Virsh("domstate", "web"); state != "running\n\n" && state != "running\n" {
		t.Errorf("after a restart of libvirtd: %q", state)
	}
	h.Virsh("suspend", "web")
	h.Virsh("resume", "web")
	if n := strings.Count(d.Log(), "libvirt's own monitor"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
