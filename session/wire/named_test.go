package wire

import "testing"

// TestNamed holds the dialects that Negotiate does not answer with yet.
func TestNamed(t *testing.T) {
	for version, want := range map[string]Dialect{
		"9P2000.L":           L,
		"9P2000.L.Google.7":  L,
		"9P2000.L.Google.":   Plain,
		"9P2000.L.Google.7x": Plain,
		"9P2000.L.x":         Plain,
		"9P2000.L.e":         LE,
		"9P2000.e.n":         EN,
		"9P2000.e":           E,
	} {
		if got := named(version); got != want {
			t.Errorf("%q names %v, want %v", version, got, want)
		}
	}
}
