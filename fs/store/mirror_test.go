package store_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// TestReadOnly: only the mirror's intents change a store that says why it is
// read-only; notes still come through.
func TestReadOnly(t *testing.T) {
	const why = "this is a mirror"
	s := open(t, store.NewMemory(), store.Config{ReadOnly: why})
	c := do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `","customer_metadata":{"k":"v"}}`, Mirror: true}).Cell
	for _, in := range []store.Intent{
		{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`},
		{Kind: store.UpdateVM, Cell: c, Data: `{"alias":"a"}`},
		{Kind: store.ReplaceVM, Cell: c, Data: `{"uuid":"` + uuidA + `"}`},
		{Kind: store.DeleteVM, Cell: c},
		{Kind: store.Put, Cell: c, Name: "k", Data: "w"},
		{Kind: store.Put, Cell: c, Name: "k", Data: "w", Guest: true},
		{Kind: store.Remove, Cell: c, Name: "k"},
	} {
		if err := refused(t, s, in, errs.ReadOnly); !strings.Contains(err.Error(), why) {
			t.Errorf("%v does not say why", err)
		}
	}
	do(t, s, store.Intent{Kind: store.Note, Event: store.SessionParked})
	do(t, s, store.Intent{Kind: store.ReplaceVM, Cell: c, Data: `{"uuid":"` + uuidA + `","customer_metadata":{"k":"w"}}`, Mirror: true})
	if got := value(t, c, "k"); got != "w" {
		t.Errorf("the mirror's value is %q", got)
	}
	if err := open(t, store.NewMemory(), store.Config{}).Writable(); err != nil {
		t.Errorf("writable: %v", err)
	}
}

// TestReplaceVM: one change of the VM, with its names moved, and all or nothing.
func TestReplaceVM(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	a := create(t, s, `{"uuid":"`+uuidA+`","alias":"a","customer_metadata":{"k":"v"}}`)
	create(t, s, `{"uuid":"`+uuidB+`","alias":"b"}`)
	refused(t, s, store.Intent{Kind: store.ReplaceVM, Cell: a, Data: `{"uuid":"` + uuidA + `","alias":"b"}`}, errs.Exists)
	do(t, s, store.Intent{Kind: store.ReplaceVM, Cell: a, Data: `{"uuid":"` + uuidA + `","alias":"c","x":1}`})
	if s.Alias("a") != nil || s.Alias("c") != a {
		t.Error("the alias did not move")
	}
	if got := string(a.VM().AppendJSON(nil, false)); got != `{"uuid":"`+uuidA+`","alias":"c","x":1}` {
		t.Errorf("it is %s", got)
	}
}

// TestRecord: a recorder is told of each change before it is acknowledged, in the
// order of the revisions; a batch does all that it takes of one VM, then the next.
func TestRecord(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	var recorded, observed []uint64
	var whose []string
	s.Record(func(c store.Committed) {
		recorded = append(recorded, c.Rev())
		whose = append(whose, c.Cell.UUID())
	})
	s.Observe(func(c store.Committed) { observed = append(observed, c.Rev()) })
	a, b := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)

	// One batch: the first note's Done submits all while the committer is in it.
	var seen int
	done := make(chan store.Result, 3)
	s.Submit(&store.Intent{Kind: store.Note, Event: store.QMP, Done: func(store.Result) {
		for i, c := range []*store.Cell{a, b, a} {
			s.Submit(&store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: string(rune('a' + i)), Done: func(r store.Result) {
				seen = len(recorded)
				done <- r
			}})
		}
	}})
	for range 3 {
		if r := <-done; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if seen != 4 {
		t.Errorf("%d were recorded when the last was acknowledged, want 4", seen)
	}
	if d := cmp.Diff([]string{uuidA, uuidB, uuidA, uuidB}, whose); d != "" {
		t.Error(d)
	}
	do(t, s, store.Intent{Kind: store.Note, Event: store.QMP}) // the observers of the batch before have run
	if d := cmp.Diff(recorded, observed); d != "" {
		t.Errorf("recorded and observed: %s", d)
	}
	for i := 1; i < len(recorded); i++ {
		if recorded[i] <= recorded[i-1] {
			t.Errorf("revisions %v do not grow", recorded)
		}
	}
}
