package guest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/guest/kernel"
	"meta9/tests/guest/machine"
	"meta9/tests/mount/work"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// uuid is the VM whose guest is tested.
var uuid = testenv.UUID(1)

// host is meta9d with one VM, and a connection of the admin's to look at it.
type host struct {
	*testenv.Server
	admin *raw.Conn // attached to the VM
}

// serve starts a meta9d that has a VM.
func serve(t testing.TB, o daemon.Options) *host {
	s := testenv.Start(t, o)
	s.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"guest","customer_metadata":{"motd":"hello"}}`)
	return &host{s, s.Conn("vms/" + uuid)}
}

// socket is how the guest's machine reaches the VM's own socket.
func (h *host) socket() string { return "unix:" + h.VM(uuid) }

// value is a key as everyone else sees it; false: there is none.
func (h *host) value(t *testing.T, key string) (string, bool) {
	t.Helper()
	b, err := h.admin.Sread(0, "keys", key)
	if err != nil {
		if e, ok := err.(*raw.Error); ok && e.Text == "file does not exist" {
			return "", false
		}
		t.Fatalf("reading %s on the host: %v", key, err)
	}
	return string(b), true
}

// put sets a key from the host.
func (h *host) put(t *testing.T, key, value string) {
	t.Helper()
	if err := h.admin.Swrite(0, []byte(value), "keys", key); err != nil {
		t.Fatal(err)
	}
}

// put sets a key from the host. By FUSE, which keeps what it was told, it waits for the
// event: from then on the mount must show the value.
func (m *mount) put(t *testing.T, key, value string) {
	t.Helper()
	if m.fuse == "" {
		m.host.put(t, key, value)
		return
	}
	told := m.Sh(t, "mktemp")
	told = strings.TrimSpace(told)
	done, err := m.Start(m.dir, 0, "exec 3<events; echo >"+told+".open; dd bs=64k count=1 <&3 2>/dev/null >"+told)
	if err != nil {
		t.Fatal(err)
	}
	m.Sh(t, "until [ -e "+told+".open ]; do sleep 0.01; done")
	m.host.put(t, key, value)
	if r := <-done; r.Status != 0 {
		t.Fatalf("reading events: exit %d: %s", r.Status, r.Output)
	}
	m.Sh(t, "grep -q '\"key\":\""+key+"\"' "+told+" && rm "+told+" "+told+".open")
}

// stat is the stat record of a key.
func (h *host) stat(t *testing.T, key string) wire.Dir {
	t.Helper()
	b, err := h.admin.Sread(0, "keys")
	for err == nil && len(b) > 0 {
		var d wire.Dir
		if d, b, err = wire.DecodeDir(b, wire.E); err == nil && d.Name == key {
			return d
		}
	}
	t.Fatalf("no key %s: %v", key, err)
	return wire.Dir{}
}

// mount is one mount of the VM's folder in a guest.
type mount struct {
	*Guest
	host    *host
	dir     string
	version string // 9p2000.L, 9p2000.u, 9p2000
	cache   string // none, mmap, loose
	port    int    // of virtio-serial
	fuse    string // the address for meta9 mount, without a port's number; "": it is v9fs
}

// mount mounts the VM's folder; more are further mount options.
func (g *Guest) mount(t *testing.T, h *host, version, cache string, more ...string) *mount {
	t.Helper()
	m := &mount{Guest: g, host: h, version: version, cache: cache}
	m.dir = "/mnt/" + strings.ReplaceAll(t.Name(), "/", "-")
	m.remount(t, more...)
	t.Cleanup(func() { g.Run("/", 0, "umount "+m.dir) })
	return m
}

func (m *mount) remount(t *testing.T, more ...string) {
	t.Helper()
	if m.fuse != "" {
		addr := m.fuse
		if strings.HasPrefix(addr, "virtio:") {
			addr += fmt.Sprint(m.port)
		}
		m.Sh(t, fmt.Sprintf("mkdir -p %s; meta9 mount --fuse %s %[1]s", m.dir, addr))
		return
	}
	options := append([]string{"version=" + m.version, "cache=" + m.cache}, more...)
	m.Sh(t, fmt.Sprintf("mount9p -p %d %s %s", m.port, m.dir, strings.Join(options, ",")))
}

// linux tells whether the mount speaks 9P2000.L.
func (m *mount) linux() bool { return m.version == "9p2000.L" }

// ok runs a shell command in the keys' folder, as root; it must exit with 0.
func (m *mount) ok(t *testing.T, shell string) string {
	t.Helper()
	out, status, err := m.Run(m.dir+"/keys", 0, shell)
	if err != nil || status != 0 {
		t.Fatalf("%s\n\texit %d, %v: %s", shell, status, err, out)
	}
	return out
}

// says runs a command that must print that.
func (m *mount) says(t *testing.T, shell, want string) {
	t.Helper()
	if got := m.ok(t, shell); strings.TrimSuffix(got, "\n") != want {
		t.Errorf("%s\n\tprints %.300q, want %.300q", shell, got, want)
	}
}

// comesTo is says for what another mount has changed: by FUSE once the event has come.
func (m *mount) comesTo(t *testing.T, shell, want string) {
	t.Helper()
	if m.fuse != "" {
		testenv.Eventually(t, want, func() bool {
			out, _, _ := m.Run(m.dir+"/keys", 0, shell)
			return strings.TrimSuffix(out, "\n") == want
		})
	}
	m.says(t, shell, want)
}

// fails runs a command that must fail and say that.
func (m *mount) fails(t *testing.T, shell, want string) {
	t.Helper()
	out, status, err := m.Run(m.dir+"/keys", 0, shell)
	if err != nil || status == 0 || !strings.Contains(out, want) {
		t.Errorf("%s\n\texit %d, %v: %.300q, want a failure with %q", shell, status, err, out, want)
	}
}

// either is what differs between v9fs and FUSE; docs/guests.md says why.
func (m *mount) either(v9fs, fuse string) string {
	if m.fuse != "" {
		return fuse
	}
	return v9fs
}

// stored wants a value as the host sees it; under cache=loose, once the guest has
// written back what it holds. By FUSE close(2) does not wait for an empty one.
func (m *mount) stored(t *testing.T, key, want string) {
	t.Helper()
	if m.cache == "loose" {
		m.ok(t, "sync")
	}
	if m.fuse != "" && want == "" {
		testenv.Eventually(t, key+" is empty", func() bool { got, ok := m.host.value(t, key); return ok && got == "" })
	}
	if got, ok := m.host.value(t, key); !ok || got != want {
		t.Errorf("on the host %s is %.100q (there: %v), want %.100q", key, got, ok, want)
	}
}

// absent wants no such key on the host.
func (m *mount) absent(t *testing.T, key string) {
	t.Helper()
	if got, ok := m.host.value(t, key); ok {
		t.Errorf("on the host %s is there: %.100q", key, got)
	}
}

// Ways to reach the server.
var ways = []string{machine.Net, machine.Serial}

// TestMounts goes through what users do in a shell, by every transport, dialect
// and cache mode: all of it for 9p2000.L with cache=none, the short list for the
// rest. The guest with a network gets its seed by HTTP, too.
func TestMounts(t *testing.T) {
	for _, via := range ways {
		t.Run(via, func(t *testing.T) {
			t.Parallel() // a guest has one processor, and waits for meta9d half of the time
			h := serve(t, daemon.Options{Memory: true})
			o := machine.Options{Connect: h.socket(), Via: via}
			if via == machine.Net {
				o.QEMU = h.seedNet(t)
			}
			g := Boot(t, o)
			if via == machine.Net {
				t.Run("http", func(t *testing.T) { seed(t, g, h) })
			}
			for _, version := range []string{"9p2000.L", "9p2000.u", "9p2000"} {
				for _, cache := range []string{"none", "mmap", "loose"} {
					t.Run(version+"/"+cache, func(t *testing.T) {
						m := g.mount(t, h, version, cache)
						list := short
						if m.linux() && cache == "none" {
							list = slices.Concat(short, long)
						}
						m.ok(t, "for f in *; do [ \"$f\" = motd ] || rm -f \"$f\"; done") // what the last left
						for _, s := range list {
							t.Run(s.name, func(t *testing.T) { s.do(t, m) })
						}
						m.Sh(t, "umount "+m.dir)
					})
				}
			}
		})
	}
}

// step is something that users do.
type step struct {
	name string
	do   func(t *testing.T, m *mount)
}

// TestFUSE goes through the same list on mounts by FUSE: on this machine's kernel by tcp,
// and on Debian's cloud kernel by virtio-serial.
func TestFUSE(t *testing.T) {
	files := map[string]string{"/bin/meta9": Static(t, "cmd/meta9")}
	for name, boot := range map[string]func(t *testing.T, h *host) (g *Guest, addr string){
		"here": func(t *testing.T, h *host) (*Guest, string) {
			return Contain(t, machine.Options{Files: files}), "tcp:" + h.TCPAddrs[0]
		},
		"cloud": func(t *testing.T, h *host) (*Guest, string) {
			link := filepath.Join(filepath.Dir(h.VM(uuid)), "link.sock")
			return Boot(t, machine.Options{Kernel: kernel.Cloud, Connect: "unix:" + link, Via: machine.Serial, Files: files}), "virtio:9p"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := serve(t, daemon.Options{Memory: true, TCP: []string{"as=vm:" + uuid}, Config: "[limits]\nvm_events = 10000\n"})
			g, addr := boot(t, h)
			m := &mount{Guest: g, host: h, version: "9p2000.L", cache: "none", dir: "/mnt/fuse", fuse: addr}
			m.remount(t)
			list := slices.Concat(short, long)
			if name == "cloud" { // a port, which has one link, is for one mount; and an emulated processor is slow
				without := []string{"two mounts", "two users", "1000 keys"}
				list = slices.DeleteFunc(list, func(s step) bool { return slices.Contains(without, s.name) })
			}
			for _, s := range append(list, step{"fresh", fresh}, step{"recipes", mountRecipes}) {
				t.Run(s.name, func(t *testing.T) { s.do(t, m) })
			}
			m.Sh(t, "umount "+m.dir)
		})
	}
}

// fresh: the host writes a key 1,000 times, and a guest that keeps what it has read never
// reads an older value than that of an event that it was told. Package mount has the same over
// cuts and restarts.
func fresh(t *testing.T, m *mount) {
	const writes = 1000
	write := func(n int) {
		t.Helper()
		if err := m.host.admin.Swrite(0, []byte(work.Write("fresh", n)), "txn"); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	done, err := m.Start("/", 0, fmt.Sprintf("fresh fresh %s fresh %d", m.dir, writes))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); strings.TrimSpace(m.Sh(t, "[ -e /tmp/fresh.open ] || echo no")) != ""; {
		write(0) // it may not have opened the events before
		if time.Now().After(end) {
			t.Fatal("it is not told of events")
		}
	}
	for n := 1; n <= writes; n++ {
		write(n)
		time.Sleep(time.Millisecond) // the pace of the host: otherwise all events are one
	}
	r := <-done
	if r.Status != 0 {
		t.Errorf("exit %d: %s", r.Status, r.Output)
	}
	t.Logf("%d writes: %s", writes, r.Output)
}
