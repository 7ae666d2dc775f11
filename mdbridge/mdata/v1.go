package mdata

import "bytes"

// Command splits a version 1 line into its command and its argument at the first
// blank. Blanks at the end, CR among them, do not count. The command is empty for a
// line that is empty or begins with a blank: the host answers Invalid to it.
func Command(line []byte) (command, arg []byte) {
	line = bytes.TrimRight(line, blanks)
	if i := bytes.IndexAny(line, blanks); i >= 0 {
		return line[:i], line[i+1:]
	}
	return line, nil
}

// blanks separate words, and do not count at the end of a line.
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

// value gathers the lines of a version 1 value.
type value struct {
	b     []byte
	begun bool
}

// add adds the next line; true: it was the line that ends the value.
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
