package session_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"meta9/session/wire"
)

// folderReader reads a folder as Linux's v9fs does (fs/9p/vfs_dir.c, p9_client_read
// in net/9p/client.c): a buffer of msize - 24 bytes is filled by one Tread after the
// other, each with what is left of the buffer for a count, until it is full or
// nothing comes; then its records are used, and the next buffer is filled. In
// 9P2000.L it is one Treaddir a buffer.
type folderReader struct {
	c     *client
	fid   uint32
	msize uint32
	place uint64 // the offset, or in .L the cookie
	names []string
	seen  []string // all that the entries say
	ended bool
}

// openFolder opens keys/ as fid.
func (c *client) openFolder(fid, msize uint32) *folderReader {
	c.t.Helper()
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: []string{"keys"}}, wire.Rwalk)
	if c.dialect == wire.L {
		c.do(&wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}, wire.Rlopen)
	} else {
		c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: fid}, wire.Ropen)
	}
	return &folderReader{c: c, fid: fid, msize: msize}
}

// more fills one buffer and takes the names in it. Nothing in it ends the listing.
func (r *folderReader) more() {
	r.c.t.Helper()
	if r.c.dialect == wire.L {
		list := r.c.readdir(r.fid, r.place, r.msize-24)
		for _, d := range list {
			r.names, r.place = append(r.names, d.Name), d.Offset
			r.seen = append(r.seen, fmt.Sprint(d))
		}
		r.ended = len(list) == 0
		return
	}
	r.fill(false)
}

// once is more, but for one message.
func (r *folderReader) once() {
	r.c.t.Helper()
	if r.c.dialect == wire.L {
		r.more()
		return
	}
	r.fill(true)
}

func (r *folderReader) fill(once bool) {
	r.c.t.Helper()
	var buf []byte
	for len(buf) < int(r.msize-24) && !(once && len(buf) > 0) {
		m := &wire.Msg{Type: wire.Tread, Tag: 1, Fid: r.fid, Offset: r.place, Count: r.msize - 24 - uint32(len(buf))}
		got := r.c.do(m, wire.Rread).Data
		if len(got) == 0 {
			break
		}
		buf = append(buf, got...)
		r.place += uint64(len(got))
	}
	r.ended = len(buf) == 0
	for len(buf) > 0 {
		d, rest, err := wire.DecodeDir(buf, r.c.dialect)
		if err != nil {
			r.c.t.Fatal(err)
		}
		r.names, buf = append(r.names, d.Name), rest
		r.seen = append(r.seen, fmt.Sprintf("%s length %d %+v", d.Name, d.Length, d))
	}
}

// TestLargeFolder lists 4,096 keys as Linux does, in every dialect and with the msize
// of old and new kernels, two listings at a time, while other keys come and go: every
// key that stays is listed, once.
func TestLargeFolder(t *testing.T) {
	const passing = 64
	keys := 4096
	if testing.Short() {
		keys = 2048
	}
	w := newWorld(t, nil)
	var want []string
	for i := range keys - passing {
		name := fmt.Sprintf("%d-%s", i, strings.Repeat("x", i%50))
		w.put(name, "v")
		want = append(want, name)
	}
	for i := range passing / 2 {
		w.put(fmt.Sprintf("passing%d", i), "v")
	}
	step := 0
	passOne := func() {
		if i := step % passing; i < passing/2 {
			w.put(fmt.Sprintf("passing%d", i+passing/2), "v")
		} else {
			w.remove(fmt.Sprintf("passing%d", i))
		}
		step++
	}
	for _, version := range []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L"} {
		for _, msize := range []uint32{4096, 8192, 128 << 10} {
			t.Run(fmt.Sprintf("%s/%d", version, msize), func(t *testing.T) {
				c := w.dial("unix", peers["vm"])
				c.t = t
				c.hello(version)
				c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: msize, Version: version}, wire.Rversion)
				c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, NUname: wire.NoUID}, wire.Rattach)
				one, other := c.openFolder(1, msize), c.openFolder(2, msize)
				for !one.ended || !other.ended {
					one.more()
					passOne()
					other.more()
					other.more()
				}
				for _, r := range []*folderReader{one, other} {
					got := slices.DeleteFunc(r.names, func(name string) bool { return strings.HasPrefix(name, "passing") })
					if !slices.Equal(got, want) {
						t.Errorf("%d keys are listed, want %d", len(got), len(want))
					}
				}
			})
		}
	}
}
