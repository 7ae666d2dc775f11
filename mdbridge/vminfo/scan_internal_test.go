package vminfo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// scanned is what NextOf makes of a stream's text: its first event, and the VMs of its
// list.
func scanned(text []byte, most int) (ev *Event, over bool, vms []string, err error) {
	s := &Stream{in: bufio.NewReader(bytes.NewReader(text)), ctx: context.Background()}
	ev, over, err = s.NextOf(most, func(vm []byte, over bool) error {
		vms = append(vms, string(vm))
		return nil
	})
	return ev, over, vms, err
}

// FuzzNextOf: what it takes is what ParseEvent takes of the same line, and there is the
// same in it.
func FuzzNextOf(f *testing.F) {
	file, err := os.ReadFile("testdata/vminfod-events.ndjson")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(file) {
		f.Add(line)
	}
	const date = `"date":"2026-11-21T05:02:14.167Z"`
	for _, line := range []string{
		`{"type":"ready",` + date + `,"vms":"[]"}`, `{"type":"ready","vms":" [ {\"a\":\"\\u00e9\ud834\udd1e\\n\"} ,\n7 ] ",` + date + `}`,
		`{ "type" : "modify" , "vm" : {"a":[1,{"b":"]}"}]} , "changes":[{"x":["]"]}],` + date + `}`, `{"type":"modify","vm":7,` + date + `}`,
		`{"type":"ready",` + date + `,"vms":"[{\"\":{\"\":\"\n\"}}]"}`, // no JSON: a line's end within a string
		`{"type":"delete",` + date + `,"uuid":"\ud800"}`, `{"vm":{},"vm":{"a":1},"type":"create",` + date + `}`, `{}`, `{`, `{"`, `{"a":}`, `{,}`, `{"vms":"`, `{"vms":"["}`,
	} {
		f.Add([]byte(line + "\n"))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		ev, over, vms, err := scanned(line, 1<<20)
		if err != nil || over || !utf8.Valid(line) { // which the store refuses
			return
		}
		want, err := ParseEvent(line)
		if err != nil {
			return // its changes, which are not read here
		}
		if ev.Type != want.Type || ev.UUID != want.UUID || !ev.Date.Equal(want.Date) || !same(ev.VM, want.VM) {
			t.Errorf("%q: %+v, want %+v", line, ev, want)
		}
		if ev.Type != Ready || strings.Count(string(line), `"vms"`) != 1 || bytes.Contains(line, []byte(`"VM`)) {
			return
		}
		var list []json.RawMessage
		if err := json.Unmarshal([]byte(want.VMs), &list); err != nil || len(list) != len(vms) {
			t.Fatalf("%q: %q, want %q (%v)", line, vms, list, err)
		}
		for i := range list {
			if !same([]byte(vms[i]), list[i]) {
				t.Errorf("%q: %q, want %q", line, vms[i], list[i])
			}
		}
	})
}

// same compares two texts without their blanks.
func same(a, b []byte) bool {
	var x, y bytes.Buffer
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// TestNextOfMost: a VM that is too large is cut, and what follows it is read.
func TestNextOfMost(t *testing.T) {
	const most = 100
	long := strings.Repeat("x", 10*most)
	_, _, vms, err := scanned([]byte(`{"type":"ready","date":"2026-11-21T05:02:14.167Z","vms":"[{\"uuid\":\"u\",\"`+long+`\":1},{}]"}`+"\n"), most)
	if err != nil || len(vms) != 2 || len(vms[0]) != most || UUIDOf([]byte(vms[0])) != "u" || vms[1] != "{}" {
		t.Errorf("%q, %v", vms, err)
	}
	ev, over, _, err := scanned([]byte(`{"type":"create","date":"2026-11-21T05:02:14.167Z","vm":{"x":"`+long+`"},"uuid":"u"}`+"\n"), most)
	if err != nil || !over || ev.UUID != "u" || len(ev.VM) != most {
		t.Errorf("%+v, %v, %v", ev, over, err)
	}
}
