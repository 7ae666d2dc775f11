package vm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"meta9/fs/errs"
	"meta9/fs/vm"
)

// recorded reads a recording of the bridge that it is of.
func recorded(t testing.TB, bridge, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../mdbridge", bridge, "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mdataVectors is mdata.json (mdbridge/mdata/testdata/README.md).
type mdataVectors struct {
	VM    json.RawMessage `json:"vm"`
	Pairs []struct {
		N             int
		Name, Differs string
		Send, Recv    []byte
	}
}

func readMdata(t testing.TB) mdataVectors {
	t.Helper()
	var v mdataVectors
	if err := json.Unmarshal(recorded(t, "mdata", "mdata.json"), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// vectorVM is the VM over which the metadata protocol was recorded.
func vectorVM(t testing.TB) *vm.VM {
	t.Helper()
	return create(t, newStamp(), string(readMdata(t).VM))
}

const uuid = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"

// newStamp counts IDs from 101 and revisions from 1.
func newStamp() vm.Stamp {
	id, rev := uint64(101), uint64(0)
	return vm.Stamp{
		Now: 1000, By: "test",
		NextID:  func(n uint64) uint64 { id += n; return id - n },
		NextRev: func() uint64 { rev++; return rev },
	}
}

func create(t testing.TB, st vm.Stamp, payload string) *vm.VM {
	t.Helper()
	v, _, err := vm.Create([]byte(payload), st, vm.DefaultLimits)
	if err != nil {
		t.Fatalf("Create(%s): %v", payload, err)
	}
	return v
}

// small is a VM with the given members besides its uuid.
func small(t testing.TB, st vm.Stamp, members string) *vm.VM {
	t.Helper()
	if members != "" {
		members = "," + members
	}
	return create(t, st, `{"uuid":"`+uuid+`"`+members+`}`)
}

func whole(v *vm.VM) string { return string(v.AppendJSON(nil, false)) }

func names(entries []*vm.Entry) []string {
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name)
	}
	return list
}

func diff(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// wantError checks the kind and that the detail has the text in it.
func wantError(t testing.TB, err error, kind errs.Kind, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v: ...%s...", kind, text)
	}
	if errs.KindOf(err) != kind || !strings.Contains(errs.Detail(err), text) {
		t.Errorf("error %q, want %v: ...%s...", err, kind, text)
	}
}
