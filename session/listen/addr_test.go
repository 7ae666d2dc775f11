package listen_test

import (
	"strings"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]listen.Addr{
		"unix:/run/x.sock":             {Net: listen.Unix, Path: "/run/x.sock"},
		"unix:a:b":                     {Net: listen.Unix, Path: "a:b"},
		"unix:/x,as=admin":             {Net: listen.Unix, Path: "/x", As: fs.Principal{Admin: true}},
		"unix:/x,as=vm:" + vm1:         {Net: listen.Unix, Path: "/x", As: fs.Principal{VM: vm1}},
		"tcp:127.0.0.1:564":            {Net: listen.TCP, Host: "127.0.0.1:564"},
		"tcp::5640":                    {Net: listen.TCP, Host: ":5640"},
		"tcp:[::1]:0":                  {Net: listen.TCP, Host: "[::1]:0"},
		"tcp:localhost:1,as=admin":     {Net: listen.TCP, Host: "localhost:1", As: fs.Principal{Admin: true}},
		"tcp:localhost:1,as=vm:" + vm1: {Net: listen.TCP, Host: "localhost:1", As: fs.Principal{VM: vm1}},
		"tls:host:564":                 {Net: listen.TLS, Host: "host:564"},
		"vsock:564":                    {Net: listen.Vsock, Port: 564},
		"vsock:4294967294":             {Net: listen.Vsock, Port: 4294967294},
	} {
		got, err := listen.Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%s: is spelled %s", text, got)
		}
	}
}

func TestParseFoldsUUID(t *testing.T) {
	a, err := listen.Parse("tcp:h:1,as=vm:" + strings.ToUpper(vm1))
	if err != nil || a.As.VM != vm1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                   "unknown kind",
		"/run/x.sock":        "unknown kind",
		"http:x:1":           "unknown kind",
		"unix":               "no path",
		"unix:":              "no path",
		"tcp:":               "not HOST:PORT",
		"tcp:5640":           "not HOST:PORT",
		"tcp:::1:564":        "not HOST:PORT",
		"tcp:h:9p":           `port "9p"`,
		"tcp:h:65536":        `port "65536"`,
		"tcp:h:1,":           "unknown option",
		"tcp:h:1,as=root":    "unknown option",
		"tcp:h:1,as=vm:x":    "UUID",
		"tcp:h:1,as=admin,x": "unknown option",
		"tls:h":              "not HOST:PORT",
		"tls:h:1,as=admin":   `unknown option "as=admin": the client's certificate`,
		"vsock:1,as=admin":   `unknown option "as=admin": the peer's CID`,
		"unix:,as=admin":     "no path",
		"unix:/x,":           `unknown option ""`,
		"unix:/x,as=root":    `unknown option "as=root"`,
		"unix:/x,mode=0660":  `unknown option "mode=0660"`,
		"unix:/x,as=vm:x":    "UUID",
		"unix:/x,y":          `unknown option "y"`,
		"vsock:0":            "from 1 to",
		"vsock:4294967295":   "from 1 to",
		"vsock:-1":           "from 1 to",
		"vsock:3:564":        "from 1 to",
	} {
		_, err := listen.Parse(text)
		if err == nil {
			t.Errorf("%q is an address", text)
			continue
		}
		for _, want := range []string{reason, "tcp:HOST:PORT", text} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %q does not say %q", text, err, want)
			}
		}
	}
}

// FuzzParse: what is an address has a text that is the same address.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"unix:x", "tcp:h:1,as=vm:" + vm1, "tls:[::1]:1", "vsock:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := listen.Parse(s)
		if err != nil {
			return
		}
		if b, err := listen.Parse(a.String()); err != nil || a != b {
			t.Errorf("%q is %+v, its text %q is %+v, %v", s, a, a, b, err)
		}
	})
}
