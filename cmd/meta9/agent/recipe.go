//go:build unix

package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"meta9/cmd/meta9/trust"
	"meta9/fs/vm"
)

const (
	// maxRecipe is how long a recipe may be, in bytes.
	maxRecipe = 1 << 20

	// defaultMost is how long a value may be where the recipe does not say, in bytes: as
	// long as meta9d takes them by default.
	defaultMost = 1 << 20

	// mostMost is the most that a recipe may say: a value is held in memory.
	mostMost = 64 << 20

	defaultTime = 90 * time.Second // of a command
)

// Missing is what becomes of a file whose key is not there.
type Missing int

const (
	Keep   Missing = iota // the file stays as it is
	Remove                // it goes, too
	Fail                  // nothing of the set is changed, which is a failure
)

var missings = map[string]Missing{"keep": Keep, "remove": Remove, "fail": Fail}

// Recipe is a set of files that change together.
type Recipe struct {
	Name    string // its file's, without .toml
	Files   []File // in the recipe's order
	Check   string // a line for the shell; "": none. Its arguments are the new files
	Command string // a line for the shell, after a change; "": none
	Timeout time.Duration
}

// File is one file of a recipe.
type File struct {
	Path  string // absolute and clean
	Key   string // a path as of `meta9 cat`: keys/motd
	Owner string // a name or a number; "": who runs the agent
	Group string // "": the owner's, or that of who runs the agent
	Mode  fs.FileMode
	Missing
	Most int64 // bytes of a value

	space, key string // of the key's events; "": the file is derived, any change may be one of it
}

// Load reads all recipes of a folder: its files NAME.toml. The error names each thing that
// is wrong, with its line.
func Load(dir string) ([]Recipe, error) {
	folder, err := trust.Open(dir) // whoever writes recipes is root by them
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	entries, err := folder.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var recipes []Recipe
	var wrong []error
	owners := make(map[string]string) // the recipe of each path
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".toml")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		r, err := load(filepath.Join(dir, e.Name()), name)
		wrong = append(wrong, err)
		for _, f := range r.Files {
			if other := owners[f.Path]; other != "" {
				wrong = append(wrong, fmt.Errorf("%s and %s both make %s", other, e.Name(), f.Path))
			}
			owners[f.Path] = e.Name()
		}
		recipes = append(recipes, r)
	}
	return recipes, errors.Join(wrong...)
}

func load(file, name string) (Recipe, error) {
	text, err := trust.Read(file, maxRecipe)
	if err != nil {
		return Recipe{}, err
	}
	return parse(file, name, text)
}

// parser reads one recipe. It goes on after what is wrong, to say all of it.
type parser struct {
	file  string
	md    toml.MetaData
	wrong []error
}

// parse reads the recipe in file.
func parse(file, name string, text []byte) (Recipe, error) {
	p := parser{file: file}
	var top map[string]toml.Primitive
	var err error
	if p.md, err = toml.NewDecoder(bytes.NewReader(text)).Decode(&top); err != nil {
		p.say(err)
		return Recipe{}, errors.Join(p.wrong...)
	}
	r := Recipe{Name: name, Timeout: defaultTime}
	all := File{Mode: 0o600, Most: defaultMost}
	p.settings(top, map[string]any{
		"check": &r.Check, "command": &r.Command, "timeout": (*span)(&r.Timeout), "file": ignored{},
	}, &all)
	seen := make(map[string]bool)
	for _, key := range p.md.Keys() {
		if len(key) < 2 || key[0] != "file" || seen[key[1]] {
			continue
		}
		seen[key[1]] = true
		r.Files = append(r.Files, p.fileOf(top["file"], key[1], all))
	}
	if len(r.Files) == 0 && p.wrong == nil {
		p.wrong = append(p.wrong, fmt.Errorf(`%s: it makes no file; for one there must be [file."/PATH"] with key = "NAME"`, file))
	}
	return r, errors.Join(p.wrong...)
}

// fileOf reads the table of one file; all has what the recipe says for all of them.
func (p *parser) fileOf(tables toml.Primitive, name string, all File) File {
	f := all
	f.Path = name
	var files map[string]toml.Primitive
	var table map[string]toml.Primitive
	if err := p.md.PrimitiveDecode(tables, &files); err != nil {
		p.say(err)
		return f
	}
	if err := p.md.PrimitiveDecode(files[name], &table); err != nil {
		p.say(err)
		return f
	}
	if !filepath.IsAbs(name) || filepath.Clean(name) != name || name == "/" || strings.ContainsRune(name, 0) {
		p.refuse(files[name], fmt.Errorf("%q is no absolute path of a file, without . and .. and //", name))
	}
	if _, there := table["key"]; !there {
		p.refuse(files[name], errors.New("which key? key is not set"))
	}
	p.settings(table, map[string]any{"key": (*keyPath)(&f)}, &f)
	return f
}

// settings reads a table; what is for one file, and at the top for all, goes into f.
func (p *parser) settings(table map[string]toml.Primitive, known map[string]any, f *File) {
	known["owner"], known["group"] = (*userName)(&f.Owner), (*userName)(&f.Group)
	known["mode"], known["missing"], known["max_size"] = (*mode)(&f.Mode), &f.Missing, (*most)(&f.Most)
	for _, name := range sortedKeys(table) {
		into := known[name]
		if into == nil {
			p.refuse(table[name], fmt.Errorf("there is no such setting; there are %s", strings.Join(sortedKeys(known), ", ")))
			continue
		}
		if err := p.md.PrimitiveDecode(table[name], into); err != nil {
			p.say(err)
		}
	}
}

// refuse says what is wrong with a value, at its line.
func (p *parser) refuse(at toml.Primitive, why error) {
	p.say(p.md.PrimitiveDecode(at, refusal{why}))
}

// say adds an error of the decoder's, as FILE:LINE: what is wrong.
func (p *parser) say(err error) {
	var at toml.ParseError
	if !errors.As(err, &at) {
		text := strings.TrimPrefix(err.Error(), "toml: ")
		if line, rest, ok := strings.Cut(text, " "); ok && line == "line" { // "line 3 (last key "x"): ..."
			n, what, _ := strings.Cut(rest, " ")
			p.wrong = append(p.wrong, fmt.Errorf("%s:%s: %s", p.file, n, what))
			return
		}
		p.wrong = append(p.wrong, fmt.Errorf("%s: %s", p.file, text))
		return
	}
	what := at.Message
	if at.LastKey != "" {
		what = at.LastKey + ": " + what
	}
	p.wrong = append(p.wrong, fmt.Errorf("%s:%d: %s", p.file, at.Position.Line, what))
}

// What settings are read into. Each says what it takes; the decoder adds the line.

// refusal refuses any value.
type refusal struct{ why error }

func (r refusal) UnmarshalTOML(any) error { return r.why }

// ignored takes any value: somebody else reads it.
type ignored struct{}

func (ignored) UnmarshalTOML(any) error { return nil }

// UnmarshalText reads a value of the recipe's setting missing; the error names those that there are.
func (m *Missing) UnmarshalText(text []byte) error {
	is, ok := missings[string(text)]
	if !ok {
		return fmt.Errorf("%q; there are %s", text, strings.Join(sortedKeys(missings), ", "))
	}
	*m = is
	return nil
}

// keyPath is the key of a File. A name alone is one in keys/.
type keyPath File

func (k *keyPath) UnmarshalText(text []byte) error {
	name := string(text)
	if !strings.Contains(name, "/") {
		name = "keys/" + name
	}
	clean := path.Clean("/" + name)[1:]
	base := path.Base(clean)
	space := path.Base(path.Dir(clean))
	metadata := space == "keys" || space == "internal"
	switch {
	case name != clean || clean == "":
		return fmt.Errorf("%q is no path of a file as 'meta9 cat' takes it", text)
	case !metadata && slices.Contains([]string{"events", "ctl", "txn"}, base):
		return fmt.Errorf("%q has no value that a file could have", text)
	}
	k.Key = clean
	if metadata {
		var err error
		if k.key, err = vm.KeyName(base); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		k.space = space
	}
	return nil
}

// userName is the name or the number of a user or a group. Whether it is there is seen
// when it is needed: it may come later than the recipe.
type userName string

func (u *userName) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 || v > 1<<32-2 {
			return fmt.Errorf("%d is no number of a user or a group", v)
		}
		*u = userName(strconv.FormatInt(v, 10))
		return nil
	case string:
		if v != "" && !strings.ContainsAny(v, ":/ \t\n\x00") {
			*u = userName(v)
			return nil
		}
	}
	return fmt.Errorf("%v is neither a name nor a number", v)
}

// mode is a file's permission bits, in octal. There are no others: a host that could
// choose the contents of a program that runs as its owner would be that owner.
type mode fs.FileMode

func (m *mode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf(`%q; a mode is octal text of at most 0777, as "0640"`, text)
	}
	*m = mode(n)
	return nil
}

// most is how many bytes a value may have.
type most int64

func (m *most) UnmarshalTOML(v any) error {
	n, ok := v.(int64)
	if !ok || n < 1 || n > mostMost {
		return fmt.Errorf("%v; it is a number of bytes, from 1 to %d", v, mostMost)
	}
	*m = most(n)
	return nil
}

// span is how long a command may take.
type span time.Duration

func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d <= 0 {
		return fmt.Errorf(`%q; a time is as "90s" or "5m"`, text)
	}
	*s = span(d)
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
