package server

import (
	"context"
	"io"

	"meta9/fs/budget"
)

// counted reads commands and counts what they take in the admin's memory: nothing for
// short ones, and of a longer one a step before it is read. Where there is no room, Read
// waits as long as any request does, and gives errs.Again then.
type counted struct {
	io.Reader
	account *budget.Account
	held    func() int // bytes of the command that is being read: blanks before it are none
	paid    int64
}

const (
	shortCommand = 64 << 10
	countStep    = 1 << 20 // bytes of a command that are paid for at a time
	perByte      = 3       // bytes for each: its text, and what is made of that
)

func (r *counted) Read(b []byte) (int, error) {
	if next := int64(r.held()) + int64(len(b)); next > shortCommand && next*perByte > r.paid {
		if err := r.account.Await(context.Background(), countStep*perByte); err != nil {
			return 0, err
		}
		r.paid += countStep * perByte
	}
	return r.Reader.Read(b)
}

// done is called when a command was answered.
func (r *counted) done() {
	r.account.Release(r.paid)
	r.paid = 0
}
