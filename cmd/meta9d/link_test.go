package main

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"meta9/session/packet"
)

// link begins a link over c, as a guest's program does.
func link(t *testing.T, c net.Conn) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := packet.Dial(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestLinks: packets on link.sock and on a device whose property says so; on each
// one link after the other.
func TestLinks(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "chardev")
	device, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	p := start(t, dir)
	p.connect("meta9-run/admin.sock").put("ctl", `create {"uuid":"`+vmUUID+`","9p_chardev":"unix:`+path+`,link"}`)
	dialled, err := device.Accept()
	if err != nil {
		t.Fatal(err)
	}
	sock, err := net.Dial("unix", filepath.Join(dir, "meta9-run", vmUUID, "link.sock"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]net.Conn{"device": dialled, "socket": sock} {
		for _, value := range []string{"one", "two"} {
			l := link(t, c)
			guest := newClient(t, l)
			guest.put("keys/"+name, value)
			if v := guest.get("keys/" + name); v != value {
				t.Errorf("%s: got %q", name, v)
			}
		}
	}
	if code, log := p.stop(); code != 0 {
		t.Errorf("exit %d, log:\n%s", code, log)
	}
}
