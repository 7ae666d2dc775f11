package vminfo

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// vmadm is meta9 under that name, in a folder of its own, as an operator links it.
func vmadm(t testing.TB) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "vmadm")
	if err := os.Symlink(testenv.Binary(t, "meta9"), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// called is a command line of a program that calls vmadm, and what it makes of the
// answer: regular expressions of stdout and stderr, "" where there is to be none.
type called struct {
	args           string // by blanks; U is the VM's uuid, FILE that of a payload
	in             string
	code           int
	stdout, stderr string
}

// TestCallersOfVmadm: how programs of the field call vmadm. node-vmadm
// (lib/index.sunos.js) gives payloads on standard input, reads the last line of stderr,
// and takes anything on the stderr of events for a fault; Salt's modules.smartos_vmadm
// puts blanks where an option is not given, reads a payload's faults as JSON on stderr,
// and a new VM's uuid from the 24th byte of stderr on.
func TestCallersOfVmadm(t *testing.T) {
	s, link := start(t, "--data", ""), vmadm(t)
	const uuid = "550e8400-e29b-41d4-a716-000000000001"
	const payload = `{"uuid": "` + uuid + `", "brand": "kvm", "alias": "web", "hostname": "web.example.org", "ram": 256, "vcpus": 1,
  "state": "stopped", "image_uuid": "` + uuid + `", "nics": [{"mac": "02:08:20:00:00:01", "ip": "10.0.0.5", "netmask": "255.255.255.0"}]}`
	file := filepath.Join(t.TempDir(), "payload.json")
	if err := os.WriteFile(file, []byte(payload), 0o600); err != nil {
		t.Fatal(err)
	}
	const noHypervisor = "no hypervisor is attached to VM " + uuid
	for who, calls := range map[string][]called{
		"node-vmadm": {
			{args: "create", in: payload, stderr: `^Successfully created VM ` + uuid + `\n$`},
			{args: "get U", stdout: `(?s)^\{\n  "uuid": "` + uuid + `",\n  "brand": "kvm",.*\}\n$`},
			{args: "lookup -j -o uuid,alias,do_not_inventory alias=web", stdout: `^\[\n  \{\n    "uuid": "` + uuid + `",\n    "alias": "web"\n  \}\n\]\n$`},
			{args: "lookup -j owner_uuid=nobody", stdout: `^\[\]\n$`},
			{args: "lookup -1 alias=nobody", code: 1, stderr: `(^|\n)Requested unique lookup but found 0 results\.\n$`},
			{args: "update U", in: `{"set_customer_metadata": {"k": "v"}, "remove_tags": ["role"]}`, stderr: `^Successfully updated VM ` + uuid + `\n$`},
			{args: "info U vnc,version", code: 1, stderr: noHypervisor},
			{args: "start U", code: 1, stderr: noHypervisor},
			{args: "start U cdrom=/a.iso,ide order=cd", code: 2, stderr: "QEMU's command line"},
			{args: "reboot U -F", code: 1, stderr: noHypervisor},
			{args: "stop U -F", stderr: "^VM " + uuid + " is already stopped\n$"},
			{args: "stop U -t 10", stderr: "^VM " + uuid + " is already stopped\n$"},
			{args: "kill -s SIGTERM U", code: 2, stderr: "zones"},
			{args: "delete U", stderr: "^Successfully deleted VM " + uuid + "\n$"},
			{args: "get U", code: 1, stderr: `: No such zone configured\n$`},
		},
		"Salt": {
			{args: "create  -f FILE", stderr: `^.{24}` + uuid + `\n$`},
			{args: "list -p -H -o uuid,type,ram,state,alias  ", stdout: `^` + uuid + `:KVM:256:stopped:web\n$`},
			{args: "list -p -H -o alias,ram,cpu_cap -s -ram,-cpu_cap type=KVM", stdout: `^web:256:\n$`},
			{args: "lookup -1  hostname=web.example.org", stdout: `^` + uuid + `\n$`},
			{args: "lookup -j -o uuid,alias,hostname state=stopped", stdout: `"hostname": "web.example.org"`},
			{args: "get U", stdout: `"brand": "kvm"`},
			{args: "update U", in: `{"quota": 20}` + "\n", stderr: "^Successfully updated VM"},
			{args: "info U all", code: 1, stderr: noHypervisor},
			{args: "start U ", code: 1, stderr: noHypervisor},
			{args: "start U order=c,once=d", code: 2, stderr: "QEMU's command line"},
			{args: "reboot -F U", code: 1, stderr: noHypervisor},
			{args: "stop  U", stderr: "already stopped"},
			{args: "stop -F U", stderr: "already stopped"},
			{args: "create-snapshot U baseline", code: 2, stderr: "zones"},
			{args: "delete U", stderr: "^Successfully deleted VM " + uuid + "\n$"},
			{args: "lookup -1  uuid=U", code: 1, stderr: "found 0 results"},
		},
	} {
		for _, c := range calls {
			args := strings.Fields(strings.NewReplacer("U", uuid, "FILE", file).Replace(c.args))
			cmd := exec.Command(link, args...)
			cmd.Env = append(os.Environ(), "META9_ADDR="+s.Admin(), "REQ_ID=x", "VMADM_DEBUG_LEVEL=debug", "VMADM_IDENT=test")
			cmd.Stdin = strings.NewReader(c.in)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != c.code || !says(c.stdout, stdout.String()) || !says(c.stderr, stderr.String()) {
				t.Errorf("%s: vmadm %s: exit code %d\n%s%s", who, c.args, code, stdout.String(), stderr.String())
			}
		}
	}
}

func says(want, got string) bool {
	if want == "" {
		return got == ""
	}
	return regexp.MustCompile(want).MatchString(got)
}

// TestEventsForNode: node-vmadm runs `vmadm events -rj [UUID]`, ends it by SIGTERM, and
// parses each line; there is nothing on stderr.
func TestEventsForNode(t *testing.T) {
	s := start(t, "--data", "")
	s.verb(`create {"uuid":%q,"alias":"a"}`, testenv.UUID(1))
	cmd := exec.Command(vmadm(t), "events", "-rj", testenv.UUID(1))
	cmd.Env = append(os.Environ(), "META9_ADDR="+s.Admin())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := json.NewDecoder(out)
	for _, want := range []string{"ready", "modify", "delete"} {
		var ev event
		if err := lines.Decode(&ev); err != nil || ev.Type != want || ev.Date == "" {
			t.Fatalf("%v: %+v, not %s", err, ev, want)
		}
		switch want {
		case "ready":
			s.verb(`update %s {"quota":1}`, testenv.UUID(1))
		case "modify":
			s.verb("delete %s", testenv.UUID(1))
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if stderr.Len() > 0 {
		t.Errorf("on stderr: %s", stderr.String())
	}
}
