// Package crash cuts the power. A store writes on the real engine while strace
// writes down what it asks of the kernel (trace.go); from any moment of that trace
// images of the data folder are made as a disk may have them when the power is lost
// just then (disk.go): what was synced is there, of the rest anything may be, whole,
// torn, in another order, or garbage. Each image must start, be found sound, and hold
// all that was acknowledged and nothing by half (crash_test.go).
package crash

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// call is a system call of the trace. begin and end are lines of it, which has one
// order for all threads.
type call struct {
	name       string
	args       string
	result     int
	begin, end int
}

var (
	whole   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)`)
)

// parse reads strace's output into calls in the order of their ends, and gives the
// number of lines.
func parse(trace []byte) (calls []call, lines int, err error) {
	open := map[string]call{} // by thread
	sc := bufio.NewScanner(bytes.NewReader(trace))
	sc.Buffer(nil, 1<<28)
	for ; sc.Scan(); lines++ {
		line := sc.Text()
		if m := begun.FindStringSubmatch(line); m != nil {
			open[m[1]] = call{name: m[2], args: m[3], begin: lines}
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			c, ok := open[m[1]]
			if !ok || c.name != m[2] {
				return nil, 0, fmt.Errorf("line %d resumes what was not begun: %.80s", lines, line)
			}
			delete(open, m[1])
			c.args, c.end = c.args+m[3], lines
			c.result, _ = strconv.Atoi(m[4])
			calls = append(calls, c)
		} else if m := whole.FindStringSubmatch(line); m != nil {
			c := call{name: m[2], args: m[3], begin: lines, end: lines}
			c.result, _ = strconv.Atoi(m[4])
			calls = append(calls, c)
		}
	}
	return calls, lines, sc.Err()
}

// texts are the strings among the arguments, which strace gives in hexadecimal.
func (c call) texts() (list [][]byte) {
	for rest := c.args; ; {
		_, after, ok := strings.Cut(rest, `"`)
		if !ok {
			return list
		}
		text, after, _ := strings.Cut(after, `"`)
		b := make([]byte, 0, len(text)/4)
		for i := 0; i+4 <= len(text); i += 4 {
			v, _ := strconv.ParseUint(text[i+2:i+4], 16, 8)
			b = append(b, byte(v))
		}
		list, rest = append(list, b), after
	}
}

// number is the argument at that place from the start, or with a negative one from
// the end.
func (c call) number(at int) int {
	args := strings.Split(c.args, ",")
	if at < 0 {
		at += len(args)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(args[at]))
	return n
}
