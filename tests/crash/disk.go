package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// disk is what a trace does to files and folders below root.
type disk struct {
	root  string
	files []*file
	dirs  map[string]*dir
	acks  []int // where each acknowledgement began to be written
	end   int   // lines of the trace
}

// span is from where to where something lasts, in lines of the trace.
type span struct{ begin, end int }

// file is one that the trace made, whatever it is called.
type file struct {
	writes []write
	syncs  []span
}

// write is bytes at an offset, or a new length.
type write struct {
	span
	at   int64
	data []byte
	cut  bool // at is the length
}

// dir is a folder. What is in it is known by its changes.
type dir struct {
	changes []change
	syncs   []span
}

// change is that a name leads to a file or folder, or nowhere, and with from that
// another one no longer does.
type change struct {
	span
	name, from string
	to         any // *file, *dir or nil
}

// newDisk follows the calls of a process that begins with an empty root.
func newDisk(root string, calls []call, lines int) (*disk, error) {
	d := &disk{root: root, dirs: map[string]*dir{root: {}}, end: lines}
	now := map[string]*file{} // by path
	open := map[int]any{}     // by descriptor
	for _, c := range calls {
		if c.result < 0 {
			continue
		}
		s := span{c.begin, c.end}
		path := func(i int) string { return string(c.texts()[i]) }
		switch c.name {
		case "mkdirat":
			if p := path(0); d.has(p) {
				made := &dir{}
				d.dirs[p] = made
				d.change(p, change{span: s, to: made})
			}
		case "openat":
			p := path(0)
			delete(open, c.result)
			switch f := now[p]; {
			case !d.has(p):
			case d.dirs[p] != nil:
				open[c.result] = d.dirs[p]
			case f != nil:
				open[c.result] = f
				if strings.Contains(c.args, "O_TRUNC") {
					f.writes = append(f.writes, write{span: s, cut: true})
				}
			case strings.Contains(c.args, "O_CREAT"):
				f = &file{}
				d.files, now[p], open[c.result] = append(d.files, f), f, f
				d.change(p, change{span: s, to: f})
			default:
				return nil, fmt.Errorf("line %d opens %s, which nobody made", c.begin, p)
			}
		case "renameat", "renameat2":
			from, to := path(0), path(1)
			if !d.has(from) {
				continue
			}
			now[to] = now[from]
			delete(now, from)
			d.change(to, change{span: s, to: now[to], from: filepath.Base(from)})
		case "unlinkat":
			if p := path(0); d.has(p) {
				delete(now, p)
				d.change(p, change{span: s})
			}
		case "pwrite64":
			f, ok := open[c.number(0)].(*file)
			if !ok {
				continue
			}
			data := c.texts()[0]
			if len(data) != c.result {
				return nil, fmt.Errorf("line %d has %d of %d bytes", c.begin, len(data), c.result)
			}
			f.writes = append(f.writes, write{span: s, at: int64(c.number(-1)), data: data})
		case "ftruncate":
			if f, ok := open[c.number(0)].(*file); ok {
				f.writes = append(f.writes, write{span: s, at: int64(c.number(-1)), cut: true})
			}
		case "fdatasync", "fsync":
			switch of := open[c.number(0)].(type) {
			case *file:
				of.syncs = append(of.syncs, s)
			case *dir:
				of.syncs = append(of.syncs, s)
			}
		case "write":
			if c.number(0) == 1 {
				d.acks = append(d.acks, c.begin)
			} else if _, ok := open[c.number(0)].(*file); ok {
				return nil, fmt.Errorf("line %d writes without an offset", c.begin)
			}
		}
	}
	return d, nil
}

// has says whether a path is of what is watched.
func (d *disk) has(path string) bool { return strings.HasPrefix(path, d.root) }

// change notes one in the folder of the path.
func (d *disk) change(path string, c change) {
	c.name = filepath.Base(path)
	in := d.dirs[filepath.Dir(path)]
	in.changes = append(in.changes, c)
}

// acked is how many acknowledgements may have been seen by that line.
func (d *disk) acked(at int) (n int) {
	for _, begin := range d.acks {
		if begin < at {
			n++
		}
	}
	return n
}

// synced is up to where what ended is durable at that line.
func synced(syncs []span, at int) (newest int) {
	newest = -1
	for _, s := range syncs {
		if s.end < at {
			newest = max(newest, s.begin)
		}
	}
	return newest
}

// The ways of a disk: what is on it, after a loss of power, of the writes that no sync has made
// durable.
const (
	dropped   = iota // none of them
	kept             // all of them
	reordered        // some, whichever came first
	torn             // of each some blocks; the others are as they were
	garbage          // of each some blocks; others are as they were, or hold any bytes
	ways             // how many ways there are
)

var wayNames = [ways]string{"dropped", "kept", "reordered", "torn", "garbage"}

// damager makes one image.
type damager struct {
	*rand.Rand
	way   int
	block int // 512 or 4096: what the disk writes whole
	at    int
}

// image makes the data folder in the empty folder to, as it may be after a loss of
// power at a line of the trace.
func (d *disk) image(to string, g damager) error {
	return g.dir(d.dirs[d.root], to)
}

// dir makes a folder's content: what is durable of its changes, and some of those
// that follow, in their order, as file systems with a journal do.
func (g damager) dir(d *dir, to string) error {
	durable := synced(d.syncs, g.at)
	is := map[string]any{}
	for _, c := range d.changes {
		switch pending := c.end > durable; {
		case c.begin >= g.at,
			pending && g.way == dropped,
			pending && g.way > kept && g.IntN(2) == 0:
			return g.make(is, to)
		}
		delete(is, c.from)
		is[c.name] = c.to
	}
	return g.make(is, to)
}

func (g damager) make(is map[string]any, to string) error {
	names := make([]string, 0, len(is))
	for name := range is {
		names = append(names, name)
	}
	slices.Sort(names) // so that a seed makes the same image again
	var err error
	for _, name := range names {
		path := filepath.Join(to, name)
		switch of := is[name].(type) {
		case *dir:
			err = errors.Join(err, os.Mkdir(path, 0o700), g.dir(of, path))
		case *file:
			err = errors.Join(err, os.WriteFile(path, g.content(of), 0o600))
		}
	}
	return err
}

// content is what a file holds.
func (g damager) content(f *file) []byte {
	var b []byte
	durable := synced(f.syncs, g.at)
	for _, w := range f.writes {
		switch {
		case w.begin >= g.at:
		case w.end < durable:
			b = w.apply(b)
		case g.way == dropped, g.way == reordered && g.IntN(2) == 0:
		case w.cut || g.way == kept || g.way == reordered:
			b = w.apply(b)
		default:
			b = g.tear(b, w)
		}
	}
	return b
}

// apply makes the write.
func (w write) apply(b []byte) []byte {
	end := w.at + int64(len(w.data))
	if w.cut && end < int64(len(b)) {
		return b[:end]
	}
	if grow := end - int64(len(b)); grow > 0 {
		b = append(b, make([]byte, grow)...)
	}
	copy(b[w.at:], w.data)
	return b
}

// tear makes some blocks of the write, which are those of the disk, and with garbage
// writes anything into others.
func (g damager) tear(b []byte, w write) []byte {
	end := w.at + int64(len(w.data))
	block := int64(g.block)
	for at := w.at / block * block; at < end; at += block {
		from, to := max(at, w.at), min(at+block, end)
		part := write{at: from, data: w.data[from-w.at : to-w.at]}
		switch g.IntN(3) {
		case 0: // it stays as it was
		case 1:
			if g.way == garbage {
				noise := make([]byte, block)
				for i := range noise {
					noise[i] = byte(g.Uint32())
				}
				part = write{at: at, data: noise}
			}
			b = part.apply(b)
		default:
			b = part.apply(b)
		}
	}
	return b
}
