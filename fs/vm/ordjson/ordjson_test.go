package ordjson_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm/ordjson"
)

// TestJSONIsKept: what is parsed is written again in the same order and spelling.
func TestJSONIsKept(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `false`, `""`, `[]`, `{}`,
		`0`, `-0`, `1.0`, `1e3`, `1E+03`, `-12.50e-7`, `123456789012345678901234567890`,
		`{"z":1,"a":2,"m":[1,2,{"b":null,"a":[]}]}`,
		`{"":{"":""}}`,
		`"héllo ☃ 😀 </script> \u0000\u001f\b\f\n\r\t\"\\"`,
		"\"\u2028\u007f\"",
	} {
		v, err := ordjson.Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := string(v.AppendJSON(nil)); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
}

// TestJSONSpellings: other spellings of the same value are written in ours.
func TestJSONSpellings(t *testing.T) {
	for in, want := range map[string]string{
		" [ 1 ,\t2\r\n] ":              `[1,2]`,
		"{ \"a\" : { } }":              `{"a":{}}`,
		`"\u0041\u00e9\u2603\/\u000a"`: `"Aé☃/\n"`,
		`"\ud83d\uDE00"`:               `"😀"`,
		`"a\tb"`:                       `"a\tb"`,
	} {
		v, err := ordjson.Parse([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := string(v.AppendJSON(nil)); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestJSONErrors(t *testing.T) {
	deep := strings.Repeat("[", ordjson.MaxDepth+2) + strings.Repeat("]", ordjson.MaxDepth+2)
	for _, c := range []struct{ in, text string }{
		{``, "ends where a value"},
		{`  `, "ends where a value"},
		{`{`, "the name of a member"},
		{`{"a"`, "a colon"},
		{`{"a":`, "a value"},
		{`{"a":1`, "a comma or }"},
		{`{"a`, "a closing quote"},
		{`"\ud83d\uzz"`, "a hexadecimal digit"},
		{`"\n`, "a closing quote"},
		{`{"a":1,}`, "the name of a member"},
		{`{a:1}`, "'a' at byte 1"},
		{`[1 2]`, "'2' at byte 3"},
		{`[1,]`, "a value"},
		{`1 2`, "the end"},
		{`01`, "the end"},
		{`-`, "a digit"},
		{`1.`, "a digit"},
		{`.5`, "a value"},
		{`1e`, "a digit"},
		{`+1`, "a value"},
		{`NaN`, "a value"},
		{`nul`, "a value"},
		{`True`, "a value"},
		{`"a`, "a closing quote"},
		{`"\`, "an escape"},
		{`"\x"`, "an escape"},
		{`"\u12g4"`, "a hexadecimal digit"},
		{"\"a\nb\"", "an escape"},
		{"\"\\n\nb\"", "an escape"},
		{`"\ud83d"`, "half of a surrogate pair"},
		{`"\ude00\ud83d"`, "half of a surrogate pair"},
		{`"\ud83d\u0041"`, "half of a surrogate pair"},
		{"\"\xff\"", "not UTF-8"},
		{`{"a":1,"b":2,"a":3}`, `"a" is given twice`},
		{`{"x":{"a":1,"\u0061":3}}`, `"a" is given twice`},
		{manyMembers(40) + `,"m7":1}`, `"m7" is given twice`},
		{deep, "deeper than 64"},
		{"\x00", "a value"},
	} {
		_, err := ordjson.Parse([]byte(c.in))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(errs.Detail(err), c.text) {
			t.Errorf("%q: %v, want ...%s...", c.in, err, c.text)
		}
	}
	ok := strings.Repeat("[", ordjson.MaxDepth+1) + strings.Repeat("]", ordjson.MaxDepth+1)
	if _, err := ordjson.Parse([]byte(ok)); err != nil {
		t.Errorf("depth %d: %v", ordjson.MaxDepth, err)
	}
}

// TestParseMax: the values are counted before there is memory for them.
func TestParseMax(t *testing.T) {
	for text, n := range map[string]int{`1`: 1, `[]`: 1, `[1,[2]]`: 4, `{"a":{"b":[null]},"c":""}`: 5} {
		v, err := ordjson.ParseMax([]byte(text), n)
		if values, _ := v.Measure(); err != nil || values != n {
			t.Errorf("%s: %d values, %v, want %d", text, values, err, n)
		}
		if _, err := ordjson.ParseMax([]byte(text), n-1); errs.KindOf(err) != errs.NoSpace {
			t.Errorf("%s, of which %d values are allowed: %v", text, n-1, err)
		}
	}
	zeros := []byte("[0" + strings.Repeat(",0", 5<<20) + "]")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ordjson.ParseMax(zeros, 1000); err == nil {
		t.Error("5,242,881 values were taken")
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 1<<20 {
		t.Errorf("%d bytes were allocated for a text of too many values", spent)
	}
}

func TestMeasure(t *testing.T) {
	v, err := ordjson.Parse([]byte(`{"ab":["cde",{"f":12}],"":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if values, bytes := v.Measure(); values != 6 || bytes != 8 {
		t.Errorf("%d values of %d bytes, want 6 of 8", values, bytes)
	}
}

// TestByteOrderMark: one is skipped, and only at the start.
func TestByteOrderMark(t *testing.T) {
	v, err := ordjson.Parse([]byte("\ufeff {\"a\":1}"))
	if err != nil || string(v.AppendJSON(nil)) != `{"a":1}` {
		t.Errorf("%s, %v", v.AppendJSON(nil), err)
	}
	for _, text := range []string{"\ufeff\ufeff1", "1\ufeff", "[\ufeff]", "\ufeff"} {
		if _, err := ordjson.Parse([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// manyMembers is an object of n members that is not closed yet.
func manyMembers(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"m%d":1`, i)
	}
	return "{" + strings.Join(list, ",")
}

// TestJSONStringsAreCopies: a value does not hold its payload in memory, nor
// change with the caller's buffer.
func TestJSONStringsAreCopies(t *testing.T) {
	in := []byte(`{"name":"value","n":12}`)
	v, err := ordjson.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	clear(in)
	if got := string(v.AppendJSON(nil)); got != `{"name":"value","n":12}` {
		t.Errorf("became %s when the input was overwritten", got)
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`1`, `1`, true},
		{`1`, `1.0`, false},
		{`"1"`, `1`, false},
		{`true`, `false`, false},
		{`[1,2]`, `[1,2]`, true},
		{`[1,2]`, `[2,1]`, false},
		{`[1]`, `[1,2]`, false},
		{`{"a":1,"b":{}}`, `{"a":1,"b":{}}`, true},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, false},
		{`{}`, `[]`, false},
	} {
		a, _ := ordjson.Parse([]byte(c.a))
		b, _ := ordjson.Parse([]byte(c.b))
		if a.Equal(b) != c.want || b.Equal(a) != c.want {
			t.Errorf("%s equal %s: not %v", c.a, c.b, c.want)
		}
	}
}

// FuzzParse: what encoding/json takes and we take is the same value; what
// we write is read again as the same; nothing panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00",true,false,null],"b":{}}`,
		`[[[]]]`, `"\ud800"`, `{"a":1,"a":2}`, "\"\xff\"", `01`, `1e999`, ` {} `, manyMembers(20) + "}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := ordjson.Parse(in)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatalf("kind %v", errs.KindOf(err))
			}
			return
		}
		in = bytes.TrimPrefix(in, []byte("\ufeff"))
		if !json.Valid(in) {
			t.Fatalf("took %q, which is not JSON", in)
		}
		out := v.AppendJSON(nil)
		again, err := ordjson.Parse(out)
		if err != nil || !again.Equal(v) {
			t.Fatalf("wrote %s, which is read as another value (%v)", out, err)
		}
		if !bytes.Equal(canonical(t, in), canonical(t, out)) {
			t.Fatalf("%q became %s", in, out)
		}
	})
}

// canonical is the text as encoding/json would write it.
func canonical(t *testing.T, in []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
