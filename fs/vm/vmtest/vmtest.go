// Package vmtest is what the tests of the rooms under fs/vm share.
package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"pgregory.net/rapid"
)

// UUID is that of the VM that Small makes.
const UUID = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"

// NewStamp counts IDs from 101 and revisions from 1.
func NewStamp() vm.Stamp {
	id, rev := uint64(101), uint64(0)
	return vm.Stamp{
		Now: 1000, By: "test",
		NextID:  func(n uint64) uint64 { id += n; return id - n },
		NextRev: func() uint64 { rev++; return rev },
	}
}

// Keep is payload.Keep, which must succeed: the VM is what the text says.
func Keep(t testing.TB, st vm.Stamp, text string) *vm.VM {
	t.Helper()
	v, _, err := payload.Keep([]byte(text), st, vm.DefaultLimits)
	if err != nil {
		t.Fatalf("Keep(%.200s): %v", text, err)
	}
	return v
}

// Small is a VM with the given members besides its uuid, and nothing filled in.
func Small(t testing.TB, st vm.Stamp, members string) *vm.VM {
	t.Helper()
	if members != "" {
		members = "," + members
	}
	return Keep(t, st, `{"uuid":"`+UUID+`"`+members+`}`)
}

// Put gives a key a value, which must succeed.
func Put(t testing.TB, e *vm.Edit, st vm.Stamp, name, value string) *vm.Entry {
	t.Helper()
	entry, err := e.Put(vm.Keys, e.Get(vm.Keys, name), name, value, st, vm.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// Whole is the VM's JSON as an admin sees it.
func Whole(v *vm.VM) string { return string(v.AppendJSON(nil, false)) }

// Diff fails the test where got is not want.
func Diff(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// WantError checks the kind and that the detail has the text in it.
func WantError(t testing.TB, err error, kind errs.Kind, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v: ...%s...", kind, text)
	}
	if errs.KindOf(err) != kind || !strings.Contains(errs.Detail(err), text) {
		t.Errorf("error %q, want %v: ...%s...", err, kind, text)
	}
}

// CheckVM checks what must hold of every VM: both orders hold the same entries,
// and the totals are theirs.
func CheckVM(t rapid.TB, v *vm.VM, lim vm.Limits) {
	t.Helper()
	var bytes int64
	count := 0
	for s := range vm.NumSpaces {
		last := uint64(0)
		for e := range v.Entries(s) {
			if e.ID <= last || e.Rev == 0 || e.Rev > v.Rev {
				t.Fatalf("%s/%s: id %d after %d, rev %d in %d", s, e.Name, e.ID, last, e.Rev, v.Rev)
			}
			if v.Get(s, e.Name) != e {
				t.Fatalf("%s/%s: found by id, not by name", s, e.Name)
			}
			if v.GetID(s, e.ID) != e {
				t.Fatalf("%s/%s: not found by id", s, e.Name)
			}
			last = e.ID
			count++
			bytes += int64(len(e.Name) + len(e.Value))
		}
		if _, ok := v.Prop(s.Member()); !ok && last > 0 {
			t.Fatalf("no place for %s in the JSON", s.Member())
		}
	}
	if v.Count() != count || v.Bytes() != bytes {
		t.Fatalf("%d keys of %d bytes, counted %d of %d", v.Count(), v.Bytes(), count, bytes)
	}
	if lim.Keys > 0 && count > lim.Keys || lim.Bytes > 0 && bytes > lim.Bytes {
		t.Fatalf("%d keys of %d bytes is over %+v", count, bytes, lim)
	}
}

// Mdata is mdbridge/mdata/testdata/mdata.json, which its README explains.
type Mdata struct {
	VM    json.RawMessage `json:"vm"`
	Pairs []struct {
		N             int
		Name, Differs string
		Send, Recv    []byte
	}
}

// ReadMdata reads it; root is the way from the test's folder to the repository's.
func ReadMdata(t testing.TB, root string) Mdata {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "mdbridge/mdata/testdata/mdata.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v Mdata
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
