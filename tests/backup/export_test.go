package backup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// meta9 runs the command at a meta9d.
type meta9 struct {
	t   *testing.T
	bin string
	d   *testenv.Server
}

// run gives what it prints, on both outputs, and its exit code.
func (m meta9) run(stdin string, args ...string) (out string, code int) {
	m.t.Helper()
	cmd := exec.Command(m.bin, append([]string{"--addr", "unix:" + m.d.Admin()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		m.t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// must is run of what has to be done.
func (m meta9) must(args ...string) string {
	m.t.Helper()
	out, code := m.run("", args...)
	if code != 0 {
		m.t.Fatalf("meta9 %v: exit code %d\n%s", args, code, out)
	}
	return out
}

// vmsOf are the lines of an export that are of VMs.
func vmsOf(t *testing.T, export string) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(export, "\n"), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], `{"meta9_export":1,`) || lines[len(lines)-1] != fmt.Sprintf(`{"end":%d}`, len(lines)-2) {
		t.Fatalf("no export: %.300s", export)
	}
	return lines[1 : len(lines)-1]
}

// TestExport: what is exported here is imported there as it was, with modes, times and
// authors; an import that cannot be done whole is refused before anything is done.
func TestExport(t *testing.T) {
	here := meta9{t, testenv.Binary(t, "meta9"), testenv.Start(t, daemon.Options{})}
	there := meta9{t, here.bin, testenv.Start(t, daemon.Options{Config: "[limits]\nvalue = 2000\n"})}
	for i, more := range []string{
		`,"alias":"web0","ram":1024,"tags":{"a":1.50,"b":true},"internal_metadata_namespaces":["ops"],"customer_metadata":{"n":1.0,"yes":true,"text":"line\n\u0000\u202e"},"internal_metadata":{"root_pw":"secret"}`,
		`,"alias":"web1","state":"running","unknown":{"z":1,"a":[null]},"Alias":["other"],"UUID":7,"Uuid":"x"`,
		``,
	} {
		uuid := testenv.UUID(i)
		here.d.NewVM(uuid, `{"uuid":"`+uuid+`"`+more+`}`)
	}
	web0 := here.d.Conn("vms/" + testenv.UUID(0))
	if err := web0.Swrite(0, []byte("\xff\x00\xfe"), "keys", "binary/%"); err == nil {
		t.Error("a name that is none was taken")
	}
	if err := web0.Swrite(0, []byte("\xff\x00\xfe"), "keys", "binary%2F%25"); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "all.jsonl")
	here.must("export", "-f", file)
	if i, err := os.Stat(file); err != nil || i.Mode() != 0o600 {
		t.Error(i.Mode(), err)
	}
	if out, code := here.run("", "export", "-f", file); code != 1 || !strings.Contains(out, "is there already") {
		t.Errorf("exit code %d: %s", code, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Modes, times and authors that an import alone can have made.
	told := bytes.Replace(text, []byte(`"text":{"mode":"0600"`), []byte(`"text":{"mode":"0640"`), 1)
	told = bytes.Replace(told, []byte(`"by":"admin"`), []byte(`"by":"somebody"`), 1)
	if bytes.Equal(told, text) {
		t.Fatalf("nothing to change in %s", text)
	}
	all := vmsOf(t, string(told))
	if len(all) != 3 || len(vmsOf(t, here.must("export", "web1", testenv.UUID(2)))) != 2 {
		t.Error("other VMs than were asked for")
	}

	refused := func(why, input string, args ...string) {
		t.Helper()
		if out, code := there.run(input, append([]string{"import"}, args...)...); code != 1 || !strings.Contains(out, why) || !strings.Contains(out, "nothing was done") {
			t.Errorf("exit code %d, wanted %q: %s", code, why, out)
		}
		if ls := there.must("ls", "vms"); ls != "" {
			t.Fatalf("something was done: %s", ls)
		}
	}
	refused("it is no export", "")
	refused("it is no export", "{}\n")
	refused("it is an export of format 2, made by meta9d v9.9.9, and this meta9 reads format 1", `{"meta9_export":2,"version":"v9.9.9","vms":0}`+"\n"+`{"end":0}`+"\n")
	refused("it is cut or damaged after 2 of 3 VMs", strings.Join(strings.SplitAfter(string(told), "\n")[:3], ""))
	refused("it is cut or damaged after 3 of 3 VMs: line 5: unexpected end of JSON input", string(told[:len(told)-3]))
	refused("1 VMs are in it, and it had 3", strings.SplitAfter(string(told), "\n")[0]+all[0]+"\n"+`{"end":1}`)
	refused("is in it twice", `{"meta9_export":1,"vms":2}`+"\n"+all[0]+"\n"+all[0]+"\n"+`{"end":2}`)

	if out, code := there.run(string(told), "import"); code != 0 || !strings.Contains(out, testenv.UUID(0)+" web0: made") || !strings.Contains(out, "3 VMs made, 0 replaced, 0 skipped, 0 failed") {
		t.Fatalf("exit code %d: %s", code, out)
	}
	same := func(want []string) {
		t.Helper()
		for i, line := range vmsOf(t, there.must("export")) {
			if line != want[i] {
				t.Errorf("VM %d is\n%s\nthere, and was\n%s", i, line, want[i])
			}
		}
	}
	same(all)
	if out := there.must("ls", "-l", "vms/"+testenv.UUID(0)+"/keys"); !strings.Contains(out, "-rw-r-----") || !strings.Contains(out, "somebody") {
		t.Error(out)
	}
	// What was made has its sockets.
	if _, err := os.Stat(there.d.VM(testenv.UUID(1))); err != nil {
		t.Error(err)
	}

	// What is here already.
	if out, code := there.run(string(told), "import"); code != 1 || !strings.Contains(out, "3 of its VMs are here already") || !strings.Contains(out, "nothing was done") {
		t.Errorf("exit code %d: %s", code, out)
	}
	there.must("put", "vms/"+testenv.UUID(0)+"/keys/more", "x")
	there.must("put", "vms/"+testenv.UUID(0)+"/keys/text", "other")
	there.must("rm", "vms/"+testenv.UUID(0)+"/internal/root_pw")
	there.must("vm", "delete", "-F", "web1")
	if out, code := there.run(string(told), "import", "--skip-existing"); code != 0 || !strings.Contains(out, "1 VMs made, 0 replaced, 2 skipped, 0 failed") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if v := there.must("cat", "vms/"+testenv.UUID(0)+"/keys/text"); v != "other" {
		t.Error("a VM that was to be skipped has changed", v)
	}
	if out, code := there.run(string(told), "import", "--replace"); code != 0 || !strings.Contains(out, "0 VMs made, 3 replaced, 0 skipped, 0 failed") {
		t.Errorf("exit code %d: %s", code, out)
	}
	for i, line := range vmsOf(t, there.must("export")) { // a removed key comes back in another place
		if i > 0 && line != all[map[string]int{testenv.UUID(2): 2, testenv.UUID(1): 1}[line[len(`{"vm":{"uuid":"`):][:36]]] {
			t.Errorf("%s", line)
		}
	}
	if out := there.must("cat", "vms/"+testenv.UUID(0)+"/keys/text", "vms/"+testenv.UUID(0)+"/internal/root_pw"); out != "line\n\x00\u202esecret" {
		t.Errorf("%q", out)
	}
	if ls := there.must("ls", "-l", "vms/"+testenv.UUID(0)+"/keys"); strings.Contains(ls, "more") || !strings.Contains(ls, "-rw-r-----") {
		t.Error(ls)
	}

	// One that cannot be made leaves the others, and nothing of itself.
	big := strings.Replace(string(told), `"yes":true`, `"yes":"`+strings.Repeat("x", 3000)+`"`, 1)
	for i := range 3 {
		there.must("vm", "delete", "-F", testenv.UUID(i))
	}
	if out, code := there.run(big, "import", "-"); code != 1 || !strings.Contains(out, "2 VMs made, 0 replaced, 0 skipped, 1 failed") || !strings.Contains(out, testenv.UUID(0)+": ") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if ls := there.must("ls", "vms"); strings.Contains(ls, testenv.UUID(0)) {
		t.Error(ls)
	}
	if out, code := there.run("", "import", "--replace", "--skip-existing"); code != 2 {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestExportOfEscapes: a VM that its guest has filled with what JSON spells at length can be
// imported, too.
func TestExportOfEscapes(t *testing.T) {
	config := "[limits]\nvalue = \"350KiB\"\nvm_bytes = \"350KiB\"\n"
	here := meta9{t, testenv.Binary(t, "meta9"), testenv.Start(t, daemon.Options{Config: config})}
	there := meta9{t, here.bin, testenv.Start(t, daemon.Options{Config: config})}
	uuid := testenv.UUID(1)
	here.d.NewVM(uuid, `{"uuid":"`+uuid+`"}`)
	value := strings.Repeat("\x01", 300_000)
	if err := here.d.Conn("vms/"+uuid).Swrite(0, []byte(value), "keys", "k"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "vm.jsonl")
	here.must("export", "-f", file, uuid)
	there.must("import", file)
	if got := there.must("cat", "vms/"+uuid+"/keys/k"); got != value {
		t.Errorf("%d bytes, %.20q", len(got), got)
	}
}

// TestImportEnds: an import that waits for standard input ends when it is told to, and
// leaves nothing of what it has read.
func TestImportEnds(t *testing.T) {
	d := testenv.Start(t, daemon.Options{})
	tmp := t.TempDir()
	cmd := exec.Command(testenv.Binary(t, "meta9"), "--addr", "unix:"+d.Admin(), "import")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	// More than a pipe holds: once it is written, the import has begun to read.
	if _, err := in.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("its copy has a name: %v, %v", left, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code <= 0 {
		t.Errorf("%v, %s", err, stderr.String())
	}
	t.Logf("%v, %s", err, stderr.String())
}
