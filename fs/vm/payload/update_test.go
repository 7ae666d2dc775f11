package payload_test

import (
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
)

const updated = `"alias":"web0","ram":1024,"nics":[` + nic0 + `,` + nic1 + `],` +
	`"disks":[{"path":"/d0","size":1}],"filesystems":[{"target":"/t","source":"/s"}],"tags":{"a":"1","b.c":2},"routes":{"10.0.0.0/8":"10.0.0.9"},` +
	`"customer_metadata":{"k":"v","n":7},"internal_metadata":{"i":"w"}`

const (
	nic0 = `{"mac":"aa:bb:cc:dd:ee:01","interface":"net0","ips":["dhcp"],"ip":"dhcp","primary":true}`
	nic1 = `{"mac":"aa:bb:cc:dd:ee:02","interface":"net1","ips":["10.0.0.2/24"],"ip":"10.0.0.2","netmask":"255.255.255.0"}`
)

// TestUpdate: each row is one update of the VM above and what it replaces in the
// VM's JSON.
func TestUpdate(t *testing.T) {
	set := func(key string) vm.Change { return vm.Change{Type: vm.KeySet, Key: key} }
	gone := func(key string) vm.Change { return vm.Change{Type: vm.KeyRemoved, Key: key} }
	changed := vm.Change{Type: vm.Changed}
	for _, c := range []struct {
		patch    string
		from, to string
		changes  []vm.Change
	}{
		{`{"alias":"db0"}`, `"web0"`, `"db0"`, []vm.Change{changed}},
		{`{"alias":null}`, `"alias":"web0",`, ``, []vm.Change{changed}},
		{`{"x":[1.0]}`, `{"i":"w"}`, `{"i":"w"},"x":[1.0]`, []vm.Change{changed}},
		{`{"ram":2048,"alias":"web0"}`, `1024`, `2048`, []vm.Change{changed}},

		{`{"set_customer_metadata":{"k":"z"}}`, `"k":"v"`, `"k":"z"`, []vm.Change{set("k")}},
		{`{"set_customer_metadata":{"n":"7"}}`, `"n":7`, `"n":"7"`, []vm.Change{set("n")}},
		{`{"set_customer_metadata":{"n":7.0,"k":"v"}}`, `"n":7`, `"n":7.0`, []vm.Change{set("n")}},
		{`{"set_customer_metadata":{"new":true}}`, `"n":7`, `"n":7,"new":true`, []vm.Change{set("new")}},
		{`{"remove_customer_metadata":["k","none"]}`, `"k":"v",`, ``, []vm.Change{gone("k")}},
		{`{"customer_metadata":{"k":"z"}}`, `"k":"v"`, `"k":"z"`, []vm.Change{set("k")}},
		{`{"remove_customer_metadata":["k"],"set_customer_metadata":{"k":"z"}}`, `"k":"v"`, `"k":"z"`, []vm.Change{set("k")}},
		{`{"set_customer_metadata":{"k":"z"},"remove_customer_metadata":["n"],"ram":1}`, `1024`, `1`, []vm.Change{changed, gone("n"), set("k")}},
		{`{"remove_customer_metadata":["k"],"customer_metadata":{"k":"z"}}`, `"k":"v"`, `"k":"z"`, []vm.Change{set("k")}},
		{`{"set_internal_metadata":{"i":"x"},"remove_internal_metadata":[]}`, `"i":"w"`, `"i":"x"`, []vm.Change{{Type: vm.KeySet, Space: vm.Internal, Key: "i"}}},
		{`{"__meta9_binary":{"customer_metadata":{"k":"/w=="}}}`, `"k":"v",`, ``, []vm.Change{set("k")}},

		{`{"set_tags":{"a":"2","z":false}}`, `"a":"1","b.c":2`, `"a":"2","b.c":2,"z":false`, []vm.Change{changed}},
		{`{"remove_tags":["a"],"tags":{"a":"3","z":"4"}}`, `"a":"1","b.c":2`, `"z":"4"`, []vm.Change{changed}},
		{`{"set_tags":{"a":null}}`, `"a":"1",`, ``, []vm.Change{changed}},
		{`{"remove_tags":["b.c","none"]}`, `,"b.c":2`, ``, []vm.Change{changed}},
		{`{"tags":{}}`, `"tags":{"a":"1","b.c":2}`, `"tags":{}`, []vm.Change{changed}},
		{`{"remove_routes":["10.0.0.0/8"],"set_routes":{"10.1.0.0/16":"nics[0]"}}`, `{"10.0.0.0/8":"10.0.0.9"}`, `{"10.1.0.0/16":"nics[0]"}`, []vm.Change{changed}},
		{`{"routes":null}`, `{"10.0.0.0/8":"10.0.0.9"}`, `{}`, []vm.Change{changed}},

		{`{"add_nics":[{"mac":"aa:bb:cc:dd:ee:03"}]}`, `"255.255.255.0"}`, `"255.255.255.0"},{"mac":"aa:bb:cc:dd:ee:03","ips":[],"interface":"net2"}`, []vm.Change{changed}},
		{`{"update_nics":[{"mac":"AA:bb:cc:dd:ee:02","mtu":"1400"}]}`, nic1, strings.Replace(strings.TrimSuffix(nic1, "}"), "aa:bb", "AA:bb", 1) + `,"mtu":1400}`, []vm.Change{changed}},
		{`{"remove_nics":["AA:BB:CC:DD:EE:02"]}`, `,` + nic1, ``, []vm.Change{changed}},
		{`{"remove_nics":"aa:bb:cc:dd:ee:01,aa:bb:cc:dd:ee:02"}`, nic0 + `,` + nic1, ``, []vm.Change{changed}},
		{`{"nics":[` + nic1 + `]}`, nic0 + `,` + nic1, strings.TrimSuffix(nic1, "}") + `,"primary":true}`, []vm.Change{changed}},
		{`{"remove_nics":["aa:bb:cc:dd:ee:02"],"nics":[` + nic0 + `,` + nic1 + `]}`, `,` + nic1, ``, []vm.Change{changed}},
		{`{"add_disks":[{"path":"/d0","size":2}],"remove_disks":["/d0"]}`, `"size":1`, `"size":2`, []vm.Change{changed}},
		{`{"ram":"2048","resolvers":"a,b"}`, `1024`, `2048`, []vm.Change{changed}},
		{`{"alias":""}`, `"alias":"web0",`, ``, []vm.Change{changed}},
		{`{"add_disks":[{"size":"2"}]}`, `"size":1}`, `"size":1},{"size":2,"path":"/dev/zvol/rdsk/zones/` + vmtest.UUID + `-disk0"}`, []vm.Change{changed}},
		{`{"add_pci_devices":[{"path":"/p"}]}`, `"internal_metadata":{"i":"w"}`, `"internal_metadata":{"i":"w"},"pci_devices":[{"path":"/p"}]`, []vm.Change{changed}},
		{`{"update_disks":[{"path":"/d0","size":2}]}`, `"size":1`, `"size":2`, []vm.Change{changed}},
		{`{"remove_filesystems":["/t"]}`, `{"target":"/t","source":"/s"}`, ``, []vm.Change{changed}},

		// Nothing changes.
		{`{}`, ``, ``, nil},
		{`{"uuid":"` + strings.ToUpper(vmtest.UUID) + `"}`, ``, ``, nil},
		{`{"none":null,"alias":"web0"}`, ``, ``, nil},
		{`{` + updated + `}`, ``, ``, nil},
		{`{"customer_metadata":{},"set_tags":{"a":"1"},"remove_tags":["q"],"remove_customer_metadata":["q"]}`, ``, ``, nil},
		{`{"update_nics":[{"mac":"aa:bb:cc:dd:ee:02"}],"add_nics":[]}`, ``, ``, nil},
		{`{"update_nics":[{"mac":"aa:bb:cc:dd:ee:02","ip":"10.0.0.2","ips":["10.0.0.2/24"],"primary":"false"}],"ram":"1024"}`, ``, ``, nil},
	} {
		st := vmtest.NewStamp()
		v := vmtest.Small(t, st, updated)
		before := vmtest.Whole(v)
		e := v.Edit()
		if err := payload.Update(e, []byte(c.patch), st, vm.DefaultLimits); err != nil {
			t.Errorf("%s: %v", c.patch, err)
			continue
		}
		want := strings.Replace(before, c.from, c.to, 1)
		if strings.Contains(c.patch, "_binary") {
			want = strings.TrimSuffix(want, "}") + `,"__meta9_binary":{"customer_metadata":{"k":"/w=="}}}`
		}
		if strings.Contains(c.patch, "resolvers") {
			want = strings.TrimSuffix(want, "}") + `,"resolvers":["a","b"]}`
		}
		if strings.Contains(c.patch, `"ram":1}`) {
			want = strings.Replace(want, `"k":"v","n":7`, `"k":"z"`, 1)
		}
		vmtest.Diff(t, c.patch, vmtest.Whole(e.VM()), want)
		changes := e.Changes()
		for i := range changes {
			if changes[i].Rev != uint64(i+2) {
				t.Errorf("%s: revisions %v", c.patch, changes)
			}
			changes[i].Rev = 0
		}
		vmtest.Diff(t, c.patch, changes, c.changes)
		if c.changes == nil && e.VM() != v {
			t.Errorf("%s made another VM", c.patch)
		}
		vmtest.Diff(t, "the old VM after "+c.patch, vmtest.Whole(v), before)
	}
}

// TestUpdateOfNothing: lists and objects that are not there are as good as empty.
func TestUpdateOfNothing(t *testing.T) {
	for patch, want := range map[string]string{
		`{"remove_tags":["a"],"add_nics":[],"set_routes":{}}`: ``,
		`{"set_tags":{"a":null}}`:                             ``,
		`{"set_tags":{"a":"1"},"add_disks":[{"path":"/d"}]}`:  `,"tags":{"a":"1"},"disks":[{"path":"/d"}]`,
		`{"routes":{"fd00::1":"fd00::2"},"set_routes":{"10.0.0.1":"macs[2:8:20:a:b:c]"},"remove_routes":["fd00::1"]}`: `,"routes":{"10.0.0.1":"macs[2:8:20:a:b:c]"}`,
		`{"remove_customer_metadata":["k"],"customer_metadata":{}}`:                                                   ``,
	} {
		st := vmtest.NewStamp()
		v := vmtest.Small(t, st, "")
		e := v.Edit()
		if err := payload.Update(e, []byte(patch), st, vm.DefaultLimits); err != nil {
			t.Errorf("%s: %v", patch, err)
		}
		vmtest.Diff(t, patch, vmtest.Whole(e.VM()), `{"uuid":"`+vmtest.UUID+`"`+want+`}`)
		if (want == "") != (e.VM() == v) {
			t.Errorf("%s made another VM or none", patch)
		}
	}
}

func TestUpdateErrors(t *testing.T) {
	for _, c := range []struct {
		patch string
		kind  errs.Kind
		text  string
	}{
		{`[]`, errs.Invalid, "JSON object"},
		{`{"alias":"x","uuid":"01b2c898-945f-11e1-a523-af1afbe22822"}`, errs.Invalid, "uuid: cannot change, it is " + vmtest.UUID},
		{`{"alias":"x","uuid":null}`, errs.Invalid, "uuid: "},
		{`{"alias":"x","ram":"lots"}`, errs.Invalid, "ram: must be an integer"},
		{`{"alias":"x","customer_metadata":null}`, errs.Invalid, "customer_metadata: must be an object"},
		{`{"alias":"x","set_customer_metadata":{"k":"z","q":[]}}`, errs.Invalid, "set_customer_metadata.q: must be a string"},
		{`{"alias":"x","set_customer_metadata":{"k":"z"," ":""}}`, errs.Invalid, "set_customer_metadata: key \" \""},
		{`{"alias":"x","remove_customer_metadata":{}}`, errs.Invalid, "remove_customer_metadata: must be an array of strings"},
		{`{"alias":"x","remove_internal_metadata":[1]}`, errs.Invalid, "remove_internal_metadata: must be an array of strings"},
		{`{"alias":"x","set_tags":[]}`, errs.Invalid, "set_tags: must be an object"},
		{`{"alias":"x","set_tags":{"a":{}}}`, errs.Invalid, "tags: must be an object of strings, numbers"},
		{`{"alias":"x","remove_tags":{}}`, errs.Invalid, "remove_tags: must be an array of strings"},
		{`{"alias":"x","set_routes":{"a":5}}`, errs.Invalid, "routes: must be an object of strings"},
		{`{"alias":"x","set_routes":{"10.0.0.0/8":"me"}}`, errs.Invalid, "routes.10.0.0.0/8: must be an IP address, nics[N] or macs[MAC]"},
		{`{"nics":7,"add_nics":[]}`, errs.Invalid, "nics: must be an array of objects, not 7"},
		{`{"alias":"x","add_nics":{}}`, errs.Invalid, "add_nics: must be an array of objects"},
		{`{"alias":"x","add_filesystems":[{"source":"/x"}]}`, errs.Invalid, "add_filesystems: target: missing"},
		{`{"alias":"x","add_nics":[{"mac":"AA:bb:cc:dd:ee:01"}]}`, errs.Invalid, `add_nics: mac "aa:bb:cc:dd:ee:01" is there already`},
		{`{"alias":"x","add_nics":[{"mac":"zz"}]}`, errs.Invalid, `nics.2.mac: must be a MAC`},
		{`{"alias":"x","update_nics":[{"mac":"aa:bb:cc:dd:ee:09"}]}`, errs.Invalid, `update_nics: no mac "aa:bb:cc:dd:ee:09"`},
		{`{"alias":"x","remove_nics":["aa:bb:cc:dd:ee:09"]}`, errs.Invalid, `remove_nics: no mac "aa:bb:cc:dd:ee:09"`},
		{`{"alias":"x","remove_nics":[{}]}`, errs.Invalid, `remove_nics: must be an array of strings`},
		{`{"alias":"x","remove_disks":[""]}`, errs.Invalid, `remove_disks: no path ""`},
		{`{"alias":"x","__meta9_binary":{"internal_metadata":{"i":"!"}}}`, errs.Invalid, "__meta9_binary.internal_metadata.i: must be a string in base64"},
		{`{"alias":"x","set_customer_metadata":{"k":"","big":"12345678901"}}`, errs.TooLarge, "10 bytes is the limit of a value"},
		{`{"alias":"x","remove_customer_metadata":["k"],"set_customer_metadata":{"1":"","2":"","3":""}}`, errs.NoSpace, "4 keys is this VM's limit"},
		{`{"alias":"x","set_customer_metadata":{"k":"1234567890","n":"1234567890"}}`, errs.NoSpace, "20 bytes of metadata"},
	} {
		st := vmtest.NewStamp()
		e := vmtest.Small(t, st, updated).Edit()
		vmtest.Put(t, e, st, "k", "changed before")
		before, beforeChanges := e.VM(), e.Changes()
		err := payload.Update(e, []byte(c.patch), st, vm.Limits{Value: 10, Keys: 4, Bytes: 20})
		vmtest.WantError(t, err, c.kind, c.text)
		if e.VM() != before {
			t.Errorf("%s: something was changed", c.patch)
		}
		vmtest.Diff(t, "changes", e.Changes(), beforeChanges)
	}
}

// TestUpdateLimitsAreOfTheResult: on the way to a VM within its limits an update
// may pass them.
func TestUpdateLimitsAreOfTheResult(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, `"customer_metadata":{"a":"1","b":"123456"}`).Edit()
	if err := payload.Update(e, []byte(`{"set_customer_metadata":{"a":"123456","b":"1"}}`), st, vm.Limits{Bytes: 9}); err != nil {
		t.Error(err)
	}
}

// TestUpdateOfUpdates: an Edit that failed or succeeded once goes on.
func TestUpdateOfUpdates(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, updated)
	e := v.Edit()
	for _, patch := range []string{`{"ram":1}`, `{"uuid":1}`, `{"set_customer_metadata":{"k":"2"}}`, `{"nics":7}`, `{"alias":"z"}`} {
		_ = payload.Update(e, []byte(patch), st, vm.DefaultLimits)
	}
	if _, err := e.Rename(vm.Keys, e.Get(vm.Keys, "k"), "l", st, vm.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("1024", "1", "web0", "z", `"k":"v"`, `"l":"2"`).Replace(vmtest.Whole(v))
	vmtest.Diff(t, "VM", vmtest.Whole(e.VM()), want)
	vmtest.CheckVM(t, e.VM(), vm.DefaultLimits)
}

// FuzzUpdate: an update is done whole or not at all, and doing it twice changes
// nothing more unless it adds or removes elements.
func FuzzUpdate(f *testing.F) {
	for _, patch := range []string{
		`{"alias":null,"x":{"y":[1e5]},"set_tags":{"a":null},"remove_tags":["b.c"]}`,
		`{"set_customer_metadata":{"k":1,"` + strings.Repeat("x", 300) + `":""}}`,
		`{"customer_metadata":{"k":"z"},"remove_customer_metadata":["k","n"],"internal_metadata":{"q":true}}`,
		`{"update_nics":[{"mac":"aa:bb:cc:dd:ee:02","ip":null}],"remove_nics":["aa:bb:cc:dd:ee:01"],"add_nics":[{"mac":"2:8:20:a:b:c"}]}`,
		`{"__meta9_binary":{"customer_metadata":{"k":"/w=="}}}`,
		`{"uuid":"x"}`, `[]`,
	} {
		f.Add([]byte(patch))
	}
	_, updates := cases(f)
	for _, patch := range updates {
		f.Add(patch)
	}
	lim := vm.Limits{Value: 64, Keys: 8, Bytes: 256}
	f.Fuzz(func(t *testing.T, patch []byte) {
		st := vmtest.NewStamp()
		v := vmtest.Small(t, st, updated)
		before := vmtest.Whole(v)
		e := v.Edit()
		err := payload.Update(e, patch, st, lim)
		after := e.VM()
		if vmtest.Whole(v) != before {
			t.Fatal("the old VM changed")
		}
		if err != nil {
			if after != v || len(e.Changes()) > 0 {
				t.Fatalf("%v, and yet something was changed", err)
			}
			return
		}
		vmtest.CheckVM(t, after, lim)
		if (after == v) != (len(e.Changes()) == 0) || (after == v) != (vmtest.Whole(after) == before) {
			t.Fatalf("%v for a change from %s to %s", e.Changes(), before, vmtest.Whole(after))
		}
		if _, err := ordjson.Parse(after.AppendRecord(nil)); err != nil {
			t.Fatal(err)
		}
		named := !strings.Contains(string(patch), "add_") // else it may add one without a name once more
		if err := payload.Update(e, patch, st, lim); err == nil && named && vmtest.Whole(e.VM()) != vmtest.Whole(after) {
			t.Fatalf("done again it made %s of %s", vmtest.Whole(e.VM()), vmtest.Whole(after))
		}
	})
}
