package packet

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// The sizes of a packet's parts, in bytes.
const (
	headerLen  = 21
	crcLen     = 4
	nonceLen   = 8
	controlLen = headerLen + nonceLen + crcLen // a Hello or an Ask

	// MaxPayload is the most that one packet carries.
	MaxPayload = 64 << 10
)

// kind is what a packet is for; doc.go has the handshake.
type kind byte

const (
	hello kind = 1 // host: payload is the nonce that it answers, or zeros
	ask   kind = 2 // guest: payload is a nonce; link and seq are where its program was (Guest)
	data  kind = 3
	end   kind = 4 // guest: no payload
)

var (
	mark  = []byte{0xa9, 'm', '9', 0x1a}
	table = crc32.MakeTable(crc32.Castagnoli)
)

// header is a packet without its payload.
type header struct {
	kind   kind
	link   uint64
	seq    uint32
	length uint32
}

// control is a Hello or an Ask.
type control struct {
	link  uint64
	seq   uint32
	nonce uint64
}

// appendPacket appends a whole packet.
func appendPacket(b []byte, k kind, link uint64, seq uint32, payload []byte) []byte {
	from := len(b)
	b = appendHeader(b, header{k, link, seq, uint32(len(payload))})
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], table))
}

// appendHeader appends what parseHeader reads.
func appendHeader(b []byte, h header) []byte {
	b = append(append(b, mark...), byte(h.kind))
	b = binary.LittleEndian.AppendUint64(b, h.link)
	b = binary.LittleEndian.AppendUint32(b, h.seq)
	return binary.LittleEndian.AppendUint32(b, h.length)
}

func appendControl(b []byte, k kind, c control) []byte {
	return appendPacket(b, k, c.link, c.seq, binary.LittleEndian.AppendUint64(nil, c.nonce))
}

// ErrPast is what the host's end of a link ends with when a packet comes that is whole
// and older than what has come: of an earlier link, or one that it has had. A stream
// cannot bring such. The guest's memory is as it was before (savevm and loadvm; a
// snapshot): what its program knows is not so any more.
var ErrPast = errors.New("the guest went back in time: its program goes on where it was before")

// errDamaged is why a link ends whose bytes are not the next packet.
var errDamaged = errors.New("the link is damaged: a packet was lost or torn")

// parseHeader reads the headerLen bytes that begin a packet.
func parseHeader(b []byte) (header, error) {
	h := header{
		kind: kind(b[4]), link: binary.LittleEndian.Uint64(b[5:]),
		seq: binary.LittleEndian.Uint32(b[13:]), length: binary.LittleEndian.Uint32(b[17:]),
	}
	switch {
	case !bytes.Equal(b[:4], mark), h.length > MaxPayload:
		return h, errDamaged
	case (h.kind == hello || h.kind == ask) && h.length != nonceLen, h.kind == end && h.length != 0:
		return h, fmt.Errorf("%w: %d bytes in kind %d", errDamaged, h.length, h.kind)
	}
	return h, nil
}

// parseControl reads a whole Hello or Ask; false: it is none of kind k.
func parseControl(b []byte, k kind) (control, bool) {
	h, err := parseHeader(b)
	sum := binary.LittleEndian.Uint32(b[controlLen-crcLen:])
	if err != nil || h.kind != k || h.length != nonceLen || sum != crc32.Checksum(b[:controlLen-crcLen], table) {
		return control{}, false
	}
	return control{link: h.link, seq: h.seq, nonce: binary.LittleEndian.Uint64(b[headerLen:])}, true
}

// find skips to the next packet of kind k, a control's, and takes it. It waits
// for no more bytes than a control has, whatever the leftovers before it claim to
// be. pays is told how long it has looked.
func find(in *bufio.Reader, k kind, pays func(time.Duration)) (control, error) {
	for {
		if _, err := in.Peek(controlLen); err != nil {
			return control{}, err
		}
		from := time.Now()
		c, ok := findRead(in, k)
		pays(time.Since(from))
		if ok {
			return c, nil
		}
	}
}

// findRead is find in what has been read.
func findRead(in *bufio.Reader, k kind) (c control, ok bool) {
	for in.Buffered() >= controlLen {
		b, _ := in.Peek(controlLen)
		if c, ok = parseControl(b, k); ok {
			_, _ = in.Discard(controlLen)
			return c, true
		}
		skip := len(b)
		if i := bytes.IndexByte(b[1:], mark[0]); i >= 0 {
			skip = 1 + i
		}
		_, _ = in.Discard(skip)
	}
	return control{}, false
}
