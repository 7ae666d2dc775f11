package keep

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/rs/zerolog"

	"meta9/session/redial"
	"meta9/session/wire"
)

// Options are for Dial.
type Options struct {
	// Dial makes a transport; it is called again whenever one is lost.
	Dial func(ctx context.Context) (net.Conn, error)
	// Version is what the client will probably ask for: "9P2000.L", which is the default,
	// "9P2000.u", "9P2000" or "9P2000.e". The keeper asks the server for meta9d's own
	// dialect on top of it.
	Version string
	// Msize is the largest frame in bytes that the client will ask for; 0:
	// wire.MaxMsize.
	Msize uint32
	// Mumble is a message "MUMBLE:...:" to authenticate on a channel that does not prove
	// who the client is.
	Mumble string
	Log    zerolog.Logger // of transports and sessions that are lost and resumed
}

// Keeper keeps one client's session with a server.
type Keeper struct {
	opt  Options
	conn *redial.Conn

	// Only redial.Owner's methods use these, in one goroutine.
	fresh       bool   // the next session has no fids to restore: it is the first, or for a Tversion
	failed      int    // requests that failed with the session, not logged yet
	lastFailure string // why the last attempt to connect failed

	// conn guards what follows.
	changed sync.Cond // signalled when there is room, or a new session
	fids
	base       wire.Dialect // what the client speaks
	stale      bool         // at least one fid could not be restored; requests on it are refused
	begun      bool         // the client has sent Tversion
	asked      *version     // a Tversion that waits for a session of its own; nil: none
	clientGone bool         // the client has closed its end
	m, r       wire.Msg     // scratch

	watch func(up, resumed bool) // see Calls.Watch; nil: nobody watches

	answering sync.Mutex          // held over deliver
	deliver   func(frames []byte) // gives frames to the client; it must not keep the bytes
}

// Dial makes the first transport and begins a session on it. It tries once; ctx bounds only
// this.
func Dial(ctx context.Context, opt Options) (*Keeper, error) {
	k := &Keeper{opt: opt, fresh: true}
	k.fids.reset()
	if k.base = clientDialect(cmp.Or(opt.Version, wire.L.String())); k.base == wire.Unknown {
		return nil, errors.New("no client asks for " + opt.Version)
	}
	conf := redial.Config{
		Dial: opt.Dial, Terms: terms(k.base, min(cmp.Or(opt.Msize, wire.MaxMsize), wire.MaxMsize)),
		FixedMsize: true, NumberedOnly: true, Mumble: opt.Mumble, Owner: owner{k},
	}
	var err error
	if conf.Key, err = redial.MakeKey(opt.Mumble); err != nil {
		return nil, err
	}
	k.conn = redial.New(conf)
	k.changed.L = k.conn
	if err := k.conn.Dial(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// clientDialect is the dialect between the keeper and a client that asks for a version;
// meta9d's own dialects are only between the keeper and the server.
func clientDialect(version string) wire.Dialect {
	switch d := wire.Negotiate(version); d {
	case wire.LE, wire.LE2:
		return wire.L
	case wire.EN, wire.EN2:
		return wire.E
	default:
		return d
	}
}

// terms are what the keeper asks a server for, for a client that speaks base.
func terms(base wire.Dialect, msize uint32) redial.Terms {
	offers := map[wire.Dialect][]wire.Dialect{
		wire.L: {wire.LE2, wire.LE, wire.L},
		wire.U: {wire.U},
		wire.E: {wire.EN2, wire.EN, wire.E},
	}[base]
	if offers == nil {
		offers = []wire.Dialect{wire.EN2, wire.EN, wire.Plain}
	}
	return redial.Terms{Offers: offers, Msize: msize}
}

// Serve serves the client at down until it closes its end, or ctx ends; then the session
// ends too, and Serve closes down. The error says how the client broke the protocol.
func (k *Keeper) Serve(ctx context.Context, down net.Conn) error {
	k.deliver = func(frames []byte) { _, _ = down.Write(frames) } // that it is gone is seen by reading
	defer context.AfterFunc(ctx, func() { down.Close() })()
	go k.conn.Run(ctx)
	err := k.readClient(down)
	down.Close() // so that a write to a client that reads nothing ends
	k.end()
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// end ends the session of a client that is gone.
func (k *Keeper) end() {
	k.conn.Lock()
	k.clientGone = true
	k.changed.Broadcast()
	k.conn.Unlock()
	k.conn.Close()
}

// Close closes the transport of a Keeper for which Serve is not called.
func (k *Keeper) Close() error {
	k.conn.Abandon()
	return nil
}
