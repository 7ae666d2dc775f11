// Package qmptest is for the tests of QMP's client, server and discovery: the
// conversations that were recorded with a QEMU, and a QEMU that is none.
//
// A QEMU has one goroutine that accepts and serves, as a real one has; its lock is
// held for moments only.
package qmptest

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// Exchange is what a client sent, and what it got up to its next sending.
type Exchange struct {
	Client string // which of the clients of the recording
	Line   int    // of the file
	Send   string
	Recv   []string // lines without their ends
}

// Vectors reads a recorded conversation (mdbridge/qmp/testdata/README.md). Lines
// that the recording cut short are left out.
func Vectors(t testing.TB, file string) []Exchange {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []Exchange
	for i, line := range strings.Split(string(b), "\n") {
		who, rest, ok := strings.Cut(line, "-> ")
		if ok && len(who) == 1 {
			all = append(all, Exchange{Client: who, Line: i + 1, Send: bytesOf(rest)})
			continue
		}
		who, rest, ok = strings.Cut(line, "<- ")
		if at := last(all, who); ok && at != nil && !strings.HasSuffix(rest, " bytes)") {
			at.Recv = append(at.Recv, bytesOf(rest))
		}
	}
	return all
}

// last is the newest exchange of a client.
func last(all []Exchange, client string) *Exchange {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Client == client {
			return &all[i]
		}
	}
	return nil
}

// bytesOf is the text, or, where it stands as Python's b'...', what that means.
func bytesOf(s string) string {
	if !strings.HasPrefix(s, "b'") || !strings.HasSuffix(s, "'") {
		return s
	}
	s = strings.ReplaceAll(s[2:len(s)-1], `"`, `\"`)
	if text, err := strconv.Unquote(`"` + s + `"`); err == nil {
		return text
	}
	return s
}
