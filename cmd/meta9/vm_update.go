package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
	"meta9/session/client"
)

func newVMUpdate(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "update VM [-f FILE | PROPERTY=VALUE...]",
		Short: "change a VM by properties or a JSON payload",
		Long: `Change a VM as PROPERTY=VALUE or a JSON object says: its members replace the VM's,
null removes one, and these change what is in one, as vmadm's do:
` + wrapped(payload.Edits(), 80) + `.

A VALUE that begins with { or [ is JSON. A PROPERTY has letters, digits, _ and -: for
one inside another use the members above. All of it happens, or nothing, and if all
was so already the answer says so. When update is done, whoever watches the VM's
events is told.`,
		Example: `meta9 vm update 550e8400-e29b-41d4-a716-446655440000 alias=web quota=20
meta9 vm update 550e8400-e29b-41d4-a716-446655440000 'set_tags={"role":"web"}'
echo '{"set_customer_metadata": {"motd": "hi"}}' | meta9 vm update 550e8400-e29b-41d4-a716-446655440000`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := a.uuidArg(cmd, args)
			if err != nil {
				return err
			}
			line, err := a.patch(cmd, file, args[1:])
			if err != nil {
				return err
			}
			note := ""
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				before, err := vmRevision(ctx, c, uuid)
				if err == nil {
					err = verb(ctx, c, vmPath(uuid, "ctl"), "update", line)
				}
				if err != nil {
					return err
				}
				if after, err := vmRevision(ctx, c, uuid); err == nil && after == before {
					note = " (nothing changed)"
				}
				return nil
			})
			if err == nil {
				fmt.Fprintln(a.err, "Successfully updated VM", uuid+note)
			}
			return about(uuid, err)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the payload from `FILE` (default: standard input)")
	return cmd
}

// vmRevision is the revision of a VM, which every change moves.
func vmRevision(ctx context.Context, c *client.Client, uuid string) (string, error) {
	is, err := readStatus(ctx, c, vmPath(uuid, "ctl"))
	rev := is.text("rev")
	if err == nil && rev == "" {
		err = fmt.Errorf("the server says no revision of VM %s", uuid)
	}
	return rev, err
}

// patch is the update from the arguments or from the payload.
func (a *app) patch(cmd *cobra.Command, file string, args []string) ([]byte, error) {
	switch {
	case len(args) == 0:
		return a.payload(file, "the VM")
	case cmd.Flags().Changed("file"):
		return nil, misused("-f FILE and PROPERTY=VALUE are two ways to say it")
	}
	var o ordjson.Members
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, vmadmError{code: exitUsage, text: "Bad arguments: unable to split " + arg}
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		v, err := valueOf(text)
		if err != nil {
			return nil, misused("%s: %w", name, err)
		}
		o = append(o, ordjson.Member{Name: name, Value: v})
	}
	return ordjson.Value{Kind: ordjson.Object, Members: o}.AppendJSON(nil), nil
}

// checkName refuses a name with a character that no property's name has. vmadm and meta9d
// would make a property of it, which nobody who writes tags.role=web wants.
func checkName(name string) error {
	switch in, _, dotted := strings.Cut(name, "."); {
	case strings.HasPrefix(name, "{"):
		return fmt.Errorf("%.40q begins a JSON payload: give it in a file by -f, or on standard input", name)
	case dotted:
		return fmt.Errorf("%q is no property; what is inside %s is changed by %s", name, in, editsOf(in))
	case strings.ContainsFunc(name, notInName):
		return fmt.Errorf("%q is no property: its name has letters, digits, _ and -", name)
	}
	for _, verb := range []string{"set_", "add_", "remove_", "update_"} {
		if strings.HasPrefix(name, verb) && !slices.Contains(payload.Edits(), name) {
			return fmt.Errorf("%s: there is no such change%s", name, didYouMean(name, payload.Edits()))
		}
	}
	return nil
}

func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
}

// editsOf names the members that change what is in a property.
func editsOf(property string) string {
	var names []string
	for _, name := range payload.Edits() {
		if strings.HasSuffix(name, "_"+property) {
			names = append(names, name)
		}
	}
	if names == nil {
		return "giving the whole of it"
	}
	return strings.Join(names, ", ")
}

// wrapped is the words, separated by commas, in lines of so many columns.
func wrapped(words []string, columns int) string {
	var b strings.Builder
	at := 0
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		switch {
		case at > 0 && at+1+len(word) > columns:
			b.WriteByte('\n')
			at = 0
		case at > 0:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String()
}

// valueOf is the value for a text: JSON where it is an object or a list, else the text,
// which the server turns into the property's kind.
func valueOf(text string) (ordjson.Value, error) {
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		return ordjson.Parse([]byte(text))
	}
	return ordjson.Str(text), nil
}
