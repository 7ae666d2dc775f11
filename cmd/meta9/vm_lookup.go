package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/vm/ordjson"
)

func newVMLookup(a *app) *cobra.Command {
	var asJSON, unique bool
	var output string
	cmd := &cobra.Command{
		Use:     "lookup [-j|-1] [-o FIELD,...] [KEY=VALUE]...",
		Short:   "find VMs",
		Example: "meta9 vm lookup alias=web0\nmeta9 vm lookup -j -o uuid,alias tags.role=web\nssh $(meta9 vm lookup -1 -j -o nics alias=web0 | jq -r '.[0].nics[0].ip')",
		Long: `Print the UUIDs of the VMs that all of KEY=VALUE are true of (see vm list), one a
line; with -j the VMs themselves as a JSON array, of which -o leaves the named
members. With -1 it fails unless there is just one.`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && !asJSON {
				return vmadmError{code: exitFailed, text: "Cannot specify -o without -j"}
			}
			filters, err := readFilters(args, "lookup")
			if err != nil {
				return err
			}
			var fields, need []string
			if output != "" {
				fields = strings.Split(output, ",")
			}
			if fields != nil || !asJSON {
				need = members(append(keysOf(filters), fields...)...)
			}
			vms, err := a.fetch(cmd, need)
			if err != nil {
				return err
			}
			vms = slices.DeleteFunc(vms, func(o listed) bool { return !o.matches(cmd.Context(), filters) })
			switch {
			case unique && len(vms) != 1:
				return vmadmError{code: exitFailed, text: fmt.Sprintf("Requested unique lookup but found %d results.", len(vms))}
			case asJSON:
				return a.printJSON(foundJSON(vms, fields))
			}
			var b []byte
			for _, o := range vms {
				b = append(append(b, printable(o.word("uuid"))...), '\n')
			}
			_, err = a.out.Write(b)
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&asJSON, "json", "j", false, "print the VMs as a JSON array")
	f.BoolVarP(&unique, "unique", "1", false, "fail unless there is just one")
	f.StringVarP(&output, "output", "o", "", "with -j: only these `FIELDS`, by commas")
	return cmd
}

// foundJSON is the array of the VMs, with these members of each, or all.
func foundJSON(vms []listed, fields []string) []byte {
	list := ordjson.Value{Kind: ordjson.Array}
	for _, o := range vms {
		found := ordjson.Members(o)
		if fields != nil {
			found = o.only(fields)
		}
		list.Items = append(list.Items, ordjson.Value{Kind: ordjson.Object, Members: found})
	}
	return list.AppendJSON(nil)
}

// only is the named members in the VM's order; those that tables make up follow.
func (o listed) only(fields []string) ordjson.Members {
	found := ordjson.Members{}
	for _, m := range o {
		if slices.Contains(fields, m.Name) {
			found = append(found, m)
		}
	}
	for _, made := range []string{"type", "hvm", "ram"} {
		_, own := ordjson.Members(o).Get(made)
		if v, ok := o.member(made); ok && !own && slices.Contains(fields, made) {
			found = append(found, ordjson.Member{Name: made, Value: v})
		}
	}
	return found
}
