package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/tests/linear/cut"
)

// numbered is a program that uses session/client, whose requests are done once
// however often its transport is lost: it may not know only of what it had asked of
// a meta9d that was killed. Several workers share one Client.
type numbered struct {
	worker
	shared *shared
	files  int
}

// shared is a Client, dialled by the first who needs it.
type shared struct {
	once   sync.Once
	client *client.Client
	holds  uint64       // the bits of all who share it
	peer   atomic.Int64 // the meta9d that its transport leads to, or has led to
}

func (c *numbered) close() {
	if c.shared.client != nil {
		c.shared.client.Close()
	}
}

func (*numbered) settle() {}

// dial is the Client's way to a transport that is lost now and then.
func (c *numbered) dial(chance *rand.Rand) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		gen := c.gen()
		conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket(c.vm, "9p.sock"))
		if err != nil {
			return nil, err
		}
		if c.gen() != gen { // whose it is nobody can tell
			conn.Close()
			return nil, errors.New("meta9d was killed meanwhile")
		}
		c.shared.peer.Store(int64(gen))
		return cut.New(conn, rand.New(rand.NewPCG(chance.Uint64(), 0)), &c.drops), nil
	}
}

func (c *numbered) step() {
	ctx := context.Background()
	c.shared.once.Do(func() {
		chance := rand.New(rand.NewPCG(c.Uint64(), 0))
		c.connect(func() (err error) {
			c.shared.client, err = client.Dial(ctx, "unix", client.Options{Aname: "keys", Dial: c.dial(chance), Patience: -1})
			return err
		}, func() { c.shared.client.Close() })
	})
	cl := c.shared.client
	if cl == nil {
		return
	}
	key := c.key()
	name := keyName(key)
	n := c.IntN(20)
	if byNames(c.vm) {
		n = c.IntN(14) // by name alone
	}
	switch {
	case n < 8:
		call := c.h.now()
		b, err := cl.ReadFile(ctx, name)
		in := c.in(read, key)
		in.hold = c.shared.holds
		c.note(call, in, output{value: string(b)}, err, 0)
	case n < 14:
		in := c.in(put, key)
		in.value = c.value()
		c.change(in, func() error { return cl.WriteFile(ctx, name, []byte(in.value)) })
	case n < 15:
		c.change(c.in(remove, key), func() error { return cl.Remove(ctx, name) })
	case n < 17:
		c.overwrite(ctx, cl, key)
	default:
		c.files++
		own := fmt.Sprintf("own-%x-%d", c.hold, c.files)
		in := c.in(replace, key)
		in.value = c.value()
		if cl.WriteFile(ctx, own, []byte(in.value)) == nil {
			c.change(in, func() error { return cl.Rename(ctx, own, name) })
		}
	}
}

func (c *numbered) change(in input, do func() error) {
	peer := c.shared.peer.Load()
	call := c.h.now()
	err := do()
	c.note(call, in, output{}, err, peer)
}

// note writes down what became of an operation; peer is the meta9d that it was asked of.
func (c *numbered) note(call int64, in input, out output, err error, peer int64) {
	ret := c.h.now()
	switch {
	case err == nil:
		c.h.add(call, ret, in, out)
	case errors.Is(err, errs.NotFound) && (in.kind == put || in.kind == replace):
		c.t.Errorf("%s: %s: its own file is gone: %v", c.who, describe(in, out), err)
	case errors.Is(err, errs.NotFound):
		c.h.add(call, ret, in, output{how: absent})
	case errors.Is(err, client.ErrUnknown) && in.kind != read:
		if int(peer) == c.gen() {
			c.t.Errorf("%s: %s: %v, and meta9d was not killed", c.who, describe(in, out), err)
		}
		c.h.add(call, ret, in, output{how: maybe})
	case errors.Is(err, client.ErrClosed) && c.over():
	case in.kind != read:
		c.t.Errorf("%s: %s: %v", c.who, describe(in, out), err)
	}
}

// overwrite opens with a truncation, which is held until the write.
func (c *numbered) overwrite(ctx context.Context, cl *client.Client, key int) {
	in := c.in(hold, key)
	in.hold = c.hold
	peer, call := c.shared.peer.Load(), c.h.now()
	f, err := cl.OpenFile(ctx, keyName(key), os.O_WRONLY|os.O_TRUNC)
	if errors.Is(err, errs.NotFound) { // or replaced between the walk and the open
		return
	}
	c.note(call, in, output{}, err, peer)
	end := in
	if err != nil {
		end.kind = drop
		c.h.add(call, c.h.now(), end, output{})
		return
	}
	in = c.in(splice, key)
	in.value = c.value()
	call = c.h.now()
	_, err = f.WriteAt(ctx, []byte(in.value), 0)
	switch {
	case err == nil:
		c.h.add(call, c.h.now(), in, output{})
	case errors.Is(err, errs.NotFound): // its file was removed or replaced
	case errors.Is(err, client.ErrUnknown), errors.Is(err, errs.Stale): // the truncation went with the session
		if errors.Is(err, client.ErrUnknown) {
			c.h.add(call, c.h.now(), in, output{how: maybe})
		}
		end.kind = drop
		c.h.add(call, c.h.now(), end, output{})
	default:
		c.t.Errorf("%s: WriteAt: %v", c.who, err)
	}
	f.Close()
}
