package session

import "meta9/fs/budget"

// bill is the bytes that were taken from one VM's account for one purpose, and that will
// be given back. The zero bill has no account, and gets all that it asks for. Whoever
// guards what the bytes are for guards the bill too.
type bill struct {
	account *budget.Account
	paid    int64 // bytes
}

// ask takes n more bytes, if the account has them now.
func (b *bill) ask(n int64) error {
	err := b.account.Try(n)
	if err == nil {
		b.paid += n
	}
	return err
}

// force takes n more bytes, even if the account has too little: for what must not fail.
func (b *bill) force(n int64) {
	b.account.Force(n)
	b.paid += n
}

// refund gives n bytes back.
func (b *bill) refund(n int64) {
	b.account.Release(n)
	b.paid -= n
}

// keep gives back all except n bytes.
func (b *bill) keep(n int64) {
	if b.paid > n {
		b.refund(b.paid - n)
	}
}

// moveTo moves the bill to another account.
func (b *bill) moveTo(a *budget.Account) {
	if b.account != a {
		a.Force(b.paid)
		b.account.Release(b.paid)
		b.account = a
	}
}

// give moves n bytes to another bill, so that nobody else can take them in between.
func (b *bill) give(to *bill, n int64) {
	n = min(n, b.paid)
	if b.account != to.account {
		b.refund(n)
		to.force(n)
		return
	}
	b.paid -= n
	to.paid += n
}

// How many bytes each part of a connection counts as. A request that needs less than a
// free amount is not counted, so that a request of usual size does not touch the account.
const (
	billStep    = 32 << 10 // taken at a time for what grows in small steps
	freeWaiting = 16 << 10 // of a connection's requests that wait
	freeFids    = 64       // of a session
	freeStreams = 4
	freeKept    = 32
	fidBytes    = 700
	streamBytes = 10 << 10 // an open stream keeps what it gave last
)

// pays takes what is missing for the bytes that a connection's waiting requests hold, and
// for more, the bytes of one more request.
func (w *waits) pays(more int64) error {
	due := int64(w.held) + int64(len(w.waiting))*requestBytes + more - freeWaiting
	if due <= w.bill.paid {
		return nil
	}
	return w.bill.ask(due - w.bill.paid + billStep)
}

// settleBill gives back the bytes of requests that no longer wait.
func (w *waits) settleBill() {
	if w.bill.paid == 0 {
		return
	}
	due := max(0, int64(w.held)+int64(len(w.waiting))*requestBytes-freeWaiting)
	if due == 0 {
		w.bill.keep(0)
	} else if w.bill.paid > due+2*billStep {
		w.bill.keep(due + billStep)
	}
}

// due is how many bytes the session's fids and kept replies count as, with so many more
// fids and streams.
func (s *session) due(fids, streams int) int64 {
	return fidBytes*int64(max(0, len(s.fids)+fids-freeFids)) +
		streamBytes*int64(max(0, s.streams+streams-freeStreams)) +
		keptFrame*int64(max(0, len(s.numbers.kept)-freeKept))
}

// pays takes what is missing for the session's fids, and for so many more fids and
// streams.
func (s *session) pays(fids, streams int) error {
	if due := s.due(fids, streams); due > s.bill.paid {
		return s.bill.ask(due - s.bill.paid + billStep)
	}
	return nil
}

// paysKept is pays for a reply that is kept. It cannot be refused.
func (s *session) paysKept() {
	if due := s.due(0, 0); due > s.bill.paid {
		s.bill.force(due - s.bill.paid + billStep)
	}
}

// settleBill gives back the bytes of fids that are gone.
func (s *session) settleBill() {
	if s.bill.paid > 0 {
		if due := s.due(0, 0); s.bill.paid > due+2*billStep {
			s.bill.keep(due + billStep)
		}
	}
}
