package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"meta9/mdbridge/qmp"
	"meta9/mdbridge/qmp/qmptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}`

// request is what a client sent.
type request struct {
	Execute   any
	OOB       any `json:"exec-oob"`
	Arguments json.RawMessage
	ID        json.RawMessage
}

// peer is the server's end of a connection, in the hands of a test.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *json.Decoder
}

func (p *peer) say(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, text+"\r\n"); err != nil {
		p.t.Errorf("server: %v", err)
	}
}

// next is the next command.
func (p *peer) next() request {
	p.t.Helper()
	var r request
	if err := p.in.Decode(&r); err != nil {
		p.t.Errorf("server: %v", err)
	}
	return r
}

// agree lets the negotiation happen.
func (p *peer) agree() {
	p.t.Helper()
	p.say(greeting)
	r := p.next()
	if r.Execute != "qmp_capabilities" || string(r.Arguments) != `{"enable":["oob"]}` {
		p.t.Errorf("negotiation: %+v", r)
	}
	p.say(fmt.Sprintf(`{"return": {}, "id": %s}`, r.ID))
}

// connect makes both ends of a connection; serve is the server's.
func connect(t *testing.T, cfg qmp.Config, serve func(p *peer)) (*qmp.Client, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	var running sync.WaitGroup
	running.Go(func() { serve(&peer{t, theirs, json.NewDecoder(bufio.NewReader(theirs))}) })
	t.Cleanup(func() {
		_ = theirs.Close()
		running.Wait()
	})
	c, err := qmp.New(t.Context(), ours, cfg)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func dial(t *testing.T, cfg qmp.Config, serve func(p *peer)) *qmp.Client {
	t.Helper()
	c, err := connect(t, cfg, func(p *peer) {
		p.agree()
		serve(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGreeting(t *testing.T) {
	c := dial(t, qmp.Config{}, func(*peer) {})
	g := c.Greeting()
	if !strings.Contains(string(g.Version), `"major":7`) || !slices.Equal(g.Capabilities, []string{"oob"}) {
		t.Errorf("%s %v", g.Version, g.Capabilities)
	}
}

// TestGreetingUnknownMembers: a client ignores what it does not know (section 5),
// and enables only what is offered.
func TestGreetingUnknownMembers(t *testing.T) {
	_, err := connect(t, qmp.Config{}, func(p *peer) {
		p.say(`{"new": 1, "QMP": {"capabilities": [], "x": {}, "version": {}}}`)
		r := p.next()
		if r.Arguments != nil {
			t.Errorf("enabled %s", r.Arguments)
		}
		p.say(fmt.Sprintf(`{"id": %s, "new": [1], "return": {"x": 1}}`, r.ID))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoGreeting(t *testing.T) {
	for _, tt := range []struct{ name, says, want string }{
		{"nothing", "", "connection ended"},
		{"half", `{"QMP": {`, "in the middle of a message"},
		{"another protocol", "SSH-2.0-OpenSSH_9.2", "no greeting: JSON parse error"},
		{"another protocol, that begins with a number", "220 mail.example ESMTP", "this is not QMP"},
		{"another message", `{"return": {}}`, "this is not QMP"},
		{"another form", `{"QMP": 5}`, "no greeting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := connect(t, qmp.Config{}, func(p *peer) {
				go io.Copy(io.Discard, p.conn)
				if tt.says != "" {
					p.say(tt.says)
				}
				p.conn.Close()
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestNegotiationRefused(t *testing.T) {
	_, err := connect(t, qmp.Config{}, func(p *peer) {
		p.say(greeting)
		p.say(fmt.Sprintf(`{"id": %s, "error": {"class": "GenericError", "desc": "no"}}`, p.next().ID))
	})
	if err == nil || !strings.Contains(err.Error(), "GenericError: no") {
		t.Errorf("error %v", err)
	}
}

// TestGreetingTime: a socket that is another client's, or a QEMU that hangs, says
// nothing.
func TestGreetingTime(t *testing.T) {
	_, err := connect(t, qmp.Config{GreetTime: 20 * time.Millisecond}, func(*peer) {})
	if err == nil || !strings.Contains(err.Error(), "no greeting within 20ms") {
		t.Errorf("error %v", err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := qmp.New(ctx, ours, qmp.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestDo(t *testing.T) {
	c := dial(t, qmp.Config{}, func(p *peer) {
		for _, tt := range []struct{ execute, arguments string }{
			{"query-name", ""},
			{"set", `{"a":"\u00E9"}`},
			{"eject", ""},
		} {
			r := p.next()
			if r.Execute != tt.execute || string(r.Arguments) != tt.arguments {
				t.Errorf("got %+v, want %+v", r, tt)
			}
			if tt.execute == "eject" {
				p.say(fmt.Sprintf(`{"id": %s, "error": {"class": "DeviceNotFound", "desc": "Device 'nope' not found"}}`, r.ID))
				continue
			}
			p.say(fmt.Sprintf(`{"return": {"name": "web"}, "id": %s}`, r.ID))
		}
	})
	for _, cmd := range []qmp.Command{{Name: "query-name"}, {Name: "set", Arguments: map[string]string{"a": "é"}}} {
		ret, err := c.Do(t.Context(), cmd)
		if err != nil || string(ret) != `{"name":"web"}` {
			t.Errorf("%s: %s %v", cmd.Name, ret, err)
		}
	}
	_, err := c.Do(t.Context(), qmp.Command{Name: "eject"})
	var failed *qmp.Error
	if !errors.As(err, &failed) || *failed != (qmp.Error{Class: "DeviceNotFound", Desc: "Device 'nope' not found"}) {
		t.Errorf("error %v", err)
	}
}

// TestOutOfOrder: each call gets its own answer, whenever it comes.
func TestOutOfOrder(t *testing.T) {
	const calls = 20
	c := dial(t, qmp.Config{}, func(p *peer) {
		var all []request
		for range calls {
			all = append(all, p.next())
		}
		p.say(`{"return": "nobody's", "id": 4711}`)
		p.say(`{"return": "nobody's", "id": "x"}`)
		for _, r := range slices.Backward(all) {
			p.say(fmt.Sprintf(`{"return": %s, "id": %s}`, r.Arguments, r.ID))
		}
	})
	var running sync.WaitGroup
	for i := range calls {
		running.Go(func() {
			ret, err := c.Do(t.Context(), qmp.Command{Name: "x", Arguments: map[string]int{"n": i}})
			if want := fmt.Sprintf(`{"n":%d}`, i); err != nil || string(ret) != want {
				t.Errorf("%s, want %s: %v", ret, want, err)
			}
		})
	}
	running.Wait()
}

func TestEvents(t *testing.T) {
	got := make(chan qmp.Event, 2)
	c := dial(t, qmp.Config{OnEvent: func(e qmp.Event) { got <- e }}, func(p *peer) {
		r := p.next()
		p.say(`{"timestamp": {"seconds": 1258551470, "microseconds": 802384}, "event": "POWERDOWN"}`)
		p.say(`{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "RESET", "data": {"guest": true}}`)
		p.say(fmt.Sprintf(`{"return": {}, "id": %s}`, r.ID))
	})
	if _, err := c.Do(t.Context(), qmp.Command{Name: "stop"}); err != nil {
		t.Fatal(err)
	}
	want := []qmp.Event{
		{Name: "POWERDOWN", Timestamp: qmp.Stamp{Seconds: 1258551470, Microseconds: 802384}},
		{Name: "RESET", Data: json.RawMessage(`{"guest":true}`), Timestamp: qmp.Stamp{Seconds: -1, Microseconds: -1}},
	}
	if diff := cmp.Diff(want, []qmp.Event{<-got, <-got}); diff != "" {
		t.Error(diff)
	}
}

// TestEnds: whoever waits learns how it ended, and nobody waits after that.
func TestEnds(t *testing.T) {
	for _, tt := range []struct{ name, says, want string }{
		{"closed", "", "the connection ended"},
		{"in the middle of an answer", `{"return": {"a": `, "query-status: no answer: the connection ended in the middle of a message"},
		{"too large", `{"return": "` + strings.Repeat("a", 2000) + `", "id": 2}`, "larger than the limit"},
		{"no JSON", "}", "JSON parse error, expecting value"},
		{"no object", "5", "not QMP"},
		{"an error that is nobody's", `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`, "not understood: GenericError: JSON parse error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, qmp.Config{Limit: 1000}, func(p *peer) {
				p.next()
				io.WriteString(p.conn, tt.says+" ")
				p.conn.Close()
			})
			_, err := c.Do(t.Context(), qmp.Command{Name: "query-status"})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
			<-c.Done()
			if _, err := c.Do(t.Context(), qmp.Command{Name: "stop"}); err == nil || !strings.HasPrefix(err.Error(), "stop: not sent: ") {
				t.Errorf("later: %v", err)
			}
			if c.Err() == nil {
				t.Error("no error is kept")
			}
		})
	}
}

// TestAnswerThenEnd: the last answer is not lost by the end that follows it.
func TestAnswerThenEnd(t *testing.T) {
	for range 200 {
		c := dial(t, qmp.Config{}, func(p *peer) {
			p.say(fmt.Sprintf(`{"return": {}, "id": %s}`, p.next().ID))
			p.conn.Close()
		})
		if _, err := c.Do(t.Context(), qmp.Command{Name: "quit"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestContext: a call ends with its context, and the connection serves the next.
func TestContext(t *testing.T) {
	asked := make(chan struct{})
	c := dial(t, qmp.Config{}, func(p *peer) {
		slow := p.next()
		close(asked)
		quick := p.next()
		p.say(fmt.Sprintf(`{"return": "slow", "id": %s}`, slow.ID))
		p.say(fmt.Sprintf(`{"return": "quick", "id": %s}`, quick.ID))
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Do(ctx, qmp.Command{Name: "slow"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if ret, err := c.Do(t.Context(), qmp.Command{Name: "quick"}); err != nil || string(ret) != `"quick"` {
		t.Errorf("%s %v", ret, err)
	}
	if _, err := c.Do(ctx, qmp.Command{Name: "never"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestSentInPart: what was sent in part cannot be taken back.
func TestSentInPart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, qmp.Config{}, func(p *peer) {
		p.conn.Read(make([]byte, 5))
		cancel()
	})
	if _, err := c.Do(ctx, qmp.Command{Name: "stop"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-c.Done()
	if err := c.Err(); !strings.Contains(err.Error(), "sent in part") {
		t.Errorf("ended by %v", err)
	}
}

func TestPassRefuses(t *testing.T) {
	c := dial(t, qmp.Config{}, func(*peer) {})
	for text, want := range map[string]string{
		"":                "not a command",
		"{":               "not a command: the connection ended in the middle",
		"[1]":             "must be a JSON object",
		"{nil}":           "invalid keyword",
		`{"a":1} {"b":1}`: "one at a time",
	} {
		if _, err := c.Pass(t.Context(), []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestVectors lets a server say again what a QEMU said to each command, with the
// client's own ids, and looks at what reaches the caller.
func TestVectors(t *testing.T) {
	replayed := 0
	for _, name := range []string{"qmp-1.txt", "qmp-2.txt"} {
		for _, ex := range qmptest.Vectors(t, filepath.Join("testdata", name)) {
			if !strings.HasPrefix(ex.Send, "{") || len(ex.Recv) == 0 || !one(ex) {
				continue
			}
			replayed++
			replay(t, name, ex)
		}
	}
	if replayed < 60 {
		t.Errorf("only %d exchanges were replayed", replayed)
	}
}

// one tells whether the exchange is one command, with one answer that it got for
// what it is.
func one(ex qmptest.Exchange) bool {
	d := qmp.NewDecoder(strings.NewReader(ex.Send), 1<<20)
	_, err := d.Next()
	_, end := d.Next()
	answers := slices.DeleteFunc(slices.Clone(ex.Recv), func(s string) bool { return strings.Contains(s, `"event"`) })
	return err == nil && end == io.EOF && len(answers) == 1 && strings.HasPrefix(answers[0], "{") && !strings.Contains(answers[0], "{\"QMP\"")
}

func replay(t *testing.T, name string, ex qmptest.Exchange) {
	t.Helper()
	events := make(chan qmp.Event)
	c := dial(t, qmp.Config{OnEvent: func(e qmp.Event) { events <- e }}, func(p *peer) {
		id := p.next().ID
		for _, line := range ex.Recv {
			p.say(withID(t, line, id))
		}
	})
	answered := make(chan map[string]any, 1)
	go func() {
		got, err := c.Pass(t.Context(), []byte(ex.Send))
		var failed *qmp.Error
		if err != nil && !errors.As(err, &failed) {
			t.Errorf("%s:%d: %v", name, ex.Line, err)
		}
		answered <- object(t, string(got))
	}()
	for _, line := range ex.Recv {
		want, got := object(t, line), map[string]any(nil)
		if want["event"] != nil {
			got = eventObject(t, <-events)
		} else {
			got = <-answered
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:%d: %s", name, ex.Line, diff)
		}
	}
}

func eventObject(t *testing.T, e qmp.Event) map[string]any {
	t.Helper()
	return object(t, string(qmp.AppendEvent(nil, &e)))
}

func object(t *testing.T, text string) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return o
}

// withID is an answer as it would be under another id.
func withID(t *testing.T, line string, id json.RawMessage) string {
	t.Helper()
	o := object(t, line)
	if o["event"] != nil {
		return line
	}
	o["id"] = id
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestUnasked: only the answer to a Pass may be large, also when its caller waits no more.
func TestUnasked(t *testing.T) {
	long := strings.Repeat("a", 20_000)
	cfg := qmp.Config{Unasked: 1000}
	c := dial(t, cfg, func(p *peer) {
		for range 2 {
			fmt.Fprintf(p.conn, `{"return": %q, "id": %s}`+"\r\n", long, p.next().ID)
		}
	})
	if ret, err := c.Pass(t.Context(), []byte(`{"execute": "long"}`)); err != nil || len(ret) < len(long) {
		t.Errorf("%d bytes, %v", len(ret), err)
	}
	if _, err := c.Do(t.Context(), qmp.Command{Name: "query-status"}); err == nil || !strings.Contains(err.Error(), "larger than the limit") {
		t.Errorf("a long answer to Do: %v", err)
	}
	<-c.Done()

	ctx, cancel := context.WithCancel(t.Context())
	c = dial(t, cfg, func(p *peer) {
		asked := p.next()
		cancel()
		late := p.next() // Pass has returned
		p.say(fmt.Sprintf(`{"return": %q, "id": %s}`, long, asked.ID))
		p.say(fmt.Sprintf(`{"return": {}, "id": %s}`, late.ID))
	})
	if _, err := c.Pass(ctx, []byte(`{"execute": "long"}`)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := c.Do(t.Context(), qmp.Command{Name: "query-status"}); err != nil {
		t.Errorf("after a Pass that was given up: %v", err)
	}

	c = dial(t, cfg, func(p *peer) { io.WriteString(p.conn, `{"event": "`+long) })
	<-c.Done()
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "larger than the limit") {
		t.Errorf("a long event: %v", err)
	}
}
