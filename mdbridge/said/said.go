// Package said makes a text of a peer's fit to be logged and shown: a hypervisor that its
// guest has taken over may say anything. Nothing here keeps state.
package said

import (
	"strconv"
	"strings"
	"unicode"
)

// Most is how many bytes of a text are kept, before "..." and the last character's rest.
const Most = 200

// Text is a text for people: cut to Most bytes, with characters that do not print escaped
// (\u202e).
func Text(s string) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() >= Most {
			b.WriteString("...")
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}
