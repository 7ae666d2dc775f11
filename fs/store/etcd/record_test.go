package etcd

import (
	"testing"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"meta9/fs/errs"
	"meta9/fs/store"
)

const fuzzUUID = "01234567-89ab-4cde-8f01-23456789abcd"

// caught is an engine that keeps what a store writes.
type caught struct{ ops []store.Op }

func (c *caught) Scan(func(key, value []byte) error) error { return nil }
func (c *caught) Number(string) uint64                     { return 0 }
func (c *caught) Close() error                             { return nil }

// Apply is store.Engine's.
func (c *caught) Apply(groups []store.Group) []error {
	for _, g := range groups {
		for _, op := range g.Ops {
			c.ops = append(c.ops, store.Op{Key: op.Key, Value: append(append([]byte(nil), op.Value...), op.Tail...)})
		}
	}
	return nil
}

// sample are the records of a VM with one key, as a store writes them.
func sample(t testing.TB) (row, entry []byte) {
	c := new(caught)
	s, err := store.Open(c, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := s.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + fuzzUUID + `","customer_metadata":{"k":"v"}}`})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, op := range c.ops {
		switch {
		case len(op.Key) == keyHead:
			row = op.Value
		case len(op.Key) > keyHead:
			entry = op.Value
		}
	}
	if row == nil || entry == nil {
		t.Fatalf("the store has written %q", c.ops)
	}
	return row, entry
}

// of is what etcd has of a VM, as an engine.
type of struct {
	caught
	engine *Engine
	r      *record
	st     *state
}

// Scan is store.Engine's.
func (o *of) Scan(fn func(key, value []byte) error) error { return o.engine.records(o.r, o.st, fn) }

// FuzzRecord reads a VM of which somebody else has written something into etcd. What is not as
// this engine writes it is damage, and is told; else the VM is what it was.
func FuzzRecord(f *testing.F) {
	row, entry := sample(f)
	own := owner{Host: "a", Epoch: 1}.text()
	q := sequence{Number: 1, Gen: 0, Step: 1}.text(fuzzUUID)
	f.Add([]byte(own), []byte(q), row, "0k", entry)
	f.Add([]byte(own), []byte(q), row, "", entry)
	f.Add([]byte(own), []byte(q), row, "9k", entry)
	f.Add([]byte(own), []byte(q), []byte{}, "k", []byte{})
	f.Add([]byte(`{"host":"a","epoch":0}`), []byte(q), row, "0k", entry)
	f.Add([]byte(`{"host":"b","epoch":2}`), []byte("1 0 1 00000000"), row, "0k", entry[:len(entry)-1])
	f.Fuzz(func(t *testing.T, ownText, qText, rowBytes []byte, rest string, entryBytes []byte) {
		e := &Engine{cfg: Config{Prefix: "/p/", Host: "a", Log: zerolog.Nop()}, vms: make(map[string]*state)}
		kv := func(key string, value []byte) *mvccpb.KeyValue {
			return &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: 1}
		}
		r := &record{
			uuid: fuzzUUID, own: kv(e.key("own", fuzzUUID), ownText), q: kv(e.key("q", fuzzUUID), qText),
			vm: kv(e.key("v", fuzzUUID), rowBytes), entries: []*mvccpb.KeyValue{kv(e.entries(fuzzUUID, 0)+rest, entryBytes)},
		}
		st, err := e.stateOf(r)
		if err != nil {
			if k := errs.KindOf(err); k != errs.IO && k != errs.Moved {
				t.Errorf("the kind of %v", err)
			}
			return
		}
		if string(qText) != st.seq.text(fuzzUUID) {
			t.Errorf("%q is taken for a sequence", qText)
		}
		if st.seq.Gen != 0 {
			return // the entry is of another one
		}
		damaged := 0
		is, err := store.Check(&of{engine: e, r: r, st: st}, func(store.Damage) { damaged++ })
		if err != nil {
			t.Fatal(err)
		}
		whole := string(rowBytes) == string(row) && rest == "0k" && string(entryBytes) == string(entry)
		if whole && (is.VMs != 1 || is.Keys != 1) {
			t.Errorf("%+v, of which nothing is damaged", is)
		}
		if !whole && damaged == 0 && (string(rowBytes) == string(row) || string(entryBytes) == string(entry)) {
			t.Errorf("%q, %q, %q is taken for whole", rowBytes, rest, entryBytes)
		}
	})
}
