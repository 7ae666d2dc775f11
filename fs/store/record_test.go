package store

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"meta9/fs/vm"
	"meta9/fs/vm/payload"
)

const testUUID = "01234567-89ab-4cde-8f01-23456789abcd"

// entryOp is the op that writes the entry.
func entryOp(sp vm.Space, e *vm.Entry, date int64) Op {
	var b batch
	b.putEntry(testUUID, date, sp, e)
	op := b.ops[0]
	return Op{Key: op.Key, Value: append(op.Value, op.Tail...)}
}

func asText(b []byte) string { return string(b) }

func TestEntryRecord(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := entryRecord{entry: vm.Entry{
			ID:    rapid.Uint64Min(1).Draw(rt, "id"),
			Rev:   rapid.Uint64().Draw(rt, "rev"),
			Mtime: rapid.Int64().Draw(rt, "mtime"),
			Mode:  rapid.Uint16().Draw(rt, "mode"),
			Kind:  rapid.SampledFrom([]vm.Kind{vm.Text, vm.Number, vm.Bool}).Draw(rt, "kind"),
			Muid:  rapid.String().Draw(rt, "muid"),
			Value: string(rapid.SliceOf(rapid.Byte()).Draw(rt, "value")),
		}, date: rapid.Int64().Draw(rt, "date")}
		e := want.entry
		e.Name = rapid.String().Draw(rt, "name")
		op := entryOp(vm.Internal, &e, want.date)
		got, err := readEntry(op.Key, op.Value, asText)
		if err != nil || got != want {
			rt.Fatalf("%v: %+v, want %+v", err, got, want)
		}
		if name := string(op.Key[18:]); name != e.Name || op.Key[17] != tagSpace+byte(vm.Internal) || uuidText(op.Key[1:17]) != testUUID {
			rt.Fatalf("key %q", op.Key)
		}
	})
}

func TestMarksRecord(t *testing.T) {
	for _, want := range []marks{{}, {1, 2}, {math.MaxUint64, math.MaxUint64}} {
		if got, err := readMarks(marksKey(), want.value()); err != nil || got != want {
			t.Errorf("%v: %+v, want %+v", err, got, want)
		}
	}
}

// TestLayout holds the layout still: data that is on disks has it.
func TestLayout(t *testing.T) {
	e := vm.Entry{ID: 300, Rev: 5, Mtime: 64, Mode: 0o600, Kind: vm.Number, Name: "k", Value: "12", Muid: "me"}
	op := entryOp(vm.Keys, &e, 65)
	key := "v\x01\x23\x45\x67\x89\xab\x4c\xde\x8f\x01\x23\x45\x67\x89\xab\xcd\x01k"
	rest := "\xac\x02\x05\x80\x01\x02\x80\x03\x01\x02me12"
	if d := cmp.Diff([]string{key, rest}, []string{string(op.Key), string(op.Value[headSize:])}); d != "" {
		t.Error(d)
	}
	if want := []byte{1, 0xed, 0x7b, 0x50, 0x49}; !bytes.Equal(op.Value[:headSize], want) {
		t.Errorf("head % x, want % x", op.Value[:headSize], want)
	}
}

// FuzzLoad loads one record of each kind whose checksum is right, whatever the
// rest says.
func FuzzLoad(f *testing.F) {
	v, _, err := payload.Create([]byte(`{"uuid":"`+testUUID+`","customer_metadata":{"k":"v"}}`),
		vm.Stamp{NextID: func(uint64) uint64 { return 1 }, NextRev: func() uint64 { return 1 }}, vm.Limits{})
	if err != nil {
		f.Fatal(err)
	}
	var b batch
	b.putVM(v)
	f.Add(marks{1, 2}.value()[headSize:], b.ops[0].Value[headSize:], entryOp(vm.Keys, v.Get(vm.Keys, "k"), 1).Value[headSize:])
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add([]byte{0x80}, []byte("\x01\x01\x01[]"), []byte("\x01\x01\x01\x01\x01\x03\x00"))
	f.Fuzz(func(t *testing.T, marks, row, entry []byte) {
		e := fixed{
			sealedOp(marksKey(), marks),
			sealedOp(appendKey(nil, testUUID, tagVM, ""), row),
			sealedOp(appendKey(nil, testUUID, tagSpace+byte(vm.Keys), "k"), entry),
		}
		damaged := 0
		if _, err := Check(e, func(Damage) { damaged++ }); err != nil {
			t.Fatal(err)
		}
		s, err := Open(e, Config{})
		if (err == nil) != (damaged == 0) {
			t.Fatalf("%d damaged, Open: %v", damaged, err)
		}
		if err == nil {
			_ = s.Close()
		}
	})
}

func sealedOp(key, rest []byte) Op {
	value := append(begin(nil), rest...)
	seal(key, value, "")
	return Op{Key: key, Value: value}
}

// fixed is an engine of a few records.
type fixed []Op

func (f fixed) Scan(fn func(key, value []byte) error) error {
	for _, op := range f {
		if err := fn(op.Key, op.Value); err != nil {
			return err
		}
	}
	return nil
}

func (fixed) Apply([]Group) []error { return nil }
func (fixed) Number(string) uint64  { return 0 }
func (fixed) Close() error          { return nil }
