package keep

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

// greetTime is how long a server may take for each answer of a greeting.
const greetTime = 10 * time.Second

// connect makes a transport and greets the server: the session comes back, or is
// made anew. The runner calls it, and nobody else is on the transport yet.
func (k *Keeper) connect(ctx context.Context) (*link, error) {
	dial, cancel := context.WithTimeoutCause(ctx, greetTime, errSilent)
	defer cancel()
	nc, err := k.opt.Dial(dial)
	if err != nil {
		if dial.Err() != nil && ctx.Err() == nil {
			err = errSilent
		}
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	l := &link{nc: nc, rd: bufio.NewReaderSize(nc, readAhead)}
	err = k.greet(l)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		nc.Close()
		return nil, silent(err)
	}
	return l, nil
}

// silent says in words what a deadline means here.
func silent(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return errSilent
	}
	return ended(err)
}

// clocked gives a server time for its answer whenever something is asked.
type clocked struct{ net.Conn }

func (c clocked) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// greet begins l: version, session, and what follows from it.
func (k *Keeper) greet(l *link) error {
	t := greet.New(clocked{l.nc}, l.rd)
	standing, err := k.ask(t)
	if err != nil {
		return err
	}
	l.dialect = t.Dialect
	if standing == greet.Resumed && k.whole {
		err = k.resume(t)
		if !greet.IsRefusal(err) {
			return err
		}
	}
	if standing == greet.Resumed {
		// Half of it is missing, since the transport was lost while it was made anew, or
		// the server counts otherwise. It ends, and another takes its place.
		if _, err = k.ask(t); err != nil {
			return err
		}
	}
	return k.begin(t)
}

// ask agrees on a version, and asks for the session.
func (k *Keeper) ask(t *greet.Talk) (greet.Standing, error) {
	offers := map[wire.Dialect][]wire.Dialect{
		wire.L: {wire.LE, wire.L},
		wire.U: {wire.U},
		wire.E: {wire.EN, wire.E},
	}[k.base]
	if offers == nil {
		offers = []wire.Dialect{wire.EN, wire.Plain}
	}
	if err := t.Version(k.msize, offers...); err != nil {
		return greet.Sessionless, err
	}
	if k.agreed && t.Msize != k.msize {
		return greet.Sessionless, errs.New(errs.Protocol, "the server's msize is %d now, the client relies on %d", t.Msize, k.msize)
	}
	k.agree(t.Msize)
	if !t.Dialect.Numbered() || (k.opt.Mumble != "" && !k.known) {
		return greet.Sessionless, nil // Tauth makes MUMBLE's key known
	}
	standing, err := t.Session(k.key)
	if err == nil {
		k.known = true
	}
	return standing, err
}

func (k *Keeper) agree(msize uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.msize, k.agreed = msize, true
}

// resume asks what became of the requests without an answer.
func (k *Keeper) resume(t *greet.Talk) error {
	k.mu.Lock()
	numbers := k.Numbers()
	k.mu.Unlock()
	states, err := t.Resume(numbers)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resumed(states)
	k.opt.Log.Info().Int("unanswered", len(numbers)).Msg("the session is resumed")
	return nil
}

// begin makes a new session, as like to the old one as it can be.
func (k *Keeper) begin(t *greet.Talk) error {
	k.whole = false
	if k.fresh && !t.Dialect.Numbered() && k.base != wire.U {
		k.opt.Log.Warn().Stringer("version", t.Dialect).Msg("the server keeps no sessions: after a lost connection, changes that were not answered fail")
	}
	if k.opt.Mumble != "" {
		if err := t.Authenticate(k.opt.Mumble, authFid, ""); err != nil {
			return fmt.Errorf("MUMBLE: %w", err)
		}
		k.known = true
	}
	failed := k.forsake()
	stale, err := k.restore(t)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Count = t.Count
	if !k.fresh {
		k.opt.Log.Warn().Int("fids", len(k.byNum)).Int("stale", stale).Int("failed", failed).
			Msg("the session is lost; files are open again as far as they could be restored")
	}
	k.whole, k.fresh = true, false
	return nil
}
