//go:build soak

package windows

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta9/cmd/version"
	"meta9/tests/daemon"
	"meta9/tests/soak"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// wine is where Debian has it; its package has no name for it in PATH.
const wine = "/usr/lib/wine/wine64"

// oneCommand is long for one that answers at once, with Wine's own start.
const oneCommand = time.Minute

// desk is a Windows with meta9.exe, and a meta9d with one VM.
type desk struct {
	t      *testing.T
	dir    string
	prefix string
	addr   string // of the admin
	vm     string // of the VM
	srv    *testenv.Server
}

// TestSoak runs the client's commands, one after the other.
func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	d := newDesk(t)
	keys := "/vms/" + testenv.UUID(1) + "/keys/"
	commands := []struct {
		args string // words; in the VM where they begin with "in "
		in   string
		want string // is in what it prints
		code int
	}{
		{"version", "", version.String() + " windows/amd64", 0},
		{"ls " + keys, "", "motd", 0},
		{"ls -l " + keys, "", "motd", 0},
		{"cat " + keys + "motd", "", "welcome", 0},
		{"put " + keys + "color blue", "", "", 0},
		{"put " + keys + "script", "#!/bin/sh\r\necho\n", "", 0},
		{"cat " + keys + "script", "", "#!/bin/sh\r\necho\n", 0},
		{"stat " + keys + "color", "", "color", 0},
		{"mv " + keys + "color " + keys + "colour", "", "", 0},
		{"cat " + keys + "color", "", "file does not exist", 1},
		{"txn " + testenv.UUID(1), `{"if":[{"key":"colour","value":"blue"}],"do":[{"put":"colour","value":"red"}]}`, "", 0},
		{"cat " + keys + "colour", "", "red", 0},
		{"rm " + keys + "colour", "", "", 0},
		{"vm list", "", testenv.UUID(1), 0},
		{"status", "", "health", 0},
		{"wait /vms/" + testenv.UUID(1) + "/keys/motd", "", "", 0},
		{"in ls /keys", "", "motd", 0},
		{"in put /keys/mine x", "", "", 0},
		{"in cat /keys/mine", "", "x", 0},
		{"in ls /vms", "", "file does not exist", 1},
		{"mumble --uuid " + testenv.UUID(1) + " --secret " + strings.Repeat("s", 32), "", "", -1},
		{"completion powershell", "", "Register-ArgumentCompleter", 0},
		{"mount x:", "", "only Linux has meta9 mount, and this is windows", 1},
		{"no-such-command", "", "no-such-command", 2},
		{"--addr tcp:127.0.0.1:1 ls", "", "refused", 3},
	}
	for _, c := range commands {
		out, code := d.run(c.in, c.args)
		if c.code >= 0 && code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("meta9 %s: exit code %d (want %d), and it says (want %q):\n%s", c.args, code, c.code, c.want, out)
		}
	}
	d.watch(keys)
	p.Figure("commands", len(commands)+1)
	p.Figure("wine", strings.TrimSpace(output(t, wine, "--version")))
}

// watch follows a key until it has seen two changes.
func (d *desk) watch(keys string) {
	cmd := d.command(d.t.Context(), d.addr, "watch", keys+"motd")
	events, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = events.Close()
		_ = cmd.Wait()
	}()
	seen := make(chan int)
	go func() {
		defer close(seen)
		for lines, n := bufio.NewScanner(events), 1; lines.Scan(); n++ {
			seen <- n
		}
	}()
	again := time.NewTicker(time.Second) // until watch is there
	defer again.Stop()
	late := time.After(oneCommand)
	for i := 0; ; i++ {
		output(d.t, testenv.Binary(d.t, "meta9"), "--addr", d.addr, "put", keys+"motd", strconv.Itoa(i))
		select {
		case n, ok := <-seen:
			if !ok {
				d.t.Fatal("watch has ended")
			}
			if n == 2 {
				return
			}
		case <-again.C:
		case <-late:
			d.t.Fatal("watch has seen nothing")
		}
	}
}

// run runs one command and gives all that it prints.
func (d *desk) run(in, args string) (out string, code int) {
	ctx, cancel := context.WithTimeout(d.t.Context(), oneCommand)
	defer cancel()
	addr := d.addr
	if rest, inVM := strings.CutPrefix(args, "in "); inVM {
		addr, args = d.vm, rest
	}
	cmd := d.command(ctx, addr, strings.Fields(args)...)
	cmd.Stdin = strings.NewReader(in)
	b, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		d.t.Fatalf("meta9 %s: %v\n%s", args, err, b)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// command is meta9.exe with these arguments.
func (d *desk) command(ctx context.Context, addr string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, wine, append([]string{filepath.Join(d.dir, "meta9.exe")}, args...)...)
	cmd.Env = append(os.Environ(), "WINEPREFIX="+d.prefix, "WINEDEBUG=-all", "META9_ADDR="+addr)
	return cmd
}

// newDesk makes a Windows of the test's own. Go programs want bcryptprimitives.dll, which
// Wine has from 8.12 on only; what they call of it is advapi32's under another name.
func newDesk(t *testing.T) *desk {
	if _, err := os.Stat(wine); err != nil {
		testenv.NeedDebian(t, "/usr/lib/wine/wineserver64", "wine64")
	}
	testenv.NeedDebian(t, "x86_64-w64-mingw32-dlltool", "binutils-mingw-w64-x86-64")
	d := &desk{t: t, dir: t.TempDir()}
	d.prefix = filepath.Join(d.dir, "prefix")
	t.Cleanup(func() {
		stop := exec.Command("/usr/lib/wine/wineserver64", "-k")
		stop.Env = append(os.Environ(), "WINEPREFIX="+d.prefix)
		_ = stop.Run()
	})
	t.Setenv("GOOS", "windows")
	t.Setenv("CGO_ENABLED", "0")
	bin, err := daemon.Build(d.dir, "meta9")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(bin, bin+".exe"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOS", "")
	boot := d.command(t.Context(), "")
	boot.Args = []string{wine, "wineboot", "--init"}
	if out, err := boot.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	system := filepath.Join(d.prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll")
	if _, err := os.Stat(system); err != nil {
		def := filepath.Join(d.dir, "b.def")
		text := "LIBRARY bcryptprimitives.dll\nEXPORTS\n  ProcessPrng = advapi32.SystemFunction036\n"
		if err := os.WriteFile(def, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		output(t, "x86_64-w64-mingw32-dlltool", "-d", def, "-e", def+".exp", "-D", "bcryptprimitives.dll")
		output(t, "x86_64-w64-mingw32-ld", "-shared", "--entry", "0", "-o", system, def+".exp")
	}
	d.srv = testenv.Start(t, daemon.Options{TCP: []string{"as=admin", "as=vm:" + testenv.UUID(1)}})
	d.addr, d.vm = "tcp:"+d.srv.TCPAddrs[0], "tcp:"+d.srv.TCPAddrs[1]
	d.srv.NewVM(testenv.UUID(1), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"motd":"welcome"}}`, testenv.UUID(1)))
	return d
}

// output runs a program that must not fail.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
