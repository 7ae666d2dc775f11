package work

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Fresh DIR KEY N reads the events of the mount at DIR, and after each one of KEY, of which
// the host makes the value 1, 2, ... N, the key: it must be that or a later one. Two others
// read all the time, so that answers are under way when the key changes. DIR/KEY.open in
// /tmp says that it has begun.
func Fresh(args []string) error {
	events, err := os.Open(filepath.Join(args[0], "events"))
	if err != nil {
		return err
	}
	defer events.Close()
	last, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	if err := os.WriteFile("/tmp/"+args[1]+".open", nil, 0o644); err != nil {
		return err
	}
	var told atomic.Int64
	read := func() error {
		least := told.Load()
		b, err := os.ReadFile(filepath.Join(args[0], "keys", args[1]))
		if err != nil {
			return err
		}
		if n, err := strconv.ParseInt(string(b), 10, 64); err != nil || n < least || n > last {
			return fmt.Errorf("%q is read after the event of %d", b, least)
		}
		return nil
	}
	failed := make(chan error, 2)
	var readers sync.WaitGroup
	for range cap(failed) {
		readers.Go(func() {
			for told.Load() < last {
				if err := read(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	lines := bufio.NewScanner(events)
	for told.Load() < last && lines.Scan() {
		if !strings.Contains(lines.Text(), `"key":"`+args[1]+`"`) {
			continue
		}
		told.Add(1)
		if err := read(); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	readers.Wait()
	close(failed)
	return <-failed
}
