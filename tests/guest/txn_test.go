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

// reactions runs the recipes that are told by the host, at a mount and without one.
func reactions(t *testing.T, k *kernelGuest) {
	mountRecipes(t, k.mount(t, k.few, "9p2000.L"))
	addr := "tcp:10.0.2.2:" + k.few.port
	k.writeScript(t, "motd.sh", strings.ReplaceAll(readRecipes(t)["motd.sh"], "virtio:meta9", addr))
	pid := k.background(t, "sh /tmp/motd.sh", "/tmp/motd.log")
	for _, motd := range []string{"hello", "hello again"} {
		k.few.put(t, "motd", motd)
		testenv.Eventually(t, "/etc/motd is the key", func() bool { return k.Sh(t, "cat /etc/motd 2>/dev/null || :") == motd })
	}
	k.few.put(t, "motd", "hello")
	k.Sh(t, "kill "+pid)
	agentRecipes(t, k, addr)
	k.Sh(t, "kill $(pidof meta9) 2>/dev/null; :")
}

// mountRecipes runs those for a mount.
func mountRecipes(t *testing.T, m *mount) {
	for name, text := range readRecipes(t) {
		m.writeScript(t, name, strings.ReplaceAll(text, "/metadata", m.dir))
	}
	m.host.put(t, "tls.crt", "old crt\n")
	m.host.put(t, "tls.key", "old key\n")
	m.Sh(t, "rm -f /etc/app.pem /tmp/told; mkdir -p /run")
	app := m.app(t)
	rotate := m.background(t, "sh /tmp/rotate.sh", "/tmp/rotate.log")
	defer func() {
		if t.Failed() {
			t.Log(m.Sh(t, "cat /tmp/rotate.log; ls -l /etc/app.pem* /tmp/told; cat /etc/app.pem* /tmp/told; ps; cat /proc/[0-9]*/wchan; :"))
		}
	}()
	has := func(want string) func() bool {
		return func() bool { return m.Sh(t, "cat /etc/app.pem /tmp/told 2>/dev/null || :") == want }
	}
	testenv.Eventually(t, "the file is there", has("old crt\nold key\ntold\n"))
	if err := m.host.admin.Swrite(0, []byte(`{"do":[{"put":"tls.crt","value":"new crt\n"},{"put":"tls.key","value":"new key\n"}]}`+"\n"), "txn"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it is the new one", has("new crt\nnew key\ntold\ntold\n"))
	m.host.put(t, "unrelated", "x")

	ready, err := m.Start("/", 0, "sh /tmp/ready.sh")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the guest says that it is up", func() bool { v, _ := m.host.value(t, "state"); return v == "up\n" })
	m.host.put(t, "go", "no")
	m.host.put(t, "go", "yes")
	if r := <-ready; r.Status != 0 {
		t.Errorf("wait: exit %d: %s", r.Status, r.Output)
	}
	m.host.put(t, "ssh-keys.ann", "ssh-ed25519 AAAA ann\n")
	if got := m.Sh(t, "sh /tmp/authorized-keys.sh ann"); got != "ssh-ed25519 AAAA ann\n" {
		t.Errorf("sshd is told %q", got)
	}
	if got := m.Sh(t, "cat /etc/app.pem /tmp/told /tmp/rotate.log"); got != "new crt\nnew key\ntold\ntold\n" {
		t.Errorf("after a change of another key: %q", got)
	}
	m.Sh(t, "kill "+rotate+" "+app+"; while [ -e /proc/"+rotate+"/exe ]; do sleep 0.05; done; rm "+m.dir+"/keys/go")
}

// app is the program that recipes tell by SIGHUP: /run/app.pid.
func (g *Guest) app(t *testing.T) (pid string) {
	t.Helper()
	g.Sh(t, "rm -f /tmp/up")
	pid = g.background(t, `(trap 'echo told >>/tmp/told' HUP; : >/tmp/up; while :; do sleep 0.1; done)`, "/dev/null")
	g.Sh(t, "while [ ! -e /tmp/up ]; do sleep 0.05; done; echo "+pid+" >/run/app.pid") // SIGHUP ends it until then
	return pid
}

// background runs a shell's line in the background, and gives its process.
func (g *Guest) background(t *testing.T, shell, log string) (pid string) {
	t.Helper()
	return strings.TrimSpace(g.Sh(t, shell+" >"+log+" 2>&1 </dev/null & echo $!"))
}

// agentRecipes has meta9 agent apply the recipes that are for it.
func agentRecipes(t *testing.T, k *kernelGuest, addr string) {
	k.few.put(t, "tls.crt", "CERTIFICATE 1\n")
	k.few.put(t, "tls.key", "key 1\n")
	app := k.app(t)
	defer k.Sh(t, "kill "+app)
	k.Sh(t, "rm -f /tmp/told; mkdir -p /etc/meta9/agent.d /etc/app /etc/ssh/keys; echo app:x:1000:2000::/:/bin/sh >>/etc/passwd")
	for name, text := range readDoc(t, "toml", ".toml") {
		k.Sh(t, fmt.Sprintf("cat >/etc/meta9/agent.d/%s <<'END'\n%s\nEND", name, text))
	}
	if got, want := k.Sh(t, "meta9 agent --check"), "2 recipes, nothing is wrong with them\n"; got != want {
		t.Errorf("--check says %q, want %q", got, want)
	}
	k.Sh(t, "meta9 --addr "+addr+" agent >/tmp/agent.log 2>&1 &")
	files := func(crt, key, ann, told string) func() bool {
		return func() bool {
			return k.Sh(t, "cat /etc/app/tls.crt /etc/app/tls.key /etc/ssh/keys/ann /tmp/told 2>/dev/null || :") == crt+key+ann+told
		}
	}
	const ann = "ssh-ed25519 AAAA ann\n"
	testenv.Eventually(t, "the agent has made the files", files("CERTIFICATE 1\n", "key 1\n", ann, "told\n"))
	if got, want := k.Sh(t, "stat -c '%a %u %g' /etc/app/tls.crt /etc/app/tls.key /etc/ssh/keys/ann"), "644 0 0\n600 1000 2000\n644 0 0\n"; got != want {
		t.Errorf("the files are %q, want %q", got, want)
	}
	pair := func(crt, key string) {
		if err := k.few.admin.Swrite(0, []byte(`{"do":[{"put":"tls.crt","value":"`+crt+`\n"},{"put":"tls.key","value":"`+key+`\n"}]}`+"\n"), "txn"); err != nil {
			t.Fatal(err)
		}
	}
	pair("CERTIFICATE 2", "key 2")
	testenv.Eventually(t, "the agent has both new files", files("CERTIFICATE 2\n", "key 2\n", ann, "told\ntold\n"))
	pair("none", "key 3") // which the check refuses
	if err := k.few.admin.Swrite(0, []byte(`{"do":[{"remove":"ssh-keys.ann"}]}`+"\n"), "txn"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent has removed a file, and kept others", func() bool {
		out, status, err := k.Run("/", 0, "meta9 agent status 2>&1")
		return err == nil && status == 1 && strings.Contains(out, "recipes fail: app") && files("CERTIFICATE 2\n", "key 2\n", "", "told\ntold\n")()
	})
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
func readRecipes(t *testing.T) map[string]string { return readDoc(t, "sh", ".sh") }

// readDoc gives the blocks of docs/recipes.md in a language, by their names.
func readDoc(t *testing.T, language, ending string) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts := make(map[string]string)
	for i, block := range strings.Split(string(doc), "```"+language+"\n") {
		text, _, ended := strings.Cut(block, "\n```")
		name, _, named := strings.Cut(strings.TrimPrefix(text, "# "), ":")
		switch {
		case i == 0:
		case !ended || !named || !strings.HasSuffix(name, ending):
			t.Fatalf("a recipe without a name: %.40q", block)
		default:
			scripts[name] = text
		}
	}
	if len(scripts) < 2 {
		t.Fatalf("%d recipes", len(scripts))
	}
	return scripts
}
