package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"time"
)

// Link is one link of a stream. Its reading half belongs to whoever reads.
type Link struct {
	*stream
	host   bool
	number uint64 // set before begun
	nonce  uint64 // of the Ask that it answers; the reader's

	room  *buffer // holds the packet that is being read; nil: none is
	rest  []byte  // of its payload, what nobody has read yet
	heard uint32  // packets that came
	fault error   // why nothing more can be read
	torn  []byte  // the bytes of a packet of which the other process has read a part; see handover.go
	clock *time.Timer

	sent uint32 // packets that went; writing guards it

	past  bool // the guest's Ask told that it went back in time; stream.mu guards it and the next
	begun bool
	over  bool // the peer has ended it, or it is closed
}

// Why a peer's end of a link is over.
var (
	errAsked = errors.New("the guest began another link")
	errHost  = errors.New("the host began another link")
)

// Read gives what came, in order and whole. On the host's side the first Read
// waits for the link to begin. A deadline that passes within a packet ends the
// link.
func (l *Link) Read(p []byte) (int, error) {
	if l.fault == nil && l.leaves() {
		return 0, os.ErrDeadlineExceeded // even if there is something to read: State has it
	}
	for len(l.rest) == 0 {
		l.release()
		if l.fault != nil {
			return 0, l.fault
		}
		if err := l.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	if l.rest = l.rest[n:]; len(l.rest) == 0 {
		l.release()
	}
	return n, nil
}

// release gives the packet's room back: an idle link has none.
func (l *Link) release() {
	if l.room != nil {
		buffers.Put(l.room)
		l.room = nil
	}
}

// advance reads the next packet, or returns why there is none.
func (l *Link) advance() error {
	if l.host && !l.begun {
		if err := l.begin(); err != nil {
			return err
		}
	}
	if _, err := l.in.Peek(1); err != nil { // a link may be idle for as long as it likes
		return err
	}
	l.fault = l.packet()
	l.paysPacket()
	return l.fault
}

// begin does the host's part of the handshake.
func (l *Link) begin() error {
	if err := l.Await(); err != nil {
		return err
	}
	nonce := l.asked
	l.asked = 0
	return l.accept(nonce)
}

// Await waits, at the host's end, until a guest has asked for the link, which begins with
// the first Read. It is the reader's.
func (l *Link) Await() error {
	if l.begun || l.asked != 0 {
		return nil
	}
	if err := l.signal(hello, control{}); err != nil {
		return err
	}
	c, err := find(l.in, ask, l.pays)
	if err != nil {
		return err
	}
	l.asked = c.nonce
	l.mu.Lock()
	l.past = l.was.behind(c)
	l.mu.Unlock()
	return nil
}

// accept begins the link for the guest that asked.
func (l *Link) accept(nonce uint64) error {
	l.pays(linkTime)
	number, err := random()
	if err != nil {
		return err
	}
	l.nonce = nonce
	l.was = place{program: nonce >> 32, link: number}
	l.start(number)
	return l.signal(hello, control{link: number, nonce: nonce})
}

func (l *Link) start(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number, l.begun = number, true
}

// packet reads one packet, of which at least one byte has come.
func (l *Link) packet() error {
	l.timed()
	defer l.clock.Stop()
	b, err := l.in.Peek(headerLen)
	if err != nil {
		return cut(err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return l.end(err)
	}
	sum := crc32.Checksum(b, table)
	_, _ = l.in.Discard(headerLen)
	room := buffers.Get().(*buffer)
	l.room = room
	body := room[:h.length+crcLen]
	if n, err := l.fill(body); err != nil {
		if l.leaves() {
			l.torn = append(appendHeader(nil, h), body[:n]...)
		}
		return cut(err)
	}
	payload := body[:h.length]
	if crc32.Update(sum, table, payload) != binary.LittleEndian.Uint32(body[h.length:]) {
		return l.end(errDamaged)
	}
	return l.take(h, payload)
}

// fill reads the rest of a packet. Where the stream pauses after a Hello (or at the
// host's end an Ask), the peer that began the packet is gone, and another waits to
// be heard: what is missing never comes. But a packet may carry such bytes, too, so
// that the stream ends only when nothing more has come for a moment. n is what was read.
func (l *Link) fill(rest []byte) (n int, err error) {
	late, hurried := time.Now().Add(unfinished), false
	for n < len(rest) {
		m, err := l.in.Read(rest[n:])
		if n += m; err != nil {
			return n, err
		}
		switch hurry := n < len(rest) && l.another(rest[:n]); {
		case hurry == hurried:
		case hurry:
			hurried = true
			l.clock.Reset(min(replaced, time.Until(late)))
		default:
			hurried = false
			l.clock.Reset(time.Until(late))
		}
	}
	return n, nil
}

// another tells whether b ends with the beginning of a new peer's handshake.
func (l *Link) another(b []byte) bool {
	if len(b) < controlLen {
		return false
	}
	first := hello
	if l.host {
		first = ask
	}
	_, ok := parseControl(b[len(b)-controlLen:], first)
	return ok
}

// timed ends the stream unless the packet is whole in time.
func (l *Link) timed() {
	if l.clock == nil {
		l.clock = time.AfterFunc(unfinished, func() { _ = l.kill() })
	} else {
		l.clock.Reset(unfinished)
	}
}

// take handles a whole packet.
func (l *Link) take(h header, payload []byte) error {
	switch {
	case h.kind == data && h.link == l.number && h.seq == l.heard+1:
		l.heard++
		l.was.heard = l.heard
		l.rest = payload
		return nil
	case h.kind == end && l.host && h.link == l.number && h.seq == l.heard+1:
		return l.end(io.EOF)
	case l.host && (h.kind == data || h.kind == end) && (h.link != l.number || h.seq <= l.heard):
		return l.end(ErrPast)
	case h.kind == ask && l.host:
		return l.askedAgain(control{h.link, h.seq, binary.LittleEndian.Uint64(payload)})
	case h.kind == hello && !l.host:
		if h.link == l.number {
			return nil // the host answers twice when it was asked twice
		}
		return l.end(errHost)
	}
	return l.end(fmt.Errorf("%w: packet %d of kind %d", errDamaged, h.seq, h.kind))
}

// askedAgain answers an Ask on a link that has begun: the same guest has asked a second
// time before the answer came; any other Ask is from a new guest.
func (l *Link) askedAgain(c control) error {
	if c.nonce != l.nonce {
		l.asked = c.nonce
		if l.was.behind(c) {
			return l.end(ErrPast)
		}
		return l.end(errAsked)
	}
	if l.heard > 0 {
		return nil
	}
	return l.signal(hello, control{link: l.number, nonce: c.nonce})
}

// place is how far a guest's program has come on a stream, as the host knows.
type place struct {
	program uint64 // the upper half of its nonces
	link    uint64 // 0: there was none
	heard   uint32 // packets that came on that
}

// behind tells whether the program that asks is that one, as it was before: it has sent
// less than was heard of it, or knows nothing of a link on which it was heard. Programs of
// earlier versions do not say where they were (link 0), and prove nothing.
func (p *place) behind(c control) bool {
	if c.link == 0 || p.link == 0 || c.nonce>>32 != p.program {
		return false
	}
	if c.link == p.link {
		return c.seq < p.heard
	}
	return p.heard > 0
}

// position returns the link's number, and how many packets were sent on it.
func (l *Link) position() (number uint64, sent uint32) {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.number, l.sent
}

// Past tells whether the guest went back in time before this link, of the host's end: what
// it had before must not be resumed (ErrPast). It is known once something was read.
func (l *Link) Past() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.past
}

// end notes that the peer has ended the link, or that it cannot be understood any
// more: the stream is good for another.
func (l *Link) end(why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	return why
}

// cut gives the end of a stream within a packet an error with words.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write sends p in as many packets as it takes.
func (l *Link) Write(p []byte) (n int, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	for n < len(p) {
		if err := l.writable(); err != nil {
			return n, err
		}
		part := p[n:min(len(p), n+MaxPayload)]
		l.sent++
		if err := l.emit(data, l.number, l.sent, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// errSilent is why nothing can be written: the host is silent until it is asked.
var errSilent = errors.New("the link has not begun")

func (l *Link) writable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over || l.dead:
		return net.ErrClosed
	case l.leaving:
		return os.ErrDeadlineExceeded
	case !l.begun:
		return errSilent
	}
	return nil
}

// Close ends the link, and waits for nobody but, on the guest's side, the peer to
// take the last packet. The host's stream stays open where it was the peer who
// ended the link: another link follows on it.
func (l *Link) Close() error {
	l.mu.Lock()
	over, begun := l.over, l.begun
	l.over = true
	l.mu.Unlock()
	switch {
	case l.host && over:
		return l.nc.SetWriteDeadline(time.Unix(1, 0)) // ends a write that is stuck, and the stream with it
	case !l.host && begun && !over:
		l.sayEnd()
	}
	return l.kill()
}

// sayEnd tells the host that the guest wants no more, unless a write is in the
// way.
func (l *Link) sayEnd() {
	if !l.writing.TryLock() {
		return
	}
	defer l.writing.Unlock()
	_ = l.nc.SetWriteDeadline(time.Now().Add(time.Second))
	_ = l.emit(end, l.number, l.sent+1, nil)
}

// LocalAddr is the transport's address at this end.
func (l *Link) LocalAddr() net.Addr { return l.nc.LocalAddr() }

// RemoteAddr is the transport's address of the peer.
func (l *Link) RemoteAddr() net.Addr { return l.nc.RemoteAddr() }

// SetDeadline sets the transport's, as net.Conn says.
func (l *Link) SetDeadline(t time.Time) error { return l.nc.SetDeadline(t) }

// SetReadDeadline sets the transport's, as net.Conn says.
func (l *Link) SetReadDeadline(t time.Time) error { return l.nc.SetReadDeadline(t) }

// SetWriteDeadline sets the transport's, as net.Conn says. A packet that cannot be written
// whole by then ends the transport.
func (l *Link) SetWriteDeadline(t time.Time) error { return l.nc.SetWriteDeadline(t) }
