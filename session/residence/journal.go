package residence

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	tree "meta9/fs"
	"meta9/fs/store"
	"meta9/session"
)

// JournalName is the journal's name in the run folder. It is a folder of segments.
const JournalName = "journal"

// The kinds of a journal's records, beside those of a residence.
const (
	kindWhole  = 'w' // uvarint id, and what a session's record has
	kindChange = 'c' // uvarint id, and a session.Change in the same form
	kindGone   = 'x' // uvarint id
	kindMade   = 'r' // uvarint number of a batch, then as a change's record: it counts only if that batch is durable
	kindBatch  = 'b' // batchForm as JSON: the store is about to make it durable
	kindFailed = 'f' // uvarint number of a batch: it is not durable, and never will be; UUIDs follow if that is so of these VMs alone
	kindStay   = 'o' // uvarint id, uvarint Stays.Stay of the session's VM
)

// The bounds of a journal: the bytes of the sessions in it, and the bytes of one change.
// With the segments that are about to be deleted it has at most maxSegments.
const (
	maxLive     = 48 << 20
	maxChange   = 1 << 20
	maxSegments = 32
)

// Place says which data folder and boot a journal belongs to, and at which point it began.
type Place struct {
	Home        // Number is that of the newest batch when the journal began
	Boot string // the kernel's boot id: what was not synced is lost at the next boot
	Rev  uint64 // events up to this revision are kept elsewhere

	Stays Stays // of a fleet's host, where each VM has a number of its own; nil: Home's is that of all VMs
}

// Stays tells since when a host has had its VMs without a break. Any goroutine may ask; no
// answer waits for a session or a Journal.
type Stays interface {
	// Stay differs for each stay of a VM at any host, and for each process of the host.
	Stay(vm string) uint64
	// Before tells whether what a journal has of a stay of the VM is the newest: nobody has
	// served the VM since, at any host. Then it gives the number of the VM's newest batch. It is
	// false for a VM that is not the host's, or that came after the start.
	Before(vm string, stay uint64) (number uint64, newest bool)
}

type placeForm struct {
	homeForm
	Boot string `json:"boot"`
	Rev  uint64 `json:"rev"`
}

type batchForm struct {
	Number uint64      `json:"number,omitempty"` // 0: it makes nothing durable
	Events []eventForm `json:"events"`
	Lost   uint64      `json:"lost,omitempty"` // the events up to this revision were too long to be kept
}

// Boot is the kernel's boot id.
func Boot() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// Journal keeps sessions for the case that the process is killed (session.Journal), and
// the events that their readers have not read yet (store.Journal). Its files are mapped
// and never synced: they survive the process, but not a crash of the host, which ends the
// guests too. Before Begin and after End the epoch is 0, and the Journal keeps nothing.
// Its methods may be called from any goroutine; while one holds the mutex it calls nothing
// outside of this package but Stays.
//
// Changes are appended. When those of an epoch take twice the bytes of the sessions, the
// next epoch begins: each session is written whole again, and then the segments of the
// epoch before are deleted.
type Journal struct {
	log   zerolog.Logger
	lock  *os.File
	epoch atomic.Uint64
	swept chan struct{} // closed when the goroutine has ended; nil: there is none
	wake  chan struct{} // an epoch has begun, or the end

	mu       sync.Mutex
	dir      string
	place    Place
	segments []*segment        // the oldest first
	from     uint64            // the number of the epoch's first segment
	sweeping bool              // the segments before that are there still
	since    int               // bytes since the epoch began
	live     int               // bytes of the sessions when they were written whole
	sizes    map[uint64]int    // bytes by session; a session that is not in it is not in the journal
	changed  map[uint64]int    // bytes of changes since the session was written whole, while sweeping
	readers  map[uint64]uint64 // how far event streams were read, of those written in this epoch
	scratch  []byte
	newest   []record // of the newest batch, which may not be published yet
	number   uint64   // its number
	rev      uint64   // the revision of its newest event
	failed   bool     // that batch has failed
	failure  []byte   // the record of kindFailed about it; nil: nothing of it has failed
}

type record struct {
	kind byte
	body []byte
}

// OpenJournal prepares a journal in the run folder, which no other process may use. The
// Journal keeps nothing before Begin.
func OpenJournal(run string, log zerolog.Logger) (*Journal, error) {
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(run, JournalName+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is another meta9d's: %w", filepath.Join(run, JournalName), err), f.Close())
	}
	return &Journal{log: log, lock: f, dir: filepath.Join(run, JournalName)}, nil
}

// Begin begins a journal with all sessions that the server has now, and replaces the
// journal in the folder, if there is one. Call it before anybody is served. After an error
// the old journal is still there; rename it (SetAside), because what it says of the
// sessions will soon be wrong.
func (j *Journal) Begin(p Place, srv *session.Server, t *tree.Tree) (err error) {
	dir, draft := j.dir, j.dir+".new"
	defer func() {
		if err != nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.dir = dir
		}
	}()
	if err := os.RemoveAll(draft); err != nil {
		return err
	}
	if err := os.Mkdir(draft, 0o700); err != nil {
		return err
	}
	j.mu.Lock()
	j.dir, j.place, j.number, j.rev = draft, p, 0, p.Rev
	j.sizes, j.changed, j.readers = make(map[uint64]int), make(map[uint64]int), make(map[uint64]uint64)
	err = j.next()
	if err == nil {
		j.from = 1
		j.epoch.Store(1)
	}
	j.mu.Unlock()
	if err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	srv.Note()
	j.tails(t)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epoch.Load() == 0 {
		return errors.New("it could not be begun")
	}
	if err := exchange(draft, dir); err != nil {
		j.fail(err)
		return err
	}
	j.dir = dir
	for _, s := range j.segments {
		s.path = filepath.Join(dir, segmentName(s.number))
	}
	j.wake, j.swept = make(chan struct{}, 1), make(chan struct{})
	go j.sweep(srv, t)
	if err := os.RemoveAll(draft); err != nil { // the old journal, after the exchange
		j.log.Warn().Err(err).Msg("removing the journal before this one")
	}
	return nil
}

// exchange renames the folder from to the name to. If to exists, the two swap names.
func exchange(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if err == unix.ENOENT {
		return os.Rename(from, to)
	}
	return err
}

// End ends the journal. remove: delete its files, because they are not needed any more (no
// session is left, or they are kept elsewhere).
func (j *Journal) End(remove bool) error {
	j.mu.Lock()
	wake, swept := j.wake, j.swept
	j.epoch.Store(0)
	j.mu.Unlock()
	if swept != nil {
		poke(wake)
		<-swept
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range j.segments {
		errs = append(errs, s.unmap())
	}
	j.segments, j.swept = nil, nil
	if remove {
		errs = append(errs, os.RemoveAll(j.dir))
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
		j.lock = nil
	}
	return errors.Join(errs...)
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Stats returns the number of sessions in the journal, and the bytes of its files.
func (j *Journal) Stats() (sessions int, bytes int64) {
	if j == nil {
		return 0, 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.sizes), int64(len(j.segments) * segmentSize)
}

// Epoch is session.Journal's.
func (j *Journal) Epoch() uint64 { return j.epoch.Load() }

// Whole is session.Journal's.
func (j *Journal) Whole(id uint64, st *session.State, room int) (size int, epoch uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if epoch = j.epoch.Load(); epoch == 0 {
		return 0, 0
	}
	b, err := appendSession(binary.AppendUvarint(j.scratch[:0], id), st)
	j.reuse(b)
	size = len(b)
	if err != nil || size > room || j.live-j.sizes[id]+size > maxLive {
		j.gone(id)
		return 0, epoch
	}
	j.live += size - j.sizes[id]
	j.sizes[id] = size
	delete(j.changed, id)
	st.Readers(j.readers)
	j.append(kindWhole, b)
	if stays := j.place.Stays; stays != nil && j.epoch.Load() != 0 {
		j.append(kindStay, binary.AppendUvarint(binary.AppendUvarint(nil, id), stays.Stay(st.VM)))
	}
	return size, epoch
}

// Change is session.Journal's.
func (j *Journal) Change(id uint64, ch *session.Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, kept := j.sizes[id]; !kept || j.epoch.Load() == 0 {
		return
	}
	b := appendChange(binary.AppendUvarint(j.scratch[:0], id), ch)
	j.reuse(b)
	if len(b) > maxChange || j.sweeping && j.countChange(id, len(b)) {
		j.gone(id)
		return
	}
	j.append(kindChange, b)
}

// countChange counts n bytes of a session's changes, and returns true when the session
// must leave the journal: while the segments of the epoch before are still there, one
// session that changes much would fill the journal, and that ends it for all.
func (j *Journal) countChange(id uint64, n int) bool {
	j.changed[id] += n
	most := maxChange
	if len(j.segments) > maxSegments*3/4 {
		most /= 16
	}
	return j.changed[id] > most
}

// reuse keeps the memory of a record for the next one.
func (j *Journal) reuse(b []byte) {
	if cap(b) <= 64<<10 {
		j.scratch = b[:0]
	}
}

// Gone is session.Journal's.
func (j *Journal) Gone(id uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epoch.Load() != 0 {
		j.gone(id)
	}
}

func (j *Journal) gone(id uint64) {
	j.live -= j.sizes[id]
	delete(j.sizes, id)
	delete(j.changed, id)
	j.append(kindGone, binary.AppendUvarint(nil, id))
}

// Begun is store.Journal's.
func (j *Journal) Begun(number uint64, events []store.Event) {
	form := batchForm{Number: number, Events: make([]eventForm, len(events))}
	for i := range events {
		form.Events[i] = formOf(&events[i])
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epoch.Load() == 0 {
		return
	}
	b, err := json.Marshal(form)
	if n := len(events); err == nil && n > 0 && len(b) > segmentSize/2 { // leave room for its receipts
		b, err = json.Marshal(batchForm{Number: number, Lost: events[n-1].Rev})
	}
	if err != nil {
		j.fail(err)
		return
	}
	j.published()
	j.newest, j.number, j.rev, j.failed, j.failure = nil, number, j.place.Rev, false, nil
	if n := len(events); n > 0 {
		j.rev = events[n-1].Rev
	}
	j.ofBatch(kindBatch, b)
}

// Receipt is session.Journal's.
func (j *Journal) Receipt(number, id uint64, ch *session.Change) {
	b := appendChange(binary.AppendUvarint(binary.AppendUvarint(nil, number), id), ch)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epoch.Load() != 0 && number == j.number {
		j.ofBatch(kindMade, b)
	}
}

// ofBatch adds a record about the newest batch.
func (j *Journal) ofBatch(kind byte, b []byte) {
	j.newest = append(j.newest, record{kind, b})
	if fresh, ok := j.room(len(b)); !fresh && ok { // a new segment begins with a copy of all of them
		j.current().append(kind, b)
	}
	if j.epoch.Load() != 0 {
		j.countAppended(len(b))
	}
}

// published notes that the newest batch was published, or has failed: the store begins the
// next one only then.
func (j *Journal) published() {
	if j.newest == nil || j.failed {
		return
	}
	j.place.Rev = j.rev
	if j.number > 0 {
		j.place.Number = j.number
	}
}

// Failed is store.Journal's.
func (j *Journal) Failed(number uint64, vms []string) {
	body := binary.AppendUvarint(nil, number)
	for _, uuid := range vms {
		body = append(body, uuid...)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epoch.Load() != 0 && number == j.number {
		j.append(kindFailed, body)
		j.failed, j.failure = vms == nil, body
	}
}

func (p *Place) form() ([]byte, error) {
	return json.Marshal(placeForm{homeForm{p.Folder[:], p.Number, time.Now().UTC().Format(time.RFC3339)}, p.Boot, p.Rev})
}
