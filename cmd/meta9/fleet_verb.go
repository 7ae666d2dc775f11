package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"meta9/fs/errs"
	"meta9/session/client"
)

// errNoFleet is why there is nothing to say.
var errNoFleet = errors.New("this meta9d is in no fleet: [cluster] is not set in its settings")

// noFleet is err, or that there is no fleet where that is why.
func noFleet(ctx context.Context, c *client.Client, err error) error {
	if errors.Is(err, errs.NotFound) || errors.Is(err, errs.Invalid) {
		if _, missing := c.Stat(ctx, "/fleet"); errors.Is(missing, errs.NotFound) {
			return errNoFleet
		}
	}
	return err
}

// fleetDo has the daemon do something with the fleet, and gives what it says of it.
func fleetDo(ctx context.Context, c *client.Client, words ...string) ([]byte, error) {
	f, err := c.OpenFile(ctx, "/ctl", os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := []byte("fleet " + strings.Join(words, " ") + "\n")
	if _, err := f.WriteAt(ctx, line, 0); err != nil {
		return nil, noFleet(ctx, c, err)
	}
	return readAnswer(ctx, f, int64(len(line)))
}
