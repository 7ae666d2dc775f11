package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// newVMCreate is `meta9 vm create`. It sends the payload as it is, with what the flags say
// and a uuid added: the server checks what is allowed in it.
func newVMCreate(a *app) *cobra.Command {
	var file string
	var more additions
	cmd := &cobra.Command{
		Use:   "create [-f FILE] [-m KEY=VALUE]... [-M KEY=FILE]... [--user-data FILE] [NAME]",
		Short: "create a VM",
		Long: `Create a VM. NAME is its alias; -m and -M give it keys of customer_metadata. More is said
by a JSON object, which is read from FILE, or from standard input where there is neither
NAME nor a key: uuid, alias, owner_uuid, ram, nics, disks, tags, customer_metadata,
internal_metadata, and whatever else it has. Without a uuid the VM gets a new one, which
is printed. When the command has returned, the VM's sockets are there.`,
		Example: `meta9 vm create web0
meta9 vm create web0 -m role=web -M root_authorized_keys=$HOME/.ssh/id_ed25519.pub --user-data cloud-config.yaml
meta9 vm create -f payload.json
echo '{"alias": "db0", "ram": 4096}' | meta9 vm create -f - -m role=db`,
		Args:              createArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				more.alias = args[0]
			}
			line := []byte("{}")
			if file != "" || more.none() {
				var err error
				if line, err = a.payload(file, "the VM"); err != nil {
					return err
				}
			}
			line, err := more.to(line)
			if err != nil {
				return err
			}
			line, uuid := withUUID(line)
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return verb(ctx, c, "/ctl", "create", line)
			})
			if err == nil {
				fmt.Fprintln(a.err, "Successfully created VM", uuid)
			}
			return about(uuid, err)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "read the payload from `FILE`; - is standard input")
	f.StringArrayVarP(&more.values, "metadata", "m", nil, "give the VM the key of `KEY=VALUE`; may be repeated")
	f.StringArrayVarP(&more.files, "metadata-file", "M", nil, "give the VM the key of `KEY=FILE`, whose value is what FILE has; may be repeated")
	f.StringVar(&more.userData, "user-data", "", "give it what `FILE` has as the key user-data, which is cloud-init's")
	return cmd
}

// createArgs takes a name. Who writes what update takes means a property, and not a VM of that
// name.
func createArgs(cmd *cobra.Command, args []string) error {
	for _, arg := range args {
		switch property, value, is := strings.Cut(arg, "="); {
		case !is:
		case property == vm.PropAlias:
			return misused("%s: NAME alone is the alias: meta9 vm create %s", arg, value)
		default:
			return misused("%s: NAME is the alias; -m %[1]s gives the VM a key, and properties, or an alias that has a =, are in the JSON of -f FILE", arg)
		}
	}
	return cobra.MaximumNArgs(1)(cmd, args)
}

// additions are what the command line adds to a payload.
type additions struct {
	alias         string
	values, files []string // KEY=VALUE, KEY=FILE
	userData      string   // a file
}

func (m *additions) none() bool {
	return m.alias == "" && len(m.values)+len(m.files) == 0 && m.userData == ""
}

// to is the payload with them. A key or an alias that the payload has as well is an error.
func (m *additions) to(line []byte) ([]byte, error) {
	if m.none() {
		return line, nil
	}
	v, err := ordjson.Parse(line)
	if err != nil || v.Kind != ordjson.Object {
		return line, nil // the server says what is wrong
	}
	if m.alias != "" {
		if v.Members.Index(vm.PropAlias) >= 0 {
			return nil, misused("%s: the payload has an alias already", m.alias)
		}
		v.Members = append(v.Members, ordjson.Member{Name: vm.PropAlias, Value: ordjson.Str(m.alias)})
	}
	keys, err := m.keys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if v, err = withKey(v, k.name, k.value); err != nil {
			return nil, err
		}
	}
	return v.AppendJSON(nil), nil
}

// givenKey is a key of the command line.
type givenKey struct{ name, value string }

// keys reads them, in their order.
func (m *additions) keys() (keys []givenKey, err error) {
	for _, text := range m.values {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, misused("-m %s: it is KEY=VALUE", text)
		}
		keys = append(keys, givenKey{name, value})
	}
	files := m.files
	if m.userData != "" {
		files = append(slices.Clone(files), "user-data="+m.userData)
	}
	for _, text := range files {
		name, file, ok := strings.Cut(text, "=")
		if !ok {
			return nil, misused("-M %s: it is KEY=FILE", text)
		}
		value, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if len(value) > maxInput {
			return nil, fmt.Errorf("%s: longer than %d bytes", file, maxInput)
		}
		keys = append(keys, givenKey{name, string(value)})
	}
	return keys, nil
}

// withKey is the payload with one more key; a value that is no text goes in base64.
func withKey(v ordjson.Value, name, value string) (ordjson.Value, error) {
	space := vm.Keys.Member()
	for _, path := range [][]string{{space}, {vm.BinaryMember}, {vm.BinaryMember, space}} {
		at := v
		for _, name := range path {
			at = at.Member(name)
		}
		if at.Kind != ordjson.Null && at.Kind != ordjson.Object {
			return v, misused("the key %s: the payload's %s is no object", name, strings.Join(path, "."))
		}
	}
	for _, in := range []ordjson.Value{v.Member(space), v.Member(vm.BinaryMember).Member(space)} {
		if in.Members.Index(name) >= 0 {
			return v, misused("the key %s is given twice", name)
		}
	}
	if utf8.ValidString(value) {
		return withMember(v, ordjson.Str(value), space, name), nil
	}
	encoded := ordjson.Str(base64.StdEncoding.EncodeToString([]byte(value)))
	return withMember(v, encoded, vm.BinaryMember, space, name), nil
}

// withMember is the object with a member at the path; objects on the way are made.
func withMember(v, value ordjson.Value, path ...string) ordjson.Value {
	if len(path) == 0 {
		return value
	}
	if v.Kind != ordjson.Object {
		v = ordjson.Value{Kind: ordjson.Object}
	}
	below := withMember(v.Member(path[0]), value, path[1:]...)
	members := slices.Clone(v.Members)
	if i := members.Index(path[0]); i >= 0 {
		members[i].Value = below
	} else {
		members = append(members, ordjson.Member{Name: path[0], Value: below})
	}
	v.Members = members
	return v
}

// withUUID gives a payload that has no uuid a new one, as vmadm does. uuid is for
// messages: what is wrong with a payload the server says.
func withUUID(line []byte) (_ []byte, uuid string) {
	v, err := ordjson.Parse(line)
	if err != nil || v.Kind != ordjson.Object {
		return line, "payload"
	}
	given, ok := v.Members.Get("uuid")
	if ok && given.Kind != ordjson.Null && (given.Kind != ordjson.String || given.Text != "") {
		return line, cmp.Or(given.Text, "payload")
	}
	uuid = vm.NewUUID()
	if ok {
		v.Members = v.Members.With("uuid", ordjson.Str(uuid))
	} else {
		v.Members = append(ordjson.Members{{Name: "uuid", Value: ordjson.Str(uuid)}}, v.Members...)
	}
	return v.AppendJSON(nil), uuid
}
