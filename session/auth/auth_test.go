package auth_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/auth"
)

// The golden message of protocols/9p2000e.md 2.6.
const (
	secret = "meta9-example-secret"
	node   = "550e8400-e29b-41d4-a716-446655440000"
	golden = "MUMBLE:AAHo9hM9AkDLEfHrdcC1gDKRVl3UnAECAwQFBgcIAKUYagAAAAAkADU1MGU4NDAwLWUyOWItNDFkNC1hNzE2LTQ0NjY1NTQ0MDAwMAYAc3dhcm0xAAAAAA==:"
)

var example = auth.Message{
	Key:  [8]byte{1, 2, 3, 4, 5, 6, 7, 8},
	Time: 1780000000, Node: node, Group: "swarm1",
}

func at(sec int64) time.Time { return time.Unix(sec, 0) }

func TestGolden(t *testing.T) {
	if got := example.Sign([]byte(secret)); got != golden {
		t.Errorf("Sign:\n got %s\nwant %s", got, golden)
	}
	got, err := auth.Verify([]byte(golden), []byte(secret), at(1<<33))
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
		if _, err := auth.Verify([]byte(forged), []byte(secret), at(1780000000)); err != error(errs.AuthFailed) {
			t.Fatalf("bit %d changed: %v", i, err)
		}
		raw[i/8] ^= 1 << (i % 8)
	}
}

func TestTimeToLive(t *testing.T) {
	const made = 1000
	skew := int64(auth.Skew / time.Second)
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
		m := auth.Message{Time: made, TTL: c.ttl, Node: node}
		_, err := auth.Verify([]byte(m.Sign([]byte(secret))), []byte(secret), at(c.now))
		if (err == nil) != c.ok {
			t.Errorf("ttl %d at %d: %v", c.ttl, c.now, err)
		}
	}
}

func TestEmptySecretSignsNothing(t *testing.T) {
	for _, s := range [][]byte{nil, {}} {
		if _, err := auth.Verify([]byte(example.Sign(s)), s, at(0)); !errors.Is(err, errs.AuthFailed) {
			t.Errorf("secret %v: %v", s, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	long := auth.Message{Node: strings.Repeat("n", auth.MaxID+1)}
	huge := auth.Message{Extra: make([]byte, auth.MaxText)}
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
		if _, _, err := auth.Parse([]byte(text)); !errors.Is(err, errs.Protocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRing(t *testing.T) {
	const other = "660e8400-e29b-41d4-a716-446655440000"
	r := &auth.Ring{
		Secret: []byte(secret),
		VMSecret: func(uuid string) []byte {
			return map[string][]byte{node: []byte("its own")}[uuid]
		},
		AdminGroups: []string{"ops"},
		VMExists:    func(uuid string) bool { return uuid == node || uuid == other },
		Now:         func() time.Time { return at(5000) },
	}
	vm, admin := fs.Principal{VM: node}, fs.Principal{Admin: true}
	for what, c := range map[string]struct {
		m      auth.Message
		secret string
		want   fs.Principal // nobody: refused
	}{
		"a VM":                            {auth.Message{Node: node}, secret, vm},
		"a VM in upper case":              {auth.Message{Node: strings.ToUpper(node)}, secret, vm},
		"a VM by its own secret":          {auth.Message{Node: node}, "its own", vm},
		"a VM in an admin group":          {auth.Message{Node: node, Group: "ops"}, secret, vm},
		"an admin group":                  {auth.Message{Node: "host1", Group: "ops"}, secret, admin},
		"an admin group by a VM's secret": {auth.Message{Node: "host1", Group: "ops"}, "its own", fs.Principal{}},
		"a VM by another's secret":        {auth.Message{Node: other}, "its own", fs.Principal{}},
		"a VM by no secret":               {auth.Message{Node: other}, "", fs.Principal{}},
		"no such VM":                      {auth.Message{Node: "770e8400-e29b-41d4-a716-446655440000"}, secret, fs.Principal{}},
		"no such group":                   {auth.Message{Node: "host1", Group: "dev"}, secret, fs.Principal{}},
		"nothing":                         {auth.Message{}, secret, fs.Principal{}},
		"expired":                         {auth.Message{Node: node, Time: 1000, TTL: 60}, secret, fs.Principal{}},
	} {
		id, err := r.Check([]byte(c.m.Sign([]byte(c.secret))))
		if id.Who != c.want || (err == nil) == c.want.Nobody() {
			t.Errorf("%s: %v, %v", what, id.Who, err)
		}
		if err != nil && err != error(errs.AuthFailed) {
			t.Errorf("%s: the error says too much: %v", what, err)
		}
	}
}

func TestRingTellsIdentity(t *testing.T) {
	r := &auth.Ring{Secret: []byte(secret), VMExists: func(string) bool { return true }, Now: time.Now}
	got, err := r.Check([]byte(golden))
	want := auth.Identity{Who: fs.Principal{VM: node}, Node: node, Group: "swarm1", Key: example.Key}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzParse: nothing panics, and what is taken has one spelling.
func FuzzParse(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(auth.Message{Extra: []byte{1}}.Sign([]byte("s"))))
	f.Add([]byte("MUMBLE::"))
	f.Add([]byte("MUMBLE:AAE=:"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, mac, err := auth.Parse(text)
		if err != nil {
			return
		}
		if again := m.Text(mac); again != string(text) {
			t.Errorf("%q is also spelled %q", text, again)
		}
	})
}
