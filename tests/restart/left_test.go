package restart

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// contents are the files in a folder, or the file, by their paths in it.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	if err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, path)] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// same holds that what was set aside is what was there.
func same(t *testing.T, aside string, was map[string]string) {
	t.Helper()
	is := contents(t, aside)
	if len(is) != len(was) || len(was) == 0 {
		t.Errorf("%s has %d files, there were %d", aside, len(is), len(was))
	}
	for name, text := range was {
		if is[name] != text {
			t.Errorf("%s%s is not what it was", aside, name)
		}
	}
}

// TestForeignJournal: of a residence and a journal one is another data folder's. It is set
// aside unread, with a line, and costs nobody the session that the other one has.
func TestForeignJournal(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.dial("9P2000.e", 1, false).Attach(0, "")
	other.dial("9P2000.e", 2, false).Attach(0, "")
	startsWith := func(what, to, aside string) { // the other's file, in w's place for its own
		t.Helper()
		was := contents(t, what)
		if err := os.Rename(what, to); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.dial("9P2000.e", 1, true)
		w.dial("9P2000.e", 2, false)
		if log := w.Log(); strings.Count(log, `"level":"warn"`) != 1 || !strings.Contains(log, "it belongs to another data folder") {
			t.Errorf("%s: the log says\n%s", to, log)
		}
		asides, err := filepath.Glob(aside)
		if err != nil || len(asides) != 1 {
			t.Fatalf("%s: set aside: %v, %v", to, asides, err)
		}
		same(t, asides[0], was)
	}

	if err := w.Stop(patient); err != nil {
		t.Fatal(err)
	}
	other.Kill()
	journal := filepath.Join(w.Run(), "journal")
	startsWith(filepath.Join(other.Run(), "journal"), journal, journal+".aside")

	other.start()
	other.dial("9P2000.e", 2, false).Attach(0, "")
	if err := other.Stop(patient); err != nil {
		t.Fatal(err)
	}
	w.Kill()
	residence := filepath.Join(w.Data(), "residence")
	startsWith(filepath.Join(other.Data(), "residence"), residence, residence+".aside-*")
}

// TestKeysAreSecret: whoever has a session's key can take the session over. It is in files
// that only meta9d's user can read, and never in the log, whatever is traced and whatever
// goes wrong.
func TestKeysAreSecret(t *testing.T) {
	w := newWorldWith(t, daemon.Options{Args: []string{"--trace", "--log-level", "debug"}})
	const plain, numbered = 0xa7, 0xb9
	if err := w.dial("9P2000.e", plain, false).Attach(0, ""); err != nil {
		t.Fatal(err)
	}
	w.speaker("9P2000.L.e.2", numbered)
	spelled := func(b byte) []string {
		key := bytes.Repeat([]byte{b}, wire.KeyLen)
		return []string{
			string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), base64.StdEncoding.EncodeToString(key),
			strings.Repeat(fmt.Sprintf(`\x%x`, b), wire.KeyLen), strings.Trim(fmt.Sprint(key), "[]"),
		}
	}
	logged := func(when string) {
		t.Helper()
		log := w.Log()
		if !strings.Contains(log, `"level":"`) {
			t.Fatalf("%s: nothing is logged", when)
		}
		for _, b := range []byte{plain, numbered} {
			for _, s := range spelled(b) {
				if strings.Contains(log, s) {
					t.Errorf("%s: the log has a key as %q:\n%s", when, s, log)
				}
			}
		}
	}
	private := func(path string) {
		t.Helper()
		keys := 0
		if err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s is %v", p, info.Mode())
			}
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			keys += bytes.Count(b, []byte(spelled(plain)[3]))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if keys == 0 {
			t.Errorf("%s has not the key that is looked for", path)
		}
	}
	journal, residence := filepath.Join(w.Run(), "journal"), filepath.Join(w.Data(), "residence")
	stop := func() {
		t.Helper()
		if err := w.Stop(patient); err != nil {
			t.Fatal(err)
		}
	}
	private(journal)
	stop()
	logged("stopped")
	private(residence)
	w.start()
	w.dial("9P2000.e", plain, true)
	private(journal)
	w.LiveUpdate()
	logged("updated")
	w.Restart()
	w.dial("9P2000.e", plain, true)
	logged("killed, and started")
	w.Kill()
	if err := os.Chmod(journal, 0o755); err != nil {
		t.Fatal(err)
	}
	w.start()
	logged("the journal is refused")
	if err := w.dial("9P2000.e", plain, false).Attach(0, ""); err != nil {
		t.Fatal(err)
	}
	stop()
	b, err := os.ReadFile(residence)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-20] ^= 1 // a session's record, or the end
	if err := os.WriteFile(residence, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	if !strings.Contains(w.Log(), "not all sessions were restored") {
		t.Errorf("the residence is not refused: %s", w.Log())
	}
	logged("the residence is damaged")
}

// TestNoCore: a meta9d that aborts leaves no core file, which would have the keys in it, also
// where all of the system and of Go's runtime is set to make one.
func TestNoCore(t *testing.T) {
	dir := t.TempDir()
	w := newWorldWith(t, daemon.Options{
		Env:  []string{"GOTRACEBACK=crash"},
		Wrap: []string{"sh", "-c", `cd ` + dir + ` && ulimit -c unlimited && exec "$@"`, "sh"},
	})
	if err := w.dial("9P2000.e", 1, false).Attach(0, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Exited():
	case <-time.After(patient):
		t.Fatal("meta9d lives")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 || w.CoreDumped() {
		t.Errorf("left: %v; a core was made: %v", left, w.CoreDumped())
	}
	w.start()
	w.dial("9P2000.e", 1, true)
}

// TestDiskFull: the disk has no byte left at SIGTERM.
func TestDiskFull(t *testing.T) {
	stopsWithoutRoom(t, "no space left on device", func() (w *world, fill, free func()) {
		dir, err := os.MkdirTemp("", "m9-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		data := filepath.Join(dir, "data")
		if err := os.Mkdir(data, 0o700); err != nil {
			t.Fatal(err)
		}
		space, inside := smallDisk(t, data)
		filler := filepath.Join(inside, "filler")
		fill = func() {
			f, err := os.Create(filler)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for b := make([]byte, 4096); err == nil; {
				_, err = f.Write(b)
			}
		}
		free = func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}
		return newWorldWith(t, daemon.Options{Dir: dir, Wrap: []string{"nsenter", "-m", "-t", space}}), fill, free
	})
}

// smallDisk mounts a small file system at a folder, in a mount namespace of its own, which ends
// with the test: space is the process that has it, and inside how the folder is reached from
// here.
func smallDisk(t *testing.T, folder string) (space, inside string) {
	t.Helper()
	up := folder + ".up"
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", `mount -t tmpfs -o size=64m none "$1" && touch "$2" && exec sleep infinity`, "sh", folder, up)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testenv.Eventually(t, "the file system is mounted", func() bool {
		_, err := os.Stat(up)
		return err == nil
	})
	return itoa(cmd.Process.Pid), filepath.Join("/proc", itoa(cmd.Process.Pid), "root", folder)
}
