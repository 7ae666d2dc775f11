// Package roff writes the text of manual pages, as mandoc(7) and man(7) have it. The pages
// of meta9d and meta9 are made with it, in their tests: the programs have none of it.
package roff

import (
	"regexp"
	"strings"
)

// Date is that of all pages: a release changes it.
const Date = "2026-11-27"

var (
	escapes  = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`)
	requests = regexp.MustCompile(`(?m)^\.`)
)

// Text escapes s, so that no line of it is a request, dashes stay dashes and quotes quotes.
func Text(s string) string { return requests.ReplaceAllString(escapes.Replace(s), `\&.`) }

// Quote is Text as one argument of a request.
func Quote(s string) string { return `"` + Text(s) + `"` }

// Filled is Text for what a reader's terminal breaks anew: mandoc wants its lines to have at
// most 80 bytes. A line that begins with a blank begins a line for him, too.
func Filled(s string) string {
	var b strings.Builder
	length := 0
	for i, line := range strings.Split(s, "\n") {
		if i > 0 && (line == "" || line[0] == ' ') {
			b.WriteByte('\n')
			length = 0
		}
		for i, word := range strings.Split(line, " ") {
			word = Text(word)
			switch {
			case length+1+len(word) > 80 && word != "":
				b.WriteByte('\n')
				length = 0
			case length > 0 || i > 0:
				word = " " + strings.TrimPrefix(word, `\&`)
			}
			b.WriteString(word)
			length += len(word)
		}
	}
	return b.String()
}
