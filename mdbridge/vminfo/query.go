package vminfo

import (
	"fmt"
	"net/url"
	"regexp"
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
				q.Fields = append(q.Fields, strings.Split(value, ",")...)
				continue
			}
			f, err := NewFilter(key, value)
			if err != nil {
				return q, err
			}
			q.Filters = append(q.Filters, f)
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

// Match tells whether all filters let the VM through.
func (q Query) Match(of Members) bool {
	for i := range q.Filters {
		if !q.Filters[i].Match(of) {
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
// no notice of case. KEY is the path that Find takes.
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
	re, err := regexp.Compile("(?i)" + expr)
	if err != nil {
		return f, fmt.Errorf("%s: %q is no regular expression: %w", key, expr, err)
	}
	f.re = re
	return f, nil
}

// Match tells whether a value at the Filter's path is the one it asks for.
func (f *Filter) Match(of Members) bool {
	return Find(of, f.Key, func(v ordjson.Value) bool {
		text := Text(v)
		if f.re != nil {
			return f.re.MatchString(text)
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
