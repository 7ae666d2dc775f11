//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"meta9/cmd/meta9/group"
)

// maxSaid is how much of what a command printed last is kept, in bytes, for the error.
const maxSaid = 1 << 10

// failure is why a check or a command of a recipe did not go well. What it printed may
// have secrets, which a check complains of, and stands in root's log alone.
type failure struct {
	what string // "check", "command"
	err  error
	said string
}

func (f *failure) Unwrap() error { return f.err }

// public is the failure without what was printed.
func (f *failure) public() string { return f.what + ": " + f.err.Error() }

func (f *failure) Error() string {
	if f.said == "" {
		return f.public()
	}
	return f.public() + ": " + f.said
}

// shell runs a line with arguments ($1, ...) and open files (3, ...). What it prints is
// shown only where it fails, and its end alone: who changes keys must not fill the log by
// it. The command may leave something running, which must not keep its output open for
// long. Its error is a *failure of what.
func shell(ctx context.Context, what string, timeout time.Duration, line string, args []string, files []*os.File, env []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %v", timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", line, "sh"}, args...)...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", env, files
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	err := group.Run(ctx, cmd)
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return &failure{what: what, err: err, said: strings.TrimSpace(string(said))}
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	*t = append(*t, b[max(0, len(b)-maxSaid):]...)
	*t = (*t)[max(0, len(*t)-maxSaid):]
	return len(b), nil
}
