package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/guest/agent"
	"meta9/tests/guest/kernel"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// effort is how much of it TestKernel does; the soak does more.
var effort = struct {
	keys   int   // of the folder whose keys are all looked at
	opens  int   // of a key that is being replaced, in each dialect and at each rate
	rates  []int // replacements a second
	counts int   // that each of two adds to one key by transactions
}{300, 300, []int{200}, 5}

// dialects are what v9fs speaks.
var dialects = []string{"9p2000.L", "9p2000.u", "9p2000"}

// TestKernel tries in one boot of a kernel what kernels do differently: which pieces
// they read folders and streams in, and on which fids they ask for attributes. Its
// kernels are -kernel, or else a long-lived one and Debian's newest.
func TestKernel(t *testing.T) {
	suites := []string{kernel.Default, "sid"}
	if *Kernel != "" {
		suites = []string{*Kernel}
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			tryKernel(t, suite)
		})
	}
}

// tryKernel gives the kernel's version.
func tryKernel(t *testing.T, suite string) string {
	k := bootKernel(t, suite)
	for _, s := range []struct {
		name string
		do   func(t *testing.T, k *kernelGuest)
	}{
		{"folder", bigFolder},
		{"events", eventLoops},
		{"replaced", replaced},
		{"times", folderTimes},
		{"users", users},
		{"transactions", transactions},
		{"reactions", reactions},
	} {
		t.Run(s.name, func(t *testing.T) { s.do(t, k) })
	}
	return strings.TrimSpace(k.Sh(t, "uname -r"))
}

// kernelGuest is a guest that reaches several VMs, each at a port of the host's
// loopback.
type kernelGuest struct {
	*Guest
	few, many, full, owned *vmAt
}

// vmAt is a VM with the port that stands for it.
type vmAt struct {
	*host
	port string
}

// bootKernel starts meta9d and a guest.
func bootKernel(t *testing.T, suite string) *kernelGuest {
	t.Helper()
	keys := func(names []string) map[string]string {
		m := make(map[string]string)
		for _, name := range names {
			m[name] = "value of " + name
		}
		return m
	}
	payloads := []map[string]any{
		{"customer_metadata": map[string]string{"motd": "hello"}},
		{"customer_metadata": keys(keyNames(effort.keys))},
		{"customer_metadata": keys(keyNames(maxKeys))},
		{"customer_metadata": map[string]string{"motd": "hello"}, "9p_uid": 1000, "9p_gid": 2000, "9p_mode": "0640"},
	}
	var ids []string
	o := daemon.Options{Memory: true}
	for i := range payloads {
		ids = append(ids, testenv.UUID(i+1))
		o.TCP = append(o.TCP, "as=vm:"+ids[i])
	}
	s := testenv.Start(t, o)
	var at []*vmAt
	for i, payload := range payloads {
		payload["uuid"], payload["alias"] = ids[i], fmt.Sprint("guest", i)
		b, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		s.NewVM(ids[i], string(b))
		_, port, err := net.SplitHostPort(s.TCPAddrs[i])
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, &vmAt{&host{s, s.Conn("vms/" + ids[i])}, port})
	}
	g := Boot(t, machine.Options{
		Kernel: suite, Connect: "tcp:" + s.TCPAddrs[0], Via: machine.User, Debian: true,
		Files: map[string]string{"/bin/meta9": Static(t, "cmd/meta9")},
	})
	t.Logf("kernel %s", strings.TrimSpace(g.Sh(t, "uname -r")))
	return &kernelGuest{g, at[0], at[1], at[2], at[3]}
}

// mount mounts a VM's folder with cache=none.
func (k *kernelGuest) mount(t *testing.T, v *vmAt, version string, more ...string) *mount {
	t.Helper()
	return k.Guest.mount(t, v.host, version, "none", append([]string{"port=" + v.port}, more...)...)
}

// maxKeys is how many keys a VM may have.
const maxKeys = 4096

// keyNames are names of keys, of many lengths, so that no message is filled exactly.
func keyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("key%04d%s", i, strings.Repeat("x", i%41))
	}
	return names
}

// bigFolder lists folders that take many messages, by all that lists, in every
// dialect and in messages of several sizes.
func bigFolder(t *testing.T, k *kernelGuest) {
	for _, version := range dialects {
		for _, msize := range []int{4096, 8192, 128 << 10} {
			t.Run(fmt.Sprintf("%s/%d", version, msize), func(t *testing.T) {
				m := k.mount(t, k.full, version, fmt.Sprintf("msize=%d", msize))
				names := keyNames(maxKeys)
				m.lists(t, "/debian/ls -U", names)
				m.lists(t, `printf '%s\n' *`, names)
				two := strings.Split(m.ok(t, "listings ."), "\n\n")
				for i, list := range two {
					if err := eachOnce(list, names, 0); err != nil || len(two) != 2 {
						t.Errorf("of %d listings that take turns, number %d: %v", len(two), i, err)
					}
				}
				if msize == 8192 { // 5.10's own
					comeAndGo(t, k, m)
				}
			})
		}
		t.Run(version+"/each", func(t *testing.T) {
			m := k.mount(t, k.many, version, "msize=8192")
			names := keyNames(effort.keys)
			m.lists(t, "ls", names)
			m.lists(t, "find . -type f | sed 's,^./,,'", names)
			m.lists(t, "rm -rf /tmp/copy; cp -r . /tmp/copy && ls /tmp/copy", names)
			last := names[len(names)-1]
			m.says(t, "cat /tmp/copy/"+last, "value of "+last)
		})
	}
}

// lists runs a command that must print each name once.
func (m *mount) lists(t *testing.T, shell string, names []string) {
	t.Helper()
	if err := eachOnce(m.ok(t, shell), names, 0); err != nil {
		t.Errorf("%s: %v", shell, err)
	}
}

// eachOnce wants each name in a list exactly once; of the last may names it is told
// nothing: one that is removed and made again is another key.
func eachOnce(list string, names []string, may int) error {
	seen := make(map[string]int)
	for line := range strings.Lines(list) {
		seen[strings.TrimSuffix(line, "\n")]++
	}
	there := len(seen)
	var wrong []string
	for i, name := range names {
		n := seen[name]
		delete(seen, name)
		if n != 1 && i < len(names)-may {
			wrong = append(wrong, fmt.Sprintf("%s %d times", name, n))
		}
	}
	for name := range seen {
		wrong = append(wrong, fmt.Sprintf("%.40q, which is none", name))
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%d names of %d; %d wrong, the first: %s", there, len(names), len(wrong), wrong[0])
}

// comeAndGo lists the folder while the last of its keys are removed and made again.
func comeAndGo(t *testing.T, k *kernelGuest, m *mount) {
	const moving = 64
	names := keyNames(maxKeys)
	list, err := m.Start(m.dir+"/keys", 0, "for i in 1 2 3; do /debian/ls -U; echo; done")
	if err != nil {
		t.Fatal(err)
	}
	rounds := 0
	var r agent.Reply
	for running := true; running; rounds++ {
		name := names[maxKeys-1-rounds%moving]
		if err := errors.Join(k.full.remove(name), k.full.admin.Swrite(0, []byte("again"), "keys", name)); err != nil {
			t.Fatal(err)
		}
		select {
		case r = <-list:
			running = false
		case <-time.After(time.Millisecond): // the pace
		}
	}
	lists := strings.Split(strings.TrimSuffix(string(r.Output), "\n\n"), "\n\n")
	if r.Status != 0 || len(lists) != 3 {
		t.Errorf("exit %d, %d listings of 3", r.Status, len(lists))
	}
	for _, l := range lists {
		if err := eachOnce(l, names, moving); err != nil {
			t.Errorf("while %d keys came and went: %v", rounds, err)
		}
	}
}

// remove removes a key from the host.
func (h *host) remove(key string) error {
	const fid = 1
	err := h.admin.Walk(0, fid, "keys", key)
	if err == nil {
		_, err = h.admin.RPC(wire.Tremove, 0, uint32(fid))
	}
	return err
}

// rename renames a key from the host.
func (h *host) rename(from, to string) error {
	const fid = 1
	const keep = ^uint32(0)
	keepQID := p9.QID{Type: ^p9.QIDType(0), Version: keep, Path: ^uint64(0)}
	dir := wire.AppendDir(nil, &wire.Dir{
		Type: ^uint16(0), Dev: keep, QID: keepQID, Mode: keep, Atime: keep, Mtime: keep, Length: ^uint64(0), Name: to,
	}, wire.E)
	if err := h.admin.Walk(0, fid, "keys", from); err != nil {
		return err
	}
	_, err := h.admin.RPC(wire.Twstat, 0, uint32(fid), uint16(len(dir)), dir)
	return errors.Join(err, h.admin.Clunk(fid))
}

// readers are programs that read a stream in small pieces until it ends, as loops in
// a shell do.
var readers = map[string]string{
	"busybox": `while read -r l; do echo "$l"; done`,
	"dash":    `exec /debian/dash -c 'while read -r l; do echo "$l"; done'`,
	"sed":     `exec /debian/sed -u s/a/a/`,
	"dd":      `exec dd bs=1`,
	"cat":     `exec cat`,
}

// eventLoops: programs that read events go on after the first, and miss none.
func eventLoops(t *testing.T, k *kernelGuest) {
	for _, version := range dialects {
		t.Run(version, func(t *testing.T) {
			programs := maps.Clone(readers)
			if version == "9p2000" { // a read ends when its buffer is full, see docs/guests.md
				delete(programs, "cat")
				delete(programs, "sed")
			}
			eventLoop(t, k, version, programs)
		})
	}
}

func eventLoop(t *testing.T, k *kernelGuest, version string, readers map[string]string) {
	m := k.mount(t, k.few, version)
	m.Sh(t, "rm -rf /tmp/events; mkdir /tmp/events")
	for name, shell := range readers {
		if _, err := m.Start(m.dir, 0, fmt.Sprintf("exec <events >/tmp/events/%[1]s 2>/dev/null; echo $$ >/tmp/events/%[1]s.pid; %[2]s", name, shell)); err != nil {
			t.Fatal(err)
		}
	}
	m.within(t, fmt.Sprintf("[ $(ls /tmp/events/*.pid | wc -l) = %d ]", len(readers)))
	defer m.Sh(t, "kill $(cat /tmp/events/*.pid) || :")
	var want []string
	change := func() {
		key := fmt.Sprintf("event%02d", len(want))
		want = append(want, key)
		k.few.put(t, key, version)
	}
	// all waits until every reader has seen the last change, and so waits for more.
	all := func() bool {
		return m.within(t, fmt.Sprintf("[ $(grep -lF '\"%s\"' /tmp/events/* | wc -l) = %d ]", want[len(want)-1], len(readers)))
	}
	going := true
	for i := 0; i < 4 && going; i++ {
		change()
		going = all()
	}
	for i := 0; i < 4 && going; i++ { // now they are behind
		change()
	}
	if going {
		all()
	}
	for name := range readers {
		var got []string
		for line := range strings.Lines(m.Sh(t, "cat /tmp/events/"+name)) {
			var event struct{ Type, Key string }
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Errorf("%s: %q: %v", name, line, err)
			}
			got = append(got, event.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s saw %v of %v", name, got, want)
		}
	}
}

// within waits in the guest until a command succeeds, at most 20 s; false: it did not.
func (m *mount) within(t *testing.T, shell string) bool {
	t.Helper()
	_, status, err := m.Run("/", 0, "i=0; until "+shell+"; do [ $((i += 1)) -lt 200 ] || exit 1; sleep 0.1; done")
	if err != nil {
		t.Fatal(err)
	}
	return status == 0
}

// replaced: a key that is replaced, by the host and by another mount, can be opened
// and read at any moment, and what is open stays what it was.
func replaced(t *testing.T, k *kernelGuest) {
	for _, version := range dialects {
		t.Run(version, func(t *testing.T) {
			m, other := k.mount(t, k.few, version), k.another(t, version)
			m.ok(t, "echo old > k; echo new > k.new")
			m.says(t, "exec 5<k; mv k.new k; /debian/cat <&5; cat k", "old\nnew")
			other.ok(t, "echo newer > k.new")
			m.says(t, "exec 5<k; (cd "+other.dir+"/keys; mv k.new k); /debian/cat <&5; cat k", "new\nnewer")
			links := "1" // the other dialects have no such number
			if m.linux() {
				links = "0"
			}
			m.says(t, "exec 5<k; rm k; /debian/stat -c '%h %s' - <&5; /debian/cat <&5", links+" 6\nnewer")
			for _, rate := range effort.rates {
				race(t, m, other, rate)
			}
		})
	}
}

// another is a second mount of the same VM.
func (k *kernelGuest) another(t *testing.T, version string) *mount {
	t.Helper()
	other := &mount{Guest: k.Guest, host: k.few.host, version: version, cache: "none", dir: "/mnt/another-" + version}
	other.remount(t, "port="+k.few.port)
	t.Cleanup(func() { k.Run("/", 0, "umount "+other.dir) })
	return other
}

// race opens a key again and again while it is replaced, so many times a second from
// the host and as fast as it goes from another mount.
func race(t *testing.T, m, other *mount, rate int) {
	m.ok(t, "rm -f /tmp/stop; echo value 0 > k")
	moves, err := other.Start(other.dir+"/keys", 0,
		"i=0; until [ -e /tmp/stop ]; do i=$((i + 1)); echo value $i > k.new && mv k.new k || exit 1; done; echo $i")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := m.Start(m.dir+"/keys", 0, fmt.Sprintf("opens k %d", effort.opens))
	if err != nil {
		t.Fatal(err)
	}
	var r agent.Reply
	renames := 0
	pace := time.NewTicker(time.Second / time.Duration(rate))
	defer pace.Stop()
	for running := true; running; {
		select {
		case r = <-reader:
			running = false
		case <-pace.C:
			renames++
			m.host.put(t, "k.host", fmt.Sprintln("value", strings.Repeat("0", renames%200), renames))
			if err := m.host.rename("k.host", "k"); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.Sh(t, "touch /tmp/stop")
	if r.Status != 0 {
		t.Errorf("%d opens: %s", effort.opens, r.Output)
	}
	moved := <-moves
	if moved.Status != 0 {
		t.Errorf("the mount that replaces: %s", moved.Output)
	}
	t.Logf("%d opens (%s), %d replacements from the host, %s from a mount", effort.opens, bytes.TrimSpace(r.Output), renames, bytes.TrimSpace(moved.Output))
}

// folderTimes: programs that set the times of a folder do not fail.
func folderTimes(t *testing.T, k *kernelGuest) {
	for _, version := range dialects {
		t.Run(version, func(t *testing.T) {
			m := k.mount(t, k.few, version, "dfltuid=0,dfltgid=0") // or files are nobody's in 9P2000
			m.Sh(t, "rm -rf /tmp/x; mkdir /tmp/x; echo 1 >/tmp/x/one; echo 2 >/tmp/x/two; touch -d '2020-01-02 03:04:05' /tmp/x/* /tmp/x")
			for _, shell := range []string{
				"/debian/rsync -rt /tmp/x/ .",
				"cp -a /tmp/x/. .",
				"/debian/cp -a /tmp/x/. .",
				"touch .",
				"/debian/touch .",
			} {
				if out, status, err := m.Run(m.dir+"/keys", 0, shell); err != nil || status != 0 {
					t.Errorf("%s: exit %d, %v: %s", shell, status, err, out)
				}
			}
			m.says(t, "cat one two; stat -c %Y one two", "1\n2\n1577934245\n1577934245")
		})
	}
}

// users: the VM's 9p_uid, 9p_gid and 9p_mode, and the options of meta9 mount, say who
// in the guest may do what.
func users(t *testing.T, k *kernelGuest) {
	const owner, group, nobody = 1000, 2000, 3000 // nobody, unless a mount says so
	for _, c := range []struct{ version, access string }{
		{"9p2000.L", "any"},
		{"9p2000.L", "user"},
		{"9p2000.L", "client"},
		{"9p2000.u", "any"},
		{"9p2000.u", "user"},
	} {
		t.Run(c.version+"/"+c.access, func(t *testing.T) {
			m := k.mount(t, k.owned, c.version, "access="+c.access)
			m.says(t, "/debian/ls -ln motd | cut -d ' ' -f 1,3,4; /debian/ls -lnd . | cut -d ' ' -f 1,3,4", "-rw-r----- 1000 2000\ndrwxr-x--- 1000 2000")
			m.ok(t, "echo of root > roots")
			m.as(t, owner, "echo mine > mine && cat mine motd && echo more >> roots && mv mine moved && rm moved roots", "mine\nhello")
			m.as(t, group, "cat motd", "hello")
			m.denied(t, group, "echo x > "+m.dir+"/keys/motd")
			m.denied(t, group, "echo x > "+m.dir+"/keys/new")
			m.denied(t, nobody, "cat "+m.dir+"/keys/motd")
			m.denied(t, nobody, "echo x > "+m.dir+"/keys/new")
			m.ok(t, "echo x > mode; chmod 600 mode")
			m.says(t, "stat -c %a mode; rm mode", "600")
		})
	}
	t.Run("aname", func(t *testing.T) {
		m := k.mount(t, k.few, "9p2000.u", "access=any", "aname=uid=3000/gid=3000/mode=0600")
		m.says(t, "/debian/ls -ln motd | cut -d ' ' -f 1,3,4", "-rw------- 3000 3000")
		m.as(t, nobody, "echo mine > mine && cat mine motd && rm mine", "mine\nhello")
		m.denied(t, owner, "cat "+m.dir+"/keys/motd")
	})
	t.Run("meta9 mount", func(t *testing.T) {
		m := &mount{Guest: k.Guest, host: k.owned.host, version: "9p2000.L", cache: "none", dir: "/mnt/meta9"}
		m.Sh(t, "mkdir -p "+m.dir+"; meta9 mount -o uid=3000,gid=3000,mode=600 tcp:10.0.2.2:"+k.owned.port+" "+m.dir)
		defer m.Sh(t, "meta9 umount "+m.dir)
		m.says(t, "/debian/ls -ln motd | cut -d ' ' -f 1,3,4", "-rw------- 3000 3000")
		m.as(t, nobody, "echo mine > mine && cat motd && rm mine", "hello")
		m.denied(t, owner, "cat "+m.dir+"/keys/motd")
	})
}

// as runs a command in the keys' folder as a user whose group has the same number; it
// must print that and exit with 0.
func (m *mount) as(t *testing.T, uid uint32, shell, want string) {
	t.Helper()
	out, status, err := m.Run(m.dir+"/keys", uid, shell)
	if err != nil || status != 0 || strings.TrimSuffix(out, "\n") != want {
		t.Errorf("user %d: %s\n\texit %d, %v: prints %.300q, want %q", uid, shell, status, err, out, want)
	}
}

// denied runs a command as a user who may not do that.
func (m *mount) denied(t *testing.T, uid uint32, shell string) {
	t.Helper()
	out, status, err := m.Run("/", uid, shell)
	if err != nil || status == 0 || !strings.Contains(out, "Permission denied") {
		t.Errorf("user %d: %s\n\texit %d, %v: %.300q, want Permission denied", uid, shell, status, err, out)
	}
}
