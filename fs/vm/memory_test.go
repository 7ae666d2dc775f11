package vm_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/vmtest"
)

// TestMemory: what a key costs beside its value here, so that all rooms together
// stay within 350 bytes.
func TestMemory(t *testing.T) {
	const vms, keys, value, most = 200, 100, 100, 200
	st := vmtest.NewStamp()
	payloads := make([]string, vms)
	for i := range payloads {
		var b strings.Builder
		fmt.Fprintf(&b, `{"uuid":"e4e6a97e-cb36-4b18-95c9-%012x","alias":"vm%d","state":"running","ram":1024,"nics":[{"mac":"2:8:20:0:0:1","ip":"10.0.0.1"}],"customer_metadata":{"k":""`, i, i)
		for k := range keys {
			fmt.Fprintf(&b, `,"key%04d":"%s"`, k, strings.Repeat("v", value))
		}
		payloads[i] = b.String() + "}}"
	}
	made := make([]*vm.VM, vms)
	before := heap()
	for i := range made {
		made[i] = vmtest.Keep(t, st, payloads[i])
		e := made[i].Edit()
		vmtest.Put(t, e, st, "k", "written")
		made[i] = e.VM()
	}
	each := (heap()-before)/(vms*keys) - value
	if each > most {
		t.Errorf("%d bytes of heap a key over its value, want at most %d", each, most)
	}
	runtime.KeepAlive(made)
	runtime.KeepAlive(payloads)
	t.Logf("%d bytes of heap a key over its value", each)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
