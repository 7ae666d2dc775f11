package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"meta9/mdbridge/qmp"
	"meta9/session/client"
)

const qmpHelp = `Talk by the QEMU Machine Protocol: to a QEMU, or to meta9d where it has a socket
for that (meta9d --qmp-listen).

A command is JSON, {"execute": "metadata-get", "arguments": {"key": "motd", ...}},
or in short its name and arguments, metadata-get key=motd ..., where a value that
is JSON is taken as such. The answer is printed as the JSON object that it is; one
that is an error goes to standard error, and the exit code is 1.

Without a command, standard input has one a line. On a terminal that is a shell,
with a history, names that Tab completes, and the events as they come; Ctrl-D ends
it. A QEMU serves one client of a socket at a time, so the greeting may take until
another has left.`

// newQMP is `meta9 qmp`.
func newQMP(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:               "qmp --socket PATH [COMMAND [NAME=VALUE]...]",
		Short:             "talk to a QEMU, or to meta9d, by QMP",
		Example:           "meta9 qmp --socket /run/vm/web0.qmp query-status\nmeta9 qmp --socket /run/meta9/qmp.sock metadata-get uuid=$UUID key=motd\nmeta9 qmp --socket /run/vm/web0.qmp",
		Long:              qmpHelp,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := strings.TrimPrefix(socket, "unix:")
			if path == "" {
				return misused("which socket? Say --socket PATH")
			}
			q := &qmpTalk{a: a}
			if err := q.connect(cmd.Context(), path); err != nil {
				return fmt.Errorf("%w: %s: %w", client.ErrUnavailable, path, err)
			}
			defer q.c.Close()
			a.progress.hide()
			switch {
			case len(args) > 0:
				return q.one(cmd.Context(), strings.Join(args, " "))
			case q.terminal():
				return q.shell(cmd.Context())
			}
			return q.lines(cmd.Context(), a.in)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "the QMP socket is at `PATH`")
	return cmd
}

// qmpTalk is a connection to a QMP socket.
type qmpTalk struct {
	a      *app
	c      *qmp.Client
	events chan qmp.Event // events that the shell has not shown yet; when it is full, new ones are dropped
}

// keptEvents bounds how many events wait for the shell.
const keptEvents = 100

// connect connects and negotiates within --timeout.
func (q *qmpTalk) connect(ctx context.Context, path string) error {
	ctx, cancel := q.a.withTimeout(ctx)
	defer cancel()
	q.a.progress.say("waiting for the greeting of " + path)
	q.events = make(chan qmp.Event, keptEvents)
	cfg := qmp.Config{GreetTime: q.a.timeout, OnEvent: func(e qmp.Event) {
		select {
		case q.events <- e:
		default:
		}
	}}
	var err error
	q.c, err = qmp.Dial(ctx, path, cfg)
	return err
}

// pass runs a command as it is typed. The error of an answer is in both results.
func (q *qmpTalk) pass(ctx context.Context, line string) (json.RawMessage, error) {
	text, err := qmpCommand(line)
	if err != nil {
		return nil, err
	}
	ctx, cancel := q.a.withTimeout(ctx)
	defer cancel()
	answer, err := q.c.Pass(ctx, text)
	var failed *qmp.Error
	if err == nil || errors.As(err, &failed) || errors.Is(err, qmp.ErrNoCommand) {
		return answer, err
	}
	return answer, fmt.Errorf("%w: %w", client.ErrUnknown, err)
}

// one runs a command and prints what it returned.
func (q *qmpTalk) one(ctx context.Context, line string) error {
	answer, err := q.pass(ctx, line)
	if err == nil {
		_, err = fmt.Fprintf(q.a.out, "%s\n", answer)
	}
	return err
}

// lines runs a command a line.
func (q *qmpTalk) lines(ctx context.Context, in io.Reader) error {
	for r := bufio.NewReader(in); ; {
		line, end := r.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			err := q.one(ctx, line)
			if q.c.Err() != nil || ctx.Err() != nil {
				return err
			}
			q.a.fail(err)
		}
		if end == io.EOF {
			return nil
		}
		if end != nil {
			return end
		}
	}
}

// qmpCommand is a command in JSON of one that may be typed in short.
func qmpCommand(line string) ([]byte, error) {
	if line = strings.TrimSpace(line); strings.HasPrefix(line, "{") {
		return []byte(line), nil
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil, fmt.Errorf("%w: it is empty", qmp.ErrNoCommand)
	}
	cmd := map[string]any{"execute": words[0]}
	args := map[string]any{}
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: %q is no NAME=VALUE", qmp.ErrNoCommand, word)
		}
		args[name] = value
		if json.Valid([]byte(value)) {
			args[name] = json.RawMessage(value)
		}
	}
	if len(args) > 0 {
		cmd["arguments"] = args
	}
	return qmp.Marshal(cmd)
}
