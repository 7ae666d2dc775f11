//go:build unix

package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/cmd/meta9/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recipe writes a recipe into a folder.
func recipe(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name+".toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRecipe(t *testing.T) {
	dir := t.TempDir()
	recipe(t, dir, "app", `
check = 'test -s "$1"'
command = "true"
timeout = "5m"
missing = "remove"
mode = "0644"

[file."/etc/b"]
key = "b"

[file."/etc/a"]
key = "nocloud/user-data"
mode = "0400"
owner = 1000
group = "staff"
missing = "fail"
max_size = 10
`)
	recipe(t, dir, ".hidden", "nonsense")
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := agent.Load(dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d recipes, %v", len(list), err)
	}
	r := list[0]
	if r.Name != "app" || r.Timeout != 5*time.Minute || r.Check == "" || r.Command != "true" || len(r.Files) != 2 {
		t.Errorf("read as %+v", r)
	}
	b, a := r.Files[0], r.Files[1] // in the recipe's order
	if b.Path != "/etc/b" || b.Key != "keys/b" || b.Mode != 0o644 || b.Missing != agent.Remove || b.Most != 1<<20 {
		t.Errorf("b is read as %+v", b)
	}
	if a.Path != "/etc/a" || a.Key != "nocloud/user-data" || a.Mode != 0o400 || a.Owner != "1000" || a.Group != "staff" || a.Missing != agent.Fail || a.Most != 10 {
		t.Errorf("a is read as %+v", a)
	}
}

// TestWrongRecipe: what is wrong is named with its line.
func TestWrongRecipe(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", `it makes no file; for one there must be [file."/PATH"]`},
		{"file = 1", `it makes no file`},
		{"x = [", "app.toml:1: "},
		{"\ncommnd = \"x\"\n[file.\"/a\"]\nkey = \"a\"", "app.toml:2: commnd: there is no such setting; there are check, command, file, group, max_size, missing, mode, owner, timeout"},
		{"[file.\"/a\"]\nkye = \"a\"\nkey = \"a\"", `app.toml:2: file."/a".kye: there is no such setting; there are group, key, max_size, missing, mode, owner`},
		{"\n[file.\"/a\"]\nmode = \"0600\"", `app.toml:2: file."/a": which key? key is not set`},
		{"[file.\"a\"]\nkey = \"a\"", `app.toml:1: file.a: "a" is no absolute path`},
		{"[file.\"/a/../b\"]\nkey = \"a\"", `is no absolute path of a file, without . and .. and //`},
		{"[file.\"/\"]\nkey = \"a\"", `is no absolute path`},
		{"[file.\"/a\"]\nkey = \"../x\"", `app.toml:2: file."/a".key: "../x" is no path of a file`},
		{"[file.\"/a\"]\nkey = \"events/\"", `is no path of a file`},
		{"[file.\"/a\"]\nkey = \"/events\"", `is no path of a file`},
		{"[file.\"/a\"]\nkey = \"vms/x/events\"", `"vms/x/events" has no value that a file could have`},
		{"[file.\"/a\"]\nkey = \"keys/a%b\"", `app.toml:2: file."/a".key: "keys/a%b": `},
		{"[file.\"/a\"]\nkey = \"a\"\nmode = \"4755\"", `app.toml:3: file."/a".mode: "4755"; a mode is octal text of at most 0777`},
		{"[file.\"/a\"]\nkey = \"a\"\nmode = \"rw\"", `a mode is octal text`},
		{"[file.\"/a\"]\nkey = \"a\"\nmissing = \"x\"", `"x"; there are fail, keep, remove`},
		{"[file.\"/a\"]\nkey = \"a\"\nmax_size = 0", `it is a number of bytes, from 1 to 67108864`},
		{"[file.\"/a\"]\nkey = \"a\"\nmax_size = \"1M\"", `it is a number of bytes`},
		{"[file.\"/a\"]\nkey = \"a\"\nowner = \"a b\"", `a b is neither a name nor a number`},
		{"[file.\"/a\"]\nkey = \"a\"\nowner = -1", `-1 is no number of a user`},
		{"timeout = \"soon\"\n[file.\"/a\"]\nkey = \"a\"", `app.toml:1: timeout: "soon"; a time is as "90s" or "5m"`},
		{"check = 3\n[file.\"/a\"]\nkey = \"a\"", `app.toml:1: `},
		{"[file.\"/a\"]\nkey = \"a\"\n[file.\"/a\"]\nkey = \"b\"", `app.toml:3: `},
		{"[file.\"/a\"]\nkey = \"a\"\nmode = \"9\"\nowner = true", `app.toml:3: `}, // and both are said
		{"[file.\"/a\"]\nkey = \"a\"\nmode = \"9\"\nowner = true", `app.toml:4: `},
	} {
		dir := t.TempDir()
		recipe(t, dir, "app", tt.text)
		_, err := agent.Load(dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\nsays %v, want %q in it", tt.text, err, tt.want)
		}
	}
}

func TestUntrustedRecipes(t *testing.T) {
	dir := t.TempDir()
	recipe(t, dir, "one", "[file.\"/a\"]\nkey = \"a\"")
	recipe(t, dir, "two", "[file.\"/a\"]\nkey = \"b\"")
	if _, err := agent.Load(dir); err == nil || !strings.Contains(err.Error(), "one.toml and two.toml both make /a") {
		t.Errorf("of two recipes for a file: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "two.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "one.toml"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Load(dir); err == nil || !strings.Contains(err.Error(), "others may write it (mode 0666); chmod go-w") {
		t.Errorf("of a recipe that others may write: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Load(dir); err == nil || !strings.Contains(err.Error(), "chmod go-w "+dir) {
		t.Errorf("of a folder that others may write: %v", err)
	}
	if _, err := agent.Load(filepath.Join(dir, "none")); err == nil {
		t.Error("of a folder that is not there: nothing")
	}
}

func FuzzRecipe(f *testing.F) {
	f.Add("check = 'x'\n[file.\"/a\"]\nkey = \"a\"\nmode = \"0644\"")
	f.Add("[file]\n\"/a\" = {key = \"b\", owner = 3}")
	f.Add("file = [[1], {}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		recipe(t, dir, "app", text)
		list, err := agent.Load(dir)
		if err != nil {
			return
		}
		for _, file := range list[0].Files {
			if !filepath.IsAbs(file.Path) || filepath.Clean(file.Path) != file.Path || file.Mode&^0o777 != 0 || file.Most < 1 || file.Key == "" {
				t.Errorf("%q is taken as %+v", text, file)
			}
		}
	})
}
