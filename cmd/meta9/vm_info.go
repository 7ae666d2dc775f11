package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// infoAll asks for every type that the VM's hypervisor knows.
const infoAll = "all"

// infoTypes are what vmadm info tells of, by the QMP commands that do.
var infoTypes = []struct {
	name, command string
	make          func(ordjson.Value) ordjson.Value // of what QEMU returns; nil: as it is
}{
	{"block", "query-block", nil},
	{"blockstats", "query-blockstats", nil},
	{"chardev", "query-chardev", nil},
	{"cpus", "query-cpus-fast", nil},
	{"kvm", "query-kvm", nil},
	{"pci", "query-pci", nil},
	{"spice", "query-spice", spiceInfo},
	{"status", "query-status", nil},
	{"version", "query-version", nil},
	{"vnc", "query-vnc", vncInfo},
}

func infoNames() []string {
	names := []string{infoAll}
	for _, t := range infoTypes {
		names = append(names, t.name)
	}
	return names
}

func newVMInfo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "info VM [TYPE,...]",
		Short: "print what a VM's hypervisor says of it",
		Long: `Ask the VM's QEMU, and print a JSON object with a member for each type. The types, by
commas or blanks:
` + wrapped(infoNames(), 80) + `.

Without one it is all, which leaves out what this QEMU does not know. vnc and spice
have host, port and, of vnc, display; a unix socket has path. The others are as QEMU
returns them.`,
		Example: `meta9 vm info 550e8400-e29b-41d4-a716-446655440000 status,vnc`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeVM(cmd, args, typed)
			}
			return infoNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := a.uuidArg(cmd, args)
			if err != nil {
				return err
			}
			types, err := readInfoTypes(args[1:])
			if err != nil {
				return err
			}
			var o ordjson.Members
			err = a.inTime(cmd, func(ctx context.Context, c *client.Client) (err error) {
				o, err = info(ctx, c, uuid, types)
				return err
			})
			if err != nil {
				return about(uuid, err)
			}
			return a.printJSON(ordjson.Value{Kind: ordjson.Object, Members: o}.AppendJSON(nil))
		},
	}
}

// readInfoTypes are the types that the arguments name; nil: all.
func readInfoTypes(args []string) (types []string, err error) {
	for _, arg := range args {
		for name := range strings.SplitSeq(arg, ",") {
			if !slices.Contains(infoNames(), name) {
				hint := didYouMean(name, infoNames())
				if hint == "" {
					hint = "; there are " + strings.Join(infoNames(), ", ")
				}
				return nil, vmadmError{code: exitUsage, text: "Invalid info type: " + name + hint}
			}
			types = append(types, name)
		}
	}
	if slices.Contains(types, infoAll) {
		return nil, nil
	}
	return types, nil
}

// info asks for the types, through the VM's ctl.
func info(ctx context.Context, c *client.Client, uuid string, types []string) (o ordjson.Members, err error) {
	ctl, err := c.OpenFile(ctx, vmPath(uuid, "ctl"), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	var off int64
	for _, t := range infoTypes {
		if types != nil && !slices.Contains(types, t.name) {
			continue
		}
		answer, err := passQMP(ctx, ctl, &off, t.command)
		var failed *client.Error
		switch {
		case err == nil:
			if t.make != nil {
				answer = t.make(answer)
			}
			o = append(o, ordjson.Member{Name: t.name, Value: answer})
		case types == nil && errors.As(err, &failed) && strings.Contains(err.Error(), notKnown):
		default:
			return nil, err
		}
	}
	return o, nil
}

// notKnown is what QEMU says of a command that it was built without.
const notKnown = "has not been found"

// passQMP runs a QMP command by the verb qmp of an open ctl, and reads what QEMU
// returned. off is where the next write and read are.
func passQMP(ctx context.Context, ctl *client.File, off *int64, command string) (ordjson.Value, error) {
	n, err := ctl.WriteAt(ctx, []byte(`qmp {"execute":"`+command+`"}`+"\n"), *off)
	*off += int64(n)
	if err != nil {
		return ordjson.Value{}, err
	}
	text, err := readAnswer(ctx, ctl, *off)
	*off += int64(len(text))
	if err != nil {
		return ordjson.Value{}, err
	}
	var answer struct{ Return json.RawMessage }
	if err := json.Unmarshal(text, &answer); err != nil {
		return ordjson.Value{}, fmt.Errorf("%s: the answer is not JSON: %w", command, err)
	}
	v, err := ordjson.Parse(answer.Return)
	if err != nil {
		return v, fmt.Errorf("%s: %w", command, err)
	}
	return v, nil
}

// readAnswer reads what an open ctl or txn has answered, from off on.
func readAnswer(ctx context.Context, f *client.File, off int64) (text []byte, err error) {
	for buf := make([]byte, 64<<10); ; {
		n, err := f.ReadAt(ctx, buf, off+int64(len(text)))
		text = append(text, buf[:n]...)
		switch {
		case errors.Is(err, io.EOF), err == nil && n == 0:
			return text, nil
		case err != nil:
			return text, err
		}
	}
}

// vncInfo is query-vnc's answer as vmadm has it: display is the port from 5900 on.
func vncInfo(v ordjson.Value) ordjson.Value {
	family, _ := v.Members.Get("family")
	host, there := v.Members.Get("host")
	service, _ := v.Members.Get("service")
	port, err := strconv.Atoi(service.Text)
	var o ordjson.Members
	switch {
	case !there:
		return v // it is off
	case family.Text == "unix":
		o = append(o, ordjson.Member{Name: "path", Value: ordjson.Str(cmp.Or(service.Text, host.Text))})
	case err != nil:
		return v
	default:
		const first = 5900
		o = append(o, ordjson.Member{Name: "host", Value: host}, numberOf("port", port), numberOf("display", port-first))
	}
	return ordjson.Value{Kind: ordjson.Object, Members: o}
}

// spiceInfo is query-spice's answer with what vmadm has of it.
func spiceInfo(v ordjson.Value) ordjson.Value {
	var o ordjson.Members
	for _, name := range []string{"host", "port", "tls-port"} {
		if m, ok := v.Members.Get(name); ok {
			o = append(o, ordjson.Member{Name: name, Value: m})
		}
	}
	if o == nil {
		return v // it is off
	}
	return ordjson.Value{Kind: ordjson.Object, Members: o}
}

func numberOf(name string, n int) ordjson.Member {
	return ordjson.Member{Name: name, Value: ordjson.Value{Kind: ordjson.Number, Text: strconv.Itoa(n)}}
}
