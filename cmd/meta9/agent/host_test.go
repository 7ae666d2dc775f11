//go:build unix

package agent_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
	"github.com/rs/zerolog"

	"meta9/cmd/meta9/agent"
	"meta9/session/client"
	"meta9/session/wire"
)

// host is a server of plain 9P2000 that has what a test tells it, true or not.
type host struct {
	t *testing.T

	mu     sync.Mutex
	files  map[string]*told
	down   bool
	conns  map[net.Conn]bool
	events chan struct{} // closed and replaced when more is in stream
	stream []byte
	denied string // the error of each read
	short  bool   // a stream of events has one, and ends
	opened int    // streams of events
	ended  sync.WaitGroup
}

// told is what the host says of a file.
type told struct {
	value   []byte
	length  uint64 // in stat; 0: the true one
	endless bool   // reads never end
	version uint32
	id      uint64
	moves   bool // another version with each stat
	folder  bool
}

func newHost(t *testing.T) *host {
	h := &host{t: t, files: map[string]*told{}, conns: map[net.Conn]bool{}, events: make(chan struct{})}
	t.Cleanup(func() { h.cut(); h.ended.Wait() })
	return h
}

// put sets a key, and tells of it.
func (h *host) put(name, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.files["keys/"+name]
	if f == nil {
		f = &told{id: uint64(len(h.files) + 100)}
		h.files["keys/"+name] = f
	}
	f.value = []byte(value)
	f.version++
	h.event(`{"type":"key-set","space":"keys","key":"` + name + `"}` + "\n")
}

// remove removes a key, and tells of it.
func (h *host) remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.files, "keys/"+name)
	h.event(`{"type":"key-removed","space":"keys","key":"` + name + `"}` + "\n")
}

// event adds to the stream; mu is held.
func (h *host) event(text string) {
	h.stream = append(h.stream, text...)
	close(h.events)
	h.events = make(chan struct{})
}

// lie changes what is told of a key.
func (h *host) lie(name string, how func(f *told)) {
	h.put(name, "")
	h.mu.Lock()
	defer h.mu.Unlock()
	how(h.files["keys/"+name])
}

// cut closes all connections, and refuses more until it is up again.
func (h *host) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = true
	for c := range h.conns {
		c.Close()
	}
}

func (h *host) up() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = false
}

func (h *host) dial(context.Context) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, errors.New("nobody is there")
	}
	ours, theirs := net.Pipe()
	h.conns[ours] = true
	h.ended.Add(1)
	go h.serve(ours)
	return theirs, nil
}

// serve answers a connection's requests in their order, but for reads of events, which
// wait.
func (h *host) serve(c net.Conn) {
	defer h.ended.Done()
	defer c.Close()
	var writing sync.Mutex
	var waiting sync.WaitGroup
	gone := make(chan struct{})
	defer waiting.Wait()
	defer close(gone)
	answer := func(r *wire.Msg) {
		frame, err := wire.Append(nil, r, wire.Plain)
		if err != nil {
			h.t.Errorf("the host's own reply: %v", err)
			return
		}
		writing.Lock()
		defer writing.Unlock()
		_, _ = c.Write(frame)
	}
	fids := map[uint32]string{}
	begins := map[uint32]int{} // where the stream of events was when a fid was opened
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.LittleEndian.Uint32(size[:]))
		copy(frame, size[:])
		if _, err := io.ReadFull(c, frame[4:]); err != nil {
			return
		}
		m := new(wire.Msg)
		if err := wire.Decode(m, frame, wire.Plain); err != nil {
			answer(&wire.Msg{Type: wire.Rerror, Tag: m.Tag, Ename: "unknown message"})
			continue
		}
		if m.Type == wire.Tread && fids[m.Fid] == "events" {
			begin := begins[m.Fid]
			waiting.Go(func() {
				if r := h.readEvents(m, begin, gone); r != nil {
					answer(r)
				}
			})
			continue
		}
		if m.Type == wire.Topen {
			h.mu.Lock()
			begins[m.Fid] = len(h.stream)
			if fids[m.Fid] == "events" {
				h.opened++
			}
			h.mu.Unlock()
		}
		r := h.handle(m, fids)
		r.Type, r.Tag = max(r.Type, m.Type+1), m.Tag
		if r.Ename != "" {
			r.Type = wire.Rerror
		}
		answer(r)
	}
}

// readEvents waits for events at an offset of a stream that begins there.
func (h *host) readEvents(m *wire.Msg, begin int, gone chan struct{}) *wire.Msg {
	for {
		h.mu.Lock()
		events, stream, short := h.events, h.stream[begin:], h.short
		h.mu.Unlock()
		if short {
			event := []byte("{}\n")
			return &wire.Msg{Type: wire.Rread, Tag: m.Tag, Data: event[min(m.Offset, uint64(len(event))):]}
		}
		if m.Offset < uint64(len(stream)) {
			data := stream[m.Offset:]
			return &wire.Msg{Type: wire.Rread, Tag: m.Tag, Data: data[:min(len(data), int(m.Count))]}
		}
		select {
		case <-events:
		case <-gone:
			return nil
		}
	}
}

func (h *host) handle(m *wire.Msg, fids map[uint32]string) *wire.Msg {
	h.mu.Lock()
	defer h.mu.Unlock()
	qid := func(path string) (p9.QID, bool) {
		switch f := h.files[path]; {
		case path == "", path == "keys":
			return p9.QID{Type: p9.TypeDir, Path: uint64(len(path) + 1)}, true
		case path == "events":
			return p9.QID{Path: 9}, true
		case f != nil && f.folder:
			return p9.QID{Type: p9.TypeDir, Path: f.id}, true
		case f != nil:
			return p9.QID{Version: f.version, Path: f.id}, true
		}
		return p9.QID{}, false
	}
	switch m.Type {
	case wire.Tversion:
		return &wire.Msg{Msize: min(m.Msize, 64<<10), Version: "9P2000"}
	case wire.Tattach:
		fids[m.Fid] = ""
		q, _ := qid("")
		return &wire.Msg{QID: q}
	case wire.Twalk:
		path, r := fids[m.Fid], &wire.Msg{}
		for _, name := range m.Names {
			path = strings.TrimPrefix(path+"/"+name, "/")
			q, ok := qid(path)
			if !ok {
				if len(r.QIDs) == 0 {
					return &wire.Msg{Ename: "file does not exist"}
				}
				return r
			}
			r.QIDs = append(r.QIDs, q)
		}
		fids[m.Newfid] = path
		return r
	case wire.Topen:
		q, _ := qid(fids[m.Fid])
		return &wire.Msg{QID: q}
	case wire.Tstat:
		path := fids[m.Fid]
		q, ok := qid(path)
		if !ok {
			return &wire.Msg{Ename: "file does not exist"}
		}
		d := wire.Dir{QID: q, Name: "../../etc/passwd\x1b[2J", UID: "root", GID: "root"}
		if q.Type&p9.TypeDir != 0 {
			d.Mode = wire.DMDir
		}
		if f := h.files[path]; f != nil {
			d.Length = uint64(len(f.value))
			if f.length != 0 {
				d.Length = f.length
			}
			if f.moves {
				f.version++
			}
		}
		return &wire.Msg{Dir: d}
	case wire.Tread:
		f := h.files[fids[m.Fid]]
		switch {
		case h.denied != "":
			return &wire.Msg{Ename: h.denied}
		case f == nil:
			return &wire.Msg{Ename: "file does not exist"}
		case f.endless:
			return &wire.Msg{Data: bytes.Repeat([]byte("x"), int(m.Count))}
		}
		data := f.value[min(m.Offset, uint64(len(f.value))):]
		return &wire.Msg{Data: data[:min(len(data), int(m.Count))]}
	case wire.Tclunk:
		delete(fids, m.Fid)
		return &wire.Msg{}
	case wire.Tflush:
		return &wire.Msg{}
	}
	return &wire.Msg{Ename: "not supported"}
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// options are for an agent of the host's guest.
func (h *host) options(log io.Writer) agent.Options {
	dir := real(h.t, h.t.TempDir())
	return agent.Options{
		Connect: func(ctx context.Context, notify func(client.State)) (*client.Client, error) {
			return client.Dial(ctx, "host", client.Options{Dial: h.dial, Patience: -1, Notify: notify})
		},
		State: filepath.Join(dir, "state"), Status: filepath.Join(dir, "run", "status"), Env: []string{"PATH=/bin:/usr/bin"},
		Log: zerolog.New(log), Notify: func(string) {},
	}
}

// real is a path without symbolic links.
func real(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// once applies the recipe once.
func (h *host) once(text string, opt agent.Options) (changed []string, err error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	err = agent.New(h.recipes(text), opt).Once(ctx, func(_ string, paths []string) { changed = append(changed, paths...) })
	return changed, err
}

func (h *host) recipes(text string) []agent.Recipe {
	h.t.Helper()
	dir := h.t.TempDir()
	recipe(h.t, dir, "app", text)
	list, err := agent.Load(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// run has an agent run until the test is over or stop is called.
func (h *host) run(text string, opt agent.Options) (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	a := agent.New(h.recipes(text), opt)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("the agent ends with %v", err)
		}
	})
	h.t.Cleanup(stop)
	return stop
}

// until polls for a state that another goroutine or process brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
