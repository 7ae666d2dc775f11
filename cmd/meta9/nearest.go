package main

import "fmt"

// nearest is the name of which word may be a misspelling, or "".
func nearest(word string, names []string) (best string) {
	least := len(word)/3 + 1
	for _, name := range names {
		if d := slips(word, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// slips counts the letters by which two words differ: left out, too many, others, or
// two exchanged (Damerau and Levenshtein's distance of adjacent letters).
func slips(a, b string) int {
	var older, old []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		older, old, row = old, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			d := old[j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, old[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, older[j-2]+1)
			}
			row[j] = d
		}
	}
	return row[len(b)]
}

// didYouMean asks whether a name like word was meant; "": no name is like it.
func didYouMean(word string, names []string) string {
	if best := nearest(word, names); best != "" {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return ""
}
