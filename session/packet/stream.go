package packet

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// unfinished is how long a packet may take from its first byte to its last.
	unfinished = 30 * time.Second

	// replaced is how long a packet is waited for whose sender seems to be another.
	replaced = 250 * time.Millisecond

	// patience is how long a peer may take to take a packet of the handshake, or
	// the last one.
	patience = 10 * time.Second

	// readAhead is what an idle stream has of a buffer, in bytes.
	readAhead = 2 << 10
)

// stream is what the links of one transport have in common, one after the other.
type stream struct {
	was    place // of the host: the newest link that was begun; the reader's
	nc     net.Conn
	in     *bufio.Reader // the reader's
	early  *early        // the reader's: what in reads before nc; nil: nothing
	asked  uint64        // the reader's: the Ask that ended the last link; 0: none did
	from   Reader        // the reader's; nil: nc
	unpaid int           // the reader's: packets that were not paid for

	writing sync.Mutex // held over a write
	unsent  []byte     // to be written before anything else; writing guards it

	mu      sync.Mutex
	dead    bool // nc is closed
	leaving bool // nothing is read or written any more: see handover.go
}

// Reader reads a transport in place of the transport. Pay is told how much of a CPU's time was
// used for what came; both may wait until more may be used.
type Reader interface {
	io.Reader
	Pay(took time.Duration)
}

// A packet takes about packetTime, beside what is done with its payload; Pay is called once for
// payPackets of them. A link takes linkTime.
const (
	packetTime = time.Microsecond
	payPackets = 64
	linkTime   = 100 * time.Microsecond
)

// paysPacket counts a packet, and pays for each payPackets of them.
func (s *stream) paysPacket() {
	if s.unpaid++; s.unpaid == payPackets {
		s.unpaid = 0
		s.pays(payPackets * packetTime)
	}
}

func (s *stream) pays(took time.Duration) {
	if s.from != nil {
		s.from.Pay(took)
	}
}

// transport is what comes in.
type transport struct{ s *stream }

func (t transport) Read(b []byte) (int, error) {
	if t.s.from != nil {
		return t.s.from.Read(b)
	}
	return t.s.nc.Read(b)
}

func newStream(nc net.Conn) *stream {
	s := &stream{nc: nc}
	s.in = bufio.NewReaderSize(transport{s}, readAhead)
	return s
}

func (s *stream) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dead
}

// settle waits for the last write of a link that was closed: it is done or ends
// the stream.
func (s *stream) settle() {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.nc.SetWriteDeadline(time.Time{})
}

// kill closes the transport.
func (s *stream) kill() error {
	s.mu.Lock()
	again := s.dead
	s.dead = true
	s.mu.Unlock()
	if again {
		return net.ErrClosed
	}
	return s.nc.Close()
}

// buffer is room for the largest packet.
type buffer [headerLen + MaxPayload + crcLen]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// emit writes a packet; writing is held. One that is written in part leaves
// nothing that could follow it.
func (s *stream) emit(k kind, link uint64, seq uint32, payload []byte) error {
	room := buffers.Get().(*buffer)
	defer buffers.Put(room)
	return s.put(appendPacket(room[:0], k, link, seq, payload))
}

// put writes bytes of packets, or keeps what cannot be written because the stream is
// handed over; writing is held.
func (s *stream) put(b []byte) error {
	if len(s.unsent) > 0 {
		b = append(s.unsent, b...)
		s.unsent = nil
	}
	n, err := 0, error(os.ErrDeadlineExceeded)
	if !s.leaves() {
		n, err = s.nc.Write(b)
	}
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded) && s.leaves():
		s.unsent = bytes.Clone(b[n:])
		return nil
	default:
		_ = s.kill()
	}
	return err
}

// signal writes a packet of the handshake, for which a peer that takes nothing is
// not waited for long.
func (s *stream) signal(k kind, c control) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.nc.SetWriteDeadline(time.Now().Add(patience))
	defer s.nc.SetWriteDeadline(time.Time{})
	return s.put(appendControl(nil, k, c))
}
