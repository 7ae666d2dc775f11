package session

import (
	"slices"

	"meta9/fs"
)

// Pause is the last Tread of a fid, in a numbered dialect, that a stream answered
// with 0 bytes so that Linux gives its program what there is (fs.Pauser). That
// answer is given once, so that a Tread which only changes nothing when it runs
// again would wait: the program would not see, until the next event, what it has.
// When the reply was lost with the transport, it is given again to the Tread that
// is asked anew, which has the same tag; unless a Tflush says that nobody asks.
type Pause struct {
	Number uint64 `json:"number"` // of the request; 0: none
	Tag    uint16 `json:"tag"`
	Lost   bool   `json:"lost,omitempty"` // Tresume said so
}

// paused notes that the Tread under tag, of a stream, was answered with 0 bytes.
func (c *conn) paused(tag uint16, f *fid) {
	if _, ok := f.handle.(fs.Pauser); ok && c.dialect.Numbered() {
		f.pause = Pause{Number: c.askedUnder(tag).number, Tag: tag}
	}
}

// pauseAgain is called before a Tread under tag reads.
func (f *fid) pauseAgain(tag uint16) {
	if p, ok := f.handle.(fs.Pauser); ok && f.pause.Lost && f.pause.Tag == tag {
		f.pause = Pause{}
		p.Pause()
	}
}

// losePauses takes in which requests have no answer; numbers ascend.
func (n *session) losePauses(numbers []uint64) {
	for _, f := range n.fids {
		if f.pause.Number == 0 {
			continue
		}
		if _, named := slices.BinarySearch(numbers, f.pause.Number); named {
			f.pause.Lost = true
		}
	}
}

// endPauses is for the Tflush of a Tread that was answered.
func (n *session) endPauses(oldtag uint16) {
	for _, f := range n.fids {
		if f.pause.Number != 0 && f.pause.Tag == oldtag {
			f.pause = Pause{}
		}
	}
}
