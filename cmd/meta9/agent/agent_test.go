//go:build unix

package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/cmd/meta9/agent"
)

// holds wants a file with a text and a mode.
func holds(t *testing.T, path, want string, mode os.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	i, err2 := os.Lstat(path)
	if err != nil || err2 != nil || string(got) != want || i.Mode() != mode {
		t.Errorf("%s has %.60q, %v %v %v; want %.60q, mode %v", path, got, err, err2, i, want, mode)
	}
}

// is tells whether a file has a text.
func is(path, want string) bool {
	got, err := os.ReadFile(path)
	return err == nil && string(got) == want
}

// onlyFiles fails the test if the folder has other names than want, which is sorted.
func onlyFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if err != nil || strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("in %s are %q, %v; want %q", dir, names, err, want)
	}
}

func TestOnce(t *testing.T) {
	h := newHost(t)
	h.put("a", "one")
	h.put("b", "\x00two\n")
	dir := real(t, t.TempDir())
	opt := h.options(t.Output())
	text := fmt.Sprintf(`
check = 'test "$(cat "$1")" = one && [ "$1" != %[1]s/a ] && echo checked >>%[1]s/log'
command = 'printf "%%s:%%s\n" "$META9_RECIPE" "$META9_CHANGED" >>%[1]s/log'
[file."%[1]s/a"]
key = "a"
mode = "0640"
[file."%[1]s/b"]
key = "b"
`, dir)
	changed, err := h.once(text, opt)
	if err != nil || len(changed) != 2 {
		t.Fatalf("changed %q, %v", changed, err)
	}
	holds(t, dir+"/a", "one", 0o640)
	holds(t, dir+"/b", "\x00two\n", 0o600)
	log := "checked\napp:" + dir + "/a\n" + dir + "/b\n"
	holds(t, dir+"/log", log, 0o644)
	onlyFiles(t, dir, "a", "b", "log")
	onlyFiles(t, opt.State, "lock")

	// Nothing new: nothing is run.
	if changed, err := h.once(text, opt); err != nil || changed != nil {
		t.Errorf("the second time changed %q, %v", changed, err)
	}
	holds(t, dir+"/log", log, 0o644)

	// A mode that somebody has changed is put right, and is a change.
	if err := os.Chmod(dir+"/a", 0o666); err != nil {
		t.Fatal(err)
	}
	if changed, err := h.once(text, opt); err != nil || len(changed) != 1 {
		t.Errorf("after a chmod changed %q, %v", changed, err)
	}
	holds(t, dir+"/a", "one", 0o640)

	// The check says no: nothing of the set changes.
	h.put("a", "other")
	h.put("b", "three")
	if changed, err := h.once(text, opt); err == nil || !strings.Contains(err.Error(), "app: check: exit status 1") || changed != nil {
		t.Errorf("with a check that fails changed %q, %v", changed, err)
	}
	holds(t, dir+"/a", "one", 0o640)
	holds(t, dir+"/b", "\x00two\n", 0o600)
	onlyFiles(t, dir, "a", "b", "log")
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct{ missing, want string }{{"keep", "a b"}, {"remove", "b"}, {"fail", "a old"}} {
		h := newHost(t)
		h.put("a", "a")
		h.put("b", "old")
		dir := real(t, t.TempDir())
		text := fmt.Sprintf("missing = %q\n[file.\"%s/a\"]\nkey = \"a\"\n[file.\"%[2]s/b\"]\nkey = \"b\"", tt.missing, dir)
		opt := h.options(t.Output())
		if _, err := h.once(text, opt); err != nil {
			t.Fatal(err)
		}
		h.remove("a")
		h.put("b", "b")
		_, err := h.once(text, opt)
		if (err != nil) != (tt.missing == "fail") {
			t.Errorf("%s: %v", tt.missing, err)
		}
		var has []string
		for _, name := range []string{"a", "b"} {
			if b, err := os.ReadFile(dir + "/" + name); err == nil {
				has = append(has, string(b))
			}
		}
		if got := strings.Join(has, " "); got != tt.want {
			t.Errorf("%s: the files have %q, want %q", tt.missing, got, tt.want)
		}
	}
}

// TestNoWayOut: whatever lies in the way, nothing outside of the folder that the recipe
// names is written, and nothing but its file in it.
func TestNoWayOut(t *testing.T) {
	const secret = "not to be written"
	for _, tt := range []struct {
		name string
		lay  func(dir, out string) error // in dir/in, where the file goes; out is elsewhere
		want string                      // of the error; "": the file is made
	}{
		{"nothing", func(string, string) error { return nil }, ""},
		{"a link in the file's place", func(dir, out string) error { return os.Symlink(out+"/victim", dir+"/in/file") }, ""},
		{"a dangling link", func(dir, out string) error { return os.Symlink(out+"/new", dir+"/in/file") }, ""},
		{"a hard link", func(dir, out string) error { return os.Link(out+"/victim", dir+"/in/file") }, ""},
		{"a fifo", func(dir, out string) error { return syscall.Mkfifo(dir+"/in/file", 0o600) }, ""},
		{"a folder", func(dir, out string) error { return os.Mkdir(dir+"/in/file", 0o700) }, "/in/file: is a directory"},
		{"a link in the folder's place", func(dir, out string) error {
			if err := os.Remove(dir + "/in"); err != nil {
				return err
			}
			return os.Symlink(out, dir+"/in")
		}, "/in: a symbolic link, which the agent does not follow; name the folder that it leads to"},
		{"a link in the new file's place", func(dir, out string) error {
			return os.Symlink(out+"/victim", dir+"/in/.meta9-3b9c358f36f0a31b")
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.put("k", "value")
			dir, out := real(t, t.TempDir()), real(t, t.TempDir())
			for _, err := range []error{os.Mkdir(dir+"/in", 0o755), os.WriteFile(out+"/victim", []byte(secret), 0o600), tt.lay(dir, out)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			_, err := h.once(fmt.Sprintf("[file.\"%s/in/file\"]\nkey = \"k\"", dir), h.options(t.Output()))
			holds(t, out+"/victim", secret, 0o600)
			onlyFiles(t, out, "victim")
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q in it", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
			holds(t, dir+"/in/file", "value", 0o600)
			onlyFiles(t, dir+"/in", "file")
		})
	}
}

// TestLyingHost: no lie of the host's does more than a failure that is said in a bounded
// text.
func TestLyingHost(t *testing.T) {
	for _, tt := range []struct {
		name string
		lie  func(h *host)
		want string
	}{
		{"says too long", func(h *host) { h.lie("k", func(f *told) { f.length = 1 << 63 }) }, "keys/k: longer than 100 bytes, which is max_size of the recipe"},
		{"gives without end", func(h *host) { h.lie("k", func(f *told) { f.endless = true }) }, "keys/k: longer than 100 bytes"},
		{"says short and gives much", func(h *host) {
			h.lie("k", func(f *told) { f.length = 1; f.value = bytes.Repeat([]byte("x"), 101) })
		}, "longer than 100 bytes"},
		{"a folder in the key's place", func(h *host) { h.lie("k", func(f *told) { f.folder = true }) }, "keys/k: Is a directory"},
		{"errors that steer terminals", func(h *host) { h.put("k", "v"); h.denied = "\x1b[2J\n" + strings.Repeat("long", 10000) }, "?[2J"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			tt.lie(h)
			dir := real(t, t.TempDir())
			var log lines
			opt := h.options(&log)
			h.run(fmt.Sprintf("missing = \"fail\"\nmax_size = 100\n[file.\"%s/f\"]\nkey = \"k\"", dir), opt)
			var s *agent.Status
			until(t, "the failure is in the status", func() bool {
				var err error
				s, err = agent.ReadStatus(opt.Status)
				return err == nil && s.Recipes[0].Error != ""
			})
			if e := s.Recipes[0].Error; !strings.Contains(e, tt.want) || len(e) > 600 || strings.ContainsAny(e, "\x1b\n") {
				t.Errorf("the status says %.700q, want %q in it", e, tt.want)
			}
			if text := log.String(); len(text) > 2000 || strings.Contains(text, "\x1b") {
				t.Errorf("the log has %d bytes: %.700q", len(text), text)
			}
			onlyFiles(t, dir)
		})
	}
}

// tree is all that is in a folder: what each file has, whose it is, and its mode.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		st := i.Sys().(*syscall.Stat_t)
		is := fmt.Sprintf("%v of %d:%d", i.Mode(), st.Uid, st.Gid)
		if i.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			is += fmt.Sprintf(" has %q", text)
		}
		all[path] = is
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestNamesOfTheHost: whatever names the host tells of, nothing but the recipe's files and its
// mark is written, removed or run; and what it tells does not end the agent.
func TestNamesOfTheHost(t *testing.T) {
	h := newHost(t)
	dir := real(t, t.TempDir())
	for _, name := range []string{"in", "out"} {
		if err := os.Mkdir(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/out/victim", []byte("not to be written"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{
		"../out/victim", "../../out/victim", dir + "/out/victim", "a/../../out/victim", "/", "", ".", "..", "a/b", "%2e%2e%2fout%2fvictim",
		"a\x00b", "\x1b[2J", "\n", "-rf", "$(touch " + dir + "/out/run)", "`touch " + dir + "/out/run`", "; touch " + dir + "/out/run", "\xff\xfe",
		strings.Repeat("n", 60<<10), strings.Repeat("../", 1000), "b\n" + dir + "/out/victim",
	}
	for _, name := range names { // such keys are there, too
		h.put(name, "the host's")
	}
	h.put("k", "one")
	h.put("b", "b")
	opt := h.options(t.Output())
	stop := h.run(fmt.Sprintf("missing = \"remove\"\ncommand = 'echo told >%[1]s/in/told'\n"+
		"[file.\"%[1]s/in/file\"]\nkey = \"k\"\n[file.\"%[1]s/in/b\"]\nkey = \"b\"", dir), opt)
	until(t, "it is applied", func() bool { return is(dir+"/in/told", "told\n") })
	h.mu.Lock()
	for _, name := range names {
		for _, form := range []string{
			`{"type":"key-set","space":"keys","key":%q}`, `{"type":"key-removed","space":%q,"key":"k"}`, `{"type":%q,"space":"keys","key":"k"}`,
			`{"type":"key-set","space":"keys","key":"k","vm":%q,"by":%[1]q,"as":%[1]q,"rev":-1}`, `{"type":"key-set","space":["keys"],"key":{%q:1}}`, `%q`, `%s`,
		} {
			h.event(fmt.Sprintf(form, name) + "\n")
		}
	}
	h.event(strings.Repeat("[", 100<<10) + "\n")
	h.mu.Unlock()
	h.remove("b")
	h.put("k", "two")
	until(t, "it goes on", func() bool {
		_, err := os.Lstat(dir + "/in/b")
		return is(dir+"/in/file", "two") && err != nil
	})
	until(t, "the mark is gone", func() bool { _, err := os.Lstat(opt.State + "/app.changed"); return err != nil })
	stop()
	owner := fmt.Sprintf("of %d:%d", os.Geteuid(), os.Getegid())
	want := map[string]string{
		dir: tree(t, dir)[dir], dir + "/in": "drwxr-xr-x " + owner, dir + "/out": "drwxr-xr-x " + owner,
		dir + "/out/victim": "-rw------- " + owner + ` has "not to be written"`,
		dir + "/in/file":    "-rw------- " + owner + ` has "two"`,
		dir + "/in/told":    "-rw-r--r-- " + owner + ` has "told\n"`,
	}
	if got := tree(t, dir); !maps.Equal(got, want) {
		t.Errorf("there is\n%q\nwant\n%q", got, want)
	}
	onlyFiles(t, opt.State, "lock")
}

// TestOwnerPutRight: who else has got the file, or the folder it is in, by now does not keep it:
// it is replaced by one of the recipe's owner and mode, and what he has linked stays as it was.
// Of owners only root can show that.
func TestOwnerPutRight(t *testing.T) {
	h := newHost(t)
	h.put("k", "value")
	dir := real(t, t.TempDir())
	text := fmt.Sprintf("owner = %d\ngroup = %d\nmode = \"0640\"\n[file.\"%s/file\"]\nkey = \"k\"", os.Geteuid(), os.Getegid(), dir)
	opt := h.options(t.Output())
	if changed, err := h.once(text, opt); err != nil || len(changed) != 1 {
		t.Fatalf("changed %q, %v", changed, err)
	}
	if err := os.Link(dir+"/file", dir+"/linked"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`-rw-r----- of %d:%d has "value"`, os.Geteuid(), os.Getegid())
	for _, spoil := range []func() error{
		func() error { return os.Chmod(dir+"/file", 0o755|fs.ModeSetuid) },
		func() error { return os.WriteFile(dir+"/file", []byte("other"), 0) },
		func() error { return root(func() error { return os.Chown(dir+"/file", 12345, -1) }) },
		func() error { return root(func() error { return os.Chown(dir+"/file", -1, 12345) }) },
		func() error { return root(func() error { return os.Chown(dir, 12345, 12345) }) },
	} {
		before := tree(t, dir)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		spoilt := tree(t, dir)[dir+"/file"] != before[dir+"/file"]
		changed, err := h.once(text, opt)
		if err != nil || (len(changed) == 1) != spoilt {
			t.Errorf("changed %q, %v", changed, err)
		}
		if got := tree(t, dir)[dir+"/file"]; got != want {
			t.Errorf("the file is %s, want %s", got, want)
		}
	}
	want = fmt.Sprintf(`urwxr-xr-x of %d:%d has "value"`, os.Geteuid(), os.Getegid())
	if got := tree(t, dir)[dir+"/linked"]; got != want {
		t.Errorf("what was linked to the file is %s, want %s", got, want)
	}
}

// root does what only root can.
func root(do func() error) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return do()
}

// TestStill: keys that change with each look are not written half and half.
func TestStill(t *testing.T) {
	h := newHost(t)
	h.put("a", "a")
	h.lie("b", func(f *told) { f.moves = true })
	dir := real(t, t.TempDir())
	_, err := h.once(fmt.Sprintf("[file.\"%s/a\"]\nkey = \"a\"\n[file.\"%[1]s/b\"]\nkey = \"b\"", dir), h.options(t.Output()))
	if err == nil || !strings.Contains(err.Error(), "the keys change faster than they can be read") {
		t.Errorf("once: %v", err)
	}
	onlyFiles(t, dir)
}

// TestHostsPace: a host that changes a key all the time, and sends a flood of events, makes
// neither the commands run nor the log grow at its pace.
func TestHostsPace(t *testing.T) {
	h := newHost(t)
	h.put("k", "0")
	dir := real(t, t.TempDir())
	var log lines
	h.run(fmt.Sprintf("command = 'echo >>%s/runs'\n[file.\"%[1]s/f\"]\nkey = \"k\"", dir), h.options(&log))
	until(t, "it is applied", func() bool { return is(dir+"/f", "0") })
	const span = 3 * time.Second
	n := 0
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		n++
		h.put("k", fmt.Sprint(n))
		h.mu.Lock()
		h.event(strings.Repeat("x", 1000) + "\n{}\n")
		h.mu.Unlock()
	}
	until(t, "the last value is there", func() bool { return is(dir+"/f", fmt.Sprint(n)) })
	runs, err := os.ReadFile(dir + "/runs")
	if most := int(span/time.Second) + 3; err != nil || len(runs) > most {
		t.Errorf("%d runs of %d changes in %v, %v; want at most %d", len(runs), n, span, err, most)
	}
	if lines := strings.Count(log.String(), "\n"); lines > len(runs)+3 {
		t.Errorf("%d lines for %d runs: %.2000s", lines, len(runs), log.String())
	}
}

// TestNoHost: an agent starts without a host, and one that goes away changes nothing.
func TestNoHost(t *testing.T) {
	h := newHost(t)
	h.down = true
	h.put("k", "new")
	dir := real(t, t.TempDir())
	if err := os.WriteFile(dir+"/f", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log lines
	opt := h.options(&log)
	h.run(fmt.Sprintf("missing = \"remove\"\n[file.\"%s/f\"]\nkey = \"k\"", dir), opt)
	status := func() *agent.Status {
		s, err := agent.ReadStatus(opt.Status)
		if err != nil {
			return &agent.Status{}
		}
		return s
	}
	until(t, "the status says that the host is away", func() bool {
		return status().Trouble() == "the host is not there: host: no connection: nobody is there"
	})
	holds(t, dir+"/f", "old", 0o600)
	h.up()
	until(t, "it is new", func() bool { return is(dir+"/f", "new") })
	until(t, "all is well", func() bool { s := status(); return s.Host.Up && s.Trouble() == "" && s.Recipes[0].Changes == 1 })
	h.cut()
	until(t, "it is away", func() bool { s := status(); return s.PID != 0 && !s.Host.Up })
	holds(t, dir+"/f", "new", 0o600)
	h.put("k", "meanwhile") // its session, and its event, are lost
	h.up()
	until(t, "what was missed is read", func() bool { return is(dir+"/f", "meanwhile") })
	if n := strings.Count(log.String(), "no host yet"); n != 1 {
		t.Errorf("that there is no host is said %d times: %s", n, log.String())
	}
}

// TestFailingCommand: it is tried again, said once, counted, and not forgotten when the
// agent is started anew.
func TestFailingCommand(t *testing.T) {
	h := newHost(t)
	h.put("a", "a")
	h.put("b", "b")
	dir := real(t, t.TempDir())
	text := fmt.Sprintf(`
command = 'echo "$META9_CHANGED" >>%[1]s/runs; cat %[1]s/good || { echo why >&2; exit 7; }'
[file."%[1]s/a"]
key = "a"
[file."%[1]s/b"]
key = "b"
`, dir)
	var log lines
	opt := h.options(&log)
	stop := h.run(text, opt)
	runs := func() int { b, _ := os.ReadFile(dir + "/runs"); return strings.Count(string(b), dir+"/a\n"+dir+"/b\n") }
	until(t, "it is tried again", func() bool { return runs() >= 2 })
	until(t, "the status says so", func() bool {
		s, err := agent.ReadStatus(opt.Status)
		return err == nil && s.Recipes[0].Failures >= 2 && strings.HasSuffix(s.Trouble(), "recipes fail: app")
	})
	stop()
	if n := strings.Count(log.String(), "recipe app: command: exit status 7: "); n != 1 || !strings.Contains(log.String(), "why") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	before := runs()
	if err := os.WriteFile(dir+"/good", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := h.once(text, opt); err != nil || changed != nil || runs() != before+1 {
		t.Errorf("anew: changed %q, %v, %d runs after %d", changed, err, runs(), before)
	}
	if _, err := h.once(text, opt); err != nil || runs() != before+1 {
		t.Errorf("once more: %v, %d runs", err, runs())
	}
}

// TestHangingCommand: a command that does not end is ended, with what it has started, and
// holds up no other recipe.
func TestHangingCommand(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	dir := real(t, t.TempDir())
	begin := time.Now()
	_, err := h.once(fmt.Sprintf("timeout = \"200ms\"\ncommand = 'sh -c \"trap : TERM; sleep 100\" & echo $! >%s/pid; wait'\n[file.\"%[1]s/f\"]\nkey = \"k\"", dir), h.options(t.Output()))
	if err == nil || !strings.Contains(err.Error(), "command: it took longer than 200ms") || time.Since(begin) > 8*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	var pid int
	b, err := os.ReadFile(dir + "/pid")
	if _, scan := fmt.Sscan(string(b), &pid); err != nil || scan != nil {
		t.Fatal(err, scan)
	}
	until(t, "what it has started ends", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}

// TestOnlyOne: two agents with one state would take each other's files away.
func TestOnlyOne(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	dir := real(t, t.TempDir())
	text := fmt.Sprintf("[file.\"%s/f\"]\nkey = \"k\"", dir)
	opt := h.options(t.Output())
	h.run(text, opt)
	until(t, "the first has written", func() bool { return is(dir+"/f", "v") })
	if _, err := h.once(text, opt); err == nil || !strings.Contains(err.Error(), "another meta9 agent runs") {
		t.Errorf("the second: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}

	other := h.options(t.Output())
	if err := errors.Join(os.Mkdir(other.State, 0o700), os.Chmod(other.State, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.once(text, other); err == nil || !strings.Contains(err.Error(), "others may write it (mode 0777)") {
		t.Errorf("with a state folder that others may write: %v", err)
	}
	onlyFiles(t, other.State)
}

// TestCheckSeesOwn: whoever owns the folder of a recipe's files puts links to another's
// file in the way while the check runs. It sees the new files all the same; what it
// was led to is not put in place, and what it prints is not in the status.
func TestCheckSeesOwn(t *testing.T) {
	for _, openFiles := range []string{"/proc/self/fd", "/none"} {
		t.Run(openFiles, func(t *testing.T) {
			t.Cleanup(agent.SetOpenFiles(openFiles))
			h := newHost(t)
			h.put("a", "same")
			dir, out := real(t, t.TempDir()), real(t, t.TempDir())
			if err := os.WriteFile(out+"/victim", []byte("another's secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			files := fmt.Sprintf("[file.\"%s/a\"]\nkey = \"a\"\n[file.\"%[1]s/b\"]\nkey = \"b\"\n[file.\"%[1]s/c\"]\nkey = \"c\"", dir)
			if _, err := h.once(files, h.options(t.Output())); err != nil {
				t.Fatal(err)
			}
			h.put("b", "new secret")
			attack := fmt.Sprintf(`check = 'for f in %[1]s/a %[1]s/.meta9-*; do ln -sf %[2]s/victim "$f"; done; cat "$1" "$2" "$2" >%[2]s/seen; echo "$3$(cat "$2")" >&2; exit `, dir, out)
			var log lines
			opt := h.options(&log)
			stop := h.run(attack+"2'\n"+files, opt)
			var s *agent.Status
			until(t, "the failure is in the status", func() bool {
				var err error
				s, err = agent.ReadStatus(opt.Status)
				return err == nil && s.Recipes[0].Error != ""
			})
			stop()
			if got := s.Recipes[0].Error; got != "check: exit status 2" {
				t.Errorf("the status says %q", got)
			}
			if !strings.Contains(log.String(), "check: exit status 2: new secret;") {
				t.Errorf("the log lacks what the check said: %s", log.String())
			}
			holds(t, out+"/seen", "samenew secretnew secret", 0o644)
			onlyFiles(t, dir, "a")
			onlyFiles(t, opt.State, "lock")

			// A check that says yes.
			if err := os.Remove(dir + "/a"); err != nil {
				t.Fatal(err)
			}
			_, err := h.once(attack+"0'\n"+files, opt)
			if err == nil || !strings.Contains(err.Error(), "somebody has put another file in place of the new one") {
				t.Errorf("what was put in the new file's place: %v", err)
			}
			if _, err := os.Lstat(dir + "/b"); err == nil {
				t.Error("it is in place")
			}
			holds(t, out+"/victim", "another's secret", 0o600)
		})
	}
}

// TestOwnerByNumber: a number stands for the user who has it, with his group.
func TestOwnerByNumber(t *testing.T) {
	me, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	for _, owner := range []string{me.Username, me.Uid} {
		f := agent.File{Owner: owner}
		uid, gid, err := f.IDs()
		if strconv.Itoa(uid) != me.Uid || strconv.Itoa(gid) != me.Gid || err != nil {
			t.Errorf("%s is user %d, group %d, %v; want %s, %s", owner, uid, gid, err, me.Uid, me.Gid)
		}
	}
	f := agent.File{Owner: "3999999999"}
	if uid, gid, err := f.IDs(); uid != 3999999999 || gid != os.Getegid() || err != nil {
		t.Errorf("a number of nobody's is user %d, group %d, %v", uid, gid, err)
	}
}

// TestEndlessEnds: a host whose streams of events end after one event is not asked at its
// pace.
func TestEndlessEnds(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	h.short = true
	dir := real(t, t.TempDir())
	h.run(fmt.Sprintf("[file.\"%s/f\"]\nkey = \"k\"", dir), h.options(io.Discard))
	until(t, "it is applied", func() bool { return is(dir+"/f", "v") })
	time.Sleep(time.Second)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opened > 6 {
		t.Errorf("%d streams in a second", h.opened)
	}
}
