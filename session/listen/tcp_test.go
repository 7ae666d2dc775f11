package listen_test

import (
	"strings"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
)

func TestTCP(t *testing.T) {
	for text, want := range map[string]fs.Principal{
		"tcp:127.0.0.1:0":              {},
		"tcp:127.0.0.1:0,as=admin":     {Admin: true},
		"tcp:127.0.0.1:0,as=vm:" + vm1: {VM: vm1},
	} {
		d := newDesk(t)
		l := open(t, listen.Config{Handle: d.handle, Insecure: true}, text)
		host, _, _ := strings.Cut(l.String(), ",")
		dial(t, host)
		a := d.next()
		if a.who != want || a.addr != "127.0.0.1" || a.via != l.String() {
			t.Errorf("%s: handed over %+v", text, a)
		}
		if strings.HasSuffix(host, ":0") {
			t.Errorf("%s does not say which port it is", l)
		}
	}
}

func TestInsecure(t *testing.T) {
	refuse(t, listen.Config{}, "tcp:127.0.0.1:0,as=admin", "--insecure")
	refuse(t, listen.Config{}, "tcp:127.0.0.1:0,as=vm:"+vm1, "--insecure")
	open(t, listen.Config{}, "tcp:127.0.0.1:0")
}

func TestPortInUse(t *testing.T) {
	l := open(t, listen.Config{}, "tcp:127.0.0.1:0")
	refuse(t, listen.Config{}, l.String(), "address already in use")
}
