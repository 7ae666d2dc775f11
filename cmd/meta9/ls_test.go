package main

import (
	"bytes"
	"testing"

	"meta9/session/client"
)

// TestListOnTerminal: a name is one line of a terminal, whatever is in it; elsewhere it is as
// it is.
func TestListOnTerminal(t *testing.T) {
	list := []client.Info{{Name: "a\nroot_pw\tis\x1b[2J"}}
	for tty, want := range map[bool]string{
		false: "a\nroot_pw\tis\x1b[2J\n",
		true:  `a\u000aroot_pw\u0009is\u001b[2J` + "\n",
	} {
		var b bytes.Buffer
		a := &app{out: &b, tty: tty}
		if tty {
			a.out = terminal{&b}
		}
		a.list(list, false)
		if got := b.String(); got != want {
			t.Errorf("terminal %t: %q, want %q", tty, got, want)
		}
	}
}
