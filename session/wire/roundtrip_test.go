package wire_test

import (
	"testing"

	"pgregory.net/rapid"

	"meta9/session/wire"
)

// forEach runs a property for every message type of every dialect.
func forEach(t *testing.T, property func(t *rapid.T, m *wire.Msg, d wire.Dialect)) {
	for _, d := range dialects {
		eachType(d, func(typ wire.Type) {
			t.Run(d.String()+"/"+typ.String(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) { property(t, gen{t, d}.message(typ), d) })
			})
		})
	}
}

// TestBinaryRoundTrip decodes what was encoded into a message that was used
// before, so that nothing of an earlier frame may show.
func TestBinaryRoundTrip(t *testing.T) {
	used := &wire.Msg{}
	forEach(t, func(t *rapid.T, m *wire.Msg, d wire.Dialect) {
		frame, err := wire.Append([]byte("before"), m, d)
		if err != nil {
			t.Fatal(err)
		}
		frame = frame[len("before"):]
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
	})
}

func TestTextRoundTrip(t *testing.T) {
	forEach(t, func(t *rapid.T, m *wire.Msg, d wire.Dialect) {
		for _, line := range []string{m.String(), m.Format(d)} {
			got, err := wire.Parse(line)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if diff := diff(m, got); diff != "" {
				t.Fatalf("%s: %s", line, diff)
			}
		}
	})
}

// TestEveryPrefixIsRefused cuts frames anywhere: the rest never decodes.
func TestEveryPrefixIsRefused(t *testing.T) {
	forEach(t, func(t *rapid.T, m *wire.Msg, d wire.Dialect) {
		if m.Type == wire.Tfsync || m.Type == wire.Tsession {
			return // a shorter form exists
		}
		frame, err := wire.Append(nil, m, d)
		if err != nil {
			t.Fatal(err)
		}
		var got wire.Msg
		n := rapid.IntRange(0, len(frame)-1).Draw(t, "cut")
		if err := wire.Decode(&got, frame[:n], d); err == nil {
			t.Fatalf("%d of %d bytes decode as %v", n, len(frame), &got)
		}
	})
}
