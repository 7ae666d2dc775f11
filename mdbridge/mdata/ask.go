package mdata

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"meta9/fs/errs"
)

// tryV2 sends the request as a frame and waits for the reply with its id. Each
// attempt has a new id, since the reply to an earlier attempt may still come, and
// its value may be old by now.
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

// reply waits for the frame with that id. It passes over damaged frames and frames
// with another id: they belong to another client that uses the same line.
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
		case ok && string(f.ID) == unreadable && string(f.Code) == Failure, isRefusal(line):
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
		return nil, errs.NotFound // version 1 cannot ask for a key with a line feed
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
		case isRefusal(line):
			return nil, &Refusal{Path: c.path, What: r.what}
		}
	}
}

// valueV1 reads the lines of a value. They carry no id: that they answer our request
// follows only from the line's silence before we sent it.
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

// negotiate asks for version 2, and takes version 1 where the host refuses. Any other
// line is passed over: if noise counted as a refusal, the guest would have version 1,
// which has no PUT.
func (c *Client) negotiate() error {
	if err := c.send([]byte(Negotiate + " " + V2 + "\n")); err != nil {
		return err
	}
	for {
		line, err := c.next()
		switch {
		case err != nil:
			return err
		case trimRight(line) == V2OK, isRefusal(line):
			c.v2 = !isRefusal(line)
			return nil
		}
	}
}

// isRefusal tells whether a line is one of version 1's two refusals.
func isRefusal(line []byte) bool {
	word := trimRight(line)
	return word == Invalid || word == Failure
}

// trimRight is a line without blanks at its end: some hosts end lines by CR LF.
func trimRight(line []byte) string { return string(bytes.TrimRight(line, blanks)) }

// send sends a request and notes it for error texts. A host that reads nothing fills
// the line's buffer; the write then ends with the deadline.
func (c *Client) send(request []byte) error {
	c.exchange.sent = request
	c.exchange.times++
	_, err := c.link.Write(request)
	return timedOut(err)
}

// next reads the next line, and notes its beginning for error texts.
func (c *Client) next() ([]byte, error) {
	line, err := c.lines.Next()
	switch {
	case errors.Is(err, ErrLong):
		return nil, errTooMuch
	case err != nil:
		return nil, timedOut(err)
	}
	c.exchange.got = append(c.exchange.got[:0], line[:min(len(line), 200)]...)
	c.exchange.lines++
	return line, nil
}

// timedOut is errSilent where err is that of a deadline, else err.
func timedOut(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSilent
	}
	return err
}
