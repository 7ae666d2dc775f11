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
		Map: m, Time: 200 * time.Millisecond, Log: zerolog.New(zerolog.SyncWriter(&log)),
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
	s := &credential.Server{Map: new(credential.Map), Log: zerolog.Nop()}
	if err := s.Serve(t.Context(), l, 10*time.Millisecond); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
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
