package restart

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// TestOldPrograms replays what the meta9 of the commit before 9P2000.L.e.2 and 9P2000.e.n.2
// said to the meta9d of that commit, over unix sockets: commands, and a mount that loses its
// connection once, and resumes. Today's meta9d answers with the same; where the connection
// is lost, also when meta9d was restarted meanwhile. testdata/old/README.md says how it was
// recorded.
func TestOldPrograms(t *testing.T) {
	for _, c := range []struct {
		name     string
		restarts bool
	}{{"commands", false}, {"mount", false}, {"mount", true}} {
		text, err := os.ReadFile(filepath.Join("testdata", "old", c.name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		var conn *raw.Conn
		waiting := make(map[uint16]raw.Reply) // that came before the recording has them
		frames, conns := 0, 0
		for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
			sign, frame, _ := strings.Cut(line, " ")
			b, err := hex.DecodeString(frame)
			if err != nil || sign != "+" && len(b) < raw.HeaderLen {
				t.Fatalf("%s, line %d: %v", c.name, i+1, err)
			}
			switch sign {
			case "+":
				if conn != nil {
					conn.Close()
				}
				if conns++; conns == 2 && c.restarts {
					w.PlannedRestart()
				}
				if conn, err = raw.Dial("unix", w.VM(uuid)); err != nil {
					t.Fatal(err)
				}
				clear(waiting)
			case ">":
				frames++
				if err := conn.Send(b); err != nil {
					t.Fatalf("%s, line %d: %v", c.name, i+1, err)
				}
			case "<":
				want := raw.Reply{Type: wire.Type(b[4]), Tag: uint16(b[5]) | uint16(b[6])<<8, Body: b[raw.HeaderLen:]}
				got, is := waiting[want.Tag]
				for !is {
					r, err := conn.Recv()
					if err != nil {
						t.Fatalf("%s, line %d: no %s: %v", c.name, i+1, want.Type, err)
					}
					if r.Tag == want.Tag {
						got, is = r, true
					} else {
						waiting[r.Tag] = r
					}
				}
				delete(waiting, want.Tag)
				if got.Type != want.Type || alike[want.Type] && !bytes.Equal(got.Body, want.Body) {
					t.Fatalf("%s, line %d: %s %x, and it was %s %x", c.name, i+1, got.Type, got.Body, want.Type, want.Body)
				}
			}
		}
		conn.Close()
		if frames < 30 || conns < 2 {
			t.Errorf("%s: %d frames by %d connections", c.name, frames, conns)
		}
		if b, err := w.Conn("vms/"+uuid).Sread(0, "keys"); err != nil || len(b) > 0 {
			t.Errorf("%s: keys are left: %q, %v", c.name, b, err)
		}
	}
}

// alike are the replies that say the same on each day: no qids and no times.
var alike = map[wire.Type]bool{
	wire.Rversion: true, wire.Rsession: true, wire.Rresume: true, wire.Rread: true, wire.Rwrite: true, wire.Rswrite: true, wire.Rclunk: true,
	wire.Rlock: true, wire.Rerror: true, wire.Rlerror: true, wire.Rrename: true, wire.Rrenameat: true, wire.Runlinkat: true, wire.Rflush: true,
}
