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
)

// The manual page is made from the help, here and not in the program.
var update = flag.Bool("update", false, "write the manual page to docs/man")

const manFile = "../../docs/man/meta9d.8"

func TestManPage(t *testing.T) {
	want := manPage(usage)
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

// optionLine is an option of the help and the beginning of what it says.
var optionLine = regexp.MustCompile(`^  (--\S+(?: [A-Z]+)?) +(.*)$`)

// manPage is the help as a manual page: the usage and what it is for, the options,
// then paragraphs, of which the last tells the exit status.
func manPage(help string) []byte {
	pars := strings.Split(strings.TrimSpace(help), "\n\n")
	_, about, _ := strings.Cut(pars[0], "\n")
	var b bytes.Buffer
	b.WriteString(".TH META9D 8 \"\" meta9 \"meta9 manual\"\n.SH NAME\n")
	fmt.Fprintf(&b, "meta9d \\- serve the metadata of virtual machines over 9P\n.SH SYNOPSIS\n.B meta9d\n[OPTION]...\n")
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(about))
	for _, par := range pars[2 : len(pars)-1] {
		fmt.Fprintf(&b, ".PP\n%s\n", roff(par))
	}
	b.WriteString(".SH OPTIONS\n")
	for line := range strings.Lines(strings.TrimLeft(pars[1], "\n")) {
		line = strings.TrimRight(line, "\n")
		if m := optionLine.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(m[1]), roff(m[2]))
			continue
		}
		fmt.Fprintf(&b, "%s\n", roff(strings.TrimSpace(line)))
	}
	_, exit, _ := strings.Cut(pars[len(pars)-1], ": ")
	fmt.Fprintf(&b, ".SH EXIT STATUS\n%s\n.SH SEE ALSO\n.BR meta9 (1)\n", roff(exit))
	return b.Bytes()
}

// roff escapes what would be a request or an escape.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	return regexp.MustCompile(`(?m)^([.'])`).ReplaceAllString(text, `\&$1`)
}
