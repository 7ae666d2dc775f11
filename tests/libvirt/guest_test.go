package libvirt

import (
	"net"
	"strings"
	"syscall"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/machine"
	"meta9/tests/libvirt/host"
	"meta9/tests/testenv"
)

// guest: a domain with a real kernel becomes a VM by the hook when it starts, gets its
// channel while it runs, and its guest mounts, reads and writes; also after virsh has had
// it stand still. A hook whose meta9d is not there or hangs does not hold the domain up.
func (h *virt) guest() {
	t := h.t
	d := h.meta9d(daemon.Options{Args: []string{"--libvirt", ""}})
	client := h.meta9 + " --addr unix:" + d.Admin()
	meta9 := func(args ...string) string {
		t.Helper()
		return h.Must(append(strings.Fields(client), args...)...)
	}
	h.SetHook(client, "no")

	uuid := testenv.UUID(21)
	out := "/var/lib/libvirt/qemu/out"
	h.Boots(guest.Image(t, machine.Options{Files: map[string]string{"/bin/meta9": guest.Static(t, "cmd/meta9")}}, t.TempDir()))
	h.Virsh("define", h.Write("linux.xml", host.Linux("linux", uuid, host.Channel("out", out)+host.Channel("status", "/var/lib/libvirt/qemu/status"))))
	h.Virsh("start", "linux")
	if list := meta9("vm", "list", "-H", "-o", "uuid,alias"); !strings.Contains(list, uuid) || !strings.Contains(list, "linux") {
		t.Fatalf("the domain has started, and the VMs are\n%s", list)
	}
	h.within(meta9, uuid, "running")
	conn, err := net.Dial("unix", h.File(out))
	if err != nil {
		t.Fatal(err)
	}
	g := guest.Join(t, conn)

	meta9("put", "vms/"+uuid+"/keys/motd", "hello")
	if said, err := h.Run(30*time.Second, append(strings.Fields(client), "vm", "attach", "--live", "linux")...); err != nil || !strings.Contains(said, "it has its channel now") {
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

	h.Virsh("suspend", "linux")
	h.within(meta9, uuid, "paused")
	meta9("put", "vms/"+uuid+"/keys/motd", "while it stood")
	h.Virsh("resume", "linux")
	h.within(meta9, uuid, "running")
	if got := g.Sh(t, "echo again >/metadata/keys/answer; cat /metadata/keys/motd"); got != "while it stood" {
		t.Errorf("the guest reads %q", got)
	}
	if got := meta9("cat", "vms/"+uuid+"/keys/answer"); got != "again\n" {
		t.Errorf("the host reads %q", got)
	}

	// Once more, with a channel: nothing is lost of what is there.
	h.Virsh("destroy", "linux")
	h.within(meta9, uuid, "stopped")
	h.Virsh("start", "linux")
	h.connected("linux")
	if got := meta9("cat", "vms/"+uuid+"/keys/answer"); got != "again\n" {
		t.Errorf("after another start the host reads %q", got)
	}
	h.Virsh("destroy", "linux")
	h.Virsh("undefine", "linux")

	h.hooked(d, client)
}

// hooked: what a hook does where it cannot make a VM.
func (h *virt) hooked(d *testenv.Server, client string) {
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
	h.Virsh("start", "quick")
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second {
		h.t.Errorf("with a meta9d that hangs a domain has started after %v", took)
	}
	h.Virsh("destroy", "quick")
	stand(syscall.SIGCONT)
	stopped = false

	h.SetHook(client+".absent", "yes")
	said, err := h.Run(30*time.Second, "virsh", "-q", "-c", "qemu:///system", "start", "linux")
	if err == nil || !strings.Contains(said, "meta9: ") || !strings.Contains(said, "admin.sock.absent") {
		h.t.Errorf("a domain that must be a VM: %v\n%s", err, said)
	}
	h.SetHook(client, "yes")
	h.Virsh("start", "linux")
	if vm := h.Must(append(strings.Fields(client), "vm", "get", other)...); strings.Contains(vm, `"alias"`) {
		h.t.Errorf("another VM's alias was taken:\n%s", vm)
	}
	h.Virsh("destroy", "linux")
	for _, name := range []string{"quick", "linux"} {
		h.Virsh("undefine", name)
	}
}
