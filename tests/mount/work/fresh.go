package work

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Write is the transaction by which the host makes the n-th value of a key: a number, and as
// many bytes as that, so that the length tells, too. The key KEY-renamed has the same value, but
// is another file each time. The key KEY.N comes with them, and the one before goes, so that the
// name in an event tells which value is there by then.
func Write(key string, n int) string {
	do := fmt.Sprintf(`{"put":"%s","value":"%s"},{"put":"%[1]s-next%[3]d","value":"%[4]s"},`, key, written(n), (n+1)%2, written(n+1))
	if n > 0 {
		do += fmt.Sprintf(`{"rename":"%s-next%d","to":"%[1]s-renamed"},{"remove":"%[1]s.%[3]d"}`, key, n%2, n-1)
	} else {
		do += fmt.Sprintf(`{"put":"%s-renamed","value":"%s"}`, key, written(0))
	}
	return fmt.Sprintf(`{"do":[%s,{"put":"%s.%d","value":""}]}`+"\n", do, key, n) // the last event tells of all
}

func written(n int) string { return fmt.Sprint(n, " ", strings.Repeat("x", n)) }

// marked is the number in a line of events, as Write has put it there; -1: none. lost: events
// are missing.
func marked(key, line string) (n int, lost bool) {
	var e struct{ Type, Key string }
	if json.Unmarshal([]byte(line), &e) != nil || e.Type != "key-set" {
		return -1, e.Type == "lost"
	}
	rest, ours := strings.CutPrefix(e.Key, key+".")
	if n, err := strconv.Atoi(rest); ours && err == nil {
		return n, false
	}
	return -1, false
}

// newest reads the key at a mount, and that which is another file each time, by stat(2) and
// read(2): each must show the value least or a later one. n is the key's.
func newest(dir, key string, least int) (n int, err error) {
	// Whoever has opened the file before it was replaced, and before its session was lost, is told
	// so by ESTALE, and opens it again. One who is told so all the time has found a fault.
	renamed := key + "-renamed"
	_, err = newestOf(dir, renamed, least)
	for end := time.Now().Add(staleTime); errors.Is(err, syscall.ESTALE) && time.Now().Before(end); {
		_, err = newestOf(dir, renamed, least)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", renamed, err)
	}
	return newestOf(dir, key, least)
}

// staleTime is how long a key that is replaced again and again may be ESTALE for its reader.
const staleTime = time.Minute

// newestOf is newest for one key.
func newestOf(dir, key string, least int) (n int, err error) {
	name := filepath.Join(dir, "keys", key)
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	if info.Size() < int64(len(written(least))) {
		return 0, fmt.Errorf("it has %d bytes after the event of %d", info.Size(), least)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(string(b), " ")
	if n, err = strconv.Atoi(number); err != nil || string(b) != written(n) || n < least {
		return 0, fmt.Errorf("%.20q, of %d bytes, is read after the event of %d", b, len(b), least)
	}
	return n, nil
}

// Fresh [-watch] NAME DIR KEY N is told of each value of KEY at the mount DIR, 0, 1, 2, ... N (see
// Write), by the file of events or by `meta9 watch`, and reads it after each: it must be that or
// a later one. Two others read all the time, so that answers are under way when the key changes.
// /tmp/NAME.open says that it is told of events, /tmp/NAME.read up to which value all three have
// read.
func Fresh(args []string) error {
	open := openEvents
	if args[0] == "-watch" {
		open, args = openWatch, args[1:]
	}
	name, dir, key := args[0], args[1], args[2]
	last, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	var told, events, losses, reads atomic.Int64
	var seen progress
	read := func(reader int) error {
		reads.Add(1)
		n, err := newest(dir, key, int(told.Load()))
		if err != nil {
			return err
		}
		return seen.read(reader, n, "/tmp/"+name+".read")
	}
	failed := make(chan error, 2)
	var readers sync.WaitGroup
	for i := range cap(failed) {
		readers.Go(func() {
			for told.Load() < int64(last) {
				if err := read(1 + i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	opened := sync.OnceValue(func() error { return os.WriteFile("/tmp/"+name+".open", nil, 0o644) })
	missed := func() error { // of the last value the event may have been among those that are lost
		losses.Add(1)
		n, err := newest(dir, key, int(told.Load()))
		if n == last {
			told.Store(int64(n))
		}
		if err != nil {
			return err
		}
		return seen.read(0, n, "/tmp/"+name+".read")
	}
	for again := false; told.Load() < int64(last); again = true {
		lines, end, err := open(dir)
		if err == nil && again {
			err = missed()
		}
		if err != nil {
			return err
		}
		err = each(lines, func(line string) error {
			events.Add(1)
			n, lost := marked(key, line)
			told.Store(max(told.Load(), int64(n)))
			err := opened()
			if err == nil && n >= 0 {
				err = read(0)
			}
			if lost && err == nil {
				err = missed()
			}
			if err == nil && told.Load() == int64(last) {
				err = io.EOF
			}
			return err
		})
		end()
		if err != io.EOF && !errors.Is(err, syscall.ESTALE) { // a session was lost; by meta9 watch that is a line
			return err
		}
	}
	readers.Wait()
	close(failed)
	fmt.Printf("%d lines of events, %d losses, %d reads\n", events.Load(), losses.Load(), reads.Load())
	return <-failed
}

// progress is the value that each reader of Fresh has read last.
type progress struct {
	mu   sync.Mutex
	last [3]int
}

// read notes that a reader has read the value n, and writes the smallest of all to a file.
func (p *progress) read(reader, n int, file string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := slices.Min(p.last[:])
	p.last[reader] = n
	now := slices.Min(p.last[:])
	if now == before {
		return nil
	}
	if err := os.WriteFile(file+".new", []byte(strconv.Itoa(now)), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// each calls do with each line until it fails.
func each(lines io.Reader, do func(line string) error) error {
	s := bufio.NewScanner(lines)
	for s.Scan() {
		if err := do(s.Text()); err != nil {
			return err
		}
	}
	if s.Err() != nil {
		return s.Err()
	}
	return io.ErrUnexpectedEOF
}

func openEvents(dir string) (io.Reader, func(), error) {
	f, err := os.Open(filepath.Join(dir, "events"))
	return f, func() { f.Close() }, err
}

func openWatch(dir string) (io.Reader, func(), error) {
	cmd := exec.Command("meta9", "watch", filepath.Join(dir, "keys"))
	cmd.Stderr = os.Stderr
	lines, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	return lines, func() {
		_ = lines.Close() // it may be writing, and would not end before that is done
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}, err
}

// Told NAME DIR KEY is a command of `meta9 watch --exec`: what KEY has at the mount DIR, which
// goes into /tmp/NAME.told, must be what the events on its standard input tell of, or later;
// /tmp/NAME.bad says where not. Each third run fails and does nothing.
func Told(args []string) error {
	name, dir, key := "/tmp/"+args[0], args[1], args[2]
	runs, err := os.OpenFile(name+".runs", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer runs.Close()
	if _, err := runs.WriteString("x"); err != nil {
		return err
	}
	if info, err := runs.Stat(); err != nil || info.Size()%3 == 0 {
		return errors.New("this run fails, as each third")
	}
	least := 0
	err = each(os.Stdin, func(line string) error {
		n, _ := marked(key, line)
		least = max(least, n)
		return nil
	})
	if err != io.ErrUnexpectedEOF {
		return err
	}
	n, err := newest(dir, key, least)
	if err != nil {
		return errors.Join(err, os.WriteFile(name+".bad", []byte(err.Error()+"\n"), 0o644))
	}
	if err := os.WriteFile(name+".new", []byte(strconv.Itoa(n)), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name+".told")
}
