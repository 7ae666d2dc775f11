package session

import (
	"cmp"
	"time"

	"meta9/session/wire"
)

// Limits bound what connections and sessions may hold. Zero fields take those of
// DefaultLimits.
type Limits struct {
	Fids        int           // a connection's fids
	Waiting     int           // a connection's requests that wait
	Unsent      int           // bytes of a connection: replies not sent and writes not durable; past it no more is read
	Msize       uint32        // the largest msize that is agreed to, in bytes
	VMConns     int           // connections of one VM
	VMSessions  int           // sessions with a key of one VM, live and parked
	Conns       int           // connections of all; those of nobody are at most half as many, so that they do not shut out VMs
	Parked      int           // parked sessions of all
	ParkedBytes int64         // memory of parked sessions, estimated; those of one VM have a 16th of it
	AuthTime    time.Duration // how long a connection may be nobody's
	TakeOver    time.Duration // how long a resume waits for what the old connection has begun
}

// DefaultLimits are the limits that a zero field stands for.
var DefaultLimits = Limits{
	Fids:        4096,
	Waiting:     256,
	Unsent:      8 << 20,
	Msize:       wire.MaxMsize,
	VMConns:     64,
	VMSessions:  64,
	Conns:       20000,
	Parked:      100000,
	ParkedBytes: 1 << 30,
	AuthTime:    10 * time.Second,
	TakeOver:    10 * time.Second,
}

// nobodies is how many connections of nobody there may be.
func (l *Limits) nobodies() int { return (l.Conns + 1) / 2 }

// vmParkedBytes is one VM's share of ParkedBytes, so that it cannot push out the others'.
// It is no less than the largest session takes.
func (l *Limits) vmParkedBytes() int64 { return max(l.ParkedBytes/16, 16<<20) }

// withDefaults is l with its zero fields filled in.
func (l Limits) withDefaults() Limits {
	d := &DefaultLimits
	l.Fids = cmp.Or(l.Fids, d.Fids)
	l.Waiting = cmp.Or(l.Waiting, d.Waiting)
	l.Unsent = cmp.Or(l.Unsent, d.Unsent)
	l.Msize = max(wire.MinMsize, min(cmp.Or(l.Msize, d.Msize), wire.MaxMsize))
	l.VMConns = cmp.Or(l.VMConns, d.VMConns)
	l.VMSessions = cmp.Or(l.VMSessions, d.VMSessions)
	l.Conns = cmp.Or(l.Conns, d.Conns)
	l.Parked = cmp.Or(l.Parked, d.Parked)
	l.ParkedBytes = cmp.Or(l.ParkedBytes, d.ParkedBytes)
	l.AuthTime = cmp.Or(l.AuthTime, d.AuthTime)
	l.TakeOver = cmp.Or(l.TakeOver, d.TakeOver)
	return l
}
