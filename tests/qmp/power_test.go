package qmp

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// buttonBoot is a boot sector that minds the power button, by ACPI, and nothing else:
//
//	    mov dx, 0x602; mov ax, 0x100; out dx, ax   ; PM1_EN: the button
//	    mov dx, 0x600
//	l:  in ax, dx; test ah, 1; jz l                ; PM1_STS: pressed?
//	    mov dx, 0x604; mov ax, 0x2000; out dx, ax  ; PM1_CNT: sleep, type 0, which is off
//	h:  hlt; jmp h
var buttonBoot = []byte{
	0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xfa,
	0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd,
}

// bootQEMU runs a QEMU that boots the sector.
func (h *host) bootQEMU(name, uuid string, sector []byte, args ...string) *qemu {
	h.t.Helper()
	testenv.NeedDebian(h.t, "qemu-system-x86_64", "qemu-system-x86")
	disk := append(append(make([]byte, 0, 512), sector...), make([]byte, 510-len(sector))...)
	file := filepath.Join(h.dir, name+".img")
	if err := os.WriteFile(file, append(disk, 0x55, 0xaa), 0o600); err != nil {
		h.t.Fatal(err)
	}
	path := h.socket(name)
	all := []string{
		"-machine", "pc", "-nodefaults", "-display", "none", "-m", "16", "-uuid", uuid, "-S",
		"-drive", "file=" + file + ",format=raw", "-qmp", "unix:" + path + ",server=on,wait=off",
	}
	return runQEMU(h.t, path, uuid, append(all, args...))
}

// meta9 runs the command line against the host, and gives all that it prints.
func (h *host) meta9(args ...string) (string, error) {
	h.t.Helper()
	out, err := exec.Command(testenv.Binary(h.t, "meta9"), append([]string{"--addr", h.Admin()}, args...)...).CombinedOutput()
	return string(out), err
}

// must is a command that succeeds and prints just that.
func (h *host) must(want string, args ...string) {
	h.t.Helper()
	if out, err := h.meta9(args...); err != nil || out != want+"\n" {
		h.t.Errorf("meta9 %v: %v: %s", args, err, out)
	}
}

// TestPower: vmadm's start, stop and reboot do with a QEMU what they say, and have
// done it when they end.
func TestPower(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	started, stopped := "Successfully started VM "+uuid, "Successfully completed stop for VM "+uuid
	is := func(state string) {
		t.Helper()
		if got := h.vm(uuid)["state"]; got != state {
			t.Errorf("the state is %v, not %s", got, state)
		}
	}

	q := h.bootQEMU("kept", uuid, buttonBoot, "-no-shutdown")
	h.state(uuid, "prelaunch")
	for range 2 { // the second time it was shut down before
		h.must(started, "vm", "start", uuid)
		is("running")
		h.must(started, "vm", "start", uuid) // as it is
		h.must("Successfully completed reboot for VM "+uuid, "vm", "reboot", uuid)
		stop(t, h, uuid, stopped)
		is("shutdown")
	}
	h.must(stopped, "vm", "stop", "-F", uuid)
	is("stopped")
	<-q.exited

	// A guest that takes no notice, then one whose QEMU ends with it.
	q = h.bootQEMU("deaf", uuid, []byte{0xf4, 0xeb, 0xfd})
	h.state(uuid, "prelaunch")
	h.must(started, "vm", "start", uuid)
	testenv.Eventually(t, "stop says that the guest takes no notice", func() bool {
		out, err := h.meta9("--timeout", "1s", "vm", "stop", uuid)
		if err == nil {
			t.Fatalf("stop of a deaf guest: %s", out)
		}
		return strings.Contains(out, "its state is running still") && strings.Contains(out, "-t SECONDS or -F ends it")
	})
	h.must(stopped, "vm", "stop", uuid, "-t", "1")
	<-q.exited
	is("stopped")
	h.must("VM "+uuid+" is already stopped", "vm", "stop", uuid)
	h.must("VM "+uuid+" is already stopped", "vm", "stop", "-F", uuid)
	q = h.bootQEMU("ends", uuid, buttonBoot)
	h.state(uuid, "prelaunch")
	h.must(started, "vm", "start", uuid)
	stop(t, h, uuid, stopped)
	<-q.exited
	is("stopped")
	if out, err := h.meta9("vm", "start", uuid); err == nil || !strings.Contains(out, "no QEMU of it is connected") {
		t.Errorf("start without a QEMU: %v: %s", err, out)
	}
}

// stop presses the power button until the guest, which may not have booted yet, is
// off.
func stop(t *testing.T, h *host, uuid, success string) {
	t.Helper()
	testenv.Eventually(t, "the guest is off", func() bool {
		out, err := h.meta9("--timeout", "2s", "vm", "stop", uuid)
		return err == nil && out == success+"\n"
	})
}
