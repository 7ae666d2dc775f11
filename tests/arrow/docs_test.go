package arrow

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meta9/tests/daemon"
)

// TestArchitecture: docs/architecture.md names every room, and no room or file that
// is not there.
func TestArchitecture(t *testing.T) {
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, row := range tableRows(string(text), "room", "job") {
		known = append(known, list(row[0])...)
	}
	for _, room := range known {
		if !exists(root, room) {
			t.Errorf("there is no room %s", room)
		}
	}
	for _, pkg := range strings.Fields(golist(t, "./...")) {
		room := strings.TrimPrefix(pkg, "meta9/")
		if helper := strings.HasSuffix(room, "test"); !helper && !slices.Contains(known, room) {
			t.Errorf("the page does not name the room %s", room)
		}
	}
	where := tableRows(string(text), "change, or bug", "room", "file")
	if len(known) < 20 || len(where) < 20 {
		t.Errorf("%d rooms and %d places were found", len(known), len(where))
	}
	for _, row := range where {
		for _, file := range goFile.FindAllString(row[2], -1) {
			if !slices.ContainsFunc(append(list(row[1]), "."), func(room string) bool { return exists(root, room, file) }) {
				t.Errorf("%s: there is no %s in %s", row[0], file, row[1])
			}
		}
	}
}

// goFile is a Go file or a pattern of some.
var goFile = regexp.MustCompile(`[a-z0-9_*/]+\.go\b`)

// list is what stands between commas.
func list(cell string) []string { return strings.Split(cell, ", ") }

func exists(elem ...string) bool {
	found, err := filepath.Glob(filepath.Join(elem...))
	return err == nil && len(found) > 0
}

// tableRows are the cells of the table with this head.
func tableRows(text string, head ...string) (rows [][]string) {
	_, text, _ = strings.Cut(text, "\n| "+strings.Join(head, " | ")+" |\n")
	for line := range strings.Lines(text) {
		cells, ok := strings.CutPrefix(strings.TrimSpace(line), "| ")
		if !ok {
			if strings.HasPrefix(line, "|-") {
				continue
			}
			break
		}
		rows = append(rows, strings.Split(strings.TrimSuffix(cells, " |"), " | "))
	}
	return rows
}
