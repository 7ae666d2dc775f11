package redialtest

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// Liar is a host whose server answers whatever its input says, until that is used
// up or it is made honest: then it is a simple server that has lost its sessions.
type Liar struct {
	dialect wire.Dialect

	mu   sync.Mutex
	in   []byte
	conn net.Conn
}

// RandomLies tries 300 inputs of Liars, each in a synctest bubble.
func RandomLies(t *testing.T, try func(t *testing.T, lies []byte)) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			lies := make([]byte, random.IntN(600))
			for i := range lies {
				lies[i] = byte(random.Uint32())
			}
			try(t, lies)
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// FuzzLies tries any input of a Liar.
func FuzzLies(f *testing.F, try func(t *testing.T, lies []byte)) {
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, lies []byte) {
		synctest.Test(t, func(t *testing.T) { try(t, lies) })
	})
}

// NewLiar lies as in says, in a dialect that numbers requests.
func NewLiar(d wire.Dialect, in []byte) *Liar { return &Liar{dialect: d, in: in} }

// below takes a number of the input; the last one when nothing is left.
func (s *Liar) below(n byte) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 {
		return n - 1
	}
	v := s.in[0] % n
	s.in = s.in[1:]
	return v
}

// Dial makes a transport.
func (s *Liar) Dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.mu.Lock()
	s.conn = ours
	s.mu.Unlock()
	go s.serve(ours)
	return theirs, nil
}

// Repent makes it honest, and hangs up.
func (s *Liar) Repent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = nil
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *Liar) serve(nc net.Conn) {
	defer nc.Close()
	for {
		frame, err := ReadFrame(nc)
		if err != nil {
			return
		}
		_, typ, tag, _ := wire.Split(frame)
		reply := s.answer(typ, tag, frame[wire.HeaderLen:])
		if _, err := nc.Write(reply); err != nil || reply == nil {
			return
		}
	}
}

// answer is the truth or a lie; nil hangs up.
func (s *Liar) answer(t wire.Type, tag uint16, body []byte) []byte {
	m := s.reply(t, tag, body)
	switch s.below(20) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		m.Tag = uint16(s.below(40))
	case 3:
		m.Type = wire.Type(100 + s.below(60))
	case 4:
		m = refusal(s.dialect, tag, errs.Kind(s.below(100)))
	}
	d := s.dialect
	if t == wire.Tversion {
		d = wire.None
	}
	frame, err := wire.Append(nil, m, d)
	if err != nil { // a type that has no frame
		frame = []byte{9, 0, 0, 0, byte(m.Type), 0, 0, 1, 2}
	}
	return s.spoil(frame)
}

// reply is what a server answers; only of sessions it may say what it likes.
func (s *Liar) reply(t wire.Type, tag uint16, body []byte) *wire.Msg {
	m := &wire.Msg{Type: t + 1, Tag: tag}
	switch t {
	case wire.Tversion:
		m.Msize, m.Version = binary.LittleEndian.Uint32(body), s.dialect.String()
	case wire.Tsession:
		if s.below(3) == 2 { // as when the input is used up
			return refusal(s.dialect, tag, errs.CannotResume)
		}
	case wire.Tresume:
		for range binary.LittleEndian.Uint16(body) {
			m.States = append(m.States, min(s.below(4), wire.Running))
		}
	case wire.Twalk:
		m.QIDs = make([]p9.QID, min(binary.LittleEndian.Uint16(body[8:]), wire.MaxWalk))
	case wire.Twrite:
		m.Count = binary.LittleEndian.Uint32(body[12:])
	case wire.Tswrite:
		m.Count = swriteCount(body)
	}
	return m
}

// swriteCount is how many bytes a Tswrite has: after a fid and the names.
func swriteCount(body []byte) uint32 {
	n, rest := binary.LittleEndian.Uint16(body[4:]), body[6:]
	for range n {
		rest = rest[2+binary.LittleEndian.Uint16(rest):]
	}
	return binary.LittleEndian.Uint32(rest)
}

// spoil damages a frame now and then.
func (s *Liar) spoil(frame []byte) []byte {
	switch s.below(24) {
	case 0:
		binary.LittleEndian.PutUint32(frame, 1<<31)
	case 1:
		binary.LittleEndian.PutUint32(frame, uint32(s.below(8)))
	case 2:
		frame = append(frame, frame...)
	case 3:
		frame = frame[:len(frame)-min(len(frame)-1, int(s.below(9)))]
	case 4:
		frame[int(s.below(255))%len(frame)] = s.below(255)
	}
	return frame
}
