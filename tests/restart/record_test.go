//go:build soak

package restart

import (
	"bufio"
	"encoding/hex"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

var record = flag.String("record", "", "have TestRecord write its recordings into this folder")

// recorder is a way to meta9d that writes down what goes over it: a line "+" for each
// connection, "> " and a frame in hexadecimal for what the client sends, "< " for replies.
type recorder struct {
	net.Listener
	to    string
	mu    sync.Mutex
	text  []byte
	conns []net.Conn
}

func (r *recorder) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, what+"\n"...)
}

func (r *recorder) run() {
	for {
		c, err := r.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("unix", r.to)
		if err != nil {
			c.Close()
			continue
		}
		r.note("+")
		r.mu.Lock()
		r.conns = append(r.conns, c, s)
		r.mu.Unlock()
		carry := func(to, from net.Conn, sign string) {
			defer to.Close()
			defer from.Close()
			for in := bufio.NewReader(from); ; {
				var head [4]byte
				b, err := in.Peek(4)
				if err != nil {
					return
				}
				copy(head[:], b)
				frame := make([]byte, uint32(head[0])|uint32(head[1])<<8|uint32(head[2])<<16)
				for n := 0; n < len(frame); {
					m, err := in.Read(frame[n:])
					if err != nil {
						return
					}
					n += m
				}
				r.note(sign + " " + hex.EncodeToString(frame))
				if _, err := to.Write(frame); err != nil {
					return
				}
			}
		}
		go carry(s, c, ">")
		go carry(c, s, "<")
	}
}

// TestRecord records what the meta9 of oldCommit says: commands, and a mount whose
// connection is lost once. testdata/old has what it has written.
func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("-record says where to")
	}
	oldD, old9 := buildOld(t)
	for name, script := range map[string]string{
		"commands": "m put keys/a hello; m cat keys/a; m mv keys/a keys/b; m ls keys; m put keys/b 'hello again'; m cat keys/b; m stat keys/b; m rm keys/b",
		"mount": "mkdir $D/mnt; $M mount --fuse $A $D/mnt; cd $D/mnt/keys; echo one >log; echo two >>log; cat log; exec 5>>log; flock 5; echo three >&5; " +
			"touch $D/cut; until [ -e $D/go ]; do sleep 0.05; done; echo four >&5; flock -u 5; exec 5>&-; cat log; printf AB | dd of=log bs=2 conv=notrunc; : >log; echo five >log; mv log log2; ls; rm log2; cd /; umount $D/mnt",
	} {
		w := newWorldWith(t, daemon.Options{Bin: oldD})
		dir := t.TempDir()
		l, err := net.Listen("unix", filepath.Join(w.Dir, "relay"))
		if err != nil {
			t.Fatal(err)
		}
		r := &recorder{Listener: l, to: w.VM(uuid)}
		go r.run()
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "-p", "-f", "--kill-child", "sh", "-ec", "m() { $M --addr $A \"$@\"; sleep 0.1; }; "+script)
		cmd.Env = append(os.Environ(), "D="+dir, "M="+old9, "A=unix:"+l.Addr().String())
		done := make(chan error, 1)
		go func() {
			out, err := cmd.CombinedOutput()
			t.Logf("%s: %s", name, out)
			done <- err
		}()
		if name == "mount" {
			testenv.Eventually(t, "it is to be cut", func() bool { _, err := os.Stat(filepath.Join(dir, "cut")); return err == nil })
			time.Sleep(time.Second) // nothing is under way
			r.mu.Lock()
			for _, c := range r.conns {
				c.Close()
			}
			r.mu.Unlock()
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		time.Sleep(200 * time.Millisecond)
		l.Close()
		r.mu.Lock()
		if err := os.WriteFile(filepath.Join(*record, name+".txt"), r.text, 0o644); err != nil {
			t.Error(err)
		}
		r.mu.Unlock()
	}
}
