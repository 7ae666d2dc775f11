package mumble_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/session/mumble"
)

// The message of docs/protocol.md, "MUMBLE".
const (
	secret = "meta9-example-secret"
	node   = "550e8400-e29b-41d4-a716-446655440000"
	golden = "MUMBLE:AAHo9hM9AkDLEfHrdcC1gDKRVl3UnAECAwQFBgcIAKUYagAAAAAkADU1MGU4NDAwLWUyOWItNDFkNC1hNzE2LTQ0NjY1NTQ0MDAwMAYAc3dhcm0xAAAAAA==:"
)

var example = mumble.Message{
	Key:  [8]byte{1, 2, 3, 4, 5, 6, 7, 8},
	Time: 1780000000, Node: node, Group: "swarm1",
}

func at(sec int64) time.Time { return time.Unix(sec, 0) }

// verify judges a text as session/auth does: whatever is wrong, the error is the same.
func verify(text, secret []byte, now time.Time) (mumble.Message, error) {
	m, mac, err := mumble.Parse(text)
	if err != nil || !m.SignedBy(secret, mac) || m.Expired(now) {
		return mumble.Message{}, errs.AuthFailed
	}
	return m, nil
}

func TestGolden(t *testing.T) {
	if got := example.Sign([]byte(secret)); got != golden {
		t.Errorf("Sign:\n got %s\nwant %s", got, golden)
	}
	got, err := verify([]byte(golden), []byte(secret), at(1<<33))
	if err != nil {
		t.Fatal(err)
	}
	want := example
	want.Extra = []byte{}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestEveryBitIsSigned changes each bit of the message in turn.
func TestEveryBitIsSigned(t *testing.T) {
	m := example
	m.Extra = []byte("more")
	text := m.Sign([]byte(secret))
	raw, _ := base64.StdEncoding.DecodeString(strings.Trim(strings.TrimPrefix(text, "MUMBLE"), ":"))
	for i := range 8 * len(raw) {
		raw[i/8] ^= 1 << (i % 8)
		forged := "MUMBLE:" + base64.StdEncoding.EncodeToString(raw) + ":"
		if _, err := verify([]byte(forged), []byte(secret), at(1780000000)); err != error(errs.AuthFailed) {
			t.Fatalf("bit %d changed: %v", i, err)
		}
		raw[i/8] ^= 1 << (i % 8)
	}
}

func TestTimeToLive(t *testing.T) {
	const made = 1000
	skew := int64(mumble.Skew / time.Second)
	for _, c := range []struct {
		ttl uint32
		now int64
		ok  bool
	}{
		{0, 0, true},
		{0, 1 << 40, true},
		{60, made, true},
		{60, 0, true}, // the signer's clock is ahead
		{60, made + 60 + skew, true},
		{60, made + 60 + skew + 1, false},
		{1<<32 - 1, made + 1<<32 - 1, true}, // the sum is past 32 bits
	} {
		m := mumble.Message{Time: made, TTL: c.ttl, Node: node}
		_, err := verify([]byte(m.Sign([]byte(secret))), []byte(secret), at(c.now))
		if (err == nil) != c.ok {
			t.Errorf("ttl %d at %d: %v", c.ttl, c.now, err)
		}
	}
}

func TestEmptySecretSignsNothing(t *testing.T) {
	for _, s := range [][]byte{nil, {}} {
		if _, err := verify([]byte(example.Sign(s)), s, at(0)); !errors.Is(err, errs.AuthFailed) {
			t.Errorf("secret %v: %v", s, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	long := mumble.Message{Node: strings.Repeat("n", mumble.MaxID+1)}
	huge := mumble.Message{Extra: make([]byte, mumble.MaxText)}
	wrap := func(raw string) string { return "MUMBLE:" + base64.StdEncoding.EncodeToString([]byte(raw)) + ":" }
	fixed := "\x00\x01" + strings.Repeat("\x00", 36)
	for what, text := range map[string]string{
		"nothing":             "",
		"only a prefix":       "MUMBLE:",
		"no suffix":           strings.TrimSuffix(golden, ":"),
		"a line end after":    golden + "\n",
		"a line end within":   golden[:20] + "\n" + golden[20:],
		"lower case":          strings.ToLower(golden),
		"no base64":           "MUMBLE:***:",
		"loose padding bits":  strings.Replace(golden, "AA==:", "AB==:", 1),
		"empty":               wrap(""),
		"another version":     wrap("\x00\x02" + fixed[2:] + "\x00\x00\x00\x00\x00\x00\x00\x00"),
		"no node":             wrap(fixed),
		"node cut off":        wrap(fixed + "\x05\x00ab"),
		"no group":            wrap(fixed + "\x00\x00"),
		"no extra":            wrap(fixed + "\x00\x00\x00\x00"),
		"extra says 4 GiB":    wrap(fixed + "\x00\x00\x00\x00\xff\xff\xff\xff"),
		"bytes after extra":   wrap(fixed + "\x00\x00\x00\x00\x00\x00\x00\x00x"),
		"node over the bound": long.Sign([]byte(secret)),
		"text over the bound": huge.Sign([]byte(secret)),
	} {
		if _, _, err := mumble.Parse([]byte(text)); !errors.Is(err, errs.Protocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzParse: nothing panics, and what is taken has one spelling.
func FuzzParse(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(mumble.Message{Extra: []byte{1}}.Sign([]byte("s"))))
	f.Add([]byte("MUMBLE::"))
	f.Add([]byte("MUMBLE:AAE=:"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, mac, err := mumble.Parse(text)
		if err != nil {
			return
		}
		if again := m.Text(mac); again != string(text) {
			t.Errorf("%q is also spelled %q", text, again)
		}
	})
}
