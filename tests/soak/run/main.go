// Command run runs one part of a soak and adds a line to docs/testing/NAME.md:
// `make soak SOAK=NAME`. See tests/soak for how a soak is written.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/soak"
)

// longest is how long a part may be; slack is what it may take past its end for
// what it had begun.
const (
	longest = 45 * time.Minute
	slack   = 15 * time.Minute
)

// entry is a soak.
type entry struct {
	name string
	pkg  string // its folder, from the top of the repository
	test string
	doc  string // one sentence or two, the head of its file
}

// command is the part as a process, in its folder.
func (e entry) command(root string) *exec.Cmd {
	cmd := exec.Command("go", "test", "-tags", "soak", "-count=1", "-v", "-timeout", (longest + slack).String(), "-run", "^"+e.test+"$", ".")
	cmd.Dir = filepath.Join(root, e.pkg)
	return cmd
}

func main() {
	length := flag.Duration("time", longest, "how long the part is")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: make soak SOAK=NAME [SOAKTIME=45m]")
		for _, e := range soaks {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-10s %s\n", e.name, e.doc)
		}
	}
	flag.Parse()
	root, err := daemon.Root()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, e := range soaks {
		if flag.NArg() == 1 && flag.Arg(0) == e.name {
			if err := run(root, e, e.command(root), min(*length, longest), os.Stdout); err != nil {
				fmt.Fprintf(os.Stderr, "soak %s: %v\n", e.name, err)
				os.Exit(1)
			}
			return
		}
	}
	flag.Usage()
	if flag.NArg() > 0 {
		os.Exit(2)
	}
}

// run runs cmd as one part of e, and adds its line also where it failed.
func run(root string, e entry, cmd *exec.Cmd, length time.Duration, out io.Writer) error {
	file := filepath.Join(root, "docs", "testing", e.name+".md")
	last, err := lastLine(file)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "meta9-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	report := filepath.Join(dir, "report")
	l := line{seed: last.seed + 1, at: last.at, commit: commit(root)}
	if last.result == failed {
		l.seed = last.seed
	}
	cmd.Env = append(os.Environ(),
		fmt.Sprintf("%s=%d", soak.EnvSeed, l.seed), soak.EnvAt+"="+l.at, soak.EnvTime+"="+length.String(), soak.EnvReport+"="+report)
	cmd.Stdout, cmd.Stderr = out, out
	// Ctrl-C ends the part (it goes to all of the terminal's processes) and not
	// this process, which has the line to write.
	ctrlC := make(chan os.Signal, 1)
	signal.Notify(ctrlC, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ctrlC)

	begin := time.Now()
	ran := cmd.Run()
	l.date, l.took = begin, time.Since(begin)
	l.result = "ok"
	if ran != nil {
		l.result = failed
	}
	var r soak.Report
	b, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	switch {
	case err == nil:
		l.at, l.figures = r.At, r.Figures
	case ran == nil:
		return fmt.Errorf("the part said nothing of itself: %w", err)
	}
	return errors.Join(ran, appendLine(file, e, l))
}

// failed is the result of a part that is to be run again with its seed.
const failed = "FAILED"

// line is a line of docs/testing/NAME.md.
type line struct {
	date    time.Time
	commit  string
	seed    uint64
	took    time.Duration
	result  string
	at      string
	figures []soak.Figure
}

const head = "| date | commit | seed | time | result | goes on at | figures |\n|---|---|---|---|---|---|---|\n"

func (l line) String() string {
	var figures []string
	for _, f := range l.figures {
		figures = append(figures, f.Name+" "+f.Value)
	}
	cells := []string{
		l.date.UTC().Format(time.DateOnly), l.commit, strconv.FormatUint(l.seed, 10),
		fmt.Sprintf("%s, %d cores", l.took.Round(time.Second), runtime.NumCPU()), l.result, l.at, strings.Join(figures, "; "),
	}
	for i, c := range cells {
		cells[i] = strings.NewReplacer("|", "/", "\n", " ").Replace(c)
	}
	return "| " + strings.Join(cells, " | ") + " |\n"
}

// lastLine is what the last line of a soak's file says of where to go on; its
// seed is 0 where there is none.
func lastLine(file string) (l line, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	_, rows, _ := bytes.Cut(b, []byte(head))
	text := strings.TrimSpace(string(rows))
	if text == "" {
		return l, nil
	}
	text = text[strings.LastIndexByte(text, '\n')+1:]
	cells := strings.Split(text, "|")
	if len(cells) != 9 {
		return l, fmt.Errorf("%s: its last line is not one of a part: %s", file, text)
	}
	l.result, l.at = strings.TrimSpace(cells[5]), strings.TrimSpace(cells[6])
	if l.seed, err = strconv.ParseUint(strings.TrimSpace(cells[3]), 10, 64); err != nil {
		return l, fmt.Errorf("%s: the seed of its last line: %w", file, err)
	}
	return l, nil
}

// appendLine adds a line to a soak's file, and makes the file.
func appendLine(file string, e entry, l line) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	i, err := f.Stat()
	if err == nil && i.Size() == 0 {
		_, err = fmt.Fprintf(f, "# Soak: %s\n\n%s\nEach line is a part of `make soak SOAK=%s`; a commit with + had changes on top.\n\n%s", e.name, e.doc, e.name, head)
	}
	if err == nil {
		_, err = f.WriteString(l.String())
	}
	return errors.Join(err, f.Close())
}

// commit is the commit of the tree, with + where the tree is another; lines that
// parts have added do not make it one.
func commit(root string) string {
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	id, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--", ".", ":!docs/testing"); err != nil || changed != "" {
		id += "+"
	}
	return id
}
