//go:build !guest && !plan9

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// elsewhereError is an error about a VM that another host of the fleet has.
type elsewhereError struct {
	error
	is whereabouts
}

func (e elsewhereError) Unwrap() error { return e.error }

// where is where the VM is, and what to do.
func (e elsewhereError) where() string {
	switch {
	case e.is.Host == "":
		return fmt.Sprintf("VM %s is no host's: 'meta9 fleet claim %[1]s' takes it here", e.is.UUID)
	case e.is.Own:
		return fmt.Sprintf("VM %s is this host's, and not served yet: it comes just now, or 'meta9 fleet claim %[1]s' says why not", e.is.UUID)
	case len(e.is.Addresses) == 0:
		return fmt.Sprintf("VM %s is at the host %q, which does not live or has no tls listener for its admin: ask there, or take it here with 'meta9 fleet claim %[1]s'", e.is.UUID, e.is.Host)
	}
	return fmt.Sprintf("VM %s is at the host %q: --cert, --key and --ca of its admin lead there (%s), or take it here with 'meta9 fleet claim %[1]s'", e.is.UUID, e.is.Host, strings.Join(e.is.Addresses, ", "))
}

// findElsewhere adds to an error that a VM is not here which host has it, if another one of the
// fleet has.
func findElsewhere(ctx context.Context, c *client.Client, err error) error {
	name := missingVM(err)
	if name == "" {
		return err
	}
	is, _, findErr := findInFleet(ctx, c, name)
	if findErr != nil || is.Here {
		return err
	}
	return elsewhereError{err, is}
}

// missingVM is the UUID or the alias of the VM that is perhaps missing, by the error; "": the
// error has another cause.
func missingVM(err error) string {
	var none noVMError
	var file noFileError
	var said vmadmError
	var e *client.Error
	switch {
	case errors.As(err, &none):
		return string(none)
	case errors.As(err, &file):
		return vmOf(string(file))
	case errors.As(err, &said):
		return said.about
	case errors.Is(err, errs.NotFound) && errors.As(err, &e):
		return vmOf(e.Path)
	}
	return ""
}

// vmOf is the UUID or the alias of the VM in vms/UUID/..., names/ALIAS/..., or a UUID alone;
// "": there is none.
func vmOf(path string) string {
	names := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(names) > 1 && names[0] == "vms":
		return names[1]
	case len(names) > 1 && names[0] == "names":
		if alias, err := vm.KeyName(names[1]); err == nil {
			return alias
		}
	case len(names) == 1 && vm.ValidUUID(names[0]) == nil:
		return names[0]
	}
	return ""
}

// followVM returns a connection to the host that has the VM that the arguments name, and
// closes c, if that is another host than c's and the user has a certificate for tls. Else it
// returns c, also where the arguments name several VMs.
func (a *app) followVM(ctx context.Context, cmd *cobra.Command, c *client.Client, opt client.Options) (*client.Client, error) {
	if a.cert == "" || cmd.HasParent() && cmd.Parent().Name() == "fleet" {
		return c, nil
	}
	name := ""
	for _, arg := range cmd.Flags().Args() {
		of := vmOf(arg)
		if of == "" && cmd.HasParent() && cmd.Parent().Name() == "vm" && !strings.Contains(arg, "=") {
			of = arg
		}
		if of != "" && name != "" && of != name {
			return c, nil // of several
		}
		if of != "" {
			name = of
		}
	}
	if name == "" {
		return c, nil
	}
	is, _, err := findInFleet(ctx, c, name)
	if err != nil || is.Here || len(is.Addresses) == 0 {
		return c, nil // the command itself reports a VM that is not found
	}
	var last error
	for _, addr := range is.Addresses {
		a.progress.say("going to the host " + is.Host + " at " + addr)
		there, err := a.connectTo(ctx, addr, opt)
		if err == nil {
			c.Close()
			return there, nil
		}
		last = err
	}
	c.Close()
	return nil, fmt.Errorf("VM %s is at the host %q: %w", is.UUID, is.Host, last)
}
