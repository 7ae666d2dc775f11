package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meta9/fs/store"
)

// An engine may hold a store's keys and no others. So the names of these tests are those
// of entries of the VM that a group is about; own is the store's own record.
const own = "own"

var (
	entriesA = "v\x00\x00\x00\x00\x00\x00\x40\x00\x80\x00\x00\x00\x00\x00\x00\x0a\x01"
	entriesB = "v\x00\x00\x00\x00\x00\x00\x40\x00\x80\x00\x00\x00\x00\x00\x00\x0b\x01"
)

// content is what Scan finds, by the names; it fails when the keys are not in order.
func content(t interface {
	Helper()
	Fatalf(string, ...any)
}, e store.Engine,
) map[string]string {
	t.Helper()
	got := make(map[string]string)
	var last []byte
	if err := e.Scan(func(key, value []byte) error {
		if last != nil && bytes.Compare(key, last) <= 0 {
			return fmt.Errorf("key %q comes after %q", key, last)
		}
		last = bytes.Clone(key)
		name := strings.TrimPrefix(strings.TrimPrefix(string(key), entriesA), entriesB)
		if bytes.Equal(key, store.MarksKey()) {
			name = own
		}
		got[name] = string(value)
		return nil
	}); err != nil {
		t.Fatalf("Scan: %v", err)
	}
	return got
}

// apply makes one group of the ops, which must not fail.
func apply(t *testing.T, e store.Engine, ops ...store.Op) {
	t.Helper()
	if err := e.Apply(group(e, ops)); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

// group is one group of the ops, with the next number.
func group(e store.Engine, ops []store.Op) []store.Group {
	n := e.Number(uuidA)
	return []store.Group{{VM: uuidA, New: n == 0, Number: n + 1, Ops: ops}}
}

// put has a Tail as well as a Value.
func put(name, value string) store.Op { return putAt(entriesA+name, value) }

func putAt(key, value string) store.Op {
	half := len(value) / 2
	return store.Op{Key: []byte(key), Value: []byte(value[:half]), Tail: value[half:]}
}

func del(name string) store.Op { return store.Op{Key: []byte(entriesA + name)} }

// testGroups gives groups of several VMs and the store's own at once: all are
// there, with their number, over reopens.
func testGroups(t *testing.T, open func(string) store.Engine) {
	dir := t.TempDir()
	e := open(dir)
	content(t, e)
	if n := e.Number(uuidA); n != 0 {
		t.Errorf("a new engine has the number %d", n)
	}
	want := make(map[string]string)
	number := uint64(0)
	for i := range 5 {
		number += uint64(1 + i%2) // a batch that failed leaves a gap
		groups := []store.Group{
			{Number: number, Ops: []store.Op{putAt(string(store.MarksKey()), fmt.Sprint("marks ", i))}},
			{VM: uuidA, New: i == 0, Number: number, Ops: []store.Op{put(fmt.Sprint("a", i), "1"), del(fmt.Sprint("a", i-1))}},
			{VM: uuidB, New: i == 0, Number: number, Ops: []store.Op{putAt(entriesB+fmt.Sprint("b", i), "2"), putAt(entriesB+"a", fmt.Sprint(i))}},
		}
		if err := e.Apply(groups); err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if n := e.Number(g.VM); n != number {
				t.Errorf("VM %q has the number %d, want %d", g.VM, n, number)
			}
		}
		delete(want, fmt.Sprint("a", i-1))
		want[own], want["a"] = fmt.Sprint("marks ", i), fmt.Sprint(i)
		want[fmt.Sprint("a", i)], want[fmt.Sprint("b", i)] = "1", "2"
		mustClose(t, e)
		e = open(dir)
		diff(t, "content", want, content(t, e))
		if n := e.Number(uuidB); n != number {
			t.Errorf("after reopen the number is %d, want %d", n, number)
		}
	}
	mustClose(t, e)
}

func testEmpty(t *testing.T, open func(string) store.Engine) {
	e := open(t.TempDir())
	if got := content(t, e); len(got) != 0 {
		t.Errorf("a new engine holds %q", got)
	}
	apply(t, e)
	apply(t, e, del("not there"))
	mustClose(t, e)
}

func testOrder(t *testing.T, open func(string) store.Engine) {
	dir := t.TempDir()
	e := open(dir)
	content(t, e)
	want := make(map[string]string)
	var ops []store.Op
	for i := range 256 {
		for _, key := range []string{string([]byte{byte(255 - i)}), string([]byte{byte(i), 0}), string([]byte{'x', byte(i), 255})} {
			want[key] = fmt.Sprint("value of ", i)
			ops = append(ops, put(key, want[key]))
		}
	}
	apply(t, e, ops...)
	diff(t, "content", want, content(t, e))
	mustClose(t, e)
	e = open(dir)
	diff(t, "content after reopen", want, content(t, e))
	mustClose(t, e)
}

func testOneApply(t *testing.T, open func(string) store.Engine) {
	dir := t.TempDir()
	e := open(dir)
	content(t, e)
	apply(t, e, put("a", "1"), put("b", "1"), put("c", "1"))
	apply(t, e,
		put("a", "2"), put("a", "3"),
		del("b"), put("b", "2"),
		put("c", "2"), del("c"),
		put("d", "1"), del("d"), put("d", "2"))
	mustClose(t, e)
	e = open(dir)
	diff(t, "content", map[string]string{"a": "3", "b": "2", "d": "2"}, content(t, e))
	mustClose(t, e)
}

// testAllOrNone gives an op that an engine may refuse; if it does, the others of
// the same Apply are not there.
func testAllOrNone(t *testing.T, open func(string) store.Engine) {
	e := open(t.TempDir())
	content(t, e)
	apply(t, e, put("a", "1"))
	long := strings.Repeat("long", 10_000)
	err := e.Apply(group(e, []store.Op{put("a", "2"), put(long, "v"), put("b", "2")}))
	want := map[string]string{"a": "2", "b": "2", long: "v"}
	if err != nil {
		want = map[string]string{"a": "1"}
	}
	diff(t, "content", want, content(t, e))
	mustClose(t, e)
}

func testLarge(t *testing.T, open func(string) store.Engine, value int) {
	dir := t.TempDir()
	e := open(dir)
	content(t, e)
	large := strings.Repeat("0123456789abcdef", value/16)
	apply(t, e, put("large", large), put("small", "s"))
	apply(t, e, put("other", large[1:]))
	apply(t, e, del("other"))
	mustClose(t, e)
	e = open(dir)
	got := content(t, e)
	if len(got) != 2 || got["large"] != large || got["small"] != "s" {
		t.Errorf("%d keys, large has %d bytes", len(got), len(got["large"]))
	}
	mustClose(t, e)
}

// testMany has more in one group than an engine may put into one transaction.
func testMany(t *testing.T, open func(string) store.Engine) {
	dir := t.TempDir()
	e := open(dir)
	content(t, e)
	want := make(map[string]string)
	for round := range 3 {
		var ops []store.Op
		for i := range 1000 {
			name := fmt.Sprintf("%d/%d", i%2*round, i)
			want[name] = strings.Repeat(fmt.Sprint(round, i), 1000)
			ops = append(ops, put(name, want[name]))
		}
		for i := range 300 {
			name := fmt.Sprintf("0/%d", 2*i)
			delete(want, name)
			ops = append(ops, del(name))
		}
		apply(t, e, ops...)
		diffLarge(t, want, content(t, e))
		apply(t, e, put("small", fmt.Sprint(round)))
		want["small"] = fmt.Sprint(round)
		mustClose(t, e)
		e = open(dir)
		diffLarge(t, want, content(t, e))
	}
	mustClose(t, e)
}

// diffLarge names what differs, not all of it.
func diffLarge(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Fatalf("%q has %d bytes that begin with %.20q, want %d and %.20q", name, len(got[name]), got[name], len(want[name]), want[name])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d keys, want %d", len(got), len(want))
	}
}

func testScanError(t *testing.T, open func(string) store.Engine) {
	e := open(t.TempDir())
	content(t, e)
	apply(t, e, put("a", "1"), put("b", "1"))
	stop := errors.New("stop")
	calls := 0
	err := e.Scan(func(_, _ []byte) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Scan called %d times and returned %v", calls, err)
	}
	mustClose(t, e)
}

// testRandom compares with a map, over reopens.
func testRandom(t *testing.T, open func(string) store.Engine) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := fmt.Sprint(root, "/", n)
		e := open(dir)
		defer func() { _ = e.Close() }()
		want := make(map[string]string)
		for range rapid.IntRange(1, 6).Draw(rt, "applies") {
			diffMap(rt, want, content(rt, e))
			ops, next := drawOps(rt, want)
			if err := e.Apply(group(e, ops)); err != nil {
				rt.Fatalf("Apply: %v", err)
			}
			want = next
			if rapid.Bool().Draw(rt, "reopen") {
				if err := e.Close(); err != nil {
					rt.Fatalf("Close: %v", err)
				}
				e = open(dir)
			}
		}
		diffMap(rt, want, content(rt, e))
	})
}

func drawOps(rt *rapid.T, have map[string]string) ([]store.Op, map[string]string) {
	next := maps.Clone(have)
	var ops []store.Op
	for range rapid.IntRange(0, 20).Draw(rt, "ops") {
		key := rapid.StringMatching(`[a-c]{1,2}`).Draw(rt, "key")
		if rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
			delete(next, key)
			ops = append(ops, del(key))
			continue
		}
		next[key] = rapid.StringN(1, 50, 5000).Draw(rt, "value")
		ops = append(ops, put(key, next[key]))
	}
	return ops, next
}

func diffMap(rt *rapid.T, want, got map[string]string) {
	if !maps.Equal(want, got) {
		rt.Fatalf("want %q, got %q", want, got)
	}
}
