package keep

import (
	"bufio"
	"errors"
	"io"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// firstFrame is the longest Tversion that is looked at, in bytes.
const firstFrame = 512

// hello is a Tversion of the client's that waits for an answer.
type hello struct {
	tag     uint16
	dialect wire.Dialect
	msize   uint32
}

// listen takes requests from the client until it is gone.
func (k *Keeper) listen() error {
	rd := bufio.NewReaderSize(k.down, readAhead)
	for {
		frame, err := readFrame(rd, k.longest())
		if err != nil {
			return err
		}
		_, typ, _, _ := wire.Split(frame)
		if typ == wire.Tversion {
			err = k.greeted(frame)
		} else {
			err = k.take(frame)
		}
		if err != nil {
			return err
		}
	}
}

// readFrame reads one frame into storage of its own.
func readFrame(rd *bufio.Reader, limit uint32) ([]byte, error) {
	header, err := rd.Peek(wire.HeaderLen)
	if err != nil {
		if len(header) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	size, _, _, _ := wire.Split(header)
	if size < wire.HeaderLen || size > limit {
		return nil, errs.New(errs.Protocol, "a frame of %d bytes, %d is the limit", size, limit)
	}
	frame := make([]byte, size)
	_, err = io.ReadFull(rd, frame)
	return frame, err
}

func (k *Keeper) longest() uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.begun {
		return firstFrame
	}
	return max(k.msize, firstFrame)
}

// take enters a request, when there is room for it.
func (k *Keeper) take(frame []byte) error {
	_, typ, tag, _ := wire.Split(frame)
	answer, err := k.enter(&request{Tag: tag, Type: typ, Frame: frame})
	if answer != nil {
		k.answer(answer)
	}
	return err
}

// enter does that; an answer is for the client at once.
func (k *Keeper) enter(r *request) (answer []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.full() && !k.gone {
		k.moved.Wait()
	}
	switch {
	case !k.begun:
		return nil, errs.New(errs.Protocol, "%s before Tversion", r.Type)
	case k.byTag[r.Tag] != nil || r.Tag == wire.NoTag:
		return nil, errs.New(errs.Protocol, "%s under tag %d, which is in use", r.Type, r.Tag)
	case !r.Type.Counted():
		return wire.AppendError(nil, r.Tag, errs.Unsupported, k.base), nil
	case r.Type == wire.Tflush && k.flush(r):
		return wire.Append(nil, &wire.Msg{Type: wire.Rflush, Tag: r.Tag}, k.base)
	}
	k.add(r)
	k.moved.Broadcast()
	return nil, nil
}

// flush notes what a Tflush is about. It is done at once for a request that has not
// left: a program that was killed while there is no server need not wait for one.
func (k *Keeper) flush(r *request) (done bool) {
	if wire.Decode(&k.m, r.Frame, k.base) != nil {
		return false
	}
	old := k.byTag[k.m.Oldtag]
	if old != nil && old.Number == 0 {
		k.remove(old)
		return true
	}
	if r.Old = old; old != nil {
		old.Flushed = true
	}
	return false
}

// answer writes frames to the client. That it is gone is seen by reading.
func (k *Keeper) answer(frames []byte) {
	k.answering.Lock()
	defer k.answering.Unlock()
	_, _ = k.down.Write(frames)
}

// greeted answers a Tversion. The first is answered at once if Dial has foreseen
// it; any other begins everything anew, on another transport, and the client is
// not listened to until then.
func (k *Keeper) greeted(frame []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := wire.Decode(&k.m, frame, wire.None); err != nil {
		return err
	}
	h := &hello{tag: k.m.Tag, dialect: spoken(k.m.Version), msize: min(k.m.Msize, wire.MaxMsize)}
	switch {
	case h.msize < wire.MinMsize:
		k.write(wire.AppendError(nil, h.tag, errs.New(errs.Invalid, "msize %d, %d is the least", h.msize, wire.MinMsize), wire.None))
		return nil
	case h.dialect == wire.Unknown:
		k.welcome(h)
		return nil
	case !k.begun && h.dialect == k.base && h.msize >= k.msize:
		k.begun = true
		k.welcome(h)
		return nil
	}
	k.wish = h
	k.hangUp()
	for k.wish != nil && !k.gone {
		k.moved.Wait()
	}
	return nil
}

// write is answer, with mu held.
func (k *Keeper) write(frames []byte) {
	k.mu.Unlock()
	defer k.mu.Lock()
	k.answer(frames)
}

// welcome writes Rversion; mu is held.
func (k *Keeper) welcome(h *hello) {
	m := wire.Msg{Type: wire.Rversion, Tag: h.tag, Msize: min(k.msize, h.msize), Version: h.dialect.String()}
	frame, _ := wire.Append(nil, &m, wire.None)
	k.write(frame)
}
