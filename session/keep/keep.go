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
	"meta9/session/redial"
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
	Log    zerolog.Logger // of transports and sessions that are lost and resumed
}

// Keeper keeps one client's session with a server.
type Keeper struct {
	opt  Options
	conn *redial.Conn

	// The runner's: redial.Owner's methods.
	fresh  bool   // nothing was ever lost: there is nothing to tell
	failed int    // requests of a lost session that have failed, and were not told of
	told   string // why the last try to connect failed

	// conn guards what follows.
	moved sync.Cond // what the client's side may wait for: room, a new session
	fids
	base  wire.Dialect // what the client speaks
	stale bool         // at least one fid could not be restored; requests on it are refused
	begun bool         // the client has sent Tversion
	asked *version     // a Tversion that waits for a session of its own; nil: none
	gone  bool         // the client is
	m, r  wire.Msg     // scratch

	answering sync.Mutex // held over a write to the client
	down      net.Conn
}

// Dial makes the first transport and begins a session on it, once; ctx bounds that
// and nothing later. The error says what is wrong with the server, or the way to it.
func Dial(ctx context.Context, opt Options) (*Keeper, error) {
	k := &Keeper{opt: opt, fresh: true}
	k.fids.reset()
	if k.base = spoken(cmp.Or(opt.Version, wire.L.String())); k.base == wire.Unknown {
		return nil, errors.New("no client asks for " + opt.Version)
	}
	conf := redial.Config{
		Dial: opt.Dial, Terms: terms(k.base, min(cmp.Or(opt.Msize, wire.MaxMsize), wire.MaxMsize)),
		FixedMsize: true, NumberedOnly: true, Mumble: opt.Mumble, Owner: owner{k},
	}
	var err error
	if conf.Key, err = makeKey(opt.Mumble); err != nil {
		return nil, err
	}
	k.conn = redial.New(conf)
	k.moved.L = k.conn
	if err := k.conn.Dial(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// makeKey makes the session's key, which is the secret of who may resume it. A
// MUMBLE message has one.
func makeKey(message string) (key [wire.KeyLen]byte, err error) {
	if message != "" {
		m, _, err := mumble.Parse([]byte(message))
		return m.Key, err
	}
	_, err = rand.Read(key[:])
	return key, err
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

// terms are what a server is asked for, for a client that speaks base.
func terms(base wire.Dialect, msize uint32) redial.Terms {
	offers := map[wire.Dialect][]wire.Dialect{
		wire.L: {wire.LE, wire.L},
		wire.U: {wire.U},
		wire.E: {wire.EN, wire.E},
	}[base]
	if offers == nil {
		offers = []wire.Dialect{wire.EN, wire.Plain}
	}
	return redial.Terms{Offers: offers, Msize: msize}
}

// Serve carries the client at down until it closes its end, or ctx ends; then the
// session ends too. It closes down. The error says what the client did wrong.
func (k *Keeper) Serve(ctx context.Context, down net.Conn) error {
	k.down = down
	defer context.AfterFunc(ctx, func() { down.Close() })()
	go k.conn.Run(ctx)
	err := k.listen()
	down.Close() // or a client that reads nothing would hold up the end
	k.conn.Lock()
	k.gone = true
	k.moved.Broadcast()
	k.conn.Unlock()
	k.conn.Close()
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// Close drops the transport of a Keeper that is not going to serve.
func (k *Keeper) Close() error {
	k.conn.Abandon()
	return nil
}
