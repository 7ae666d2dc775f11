package main

import (
	"meta9/fs"
	"meta9/fs/errs"
)

// noHypervisor gives every VM's ctl the verbs of a hypervisor, for VMs that have
// none: who attaches one puts its own in their place.
func noHypervisor(t *fs.Tree) {
	for _, name := range []string{"start", "stop", "powerdown", "reset", "quit", "qmp"} {
		t.VMVerb(name, func(c fs.Call, done func(error)) {
			done(errs.New(errs.Unsupported, "%s: no hypervisor is attached to VM %s", name, c.Cell.UUID()))
		})
	}
}
