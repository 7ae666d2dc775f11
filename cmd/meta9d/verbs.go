package main

import (
	"meta9/fs"
	"meta9/fs/errs"
)

// noHypervisor adds to every VM's ctl the verbs of a hypervisor, which then say that there
// is none. A hypervisor that is attached replaces them.
func noHypervisor(t *fs.Tree) {
	for _, name := range []string{"start", "stop", "powerdown", "reset", "quit", "qmp"} {
		t.VMVerb(name, func(c fs.Call, done func(error)) {
			done(errs.New(errs.Unsupported, "%s: no hypervisor is attached to VM %s", name, c.Cell.UUID()))
		})
	}
}
