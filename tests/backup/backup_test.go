// Package backup takes backups of a meta9d that is being written to, and makes new ones of
// them.
package backup

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	writers = 64
	backups = 50
	vms     = 8
)

// counter is a writer's key, and the value that was acknowledged last.
type counter struct {
	vm, key string
	acked   atomic.Int64
	begun   atomic.Int64 // no value after it was sent
}

// TestUnderWriters: 64 writers count in a key each, and 50 backups are taken. Of each a new
// meta9d has every value that was acknowledged before it was begun, none that was begun
// after it was done, and of the two keys that a writer writes in turn never the second
// before the first.
func TestUnderWriters(t *testing.T) {
	meta9 := testenv.Binary(t, "meta9")
	d := testenv.Start(t, daemon.Options{Config: "[limits]\nconnections = 200\n"})
	for i := range vms {
		uuid := testenv.UUID(i)
		d.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"web`+strconv.Itoa(i)+`"}`)
	}
	var stop atomic.Bool
	var done sync.WaitGroup
	all := make([]*counter, writers)
	for i := range all {
		w := &counter{vm: testenv.UUID(i % vms), key: fmt.Sprintf("k%d", i)}
		all[i] = w
		c := d.Conn("vms/" + w.vm)
		done.Go(func() {
			for n := int64(1); !stop.Load(); n++ {
				w.begun.Store(n)
				text := []byte(strconv.FormatInt(n, 10))
				if err := c.Swrite(0, text, "keys", w.key); err != nil {
					t.Error(err)
					return
				}
				if err := c.Swrite(0, text, "keys", w.key+"b"); err != nil {
					t.Error(err)
					return
				}
				w.acked.Store(n)
			}
		})
	}
	defer done.Wait()
	defer stop.Store(true)
	for i := range backups {
		file := filepath.Join(t.TempDir(), "backup")
		least := make([]int64, writers)
		for j, w := range all {
			least[j] = w.acked.Load()
		}
		run(t, meta9, "--addr", "unix:"+d.Admin(), "backup", file)
		most := make([]int64, writers)
		for j, w := range all {
			most[j] = w.begun.Load()
		}
		check(t, d, file, all, least, most, i%10 == 0)
		if t.Failed() {
			t.Fatalf("backup %d", i)
		}
	}
}

// check makes a data folder of a backup, and looks at it; started tells that a meta9d is
// to do so.
func check(t *testing.T, d *testenv.Server, file string, all []*counter, least, most []int64, started bool) {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9b-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	out := run(t, d.Bin, "--restore", file, "--data", filepath.Join(dir, "data"))
	if !strings.HasPrefix(out, fmt.Sprintf("restored %d VMs, ", vms)) {
		t.Errorf("it says %q", out)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "data", "*")); err != nil || len(left) != 1 {
		t.Errorf("the folder has %v", left)
	}
	restored, err := daemon.Start(daemon.Options{Bin: d.Bin, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Kill()
	c, err := restored.Dial("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	value := func(w *counter, key string) int64 {
		b, err := c.Sread(0, "vms", w.vm, "keys", key)
		if err != nil {
			return 0 // not written yet
		}
		n, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	for i, w := range all {
		a, b := value(w, w.key), value(w, w.key+"b")
		if a < least[i] || b < least[i] || a > most[i] || b > a || a > b+1 {
			t.Errorf("writer %d: the backup has %d and %d; %d was acknowledged before, %d begun after", i, a, b, least[i], most[i])
		}
	}
	if !started {
		return
	}
	if err := c.Swrite(0, []byte("new"), "vms", testenv.UUID(0), "keys", "after"); err != nil {
		t.Errorf("a write after the restore: %v", err)
	}
	if err := restored.Stop(20 * time.Second); err != nil {
		t.Error(err)
	}
	if out := run(t, d.Bin, "--check", "--data", filepath.Join(dir, "data")); !strings.Contains(out, "; 0 damaged") {
		t.Errorf("--check: %s", out)
	}
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv[1:], " "), err, said.String())
	}
	return out.String()
}

// TestRefused: a backup that was cut or altered, and a folder that has data, are refused,
// and nothing is made.
func TestRefused(t *testing.T) {
	meta9 := testenv.Binary(t, "meta9")
	d := testenv.Start(t, daemon.Options{})
	d.NewVM(testenv.UUID(1), `{"uuid":"`+testenv.UUID(1)+`","customer_metadata":{"a":"b"},"internal_metadata":{"c":"d"}}`)
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	run(t, meta9, "--addr", "unix:"+d.Admin(), "backup", file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fails := func(why string, argv ...string) {
		t.Helper()
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), why) {
			t.Errorf("%s: %v, %s; want %q", strings.Join(argv[1:], " "), err, out, why)
		}
	}
	data := filepath.Join(dir, "data")
	damaged := filepath.Join(dir, "damaged")
	altered := bytes.Clone(whole)
	altered[len(altered)-60] ^= 1
	for name, b := range map[string][]byte{
		"it was cut off":            whole[:len(whole)-1],
		"no whole backup":           altered,
		"does not begin as one":     append([]byte("x"), whole...),
		"is of another version":     bytes.Replace(whole, []byte("backup 1"), []byte("backup 2"), 1),
		"something follows its end": append(bytes.Clone(whole), 0),
	} {
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		fails(name, d.Bin, "--restore", damaged, "--data", data)
		fails(name, meta9, "backup", "--check", damaged)
		if _, err := os.Lstat(data); err == nil {
			t.Fatalf("%s: something was made", name)
		}
	}
	fails("is there already", meta9, "--addr", "unix:"+d.Admin(), "backup", file)
	fails("move the old data away", d.Bin, "--restore", file, "--data", d.Data())
	fails("keeps nothing", d.Bin, "--restore", file, "--data", "")
	fails("no such file", d.Bin, "--restore", filepath.Join(dir, "none"), "--data", data)
	run(t, meta9, "backup", "--check", file)
	if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
	run(t, d.Bin, "--restore", file, "--data", data)
	fails("move the old data away", d.Bin, "--restore", file, "--data", data)
}
