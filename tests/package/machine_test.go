package packaging

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/session/listen/certtest"
	"meta9/tests/apt"
	"meta9/tests/daemon"
	"meta9/tests/proc"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// machine is a Debian root: Debian's own packages, with man-db, and ours in /old and /new.
type machine struct {
	root string
	t    *testing.T
}

// suite of Debian that the packages are installed in.
const suite = "bookworm"

// with is what the machine has beside Debian's smallest set: what systemd, AppArmor and
// udev need, and the tools of the tests.
const with = "systemd,systemd-sysv,udev,kmod,apparmor,man-db"

func newMachine(t *testing.T, old, now string) *machine {
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, for debootstrap and mounts of its own")
	}
	testenv.NeedDebian(t, "debootstrap", "debootstrap")
	mirror, err := apt.Mirror()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "m9-") // a short path: a unix socket's has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{root: filepath.Join(dir, "root")}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(m.root, 0o755); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	must(t, "debootstrap", "--variant=minbase", "--include="+with, suite, m.root, mirror)
	t.Logf("debootstrap: %v", time.Since(begun).Round(time.Second))
	for from, to := range map[string]string{old: "/old", now: "/new"} {
		must(t, "cp", "-r", from, m.path(to))
	}
	must(t, "chmod", "755", m.path("/old"), m.path("/new"))
	helper := exec.Command("go", "build", "-o", m.path("/confine"), "./confine")
	helper.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := helper.CombinedOutput(); err != nil {
		t.Fatalf("confine: %v\n%s", err, out)
	}
	// debootstrap may have left its own.
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		_ = syscall.Unmount(m.path(dir), syscall.MNT_DETACH)
	}
	if err := syscall.Mount("proc", m.path("/proc"), "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(m.path("/proc"), syscall.MNT_DETACH) })
	return m
}

// path is where a file of the machine is.
func (m *machine) path(file string) string { return filepath.Join(m.root, file) }

// try runs a command in the machine and gives all that it says.
func (m *machine) try(in string, argv ...string) (string, error) {
	cmd := exec.Command("chroot", append([]string{m.root}, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	cmd.Stdin = strings.NewReader(in)
	stuck := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try, which must not fail, of the words of a line.
func (m *machine) run(line string) string { m.t.Helper(); return m.runWith("", line) }

func (m *machine) runWith(in, line string) string {
	m.t.Helper()
	out, err := m.try(in, strings.Fields(line)...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// says wants a text in what a command says.
func (m *machine) says(out string, want ...string) {
	m.t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			m.t.Errorf("%q is not in\n%s", w, out)
		}
	}
}

// install installs packages of a version: "/old" or "/new".
func (m *machine) install(dir string, names ...string) string {
	m.t.Helper()
	version := map[string]string{"/old": beforeDeb, "/new": afterDeb}[dir]
	args := "dpkg --install"
	for _, name := range names {
		args += " " + deb(dir, name, version, "amd64")
	}
	return m.run(args)
}

// start runs the daemon as its unit does, with the unit's capabilities, system calls, umask
// and open files; flags may follow.
func (m *machine) start(flags ...string) *proc.Proc {
	m.t.Helper()
	argv := append([]string{m.root, "/confine", "/usr/lib/systemd/system/meta9d.service"}, flags...)
	p, err := proc.Start(exec.Command("chroot", argv...), time.Minute)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.Kill)
	return p
}

// confined: the daemon is that, and has exactly the unit's capabilities: CHOWN (0),
// DAC_OVERRIDE (1), FOWNER (3) and NET_BIND_SERVICE (10).
func (m *machine) confined(p *proc.Proc) {
	m.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.says(string(b), "\nSeccomp:\t2\n", "\nNoNewPrivs:\t1\n", "\nCapBnd:\t000000000000040b\n", "\nCapEff:\t000000000000040b\n")
}

// channels: what the daemon does for guests and for the admin, in every way.
func (m *machine) channels(backup string) {
	m.t.Helper()
	m.says(m.run("meta9 qmp --socket /run/meta9/qmp.sock query-status"), "status")
	m.says(m.run("meta9 --addr tls:127.0.0.1:564 --cert /etc/meta9/cert.pem --ca /etc/meta9/cert.pem ls names/web0/keys"), "motd")
	dev := " --dev /run/meta9/" + testenv.UUID(1) + "/mdata.sock "
	m.run("meta9 mdata put" + dev + "m value")
	m.says(m.run("meta9 mdata get"+dev+"m"), "value")
	m.run("meta9 backup " + backup)
	m.run("meta9 backup --check " + backup)
	m.run("rm " + backup)
}

func (m *machine) stop(p *proc.Proc) {
	m.t.Helper()
	if err := p.Stop(20 * time.Second); err != nil {
		m.t.Fatalf("%v\n%s", err, p.Log())
	}
}

func (m *machine) read(file string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.path(file))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// there tells whether files are there: all or none.
func (m *machine) there(yes bool, files ...string) {
	m.t.Helper()
	for _, file := range files {
		if _, err := os.Lstat(m.path(file)); (err == nil) != yes {
			m.t.Errorf("%s is there: %v, want %v (%v)", file, err == nil, yes, err)
		}
	}
}

// volatile are files that Debian's own tools make and leave.
var volatile = regexp.MustCompile(`^/(proc|run/systemd|var/(cache|log|lib/dpkg)|etc/(group|gshadow)-$|var/lib/systemd/deb-systemd-helper)`)

// tree are all files of the machine but volatile ones.
func (m *machine) tree() (all []string) {
	err := filepath.WalkDir(m.root, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, m.root)
		if volatile.MatchString(name) {
			if d != nil && d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		all = append(all, name)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// payload is the VM that the tests make.
var payload = `{"uuid":"` + testenv.UUID(1) + `","alias":"web0","customer_metadata":{"motd":"hello"}}`

// life is that of the packages on a host without systemd: all goes, or is said.
func (m *machine) life(t *testing.T) {
	m.t = t
	clean := m.tree()

	m.says(m.install("/old", "meta9", "meta9d"), "there is no systemd here; start it as")
	m.says(m.run("getent group meta9"), "meta9:x:")
	m.says(m.run("man --where meta9d meta9 meta9-vm-create"), "/meta9d.8.gz", "/meta9.1.gz", "/meta9-vm-create.1.gz")
	m.says(m.run("stat -c %a:%U /var/lib/meta9 /run/meta9 /etc/meta9d.toml"), "700:root\n755:root\n644:root\n")
	m.settings()
	m.unit()
	m.run("apparmor_parser --skip-kernel-load --skip-read-cache --skip-cache /etc/apparmor.d/usr.bin.meta9d") // it parses

	m.certificates()
	d := m.start("--qmp-listen", "unix:/run/meta9/qmp.sock", "--listen", "tls:127.0.0.1:564", "--config", "/etc/meta9/test.toml")
	m.confined(d)
	m.runWith(payload, "meta9 vm create")
	m.channels("/root/backup")
	m.run("meta9 put names/web0/keys/color blue")
	m.says(m.run("meta9 version"), before)
	m.says(m.run("stat -c %a:%G /run/meta9/admin.sock"), "660:meta9")
	m.run("useradd --groups meta9 anna")
	m.run("useradd otto")
	m.run("meta9 vm update " + testenv.UUID(1) + " 9p_owner=anna")
	testenv.Eventually(t, "the VM's socket is its owner's", func() bool {
		return m.run("stat -c %U /run/meta9/"+testenv.UUID(1)+"/9p.sock") == "anna\n"
	})
	m.says(m.run("runuser -u anna -- meta9 cat names/web0/keys/color"), "blue")
	if out, err := m.try("", "runuser", "-u", "otto", "--", "meta9", "cat", "names/web0/keys/color"); err == nil {
		t.Errorf("who is not in the group meta9 reads %q", out)
	}

	// The upgrade: a guest keeps its connection, an edited file stays.
	c, err := raw.Dial("unix", m.path("/run/meta9/"+testenv.UUID(1)+"/9p.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := daemon.Hello(c, "9P2000.e", ""); err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(m.read("/etc/meta9d.toml"), "#log_level = \"info\"", "log_level = \"debug\"", 1)
	if err := os.WriteFile(m.path("/etc/meta9d.toml"), []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	m.says(m.install("/new", "meta9", "meta9d"), "meta9d "+after+" serves, in place of "+before)
	m.says(m.run("meta9 cat ctl"), "version "+after+"\n", "upgrades 1\n")
	m.confined(d)
	m.channels("/root/backup")
	if got, err := c.Sread(0, "keys", "color"); err != nil || string(got) != "blue" {
		t.Errorf("the guest's connection after the upgrade: %q, %v", got, err)
	}
	if m.read("/etc/meta9d.toml") != edited {
		t.Error("the settings are others after the upgrade")
	}
	// A program that is refused, or damaged, leaves the one that runs.
	m.run("chmod 666 /usr/bin/meta9d")
	m.says(m.run("/var/lib/dpkg/info/meta9d.postinst configure "+afterDeb), "the one that runs goes on with the version it has")
	m.run("chmod 755 /usr/bin/meta9d")
	m.stop(d)

	// No live update is possible: that is said, and is no error.
	d = m.start("--data", "")
	m.says(m.install("/new", "meta9d"), "start it again to have the new version")
	m.stop(d)
	if out := m.install("/new", "meta9d"); strings.Contains(out, "meta9d: ") || strings.Contains(out, " serves") {
		t.Errorf("nobody serves, and the installation says\n%s", out)
	}

	m.run("dpkg --remove meta9d")
	m.there(false, "/usr/bin/meta9d", "/usr/lib/systemd/system/meta9d.service")
	m.there(true, "/var/lib/meta9/meta9.db", "/etc/meta9d.toml")
	m.install("/new", "meta9d")
	d = m.start()
	m.says(m.run("meta9 cat names/web0/keys/color"), "blue")
	m.stop(d)

	// The folders have an owner of their own (User=), and are mounts: they keep it, and are
	// emptied.
	for _, dir := range []string{"/var/lib/meta9", "/run/meta9"} {
		if err := syscall.Mount(m.path(dir), m.path(dir), "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(m.path(dir), syscall.MNT_DETACH) })
		m.run("chown anna " + dir)
	}
	m.install("/new", "meta9d")
	m.says(m.run("stat -c %U /var/lib/meta9 /run/meta9"), "anna\nanna\n")
	m.run("dpkg --purge meta9d meta9")
	for _, dir := range []string{"/var/lib/meta9", "/run/meta9"} {
		if err := syscall.Unmount(m.path(dir), 0); err != nil {
			t.Fatal(err)
		}
		m.run("rmdir " + dir) // it is empty
	}
	m.run("rm -r /etc/meta9")
	m.run("userdel anna")
	m.run("userdel otto")
	m.purged(clean)
}

// purged wants no more files than before.
func (m *machine) purged(clean []string) {
	m.t.Helper()
	for _, file := range m.tree() {
		if !slices.Contains(clean, file) && !strings.HasSuffix(file, "-") {
			m.t.Errorf("after purge there is still %s", file)
		}
	}
}

// settings: the conffile is all comments, and says of every setting what its default is.
func (m *machine) settings() {
	m.t.Helper()
	text := m.read("/etc/meta9d.toml")
	for line := range strings.Lines(text) {
		if line != "\n" && !strings.HasPrefix(line, "#") {
			m.t.Errorf("a setting is set: %s", line)
		}
	}
	set := regexp.MustCompile(`(?m)^#([^ \n])`).ReplaceAllString(text, "$1")
	if n := strings.Count(set, " = "); n < 40 {
		m.t.Errorf("there are %d settings", n)
	}
	for file, text := range map[string]string{"/tmp/set.toml": set, "/tmp/wrong.toml": "nonsense = 1\n"} {
		if err := os.WriteFile(m.path(file), []byte(text), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	m.run("meta9d --check-config --config /etc/meta9d.toml")
	m.run("meta9d --check-config --config /tmp/set.toml")
	for _, file := range []string{"/tmp/wrong.toml", "/tmp/absent.toml"} {
		out, err := m.try("", "meta9d", "--check-config", "--config", file)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			m.t.Errorf("--config %s: %v\n%s", file, err, out)
		}
	}
	m.run("mv /etc/meta9d.toml /etc/aside")
	m.run("meta9d --check-config --config /etc/meta9d.toml")
	m.run("mv /etc/aside /etc/meta9d.toml")
	m.run("rm /tmp/set.toml /tmp/wrong.toml")
}

// unit: systemd has nothing to say of the units, and of their security little: each point
// that is missed has its reason in the unit.
func (m *machine) unit() {
	m.t.Helper()
	const service = "/usr/lib/systemd/system/meta9d.service"
	if out := m.run("systemd-analyze verify " + service + " /usr/lib/systemd/system/meta9d.socket"); out != "" {
		m.t.Errorf("systemd-analyze verify: %s", out)
	}
	out := m.run("systemd-analyze security --offline=true --threshold=27 --no-pager " + service)
	text := m.read(service)
	missed := 0
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "✗" {
			missed++
			if !regexp.MustCompile(`(?m)^#.*[ ,]` + regexp.QuoteMeta(f[1])).MatchString(text) {
				m.t.Errorf("%s is missed, and the unit does not say why", f[1])
			}
		}
	}
	if missed == 0 {
		m.t.Errorf("nothing is missed:\n%s", out)
	}
	m.t.Log(strings.TrimSpace(out[strings.LastIndex(out, "→"):]))
}

// guest: meta9-guest takes the place of meta9, and of joyent-mdata-client.
func (m *machine) guest(t *testing.T) {
	m.t = t
	m.run("dpkg --purge meta9d meta9 meta9-guest") // also after a part that failed
	clean := m.tree()
	// It is no client for a host: meta9d keeps meta9.
	m.install("/new", "meta9", "meta9d")
	if out, err := m.try("", "dpkg", "--install", deb("/new", "meta9-guest", afterDeb, "amd64")); err == nil || !strings.Contains(out, "meta9d depends on meta9") {
		t.Errorf("meta9-guest beside meta9d: %v\n%s", err, out)
	}
	m.run("dpkg --purge meta9d")
	m.says(m.install("/new", "meta9-guest"), "removing meta9 in favour of meta9-guest")
	if out, err := m.try("", "dpkg-query", "-W", "-f", "${db:Status-Status}", "meta9"); err == nil && out == "installed" {
		t.Error("meta9 is installed beside meta9-guest")
	}
	m.says(m.run("man --where mdata-get mount.meta9"), "/meta9-mdata-get.1.gz", "/meta9-mount.1.gz")
	units := "/usr/lib/systemd/system/"
	if out := m.run("systemd-analyze verify " + units + "metadata.mount " + units + "meta9-agent.service " + units + "meta9-credential.socket"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	m.run("dpkg --force-depends --install " + deb("/new", "meta9d", afterDeb, "amd64")) // something that answers
	d := m.start()
	m.runWith(payload, "meta9 vm create")
	dev := " --dev /run/meta9/" + testenv.UUID(1) + "/mdata.sock "
	m.run("mdata-put" + dev + "color blue")
	if out := m.run("mdata-get" + dev + "color"); out != "blue" {
		t.Errorf("mdata-get: %q", out)
	}
	if out := m.run("mdata-list" + dev); out != "motd\ncolor\n" {
		t.Errorf("mdata-list: %q", out)
	}
	m.run("mdata-delete" + dev + "color")
	if out, err := m.try("", strings.Fields("mdata-get"+dev+"color")...); fmt.Sprint(err) != "exit status 1" {
		t.Errorf("mdata-get of what is not there: %v\n%s", err, out)
	}
	if out, err := m.try("", "mount.meta9", "tcp:127.0.0.1:1", "/mnt"); fmt.Sprint(err) != "exit status 32" {
		t.Errorf("mount.meta9: %v\n%s", err, out)
	}
	m.stop(d)
	m.run("dpkg --purge meta9d meta9-guest meta9") // meta9 was removed, and left nothing
	m.purged(clean)
}

func (m *machine) write(file, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(file)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(file), []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// certificates makes one that is the authority, the daemon's and the admin's.
func (m *machine) certificates() {
	m.t.Helper()
	cert, key := certtest.PEM(m.t, certtest.Make(m.t, nil, x509.Certificate{
		Subject: pkix.Name{CommonName: "operator"}, IPAddresses: certtest.Local, NotAfter: time.Now().Add(24 * time.Hour),
	}))
	m.write("/etc/meta9/test.toml", "[tls]\ncert = \"/etc/meta9/cert.pem\"\nkey = \"/etc/meta9/cert.pem\"\nca = \"/etc/meta9/cert.pem\"\nadmin = \"operator\"\n")
	m.write("/etc/meta9/cert.pem", string(cert)+string(key))
}
