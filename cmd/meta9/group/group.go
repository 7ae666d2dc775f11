// Package group runs a command line of the user's (of meta9 watch --exec, of a recipe of meta9
// agent) as a group of processes, so that what it has started ends with it: the shell does not
// pass a signal on.
package group

import (
	"context"
	"os/exec"
	"time"
)

// killTime is how long a command may take to end once it was asked to.
const killTime = 5 * time.Second

// Run runs cmd, which is from exec.CommandContext(ctx), and waits for it. Once ctx ends all of
// its processes are asked to end (SIGTERM), and killed when it has ended or after 5 s; the error
// is then ctx's cause. Where a system has no groups of processes, only the command itself is
// killed.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	cmd.WaitDelay = killTime
	whole(cmd)
	err := cmd.Run()
	if ctx.Err() != nil {
		killed(cmd)
		return context.Cause(ctx)
	}
	return err
}
