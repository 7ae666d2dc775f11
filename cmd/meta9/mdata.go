package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
)

// mdataHelp is what the commands below mdata have in common.
const mdataHelp = `Ask the metadata service of the host, from inside a guest, by the Joyent metadata
protocol: meta9d's, or that of SmartOS. It is looked for where zones have its
socket, then on the second serial port, /dev/ttyS1; --dev names another place.

Exit status:
0  done
1  there is no such key
2  the host refused, did not answer in time, or could not be reached`

// Exit codes of the mdata commands: those of mdata-get.
const (
	exitNoKey   = 1
	exitNoMdata = 2
)

// mdataError is an error of the mdata commands, with their exit code.
type mdataError struct {
	error
	code int
}

func (e mdataError) Unwrap() error { return e.error }

func newMdata(a *app) *cobra.Command {
	var dev string
	cmd := &cobra.Command{
		Use:     "mdata COMMAND [ARG]...",
		Short:   "ask the host of a guest by the Joyent metadata protocol",
		Example: "meta9 mdata list\nmeta9 mdata get sdc:uuid\nmeta9 mdata --dev /dev/ttyS1 put state ready",
		Long:    mdataHelp,
		Args:    cobra.NoArgs,
		RunE:    whichCommand,
	}
	cmd.PersistentFlags().StringVar(&dev, "dev", "", "the service is at `PATH`, a unix socket or a serial device")
	for _, add := range []func(*app, *string) *cobra.Command{newMdataGet, newMdataPut, newMdataList, newMdataDelete} {
		cmd.AddCommand(add(a, &dev))
	}
	return cmd
}

func newMdataGet(a *app, dev *string) *cobra.Command {
	return &cobra.Command{
		Use:     "get KEY...",
		Short:   "print the values of keys",
		Example: "meta9 mdata get hostname sdc:alias",
		Long:    "Print the value of each key, byte for byte: nothing is added, not even a newline.",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.mdata(dev, func(ctx context.Context, c *mdata.Client, keys []string) error {
			return a.eachKey(keys, func(key string) error {
				value, err := c.Get(ctx, key)
				if err == nil {
					_, err = a.out.Write(value)
				}
				return err
			})
		}),
	}
}

func newMdataPut(a *app, dev *string) *cobra.Command {
	return &cobra.Command{
		Use:     "put KEY [VALUE]",
		Short:   "give a key a value",
		Example: "meta9 mdata put state ready\nmeta9 mdata put report </tmp/report.json",
		Long: `Make VALUE, or without one what standard input has, the value of the key. Nothing
is added, not even a newline. When put is done, the value is as durable as the host
makes it; meta9d's is on its disk.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.value(args)
			if err != nil {
				return mdataError{err, exitNoMdata}
			}
			return a.mdata(dev, func(ctx context.Context, c *mdata.Client, args []string) error {
				return a.eachKey(args[:1], func(key string) error { return c.Put(ctx, key, value) })
			})(cmd, args)
		},
	}
}

func newMdataList(a *app, dev *string) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "print the names of the keys",
		Example: "meta9 mdata list",
		Long:    "Print the names of the guest's keys, one a line. Those that begin with sdc: are not among them.",
		Args:    cobra.NoArgs,
		RunE: a.mdata(dev, func(ctx context.Context, c *mdata.Client, _ []string) error {
			keys, err := c.Keys(ctx)
			if len(keys) > 0 {
				_, err = fmt.Fprintln(a.out, strings.Join(keys, "\n"))
			}
			return err
		}),
	}
}

func newMdataDelete(a *app, dev *string) *cobra.Command {
	return &cobra.Command{
		Use:     "delete KEY...",
		Short:   "delete keys",
		Example: "meta9 mdata delete state report",
		Long:    "Delete keys. That a key is not there is no error.",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.mdata(dev, func(ctx context.Context, c *mdata.Client, keys []string) error {
			return a.eachKey(keys, func(key string) error { return c.Delete(ctx, key) })
		}),
	}
}

// mdata makes a command that does something with the service at dev.
func (a *app) mdata(dev *string, do func(ctx context.Context, c *mdata.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := a.withTimeout(cmd.Context())
		defer cancel()
		err := a.onMdata(ctx, *dev, func(c *mdata.Client) error { return do(ctx, c, args) })
		var known mdataError
		if err == nil || errors.As(err, &known) {
			return err
		}
		return mdataError{err, exitNoMdata}
	}
}

// onMdata connects to the service at path, "" for where it usually is.
func (a *app) onMdata(ctx context.Context, path string, do func(c *mdata.Client) error) error {
	if path == "" {
		var err error
		if path, err = mdata.Find(); err != nil {
			return err
		}
	}
	a.progress.say("waiting for the metadata service at " + path)
	c, err := mdata.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// eachKey does something with each key, also after one that is not there or is
// refused. A host that does not answer ends it.
func (a *app) eachKey(keys []string, do func(key string) error) error {
	for _, key := range keys {
		err := do(key)
		var refusal *mdata.Refusal
		switch {
		case errors.Is(err, errs.NotFound):
			a.fail(mdataError{fmt.Errorf("no metadata for %q", key), exitNoKey})
		case errors.As(err, &refusal):
			a.fail(mdataError{err, exitNoMdata})
		case err != nil:
			return err
		}
	}
	return nil
}
