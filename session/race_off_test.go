//go:build !race

package session_test

import "testing"

// notUnderRace is for tests that count allocations or weigh memory.
func notUnderRace(testing.TB) {}
