package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// readers is how many VMs are read at a time.
const readers = 32

// newVMList is `meta9 vm list`, in the columns of `vmadm list`. Other columns,
// filters and forms belong between readVMs and printVMs.
func newVMList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "list VMs",
		Long: `Print a table of the VMs, by RAM and UUID. What a VM does not say is a dash. TYPE is
made of its brand, and RAM is in MiB: ram, or else max_physical_memory.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				vms, err := a.readVMs(ctx, c)
				if err != nil {
					return err
				}
				slices.SortFunc(vms, byRAM)
				return printVMs(a.out, vms)
			})
		},
	}
}

// object is a VM as vm.json has it.
type object map[string]json.RawMessage

// text is a property as a table shows it: a string without its quotes, anything
// else as it is written, a dash for what is not there.
func (o object) text(name string) string {
	raw, ok := o[name]
	var s string
	switch {
	case !ok, string(raw) == "null":
		return "-"
	case json.Unmarshal(raw, &s) == nil:
		return orDash(s)
	}
	return string(raw)
}

// kinds are the types that brands have in tables; of others the brand is shown.
var kinds = map[string]string{"joyent": "OS", "joyent-minimal": "OS", "lx": "LX", "kvm": "KVM", "bhyve": "BHYV"}

// kind is what TYPE shows: no payload has it, so vmadm makes it up from the brand.
func (o object) kind() string {
	brand := o.text("brand")
	return cmp.Or(kinds[brand], brand)
}

// ram is what RAM shows: zones have max_physical_memory in its place.
func (o object) ram() string {
	if ram := o.text("ram"); ram != "-" {
		return ram
	}
	return o.text("max_physical_memory")
}

func byRAM(x, y object) int {
	mib := func(o object) float64 {
		n, _ := strconv.ParseFloat(o.ram(), 64)
		return n
	}
	return cmp.Or(cmp.Compare(mib(x), mib(y)), cmp.Compare(x.text("uuid"), y.text("uuid")))
}

// printVMs prints the table with vmadm's widths, so that scripts that cut columns
// go on working.
func printVMs(w io.Writer, vms []object) error {
	const row = "%-36s  %-4s  %-7s  %-16s  %s\n"
	table := fmt.Appendf(nil, row, "UUID", "TYPE", "RAM", "STATE", "ALIAS")
	for _, o := range vms {
		table = fmt.Appendf(table, row, printable(o.text("uuid")), printable(o.kind()), printable(o.ram()),
			printable(o.text("state")), printable(o.text("alias")))
	}
	_, err := w.Write(table)
	return err
}

// readVMs reads all VMs, several at a time.
func (a *app) readVMs(ctx context.Context, c *client.Client) (vms []object, err error) {
	list, err := c.ReadDir(ctx, vmPath(""))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		mu   sync.Mutex
		all  sync.WaitGroup
		next = make(chan string)
	)
	for range min(readers, len(list)) {
		all.Go(func() {
			for uuid := range next {
				o, err := readVM(ctx, c, uuid)
				if err != nil {
					stop(err)
				}
				if o != nil {
					mu.Lock()
					vms = append(vms, o)
					a.progress.say(fmt.Sprintf("%d of %d VMs", len(vms), len(list)))
					mu.Unlock()
				}
			}
		})
	}
	for _, i := range list {
		next <- i.Name
	}
	close(next)
	all.Wait()
	return vms, context.Cause(ctx)
}

// readVM reads one VM; nil without an error: it was deleted meanwhile.
func readVM(ctx context.Context, c *client.Client, uuid string) (o object, err error) {
	data, err := c.ReadFile(ctx, vmPath(uuid, "vm.json"))
	switch {
	case errors.Is(err, errs.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("%s: the server's JSON: %w", uuid, err)
	}
	return o, nil
}
