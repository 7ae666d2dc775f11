package vm_test

import (
	"fmt"
	"strings"
	"testing"

	"meta9/fs/vm"
)

// ofKeys is a VM with n keys of 100 bytes.
func ofKeys(b *testing.B, n int) *vm.VM {
	e := small(b, newStamp(), `"alias":"web0"`).Edit()
	st := newStamp()
	for i := range n {
		put(b, e, st, fmt.Sprintf("key%04d", i), strings.Repeat("v", 100))
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
			v, st := ofKeys(b, keys), newStamp()
			b.ReportAllocs()
			for b.Loop() {
				e := v.Edit()
				put(b, e, st, "key0005", "w")
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
		entries := [vm.NumSpaces][]*vm.Entry{append([]*vm.Entry(nil), v.Entries(vm.Keys)...)}
		if _, err := vm.Restore(v.UUID, v.ID, v.Rev, v.Mtime, props, entries); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	v, st := ofKeys(b, 100), newStamp()
	e := v.Edit()
	put(b, e, st, "key0005", "w")
	next := e.VM()
	b.ReportAllocs()
	for b.Loop() {
		vm.Diff(v, next)
	}
}
