package server

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
	"pgregory.net/rapid"
)

// changesOf is the JSON array of a modify event.
func changesOf(from, to *vm.VM) string {
	var list []string
	found, _ := differences(from, to)
	for _, d := range found {
		list = append(list, string(d.value().AppendJSON(nil)))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// TestDiffVectors: the recorded stream's modify events, from the snapshot on.
func TestDiffVectors(t *testing.T) {
	vms := map[string]*vm.VM{}
	seen := 0
	stream, err := os.ReadFile("../testdata/vminfod-events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(stream) {
		var event struct {
			Type, UUID, VMs string
			VM              json.RawMessage
			Changes         json.RawMessage
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		switch event.Type {
		case "ready":
			var list []json.RawMessage
			if err := json.Unmarshal([]byte(event.VMs), &list); err != nil {
				t.Fatal(err)
			}
			for _, text := range list {
				v := vmtest.Keep(t, vmtest.NewStamp(), string(text))
				vms[v.UUID] = v
			}
		case "modify":
			next := vmtest.Keep(t, vmtest.NewStamp(), string(event.VM))
			vmtest.Diff(t, "changes", changesOf(vms[event.UUID], next), string(event.Changes))
			vmtest.Diff(t, "VM", vmtest.Whole(next), string(event.VM))
			vms[event.UUID] = next
			seen++
		}
	}
	if seen == 0 {
		t.Error("no modify event in the stream")
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{`"a":1`, `"a":1`, ``},
		{`"a":1`, `"a":1.0`, `{"prettyPath":"a","path":["a"],"action":"changed","oldValue":1,"newValue":1.0}`},
		{`"a":256`, `"a":"256"`, `{"prettyPath":"a","path":["a"],"action":"changed","oldValue":256,"newValue":"256"}`},
		{`"a":null`, `"a":{"b":1}`, `{"prettyPath":"a","path":["a"],"action":"changed","oldValue":null,"newValue":{"b":1}}`},
		{`"a":{"b":1}`, `"a":[1]`, `{"prettyPath":"a","path":["a"],"action":"changed","oldValue":{"b":1},"newValue":[1]}`},
		{`"a":true`, `"a":false`, `{"prettyPath":"a","path":["a"],"action":"changed","oldValue":true,"newValue":false}`},
		{
			`"b":1,"a":1`, `"c":1,"a":2`,
			`{"prettyPath":"b","path":["b"],"action":"removed","oldValue":1},{"prettyPath":"a","path":["a"],"action":"changed","oldValue":1,"newValue":2},{"prettyPath":"c","path":["c"],"action":"added","newValue":1}`,
		},
		{`"a":{"x":{"y":1}}`, `"a":{"x":{"y":2}}`, `{"prettyPath":"a.x.y","path":["a","x","y"],"action":"changed","oldValue":1,"newValue":2}`},
		{`"a":{"x.y":1}`, `"a":{"[z]":1}`, `{"prettyPath":"a[x.y]","path":["a","x.y"],"action":"removed","oldValue":1},{"prettyPath":"a[\\[z\\]]","path":["a","[z]"],"action":"added","newValue":1}`},
		{`"a":["x","y"]`, `"a":["y","x","x"]`, ``},
		{`"a":[["x"],1]`, `"a":[["y"]]`, `{"prettyPath":"a.*","path":["a",null],"action":"removed","oldValue":["x"]},{"prettyPath":"a.*","path":["a",null],"action":"removed","oldValue":1},{"prettyPath":"a.*","path":["a",null],"action":"added","newValue":["y"]}`},
		{
			`"nics":[{"mac":"aa:bb:cc:dd:ee:01","ips":["a"]},{"mac":"aa:bb:cc:dd:ee:02"}]`,
			`"nics":[{"mac":"aa:bb:cc:dd:ee:03"},{"mac":"aa:bb:cc:dd:ee:01","ips":["b"],"mtu":1}]`,
			`{"prettyPath":"nics.*","path":["nics",null],"action":"removed","oldValue":{"mac":"aa:bb:cc:dd:ee:02"}},` +
				`{"prettyPath":"nics.*.ips.*","path":["nics",null,"ips",null],"action":"removed","oldValue":"a","ident":"aa:bb:cc:dd:ee:01"},` +
				`{"prettyPath":"nics.*.ips.*","path":["nics",null,"ips",null],"action":"added","newValue":"b","ident":"aa:bb:cc:dd:ee:01"},` +
				`{"prettyPath":"nics.*.mtu","path":["nics",null,"mtu"],"action":"added","newValue":1,"ident":"aa:bb:cc:dd:ee:01"},` +
				`{"prettyPath":"nics.*","path":["nics",null],"action":"added","newValue":{"mac":"aa:bb:cc:dd:ee:03"}}`,
		},
		{`"disks":[{"path":"/d","size":1}]`, `"disks":[{"path":"/d","size":2}]`, `{"prettyPath":"disks.*.size","path":["disks",null,"size"],"action":"changed","oldValue":1,"newValue":2,"ident":"/d"}`},
		{
			`"filesystems":[{"target":"/t"}]`, `"filesystems":[{"target":"/t","x":1}]`,
			`{"prettyPath":"filesystems.*","path":["filesystems",null],"action":"removed","oldValue":{"target":"/t"}},{"prettyPath":"filesystems.*","path":["filesystems",null],"action":"added","newValue":{"target":"/t","x":1}}`,
		},
		{`"nics":[{"ip":"a"}]`, `"nics":[{"ip":"b"}]`, `{"prettyPath":"nics.*","path":["nics",null],"action":"removed","oldValue":{"ip":"a"}},{"prettyPath":"nics.*","path":["nics",null],"action":"added","newValue":{"ip":"b"}}`},
		{`"x":{"nics":[{"mac":"a","y":1}]}`, `"x":{"nics":[{"mac":"a","y":2}]}`, `{"prettyPath":"x.nics.*","path":["x","nics",null],"action":"removed","oldValue":{"mac":"a","y":1}},{"prettyPath":"x.nics.*","path":["x","nics",null],"action":"added","newValue":{"mac":"a","y":2}}`},
		{``, `"customer_metadata":{"k":1}`, `{"prettyPath":"customer_metadata","path":["customer_metadata"],"action":"added","newValue":{"k":1}}`},
		{`"customer_metadata":{"k":true}`, `"customer_metadata":{"k":false}`, `{"prettyPath":"customer_metadata.k","path":["customer_metadata","k"],"action":"changed","oldValue":true,"newValue":false}`},
		{
			`"internal_metadata":{"k":"1"}`, `"internal_metadata":{},"__meta9_binary":{"internal_metadata":{"k":"/w=="}}`,
			`{"prettyPath":"internal_metadata.k","path":["internal_metadata","k"],"action":"removed","oldValue":"1"},` +
				`{"prettyPath":"__meta9_binary","path":["__meta9_binary"],"action":"added","newValue":{"internal_metadata":{"k":"/w=="}}}`,
		},
	} {
		from, to := vmtest.Small(t, vmtest.NewStamp(), c.from), vmtest.Small(t, vmtest.NewStamp(), c.to)
		vmtest.Diff(t, c.from+" -> "+c.to, changesOf(from, to), "["+c.want+"]")
	}
}

// TestDiffSeesEveryWrite: a VM differs from itself in nothing, and from what an
// edit made of it in just the keys that are other than before.
func TestDiffSeesEveryWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := vmtest.NewStamp()
		v, _, err := payload.Create([]byte(`{"uuid":"`+vmtest.UUID+`","customer_metadata":{"a":"1","b":2,"c":true}}`), st, vm.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		e := v.Edit()
		want := map[string]bool{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e.f"}), 0, 5, rapid.ID).Draw(t, "names") {
			want[name] = true
			if e.Get(vm.Keys, name) != nil && rapid.Bool().Draw(t, "remove") {
				e.Remove(vm.Keys, e.Get(vm.Keys, name), st)
			} else if _, err := e.Put(vm.Keys, e.Get(vm.Keys, name), name, "new", st, vm.DefaultLimits); err != nil {
				t.Fatal(err)
			}
		}
		found, _ := differences(v, e.VM())
		for _, d := range found {
			if len(d.path) != 2 || d.path[0].name != "customer_metadata" || !want[d.path[1].name] {
				t.Fatalf("a difference too many: %s", d.value().AppendJSON(nil))
			}
			delete(want, d.path[1].name)
		}
		if len(want) > 0 {
			t.Fatalf("not seen: %v", want)
		}
		if d, same := differences(e.VM(), e.VM()); d != nil || !same {
			t.Fatalf("differs from itself: %v", d)
		}
	})
}

func BenchmarkDiff(b *testing.B) {
	v, st := vmtest.Small(b, vmtest.NewStamp(), `"customer_metadata":{"key0005":"v"}`), vmtest.NewStamp()
	e := v.Edit()
	vmtest.Put(b, e, st, "key0005", "w")
	next := e.VM()
	b.ReportAllocs()
	for b.Loop() {
		differences(v, next)
	}
}
