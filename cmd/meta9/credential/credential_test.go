//go:build linux

package credential_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/cmd/meta9/credential"
	"meta9/rarelog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mapText = `
by_name = ["web.service", "job@.service"]
[unit."app.service"]
"db.password" = "app-db"
token = "internal/t_pw"
[unit."app@.service"]
token = "shared"
[unit."app@1.service"]
token = "first's"
[unit."app@0.service"]
[unit."job@0.service"]
`

func load(t *testing.T, text string) (*credential.Map, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "map.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return credential.Load(file)
}

func TestMap(t *testing.T) {
	m, err := load(t, mapText)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ unit, name, key string }{
		{"app.service", "db.password", "keys/app-db"},
		{"app.service", "token", "internal/t_pw"},
		{"app.service", "other", ""},
		{"app@1.service", "token", "keys/first's"},
		{"app@2.service", "token", "keys/shared"},
		{"app@0.service", "token", ""},
		{"job@0.service", "x", ""},
		{"app@2.socket", "token", ""},
		{"web.service", "x%y", "keys/credential.web.service.x%25y"},
		{"job@7.service", "x", "keys/credential.job@7.service.x"},
		{"nobody.service", "token", ""},
		{"", "token", ""},
	} {
		key, ok := m.Key(tt.unit, tt.name)
		if key != tt.key || ok != (tt.key != "") {
			t.Errorf("%s of %s is %q, %v; want %q", tt.name, tt.unit, key, ok, tt.key)
		}
	}
	if m, err := credential.Load(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	} else if key, ok := m.Key("app.service", "token"); ok {
		t.Errorf("without a map %q may be had", key)
	}
	for text, want := range map[string]string{
		"by_name = [\"web\"]":                   `"web" is no name of a unit`,
		"[unit.\"a/b.service\"]\nx = \"y\"":     `"a/b.service" is no name of a unit`,
		"[unit.\"a.service\"]\n\"x/y\" = \"z\"": `"x/y" is no name of a credential`,
		"[unit.\"a.service\"]\nx = \"../y\"":    `"../y" is no path of a key`,
		"[units.\"a.service\"]\nx = \"y\"":      `unknown: units`,
		"[unit.\"a.service\"]\nx = 3":           `line 2`,
		"[unit.\"a.service\"]\nx = ":            `line 2`,
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", text, err, want)
		}
	}
}

func TestAsked(t *testing.T) {
	unit, name, err := credential.Asked(&net.UnixAddr{Name: "@adf9d86b6eda275e/unit/foobar.service/credx"}) // systemd.exec(5)
	if unit != "foobar.service" || name != "credx" || err != nil {
		t.Errorf("%q, %q, %v", unit, name, err)
	}
	for _, addr := range []string{
		"", "@", "adf9/unit/a.service/x", "@adf9/unit/a.service", "@adf9/unit/a.service/", "@adf9/unit//x", "@/unit/a.service/x",
		"@adf9/unit/a.service/x/y", "@adf9/fido2/a.service/x", "@adf9/unit/../x", "@adf9/unit/a.service/..", "@adf9/unit/a.service/x\n",
	} {
		if unit, name, err := credential.Asked(&net.UnixAddr{Name: addr}); err == nil {
			t.Errorf("%q asks for %q of %q", addr, name, unit)
		}
	}
}

// TestServe asks as systemd does: from an abstract address, with the writing side shut.
func TestServe(t *testing.T) {
	m, err := load(t, mapText)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := &credential.Server{
		Map: fixed(m), Time: 200 * time.Millisecond, Log: rarelog.Log{Log: zerolog.New(zerolog.SyncWriter(&log))},
		Read: func(ctx context.Context, path string) ([]byte, error) {
			switch path {
			case "keys/app-db":
				return []byte("secret\x00"), nil
			case "keys/shared":
				return make([]byte, credential.MaxSize), nil
			case "keys/first's":
				return make([]byte, credential.MaxSize+1), nil
			case "internal/t_pw":
				<-ctx.Done() // no host
				return nil, ctx.Err()
			}
			return nil, errors.New("file does not exist")
		},
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, 0) }()
	for i, tt := range []struct {
		unit, name string
		want       string // "": refused
	}{
		{"app.service", "db.password", "secret\x00"},
		{"app.service", "token", ""},
		{"app.service", "none", ""},
		{"web.service", "none", ""},
		{"app@2.service", "token", string(make([]byte, credential.MaxSize))},
		{"app@1.service", "token", ""},
	} {
		got := ask(t, path, fmt.Sprintf("@%016x/unit/%s/%s", i+1, tt.unit, tt.name))
		if tt.want == "" && len(got) <= credential.MaxSize || tt.want != "" && got != tt.want {
			t.Errorf("%s of %s has %d bytes, want %d", tt.name, tt.unit, len(got), len(tt.want))
		}
	}
	if got := ask(t, path, ""); len(got) <= credential.MaxSize {
		t.Errorf("who does not say what he wants gets %d bytes", len(got))
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"unit app.service may have no credential none: nothing in the map says so", "credential token: context deadline exceeded",
		"keys/first's has 1048577 bytes, and a credential at most 1048576", "unit web.service, credential none: file does not exist",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("a secret is in the log")
	}
}

// TestIdle: the service ends when nobody comes, and leaves the socket to systemd.
func TestIdle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	s := &credential.Server{Map: fixed(new(credential.Map)), Log: rarelog.Log{Log: zerolog.Nop()}}
	if err := s.Serve(t.Context(), l, 10*time.Millisecond); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func fixed(m *credential.Map) func() (*credential.Map, error) {
	return func() (*credential.Map, error) { return m, nil }
}

// TestLoadOwner: a map of another user's is nobody's word.
func TestLoadOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file of another user's takes root")
	}
	file := filepath.Join(t.TempDir(), "map.toml")
	if err := os.WriteFile(file, []byte(mapText), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := credential.Load(file); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Error(err)
	}
}

// TestMendedMap: a wrong map refuses who asks, and one that is mended counts at once. The
// host's text cannot steer a terminal, and each credential that is refused is said, however
// many there are.
func TestMendedMap(t *testing.T) {
	dir := t.TempDir()
	file, path := filepath.Join(dir, "map.toml"), filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := &credential.Server{
		Map: func() (*credential.Map, error) { return credential.Load(file) },
		Log: rarelog.Log{Log: zerolog.New(zerolog.SyncWriter(&log))},
		Read: func(_ context.Context, path string) ([]byte, error) {
			if path == "keys/app-db" {
				return []byte("secret"), nil
			}
			return nil, errors.New("\x1b[2J\nno\u202e" + strings.Repeat("long", 1000))
		},
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, 0) }()
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("by_name = [")
	if got := ask(t, path, "@aaaaaaaaaaaaaa/unit/app.service/db.password"); len(got) <= credential.MaxSize {
		t.Errorf("with a wrong map there are %d bytes", len(got))
	}
	write(mapText)
	if got := ask(t, path, "@aaaaaaaaaaaaab/unit/app.service/db.password"); got != "secret" {
		t.Errorf("with a mended map there are %d bytes", len(got))
	}
	for i := range 30 {
		ask(t, path, fmt.Sprintf("@aaaaaaaaaa%04d/unit/job@%d.service/x", i, i+1))
		ask(t, path, fmt.Sprintf("@bbbbbbbbbb%04d/unit/job@%d.service/x", i, i+1))
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	text := log.String()
	if !strings.Contains(text, "unit app.service, credential db.password: nobody may have one, as the map is wrong: ") {
		t.Errorf("the log lacks why: %s", text)
	}
	if n := strings.Count(text, "credential x: "); n != 30 {
		t.Errorf("%d lines for 30 credentials, each asked for twice", n)
	}
	if strings.Contains(text, "u001b") || strings.Contains(text, "\u202e") || len(text) > 30*500 {
		t.Errorf("the host's text is as it was: %.2000q", text)
	}
}

// TestSlowReader: a peer that does not read for a while, in which the service is told to stop, gets
// its whole credential, or its whole refusal, when it reads. Meanwhile others are answered, and the
// service does not take itself for idle.
func TestSlowReader(t *testing.T) {
	for unit, want := range map[string]int{"app.service": credential.MaxSize, "none.service": credential.MaxSize + 1} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		m, err := load(t, mapText)
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan bool, 2)
		s := &credential.Server{
			Map:  func() (*credential.Map, error) { asked <- true; return m, nil },
			Log:  rarelog.Log{Log: zerolog.Nop()},
			Read: func(context.Context, string) ([]byte, error) { return make([]byte, credential.MaxSize), nil },
		}
		c, err := net.DialUnix("unix", &net.UnixAddr{Name: "@cccccccccccccc/unit/" + unit + "/token", Net: "unix"}, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l, 2*time.Millisecond) }()
		<-asked
		time.Sleep(20 * time.Millisecond) // the idle time is over for sure
		if got := ask(t, path, "@dddddddddddddd/unit/web.service/x"); len(got) != credential.MaxSize {
			t.Errorf("another gets %d bytes", len(got))
		}
		stop()
		if b, err := io.ReadAll(c); err != nil || len(b) != want {
			t.Errorf("%s: %d bytes, %v; want %d", unit, len(b), err, want)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// ask reads what is said to a peer with an address.
func ask(t *testing.T, path, from string) string {
	t.Helper()
	var local *net.UnixAddr
	if from != "" {
		local = &net.UnixAddr{Name: from, Net: "unix"}
	}
	c, err := net.DialUnix("unix", local, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
