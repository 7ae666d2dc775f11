package wire_test

import (
	"testing"

	"meta9/session/wire"
)

// TestNegotiate has every row of docs/protocol.md, "Versions", and the strings
// around it.
func TestNegotiate(t *testing.T) {
	for asked, want := range map[string]wire.Dialect{
		"9P2000":              wire.Plain,
		"9P2000.u":            wire.U,
		"9P2000.e":            wire.E,
		"9P2000.L":            wire.L,
		"9P2000.L.Google.0":   wire.L,
		"9P2000.L.Google.12":  wire.L,
		"9P2000.L.Google.":    wire.Plain,
		"9P2000.L.Google.7x":  wire.Plain,
		"9P2000.L.x":          wire.Plain,
		"9P2000.L.e":          wire.LE,
		"9P2000.e.n":          wire.EN,
		"9P2000.e.x":          wire.Plain,
		"9P2000.U":            wire.Plain,
		"9P2000.":             wire.Plain,
		"9P2000.anything.any": wire.Plain,
		"":                    wire.Unknown,
		"9P1999":              wire.Unknown,
		"9P2000e":             wire.Unknown,
		"9P20000":             wire.Unknown,
		"9p2000":              wire.Unknown,
		"none":                wire.Unknown,
		"unknown":             wire.Unknown,
		" 9P2000":             wire.Unknown,
		"9P2000\x00":          wire.Unknown,
	} {
		if got := wire.Negotiate(asked); got != want {
			t.Errorf("%q is answered %v, want %v", asked, got, want)
		}
	}
}

// TestAnswerIsStable asks for what was answered: a client that does so keeps it.
func TestAnswerIsStable(t *testing.T) {
	for _, asked := range []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L", "9P2000.x", "nonsense"} {
		d := wire.Negotiate(asked)
		if again := wire.Negotiate(d.String()); again != d {
			t.Errorf("%q is answered %v, and that %v", asked, d, again)
		}
	}
}

func TestTraits(t *testing.T) {
	type traits struct {
		l, u, sessions, numbered, detail bool
		name                             string
	}
	for d, want := range map[wire.Dialect]traits{
		wire.None:        {name: "none"},
		wire.Plain:       {name: "9P2000"},
		wire.U:           {u: true, detail: true, name: "9P2000.u"},
		wire.L:           {l: true, name: "9P2000.L"},
		wire.E:           {sessions: true, detail: true, name: "9P2000.e"},
		wire.LE:          {l: true, sessions: true, numbered: true, name: "9P2000.L.e"},
		wire.EN:          {sessions: true, numbered: true, detail: true, name: "9P2000.e.n"},
		wire.Unknown:     {name: "unknown"},
		wire.Unknown + 1: {name: "unknown"},
		255:              {name: "unknown"},
	} {
		if got := (traits{d.IsL(), d.IsU(), d.Sessions(), d.Numbered(), d.Detail(), d.String()}); got != want {
			t.Errorf("dialect %d: %+v, want %+v", d, got, want)
		}
	}
}
