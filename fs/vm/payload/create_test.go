package payload_test

import (
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
)

func TestCreate(t *testing.T) {
	st := vmtest.NewStamp()
	text := `{"x-unknown":[1.50,null],"UUID":1,"uuid":"E4E6A97E-CB36-4B18-95C9-8EB0D0D7787F","alias":"web0","state":"running",` +
		`"customer_metadata":{"b":"2","a":1.0,"t":true,"f":false},"ram":1024,"internal_metadata":{"root_pw":"x"},"internal_metadata_namespaces":["ns","docker"]}`
	v, changes, err := payload.Create([]byte(text), st, vm.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	vmtest.Diff(t, "changes", changes, []vm.Change{{Type: vm.Created, Rev: 1}})
	vmtest.Diff(t, "JSON", vmtest.Whole(v), strings.Replace(strings.TrimSuffix(text, "}"), "E4E6A97E-CB36-4B18-95C9-8EB0D0D7787F", vmtest.UUID, 1)+
		`,"zonename":"`+vmtest.UUID+`","tags":{},"routes":{}}`)
	vmtest.Diff(t, "keys", slices.Collect(v.Entries(vm.Keys)), []*vm.Entry{
		{ID: 117, Rev: 1, Mtime: 1000, Mode: 0o600, Name: "b", Value: "2", Muid: "test"},
		{ID: 118, Rev: 1, Mtime: 1000, Mode: 0o600, Name: "a", Value: "1.0", Kind: vm.Number, Muid: "test"},
		{ID: 119, Rev: 1, Mtime: 1000, Mode: 0o600, Name: "t", Value: "true", Kind: vm.Bool, Muid: "test"},
		{ID: 120, Rev: 1, Mtime: 1000, Mode: 0o600, Name: "f", Value: "false", Kind: vm.Bool, Muid: "test"},
	})
	vmtest.Diff(t, "the rest", []any{v.UUID, v.ID, v.Rev, v.Mtime, v.Count(), v.Bytes(), v.Alias(), v.State()},
		[]any{vmtest.UUID, uint64(101), uint64(1), int64(1000), 5, int64(25), "web0", "running"})
	if e := v.Get(vm.Internal, "root_pw"); e == nil || v.Get(vm.Keys, "root_pw") != nil {
		t.Errorf("root_pw in internal: %v", e)
	}
}

func TestCreateErrors(t *testing.T) {
	id := `"uuid":"` + vmtest.UUID + `"`
	for _, c := range []struct{ in, text string }{
		{`[]`, "a VM is a JSON object"},
		{`{`, "JSON: "},
		{`{}`, "uuid: missing"},
		{`{"uuid":null}`, "uuid: "},
		{`{"uuid":7}`, "uuid: must be a UUID such as"},
		{`{"uuid":"e4e6a97e"}`, `uuid: must be a UUID such as`},
		{`{` + id + `,"alias":7}`, "alias: must be a string"},
		{`{` + id + `,"alias":"a\nb"}`, "alias: must be a string that could be"},
		{`{` + id + `,"alias":"x","alias":"y"}`, `"alias" is given twice`},
		{`{` + id + `,"image_uuid":"nobody"}`, "image_uuid: must be a UUID"},
		{`{` + id + `,"hostname":{}}`, "hostname: must be a string, not {}"},
		{`{` + id + `,"ram":"lots"}`, `ram: must be an integer, at least 0, not "lots"`},
		{`{` + id + `,"autoboot":"yes"}`, "autoboot: must be true or false"},
		{`{` + id + `,"vsock_cid":2}`, "vsock_cid: must be an integer from 3"},
		{`{` + id + `,"vsock_cid":3.5}`, "vsock_cid: "},
		{`{` + id + `,"vsock_cid":4294967295}`, "vsock_cid: "},
		{`{` + id + `,"9p_chardev":1}`, "9p_chardev: must be the absolute path"},
		{`{` + id + `,"9p_chardev":"relative"}`, "9p_chardev: must be the absolute path"},
		{`{` + id + `,"9p_chardev":"/x,unknown"}`, "9p_chardev: must be the absolute path"},
		{`{` + id + `,"mdata_chardev":"/x,link"}`, "mdata_chardev: must be the absolute path"},
		{`{` + id + `,"9p_listen":"/x,link"}`, "9p_listen: must be the absolute path"},
		{`{` + id + `,"mdata_chardev":[]}`, "mdata_chardev: must be the absolute path"},
		{`{` + id + `,"9p_owner":{}}`, "9p_owner: must be a user, by name or number"},
		{`{` + id + `,"9p_owner":"a:b"}`, "9p_owner: "},
		{`{` + id + `,"9p_owner":-1}`, "9p_owner: "},
		{`{` + id + `,"9p_owner":""}`, "9p_owner: "},
		{`{` + id + `,"9p_uid":-1}`, "9p_uid: must be an integer from 0"},
		{`{` + id + `,"9p_uid":4294967295}`, "9p_uid: "},
		{`{` + id + `,"9p_gid":1.5}`, "9p_gid: "},
		{`{` + id + `,"9p_mode":640}`, `9p_mode: must be permission bits in octal as a string, such as "0640", not 640`},
		{`{` + id + `,"9p_mode":"0800"}`, "9p_mode: "},
		{`{` + id + `,"9p_mode":"4755"}`, "9p_mode: "},
		{`{` + id + `,"9p_mode":"40"}`, "9p_mode: "},
		{`{` + id + `,"nics":{}}`, "nics: must be an array of objects"},
		{`{` + id + `,"nics":[1]}`, "nics: must be an array of objects"},
		{`{` + id + `,"nics":[{},{"mac":"aa:bb:cc:dd:ee"}]}`, `nics.1.mac: must be a MAC address such as 02:08:20:aa:bb:cc, not "aa:bb:cc:dd:ee"`},
		{`{` + id + `,"nics":[{"mac":"aa:bb:cc:dd:ee:gg"}]}`, "nics.0.mac: "},
		{`{` + id + `,"nics":[{"mac":"aa:bb:cc:dd:ee:é1"}]}`, "nics.0.mac: "},
		{`{` + id + `,"nics":[{"mac":"aa:bb:cc:dd:ee:01"},{"mac":"AA:bb:cc:dd:ee:01"}]}`, `nics.1.mac: "aa:bb:cc:dd:ee:01" is there twice`},
		{`{` + id + `,"disks":"none"}`, "disks: must be an array of objects"},
		{`{` + id + `,"disks":[{"path":"/a"},{"path":"/a"}]}`, `disks.1.path: "/a" is there twice`},
		{`{` + id + `,"tags":["a"]}`, "tags: must be an object of strings, numbers and booleans"},
		{`{` + id + `,"tags":{"a":null}}`, "tags: must be"},
		{`{` + id + `,"routes":{"10.0.0.0/8":1}}`, "routes: must be an object of strings"},
		{`{` + id + `,"routes":{"a":"10.0.0.1"}}`, `routes: "a" must be an address or a network`},
		{`{` + id + `,"routes":{"10.0.0.0/8":"nics[x]"}}`, `routes.10.0.0.0/8: must be an IP address, nics[N] or macs[MAC], not "nics[x]"`},
		{`{` + id + `,"resolvers":8}`, "resolvers: must be an array of strings, numbers and booleans, or text with commas, not 8"},
		{`{` + id + `,"resolvers":[8]}`, "resolvers: must be an array of strings"},
		{`{` + id + `,"internal_metadata_namespaces":[1]}`, "internal_metadata_namespaces: must be"},
		{`{` + id + `,"customer_metadata":[]}`, "customer_metadata: must be an object of keys"},
		{`{` + id + `,"customer_metadata":{"k":{}}}`, "customer_metadata.k: must be a string, a number or a boolean"},
		{`{` + id + `,"internal_metadata":{"k":null}}`, "internal_metadata.k: must be a string"},
		{`{` + id + `,"internal_metadata":{" k":""}}`, `internal_metadata: key " k": no blank`},
		{`{` + id + `,"set_customer_metadata":{"a":"b"}}`, "set_customer_metadata: is for an update"},
		{`{` + id + `,"add_nics":[]}`, "add_nics: is for an update"},
		{`{` + id + `,"__meta9_binary":1}`, "__meta9_binary: must be an object"},
		{`{` + id + `,"__meta9_binary":{"customer_metadata":[]}}`, "__meta9_binary.customer_metadata: must be an object"},
		{`{` + id + `,"__meta9_binary":{"keys":{}}}`, "__meta9_binary.keys: the members are"},
		{`{` + id + `,"__meta9_binary":{"customer_metadata":{"k":"*"}}}`, "__meta9_binary.customer_metadata.k: must be a string in base64"},
		{`{` + id + `,"__meta9_binary":{"customer_metadata":{"k":1234}}}`, "k: must be a string in base64"},
		{`{` + id + `,"customer_metadata":{"k":""},"__meta9_binary":{"customer_metadata":{"k":""}}}`, `customer_metadata: the key "k" is there twice`},
	} {
		v, _, err := payload.Create([]byte(c.in), vmtest.NewStamp(), vm.DefaultLimits)
		if v != nil {
			t.Errorf("%s made a VM", c.in)
			continue
		}
		vmtest.WantError(t, err, errs.Invalid, c.text)
	}
	_, _, err := payload.Create([]byte(`{`+id+`,"customer_metadata":{"`+strings.Repeat("k", 256)+`":""}}`), vmtest.NewStamp(), vm.DefaultLimits)
	vmtest.WantError(t, err, errs.NameTooLong, "customer_metadata: a key is at most 255")
}

// filled is what every VM has that was made of a payload without it.
const filled = `"zonename":"` + vmtest.UUID + `","state":"installed","customer_metadata":{},"internal_metadata":{},"tags":{},"routes":{}`

// made is the JSON of the VM that Create makes of some members besides uuid and what
// would be filled in; the error is its own.
func made(members string) (string, error) {
	v, _, err := payload.Create([]byte(`{"uuid":"`+vmtest.UUID+`",`+filled+`,`+members+`}`), vmtest.NewStamp(), vm.DefaultLimits)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimPrefix(vmtest.Whole(v), `{"uuid":"`+vmtest.UUID+`",`+filled+`,`), "}"), nil
}

// TestCreateKeeps: what looks odd but is right stays as it is written.
func TestCreateKeeps(t *testing.T) {
	for _, members := range []string{
		`"x":null,"y":"","z":{"a":[1.50]}`, `"zoneid":null`, `"vsock_cid":3`, `"set_top_box":1`, `"add_tags":["a"]`, `"remove_x":{}`,
		`"filesystems":[{"source":"/a","target":"/b","options":["ro"],"more":""}]`, `"alias":"a/b%"`, `"zfs_snapshot_limit":"none"`,
		`"9p_owner":"qemu-web0"`, `"9p_owner":107`, `"9p_uid":1000,"9p_gid":0,"9p_mode":"0640"`, `"9p_mode":"444"`, `"9p_uid":4294967294`,
		`"owner_uuid":"nobody"`, `"cpu_cap":0`, `"vnc_port":-1`, `"blocked":[25]`,
	} {
		got, err := made(members)
		if err != nil {
			t.Errorf("%s: %v", members, err)
			continue
		}
		vmtest.Diff(t, "what became of it", got, members)
	}
}

// TestCreateTakes: values as vmadm takes them.
func TestCreateTakes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`"ram":"1024","vcpus":" 2 ","quota":40,"tmpfs":"0"`, `"ram":1024,"vcpus":2,"quota":40,"tmpfs":0`},
		{`"ram":1024.0,"max_swap":2e3`, `"ram":1024,"max_swap":2000`},
		{`"autoboot":"false","docker":"1","do_not_inventory":0,"nowait":"true","firewall_enabled":true`, `"autoboot":false,"docker":true,"do_not_inventory":false,"nowait":true,"firewall_enabled":true`},
		{`"resolvers":"192.0.2.53, 198.51.100.53,","fs_allowed":"ufs"`, `"resolvers":["192.0.2.53","198.51.100.53"],"fs_allowed":["ufs"]`},
		{`"alias":"","quota":null,"autoboot":"","ram":1,"resolvers":"","disks":null,"image_uuid":"","9p_mode":"","9p_chardev":null`, `"ram":1`},
		{`"vsock_cid":"7","9p_uid":"1000","vsock_unprivileged":"true"`, `"vsock_cid":7,"9p_uid":1000,"vsock_unprivileged":true`},
		{`"disks":[{"boot":"true","size":"10240","path":"/d","media":""}]`, `"disks":[{"boot":true,"size":10240,"path":"/d"}]`},
		{`"filesystems":[{"target":"/t","options":"ro,nodevices"}]`, `"filesystems":[{"target":"/t","options":["ro","nodevices"]}]`},
	} {
		got, err := made(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		vmtest.Diff(t, c.in, got, c.want)
	}
}

// TestCreateFills: what a payload lacks.
func TestCreateFills(t *testing.T) {
	v, _, err := payload.Create([]byte(`{"uuid":"`+strings.ToUpper(vmtest.UUID)+`","customer_metadata":null}`), vmtest.NewStamp(), vm.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	vmtest.Diff(t, "nothing given", vmtest.Whole(v),
		`{"uuid":"`+vmtest.UUID+`","customer_metadata":{},"zonename":"`+vmtest.UUID+`","state":"installed","internal_metadata":{},"tags":{},"routes":{}}`)
	for _, c := range []struct{ in, want string }{
		{`"disks":[{},{"path":"/dev/zvol/rdsk/zones/` + vmtest.UUID + `-disk0"},{"zpool":"data"}]`, `"disks":[` +
			`{"path":"/dev/zvol/rdsk/zones/` + vmtest.UUID + `-disk1"},{"path":"/dev/zvol/rdsk/zones/` + vmtest.UUID + `-disk0"},` +
			`{"zpool":"data","path":"/dev/zvol/rdsk/data/` + vmtest.UUID + `-disk2"}]`},
		{`"brand":"bhyve","zpool":"p","disks":[{"boot":true}]`, `"brand":"bhyve","zpool":"p","disks":[{"boot":true,"path":"/dev/zvol/rdsk/p/` + vmtest.UUID + `/disk0"}]`},
	} {
		got, err := made(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		vmtest.Diff(t, c.in, got, c.want)
	}
}

// TestQuota: what many values cost is known before there is memory for them, and
// properties that have grown past the quota are refused; others can be changed.
func TestQuota(t *testing.T) {
	huge := []byte(`{"uuid":"` + vmtest.UUID + `","x":[0` + strings.Repeat(",0", 5<<20) + `]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := payload.Create(huge, vmtest.NewStamp(), vm.DefaultLimits)
	runtime.ReadMemStats(&after)
	vmtest.WantError(t, err, errs.NoSpace, "JSON: more than 32768 values")
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 16<<20 {
		t.Errorf("a payload of %d bytes took %d bytes of memory", len(huge), spent)
	}
	zeros := func(n int) string { return `[0` + strings.Repeat(",0", n-1) + `]` }
	for _, c := range []struct{ members, text string }{
		{`"x":` + zeros(16<<10), "16384 values are the limit of a VM's properties"},
		{`"nics":[{"x":` + zeros(16<<10) + `}]`, "16384 values are the limit"},
		{`"x":"` + strings.Repeat("x", 256<<10) + `"`, "262144 bytes are the limit of a VM's properties"},
		{`"` + strings.Repeat("x", 256<<10) + `":1`, "262144 bytes are the limit"},
	} {
		text := []byte(`{"uuid":"` + vmtest.UUID + `",` + c.members + `}`)
		_, _, err := payload.Create(text, vmtest.NewStamp(), vm.DefaultLimits)
		vmtest.WantError(t, err, errs.NoSpace, c.text)
		_, _, err = payload.Keep(text, vmtest.NewStamp(), vm.DefaultLimits)
		vmtest.WantError(t, err, errs.NoSpace, c.text)
		st := vmtest.NewStamp()
		e := vmtest.Small(t, st, "").Edit()
		vmtest.WantError(t, payload.Update(e, text, st, vm.DefaultLimits), errs.NoSpace, c.text)
		vmtest.WantError(t, payload.Replace(e, text, st, vm.DefaultLimits), errs.NoSpace, c.text)
	}
	old, err := vm.Restore(vmtest.UUID, 1, 1, 1, []byte(`{"uuid":"`+vmtest.UUID+`","x":`+zeros(20<<10)+`}`), [vm.NumSpaces][]*vm.Entry{})
	if err != nil {
		t.Fatal(err)
	}
	st := vmtest.NewStamp()
	for patch, good := range map[string]bool{`{"x":` + zeros(19<<10) + `}`: true, `{"x":null}`: true, `{"y":1}`: false} {
		if err := payload.Update(old.Edit(), []byte(patch), st, vm.DefaultLimits); (err == nil) != good {
			t.Errorf("%.20s of a VM of before the quota: %v", patch, err)
		}
	}
}

func TestCreateLimits(t *testing.T) {
	text := []byte(`{"uuid":"` + vmtest.UUID + `","customer_metadata":{"ab":"xyz"},"internal_metadata":{"c":"12"}}`)
	for _, c := range []struct {
		lim  vm.Limits
		kind errs.Kind // 0: it fits
		text string
	}{
		{vm.Limits{}, 0, ""},
		{vm.Limits{Value: 3, Keys: 2, Bytes: 8}, 0, ""},
		{vm.Limits{Value: 2}, errs.TooLarge, `2 bytes is the limit of a value, "ab" has 3`},
		{vm.Limits{Keys: 1}, errs.NoSpace, "1 keys is this VM's limit"},
		{vm.Limits{Bytes: 7}, errs.NoSpace, "7 bytes of metadata is this VM's limit"},
	} {
		v, _, err := payload.Create(text, vmtest.NewStamp(), c.lim)
		if c.kind == 0 {
			if err != nil || v.Count() != 2 {
				t.Errorf("%+v: %v", c.lim, err)
			}
			continue
		}
		vmtest.WantError(t, err, c.kind, c.text)
	}
}

// cases are the payloads and updates of testdata/payloads.json, with a uuid.
func cases(t testing.TB) (creates, updates [][]byte) {
	t.Helper()
	b, err := os.ReadFile("testdata/payloads.json")
	if err != nil {
		t.Fatal(err)
	}
	type one struct{ Payload, Update json.RawMessage }
	var all struct{ Create, Update, Refuse []one }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range append(append(all.Create, all.Update...), all.Refuse...) {
		if c.Payload[0] == '{' {
			creates = append(creates, []byte(strings.Replace(string(c.Payload), "{", `{"uuid":"`+vmtest.UUID+`",`, 1)))
		}
		if c.Update != nil {
			updates = append(updates, c.Update)
		}
	}
	return creates, updates
}

// FuzzCreate: a payload makes a VM whose JSON makes the same VM and validates, or an
// error of the kinds that Create names.
func FuzzCreate(f *testing.F) {
	f.Add([]byte(`{"uuid":"` + vmtest.UUID + `"}`))
	f.Add([]byte(`{"uuid":"` + vmtest.UUID + `","alias":"a","nics":[{"mac":"2:8:20:a:b:c","ip":"dhcp"}],"tags":{"a.b":1},"routes":{"10.0.0.0/8":"nics[0]"},` +
		`"customer_metadata":{"k":1.0,"t":true,"user-data":"x"},"internal_metadata":{"x_pw":"y"},"__meta9_binary":{"customer_metadata":{"b":"/w=="}}}`))
	f.Add([]byte(`{"uuid":"` + vmtest.UUID + `","customer_metadata":{"` + strings.Repeat("k", 256) + `":""}}`))
	f.Add([]byte(`{"uuid":"","nics":[{"mac":7}]}`))
	f.Add([]byte("\ufeff" + `{"uuid":"` + vmtest.UUID + `","brand":"bhyve","nics":[{"ips":"fd00::5/64,dhcp","gateways":"fd00::1","primary":"0"},{"primary":1}],` +
		`"disks":[{},{"zpool":"p","size":"1e3"}],"filesystems":[{"options":"a,,b"}],"zfs_snapshot_limit":"none","9p_uid":"7","vsock_cid":4.0,"ram":null}`))
	creates, _ := cases(f)
	for _, text := range creates {
		f.Add(text)
	}
	lim := vm.Limits{Value: 64, Keys: 8, Bytes: 256}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, _, err := payload.Create(text, vmtest.NewStamp(), lim)
		if err != nil {
			switch errs.KindOf(err) {
			case errs.Invalid, errs.NameTooLong, errs.TooLarge, errs.NoSpace:
			default:
				t.Fatalf("kind of %v", err)
			}
			_, _ = payload.Validate(payload.ForCreate, "kvm", text)
			_, _ = payload.Validate(payload.ForUpdate, "bhyve", text)
			return
		}
		vmtest.CheckVM(t, v, lim)
		whole := vmtest.Whole(v)
		again, _, err := payload.Create([]byte(whole), vmtest.NewStamp(), lim)
		if err != nil || vmtest.Whole(again) != whole {
			t.Fatalf("%s made %v, %v", whole, again, err)
		}
		for _, brand := range payload.Brands() {
			r, err := payload.Validate(payload.ForCreate, brand, []byte(whole))
			if err != nil || len(r.BadValues) > 0 && v.Text("brand") == brand {
				t.Fatalf("%s: %+v, %v", whole, r, err)
			}
		}
	})
}

// usual is a payload as a host's tools send it.
const usual = `{"uuid":"` + vmtest.UUID + `","brand":"kvm","alias":"web0","ram":1024,"vcpus":2,"autoboot":true,"resolvers":["192.0.2.53","198.51.100.53"],` +
	`"nics":[{"nic_tag":"admin","mac":"02:08:20:00:00:08","interface":"net0","ip":"10.88.88.51","netmask":"255.255.255.0","gateway":"10.88.88.1","primary":true},` +
	`{"nic_tag":"internal","mac":"02:08:20:00:00:09","interface":"net1","ip":"dhcp"}],` +
	`"disks":[{"path":"/dev/d0","boot":true,"model":"virtio","size":10240}],"tags":{"role":"web"},` +
	`"customer_metadata":{"root_authorized_keys":"ssh-ed25519 AAAA","user-script":"#!/bin/sh","hostname":"web0"},"internal_metadata":{"root_pw":"x"}}`

// BenchmarkCreate is a usual payload: as vmadm makes a VM of it, and as it is.
func BenchmarkCreate(b *testing.B) {
	for name, create := range map[string]func([]byte, vm.Stamp, vm.Limits) (*vm.VM, []vm.Change, error){"vmadm": payload.Create, "keep": payload.Keep} {
		b.Run(name, func(b *testing.B) {
			st := vmtest.NewStamp()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := create([]byte(usual), st, vm.DefaultLimits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUpdate changes one property of such a VM, and one NIC.
func BenchmarkUpdate(b *testing.B) {
	st := vmtest.NewStamp()
	v, _, err := payload.Create([]byte(usual), st, vm.DefaultLimits)
	if err != nil {
		b.Fatal(err)
	}
	for name, patch := range map[string]string{"state": `{"state":"running"}`, "nic": `{"update_nics":[{"mac":"02:08:20:00:00:08","ip":"10.88.88.52"}]}`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := payload.Update(v.Edit(), []byte(patch), st, vm.DefaultLimits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
