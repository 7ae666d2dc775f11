package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// txn is the intent of a transaction.
func txn(c *store.Cell, conditions []store.Condition, parts ...store.Intent) store.Intent {
	return store.Intent{Kind: store.Txn, Cell: c, By: "op", Txn: &store.Transaction{If: conditions, Do: parts}}
}

func TestTransaction(t *testing.T) {
	s, c := withVM(t, store.Config{})
	put(t, s, c, "log", "a\n")
	put(t, s, c, "old", "o")
	put(t, s, c, "gone", "g")
	rev := s.Rev()
	in := txn(c, nil,
		store.Intent{Kind: store.Put, Name: "new", Data: "n"},
		store.Intent{Kind: store.Append, Name: "log", Data: "b\n"},
		store.Intent{Kind: store.Remove, Name: "gone"},
		store.Intent{Kind: store.Set, Name: "old", NewName: "moved"},
		store.Intent{Kind: store.Put, Space: vm.Internal, Name: "new", Data: "i"})
	do(t, s, in)
	wantValue(t, c, "new", "n")
	wantValue(t, c, "log", "a\nb\n")
	wantValue(t, c, "moved", "o")
	if c.VM().Count() != 4 || c.VM().Get(vm.Internal, "new").Value != "i" {
		t.Errorf("%d keys", c.VM().Count())
	}
	events, lost := s.Ring().After(rev, 10, nil)
	var told []string
	for i, ev := range events {
		if ev.Rev != rev+1+uint64(i) || ev.By != "op" {
			t.Errorf("event %d has rev %d after %d, by %q", i, ev.Rev, rev, ev.By)
		}
		told = append(told, fmt.Sprint(ev.Type, " ", ev.Key))
	}
	if got := strings.Join(told, ", "); lost != 0 || got != "key-set new, key-set log, key-removed gone, key-removed old, key-set moved, key-set new" {
		t.Errorf("events: %s, lost %d", got, lost)
	}
	for i, e := range in.Txn.Entries {
		if (e == nil) != (i == 2) || e != nil && e.Muid != "op" && i != 3 {
			t.Errorf("part %d left %+v", i, e)
		}
	}
}

// TestConditions: each kind holds and fails, and a failure says of which key and what
// that is now.
func TestConditions(t *testing.T) {
	s, c := withVM(t, store.Config{})
	e := put(t, s, c, "k", "v")
	put(t, s, c, "x_pw", "hidden")
	version, rev := vm.Version(e.Rev), e.Rev
	other := store.Intent{Kind: store.Put, Name: "done", Data: "yes"}
	for _, condition := range []store.Condition{
		{Name: "k"},
		{Name: "none", Absent: true},
		{Name: "k", Version: &version},
		{Name: "k", Rev: &rev},
		{Name: "k", Value: ptr("v")},
		{Space: vm.Internal, Name: "k", Absent: true},
		{Name: "k", Version: &version, Rev: &rev, Value: ptr("v")},
	} {
		do(t, s, txn(c, []store.Condition{condition}, other))
	}
	for _, failing := range []store.Condition{
		{Name: "none"},
		{Name: "k", Absent: true},
		{Name: "k", Version: ptr(version + 1)},
		{Name: "k", Rev: ptr(rev + 1)},
		{Name: "k", Value: ptr("")},
		{Name: "none", Value: ptr("")},
		{Space: vm.Internal, Name: "k"},
		{Name: "k", Version: &version, Rev: &rev, Value: ptr("w")},
	} {
		in := txn(c, []store.Condition{{Name: "k"}, failing}, other)
		err := refused(t, s, in, errs.Canceled)
		if in.Txn.Failed != &in.Txn.If[1] || (in.Txn.Found == nil) != (failing.Name == "none" || failing.Space == vm.Internal) {
			t.Errorf("%+v: failed %+v, found %+v", failing, in.Txn.Failed, in.Txn.Found)
		}
		want := fmt.Sprintf("version %d, rev %d", version, rev)
		if in.Txn.Found == nil {
			want = fmt.Sprintf("there is no key %q", failing.Name)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", failing, err)
		}
	}
	// What a guest is not shown is absent for it, and says nothing of itself.
	in := txn(c, []store.Condition{{Name: "x_pw", Value: ptr("hidden")}}, other)
	in.Guest = true
	if err := refused(t, s, in, errs.Canceled); in.Txn.Found != nil || strings.Contains(err.Error(), "rev") {
		t.Errorf("a guest learns of a hidden key: %v", err)
	}
	in = txn(c, []store.Condition{{Name: "x_pw", Absent: true}}, other)
	in.Guest = true
	do(t, s, in)
}

// TestTransactionIsWhole: whatever part is refused, nothing of the others is there.
func TestTransactionIsWhole(t *testing.T) {
	s, c := withVM(t, store.Config{Limits: vm.Limits{Value: 20, Keys: 4, Bytes: 60}, TotalBytes: 70})
	put(t, s, c, "k", "v")
	put(t, s, c, "full", strings.Repeat("f", 20))
	fine := []store.Intent{
		{Kind: store.Put, Name: "a", Data: "1"}, {Kind: store.Append, Name: "k", Data: "2"}, {Kind: store.Remove, Name: "full"},
	}
	for _, bad := range []struct {
		part  store.Intent
		guest bool
		kind  errs.Kind
	}{
		{part: store.Intent{Kind: store.Remove, Name: "none"}, kind: errs.NotFound},
		{part: store.Intent{Kind: store.Set, Name: "none", NewName: "b"}, kind: errs.NotFound},
		{part: store.Intent{Kind: store.Put, Name: " ", Data: "x"}, kind: errs.Invalid},
		{part: store.Intent{Kind: store.Put, Name: "b", Data: strings.Repeat("x", 21)}, kind: errs.TooLarge},
		{part: store.Intent{Kind: store.Put, Name: "x_pw"}, guest: true, kind: errs.NotPermitted},
		{part: store.Intent{Kind: store.Put, Space: vm.Internal, Name: "secret"}, guest: true, kind: errs.NotPermitted},
		{part: store.Intent{Kind: store.DeleteVM}, kind: errs.Invalid},
		{part: store.Intent{Kind: store.Txn}, kind: errs.Invalid},
		{part: store.Intent{Kind: store.Set, Name: "k"}, kind: errs.Invalid},
		{part: store.Intent{Kind: store.Put, Name: "b", Space: vm.NumSpaces}, kind: errs.Invalid},
		{part: store.Intent{Kind: store.Remove, Name: "b", ID: 7}, kind: errs.Invalid},
	} {
		for at := range len(fine) + 1 {
			parts := append(append(append([]store.Intent{}, fine[:at]...), bad.part), fine[at:]...)
			in := txn(c, nil, parts...)
			in.Guest = bad.guest
			err := refused(t, s, in, bad.kind)
			if bad.kind != errs.Invalid && !strings.Contains(fmt.Sprint(err), fmt.Sprintf("do[%d]", at)) {
				t.Errorf("part %d is refused: %v", at, err)
			}
		}
	}
	// The limits count all parts together, in whatever order they come.
	value := strings.Repeat("b", 20)
	room := txn(c, nil, store.Intent{Kind: store.Put, Name: "full2", Data: value}, store.Intent{Kind: store.Put, Name: "full3", Data: value},
		store.Intent{Kind: store.Remove, Name: "full"})
	do(t, s, room)
	refused(t, s, txn(c, nil, store.Intent{Kind: store.Put, Name: "full4", Data: value}), errs.NoSpace)
	refused(t, s, txn(c, nil, store.Intent{Kind: store.Put, Name: "a"}, store.Intent{Kind: store.Put, Name: "b"}), errs.NoSpace)
	other := create(t, s, `{"uuid":"`+uuidB+`"}`)
	refused(t, s, txn(other, nil, store.Intent{Kind: store.Put, Name: "k", Data: value}), errs.NoSpace)
}

// TestRefusedTransactionIsNotCounted: what a refused transaction would have stored takes
// no room from what comes after it in the batch.
func TestRefusedTransactionIsNotCounted(t *testing.T) {
	s, c := withVM(t, store.Config{TotalBytes: 40})
	entered, busy := make(chan struct{}), make(chan struct{})
	s.Submit(&store.Intent{Kind: store.Note, Done: func(store.Result) { close(entered); <-busy }})
	<-entered
	large := store.Intent{Kind: store.Put, Name: "a", Data: strings.Repeat("x", 30)}
	first := submit(s, txn(c, nil, large, store.Intent{Kind: store.Remove, Name: "none"}))
	large.Cell = c
	second := submit(s, large)
	close(busy)
	if r := wait(t, first); !errors.Is(r.Err, errs.NotFound) {
		t.Error("the transaction:", r.Err)
	}
	if r := wait(t, second); r.Err != nil {
		t.Error("the put after it:", r.Err)
	}
}

// TestCompareAndSet: many who add to one number by compare and set lose nothing.
func TestCompareAndSet(t *testing.T) {
	s, c := withVM(t, store.Config{})
	put(t, s, c, "n", "0")
	const clients, each = 8, 50
	failed := make(chan error, clients)
	for range clients {
		go func() { failed <- count(s, c, each) }()
	}
	for range clients {
		if err := wait(t, failed); err != nil {
			t.Error(err)
		}
	}
	wantValue(t, c, "n", fmt.Sprint(clients*each))
}

// count adds 1 to n so many times.
func count(s *store.Store, c *store.Cell, times int) error {
	for times > 0 {
		e := c.VM().Get(vm.Keys, "n")
		var n int
		if _, err := fmt.Sscan(e.Value, &n); err != nil {
			return err
		}
		in := txn(c, []store.Condition{{Name: "n", Rev: &e.Rev}}, store.Intent{Kind: store.Put, Name: "n", Data: fmt.Sprint(n + 1)})
		switch err := s.Do(&in).Err; {
		case err == nil:
			times--
		case !errors.Is(err, errs.Canceled):
			return err
		}
	}
	return nil
}
