package interop

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/mdbridge/mdata"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// TestReplaced reads a key while it is replaced 500 times a second, in the short form
// of the soak "replace".
func TestReplaced(t *testing.T) { replaced(t, 500, 300) }

// replaced reads a key while the admin replaces it as mv does, so many times a second,
// until each way to read it has opened it as often as opens says: by its path and by
// a fid that was walked to it before, in every dialect in which programs read; by
// Tsread; by GET of the metadata protocol. Nothing may fail, and nobody sees half a
// value. It tells how many opens and replacements there were.
func replaced(t *testing.T, perSecond, opens int) (read, written int64) {
	t.Helper()
	uuid := testenv.UUID(1)
	srv := testenv.Start(t, daemon.Options{})
	srv.NewVM(uuid, `{"uuid":"`+uuid+`","customer_metadata":{"k":"`+replacement(0)+`"}}`)
	admin := srv.Conn("vms/" + uuid + "/keys")
	defer admin.Close()
	quit := make(chan struct{})
	var writer, readers sync.WaitGroup
	var reads atomic.Int64
	writer.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			written++
			if err := replace(admin, int(written)); err != nil {
				t.Errorf("replacement %d: %v", written, err)
				return
			}
		}
	})
	for name, way := range replacedWays(t, srv, uuid) {
		readers.Go(func() {
			for range opens {
				b, err := way()
				if err != nil || !wholeReplacement(string(b)) {
					t.Errorf("%s: %.100q, %v", name, b, err)
					return
				}
				reads.Add(1)
			}
		})
	}
	readers.Wait()
	close(quit)
	writer.Wait()
	return reads.Load(), written
}

// replacement is the value number i: a line, several times.
func replacement(i int) string { return strings.Repeat(fmt.Sprintf("value %d,", i), 4) }

func wholeReplacement(s string) bool {
	first, rest, _ := strings.Cut(s, ",")
	return strings.HasPrefix(first, "value ") && rest == strings.Repeat(first+",", 3)
}

// replace makes another key and renames it over k, by a Twstat as a mount of 9P2000.u
// would.
func replace(c *raw.Conn, i int) error {
	if err := c.Swrite(0, []byte(replacement(i)), "k.new"); err != nil {
		return err
	}
	if err := c.Walk(0, 1, "k.new"); err != nil {
		return err
	}
	defer c.Clunk(1)
	_, err := c.RPC(wire.Twstat, 1, uint32(1), lingDir(^uint64(0), "k"))
	return err
}

// replacedWays are the ways to read the key, each of which is one goroutine's.
func replacedWays(t *testing.T, srv *testenv.Server, uuid string) map[string]func() ([]byte, error) {
	t.Helper()
	ways := map[string]func() ([]byte, error){}
	for _, version := range []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L"} {
		for _, by := range []string{"path", "fid"} {
			r := newReplacedReader(t, srv.VM(uuid), version)
			way := func() ([]byte, error) { return r.read(0, "keys", "k") }
			if by == "fid" {
				if err := r.c.Walk(0, 1, "keys", "k"); err != nil {
					t.Fatal(err)
				}
				way = func() ([]byte, error) { return r.read(1) }
			}
			ways[version+" by "+by] = way
		}
	}
	e := newReplacedReader(t, srv.VM(uuid), "9P2000.e")
	ways["Tsread"] = func() ([]byte, error) { return e.c.Sread(0, "keys", "k") }
	md, err := mdata.Dial(t.Context(), strings.TrimSuffix(srv.VM(uuid), "9p.sock")+"mdata.sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { md.Close() })
	ways["GET"] = func() ([]byte, error) { return md.Get(context.Background(), "k") }
	return ways
}

// replacedReader is a connection that reads as v9fs does: look-up with a stat, open
// of a clone, stat, read.
type replacedReader struct {
	c     *raw.Conn
	linux bool
}

func newReplacedReader(t *testing.T, socket, version string) replacedReader {
	t.Helper()
	c, err := raw.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_, err = c.RPC(wire.Tversion, raw.NoTag, uint32(8192), version)
	attach := []any{uint32(0), raw.NoFid, "root", ""}
	if version == "9P2000.u" || version == "9P2000.L" {
		attach = append(attach, ^uint32(0))
	}
	if err == nil {
		_, err = c.RPC(wire.Tattach, 1, attach...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return replacedReader{c, version == "9P2000.L"}
}

// read opens what the names lead to from a fid, and reads it.
func (r replacedReader) read(from uint32, names ...string) ([]byte, error) {
	const walked, open = 2, 3
	if err := r.c.Walk(from, walked, names...); err != nil {
		return nil, fmt.Errorf("walk: %w", err)
	}
	defer r.c.Clunk(walked)
	if err := r.stat(walked); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	if err := r.c.Walk(walked, open); err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	defer r.c.Clunk(open)
	var err error
	if r.linux {
		_, err = r.c.RPC(wire.Tlopen, 1, uint32(open), uint32(0))
	} else {
		err = r.c.Open(open, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := r.stat(walked); err != nil {
		return nil, fmt.Errorf("stat of what is open: %w", err)
	}
	return r.c.Read(open, 0, 4096)
}

func (r replacedReader) stat(fid uint32) error {
	var err error
	if r.linux {
		_, err = r.c.RPC(wire.Tgetattr, 1, fid, uint64(0x3fff))
	} else {
		_, err = r.c.RPC(wire.Tstat, 1, fid)
	}
	return err
}
