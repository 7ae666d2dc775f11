package peers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// Echo is the limit that a server of the same shape could reach on this
// machine: one goroutine a connection, a large buffered reader, for each frame
// whatever it asks a prepared Rread of the true size, and one write when the
// input runs dry.
func Echo(l net.Listener, files Files) error {
	var value string
	for _, value = range files {
		break
	}
	return each(l, func(c net.Conn) { echo(c, raw.Frame(wire.Rread, 0, raw.Data(value))) })
}

func echo(c net.Conn, reply []byte) error {
	in := bufio.NewReaderSize(c, 64<<10)
	out := make([]byte, 0, 64<<10)
	for {
		head, err := in.Peek(raw.HeaderLen)
		if err != nil {
			return err
		}
		size := int(binary.LittleEndian.Uint32(head))
		if size < raw.HeaderLen {
			return errors.New("a frame shorter than its header")
		}
		at := len(out)
		out = append(out, reply...)
		copy(out[at+5:], head[5:7])
		if _, err := in.Discard(size); err != nil {
			return err
		}
		if in.Buffered() >= raw.HeaderLen && len(out)+len(reply) <= cap(out) {
			continue
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		out = out[:0]
	}
}
