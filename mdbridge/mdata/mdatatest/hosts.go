package mdatatest

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"meta9/mdbridge/mdata"
)

// Host is a host that does one thing wrong, and what a client must make of it.
type Host struct {
	Name string
	// New makes one such host: what it gives answers one line, without its LF.
	New func() func(line string) string

	Value string // of the key "key"; "" with Err
	Err   string // the client's error has this in it; "" for none
	Put   string // what a PUT's error has in it; "" for none
	Quick bool   // the client need not wait for its time to end
	Flood bool   // it sends more than a serial line takes in a test's time
}

// value is what a good host has for every key.
const value = "v\x00\n.\xff"

// Good answers as a good host does: every key has one value.
func Good(line string) string {
	command, rest := mdata.Command([]byte(line))
	f, ok := mdata.ParseFrame(rest)
	switch {
	case string(command) == mdata.Negotiate:
		return mdata.V2OK + "\n"
	case string(command) != mdata.V2:
		return mdata.Invalid + "\n"
	case !ok:
		return ""
	case string(f.Code) == mdata.Get:
		return reply(string(f.ID), mdata.Success, value)
	}
	return reply(string(f.ID), mdata.Success, "OK")
}

// instead is Good but for what answer gives for frames.
func instead(answer func(f mdata.Frame, good string) string) func() func(string) string {
	return func() func(string) string {
		return func(line string) string {
			command, rest := mdata.Command([]byte(line))
			if f, ok := mdata.ParseFrame(rest); ok && string(command) == mdata.V2 {
				return answer(f, Good(line))
			}
			return Good(line)
		}
	}
}

// v1 is a host of version 1, which answers NEGOTIATE with refusal.
func v1(refusal string) func() func(string) string {
	return func() func(string) string {
		return func(line string) string {
			switch command, _ := mdata.Command([]byte(line)); string(command) {
			case "":
				return mdata.Invalid + "\n"
			case mdata.Get:
				return string(mdata.AppendValue(nil, []byte(value)))
			case mdata.Negotiate:
				return refusal + "\n"
			}
			return mdata.Failure + "\n"
		}
	}
}

// frame is a reply with a checksum in another form.
func frame(format, body string) string {
	return fmt.Sprintf("V2 %d "+format+" %s\n", len(body), crc32.ChecksumIEEE([]byte(body)), body)
}

// Hosts are the ways in which hosts misbehave.
var Hosts = []Host{
	{Name: "good", New: func() func(string) string { return Good }, Value: value, Quick: true},
	{Name: "NEGOTIATE gets FAILURE", New: v1(mdata.Failure), Value: value, Put: "version 1", Quick: true},
	{Name: "NEGOTIATE gets invalid command", New: v1(mdata.Invalid), Value: value, Put: "version 1", Quick: true},
	{
		Name: "drops every frame",
		New:  instead(func(mdata.Frame, string) string { return "" }),
		Err:  "no answer", Put: "no answer",
	},
	{
		Name: "drops the first frame",
		New: func() func(string) string {
			frames := 0
			return instead(func(_ mdata.Frame, good string) string {
				if frames++; frames == 1 {
					return ""
				}
				return good
			})()
		},
		Value: value,
	},
	{
		Name: "a stale reply first",
		New: instead(func(_ mdata.Frame, good string) string {
			return reply("0badcafe", mdata.Success, "stale") + good
		}),
		Value: value, Quick: true,
	},
	{
		Name: "a reply with a bad checksum first",
		New: instead(func(f mdata.Frame, good string) string {
			body := string(f.ID) + " SUCCESS c3RhbGU="
			return fmt.Sprintf("V2 %d 00000000 %s\n", len(body), body) + good
		}),
		Value: value, Quick: true,
	},
	{
		Name:  "a reply of half a frame first",
		New:   instead(func(_ mdata.Frame, good string) string { return good[:len(good)/2] + "\n" + good }),
		Value: value, Quick: true,
	},
	{
		Name: "an unknown code",
		New: instead(func(f mdata.Frame, _ string) string {
			return reply(string(f.ID), "MAYBE", "come back later")
		}),
		Err: "come back later", Put: "come back later", Quick: true,
	},
	{
		Name: "FAILURE with a text",
		New:  instead(func(f mdata.Frame, _ string) string { return reply(string(f.ID), mdata.Failure, "not today") }),
		Err:  "not today", Put: "not today", Quick: true,
	},
	{
		Name: "FAILURE without a text",
		New:  instead(func(f mdata.Frame, _ string) string { return reply(string(f.ID), mdata.Failure, "") }),
		Err:  "refuses", Put: "refuses", Quick: true,
	},
	{
		Name: "NOTFOUND with a payload",
		New:  instead(func(f mdata.Frame, _ string) string { return reply(string(f.ID), mdata.NotFound, "nothing") }),
		Err:  "file does not exist", Put: "file does not exist", Quick: true,
	},
	{
		Name: "an upper-case checksum",
		New: instead(func(f mdata.Frame, _ string) string {
			return frame("%08X", string(f.ID)+" SUCCESS dgAKLv8=")
		}),
		Value: value, Quick: true,
	},
	{
		Name: "an unpadded checksum",
		New: instead(func(f mdata.Frame, _ string) string {
			return frame("%x", string(f.ID)+" SUCCESS dgAKLv8=")
		}),
		Value: value, Quick: true,
	},
	{
		Name: "FAILURE of version 1 to a frame",
		New:  instead(func(mdata.Frame, string) string { return "FAILURE\n" }),
		Err:  "does not understand", Put: "does not understand", Quick: true,
	},
	{
		Name: "FAILURE with the id 00000000",
		New:  instead(func(mdata.Frame, string) string { return reply("00000000", mdata.Failure, "bad crc") }),
		Err:  "does not understand", Put: "does not understand", Quick: true,
	},
	{
		Name: "lines end in CR LF",
		New: func() func(string) string {
			return func(line string) string { return strings.ReplaceAll(Good(line), "\n", "\r\n") }
		},
		Value: value, Quick: true,
	},
	{
		Name: "an empty line gets FAILURE",
		New: func() func(string) string {
			return func(line string) string {
				if line == "" {
					return "FAILURE\n"
				}
				return Good(line)
			}
		},
		Value: value, Quick: true,
	},
	{
		Name: "says nothing at all",
		New:  func() func(string) string { return func(string) string { return "" } },
		Err:  "no answer", Put: "no answer",
	},
	{
		Name: "never ends",
		New: instead(func(mdata.Frame, string) string {
			return strings.Repeat("x", 17<<20)
		}),
		Err: "more than any answer", Put: "more than any answer", Flood: true,
	},
	{
		Name: "a value that never ends",
		New: func() func(string) string {
			answer := v1(mdata.Failure)()
			return func(line string) string {
				if strings.HasPrefix(line, mdata.Get) {
					return "SUCCESS\n" + strings.Repeat(strings.Repeat("x", 1023)+"\n", 17<<10)
				}
				return answer(line)
			}
		},
		Err: "more than any answer", Put: "version 1", Flood: true,
	},
}

// Talk is the host's side of one conversation on c, until it ends: answer gives
// what is sent for each line.
func Talk(c io.ReadWriter, answer func(line string) string) {
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, answer(strings.TrimSuffix(line, "\n"))); err != nil {
			return
		}
	}
}
