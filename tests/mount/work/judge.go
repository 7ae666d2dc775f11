package work

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Judge looks for a worker's lines in the log: each once, in their order; those
// that it does not know of at most once.
func Judge(log string, id int, r Report) error {
	next := 1
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, fmt.Sprintf("%d ", id)) {
			continue
		}
		for next <= r.Lines && line != Line(id, next) {
			if !slices.Contains(r.Maybe, next) {
				return fmt.Errorf("%q, not line %d", line, next)
			}
			next++
		}
		if next > r.Lines {
			return fmt.Errorf("%q was not to come, or not again", line)
		}
		next++
	}
	for ; next <= r.Lines; next++ {
		if !slices.Contains(r.Maybe, next) {
			return fmt.Errorf("it has no line %d", next)
		}
	}
	if log == "" && r.Lines > 0 {
		return errors.New("it is empty")
	}
	return nil
}
