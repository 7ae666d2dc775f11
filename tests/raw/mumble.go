package raw

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
)

// Mumble is the text that authenticates node and group and sets the session
// key, signed with secret; time and ttl are seconds, as in LING's
// doc/mumble.md.
func Mumble(secret string, key [8]byte, time, ttl uint32, node, group string) string {
	message := func(mac []byte) []byte {
		var b []byte
		for _, f := range []any{uint16(0x0100), mac, key[:], time, ttl, node, group, uint32(0)} {
			b = appendField(b, f)
		}
		return b
	}
	h := hmac.New(sha1.New, []byte(secret))
	h.Write(message(make([]byte, sha1.Size)))
	return "MUMBLE:" + base64.StdEncoding.EncodeToString(message(h.Sum(nil))) + ":"
}
