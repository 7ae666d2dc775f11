//go:build !guest && !plan9

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"meta9/fs/errs"
	"meta9/session/client"
)

// claimable is what /fleet/claimable says: the VMs that no living host has.
type claimable struct {
	vms  []claimableVM
	more bool // than are listed
}

type claimableVM struct {
	UUID string `json:"uuid"`
	Host string `json:"host"` // "": nobody's
}

// readClaimable reads /fleet/claimable. An older meta9d has no such file: nothing is claimable then.
func readClaimable(ctx context.Context, c *client.Client) (is claimable, err error) {
	text, err := c.ReadFile(ctx, "/fleet/claimable")
	if errors.Is(err, errs.NotFound) {
		return is, nil
	}
	for line := range bytes.Lines(text) {
		var vm struct {
			claimableVM
			More bool
		}
		if err := json.Unmarshal(line, &vm); err != nil {
			return is, fmt.Errorf("the server's JSON of a VM: %w", err)
		}
		if is.more = vm.More; !vm.More {
			is.vms = append(is.vms, vm.claimableVM)
		}
	}
	return is, err
}

// String says how many they are, and of whom; "": there is none.
func (is claimable) String() string {
	var whose []string
	for from := 0; from < len(is.vms); { // they are in the order of their hosts
		host, n := is.vms[from].Host, 0
		for ; from < len(is.vms) && is.vms[from].Host == host; from++ {
			n++
		}
		if host == "" {
			whose = append(whose, fmt.Sprintf("%d that are nobody's", n))
		} else {
			whose = append(whose, fmt.Sprintf("%d of %s, which does not live", n, printable(host)))
		}
	}
	if is.more {
		whose = append(whose, "and more")
	}
	return strings.Join(whose, "; ")
}

// row is the line of `meta9 fleet status`; "": no VM is claimable.
func (is claimable) row() string {
	if len(is.vms) == 0 {
		return ""
	}
	return fmt.Sprintf("%-12s VMs: %s ('meta9 fleet where' lists them)\n", "claimable", is)
}

// listClaimable is `meta9 fleet where` without a VM.
func (a *app) listClaimable(ctx context.Context, c *client.Client, asJSON jsonFlag) error {
	if _, err := c.Stat(ctx, "/fleet"); err != nil {
		return noFleet(ctx, c, err)
	}
	is, err := readClaimable(ctx, c)
	for _, vm := range is.vms {
		if asJSON {
			text, _ := json.Marshal(vm) // two strings
			if err := a.printJSON(text); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%s %s\n", vm.UUID, printable(orDash(vm.Host))); err != nil {
			return err
		}
	}
	if is.more {
		return fmt.Errorf("there are more than these %d: claim these, and ask again", len(is.vms))
	}
	return err
}
