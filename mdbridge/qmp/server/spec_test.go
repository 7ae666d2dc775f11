package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"meta9/fs/store"
)

// sections is where each rule of the specification is tested: the rule in its
// words, and the test. "n/a" stands where there is nothing that could be tested.
var sections = []struct{ section, rule, test string }{
	{"2", "The protocol is always encoded in UTF-8", "TestInputIsUTF8"},
	{"2", "the server will reply using only the strict ASCII subset", "TestReplyIsASCII"},
	{"2", "in real protocol usage they can be in ANY order", "TestMembersInAnyOrder"},
	{"2", "Repeating a key within a json-object gives unpredictable results", "TestRepeatedKey"},
	{"2", "the server will accept an extension of 'single-quoted' strings in place of the usual \"double-quoted\" json-string", "TestSingleQuotes"},
	{"2", "both input forms of strings understand an additional escape sequence of \"\\'\" for a single quote", "TestSingleQuotes"},
	{"2", "The server will only use double quoting on output", "TestSingleQuotes"},
	{"2.1.1", "All interactions transmitted by the Server are json-objects, always terminating with CRLF", "TestCRLF"},
	{"2.1.2", "All json-objects members are mandatory when not specified otherwise", "TestMembersAreMandatory"},
	{"2.2", "Right when connected the Server will issue a greeting message", "TestGreeting"},
	{"2.2", "The \"version\" member contains the Server's version information (the format is the same of the query-version command)", "TestGreeting"},
	{"2.2", "The \"capabilities\" member specify the availability of features beyond the baseline specification", "TestNoCapabilities"},
	{"2.2.1", "no server or client capability strings have been defined", "TestNoCapabilities"},
	{"2.3", "The \"execute\" member identifies the command to be executed by the Server", "TestExecute"},
	{"2.3", "it is optional when no arguments are required", "TestExecute"},
	{"2.3", "it is optional and will be part of the response if provided", "TestID"},
	{"2.3", "The \"id\" member can be any json-value", "TestID"},
	{"2.4", "There are two possible responses which the Server will issue as the result of a command execution: success or error", "TestEveryCommandIsAnswered"},
	{"2.4.1", "it is an empty json-object if the command does not return data", "TestSuccess"},
	{"2.4.1", "The \"id\" member contains the transaction identification associated with the command execution if issued by the Client", "TestID"},
	{"2.4.2", "The \"class\" member contains the error class name", "TestError"},
	{"2.4.2", "The \"desc\" member is a human-readable error message", "TestError"},
	{"2.4.2", "in these cases the \"id\" member will not be part of the error response, even if provided by the client", "TestErrorWithoutID"},
	{"2.5", "when not in the middle of any other response", "TestEventsStandBetweenAnswers"},
	{"2.5", "The \"event\" member contains the event's name", "TestEventFormat"},
	{"2.5", "The \"data\" member contains event specific data", "TestEventFormat"},
	{"2.5", "The \"timestamp\" member contains the exact time of when the event occurred in the Server", "TestEventFormat"},
	{"2.5", "if there is a failure to retrieve host time, both members of the timestamp will be set to -1", "n/a"}, // Go's clock does not fail
	{"2.5", "Some events are rate-limited to at most one per second", "TestRateLimit"},
	{"2.5", "If additional \"similar\" events arrive within one second, all but the last one are dropped, and the last one is delayed", "TestRateLimit"},
	{"2.5", "\"Similar\" normally means same event type", "TestSimilar"},
	{"2.6", "then the Server will reset its state and discard all pending data prior to the sentinel", "TestSentinel"},
	{"2.6", "the Server will send a raw 0xFF sentinel byte prior to its response", "TestGuestSyncDelimited"},
	{"3", "This section provides some examples of real QMP usage", "TestExamples"},
	{"4", "When a Client successfully establishes a connection, the Server is in Capabilities Negotiation mode", "TestNegotiationMode"},
	{"4", "In this mode only the qmp_capabilities command is allowed to run, all other commands will return the CommandNotFound error", "TestNegotiationMode"},
	{"4", "Asynchronous messages are not delivered either", "TestNoEventsBeforeNegotiation"},
	{"4", "When the qmp_capabilities command is issued, and if it does not return an error, the Server enters in Command mode", "TestNegotiationRefused"},
	{"4", "all commands (except qmp_capabilities) are allowed and asynchronous messages are delivered", "TestCommandMode"},
	{"5", "All protocol changes or new features which modify the protocol format in an incompatible way are disabled by default and will be advertised by the capabilities array", "TestNoCapabilities"},
	{"5", "The QMP Server performs a type check on the arguments to a command", "TestTypeCheck"},
	{"5", "It generates an error if a value does not have the expected type for its key, or if it does not understand a key that the Client included", "TestTypeCheck"},
	{"5", "when such validation errors occur, they will be reported before the command generated any side effect", "TestCheckedBeforeAnyEffect"},
	{"5", "Any command or member name beginning with \"x-\" is deemed experimental", "TestNames"},
	{"5", "the Server does guarantee to send valid JSON", "TestEveryCommandIsAnswered"},
	{"6", "QMP reserves JSON object member names beginning with '__' (double underscore) for downstream use", "TestNames"},
	{"6", "Downstream must not change the server greeting (section 2.2) other than to offer additional capabilities", "TestGreeting"},
}

// TestSections holds the table to the specification and to the tests.
func TestSections(t *testing.T) {
	spaces := regexp.MustCompile(`\s+`)
	spec, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "shared", "reference", "qmp-spec-2017.txt"))
	text := spaces.ReplaceAllString(strings.ReplaceAll(string(spec), "\n+", " "), " ")
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
			t.Errorf("section %s: there is no %s", s.section, s.test)
		}
		if err == nil && !strings.Contains(text, s.rule) {
			t.Errorf("section %s does not say %q", s.section, s.rule)
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
		w.do(store.Intent{Kind: store.Remove, Cell: cell, Space: 1, Name: w.do(store.Intent{Kind: store.Put, Cell: cell, Space: 1, Name: "k", By: "glenda"}).Entry.Name, By: "rob"})
		e := c.event()
		if e.Event != "METADATA_CHANGED" || fmt.Sprint(e.Data) != "map[by:glenda change:set key:k rev:2 space:internal uuid:"+uuid1+"]" {
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

// TestExamples replays section 3, with commands of ours in place of QEMU's.
func TestExamples(t *testing.T) {
	w := newWorld(t, Config{Version: "v6.50.1"})
	c := w.connect()
	for _, ex := range []struct{ send, want string }{
		{"", `{"QMP": {"version": {"qemu":{"major":6,"minor":50,"micro":1},"package":"meta9 v6.50.1"}, "capabilities": []}}`},
		{`{ "execute": "qmp_capabilities" }`, `{"return": {}}`},
		{`{ "execute": "trace", "arguments": { "enable": false } }`, `{"return": {}}`},
		{`{ "execute": "query-vms", "id": "example" }`, `{"return": [], "id": "example"}`},
		{`{ "execute": }`, `{"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}}`},
	} {
		c.send(ex.send)
		if got := c.line(); got != ex.want {
			t.Errorf("%s: %s", ex.send, got)
		}
	}
	go w.srv.Shutdown()
	if e := c.event(); e.Event != "SHUTDOWN" || fmt.Sprint(e.Data) != "map[guest:false reason:host-signal]" {
		t.Errorf("%+v", e)
	}
	if !c.atEnd() {
		t.Error("the connection goes on")
	}
}
