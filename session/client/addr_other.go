//go:build !linux

package client

import "syscall"

// control sets what Linux can set; see there.
func control(string, string, syscall.RawConn) error { return nil }
