package packet

import (
	"bufio"
	"bytes"
	"net"
	"slices"
	"time"
)

// State is the host's end of a stream as plain data, without its transport: how far its
// link has come, and the bytes that were read or are to be written.
type State struct {
	// The newest link that has begun, and how far it came; zero: there was none.
	Program uint64 `json:"program,omitempty"` // the guest's program
	Link    uint64 `json:"link,omitempty"`
	Heard   uint32 `json:"heard,omitempty"` // packets that came on it

	Begun bool   `json:"begun,omitempty"` // the link goes on; false: it is over, and a guest may ask for another
	Nonce uint64 `json:"nonce,omitempty"` // of the Ask that began it
	Sent  uint32 `json:"sent,omitempty"`  // packets that went on it, of which Output may have some
	Past  bool   `json:"past,omitempty"`  // see Link.Past
	Asked uint64 `json:"asked,omitempty"` // not Begun: the nonce of the Ask that needs an answer; 0: none came

	Input  []byte `json:"input,omitempty"`  // bytes of packets that were read from the transport only
	Rest   []byte `json:"rest,omitempty"`   // payload before Input that nobody has read
	Output []byte `json:"output,omitempty"` // bytes of packets to be sent first
}

// Leave stops the host's end of a stream so that it can be handed over: Read and Write end
// with os.ErrDeadlineExceeded, in the middle of a packet, too, and nothing is lost by that.
// It waits for nobody.
func (l *Link) Leave() {
	l.mu.Lock()
	l.leaving = true
	l.mu.Unlock()
	_ = l.nc.SetDeadline(time.Unix(1, 0))
}

// State is what Resume needs to go on. It is called after Leave, when nobody reads or
// writes any more.
func (l *Link) State() State {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	unread, _ := l.in.Peek(l.in.Buffered())
	st := State{
		Program: l.was.program, Link: l.was.link, Heard: l.was.heard, Begun: l.begun, Nonce: l.nonce,
		Sent: l.sent, Past: l.past, Asked: l.asked, Input: slices.Concat(l.torn, unread),
		Rest: bytes.Clone(l.rest), Output: bytes.Clone(l.unsent),
	}
	if l.early != nil {
		st.Input = append(st.Input, l.early.b...)
	}
	return st
}

// early reads first what another process has read and not used, and then the transport.
type early struct {
	b    []byte
	then transport
}

func (e *early) Read(p []byte) (n int, err error) {
	if len(e.b) == 0 {
		return e.then.Read(p)
	}
	n = copy(p, e.b)
	if e.b = e.b[n:]; len(e.b) == 0 {
		e.b = nil // it is not kept for as long as the stream lasts
	}
	return n, nil
}

// Resume makes the link of that State on its transport. Nothing is read or written before
// GoOn.
func Resume(nc net.Conn, st State) *Link {
	_ = nc.SetDeadline(time.Time{}) // Leave's
	s := newStream(nc)
	if len(st.Input) > 0 {
		s.early = &early{st.Input, transport{s}}
		s.in = bufio.NewReaderSize(s.early, readAhead)
	}
	s.was = place{program: st.Program, link: st.Link, heard: st.Heard}
	s.asked, s.unsent = st.Asked, st.Output
	l := &Link{stream: s, host: true, nonce: st.Nonce, rest: st.Rest, sent: st.Sent, past: st.Past, begun: st.Begun}
	if l.begun {
		l.number, l.heard = st.Link, st.Heard
	}
	return l
}

// GoOn is Serve for what Resume has made, which serve gets first.
func (l *Link) GoOn(from Reader, serve func(link net.Conn)) {
	l.from = from
	go l.sendUnsent() // a peer that takes nothing must not keep its own requests from being read
	l.serve(l, serve)
}

// NetConn is the transport.
func (l *Link) NetConn() net.Conn { return l.nc }

// left tells whether the link is being handed over: serve has returned, and has not closed
// it.
func (l *Link) left() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving && !l.over && !l.dead
}

// leaves tells whether the stream is being handed over.
func (s *stream) leaves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving
}

// sendUnsent sends the bytes that another process has left unsent.
func (s *stream) sendUnsent() {
	s.writing.Lock()
	defer s.writing.Unlock()
	if len(s.unsent) > 0 {
		_ = s.put(nil)
	}
}
