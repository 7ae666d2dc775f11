package mdata_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"meta9/mdbridge/mdata"
)

// read gives all lines of r, "LONG" for each that was too long and skipped.
func read(t *testing.T, l *mdata.Lines) []string {
	t.Helper()
	var got []string
	for {
		line, err := l.Next()
		switch {
		case err == nil:
			got = append(got, string(line))
		case errors.Is(err, mdata.ErrLong):
			got = append(got, "LONG")
			l.Skip(io.Discard)
		case errors.Is(err, mdata.ErrSkipped):
		case err == io.EOF:
			return got
		default:
			t.Fatal(err)
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 20000)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"no end", "GET a", nil},
		{"lines", "a\n\nb\r\nc", []string{"a", "", "b\r"}},
		{"as long as it may be", long[:8000] + "\nb\n", []string{long[:8000], "b"}},
		{"one too long", long[:8001] + "\nb\n", []string{"LONG", "b"}},
		{"far too long", "a\n" + long + "\nb\n" + long + long + "\n", []string{"a", "LONG", "b", "LONG"}},
		{"too long and no end", long, []string{"LONG"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"at once":     strings.NewReader(tt.in),
				"by the byte": iotest.OneByteReader(strings.NewReader(tt.in)),
				"by halves":   iotest.HalfReader(strings.NewReader(tt.in)),
				"EOF at once": iotest.DataErrReader(strings.NewReader(tt.in)),
			} {
				if diff := cmp.Diff(tt.want, read(t, mdata.NewLines(r, 8000))); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

// A line that was too long may be allowed after all, and the memory is given back.
func TestLinesLimit(t *testing.T) {
	long := strings.Repeat("x", 100000)
	l := mdata.NewLines(strings.NewReader(long+"\nb\n"+long+"\n"), 10)
	if _, err := l.Next(); !errors.Is(err, mdata.ErrLong) {
		t.Fatal(err)
	}
	l.Limit(100000)
	if line, err := l.Next(); err != nil || string(line) != long {
		t.Fatalf("%d bytes, %v", len(line), err)
	}
	l.Limit(10)
	if diff := cmp.Diff([]string{"b", "LONG"}, read(t, l)); diff != "" {
		t.Error(diff)
	}
}

func TestLinesReady(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	l := mdata.NewLines(r, 100)
	go w.Write([]byte("a\nb\nc"))
	for _, want := range []bool{true, false} {
		if _, err := l.Next(); err != nil {
			t.Fatal(err)
		}
		if l.Ready() != want {
			t.Errorf("Ready is %v", !want)
		}
	}
	if l.Pending() != 1 {
		t.Errorf("%d bytes pending", l.Pending())
	}
	var skipped strings.Builder
	l.Skip(&skipped)
	go w.Write([]byte("rest of c\nd\n"))
	if _, err := l.Next(); err != mdata.ErrSkipped || skipped.String() != "crest of c" {
		t.Errorf("%q, %v", skipped.String(), err)
	}
	if line, err := l.Next(); err != nil || string(line) != "d" {
		t.Errorf("%q, %v", line, err)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestLinesNoProgress(t *testing.T) {
	if _, err := mdata.NewLines(silent{}, 10).Next(); err != io.ErrNoProgress {
		t.Error(err)
	}
}

// chunks gives data in reads of the sizes, over and over.
type chunks struct {
	data, sizes []byte
	n           int
	most        int // the largest buffer that was offered
}

func (c *chunks) Read(p []byte) (int, error) {
	c.most = max(c.most, len(p))
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	size := 1
	if len(c.sizes) > 0 {
		size += int(c.sizes[c.n%len(c.sizes)])
		c.n++
	}
	n := copy(p, c.data[:min(size, len(c.data))])
	c.data = c.data[n:]
	return n, nil
}

// Whatever comes in, in whatever pieces: the lines are those of the bytes, the
// memory stays within the limit, and the good frame at the end is found.
func FuzzLines(f *testing.F) {
	f.Add([]byte("GET a\nGET b"), []byte{3}, uint16(100))
	f.Add(bytes.Repeat([]byte("x"), 9000), []byte{255}, uint16(5000))
	f.Add([]byte("\n\n\r\n"), []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, data, sizes []byte, limit uint16) {
		if len(data) > 1<<16 {
			return
		}
		data = append(data, "\nV2 12 fad1d262 dc4fae17 GET\n"...)
		c := &chunks{data: data, sizes: sizes}
		got := read(t, mdata.NewLines(c, int(limit)))
		all := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		for i, line := range all {
			if len(line) > int(limit) {
				all[i] = "LONG"
			}
		}
		if !slices.Equal(all, got) {
			t.Errorf("got %q, want %q", got, all)
		}
		if c.most > max(4<<10, int(limit)+1) {
			t.Errorf("a buffer of %d for lines of %d", c.most, limit)
		}
	})
}
