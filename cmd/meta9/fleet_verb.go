package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"meta9/fs/errs"
	"meta9/session/client"
)

// errNoFleet is the error of the fleet commands where meta9d is in no fleet.
var errNoFleet = errors.New("this meta9d is in no fleet: [cluster] is not set in its settings")

// noFleet is errNoFleet if that can be the cause of err and the server has no folder fleet/;
// else it is err.
func noFleet(ctx context.Context, c *client.Client, err error) error {
	if errors.Is(err, errs.NotFound) || errors.Is(err, errs.Invalid) {
		if _, missing := c.Stat(ctx, "/fleet"); errors.Is(missing, errs.NotFound) {
			return errNoFleet
		}
	}
	return err
}

// fleetDo runs the root's verb fleet with these words, and returns its answer.
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
