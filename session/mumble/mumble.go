// Package mumble is the message of MUMBLE, the authentication that Erlang on
// Xen's 9P clients use: one text names a node and a group and sets the session
// key, signed with a secret that stays on the host (docs/protocol.md; LING's
// doc/mumble.md). Who makes messages and who shows them links no more than this;
// who a message may be is session/auth's. Nothing here keeps state or locks.
package mumble

import (
	"crypto/hmac"
	"crypto/sha1" // MUMBLE's own choice; as an HMAC it is not broken
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"meta9/fs/errs"
)

// Sizes and bounds of a message.
const (
	KeyLen = 8         // the session key
	MacLen = sha1.Size // HMAC-SHA1

	// MaxText is the longest text that Parse takes, in bytes: what fits one Twrite
	// of LING's client, whose chunk is 8192-27.
	MaxText = 8192
	// MaxID is the longest node or group, in bytes.
	MaxID = 255

	// Skew is how far the clocks of signer and host may be apart before a message
	// that has a time to live counts as expired.
	Skew = 10 * time.Second
)

const (
	prefix  = "MUMBLE:"
	suffix  = ":"
	version = 0x0100
)

// encoding refuses what it would not write itself, so that one message has one
// text. (Line ends, which it skips, Parse refuses.)
var encoding = base64.StdEncoding.Strict()

// Message is what a MUMBLE text says.
type Message struct {
	Key         [KeyLen]byte // the session key; all zero: no session is wanted
	Time        uint32       // when it was made, Unix seconds
	TTL         uint32       // seconds that it is good for; 0: for ever
	Node, Group string       // at most MaxID bytes each
	Extra       []byte       // not looked at, but signed
}

// Sign is the text "MUMBLE:base64:" of m. A message past the bounds above gets a
// text that Parse refuses.
func (m Message) Sign(secret []byte) string {
	return m.text(m.mac(secret))
}

// Parse reads a text without judging it. The error, errs.Protocol, says what is
// malformed; it is for the one who makes messages, not for a peer. What Parse
// takes has no other spelling: nothing is left over that the mac does not cover.
func Parse(text []byte) (m Message, mac [MacLen]byte, err error) {
	s, ok := strings.CutPrefix(string(text[:min(len(text), MaxText+1)]), prefix)
	if !ok || len(text) > MaxText {
		return m, mac, malformed("the text is %s, base64 and %s, at most %d bytes", prefix, suffix, MaxText)
	}
	s, ok = strings.CutSuffix(s, suffix)
	if !ok || strings.ContainsAny(s, "\r\n") {
		return m, mac, malformed("the text ends in %s and has no line ends", suffix)
	}
	b, err := encoding.DecodeString(s)
	if err != nil {
		return m, mac, malformed("%v", err)
	}
	return decode(b)
}

// decode reads the bytes of a message: version[2] mac[20] key[8] time[4] ttl[4]
// node[s] group[s] extra_len[4] extra, little-endian.
func decode(b []byte) (m Message, mac [MacLen]byte, err error) {
	const fixed = 2 + MacLen + KeyLen + 4 + 4
	if len(b) < fixed {
		return m, mac, malformed("the message has %d bytes, the fixed part alone is %d", len(b), fixed)
	}
	if v := binary.LittleEndian.Uint16(b); v != version {
		return m, mac, malformed("version 0x%04x, only 0x%04x is known", v, version)
	}
	copy(mac[:], b[2:])
	copy(m.Key[:], b[2+MacLen:])
	m.Time = binary.LittleEndian.Uint32(b[fixed-8:])
	m.TTL = binary.LittleEndian.Uint32(b[fixed-4:])
	b = b[fixed:]
	if m.Node, b, err = id(b, "node"); err != nil {
		return m, mac, err
	}
	if m.Group, b, err = id(b, "group"); err != nil {
		return m, mac, err
	}
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) != uint64(len(b)-4) {
		return m, mac, malformed("extra is not as long as it says")
	}
	m.Extra = b[4:]
	return m, mac, nil
}

// id reads a length[2] and as many bytes.
func id(b []byte, what string) (s string, rest []byte, err error) {
	if len(b) < 2 {
		return "", nil, malformed("no %s", what)
	}
	n := int(binary.LittleEndian.Uint16(b))
	b = b[2:]
	if n > MaxID || n > len(b) {
		return "", nil, malformed("%s of %d bytes: at most %d, and %d are there", what, n, MaxID, len(b))
	}
	return string(b[:n]), b[n:], nil
}

func malformed(format string, args ...any) error {
	return errs.New(errs.Protocol, "MUMBLE: "+format, args...)
}

func (m Message) text(mac [MacLen]byte) string {
	return prefix + encoding.EncodeToString(m.append(nil, mac)) + suffix
}

func (m Message) append(b []byte, mac [MacLen]byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, version)
	b = append(b, mac[:]...)
	b = append(b, m.Key[:]...)
	b = binary.LittleEndian.AppendUint32(b, m.Time)
	b = binary.LittleEndian.AppendUint32(b, m.TTL)
	for _, s := range []string{m.Node, m.Group} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.Extra)))
	return append(b, m.Extra...)
}

// mac is HMAC-SHA1 over the message with a mac of zeros.
func (m Message) mac(secret []byte) (mac [MacLen]byte) {
	h := hmac.New(sha1.New, secret)
	h.Write(m.append(nil, mac))
	h.Sum(mac[:0])
	return mac
}

// SignedBy tells whether mac is m's with secret; it compares in constant time. Anyone
// can sign with an empty secret, so that one counts for nothing.
func (m Message) SignedBy(secret []byte, mac [MacLen]byte) bool {
	want := m.mac(secret)
	return len(secret) > 0 && hmac.Equal(want[:], mac[:])
}

// Expired tells whether m's time to live is over.
func (m Message) Expired(now time.Time) bool {
	end := time.Unix(int64(m.Time)+int64(m.TTL), 0)
	return m.TTL != 0 && now.After(end.Add(Skew))
}
