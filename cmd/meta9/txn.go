package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// newTxn is `meta9 txn`.
func newTxn(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "txn [VM] [-f FILE]",
		Short: "change several keys at once, or none",
		Long: `Do the one transaction that FILE or standard input has, a JSON object. Where each
condition of "if" holds, all of "do" happens in one commit; else nothing does, and the
exit code is 5.

Format:
  {"if": [{"key":"a","version":7}, {"key":"b","absent":true}, {"key":"c","value":"x"}],
   "do": [{"put":"a","value":"1"}, {"put":"bin","base64":"AAE="},
          {"append":"log","value":"x\n"}, {"remove":"e"}, {"rename":"c","to":"d"}]}

A condition may ask for the key's version or rev (its revision), its value (or base64),
or that it is absent; with none of these, that it is there. append makes a key that is
not there; rename replaces what has the new name. "space":"internal" in an entry means
internal/ instead of keys/. The whole has at most 1 MiB.

VM is a UUID or an alias; a guest has one VM only, and names none. What is printed is
a JSON object with the revision of the change, and the new version and revision of
each key.`,
		Example: `echo '{"do": [{"put":"cert","value":"..."}, {"put":"key","value":"..."}]}' | meta9 txn web0
meta9 txn web0 -f change.json
meta9 --addr unix:/run/meta9/UUID/9p.sock txn -f change.json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			line, err := a.payload(file, "the transaction")
			if err != nil {
				return err
			}
			name := "txn"
			if len(args) == 1 {
				name = vmFile(args[0], "txn")
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				txn, err := c.OpenFile(ctx, name, os.O_RDWR)
				switch {
				case errors.Is(err, errs.NotFound) && len(args) == 1:
					return fmt.Errorf("there is no VM %s", args[0])
				case errors.Is(err, errs.NotFound):
					return errors.New("which VM? Its UUID or alias comes after txn, but in a guest")
				case err != nil:
					return err
				}
				defer txn.Close()
				return a.transact(ctx, txn, append(line, '\n'))
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the transaction from `FILE` (default: standard input)")
	return cmd
}

// vmFile is the path of a file of the VM, of which the UUID or the alias is given.
func vmFile(name, file string) string {
	if uuid, err := vm.ParseUUID(name); err == nil {
		return vmPath(uuid, file)
	}
	return path.Join("names", vm.FileName(name), file)
}

// transact writes a line to an open txn, and prints what the file answers.
func (a *app) transact(ctx context.Context, txn *client.File, line []byte) error {
	for off := 0; off < len(line); {
		n, err := txn.WriteAt(ctx, line[off:], int64(off))
		if err != nil {
			return err
		}
		off += n
	}
	answer, err := readAnswer(ctx, txn, int64(len(line)))
	if err != nil {
		return fmt.Errorf("it is done, but what it gave could not be read: %w", err)
	}
	return a.printJSON(answer)
}

// condition is what must hold of the key for a put to replace it. What is "", is not asked,
// but a value: that one may be "".
type condition struct {
	absent   bool
	version  string
	rev      string
	value    string
	hasValue bool
}

// flags adds those of `meta9 put`.
func (c *condition) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&c.absent, "if-absent", false, "only if there is no such key")
	f.StringVar(&c.version, "if-version", "", "only if the key has the version `N`, the second number of the qid that meta9 stat shows")
	f.StringVar(&c.rev, "if-rev", "", "only if the key has the revision `N`, which events and meta9 txn show")
	f.StringVar(&c.value, "if-value", "", "only if the key has the `VALUE`")
}

// given tells whether there is any condition, when the flags were read.
func (c *condition) given(cmd *cobra.Command) (bool, error) {
	f := cmd.Flags()
	for name, text := range map[string]string{"if-version": c.version, "if-rev": c.rev} {
		if f.Changed(name) && text == "" {
			return false, misused("--%s \"\": it is a number", name)
		}
	}
	c.hasValue = f.Changed("if-value")
	return c.absent || c.ofKey(), nil
}

// ofKey tells whether there is a condition that needs the key to exist.
func (c *condition) ofKey() bool { return c.version != "" || c.rev != "" || c.hasValue }

// txn is a put of the value under the condition: the path of the VM's txn file, and the
// line to write to it.
func (c *condition) txn(file string, value []byte) (name string, line []byte, err error) {
	dir, base := path.Split(path.Clean(file))
	up, space := path.Split(path.Clean(dir))
	key, err := vm.KeyName(base)
	switch {
	case err != nil:
		return "", nil, err
	case c.absent && c.ofKey():
		return "", nil, misused("--if-absent wants no key, and the other conditions want one")
	case space != vm.Keys.String() && space != vm.Internal.String():
		return "", nil, misused("%s: a condition can be asked of a key in keys/ or internal/ only", file)
	}
	cond := ordjson.Members{{Name: "key", Value: ordjson.Str(key)}, {Name: "space", Value: ordjson.Str(space)}}
	if c.absent {
		cond = append(cond, ordjson.Member{Name: "absent", Value: ordjson.Value{Kind: ordjson.True}})
	}
	for _, asked := range [...]struct{ name, text string }{{"version", c.version}, {"rev", c.rev}} {
		if asked.text == "" {
			continue
		}
		n, err := strconv.ParseUint(asked.text, 10, 64)
		if err != nil {
			return "", nil, misused("--if-%s %q: it is a number", asked.name, asked.text)
		}
		number := ordjson.Value{Kind: ordjson.Number, Text: strconv.FormatUint(n, 10)}
		cond = append(cond, ordjson.Member{Name: asked.name, Value: number})
	}
	if c.hasValue {
		cond = append(cond, valueMember(c.value))
	}
	put := ordjson.Members{
		{Name: "put", Value: ordjson.Str(key)}, {Name: "space", Value: ordjson.Str(space)}, valueMember(string(value)),
	}
	list := func(o ordjson.Members) ordjson.Value {
		return ordjson.Value{Kind: ordjson.Array, Items: []ordjson.Value{{Kind: ordjson.Object, Members: o}}}
	}
	txn := ordjson.Members{{Name: "if", Value: list(cond)}, {Name: "do", Value: list(put)}}
	line = txn.AppendJSON(nil)
	if len(line) > vm.MaxTxn {
		return "", nil, fmt.Errorf("%s: a put under a condition is a transaction, and as one this is %d bytes of JSON; %d is the limit", file, len(line), vm.MaxTxn)
	}
	return path.Join(up, "txn"), line, nil
}

// valueMember is the member for a value in a transaction: as text or in base64, whichever
// is shorter.
func valueMember(value string) ordjson.Member {
	text := ordjson.Member{Name: "value", Value: ordjson.Str(value)}
	if utf8.ValidString(value) && len(text.Value.AppendJSON(nil)) <= base64.StdEncoding.EncodedLen(len(value)) {
		return text
	}
	return ordjson.Member{Name: "base64", Value: ordjson.Str(base64.StdEncoding.EncodeToString([]byte(value)))}
}
