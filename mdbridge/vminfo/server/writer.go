package server

import (
	"net/http"
	"sync/atomic"
	"time"
)

// piece is how many bytes are written at a time. A client that reads so much within its
// patience is slow, not gone.
const piece = 1 << 20

// An answer keeps old VMs and its text in memory while it is sent, so a client that
// reads less than a little at a time is cut off. One that has just read that at once gets
// more at a time: each write costs.
const (
	answerPiece    = 64 << 10
	fastPiece      = 256 << 10
	answerPatience = 10 * time.Second
	answerTime     = 10 * time.Minute // for all of it
)

// writer writes a body to a client that may be slow, in pieces each of which has
// its time.
type writer struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	piece    int
	most     int  // the size of a piece for a client that is fast
	fast     bool // it took the last piece in a small part of its patience
	patience time.Duration
	until    time.Time // the deadline that is set
	end      time.Time // of all; zero: none
	isCut    atomic.Bool
}

func newWriter(w http.ResponseWriter, patience time.Duration) *writer {
	return &writer{w: w, rc: http.NewResponseController(w), piece: piece, most: piece, patience: patience}
}

// newAnswer is for the answer to a request that is no stream.
func newAnswer(w http.ResponseWriter, patience time.Duration) *writer {
	o := newWriter(w, min(patience, answerPatience))
	o.piece, o.most = answerPiece, fastPiece
	o.limit(answerTime)
	return o
}

// limit bounds the time of all that is written from now on; 0 is no bound.
func (o *writer) limit(d time.Duration) {
	o.end = time.Time{}
	if d > 0 {
		o.end = time.Now().Add(d)
	}
}

// write sends b, or keeps a little of it until flush.
func (o *writer) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), o.piece)
		if o.fast {
			n = min(len(b), o.most)
		}
		begun, err := o.extend()
		if err != nil {
			return err
		}
		if _, err := o.w.Write(b[:n]); err != nil {
			return err
		}
		o.fast = time.Since(begun) < o.patience/16
		b = b[n:]
	}
	return nil
}

// flush sends what write has kept.
func (o *writer) flush() error {
	if _, err := o.extend(); err != nil {
		return err
	}
	return o.rc.Flush()
}

// extend sets the deadline of the next write. A deadline that was set a moment ago stays:
// setting it costs more than writing a short line.
func (o *writer) extend() (now time.Time, err error) {
	now = time.Now()
	until := now.Add(o.patience)
	if !o.end.IsZero() && until.After(o.end) {
		until = o.end
	}
	if o.until.After(now) && until.Sub(o.until).Abs() < o.patience/16 {
		return now, nil
	}
	if err := o.rc.SetWriteDeadline(until); err != nil {
		return now, err
	}
	o.until = until
	if o.isCut.Load() {
		o.cut() // it may have been set over
	}
	return now, nil
}

// cut makes writes fail, also one that waits. It may be called from any goroutine.
func (o *writer) cut() {
	o.isCut.Store(true)
	_ = o.rc.SetWriteDeadline(time.Unix(1, 0))
}
