package main

//go:generate go test -run ^TestManPage$ . -update

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The manual page is made from the help, here and not in the program.
var update = flag.Bool("update", false, "write the manual page to docs/man")

const (
	manFile = "../../docs/man/meta9d.8"
	manDate = "2026-11-27" // a release changes it, with those of the client's pages
)

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
	b.WriteString(".TH META9D 8 " + manDate + " meta9 \"meta9 manual\"\n.SH NAME\n")
	fmt.Fprintf(&b, "meta9d \\- %s\n.SH SYNOPSIS\n.B meta9d\n[OPTION]...\n.SH DESCRIPTION\n", roff(cmd.Short))
	text, exit, _ := strings.Cut(cmd.Long, "\n\nExit status:\n")
	for i, par := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		fmt.Fprintf(&b, "%s\n", filled(par))
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
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff("--"+f.Name+arg), filled(usage))
	})
	fmt.Fprintf(&b, ".SH EXIT STATUS\n.nf\n%s\n.fi\n.SH SEE ALSO\n.BR meta9 (1)\n", roff(exit))
	return b.Bytes()
}

// roff escapes what would be a request or an escape.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	return regexp.MustCompile(`(?m)^([.'])`).ReplaceAllString(text, `\&$1`)
}

// filled is roff for text that a reader's terminal breaks anew: mandoc wants its lines to
// have at most 80 bytes. A line that begins with a blank begins a line for him, too.
func filled(s string) string {
	var b strings.Builder
	length := 0
	for i, line := range strings.Split(s, "\n") {
		if i > 0 && (line == "" || line[0] == ' ') {
			b.WriteByte('\n')
			length = 0
		}
		for i, word := range strings.Split(line, " ") {
			word = roff(word)
			switch {
			case length+1+len(word) > 80 && word != "":
				b.WriteByte('\n')
				length = 0
			case length > 0 || i > 0:
				word = " " + strings.TrimPrefix(word, `\&`)
			}
			b.WriteString(word)
			length += len(word)
		}
	}
	return b.String()
}
