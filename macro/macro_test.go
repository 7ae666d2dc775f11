package macro_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	uuid    = "11111111-1111-4111-8111-111111111111"
	payload = `{"uuid":"` + uuid + `","alias":"web","customer_metadata":{"color":"blue","long":"0123456789"},
		"internal_metadata":{"root_pw":"s3cret","secret":"x"}}`
)

// open makes a tree with one VM and the roots of its admin and its guest.
func open(t testing.TB) (admin, guest *fs.Ref) {
	t.Helper()
	st, err := store.Open(store.NewMemory(), store.Config{Limits: vm.Limits{Value: 16, Keys: 8, Bytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	tree := fs.New(st, fs.Config{})
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payload}); r.Err != nil {
		t.Fatal(r.Err)
	}
	attach := func(p fs.Principal) *fs.Ref {
		v := tree.View(p)
		t.Cleanup(v.Close)
		r, err := v.Attach("anna", "")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	return attach(fs.Principal{Admin: true}), attach(fs.Principal{VM: uuid})
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}

// await waits for an asynchronous call.
func await(t testing.TB, call func(done func(error))) error {
	t.Helper()
	ch := make(chan error, 2)
	call(func(err error) { ch <- err })
	select {
	case err := <-ch:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("done was not called")
		return nil
	}
}

func checkKind(t *testing.T, what string, err error, want errs.Kind) {
	t.Helper()
	if want == 0 && err == nil {
		return
	}
	if err == nil || errs.KindOf(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestGet(t *testing.T) {
	admin, guest := open(t)
	for _, tt := range []struct {
		from *fs.Ref
		path string
		max  int
		want string
		kind errs.Kind
	}{
		{guest, "keys/color", 4, "blue", 0},
		{guest, "keys/color", 3, "", errs.TooBig},
		{guest, "keys/../keys/color", 4, "blue", 0},
		{guest, "keys/../../../internal/../keys/color", 4, "blue", 0},
		{guest, "keys/color/..", 4, "", errs.NotDir},
		{guest, "keys/color/x", 4, "", errs.NotDir},
		{guest, "sdc/uuid", 36, uuid, 0},
		{guest, "sdc/uuid", 35, "", errs.TooBig},
		{guest, "vm.json", 10, "", errs.TooBig},
		{guest, "internal/root_pw", 99, "s3cret", 0},
		{guest, "internal/secret", 99, "", errs.NotFound},
		{guest, "keys", 99, "", errs.IsDir},
		{guest, "", 99, "", errs.IsDir},
		{guest, "events", 99, "", errs.Permission},
		{guest, "ctl", 99, "", errs.NotFound},
		{guest, "keys/" + strings.Repeat("x", 256), 99, "", errs.NameTooLong},
		{guest, strings.Repeat("keys/../", 8), 99, "", errs.IsDir},
		{guest, strings.Repeat("../", 17), 99, "", errs.Invalid},
		{admin, "vms/" + uuid + "/keys/color", 99, "blue", 0},
		{admin, "names/web/../web/keys/color", 99, "blue", 0},
		{admin, "names/web/ctl", 3, "", errs.TooBig},
	} {
		b, err := macro.Get([]byte("have "), tt.from, split(tt.path), tt.max)
		checkKind(t, tt.path, err, tt.kind)
		if string(b) != "have "+tt.want {
			t.Errorf("%s: %q", tt.path, b)
		}
	}
}

func TestPut(t *testing.T) {
	admin, guest := open(t)
	for _, tt := range []struct {
		from *fs.Ref
		path string
		data string
		kind errs.Kind
	}{
		{guest, "keys/new", "created", 0},
		{guest, "keys/color", "replaced", 0},
		{guest, "keys/color", "", 0},
		{guest, "internal/root_pw", "x", 0},
		{guest, "keys/../keys/new", "up", 0},
		{guest, "keys/x_pw", "x", errs.NotPermitted},
		{guest, "keys/color", "12345678901234567", errs.TooLarge},
		{guest, "keys/bad ", "x", errs.Invalid},
		{guest, "keys/..", "x", errs.IsDir},
		{guest, "keys", "x", errs.IsDir},
		{guest, "", "x", errs.IsDir},
		{guest, "none/x", "x", errs.NotFound},
		{guest, "none", "x", errs.NotPermitted},
		{guest, "keys/color/x", "x", errs.NotDir},
		{guest, "sdc/uuid", "x", errs.Permission},
		{guest, "sdc/none", "x", errs.ReadOnly},
		{guest, "vm.json", "x", errs.Permission},
		{guest, "events", "x", errs.Permission},
		{guest, strings.Repeat("../", 17), "x", errs.Invalid},
		{admin, "names/web/ctl", `update {"ram":1}`, 0},
		{admin, "names/web/ctl", `upd`, errs.Invalid},
	} {
		err := await(t, func(done func(error)) { macro.Put(tt.from, split(tt.path), []byte(tt.data), done) })
		checkKind(t, tt.path, err, tt.kind)
		if err != nil || strings.HasSuffix(tt.path, "ctl") {
			continue
		}
		if b, err := macro.Get(nil, tt.from, split(tt.path), 99); string(b) != tt.data || err != nil {
			t.Errorf("%s: %q, %v after putting %q", tt.path, b, err, tt.data)
		}
	}
}

// TestPutOnAFile is Put without names, from where a client walked to.
func TestPutOnAFile(t *testing.T) {
	_, guest := open(t)
	file, err := macro.Find(guest, []string{"keys", "color"})
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("green")
	err = await(t, func(done func(error)) {
		macro.Put(file, nil, data, done)
		copy(data, "xxxxx") // is the caller's again
	})
	checkKind(t, "put", err, 0)
	b, err := macro.Get(nil, file, nil, 99)
	if string(b) != "green" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	var st fs.Stat
	if err := file.Stat(&st); err != nil || st.Muid != "vm:"+uuid {
		t.Errorf("muid %q, %v", st.Muid, err)
	}
	checkKind(t, "remove", await(t, file.Remove), 0)
	err = await(t, func(done func(error)) { macro.Put(file, nil, data, done) })
	checkKind(t, "put to what was removed", err, errs.NotFound)
	_, err = macro.Get(nil, file, nil, 99)
	checkKind(t, "get of what was removed", err, errs.NotFound)
}

// TestPutInGoneVM: a VM's folder was found, and the VM is deleted, or another host's, before the
// file is looked for.
func TestPutInGoneVM(t *testing.T) {
	admin, _ := open(t)
	folder, err := macro.Find(admin, []string{"names", "web"})
	if err != nil {
		t.Fatal(err)
	}
	checkKind(t, "delete", await(t, func(done func(error)) { macro.Put(folder, []string{"ctl"}, []byte("delete"), done) }), 0)
	for _, name := range []string{"txn", "keys", "none"} {
		err := await(t, func(done func(error)) { macro.Put(folder, []string{name}, []byte("x"), done) })
		checkKind(t, name, err, errs.NotFound)
	}
}

func TestDelete(t *testing.T) {
	_, guest := open(t)
	for _, tt := range []struct {
		path string
		kind errs.Kind
	}{
		{"keys/color", 0},
		{"keys/color", errs.NotFound},
		{"keys", errs.IsDir},
		{"sdc/uuid", errs.ReadOnly},
		{"vm.json", errs.NotPermitted},
		{"internal/secret", errs.NotFound},
		{strings.Repeat("../", 17), errs.Invalid},
	} {
		err := await(t, func(done func(error)) { macro.Delete(guest, split(tt.path), done) })
		checkKind(t, tt.path, err, tt.kind)
	}
}

func TestList(t *testing.T) {
	_, guest := open(t)
	names := func(path string, most int) (names []string, err error) {
		err = macro.List(guest, split(path), func(st *fs.Stat) bool {
			names = append(names, st.Name)
			return len(names) < most
		})
		return names, err
	}
	for _, tt := range []struct {
		path string
		most int
		want []string
		kind errs.Kind
	}{
		{"keys", 99, []string{"color", "long"}, 0},
		{"keys", 1, []string{"color"}, 0},
		{"internal", 99, []string{"root_pw"}, 0},
		{"", 99, []string{"keys", "internal", "sdc", "nocloud", "vm.json", "txn"}, 0},
		{"keys/color", 99, nil, errs.NotDir},
		{"none", 99, nil, errs.NotFound},
	} {
		got, err := names(tt.path, tt.most)
		checkKind(t, tt.path, err, tt.kind)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.path, got, tt.want)
		}
	}
}

// TestGetAllocates nothing, whatever the way there.
func TestGetAllocates(t *testing.T) {
	_, guest := open(t)
	buf := make([]byte, 0, 64)
	for _, path := range []string{"keys/color", "internal/../keys/color"} {
		names := split(path)
		if n := testing.AllocsPerRun(100, func() {
			if b, err := macro.Get(buf, guest, names, 64); err != nil || len(b) != 4 {
				t.Fatal(b, err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	_, guest := open(b)
	buf, names := make([]byte, 0, 64), []string{"keys", "color"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := macro.Get(buf, guest, names, 64); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	_, guest := open(b)
	data, names := []byte("0123456789"), []string{"keys", "color"}
	ch := make(chan error, 1)
	b.ReportAllocs()
	for b.Loop() {
		macro.Put(guest, names, data, func(err error) { ch <- err })
		if err := <-ch; err != nil {
			b.Fatal(err)
		}
	}
}
