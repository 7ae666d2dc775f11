package libvirt

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// hookFile is where libvirt looks for the hook.
const hookFile = "/etc/libvirt/hooks/qemu.d/meta9" // in this test's copy of /etc/libvirt

// setHook installs the hook that the documents have, and has libvirtd see it.
func (h *host) setHook(meta9, required string) {
	h.t.Helper()
	root := testenv.Root(h.t)
	text, err := os.ReadFile(filepath.Join(root, "docs", "libvirt-hook.sh"))
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
	if err := os.MkdirAll(filepath.Dir(hookFile), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(hookFile, []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.stop()
	h.start()
}

// guest: a domain with a real kernel becomes a VM by the hook when it starts, gets its
// channel while it runs, and its guest mounts, reads and writes; also after virsh has had
// it stand still. A hook whose meta9d is not there or hangs does not hold the domain up.
func (h *host) guest(t *testing.T) {
	d := testenv.Start(t, daemon.Options{Args: []string{"--libvirt", ""}})
	client := h.meta9 + " --addr unix:" + d.Admin()
	meta9 := func(args ...string) string {
		t.Helper()
		return h.must(append(strings.Fields(client), args...)...)
	}
	h.setHook(client, "no")

	// libvirt gives the files to its QEMUs' user, who must reach them.
	boot := "/var/lib/libvirt/boot"
	h.must("mkdir", "-p", boot)
	image, _ := guest.Image(t, machine.Options{Files: map[string]string{"/bin/meta9": guest.Static(t, "cmd/meta9")}}, boot)
	h.must("cp", image, boot+"/kernel")
	h.must("chmod", "755", boot)
	uuid := testenv.UUID(21)
	out := "/var/lib/libvirt/qemu/out"
	devices := "<controller type='virtio-serial'/>" + port("out", out) + port("status", "/var/lib/libvirt/qemu/status")
	file := h.path("linux.xml")
	text := fmt.Sprintf(`<domain type='qemu'><name>linux</name><uuid>%s</uuid><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>%s/kernel</kernel><initrd>%s/initrd</initrd>
<cmdline>console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr</cmdline></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>%s</devices></domain>`, uuid, boot, boot, devices)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.virsh("define", file)
	h.virsh("start", "linux")
	if list := meta9("vm", "list", "-H", "-o", "uuid,alias"); !strings.Contains(list, uuid) || !strings.Contains(list, "linux") {
		t.Fatalf("the domain has started, and the VMs are\n%s", list)
	}
	h.within(meta9, uuid, "running")
	conn, err := net.Dial("unix", out)
	if err != nil {
		t.Fatal(err)
	}
	g := guest.Join(t, conn)

	meta9("put", "vms/"+uuid+"/keys/motd", "hello")
	if said, err := h.run(30*time.Second, append(strings.Fields(client), "vm", "attach", "--live", "linux")...); err != nil || !strings.Contains(said, "it has its channel now") {
		t.Fatalf("vm attach --live: %v\n%s", err, said)
	}
	// There is no udev to name the port.
	g.Sh(t, `for i in $(seq 100); do for p in /sys/class/virtio-ports/*; do
		[ "$(cat $p/name)" = meta9 ] && ln -s ../${p##*/} /dev/virtio-ports/meta9 && exit 0
		done; sleep 0.1; done; exit 1`)
	g.Sh(t, "mkdir /metadata && meta9 mount /metadata")
	if got := g.Sh(t, "cat /metadata/keys/motd"); got != "hello" {
		t.Errorf("the guest reads %q", got)
	}
	g.Sh(t, "echo from the guest >/metadata/keys/answer")
	if got := meta9("cat", "vms/"+uuid+"/keys/answer"); got != "from the guest\n" {
		t.Errorf("the host reads %q", got)
	}

	h.virsh("suspend", "linux")
	h.within(meta9, uuid, "paused")
	meta9("put", "vms/"+uuid+"/keys/motd", "while it stood")
	h.virsh("resume", "linux")
	h.within(meta9, uuid, "running")
	if got := g.Sh(t, "echo again >/metadata/keys/answer; cat /metadata/keys/motd"); got != "while it stood" {
		t.Errorf("the guest reads %q", got)
	}
	if got := meta9("cat", "vms/"+uuid+"/keys/answer"); got != "again\n" {
		t.Errorf("the host reads %q", got)
	}

	// Once more, with a channel: nothing is lost of what is there.
	h.virsh("destroy", "linux")
	h.within(meta9, uuid, "stopped")
	h.virsh("start", "linux")
	h.connected("linux")
	if got := meta9("cat", "vms/"+uuid+"/keys/answer"); got != "again\n" {
		t.Errorf("after another start the host reads %q", got)
	}
	h.virsh("destroy", "linux")
	h.virsh("undefine", "linux")

	h.hooked(d, client)
}

// hooked: what a hook does where it cannot make a VM.
func (h *host) hooked(d *testenv.Server, client string) {
	h.t.Helper()
	quick, other := testenv.UUID(22), testenv.UUID(23)
	h.define("quick", quick, "")
	h.define("linux", other, "") // which is another VM's alias
	stopped := true
	stand := func(sig syscall.Signal) {
		if err := d.Signal(sig); err != nil {
			h.t.Fatal(err)
		}
	}
	stand(syscall.SIGSTOP)
	defer func() {
		if stopped {
			stand(syscall.SIGCONT)
		}
	}()
	began := time.Now()
	h.virsh("start", "quick")
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second {
		h.t.Errorf("with a meta9d that hangs a domain has started after %v", took)
	}
	h.virsh("destroy", "quick")
	stand(syscall.SIGCONT)
	stopped = false

	h.setHook(client+".absent", "yes")
	said, err := h.run(30*time.Second, "virsh", "-q", "-c", "qemu:///system", "start", "linux")
	if err == nil || !strings.Contains(said, "meta9: ") || !strings.Contains(said, "admin.sock.absent") {
		h.t.Errorf("a domain that must be a VM: %v\n%s", err, said)
	}
	h.setHook(client, "yes")
	h.virsh("start", "linux")
	if vm := h.must(append(strings.Fields(client), "vm", "get", other)...); strings.Contains(vm, `"alias"`) {
		h.t.Errorf("another VM's alias was taken:\n%s", vm)
	}
	h.virsh("destroy", "linux")
	for _, name := range []string{"quick", "linux"} {
		h.virsh("undefine", name)
	}
}

// port is a channel of a domain's, whose other end is the socket at path.
func port(name, path string) string {
	return "<channel type='unix'><source mode='bind' path='" + path + "'/><target type='virtio' name='" + name + "'/></channel>"
}
