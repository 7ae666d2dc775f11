package mdata_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meta9/mdbridge/mdata"
)

// frame is a whole line around a body, with a true length and checksum.
func frame(body string) string {
	return fmt.Sprintf("V2 %d %08x %s\n", len(body), crc32.ChecksumIEEE([]byte(body)), body)
}

func TestAppendFrame(t *testing.T) {
	for _, tt := range []struct{ id, code, payload, want string }{
		{"dc4fae17", "SUCCESS", "[]", "V2 21 265ae1d8 dc4fae17 SUCCESS W10=\n"},
		{"dc4fae17", "GET", "hostname", "V2 25 59f28311 dc4fae17 GET aG9zdG5hbWU=\n"},
		{"dc4fae17", "NOTFOUND", "", "V2 17 11525eac dc4fae17 NOTFOUND\n"},
		{"dc4fae17", "SUCCESS", "", "V2 16 25aea963 dc4fae17 SUCCESS\n"},
		{"dc4fae17", "SUCCESS", "OK", "V2 21 ee7938c7 dc4fae17 SUCCESS T0s=\n"},
	} {
		got := string(mdata.AppendFrame(nil, []byte(tt.id), tt.code, []byte(tt.payload)))
		if got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestParseFrame(t *testing.T) {
	const body = "dc4fae17 GET aG9zdG5hbWU="
	for _, tt := range []struct{ name, rest, want string }{
		{"good", "25 59f28311 " + body, "dc4fae17|GET|hostname"},
		{"zeros before the length", "0025 59f28311 " + body, "dc4fae17|GET|hostname"},
		{"blanks in the header", "  25   59f28311  " + body, "dc4fae17|GET|hostname"},
		{"upper-case checksum", "25 59F28311 " + body, "dc4fae17|GET|hostname"},
		{"unpadded checksum", "25 eb91470 7cd02802 GET aG9zdG5hbWU=", "7cd02802|GET|hostname"},
		{"upper-case id", "25 12a1d4a7 DC4FAE17 GET aG9zdG5hbWU=", "DC4FAE17|GET|hostname"},
		{"id of one digit", "18 146c2627 a GET aG9zdG5hbWU=", "a|GET|hostname"},
		{"no payload", "12 fad1d262 dc4fae17 GET", "dc4fae17|GET|"},
		{"more after the payload", frame("a GET aG9z more of it")[3:], "a|GET|hos"},
		{"wrong checksum", "25 59f28312 " + body, ""},
		{"wrong length", "24 59f28311 " + body, ""},
		{"length 0", "0 59f28311 " + body, ""},
		{"huge length", "99999999999999999999 59f28311 " + body, ""},
		{"signs", "+25 59f28311 " + body, ""},
		{"two blanks in the body", frame("dc4fae17  GET aG9zdG5hbWU=")[3:], ""},
		{"two blanks before the payload", frame("dc4fae17 GET  aG9zdG5hbWU=")[3:], ""},
		{"id not of digits", frame("zzzzzzzz GET aG9zdG5hbWU=")[3:], ""},
		{"no code", frame("dc4fae17")[3:], ""},
		{"nothing", "", ""},
		{"garbage", "hello there", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if f, ok := mdata.ParseFrame([]byte(strings.TrimSuffix(tt.rest, "\n"))); ok {
				got = fmt.Sprintf("%s|%s|%s", f.ID, f.Code, mdata.AppendDecoded(nil, f.Payload))
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Every reply that the real host gave is a frame, and is what we make of its
// parts.
func TestRecordedReplies(t *testing.T) {
	b, err := os.ReadFile("testdata/mdata.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Pairs []struct {
			Name       string
			Send, Recv []byte
		}
	}
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range recorded.Pairs {
		rest, ok := bytes.CutPrefix(p.Recv, []byte("V2 "))
		if !ok {
			continue
		}
		n++
		f, ok := mdata.ParseFrame(bytes.TrimSuffix(rest, []byte("\n")))
		if !ok {
			t.Errorf("%s: not a frame: %q", p.Name, p.Recv)
			continue
		}
		again := mdata.AppendFrame(nil, f.ID, string(f.Code), mdata.AppendDecoded(nil, f.Payload))
		if !bytes.Equal(again, p.Recv) {
			t.Errorf("%s: %q became %q", p.Name, p.Recv, again)
		}
	}
	if n < 50 {
		t.Errorf("only %d frames recorded", n)
	}
}

// What ParseFrame says of a long line, LongFrame says of its pieces.
func TestLongFrame(t *testing.T) {
	payload := strings.Repeat("YWFh", 1000)
	for _, tt := range []struct {
		name, line string
		ok         bool
	}{
		{"good", frame("dc4fae17 PUT " + payload), true},
		{"CR", strings.TrimSuffix(frame("dc4fae17 PUT "+payload), "\n") + " \r\n", true},
		{"blanks in the header", strings.Replace(frame("DC4FAE17 PUT "+payload), " ", "   ", 2), true},
		{"a byte more", strings.TrimSuffix(frame("dc4fae17 PUT "+payload), "\n") + "a\n", false},
		{"a byte less", strings.TrimSuffix(frame("dc4fae17 PUT "+payload), "=\n")[:4000] + "\n", false},
		{"another byte", strings.Replace(frame("dc4fae17 PUT "+payload), "YWFhYWFh", "YWFhYWFi", 1), false},
		{"no id", frame("PUT dc4fae17 " + payload), false},
		{"no payload", frame(strings.Repeat("a", 1000) + " PUT"), false},
		{"version 1", "GET " + payload + "\n", false},
		{"no header", payload + "\n", false},
		{"a length that is none", "V2 x 0 " + payload + "\n", false},
		{"short", frame("dc4fae17 GET aG9zdG5hbWU="), false},
	} {
		for _, size := range []int{1, 7, 256, 1 << 20} {
			var f mdata.LongFrame
			for line := []byte(strings.TrimSuffix(tt.line, "\n")); len(line) > 0; {
				n := min(size, len(line))
				f.Write(line[:n])
				line = line[n:]
			}
			got, ok := f.Frame()
			if ok != tt.ok || ok && (!strings.EqualFold(string(got.ID), "dc4fae17") || string(got.Code) != "PUT") {
				t.Errorf("%s, by %d: %v, %q", tt.name, size, ok, got)
			}
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[0-9a-fA-F]{1,40}`).Draw(t, "id")
		code := rapid.StringMatching(`[!-~]{1,20}`).Draw(t, "code")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		line := mdata.AppendFrame([]byte("x"), []byte(id), code, payload)
		command, rest := mdata.Command(bytes.TrimSuffix(line[1:], []byte("\n")))
		f, ok := mdata.ParseFrame(rest)
		if string(command) != "V2" || !ok || string(f.ID) != id || string(f.Code) != code {
			t.Fatalf("%q became %v %q %q", line, ok, f.ID, f.Code)
		}
		if got := mdata.AppendDecoded(nil, f.Payload); !bytes.Equal(got, payload) {
			t.Fatalf("%x became %x", payload, got)
		}
	})
}

func TestAppendDecoded(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"aG9zdG5hbWU=", "hostname"},
		{"aG9zdG5hbWU", "hostname"},
		{"aG9z\ndG5h\nbWU=\n", "hostname"},
		{"aG9z=dG5h", "hos"},
		{"aG!9*zd{G5hbWU", "hostname"},
		{"-_-_", "\xfb\xff\xbf"},
		{"+/+/", "\xfb\xff\xbf"},
		{"hello", "\x85\xe9\x65"},
		{"a", ""},
		{"=", ""},
		{"\xff\x00", ""},
	} {
		if got := mdata.AppendDecoded([]byte("x"), []byte(tt.text)); string(got) != "x"+tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got[1:], tt.want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct{ line, command, arg string }{
		{"", "", ""},
		{"   ", "", ""},
		{"\r", "", ""},
		{" GET a", "", "GET a"},
		{"GET", "GET", ""},
		{"GET  ", "GET", ""},
		{"GET a\r", "GET", "a"},
		{"GET\ta b ", "GET", "a b"},
		{"GET  a", "GET", " a"},
	} {
		if command, arg := mdata.Command([]byte(tt.line)); string(command) != tt.command || string(arg) != tt.arg {
			t.Errorf("%q: %q, %q", tt.line, command, arg)
		}
	}
}

func TestAppendValue(t *testing.T) {
	for value, want := range map[string]string{
		"":             "SUCCESS\n\n.\n",
		".":            "SUCCESS\n..\n.\n",
		"a\n":          "SUCCESS\na\n\n.\n",
		"#!\n.x\n..y":  "SUCCESS\n#!\n..x\n...y\n.\n",
		"\x00\xff a.b": "SUCCESS\n\x00\xff a.b\n.\n",
	} {
		if got := string(mdata.AppendValue(nil, []byte(value))); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func TestMaxLine(t *testing.T) {
	enc := base64.StdEncoding.EncodeToString
	for _, n := range []int{0, 1, 100, 1 << 20} {
		inner := enc(bytes.Repeat([]byte("k"), 255)) + " " + enc(make([]byte, n))
		line := mdata.AppendFrame(nil, []byte("00000000"), "PUT", []byte(inner))
		if most := mdata.MaxLine(n); len(line) > most || most > len(line)+256 {
			t.Errorf("a value of %d: a line of %d, at most %d", n, len(line), most)
		}
	}
}

// A frame that is read is one that has the length and checksum that it says, and
// what is made of its parts is read back.
func FuzzParseFrame(f *testing.F) {
	f.Add([]byte("25 59f28311 dc4fae17 GET aG9zdG5hbWU="))
	f.Add([]byte("21 ee7938c7 dc4fae17 SUCCESS T0s="))
	f.Add([]byte(" 0025  59F28311  dc4fae17 GET aG9zdG5hbWU="))
	f.Add([]byte("22 0 a b c d"))
	f.Fuzz(func(t *testing.T, rest []byte) {
		p, ok := mdata.ParseFrame(rest)
		if !ok {
			return
		}
		if !bytes.HasSuffix(rest, bytes.Join([][]byte{p.ID, p.Code}, []byte(" "))) && !bytes.Contains(rest, p.Payload) {
			t.Errorf("%q is not in %q", p, rest)
		}
		decoded := mdata.AppendDecoded(nil, p.Payload)
		if len(decoded) > len(p.Payload) {
			t.Errorf("%d bytes of %d digits", len(decoded), len(p.Payload))
		}
		line := mdata.AppendFrame(nil, p.ID, string(p.Code), decoded)
		again, ok := mdata.ParseFrame(bytes.TrimSuffix(line, []byte("\n"))[3:])
		if !ok || !bytes.Equal(again.ID, p.ID) || !bytes.Equal(mdata.AppendDecoded(nil, again.Payload), decoded) {
			t.Errorf("%q was not read back", line)
		}
	})
}
