//go:build !guest && !plan9

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// finding is one thing that is wrong, and how it is mended.
type finding struct {
	What string `json:"what"`
	Mend string `json:"mend"`
}

// report is what a doctor says.
type report struct {
	Well     bool      `json:"well"`     // all was looked at, and nothing found
	Findings []finding `json:"findings"` // in the order in which they matter
	Unseen   []string  `json:"unseen"`   // what could not be looked at, and why
	summary  string    // of a host that is well
}

// The exit codes of doctor.
const (
	doctorFound  = 1
	doctorUnseen = 2
)

// newDoctor is `meta9 doctor`.
func newDoctor(a *app) *cobra.Command {
	var asJSON jsonFlag
	opt := doctorOptions{data: "/var/lib/meta9"}
	cmd := &cobra.Command{
		Use:   "doctor [-o json]",
		Short: "look for what is wrong with meta9d and its host",
		Long: `Look at meta9d, its folders and settings, the VMs' sockets and the QEMUs of this host,
and print a line for each thing that is wrong, with what mends it: "what: ...; mend: ...".
A host that is well gets one line. Nothing is changed, and no socket of a QEMU is
connected to. It wants the host's root, who may look at all of that; where meta9d does
not answer it says so and looks at the rest.

It looks for: a meta9d that does not run, is not well, is another one than the program that
is installed, or whose settings could not be used at the next start; folders that others
can write to or read; a full disk, too few file descriptors, a clock that is behind; sockets
of VMs that are missing, that the user of their QEMU may not open, or that a QEMU has not
connected to; devices of VMs that are not there while they run; two QEMUs of one UUID;
monitors that another client holds; a certificate that ends, secrets that are too short, a
mirror that lags, what an unclean start has set aside, and VMs of a fleet that are damaged,
or that no host serves.

Exit status:
0  all is well
1  something is wrong
2  something could not be looked at, and nothing wrong was found; or the command
   line is wrong`,
		Example:           "meta9 doctor\nmeta9 doctor -o json | jq -r '.findings[].mend'",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.withTimeout(cmd.Context())
			defer cancel()
			r, err := a.examine(ctx, opt)
			if err != nil {
				return err
			}
			r.Well = len(r.Findings)+len(r.Unseen) == 0
			if asJSON {
				if err := a.printValue(r); err != nil {
					return err
				}
			} else if err := r.print(a.out); err != nil {
				return err
			}
			switch {
			case len(r.Findings) > 0:
				return saidError{doctorFound}
			case len(r.Unseen) > 0:
				return saidError{doctorUnseen}
			}
			return nil
		},
	}
	f := cmd.Flags()
	outputFlag(cmd, &asJSON)
	f.StringVar(&opt.data, "data", opt.data, "meta9d's data folder is `DIR`; used when meta9d does not answer, and cannot say it")
	return cmd
}

// doctorOptions are what doctor cannot ask a meta9d that does not answer.
type doctorOptions struct {
	data string
}

// print writes the report for people.
func (r *report) print(to io.Writer) error {
	if r.Well {
		_, err := fmt.Fprintln(to, r.summary)
		return err
	}
	for _, f := range r.Findings {
		if _, err := fmt.Fprintf(to, "what: %s; mend: %s\n", printable(f.What), printable(f.Mend)); err != nil {
			return err
		}
	}
	for _, what := range r.Unseen {
		if _, err := fmt.Fprintf(to, "not looked at: %s\n", printable(what)); err != nil {
			return err
		}
	}
	return nil
}

// found adds a finding.
func (r *report) found(what, mend string) { r.Findings = append(r.Findings, finding{what, mend}) }

// unseen adds what could not be looked at.
func (r *report) unseen(format string, args ...any) {
	r.Unseen = append(r.Unseen, fmt.Sprintf(format, args...))
}
