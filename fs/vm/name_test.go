package vm_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/vmtest"
)

func TestFileNames(t *testing.T) {
	for key, file := range map[string]string{
		"hostname":   "hostname",
		"a b":        "a b",
		"com.x:y":    "com.x:y",
		"é☃":         "é☃",
		"...":        "...",
		".":          "%2E",
		"..":         "%2E%2E",
		"a/b":        "a%2Fb",
		"/":          "%2F",
		"100%":       "100%25",
		"%2F":        "%252F",
		"%2E":        "%252E",
		"10.0.0.0/8": "10.0.0.0%2F8",
	} {
		if err := vm.ValidKey(key); err != nil {
			t.Errorf("ValidKey(%q): %v", key, err)
		}
		if got := vm.FileName(key); got != file {
			t.Errorf("FileName(%q) is %q, want %q", key, got, file)
		}
		if got, err := vm.KeyName(file); err != nil || got != key {
			t.Errorf("KeyName(%q) is %q, %v, want %q", file, got, err, key)
		}
	}
}

func TestOtherSpellingsNameNothing(t *testing.T) {
	for _, file := range []string{".", "..", "%2e", "%2f", "a%2Eb", "%2E.", "%2E%2E%2E", "%", "a%", "a%2", "%41", "%2525%", "a/b", "%00", "%2E%2e"} {
		if key, err := vm.KeyName(file); errs.KindOf(err) != errs.Invalid || err == nil {
			t.Errorf("KeyName(%q) is %q, %v, want Invalid", file, key, err)
		}
	}
}

func TestKeyRules(t *testing.T) {
	long := strings.Repeat("k", 255)
	for _, c := range []struct {
		key  string
		kind errs.Kind
		text string
	}{
		{"", errs.Invalid, "at least one"},
		{long + "k", errs.NameTooLong, "at most 255 bytes, this is 256"},
		{strings.Repeat("/", 86), errs.NameTooLong, "at most 255 bytes, this is 258"},
		{"\xff", errs.Invalid, "UTF-8"},
		{"a\nb", errs.Invalid, "control"},
		{"a\x00", errs.Invalid, "control"},
		{"\x7f", errs.Invalid, "control"},
		{" a", errs.Invalid, "blank"},
		{"a ", errs.Invalid, "blank"},
		{"a\u00a0", errs.Invalid, "blank"},
		{"\ufeffa", errs.Invalid, "blank"},
		{" ", errs.Invalid, "blank"},
	} {
		vmtest.WantError(t, vm.ValidKey(c.key), c.kind, c.text)
		if _, err := vm.KeyName(vm.FileName(c.key)); errs.KindOf(err) != c.kind {
			t.Errorf("KeyName of the file of %q: %v, want %v", c.key, err, c.kind)
		}
	}
	for _, key := range []string{long, strings.Repeat("/", 85), "a b", "x\u0301"} {
		if err := vm.ValidKey(key); err != nil {
			t.Errorf("ValidKey(%q): %v", key, err)
		}
	}
}

func TestPlainNamesAllocateNothing(t *testing.T) {
	n := testing.AllocsPerRun(100, func() {
		if key, err := vm.KeyName("root_authorized_keys"); err != nil || vm.FileName(key) != key {
			t.Fatal("not itself")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWords(t *testing.T) {
	vmtest.Diff(t, "folders", []string{vm.Keys.String(), vm.Internal.String()}, []string{"keys", "internal"})
	vmtest.Diff(t, "members", []string{vm.Keys.Member(), vm.Internal.Member()}, []string{"customer_metadata", "internal_metadata"})
}

// TestVersion: a qid's version is never 0, which means that it is not cached.
func TestVersion(t *testing.T) {
	for rev, want := range map[uint64]uint32{1: 1, 7: 7, 1<<32 - 1: 1<<32 - 1, 1 << 32: 1, 1<<32 + 5: 5} {
		if got := vm.Version(rev); got != want {
			t.Errorf("version of %d is %d, want %d", rev, got, want)
		}
	}
}

func TestUUIDs(t *testing.T) {
	if got, err := vm.ParseUUID("E4E6A97E-cb36-4b18-95c9-8eb0d0d7787f"); err != nil || got != vmtest.UUID {
		t.Errorf("%q, %v", got, err)
	}
	if err := vm.ValidUUID(vmtest.UUID); err != nil {
		t.Error(err)
	}
	vmtest.WantError(t, vm.ValidUUID(strings.ToUpper(vmtest.UUID)), errs.Invalid, "lower case")
	for _, s := range []string{"", "x", vmtest.UUID + "0", vmtest.UUID[1:], strings.Replace(vmtest.UUID, "-", "a", 1), strings.Replace(vmtest.UUID, "e", "g", 1), strings.Replace(vmtest.UUID, "e4", "-4", 1), strings.Repeat("é", 18), strings.Repeat("long", 1000)} {
		vmtest.WantError(t, vm.ValidUUID(s), errs.Invalid, "UUID")
		_, err := vm.ParseUUID(s)
		vmtest.WantError(t, err, errs.Invalid, "UUID")
		if len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

// FuzzKeyName: every file name is that of one valid key or of none, and the
// key's file name is it again.
func FuzzKeyName(f *testing.F) {
	for _, s := range []string{"a", "%2E", "%2E%2E", "a%2Fb", "%25", "%2f", ".", "..", "é ", "%252E"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if vm.ValidKey(name) == nil {
			back, err := vm.KeyName(vm.FileName(name))
			if err != nil || back != name {
				t.Fatalf("key %q has the file %q, which is the key %q, %v", name, vm.FileName(name), back, err)
			}
		}
		key, err := vm.KeyName(name)
		if err != nil {
			if k := errs.KindOf(err); k != errs.Invalid && k != errs.NameTooLong {
				t.Fatalf("kind %v", k)
			}
			return
		}
		if vm.FileName(key) != name || vm.ValidKey(key) != nil || !utf8.ValidString(name) || len(name) > vm.MaxName {
			t.Fatalf("file %q is key %q, whose file is %q", name, key, vm.FileName(key))
		}
	})
}

// TestNewKey: what makes a name look like another one is refused in new names only;
// a key that has such a name keeps it, and can be written, renamed and removed.
func TestNewKey(t *testing.T) {
	for _, key := range []string{"a\u0085b", "\u009b31m", "gpj.\u202eexe", "\u2066a\u2069", "a\u200e", "\u061ca"} {
		vmtest.WantError(t, vm.NewKey(key), errs.Invalid, "marks of text direction")
		if err := vm.ValidKey(key); err != nil {
			t.Errorf("ValidKey(%q): %v", key, err)
		}
		old, err := vm.Restore(vmtest.UUID, 1, 1, 1, []byte(`{}`), [vm.NumSpaces][]*vm.Entry{
			vm.Keys: {{ID: 20, Rev: 1, Name: key, Value: "v"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		edit := old.Edit()
		st := vmtest.NewStamp()
		if _, err := edit.Put(vm.Keys, nil, key+"2", "v", st, vm.Limits{}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("a new key %q: %v", key+"2", err)
		}
		e, err := edit.Put(vm.Keys, edit.Get(vm.Keys, key), key, "w", st, vm.Limits{})
		if err == nil {
			e, err = edit.Rename(vm.Keys, e, "plain", st, vm.Limits{})
		}
		if err != nil || e.Value != "w" {
			t.Errorf("the old key %q: %v", key, err)
		}
		if _, err := edit.Rename(vm.Keys, e, key, st, vm.Limits{}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("a rename to %q: %v", key, err)
		}
	}
	for _, key := range []string{"שלום", "مفتاح", "a\u200db", "é"} {
		if err := vm.NewKey(key); err != nil {
			t.Errorf("NewKey(%q): %v", key, err)
		}
	}
}
