package main

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"meta9/mdbridge/vminfo"
)

// tableOptions are the flags of vm list.
type tableOptions struct {
	parsable, noHeader bool
	order, sort        string
	colours            bool
}

func newVMList(a *app) *cobra.Command {
	var opt tableOptions
	cmd := &cobra.Command{
		Use:   "list [-p] [-H] [-o FIELD,...] [-s FIELD,...] [KEY=VALUE]...",
		Short: "list VMs",
		Example: `meta9 vm list
meta9 vm list -o uuid,alias,customer_metadata.role state=running
meta9 vm list -o json | jq -r '.[].alias'
meta9 vm list -o json,uuid,nics alias=~^web`,
		Long: `Print a table of the VMs that all of KEY=VALUE are true of; KEY=~REGEXP takes a
regular expression, in upper or lower case. A field or key is a property, or what is
in one: nics.0.ip, tags.role, customer_metadata.NAME, and for a key nics.*.mac. What a
VM does not say is a dash. type is made of the brand; ram is in MiB. With -o json the VMs
are objects in an array, with the fields of the table, or the properties that follow.`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			filters, err := readFilters(args, "filter")
			if err != nil {
				return err
			}
			asJSON := opt.takeJSON()
			order, sort, err := opt.fields(asJSON)
			if err != nil {
				return err
			}
			vms, err := a.fetch(cmd, members(slices.Concat(order, sort, keysOf(filters))...))
			if err != nil {
				return err
			}
			vms = slices.DeleteFunc(vms, func(o listed) bool { return !o.matches(cmd.Context(), filters) })
			sortVMs(vms, sort)
			if asJSON {
				return a.printJSON(foundJSON(vms, order))
			}
			opt.colours = a.coloured()
			_, err = a.term.Write(opt.table(order, vms))
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&opt.parsable, "parsable", "p", false, "separate by colons, without a header; nothing for what is missing")
	f.BoolVarP(&opt.noHeader, "no-header", "H", false, "leave the header out")
	f.StringVarP(&opt.order, "order", "o", listOrder, "the `FIELDS` to print, by commas; json: as JSON, and json,PROPERTY,... these so")
	f.StringVarP(&opt.sort, "sort", "s", "ram,uuid", "sort by these `FIELDS`; -FIELD turns one round")
	return cmd
}

// listOrder are the fields of the table.
const listOrder = "uuid,type,ram,state,alias"

// takeJSON tells whether JSON is asked for, and leaves the fields in order.
func (opt *tableOptions) takeJSON() bool {
	rest, ok := strings.CutPrefix(opt.order+",", outputJSON+",")
	if ok {
		opt.order = cmp.Or(strings.TrimSuffix(rest, ","), listOrder)
	}
	return ok
}

func keysOf(filters []vminfo.Filter) (keys []string) {
	for i := range filters {
		keys = append(keys, filters[i].Key)
	}
	return keys
}

// fields are the fields to print and to sort by; a table has not every property.
func (opt tableOptions) fields(asJSON bool) (order, sort []string, err error) {
	order, sort = strings.Split(opt.order, ","), strings.Split(opt.sort, ",")
	if !asJSON {
		if err := checkFields(order, "order"); err != nil {
			return nil, nil, err
		}
	}
	return order, sort, checkFields(sort, "sort")
}

func checkFields(fields []string, what string) error {
	for _, field := range fields {
		name := field
		if what == "sort" && field != "" && strings.ContainsAny(field[:1], "+-") {
			name = field[1:]
		}
		if anyElement.MatchString(name) {
			return vmadmError{code: exitFailed, text: "Invalid " + what + " key: " + strconv.Quote(field)}
		}
		if _, ok := columnOf(name); !ok {
			return vmadmError{code: exitFailed, text: "invalid " + what + " field: " + field}
		}
	}
	return nil
}

// table is the VMs as lines of these fields.
func (opt tableOptions) table(order []string, vms []listed) (b []byte) {
	cols := make([]column, len(order))
	for i, field := range order {
		cols[i], _ = columnOf(field)
	}
	if !opt.parsable && !opt.noHeader {
		b = opt.line(b, cols, func(i int) string { return cols[i].header })
	}
	for _, o := range vms {
		b = opt.line(b, cols, func(i int) string { return o.word(order[i]) })
	}
	return b
}

// line appends one line; word is what stands in a column.
func (opt tableOptions) line(b []byte, cols []column, word func(i int) string) []byte {
	for i, c := range cols {
		w := printable(word(i))
		if opt.parsable {
			if i > 0 {
				b = append(b, ':')
			}
			b = append(b, w...)
			continue
		}
		if i > 0 {
			b = append(b, "  "...)
		}
		w = orDash(w)
		b = append(b, opt.painted(c, w)...)
		for range c.width - utf8.RuneCountInString(w) {
			b = append(b, ' ')
		}
	}
	return append(bytes.TrimRight(b, " "), '\n')
}

// painted is a word of a table, in a colour if it has one.
func (opt tableOptions) painted(c column, word string) string {
	if !opt.colours || c != columns["state"] {
		return word
	}
	return paint(stateColours[word], word)
}
