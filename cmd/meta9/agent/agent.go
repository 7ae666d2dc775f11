//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"meta9/backoff"
	"meta9/cmd/meta9/debounce"
	"meta9/cmd/meta9/trust"
	"meta9/fs/errs"
	"meta9/session/client"
)

const (
	// quiet is how long nothing may come before a recipe is applied, so that changes
	// which come together are one run; it is waited for at most ten times as long.
	quiet = 100 * time.Millisecond

	// rest is how long a recipe rests that has changed something or failed: a host that changes
	// a key all the time makes a run a second.
	rest = time.Second

	// dialTime is how long one try to reach the host may take.
	dialTime = 30 * time.Second

	// maxLine is how long an event may be, in bytes. What is longer is none of
	// meta9d's, and all is looked at.
	maxLine = 64 << 10
)

var (
	again   = backoff.Backoff{First: time.Second, Last: time.Minute}            // what failed
	redials = backoff.Backoff{First: 500 * time.Millisecond, Last: time.Minute} // the host
)

// Options say what an Agent works with.
type Options struct {
	// Connect makes the connection, which calls notify as it goes and comes back.
	// Requests on it must wait for it to come back for as long as their contexts.
	Connect func(ctx context.Context, notify func(client.State)) (*client.Client, error)
	State   string // a folder of the agent's own, absolute: its lock, and the marks of commands that must still run
	Status  string // the file that says how it is; "": none
	Version string // of the program, for Status
	Env     []string
	Log     zerolog.Logger // bounds its lines itself

	// Notify tells systemd how it is (sd_notify(3)).
	Notify func(state string)
}

// Agent applies recipes. One Run or Once is all that it does.
type Agent struct {
	opt     Options
	health  *health
	workers []*worker
	client  *client.Client

	mu    sync.Mutex
	renew context.CancelCauseFunc // ends the stream of events that is read; nil: none is
}

// errRenewed ends a stream of events when the session is another one. A server without
// sessions goes on with it as if nothing had been missed.
var errRenewed = fmt.Errorf("%w: the session is a new one", errs.Stale)

// connection takes what is new of the connection.
func (a *Agent) connection(s client.State) {
	a.health.connection(s)
	if !s.Up || s.Resumed {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.renew != nil {
		a.renew(errRenewed)
	}
}

// New makes an agent.
func New(recipes []Recipe, opt Options) *Agent {
	a := &Agent{opt: opt, health: newHealth(opt, recipes)}
	for i := range recipes {
		a.workers = append(a.workers, &worker{agent: a, recipe: &recipes[i], Changes: debounce.New(quiet)})
	}
	return a
}

// lock makes this the only agent with its state folder until what it gives is closed; of
// two, each would take the other's new files away.
func (a *Agent) lock() (io.Closer, error) {
	if err := os.MkdirAll(a.opt.State, 0o700); err != nil {
		return nil, err
	}
	folder, err := trust.Open(a.opt.State) // who may write it could lead what is written there elsewhere
	if err != nil {
		return nil, err
	}
	folder.Close()
	name := filepath.Join(a.opt.State, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another meta9 agent runs: it has %s (%w); --state names another folder", name, err)
	}
	return f, nil
}

// Run applies the recipes, and again whenever a key changes, until ctx ends; that is no
// error. Commands that run then are asked to end.
func (a *Agent) Run(ctx context.Context) error {
	lock, err := a.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	ctx, stop := context.WithCancel(ctx)
	var saying, running sync.WaitGroup
	saying.Go(func() { a.health.say(ctx) })
	defer func() { stop(); running.Wait(); saying.Wait() }()
	if err := a.dial(ctx); err != nil {
		return nil // ctx has ended
	}
	defer a.client.Close()
	for _, w := range a.workers {
		running.Go(func() { w.run(ctx) })
	}
	a.follow(ctx)
	return nil
}

// Once applies each recipe once, when the host is there. The error names all that failed.
// did is called for each recipe, with what it has changed.
func (a *Agent) Once(ctx context.Context, did func(recipe string, changed []string)) error {
	lock, err := a.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := a.dial(ctx); err != nil {
		return fmt.Errorf("%w: %w", client.ErrUnavailable, err)
	}
	defer a.client.Close()
	var failed []error
	for _, w := range a.workers {
		changed, err := w.apply(ctx)
		did(w.recipe.Name, changed)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", w.recipe.Name, err))
		}
	}
	return errors.Join(failed...)
}

// dial reaches the host for the first time, however long that takes. It fails when ctx
// ends, with the last reason.
func (a *Agent) dial(ctx context.Context) error {
	for tries := 1; ; tries++ {
		try, cancel := context.WithTimeout(ctx, dialTime)
		c, err := a.opt.Connect(try, a.connection)
		cancel()
		if err == nil {
			a.client = c
			a.health.connection(client.State{Up: true})
			if tries > 1 {
				a.opt.Log.Info().Msg("the host is there")
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.health.connection(client.State{Err: err})
		if tries == 1 {
			a.opt.Log.Warn().Msgf("no host yet, it is tried again; files stay as they are: %s", plain(err))
		}
		if !redials.Wait(ctx, tries) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// follow wakes the workers whom events concern, until ctx ends. What may have been missed
// wakes all of them: the beginning, a lost session, a stream that is not there.
func (a *Agent) follow(ctx context.Context) {
	for tries := 0; ; {
		began := time.Now()
		err := a.hear(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > again.Last { // not for a host whose streams end at once
			tries = 0
		}
		tries++
		a.health.lost()
		if !errors.Is(err, errs.Stale) {
			a.opt.Log.Warn().Msgf("events: %s; all is looked at again", plain(err))
		}
		if !again.Wait(ctx, tries-1) { // at once after the first
			return
		}
	}
}

// hear reads the events from now on.
func (a *Agent) hear(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	a.mu.Lock()
	a.renew = end
	a.mu.Unlock()
	f, err := a.client.Open(ctx, "events")
	if err != nil {
		a.wakeAll() // a server without events is asked now and then
		return err
	}
	defer f.Close()
	a.wakeAll()
	var lines splitter
	buf := make([]byte, 16<<10)
	for off := int64(0); ; {
		n, err := f.ReadAt(ctx, buf, off)
		if errors.Is(err, io.EOF) {
			return errors.New("they have ended")
		}
		if err != nil {
			return err
		}
		off += int64(n)
		lines.take(buf[:n], a.event)
	}
}

// splitter makes lines of what comes in pieces.
type splitter struct{ part []byte }

func (s *splitter) take(data []byte, line func([]byte)) {
	for _, b := range data {
		switch {
		case b == '\n':
			line(s.part)
			s.part = s.part[:0]
		case len(s.part) < maxLine:
			s.part = append(s.part, b)
		}
	}
}

// event wakes those whom it concerns. What is not understood concerns all.
func (a *Agent) event(line []byte) {
	var e struct{ Type, Space, Key string }
	err := json.Unmarshal(line, &e)
	switch {
	case err != nil:
		a.wakeAll()
	case e.Type == "lost":
		a.health.lost()
		a.wakeAll()
	case e.Type == "session-parked", e.Type == "session-resumed", e.Type == "qmp":
	case e.Type == "key-set", e.Type == "key-removed":
		a.health.event()
		for _, w := range a.workers {
			if w.recipe.concerns(e.Space, e.Key) {
				w.Came()
			}
		}
	default:
		a.health.event()
		a.wakeAll()
	}
}

// concerns tells whether a change of a key may change one of r's files.
func (r *Recipe) concerns(space, key string) bool {
	for i := range r.Files {
		if f := &r.Files[i]; f.space == "" || f.space == space && f.key == key {
			return true
		}
	}
	return false
}

func (a *Agent) wakeAll() {
	for _, w := range a.workers {
		w.Came()
	}
}

// worker applies one recipe.
type worker struct {
	agent  *Agent
	recipe *Recipe
	*debounce.Changes
}

// run applies the recipe whenever there is something to do, until ctx ends.
func (w *worker) run(ctx context.Context) {
	log := w.agent.opt.Log.With().Logger()
	failures := 0
	for w.Wait(ctx, again.Pause(failures)) {
		changed, err := w.apply(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if failures == 1 {
				log.Warn().Msgf("recipe %s: %s; it is tried again", w.recipe.Name, plain(err))
			}
		case failures > 0:
			log.Info().Msgf("recipe %s: done, after %d failures", w.recipe.Name, failures)
			failures = 0
		case len(changed) > 0:
			log.Info().Msgf("recipe %s: changed %d of its files", w.recipe.Name, len(changed))
		}
		if (len(changed) > 0 || err != nil) && !sleep(ctx, rest) {
			return
		}
	}
}

// apply applies the recipe now.
func (w *worker) apply(ctx context.Context) (changed []string, err error) {
	values, err := read(ctx, w.agent.client, w.recipe)
	if err == nil {
		changed, err = w.agent.apply(ctx, w.recipe, values)
	}
	if ctx.Err() == nil {
		w.agent.health.applied(w.recipe.Name, changed, err)
	}
	return changed, err
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
