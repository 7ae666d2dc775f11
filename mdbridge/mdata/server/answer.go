package server

import (
	"bytes"
	"errors"
	"math"

	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
)

// answer appends the reply to one line. A damaged frame gets none, as on a SmartOS
// host: its sender asks again.
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

// refuseLong appends a FAILURE for a line that was dropped because it is too long, if
// it was an undamaged frame. Without a reply its sender would send it again.
func (c *conn) refuseLong() {
	f, ok := c.long.Frame()
	c.long = mdata.LongFrame{}
	if !ok {
		return
	}
	err := errs.New(errs.TooLarge, "%d bytes is the limit of a request", c.server.maxLine)
	switch {
	case c.full != nil:
		err, c.full = c.full, nil
	case string(f.Code) == mdata.Put:
		err = errs.New(errs.TooLarge, "%d bytes is the limit of a value", c.server.maxValue)
	}
	c.out = mdata.AppendFrame(c.out, f.ID, mdata.Failure, []byte(guestText(err)))
}

// answerV1 answers a request of version 1, which can only read.
func (c *conn) answerV1(command, arg []byte) {
	switch string(command) {
	case "":
		c.addLine(mdata.Invalid)
	case mdata.Negotiate:
		c.addLine(negotiated(arg))
	case mdata.Get:
		key := keyOf(arg)
		if key == "" {
			c.addLine(mdata.Invalid)
			return
		}
		c.replyV1(c.get(key))
	case mdata.Keys:
		c.replyV1(c.names())
	default:
		c.addLine(mdata.Failure)
	}
}

// negotiated is the answer to NEGOTIATE. Nothing depends on it: frames are answered
// also without a NEGOTIATE before.
func negotiated(version []byte) string {
	switch string(version) {
	case "":
		return mdata.Invalid
	case mdata.V2:
		return mdata.V2OK
	}
	return mdata.Failure
}

// addLine appends a whole reply of version 1.
func (c *conn) addLine(s string) { c.out = append(append(c.out, s...), '\n') }

// replyV1 appends a reply of version 1, which has no place for an error's text.
func (c *conn) replyV1(value []byte, err error) {
	switch {
	case err == nil:
		c.out = mdata.AppendValue(c.out, value)
	case errors.Is(err, errs.NotFound):
		c.addLine(mdata.NotFound)
	default:
		c.addLine(mdata.Failure)
	}
}

// answerFrame appends the reply to an undamaged frame, with the frame's id.
func (c *conn) answerFrame(f mdata.Frame) {
	value, err := c.request(f)
	switch {
	case err == nil:
		c.out = mdata.AppendFrame(c.out, f.ID, mdata.Success, value)
	case errors.Is(err, errs.NotFound):
		c.out = mdata.AppendFrame(c.out, f.ID, mdata.NotFound, nil)
	default:
		c.out = mdata.AppendFrame(c.out, f.ID, mdata.Failure, []byte(guestText(err)))
	}
}

// okValue is the value of a reply to a change.
var okValue = []byte("OK")

// request carries out a frame's request and returns the value of its reply. NEGOTIATE
// and V2 are no requests of version 2.
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
		return okValue, c.put(f.Payload)
	case mdata.Delete:
		key := keyOf(mdata.AppendDecoded(c.value[:0], f.Payload))
		if key == "" {
			return nil, invalid(mdata.Delete)
		}
		c.flush()
		c.place.Give()
		return okValue, c.keys.remove(key)
	}
	return nil, errs.New(errs.Unsupported, "Unknown command %s", f.Code)
}

// get is the key's value. For a value over narrowSize it waits for a wide slot.
func (c *conn) get(key string) ([]byte, error) {
	if err := c.server.fresh(); err != nil {
		return nil, err
	}
	value, err := c.keys.get(c.value[:0], key, narrowSize)
	if errors.Is(err, errs.TooBig) {
		if err = c.takeWide(); err == nil {
			value, err = c.keys.get(value[:0], key, math.MaxInt)
		}
	}
	c.value = value
	return value, err
}

// manyNames is how many names may be listed without a wide slot. With the longest
// names such a list has 32 KiB, or 44 in base64.
const manyNames = 128

// names is the list of all keys.
func (c *conn) names() ([]byte, error) {
	if err := c.server.fresh(); err != nil {
		return nil, err
	}
	if c.keys.count() > manyNames {
		if err := c.takeWide(); err != nil {
			return nil, err
		}
	}
	var err error
	c.value, err = c.keys.names(c.value[:0])
	return c.value, err
}

// put carries out PUT. Its payload, decoded, is a key and a value, each in base64, with
// one blank between; the value may be empty. Replies to earlier requests are written
// before it waits for the commit.
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

// invalid is the error for a request without a key, or of another form.
func invalid(command string) error {
	return errs.New(errs.Invalid, "Invalid %s Request", command)
}

// guestText is the text that a guest gets for an error: its detail, but not of I/O
// errors, since that tells about the host.
func guestText(err error) string {
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
