package mdata

import "bytes"

// Command splits a version 1 line into its command and its argument, which are
// apart by one blank or tab. Blanks at the end, CR among them, do not count. The
// command is empty for a line that is blank or begins with one: to such the host
// answers Invalid.
func Command(line []byte) (command, arg []byte) {
	line = bytes.TrimRight(line, blanks)
	if i := bytes.IndexAny(line, blanks); i >= 0 {
		return line[:i], line[i+1:]
	}
	return line, nil
}

// blanks are what separates words, and does not count at the end of a line.
const blanks = " \t\v\f\r"

// AppendValue appends a version 1 reply with a value: SUCCESS, the value's lines
// with one more '.' before each that begins with one, and a line of only ".".
func AppendValue(b, value []byte) []byte {
	b = append(b, Success+"\n"...)
	for more := true; more; {
		var line []byte
		line, value, more = bytes.Cut(value, []byte{'\n'})
		if len(line) > 0 && line[0] == '.' {
			b = append(b, '.')
		}
		b = append(b, line...)
		b = append(b, '\n')
	}
	return append(b, ".\n"...)
}

// value is a version 1 value, of which the lines come in.
type value struct {
	b     []byte
	begun bool
}

// add takes the next line in; true: it was the one that ends the value.
func (v *value) add(line []byte) (end bool) {
	if string(line) == "." {
		return true
	}
	if v.begun {
		v.b = append(v.b, '\n')
	}
	v.begun = true
	v.b = append(v.b, bytes.TrimPrefix(line, []byte{'.'})...)
	return false
}
