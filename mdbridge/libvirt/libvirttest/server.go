// Package libvirttest is a libvirtd for tests, which may be made to misbehave. It encodes
// by itself, so that the client's mistakes are not its own.
package libvirttest

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The procedures that a Server answers (enum remote_procedure).
const (
	Open        = 1
	AuthList    = 66
	AuthPolkit  = 70
	LibVersion  = 157
	DomainState = 212
	ListDomains = 273
	Register    = 316
	Lifecycle   = 318
)

// Call is what a client has asked.
type Call struct {
	Proc, Serial uint32
	Args         []byte
}

// Server is a libvirtd at a unix socket.
type Server struct {
	Path string
	// Answer, where it is set, may answer a call in place of the Server: it returns what
	// is written, and true. It is called with the Server locked.
	Answer func(Call) ([]byte, bool)

	t  testing.TB
	mu sync.Mutex
	ln net.Listener
	// domains are states and reasons, by UUID.
	domains map[string][2]int32
	conns   map[net.Conn]bool // true: it gets events
	calls   map[uint32]int    // how often each procedure was called
	all     sync.WaitGroup
}

// New makes a Server and starts it. It ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9v-") // t.TempDir's are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Path: filepath.Join(dir, "sock"), t: t, domains: make(map[string][2]int32),
		conns: make(map[net.Conn]bool), calls: make(map[uint32]int),
	}
	t.Cleanup(func() {
		s.Stop()
		_ = os.RemoveAll(dir)
	})
	s.Start()
	return s
}

// Start listens, after Stop.
func (s *Server) Start() {
	s.t.Helper()
	ln, err := net.Listen("unix", s.Path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.ln = ln
	s.mu.Unlock()
	s.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = false
			s.mu.Unlock()
			s.all.Go(func() { s.serve(c) })
		}
	})
}

// Stop ends all connections and no longer listens. The domains stay.
func (s *Server) Stop() {
	s.mu.Lock()
	_ = s.ln.Close()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
}

// Misbehave sets Answer; nil: the Server answers all calls.
func (s *Server) Misbehave(answer func(Call) ([]byte, bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Answer = answer
}

// Set makes a domain, or gives it another state, and tells of it.
func (s *Server) Set(uuid string, state, reason int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domains[uuid] = [2]int32{state, reason}
	s.tell(Event(uuid, 2, 0))
}

// Quietly is Set without an event.
func (s *Server) Quietly(uuid string, state, reason int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domains[uuid] = [2]int32{state, reason}
}

// Remove takes a domain away; an event tells of it where loud.
func (s *Server) Remove(uuid string, loud bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.domains, uuid)
	if loud {
		s.tell(Event(uuid, 5, 1))
	}
}

// Tell writes to all who asked for events.
func (s *Server) Tell(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(b)
}

func (s *Server) tell(b []byte) {
	for c, listens := range s.conns {
		if listens {
			_, _ = c.Write(b)
		}
	}
}

// Calls is how often a procedure was called.
func (s *Server) Calls(proc uint32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[proc]
}

func (s *Server) serve(c net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = c.Close()
	}()
	for {
		var h [28]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return
		}
		word := func(i int) uint32 { return binary.BigEndian.Uint32(h[4*i:]) }
		if word(0) < 28 || word(0) > 1<<16 || word(1) != 0x20008086 || word(2) != 1 || word(4) != 0 || word(6) != 0 {
			s.t.Errorf("no call: %x", h)
			return
		}
		args := make([]byte, word(0)-28)
		if _, err := io.ReadFull(c, args); err != nil {
			return
		}
		if b := s.answer(c, Call{word(3), word(5), args}); b != nil {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
}

// answer is the answer to a call; nil: there is none.
func (s *Server) answer(c net.Conn, call Call) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[call.Proc]++
	if s.Answer != nil {
		if b, done := s.Answer(call); done {
			return b
		}
	}
	switch call.Proc {
	case AuthList:
		return call.Reply(Words(1, 0))
	case Open:
		if want := append(append(Words(1), Text("qemu:///system")...), Words(1)...); string(call.Args) != string(want) {
			s.t.Errorf("opened with %x", call.Args)
		}
		return call.Reply(nil)
	case LibVersion:
		return call.Reply(Words(0, 9000000))
	case Register:
		s.conns[c] = true
		return call.Reply(Words(7))
	case ListDomains:
		body := Words(uint32(len(s.domains)))
		for uuid := range s.domains {
			body = append(body, Domain("some name", uuid)...)
		}
		return call.Reply(append(body, Words(uint32(len(s.domains)))...))
	case DomainState:
		for uuid, is := range s.domains {
			if strings.Contains(string(call.Args), string(bytesOf(uuid))) {
				return call.Reply(Words(uint32(is[0]), uint32(is[1])))
			}
		}
		return call.Fail(42, "Domain not found")
	}
	return call.Fail(1, "no such procedure here")
}

// Reply is the message of a good answer.
func (c Call) Reply(body []byte) []byte { return Message(1, c.Proc, c.Serial, 0, body) }

// Fail is the message of an error.
func (c Call) Fail(code uint32, text string) []byte {
	body := append(Words(code, 10, 1), Text(text)...)
	return Message(1, c.Proc, c.Serial, 1, append(body, Words(2, 0, 0, 0, 0, 0, 0, 0)...))
}

// Event is the message of a lifecycle event.
func Event(uuid string, event, detail uint32) []byte {
	return Message(2, Lifecycle, 0, 0, append(append(Words(7), Domain("some name", uuid)...), Words(event, detail)...))
}

// Message is one of a kind: 1 an answer, 2 an event.
func Message(kind, proc, serial, status uint32, body []byte) []byte {
	return append(Words(uint32(28+len(body)), 0x20008086, 1, proc, kind, serial, status), body...)
}

// Words are numbers.
func Words(n ...uint32) (b []byte) {
	for _, w := range n {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// Text is a string.
func Text(s string) []byte {
	b := append(Words(uint32(len(s))), s...)
	for len(b)%4 > 0 {
		b = append(b, 0)
	}
	return b
}

// Domain is a domain.
func Domain(name, uuid string) []byte {
	return append(append(Text(name), bytesOf(uuid)...), Words(5)...)
}

func bytesOf(uuid string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(b) != 16 {
		panic("no UUID: " + uuid)
	}
	return b
}
