package session_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta9/fs/store"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/wire"
)

// TestScripts runs testdata/*.txt over every transport. A script has one
// statement a line:
//
//	server NAME=VALUE...   settings of the server (session.Limits, Lifetime; Secret=no for no MUMBLE); first
//	conn NAME WHO          connects; WHO is a key of peers
//	conn NAME WHO deaf     the same, and does not read until "listen NAME"
//	NAME: T...             sends a message, in wire's text form
//	NAME: R...             the next message that comes; * is any one word, ... the rest
//	NAME: |R...            the same, in any order among such lines that follow one another
//	NAME: hello VERSION    Tversion and Tattach of fid 0, with their replies
//	NAME: quiet            nothing has come
//	NAME: raw HEX          sends bytes
//	NAME: gone             the connection ends here
//	close NAME             the client hangs up; half NAME: it only stops sending
//	together               messages are sent at once when "apart" comes
//	put KEY VALUE, rename KEY NAME, remove KEY, value KEY VALUE, update JSON, drop   the first VM, as from elsewhere
//	block, release         commits wait, and go on
//	until FIGURE=N         waits for a figure of session.Stats
//	log TEXT, nolog TEXT   the log has it, has it not
//
// NAME: may be left out after the first time. After an Rread, $got is how
// many bytes it had, $next the offset behind them and $left what of the Tread's count they left. $VM is the first VM's UUID, $VM2 the
// second's, $256 a name of so many bytes, $mumble(KEY,NODE,GROUP) a signed message. In a Twstat, "only" stands
// for all fields that are to stay as they are.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		for transport := range transports {
			t.Run(name+"/"+transport, func(t *testing.T) {
				runScript(t, transport, file, string(text))
			})
		}
	}
}

// script is a script under way.
type script struct {
	*world
	testing   *testing.T
	transport string
	line      string // for messages: file:number: text
	clients   map[string]*client
	at        *client
	release   func()
	together  []byte   // not nil: messages gather here
	read      wire.Msg // the Tread that was sent last
	got       int      // bytes
	next      uint64
	left      uint32
	pending   []string
}

func runScript(t *testing.T, transport, file, text string) {
	s := &script{testing: t, transport: transport, clients: make(map[string]*client)}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s.line = fmt.Sprintf("%s:%d: %s", file, i+1, line)
		s.statement(s.expand(line))
	}
	if len(s.pending) > 0 {
		s.unordered()
	}
}

func (s *script) fatalf(format string, args ...any) {
	s.testing.Helper()
	s.testing.Fatalf("%s\n\t%s", s.line, fmt.Sprintf(format, args...))
}

var mumble = regexp.MustCompile(`\$mumble\(([^,]*),([^,]*),([^)]*)\)`)

func (s *script) expand(line string) string {
	line = strings.NewReplacer("$got", fmt.Sprint(s.got), "$next", fmt.Sprint(s.next), "$left", fmt.Sprint(s.left), "$VM2", vmTwo, "$VM", vmOne, "$256", strings.Repeat("n", 256)).Replace(line)
	return mumble.ReplaceAllStringFunc(line, func(call string) string {
		arg := mumble.FindStringSubmatch(call)
		m := auth.Message{Time: uint32(time.Now().Unix()), Node: arg[2], Group: arg[3]}
		if _, err := hex.Decode(m.Key[:], []byte(arg[1])); err != nil {
			s.fatalf("%v", err)
		}
		return strconv.Quote(m.Sign([]byte(secret)))
	})
}

func (s *script) statement(line string) {
	if name, rest, ok := strings.Cut(line, ": "); ok && !strings.ContainsAny(name, " \"") {
		if s.at = s.clients[name]; s.at == nil {
			s.fatalf("no connection %s", name)
		}
		line = rest
	}
	if len(s.pending) > 0 && line[0] != '|' {
		s.unordered()
	}
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case line[0] == 'T':
		s.send(line)
	case line[0] == 'R':
		s.expect(line)
	case line[0] == '|':
		s.pending = append(s.pending, strings.TrimSpace(line[1:]))
	default:
		s.directive(word, rest)
	}
}

func (s *script) directive(word, rest string) {
	if s.world == nil {
		var change func(*session.Config)
		if word == "server" {
			change = s.settings(rest)
		}
		s.world = newWorld(s.testing, change)
	}
	name, value, _ := strings.Cut(rest, " ")
	switch word {
	case "server":
	case "conn":
		s.connect(name, value)
	case "listen":
		s.clients[name].resume()
	case "hello":
		s.at.hello(name)
	case "quiet":
		s.quiet()
	case "raw":
		s.raw(name)
	case "gone":
		if m := s.at.receive(); m != nil {
			s.fatalf("got %s", m)
		}
	case "close":
		s.clients[name].nc.Close()
	case "half":
		if h, ok := s.clients[name].nc.(interface{ CloseWrite() error }); ok {
			h.CloseWrite()
		} else {
			s.testing.Skip("this transport has no half")
		}
	case "together":
		s.together = []byte{}
	case "apart":
		b := s.together
		s.together = nil
		s.at.write(b)
	default:
		s.outside(word, name, value)
	}
}

// outside are the directives that concern the store and the server.
func (s *script) outside(word, name, value string) {
	switch word {
	case "put":
		s.put(name, value)
	case "rename":
		s.do(&store.Intent{Kind: store.Set, Cell: s.store.Cell(vmOne), Name: name, NewName: value, By: "admin"})
	case "remove":
		s.world.remove(name)
	case "value":
		if got := s.value(name); got != value {
			s.fatalf("%s is %q", name, got)
		}
	case "update":
		s.do(&store.Intent{Kind: store.UpdateVM, Cell: s.store.Cell(vmOne), Data: name, By: "admin"})
	case "drop":
		s.server.DropVM(vmOne)
	case "block":
		_, s.release = s.engine.Block()
		s.testing.Cleanup(s.release)
	case "release":
		s.release()
		s.release = nil
	case "until":
		figure, n, _ := strings.Cut(name, "=")
		s.until(name, func() bool {
			return fmt.Sprint(reflect.ValueOf(s.server.Stats()).FieldByName(figure)) == n
		})
	case "log":
		s.until("the log line", func() bool { return strings.Contains(s.log.String(), name) })
	case "nolog":
		if strings.Contains(s.log.String(), name) {
			s.fatalf("the log is %s", s.log)
		}
	default:
		s.fatalf("no such statement")
	}
}

func (s *script) settings(rest string) func(*session.Config) {
	return func(c *session.Config) {
		for _, f := range strings.Fields(rest) {
			name, value, _ := strings.Cut(f, "=")
			field := reflect.ValueOf(&c.Limits).Elem().FieldByName(name)
			switch name {
			case "Lifetime":
				field = reflect.ValueOf(&c.Lifetime).Elem()
			case "Secret":
				c.Auth = nil
				continue
			}
			if d, err := time.ParseDuration(value); err == nil {
				field.SetInt(int64(d))
			} else if n, err := strconv.Atoi(value); err == nil {
				field.Set(reflect.ValueOf(n).Convert(field.Type()))
			} else {
				s.fatalf("%v", err)
			}
		}
	}
}

func (s *script) connect(name, who string) {
	who, deaf := strings.CutSuffix(who, " deaf")
	p, ok := peers[who]
	if !ok {
		s.fatalf("who is %s?", who)
	}
	server, end := transports[s.transport](s.testing)
	s.at = s.client(end)
	if !deaf {
		s.at.resume()
	}
	s.clients[name] = s.at
	s.serve(server, p)
}

func (s *script) send(line string) {
	if before, only, ok := strings.Cut(line, " only"); ok {
		line = before + wstat(only)
	}
	m, err := wire.Parse(line)
	if err != nil {
		s.fatalf("%v", err)
	}
	if m.Type == wire.Tread {
		s.read = *m
	}
	d := s.at.dialect
	if !d.Sessions() && m.Type >= wire.Tsession {
		d = wire.E // also where the server must refuse it
	} else if d == wire.None || d == wire.Unknown {
		d = wire.Plain
	}
	b, err := wire.Append(s.together, m, d)
	if err != nil {
		s.fatalf("%v", err)
	}
	if s.together != nil {
		s.together = b
		return
	}
	s.at.write(b)
}

// wstat are the fields of a Twstat that changes only what is given.
func wstat(only string) string {
	fields := []string{"type", "~0", "dev", "~0", "qid", "~0.~0.~0", "mode", "~0", "atime", "~0", "mtime", "~0", "length", "~0", "name", `""`, "uid", `""`, "gid", `""`, "muid", `""`}
	given := strings.Fields(only)
	for i := 0; i+1 < len(given); i += 2 {
		for j := 0; j < len(fields); j += 2 {
			if fields[j] == given[i] {
				fields[j+1] = given[i+1]
			}
		}
	}
	return " " + strings.Join(fields, " ")
}

func (s *script) expect(want string) {
	m := s.at.receive()
	if m == nil {
		s.fatalf("the connection has ended")
	}
	if got := m.String(); !matches(want, got) {
		s.fatalf("got %s", got)
	}
	if m.Type == wire.Rread && m.Tag == s.read.Tag {
		s.got = len(m.Data)
		s.next, s.left = s.read.Offset+uint64(len(m.Data)), s.read.Count-uint32(len(m.Data))
	}
}

// unordered receives as many messages as there are lines, each of which must
// match one of them.
func (s *script) unordered() {
	want := s.pending
	s.pending = nil
	for range want {
		m := s.at.receive()
		if m == nil {
			s.fatalf("the connection has ended before %q", want)
		}
		i := 0
		for i < len(want) && (want[i] == "" || !matches(want[i], m.String())) {
			i++
		}
		if i == len(want) {
			s.fatalf("got %s, which is none of %q", m, want)
		}
		want[i] = ""
	}
}

// quiet sends a Tflush of nothing: whatever has come before its reply would be
// seen first.
func (s *script) quiet() {
	s.send("Tflush tag 65000 oldtag 65000")
	s.expect("Rflush tag 65000")
}

func (s *script) raw(digits string) {
	b, err := hex.DecodeString(digits)
	if err != nil {
		s.fatalf("%v", err)
	}
	s.at.write(b)
}

var word = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\S+`)

// matches compares word by word.
func matches(want, got string) bool {
	w, g := word.FindAllString(want, -1), word.FindAllString(got, -1)
	for i, x := range w {
		switch {
		case x == "...":
			return true
		case i >= len(g), x != "*" && x != g[i] && !sameStart(x, g[i]) && !sameFile(x, g[i]):
			return false
		}
	}
	return len(w) == len(g)
}

// sameStart compares a word that ends in "* with the start of another.
func sameStart(want, got string) bool {
	start, ok := strings.CutSuffix(want, `*"`)
	return ok && strings.HasPrefix(got, start)
}

// sameFile compares a qid 0xTYPE.*.PATH with another, but for the version.
func sameFile(want, got string) bool {
	kind, path, ok := strings.Cut(want, ".*.")
	return ok && strings.HasPrefix(got, kind+".") && strings.HasSuffix(got, "."+path)
}
