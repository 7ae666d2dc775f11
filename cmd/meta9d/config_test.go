package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

// TestSample: the sample has every setting, at its default.
func TestSample(t *testing.T) {
	var c config
	md, err := toml.DecodeFile("../../docs/meta9d.toml", &c)
	if err != nil {
		t.Fatal(err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		t.Errorf("unknown: %v", un)
	}
	want := defaults()
	want.Listen, want.Mumble.AdminGroups, want.HTTP.Listen = []string{}, []string{}, []string{}
	want.HTTP.Metrics, want.Cluster.Endpoints = []string{}, []string{}
	if d := cmp.Diff(want, c, cmp.AllowUnexported(mumble{})); d != "" {
		t.Error(d)
	}
	if err := c.validate(); err != nil {
		t.Error(err)
	}
}

// settings writes a settings file.
func settings(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "meta9d.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFlagsWinOverFile(t *testing.T) {
	file := settings(t, `
data = "/file/data"
run = "/file/run"
listen = ["tcp:h:1", "tcp:h:2"]
log_level = "warn"
trace = true
[session]
lifetime = "48h"
`)
	c, err := parse([]string{"--data", "", "--listen=unix:x", "--config", file, "--listen", "unix:y", "--trace=false"})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Data, want.Run, want.LogLevel = "", "/file/run", "warn"
	want.Listen = []string{"unix:x", "unix:y"}
	want.Session.Lifetime = span(48 * time.Hour)
	if d := cmp.Diff(want, c.config, cmp.AllowUnexported(mumble{})); d != "" {
		t.Error(d)
	}
}

func TestFileOverDefaults(t *testing.T) {
	file := settings(t, `
listen = ["vsock:564"]
[sockets]
enabled = false
mode = 0o600
[limits]
value = 4096
vm_bytes = "3 MiB"
bytes = 0
auth_time = "1500ms"
[mumble]
secret = "0123456789abcdef"
admin_groups = ["ops"]
`)
	c, err := parse([]string{"--config", file})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Listen = []string{"vsock:564"}
	want.Sockets.Enabled, want.Sockets.Mode = false, 0o600
	want.Limits.Value, want.Limits.VMBytes, want.Limits.Bytes = 4096, 3<<20, 0
	want.Limits.AuthTime = span(1500 * time.Millisecond)
	want.Mumble.Secret, want.Mumble.AdminGroups = "0123456789abcdef", []string{"ops"}
	if d := cmp.Diff(want, c.config, cmp.AllowUnexported(mumble{})); d != "" {
		t.Error(d)
	}
}

// TestRefusedSettings: what cannot be meant is said by name, before anything is
// opened.
func TestRefusedSettings(t *testing.T) {
	for text, reason := range map[string]string{
		`dta = "x"`:                                "unknown: dta",
		"[limits]\nvalues = 1\nvalue = 1":          "unknown: limits.values",
		"[limit]\nvalue = 1":                       "unknown: limit",
		`data = 3`:                                 "line 1: data is a number, and must be a text in quotes",
		`data = ["x"]`:                             "line 1: data is a list, and must be a text in quotes",
		`trace = "yes"`:                            "line 1: trace is a text in quotes, and must be true or false",
		`listen = "vsock:564"`:                     `line 1: listen is a text in quotes, and must be a list, as in ["one", "two"]`,
		`listen = [564]`:                           "line 1: listen is a number, and must be a text in quotes",
		`http = "127.0.0.1:8009"`:                  "line 1: http is a text in quotes, and must be a section of settings",
		"[qmp]\nbind = 1":                          "qmp.bind must be a section of settings",
		`run = "/` + strings.Repeat("x", 60) + `"`: "run: the folder's name is 2 bytes too long: ",
		"run = \"/" + strings.Repeat("x", 95) + "\"\n[sockets]\nenabled = false\n": "run: the folder's name is 1 bytes too long",
		`listen = ["unix:/` + strings.Repeat("x", 107) + `"]`:                      "the path has 108 bytes",
		`listen = ["tcp:127.0.0.1:5640,as=admin"]`:                                 "say --insecure",
		"[limits]\nvalue = [1]":                                                    "line 2: limits.value is a list, and must be a number or a text in quotes",
		`data = `:                                                                  "line 1",
		`log_level = "loud"`:                                                       `"loud"`,
		`run = ""`:                                                                 "run",
		`libvirt = "libvirt-sock-ro"`:                                              "the absolute path",
		"libvirt = \"\"\nvminfod_from = \"unix:/x\"":                               "a mirror",
		`listen = ["tcp:5640"]`:                                                    "not HOST:PORT",
		`listen = ["tls::564"]`:                                                    "tls.cert",
		`listen = ["unix:/x,as=vm:1"]`:                                             "UUID",
		`listen = ["unix:/x,mode=0666"]`:                                           `unknown option "mode=0666"`,
		`admin_group = "0"`:                                                        "admin_group",
		"[http]\nlisten = [\"unix:/x,as=vm:01b2c898-945f-11e1-a523-af1afbe22822\"]": "http.listen: \"unix:/x,as=vm:01b2c898-945f-11e1-a523-af1afbe22822\": it is the admin's alone",
		"[http]\nlisten = [\"unix:/x,internal\"]":                                   `http.listen: listener "unix:/x,internal": unknown option`,
		"[qmp]\nlisten = [\"unix:/x,as=vm:01b2c898-945f-11e1-a523-af1afbe22822\"]":  "qmp.listen: ",
		"[qmp]\nlisten = [\"tcp:h:1\"]":                                             "it is unix:PATH",
		"[limits]\nvalue = \"1MB\"":                                                 `"1MB"`,
		"[limits]\nvalue = -1":                                                      `"-1"`,
		"[limits]\nvalue = \"9000000TiB\"":                                          `"9000000TiB"`,
		"[limits]\nvalue = 0":                                                       "limits.value: 0 is not from 1",
		"[limits]\nvalue = \"2GiB\"":                                                "limits.value",
		"[limits]\nconnections = 0":                                                 "limits.connections",
		"[limits]\nmsize = 4095":                                                    "limits.msize: 4095 is not from 4096",
		"[limits]\nmsize = \"2MiB\"":                                                "limits.msize",
		"[limits]\nauth_time = 10":                                                  `"10" is no time`,
		"[limits]\ntake_over = \"2h\"":                                              "limits.take_over",
		"[session]\nlifetime = \"0s\"":                                              "session.lifetime",
		"[session]\nlifetime = \"10000h\"":                                          "session.lifetime",
		"[sockets]\nmode = \"0888\"":                                                "0888",
		"[sockets]\nmode = 0o1777":                                                  "no mode",
		"[mumble]\nsecret = \"short\"":                                              "mumble.secret: 5 bytes; at least 16",
		"[mumble]\nadmin_groups = [\"ops\"]":                                        "without a secret",
		"[mumble]\nsecret = \"12345678\"\nsecret_file = \"x\"":                      "both set",
		"[mumble]\nsecret = \"0123456789abcdef\"\nadmin_groups = [\"\"]":            "mumble.admin_groups",
		"[tls]\ncert = \"x\"":                                                       "go together",
		"[tls]\nadmin = \"01B2C898-945f-11e1-a523-af1afbe22822\"":                   "tls.admin",
	} {
		file := settings(t, text)
		_, err := parse([]string{"--config", file})
		if err == nil || !strings.Contains(err.Error(), reason) || exitCode(err) != exitUsage {
			t.Errorf("%s\n  got %v, want %q", text, err, reason)
		}
	}
}

func TestRefusedFlags(t *testing.T) {
	for args, reason := range map[string]string{
		"--dta x":             "--dta",
		"--data":              "--data",
		"--trace=maybe":       "--trace",
		"--log-level loud":    `"loud"`,
		"--listen http:x":     `"http:x"`,
		"--config /nowhere/x": "/nowhere/x",
		"extra":               `"extra"`,
	} {
		_, err := parse(strings.Fields(args))
		if err == nil || !strings.Contains(err.Error(), reason) || exitCode(err) != exitUsage {
			t.Errorf("%s: got %v, want %q", args, err, reason)
		}
	}
}
