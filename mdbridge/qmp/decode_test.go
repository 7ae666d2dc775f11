package qmp

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// results reads a stream to its end: each value, or "! " and the error.
func results(r io.Reader, limit int) []string {
	var got []string
	for d := NewDecoder(r, limit); ; {
		v, err := d.Next()
		var syntax *SyntaxError
		switch {
		case err == nil:
			got = append(got, string(v))
		case errors.As(err, &syntax):
			got = append(got, "! "+err.Error())
		case err == io.EOF:
			return got
		default:
			return append(got, "!! "+err.Error())
		}
	}
}

const parse = "! JSON parse error, "

// decodings are texts and what is in them. Those with a QEMU in their name are
// from the conversation with one (qmp-1.txt).
var decodings = []struct {
	name, in string
	want     []string
}{
	{"one", `{"execute": "stop"}`, []string{`{"execute":"stop"}`}},
	{"every kind", `{"a":[1,-2.50e+3,0,0.1,true,false,null,"x",{},[]]}`, []string{`{"a":[1,-2.50e+3,0,0.1,true,false,null,"x",{},[]]}`}},
	{"many on a line", `{}[] "x" 5 null{}`, []string{`{}`, `[]`, `"x"`, `5`, `null`, `{}`}},
	{"one over many lines", "{\r\n\t\"a\"\n:\n1\n}\n", []string{`{"a":1}`}},
	{"only blanks (QEMU)", "\n\n  \r\n\t", nil},
	{"single quotes (QEMU)", `{'execute':'query-name','id':'it\'s "a"'}`, []string{`{"execute":"query-name","id":"it's \"a\""}`}},
	{"\\' in double quotes", `"it\'s"`, []string{`"it's"`}},
	{"escapes", `"\"\'\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`, []string{`"\"'\\/\u0008\u000C\u000A\u000D\u0009\u00E9\uD83D\uDE00"`}},
	{"all becomes ASCII (QEMU)", "\"\xc3\xa9\xf0\x9f\x98\x80\x7f\"", []string{`"\u00E9\uD83D\uDE00\u007F"`}},
	{"NUL by escape", `"\u0000"`, []string{`"\u0000"`}},

	{"invalid keyword (QEMU)", `{"execute": nonsense } {}`, []string{parse + "invalid keyword 'nonsense'", `{}`}},
	{"no value", `{ "execute": } {}`, []string{parse + "expecting value", `{}`}},
	{"comma too many (QEMU)", `{"execute":"query-status",} {}`, []string{parse + "expecting value", `{}`}},
	{"bracket too many (QEMU)", `{}} {}`, []string{`{}`, parse + "expecting value", `{}`}},
	{"brackets that do not match", `[} {} {"a":1] {}`, []string{parse + "expecting value", `{}`, parse + "expected separator in dict", `{}`}},
	{"structure alone", `: , {}`, []string{parse + "expecting value", parse + "expecting value", `{}`}},
	{"no separators", `["a" "b"] {"a" 1} {"a":1 "b":2} {}`, []string{parse + "expected separator in list", parse + "missing : in object pair", parse + "expected separator in dict", `{}`}},
	{"a name that is no string", `{1:2} {{}:1} {null:1} {nil:1} {}`, []string{parse + "key is not a string in object", parse + "key is not a string in object", parse + "key is not a string in object", parse + "invalid keyword 'nil'", `{}`}},
	{"duplicate (QEMU)", `{"execute":"a","execute":"b"} {}`, []string{parse + "duplicate key", `{}`}},
	{"duplicate by another spelling, inside", `{"x":[{"b":1,"a":1,"\u0062":2},1],"y":2} {}`, []string{parse + "duplicate key", `{}`}},
	{"the same name in two objects", `{"a":{"a":1},"b":{"a":2}}`, []string{`{"a":{"a":1},"b":{"a":2}}`}},
	{"half a pair (QEMU)", `{"id":"\ud83d"} {}`, []string{parse + `\ud83d is not a valid Unicode character`, `{}`}},
	{"half a pair, then others", `["\ud83d\n","\ud83d\u0041"] ["\ude00"] ["\ud83"] {}`, []string{parse + `\ud83d is not a valid Unicode character`, parse + `\ude00 is not a valid Unicode character`, parse + `\ud83 is not a valid Unicode character`, `{}`}},
	{"escape", `"\x" {}`, []string{parse + "invalid escape sequence in string", `{}`}},
	{"not UTF-8", "\"\xc3\" \"\x80]\" \"\xed\xa0\x80\" \"\xc0\x80\" {}", []string{parse + "invalid UTF-8 sequence in string", parse + "invalid UTF-8 sequence in string", parse + "invalid UTF-8 sequence in string", parse + "invalid UTF-8 sequence in string", `{}`}},

	{"comment (QEMU)", `/* c */ {}`, []string{parse + "stray '/'", `{}`}},
	{"stray (QEMU)", "%d\n{}", []string{parse + "stray '%'", `{}`}},
	{"stray inside", "{\"a\": /x} {}", []string{parse + "stray '/'", parse + "expecting value", `{}`}},
	{"no numbers", "01 \n-x\n 1.\n 1e\n -\n +1\n 1.5e+\n7", []string{parse + "stray '01'", parse + "stray '-x'", parse + "stray '1.\n'", parse + "stray '1e\n'", parse + "stray '-\n'", parse + "stray '+'", parse + "stray '1.5e+\n'", "7"}},
	{"NUL", "\x00{}\x00\x00", []string{parse + "stray '\x00'", `{}`, parse + "stray '\x00'", parse + "stray '\x00'"}},
	{"line end in a string", "{\"a\":\"b\n{}", []string{parse + "stray '\"b\n'", `{}`}},

	{"sentinel (section 2.6)", "{\"a\":[1,\"b\xff{}", []string{`{}`}},
	{"sentinel in skipped text", "[nil,{\xff{}", []string{parse + "invalid keyword 'nil'", `{}`}},
	{"sentinels alone", "\xff\xff \xff", nil},
	{"sentinel in an escape", "\"\\\xff5 ", []string{`5`}},
	{"sentinel in a character", "\"\xc3\xff5 ", []string{`5`}},

	{"half an object, then a line", "{\"a\"\n{}\n", []string{parse + "missing : in object pair", `{}`}},
	{"half an object where a value may be", "{\"a\":\n{\"b\":1}\n{\"c\":1}\n{}", []string{parse + "expected separator in dict", `{"c":1}`, `{}`}},
	{"an error in indented text", "{\n  \"a\": nil,\n  \"b\": {\n  }\n}\n{}", []string{parse + "invalid keyword 'nil'", `{}`}},

	{"ends in an object", `{"a"`, []string{"!! unexpected EOF"}},
	{"ends in a string", `"a`, []string{"!! unexpected EOF"}},
	{"ends in skipped text", `[nil`, []string{parse + "invalid keyword 'nil'"}},
}

func TestDecode(t *testing.T) {
	for _, tt := range decodings {
		t.Run(tt.name, func(t *testing.T) {
			got := results(strings.NewReader(tt.in), 1<<20)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(got, results(iotest.OneByteReader(strings.NewReader(tt.in)), 1<<20)); diff != "" {
				t.Errorf("byte by byte: %s", diff)
			}
		})
	}
}

func TestDecodeDepth(t *testing.T) {
	const limit = "! JSON nesting depth limit exceeded"
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"the deepest", strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), []string{strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)}},
		{"one too deep", strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1) + "5 ", []string{limit, "5"}},
		{"10,000 deep", strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + " {}", []string{limit, "{}"}},
		{"10,000 objects deep", strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000) + " {}", []string{limit, "{}"}},
		{"10,000 deep, never closed", strings.Repeat("[", 10000) + "\n{}", []string{limit, "{}"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, results(strings.NewReader(tt.in), 1<<20)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeLimit(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"fits", `{"a":"12"}`, []string{`{"a":"12"}`}},
		{"blanks do not count", `{  "a" : "12"   }`, []string{`{"a":"12"}`}},
		{"string", `{"a":"123"}`, []string{"!! JSON token size limit exceeded"}},
		{"number", `12345678901`, []string{"!! JSON token size limit exceeded"}},
		{"word", `aaaaaaaaaaa`, []string{"!! JSON token size limit exceeded"}},
		{"brackets", `[[[[[[]]]]]]`, []string{"!! JSON token size limit exceeded"}},
		{"escaped", "'\xc3\xa9\xc3\xa9'", []string{"!! JSON token size limit exceeded"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, results(strings.NewReader(tt.in), 10)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// repeated gives a text again and again, up to about n bytes.
func repeated(text string, n int) io.Reader {
	block := strings.Repeat(text, max(1, (64<<10)/len(text)))
	var all []io.Reader
	for ; n > 0; n -= len(block) {
		all = append(all, strings.NewReader(block))
	}
	return io.MultiReader(all...)
}

// TestDecodeMemory: what is not part of a value costs nothing, however much of it
// there is.
func TestDecodeMemory(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   io.Reader
	}{
		{"100 MB of blanks", repeated(" \t\r\n ", 100<<20)},
		{"100 MB of blanks inside", io.MultiReader(strings.NewReader("{"), repeated(" ", 100<<20), strings.NewReader("}"))},
		{"what is skipped", io.MultiReader(strings.NewReader("[nil"), repeated(`,{"a":"bcdefghijkl"}`, 4<<20))},
		{"errors", repeated("/\n", 1<<16)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(tt.in, 1<<10)
			for err := error(nil); err != io.EOF; {
				_, err = d.Next()
			}
			if cap(d.buf) > 1<<10 || cap(d.names) > 1<<10 {
				t.Errorf("%d bytes, %d names kept", cap(d.buf), cap(d.names))
			}
		})
	}
}

// TestDecodeLargeIsLetGo: an idle Decoder keeps no large buffer for long.
func TestDecodeLargeIsLetGo(t *testing.T) {
	d := NewDecoder(strings.NewReader(`"`+strings.Repeat("a", 1<<20)+`" 5 `), 2<<20)
	for range 2 {
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(d.buf) > keptBuffer {
		t.Errorf("%d bytes are kept", cap(d.buf))
	}
}
