package store_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

func TestValues(t *testing.T) {
	for _, c := range []struct {
		name, old string
		in        store.Intent
		want      string
		n         int
	}{
		{"splice into", "abcdef", store.Intent{Kind: store.Splice, Off: 2, Data: "XY"}, "abXYef", 2},
		{"splice at 0", "abc", store.Intent{Kind: store.Splice, Data: "X"}, "Xbc", 1},
		{"splice over the end", "abc", store.Intent{Kind: store.Splice, Off: 2, Data: "XYZ"}, "abXYZ", 3},
		{"splice at the end", "abc", store.Intent{Kind: store.Splice, Off: 3, Data: "X"}, "abcX", 1},
		{"splice past the end", "abc", store.Intent{Kind: store.Splice, Off: 5, Data: "X"}, "abc\x00\x00X", 1},
		{"splice far past the end", "", store.Intent{Kind: store.Splice, Off: 1500, Data: "X"}, strings.Repeat("\x00", 1500) + "X", 1},
		{"splice nothing", "abc", store.Intent{Kind: store.Splice, Off: 100}, "abc", 0},
		{"append", "abc", store.Intent{Kind: store.Append, Off: 1, Data: "X"}, "abcX", 1},
		{"append nothing", "abc", store.Intent{Kind: store.Append}, "abc", 0},
		{"put", "abc", store.Intent{Kind: store.Put, Data: "X"}, "X", 0},
		{"put nothing", "abc", store.Intent{Kind: store.Put}, "", 0},
		{"create", "abc", store.Intent{Kind: store.Create}, "abc", 0},
		{"shorten", "abc", store.Intent{Kind: store.Set, Length: ptr(uint64(1))}, "a", 0},
		{"empty", "abc", store.Intent{Kind: store.Set, Length: ptr(uint64(0))}, "", 0},
		{"lengthen", "abc", store.Intent{Kind: store.Set, Length: ptr(uint64(5))}, "abc\x00\x00", 0},
		{"same length", "abc", store.Intent{Kind: store.Set, Length: ptr(uint64(3))}, "abc", 0},
		{"set nothing", "abc", store.Intent{Kind: store.Set}, "abc", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, cell := withVM(t, store.Config{})
			put(t, s, cell, "k", c.old)
			c.in.Cell, c.in.Name = cell, "k"
			r := do(t, s, c.in)
			wantValue(t, cell, "k", c.want)
			if r.N != c.n || r.Entry != cell.VM().Get(vm.Keys, "k") {
				t.Errorf("N is %d, Entry %+v", r.N, r.Entry)
			}
		})
	}
}

// TestByID does what it does to the entry, whatever it is called by now.
func TestByID(t *testing.T) {
	s, c := withVM(t, store.Config{})
	id := put(t, s, c, "old", "v").ID
	do(t, s, store.Intent{Kind: store.Set, Cell: c, ID: id, NewName: "new"})
	put(t, s, c, "old", "another")
	do(t, s, store.Intent{Kind: store.Append, Cell: c, ID: id, Name: "old", Data: "+"})
	wantValue(t, c, "new", "v+")
	do(t, s, store.Intent{Kind: store.Remove, Cell: c, ID: id})
	wantValue(t, c, "old", "another")
	for _, kind := range []store.OpKind{store.Splice, store.Append, store.Set, store.Remove} {
		refused(t, s, store.Intent{Kind: kind, Cell: c, ID: id, Name: "old", Data: "x"}, errs.Gone)
		refused(t, s, store.Intent{Kind: kind, Cell: c, Name: "new", Data: "x"}, errs.NotFound)
	}
}

func TestSetIsAllOrNothing(t *testing.T) {
	s, c := withVM(t, store.Config{Limits: vm.Limits{Value: 10, Keys: 5, Bytes: 14}})
	put(t, s, c, "k", "12345678")
	set := func(in store.Intent) store.Intent {
		in.Kind, in.Cell, in.Name = store.Set, c, "k"
		in.Mode, in.Mtime = ptr(uint16(0o400)), ptr(int64(1))
		return in
	}
	refused(t, s, set(store.Intent{Length: ptr(uint64(11)), NewName: "n"}), errs.TooLarge)
	refused(t, s, set(store.Intent{Length: ptr(uint64(2)), NewName: "bad\x01"}), errs.Invalid)
	refused(t, s, set(store.Intent{Length: ptr(uint64(10)), NewName: "longer name"}), errs.NoSpace)
	r := do(t, s, set(store.Intent{Length: ptr(uint64(2)), NewName: "longer name"}))
	want := vm.Entry{ID: r.Entry.ID, Rev: r.Entry.Rev, Mtime: 1, Mode: 0o400, Name: "longer name", Value: "12"}
	if d := cmp.Diff(want, *c.VM().Get(vm.Keys, "longer name")); d != "" || c.VM().Count() != 1 {
		t.Errorf("%d keys:\n%s", c.VM().Count(), d)
	}
}

func TestRenameOver(t *testing.T) {
	s, c := withVM(t, store.Config{})
	a, b := put(t, s, c, "a", "va"), put(t, s, c, "b", "vb")
	r := do(t, s, store.Intent{Kind: store.Set, Cell: c, ID: a.ID, NewName: "b"})
	if r.Entry.ID != a.ID || r.Entry.Value != "va" || c.VM().Count() != 1 {
		t.Errorf("%+v", r.Entry)
	}
	refused(t, s, store.Intent{Kind: store.Append, Cell: c, ID: b.ID, Data: "x"}, errs.Gone)
	do(t, s, store.Intent{Kind: store.Set, Cell: c, ID: a.ID, NewName: "b"})
	wantValue(t, c, "b", "va")
}

// TestOffsets gives offsets and lengths that must not take memory, nor overflow.
func TestOffsets(t *testing.T) {
	for _, limits := range []vm.Limits{{}, {Value: 100}, {Keys: 1}} {
		s, c := withVM(t, store.Config{Limits: limits})
		put(t, s, c, "k", "abc")
		for _, off := range []uint64{1<<30 + 1, 1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64} {
			refused(t, s, store.Intent{Kind: store.Splice, Cell: c, Name: "k", Off: off, Data: "xyz"}, errs.TooLarge)
			refused(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "k", Length: &off}, errs.TooLarge)
		}
	}
}

func TestLimits(t *testing.T) {
	s, c := withVM(t, store.Config{Limits: vm.Limits{Value: 8, Keys: 3, Bytes: 20}, TotalBytes: 22})
	other := create(t, s, `{"uuid":"`+uuidB+`","customer_metadata":{"x":"12345"}}`)
	put(t, s, c, "a", "12345678")
	refused(t, s, store.Intent{Kind: store.Put, Cell: c, Name: "a", Data: "123456789"}, errs.TooLarge)
	refused(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "a", Data: "9"}, errs.TooLarge)
	refused(t, s, store.Intent{Kind: store.Splice, Cell: c, Name: "a", Off: 8, Data: "9"}, errs.TooLarge)
	refused(t, s, store.Intent{Kind: store.Put, Cell: c, Name: "b", Data: "1234567"}, errs.NoSpace) // the VM has room
	put(t, s, c, "b", "12345")
	refused(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "cc"}, errs.NoSpace)
	refused(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `","customer_metadata":{"x":"12345"}}`}, errs.NoSpace)
	refused(t, s, store.Intent{Kind: store.UpdateVM, Cell: other, Data: `{"set_customer_metadata":{"y":"12345"}}`}, errs.NoSpace)
	refused(t, s, store.Intent{Kind: store.Set, Cell: other, Name: "x", NewName: "longer name"}, errs.NoSpace)
	do(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "a", Length: ptr(uint64(0))})
	do(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "c"})
	refused(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "d"}, errs.NoSpace)
	put(t, s, other, "x", "1234567")
}

// TestLoweredLimits opens with limits that what is there is past: it is all
// there, and may shrink.
func TestLoweredLimits(t *testing.T) {
	disk := storetest.NewDisk()
	s := open(t, disk, store.Config{})
	put(t, s, create(t, s, `{"uuid":"`+uuidA+`"}`), "k", "0123456789")
	_ = s.Close()
	s = open(t, disk, store.Config{Limits: vm.Limits{Value: 8, Keys: 1, Bytes: 4}, TotalBytes: 3})
	c := s.Cell(uuidA)
	wantValue(t, c, "k", "0123456789")
	refused(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "x"}, errs.TooLarge)
	put(t, s, c, "k", "012345")
	do(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "k", Length: ptr(uint64(5))})
	wantValue(t, c, "k", "01234")
}

func TestCreateKey(t *testing.T) {
	s, c := withVM(t, store.Config{})
	r := do(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "k", Exclusive: true, By: "me"})
	if r.Entry.Value != "" || r.Entry.Muid != "me" || r.Entry.Mode != 0o600 {
		t.Errorf("%+v", r.Entry)
	}
	refused(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "k", Exclusive: true}, errs.Exists)
	rev := s.Rev()
	if again := do(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "k"}); again.Entry != r.Entry || s.Rev() != rev {
		t.Errorf("%+v", again.Entry)
	}
	refused(t, s, store.Intent{Kind: store.Create, Cell: c, Name: " k"}, errs.Invalid)
	refused(t, s, store.Intent{Kind: store.Create, Cell: c, Name: strings.Repeat("k", 256)}, errs.NameTooLong)
}

func TestUnique(t *testing.T) {
	s, a := withVM(t, store.Config{})
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"alias":"web","vsock_cid":5}`})
	b := create(t, s, `{"uuid":"`+uuidB+`","alias":"db","vsock_cid":6}`)
	for _, c := range []struct {
		in   store.Intent
		says string
	}{
		{store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}, "uuid"},
		{store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `","alias":"web"}`}, "alias"},
		{store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `","vsock_cid":5}`}, "vsock_cid"},
		{store.Intent{Kind: store.UpdateVM, Cell: b, Data: `{"alias":"web","ram":5}`}, "alias"},
		{store.Intent{Kind: store.UpdateVM, Cell: b, Data: `{"vsock_cid":5,"alias":"free"}`}, "vsock_cid"},
	} {
		err := refused(t, s, c.in, errs.Exists)
		if d := errs.Detail(err); !strings.HasPrefix(d, c.says+":") || !strings.Contains(d, uuidA) {
			t.Errorf("%q does not name the field %s and who has it", d, c.says)
		}
	}
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"alias":null,"vsock_cid":9}`})
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: b, Data: `{"alias":"web","vsock_cid":5}`})
	if s.Alias("web") != b || s.Alias("db") != nil || s.ByCID(5) != b || s.ByCID(9) != a || s.ByCID(6) != nil {
		t.Error("the names do not lead to the VMs that have them")
	}
	do(t, s, store.Intent{Kind: store.DeleteVM, Cell: b})
	if s.Cell(uuidB) != nil || s.Alias("web") != nil || s.ByCID(5) != nil || s.Cell("") != nil || s.Alias("") != nil {
		t.Error("a deleted VM is found")
	}
}

func TestDeletedVM(t *testing.T) {
	s, c := withVM(t, store.Config{})
	put(t, s, c, "k", "v")
	id := c.VM().Get(vm.Keys, "k").ID
	do(t, s, store.Intent{Kind: store.DeleteVM, Cell: c})
	if c.VM() != nil || s.Count() != 0 || s.Bytes() != 0 {
		t.Error("it is still there")
	}
	again := create(t, s, `{"uuid":"`+uuidA+`"}`)
	if again == c || again.ID() == c.ID() || again.VM().Count() != 0 {
		t.Error("the VM created anew is not new")
	}
	for kind := store.Splice; kind <= store.Note; kind++ {
		if kind == store.CreateVM || kind == store.Adopt {
			continue
		}
		refused(t, s, store.Intent{Kind: kind, Cell: c, ID: id, Data: "{}"}, errs.Gone)
		refused(t, s, store.Intent{Kind: kind, Cell: c, Name: "k", Data: "{}"}, errs.NotFound)
	}
}

func TestGuest(t *testing.T) {
	s, c := withVM(t, store.Config{})
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"internal_metadata_namespaces":["ns"],
		"customer_metadata":{"k":"v","x_pw":"hidden"},"internal_metadata":{"root_pw":"p","ns:a":"b","secret":"s"}}`})
	id := func(sp vm.Space, name string) uint64 { return c.VM().Get(sp, name).ID }
	for _, in := range []store.Intent{
		{Kind: store.Put, Name: "x_pw"},
		{Kind: store.Put, Name: "ns:a"},
		{Kind: store.Create, Name: "new_pw"},
		{Kind: store.Remove, Name: "x_pw"},
		{Kind: store.Set, Name: "k", NewName: "k_pw"},
		{Kind: store.Append, ID: id(vm.Keys, "x_pw"), Data: "x"},
		{Kind: store.Set, ID: id(vm.Internal, "secret"), Space: vm.Internal, Mode: ptr(uint16(0))},
		{Kind: store.Splice, Space: vm.Internal, Name: "secret", Data: "x"},
		{Kind: store.Remove, Space: vm.Internal, Name: "not there"},
		{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`},
		{Kind: store.UpdateVM, Data: `{"ram":1}`},
		{Kind: store.DeleteVM},
	} {
		in.Cell, in.Guest = c, true
		refused(t, s, in, errs.NotPermitted)
	}
	refused(t, s, store.Intent{Kind: store.Put, Cell: c, Guest: true, Space: vm.Internal, Name: "ns:a"}, errs.Permission)
	do(t, s, store.Intent{Kind: store.Put, Cell: c, Guest: true, Name: "k2"})
	do(t, s, store.Intent{Kind: store.Put, Cell: c, Guest: true, Space: vm.Internal, Name: "root_pw"})
	// The rules are those at commit time.
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"internal_metadata_namespaces":["k2"]}`})
	do(t, s, store.Intent{Kind: store.Put, Cell: c, Guest: true, Name: "ns:a"})
	do(t, s, store.Intent{Kind: store.Put, Cell: c, Guest: true, Name: "k2"})
	refused(t, s, store.Intent{Kind: store.Put, Cell: c, Guest: true, Name: "k2:x"}, errs.NotPermitted)
}

func TestMalformedIntents(t *testing.T) {
	s, c := withVM(t, store.Config{})
	for _, in := range []store.Intent{
		{Kind: store.Put, Name: "k"},
		{Kind: store.DeleteVM},
		{Kind: store.Note + 1, Cell: c},
		{Kind: 255, Cell: c},
		{Kind: store.Put, Cell: c, Space: vm.NumSpaces, Name: "k"},
		{Kind: store.Splice, Cell: c, Space: 200, Name: "k", Data: "x"},
		{Kind: store.CreateVM, Data: `[]`},
		{Kind: store.CreateVM, Data: `{}`},
		{Kind: store.CreateVM},
		{Kind: store.UpdateVM, Cell: c, Data: `{"uuid":"` + uuidB + `"}`},
		{Kind: store.UpdateVM, Cell: c, Data: `nonsense`},
	} {
		refused(t, s, in, errs.Invalid)
	}
	if r := s.Do(&store.Intent{Kind: store.FlushHold, Cell: c}); r.Err != nil {
		t.Error("FlushHold without a Hold:", r.Err)
	}
}

func TestUpdate(t *testing.T) {
	s, c := withVM(t, store.Config{})
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, By: "op", Data: `{"ram":5,"set_customer_metadata":{"k":"v"}}`})
	wantValue(t, c, "k", "v")
	rev := s.Rev()
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"ram":5,"set_customer_metadata":{"k":"v"}}`})
	if s.Rev() != rev {
		t.Error("an update that changes nothing has a revision")
	}
	put(t, s, c, "k", "w")
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"remove_customer_metadata":["k"],"add_nics":[{"mac":"02:00:00:00:00:01"}]}`})
	if c.VM().Count() != 0 {
		t.Error("k is still there")
	}
}

// TestReserve: a guest that has filled its VM, or the daemon, does not lock the admin
// out; and what the admin has in the reserve is no room for the guest.
func TestReserve(t *testing.T) {
	limits := vm.Limits{Value: 100, Keys: 3, Bytes: 60}
	reserve := store.Reserve{Keys: 2, Bytes: 20, Total: 10}
	for name, cfg := range map[string]store.Config{
		"keys":  {Limits: limits, Reserve: reserve},
		"bytes": {Limits: vm.Limits{Value: 100, Keys: 100, Bytes: 30}, Reserve: reserve},
		"total": {Limits: vm.Limits{Value: 100, Keys: 100, Bytes: 100}, TotalBytes: 30, Reserve: reserve},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := withVM(t, cfg)
			full := func(in store.Intent) {
				t.Helper()
				for i := range 200 {
					in.Cell, in.Name = c, fmt.Sprintf("%d", i)
					if err := s.Do(&in).Err; err != nil {
						if !errors.Is(err, errs.NoSpace) {
							t.Error(err)
						}
						return
					}
				}
				t.Error("there is no limit")
			}
			guest := store.Intent{Kind: store.Put, Data: "guest", Guest: true}
			full(guest)
			admin := store.Intent{Kind: store.Put, Space: vm.Internal, Cell: c, Name: "admin", Data: "1"}
			do(t, s, admin)
			guest.Cell, guest.Name = c, "another"
			refused(t, s, guest, errs.NoSpace)
			full(store.Intent{Kind: store.Put, Space: vm.Internal, Data: "admin"})
			guest.Kind, guest.Name = store.Remove, "0"
			do(t, s, guest)
		})
	}
}
