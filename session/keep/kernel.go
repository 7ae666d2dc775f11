package keep

import (
	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// maxFirst is how many bytes the first frame, a Tversion, may have.
	maxFirst = 512

	// maxBytes is how many bytes of requests a client may have without an answer. Past
	// it, or past redial.MaxRequests, no more is read from it.
	maxBytes = 8 << 20
)

// version is a Tversion of the client's that waits for an answer.
type version struct {
	tag     uint16
	dialect wire.Dialect
	msize   uint32
}

// listen takes requests from the client until it is gone.
func (k *Keeper) listen() error {
	frames := redial.NewFrames(k.down)
	for {
		frame, err := frames.Next(k.longest())
		if err != nil {
			return err
		}
		_, typ, tag, _ := wire.Split(frame)
		var answer []byte
		if typ == wire.Tversion {
			answer, err = k.greeted(frame)
		} else {
			answer, err = k.enter(&redial.Request{Tag: tag, Type: typ, Frame: frame})
		}
		k.answer(answer)
		if err != nil {
			return err
		}
	}
}

// longest is the longest frame in bytes that the client may send.
func (k *Keeper) longest() uint32 {
	k.conn.Lock()
	defer k.conn.Unlock()
	if !k.begun {
		return maxFirst
	}
	_, msize, _ := k.conn.Session()
	return max(msize, maxFirst)
}

// enter enters a request, when there is room for it; an answer is for the client at once.
func (k *Keeper) enter(r *redial.Request) (answer []byte, err error) {
	k.conn.Lock()
	defer k.conn.Unlock()
	for (k.conn.Len() >= redial.MaxRequests || k.conn.Bytes >= maxBytes) && !k.gone {
		k.moved.Wait()
	}
	switch {
	case !k.begun:
		return nil, errs.New(errs.Protocol, "%s before Tversion", r.Type)
	case k.conn.Get(r.Tag) != nil || r.Tag == wire.NoTag:
		return nil, errs.New(errs.Protocol, "%s under tag %d, which is in use", r.Type, r.Tag)
	case !r.Type.Counted():
		return wire.AppendError(nil, r.Tag, errs.Unsupported, k.base), nil
	case r.Type == wire.Tflush:
		return k.flush(r), nil
	}
	if answer = k.refuse(r); answer == nil {
		k.conn.Send(r)
	}
	return answer, nil
}

// flush enters a Tflush. It is answered at once for a request that has not left: a
// program that was killed while there is no server need not wait for one. conn is held.
func (k *Keeper) flush(r *redial.Request) (answer []byte) {
	if wire.Decode(&k.m, r.Frame, k.base) == nil {
		r.Old = k.conn.Get(k.m.Oldtag)
	}
	if k.conn.Flush(r) {
		answer, _ = wire.Append(nil, &wire.Msg{Type: wire.Rflush, Tag: r.Tag}, k.base) // which always has a frame
	}
	return answer
}

// answer writes frames to the client. That it is gone is seen by reading.
func (k *Keeper) answer(frames []byte) {
	if len(frames) == 0 {
		return
	}
	k.answering.Lock()
	defer k.answering.Unlock()
	_, _ = k.down.Write(frames)
}

// greeted answers a Tversion. The first is answered at once if Dial has foreseen
// it; any other begins everything anew, on another transport, and the client is
// not listened to until then.
func (k *Keeper) greeted(frame []byte) (answer []byte, err error) {
	k.conn.Lock()
	defer k.conn.Unlock()
	if err := wire.Decode(&k.m, frame, wire.None); err != nil {
		return nil, err
	}
	v := &version{tag: k.m.Tag, dialect: spoken(k.m.Version), msize: min(k.m.Msize, wire.MaxMsize)}
	_, msize, _ := k.conn.Session()
	switch {
	case v.msize < wire.MinMsize:
		return wire.AppendError(nil, v.tag, errs.New(errs.Invalid, "msize %d, %d is the least", v.msize, wire.MinMsize), wire.None), nil
	case v.dialect == wire.Unknown:
		return v.answer(msize), nil
	case !k.begun && v.dialect == k.base && v.msize >= msize:
		k.begun = true
		return v.answer(msize), nil
	}
	k.asked = v
	k.conn.Renew(terms(v.dialect, v.msize))
	for k.asked != nil && !k.gone {
		k.moved.Wait()
	}
	return nil, nil
}

// answer is the Rversion, where the session has an msize.
func (v *version) answer(msize uint32) []byte {
	m := wire.Msg{Type: wire.Rversion, Tag: v.tag, Msize: min(msize, v.msize), Version: v.dialect.String()}
	frame, _ := wire.Append(nil, &m, wire.None) // which always has a frame
	return frame
}
