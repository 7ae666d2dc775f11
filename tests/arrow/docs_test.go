package arrow

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// TestArchitecture: docs/architecture.md names every room, and no room or file that
// is not there.
func TestArchitecture(t *testing.T) {
	root := testenv.Root(t)
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

var (
	link    = regexp.MustCompile(`\]\(([^)#:]*)(#[^):]*)?\)`)
	mention = regexp.MustCompile(`\bdocs/([a-z0-9/_.-]+\.(?:md|toml|service))(?:,\s+(?://\s+)?"([^"]+)")?`)
)

// TestReferences: links between the documents lead somewhere, and so does what code
// and documents say of a page in docs/, with its section.
func TestReferences(t *testing.T) {
	root := testenv.Root(t)
	links, mentions := 0, 0
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path != root && strings.HasPrefix(d.Name(), ".") || path == filepath.Join(root, "bin")):
			return filepath.SkipDir
		case d.IsDir() || !slices.Contains([]string{".md", ".go", ".txt", ".sh"}, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		if filepath.Ext(path) == ".md" {
			for _, m := range link.FindAllSubmatch(text, -1) {
				links++
				to := path
				if len(m[1]) > 0 {
					to = filepath.Join(filepath.Dir(path), string(m[1]))
				}
				if why := leads(to, string(m[2])); why != "" {
					t.Errorf("%s: %s%s: %s", name, m[1], m[2], why)
				}
			}
		}
		for _, m := range mention.FindAllSubmatch(text, -1) {
			mentions++
			section := strings.Join(strings.Fields(strings.ReplaceAll(string(m[2]), "//", "")), " ")
			if why := leads(filepath.Join(root, "docs", string(m[1])), anchor(section)); why != "" {
				t.Errorf("%s: docs/%s, %q: %s", name, m[1], section, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 20 || mentions < 20 {
		t.Errorf("only %d links and %d mentions were looked at", links, mentions)
	}
}

// TestQEMUVersions: a page in which QEMU connects again says for which versions its option is:
// reconnect, which 9.2 has given another name and 10.2 has removed.
func TestQEMUVersions(t *testing.T) {
	root := testenv.Root(t)
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(b); strings.Contains(text, ",reconnect=1") {
			seen++
			if !strings.Contains(text, "`reconnect-ms=1000`") || !strings.Contains(text, "9.2") && !strings.Contains(text, "10.2") {
				t.Errorf("%s: for which QEMUs is reconnect=1?", filepath.Base(page))
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d pages have QEMU connect again", seen)
	}
}

// leads says why there is no such page with such a section.
func leads(page, section string) string {
	text, err := os.ReadFile(page)
	switch info, statErr := os.Stat(page); {
	case statErr == nil && info.IsDir():
		return ""
	case err != nil:
		return "it is not there"
	case section == "":
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if heading, ok := strings.CutPrefix(line, "#"); ok && anchor(strings.TrimLeft(heading, "# ")) == section {
			return ""
		}
	}
	return "it has no such section"
}

var noAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)

// anchor is how a link names a heading, as GitHub does.
func anchor(heading string) string {
	heading = noAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
	if heading == "" {
		return ""
	}
	return "#" + strings.ReplaceAll(heading, " ", "-")
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
