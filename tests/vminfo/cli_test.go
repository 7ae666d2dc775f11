package vminfo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/testenv"
)

// meta9 runs the command line against the server.
func (s *server) meta9(args ...string) (out string, code int) {
	s.Helper()
	return s.run(exec.Command(testenv.Binary(s, "meta9"), args...))
}

// vmadm is the same program under the name vmadm, by which it is in all like that one.
func (s *server) vmadm(args ...string) (out string, code int) {
	s.Helper()
	cmd := exec.Command(testenv.Binary(s, "meta9"), args...)
	cmd.Args[0] = "vmadm"
	return s.run(cmd)
}

func (s *server) run(cmd *exec.Cmd) (out string, code int) {
	s.Helper()
	cmd.Env = append(os.Environ(), "META9_ADDR="+s.Admin())
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

var figures = regexp.MustCompile(`(?m)^(pid|uptime|rss|  lastRefresh): .*$`)

// TestRecordedCommandLines: vmadm's and vminfo's recorded command lines give what
// was recorded; a recording of three or four lines of JSON is the beginning.
func TestRecordedCommandLines(t *testing.T) {
	s := start(t, "--data", "")
	for _, vm := range recordedVMs(t) {
		s.verb("create %s", vm)
	}
	text := read(t, "vmadm-cli.txt")
	text, _, _ = strings.Cut(text, "\n--- ")
	cases := strings.Split("\n"+text, "\n$ ")[1:]
	if len(cases) < 20 {
		t.Fatalf("only %d recorded", len(cases))
	}
	for _, c := range cases {
		command, want, _ := strings.Cut(strings.TrimRight(c, "\n"), "\n")
		args := strings.Fields(command)
		run := s.meta9
		if args[0] == "vmadm" {
			run, args = s.vmadm, args[1:]
		}
		out, code := run(args...)
		want, rc, _ := strings.Cut(want, "[rc=")
		if rc != fmt.Sprintf("%d]", code) {
			t.Errorf("%s: exit code %d, want %s", command, code, rc)
		}
		if first := want[:min(1, len(want))]; (first == "{" || first == "[") && !json.Valid([]byte(want)) {
			if !json.Valid([]byte(out)) {
				t.Errorf("%s: no JSON", command)
			}
			out = out[:min(len(out), len(want))]
		}
		hide := func(s string) string { return figures.ReplaceAllString(s, "$1: N") }
		if d := cmp.Diff(hide(want), hide(out)); d != "" {
			t.Errorf("%s (-want +got):\n%s", command, d)
		}
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(testenv.Recorded(t, "vminfo", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// otherIPs is where the recorded db0 has another address in its ips than in its ip.
// vmadm makes no such VM, nor does ours: ips counts.
var otherIPs = regexp.MustCompile(`(["\x00]ip["\x00]:["\x00]192\.168\.1\.11["\x00][^]]*["\x00]ips["\x00]:\[["\x00]192\.168\.1\.)10`)

// recordedStream is the lines of the recorded stream, with one address for db0.
func recordedStream(t testing.TB) []string {
	t.Helper()
	text := otherIPs.ReplaceAllString(strings.ReplaceAll(read(t, "vminfod-events.ndjson"), `\"`, "\x00"), "${1}11")
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\x00", `\"`)), "\n")
}

// recordedVMs are those of the recorded stream's first line.
func recordedVMs(t testing.TB) []json.RawMessage {
	t.Helper()
	var ready struct{ VMs string }
	if err := json.Unmarshal([]byte(recordedStream(t)[0]), &ready); err != nil {
		t.Fatal(err)
	}
	var vms []json.RawMessage
	if err := json.Unmarshal([]byte(ready.VMs), &vms); err != nil {
		t.Fatal(err)
	}
	return vms
}

// TestUpdateIsVisible: when an update has returned, whoever begins to watch finds
// it, and who watches is told without anything else happening.
func TestUpdateIsVisible(t *testing.T) {
	s := start(t, "--data", "")
	s.verb(`create {"uuid":%q,"alias":"a"}`, testenv.UUID(1))
	f := follow(s.events("?since=0"))
	f.until(func() bool { return true })
	for i := range 5 {
		out, code := s.meta9("vm", "update", testenv.UUID(1), fmt.Sprintf("alias=a%d", i))
		if code != 0 || out != "Successfully updated VM "+testenv.UUID(1)+"\n" {
			t.Fatalf("%d %s", code, out)
		}
		want := fmt.Sprintf(`"alias":"a%d"`, i)
		late := s.events(fmt.Sprintf("?since=%d", f.rev)).next()
		if !bytes.Contains(late.VM, []byte(want)) {
			t.Errorf("update %d is not in the stream: %+v", i, late)
		}
		f.until(func() bool { return strings.Contains(f.vms[testenv.UUID(1)], want) })
	}
}

// TestEventsCommand: the stream for people, from meta9 vm events.
func TestEventsCommand(t *testing.T) {
	s := start(t, "--data", "")
	s.verb(`create {"uuid":%q,"zonename":"550e8400-zone","alias":"a"}`, testenv.UUID(1))
	cmd := exec.Command(testenv.Binary(t, "meta9"), "--addr", s.Admin(), "vm", "events", "-r", strings.ToUpper(testenv.UUID(1)))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	buf := make([]byte, 4096)
	next := func() string {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	if got := next(); !regexp.MustCompile(`^\[[0-9:.]{12}Z\] ready\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
	s.verb(`create {"uuid":%q}`, testenv.UUID(2))
	s.verb(`update %s {"quota":20}`, testenv.UUID(1))
	if got := next(); !regexp.MustCompile(`^\[[0-9:.]{12}Z\] 550e8400 a modify: quota added :: undefined -> 20\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
}
