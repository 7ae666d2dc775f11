package ordjson

import (
	"strings"
	"testing"
)

// TestPieces: whatever the size of a piece, the pieces are the text; none is much larger.
func TestPieces(t *testing.T) {
	long := strings.Repeat("é\x01€\"x𝄞", 999)
	v := Value{Kind: Object, Members: Members{
		{"a", Str(long)},
		{"b", Value{Kind: Array, Items: []Value{Str(long), {}, {Kind: Array}, {Kind: Number, Text: "1.0"}}}},
		{"c", Value{Kind: Object}},
		{"d", Value{Kind: Object, Members: Members{{"é", Str("")}, {long, Str(long)}}}},
	}}
	want := string(v.AppendJSON([]byte("[")))
	for _, size := range []int{1, 2, 7, 100, 5000, 1 << 20} {
		var got []byte
		most := 0
		p := NewPieces([]byte("["), size, func(b []byte) error {
			most = max(most, len(b))
			got = append(got, b...)
			return nil
		})
		p.Value(v)
		if got = append(got, p.Text...); string(got) != want {
			t.Errorf("pieces of %d: %.80q, want %.80q", size, got, want)
		}
		if most > 6*size+2*len(long)+100 { // a name is not cut
			t.Errorf("pieces of %d: one of %d", size, most)
		}
	}
}
