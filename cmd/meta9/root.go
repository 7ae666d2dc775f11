package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// app is what the subcommands share: the streams, the flags of all, and what has
// failed so far.
type app struct {
	in       io.Reader
	out, err io.Writer
	term     io.Writer // out without the escapes of terminal: for printable words and colours
	tty      bool      // out is a terminal
	code     int
	ran      bool   // the command line had no error, and the command began
	path     string // of the command that ran, or was to: "meta9 vm list"
	progress progress

	// Of hosts of a fleet; nil in a guest's meta9.
	elsewhere func(ctx context.Context, c *client.Client, err error) error
	follow    func(ctx context.Context, cmd *cobra.Command, c *client.Client, opt client.Options) (*client.Client, error)
	explain   atomic.Pointer[func(err error) error] // elsewhere, with the connection; nil: there is none. What inTime does not wait for sets it, too

	checkServer bool // address chose a socket that any user may serve

	addr    string
	timeout time.Duration
	mumble  string
	cert    string
	key     string
	ca      string
}

const rootHelp = `Meta9 reads, writes and watches the metadata of virtual machines, which meta9d
serves as files: a folder for every VM, a file for every key. On a host it also
creates, updates and deletes VMs.

Paths begin at the root of what the connection shows: for the admin vms/UUID/keys/NAME
and names/ALIAS/keys/NAME, for a guest keys/NAME.

Exit status:
` + exitHelp + `

Environment:
META9_ADDR    where meta9d is, if --addr is not given
META9_MUMBLE  a ready-made message, as of 'meta9 mumble', if --mumble is not given`

// newRoot makes the command with all its subcommands. Their state is in a.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:               "meta9 [OPTION]... COMMAND [ARG]...",
		Short:             "metadata of virtual machines, as files",
		Example:           "meta9 ls names\nmeta9 cat names/web0/keys/motd\nmeta9 put names/web0/keys/motd hello\nmeta9 watch names/web0",
		Long:              rootHelp,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.ran = true
			a.progress.on(a.err)
		},
		PersistentPostRun: func(*cobra.Command, []string) { a.progress.hide() },
		RunE: func(cmd *cobra.Command, args []string) error {
			return misused("which command? There are %s", strings.Join(commandNames(cmd), ", "))
		},
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return nil
			case args[0] == "restore":
				return errors.New("a backup is restored where no meta9d runs, by 'meta9d --restore FILE --data DIR'")
			}
			return fmt.Errorf("unknown command %q%s", args[0], didYouMean(args[0], commandNames(cmd)))
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", "", "where meta9d is: `ADDR` is unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, vsock:CID:PORT, virtio:NAME or dev:PATH (default $META9_ADDR, then "+systemSocket+", then "+localSocket+" if root or you serve there)")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "give up after `TIME`; 0: never")
	f.StringVar(&a.mumble, "mumble", "", "authenticate with the ready-made message in `FILE` (default $META9_MUMBLE, which is the message itself)")
	f.StringVar(&a.cert, "cert", "", "for tls: the certificate in `FILE` (PEM)")
	f.StringVar(&a.key, "key", "", "for tls: its key in `FILE` (PEM; default: the file of --cert)")
	f.StringVar(&a.ca, "ca", "", "for tls: trust the authorities in `FILE` (PEM; default: the system's)")
	commands := []func(*app) *cobra.Command{
		newLs, newCat, newGet, newPut, newEdit, newTxn, newRm, newMv, newStat, newWatch, newWait,
		newVM, newVminfo, newMdata, newQMP, newMumble,
		newMount, newMountHelper, newUmount, newAgent, newCredential,
		newHost, newBackup, newStatus, newSessions, newUpgrade,
		newVersion,
	}
	for _, add := range append(commands, hostCommands...) {
		root.AddCommand(add(a))
	}
	saySynopsis(root)
	return root
}

// cobrasError is the text of cobra's errors about the arguments of a command: their number is
// wrong, or there is no such command.
var cobrasError = regexp.MustCompile(`^(accepts|requires) .* arg\(s\)|^unknown command .* for "`)

// saySynopsis makes cobra print the usage lines of cmd and all below it as they are written
// here, also where the number of arguments is wrong or there is no such command.
func saySynopsis(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil || !cobrasError.MatchString(err.Error()) {
				return err
			}
			if cmd.HasSubCommands() && len(args) > 0 {
				return fmt.Errorf("there is no %s command %q%s", cmd.Name(), args[0], didYouMean(args[0], commandNames(cmd)))
			}
			number := fmt.Sprintf("%d arguments", len(args))
			if len(args) == 1 {
				number = "1 argument"
			}
			return fmt.Errorf("%s; it is: %s", number, cmd.UseLine())
		}
	}
	for _, sub := range cmd.Commands() {
		saySynopsis(sub)
	}
}

// whichCommand is the error of cmd without one of the commands below it.
func whichCommand(cmd *cobra.Command, _ []string) error {
	return misused("which %s command? There are %s", cmd.Name(), strings.Join(commandNames(cmd), ", "))
}

// commandNames lists what is below cmd, but not what cobra adds by itself.
func commandNames(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" && c.Name() != "completion" {
			names = append(names, c.Name())
		}
	}
	return names
}

// withTimeout is ctx with a deadline by --timeout.
func (a *app) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, a.timeout, tooLate(a.timeout))
}

// tooLate is the context.DeadlineExceeded of --timeout, in words.
type tooLate time.Duration

func (t tooLate) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(t)) }

func (t tooLate) Is(target error) bool { return target == context.DeadlineExceeded }
