package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// newUpgrade is `meta9 upgrade`.
func newUpgrade(a *app) *cobra.Command {
	var binary string
	cmd := &cobra.Command{
		Use:   "upgrade [--binary PATH]",
		Short: "put a new meta9d in the place of the one that runs",
		Long: `Let the meta9d that serves here execute another program of its kind, without a
restart: connections stay, and their clients see a pause. That is the program which is
now where the running one was started (after the package was upgraded), or PATH, which
must be root's or meta9d's own user's, and nobody else's to change.

The program checks itself first; where it cannot be used, this says why, and nothing has
changed. Where it fails later, before it serves, the running one goes on. Connections by
tls, HTTP and QMP are closed; sessions go on after that. A change of the settings counts,
as at a restart. PATH is what meta9d sees there: by the unit for systemd it sees nothing
below /root and /home, and a /tmp of its own.

Where no live update is possible, but the program is good (another version of what is
handed over, data in memory only), the exit code is 6. In a script:

  meta9 upgrade || { [ $? -eq 6 ] && systemctl try-restart meta9d; }

SIGUSR2 does the same. What is printed are the version that serves now, and the pause.`,
		Example: `meta9 upgrade
meta9 upgrade --binary /usr/local/sbin/meta9d-new`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("timeout") && a.timeout > 0 {
				a.timeout = max(a.timeout, upgradeTime)
			}
			if binary != "" {
				path, err := filepath.Abs(binary)
				if err != nil {
					return err
				}
				binary = path
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return a.upgrade(ctx, c, binary) })
		},
	}
	cmd.Flags().StringVar(&binary, "binary", "", "execute the program at `PATH`, on meta9d's host")
	_ = cmd.MarkFlagFilename("binary")
	return cmd
}

// upgradeTime is how long an update may take, without --timeout: the check (30 s at most),
// the end of what has begun (15 s), and the start (60 s).
const upgradeTime = 2 * time.Minute

// upgradePoll is how often meta9d is asked whether the update is done: a request that
// comes meanwhile waits there.
const upgradePoll = 20 * time.Millisecond

func (a *app) upgrade(ctx context.Context, c *client.Client, binary string) error {
	before, err := readStatus(ctx, c, "/ctl")
	if err != nil {
		return err
	}
	if before.text("upgrades") == "" {
		return restartError{errors.New("meta9d " + before.text("version") + " knows no live update: restart it")}
	}
	if err := verb(ctx, c, "ctl", "upgrade", []byte(binary)); errors.Is(err, errs.NotPermitted) {
		return restartError{err}
	} else if err != nil {
		return err
	}
	for {
		now, err := readStatus(ctx, c, "/ctl")
		switch {
		case err != nil && !errors.Is(err, errs.Busy):
			return fmt.Errorf("meta9d was to be upgraded, and what became of it is not known: %w", err)
		case err != nil:
		case now.text("upgrades_failed") != before.text("upgrades_failed"):
			return fmt.Errorf("not upgraded, meta9d %s goes on: %s", printable(now.text("version")), printable(now.text("upgrade_error")))
		case now.text("upgrades") != before.text("upgrades"):
			_, err := fmt.Fprintf(a.out, "meta9d %s serves, in place of %s; the pause was %d ms\n", printable(now.text("version")), printable(before.text("version")), now.number("upgrade_pause_ms"))
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(upgradePoll):
		}
	}
}
