package residence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	tree "meta9/fs"
	"meta9/fs/store"
	"meta9/session"
)

// How the journal stays within its bounds: when it has grown enough, a new epoch begins in
// a new segment. Every session is written whole again, and then the segments from before
// the epoch are deleted.

func (j *Journal) current() *segment { return j.segments[len(j.segments)-1] }

// append adds a record to the current segment or, if that is full, to a new one. A new
// segment begins with a copy of the newest batch. If there can be no new segment, or the copy
// leaves no room for the record, the journal ends for good (fail).
func (j *Journal) append(kind byte, body []byte) {
	switch _, ok := j.room(len(body)); {
	case ok:
		j.current().append(kind, body)
		j.countAppended(len(body))
	case j.epoch.Load() != 0:
		j.fail(errNoRoom)
	}
}

var errNoRoom = errors.New("a batch leaves no room in a segment for what follows it")

// room begins a new segment if the current one has no room for a record of n bytes. fresh:
// it has begun one. ok is false if the journal has failed, or if the copy of the newest
// batch leaves no room.
func (j *Journal) room(n int) (fresh, ok bool) {
	if j.current().fits(n) {
		return false, true
	}
	return true, j.nextOrFail() && j.current().fits(n)
}

// countAppended counts n bytes that were appended, and begins the next epoch where it is time.
func (j *Journal) countAppended(n int) {
	j.since += headLen + n
	if j.since > max(segmentSize, 2*j.live) && !j.sweeping && j.wake != nil && j.nextOrFail() {
		j.sweeping, j.since, j.from = true, 0, j.current().number
		j.readers = make(map[uint64]uint64)
		clear(j.changed)
		j.epoch.Add(1)
		poke(j.wake)
	}
}

func (j *Journal) nextOrFail() bool {
	err := j.next()
	if err != nil {
		j.fail(err)
	}
	return err == nil
}

// next begins a new segment with a copy of the newest batch.
func (j *Journal) next() error {
	if len(j.segments) == maxSegments {
		return fmt.Errorf("it has %d MiB", maxSegments*segmentSize>>20)
	}
	number := uint64(1)
	if len(j.segments) > 0 {
		number += j.current().number
	}
	home, err := j.place.form()
	if err != nil {
		return err
	}
	s, err := newSegment(j.dir, number, home)
	if err != nil {
		return err
	}
	j.segments = append(j.segments, s)
	for _, r := range j.newest {
		if !s.fits(2*headLen + binary.MaxVarintLen64 + len(r.body)) {
			return errors.New("a batch has more to say than a segment holds")
		}
		s.append(r.kind, r.body)
	}
	if j.failure != nil {
		if !s.fits(headLen + len(j.failure)) {
			return errNoRoom
		}
		s.append(kindFailed, j.failure)
	}
	return nil
}

// fail ends the journal for good. It must: once a client gets a reply that the journal
// does not have, a restore from it would be wrong.
func (j *Journal) fail(err error) {
	j.epoch.Store(0)
	j.log.Error().Err(err).Str("journal", j.dir).Msg("no session will outlive a kill: the journal has failed")
	if err := os.RemoveAll(j.dir); err != nil {
		j.log.Error().Err(err).Msg("removing the journal")
	}
	for _, s := range j.segments {
		_ = s.unmap() // cannot fail: it was mapped
	}
	j.segments, j.sizes, j.changed = nil, nil, nil
	if j.wake != nil {
		poke(j.wake)
	}
}

// sweep writes into the new epoch all sessions that are not in it yet, and then deletes
// the segments from before it.
func (j *Journal) sweep(srv *session.Server, t *tree.Tree) {
	defer close(j.swept)
	for range j.wake {
		for j.Epoch() != 0 && srv.Note() > 0 {
			time.Sleep(sweepPause)
		}
		if j.Epoch() == 0 {
			return
		}
		j.tails(t)
		j.mu.Lock()
		for len(j.segments) > 0 && j.segments[0].number < j.from && j.epoch.Load() != 0 {
			old := j.segments[0]
			j.segments = j.segments[1:]
			if err := old.remove(); err != nil {
				j.fail(err)
			}
		}
		j.sweeping = false
		j.mu.Unlock()
	}
}

// sweepPause is how long sweep waits for sessions that are just being parked or resumed.
const sweepPause = 20 * time.Millisecond

// tails writes the events from before this epoch that their readers have not read yet.
func (j *Journal) tails(t *tree.Tree) {
	j.mu.Lock()
	readers := maps.Clone(j.readers)
	j.mu.Unlock()
	_ = t.Tails(readers, func(tail store.Tail) error {
		b, err := tailBody(&tail)
		j.mu.Lock()
		defer j.mu.Unlock()
		if err != nil || len(b) > maxChange || j.epoch.Load() == 0 {
			return nil // without it the reader is told that events are lost
		}
		if _, ok := j.room(len(b)); ok {
			j.append(kindTail, b)
		}
		return nil
	})
}

// segmentNumbers lists the segments in the folder, in ascending order.
func segmentNumbers(dir string) (list []uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var n uint64
		if _, err := fmt.Sscanf(e.Name(), "%d", &n); err != nil || e.Name() != segmentName(n) {
			if e.Name() == "draft" {
				continue
			}
			return nil, fmt.Errorf("%q is none of its files", e.Name())
		}
		list = append(list, n)
	}
	slices.Sort(list)
	for i, n := range list {
		if i > 0 && n != list[i-1]+1 {
			return nil, fmt.Errorf("file %s is missing", segmentName(list[i-1]+1))
		}
	}
	return list, nil
}
