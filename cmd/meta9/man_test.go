package main

//go:generate go test -run ^TestManPages$ . -update

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meta9/cmd/roff"
)

// The manual pages are made from the commands, here and not in the binary:
// cobra/doc would bring a Markdown translator into it.
var update = flag.Bool("update", false, "write the manual pages to docs/man")

const (
	manDir = "../../docs/man"
)

func TestManPages(t *testing.T) {
	pages := map[string][]byte{}
	root := newRoot(&app{})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	manPages(root, pages)
	if *update {
		writePages(t, pages)
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(manDir, name))
		if diff := cmp.Diff(string(want), string(got)); diff != "" || err != nil {
			t.Errorf("%s is not what the commands say; make docs: %v\n%s", name, err, diff)
		}
	}
	stale, err := filepath.Glob(filepath.Join(manDir, "meta9*.1"))
	if err != nil || len(stale) != len(pages) {
		t.Errorf("%d pages in %s, %d commands, %v", len(stale), manDir, len(pages), err)
	}
}

// TestHelp: each command says what it does, in short and at length, and gives an example
// that is a command line of its own.
func TestHelp(t *testing.T) {
	seen := 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		seen++
		path := cmd.CommandPath()
		if cmd.Short == "" || cmd.Long == "" {
			t.Errorf("%s: its help is short %q, long %q", path, cmd.Short, cmd.Long)
		}
		// Options of all commands may stand before the command.
		if name := strings.TrimPrefix(path, "meta9 "); !strings.Contains(cmd.Example, "meta9 ") || !strings.Contains(cmd.Example, name) {
			t.Errorf("%s: no example, in %q", path, cmd.Example)
		}
		if strings.Contains(cmd.Long, "Example:") || strings.Contains(cmd.Long, "Examples:") {
			t.Errorf("%s: the example is in its text", path)
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				walk(sub)
			}
		}
	}
	walk(newRoot(&app{}))
	if seen < 40 {
		t.Errorf("only %d commands", seen)
	}
}

func writePages(t *testing.T, pages map[string][]byte) {
	if err := os.MkdirAll(manDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(manDir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// manName is the page of a command: meta9-vm-list.
func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPages makes the pages of cmd and of what is below it. Those of completion are
// one: its help is cobra's, and says the same four times.
func manPages(cmd *cobra.Command, pages map[string][]byte) {
	pages[manName(cmd)+".1"] = manPage(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && cmd.Name() != "completion" {
			manPages(sub, pages)
		}
	}
}

func manPage(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	name := manName(cmd)
	fmt.Fprintf(&b, ".TH %s 1 %s meta9 \"meta9 manual\"\n", roff.Quote(strings.ToUpper(name)), roff.Date)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff.Text(name), roff.Text(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff.Text(cmd.UseLine()))
	text := cmd.Long
	if text == "" {
		text = strings.ToUpper(cmd.Short[:1]) + cmd.Short[1:] + "."
	}
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, strings.TrimSpace(text))
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff.Text(cmd.Example))
	}
	manCommands(&b, cmd)
	manFlags(&b, "OPTIONS", cmd.NonInheritedFlags())
	if cmd.HasParent() {
		manFlags(&b, "OPTIONS OF ALL COMMANDS", cmd.InheritedFlags())
	}
	manSeeAlso(&b, cmd)
	return b.Bytes()
}

// manText writes paragraphs. One whose first line is a title and a colon is a
// section, line by line.
func manText(b *bytes.Buffer, text string) {
	for i, par := range strings.Split(text, "\n\n") {
		title, lines, _ := strings.Cut(par, "\n")
		switch {
		case strings.HasSuffix(title, ":"):
			fmt.Fprintf(b, ".SH %s\n.nf\n%s\n.fi\n", strings.ToUpper(strings.TrimSuffix(title, ":")), roff.Text(lines))
			continue
		case i > 0:
			b.WriteString(".PP\n")
		}
		fmt.Fprintf(b, "%s\n", roff.Filled(par))
	}
}

func manCommands(b *bytes.Buffer, cmd *cobra.Command) {
	title := ".SH COMMANDS\n"
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(b, "%s.TP\n.B %s\n%s\n", title, roff.Text(sub.Name()), roff.Filled(sub.Short))
			title = ""
		}
	}
}

func manFlags(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		arg, usage := pflag.UnquoteUsage(f)
		text := "--" + f.Name
		if f.Shorthand != "" {
			text = "-" + f.Shorthand + ", " + text
		}
		if arg != "" {
			text += " " + arg
		}
		if f.Value.Type() == "duration" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff.Text(text), roff.Filled(usage))
	})
}

func manSeeAlso(b *bytes.Buffer, cmd *cobra.Command) {
	var also []string
	if cmd.HasParent() {
		also = append(also, manName(cmd.Parent()))
	} else {
		also = append(also, "meta9d")
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && cmd.Name() != "completion" {
			also = append(also, manName(sub))
		}
	}
	b.WriteString(".SH SEE ALSO\n")
	for i, name := range also {
		section, comma := 1, ","
		if name == "meta9d" {
			section = 8
		}
		if i == len(also)-1 {
			comma = ""
		}
		fmt.Fprintf(b, ".BR %s (%d)%s\n", roff.Text(name), section, comma)
	}
}
