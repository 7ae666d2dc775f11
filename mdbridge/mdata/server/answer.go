package server

import (
	"bytes"
	"errors"
	"math"

	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
)

// answer appends the reply to one line, if it has one: a damaged frame gets
// silence, as on a real host, since its sender asks again.
func (c *conn) answer(line []byte) {
	command, arg := mdata.Command(line)
	if string(command) == mdata.V2 {
		f, ok := mdata.ParseFrame(arg)
		if !ok {
			c.server.damaged.Add(1)
			return
		}
		c.answerFrame(f)
	} else {
		c.answerV1(command, arg)
	}
	c.server.requests.Add(1)
}

// refuseLong tells the sender of a line that was dropped, if it was a good frame,
// since he would ask again.
func (c *conn) refuseLong() {
	f, ok := c.long.Frame()
	c.long = mdata.LongFrame{}
	if !ok {
		return
	}
	err := errs.New(errs.TooLarge, "%d bytes is the limit of a request", c.server.maxLine)
	if string(f.Code) == mdata.Put {
		err = errs.New(errs.TooLarge, "%d bytes is the limit of a value", c.server.maxValue)
	}
	c.out = mdata.AppendFrame(c.out, f.ID, mdata.Failure, []byte(text(err)))
}

// answerV1 knows what version 1 knows: it reads.
func (c *conn) answerV1(command, arg []byte) {
	switch string(command) {
	case "":
		c.line(mdata.Invalid)
	case mdata.Negotiate:
		c.line(negotiated(arg))
	case mdata.Get:
		key := keyOf(arg)
		if key == "" {
			c.line(mdata.Invalid)
			return
		}
		c.replyV1(c.get(key))
	case mdata.Keys:
		c.replyV1(c.names())
	default:
		c.line(mdata.Failure)
	}
}

// negotiated is the answer to NEGOTIATE, which changes nothing: frames are
// answered without it.
func negotiated(version []byte) string {
	switch string(version) {
	case "":
		return mdata.Invalid
	case mdata.V2:
		return mdata.V2OK
	}
	return mdata.Failure
}

// line appends a whole reply of version 1.
func (c *conn) line(s string) { c.out = append(append(c.out, s...), '\n') }

// replyV1 has no place for the text of an error.
func (c *conn) replyV1(value []byte, err error) {
	switch {
	case err == nil:
		c.out = mdata.AppendValue(c.out, value)
	case errors.Is(err, errs.NotFound):
		c.line(mdata.NotFound)
	default:
		c.line(mdata.Failure)
	}
}

// answerFrame appends the one reply that a good frame gets, with its id.
func (c *conn) answerFrame(f mdata.Frame) {
	value, err := c.request(f)
	switch {
	case err == nil:
		c.out = mdata.AppendFrame(c.out, f.ID, mdata.Success, value)
	case errors.Is(err, errs.NotFound):
		c.out = mdata.AppendFrame(c.out, f.ID, mdata.NotFound, nil)
	default:
		c.out = mdata.AppendFrame(c.out, f.ID, mdata.Failure, []byte(text(err)))
	}
}

// done is the value of a reply to a change.
var done = []byte("OK")

// request does what a frame asks for, and gives the value of its reply. There are
// no other commands: NEGOTIATE and V2 inside a frame are as unknown as any.
func (c *conn) request(f mdata.Frame) ([]byte, error) {
	switch string(f.Code) {
	case mdata.Get:
		key := keyOf(mdata.AppendDecoded(c.value[:0], f.Payload))
		if key == "" {
			return nil, invalid(mdata.Get)
		}
		return c.get(key)
	case mdata.Keys:
		return c.names()
	case mdata.Put:
		return done, c.put(f.Payload)
	case mdata.Delete:
		key := keyOf(mdata.AppendDecoded(c.value[:0], f.Payload))
		if key == "" {
			return nil, invalid(mdata.Delete)
		}
		c.flush()
		c.place.Give()
		return done, c.keys.remove(key)
	}
	return nil, errs.New(errs.Unsupported, "Unknown command %s", f.Code)
}

// get is the key's value. One that is long waits for a wide slot.
func (c *conn) get(key string) ([]byte, error) {
	value, err := c.keys.get(c.value[:0], key, narrow)
	if errors.Is(err, errs.TooBig) {
		c.widen()
		value, err = c.keys.get(value[:0], key, math.MaxInt)
	}
	c.value = value
	return value, err
}

// manyNames is how many names make a list that is long: with the longest names it
// is some 32 KiB, and 44 in base64.
const manyNames = 128

// names is the list of all keys.
func (c *conn) names() ([]byte, error) {
	if c.keys.count() > manyNames {
		c.widen()
	}
	var err error
	c.value, err = c.keys.names(c.value[:0])
	return c.value, err
}

// put does PUT: the payload is, decoded, a key and a value, each in base64 and
// apart by one blank. The value may be empty. Earlier replies are not held up by
// the commit.
func (c *conn) put(payload []byte) error {
	c.value = mdata.AppendDecoded(c.value[:0], payload)
	key64, value64, two := bytes.Cut(c.value, []byte{' '})
	value64 = bytes.TrimRight(value64, " \r\n\t")
	key := keyOf(mdata.AppendDecoded(nil, key64))
	if !two || key == "" || bytes.IndexByte(value64, ' ') >= 0 {
		return invalid(mdata.Put)
	}
	value := mdata.AppendDecoded(nil, value64)
	c.flush()
	c.place.Give()
	err := c.keys.put(key, value)
	if errors.Is(err, errs.Invalid) {
		return invalid(mdata.Put) // a name that no key may have
	}
	return err
}

// invalid is what a request gets that is none.
func invalid(command string) error {
	return errs.New(errs.Invalid, "Invalid %s Request", command)
}

// text is what a guest is told of an error: the detail, which for the host's own
// troubles is none of its business.
func text(err error) string {
	switch {
	case errors.Is(err, errNoValue):
		return ""
	case errs.KindOf(err) == errs.IO:
		return errs.IO.Text()
	case errs.Detail(err) != "":
		return errs.Detail(err)
	}
	return err.Error()
}
