package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"meta9/fs/store"
)

// sections is where each rule of QEMU's docs/interop/qmp-spec.txt (the text of QEMU
// 2.10, 2017) that binds a server is tested: its section, the rule in our words, the
// test. "n/a" stands where there is nothing that could be tested.
var sections = []struct{ section, rule, test string }{
	{"2", "input is UTF-8", "TestInputIsUTF8"},
	{"2", "output is ASCII; what is not is escaped", "TestReplyIsASCII"},
	{"2", "members come in any order", "TestMembersInAnyOrder"},
	{"2", "a key that stands twice: the server may do anything; ours refuses", "TestRepeatedKey"},
	{"2", "strings in single quotes are taken", "TestSingleQuotes"},
	{"2", "\\' is an escape in strings of both kinds", "TestSingleQuotes"},
	{"2", "output has double quotes only", "TestSingleQuotes"},
	{"2.1.1", "every message of the server is one object, then CRLF", "TestCRLF"},
	{"2.1.2", "a member that is not called optional must be there", "TestMembersAreMandatory"},
	{"2.2", "the greeting comes first and unasked", "TestGreeting"},
	{"2.2", "its version is what query-version returns", "TestGreeting"},
	{"2.2", "its capabilities are what goes beyond the specification", "TestNoCapabilities"},
	{"2.2.1", "there are no capabilities yet", "TestNoCapabilities"},
	{"2.3", "execute names the command", "TestExecute"},
	{"2.3", "arguments may be left out where none is needed", "TestExecute"},
	{"2.3", "an id may be left out; given, it comes back", "TestID"},
	{"2.3", "an id is any JSON value", "TestID"},
	{"2.4", "a command is answered by return or by error, never both", "TestEveryCommandIsAnswered"},
	{"2.4.1", "a command without a result returns {}", "TestSuccess"},
	{"2.4.1", "return carries the command's id", "TestID"},
	{"2.4.2", "an error has its class", "TestError"},
	{"2.4.2", "an error has a text for people", "TestError"},
	{"2.4.2", "an error found before the id was read has none", "TestErrorWithoutID"},
	{"2.5", "events come between messages, not in one", "TestEventsStandBetweenAnswers"},
	{"2.5", "an event has its name", "TestEventFormat"},
	{"2.5", "an event may have data", "TestEventFormat"},
	{"2.5", "an event has its time, in seconds and microseconds", "TestEventFormat"},
	{"2.5", "both are -1 where the clock fails", "n/a"}, // Go's clock does not fail
	{"2.5", "an event that is limited comes once a second at most", "TestRateLimit"},
	{"2.5", "of those alike within the second the last comes, late; the others never", "TestRateLimit"},
	{"2.5", "alike are events of one type, if not said otherwise", "TestSimilar"},
	{"2.6", "a byte 0xFF in the input drops what was not finished before it", "TestSentinel"},
	{"2.6", "the answer to guest-sync-delimited has a byte 0xFF before it", "TestGuestSyncDelimited"},
	{"3", "the conversations of 3.1 to 3.6", "TestExamples"},
	{"4", "a connection begins in negotiation mode", "TestNegotiationMode"},
	{"4", "there, commands other than qmp_capabilities get CommandNotFound", "TestNegotiationMode"},
	{"4", "there, no events come", "TestNoEventsBeforeNegotiation"},
	{"4", "a qmp_capabilities that is refused does not end it", "TestNegotiationRefused"},
	{"4", "afterwards all commands but qmp_capabilities work, and events come", "TestCommandMode"},
	{"5", "what changes the format is off until a capability is switched on", "TestNoCapabilities"},
	{"5", "the types of arguments are checked", "TestTypeCheck"},
	{"5", "an argument of the wrong type, or one that is not known, is an error", "TestTypeCheck"},
	{"5", "and is found before the command has done anything", "TestCheckedBeforeAnyEffect"},
	{"5", "names in x- may change: we have none", "TestNames"},
	{"5", "all output is valid JSON", "TestEveryCommandIsAnswered"},
	{"6", "names in __ are for those who change QEMU: we have none", "TestNames"},
	{"6", "and they leave the greeting as it is", "TestGreeting"},
}

// TestSections: the tests of the table are there.
func TestSections(t *testing.T) {
	files, _ := filepath.Glob("*_test.go")
	var tests strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(b)
	}
	for _, s := range sections {
		if s.test != "n/a" && !strings.Contains(tests.String(), "func "+s.test+"(") {
			t.Errorf("section %s, %s: there is no %s", s.section, s.rule, s.test)
		}
	}
}

const badUTF8 = `{"error": {"class": "GenericError", "desc": "JSON parse error, invalid UTF-8 sequence in string"}}`

func TestInputIsUTF8(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	if got := c.ask("{\"execute\": \"query-status\", \"id\": \"\xc3(\"}"); got != badUTF8 {
		t.Error(got)
	}
	if got := c.ask(`{"execute": "guest-sync-delimited", "arguments": {"id": 1}, "id": "é"}`); got != "\xff"+`{"return": 1, "id": "\u00E9"}` {
		t.Error(got)
	}
}

func TestReplyIsASCII(t *testing.T) {
	w := newWorld(t, Config{})
	w.vm(`{"uuid":"` + uuid1 + `","alias":"größe","customer_metadata":{"ключ":"значение \u0000\u007f 😀"}}`)
	c := w.dial()
	if got := c.ask(`{"execute": "query-vms"}`); !strings.Contains(got, `"gr\u00F6\u00DFe"`) {
		t.Error(got)
	}
	got := c.ask(`{"execute": "metadata-get", "arguments": {"uuid": "` + uuid1 + `", "key": "ключ"}}`)
	var r struct {
		Return struct{ Value, Encoding string }
	}
	if err := json.Unmarshal([]byte(got), &r); err != nil || r.Return.Value != "значение \x00\x7f 😀" || r.Return.Encoding != "utf8" {
		t.Errorf("%s: %v", got, err)
	}
	if got := c.ask(`{"execute": "ключ"}`); !strings.Contains(got, `"The command \u043A\u043B\u044E\u0447 has not been found"`) {
		t.Error(got)
	}
}

func TestMembersInAnyOrder(t *testing.T) {
	w := newWorld(t, Config{})
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	c := w.dial()
	for _, text := range []string{
		`{"execute": "metadata-put", "arguments": {"uuid": "%s", "key": "a", "value": "1"}, "id": 1}`,
		`{"id": 1, "arguments": {"value": "1", "key": "a", "uuid": "%s"}, "execute": "metadata-put"}`,
		`{"arguments": {"key": "a", "value": "1", "uuid": "%s"}, "execute": "metadata-put", "id": 1}`,
	} {
		if got := c.ask(fmt.Sprintf(text, uuid1)); got != `{"return": {}, "id": 1}` {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestRepeatedKey(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	if got := c.ask(`{"execute": "query-status", "execute": "quit"}`); got != `{"error": {"class": "GenericError", "desc": "JSON parse error, duplicate key"}}` {
		t.Error(got)
	}
}

func TestSingleQuotes(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	for text, want := range map[string]string{
		`{'execute': 'guest-sync-delimited', 'arguments': {'id': 7}, 'id': 'it\'s "so"'}`: `"it's \"so\""`,
		`{"execute": "guest-sync-delimited", "arguments": {"id": 7}, "id": "it\'s"}`:      `"it's"`,
		`{'execute': "guest-sync-delimited", "arguments": {'id': 7}, "id": '"'}`:          `"\""`,
	} {
		if got := c.ask(text); got != "\xff"+`{"return": 7, "id": `+want+`}` {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// TestCRLF: client.line checks every message of every test; here the kinds of
// messages are looked at one by one.
func TestCRLF(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.connect()
	for _, send := range []string{"", "}", `{"execute": "qmp_capabilities"}`, `{"execute": "nope"}`, `{"execute": "vm-create", "arguments": {"vm": {"uuid": "` + uuid1 + `"}}}`, ""} {
		c.send(send)
		text, err := c.in.ReadString('\n')
		if err != nil || !strings.HasSuffix(text, "}\r\n") || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: %q %v", send, text, err)
		}
	}
}

func TestMembersAreMandatory(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	for text, desc := range map[string]string{
		`{"id": 9}`:                         "QMP input lacks member 'execute'",
		`{"execute": "vm-delete", "id": 9}`: "Parameter 'uuid' is missing",
		`{"execute": "metadata-get", "arguments": {"uuid": "x"}, "id": 9}`:            "Parameter 'key' is missing",
		`{"execute": "trace", "arguments": {}, "id": 9}`:                              "Parameter 'enable' is missing",
		`{"execute": "metadata-put", "arguments": {"uuid":"","bogus": 1}, "id": 9}`:   "Parameter 'key' is missing",
		`{"execute": "metadata-put", "arguments": {"uuid":"","key": "x"}, "id": 9}  `: "Parameter 'value' is missing",
	} {
		if got, want := c.ask(text), `{"error": {"class": "GenericError", "desc": "`+desc+`"}, "id": 9}`; got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestGreeting(t *testing.T) {
	w := newWorld(t, Config{Version: "v1.22.333-rc1"})
	c := w.connect()
	version := `{"qemu":{"major":1,"minor":22,"micro":333},"package":"meta9 v1.22.333-rc1"}`
	if got := c.line(); got != `{"QMP": {"version": `+version+`, "capabilities": []}}` {
		t.Error(got)
	}
	c.ask(`{"execute": "qmp_capabilities"}`)
	if got := c.ask(`{"execute": "query-version"}`); got != `{"return": `+version+`}` {
		t.Error(got)
	}
}

func TestNoCapabilities(t *testing.T) {
	c := newWorld(t, Config{}).connect()
	if got := c.line(); !strings.HasSuffix(got, `"capabilities": []}}`) {
		t.Error(got)
	}
	for _, name := range []string{"oob", "nonsense"} {
		want := `{"error": {"class": "GenericError", "desc": "Parameter 'enable[0]' does not accept value '` + name + `'"}}`
		if got := c.ask(`{"execute": "qmp_capabilities", "arguments": {"enable": ["` + name + `"]}}`); got != want {
			t.Error(got)
		}
	}
	if got := c.ask(`{"execute": "qmp_capabilities", "arguments": {"enable": []}}`); got != `{"return": {}}` {
		t.Error(got)
	}
	if got := c.ask(`{"exec-oob": "query-status"}`); !strings.Contains(got, "QMP input member 'exec-oob' is unexpected") {
		t.Error(got)
	}
}

func TestExecute(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	for _, text := range []string{`{"execute": "query-vms"}`, `{"execute": "query-vms", "arguments": {}}`} {
		if got := c.ask(text); got != `{"return": []}` {
			t.Errorf("%s: %s", text, got)
		}
	}
	if got := c.ask(`{"execute": "query-vmx"}`); got != `{"error": {"class": "CommandNotFound", "desc": "The command query-vmx has not been found"}}` {
		t.Error(got)
	}
}

func TestID(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	for _, id := range []string{
		`null`, `true`, `0`, `-1.50e3`, `12345678901234567890123`, `""`, `"a\\b"`, `[]`, `{}`, `{"k":[1,2,null]}`,
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000),
	} {
		if got := c.ask(`{"execute": "query-vms", "id": ` + id + `}`); got != `{"return": [], "id": `+id+`}` {
			t.Errorf("%s: %s", id, got)
		}
		if got := c.ask(`{"execute": "nope", "id": ` + id + `}`); !strings.HasSuffix(got, `}, "id": `+id+`}`) {
			t.Errorf("%s: %s", id, got)
		}
	}
	if got := c.ask(`{"execute": "query-vms"}`); got != `{"return": []}` {
		t.Error(got)
	}
}

// TestEveryCommandIsAnswered: with return or with error, and client.line says
// whether it is JSON.
func TestEveryCommandIsAnswered(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.dial()
	for name := range w.srv.commands {
		for _, args := range []string{``, `, "arguments": {}`, `, "arguments": {"bogus": "\u00e9"}`} {
			var got map[string]json.RawMessage
			if err := json.Unmarshal([]byte(strings.TrimPrefix(c.ask(`{"execute": "`+name+`"`+args+`}`), "\xff")), &got); err != nil {
				t.Error(err)
			}
			if _, ok := got["return"]; ok == (got["error"] != nil) || len(got) != 1 {
				t.Errorf("%s%s: %s", name, args, got)
			}
		}
	}
}

func TestSuccess(t *testing.T) {
	w := newWorld(t, Config{})
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	c := w.dial()
	if got := c.ask(`{"execute": "vm-delete", "arguments": {"uuid": "` + uuid1 + `"}}`); got != `{"return": {}}` {
		t.Error(got)
	}
}

func TestError(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	for text, want := range map[string]string{
		`[]`:             "QMP input must be a JSON object",
		`"str"`:          "QMP input must be a JSON object",
		`5`:              "QMP input must be a JSON object",
		`null`:           "QMP input must be a JSON object",
		`{"execute": 5}`: "QMP input member 'execute' must be a string",
		`{"execute": "query-status", "arguments": []}`: "QMP input member 'arguments' must be an object",
		`{"execute": "query-status", "bogus": 1}`:      "QMP input member 'bogus' is unexpected",
	} {
		if got := c.ask(text); got != `{"error": {"class": "GenericError", "desc": "`+want+`"}}` {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestErrorWithoutID(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	if got := c.ask(`{"id": 5, "execute": nonsense}`); got != `{"error": {"class": "GenericError", "desc": "JSON parse error, invalid keyword 'nonsense'"}}` {
		t.Error(got)
	}
}

// TestEventsStandBetweenAnswers: whatever happens meanwhile, client.line finds
// whole messages; and the events of a command come before its answer, as a QEMU's
// do.
func TestEventsStandBetweenAnswers(t *testing.T) {
	w := newWorld(t, Config{})
	cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
	c := w.dial()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			w.store.Do(&store.Intent{Kind: store.Put, Cell: cell, Name: fmt.Sprint(i), Data: "x"})
		}
	}()
	for range 50 {
		c.ask(`{"execute": "query-commands"}`)
	}
	<-done
	c.ask(`{"execute": "query-status"}`)
	c.send(`{"execute": "vm-create", "arguments": {"vm": {"uuid": "` + uuid2 + `"}}}`)
	if e := c.event(); e.Event != "VM_CREATED" {
		t.Errorf("%+v", e)
	}
	if got := c.line(); got != `{"return": {"uuid":"`+uuid2+`"}}` {
		t.Error(got)
	}
}

func TestEventFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		c := w.dial()
		cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
		want := `{"timestamp": {"seconds": 946684800, "microseconds": 0}, "event": "VM_CREATED", "data": {"rev":1,"uuid":"` + uuid1 + `"}}`
		if got := c.line(); got != want {
			t.Error(got)
		}
		w.do(store.Intent{Kind: store.Remove, Cell: cell, Space: 1, Name: w.do(store.Intent{Kind: store.Put, Cell: cell, Space: 1, Name: "k", By: "vm:u", As: "glenda"}).Entry.Name, By: "rob"})
		e := c.event()
		if e.Event != "METADATA_CHANGED" || fmt.Sprint(e.Data) != "map[as:glenda by:vm:u change:set key:k rev:2 space:internal uuid:"+uuid1+"]" {
			t.Errorf("%+v", e)
		}
	})
}

func TestSentinel(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	if got := c.ask("{\"execute\": [1, \"quit\xff{\"execute\": \"query-vms\"}"); got != `{"return": []}` {
		t.Error(got)
	}
	if got := c.ask("\xff\xff{\"execute\": \"query-vms\"}"); got != `{"return": []}` {
		t.Error(got)
	}
}

func TestGuestSyncDelimited(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	if got := c.ask("\xff{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": -9007199254740993}, \"id\": 1}"); got != "\xff"+`{"return": -9007199254740993, "id": 1}` {
		t.Error(got)
	}
	if got := c.ask(`{"execute": "guest-sync-delimited", "arguments": {"id": 1.5}}`); !strings.Contains(got, "Invalid parameter type for 'id', expected: integer") {
		t.Error(got)
	}
}

// TestExamples has the conversations of section 3, with commands and events of ours
// in place of QEMU's.
func TestExamples(t *testing.T) {
	w := newWorld(t, Config{Version: "v6.50.1"})
	c := w.connect()
	for _, ex := range []struct{ section, send, want string }{
		{"3.1", "", `{"QMP": {"version": {"qemu":{"major":6,"minor":50,"micro":1},"package":"meta9 v6.50.1"}, "capabilities": []}}`},
		{"3.2", `{ "execute": "qmp_capabilities" }`, `{"return": {}}`},
		{"3.3", `{ "execute": "trace", "arguments": { "enable": false } }`, `{"return": {}}`},
		{"3.4", `{ "execute": "query-vms", "id": "example" }`, `{"return": [], "id": "example"}`},
		{"3.5", `{ "execute": }`, `{"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}}`},
	} {
		c.send(ex.send)
		if got := c.line(); got != ex.want {
			t.Errorf("section %s: %s", ex.section, got)
		}
	}
	go w.srv.Shutdown() // 3.6
	if e := c.event(); e.Event != "SHUTDOWN" || fmt.Sprint(e.Data) != "map[guest:false reason:host-signal]" {
		t.Errorf("%+v", e)
	}
	if !c.atEnd() {
		t.Error("the connection goes on")
	}
}
