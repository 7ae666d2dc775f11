package libvirt

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// errShort is why a message is not taken that says less, or more, than it must.
var errShort = errors.New("libvirtd sent a message that is not whole")

// cursor reads a message in XDR (RFC 4506). After the first thing that is not there it
// reads zeros, and bad is true.
type cursor struct {
	b   []byte
	bad bool
}

// take is the next n bytes; nil where there are fewer.
func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) uint() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) int() int32 { return int32(c.uint()) }

func (c *cursor) hyper() uint64 {
	high := uint64(c.uint())
	return high<<32 | uint64(c.uint())
}

// text is a string of at most maxText bytes.
func (c *cursor) text() []byte {
	n := c.uint()
	if n > maxText {
		c.b, c.bad = nil, true
		return nil
	}
	b := c.take(int(n))
	c.take(int(-n & 3)) // up to a multiple of four
	return b
}

// option tells whether an optional value follows.
func (c *cursor) option() bool { return c.uint() != 0 }

// domain is the UUID of a remote_nonnull_domain. Its name is not needed: a domain is found
// by the UUID alone.
func (c *cursor) domain() string {
	c.text()
	b := c.take(16)
	c.int() // its number while it runs
	if b == nil {
		return ""
	}
	return uuidText(b)
}

// end is nil if all was there and nothing more.
func (c *cursor) end() error {
	if c.bad || len(c.b) > 0 {
		return errShort
	}
	return nil
}

// uuidText is a UUID in its canonical form.
func uuidText(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// uuidBytes undoes uuidText.
func uuidBytes(uuid string) ([]byte, error) {
	if len(uuid) == 36 {
		b, err := hex.DecodeString(uuid[:8] + uuid[9:13] + uuid[14:18] + uuid[19:23] + uuid[24:])
		if err == nil && uuidText(b) == uuid {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%q is no UUID in its canonical form", uuid)
}

func appendInt(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }

func appendText(b []byte, s string) []byte {
	b = append(appendInt(b, uint32(len(s))), s...)
	return append(b, "\x00\x00\x00"[:-len(s)&3]...)
}

// appendDomain appends a remote_nonnull_domain. libvirt finds it by its UUID; the name is
// there for its error texts.
func appendDomain(b []byte, uuid string) ([]byte, error) {
	id, err := uuidBytes(uuid)
	if err != nil {
		return nil, err
	}
	b = append(appendText(b, uuid), id...)
	return appendInt(b, 1<<32-1), nil
}
