package vminfo

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"meta9/fs/vm/ordjson"
)

// Query is what meta9d takes after /vms?, which vminfod ignores: fields=a,b leaves
// those members, and every other parameter is a Filter.
type Query struct {
	Fields  []string // nil: all
	Filters []Filter // all must match
}

// fieldsParam is the parameter that is no Filter.
const fieldsParam = "fields"

// Bounds of a query: whoever reaches the API may ask. Each member of each VM is looked for
// among the fields, and a pattern costs as many steps for each byte of text as its compiled
// program has.
const (
	maxFields   = 256
	maxFilters  = 16
	maxPattern  = 1024     // bytes
	maxSteps    = 512      // of a pattern's program: "a{500}" has 500
	maxSearched = 64 << 10 // bytes of a value that a pattern looks at
)

// ParseQuery reads the part of a URL after the question mark. The error says which
// parameter is wrong.
func ParseQuery(raw string) (Query, error) {
	var q Query
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, fmt.Errorf("the query: %w", err)
	}
	for key, list := range values {
		for _, value := range list {
			if key == fieldsParam {
				if q.Fields = append(q.Fields, strings.Split(value, ",")...); len(q.Fields) > maxFields {
					return q, fmt.Errorf("more than %d fields", maxFields)
				}
				continue
			}
			f, err := NewFilter(key, value)
			if err != nil {
				return q, err
			}
			if q.Filters = append(q.Filters, f); len(q.Filters) > maxFilters {
				return q, fmt.Errorf("more than %d filters", maxFilters)
			}
		}
	}
	return q, nil
}

// All tells whether the query leaves every VM as it is.
func (q Query) All() bool { return q.Fields == nil && q.Filters == nil }

// String is the query as ParseQuery reads it.
func (q Query) String() string {
	values := url.Values{}
	if q.Fields != nil {
		values.Set(fieldsParam, strings.Join(q.Fields, ","))
	}
	for _, f := range q.Filters {
		values.Add(f.Key, f.value)
	}
	return values.Encode()
}

// Match tells whether all filters let the VM through. It gives up, and tells false,
// when ctx has ended.
func (q Query) Match(ctx context.Context, of Members) bool {
	for i := range q.Filters {
		if !q.Filters[i].Match(ctx, of) {
			return false
		}
	}
	return true
}

// Wants tells whether the member stays.
func (q Query) Wants(member string) bool {
	return q.Fields == nil || slices.Contains(q.Fields, member)
}

// Members finds a member of a VM.
type Members func(name string) (ordjson.Value, bool)

// Filter is one condition, vmadm's: KEY=VALUE or KEY=~REGEXP, where REGEXP takes
// no notice of case and looks at the first 64 KiB of a value. KEY is a path as Find
// takes it.
type Filter struct {
	Key   string
	value string
	re    *regexp.Regexp // nil: the value itself
}

// NewFilter makes one; value is what stands after the =. The error is that of the
// regular expression.
func NewFilter(key, value string) (Filter, error) {
	f := Filter{Key: key, value: value}
	expr, ok := strings.CutPrefix(value, "~")
	if !ok {
		return f, nil
	}
	if len(expr) > maxPattern {
		return f, fmt.Errorf("%s: a regular expression of %d bytes; %d are allowed", key, len(expr), maxPattern)
	}
	tree, err := syntax.Parse("(?i)"+expr, syntax.Perl)
	if err != nil {
		return f, fmt.Errorf("%s: %q is no regular expression: %w", key, expr, err)
	}
	if n := programSize(tree); n > maxSteps {
		return f, fmt.Errorf("%s: the regular expression is too large: it has %d steps, with its repetitions counted; %d are allowed", key, n, maxSteps)
	}
	f.re, err = regexp.Compile("(?i)" + expr)
	return f, err
}

// programSize is about how many instructions a pattern is compiled to. It is computed
// before compiling, since a repetition (a{500}) multiplies what it repeats.
func programSize(re *syntax.Regexp) int {
	const most = 1 << 20 // larger numbers make no difference
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n = min(n+programSize(sub), most)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, most)
}

// Match tells whether a value at the Filter's path is the one it asks for. It gives
// up, and tells false, when ctx has ended.
func (f *Filter) Match(ctx context.Context, of Members) bool {
	return Find(of, f.Key, func(v ordjson.Value) bool {
		if ctx.Err() != nil {
			return false
		}
		text := Text(v)
		if f.re != nil {
			return f.re.MatchString(text[:min(len(text), maxSearched)])
		}
		return v.Kind != ordjson.Null && text == f.value
	})
}

// Find calls is with the values at a path until it returns true, and tells whether
// it did. A path is names joined by dots, of which the last may have dots itself
// ("tags.a.b"); in an array it is an index, or * for any.
func Find(of Members, path string, is func(ordjson.Value) bool) bool {
	head, rest, deep := strings.Cut(path, ".")
	v, ok := of(head)
	switch {
	case !ok:
		return false
	case !deep:
		return is(v)
	}
	return find(v, rest, is)
}

func find(v ordjson.Value, path string, is func(ordjson.Value) bool) bool {
	if v.Kind == ordjson.Array {
		return findIn(v.Items, path, is)
	}
	if m, ok := v.Members.Get(path); ok {
		return is(m)
	}
	head, rest, deep := strings.Cut(path, ".")
	m, ok := v.Members.Get(head)
	return deep && ok && find(m, rest, is)
}

func findIn(items []ordjson.Value, path string, is func(ordjson.Value) bool) bool {
	head, rest, deep := strings.Cut(path, ".")
	at := func(v ordjson.Value) bool {
		if !deep {
			return is(v)
		}
		return find(v, rest, is)
	}
	if head == "*" {
		return slices.ContainsFunc(items, at)
	}
	i, err := strconv.Atoi(head)
	return err == nil && i >= 0 && i < len(items) && at(items[i])
}

// Text is a value as one word: a string as it is, an array's elements joined by
// commas, as JavaScript has them; an object as JSON; null is "".
func Text(v ordjson.Value) string {
	switch v.Kind {
	case ordjson.Null:
		return ""
	case ordjson.String, ordjson.Number:
		return v.Text
	case ordjson.Array:
		words := make([]string, len(v.Items))
		for i := range v.Items {
			words[i] = Text(v.Items[i])
		}
		return strings.Join(words, ",")
	}
	return string(v.AppendJSON(nil))
}
