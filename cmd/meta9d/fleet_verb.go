package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/vm"
)

// fleetVerbTime is how long a verb may take that waits for other hosts, where its caller
// sets no shorter time.
const fleetVerbTime = 2 * time.Minute

// fleetVerb is the root's verb "fleet WHAT ...", for the admin. Each may wait for other
// hosts, and runs in a goroutine of its own.
func (d *daemon) fleetVerb(c fs.Call, done func(error)) {
	words := strings.Fields(c.Arg)
	what := ""
	if len(words) > 0 {
		what, words = words[0], words[1:]
	}
	v, known := fleetVerbs[what]
	switch {
	case !known:
		done(errs.New(errs.Invalid, "fleet %.32q: there is claim UUID [SECONDS], release UUID [HOST], expect UUID, unexpect UUID, drain, undrain, fence HOST", what))
		return
	case len(words) < v.least || len(words) > v.most:
		done(errs.New(errs.Invalid, "it is fleet %s", v.usage))
		return
	}
	if err := d.away(); err != nil {
		done(err)
		return
	}
	if v.ofVM {
		uuid, err := vm.ParseUUID(words[0])
		if err != nil {
			done(err)
			return
		}
		words[0] = uuid
	}
	go func() {
		ctx, cancel := context.WithTimeout(d.verbs, fleetVerbTime)
		defer cancel()
		said, err := v.do(d, ctx, words)
		if err == nil && said != nil && c.Answer != nil {
			c.Answer(appendLine(nil, said))
		}
		done(err)
	}()
}

// fleetVerbs are what may follow the root's verb fleet. said, if not nil, becomes a line of
// JSON that the caller reads from ctl.
var fleetVerbs = map[string]struct {
	usage       string
	least, most int // words after the verb
	ofVM        bool
	do          func(d *daemon, ctx context.Context, words []string) (said any, err error)
}{
	// After SECONDS a claim says what it waits for. Its caller would else give up first, and not know.
	"claim": {"claim UUID [SECONDS]", 1, 2, true, func(d *daemon, ctx context.Context, w []string) (any, error) {
		if len(w) > 1 {
			n, err := strconv.ParseUint(w[1], 10, 16)
			if err != nil {
				return nil, errs.New(errs.Invalid, "%q is no number of seconds", w[1])
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(n)*time.Second)
			defer cancel()
		}
		return nil, d.fleet.Claim(ctx, w[0])
	}},
	"release": {"release UUID [HOST]", 1, 2, true, func(d *daemon, ctx context.Context, w []string) (any, error) {
		to := ""
		if len(w) > 1 {
			to = w[1]
		}
		return nil, d.fleet.Release(ctx, w[0], to)
	}},
	"expect": {"expect UUID", 1, 1, true, func(d *daemon, ctx context.Context, w []string) (any, error) {
		if err := d.fleet.Expect(ctx, w[0]); err != nil {
			return nil, err
		}
		made := make(chan struct{})
		d.made(w[0], func() { close(made) })
		select {
		case <-made:
			return nil, nil
		case <-ctx.Done():
			return nil, errs.New(errs.IO, "its sockets are not there yet")
		}
	}},
	"unexpect": {"unexpect UUID", 1, 1, true, func(d *daemon, _ context.Context, w []string) (any, error) {
		d.fleet.Unexpect(w[0])
		return nil, nil
	}},
	"drain": {"drain", 0, 0, false, func(d *daemon, ctx context.Context, _ []string) (any, error) {
		gone, stay, err := d.fleet.Drain(ctx)
		if err != nil && gone+stay == 0 {
			return nil, err
		}
		why := ""
		if err != nil {
			why = oneLine(err)
		}
		return struct {
			Gone int    `json:"gone"`
			Stay int    `json:"stay"`
			Why  string `json:"why,omitempty"` // of the first that stays
		}{gone, stay, why}, nil
	}},
	"undrain": {"undrain", 0, 0, false, func(d *daemon, ctx context.Context, _ []string) (any, error) {
		d.fleet.Undrain(ctx)
		return nil, nil
	}},
	"fence": {"fence HOST", 1, 1, false, func(d *daemon, ctx context.Context, w []string) (any, error) {
		return nil, d.fleet.Fence(ctx, w[0])
	}},
}
