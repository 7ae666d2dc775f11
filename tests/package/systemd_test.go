package packaging

import (
	"bufio"
	_ "embed"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest/kernel"
	guest "meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// steps is what the machine does when systemd has booted it. Each step says "ok NAME" or
// "FAIL NAME", after what the commands of one that failed have printed.
//
//go:embed testdata/steps.sh
var steps string

// stepsUnit runs steps, and ends the machine.
const stepsUnit = `[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /root/steps.sh
StandardOutput=file:/dev/virtio-ports/out
StandardError=file:/dev/virtio-ports/out
ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS >/dev/virtio-ports/status'
ExecStopPost=/bin/systemctl reboot --force --force
[Install]
WantedBy=graphical.target
`

// bootTime is how long the machine may take on a machine that does much beside. Its
// processor is emulated: by itself it needs a fifth of it.
const bootTime = 10 * time.Minute

// channelSettings of the machine's daemon are every kind of channel: what confines it must let it
// have them.
const channelSettings = `
listen = ["tls:127.0.0.1:564"]
[tls]
cert = "/etc/meta9/cert.pem"
key = "/etc/meta9/cert.pem"
ca = "/etc/meta9/cert.pem"
admin = "operator"
[qmp]
listen = ["unix:/run/meta9/qmp.sock"]
[http]
metrics = ["127.0.0.1:9564"]
`

// systemd: the machine boots in QEMU, with systemd and with Debian's kernel, which has
// AppArmor. It is a host first, with meta9d of the version before, and then a guest of a
// meta9d of this host. So units, udev's rule, the confinement and the packages' scripts are
// shown to do what they are for.
func (m *machine) systemd(t *testing.T) {
	m.t = t
	k, err := kernel.Get("")
	if err != nil {
		t.Fatal(err)
	}
	host := testenv.Start(t, daemon.Options{})
	vm := testenv.UUID(2)
	host.NewVM(vm, `{"uuid":"`+vm+`","customer_metadata":{"motd":"from the host\n","banner":"one\n","db":"secret"}}`)

	m.run("dpkg --purge meta9d meta9 meta9-guest man-db") // also after a part that failed
	m.install("/old", "meta9", "meta9d")
	m.certificates()
	m.write("/etc/meta9d.toml", m.read("/etc/meta9d.toml")+channelSettings)
	m.write("/root/vm.json", payload)
	m.write("/root/steps.sh", steps)
	m.write("/etc/systemd/system/steps.service", stepsUnit)
	m.run("useradd --groups meta9 anna")
	m.run("useradd otto")
	m.run("systemctl enable steps.service")
	m.run("systemctl mask timers.target getty.target systemd-logind.service") // none is needed here
	modules := "/lib/modules/" + k.Version
	m.run("mkdir -p " + modules)
	for _, module := range k.Modules {
		_, name, _ := strings.Cut(filepath.Base(module), "-")
		must(t, "cp", module, m.path(filepath.Join(modules, name)))
	}
	must(t, "chmod", "644", m.path("/etc/systemd/system/steps.service"))
	m.run("depmod " + k.Version)
	must(t, "sh", "-c", "cd "+m.root+" && rm -rf confine new/*_arm64.deb var/cache/apt var/lib/apt/lists usr/share/locale usr/share/doc usr/share/man")

	args := []string{"-smp", "2", "-device", "virtio-serial-pci,id=link"}
	link := "path=" + filepath.Join(host.Run(), vm, "link.sock") + ",server=off,reconnect=1"
	for i, name := range []string{"meta9", "agent", "credential"} {
		id := string(rune('a' + i))
		args = append(args, "-chardev", "socket,id="+id+","+link,
			"-device", "virtserialport,bus=link.0,chardev="+id+",name="+name)
	}
	begun := time.Now()
	g, err := guest.Start(guest.Options{Root: m.root, Memory: 1024, QEMU: args})
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(bootTime, g.Stop).Stop()
	var said strings.Builder
	ok := 0
	for sc := bufio.NewScanner(g.Out); sc.Scan(); {
		line := sc.Text()
		at := time.Since(begun).Round(100 * time.Millisecond)
		said.WriteString(line + "\n")
		switch word, name, _ := strings.Cut(line, " "); word {
		case "ok":
			t.Logf("%v: %s", at, name)
			ok++
		case "FAIL":
			t.Errorf("%v: %s", at, name)
		}
	}
	status, err := g.Wait()
	if err != nil || status != 0 || ok == 0 || t.Failed() {
		t.Errorf("the machine's steps: exit status %d, %v, after %v; it said\n%s", status, err, time.Since(begun), &said)
	}
	t.Logf("%d steps in %v", ok, time.Since(begun).Round(time.Second))
}
