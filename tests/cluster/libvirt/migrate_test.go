// Package libvirt has a domain migrate between two hosts of a fleet, each with a real libvirtd.
package libvirt

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta9/tests/cluster/members"
	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/agent"
	"meta9/tests/guest/machine"
	"meta9/tests/libvirt/host"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) {
	members.Serve()
	host.Main(m)
}

// patience is how long a migration, or a program's end, may take, however busy the machine is.
const patience = 2 * time.Minute

// name is the domain's, and its VM's alias.
const name = "linux"

// names are the hosts'.
var names = []string{"alpha", "beta"}

// links are the guest's ports to meta9d: of one libvirt makes the socket, of the other meta9d
// (docs/libvirt.md).
var links = []string{"meta9", "own"}

// run is where the domain finds its host's meta9d's run folder.
const run = "/run/libvirt/meta9"

// node is a host with libvirtd and meta9d.
type node struct {
	*host.Host
	name     string
	d        *testenv.Server
	settings string // of meta9d
	meta9    string
	taken    int // how often the VM has come here
}

// run is meta9 at the node's meta9d.
func (n *node) run(args ...string) string {
	return n.Must(append([]string{n.meta9, "--addr", "unix:" + n.d.Admin()}, args...)...)
}

// hook installs libvirt's hook.
func (n *node) hook() { n.SetHook(n.meta9+" --addr unix:"+n.d.Admin(), "yes") }

// follow has meta9d follow libvirt from now on, by a live update.
func (n *node) follow(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.d.Dir, "meta9d.toml"), []byte("libvirt = \"\"\n"+n.settings), 0o600); err != nil {
		t.Fatal(err)
	}
	n.d.LiveUpdate()
	n.taken = 0 // it counts anew
	n.connected(t)
}

// fleetStatus is what meta9d counts of its fleet.
type fleetStatus struct {
	Expected                     int
	Taken, Claimed, Lost, Failed int
	SessionsLost                 int `json:"sessions_lost"`
}

func (n *node) status(t *testing.T) (is fleetStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.run("fleet", "status", "-o", "json")), &is); err != nil {
		t.Fatal(err)
	}
	return is
}

// connected waits until meta9d has asked libvirtd for all domains.
func (n *node) connected(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "meta9d follows libvirt", func() bool { return strings.Contains(n.run("status"), "libvirt      connected, since ") })
}

// migrated is a domain that goes from one host to the other, and what its guest does meanwhile.
type migrated struct {
	t     *testing.T
	uuid  string
	dir   string // which libvirt's QEMUs may enter
	ports *net.UnixListener
	port  *guest.Port
	nodes [2]*node
	at    int // the index of the host where the guest runs
	*guest.Guest
	pace []<-chan agent.Reply // by the links, a program that appends lines; nil: the guest is silent
}

// TestMigrate has a domain with a real kernel migrate to and fro between two hosts, as virsh does
// it: at first they have libvirt's hook alone, then meta9d follows libvirt, too. Meanwhile programs
// in the guest append to keys over meta9 mount, and get no error. At last the guest is silent, the
// destination has no hook, and the VM comes by libvirt's word.
func TestMigrate(t *testing.T) {
	m := newMigrated(t)
	m.refused()
	m.nodes[1].hook()
	for range 2 {
		m.move()
	}
	m.counted()
	for _, n := range m.nodes {
		n.follow(t)
	}
	m.cancelled()
	for range 2 {
		m.move()
		m.state("running")
	}
	m.end()

	m.Sh(t, "umount /mnt/* && until ! pidof meta9 >/dev/null; do sleep 0.05; done")
	m.nodes[m.at].Virsh("detach-device", name, m.nodes[m.at].Write("own.xml", own(m.uuid)), "--live", "--config")
	m.nodes[1-m.at].Must("rm", host.HookFile)
	m.cancelled()
	m.move()
	m.state("running")
	m.restarted()
	m.mount(links[0])
	m.Sh(t, "tail -n 1 /mnt/*/keys/paced-*")
	m.counted()
}

// newMigrated starts both hosts, and the domain at the first.
func newMigrated(t *testing.T) *migrated {
	t.Helper()
	m := &migrated{t: t, uuid: testenv.UUID(31), port: guest.NewPort()}
	hosts := host.New(t, names...)
	var err error
	if m.dir, err = os.MkdirTemp("", "m9"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(m.dir) })
	if err := os.Chmod(m.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if m.ports, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(m.dir, "out")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.ports.Close() })
	if err := os.Chmod(filepath.Join(m.dir, "out"), 0o777); err != nil {
		t.Fatal(err)
	}

	etcd, err := members.New(t.TempDir(), 1, members.Config{NoSync: true}, time.Minute)
	if err == nil {
		err = etcd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.KillAll)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a secret of this test's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	image, initrd := guest.Image(t, machine.Options{
		Files: map[string]string{"/bin/meta9": guest.Static(t, "cmd/meta9")},
		Env:   map[string]string{"NP_PORTS": fmt.Sprint(2 + len(links))},
	}, t.TempDir())
	for i, h := range hosts {
		n := &node{Host: h, name: names[i], meta9: testenv.Binary(t, "meta9")}
		n.settings = fmt.Sprintf("[cluster]\nendpoints = [%q]\nhost = %q\nkey_file = %q\nttl = \"30s\"\n", etcd.Endpoints()[0], n.name, key)
		n.d = testenv.Start(t, daemon.Options{Wrap: h.Wrap(), Memory: true, Config: n.settings})
		n.Boots(image, initrd)
		n.Must("mkdir", run)
		n.Must("mount", "--bind", n.d.Run(), run)
		m.nodes[i] = n
	}
	at := m.nodes[0]
	at.hook()
	at.run("vm", "create", "-f", at.Write("vm.json", fmt.Sprintf(`{"uuid":%q,"alias":%q,"9p_owner":"libvirt-qemu"}`, m.uuid, name)))
	at.Virsh("define", at.Write("linux.xml", host.Linux(name, m.uuid,
		connects("out", filepath.Join(m.dir, "out"), "")+own(m.uuid)+
			host.Channel("status", "/var/lib/libvirt/qemu/status")+host.Channel(links[0], "/var/lib/libvirt/qemu/linux.meta9"))))
	at.Virsh("start", name)
	m.port.At(m.joined())
	m.owned()
	m.Guest = guest.Join(t, m.port)
	m.mount(links...)
	for _, link := range links {
		done, err := m.Start("/", 0, fmt.Sprintf("pace -tell /tmp/pace-%[1]s /mnt/%[1]s/keys/paced-%[1]s", link))
		if err != nil {
			t.Fatal(err)
		}
		m.pace = append(m.pace, done)
	}
	m.progress()
	return m
}

// connects is a channel of a domain's that QEMU connects to the socket at path.
func connects(name, path, more string) string {
	return "<channel type='unix'><source mode='connect' path='" + path + "'>" + more + "</source><target type='virtio' name='" + name + "'/></channel>"
}

// own is the channel of the domain's whose socket is meta9d's.
func own(uuid string) string {
	return connects(links[1], filepath.Join(run, uuid, "link.sock"), "<reconnect enabled='yes' timeout='1'/>")
}

// mount mounts the VM's files by each link.
func (m *migrated) mount(links ...string) {
	m.t.Helper()
	for _, link := range links {
		m.Sh(m.t, fmt.Sprintf("mkdir -p /mnt/%[1]s && meta9 mount virtio:%[1]s /mnt/%[1]s", link))
	}
}

// joined is the guest's port out of a QEMU that libvirt has started.
func (m *migrated) joined() net.Conn {
	m.t.Helper()
	err := m.ports.SetDeadline(time.Now().Add(patience))
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := m.ports.Accept()
	if err != nil {
		m.t.Fatal(err)
	}
	m.port.From(c)
	m.t.Cleanup(func() { c.Close() })
	return c
}

// owned waits until the host where the guest runs has its VM, and sees what both hosts say.
func (m *migrated) owned() {
	m.t.Helper()
	for _, n := range m.nodes {
		testenv.Eventually(m.t, "the VM is at "+names[m.at]+", by "+n.name, func() bool {
			return strings.Contains(n.run("fleet", "where", m.uuid), m.uuid+" "+names[m.at]+" ")
		})
	}
}

// progress waits until the programs have done more.
func (m *migrated) progress() {
	m.t.Helper()
	for i, link := range links {
		m.Sh(m.t, fmt.Sprintf(`lines() { cat /mnt/%[1]s/keys/paced-%[1]s 2>/dev/null | wc -l; }
			more=$(($(lines) + 5)); for i in $(seq 600); do [ $(lines) -lt $more ] || exit 0; sleep 0.1; done; exit 1`, link))
		select {
		case r := <-m.pace[i]:
			m.t.Fatalf("the program at %s has ended: exit %d: %s", link, r.Status, r.Output)
		default:
		}
	}
}

// migrating are the words that have the domain migrate to the other host.
func (m *migrated) migrating(more ...string) []string {
	to := m.nodes[1-m.at]
	return append([]string{
		"virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--p2p", "--persistent", name, to.URI(),
		"--migrateuri", "unix://" + filepath.Join(m.dir, "migration"),
	}, more...)
}

// move has the domain migrate to the other host, and its VM follow.
func (m *migrated) move() {
	m.t.Helper()
	from := m.nodes[m.at]
	m.Sh(m.t, "rm -f /tmp/pace-*")
	began := time.Now()
	if out, err := from.Run(patience, m.migrating()...); err != nil {
		m.t.Fatalf("virsh migrate: %v\n%s", err, out)
	}
	took := time.Since(began)
	m.at = 1 - m.at
	m.nodes[m.at].taken++
	m.port.At(m.joined())
	m.owned()
	if is := strings.TrimSpace(from.Virsh("domstate", "--reason", name)); is != "shut off (migrated)" {
		m.t.Errorf("at the source the domain is %q", is)
	}
	if m.pace == nil {
		m.t.Logf("to %s in %v; its guest is silent", names[m.at], took)
		return
	}
	m.progress()
	m.owned()
	longest := 0
	for _, text := range strings.Fields(m.Sh(m.t, "cat /tmp/pace-*")) {
		us, _ := strconv.Atoi(text)
		longest = max(longest, us)
	}
	m.t.Logf("to %s in %v; the longest append took %v", names[m.at], took, time.Duration(longest)*time.Microsecond)
}

// refused: without a hook at the destination there is no socket of meta9d's for the domain, and libvirt
// does not start a QEMU for it; the guest goes on where it is.
func (m *migrated) refused() {
	m.t.Helper()
	out, err := m.nodes[m.at].Run(patience, m.migrating()...)
	if err == nil || !strings.Contains(out, filepath.Join(run, m.uuid, "link.sock")) {
		m.t.Errorf("a migration to where no socket is: %v\n%s", err, out)
	}
	m.progress()
	m.owned()
}

// cancelled begins to migrate, and cancels that when the VM is expected at the destination: the guest
// goes on where it is.
func (m *migrated) cancelled() {
	m.t.Helper()
	from, to := m.nodes[m.at], m.nodes[1-m.at]
	to.run("fleet", "expect", "--undo", m.uuid)                 // as one that was there
	migrate := from.Command(m.migrating("--bandwidth", "1")...) // MiB/s
	var said strings.Builder
	migrate.Stdout, migrate.Stderr = &said, &said
	if err := migrate.Start(); err != nil {
		m.t.Fatal(err)
	}
	stuck := time.AfterFunc(patience, func() { _ = migrate.Process.Kill() })
	defer stuck.Stop()
	m.joined() // by the QEMU that waits for the guest
	testenv.Eventually(m.t, "the migration runs", func() bool {
		return strings.Contains(from.Virsh("domjobinfo", name), "Memory processed:")
	})
	testenv.Eventually(m.t, "the VM is expected", func() bool { return to.status(m.t).Expected == 1 })
	m.owned()
	from.Virsh("domjobabort", name)
	if err := migrate.Wait(); err == nil || !strings.Contains(said.String(), "canceled by client") {
		m.t.Errorf("a migration that was cancelled: %v\n%s", err, said.String())
	}
	if m.pace != nil {
		m.progress()
	}
	m.owned()
}

// state waits until the VM has that state, where the guest runs.
func (m *migrated) state(want string) {
	m.t.Helper()
	at := m.nodes[m.at]
	testenv.Eventually(m.t, "the VM is "+want, func() bool {
		return at.run("vm", "list", "-H", "-o", "uuid,state") == m.uuid+"  "+want+"\n"
	})
	if list := m.nodes[1-m.at].run("vm", "list", "-H", "-o", "uuid"); list != "" {
		m.t.Errorf("at the source there is still %s", list)
	}
}

// restarted restarts the libvirtd where the domain is not: that it has the domain still, shut off, is
// no reason to take the VM back.
func (m *migrated) restarted() {
	m.t.Helper()
	left := m.nodes[1-m.at]
	left.Stop()
	testenv.Eventually(m.t, "meta9d sees that libvirt is gone", func() bool { return strings.Contains(left.run("status"), "libvirt      not connected: ") })
	left.Start()
	left.connected(m.t)
	m.owned()
}

// end ends the programs, whose lines must all be there once.
func (m *migrated) end() {
	m.t.Helper()
	m.Sh(m.t, "touch /tmp/stop")
	for i, link := range links {
		var r agent.Reply
		select {
		case r = <-m.pace[i]:
		case <-time.After(patience):
			m.t.Fatalf("the program at %s does not end", link)
		}
		lines, err := strconv.Atoi(strings.TrimSpace(string(r.Output)))
		if err != nil || r.Status != 0 {
			m.t.Fatalf("the program at %s: exit %d: %s", link, r.Status, r.Output)
		}
		var want strings.Builder
		for n := range lines {
			fmt.Fprintln(&want, n+1)
		}
		if got := m.nodes[m.at].run("cat", "/vms/"+m.uuid+"/keys/paced-"+link); got != want.String() {
			m.t.Errorf("%d lines were appended at %s, and there are %q", lines, link, got)
		}
		m.t.Logf("%d lines at %s", lines, link)
	}
	m.pace = nil
}

// counted: the VM has gone only where its guest went, each time given by the host before, with
// the guest's sessions.
func (m *migrated) counted() {
	m.t.Helper()
	for _, n := range m.nodes {
		if is := n.status(m.t); is.Taken != n.taken || is.Claimed+is.Lost+is.Failed+is.SessionsLost != 0 {
			m.t.Errorf("the VM has come to %s %d times: %+v", n.name, n.taken, is)
		}
	}
}
