// Package doctor breaks hosts of a real meta9d, each in one way, and looks whether
// `meta9 doctor` finds it and says what mends it.
package doctor

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meta9/fs/vm"
	"meta9/session/listen/certtest"
	"meta9/tests/daemon"
	"meta9/tests/proc"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// small are limits for which the descriptors of any machine are enough.
const small = "[limits]\nconnections = 100\n"

// host is a host with a meta9d.
type host struct {
	*testenv.Server
	t *testing.T
}

// newHost starts a meta9d. Whoever has to can enter its folder.
func newHost(t *testing.T, o daemon.Options) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, as doctor does")
	}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "m9-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		o.Dir = dir
	}
	o.Bin = cmp.Or(o.Bin, testenv.Plain(t, "meta9d"))
	return &host{testenv.Start(t, o), t}
}

// newVM makes one, with more properties.
func (h *host) newVM(more string) (uuid string) {
	h.t.Helper()
	uuid = vm.NewUUID() // no QEMU of another test on this machine has it
	h.NewVM(uuid, `{"uuid":"`+uuid+`"`+more+`}`)
	return uuid
}

// said is what doctor says.
type said struct {
	Well     bool
	Findings []struct{ What, Mend string }
	Unseen   []string
	code     int
}

// run runs a command.
func run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var failed *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Errorf("%v says %s", args, stderr.String())
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// doctor asks it; before are arguments that come before meta9.
func (h *host) doctor(before ...string) (s said) {
	h.t.Helper()
	out, code := run(h.t, append(before, testenv.Plain(h.t, "meta9"), "--addr", "unix:"+h.Admin(), "doctor", "--data", h.Data(), "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	s.code = code
	return s
}

// finds wants just one finding, which has these words, and a mend that has the last.
func (h *host) finds(s said, words ...string) {
	h.t.Helper()
	if s.code != 1 || s.Well || len(s.Findings) != 1 || len(s.Unseen) != 0 {
		h.t.Fatalf("doctor says %+v; one finding was wanted: %v", s, words)
	}
	f := s.Findings[0]
	mend := words[len(words)-1]
	for _, word := range words[:len(words)-1] {
		if !strings.Contains(f.What, word) {
			h.t.Errorf("found: %s; wanted %q in it", f.What, word)
		}
	}
	if !strings.Contains(f.Mend, mend) {
		h.t.Errorf("the mend of %q is %q; wanted %q in it", f.What, f.Mend, mend)
	}
	h.t.Logf("what: %s; mend: %s", f.What, f.Mend)
}

// well waits until nothing is found.
func (h *host) well() {
	h.t.Helper()
	var last said
	deadline := time.Now().Add(20 * time.Second)
	for last = h.doctor(); last.code != 0 || !last.Well; last = h.doctor() {
		if time.Now().After(deadline) {
			h.t.Fatalf("not well: %+v", last)
		}
	}
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// qemu runs a QEMU without a machine until the test ends, or kill is called; as a user, if
// uid is not 0.
func (h *host) qemu(uid uint32, args ...string) (kill func()) {
	h.t.Helper()
	testenv.NeedDebian(h.t, "qemu-system-x86_64", "qemu-system-x86")
	cmd := exec.Command("qemu-system-x86_64", append([]string{"-machine", "none", "-nodefaults", "-display", "none", "-S"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	h.must(cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	kill = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	h.t.Cleanup(func() {
		kill()
		if h.t.Failed() {
			h.t.Logf("QEMU: %s", stderr.String())
		}
	})
	return kill
}

// nobody is a user who may do nothing.
const nobody = 65534

// TestBroken breaks one host in many ways, one after the other, and mends each.
func TestBroken(t *testing.T) {
	h := newHost(t, daemon.Options{Config: small})
	uuid := h.newVM(`,"alias":"web0"`)
	h.well()
	if out, code := run(t, testenv.Plain(t, "meta9"), "--addr", "unix:"+h.Admin(), "doctor"); code != 0 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "all is well: meta9d ") {
		t.Errorf("a host that is well: exit code %d, %q", code, out)
	}
	for _, c := range []struct {
		name   string
		breaks func() error
		mends  func() error
		words  []string
	}{
		{
			name:   "others write to the run folder",
			breaks: func() error { return os.Chmod(h.Run(), 0o777) },
			mends:  func() error { return os.Chmod(h.Run(), 0o755) },
			words:  []string{"others can write to the run folder " + h.Run(), "chmod 0755 " + h.Run()},
		},
		{
			name:   "the admin's socket is in another user's folder",
			breaks: func() error { return os.Chown(h.Run(), nobody, nobody) },
			mends:  func() error { return os.Chown(h.Run(), 0, 0) },
			words:  []string{h.Run() + " belongs to user 65534", "chown 0 " + h.Run()},
		},
		{
			name:   "others write to the data folder",
			breaks: func() error { return os.Chmod(h.Data(), 0o770) },
			mends:  func() error { return os.Chmod(h.Data(), 0o700) },
			words:  []string{"others can write to the data folder", "chmod 0700 " + h.Data()},
		},
		{
			name:   "another folder could come in place of it",
			breaks: func() error { return os.Chmod(h.Dir, 0o777) },
			mends:  func() error { return os.Chmod(h.Dir, 0o755) },
			words:  nil, // of both folders
		},
		{
			name: "the clock is behind",
			breaks: func() error {
				at := time.Now().Add(time.Hour)
				return os.Chtimes(filepath.Join(h.Data(), "meta9.db"), at, at)
			},
			mends: func() error { return os.Chtimes(filepath.Join(h.Data(), "meta9.db"), time.Now(), time.Now()) },
			words: []string{"the clock is behind by 1h0m0s", "timedatectl"},
		},
		{
			name:   "settings that cannot be used",
			breaks: func() error { return os.WriteFile(filepath.Join(h.Dir, "meta9d.toml"), []byte("lisen = 1\n"), 0o600) },
			mends:  func() error { return os.WriteFile(filepath.Join(h.Dir, "meta9d.toml"), []byte(small), 0o600) },
			words:  []string{"could not start with its settings", "unknown: lisen", "meta9d --check-config --run"},
		},
		{
			name:   "sessions were set aside",
			breaks: func() error { return os.WriteFile(filepath.Join(h.Data(), "residence.aside-1"), nil, 0o600) },
			mends:  func() error { return os.Remove(filepath.Join(h.Data(), "residence.aside-1")) },
			words:  []string{"residence.aside-1", "remove it"},
		},
		{
			name: "something is in the place of a VM's socket",
			breaks: func() error {
				if err := os.Remove(h.VM(uuid)); err != nil {
					return err
				}
				return os.WriteFile(h.VM(uuid), []byte("mine"), 0o600)
			},
			mends: func() error { return os.Remove(h.VM(uuid)) }, // meta9d makes it again
			words: []string{"sockets of VM " + uuid + " are missing", "what is in their way"},
		},
		{
			name:   "others write to a VM's folder",
			breaks: func() error { return os.Chmod(filepath.Dir(h.VM(uuid)), 0o777) },
			mends:  func() error { return os.Chmod(filepath.Dir(h.VM(uuid)), 0o710) },
			words:  []string{"others can write to the folder of VM " + uuid, "chmod g-w,o-w"},
		},
	} {
		h.must(c.breaks())
		s := h.doctor()
		if c.words == nil {
			if s.code != 1 || len(s.Findings) != 2 || !strings.Contains(s.Findings[1].What, "others can write to "+h.Dir) {
				t.Errorf("%s: doctor says %+v", c.name, s)
			}
		} else {
			h.finds(s, c.words...)
		}
		h.must(c.mends())
		h.well()
	}
}

// TestDown: a meta9d that does not answer is a finding, and the rest is looked at.
func TestDown(t *testing.T) {
	h := newHost(t, daemon.Options{Config: small})
	h.must(h.Stop(20 * time.Second))
	h.must(os.Chmod(h.Data(), 0o770))
	s := h.doctor()
	if s.code != 1 || len(s.Findings) != 2 || !strings.Contains(s.Findings[0].What, "meta9d does not run: there is no "+h.Admin()) ||
		!strings.Contains(s.Findings[0].Mend, "systemctl start meta9d") || !strings.Contains(s.Findings[1].What, "others can write to the data folder") {
		t.Errorf("doctor says %+v", s)
	}
	// Whoever may not look at all says that.
	h2 := newHost(t, daemon.Options{Config: small})
	bin := filepath.Join(h2.Dir, "meta9")
	copyFile(t, testenv.Plain(t, "meta9"), bin)
	out, code := run(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bin, "--addr", "unix:"+h2.Admin(), "doctor", "--data", h2.Data())
	if code != 2 || !strings.Contains(out, "not looked at: meta9d: you may not open "+h2.Admin()) || strings.Contains(out, "what:") {
		t.Errorf("exit code %d: %s", code, out)
	}
	// So does whoever may not even look for the socket.
	h2.must(os.Chmod(h2.Run(), 0o700))
	h2.must(os.Symlink("run", filepath.Join(h2.Dir, "meta9-run")))
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bin, "ls")
	cmd.Dir, cmd.Env = h2.Dir, []string{"PATH=" + os.Getenv("PATH")}
	if text, err := cmd.CombinedOutput(); fmt.Sprint(err) != "exit status 3" || !strings.Contains(string(text), "you may not enter the folder of ") {
		t.Errorf("%v: %s", err, text)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWorkingFolder: a meta9d that names its run folder from where it was started, as that of
// make run does, has its sockets all the same.
func TestWorkingFolder(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, daemon.Options{Dir: dir, Config: small, Args: []string{"--run", "run"}, Wrap: []string{"sh", "-c", `cd "$0" && exec "$@"`, dir}})
	uuid := h.newVM("")
	c, err := net.Dial("unix", h.VM(uuid))
	h.must(err)
	defer c.Close()
	h.pretender("-uuid", uuid, "-chardev", "socket,id=m,path="+h.VM(uuid))
	h.well()
}

// TestDescriptors: the limits come to more than the system allows.
func TestDescriptors(t *testing.T) {
	h := newHost(t, daemon.Options{Config: "[limits]\nconnections = 1000\n", Wrap: []string{"prlimit", "--nofile=1024:1024"}})
	h.finds(h.doctor(), "meta9d may open 1024 files", "needs 3", "LimitNOFILE=3")
}

// TestFullDisk: the data folder is on a disk that has no room left.
func TestFullDisk(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// In a mount namespace of its own, which doctor enters.
	script := `mkdir -m 700 "$0/data" && mount -t tmpfs -o size=40m,mode=0700 tmpfs "$0/data" && exec "$@"`
	h := newHost(t, daemon.Options{Dir: dir, Config: small, Wrap: []string{"unshare", "-m", "--propagation", "private", "sh", "-c", script, dir}})
	h.finds(h.doctor("nsenter", "-t", fmt.Sprint(h.PID()), "-m"), "the disk of "+h.Data()+" has only", "make room there: 64.0 MiB")
}

// TestVersions: another meta9, and a program that was replaced, as by a package.
func TestVersions(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "meta9d")
	copyFile(t, testenv.Plain(t, "meta9d"), bin)
	h := newHost(t, daemon.Options{Bin: bin, Config: small})
	h.must(os.Remove(bin))
	h.finds(h.doctor(), "a program that is no longer at "+bin, "meta9 upgrade")
	copyFile(t, testenv.Plain(t, "meta9d"), bin)
	other, err := daemon.Build(filepath.Join(dir, "other"), "meta9", "-ldflags=-X meta9/cmd/version.named=v0.0.1")
	h.must(err)
	out, code := run(t, other, "--addr", "unix:"+h.Admin(), "doctor")
	if code != 1 || !strings.Contains(out, "and this meta9 is v0.0.1; mend: ") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestSecrets: a certificate that ends, one that has ended, and a secret that is too short.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	cert := filepath.Join(dir, "cert.pem")
	writeCertificate(t, cert, 24*time.Hour)
	config := fmt.Sprintf("listen = [\"tls:127.0.0.1:0\"]\n[tls]\ncert = %q\nkey = %q\nca = %q\n[mumble]\nsecret = %q\n%s", cert, cert, cert, strings.Repeat("s", 32), small)
	h := newHost(t, daemon.Options{Config: config})
	h.finds(h.doctor(), "the certificate of the tls listeners ends on", "systemctl reload meta9d")
	writeCertificate(t, cert, -24*time.Hour)
	h.must(h.Signal(syscall.SIGHUP))
	testenv.Eventually(t, "the daemon has the new certificate", func() bool {
		s := h.doctor()
		return len(s.Findings) == 1 && strings.Contains(s.Findings[0].What, "has ended")
	})
	writeCertificate(t, cert, 300*24*time.Hour)
	h.must(h.Signal(syscall.SIGHUP))
	h.well()
	uuid := h.newVM(`,"internal_metadata":{"mumble_secret_pw":"short"}`)
	h.finds(h.doctor(), "the MUMBLE secret of VM "+uuid+" is too short", "openssl rand -hex 32")
}

// writeCertificate writes a certificate of its own authority that is good for so long.
func writeCertificate(t *testing.T, file string, good time.Duration) {
	t.Helper()
	now := time.Now()
	certtest.Write(t, certtest.Make(t, nil, x509.Certificate{
		Subject: pkix.Name{CommonName: "meta9d"}, DNSNames: []string{"localhost"}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(good),
	}), file, file)
}

// TestMirror: what is mirrored does not answer.
func TestMirror(t *testing.T) {
	h := newHost(t, daemon.Options{Config: small, Args: []string{"--vminfod-from", "http://127.0.0.1:1"}})
	h.finds(h.doctor(), "the mirror lags: http://127.0.0.1:1", "see whether it runs")
}

// TestQEMUs: real QEMUs that are not as their VMs are.
func TestQEMUs(t *testing.T) {
	h := newHost(t, daemon.Options{Config: small})

	// Its user may not open the socket; with what mends it he may.
	uuid := h.newVM("")
	link := filepath.Join(filepath.Dir(h.VM(uuid)), "link.sock")
	kill := h.qemu(nobody, "-uuid", uuid, "-chardev", "socket,id=m,reconnect=1,path="+link)
	testenv.Eventually(t, "the QEMU is seen", func() bool { return len(h.doctor().Findings) > 0 })
	h.finds(h.doctor(), "the QEMU of VM "+uuid, "user nobody, may not open "+link+": permission denied", "meta9 vm update "+uuid+" 9p_owner=nobody")
	h.must(h.Ctl("update " + uuid + ` {"9p_owner":"nobody"}`))
	h.well()

	// Another QEMU of the same UUID.
	second := h.qemu(0, "-uuid", uuid)
	testenv.Eventually(t, "the second QEMU is seen", func() bool { return len(h.doctor().Findings) > 0 })
	h.finds(h.doctor(), "two QEMUs have the UUID "+uuid, "end one of them")
	second()
	h.well()
	kill()

	// One that does not connect again.
	uuid = h.newVM("")
	link = filepath.Join(filepath.Dir(h.VM(uuid)), "link.sock")
	kill = h.qemu(0, "-uuid", uuid, "-chardev", "socket,id=m,path="+link)
	testenv.Eventually(t, "the QEMU is connected", func() bool {
		text, err := os.ReadFile("/proc/net/unix")
		return err == nil && strings.Count(string(text), link) == 2
	})
	h.well()
	h.PlannedRestart()
	h.finds(h.doctor(), "is not connected to "+link, "reconnect=1")
	kill()
	h.well()

	// One without the device that the VM is said to have.
	device := filepath.Join(h.Dir, "device.sock")
	uuid = h.newVM(`,"9p_chardev":"` + device + `,link"`)
	h.well() // it is switched off
	kill = h.qemu(0, "-uuid", uuid)
	testenv.Eventually(t, "the QEMU is seen", func() bool { return len(h.doctor().Findings) > 0 })
	h.finds(h.doctor(), "VM "+uuid+" runs", "its 9p_chardev, "+device+", is not there", "meta9 vm attach "+uuid)
	kill()
	h.qemu(0, "-uuid", uuid, "-chardev", "socket,id=m,server=on,wait=off,path="+device)
	h.well()
}

// TestMonitor: another client holds the monitor that meta9d is to follow.
func TestMonitor(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "qmp.sock")
	first := &host{t: t}
	first.qemu(0, "-uuid", vm.NewUUID(), "-qmp", "unix:"+path+",server=on,wait=off")
	var other net.Conn
	testenv.Eventually(t, "the monitor is there", func() (ok bool) {
		var err error
		other, err = net.Dial("unix", path)
		return err == nil
	})
	defer other.Close()
	if _, err := other.Read(make([]byte, 1)); err != nil { // it is served to this one
		t.Fatal(err)
	}
	h := newHost(t, daemon.Options{Config: small, Args: []string{"--qmp", "unix:" + path}})
	testenv.Eventually(t, "meta9d has left the queue", func() bool { return len(h.doctor().Findings) > 0 })
	h.finds(h.doctor(), "the QEMU at "+path+" does not answer meta9d: another client holds this monitor", "-qmp unix:PATH")
}

// TestOtherUser: a meta9d that is not root's, on a socket that root listened on, as systemd
// does. Its program is not run as root, and its folders may be its own.
func TestOtherUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t}
	for _, folder := range []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "data")} {
		_ = os.Mkdir(folder, 0o700)
		h.must(os.Chown(folder, nobody, nobody))
	}
	h.must(os.Chown(dir, 0, 0))
	h.must(os.Chmod(dir, 0o755))
	h.must(os.Chmod(filepath.Join(dir, "run"), 0o755))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "run", "admin.sock"), Net: "unix"})
	h.must(err)
	l.SetUnlinkOnClose(false)
	socket, err := l.File()
	h.must(err)
	t.Cleanup(func() { socket.Close(); l.Close() })
	h.must(os.Chown(filepath.Join(dir, "run", "admin.sock"), nobody, nobody))
	bin := filepath.Join(dir, "meta9d")
	copyFile(t, testenv.Plain(t, "meta9d"), bin)
	h.must(os.Chown(bin, nobody, nobody))
	config := filepath.Join(dir, "meta9d.toml")
	h.must(os.WriteFile(config, []byte(small), 0o644))
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`,
		bin, "--run", filepath.Join(dir, "run"), "--data", filepath.Join(dir, "data"), "--config", config)
	cmd.ExtraFiles = []*os.File{socket}
	p, err := proc.Start(cmd, time.Minute)
	h.must(err)
	t.Cleanup(p.Kill)
	h.Server = &testenv.Server{Daemon: &daemon.Daemon{Proc: p, Options: daemon.Options{Dir: dir, Bin: bin}}}

	h.must(os.WriteFile(config, []byte("lisen = 1\n"), 0o644)) // whoever executes it finds this
	s := h.doctor()
	if s.code != 2 || len(s.Findings) != 0 || len(s.Unseen) != 1 || !strings.Contains(s.Unseen[0], "it runs as user nobody; as that user 'meta9d --run "+h.Run()) {
		t.Errorf("doctor says %+v", s)
	}
	// That user cannot look either: the kernel shows a process that makes no core file, since its
	// memory has secrets, to root alone. Doctor says so, and is not well.
	client := filepath.Join(dir, "meta9")
	copyFile(t, testenv.Plain(t, "meta9"), client)
	out, code := run(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", client, "--addr", "unix:"+h.Admin(), "doctor")
	if code != 2 || !strings.Contains(out, "not looked at: meta9d's process, its settings") || !strings.Contains(out, "or doctor is not root") || strings.Contains(out, "what:") {
		t.Errorf("as its user: exit code %d: %s", code, out)
	}
}

// pretender starts what looks like a QEMU, until the test ends.
func (h *host) pretender(args ...string) {
	h.t.Helper()
	cmd := exec.Command("bash", "-c", "read -r", "x")
	cmd.Args[0] = "qemu-system-none"
	cmd.Args = append(cmd.Args, args...)
	in, err := cmd.StdinPipe()
	h.must(err)
	h.must(cmd.Start())
	h.t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
}

// TestWays: the run folder has another name, by a symbolic link, in the QEMU's arguments,
// and the QEMU is in another network namespace. Both are well.
func TestWays(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run", filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) }) // after meta9d's end: a thread that ends ends what it has started (tests/proc)
	h := newHost(t, daemon.Options{Dir: dir, Config: small})
	path := func(uuid string) string { return filepath.Join(dir, "other", uuid, "9p.sock") }

	uuid := h.newVM("")
	c, err := net.Dial("unix", path(uuid))
	h.must(err)
	defer c.Close()
	h.pretender("-uuid", uuid, "-chardev", "socket,id=m,path="+path(uuid))
	h.well()

	uuid = h.newVM("")
	device := filepath.Join(dir, "other", uuid, "device.sock")
	h.must(h.Ctl("update " + uuid + ` {"9p_chardev":"` + device + `,link"}`))
	ready := make(chan error)
	go func() { // the thread is not used any more after it
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- err
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path(uuid)})
		}
		if err == nil {
			var l net.Listener
			if l, err = net.Listen("unix", filepath.Join(h.Run(), uuid, "device.sock")); err == nil {
				defer l.Close()
				go func() {
					if c, err := l.Accept(); err == nil { // meta9d's
						<-done
						c.Close()
					}
				}()
			}
		}
		if err == nil {
			h.pretender("-uuid", uuid, "-chardev", "socket,id=m,path="+path(uuid))
		}
		ready <- err
		<-done
	}()
	h.must(<-ready)
	h.well()
}

// TestContainer: what a meta9d in a PID namespace of its own says of its process and its
// paths is true there, and is not looked for here.
func TestContainer(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t}
	h.must(os.Chmod(dir, 0o755))
	config := filepath.Join(dir, "meta9d.toml")
	h.must(os.WriteFile(config, []byte(small), 0o644))
	bin := testenv.Plain(t, "meta9d")
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", bin, "--run", filepath.Join(dir, "run"), "--data", filepath.Join(dir, "data"), "--config", config)
	p, err := proc.Start(cmd, time.Minute)
	h.must(err)
	t.Cleanup(p.Kill)
	h.Server = &testenv.Server{Daemon: &daemon.Daemon{Proc: p, Options: daemon.Options{Dir: dir, Bin: bin}}}
	h.must(os.WriteFile(config, []byte("lisen = 1\n"), 0o644))
	s := h.doctor()
	if s.code != 2 || len(s.Findings) != 0 || len(s.Unseen) != 1 || !strings.Contains(s.Unseen[0], "it is in a container") {
		t.Errorf("doctor says %+v", s)
	}
}
