package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
)

// block is the first block of that language in docs/fleet.md.
func block(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/fleet.md has no block of %s", language)
	}
	return string(found[1])
}

// TestSetUp runs the lines of docs/fleet.md that set up etcd, and meta9d with the settings
// there; then with each of them wrong.
func TestSetUp(t *testing.T) {
	dir := folder(t)
	for name, of := range map[string]string{"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3"} {
		if said, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), of).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	free, err := daemon.FreeAddrs(2)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free[0])
	// That port may be taken, and the files are in dir, where meta9d is started.
	here := strings.NewReplacer(":2379", ":"+port, "/etc/meta9/", "").Replace
	peer := "http://" + free[1]
	sh := exec.Command("sh", "-ec", here(block(t, "sh"))+"\necho all is set up\nwait")
	sh.Dir = dir
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	sh.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "ETCD_LOG_LEVEL=fatal",
		"ETCD_LISTEN_PEER_URLS="+peer, "ETCD_INITIAL_ADVERTISE_PEER_URLS="+peer, "ETCD_INITIAL_CLUSTER=default="+peer)
	said := new(lines)
	sh.Stdout, sh.Stderr = said, said
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-sh.Process.Pid, syscall.SIGKILL)
		_ = sh.Wait()
	}()
	said.until(t, "all is set up")

	_, settings, _ := strings.Cut(here(block(t, "toml")), "[cluster]\n")
	settings = regexp.MustCompile(`(?m)^host = .*\n`).ReplaceAllString(settings, "")
	a := begin(t, dir, "host1", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.must("vm", "create", "web0", "-m", "motd=hello")
	if code, log := a.stop(); code != 0 || strings.Contains(log, "asks nobody") || strings.Contains(log, "every user") {
		t.Fatalf("exit %d\n%s", code, log)
	}
	a = begin(t, dir, "host1", settings)
	a.until("hello", "cat", "/names/web0/keys/motd")

	// A user who may write no longer: a stale state, and not an end.
	etcdctl := func(args ...string) {
		t.Helper()
		root, err := os.ReadFile(filepath.Join(dir, "root.password"))
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(filepath.Join(dir, "etcdctl"), append([]string{"--endpoints=https://127.0.0.1:" + port, "--cacert=ca.crt", "--user=root:" + strings.TrimSpace(string(root))}, args...)...)
		c.Dir = dir
		if said, err := c.CombinedOutput(); err != nil {
			t.Fatalf("etcdctl %s: %v\n%s", args, err, said)
		}
	}
	etcdctl("user", "revoke-role", "meta9", "meta9")
	if out, err := a.meta9("put", "/names/web0/keys/motd", "refused"); err == nil || !strings.Contains(out, "not read and write below /meta9/v1/") {
		t.Errorf("a write that etcd does not allow: %v, %s", err, out)
	}
	if out, err := a.meta9("fleet", "status"); err == nil || !strings.Contains(out, "not read and write below /meta9/v1/") {
		t.Errorf("fleet status then: %v\n%s", err, out)
	}
	if got := a.must("cat", "/names/web0/keys/motd"); got != "hello" {
		t.Errorf("a read then: %q", got)
	}
	etcdctl("user", "grant-role", "meta9", "meta9")
	a.must("put", "/names/web0/keys/motd", "allowed again")
	a.must("fleet", "status")

	for _, file := range []string{"wrong.password", "wrong.key"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("none of those above\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ was, is, why string }{
		"password":  {`"etcd.password"`, `"wrong.password"`, "the name or the password is wrong"},
		"nobody":    {"user = \"meta9\"\npassword_file = \"etcd.password\"\n", "", "etcd wants a user and a password"},
		"clear":     {"https://127.0.0.1:" + port + "\"]", "http://127.0.0.1:" + port + "\"]", "it speaks TLS: write https://"},
		"prefix":    {"", "prefix = \"/others/\"\n", "not read and write below /others/"},
		"authority": {"ca = \"ca.crt\"\n", "", "cluster.ca is not set"},
		"another":   {`"ca.crt"`, `"` + certificate(t, dir, "another") + `"`, "of no authority of cluster.ca, " + dir},
		"secret":    {`"fleet.key"`, `"wrong.key"`, "is in use by the fleet"},
	} {
		text := strings.Replace(settings, c.was, c.is, 1)
		if name == "clear" {
			text = strings.Replace(text, "ca = \"ca.crt\"\n", "", 1)
		}
		from := time.Now()
		code, log := begin(t, dir, name, text).end()
		if took := time.Since(from); (name == "authority" || name == "another" || name == "clear") && took > 5*time.Second {
			t.Errorf("%s: known after %s", name, took)
		}
		all := strings.Split(strings.TrimSpace(log), "\n")
		if last := all[len(all)-1]; code != 2 || !strings.HasPrefix(last, "meta9d: ") || !strings.Contains(last, c.why) {
			t.Errorf("%s: exit %d, want 2; the last line is %q, want %q in it", name, code, last, c.why)
		}
	}
}

// TestOpenToAll: the log warns where a secret can be read by every user, and where etcd asks for no password.
func TestOpenToAll(t *testing.T) {
	dir := folder(t)
	settings := started(t, dir).settingsOf(t, dir)
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("not asked for\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings += "user = \"meta9\"\npassword_file = \"password\"\n"
	for _, c := range []struct {
		mode os.FileMode
		want int
	}{{0o640, 0}, {0o644, 1}} {
		if err := os.Chmod(filepath.Join(dir, "key"), c.mode); err != nil {
			t.Fatal(err)
		}
		a := begin(t, dir, "a", settings)
		a.until("fleet_etcd ok", "cat", "/ctl")
		_, log := a.stop()
		if n := strings.Count(log, "cluster.key_file: every user of this system"); n != c.want {
			t.Errorf("mode %o: %d warnings, want %d:\n%s", c.mode, n, c.want, log)
		}
		if n := strings.Count(log, "etcd asks nobody for a password"); n != 1 || strings.Contains(log, "cluster.password_file: ") {
			t.Errorf("%d warnings of an etcd that asks nobody:\n%s", n, log)
		}
	}
}

// lines are what a program says.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// all is what was said.
func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// until waits until that was said.
func (l *lines) until(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		text := l.all()
		if strings.Contains(text, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q was never said, but:\n%s", want, text)
		}
	}
}
