package fs_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
)

// txn does one transaction, as a macro.
func (c *client) txn(line string, path ...string) error {
	c.w.Helper()
	return c.await(func(done func(error)) { macro.Put(c.root, append(path, "txn"), []byte(line), done) })
}

// TestBadTransactions: the error says where and what is wrong, and nothing is changed.
func TestBadTransactions(t *testing.T) {
	w := newWorld(t, store.Config{})
	guest := w.guest(vmA)
	before := w.cell(vmA).VM()
	for line, want := range map[string]string{
		`nonsense`:                                      "JSON",
		`{}`:                                            "conditions (if), changes (do)",
		`[]`:                                            `a transaction is {"if":[...],"do":[...]}`,
		`{"if":[],"do":[]}`:                             "conditions (if), changes (do)",
		`{"do":{}}`:                                     "do is a list",
		`{"then":[]}`:                                   `unknown member "then"`,
		`{"do":[{"put":"a","value":"1"}]} x`:            "where the end is expected",
		`{"do":[{"put":"a","value":"1"}`:                "the text ends",
		`{"do":[7]}`:                                    "do[0]: it is no object",
		`{"do":[{}]}`:                                   "do[0]: one of",
		`{"do":[{"value":"1"}]}`:                        "do[0]: one of",
		`{"do":[{"put":"a"}]}`:                          `do[0]: either "value" or "base64"`,
		`{"do":[{"put":"","value":""}]}`:                `do[0]: "put" is the name of a key`,
		`{"do":[{"put":7,"value":""}]}`:                 `do[0]: "put" is the name of a key`,
		`{"do":[{"put":"a","value":7}]}`:                `do[0]: "value" is a string`,
		`{"do":[{"put":"a","base64":7}]}`:               `do[0]: "base64" is a string`,
		`{"do":[{"put":"a","base64":"AA"}]}`:            `do[0]: "base64": illegal base64`,
		`{"do":[{"put":"a","base64":"AB=="}]}`:          `do[0]: "base64": illegal base64`,
		`{"do":[{"put":"a","base64":"","value":""}]}`:   `do[0]: either`,
		`{"do":[{"put":"a","value":"","to":"b"}]}`:      `do[0]: unknown member "to"`,
		`{"do":[{"put":"a","value":"","put":"b"}]}`:     "JSON",
		`{"do":[{"remove":"a","value":""}]}`:            `do[0]: unknown member "value"`,
		`{"do":[{"put":"a","value":"","append":"b"}]}`:  `do[0]: unknown member "append"`,
		`{"do":[{"rename":"color"}]}`:                   `do[0]: "to" is the name of a key`,
		`{"do":[{"put":"a","value":"","space":"sdc"}]}`: `do[0]: "space" is "keys" or "internal"`,
		`{"do":[{"put":"a","value":"1"},{"remove":"color"},{"put":"a","value":"2"}]}`: `do[2]: the key "a" is in do[0] as well`,
		`{"do":[{"rename":"color","to":"a"},{"put":"a","value":"2"}]}`:                `do[1]: the key "a" is in do[0] as well`,
		`{"do":[{"rename":"color","to":"color"}]}`:                                    `do[0]: the key "color" is in do[0] as well`,
		`{"if":[{"key":"color","absent":false}]}`:                                     `if[0]: "absent" is true`,
		`{"if":[{"key":"color","absent":true,"rev":1}]}`:                              `if[0]: "absent" is true`,
		`{"if":[{"key":"color","version":4294967296}]}`:                               `if[0]: "version" is a whole number of 32 bits`,
		`{"if":[{"key":"color","version":-1}]}`:                                       `if[0]: "version"`,
		`{"if":[{"key":"color","rev":"1"}]}`:                                          `if[0]: "rev" is a whole number of 64 bits`,
		`{"if":[{"key":"color","rev":1.5}]}`:                                          `if[0]: "rev"`,
		`{"if":[{"version":1}]}`:                                                      `if[0]: "key" is the name of a key`,
		`{"if":[{"key":"color","was":1}]}`:                                            `if[0]: unknown member "was"`,
		`{"do":[` + strings.Repeat(`{"remove":"color"},`, 100) + `{"remove":"x"}]}`:   "do has 101 entries, 100 is the limit",
		`{"if":[` + strings.Repeat(`{"key":"color"},`, 100) + `{"key":"x"}]}`:         "if has 101 entries, 100 is the limit",
		`{"if":[` + strings.Repeat(`[],`, 3000) + `[]]}`:                              "2048",
		`{"do":[{"put":"a","value":"` + strings.Repeat("x", 1<<20) + `"}]}`:           "a line is at most 1048576 bytes",
	} {
		err := guest.txn(line)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v; want %s", line, err, want)
		}
	}
	if w.cell(vmA).VM() != before {
		t.Error("something is changed")
	}
	// Lines are transactions of their own: one that fails leaves those before it.
	err := guest.txn(`{"do":[{"put":"a","value":"1"}]}` + "\n" + `{"do":[{"put":"color"}]}` + "\n" + `{"do":[{"remove":"a"}]}`)
	if m := w.cell(vmA).VM(); !errors.Is(err, errs.Invalid) || m.Get(vm.Keys, "a") == nil {
		t.Errorf("three lines: %v", err)
	}
}

// TestLongTransaction: a line that is too long is answered as well.
func TestLongTransaction(t *testing.T) {
	w := newWorld(t, store.Config{})
	guest := w.guest(vmA)
	h := guest.open(fs.Read|fs.Write, "txn")
	if _, err := guest.write(h, 0, strings.Repeat("x", 1<<20+1)+"\n"); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	if got := guest.mustRead(h, 0, 1000); !strings.Contains(got, `{"error":"Invalid argument: a line is at most 1048576 bytes"}`) {
		t.Errorf("the answer is %q", got)
	}
}

// TestSkippedLineIsRestored: what is left of a line that was refused is skipped also where
// its handle is restored in between.
func TestSkippedLineIsRestored(t *testing.T) {
	w := newWorld(t, store.Config{})
	guest := w.guest(vmA)
	h := guest.open(fs.Write, "txn")
	if _, err := guest.write(h, 0, strings.Repeat("x", 1<<20+1)); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	hs := h.State()
	h.Drop()
	again, err := guest.walk("txn").RestoreHandle(hs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.write(again, 0, `{"do":[{"put":"a","value":"1"}]}`+"\n"); !errors.Is(err, errs.Invalid) {
		t.Errorf("the rest of a refused line: %v", err)
	}
	if w.cell(vmA).VM().Get(vm.Keys, "a") != nil {
		t.Error("the rest of a refused line is run")
	}
	if _, err := guest.write(again, 0, `{"do":[{"put":"a","value":"1"}]}`+"\n"); err != nil {
		t.Errorf("the next line: %v", err)
	}
}

// TestBegunTransactions: what the guests of a VM have begun to write is bounded, for all
// of them together, and let go with the handles.
func TestBegunTransactions(t *testing.T) {
	w := newWorld(t, store.Config{})
	piece := `{"if":[],"do":[{"put":"a","value":"` + strings.Repeat("x", 300<<10)
	var open []fs.Handle
	guests := []*client{w.guest(vmA), w.guest(vmA)}
	for i := range 3 {
		h := guests[i%2].open(fs.Write, "txn")
		if _, err := guests[i%2].write(h, 0, piece); err != nil {
			t.Fatal(err)
		}
		open = append(open, h)
	}
	more := guests[0].open(fs.Write, "txn")
	if _, err := guests[0].write(more, 0, piece); !errors.Is(err, errs.Again) {
		t.Errorf("a fourth: %v", err)
	}
	if _, err := guests[0].write(more, 0, "\"}]}\n"); !errors.Is(err, errs.Again) {
		t.Errorf("the end of what was refused: %v", err)
	}
	if err := guests[0].txn(`{"do":[{"put":"a","value":"1"}]}`); err != nil {
		t.Errorf("a whole line: %v", err)
	}
	other := w.guest(vmB)
	if _, err := other.write(other.open(fs.Write, "txn"), 0, piece); err != nil {
		t.Errorf("another VM: %v", err)
	}
	if _, err := guests[0].write(open[0], 0, "\"}]}\n"); err != nil {
		t.Errorf("an end: %v", err)
	}
	open[1].Drop()
	guests[0].view.Close()
	for range 2 {
		if _, err := guests[1].write(guests[1].open(fs.Write, "txn"), 0, piece); err != nil {
			t.Errorf("after others have ended: %v", err)
		}
	}
}

// FuzzTransaction: whatever a guest writes is done whole or not at all, harms nothing
// that is not the guest's, and is answered in JSON.
func FuzzTransaction(f *testing.F) {
	w := newWorld(f, store.Config{Limits: vm.Limits{Value: 1000, Keys: 20, Bytes: 4000}})
	for _, line := range []string{
		`{"if":[{"key":"color","value":"blue"}],"do":[{"put":"color","value":"red"},{"append":"log","base64":"AAE="}]}`,
		`{"if":[{"key":"a","absent":true},{"key":"color","version":1,"rev":2}],"do":[{"remove":"color"}]}`,
		`{"do":[{"rename":"color","to":"old_pw"},{"put":"secret","space":"internal","value":"x"}]}`,
		`{"do":[{"put":"old_pw","value":"\ud83d\ude00"},{"put":"\u0000","value":"1"}]}`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		w := w.in(t)
		guest := w.guest(vmA)
		defer guest.view.Close()
		before := w.cell(vmA).VM()
		h := guest.open(fs.Read|fs.Write, "txn")
		line = strings.ReplaceAll(line, "\n", " ")
		_, err := guest.write(h, 0, line+"\n")
		after := w.cell(vmA).VM()
		if err != nil {
			checkKind(t, err)
		}
		if err != nil && after != before {
			t.Fatalf("%q: %v, with a trace", line, err)
		}
		if e := after.Get(vm.Keys, "old_pw"); e == nil || e.Value != "c" {
			t.Fatalf("%q: the hidden key is %+v", line, e)
		}
		if e := after.Get(vm.Internal, "secret"); e == nil || e.Value != "x" {
			t.Fatalf("%q: the secret is %+v", line, e)
		}
		answer := make([]byte, 1<<20)
		n, rerr := h.Read(answer, 0)
		var told struct {
			Error *string
			Rev   *uint64
			Key   string
		}
		if line = strings.TrimSpace(line); line == "" {
			return
		}
		if rerr != nil || json.Unmarshal(answer[:n], &told) != nil || (told.Error == nil) == (err != nil) || (told.Rev == nil) == (err == nil) && told.Key == "" {
			t.Fatalf("%q: %v, answered %q, %v", line, err, answer[:n], rerr)
		}
	})
}
