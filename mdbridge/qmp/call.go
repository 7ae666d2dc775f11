package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Do runs a command and returns its result. The error is an *Error where the server
// answered with one; ctx's when ctx ended first, and then the command may still be
// executed; else the connection has ended.
func (c *Client) Do(ctx context.Context, cmd Command) (json.RawMessage, error) {
	members := map[string]any{"execute": cmd.Name}
	if cmd.Arguments != nil {
		members["arguments"] = cmd.Arguments
	}
	a, err := c.call(ctx, members, false)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", cmd.Name, err)
	case a.err != nil:
		return nil, a.err
	}
	return a.ret, nil
}

// Pass runs a command from its text, which Decoder reads: an object with execute and
// the rest. It returns the server's answer as one object in ASCII, with the id that the
// text had and without a line end. Where the answer is an error, so is Pass's, as Do's.
func (c *Client) Pass(ctx context.Context, text []byte) (json.RawMessage, error) {
	members, err := parseCommand(text)
	if err != nil {
		return nil, err
	}
	// The caller's id cannot be ours: two callers may use the same.
	id, _ := members["id"].(json.RawMessage)
	a, err := c.call(ctx, members, true)
	switch {
	case err != nil:
		return nil, err
	case a.err != nil:
		return bytes.TrimSuffix(AppendError(nil, a.err, id), []byte(lineEnd)), a.err
	}
	return bytes.TrimSuffix(AppendReturn(nil, a.ret, id), []byte(lineEnd)), nil
}

// ErrNoCommand is in the chain of Pass's error for a text that is no command.
// Nothing was sent.
var ErrNoCommand = errors.New("not a command")

// parseCommand reads exactly one object.
func parseCommand(text []byte) (map[string]any, error) {
	// The Decoder sees the end of a number by the line end. An escape is at most six times
	// as long as its character.
	d := NewDecoder(bytes.NewReader(append(bytes.Clone(text), '\n')), 8*len(text)+2)
	v, err := d.Next()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCommand, inWords(err))
	}
	if v[0] != '{' {
		return nil, fmt.Errorf("%w: it must be a JSON object", ErrNoCommand)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(v, &raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCommand, err)
	}
	if _, err := d.Next(); err == nil {
		return nil, fmt.Errorf("%w: one at a time", ErrNoCommand)
	}
	members := make(map[string]any, len(raw))
	for name, value := range raw {
		members[name] = value
	}
	return members, nil
}

// call sends a command under an id of its own, and waits for the answer.
func (c *Client) call(ctx context.Context, members map[string]any, pass bool) (answer, error) {
	done := make(chan answer, 1)
	id, err := c.register(call{done, pass})
	if err != nil {
		return answer{}, err
	}
	members["id"] = id
	if err := c.send(ctx, members); err != nil {
		c.take(id)
		return answer{}, err
	}
	select {
	case a := <-done:
		return a, nil
	case <-ctx.Done():
		if !pass { // its answer may be large, and is still to come
			c.take(id)
		}
		return answer{}, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case a := <-done: // the answer came just before the connection ended
		return a, nil
	default:
		return answer{}, fmt.Errorf("no answer: %w", c.Err())
	}
}

// register makes a new id for a call.
func (c *Client) register(made call) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		return 0, fmt.Errorf("not sent: %w", c.err)
	}
	c.lastID++
	c.calls[c.lastID] = made
	if made.pass {
		c.passes.Add(1)
	}
	return c.lastID, nil
}

// send writes a command. A write that fails ends the connection: part of the command
// may have been sent, and the server could not read the next one after it.
func (c *Client) send(ctx context.Context, command any) error {
	text, err := Marshal(command)
	if err != nil {
		return err
	}
	select {
	case c.sending <- struct{}{}:
		defer func() { <-c.sending }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = withDeadline(ctx, c.conn.SetWriteDeadline, func() error {
		_, err := c.conn.Write(append(text, lineEnd...))
		return err
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		c.fail(fmt.Errorf("a command was sent in part: %w", context.Cause(ctx)))
		return context.Cause(ctx)
	}
	c.fail(err)
	return c.Err()
}
