// Package mdatatest is what every server of the Joyent metadata protocol has to
// pass: the replies that SmartOS's agent gave to recorded requests, except where
// it is wrong (mdbridge/mdata/testdata).
package mdatatest

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meta9/mdbridge/mdata"
)

// Pair is one recorded request and the reply to it.
type Pair struct {
	N          int
	Name       string
	Send, Recv []byte
	Differs    string // what is wrong with the reply
}

// Recorded is the recording: Pairs in order, over the VM.
type Recorded struct {
	VM    json.RawMessage
	Pairs []Pair
}

// Load reads the recording.
func Load(t testing.TB, file string) Recorded {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r Recorded
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Pairs) < 100 {
		t.Fatalf("only %d pairs in %s", len(r.Pairs), file)
	}
	for i := range r.Pairs {
		r.Pairs[i].correct(t)
	}
	return r
}

// The request ids of the recording, one of them in upper case.
const (
	id      = "dc4fae17"
	upperID = "DC4FAE17"
)

// corrections are the replies to the pairs that have Differs, by their numbers.
var corrections = map[int]string{
	73: reply(id, mdata.NotFound, ""), 75: reply(id, mdata.NotFound, ""),
	74: reply(id, mdata.NotFound, ""), 76: reply(id, mdata.NotFound, ""), 77: reply(id, mdata.NotFound, ""),
	85: reply(id, mdata.NotFound, ""), 86: reply(id, mdata.NotFound, ""), 87: reply(id, mdata.NotFound, ""),
	88: reply(id, mdata.NotFound, ""), 89: reply(id, mdata.NotFound, ""), 90: reply(id, mdata.NotFound, ""),
	97:  reply(id, mdata.Success, "OK"),
	110: reply(id, mdata.Failure, `Cannot update "operator-script".`),
	111: reply(id, mdata.Success, "#!/bin/sh\necho op\n"),
	113: reply(id, mdata.Failure, "Invalid PUT Request"),
	116: reply(id, mdata.Success, allBytes()),
	124: reply(id, mdata.Success, "cust-host"),
	128: reply(upperID, mdata.Success, "cust-host"),
}

func reply(id, code, payload string) string {
	return string(mdata.AppendFrame(nil, []byte(id), code, []byte(payload)))
}

func allBytes() string {
	var b [256]byte
	for i := range b {
		b[i] = byte(i)
	}
	return string(b[:])
}

// correct puts the reply in place that is right.
func (p *Pair) correct(t testing.TB) {
	want, ok := corrections[p.N]
	if ok != (p.Differs != "") {
		t.Fatalf("pair %d: %q, and a correction: %v", p.N, p.Differs, ok)
	}
	if ok {
		p.Recv = []byte(want)
	}
}

// patience is how long a reply may take: far longer than it should.
const patience = 20 * time.Second

// Apart sends each pair on a connection of its own, from dial, and ends it: all
// that comes back until its end is the reply.
func (r Recorded) Apart(t *testing.T, dial func() *net.UnixConn) {
	for _, p := range r.Pairs {
		t.Run(p.Name, func(t *testing.T) {
			c := dial()
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err := c.Write(p.Send)
			if err == nil {
				err = c.CloseWrite()
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			p.check(t, got)
		})
	}
}

// Stream is one end of a connection; its Read must end with the deadline.
type Stream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// Together sends all pairs on one connection, one byte at a time, and reads as
// many lines as the reply has before it goes on. Silence is seen by the reply to
// the pair that follows. Pairs without an LF are left out.
func (r Recorded) Together(t *testing.T, c Stream) {
	c.SetDeadline(time.Now().Add(patience))
	for _, p := range r.Pairs {
		if !bytes.HasSuffix(p.Send, []byte("\n")) {
			continue
		}
		for i := range p.Send {
			if _, err := c.Write(p.Send[i : i+1]); err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
		}
		got, err := readLines(c, bytes.Count(p.Recv, []byte("\n")))
		if err != nil {
			t.Fatalf("%s: %v; got %q, want %q", p.Name, err, got, p.Recv)
		}
		p.check(t, got)
	}
}

// readLines reads that many lines and no byte more.
func readLines(c io.Reader, n int) (lines []byte, err error) {
	one := make([]byte, 1)
	for n > 0 {
		if _, err := io.ReadFull(c, one); err != nil {
			return lines, err
		}
		lines = append(lines, one[0])
		if one[0] == '\n' {
			n--
		}
	}
	return lines, nil
}

func (p *Pair) check(t *testing.T, got []byte) {
	t.Helper()
	if !bytes.Equal(p.canonical(got), p.canonical(p.Recv)) {
		t.Errorf("%d, %s: sent %q, got %q, want %q", p.N, p.Name, p.Send, got, p.Recv)
	}
}

// canonical is a reply with the names of KEYS in order, since they are a set.
func (p *Pair) canonical(reply []byte) []byte {
	command, arg := mdata.Command(bytes.TrimSuffix(p.Send, []byte("\n")))
	if f, ok := mdata.ParseFrame(arg); ok && string(command) == mdata.V2 && string(f.Code) == mdata.Keys {
		_, rest := mdata.Command(bytes.TrimSuffix(reply, []byte("\n")))
		if f, ok := mdata.ParseFrame(rest); ok {
			names := string(mdata.AppendDecoded(nil, f.Payload))
			return mdata.AppendFrame(nil, f.ID, string(f.Code), []byte(sorted(names)))
		}
	}
	if string(command) == mdata.Keys {
		return []byte(sorted(string(reply)))
	}
	return reply
}

func sorted(lines string) string {
	l := strings.Split(lines, "\n")
	slices.Sort(l)
	return strings.Join(l, "\n")
}
