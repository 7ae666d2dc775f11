package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/session/auth"
	"meta9/session/wire"
)

const vmUUID = "01b2c898-945f-11e1-a523-af1afbe22822"

const payload = `{"uuid":"` + vmUUID + `","alias":"web","customer_metadata":{"hostname":"web1"}}`

// parse is what a command line asks for.
func parse(args []string) (got command, err error) {
	root := newRoot(args, command.complete, func(c command) error {
		got = c
		return nil
	})
	root.SetOut(io.Discard)
	return got, root.Execute()
}

// TestHelp: the help fits a terminal, and is asked for by both spellings.
func TestHelp(t *testing.T) {
	code, out, errs := call(t, t.TempDir(), "--help")
	if code != 0 || errs != "" || !strings.Contains(out, "Usage: meta9d [OPTION]...") || !strings.Contains(out, "--listen ADDR") || !strings.Contains(out, "Exit status:") {
		t.Errorf("exit %d, stderr %q, stdout:\n%s", code, errs, out)
	}
	for line := range strings.Lines(out) {
		if len(line) > 80+1 {
			t.Errorf("the help has a line of %d characters: %s", len(line), line)
		}
	}
	if _, short, _ := call(t, t.TempDir(), "-h", "--trace"); short != out {
		t.Errorf("-h says\n%s", short)
	}
}

// TestLateStartFails: a start that fails when its first listeners are open already ends at
// once, and says why.
func TestLateStartFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for _, args := range [][]string{{"--metrics", taken}, {"--http", taken}} {
		code, out, errs := call(t, t.TempDir(), args...)
		if code <= 0 || out != "" || !strings.Contains(errs, taken) || !strings.Contains(errs, "address already in use") {
			t.Errorf("%v: exit %d, %q, stderr:\n%s", args, code, out, errs)
		}
	}
}

// TestCompletion: a shell can be told of the flags, and of what some take.
func TestCompletion(t *testing.T) {
	code, out, _ := call(t, t.TempDir(), "completion", "bash")
	if code != 0 || !strings.Contains(out, "__start_meta9d") {
		t.Errorf("exit %d, %d bytes", code, len(out))
	}
	code, out, _ = call(t, t.TempDir(), "__complete", "--log-level", "")
	if code != 0 || !strings.HasPrefix(out, "debug\ninfo\nwarn\nerror\n") {
		t.Errorf("exit %d, %q", code, out)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := call(t, t.TempDir(), "--version")
	if code != 0 || !strings.HasPrefix(out, "meta9d ") {
		t.Errorf("exit %d, %q", code, out)
	}
}

// oneLineWith expects a refusal: an exit code, nothing on stdout, and the last
// line of stderr that says why.
func oneLineWith(t *testing.T, want int, reason string, dir string, args ...string) {
	t.Helper()
	code, out, errs := call(t, dir, args...)
	lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
	last := lines[len(lines)-1]
	if code != want || out != "" || !strings.HasPrefix(last, "meta9d: ") || !strings.Contains(last, reason) {
		t.Errorf("%v: exit %d, want %d; stdout %q; stderr %q, want %q", args, code, want, out, errs, reason)
	}
}

func TestRefusals(t *testing.T) {
	dir := shortDir(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, text := range map[string]string{
		"unknown.toml": "[limits]\nvalues = 3\n", "file": "", "short": "123\n",
		"mumble.toml": "[mumble]\nsecret_file = \"nowhere\"\n",
		"shorty.toml": "[mumble]\nsecret_file = \"short\"\n",
		"group.toml":  "[sockets]\ngroup = \"no-such-group\"\n",
		"tls.toml":    "[tls]\ncert = \"nowhere.pem\"\nkey = \"file\"\nca = \"file\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "odd", "meta9.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for reason, args := range map[string]string{
		"--dta":                    "--dta",
		"limits.values":            "--config unknown.toml",
		"nowhere.toml":             "--config nowhere.toml",
		"mumble.secret_file":       "--config mumble.toml",
		"short: 3 bytes; at least": "--config shorty.toml",
		"no-such-group":            "--config group.toml",
		"nowhere.pem":              "--config tls.toml",
		"not a directory":          "--data file",
		"is a directory":           "--data odd",
		"file/deep/er":             "--data file/deep/er",
		"file/x":                   "--run file/x",
		busy.Addr().String():       "--listen tcp:" + busy.Addr().String(),
		"--insecure":               "--listen tcp:127.0.0.1:0,as=admin",
		"nowhere/meta9.db":         "--check --data nowhere",
		"nothing that could be":    "--check --data=",
	} {
		oneLineWith(t, exitUsage, reason, dir, strings.Fields(args)...)
	}
	if _, err := os.Stat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("--check made a data folder")
	}
}

func TestInUse(t *testing.T) {
	dir := shortDir(t)
	start(t, dir)
	oneLineWith(t, exitFailure, "in use", dir, "--run", "other")
	oneLineWith(t, exitFailure, "in use", dir, "--check")
	oneLineWith(t, exitUsage, "in use", dir, "--data", "other") // the run folder
}

// TestServes is the daemon's life: a VM made by the admin, a guest that writes, a
// restart in between, and sockets that come and go with VM and daemon.
func TestServes(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir)
	admin := p.connect("meta9-run/admin.sock")
	admin.put("ctl", "create "+payload)
	sock := "meta9-run/" + vmUUID + "/9p.sock"
	guest := p.connect(sock) // it is there as soon as the create is answered
	guest.put("keys/motd", "hello")
	if v := admin.get("vms/" + vmUUID + "/keys/motd"); v != "hello" {
		t.Errorf("the admin reads %q", v)
	}
	if r := guest.roundtrip(&wire.Msg{Type: wire.Tsread, Fid: 0, Names: []string{"vms"}}); r.Type != wire.Rerror {
		t.Errorf("the guest reads vms: %s", r)
	}
	code, log := p.stop()
	if code != 0 {
		t.Errorf("SIGTERM: exit %d, log:\n%s", code, log)
	}
	p.until("the socket to go", "meta9-run/admin.sock", false)
	p.until("the VM's socket to go", sock, false)

	p = start(t, dir)
	guest = p.connect(sock)
	if v := guest.get("keys/motd") + guest.get("keys/hostname"); v != "helloweb1" {
		t.Errorf("after a restart %q", v)
	}
	p.connect("meta9-run/admin.sock").put("ctl", "delete "+vmUUID)
	p.until("the VM's socket to go", sock, false)
	if _, err := guest.r.ReadByte(); err == nil {
		t.Error("the deleted VM's connection is still served")
	}
}

// until polls for a file to be there, or gone.
func (p *proc) until(what, path string, there bool) {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(filepath.Join(p.dir, path)); (err == nil) == there {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("never: %s", what)
		}
	}
}

func TestMemoryOnly(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir, "--data", "")
	admin := p.connect("meta9-run/admin.sock")
	admin.put("ctl", "create "+payload)
	admin.put("names/web/keys/a", "b")
	if code, log := p.stop(); code != 0 || !strings.Contains(log, "memory only") {
		t.Errorf("exit %d, log:\n%s", code, log)
	}
	if _, err := os.Stat(filepath.Join(dir, "meta9-data")); err == nil {
		t.Error("a data folder was made")
	}
}

// TestDialledDevice: the daemon comes to a socket that the hypervisor owns.
func TestDialledDevice(t *testing.T) {
	dir := shortDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, "chardev"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := start(t, dir)
	p.connect("meta9-run/admin.sock").put("ctl",
		`create {"uuid":"`+vmUUID+`","9p_chardev":"`+filepath.Join(dir, "chardev")+`"}`)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	guest := newClient(t, c)
	guest.put("keys/a", "b")
	if v := guest.get("keys/a"); v != "b" {
		t.Errorf("got %q", v)
	}
	if code, log := p.stop(); code != 0 {
		t.Errorf("exit %d, log:\n%s", code, log)
	}
}

// TestMumbleByTheVMsOwnSecret: a guest that was given a secret signs for itself.
func TestMumbleByTheVMsOwnSecret(t *testing.T) {
	dir := shortDir(t)
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("of the host's own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := settings(t, "listen = [\"tcp:127.0.0.1:0\"]\n[mumble]\nsecret_file = \"secret\"\nadmin_groups = [\"ops\"]\n")
	p := start(t, dir, "--config", conf)
	admin := p.connect("meta9-run/admin.sock")
	admin.put("ctl", "create "+payload)
	admin.put("names/web/internal/mumble_secret_pw", "of the guest's own")
	admin.put("names/web/keys/a", "b")
	for _, c := range []struct {
		m      auth.Message
		secret string
		path   string // "": refused
	}{
		{auth.Message{Node: vmUUID}, "of the guest's own", "keys/a"},
		{auth.Message{Node: vmUUID}, "of the host's own", "keys/a"},
		{auth.Message{Node: "host1", Group: "ops"}, "of the host's own", "names/web/keys/a"},
		{auth.Message{Node: "host1", Group: "ops"}, "of the guest's own", ""},
		{auth.Message{Node: vmUUID}, "of nobody", ""},
	} {
		nc, err := net.Dial("tcp", p.listener("tcp:"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		client := greet(t, nc)
		client.call(&wire.Msg{Type: wire.Tauth, Afid: 1, Uname: "root", Aname: "/"})
		r := client.roundtrip(&wire.Msg{Type: wire.Twrite, Fid: 1, Data: []byte(c.m.Sign([]byte(c.secret)))})
		if c.path == "" {
			if r.Type != wire.Rerror {
				t.Errorf("%+v by %q: %s", c.m, c.secret, r)
			}
			continue
		}
		client.attach()
		if v := client.get(c.path); v != "b" {
			t.Errorf("%+v: got %q", c.m, v)
		}
	}
}

func TestNotify(t *testing.T) {
	dir := shortDir(t)
	for _, name := range []string{filepath.Join(dir, "notify"), "@meta9-test-" + filepath.Base(dir)} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		p := start(t, dir)
		p.stop()
		for _, want := range []string{"READY=1", "STOPPING=1"} {
			b := make([]byte, 100)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := c.Read(b); string(b[:n]) != want {
				t.Errorf("%s: said %q, %v, want %s", name, b[:n], err, want)
			}
		}
	}
}

// TestInterrupt: SIGINT ends it as SIGTERM does.
func TestInterrupt(t *testing.T) {
	p := start(t, shortDir(t))
	p.cmd.Process.Signal(syscall.SIGINT)
	p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestLog(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir, "--trace")
	p.connect("meta9-run/admin.sock").put("ctl", "create "+payload)
	_, log := p.stop()
	for _, line := range strings.Split(strings.TrimSpace(log), "\n") {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}") {
			t.Errorf("no JSON object: %s", line)
		}
	}
	if !strings.Contains(log, "Tversion") || !strings.Contains(log, "Rswrite") {
		t.Errorf("no trace in the log:\n%s", log)
	}
	p = start(t, dir, "--log-level", "error")
	p.connect("meta9-run/admin.sock")
	if _, log := p.stop(); log != "" {
		t.Errorf("more than errors in the log:\n%s", log)
	}
}

// TestDamage: a changed byte of a value is found, named, and refused; --salvage
// starts without it.
func TestDamage(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir)
	admin := p.connect("meta9-run/admin.sock")
	admin.put("ctl", "create "+payload)
	admin.put("names/web/keys/motd", "a value to be damaged")
	p.stop()
	if code, out, errs := call(t, dir, "--check"); code != 0 || !strings.Contains(out, "1 VMs, 2 keys") || !strings.Contains(out, "0 damaged") {
		t.Errorf("sound: exit %d, %q, %q", code, out, errs)
	}
	file := filepath.Join(dir, "meta9-data", "meta9.db")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte("to be damaged"), []byte("to be DAMAGED"))
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := call(t, dir, "--check")
	if code != exitFailure || !strings.Contains(out, "VM "+vmUUID+", keys/motd: ") || !strings.Contains(errs, "1 damaged") {
		t.Errorf("damaged: exit %d, %q, %q", code, out, errs)
	}
	oneLineWith(t, exitFailure, "keys/motd", dir)
	p = start(t, dir, "--salvage")
	if v := p.connect("meta9-run/admin.sock").get("names/web/keys/hostname"); v != "web1" {
		t.Errorf("salvaged %q", v)
	}
	if _, log := p.stop(); !strings.Contains(log, "keys/motd") {
		t.Errorf("what was skipped is not in the log:\n%s", log)
	}
}

// TestDamagedPages: leaves of the data file with one element less than they had. A check
// goes on past them, a start names one, and --salvage keeps what is whole.
func TestDamagedPages(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir)
	admin := p.connect("meta9-run/admin.sock")
	admin.put("ctl", "create "+payload)
	for i := range 100 {
		admin.put("names/web/keys/key-"+strconv.Itoa(i), strings.Repeat("v", 100))
	}
	p.stop()
	file := filepath.Join(dir, "meta9-data", "meta9.db")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for at := 2 * 4096; at+4096 <= len(b); at += 4096 {
		const leaf = 2
		if page := b[at : at+4096]; page[8] == leaf && page[10] > 5 && !bytes.Contains(page, []byte("key-50")) {
			page[10]--
			damaged++
		}
	}
	if err := os.WriteFile(file, b, 0o600); err != nil || damaged == 0 {
		t.Fatal(damaged, err)
	}
	code, out, errs := call(t, dir, "--check")
	if code != exitFailure || !strings.Contains(out, " VMs, ") || !strings.Contains(errs, "meta9.db: damaged: page ") || !strings.Contains(errs, "--salvage") {
		t.Errorf("--check: exit %d, %q, %q", code, out, errs)
	}
	oneLineWith(t, exitFailure, "damaged: page ", dir)
	p = start(t, dir, "--salvage")
	if _, log := p.stop(); !strings.Contains(log, "meta9.db.damaged") {
		t.Errorf("what was done is not in the log:\n%s", log)
	}
}

// TestTruncatedFile: even what makes the engine's memory map fault is an error.
func TestTruncatedFile(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir)
	p.connect("meta9-run/admin.sock").put("ctl", "create "+payload)
	p.stop()
	file := filepath.Join(dir, "meta9-data", "meta9.db")
	for _, size := range []int64{8192, 4096, 100} {
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		oneLineWith(t, exitFailure, "meta9", dir, "--check")
		oneLineWith(t, exitFailure, "meta9", dir)
	}
}
