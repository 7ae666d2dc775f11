package guest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"meta9/tests/guest/agent"
	"meta9/tests/testenv"
)

// transactions runs the recipes of docs/recipes.md, as they stand there, and looks at
// what a txn answers, in every dialect.
func transactions(t *testing.T, k *kernelGuest) {
	recipes := readRecipes(t)
	for _, version := range dialects {
		t.Run(version, func(t *testing.T) {
			m := k.mount(t, k.few, version)
			other := k.another(t, version)
			install(t, m, "", recipes)
			install(t, other, "other-", recipes)
			m.ok(t, "rm -f n log a b; printf 0 >n")
			counters(t, m, other)
			if version == "9p2000.L" {
				m.ok(t, "touch lock")
				m.says(t, "sh /tmp/lock.sh one && sh /tmp/other-lock.sh two && cat log", "one has it\ntwo has it")
			}
			m.ok(t, `printf '\000\377' >/tmp/crt; printf 'key' >/tmp/key`)
			m.holds(t, "sh /tmp/pair.sh /tmp/crt /tmp/key", `"done":[{"key":"tls.crt","version":`)
			m.says(t, "od -An -tx1 tls.crt; cat tls.key", " 00 ff\nkey")
			m.ok(t, "cd .. && ! { exec 3<>txn; echo '{\"do\":[{\"put\":\"a\",\"value\":\"1\"},{\"remove\":\"none\"}]}' >&3; }")
			m.says(t, "cat a || :", "cat: can't open 'a': No such file or directory")
			m.holds(t, "cd ..; exec 3<>txn; echo '{\"if\":[{\"key\":\"motd\",\"absent\":true}]}' >&3; cat <&3", `"key":"motd","version":`)
			m.holds(t, "cd ..; exec 3<>txn; echo '{' >&3; cat <&3", `{"error":"Invalid argument: JSON: `)
			m.ok(t, "rm n log tls.crt tls.key lock 2>/dev/null || :")
		})
	}
}

// reactions runs the recipes that need no mount.
func reactions(t *testing.T, k *kernelGuest) {
	addr := "tcp:10.0.2.2:" + k.few.port
	for name, text := range readRecipes(t) {
		k.writeScript(t, name, strings.ReplaceAll(text, "virtio:meta9", addr))
	}
	k.few.put(t, "tls.crt", "old crt\n")
	k.few.put(t, "tls.key", "old key\n")
	k.Sh(t, `(trap 'echo told >>/tmp/told' HUP; while :; do sleep 0.1; done) >/dev/null 2>&1 & mkdir -p /run; echo $! >/run/app.pid`)
	k.Sh(t, "sh /tmp/rotate.sh >/tmp/rotate.log 2>&1 &")
	has := func(want string) func() bool {
		return func() bool { return k.Sh(t, "cat /etc/app.pem /tmp/told 2>/dev/null || :") == want }
	}
	testenv.Eventually(t, "the file is there", has("old crt\nold key\ntold\n"))
	if err := k.few.admin.Swrite(0, []byte(`{"do":[{"put":"tls.crt","value":"new crt\n"},{"put":"tls.key","value":"new key\n"}]}`+"\n"), "txn"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it is the new one", has("new crt\nnew key\ntold\ntold\n"))
	k.few.put(t, "unrelated", "x")

	ready, err := k.Start("/", 0, "sh /tmp/ready.sh")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the guest says that it is up", func() bool { v, _ := k.few.value(t, "state"); return v == "up" })
	k.few.put(t, "go", "no")
	k.few.put(t, "go", "yes")
	if r := <-ready; r.Status != 0 {
		t.Errorf("wait: exit %d: %s", r.Status, r.Output)
	}
	k.few.put(t, "ssh-keys.ann", "ssh-ed25519 AAAA ann\n")
	if got := k.Sh(t, "sh /tmp/authorized-keys.sh ann"); got != "ssh-ed25519 AAAA ann\n" {
		t.Errorf("sshd is told %q", got)
	}
	if got := k.Sh(t, "cat /etc/app.pem /tmp/told /tmp/rotate.log"); got != "new crt\nnew key\ntold\ntold\n" {
		t.Errorf("after a change of another key: %q", got)
	}
	k.Sh(t, "kill $(pidof meta9) $(cat /run/app.pid) 2>/dev/null; :") // what it runs may end by itself
}

// writeScript writes a recipe into the guest's /tmp.
func (g *Guest) writeScript(t *testing.T, name, text string) {
	t.Helper()
	g.Sh(t, fmt.Sprintf("cat >/tmp/%s <<'END'\n%s\nEND", name, text))
}

// install writes the recipes for the mount into its guest, their names after prefix.
func install(t *testing.T, m *mount, prefix string, recipes map[string]string) {
	t.Helper()
	for name, text := range recipes {
		m.writeScript(t, prefix+name, strings.ReplaceAll(text, "/metadata", m.dir))
	}
}

// holds runs a shell's line, which must succeed or not, and looks for a text in what it
// prints.
func (m *mount) holds(t *testing.T, shell, want string) {
	t.Helper()
	out, _, err := m.Run(m.dir+"/keys", 0, shell)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, want) {
		t.Errorf("%s\nprints %q, want %q in it", shell, out, want)
	}
}

// counters adds to one key from two mounts at a time.
func counters(t *testing.T, m, other *mount) {
	t.Helper()
	count := func(at *mount, script string) <-chan agent.Reply {
		done, err := at.Start("/", 0, fmt.Sprintf("for i in $(seq %d); do sh /tmp/%s || exit 1; done", effort.counts, script))
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	one, two := count(m, "count.sh"), count(other, "other-count.sh")
	for _, done := range []<-chan agent.Reply{one, two} {
		if r := <-done; r.Status != 0 {
			t.Errorf("a counter: exit status %d, %s", r.Status, r.Output)
		}
	}
	m.says(t, "cat n", strconv.Itoa(2*effort.counts))
}

// readRecipes gives the scripts of docs/recipes.md by their names.
func readRecipes(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts := make(map[string]string)
	for i, block := range strings.Split(string(doc), "```sh\n") {
		text, _, ended := strings.Cut(block, "\n```")
		name, _, named := strings.Cut(strings.TrimPrefix(text, "# "), ":")
		switch {
		case i == 0:
		case !ended || !named || !strings.HasSuffix(name, ".sh"):
			t.Fatalf("a recipe without a name: %.40q", block)
		default:
			scripts[name] = text
		}
	}
	if len(scripts) < 3 {
		t.Fatalf("%d recipes", len(scripts))
	}
	return scripts
}
