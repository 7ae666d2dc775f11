package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"meta9/mdbridge/qmp"
)

// terminal tells whether input and output are a terminal.
func (q *qmpTalk) terminal() bool {
	f, ok := q.a.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && q.a.tty
}

// shell runs what is typed, until Ctrl-D or the end of the connection. The line
// editor has a goroutine of its own, which ends with the process.
func (q *qmpTalk) shell(ctx context.Context) error {
	in := q.a.in.(*os.File)
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(int(in.Fd()), before) }()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, q.a.term}, "(QMP) ")
	if width, height, err := term.GetSize(int(in.Fd())); err == nil && width > 0 {
		_ = t.SetSize(width, height)
	}
	t.AutoCompleteCallback = completeWords(q.commandNames(ctx), t)
	for typed := typedLines(t); ; {
		select {
		case line, ok := <-typed:
			if !ok {
				return nil
			}
			q.show(ctx, t, line)
			typed <- "" // the next may be read
		case e := <-q.events:
			fmt.Fprintf(t, "%s\n", bytes.TrimSpace(qmp.AppendEvent(nil, &e)))
		case <-q.c.Done():
			return q.c.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// typedLines sends the lines that are typed. After each it waits for a token on the same
// channel before it reads the next, so that an answer comes before the next prompt. At
// the end of input it closes the channel.
func typedLines(t *term.Terminal) chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for {
			line, err := t.ReadLine()
			if err != nil && err != term.ErrPasteIndicator {
				return
			}
			lines <- line
			<-lines
		}
	}()
	return lines
}

// show runs a line and prints the answer. Package qmp has made that ASCII without control
// characters, so that a peer cannot control the terminal.
func (q *qmpTalk) show(ctx context.Context, t io.Writer, line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	answer, err := q.pass(ctx, line)
	var pretty bytes.Buffer
	if answer != nil && json.Indent(&pretty, answer, "", "  ") == nil {
		fmt.Fprintf(t, "%s\n", pretty.Bytes())
	} else if err != nil {
		fmt.Fprintf(t, "%s\n", printable(err.Error()))
	}
}

// commandNames are the names of the server's commands, as far as it tells.
func (q *qmpTalk) commandNames(ctx context.Context) (names []string) {
	ctx, cancel := q.a.withTimeout(ctx)
	defer cancel()
	var list []struct{ Name string }
	ret, err := q.c.Do(ctx, qmp.Command{Name: "query-commands"})
	if err != nil || json.Unmarshal(ret, &list) != nil {
		return nil
	}
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}

// completeWords completes the first word of a line at Tab: as far as it is
// certain, and then it shows what it may be.
func completeWords(names []string, t io.Writer) func(line string, pos int, key rune) (string, int, bool) {
	return func(line string, pos int, key rune) (string, int, bool) {
		typed := line[:pos]
		if key != '\t' || strings.ContainsAny(typed, " {") {
			return "", 0, false
		}
		var fit []string
		for _, name := range names {
			if strings.HasPrefix(name, typed) {
				fit = append(fit, name)
			}
		}
		if len(fit) == 0 {
			return "", 0, false
		}
		whole := fit[0]
		for _, name := range fit[1:] {
			whole = common(whole, name)
		}
		if len(fit) == 1 {
			whole += " "
		} else if whole == typed {
			fmt.Fprintf(t, "%s\n", printable(strings.Join(fit, "  ")))
		}
		return whole + line[pos:], len(whole), true
	}
}

// common is the longest common beginning of two words.
func common(a, b string) string {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:n]
}
