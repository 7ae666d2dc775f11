// Package eventtest reads files of events line by line, as they come, for tests.
package eventtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"meta9/session/client"
)

// Event is an event of a VM.
type Event struct {
	Rev       uint64
	Type, Key string
}

// Lines calls do with each line from now on, until do gives an error, which is returned, as is
// what the file cannot be read for. A read asks for that many bytes.
func Lines(ctx context.Context, f *client.File, count int, do func(line []byte) error) error {
	var rest []byte
	buf := make([]byte, count)
	for off := int64(0); ; {
		n, err := f.ReadAt(ctx, buf, off)
		if err != nil && err != io.EOF {
			return fmt.Errorf("at %d: %w", off, err)
		}
		off += int64(n)
		rest = append(rest, buf[:n]...)
		for {
			line, tail, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			rest = tail
			if err := do(line); err != nil {
				return err
			}
		}
	}
}

var errLast = errors.New("the last event is there")

// Until gives all events before the first of the key last, by Lines. That some were lost is an error.
func Until(ctx context.Context, f *client.File, count int, last string) (all []Event, err error) {
	err = Lines(ctx, f, count, func(line []byte) error {
		var e Event
		switch err := json.Unmarshal(line, &e); {
		case err != nil:
			return fmt.Errorf("%q: %w", line, err)
		case e.Type == "lost":
			return fmt.Errorf("events were lost: %s", line)
		}
		if e.Key == last {
			return errLast
		}
		all = append(all, e)
		return nil
	})
	if errors.Is(err, errLast) {
		err = nil
	}
	return all, err
}
