package fs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
)

// TestScripts plays testdata/script/*.txt. Every line is
//
//	CLIENT VERB ARG... -> RESULT
//
// A CLIENT is a View of its own: admin..., guest... (VM A), other... (VM B) or
// nobody. Arguments and results may be Go strings in quotes. A result is ok, an
// error's kind with some words of its text, or what was read. $A and $B are the
// VMs' UUIDs. "limits VALUE KEYS BYTES" as the first line sets the store's.
func TestScripts(t *testing.T) {
	playScripts(t, func(*testing.T) store.Engine { return store.NewMemory() })
}

func playScripts(t *testing.T, engine func(t *testing.T) store.Engine) {
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			playScript(t, engine(t), string(text))
		})
	}
}

type player struct {
	*world
	t       *testing.T
	clients map[string]*client
	handles map[string]fs.Handle
	refs    map[string]*fs.Ref
	nodes   map[string]fs.NodeState
	states  map[string]fs.HandleState
}

func playScript(t *testing.T, e store.Engine, text string) {
	var cfg store.Config
	lines := strings.Split(text, "\n")
	if f := strings.Fields(lines[0]); len(f) == 4 && f[0] == "limits" {
		cfg.Limits = vm.Limits{Value: atoi(t, f[1]), Keys: atoi(t, f[2]), Bytes: int64(atoi(t, f[3]))}
		lines[0] = ""
	}
	p := &player{
		world: worldOn(t, e, cfg, nil), t: t, clients: map[string]*client{}, handles: map[string]fs.Handle{},
		refs: map[string]*fs.Ref{}, nodes: map[string]fs.NodeState{}, states: map[string]fs.HandleState{},
	}
	for i, line := range lines {
		line = strings.NewReplacer("$A", vmA, "$B", vmB).Replace(strings.TrimSpace(line))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words, want := splitLine(t, line)
		got, err := p.step(words)
		if err != nil {
			got = kindName(err)
			if kind, words, ok := strings.Cut(want, " "); ok && kind == got && strings.Contains(err.Error(), words) {
				got = want
			}
		}
		if got != want {
			t.Fatalf("line %d: %s\n got %s (%v)", i+1, line, got, err)
		}
	}
	for _, c := range p.clients {
		c.view.Close()
	}
}

// splitLine makes words of a line, and what is expected.
func splitLine(t *testing.T, line string) (words []string, want string) {
	t.Helper()
	left, right, ok := strings.Cut(line, " -> ")
	if !ok {
		t.Fatalf("no result in %q", line)
	}
	for left = strings.TrimSpace(left); left != ""; left = strings.TrimSpace(left) {
		word, rest, _ := strings.Cut(left, " ")
		if q, err := strconv.QuotedPrefix(left); err == nil {
			word, _ = strconv.Unquote(q)
			rest = left[len(q):]
		}
		words, left = append(words, word), rest
	}
	return words, strings.TrimSpace(right)
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// client is the one of that name.
func (p *player) client(name string) *client {
	c := p.clients[name]
	if c == nil {
		switch {
		case strings.HasPrefix(name, "admin"):
			c = p.admin()
		case strings.HasPrefix(name, "guest"):
			c = p.guest(vmA)
		case strings.HasPrefix(name, "other"):
			c = p.guest(vmB)
		default:
			p.t.Fatalf("who is %s?", name)
		}
		p.clients[name] = c
	}
	return c
}

func flags(s string) (f fs.Flags) {
	for _, c := range s {
		f |= map[rune]fs.Flags{
			'r': fs.Read, 'w': fs.Write, 't': fs.Trunc, 'a': fs.AppendTo,
			'n': fs.NonBlock, 'x': fs.Excl,
		}[c]
	}
	return f
}

func path(s string) []string { return strings.FieldsFunc(s, func(c rune) bool { return c == '/' }) }

// step plays one line. What a verb answers is quoted where it is content.
func (p *player) step(w []string) (string, error) {
	c := p.client(w[0])
	verb, args := w[1], w[2:]
	switch verb {
	case "attach", "park", "close", "barrier":
		return p.viewStep(c, verb, args)
	case "open", "create", "read", "all", "write", "trunc", "chmod", "touch", "sync", "clunk", "drop", "hstat":
		return p.handleStep(c, verb, args)
	case "save", "restore", "hsave", "hrestore":
		return p.stateStep(c, verb, args)
	case "get", "put", "delete":
		return p.macroStep(c, verb, args)
	case "current":
		now := p.refs[args[0]].Current()
		if now == nil {
			return "none", nil
		}
		p.refs[args[0]] = now
		return "ok", nil
	}
	if kept := p.refs[args[0]]; kept != nil {
		return p.refStep(c, kept, verb, args[1:])
	}
	r, err := macro.Find(c.root, path(args[0]))
	if err != nil {
		return "", err
	}
	return p.refStep(c, r, verb, args[1:])
}

func (p *player) viewStep(c *client, verb string, args []string) (string, error) {
	switch verb {
	case "attach":
		r, err := c.view.Attach(args[0], args[1])
		if err == nil {
			c.root = r
		}
		return "ok", err
	case "park":
		c.view.Park()
	case "close":
		c.view.Close()
	}
	p.barrier()
	return "ok", nil
}

func (p *player) refStep(c *client, r *fs.Ref, verb string, args []string) (string, error) {
	switch verb {
	case "walk":
		if r.IsDir() {
			return "dir", nil
		}
		return "file", nil
	case "keep":
		p.refs[args[0]] = r
		return "ok", nil
	case "up":
		up, err := r.Walk("..")
		if err != nil {
			return "", err
		}
		var st fs.Stat
		err = up.Stat(&st)
		return st.Name, err
	case "ls":
		var names []string
		err := r.List(0, func(_ uint64, st *fs.Stat) bool {
			names = append(names, st.Name)
			return true
		})
		return strings.Join(names, " "), err
	case "stat":
		var st fs.Stat
		err := r.Stat(&st)
		return statField(&st, args[0]), err
	case "unlink":
		return "ok", c.await(func(done func(error)) { r.Unlink(args[0], false, done) })
	case "rmdir":
		return "ok", c.await(func(done func(error)) { r.Unlink(args[0], true, done) })
	case "remove":
		return "ok", c.await(r.Remove)
	case "mkdir":
		return "ok", c.await(func(done func(error)) {
			r.Create(args[0], fs.Read, true, func(_ *fs.Ref, _ fs.Handle, err error) { done(err) })
		})
	case "rename":
		to := r
		if len(args) == 3 {
			to = c.walk(path(args[2])...)
		}
		return "ok", c.await(func(done func(error)) { r.Rename(args[0], to, args[1], done) })
	case "move":
		return "ok", c.await(func(done func(error)) { r.Move(c.walk(path(args[0])...), args[1], done) })
	case "set":
		return "ok", c.await(func(done func(error)) { r.SetStat(p.change(args), done) })
	}
	p.t.Fatalf("no verb %s", verb)
	return "", nil
}

// change is length=N, mode=OCTAL, mtime=N and name=TEXT.
func (p *player) change(args []string) (c fs.Change) {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "length":
			n := uint64(atoi(p.t, value))
			c.Length = &n
		case "mode":
			m := uint16(atoi(p.t, "0"+value))
			c.Mode = &m
		case "mtime":
			n := int64(atoi(p.t, value))
			c.Mtime = &n
		case "name":
			c.Name = &value
		}
	}
	return c
}

func statField(st *fs.Stat, field string) string {
	switch field {
	case "length":
		return fmt.Sprint(st.Length)
	case "mode":
		return fmt.Sprintf("%o", st.Mode)
	case "mtime":
		return fmt.Sprint(st.Mtime)
	case "owner":
		return fmt.Sprintf("%d:%d %o", st.UID, st.GID, st.Mode)
	case "muid":
		return st.Muid
	case "name":
		return st.Name
	case "gone":
		return fmt.Sprint(st.Gone)
	case "version":
		if st.QID.Version == 0 {
			return "0"
		}
		return "some"
	}
	return "no field " + field
}

func (p *player) handleStep(c *client, verb string, args []string) (string, error) {
	name := args[0]
	h := p.handles[name]
	switch verb {
	case "open":
		r := p.refs[args[1]]
		if r == nil {
			r = c.walk(path(args[1])...)
		}
		h, err := r.Open(flags(args[2]))
		p.handles[name] = h
		return "ok", err
	case "create":
		return "ok", c.await(func(done func(error)) {
			c.walk(path(args[1])...).Create(args[2], flags(args[3]), false, func(_ *fs.Ref, h fs.Handle, err error) {
				p.handles[name] = h
				done(err)
			})
		})
	case "read":
		s, err := c.read(h, uint64(atoi(p.t, args[1])), atoi(p.t, args[2]))
		return strconv.Quote(s), err
	case "all":
		return readAll(c, h)
	case "write":
		n, err := c.write(h, uint64(atoi(p.t, args[1])), args[2])
		return fmt.Sprint(n), err
	case "hstat":
		var st fs.Stat
		err := h.Stat(&st)
		return statField(&st, args[1]), err
	case "trunc":
		args = []string{"", "length=0"}
	case "chmod":
		args = []string{"", "mode=" + args[1]}
	case "touch":
		args = []string{"", "mtime=" + args[1]}
	case "sync":
		return "ok", c.await(func(done func(error)) { h.Sync(fs.Author{By: "me"}, done) })
	case "clunk":
		return "ok", c.await(func(done func(error)) { h.Clunk(fs.Author{By: "me"}, done) })
	case "drop":
		h.Drop()
		return "ok", nil
	}
	return "ok", c.await(func(done func(error)) { h.SetStat(p.change(args[1:]), fs.Author{By: "me"}, done) })
}

// readAll reads in small pieces, so that a value that changed meanwhile shows.
func readAll(c *client, h fs.Handle) (string, error) {
	var all string
	for {
		s, err := c.read(h, uint64(len(all)), 3)
		if err != nil || s == "" {
			return strconv.Quote(all), err
		}
		all += s
	}
}

// stateStep saves places and handles and restores them, maybe in another View.
func (p *player) stateStep(c *client, verb string, args []string) (string, error) {
	switch verb {
	case "save":
		p.nodes[args[0]] = c.walk(path(args[1])...).State()
	case "restore":
		r, err := c.view.Restore(p.nodes[args[0]])
		p.refs[args[0]] = r
		return "ok", err
	case "hsave":
		p.states[args[0]] = p.handles[args[0]].State()
	case "hrestore":
		h, err := p.refs[args[1]].RestoreHandle(p.states[args[0]])
		p.handles[args[0]] = h
		return "ok", err
	}
	return "ok", nil
}

func (p *player) macroStep(c *client, verb string, args []string) (string, error) {
	switch verb {
	case "get":
		b, err := macro.Get(nil, c.root, path(args[0]), 1<<20)
		return strconv.Quote(string(b)), err
	case "put":
		return "ok", c.await(func(done func(error)) {
			macro.Put(c.root, path(args[0]), []byte(args[1]), done)
		})
	}
	return "ok", c.await(func(done func(error)) { macro.Delete(c.root, path(args[0]), done) })
}
