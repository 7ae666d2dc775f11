package rarelog_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/rarelog"
)

// world is a Log with a clock; said is what it wrote since it was last asked.
type world struct {
	rarelog.Log
	buf bytes.Buffer
	at  time.Time
}

func newWorld() *world {
	w := &world{at: time.Unix(1e9, 0)}
	w.Log.Log = zerolog.New(&w.buf)
	w.Now = func() time.Time { return w.at }
	return w
}

func (w *world) said() string {
	defer w.buf.Reset()
	return w.buf.String()
}

func TestOneLineAMinute(t *testing.T) {
	w := newWorld()
	for _, who := range []string{"", "a", "b"} {
		for i := range 5 {
			w.Warn(who).Msg("x")
			if got, want := w.said(), `{"level":"warn","more":0,"message":"x"}`+"\n"; i == 0 && got != want || i > 0 && got != "" {
				t.Errorf("%q, line %d: %q", who, i, got)
			}
		}
	}
	w.at = w.at.Add(time.Minute)
	w.Warn("a").Msg("y")
	if got := w.said(); got != `{"level":"warn","more":4,"message":"y"}`+"\n" {
		t.Error(got)
	}
}

// TestManyPeers cannot have more lines than there is room for peers, however many
// they are; and who is quiet makes room.
func TestManyPeers(t *testing.T) {
	w := newWorld()
	for round := range 3 {
		for range 2 {
			for who := range 5000 {
				w.Warn(fmt.Sprint(round, who)).Msg("x")
			}
		}
		if n := strings.Count(w.said(), "\n"); n != 1025 {
			t.Errorf("round %d: %d lines", round, n)
		}
		w.at = w.at.Add(time.Minute)
	}
}
