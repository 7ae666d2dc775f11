package qmp

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/testenv"
)

// commandLine is the one in docs/qemu.md, in words.
func commandLine(t *testing.T) []string {
	t.Helper()
	root := testenv.Root(t)
	b, err := os.ReadFile(filepath.Join(root, "docs", "qemu.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```sh\nqemu-system-x86_64 ")
	line, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("docs/qemu.md has no command line")
	}
	return strings.Fields(strings.ReplaceAll(line, "\\\n", " "))
}

// TestDocumentedCommandLine starts QEMU as docs/qemu.md says, with other folders
// and without starting its processor: nobody has registered the VM.
func TestDocumentedCommandLine(t *testing.T) {
	testenv.NeedDebian(t, "qemu-system-x86_64", "qemu-system-x86")
	h := newHost(t, "")
	const uuid = "550e8400-e29b-41d4-a716-446655440000"
	args := commandLine(t)
	for i, arg := range args {
		args[i] = strings.ReplaceAll(strings.ReplaceAll(arg, "/run/meta9", h.Run()), "/run/vm", h.dir)
	}
	if _, err := os.Stat("/dev/vhost-vsock"); err != nil {
		t.Logf("without its vsock device: %v", err)
		if last := len(args) - 2; args[last] != "-device" || !strings.HasPrefix(args[last+1], "vhost-vsock-pci") {
			t.Fatalf("the command line ends with %q", args[last:])
		}
		args = args[:len(args)-2]
	}
	runQEMU(t, h.socket("web-01"), uuid, append(args, "-S"))
	h.state(uuid, "prelaunch")
	if alias := text(h.vm(uuid), "alias"); alias != "web-01" {
		t.Errorf("alias %q", alias)
	}
	for _, id := range []string{"mdata", "ninep"} {
		testenv.Eventually(t, id+" is connected", func() bool { return connected(t, h, uuid, id) })
	}
	// The metadata port answers. What a guest would do, QEMU does: it reads and
	// writes the ports of the second UART.
	out(t, h, uuid, "NEGOTIATE V2\n")
	if got := in(t, h, uuid, 6); got != "V2_OK\n" {
		t.Errorf("the metadata port says %q", got)
	}
}

// ask runs a QMP command through ctl, and reads what it returned.
func ask(t *testing.T, h *host, uuid, command string, into any) {
	t.Helper()
	c := h.Conn("")
	defer c.Close()
	if err := c.Walk(0, 1, "vms", uuid, "ctl"); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(1, 2); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(1, 0, []byte("qmp "+command+"\n")); err != nil {
		t.Fatal(err)
	}
	b, err := c.Read(1, 0, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &struct{ Return any }{into}); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
}

// connected tells whether a chardev of QEMU is.
func connected(t *testing.T, h *host, uuid, id string) bool {
	t.Helper()
	var all []struct{ Label, Filename string }
	ask(t, h, uuid, `{"execute": "query-chardev"}`, &all)
	for _, c := range all {
		if c.Label == id {
			return strings.HasPrefix(c.Filename, "unix:")
		}
	}
	t.Fatalf("QEMU has no chardev %s: %v", id, all)
	return false
}

// hmp runs a command of QEMU's human monitor.
func hmp(t *testing.T, h *host, uuid, line string) (answer string) {
	t.Helper()
	ask(t, h, uuid, fmt.Sprintf(`{"execute": "human-monitor-command", "arguments": {"command-line": %q}}`, line), &answer)
	return answer
}

// com2 is the first port of the second UART: its data. The fifth after it says by
// its lowest bit whether there is some.
const com2 = 0x2f8

func out(t *testing.T, h *host, uuid, text string) {
	t.Helper()
	for _, c := range []byte(text) {
		hmp(t, h, uuid, fmt.Sprintf("o /b 0x%x 0x%x", com2, c))
	}
}

func in(t *testing.T, h *host, uuid string, n int) string {
	t.Helper()
	port := func(at int) (v int) {
		t.Helper()
		if _, err := fmt.Sscanf(hmp(t, h, uuid, fmt.Sprintf("i /b 0x%x", at)), "portb[0x%x] = 0x%x", &at, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	var got []byte
	for end := time.Now().Add(20 * time.Second); len(got) < n && time.Now().Before(end); {
		if port(com2+5)&1 == 1 {
			got = append(got, byte(port(com2)))
		}
	}
	return string(got)
}
