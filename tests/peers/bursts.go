package peers

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// Bursts is Echo, but a Tswrite is answered once a block is on the disk, and with it all
// that have come while the block before was written: what a server does to those who read
// by no more than that. It knows nothing of what was written.
func Bursts(l net.Listener, files Files) error {
	f, err := os.Create(filepath.Join(filepath.Dir(l.Addr().String()), "bursts"))
	if err != nil {
		return err
	}
	defer f.Close()
	var value string
	for _, value = range files {
		break
	}
	b := &bursts{file: f, asked: make(chan write, 1024), read: raw.Frame(wire.Rread, 0, raw.Data(value))}
	go b.commit()
	return each(l, b.serve)
}

type bursts struct {
	file  *os.File
	asked chan write
	read  []byte // an Rread
}

// write is a Tswrite that waits.
type write struct {
	c   net.Conn
	tag uint16
	n   uint32
}

// commit answers writes until a sync fails. One goroutine writes all replies of a commit,
// which is the least that it can cost.
func (b *bursts) commit() {
	var ready []write
	block := make([]byte, 4096)
	for w := range b.asked {
		for ready = append(ready[:0], w); len(b.asked) > 0; {
			ready = append(ready, <-b.asked)
		}
		block[0]++
		if _, err := b.file.WriteAt(block, 0); err != nil || unix.Fdatasync(int(b.file.Fd())) != nil {
			return // whoever loads it waits in vain, and says so
		}
		for _, w := range ready {
			_, _ = w.c.Write(raw.Frame(wire.Rswrite, w.tag, w.n))
		}
	}
}

// serve answers one connection, which has one request at a time.
func (b *bursts) serve(c net.Conn) {
	in, out := make([]byte, 64<<10), make([]byte, len(b.read))
	copy(out, b.read)
	for {
		if _, err := io.ReadAtLeast(c, in, raw.HeaderLen); err != nil {
			return
		}
		if wire.Type(in[4]) == wire.Tswrite {
			b.asked <- write{c, binary.LittleEndian.Uint16(in[5:]), uint32(len(b.read) - wire.ReadLen)}
			continue
		}
		copy(out[5:7], in[5:7])
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}
