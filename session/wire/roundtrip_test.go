package wire_test

import (
	"testing"

	"pgregory.net/rapid"

	"meta9/session/wire"
)

// TestRoundTrips draws messages of every type of every dialect and takes each to
// its frame and back, to its line and back, and cuts its frame short.
func TestRoundTrips(t *testing.T) {
	used := &wire.Msg{}
	for _, d := range dialects {
		eachType(d, func(typ wire.Type) {
			t.Run(d.String()+"/"+typ.String(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					m := gen{t, d}.message(typ)
					frame, err := wire.Append([]byte("before"), m, d)
					if err != nil {
						t.Fatal(err)
					}
					frame = frame[len("before"):]
					checkFrame(t, used, m, frame, d)
					checkLine(t, m, m.String())
					checkLine(t, m, m.Format(d))
					checkCut(t, m, frame, d)
				})
			})
		})
	}
}

// checkFrame decodes into a message that was used before: nothing of an earlier
// frame may show.
func checkFrame(t *rapid.T, used, m *wire.Msg, frame []byte, d wire.Dialect) {
	size, typ, tag, ok := wire.Split(frame)
	if !ok || int(size) != len(frame) || typ != m.Type || tag != m.Tag {
		t.Fatalf("Split: %d %v %d %v", size, typ, tag, ok)
	}
	if err := wire.Decode(used, frame, d); err != nil {
		t.Fatal(err)
	}
	if diff := diff(m, used); diff != "" {
		t.Fatal(diff)
	}
}

func checkLine(t *rapid.T, m *wire.Msg, line string) {
	got, err := wire.Parse(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if diff := diff(m, got); diff != "" {
		t.Fatalf("%s: %s", line, diff)
	}
}

// checkCut cuts the frame anywhere: what is left never decodes, but for the two
// types that have a shorter form.
func checkCut(t *rapid.T, m *wire.Msg, frame []byte, d wire.Dialect) {
	n := rapid.IntRange(0, len(frame)-1).Draw(t, "cut")
	if m.Type == wire.Tfsync || m.Type == wire.Tsession {
		return
	}
	var got wire.Msg
	if err := wire.Decode(&got, frame[:n], d); err == nil {
		t.Fatalf("%d of %d bytes decode as %v", n, len(frame), &got)
	}
}
