// Package interop drives meta9d with 9P clients that nobody here wrote, each
// through its own API, over unix and tcp. A client's adapter is in a file of
// its own, with what it cannot do and why; the script they all run is in
// script_test.go, and harness_test.go tries every adapter on some other
// server first, so that a failure says something about meta9d.
package interop

import (
	"testing"

	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// client is what a foreign client is asked to do. Paths are relative to the
// attach point, without a slash in front. An error is the client's own.
type client interface {
	list(dir string) ([]string, error)
	read(path string) (string, error)
	// write opens an existing file with truncation and writes value.
	write(path, value string) error
	// create makes a file and writes value to it.
	create(path, value string) error
	remove(path string) error
	// rename gives a file another name in its folder.
	rename(path, name string) error
	stat(path string) (info, error)
	truncate(path string, length uint64) error
	// appendTo makes an append-only file and writes every piece at offset 0.
	appendTo(path string, pieces ...string) error
	close()
}

// info is what a stat says.
type info struct {
	name   string
	length uint64
	dir    bool
}

// kind is a foreign client: how it connects, and what its API cannot do.
type kind struct {
	name   string
	dial   func(network, addr, aname string) (client, error)
	cannot map[string]string // operation: why
	peer   peer              // the server of others on which the harness is tried
}

// kinds are the foreign clients (tests/README.md). qp speaks 9P2000 here; its 9P2000.e is in
// dote_test.go.
var kinds = []kind{
	{name: "9fans", dial: dialPlan9, peer: peerUfs},
	{name: "docker", dial: dialDocker, peer: peerUfs},
	{name: "lionkov", dial: dialLionkov, peer: peerUfsDotu},
	{name: "knusbaum", dial: dialKnusbaum, peer: peerKnusbaum, cannot: map[string]string{
		"append": "its Create gives a File with iounit 0, whose Write sends empty Twrites for ever; and no open mode appends in 9P2000",
	}},
	{name: "ninep", dial: dialNinep, peer: peerKnusbaum},
	{name: "qp", dial: dialQp, peer: peerQp},
	{name: "p9", dial: dialP9, peer: peerLocal},
}

// pieces cuts value into what fits one message; an empty value is one piece.
func pieces(value string, size int) []string {
	var out []string
	for len(value) > size {
		out = append(out, value[:size])
		value = value[size:]
	}
	return append(out, value)
}
