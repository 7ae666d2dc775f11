package client

import (
	"context"

	"meta9/session/wire"
)

// Begun is an operation of the Client's that has its session, and has yet to ask: m is
// asked when it is called, whatever has become of the session.
func (c *Client) Begun(ctx context.Context) (ask func(m *wire.Msg) error, err error) {
	s, err := c.ready(ctx)
	return func(m *wire.Msg) error {
		_, err := s.rpc(ctx, m)
		return err
	}, err
}

// MaxCalls is how many requests may wait for their replies.
const MaxCalls = maxCalls
