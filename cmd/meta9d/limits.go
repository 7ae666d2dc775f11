package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"meta9/fs/budget"
	"meta9/fs/vm"
	"meta9/session"
	"meta9/session/wire"
)

// checkLimits: a limit of 0 would mean something else in every room, so nothing
// but bytes may be 0, which is no limit.
func checkLimits(c *config) error {
	l := &c.Limits
	for _, r := range []struct {
		name     string
		is       size
		min, max size
	}{
		{"value", l.Value, 1, math.MaxInt32},
		{"vm_keys", l.VMKeys, 1, math.MaxInt32},
		{"vm_bytes", l.VMBytes, 1, math.MaxInt64},
		{"vm_batch", l.VMBatch, 1, math.MaxInt64},
		{"vm_events", l.VMEvents, 1, math.MaxInt32},
		{"vm_connections", l.VMConns, 1, math.MaxInt32},
		{"vm_sessions", l.VMSessions, 1, math.MaxInt32},
		{"vm_memory", l.VMMemory, size(budget.Default.Floor), math.MaxInt64},
		{"bytes", l.Bytes, 0, math.MaxInt64},
		{"events", l.Events, 1, math.MaxInt32},
		{"connections", l.Conns, 1, math.MaxInt32},
		{"parked_sessions", l.Parked, 1, math.MaxInt32},
		{"parked_bytes", l.ParkedBytes, 1, math.MaxInt64},
		{"memory", l.Memory, l.VMMemory, math.MaxInt64},
		{"msize", l.Msize, wire.MinMsize, wire.MaxMsize},
		{"fids", l.Fids, 1, math.MaxInt32},
		{"waiting", l.Waiting, 1, math.MaxInt32},
		{"unsent", l.Unsent, 1, math.MaxInt32},
	} {
		if r.is < r.min || r.is > r.max {
			return fmt.Errorf("limits.%s: %d is not from %d to %d", r.name, r.is, r.min, r.max)
		}
	}
	for _, r := range []struct {
		name string
		is   span
		max  time.Duration
	}{
		{"session.lifetime", c.Session.Lifetime, 366 * 24 * time.Hour},
		{"limits.auth_time", l.AuthTime, time.Hour},
		{"limits.take_over", l.TakeOver, time.Hour},
	} {
		if d := time.Duration(r.is); d < time.Second || d > r.max {
			return fmt.Errorf("%s: %s is not from 1s to %s", r.name, d, r.max)
		}
	}
	return nil
}

// vm is what bounds one VM.
func (l *limits) vm() vm.Limits {
	return vm.Limits{Value: int(l.Value), Keys: int(l.VMKeys), Bytes: int64(l.VMBytes)}
}

// session is what bounds connections and sessions.
func (l *limits) session() session.Limits {
	return session.Limits{
		Fids: int(l.Fids), Waiting: int(l.Waiting), Unsent: int(l.Unsent), Msize: uint32(l.Msize),
		VMConns: int(l.VMConns), VMSessions: int(l.VMSessions), Conns: int(l.Conns),
		Parked: int(l.Parked), ParkedBytes: int64(l.ParkedBytes),
		AuthTime: time.Duration(l.AuthTime), TakeOver: time.Duration(l.TakeOver),
	}
}

// budget is what bounds the bytes that requests hold.
func (l *limits) budget() budget.Limits {
	return budget.Limits{VM: int64(l.VMMemory), All: int64(l.Memory)}
}

// size is a number, which in TOML may have a unit: 4096, "16MiB".
type size int64

var units = []struct {
	name  string
	shift uint
}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}

// UnmarshalText reads a number with or without a unit.
func (s *size) UnmarshalText(text []byte) error {
	number, shift := string(text), uint(0)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, shift = strings.TrimSpace(n), u.shift
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is no number with or without KiB, MiB, GiB or TiB", text)
	}
	*s = size(n << shift)
	return nil
}

// span is a length of time such as "30s" or "48h".
type span time.Duration

// UnmarshalText reads what time.ParseDuration does.
func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no time such as 30s, 5m or 48h", text)
	}
	*s = span(d)
	return nil
}

// fileMode is the permission bits of a socket: "0660" or 0o660.
type fileMode os.FileMode

// UnmarshalTOML reads a string as octal, and a number as TOML does.
func (m *fileMode) UnmarshalTOML(v any) error {
	n, ok := v.(int64)
	if s, is := v.(string); is {
		u, err := strconv.ParseUint(s, 8, 32)
		n, ok = int64(u), err == nil
	}
	if !ok || n < 0 || n > 0o777 {
		return fmt.Errorf("%v is no mode such as \"0660\"", v)
	}
	*m = fileMode(n)
	return nil
}
