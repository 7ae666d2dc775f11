package session

import (
	"container/list"
	"sync/atomic"
	"time"
	"unsafe"

	"meta9/fs"
	"meta9/session/wire"
)

// session is a client's state at the server; it can move from one transport to another.
// The monitor of its owner guards it; while it is parked, nobody uses it. who, dialect and
// foreign do not change once it is enrolled, so they may also be read under Server.mu.
type session struct {
	who     fs.Principal // zero: nobody yet
	dialect wire.Dialect
	foreign bool     // the channel proves nobody: MUMBLE said who it is
	key     key      // zero: none
	view    *fs.View // nil before the first attach
	fids    map[uint32]*fid
	nfids   atomic.Int32  // len(fids), for sessions/
	streams int           // its fids that are open streams
	locks   int           // held by its fids; written under lockTable.mu too
	numbers numbers       // of a numbered dialect
	carried *carried      // nil: the requests that wait are the owner's
	bill    bill          // for its fids and kept replies
	noted   noted         // what the journal has of it
	epoch   atomic.Uint64 // the journal's epoch when the session was recorded whole; 0: it never was

	// Server.mu guards the rest.
	id         uint64  // its name in sessions/; 0: not enrolled
	index      indexID // where Server.byKey has it
	kept       bool    // it is in Server.byKey: it is parked when its transport goes
	owner      *conn   // nil: parked
	via        string
	since      time.Time     // enrolled, parked or resumed
	claims     int           // how many connections have claimed it
	freed      chan struct{} // closed when the owner gives the session up; nil: nobody waits for that
	size       int64         // estimated bytes of memory while it is parked
	inParked   *list.Element // in Server.parked
	inVMParked *list.Element // in its VM's list of parked sessions
}

// close ends the session's files, as soon as no change that is carried waits any
// more.
func (s *session) close() {
	if s.carried != nil {
		s.carried.close(s)
		return
	}
	for _, f := range s.fids {
		f.unlock()
	}
	if s.view != nil {
		s.view.Close() // gives up all that its fids hold
		s.view = nil
	}
	for _, f := range s.fids {
		if f.handle != nil {
			f.handle.Drop()
		}
	}
	s.fids = nil
	s.nfids.Store(0)
	s.bill.keep(0)
	s.bill.account.Close()
	s.bill = bill{}
}

// Estimates of the memory of a parked session, in bytes, beside what can be counted;
// TestEstimate compares them with measured figures.
const (
	placesBytes  = 400 // its entries in the tables and lists of the Server
	slotBytes    = 28  // a fid in the map of fids, which is half empty at times
	requestBytes = 500
	lockBytes    = 2*64 + maxClientID // a table of locks may be half empty
)

// estimate is the memory that the session takes while it is parked.
func (s *session) estimate() int64 {
	n := int64(placesBytes+len(s.key.node)+len(s.key.group)+s.locks*lockBytes) + s.numbers.size() +
		fs.Block(int64(unsafe.Sizeof(*s))) + int64(max(8, len(s.fids))*slotBytes)
	if s.carried != nil {
		n += int64(s.carried.held + len(s.carried.waiting)*requestBytes)
	}
	meter := s.view.Meter()
	for _, f := range s.fids {
		n += fs.Block(int64(unsafe.Sizeof(*f)))
		meter.Ref(f.ref)
		if f.handle != nil {
			meter.Handle(f.handle)
		}
	}
	return n + meter.Bytes()
}
