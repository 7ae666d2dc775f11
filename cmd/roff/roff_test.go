package roff_test

import (
	"testing"

	"meta9/cmd/roff"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"a-b":             `a\-b`,
		".TH":             `\&.TH`,
		"x\n.y":           "x\n\\&.y",
		"it's":            `it\(aqs`,
		`C:\x`:            `C:\ex`,
		"no request: a.b": "no request: a.b",
	} {
		if got := roff.Text(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestFilled(t *testing.T) {
	for in, want := range map[string]string{
		"one two":      "one two",
		"one\ntwo":     "one two",
		"one\n  two":   "one\n  two",
		"one .two":     "one .two",
		".one":         `\&.one`,
		"one\n\nthree": "one\nthree",
	} {
		if got := roff.Filled(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
