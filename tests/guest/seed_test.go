package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"meta9/tests/testenv"
)

// seedForms are the addresses that lead to the VM's http.sock, by the forms of docs/operator.md:
// QEMU starts a command for each connection of the guest, or has one connection for all.
var seedForms = map[string]string{"cmd": "10.0.3.100", "chardev": "10.0.3.101"}

// seedNet has the VM serve its nocloud/ by HTTP, and gives QEMU's arguments for a second
// network of the guest, in which both forms are.
func (h *host) seedNet(t *testing.T) []string {
	t.Helper()
	testenv.NeedDebian(t, "nc", "netcat-openbsd")
	if err := h.Ctl("update " + uuid + ` {"nocloud_http":true}`); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(filepath.Dir(h.VM(uuid)), "http.sock")
	testenv.Eventually(t, "http.sock is there", func() bool { _, err := os.Stat(socket); return err == nil })
	return []string{
		"-chardev", "socket,id=seed,path=" + socket + ",reconnect=1",
		"-netdev", fmt.Sprintf("user,id=seed,restrict=on,net=10.0.3.0/24,guestfwd=tcp:%s:80-cmd:nc -N -U %s,guestfwd=tcp:%s:80-chardev:seed",
			seedForms["cmd"], socket, seedForms["chardev"]),
		"-device", "virtio-net-pci,netdev=seed,romfile=",
	}
}

// seed: the guest gets what nocloud/ has by HTTP, by either form; also if it ends more
// connections without a word, as curl and cloud-init do, than a VM may have at a time.
func seed(t *testing.T, g *Guest, h *host) {
	const user = "#cloud-config\nhostname: by-http\n"
	h.put(t, "user-data", user)
	g.Sh(t, "ip addr add 10.0.3.15/24 dev eth1 && ip link set eth1 up")
	for form, addr := range seedForms {
		t.Run(form, func(t *testing.T) {
			if got := g.Sh(t, "ask "+addr+":80 /user-data 40"); got != user {
				t.Errorf("user-data is %q", got)
			}
			meta, err := h.admin.Sread(0, "nocloud", "meta-data")
			if err != nil {
				t.Fatal(err)
			}
			if got := g.Sh(t, "ask "+addr+":80 /meta-data 1"); got != string(meta) {
				t.Errorf("meta-data is %q, and %q on the host", got, meta)
			}
			if form == "cmd" { // it says that it closes, upon which QEMU connects a chardev again a second later
				if got := g.Sh(t, "wget -q -O - http://"+addr+"/user-data"); got != user {
					t.Errorf("wget gets %q", got)
				}
			}
			if out, status, err := g.Run("/", 0, "ask "+addr+":80 /vm.json 1"); err != nil || status == 0 {
				t.Errorf("vm.json: exit %d, %v: %s", status, err, out)
			}
		})
	}
}
