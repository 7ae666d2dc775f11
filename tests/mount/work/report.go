// Package work is what runs in the guests of tests/mount, as commands of guesttool:
// programs that use a mount as programs do, know what must come of it, and tell
// what did. A Worker changes keys of its own and one log that all append to; Hold
// keeps files open while something happens to the mount.
package work

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Report is what a worker says in the end, as JSON.
type Report struct {
	Done    map[string]int    `json:"done"`    // how often it did what
	Refused int               `json:"refused"` // changes that failed as they were allowed to
	Wrong   []string          `json:"wrong"`   // the first errors, and what else was not as it had to be
	Wrongs  int               `json:"wrongs"`  // how many there were
	Keys    map[string]string `json:"keys"`    // its own, and the Digests of their values
	Lines   int               `json:"lines"`   // it has appended the lines 1 to this to the log
	Maybe   []int             `json:"maybe"`   // but of these it does not know
}

// Log is the key that all workers append to.
const Log = "log"

// Prefix is how the names of a worker's own keys begin.
func Prefix(id int) string { return fmt.Sprintf("w%d-", id) }

// Line is the n-th line that a worker appends to the log.
func Line(id, n int) string { return fmt.Sprintf("%d %d\n", id, n) }

// Digest says in short which value it is.
func Digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return fmt.Sprintf("%d bytes, %s", len(value), hex.EncodeToString(sum[:8]))
}
