package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// newVM is `meta9 vm` and what is below it.
func newVM(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:                "vm COMMAND [ARG]...",
		Short:              "list, show, create, update and delete VMs",
		Example:            "meta9 vm create web0 -m role=web\nmeta9 vm list\nmeta9 vm attach web0\nmeta9 vm update web0 ram=2048\nmeta9 vm delete web0",
		Long:               "Manage VMs, on the host. What 'create' and 'update' take and 'get' gives has the shape\nof vmadm's payload. VM is a UUID or an alias.",
		Args:               cobra.ArbitraryArgs, // an unknown command, with its flags
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch names := commandNames(cmd); {
			case len(args) == 0:
				return whichCommand(cmd, nil)
			case slices.Contains(vmadmsOwn, args[0]):
				return misused("%s: vmadm does this to zones and their disks, which meta9d has none of", args[0])
			default:
				hint := didYouMean(args[0], names)
				if hint == "" {
					hint = "; there are " + strings.Join(names, ", ")
				}
				return misused("there is no vm command %q%s", args[0], hint)
			}
		},
	}
	for _, add := range []func(*app) *cobra.Command{
		newVMList, newVMLookup, newVMGet, newVMInfo, newVMEvents, newVMCreate, newVMUpdate, newVMValidate, newVMDelete,
		newVMStart, newVMStop, newVMReboot, newVMAttach, newVMHelp,
	} {
		cmd.AddCommand(add(a))
	}
	for long, short := range map[string]string{"verbose": "v", "debug": "d"} {
		cmd.PersistentFlags().BoolP(long, short, false, "for vmadm's users: there is no more to say")
		_ = cmd.PersistentFlags().MarkHidden(long)
	}
	return cmd
}

// vmadmName is the name under which this program is `meta9 vm`.
const vmadmName = "vmadm"

// vmadmsOwn are vmadm's verbs that are not done here.
var vmadmsOwn = []string{
	"console", "create-snapshot", "delete-snapshot", "rollback-snapshot", "install", "kill", "receive", "recv", "reprovision", "send", "sysrq",
}

// newVMHelp is `meta9 vm help`: what --help says, for vmadm's users.
func newVMHelp(*app) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "say what the vm commands are, or how one is used",
		Long:    "Say what --help says, of all vm commands or of one.",
		Example: "meta9 vm help create",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Parent().Find(args)
			if err != nil || len(rest) > 0 {
				return misused("there is no vm command %q", args[0])
			}
			return about.Help()
		},
	}
}

// vmPath is where a VM's file is.
func vmPath(uuid string, file ...string) string {
	return path.Join(append([]string{"/vms", uuid}, file...)...)
}

// uuidArg reads the first argument, which names a VM: by its UUID or, but for vmadm's
// users, who have no such thing, by its alias.
func (a *app) uuidArg(cmd *cobra.Command, args []string) (uuid string, err error) {
	none := vmadmError{code: exitUsage, text: "Invalid or missing UUID for " + cmd.Name()}
	if len(args) == 0 {
		return "", none
	}
	if uuid, err := vm.ParseUUID(args[0]); err == nil {
		return uuid, nil
	}
	if args[0] == "" || filepath.Base(os.Args[0]) == vmadmName {
		return "", none
	}
	uuid, err = a.byAlias(cmd, args[0])
	if errors.Is(err, errs.NotFound) {
		none.text += fmt.Sprintf("; no VM has the alias %q", args[0])
		var e interface{ where() string }
		if errors.As(err, &e) {
			none.text += " here; " + e.where()
		}
		if strings.Contains(args[0], "=") {
			none.text += fmt.Sprintf("; the VM comes first, by its UUID or its alias ('meta9 vm lookup %s' finds it)", args[0])
		}
		return "", none
	}
	return uuid, err
}

// byAlias is the UUID of the VM that has the alias; errs.NotFound: none has it.
func (a *app) byAlias(cmd *cobra.Command, alias string) (uuid string, err error) {
	err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
		text, err := c.ReadFile(ctx, "/names/"+vm.FileName(alias)+"/sdc/uuid")
		if err != nil {
			return err
		}
		uuid, err = vm.ParseUUID(string(text))
		return err
	})
	return uuid, err
}

// about replaces the name of the VM's file in an error by the VM's UUID.
func about(uuid string, err error) error {
	var e *client.Error
	if errors.As(err, &e) && e.Op != "connect" {
		e.Path = uuid
	}
	return err
}

// payload reads the JSON object in a file, or in standard input if the file is ""
// or -, and makes it one line.
func (a *app) payload(file, what string) ([]byte, error) {
	in, name := a.in, "standard input"
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, name = f, file
	}
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.err, "Type %s as JSON, then Ctrl-D on a line of its own:\n", what)
	}
	b, err := readLimited(in, name)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // as some editors begin a file
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return nil, fmt.Errorf("%s: not JSON: %w", name, err)
	}
	return line.Bytes(), nil
}

// verb writes one line to a ctl file.
func verb(ctx context.Context, c *client.Client, ctl, name string, arg []byte) error {
	line := append([]byte(name+" "), arg...)
	return c.WriteFile(ctx, ctl, append(line, '\n'))
}
