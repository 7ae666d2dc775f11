package linear

import (
	"encoding/json"
	"errors"
	"strings"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
)

// swapper is a guest that changes two keys by one transaction, under the condition that
// one of them has the value that it has read.
type swapper struct {
	worker
	conn *raw.Conn
}

func (c *swapper) settle() {}

func (c *swapper) close() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn = nil
}

func (c *swapper) step() {
	if c.conn == nil {
		if _, ok := c.connect(c.dial, c.close); !ok {
			c.conn = nil
			return
		}
	}
	gen, call := c.gen(), c.h.now()
	in := c.in(read, c.key())
	b, err := c.conn.Sread(rootFid, "keys", keyName(in.key))
	var refused *raw.Error
	switch {
	case err == nil:
		c.h.add(call, c.h.now(), in, output{value: string(b)})
	case errors.As(err, &refused):
		c.h.add(call, c.h.now(), in, output{how: absent})
		return
	default:
		c.close()
		return
	}
	in.kind, in.to, in.want, in.value = swap, 1-in.key, string(b), c.value()
	line, err := json.Marshal(map[string]any{
		"if": []any{map[string]string{"key": keyName(in.key), "value": in.want}},
		"do": []any{
			map[string]string{"put": keyName(in.key), "value": in.value},
			map[string]string{"put": keyName(in.to), "value": in.value},
		},
	})
	if err != nil {
		c.t.Error(err)
		return
	}
	call = c.h.now()
	if c.one(60) { // it hangs up, and the transaction is done or not
		c.drops.Add(1)
		if c.conn.Send(raw.Frame(wire.Tswrite, 1, uint32(rootFid), []string{"txn"}, raw.Data(line))) == nil {
			c.h.addOpen(call, gen, in)
		}
		c.close()
		return
	}
	err = c.conn.Swrite(rootFid, line, "txn")
	switch {
	case err == nil:
		c.h.add(call, c.h.now(), in, output{})
	case errors.As(err, &refused) && strings.HasPrefix(refused.Text, "Operation canceled"):
		c.h.add(call, c.h.now(), in, output{how: differs})
	case errors.As(err, &refused):
		c.t.Errorf("%s: %v", c.who, err)
	default:
		c.h.addOpen(call, gen, in)
		c.close()
	}
}

func (c *swapper) dial() (err error) {
	if c.conn, err = raw.Dial("unix", c.socket(c.vm, "9p.sock")); err != nil {
		return err
	}
	if err = daemon.Hello(c.conn, "9P2000.e", ""); err != nil {
		c.conn.Close()
	}
	return err
}
