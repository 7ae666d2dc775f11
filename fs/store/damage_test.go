package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// sound is a disk with two VMs; all damage is done to copies.
func sound(t *testing.T) *storetest.Disk {
	disk := storetest.NewDisk()
	s := open(t, disk, store.Config{})
	a := create(t, s, `{"uuid":"`+uuidA+`","alias":"web","vsock_cid":3,"customer_metadata":{"k":"value","l":"other"}}`)
	do(t, s, store.Intent{Kind: store.Put, Cell: a, Space: vm.Internal, Name: "i", Data: "internal", By: "op"})
	create(t, s, `{"uuid":"`+uuidB+`","alias":"db","customer_metadata":{"k":"v"}}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return disk
}

// what the keys of sound's disk are about.
func about(key string) (uuid, name string) {
	if key == "m" {
		return "", ""
	}
	uuid = uuidA
	if key[16] == 0x0b {
		uuid = uuidB
	}
	switch {
	case key[17] == 0:
		return uuid, ""
	case key[17] == 1:
		return uuid, "keys/" + key[18:]
	}
	return uuid, "internal/" + key[18:]
}

func check(t *testing.T, e store.Engine) (found []store.Damage, st store.Stats) {
	t.Helper()
	st, err := store.Check(e, func(d store.Damage) { found = append(found, d) })
	if err != nil {
		t.Fatal(err)
	}
	if st.Damaged != len(found) {
		t.Errorf("Stats says %d damaged, %d were reported", st.Damaged, len(found))
	}
	return found, st
}

func has(found []store.Damage, uuid, key string) bool {
	for _, d := range found {
		if d.VM == uuid && d.Key == key && d.What != "" {
			return true
		}
	}
	return false
}

func TestCheckSound(t *testing.T) {
	found, st := check(t, sound(t))
	if want := (store.Stats{VMs: 2, Keys: 4, Bytes: 6 + 6 + 9 + 2}); len(found) != 0 || st != want {
		t.Errorf("%+v, %v; want %+v", st, found, want)
	}
	found, st = check(t, storetest.NewDisk())
	if len(found) != 0 || st != (store.Stats{}) {
		t.Errorf("of an empty engine: %+v, %v", st, found)
	}
}

// TestEveryByte flips every byte of every value: Check finds it, Open refuses and
// names it, salvage skips it and lists it.
func TestEveryByte(t *testing.T) {
	disk := sound(t)
	for _, key := range disk.Keys() {
		value := disk.Get(key)
		for i := range value {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				bad := disk.Clone()
				broken := bytes.Clone(value)
				broken[i] ^= flip
				bad.Put(key, broken)
				damaged(t, fmt.Sprintf("key %q, byte %d ^ %#x", key, i, flip), bad, key)
			}
		}
	}
}

// TestCutValues cuts every value at every length, and adds to it.
func TestCutValues(t *testing.T) {
	disk := sound(t)
	for _, key := range disk.Keys() {
		value := disk.Get(key)
		for n := range value {
			bad := disk.Clone()
			bad.Put(key, bytes.Clone(value[:n]))
			damaged(t, fmt.Sprintf("key %q cut at %d", key, n), bad, key)
		}
		bad := disk.Clone()
		bad.Put(key, append(bytes.Clone(value), 0))
		damaged(t, fmt.Sprintf("key %q with a byte more", key), bad, key)
	}
}

// TestMovedValues puts each value under another key.
func TestMovedValues(t *testing.T) {
	disk := sound(t)
	keys := disk.Keys()
	for i, key := range keys {
		bad := disk.Clone()
		bad.Put(key, disk.Get(keys[(i+1)%len(keys)]))
		damaged(t, fmt.Sprintf("key %q with the value of another", key), bad, key)
	}
}

// damaged checks what is said of a disk on which the value of that key is bad.
func damaged(t *testing.T, what string, bad *storetest.Disk, key string) {
	t.Helper()
	uuid, name := about(key)
	found, _ := check(t, bad)
	if !has(found, uuid, name) {
		t.Fatalf("%s: Check found %v", what, found)
	}
	_, err := store.Open(bad, store.Config{})
	if errs.KindOf(err) != errs.IO || !strings.Contains(fmt.Sprint(err), uuid) || !strings.Contains(fmt.Sprint(err), name) {
		t.Fatalf("%s: Open: %v", what, err)
	}
	s := open(t, bad, store.Config{Salvage: true})
	if !has(s.Salvaged(), uuid, name) {
		t.Fatalf("%s: salvage lists %v", what, s.Salvaged())
	}
	rows := storetest.Rows(s)
	if name == "" && uuid != "" && s.Cell(uuid) != nil || len(rows) == 0 {
		t.Fatalf("%s: rows %+v", what, rows)
	}
	if c := s.Cell(uuid); c != nil && c.VM().Count() >= s.Count()+2 {
		t.Fatalf("%s: the damaged key is there: %+v", what, rows)
	}
	_ = s.Close()
}

// TestSalvageGoesOn writes to what was salvaged: afterwards the damage is gone
// with the VM, and nothing that was skipped comes back.
func TestSalvageGoesOn(t *testing.T) {
	disk := sound(t)
	for _, key := range disk.Keys() {
		bad := disk.Clone()
		bad.Put(key, []byte("rubbish"))
		var seen uint64
		s := open(t, bad, store.Config{Salvage: true})
		for _, uuid := range []string{uuidA, uuidB} {
			if c := s.Cell(uuid); c != nil {
				do(t, s, store.Intent{Kind: store.DeleteVM, Cell: c})
				seen = max(seen, c.ID())
			}
			c := create(t, s, `{"uuid":"`+uuid+`"}`)
			if c.VM().Count() != 0 || c.ID() <= seen {
				t.Errorf("key %q: the VM anew: %+v", key, storetest.RowOf(c.VM()))
			}
		}
		rows := storetest.Rows(s)
		_ = s.Close()
		if found, _ := check(t, bad); len(found) != 0 {
			t.Errorf("key %q: still damaged: %v", key, found)
		}
		if got := storetest.Rows(open(t, bad, store.Config{})); fmt.Sprint(got) != fmt.Sprint(rows) {
			t.Errorf("key %q: after reopen %+v", key, got)
		}
	}
}

// TestSalvagedKey is written anew in place of the damaged record.
func TestSalvagedKey(t *testing.T) {
	bad := sound(t)
	for _, key := range bad.Keys() {
		if uuid, name := about(key); uuid == uuidA && name == "keys/k" {
			bad.Put(key, []byte("rubbish"))
		}
	}
	s := open(t, bad, store.Config{Salvage: true})
	if s.Cell(uuidA).VM().Get(vm.Keys, "k") != nil {
		t.Error("the damaged key is there")
	}
	put(t, s, s.Cell(uuidA), "k", "new")
	_ = s.Close()
	wantValue(t, open(t, bad, store.Config{}).Cell(uuidA), "k", "new")
}

// TestRemovedRecords takes records away that others need.
func TestRemovedRecords(t *testing.T) {
	disk := sound(t)
	for _, key := range disk.Keys() {
		uuid, name := about(key)
		if name != "" {
			continue
		}
		bad := disk.Clone()
		bad.Put(key, nil)
		found, _ := check(t, bad)
		_, err := store.Open(bad, store.Config{})
		switch {
		case uuid == "" && (!has(found, "", "") || err == nil),
			uuid == uuidA && (!has(found, uuid, "keys/k") || !has(found, uuid, "keys/l") || !has(found, uuid, "internal/i") || err == nil),
			uuid == uuidB && (!has(found, uuid, "keys/k") || err == nil):
			t.Errorf("without %q: %v, Open: %v", key, found, err)
		}
	}
}

// TestStrangeKeys adds keys that are none of ours.
func TestStrangeKeys(t *testing.T) {
	disk := sound(t)
	vmKey := disk.Keys()[1][:17]
	for _, key := range []string{"", "x", "mm", "v", vmKey, vmKey + "\x00x", vmKey + "\x03k", vmKey + "\x01", vmKey + "\x01bad\x00name", vmKey + "\xff"} {
		bad := disk.Clone()
		bad.Put(key, []byte("rubbish"))
		if found, st := check(t, bad); len(found) != 1 || st.VMs != 2 || st.Keys != 4 {
			t.Errorf("key %q: %+v, %v", key, st, found)
		}
		if _, err := store.Open(bad, store.Config{}); errs.KindOf(err) != errs.IO {
			t.Errorf("key %q: Open: %v", key, err)
		}
		if s := open(t, bad, store.Config{Salvage: true}); s.Count() != 2 || len(s.Salvaged()) != 1 {
			t.Errorf("key %q: salvaged %v", key, s.Salvaged())
		}
	}
}

// TestNamesTwice has two disks' VMs on one: each is sound, but they share a name.
func TestNamesTwice(t *testing.T) {
	disk := sound(t)
	other := storetest.NewDisk()
	s := open(t, other, store.Config{})
	create(t, s, `{"uuid":"`+uuidC+`","alias":"web"}`)
	_ = s.Close()
	for _, key := range other.Keys() {
		if key != "m" {
			disk.Put(key, other.Get(key))
		}
	}
	found, _ := check(t, disk)
	if len(found) != 1 || found[0].VM != uuidC || !strings.Contains(found[0].What, uuidA) || !strings.Contains(found[0].What, "alias") {
		t.Errorf("%v", found)
	}
	if _, err := store.Open(disk, store.Config{}); errs.KindOf(err) != errs.IO {
		t.Error(err)
	}
	if s := open(t, disk, store.Config{Salvage: true}); s.Alias("web").UUID() != uuidA || s.Cell(uuidC) != nil {
		t.Error("salvage took the second VM of a name")
	}
}

// TestOldMarks puts the high-water marks of an earlier day in place of the newest.
func TestOldMarks(t *testing.T) {
	disk := storetest.NewDisk()
	s := open(t, disk, store.Config{})
	_ = create(t, s, `{"uuid":"`+uuidA+`"}`)
	_ = s.Close()
	early := disk.Get("m")
	s = open(t, disk, store.Config{})
	put(t, s, s.Cell(uuidA), "k", "v")
	_ = s.Close()
	disk.Put("m", early)
	if found, _ := check(t, disk); len(found) != 1 || found[0].VM != "" {
		t.Errorf("%v", found)
	}
	s = open(t, disk, store.Config{Salvage: true})
	was := s.Cell(uuidA).VM().Get(vm.Keys, "k")
	if e := put(t, s, s.Cell(uuidA), "l", "v"); e.ID <= was.ID || e.Rev <= was.Rev {
		t.Errorf("%+v after %+v", e, was)
	}
}

// badScan fails after some records.
type badScan struct {
	store.Engine
	after int
}

func (b badScan) Scan(fn func(key, value []byte) error) error {
	n := 0
	if err := b.Engine.Scan(func(key, value []byte) error {
		if n++; n > b.after {
			return errors.New("bad sector")
		}
		return fn(key, value)
	}); err != nil {
		return err
	}
	return nil
}

func TestScanFails(t *testing.T) {
	disk := sound(t)
	for after := range 5 {
		e := badScan{disk, after}
		for _, salvage := range []bool{false, true} {
			if _, err := store.Open(e, store.Config{Salvage: salvage}); errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), "bad sector") {
				t.Error(err)
			}
		}
		if _, err := store.Check(e, func(store.Damage) {}); err == nil {
			t.Error("Check says nothing")
		}
	}
}

// TestDamageIsLogged names each, but not without bound.
func TestDamageIsLogged(t *testing.T) {
	disk := sound(t)
	for i := range 300 {
		disk.Put(fmt.Sprint("strange", i), []byte("x"))
	}
	var log bytes.Buffer
	s := open(t, disk, store.Config{Salvage: true, Log: zerolog.New(&log)})
	if n := strings.Count(log.String(), "\n"); n < 100 || n > 101 || len(s.Salvaged()) != 300 {
		t.Errorf("%d lines for %d", n, len(s.Salvaged()))
	}
}

// FuzzRecords puts any bytes under any key of a disk that has a VM: nothing
// panics, and what Check calls sound can be opened.
func FuzzRecords(f *testing.F) {
	disk := storetest.NewDisk()
	s, err := store.Open(disk, store.Config{})
	if err != nil {
		f.Fatal(err)
	}
	create(f, s, `{"uuid":"`+uuidA+`","alias":"web","customer_metadata":{"k":"value"}}`)
	_ = s.Close()
	for _, key := range disk.Keys() {
		f.Add([]byte(key), disk.Get(key))
		f.Add([]byte(key), []byte{})
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		bad := disk.Clone()
		bad.Put(string(key), append([]byte{}, value...))
		found, _ := check(t, bad)
		s, err := store.Open(bad, store.Config{})
		if (err == nil) != (len(found) == 0) {
			t.Fatalf("Open: %v, Check: %v", err, found)
		}
		if err == nil {
			_ = s.Close()
		}
		open(t, bad, store.Config{Salvage: true})
	})
}
