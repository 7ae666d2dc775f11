package main

//go:generate go test -run ^TestManPage$ . -update

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meta9/cmd/roff"
)

// The manual page is made from the help, here and not in the program.
var update = flag.Bool("update", false, "write the manual page to docs/man")

const manFile = "../../docs/man/meta9d.8"

func TestManPage(t *testing.T) {
	want := manPage(newRoot(nil, nil, nil))
	if *update {
		if err := os.WriteFile(manFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(manFile)
	if diff := cmp.Diff(string(want), string(got)); diff != "" || err != nil {
		t.Errorf("%s is not what the help says; make docs: %v\n%s", manFile, err, diff)
	}
}

// manPage is the command as a manual page: what it is for, the options, and what
// has a title in its help.
func manPage(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString(".TH META9D 8 " + roff.Date + " meta9 \"meta9 manual\"\n.SH NAME\n")
	fmt.Fprintf(&b, "meta9d \\- %s\n.SH SYNOPSIS\n.B meta9d\n[OPTION]...\n.SH DESCRIPTION\n", roff.Text(cmd.Short))
	text, exit, _ := strings.Cut(cmd.Long, "\n\nExit status:\n")
	for i, par := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		fmt.Fprintf(&b, "%s\n", roff.Filled(par))
	}
	b.WriteString(".SH OPTIONS\n")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		arg, usage := pflag.UnquoteUsage(f)
		if arg != "" {
			arg = " " + arg
		}
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff.Text("--"+f.Name+arg), roff.Filled(usage))
	})
	fmt.Fprintf(&b, ".SH EXIT STATUS\n.nf\n%s\n.fi\n.SH SEE ALSO\n.BR meta9 (1)\n", roff.Text(exit))
	return b.Bytes()
}
