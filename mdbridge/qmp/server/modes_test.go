package server

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

const expecting = `{"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}`

func TestNegotiationMode(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.connect()
	c.line()
	for name := range w.srv.commands {
		if name == "qmp_capabilities" {
			continue
		}
		if got := c.ask(`{"execute": "` + name + `", "id": 7}`); got != expecting+`, "id": 7}` {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := c.ask(`{"execute": "nonsense"}`); got != expecting+"}" {
		t.Error(got)
	}
	if got := c.ask(`{"execute": 5}`); !strings.Contains(got, "GenericError") {
		t.Error(got)
	}
}

func TestNoEventsBeforeNegotiation(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.connect()
	c.line()
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	c.send(`{"execute": "nope"}{"execute": "qmp_capabilities"}`)
	if got := c.line(); got != expecting+"}" {
		t.Error(got)
	}
	if got := c.line(); got != `{"return": {}}` {
		t.Error(got)
	}
	w.vm(`{"uuid":"` + uuid2 + `"}`)
	if e := c.event(); e.Data["uuid"] != uuid2 {
		t.Errorf("%+v", e)
	}
}

func TestNegotiationRefused(t *testing.T) {
	c := newWorld(t, Config{}).connect()
	c.line()
	for _, args := range []string{`{"enable": ["x"]}`, `{"enable": "x"}`, `{"enable": [1]}`, `{"disable": []}`} {
		if got := c.ask(`{"execute": "qmp_capabilities", "arguments": ` + args + `}`); !strings.Contains(got, "GenericError") {
			t.Errorf("%s: %s", args, got)
		}
		if got := c.ask(`{"execute": "query-vms"}`); got != expecting+"}" {
			t.Error(got)
		}
	}
}

func TestCommandMode(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.dial()
	if got := c.ask(`{"execute": "qmp_capabilities"}`); got != `{"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}` {
		t.Error(got)
	}
	if got := c.ask(`{"execute": "query-vms"}`); got != `{"return": []}` {
		t.Error(got)
	}
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	if e := c.event(); e.Event != "VM_CREATED" {
		t.Errorf("%+v", e)
	}
}

func TestTypeCheck(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	for text, want := range map[string]string{
		`"trace", "arguments": {"enable": 1}`:                                                     "Invalid parameter type for 'enable', expected: boolean",
		`"trace", "arguments": {"enable": "true"}`:                                                "Invalid parameter type for 'enable', expected: boolean",
		`"trace", "arguments": {"enable": true, "x": 1}`:                                          "Parameter 'x' is unexpected",
		`"query-status", "arguments": {"x": 1}`:                                                   "Parameter 'x' is unexpected",
		`"vm-delete", "arguments": {"uuid": null}`:                                                "Invalid parameter type for 'uuid', expected: string",
		`"vm-delete", "arguments": {"uuid": {}}`:                                                  "Invalid parameter type for 'uuid', expected: string",
		`"vm-create", "arguments": {"vm": []}`:                                                    "Invalid parameter type for 'vm', expected: object",
		`"guest-sync-delimited", "arguments": {"id": 99999999999999999999}`:                       "Invalid parameter type for 'id', expected: integer",
		`"metadata-list", "arguments": {"uuid": "x", "space": "sdc"}`:                             "Parameter 'space' does not accept value 'sdc'",
		`"metadata-list", "arguments": {"uuid": "x", "space": 1}`:                                 "Invalid parameter type for 'space', expected: string",
		`"metadata-put", "arguments": {"uuid": "x", "key": "k", "value": "v", "encoding": "hex"}`: "Parameter 'encoding' does not accept value 'hex'",
		`"vm-create", "arguments": {"vm": {"uuid": 5}}`:                                           "uuid: must be a UUID such as 01b2c898-945f-11e1-a523-af1afbe22822, not 5",
		`"vm-delete", "arguments": {"uuid": "` + uuid2 + `"}`:                                     "VM '" + uuid2 + "' not found",
	} {
		if got := c.ask(`{"execute": ` + text + `}`); got != `{"error": {"class": "GenericError", "desc": "`+want+`"}}` {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// TestCheckedBeforeAnyEffect: what is wrong with one argument is told before
// another has done anything.
func TestCheckedBeforeAnyEffect(t *testing.T) {
	w := newWorld(t, Config{Quit: func() { t.Error("it quits") }, Trace: func(bool) { t.Error("it traces") }})
	w.vm(`{"uuid":"` + uuid1 + `","customer_metadata":{"k":"v"}}`)
	before := w.store.Rev()
	c := w.dial()
	for _, text := range []string{
		`"quit", "arguments": {"x": 1}`,
		`"trace", "arguments": {"enable": true, "x": 1}`,
		`"vm-create", "arguments": {"vm": {"uuid": "` + uuid2 + `"}, "x": 1}`,
		`"vm-create", "arguments": {"vm": {"uuid": "` + uuid2 + `", "ram": {}}}`,
		`"vm-create", "arguments": {"vm": {"uuid": "` + uuid1 + `"}}`,
		`"vm-update", "arguments": {"uuid": "` + uuid1 + `", "update": {"alias": "a", "ram": {}}}`,
		`"vm-update", "arguments": {"uuid": "` + uuid1 + `", "update": {"alias": "a"}, "x": null}`,
		`"vm-delete", "arguments": {"uuid": "` + uuid1 + `", "x": []}`,
		`"metadata-delete", "arguments": {"uuid": "` + uuid1 + `", "key": "k", "space": "x"}`,
		`"metadata-put", "arguments": {"uuid": "` + uuid1 + `", "key": "k", "value": "?", "encoding": "base64"}`,
		`"metadata-put", "arguments": {"uuid": "` + uuid1 + `", "key": " k", "value": ""}`,
	} {
		if got := c.ask(`{"execute": ` + text + `}`); !strings.Contains(got, "GenericError") {
			t.Errorf("%s: %s", text, got)
		}
	}
	if w.store.Rev() != before {
		t.Error("something was changed")
	}
}

// TestNames: what is QEMU's has no members of ours but such as are called so, and
// nothing is called as if it were an experiment.
func TestNames(t *testing.T) {
	w := newWorld(t, Config{})
	for name, cmd := range w.srv.commands {
		for _, typ := range []*typ{cmd.args, cmd.ret} {
			for _, m := range typ.members {
				if strings.HasPrefix(m.name, "x-") {
					t.Errorf("%s: %s", name, m.name)
				}
			}
		}
		if strings.HasPrefix(name, "x-") {
			t.Error(name)
		}
	}
	c := w.dial()
	for name, qemus := range map[string][]string{
		"query-status":  {"status", "running", "singlestep"},
		"query-version": {"qemu", "package"},
	} {
		var got struct{ Return map[string]any }
		if err := json.Unmarshal([]byte(c.ask(`{"execute": "`+name+`"}`)), &got); err != nil {
			t.Fatal(err)
		}
		for member := range got.Return {
			if !slices.Contains(qemus, member) && !strings.HasPrefix(member, "__org.meta9_") {
				t.Errorf("%s: %s", name, member)
			}
		}
	}
}
