// Package logtest is a log in memory, which a test reads while others write.
package logtest

import (
	"bytes"
	"strings"
	"sync"
)

// Log keeps what is written to it.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to it.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Count is how often it has the text.
func (l *Log) Count(text string) int { return strings.Count(l.String(), text) }
