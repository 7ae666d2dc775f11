package server

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// TestVMs goes through the life of a VM.
func TestVMs(t *testing.T) {
	c := newWorld(t, Config{}).dial()
	upper := strings.ToUpper(uuid1)
	for _, step := range []struct{ execute, arguments, want string }{
		{"vm-create", `{"vm": {"uuid": "` + upper + `", "alias": "web", "ram": "1024", "customer_metadata": {"a": "1"}}}`, `{"return": {"uuid":"` + uuid1 + `"}}`},
		{"vm-create", `{"vm": {"uuid": "` + uuid1 + `"}}`, `"uuid: \"` + uuid1 + `\" is VM ` + uuid1 + `'s already"`},
		{"vm-create", `{"vm": {"uuid": "` + uuid2 + `", "alias": "web"}}`, `"alias: \"web\" is VM ` + uuid1 + `'s already"`},
		{"query-vms", `{}`, `{"return": [{"alias":"web","bytes":2,"keys":1,"rev":1,"state":"installed","uuid":"` + uuid1 + `"}]}`},
		{"vm-update", `{"uuid": "` + upper + `", "update": {"state": "running", "alias": null}}`, `{"return": {}}`},
		{"query-vms", `{"uuid": "` + upper + `"}`, `{"return": [{"bytes":2,"keys":1,"rev":`},
		{"query-vms", `{"uuid": "` + uuid1 + `"}`, `,"state":"running","uuid":"` + uuid1 + `"}]}`},
		{"query-vms", `{"uuid": "` + uuid2 + `"}`, `VM '` + uuid2 + `' not found`},
		{"query-vms", `{"uuid": "web"}`, `GenericError`},
		{"vm-update", `{"uuid": "` + uuid2 + `", "update": {}}`, `VM '` + uuid2 + `' not found`},
		{"vm-delete", `{"uuid": "` + uuid1 + `"}`, `{"return": {}}`},
		{"vm-delete", `{"uuid": "` + uuid1 + `"}`, `VM '` + uuid1 + `' not found`},
		{"query-vms", `{}`, `{"return": []}`},
	} {
		if got := c.ask(`{"execute": "` + step.execute + `", "arguments": ` + step.arguments + `}`); !strings.Contains(got, step.want) {
			t.Errorf("%s %s: %s", step.execute, step.arguments, got)
		}
	}
}

func TestMetadata(t *testing.T) {
	w := newWorld(t, Config{})
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	c := w.dial()
	binary := base64.StdEncoding.EncodeToString([]byte{0, 0xff, 'a'})
	for _, step := range []struct{ command, arguments, want string }{
		{"put", `"key": "a/b%.", "value": "x\ny"`, `{"return": {}}`},
		{"put", `"key": "..", "value": ""`, `{"return": {}}`},
		{"put", `"key": "bin", "value": "` + binary + `", "encoding": "base64"`, `{"return": {}}`},
		{"put", `"key": "root_pw", "value": "secret", "space": "internal"`, `{"return": {}}`},
		{"list", ``, `{"return": [{"name":"a/b%.","size":3},{"name":"..","size":0},{"name":"bin","size":3}]}`},
		{"list", `"space": "internal"`, `{"return": [{"name":"root_pw","size":6}]}`},
		{"get", `"key": "a/b%."`, `{"return": {"encoding":"utf8","value":"x\ny"}}`},
		{"get", `"key": "a/b%.", "encoding": "base64"`, `{"return": {"encoding":"base64","value":"eApi"}}`},
		{"get", `"key": ".."`, `{"return": {"encoding":"utf8","value":""}}`},
		{"get", `"key": "bin"`, `{"return": {"encoding":"base64","value":"` + binary + `"}}`},
		{"get", `"key": "bin", "encoding": "utf8"`, `Key 'bin' has a value that is not UTF-8`},
		{"get", `"key": "root_pw"`, `Key 'root_pw' not found`},
		{"get", `"key": "root_pw", "space": "internal"`, `"value":"secret"`},
		{"get", `"key": ""`, `GenericError`},
		{"delete", `"key": "bin"`, `{"return": {}}`},
		{"delete", `"key": "bin"`, `Key 'bin' not found`},
		{"put", `"key": "x\n", "value": ""`, `key: `},
		{"put", `"key": "x", "value": "` + strings.Repeat("v", 1<<20+1) + `"`, `bytes is the limit of a value`},
	} {
		arguments := `{"uuid": "` + uuid1 + `"`
		if step.arguments != "" {
			arguments += ", " + step.arguments
		}
		got := c.ask(`{"execute": "metadata-` + step.command + `", "arguments": ` + arguments + `}}`)
		if strings.Contains(step.want, `eApi`) {
			step.want = strings.Replace(step.want, "eApi", base64.StdEncoding.EncodeToString([]byte("x\ny")), 1)
		}
		if !strings.Contains(got, step.want) {
			t.Errorf("%s %.100s: %s", step.command, step.arguments, got)
		}
	}
}

func TestSessions(t *testing.T) {
	c := newWorld(t, Config{Sessions: func() []json.RawMessage { return []json.RawMessage{json.RawMessage(`{"id":1,"who":"admin"}`)} }}).dial()
	if got := c.ask(`{"execute": "query-sessions"}`); got != `{"return": [{"id":1,"who":"admin"}]}` {
		t.Error(got)
	}
	c = newWorld(t, Config{}).dial()
	if got := c.ask(`{"execute": "query-sessions"}`); got != `{"return": []}` {
		t.Error(got)
	}
}

func TestTrace(t *testing.T) {
	var calls []bool
	c := newWorld(t, Config{Trace: func(on bool) { calls = append(calls, on) }}).dial()
	c.ask(`{"execute": "trace", "arguments": {"enable": true}}`)
	c.ask(`{"execute": "trace", "arguments": {"enable": false}}`)
	if !slices.Equal(calls, []bool{true, false}) {
		t.Error(calls)
	}
}

func TestQuit(t *testing.T) {
	quit := make(chan struct{})
	w := newWorld(t, Config{Quit: func() { close(quit) }})
	c, other := w.dial(), w.dial()
	waiting := w.connect()
	waiting.line()
	if got := c.ask(`{"execute": "quit", "id": 1}`); got != `{"return": {}, "id": 1}` {
		t.Error(got)
	}
	<-quit
	go w.srv.Shutdown()
	for _, c := range []*client{c, other} {
		if e := c.event(); e.Event != "SHUTDOWN" || fmt.Sprint(e.Data) != "map[guest:false reason:host-qmp-quit]" {
			t.Errorf("%+v", e)
		}
	}
	for _, c := range []*client{c, other, waiting} {
		if !c.atEnd() {
			t.Error("a connection goes on")
		}
	}
}

// TestShutdownTellsTheRest: what is held back is told before the end.
func TestShutdownTellsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
		c := w.dial()
		go func() {
			for range 3 {
				w.do(store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "v"})
			}
			w.srv.Shutdown()
		}()
		for _, want := range []string{"METADATA_CHANGED", "METADATA_CHANGED", "SHUTDOWN"} {
			if e := c.event(); e.Event != want {
				t.Errorf("%+v, want %s", e, want)
			}
		}
	})
}

// TestShutdownOfStuckClients: who reads nothing delays the end by lastWrite at
// most.
func TestShutdownOfStuckClients(t *testing.T) {
	w := newWorld(t, Config{})
	for range 5 {
		w.dial()
	}
	w.connect() // does not even read the greeting
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	begin := time.Now()
	w.srv.Shutdown()
	if took := time.Since(begin); took > 10*lastWriteTime {
		t.Errorf("it took %v", took)
	}
}

// TestTooLarge: an error, then the end.
func TestTooLarge(t *testing.T) {
	c := newWorld(t, Config{Limit: 1000}).dial()
	if got := c.ask(`{"execute": "` + strings.Repeat("x", 1000) + `"}`); got != `{"error": {"class": "GenericError", "desc": "JSON token size limit exceeded: 1000 bytes"}}` {
		t.Error(got)
	}
	if !c.atEnd() {
		t.Error("the connection goes on")
	}
}

// TestHalfCommands: what a client sends in pieces or leaves unfinished is no
// trouble for the next.
func TestHalfCommands(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.dial()
	for _, part := range []string{`{"execute"`, `:"query-`, `vms"}{"exec`, `ute":"query-vms"}` + "\n\n  "} {
		if _, err := io.WriteString(c.conn, part); err != nil {
			t.Fatal(err)
		}
		for range strings.Count(part, "}") {
			if got := c.line(); got != `{"return": []}` {
				t.Error(got)
			}
		}
	}
	if _, err := io.WriteString(c.conn, `{"execute":"quit"`); err != nil {
		t.Fatal(err)
	}
	c.conn.Close()
	if got := w.dial().ask(`{"execute": "query-vms"}`); got != `{"return": []}` {
		t.Error(got)
	}
}

// TestManyClients: each has its own negotiation and its own events.
func TestManyClients(t *testing.T) {
	w := newWorld(t, Config{})
	const n = 50
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = w.dial()
	}
	w.vm(`{"uuid":"` + uuid1 + `"}`)
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() {
			if e := c.event(); e.Event != "VM_CREATED" {
				t.Errorf("%+v", e)
			}
			for j := range 20 {
				want := fmt.Sprintf("\xff{\"return\": %d, \"id\": %d}", i*100+j, j)
				if got := c.ask(fmt.Sprintf(`{"execute": "guest-sync-delimited", "arguments": {"id": %d}, "id": %d}`, i*100+j, j)); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
		})
	}
	running.Wait()
}

// broken is an engine whose disk fails.
type broken struct{ store.Engine }

func (broken) Apply(groups []store.Group) []error {
	return store.AllFailed(groups, errors.New("the disk is on fire"))
}

func TestStoreFailed(t *testing.T) {
	st, err := store.Open(broken{store.NewMemory()}, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: st, srv: New(Config{Tree: fs.New(st, fs.Config{})})}
	defer st.Close()
	defer w.srv.Shutdown()
	c := w.dial()
	if got := c.ask(`{"execute": "vm-create", "arguments": {"vm": {"uuid": "` + uuid1 + `"}}}`); !strings.Contains(got, "the disk is on fire") {
		t.Error(got)
	}
	got := c.ask(`{"execute": "query-status"}`)
	if !strings.Contains(got, `"running":false`) || !strings.Contains(got, `"status":"io-error"`) || !strings.Contains(got, "__org.meta9_error") {
		t.Error(got)
	}
	c.conn.Close()
}

// TestSchema: every command is there, every name that is used is explained once,
// and the numbers lead to the right types.
func TestSchema(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.dial()
	var got struct{ Return []map[string]any }
	if err := json.Unmarshal([]byte(c.ask(`{"execute": "query-qmp-schema"}`)), &got); err != nil {
		t.Fatal(err)
	}
	known := map[string]map[string]any{}
	for _, i := range got.Return {
		name := i["name"].(string)
		if known[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		known[name] = i
	}
	for name := range w.srv.commands {
		if i := known[name]; i == nil || i["meta-type"] != "command" {
			t.Errorf("%s: %v", name, i)
		}
	}
	for _, e := range events {
		if i := known[e.name]; i == nil || i["meta-type"] != "event" {
			t.Errorf("%s: %v", e.name, i)
		}
	}
	checkUses(t, known)
	put := known[known["metadata-put"]["arg-type"].(string)]
	var members []string
	for _, m := range put["members"].([]any) {
		m := m.(map[string]any)
		_, optional := m["default"]
		members = append(members, fmt.Sprint(m["name"], " ", known[m["type"].(string)]["meta-type"], " ", optional))
	}
	if want := []string{"uuid builtin false", "key builtin false", "space enum true", "value builtin false", "encoding enum true"}; !slices.Equal(members, want) {
		t.Errorf("metadata-put: %q", members)
	}
}

// checkUses looks for the types that others name.
func checkUses(t *testing.T, known map[string]map[string]any) {
	t.Helper()
	for name, i := range known {
		for _, use := range []string{"arg-type", "ret-type", "element-type"} {
			if to, ok := i[use]; ok && known[to.(string)] == nil {
				t.Errorf("%s: %s %v", name, use, to)
			}
		}
		members, _ := i["members"].([]any)
		for _, m := range members {
			if to, ok := m.(map[string]any)["type"]; ok && known[to.(string)] == nil {
				t.Errorf("%s: member %v", name, m)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]string{
		"v1.2.3":    `{"qemu":{"major":1,"minor":2,"micro":3},"package":"meta9 v1.2.3"}`,
		"(devel)":   `{"qemu":{"major":0,"minor":0,"micro":0},"package":"meta9 (devel)"}`,
		"v2.0.0-é1": `{"qemu":{"major":2,"minor":0,"micro":0},"package":"meta9 v2.0.0-\u00E91"}`,
	} {
		if got := string(newVersion(text).json()); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// FuzzServer: whatever a client sends, what it gets are whole answers, and after a
// sentinel the next command works.
func FuzzServer(f *testing.F) {
	for _, s := range []string{`{"execute":"query-vms"}`, `{"execute":"vm-create","arguments":{"vm":{}}}`, "{\x00}", strings.Repeat("[", 2000), `{"execute":"metadata-get","arguments":{"uuid":"x","key":"k"},"id":[`, "{\"a\": \"\x80\xfe"} {
		f.Add([]byte(s))
	}
	w := newWorld(f, Config{Limit: 64 << 10})
	f.Fuzz(func(t *testing.T, in []byte) {
		c := (&world{t, w.store, w.srv}).dial()
		c.send(string(in) + "\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":4711}}`)
		for {
			line := c.line()
			if strings.HasPrefix(line, "\xff") && strings.Contains(line, "4711") || strings.Contains(line, "token size limit") {
				return
			}
		}
	})
}

// TestTransaction: several keys at once or none; what does not hold is told with the key.
func TestTransaction(t *testing.T) {
	w := newWorld(t, Config{})
	w.vm(`{"uuid":"` + uuid1 + `","customer_metadata":{"k":"v"}}`)
	c := w.dial()
	txn := func(text string) string {
		return c.ask(`{"execute": "metadata-txn", "arguments": {"uuid": "` + uuid1 + `", "txn": ` + text + `}}`)
	}
	got := txn(`{"if": [{"key": "k", "value": "v"}], "do": [{"put": "k", "value": "w"}, {"put": "a", "base64": "AAE="}]}`)
	if !strings.Contains(got, `{"return": {"rev":`) || !strings.Contains(got, `"done":[{"key":"k","version":`) {
		t.Errorf("a transaction: %s", got)
	}
	for text, want := range map[string]string{
		`{"if": [{"key": "k", "value": "v"}], "do": [{"remove": "a"}]}`: `the key \"k\" is at version `,
		`{"do": [{"remove": "a"}, {"remove": "none"}]}`:                 `do[1], key \"none\"`,
		`{"do": [{"remove": "a"}, {"del": "k"}]}`:                       `do[1]: one of`,
		`[]`: `Invalid parameter type for 'txn', expected: object`,
	} {
		if got := txn(text); !strings.Contains(got, "GenericError") || !strings.Contains(got, want) {
			t.Errorf("%s: %s", text, got)
		}
	}
	m := w.store.Cell(uuid1).VM()
	if k, a := m.Get(vm.Keys, "k"), m.Get(vm.Keys, "a"); k == nil || k.Value != "w" || a == nil || a.Value != "\x00\x01" || k.Muid != "qmp" {
		t.Errorf("k is %+v, a %+v", k, a)
	}
}
