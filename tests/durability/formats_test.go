package durability

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meta9/session/client"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

var makeFormat = flag.String("make-format", "", "make testdata/formats/NAME with this tree's meta9d, instead of testing those that are there")

// formats holds a folder for every format of the data folder that a meta9d ever
// wrote: data.tar.gz is the folder, tree.txt what the meta9d that wrote it
// served of it. They are never made anew, so that no test needs an old meta9d.
const formats = "testdata/formats"

// TestFormats opens a copy of each recorded data folder, finds everything in it
// as it was served then, changes it, and finds it again after a kill.
func TestFormats(t *testing.T) {
	if *makeFormat != "" {
		recordFormat(t, filepath.Join(formats, *makeFormat))
		return
	}
	dirs, err := filepath.Glob(formats + "/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no recorded formats in %s (%v)", formats, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { testFormat(t, dir) })
	}
}

func testFormat(t *testing.T, recorded string) {
	want, err := os.ReadFile(filepath.Join(recorded, "tree.txt"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "m9-") // short, for the sockets' sake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := daemon.Options{Bin: testenv.Binary(t, "meta9d"), Dir: dir}
	untar(t, filepath.Join(recorded, "data.tar.gz"), filepath.Join(o.Dir, "data"))
	sound(t, o.Bin, filepath.Join(o.Dir, "data"))
	srv := testenv.Start(t, o)
	if diff := missing(string(want), listing(t, srv)); diff != "" {
		t.Errorf("as it was written (-), as it is read (+):\n%s", diff)
	}

	const marker = "written since"
	value := bytes.Repeat([]byte{0, 0xff, '\n'}, 30_000)
	c := srv.Conn("vms")
	if err := errors.Join(c.Swrite(0, value, testenv.UUID(0), "keys", marker), c.Swrite(0, nil, testenv.UUID(0), "keys", "large")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	srv.Restart()
	c = srv.Conn("vms")
	defer c.Close()
	got, err := c.Sread(0, testenv.UUID(0), "keys", marker)
	if err != nil || !bytes.Equal(got, value) {
		t.Errorf("a value written to the old folder: %d bytes, %v", len(got), err)
	}
	others := func(text string) string { // but what was written
		b := strings.Builder{}
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "/keys/large ") && !strings.Contains(line, "/keys/"+marker) {
				b.WriteString(line)
			}
		}
		return b.String()
	}
	if diff := missing(others(string(want)), others(listing(t, srv))); diff != "" {
		t.Errorf("after a change and a kill, as it was (-), as it is (+):\n%s", diff)
	}
	srv.Kill()
	sound(t, o.Bin, srv.Data())
}

// sound has meta9d --check look through a data folder.
func sound(t *testing.T, bin, data string) {
	t.Helper()
	out, err := exec.Command(bin, "--check", "--data", data).CombinedOutput()
	if err != nil {
		t.Errorf("meta9d --check: %v\n%s", err, out)
	}
}

// listing is what is served of all VMs' own data, one thing a line: of a key its
// path, mode, qid, time, who changed it, and its value; of a VM each property.
func listing(t *testing.T, srv *testenv.Server) string {
	t.Helper()
	c, err := client.Dial(context.Background(), srv.Admin(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := &strings.Builder{}
	for _, i := range readDir(t, c, "vms") {
		vm := path.Join("vms", i.Name)
		properties(b, vm, readFile(t, c, path.Join(vm, "vm.json")))
		for _, folder := range []string{path.Join(vm, "keys"), path.Join(vm, "internal")} {
			for _, i := range readDir(t, c, folder) {
				file := path.Join(folder, i.Name)
				fmt.Fprintf(b, "%s mode %o qid %d.%d mtime %d muid %q value %s\n",
					file, i.Mode.Perm(), i.QID.Path, i.QID.Version, i.Mtime.Unix(), i.Muid, shown(readFile(t, c, file)))
			}
		}
	}
	for _, i := range readDir(t, c, "names") {
		fmt.Fprintf(b, "names/%s\n", i.Name)
	}
	return b.String()
}

// properties adds a line for each member of a VM's object but its metadata,
// which keys/ and internal/ show.
func properties(b *strings.Builder, vm string, object []byte) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(object, &members); err != nil {
		fmt.Fprintf(b, "%s/vm.json %v: %s\n", vm, err, object)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch name {
		case "customer_metadata", "internal_metadata", "__meta9_binary":
		default:
			fmt.Fprintf(b, "%s"+property+"%s %s\n", vm, name, members[name])
		}
	}
}

// property is in the lines of properties.
const property = " property "

// missing are the lines of want that got has not, and those of got that want has
// not. A VM may have more properties than before: what is derived can grow.
func missing(want, got string) string {
	b := &strings.Builder{}
	for line := range strings.Lines(want) {
		if !strings.Contains("\n"+got, "\n"+line) {
			b.WriteString("-" + line)
		}
	}
	for line := range strings.Lines(got) {
		known := strings.Contains("\n"+want, "\n"+line)
		if !known {
			vm, name, is := strings.Cut(line, property)
			name, _, _ = strings.Cut(name, " ")
			known = is && !strings.Contains(want, vm+property+name+" ")
		}
		if !known {
			b.WriteString("+" + line)
		}
	}
	return b.String()
}

// readDir is a folder in the order of names.
func readDir(t *testing.T, c *client.Client, folder string) []client.Info {
	t.Helper()
	list, err := c.ReadDir(context.Background(), folder)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b client.Info) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func readFile(t *testing.T, c *client.Client, file string) []byte {
	t.Helper()
	value, err := c.ReadFile(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// shown is a value in one line; a long one is its length and hash.
func shown(value []byte) string {
	if len(value) > 2000 {
		return fmt.Sprintf("%d bytes, SHA-256 %x", len(value), sha256.Sum256(value))
	}
	return fmt.Sprintf("%q", value)
}

// recordFormat makes the folder of a format, as a kill leaves it: VMs with what is hard
// to keep.
func recordFormat(t *testing.T, dir string) {
	if _, err := os.Stat(dir); err == nil {
		t.Fatalf("%s is there: a recorded format is never made anew", dir)
	}
	srv := testenv.Start(t, daemon.Options{Bin: testenv.Binary(t, "meta9d")})
	makeVMs(t, srv)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tree.txt"), []byte(listing(t, srv)), 0o644); err != nil {
		t.Fatal(err)
	}
	srv.Kill() // which leaves more to be read than a stop: what the log holds
	pack(t, srv.Data(), filepath.Join(dir, "data.tar.gz"))
}

func makeVMs(t *testing.T, srv *testenv.Server) {
	srv.NewVM(testenv.UUID(0), fmt.Sprintf(`{"uuid":%q,"alias":"web0","vsock_cid":7,"ram":1024,"quota":1.50e1,"hostname":"web0","resolvers":["192.168.1.1","2001:db8::1"],`+
		`"nics":[{"mac":"52:54:00:12:34:56","ip":"192.168.1.10","netmask":"255.255.255.0","gateway":"192.168.1.1","primary":true}],"tags":{"role":"web","n":1,"b":false},`+
		`"customer_metadata":{"text":"v","number":1.50,"yes":true,"empty":"","ünï/cödé %%":"\u00e9\ud83d\ude00"},`+
		`"internal_metadata":{"root_pw":"secret","operator-script":"#!/bin/sh\n","sdc:x":"y"},"internal_metadata_namespaces":["sdc"]}`, testenv.UUID(0)))
	srv.NewVM(testenv.UUID(1), fmt.Sprintf(`{"uuid":%q,"alias":"many"}`, testenv.UUID(1)))
	srv.NewVM(testenv.UUID(2), fmt.Sprintf(`{"uuid":%q}`, testenv.UUID(2)))
	srv.NewVM(testenv.UUID(3), fmt.Sprintf(`{"uuid":%q,"alias":"gone","customer_metadata":{"k":"v"}}`, testenv.UUID(3)))

	admin := srv.Conn("vms")
	defer admin.Close()
	guest, err := raw.Dial("unix", srv.VM(testenv.UUID(0)))
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	random := rand.New(rand.NewPCG(*seed, 0))
	large := make([]byte, 40_000) // several pages of any store
	for i := range large {
		large[i] = byte(random.Uint32())
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	vm0 := testenv.UUID(0)
	did := []error{
		daemon.Hello(guest, "9P2000.e", "keys"),
		guest.Swrite(0, []byte("by the guest\n"), "guest's"),
		guest.Swrite(0, all, "all bytes"),
		guest.Swrite(0, large, "large"),
		guest.Swrite(0, nil, "made empty"),
		guest.Swrite(0, []byte("\x00"), strings.Repeat("n", 255)),
		guest.Swrite(0, []byte("dots"), "%2E%2E"),
		chmod(guest, 0o640, "text"),
		guest.Swrite(0, []byte("kept mode"), "text"),
		admin.Swrite(0, []byte("old"), vm0, "keys", "replaced"),
		admin.Swrite(0, []byte("new"), vm0, "keys", "replaced"),
		srv.Ctl("update " + vm0 + ` {"ram":2048,"set_tags":{"later":"1"},"remove_customer_metadata":["yes"],"set_customer_metadata":{"set":"by update"}}`),
		srv.Ctl("delete " + testenv.UUID(3)),
	}
	for i := range 200 {
		did = append(did, admin.Swrite(0, fmt.Appendf(nil, "value %d", i), testenv.UUID(1), "keys", fmt.Sprintf("key-%03d", i)))
	}
	if err := errors.Join(did...); err != nil {
		t.Fatal(err)
	}
}

// chmod is a Twstat of the mode alone.
func chmod(c *raw.Conn, mode uint32, name string) error {
	const fid = 1
	keep := bytes.Repeat([]byte{0xff}, 2+4+13) // type, dev, qid
	keep = binary.LittleEndian.AppendUint32(keep, mode)
	keep = append(keep, bytes.Repeat([]byte{0xff}, 4+4+8)...) // atime, mtime, length
	keep = append(keep, make([]byte, 4*2)...)                 // name, uid, gid, muid: ""
	if err := c.Walk(0, fid, name); err != nil {
		return err
	}
	_, err := c.RPC(wire.Twstat, 0, uint32(fid), uint16(len(keep)+2), uint16(len(keep)), keep)
	return errors.Join(err, c.Clunk(fid))
}

// pack writes the files of a folder to a compressed archive.
func pack(t *testing.T, dir, archive string) {
	t.Helper()
	out := &bytes.Buffer{}
	z, _ := gzip.NewWriterLevel(out, gzip.BestCompression)
	w := tar.NewWriter(z)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), z.Close(), os.WriteFile(archive, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// untar makes the folder dir of an archive that pack wrote.
func untar(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(to, 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, data, 0o600))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
