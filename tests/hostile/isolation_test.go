package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta9/mdbridge/mdata"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// Ways that must not work: to what is another VM's, or the operator's, by any name, any
// protocol, any key. A new way that somebody thinks of is one more line here.

// hiddenMark is in all that the attacker must never see: the other VM's values, and what its
// own VM has for the operator alone.
const hiddenMark = "S3CRET"

// isolated is a target whose VMs have something to hide.
type isolated struct {
	*target
	before map[string]string
}

func newIsolated(t *testing.T, config string, args ...string) *isolated {
	t.Helper()
	srv := testenv.Start(t, daemon.Options{Config: config, Args: args, TCP: []string{""}})
	for i, alias := range []string{"mine", "victim"} {
		own := ""
		if i == innocent {
			own = hiddenMark
		}
		srv.NewVM(testenv.UUID(i), fmt.Sprintf(`{"uuid":%q,"alias":%q,"resolvers":["10.0.0.1"],"internal_metadata_namespaces":["ns"],`+
			`"customer_metadata":{"key":"own %s","hidden_pw":"%s of internal"},`+
			`"internal_metadata":{"hidden":"%s","operator-script":"own %s","ns:plain":"own %s"}}`, testenv.UUID(i), alias, own, hiddenMark, hiddenMark, own, own)) // a guest runs its operator-script, by sdc:operator-script
	}
	g := &isolated{target: &target{Server: srv, t: t}}
	g.before = g.all()
	return g
}

// all is both VMs as the admin has them, key by key.
func (g *isolated) all() map[string]string {
	g.t.Helper()
	admin, err := g.Dial("")
	if err != nil {
		g.t.Fatal(err)
	}
	defer admin.Close()
	m := make(map[string]string)
	for i := range 2 {
		b, err := admin.Sread(0, "vms", testenv.UUID(i), "vm.json")
		if err != nil {
			g.t.Fatal(err)
		}
		var v map[string]json.RawMessage
		if err := json.Unmarshal(b, &v); err != nil {
			g.t.Fatal(err)
		}
		for name, text := range v {
			m[fmt.Sprint(i, " ", name)] = string(text)
		}
	}
	return m
}

// untouched wants the innocent VM, and what of the attacker's is the operator's, to be
// what it was.
func (g *isolated) untouched() {
	g.t.Helper()
	now := g.all()
	for name, text := range g.before {
		if name == fmt.Sprint(attacker, " customer_metadata") || strings.HasSuffix(name, "last_modified") {
			continue
		}
		if now[name] != text {
			g.t.Errorf("%s was %s and is %s", name, text, now[name])
		}
	}
}

// hides fails if an answer has what it must not have.
func (g *isolated) hides(what string, answer []byte) {
	g.t.Helper()
	if bytes.Contains(answer, []byte(hiddenMark)) {
		g.t.Errorf("%s: %.300q", what, answer)
	}
}

// paths are names from the guest's root, each meant to lead elsewhere.
func paths() [][]string {
	victim := testenv.UUID(innocent)
	list := [][]string{
		{"vms", victim, "keys", "key"},
		{"vms"},
		{"names", "victim", "keys", "key"},
		{"names"},
		{"sessions"},
		{"ctl"},
		{"qmp"},
		{"upstream"},
		{"..", "vms", victim, "keys", "key"},
		{"..", "..", "vms", victim, "vm.json"},
		{"..", victim, "keys", "key"},
		{"..", "victim", "keys", "key"},
		{"keys", "..", "..", victim, "keys", "key"},
		{"keys", "..", "internal", "hidden"},
		{"sdc", "..", "internal", "hidden"},
		{"internal", "hidden"},
		{"internal", "operator-script"},
		{"internal", "..", "internal", "hidden"},
		{"keys", "hidden_pw"},
		{"keys", "../internal/hidden"},
		{"keys", "..%2Finternal%2Fhidden"},
		{"keys/../internal", "hidden"},
		{"../" + victim + "/keys/key"},
		{"/vms/" + victim + "/keys/key"},
		{"..%2F" + victim},
		{"%2E%2E", victim, "keys", "key"},
		{"%2e%2e", victim, "keys", "key"},
		{"%252E%252E", victim},
		{".", "internal", "hidden"},
		{"", "internal", "hidden"},
		{"\xc0\xae\xc0\xae", victim, "keys", "key"},
		{"\uff0e\uff0e", victim, "keys", "key"},
		{"\u2024\u2024", victim, "keys", "key"},
		{"internal", "h\u0456dden"},
		{"internal", "hidden\x00"},
		{"internal", "hidden\x00.txt"},
		{"internal\x00", "hidden"},
		{"internal", "HIDDEN"},
		{"internal", "hidde%6E"},
		{"internal", "%68idden"},
		{"internal", "hidden "},
		{"internal", " hidden"},
		{"internal", "hidden/"},
		{"internal", "hidden%2F"},
		{"internal", "hidden\u200b"},
		{"internal", "hidd\u00adenn"},
	}
	for _, name := range []string{
		"internal_metadata", "internal_metadata.hidden", "internal_metadata:hidden", "internal_metadata/hidden", "customer_metadata",
		"customer_metadata.hidden_pw", "internal_metadata[hidden]", "internal_metadata.*", "*", "__meta9_binary", "operator-script", "hidden",
	} {
		list = append(list, []string{"sdc", name}, []string{"sdc", "sdc:" + name}, []string{"sdc", "sdc%3A" + name}, []string{"nocloud", name})
	}
	return list
}

// TestNoWayBy9P: no walk, macro, attach, open, create or rename gets out of the VM.
func TestNoWayBy9P(t *testing.T) {
	g := newIsolated(t, "")
	for _, version := range []string{"9P2000", "9P2000.e", "9P2000.u", "9P2000.L", "9P2000.e.n", "9P2000.L.e"} {
		c := g.dial(attacker)
		g.attachAs(c, version, "admin")
		linux := strings.HasPrefix(version, "9P2000.L")
		for _, path := range paths() {
			what := fmt.Sprintf("%s: %q", version, path)
			g.tryPath(c, what, linux, strings.Contains(version, ".e"), path)
		}
		for i, aname := range []string{
			"..", "/..", "../" + testenv.UUID(innocent), "/vms/" + testenv.UUID(innocent), "vms/" + testenv.UUID(innocent) + "/keys", "names/victim",
			"keys/../../" + testenv.UUID(innocent), "internal/hidden", "uid=0/vms/" + testenv.UUID(innocent), "mode=0777/../vms", "uid=0/gid=0/mode=0777/internal",
			"%2E%2E/vms", "sessions", "ctl", "vm:" + testenv.UUID(innocent), testenv.UUID(innocent), "as=admin", ",as=admin",
		} {
			fields := []any{uint32(100 + i), raw.NoFid, "admin", aname}
			if linux || version == "9P2000.u" {
				fields = append(fields, uint32(0))
			}
			if _, err := c.RPC(wire.Tattach, 1, fields...); err == nil {
				g.tryPath(c, fmt.Sprintf("%s: aname %q", version, aname), linux, false, []string{"hidden"}, uint32(100+i))
			}
		}
		c.Close()
	}
	g.untouched()
}

// tryPath tries all that can be done with a path, from fid 0 or another.
func (g *isolated) tryPath(c *raw.Conn, what string, linux, macros bool, path []string, from ...uint32) {
	g.t.Helper()
	root := uint32(0)
	if len(from) > 0 {
		root = from[0]
	}
	if macros {
		if b, err := c.Sread(root, path...); err == nil {
			g.hides(what+" Tsread", b)
		} else if dead(err) {
			g.t.Fatalf("%s Tsread: %v", what, err)
		}
		if err := c.Swrite(root, []byte("owned"), path...); dead(err) {
			g.t.Fatalf("%s Tswrite: %v", what, err)
		}
	}
	for mode := range uint8(3) { // read, write, both
		if err := c.Walk(root, 1, path...); err != nil {
			if dead(err) {
				g.t.Fatalf("%s: %v", what, err)
			}
			continue
		}
		var err error
		if linux {
			_, err = c.RPC(wire.Tlopen, 1, uint32(1), uint32(mode))
		} else {
			err = c.Open(1, mode)
		}
		if err == nil && mode != wire.OWrite {
			read := wire.Tread
			if r, err := c.RPC(read, 1, uint32(1), uint64(0), uint32(8000)); err == nil {
				g.hides(what+" read", r.Body)
			}
		}
		if err == nil && mode != wire.ORead {
			_ = c.Write(1, 0, []byte("owned"))
		}
		_ = c.Clunk(1)
	}
}

// dead tells that the connection is gone, which none of this is a reason for.
func dead(err error) bool { return err != nil && gone(err) }

// TestNoWayByMdata: nor does a GET, PUT or DELETE of the metadata protocol.
func TestNoWayByMdata(t *testing.T) {
	g := newIsolated(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := mdata.Dial(ctx, filepath.Join(filepath.Dir(g.VM(testenv.UUID(attacker))), "mdata.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	names, err := c.Keys(ctx)
	if err != nil || slices.Contains(names, "hidden") || slices.Contains(names, "operator-script") || slices.Contains(names, "hidden_pw") {
		t.Errorf("KEYS: %q, %v", names, err)
	}
	for _, path := range paths() {
		for _, name := range []string{
			path[len(path)-1], strings.Join(path, "/"), "sdc:" + path[len(path)-1], "sdc:" + strings.Join(path, "."), "sdc:" + strings.Join(path, "/"), "sdc:sdc:" + path[len(path)-1],
		} {
			if b, err := c.Get(ctx, name); err == nil {
				g.hides(fmt.Sprintf("GET %q", name), b)
			}
			if strings.HasPrefix(name, "sdc:") || path[0] == "internal" {
				_ = c.Put(ctx, name, []byte("owned"))
				_ = c.Delete(ctx, name)
			}
		}
	}
	if b, err := c.Get(ctx, "sdc:alias"); err != nil || string(b) != "mine" {
		t.Errorf("after all that: %q, %v", b, err)
	}
	g.untouched()
}

// TestNoOracleByHTTP: what a listener does not show it does not tell by what its filters,
// fields and paths find either: an answer is the same whether a guess is right or wrong.
func TestNoOracleByHTTP(t *testing.T) {
	addrs, err := daemon.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	g := newIsolated(t, "", "--http", addrs[0])
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + addrs[0] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	const right, wrong = hiddenMark, "WR0NGS"
	for _, name := range []string{
		"internal_metadata", "internal_metadata.hidden", "internal_metadata.*", "*.hidden", "*.*", "*", "internal_metadata.operator-script",
		"INTERNAL_METADATA.hidden", "internal%5Fmetadata.hidden", "__meta9_binary", "__meta9_binary.internal_metadata.hidden", "internal_metadata.hidden.", ".internal_metadata.hidden",
	} {
		for _, value := range []string{"%s", "~%s", "~^%s", "~%s$", "~(?:%s)", "!%s", "*%s*"} {
			ask := func(guess string) string {
				// What the VMs' own answer has of the guess is the filter's text in an error.
				code, body := get("/vms?" + name + "=" + url.QueryEscape(fmt.Sprintf(value, guess)))
				return fmt.Sprint(code, strings.ReplaceAll(body, guess, "GUESS"))
			}
			if a, b := ask(right), ask(wrong); a != b {
				// A key that all may see has the hiddenMark too: only these may differ.
				if !strings.HasPrefix(name, "*") {
					t.Errorf("/vms?%s=%s: %.200q for a right guess, %.200q for a wrong one", name, value, a, b)
				}
			}
		}
		if _, body := get("/vms?fields=" + name); strings.Contains(body, hiddenMark) && !strings.HasPrefix(name, "*") {
			t.Errorf("/vms?fields=%s: %.300s", name, body)
		}
	}
	// The innocent's customer_metadata has the hiddenMark, and may be seen there; what is
	// internal has not.
	for _, path := range []string{"/vms", "/vms/" + testenv.UUID(attacker), "/vms/" + testenv.UUID(attacker) + "/internal_metadata", "/vms//" + testenv.UUID(attacker), "/vms/../internal_metadata"} {
		if _, body := get(path); strings.Contains(body, "internal_metadata\"") || strings.Contains(body, "operator-script") {
			t.Errorf("%s: %.300s", path, body)
		}
	}
	g.untouched()
}

// TestNoWayBySessionKey: who knows another VM's session key gets nothing by it: on his own
// socket, in either form, on tcp, with a MUMBLE message of his own making; and does not
// take it from its owner.
func TestNoWayBySessionKey(t *testing.T) {
	g := newIsolated(t, "")
	key := []byte("sess-key")
	owner := g.dial(innocent)
	g.attachWith(owner, key)
	if err := owner.Walk(0, 7, "keys", "key"); err != nil {
		t.Fatal(err)
	}
	draft := append(append(stringField("node"), stringField("group")...), key[:4]...)
	try := func(when string) {
		t.Helper()
		for what, dial := range map[string]func() *raw.Conn{
			"its own socket": func() *raw.Conn { return g.dial(attacker) },
			"tcp": func() *raw.Conn {
				c, err := raw.Dial("tcp", g.TCPAddrs[0])
				if err != nil {
					t.Fatal(err)
				}
				return c
			},
		} {
			for _, version := range []string{"9P2000.e", "9P2000.e.n", "9P2000.L.e"} {
				for _, form := range [][]byte{key, draft} {
					c := dial()
					if _, _, err := c.Version(64<<10, version); err != nil {
						t.Fatal(err)
					}
					_, _ = c.RPC(wire.Tsession, raw.NoTag, form)
					for _, fid := range []uint32{0, 7} {
						if b, err := c.Sread(fid); err == nil {
							g.hides(fmt.Sprintf("%s: %s, %s, fid %d", when, what, version, fid), b)
							t.Errorf("%s: %s, %s: fid %d is there", when, what, version, fid)
						}
					}
					c.Close()
				}
			}
		}
	}
	try("while it is live")
	if b, err := owner.Sread(7); err != nil || !strings.Contains(string(b), hiddenMark) {
		t.Errorf("the owner's connection: %q, %v", b, err)
	}
	owner.Close()
	try("while it is parked")
	back := g.dial(innocent)
	if _, _, err := back.Version(64<<10, "9P2000.e"); err != nil {
		t.Fatal(err)
	}
	if _, err := back.RPC(wire.Tsession, raw.NoTag, key); err != nil {
		t.Errorf("the owner comes back: %v", err)
	}
	if b, err := back.Sread(7); err != nil || !strings.Contains(string(b), hiddenMark) {
		t.Errorf("the owner's fid: %q, %v", b, err)
	}
	g.untouched()
}

// attachWith greets, announces a session and attaches.
func (g *isolated) attachWith(c *raw.Conn, key []byte) {
	g.t.Helper()
	if _, _, err := c.Version(64<<10, "9P2000.e"); err != nil {
		g.t.Fatal(err)
	}
	_, _ = c.RPC(wire.Tsession, raw.NoTag, key) // announced: an error reply
	if err := c.Attach(0, ""); err != nil {
		g.t.Fatal(err)
	}
}

// stringField is name[s].
func stringField(s string) []byte { return append([]byte{byte(len(s)), 0}, s...) }
