package vm_test

import (
	"fmt"
	"iter"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
	"pgregory.net/rapid"
)

func names(entries iter.Seq[*vm.Entry]) []string {
	list := []string{}
	for e := range entries {
		list = append(list, e.Name)
	}
	return list
}

func TestPut(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"n":7}`)
	e := v.Edit()
	st.Now, st.By = 2000, "other"
	made, replaced := *vmtest.Put(t, e, st, "k", "v"), *vmtest.Put(t, e, st, "n", "8")
	vmtest.Diff(t, "made", made, vm.Entry{ID: 118, Rev: 2, Mtime: 2000, Mode: 0o600, Name: "k", Value: "v", Muid: "other"})
	vmtest.Diff(t, "replaced", replaced, vm.Entry{ID: 117, Rev: 3, Mtime: 2000, Mode: 0o600, Name: "n", Value: "8", Muid: "other"})
	vmtest.Diff(t, "changes", e.Changes(), []vm.Change{{Type: vm.KeySet, Rev: 2, Key: "k"}, {Type: vm.KeySet, Rev: 3, Key: "n"}})
	next := e.VM()
	vmtest.Diff(t, "new VM", []any{next.Rev, next.Mtime, next.Bytes(), names(next.Entries(vm.Keys))},
		[]any{uint64(3), int64(2000), int64(4), []string{"n", "k"}})
	vmtest.Diff(t, "old VM", []any{v.Rev, v.Mtime, v.Bytes(), names(v.Entries(vm.Keys)), v.Get(vm.Keys, "n").Value},
		[]any{uint64(1), int64(1000), int64(2), []string{"n"}, "7"})
}

func TestPutKeepsMode(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, `"customer_metadata":{"k":""}`).Edit()
	mode := uint16(0o104640)
	e.SetMeta(vm.Keys, e.Get(vm.Keys, "k"), &mode, nil, st)
	if got := vmtest.Put(t, e, st, "k", "new").Mode; got != 0o4640 {
		t.Errorf("mode %o", got)
	}
}

// TestFirstKeyHasAPlace: a space that the payload did not have appears in the
// JSON with its first key, and stays.
func TestFirstKeyHasAPlace(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, `"a":1`).Edit()
	vmtest.Put(t, e, st, "k", "v")
	if got, want := vmtest.Whole(e.VM()), `{"uuid":"`+vmtest.UUID+`","a":1,"customer_metadata":{"k":"v"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.Remove(vm.Keys, e.Get(vm.Keys, "k"), st)
	if got, want := vmtest.Whole(e.VM()), `{"uuid":"`+vmtest.UUID+`","a":1,"customer_metadata":{}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPutRefused(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"a":"12","b":"34"}`)
	for _, c := range []struct {
		name, value string
		lim         vm.Limits
		kind        errs.Kind
		text        string
	}{
		{"", "", vm.Limits{}, errs.Invalid, "at least one"},
		{strings.Repeat("n", 256), "", vm.Limits{}, errs.NameTooLong, "255"},
		{"a", "1234", vm.Limits{Value: 3}, errs.TooLarge, "3 bytes is the limit"},
		{"c", "", vm.Limits{Keys: 2}, errs.NoSpace, "2 keys is this VM's limit"},
		{"c", "", vm.Limits{Bytes: 6}, errs.NoSpace, "6 bytes of metadata is this VM's limit"},
		{"a", "123", vm.Limits{Bytes: 6}, errs.NoSpace, "6 bytes"},
	} {
		e := v.Edit()
		entry, err := e.Put(vm.Keys, e.Get(vm.Keys, c.name), c.name, c.value, st, c.lim)
		vmtest.WantError(t, err, c.kind, c.text)
		if entry != nil || e.VM() != v || len(e.Changes()) != 0 {
			t.Errorf("%s: something was changed", c.text)
		}
	}
}

// TestOverTheLimit: a VM over a limit that was lowered can still be written,
// only not to grow.
func TestOverTheLimit(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, `"customer_metadata":{"a":"12","b":"34"}`).Edit()
	lim := vm.Limits{Keys: 1, Bytes: 3}
	for _, value := range []string{"34", "1", ""} {
		if _, err := e.Put(vm.Keys, e.Get(vm.Keys, "a"), "a", value, st, lim); err != nil {
			t.Errorf("a = %q: %v", value, err)
		}
	}
	if _, err := e.Rename(vm.Keys, e.Get(vm.Keys, "a"), "c", st, lim); err != nil {
		t.Error(err)
	}
	if err := payload.Update(e, []byte(`{"set_customer_metadata":{"b":"x"}}`), st, lim); err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"internal_metadata":{"a":"1","b":"2","c":"3"}`)
	e := v.Edit()
	b := e.Get(vm.Internal, "b")
	e.Remove(vm.Internal, b, st)
	if e.Get(vm.Internal, "b") != nil || e.GetID(vm.Internal, b.ID) != nil {
		t.Error("b is still there")
	}
	vmtest.Diff(t, "changes", e.Changes(), []vm.Change{{Type: vm.KeyRemoved, Rev: 2, Space: vm.Internal, Key: "b"}})
	vmtest.Diff(t, "left", names(e.VM().Entries(vm.Internal)), []string{"a", "c"})
	if v.Get(vm.Internal, "b") == nil {
		t.Error("the old VM lost b")
	}
}

func TestRename(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"a":1,"b":"22","c":"333"}`)
	e := v.Edit()
	a := *e.Get(vm.Keys, "a")
	st.Now, st.By = 2000, "other"
	renamed, err := e.Rename(vm.Keys, e.Get(vm.Keys, "a"), "b", st, vm.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	a.Name, a.Rev = "b", 3
	vmtest.Diff(t, "b", *e.Get(vm.Keys, "b"), a)
	vmtest.Diff(t, "renamed", *renamed, a)
	vmtest.Diff(t, "by ID", *e.GetID(vm.Keys, a.ID), a)
	vmtest.Diff(t, "changes", e.Changes(), []vm.Change{{Type: vm.KeyRemoved, Rev: 2, Key: "a"}, {Type: vm.KeySet, Rev: 3, Key: "b"}})
	next := e.VM()
	vmtest.Diff(t, "left", names(next.Entries(vm.Keys)), []string{"b", "c"})
	vmtest.Diff(t, "numbers", []any{next.Rev, next.Bytes()}, []any{uint64(3), int64(6)})

	e = next.Edit()
	b := e.Get(vm.Keys, "b")
	_, err = e.Rename(vm.Keys, b, "z ", st, vm.DefaultLimits)
	vmtest.WantError(t, err, errs.Invalid, "blank")
	_, err = e.Rename(vm.Keys, b, "zz", st, vm.Limits{Bytes: 6})
	vmtest.WantError(t, err, errs.NoSpace, "6 bytes")
	if same, err := e.Rename(vm.Keys, b, "b", st, vm.DefaultLimits); err != nil || same != b {
		t.Error(err)
	}
	if e.VM() != next {
		t.Error("something was changed")
	}
}

func TestSetMeta(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"k":1}`)
	e := v.Edit()
	mode, mtime := uint16(0o444), int64(5)
	k := e.Get(vm.Keys, "k")
	if e.SetMeta(vm.Keys, k, nil, nil, st) != k || e.VM() != v {
		t.Error("changed though there was nothing to set")
	}
	e.SetMeta(vm.Keys, k, &mode, &mtime, st)
	want := *k
	want.Mode, want.Mtime, want.Rev = 0o444, 5, 2
	vmtest.Diff(t, "k", *e.Get(vm.Keys, "k"), want)
	vmtest.Diff(t, "changes", e.Changes(), []vm.Change{{Type: vm.KeySet, Rev: 2, Key: "k"}})
}

func TestEntriesAfter(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"a":"","b":"","c":""}`)
	e := v.Edit()
	b := e.Get(vm.Keys, "b").ID
	e.Remove(vm.Keys, e.Get(vm.Keys, "b"), st)
	without := e.VM()
	for _, c := range []struct {
		v     *vm.VM
		after uint64
		want  []string
	}{
		{v, 0, []string{"a", "b", "c"}},
		{v, b, []string{"c"}},
		{v, b + 1, []string{}},
		{without, b, []string{"c"}},
		{without, b - 1, []string{"c"}},
	} {
		vmtest.Diff(t, fmt.Sprint("after ", c.after), names(c.v.EntriesAfter(vm.Keys, c.after)), c.want)
	}
}

// TestEditAfterVM: a VM that an Edit gave does not change when it goes on.
func TestEditAfterVM(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, "").Edit()
	var made []*vm.VM
	for i := range 5 {
		vmtest.Put(t, e, st, fmt.Sprint("k", i), "v")
		made = append(made, e.VM())
	}
	for i, v := range made {
		if v.Count() != i+1 {
			t.Errorf("VM %d has %d keys", i, v.Count())
		}
	}
}

// TestEditCopiesLittle: a write to a large VM costs an entry and a piece of each of
// the two orders, and an Edit one copy of what holds the pieces, however many keys
// there are.
func TestEditCopiesLittle(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, "").Edit()
	for i := range 4096 {
		vmtest.Put(t, e, st, fmt.Sprint("key", i), "v")
	}
	v := e.VM()
	const writes = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	e = v.Edit()
	for i := range writes {
		vmtest.Put(t, e, st, fmt.Sprint("key", i), "w")
	}
	runtime.ReadMemStats(&after)
	const holders, pieces, entries, changes = 2 * 24 * 4096 / 32, 2 * 8 * 64 * writes, 96 * writes, 5 * 48 * writes
	if got := after.TotalAlloc - before.TotalAlloc; got > holders+pieces+entries+changes {
		t.Errorf("%d bytes for %d writes, want at most %d", got, writes, holders+pieces+entries+changes)
	}
}

// model is a VM's metadata as maps.
type model [vm.NumSpaces]map[string]string

func (m model) clone() model { return model{maps.Clone(m[0]), maps.Clone(m[1])} }

func modelOf(v *vm.VM) model {
	m := model{{}, {}}
	for s := range vm.NumSpaces {
		for e := range v.Entries(s) {
			m[s][e.Name] = e.Value
		}
	}
	return m
}

func (m model) size() (count int, bytes int64) {
	for s := range m {
		for k, v := range m[s] {
			count++
			bytes += int64(len(k) + len(v))
		}
	}
	return count, bytes
}

// fits says whether the limits let a VM go from one state to the other.
func (m model) fits(next model, lim vm.Limits) bool {
	n, b := m.size()
	n2, b2 := next.size()
	return (n2 <= n || n2 <= lim.Keys) && (b2 <= b || b2 <= lim.Bytes)
}

// machine edits a VM and a model side by side.
type machine struct {
	st   vm.Stamp
	lim  vm.Limits
	edit *vm.Edit
	now  model
	past map[*vm.VM]string // every VM that was made, and its JSON then
	revs int               // changes of this Edit that were seen
}

func (m *machine) name(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f_pw", "ns:g", "%", "ü", " "}).Draw(t, "name")
}

func (m *machine) space(t *rapid.T) vm.Space {
	return vm.Space(rapid.IntRange(0, 1).Draw(t, "space"))
}

func (m *machine) value(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "x", "\xff", "long value", "7", strings.Repeat("v", 30)}).Draw(t, "value")
}

// step checks what one operation did: on success the VM became next, else it is
// as it was.
func (m *machine) step(t *rapid.T, err error, next model, ok bool) {
	if (err == nil) != ok {
		t.Fatalf("error %v, want success: %v", err, ok)
	}
	if ok {
		m.now = next
	}
	v := m.edit.VM()
	vmtest.CheckVM(t, v, vm.Limits{})
	if d := cmp.Diff(m.now, modelOf(v)); d != "" {
		t.Fatalf("the model differs (-model +VM):\n%s", d)
	}
	changes := m.edit.Changes()
	for i := max(1, m.revs); i < len(changes); i++ {
		if changes[i].Rev <= changes[i-1].Rev {
			t.Fatalf("revisions do not grow: %v", changes)
		}
	}
	if n := len(changes); n > 0 && changes[n-1].Rev != v.Rev {
		t.Fatalf("the VM is at %d, the last change at %d", v.Rev, changes[n-1].Rev)
	}
	m.revs = len(changes)
	m.past[v] = vmtest.Whole(v)
}

func (m *machine) put(t *rapid.T) {
	s, name, value := m.space(t), m.name(t), m.value(t)
	next := m.now.clone()
	next[s][name] = value
	_, there := m.now[s][name]
	ok := (there || vm.NewKey(name) == nil) && m.now.fits(next, m.lim) && len(value) <= m.lim.Value
	_, err := m.edit.Put(s, m.edit.Get(s, name), name, value, m.st, m.lim)
	m.step(t, err, next, ok)
}

func (m *machine) remove(t *rapid.T) {
	s, name := m.space(t), m.name(t)
	next := m.now.clone()
	_, there := next[s][name]
	delete(next[s], name)
	if there {
		m.edit.Remove(s, m.edit.Get(s, name), m.st)
	}
	m.step(t, nil, next, true)
}

func (m *machine) rename(t *rapid.T) {
	s, from, to := m.space(t), m.name(t), m.name(t)
	next := m.now.clone()
	value, there := next[s][from]
	delete(next[s], from)
	next[s][to] = value
	ok := (from == to || vm.NewKey(to) == nil && m.now.fits(next, m.lim))
	if !there {
		return
	}
	old := m.edit.Get(s, from)
	_, err := m.edit.Rename(s, old, to, m.st, m.lim)
	m.step(t, err, next, ok)
	if ok && m.edit.Get(s, to).ID != old.ID {
		t.Fatalf("the ID of %q changed with its name", from)
	}
}

func (m *machine) update(t *rapid.T) {
	next := m.now.clone()
	ok := true
	var gone, set [vm.NumSpaces][]string
	for s := range vm.NumSpaces {
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "z"}), 0, 2, rapid.ID).Draw(t, "gone") {
			gone[s] = append(gone[s], fmt.Sprintf("%q", name))
			delete(next[s], name)
		}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "d", "x", " "}), 0, 3, rapid.ID).Draw(t, "set") {
			value := rapid.SampledFrom([]string{"", "x", "12", strings.Repeat("v", 30)}).Draw(t, "value")
			set[s] = append(set[s], fmt.Sprintf("%q:%q", name, value))
			next[s][name] = value
			ok = ok && vm.NewKey(name) == nil && len(value) <= m.lim.Value
		}
	}
	patch := fmt.Sprintf(`{"set_internal_metadata":{%s},"remove_internal_metadata":[%s],"customer_metadata":{%s},"remove_customer_metadata":[%s]}`,
		strings.Join(set[1], ","), strings.Join(gone[1], ","), strings.Join(set[0], ","), strings.Join(gone[0], ","))
	before := m.edit.VM()
	err := payload.Update(m.edit, []byte(patch), m.st, m.lim)
	m.step(t, err, next, ok && m.now.fits(next, m.lim))
	if (err != nil || cmp.Equal(modelOf(before), next)) && vmtest.Whole(m.edit.VM()) != vmtest.Whole(before) {
		t.Fatalf("an update that changes nothing changed %s to %s", vmtest.Whole(before), vmtest.Whole(m.edit.VM()))
	}
}

// begin starts another Edit on the VM of the last.
func (m *machine) begin(*rapid.T) {
	m.edit, m.revs = m.edit.VM().Edit(), 0
}

// TestEditModel: any sequence of edits does what it does to two maps, and every
// VM on the way stays as it was.
func TestEditModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := vmtest.NewStamp()
		v, _, err := payload.Create([]byte(`{"uuid":"`+vmtest.UUID+`","internal_metadata":{"b":"1","f_pw":true},"tags":{}}`), st, vm.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{
			st: st, lim: vm.Limits{Value: 20, Keys: 6, Bytes: 40},
			edit: v.Edit(), now: modelOf(v), past: map[*vm.VM]string{v: vmtest.Whole(v)},
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": m.put, "remove": m.remove, "rename": m.rename, "update": m.update, "begin": m.begin,
		})
		for v, then := range m.past {
			if vmtest.Whole(v) != then {
				t.Fatalf("a VM changed from %s to %s", then, vmtest.Whole(v))
			}
		}
		ids := map[uint64]bool{}
		for s := range vm.NumSpaces {
			for e := range m.edit.VM().Entries(s) {
				if ids[e.ID] {
					t.Fatalf("id %d is there twice", e.ID)
				}
				ids[e.ID] = true
			}
		}
	})
}
