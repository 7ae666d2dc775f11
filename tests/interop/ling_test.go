package interop

import (
	"bytes"
	"encoding/binary"
	"testing"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// ling replays the frames of LING's client, byte by byte as it was heard
// (docs/protocol.md, "LING"): it waits for Rversion, Rauth and nothing else before
// it has sent the rest of its greeting.
type ling struct {
	t *testing.T
	c *raw.Conn
}

// sends writes frames in one go, as pipelined.
func (l ling) sends(frames ...[]byte) {
	l.t.Helper()
	if err := l.c.Send(bytes.Join(frames, nil)); err != nil {
		l.t.Fatal(err)
	}
}

// gets takes the next frame, which must be this one.
func (l ling) gets(want wire.Type, tag uint16) raw.Reply {
	l.t.Helper()
	r, err := l.c.Recv()
	if err != nil {
		l.t.Fatal(err)
	}
	if r.Type != want || r.Tag != tag {
		l.t.Fatalf("got %v tag %d (%v), want %v tag %d", r.Type, r.Tag, r.Err(), want, tag)
	}
	return r
}

// lingDir is its Twstat record: type and dev 0, an all-zero qid, ~0 for what is
// not to change, and the name.
func lingDir(length uint64, name string) []byte {
	const none = ^uint32(0)
	record := raw.Frame(0, 0, uint16(0), uint32(0), make([]byte, 13),
		none, none, none, length, name, "", "", "")[raw.HeaderLen:]
	size := uint16(len(record))
	out := binary.LittleEndian.AppendUint16(nil, size+2)
	out = binary.LittleEndian.AppendUint16(out, size)
	return append(out, record...)
}

func TestLing(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{TCP: []string{""}, Config: mumbleConfig})
	srv.NewVM(testenv.UUID(446655440000), oneLine(samplePayload(446655440000)))
	c, err := raw.Dial("tcp", srv.TCPAddrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := ling{t, c}

	l.sends(raw.Frame(wire.Tversion, raw.NoTag, uint32(8192), "9P2000.e"))
	v := l.gets(wire.Rversion, raw.NoTag)
	want := raw.Frame(wire.Rversion, raw.NoTag, uint32(8192), "9P2000.e")[raw.HeaderLen:]
	if !bytes.Equal(v.Body, want) {
		t.Fatalf("Rversion %x: it accepts only %x", v.Body, want)
	}
	l.sends(raw.Frame(wire.Tauth, 1, uint32(0), "root", "/"))
	l.gets(wire.Rauth, 1)

	// The message, the mounts and the clunk go out together; replies may come in
	// any order, but each must be a success.
	l.sends(
		raw.Frame(wire.Twrite, 2, uint32(0), uint64(0), raw.Data(goldenMumble)),
		raw.Frame(wire.Tattach, 3, uint32(1), raw.NoFid, "", "/keys"),
		raw.Frame(wire.Tattach, 4, uint32(2), raw.NoFid, "", "/sdc"),
		raw.Frame(wire.Tclunk, 5, uint32(0)),
	)
	answers := map[uint16]wire.Type{}
	for range 4 {
		r, err := c.Recv()
		if err != nil {
			t.Fatal(err)
		}
		answers[r.Tag] = r.Type
	}
	for tag, want := range map[uint16]wire.Type{2: wire.Rwrite, 3: wire.Rattach, 4: wire.Rattach, 5: wire.Rclunk} {
		if answers[tag] != want {
			t.Errorf("tag %d: %v, want %v", tag, answers[tag], want)
		}
	}

	// A folder is read at growing offsets until nothing comes.
	l.sends(raw.Frame(wire.Twalk, 6, uint32(1), uint32(3), []string{}))
	l.gets(wire.Rwalk, 6)
	l.sends(raw.Frame(wire.Topen, 6, uint32(3), uint8(0)))
	l.gets(wire.Ropen, 6)
	var listing []byte
	for {
		l.sends(raw.Frame(wire.Tread, 7, uint32(3), uint64(len(listing)), uint32(8192-27)))
		data := l.gets(wire.Rread, 7).Data()
		if len(data) == 0 {
			break
		}
		listing = append(listing, data...)
	}
	for _, name := range []string{"color", "empty", "user-script"} {
		if !bytes.Contains(listing, append([]byte{byte(len(name)), 0}, name...)) {
			t.Errorf("no %q in the listing", name)
		}
	}

	// Zero type, dev and qid in a Twstat touch nothing.
	l.sends(raw.Frame(wire.Twalk, 8, uint32(1), uint32(4), []string{"color"}))
	l.gets(wire.Rwalk, 8)
	l.sends(raw.Frame(wire.Twstat, 9, uint32(4), lingDir(2, "")))
	l.gets(wire.Rwstat, 9)
	l.sends(raw.Frame(wire.Twstat, 9, uint32(4), lingDir(^uint64(0), "colour")))
	l.gets(wire.Rwstat, 9)
	l.sends(raw.Frame(wire.Tsread, 10, uint32(1), []string{"colour"}))
	if got := l.gets(wire.Rsread, 10).Data(); string(got) != "bl" {
		t.Errorf("after the Twstats: %q", got)
	}
}
