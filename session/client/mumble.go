package client

import (
	"encoding/base64"
	"strings"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// mumbleKey is the session key in a MUMBLE message, which sets it: key[8] follows
// version[2] and mac[20]. All else in the message is between its maker and the
// server.
func mumbleKey(text string) (key [wire.KeyLen]byte, err error) {
	const before = 2 + 20
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(text, "MUMBLE:"), ":"))
	if err != nil || len(b) < before+len(key) {
		return key, errs.New(errs.Invalid, "a MUMBLE message is MUMBLE:, base64 and a colon")
	}
	copy(key[:], b[before:])
	return key, nil
}
