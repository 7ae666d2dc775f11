package qmp

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"meta9/tests/testenv"
)

// TestAnsible: Debian's Ansible leads VMs by its vmadm module, with meta9 under the name
// of vmadm; what is done twice changes nothing the second time (testdata/vmadm.yml).
func TestAnsible(t *testing.T) {
	testenv.NeedDebian(t, "ansible-playbook", "ansible")
	h, uuid := newHost(t, ""), testenv.UUID(1)
	q := startQEMU(t, h.socket("web"), uuid, "web")
	h.state(uuid, "prelaunch")
	bin, home := t.TempDir(), t.TempDir()
	if err := os.Symlink(testenv.Binary(t, "meta9"), filepath.Join(bin, "vmadm")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ansible-playbook", "-i", "localhost,", "-e", "ansible_python_interpreter=/usr/bin/python3", "testdata/vmadm.yml")
	cmd.Env = append(os.Environ(), "META9_ADDR="+h.Admin(), "PATH="+bin+":"+os.Getenv("PATH"), "ANSIBLE_HOME="+home, "HOME="+home,
		"ANSIBLE_LOCAL_TEMP="+home, "ANSIBLE_REMOTE_TEMP="+home, "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	<-q.exited
	if vms := h.vm(uuid); vms != nil {
		t.Errorf("it was not deleted: %v", vms)
	}
}
