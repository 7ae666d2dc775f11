package qmp

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// FuzzDecode: whatever comes in, what goes out is JSON in ASCII and in canonical
// form; memory stays bounded; it makes no difference how the bytes arrive; and
// after a sentinel the next command works.
func FuzzDecode(f *testing.F) {
	for _, tt := range decodings {
		f.Add([]byte(tt.in))
	}
	f.Add([]byte(strings.Repeat("[", MaxDepth+9)))
	f.Add([]byte(strings.Repeat(`{"a":`, MaxDepth+9)))
	f.Add([]byte(strings.Repeat(" ", 5000) + `{"a`))
	const limit = 4 << 10
	f.Fuzz(func(t *testing.T, in []byte) {
		got := results(bytes.NewReader(in), limit)
		for _, v := range got {
			if !strings.HasPrefix(v, "!") {
				checkCanonical(t, v)
			}
		}
		if bytewise := results(iotest.OneByteReader(bytes.NewReader(in)), limit); !slices.Equal(got, bytewise) {
			t.Errorf("%q\nbyte by byte %q", got, bytewise)
		}
		checkNext(t, in, limit)
		checkMeaning(t, in, got)
	})
}

func checkCanonical(t *testing.T, v string) {
	t.Helper()
	if !json.Valid([]byte(v)) {
		t.Errorf("not JSON: %q", v)
	}
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("not printable ASCII: %q", v)
	}
	if again := results(strings.NewReader(v), len(v)); len(again) != 1 || again[0] != v {
		t.Errorf("%q is read as %q", v, again)
	}
}

// checkNext looks for a command behind the input and a sentinel.
func checkNext(t *testing.T, in []byte, limit int) {
	t.Helper()
	const next = `{"execute":"stop"}`
	d := NewDecoder(io.MultiReader(bytes.NewReader(in), strings.NewReader("\xff"+next)), limit)
	last := ""
	for {
		v, err := d.Next()
		if cap(d.buf) > 2*limit+keptBuffer || cap(d.names) > 2*limit {
			t.Fatalf("%d bytes, %d names are kept", cap(d.buf), cap(d.names))
		}
		if err == ErrTooLarge {
			return
		}
		if err == io.EOF {
			break
		}
		last = string(v)
	}
	if last != next {
		t.Errorf("the next command is read as %q", last)
	}
}

// checkMeaning compares with encoding/json what is one value of JSON.
func checkMeaning(t *testing.T, in []byte, got []string) {
	t.Helper()
	if !json.Valid(in) || !utf8.Valid(in) || len(got) != 1 || strings.HasPrefix(got[0], "!") {
		return
	}
	var want, have any
	if json.Unmarshal(in, &want) != nil {
		return // a number that is no float64
	}
	if err := json.Unmarshal([]byte(got[0]), &have); err != nil || !reflect.DeepEqual(want, have) {
		t.Errorf("%q is read as %q", in, got[0])
	}
}

// FuzzString: AppendString makes the JSON of a text, in ASCII.
func FuzzString(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\/\x00\x7f\u00e9\U0001F600\xff")
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != strings.ToValidUTF8(s, "\uFFFD") && utf8.ValidString(s) {
			t.Errorf("%q becomes %s: %v", s, b, err)
		}
		checkCanonical(t, string(b))
		m, err := Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again string
		if err := json.Unmarshal(m, &again); err != nil || again != back {
			t.Errorf("%q is marshalled as %s: %v", s, m, err)
		}
	})
}
