package vm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/vmtest"
)

// ofKeys is a VM with n keys of 100 bytes.
func ofKeys(b *testing.B, n int) *vm.VM {
	e := vmtest.Small(b, vmtest.NewStamp(), `"alias":"web0"`).Edit()
	st := vmtest.NewStamp()
	for i := range n {
		vmtest.Put(b, e, st, fmt.Sprintf("key%04d", i), strings.Repeat("v", 100))
	}
	return e.VM()
}

func BenchmarkGet(b *testing.B) {
	v := ofKeys(b, 100)
	b.ReportAllocs()
	for b.Loop() {
		v.Get(vm.Keys, "key0050")
	}
}

// BenchmarkPut is one write as the committer does it: edit, put, freeze.
func BenchmarkPut(b *testing.B) {
	for _, keys := range []int{10, 100, 4096} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			v, st := ofKeys(b, keys), vmtest.NewStamp()
			b.ReportAllocs()
			for b.Loop() {
				e := v.Edit()
				vmtest.Put(b, e, st, "key0005", "w")
				e.VM()
			}
		})
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	v := ofKeys(b, 100)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = v.AppendJSON(buf[:0], false)
	}
	b.SetBytes(int64(len(buf)))
}

// BenchmarkRestore is one VM of a cold start.
func BenchmarkRestore(b *testing.B) {
	v := ofKeys(b, 100)
	props := v.AppendRecord(nil)
	b.ReportAllocs()
	for b.Loop() {
		entries := [vm.NumSpaces][]*vm.Entry{slices.Collect(v.Entries(vm.Keys))}
		if _, err := vm.Restore(v.UUID, v.ID, v.Rev, v.Mtime, props, entries); err != nil {
			b.Fatal(err)
		}
	}
}
