package mdata

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"meta9/fs/errs"
)

// tryV2 sends the request as a frame and waits for the reply with its id, which is
// new for each attempt: the reply to an earlier one may still come, and says what
// was so then.
func (c *Client) tryV2(r request) ([]byte, error) {
	id := fmt.Appendf(nil, "%08x", rand.Uint32())
	if err := c.send(AppendFrame(nil, id, r.code, r.payload)); err != nil {
		return nil, err
	}
	f, err := c.reply(id)
	if err != nil {
		return nil, err
	}
	value := AppendDecoded(nil, f.Payload)
	switch string(f.Code) {
	case Success:
		return value, nil
	case NotFound:
		return nil, errs.NotFound
	}
	return nil, &Refusal{c.path, r.what, string(value)}
}

// unreadable is the id in some hosts' reply to a frame that they cannot read.
const unreadable = "00000000"

// reply waits for the frame with that id. Damaged frames and those with another
// id are left of somebody else's conversation.
func (c *Client) reply(id []byte) (Frame, error) {
	for {
		line, err := c.next()
		if err != nil {
			return Frame{}, err
		}
		command, rest := Command(line)
		f, ok := ParseFrame(rest)
		switch ok = ok && string(command) == V2; {
		case ok && bytes.EqualFold(f.ID, id):
			return f, nil
		case ok && string(f.ID) == unreadable && string(f.Code) == Failure, refuses(line):
			return f, errRefused
		}
	}
}

// tryV1 asks a host that speaks version 1 only.
func (c *Client) tryV1(r request) ([]byte, error) {
	line := []byte(r.code)
	switch {
	case r.code == Put || r.code == Delete:
		return nil, errs.New(errs.Unsupported, "%s: %s: the host speaks version 1 of the protocol, which cannot", c.path, r.what)
	case bytes.IndexByte(r.payload, '\n') >= 0:
		return nil, errs.NotFound // that cannot be asked
	case r.code == Get:
		line = append(append(line, ' '), r.payload...)
	}
	if err := c.send(append(line, '\n')); err != nil {
		return nil, err
	}
	for {
		line, err := c.next()
		switch word := trimRight(line); {
		case err != nil:
			return nil, err
		case word == Success:
			return c.valueV1()
		case word == NotFound:
			return nil, errs.NotFound
		case refuses(line):
			return nil, &Refusal{Path: c.path, What: r.what}
		}
	}
}

// valueV1 reads a value's lines. Nothing in them says that they belong to our
// request; only the line having been quiet before does.
func (c *Client) valueV1() ([]byte, error) {
	var v value
	for len(v.b) <= maxReply {
		line, err := c.next()
		if err != nil {
			return nil, err
		}
		if v.add(line) {
			return v.b, nil
		}
	}
	return nil, errTooMuch
}

// negotiate asks for version 2, and takes version 1 where that is refused. Any
// other line is noise: to take it for a refusal would cost a guest its PUT.
func (c *Client) negotiate() error {
	if err := c.send([]byte(Negotiate + " " + V2 + "\n")); err != nil {
		return err
	}
	for {
		line, err := c.next()
		switch {
		case err != nil:
			return err
		case trimRight(line) == V2OK, refuses(line):
			c.v2 = !refuses(line)
			return nil
		}
	}
}

// refuses is true for version 1's words of refusal.
func refuses(line []byte) bool {
	word := trimRight(line)
	return word == Invalid || word == Failure
}

// trimRight is a line without blanks at its end: some hosts end lines by CR LF.
func trimRight(line []byte) string { return string(bytes.TrimRight(line, blanks)) }

// send sends a request, which is remembered for errors. A host that reads nothing
// fills the line, so that this too ends with the deadline.
func (c *Client) send(request []byte) error {
	c.talk.sent = request
	c.talk.times++
	_, err := c.link.Write(request)
	return silent(err)
}

// next is the next line that comes, and is remembered too.
func (c *Client) next() ([]byte, error) {
	line, err := c.lines.Next()
	switch {
	case errors.Is(err, ErrLong):
		return nil, errTooMuch
	case err != nil:
		return nil, silent(err)
	}
	c.talk.got = append(c.talk.got[:0], line[:min(len(line), 200)]...)
	c.talk.lines++
	return line, nil
}

// silent makes errSilent of a time-out.
func silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSilent
	}
	return err
}
