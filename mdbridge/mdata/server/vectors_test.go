package server_test

import (
	"testing"

	"meta9/fs/store"
	"meta9/mdbridge/mdata/mdatatest"
	"meta9/mdbridge/mdata/server"
)

const vectors = "../testdata/mdata.json"

func recorded(t *testing.T) (mdatatest.Recorded, *world) {
	r := mdatatest.Load(t, vectors)
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(string(r.VM))
	return r, w
}

func TestRecordedApart(t *testing.T) {
	r, w := recorded(t)
	r.Apart(t, w.dial)
}

func TestRecordedTogether(t *testing.T) {
	r, w := recorded(t)
	r.Together(t, w.dial())
}

func TestRecordedPTY(t *testing.T) {
	r, w := recorded(t)
	host, path := mdatatest.PTY(t)
	mdatatest.Join(t, host, w.dial())
	r.Together(t, mdatatest.OpenRaw(t, path))
}
