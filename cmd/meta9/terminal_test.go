package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"plain\ttext, ü, 中\n":         "plain\ttext, ü, 中\n",
		"dos\r\nlines\r\n":            "dos\r\nlines\r\n",
		"over\rwritten":               `over\u000dwritten`,
		"\x1b[2J\x1b]0;title\a":       `\u001b[2J\u001b]0;title\u0007`,
		"\u009b31m\u0090\x7f":         `\u009b31m\u0090\u007f`,
		"\x9b31m":                     `\x9b31m`, // C1 of a terminal that reads Latin-1
		"user\u202enimda\u2066\u200f": `user\u202enimda\u2066\u200f`,
		"cut \xe4\xb8":                `cut \xe4\xb8`,
		"\ufffd":                      "\ufffd",
	} {
		if got := string(visible([]byte(in))); got != want {
			t.Errorf("visible(%q) is %q, want %q", in, got, want)
		}
	}
}

// FuzzVisible holds that nothing of a guest reaches a terminal that steers it, and that
// JSON keeps its meaning.
func FuzzVisible(f *testing.F) {
	f.Add([]byte("{\"a\":\"\u009b\u202e\"}"))
	f.Add([]byte("\x1b[0m\xff\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := visible(in)
		for i, r := range string(out) {
			if r == '\r' && i+1 < len(out) && out[i+1] == '\n' {
				continue
			}
			if steersTerminal(r) {
				t.Fatalf("%q became %q, with %U", in, out, r)
			}
		}
		if !utf8.Valid(out) {
			t.Fatalf("%q became %q, which is no UTF-8", in, out)
		}
		var a, b any
		if utf8.Valid(in) && !bytes.ContainsRune(in, '\r') && json.Unmarshal(in, &a) == nil {
			if err := json.Unmarshal(out, &b); err != nil {
				t.Fatalf("%q became %q: %v", in, out, err)
			}
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if !bytes.Equal(x, y) {
				t.Fatalf("%q became %q: another value", in, out)
			}
		}
	})
}
