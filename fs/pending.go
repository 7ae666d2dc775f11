package fs

import (
	"sync"

	"meta9/fs/errs"
)

// Pending is the error of a step that needs an answer from outside first: a walk, a list,
// an open, a read or a stat of what another service has. The step has changed nothing. The
// caller calls Start, releases the View's lock until there is an answer, and takes the
// same step again with Answered.
//
// For callers that do not wait it is an errs.Again.
type Pending struct {
	what   any
	ask    func() (any, error)
	answer any
	err    error
}

// Error is the text for clients of callers that do not wait.
func (p *Pending) Error() string { return "somebody else is asked first: try again" }

// Unwrap makes it errs.Again.
func (p *Pending) Unwrap() error { return errs.Again }

// Start asks in a goroutine, and then calls wake there. Call it once.
func (p *Pending) Start(wake func()) {
	go func() {
		p.answer, p.err = p.ask()
		wake()
	}()
}

// Ask is for a Node that has to ask somebody else, in a step that was taken on v: it
// gives the answer if the step is taken for the second time, and else a *Pending. what
// tells the questions of one step from each other; ask runs in a goroutine of its own,
// without v's lock.
func Ask[T any](v *View, what any, ask func() (T, error)) (answer T, err error) {
	for _, p := range v.answers {
		if p.what == what {
			answer, _ = p.answer.(T)
			return answer, p.err
		}
	}
	return answer, &Pending{what: what, ask: func() (any, error) { return ask() }}
}

// Answered takes a step on v once more, with the answers to all that it has asked so
// far. A *Pending is the error of a step that has another question still.
func (v *View) Answered(answers []*Pending, step func() error) error {
	v.answers = answers
	defer func() { v.answers = nil }()
	return step()
}

// Await takes a step on v, with lock held, as often as it has questions, and waits for
// the answers without lock: for those who have a goroutine for each caller.
func (v *View) Await(lock sync.Locker, step func() error) error {
	lock.Lock()
	defer lock.Unlock()
	var answers []*Pending
	for {
		err := v.Answered(answers, step)
		p, pending := AsPending(err)
		if !pending {
			return err
		}
		answers = append(answers, p)
		done := make(chan struct{})
		p.Start(func() { close(done) })
		lock.Unlock()
		<-done
		lock.Lock()
	}
}

// AsPending tells whether err says that somebody is to be asked first. Nobody wraps a
// Pending; errors.As would cost each request an allocation.
func AsPending(err error) (p *Pending, pending bool) {
	p, pending = err.(*Pending)
	return p, pending
}
