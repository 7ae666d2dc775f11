package keep

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/rs/zerolog"

	"meta9/session/mumble"
	"meta9/session/wire"
)

// Options are what a Keeper is told.
type Options struct {
	// Dial makes a transport; it is called again whenever one is lost.
	Dial func(ctx context.Context) (net.Conn, error)
	// Version is what the client is going to ask for, as far as is known:
	// "9P2000.L", which is the default, "9P2000.u", "9P2000" or "9P2000.e". The
	// server is asked for the private dialect above it.
	Version string
	// Msize is the largest frame in bytes that the client will ask for; 0:
	// wire.MaxMsize.
	Msize uint32
	// Mumble is a ready-made message, "MUMBLE:...:", for a channel that does not
	// prove who is there.
	Mumble string
	Log    zerolog.Logger // of transports and sessions that are lost and come back
}

// Keeper keeps one client's session with a server.
type Keeper struct {
	opt   Options
	key   [wire.KeyLen]byte
	first *link // that Dial has made, for Serve

	// The runner's.
	known bool // the server may have the session: it is worth asking for
	whole bool // the session there is as fids says
	fresh bool // nothing was ever lost: there is nothing to tell

	mu    sync.Mutex
	moved sync.Cond // on mu: what somebody may wait for
	window
	fids
	base    wire.Dialect // what the client speaks
	msize   uint32       // of both sides
	agreed  bool         // msize is: before, it is only asked for
	stale   bool         // some fid is
	up      *link        // nil: there is none
	probing *request     // the last probe
	begun   bool         // the client has sent Tversion
	wish    *hello       // a Tversion that the runner is to answer; nil: none
	gone    bool         // the client is
	m, r    wire.Msg     // scratch

	answering sync.Mutex // held over a write to the client
	down      net.Conn
}

// Dial makes the first transport and begins a session on it, once; ctx bounds that
// and nothing later. The error says what is wrong with the server, or the way to it.
func Dial(ctx context.Context, opt Options) (*Keeper, error) {
	k := &Keeper{opt: opt, fresh: true}
	k.moved.L = &k.mu
	k.reset()
	k.base = spoken(cmp.Or(opt.Version, wire.L.String()))
	if k.base == wire.Unknown {
		return nil, errors.New("no client asks for " + opt.Version)
	}
	k.msize = min(cmp.Or(opt.Msize, wire.MaxMsize), wire.MaxMsize)
	if err := k.makeKey(); err != nil {
		return nil, err
	}
	l, err := k.connect(ctx)
	if err != nil {
		return nil, err
	}
	k.first = l
	return k, nil
}

// makeKey makes the session's key, which is the secret of who may resume it. A
// MUMBLE message has one.
func (k *Keeper) makeKey() (err error) {
	if k.opt.Mumble != "" {
		m, _, err := mumble.Parse([]byte(k.opt.Mumble))
		k.key = m.Key
		return err
	}
	_, err = rand.Read(k.key[:])
	return err
}

// spoken is the dialect that a client which asks for a version speaks with us: the
// private ones are between the server and the keeper.
func spoken(version string) wire.Dialect {
	switch d := wire.Negotiate(version); d {
	case wire.LE:
		return wire.L
	case wire.EN:
		return wire.E
	default:
		return d
	}
}

// Serve carries the client at down until it closes its end, or ctx ends; then the
// session ends too. It closes down. The error says what the client did wrong.
func (k *Keeper) Serve(ctx context.Context, down net.Conn) error {
	k.down = down
	defer down.Close()
	run, stop := context.WithCancel(ctx)
	defer context.AfterFunc(run, func() { down.Close() })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.run(run)
	}()
	err := k.listen()
	k.leave()
	stop()
	<-done
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// Close drops the transport of a Keeper that is not going to serve.
func (k *Keeper) Close() error { return k.first.nc.Close() }
