package mount

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// monitor runs commands of QEMU's human monitor, by QMP.
type monitor struct {
	net.Conn
	in *bufio.Scanner
}

func newMonitor(t *testing.T, path string) *monitor {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m := &monitor{c, bufio.NewScanner(c)}
	m.in.Scan() // the greeting
	m.run(t, `{"execute":"qmp_capabilities"}`)
	return m
}

// run sends one QMP command and waits for its answer; events are passed over.
func (m *monitor) run(t *testing.T, command string) string {
	t.Helper()
	_ = m.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := fmt.Fprintln(m, command); err != nil {
		t.Fatal(err)
	}
	for m.in.Scan() {
		var r struct {
			Return json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(m.in.Bytes(), &r); err != nil || r.Error != nil {
			t.Fatalf("%s: %s, %v", command, m.in.Bytes(), err)
		}
		if r.Return != nil {
			return string(r.Return)
		}
	}
	t.Fatalf("%s: %v", command, m.in.Err())
	return ""
}

// human runs a command that says nothing when it works.
func (m *monitor) human(t *testing.T, line string) {
	t.Helper()
	said := m.run(t, fmt.Sprintf(`{"execute":"human-monitor-command","arguments":{"command-line":%q}}`, line))
	if said != `""` {
		t.Fatalf("%s: %s", line, said)
	}
}

// setBackWorld is a guest that can be set back, with a mount.
func setBackWorld(t *testing.T) (*world, *monitor) {
	testenv.NeedDebian(t, "qemu-img", "qemu-utils")
	w := &world{Server: testenv.Start(t, daemon.Options{}), via: "virtio", addr: "virtio:" + port}
	w.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"guest"}`)
	disk, qmp := filepath.Join(w.Dir, "snapshots.qcow2"), filepath.Join(w.Dir, "qmp.sock")
	if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", disk, "2G").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.Guest = guest.Boot(t, machine.Options{
		Files:   map[string]string{"/bin/meta9": guest.Static(t, "cmd/meta9")},
		Connect: "unix:" + w.link(), Via: machine.Serial, Ports: 1,
		QEMU: []string{"-drive", "if=none,id=snapshots,format=qcow2,file=" + disk, "-qmp", "unix:" + qmp + ",server=on,wait=off"},
	})
	m := newMonitor(t, qmp)
	w.Sh(t, "mkdir -p "+dir)
	w.mount(t, "")
	return w, m
}

// works holds that the mount works.
func (w *world) works(t *testing.T) {
	t.Helper()
	if got := w.Sh(t, "echo works >"+keys+"/after; cat "+keys+"/after"); strings.TrimSuffix(got, "\n") != "works" {
		t.Errorf("afterwards: %q", got)
	}
}

// TestSetBack: a guest is set back by loadvm to a moment at which a program had one key
// open; since then it has closed it, and others have opened another key under the same
// fid. What the program writes then reaches its own key or is refused, and never the
// other one. Then the same at random moments of work. The mount works afterwards.
func TestSetBack(t *testing.T) {
	w, m := setBackWorld(t)
	for round := range setBacks {
		w.put(t, "mine", "mine\n")
		w.put(t, "other", "other\n")
		// The program writes when it is told to, and says how that went.
		w.Sh(t, "rm -f /tmp/*; (exec 5>>"+keys+"/mine; touch /tmp/open; until [ -e /tmp/go -o -e /tmp/end ]; do sleep 0.05; done; [ -e /tmp/end ] || { echo WROTE >&5; echo $? >/tmp/said; }) >/dev/null 2>&1 </dev/null & until [ -e /tmp/open ]; do sleep 0.05; done")
		m.human(t, "savevm then")
		w.Sh(t, "touch /tmp/end; sleep 0.3; for i in 1 2 3 4 5 6 7 8; do (exec 6>>"+keys+"/other; touch /tmp/other$i; sleep 1000) >/dev/null 2>&1 </dev/null & done; until [ -e /tmp/other8 ]; do sleep 0.05; done; for i in 1 2 3 4 5; do echo $i >>"+keys+"/later; done")
		m.human(t, "loadvm then")
		said := w.Sh(t, "[ -e /tmp/end ] && echo not set back; touch /tmp/go; until [ -s /tmp/said ]; do sleep 0.05; done; cat /tmp/said")
		values := w.values(t)
		t.Logf("round %d: exit %s, mine %q, other %q", round, strings.TrimSpace(said), values["mine"], values["other"])
		if values["other"] != "other\n" {
			t.Fatalf("another key was written: %q", values["other"])
		}
		if want := map[string]string{"0": "mine\nWROTE\n", "1": "mine\n"}[strings.TrimSpace(said)]; values["mine"] != want {
			t.Errorf("exit %s, and the key is %q", said, values["mine"])
		}
		w.works(t)
	}
	w.underLoad(t, m, randomSetBacks)
	w.unmount(t)
}

// setBacks is how often TestSetBack sets its guest back at a moment that it chooses, and
// randomSetBacks how often at others.
var setBacks, randomSetBacks = 2, 2

// underLoad sets the guest back at random moments, while programs in it write keys, whose
// values are their names, in all ways: by files that stay open, that are opened for each
// write, that are made and removed, so that the numbers of fids are used again and again.
// They may be refused, but no key ever has another's name in it.
func (w *world) underLoad(t *testing.T, m *monitor, times int) {
	rng := rand.New(rand.NewPCG(*seed, 7))
	const programs = 4
	w.Sh(t, "rm -f /tmp/*")
	for id := range programs {
		// Each has a key open for long, one for a moment, and one that comes and goes.
		command := fmt.Sprintf("cd %s; while [ ! -e /tmp/end ]; do "+
			"(exec 5>>held%[2]d; for i in 1 2 3 4 5 6 7 8; do echo held%[2]d >&5; echo short%[2]d >short%[2]d; "+
			"echo more%[2]d >>more%[2]d; (echo gone%[2]d; sleep 0.01; echo gone%[2]d) >gone%[2]d; rm -f gone%[2]d; done); "+
			"(exec 6<>held%[2]d; echo held%[2]d >&6); : >more%[2]d; : >held%[2]d; echo x >>/tmp/rounds%[2]d; done", keys, id)
		if _, err := w.Start("/", 0, "("+command+") >/dev/null 2>&1"); err != nil {
			t.Fatal(err)
		}
	}
	rounds := func() (n int) {
		fmt.Sscan(w.Sh(t, "cat /tmp/rounds* 2>/dev/null | wc -l"), &n)
		return n
	}
	goOn := func() {
		before := rounds()
		testenv.Eventually(t, "the programs go on", func() bool { return rounds() > before })
	}
	goOn()
	lines := 0
	for i := range times {
		time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
		m.human(t, "savevm load")
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		m.human(t, "loadvm load")
		goOn()
		for name, value := range w.values(t) {
			key := strings.TrimRight(name, "0123456789")
			if key == "motd" || !slices.Contains([]string{"held", "short", "more", "gone"}, key) {
				continue
			}
			for line := range strings.Lines(value) {
				lines++
				if strings.TrimRight(line, "\n\x00") != name && strings.Trim(line, "\x00\n") != name {
					t.Fatalf("set back for the %dth time: key %s has %q", i+1, name, line)
				}
			}
		}
		w.works(t)
	}
	w.Sh(t, "touch /tmp/end; while ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd 2>/dev/null | grep -q ' "+dir+"'; do sleep 0.1; done")
	t.Logf("set back %d times under load: %d lines, each of its own key", times, lines)
}
