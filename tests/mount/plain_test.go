package mount

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// TestPlain: v9fs alone, without meta9 mount. When the server goes, whoever waits
// and whoever asks gets an error at once; umount works, and a new mount does.
func TestPlain(t *testing.T) {
	for _, via := range []string{"user", "net", "serial"} { // trans=tcp twice, trans=fd
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			s := testenv.Start(t, daemon.Options{})
			s.NewVM(uuid, `{"uuid":"`+uuid+`","customer_metadata":{"motd":"hello"}}`)
			path := &net.UnixAddr{Net: "unix", Name: filepath.Join(s.Dir, "9p.sock")}
			var addr net.Addr = path
			if via == "user" {
				addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
			}
			c, err := newCutter(addr, *seed, frames, false, func() (net.Conn, error) { return net.Dial("unix", s.VM(uuid)) })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.close)
			connect := "unix:" + path.Name
			if via == "user" {
				connect = "tcp:" + c.addr.String()
			}
			w := &world{Server: s, Guest: guest.Boot(t, machine.Options{Connect: connect, Via: via})}
			mount := "mount9p -p 0 " + dir + " cache=none"
			w.Sh(t, mount)
			for range 3 {
				w.Sh(t, "echo v > "+keys+"/motd && cat "+keys+"/motd")
				reader, err := w.Start("/", 0, "dd if="+dir+"/events") // the transport has cats
				if err != nil {
					t.Fatal(err)
				}
				testenv.Eventually(t, "it waits for events", func() bool { // it is in read(2), of descriptor 0; bullseye's kernel has no wchan
					return strings.HasPrefix(w.Sh(t, "cat /proc/$(pidof dd)/syscall 2>/dev/null || :"), "0 0x0 ")
				})
				w.Restart()
				select {
				case <-reader: // with an error, or at the end of the file over trans=fd
				case <-time.After(soon):
					t.Error("who waits is not told")
				}
				if via == "serial" { // one is told of the connection that was reset
					_, _, _ = w.Guest.Run("/", 0, "cat "+keys+"/motd")
				}
				w.fails(t, "cat "+keys+"/motd", "Input/output error", soon)
				w.fails(t, "echo v > "+keys+"/motd", "Input/output error", soon)
				w.Sh(t, "umount "+dir)
				w.Sh(t, "until "+mount+"; do sleep 0.2; done")
			}
		})
	}
}
