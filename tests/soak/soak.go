// Package soak is what the long forms of tests are written with. A soak is a test
// behind the build tag soak, so that no other run meets it; `make soak SOAK=NAME`
// runs one part of it, of at most 45 minutes, and adds a line to
// docs/testing/NAME.md (see tests/soak/run, which has the list of soaks). The next
// part, on this machine or another, goes on where the line says.
//
//	func TestSoak(t *testing.T) {
//		p := soak.Begin(t)
//		for i := p.From(0); p.More(); i++ {
//			// one round, whose chance comes from p.Seed and i
//			p.Stopped(i + 1)
//			p.Figure("rounds", i+1)
//		}
//	}
//
// A Part is used by one goroutine.
package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// The environment of a part.
const (
	EnvSeed   = "META9_SOAK_SEED"   // a number
	EnvAt     = "META9_SOAK_AT"     // where the part before stopped
	EnvTime   = "META9_SOAK_TIME"   // a duration
	EnvReport = "META9_SOAK_REPORT" // the file that the Report goes to
)

// byHand is how long a part is that go test runs without make soak.
const byHand = time.Minute

// Report is what a part says of itself, as JSON.
type Report struct {
	At      string   // where the next part goes on; "" at the beginning
	Figures []Figure // in the order in which they were first given
}

// Figure is one figure of a line.
type Figure struct{ Name, Value string }

// Part is one part of a soak.
type Part struct {
	Seed uint64 // another one in each part, but for one that failed: that comes again
	At   string // what the part before gave to Stopped; "" in the first

	t      testing.TB
	end    time.Time
	file   string
	report Report
}

// Begin reads what make soak has set. Without it, which is go test -tags soak by
// hand, the part has seed 1, begins at the beginning, takes a minute, and its
// report goes to the test's log.
func Begin(t testing.TB) *Part {
	t.Helper()
	p := &Part{Seed: 1, At: os.Getenv(EnvAt), t: t, file: os.Getenv(EnvReport)}
	p.report.At = p.At
	length := byHand
	var err error
	if s := os.Getenv(EnvSeed); s != "" {
		if p.Seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", EnvSeed, err)
		}
	}
	if s := os.Getenv(EnvTime); s != "" {
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", EnvTime, err)
		}
	}
	p.end = time.Now().Add(length)
	t.Cleanup(func() {
		if p.file == "" {
			t.Logf("seed %d, goes on at %q: %v", p.Seed, p.report.At, p.report.Figures)
		}
	})
	return p
}

// More tells whether there is time to begin something new.
func (p *Part) More() bool { return time.Now().Before(p.end) && !p.t.Failed() }

// Left is the time that this part still has.
func (p *Part) Left() time.Duration { return time.Until(p.end) }

// From is At as a number, and first in the first part.
func (p *Part) From(first int) int {
	p.t.Helper()
	if p.At == "" {
		return first
	}
	n, err := strconv.Atoi(p.At)
	if err != nil {
		p.t.Fatalf("the part before stopped at %q, which is no number", p.At)
	}
	return n
}

// Stopped says where the next part goes on: one line of text, such as a number
// or a name. It holds from now on, also when the process is killed.
func (p *Part) Stopped(at any) {
	p.report.At = fmt.Sprint(at)
	p.write()
}

// Figure gives a figure of this part, or a newer value of it.
func (p *Part) Figure(name string, value any) {
	f := Figure{name, fmt.Sprint(value)}
	for i := range p.report.Figures {
		if p.report.Figures[i].Name == name {
			p.report.Figures[i] = f
			p.write()
			return
		}
	}
	p.report.Figures = append(p.report.Figures, f)
	p.write()
}

// write replaces the report's file whole.
func (p *Part) write() {
	p.t.Helper()
	if p.file == "" {
		return
	}
	b, err := json.Marshal(p.report)
	if err == nil {
		err = os.WriteFile(p.file+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(p.file+".new", p.file)
	}
	if err != nil {
		p.t.Fatalf("the report of this part: %v", err)
	}
}
