package session

import "meta9/fs/budget"

// bill is what was taken of one VM's account for one purpose, and is to be given back.
// The zero bill has no account, and all that it asks for. Whoever has what it is for
// guards it.
type bill struct {
	account *budget.Account
	paid    int64 // bytes
}

// ask takes n bytes more, if they are to be had now.
func (b *bill) ask(n int64) error {
	err := b.account.Try(n)
	if err == nil {
		b.paid += n
	}
	return err
}

// force takes n bytes more, for what must not fail.
func (b *bill) force(n int64) {
	b.account.Force(n)
	b.paid += n
}

// refund gives n bytes back.
func (b *bill) refund(n int64) {
	b.account.Release(n)
	b.paid -= n
}

// keep gives back all but n bytes.
func (b *bill) keep(n int64) {
	if b.paid > n {
		b.refund(b.paid - n)
	}
}

// moveTo makes it another account's.
func (b *bill) moveTo(a *budget.Account) {
	if b.account != a {
		a.Force(b.paid)
		b.account.Release(b.paid)
		b.account = a
	}
}

// give hands n bytes over to another bill, so that nobody else gets them meanwhile.
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

// What the parts of a connection count for, in bytes. What is cheaper than a free
// amount is not counted, so that a request of usual size costs no account.
const (
	billStep    = 32 << 10 // taken at a time for what grows in small steps
	freeWaiting = 16 << 10 // of a connection's requests that wait
	freeFids    = 64       // of a session
	freeStreams = 4
	freeKept    = 32
	fidBytes    = 700
	streamBytes = 10 << 10 // an open stream keeps what it gave last
)

// pays sees to it that bill covers what a connection's waiting requests hold; more is
// what one more would add.
func (w *waits) pays(more int64) error {
	due := int64(w.held) + int64(len(w.waiting))*requestBytes + more - freeWaiting
	if due <= w.bill.paid {
		return nil
	}
	return w.bill.ask(due - w.bill.paid + billStep)
}

// settleBill gives back what is paid for requests that wait no more.
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

// due is what the session's fids and kept replies count for; fids and streams are how
// many more there would be.
func (s *session) due(fids, streams int) int64 {
	return fidBytes*int64(max(0, len(s.fids)+fids-freeFids)) +
		streamBytes*int64(max(0, s.streams+streams-freeStreams)) +
		keptFrame*int64(max(0, len(s.numbers.kept)-freeKept))
}

// pays sees to it that the session's bill covers so many more fids and streams.
func (s *session) pays(fids, streams int) error {
	if due := s.due(fids, streams); due > s.bill.paid {
		return s.bill.ask(due - s.bill.paid + billStep)
	}
	return nil
}

// paysKept is pays for a reply that is kept, which cannot be refused.
func (s *session) paysKept() {
	if due := s.due(0, 0); due > s.bill.paid {
		s.bill.force(due - s.bill.paid + billStep)
	}
}

// settleBill gives back what is paid for fids that are gone.
func (s *session) settleBill() {
	if s.bill.paid > 0 {
		if due := s.due(0, 0); s.bill.paid > due+2*billStep {
			s.bill.keep(due + billStep)
		}
	}
}
