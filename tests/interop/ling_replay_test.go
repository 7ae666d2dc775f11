package interop

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/hugelgupf/p9/p9"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// lingRecording is testdata/ling.json; see the README beside it.
type lingRecording struct {
	Connections []struct{ Client, Server string }
}

// messages takes hex apart into frames and decodes them.
func messages(t *testing.T, digits string) (frames [][]byte, list []wire.Msg) {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := int(binary.LittleEndian.Uint32(b))
		var m wire.Msg
		if err := wire.Decode(&m, b[:n], wire.E); err != nil {
			t.Fatalf("%x: %v", b[:n], err)
		}
		frames, list, b = append(frames, b[:n]), append(list, m), b[n:]
	}
	return frames, list
}

// lingReplay compares what comes with what was recorded.
type lingReplay struct {
	t     *testing.T
	paths map[uint64]uint64 // the qid.path here of each that was recorded
}

// TestLingRecorded plays the nine connections that LING's codec made, frame by frame:
// MUMBLE, macros, resumes after a drop, a take-over, refusals. The answers are those
// that were recorded, but for numbers, times and listings, which every run has its
// own of.
func TestLingRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/ling.json")
	if err != nil {
		t.Fatal(err)
	}
	var rec lingRecording
	if err := json.Unmarshal(text, &rec); err != nil {
		t.Fatal(err)
	}
	if len(rec.Connections) != 9 {
		t.Fatalf("%d connections", len(rec.Connections))
	}
	srv := testenv.Start(t, daemon.Options{TCP: []string{""}, Config: mumbleConfig})
	srv.NewVM(testenv.UUID(446655440000), oneLine(samplePayload(446655440000)))
	p := &lingReplay{t: t, paths: map[uint64]uint64{}}
	for i, rc := range rec.Connections {
		c, err := raw.Dial("tcp", srv.TCPAddrs[0])
		if err != nil {
			t.Fatal(err)
		}
		frames, asked := messages(t, rc.Client)
		_, answers := messages(t, rc.Server)
		if len(asked) != len(answers) {
			t.Fatalf("connection %d: %d requests, %d replies", i, len(asked), len(answers))
		}
		for j := range asked {
			p.step(c, frames[j], &asked[j], &answers[j])
		}
		if i == 4 {
			defer c.Close() // the next one takes it over
		} else {
			c.Close()
		}
	}
}

// step asks once more for what was asked, and wants the same answer.
func (p *lingReplay) step(c *raw.Conn, frame []byte, asked, want *wire.Msg) {
	p.t.Helper()
	if err := c.Send(frame); err != nil {
		p.t.Fatal(err)
	}
	r, err := c.Recv()
	if err != nil {
		p.t.Fatalf("%s: %v", asked, err)
	}
	var got wire.Msg
	if err := wire.Decode(&got, raw.Frame(r.Type, r.Tag, r.Body), wire.E); err != nil {
		p.t.Fatalf("%s: %v", asked, err)
	}
	listing := asked.Type == wire.Tsread && len(asked.Names) == 0
	same := got.Type == want.Type && got.Tag == want.Tag && got.Ename == want.Ename && got.Version == want.Version &&
		got.Msize == want.Msize && got.Iounit == want.Iounit && len(got.QIDs) == len(want.QIDs) && p.sameFile(want.QID, got.QID)
	if !listing {
		same = same && got.Count == want.Count && string(got.Data) == string(want.Data)
	} else {
		same = same && len(got.Data) > 0
	}
	for i := range min(len(got.QIDs), len(want.QIDs)) {
		same = same && p.sameFile(want.QIDs[i], got.QIDs[i])
	}
	if !same {
		p.t.Errorf("%s:\n got %s\nwant %s", asked, &got, want)
	}
}

// sameFile tells whether two qids can be of the same file: what was one file then is
// one now.
func (p *lingReplay) sameFile(recorded, here p9.QID) bool {
	if path, known := p.paths[recorded.Path]; known {
		return path == here.Path && recorded.Type == here.Type
	}
	p.paths[recorded.Path] = here.Path
	return recorded.Type == here.Type
}
