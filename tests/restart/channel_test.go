package restart

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"meta9/session/wire"
	"meta9/tests/certs"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// channel is a way by which a guest comes to its VM.
type channel struct {
	name   string
	closes bool // a live update closes its connections
	dial   func(vm int) (net.Conn, error)
}

// channels are all but vsock with a listener of meta9d's, which wants a host that has
// /dev/vhost-vsock (session/listen's TestVsockConn and TestVsockGoesOn have its parts), for the
// VMs of these numbers: a device has one connection at a time, and each client needs its own.
func (w *world) channels(issuer *certs.Issuer, vms ...int) []channel {
	w.t.Helper()
	devices, firecracker := make(map[int]*device), make(map[int]string)
	for i, n := range vms {
		id := testenv.UUID(n)
		w.NewVM(id, `{"uuid":"`+id+`","customer_metadata":{"open":"of open"}}`)
		firecracker[n] = filepath.Join(w.Dir, fmt.Sprint("firecracker", i))
		devices[n] = w.deviceOf(id, fmt.Sprint("device", i))
		if err := w.Ctl(`update ` + id + ` {"9p_listen":"` + firecracker[n] + `","vsock_unprivileged":true}`); err != nil {
			w.t.Fatal(err)
		}
		testenv.Eventually(w.t, "the socket for Firecracker is there", func() bool {
			_, err := os.Stat(firecracker[n])
			return err == nil
		})
	}
	return []channel{
		{"9p.sock", false, func(vm int) (net.Conn, error) { return net.Dial("unix", w.VM(testenv.UUID(vm))) }},
		{"tcp", false, func(vm int) (net.Conn, error) { return net.Dial("tcp", w.TCPAddrs[vm-vms[0]]) }},
		{"tls", true, func(vm int) (net.Conn, error) { return issuer.Dial(w.Server, issuer.Issue(testenv.UUID(vm))) }},
		{"link.sock", false, func(vm int) (net.Conn, error) { return w.linkOf(testenv.UUID(vm)), nil }},
		{"9p_chardev", false, func(vm int) (net.Conn, error) { return devices[vm].accept(), nil }},
		{"9p_listen", false, func(vm int) (net.Conn, error) { return net.Dial("unix", firecracker[vm]) }},
	}
}

// TestSeenByChannel: what TestSeen holds is so by every channel, for a client of the kernel's
// dialects and for one of 9P2000.e. A live update closes the connections of tls, and only
// these: for their clients it is a planned restart.
func TestSeenByChannel(t *testing.T) {
	for _, row := range []struct {
		what        string
		do          func(w *world, all []*raw.Conn)
		stays, kept bool
	}{
		{"a live update", func(w *world, _ []*raw.Conn) { w.LiveUpdate() }, true, true},
		{"the transport is lost", func(_ *world, all []*raw.Conn) {
			for _, c := range all {
				c.Close()
			}
		}, false, true},
		{"a planned restart", func(w *world, _ []*raw.Conn) { w.PlannedRestart() }, false, true},
		{"a kill", func(w *world, _ []*raw.Conn) { w.Restart() }, false, true},
		{"the host loses power", func(w *world, _ []*raw.Conn) {
			w.Kill()
			_ = os.RemoveAll(filepath.Join(w.Run(), "journal"))
			w.again()
		}, false, false},
	} {
		t.Run(row.what, func(t *testing.T) {
			const plainVM, sessionVM = 2, 3
			issuer := certs.New(t)
			w := newWorldWith(t, daemon.Options{
				TCP:    []string{"as=vm:" + testenv.UUID(plainVM), "as=vm:" + testenv.UUID(sessionVM)},
				Args:   []string{"--listen", "tls:127.0.0.1:0"},
				Config: issuer.Settings(),
			})
			var plain, sessions, all []*raw.Conn
			channels := w.channels(issuer, plainVM, sessionVM)
			for i, ch := range channels {
				c := w.speaks(ch.connect(w, plainVM), "9P2000.L")
				w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
				plain = append(plain, c)
				e := w.announces(ch.connect(w, sessionVM), "9P2000.e", byte(1+i), false)
				w.rpc(e, wire.Tattach, uint32(0), wire.NoFid, "", "")
				w.rpc(e, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
				w.rpc(e, wire.Topen, uint32(1), wire.ORdWr)
				sessions = append(sessions, e)
				all = append(all, c, e)
			}

			row.do(w, all)

			for i, ch := range channels {
				stay := row.stays && !ch.closes
				for _, c := range []*raw.Conn{plain[i], sessions[i]} {
					if got := stays(t, c.Net); got != stay {
						t.Errorf("%s: the connection stays: %v, want %v", ch.name, got, stay)
					}
				}
				c, e := plain[i], sessions[i]
				if !stay {
					c = w.speaks(ch.connect(w, plainVM), "9P2000.L")
					w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
					e = w.announces(ch.connect(w, sessionVM), "9P2000.e", byte(1+i), row.kept)
				}
				w.rpc(c, wire.Twalk, uint32(1), uint32(2), []string{})
				if row.kept {
					if b, err := e.Read(1, 3, 100); err != nil || string(b) != "open" {
						t.Errorf("%s: 9P2000.e reads %q, %v", ch.name, b, err)
					}
				}
			}
		})
	}
}

// connect is a connection by the channel, as soon as there can be one.
func (ch *channel) connect(w *world, vm int) *raw.Conn {
	w.t.Helper()
	var c net.Conn
	testenv.Eventually(w.t, "a connection by "+ch.name, func() (is bool) {
		var err error
		c, err = ch.dial(vm)
		return err == nil
	})
	w.t.Cleanup(func() { c.Close() })
	return raw.New(c)
}
