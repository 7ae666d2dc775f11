//go:build race

package session_test

import "testing"

// notUnderRace is for tests that count allocations or weigh memory. make test
// runs them once more without the race detector.
func notUnderRace(t testing.TB) {
	t.Helper()
	t.Skip("the race detector takes memory of its own")
}
