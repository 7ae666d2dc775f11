//go:build !guest && !plan9

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/session/client"
)

// exportFormat is the one that is read: see docs/operator.md.
const exportFormat = 1

// newExport is `meta9 export`.
func newExport(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "export [-f FILE] [VM]...",
		Short: "write VMs as lines of JSON, for 'meta9 import'",
		Long: `Write the VMs (UUIDs or aliases), or all, as they are at one moment: a line of JSON for
each, with all its properties and keys, and of each key its mode, when it was changed and
by whom. The first line says the format, the last that all is there. Passwords are in it:
FILE gets mode 0600, and its name when all is written and synced; one that is there
already is left alone. Without FILE it goes to standard output.
The command wants meta9d's own host, since it asks at RUN/vminfo.sock. For a whole host
'meta9 backup' is faster, and keeps revisions and qids; an export can be read, changed,
and put into a meta9d that has other VMs.`,
		Example: `meta9 export -f /root/web0.jsonl web0
meta9 export | ssh other meta9 import --skip-existing
meta9 export | jq -r '.vm.alias // empty'`,
		ValidArgsFunction: a.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > maxExported {
				return misused("%d VMs are named, and %d is the most: without names all are exported", len(args), maxExported)
			}
			query, err := a.exportQuery(cmd, args)
			if err != nil {
				return err
			}
			path := "/export" + query
			if file == "" {
				return a.printExport(cmd.Context(), path)
			}
			n := 0
			err = a.save(cmd.Context(), path, file, func(file string) error {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				return readExport(f, func(exported) error { n++; return nil })
			})
			if err == nil {
				fmt.Fprintf(a.err, "%s: %d VMs\n", file, n)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "write to `FILE`, which must not be there yet")
	return cmd
}

// maxExported is how many VMs can be named: 40 bytes each in the head of a request, of which
// meta9d takes 1 MiB.
const maxExported = 20_000

// exportQuery names the VMs, by their UUIDs.
func (a *app) exportQuery(cmd *cobra.Command, names []string) (query string, err error) {
	if len(names) == 0 {
		return "", nil
	}
	asked := url.Values{}
	err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
		for _, name := range names {
			uuid, _, err := findVM(ctx, c, name)
			if err != nil {
				return err
			}
			asked.Add("vm", uuid)
		}
		return nil
	})
	return "?" + asked.Encode(), err
}

// printExport copies it to standard output, and says when it does not come whole.
func (a *app) printExport(ctx context.Context, path string) error {
	from, err := a.openHTTP(ctx, path)
	if err != nil {
		return err
	}
	defer from.Close()
	return readExport(io.TeeReader(from, a.out), func(exported) error { return nil })
}

// exported is one VM of an export: its line, and what it is.
type exported struct {
	line        []byte // valid until the next one is read
	uuid, alias string
}

// maxExportLine bounds one VM in an export, in bytes: more than any meta9d takes.
const maxExportLine = 256 << 20

// readExport reads an export and gives each VM to take. Where it is not whole, or of
// another format, the error says so; what came before was given already.
func readExport(from io.Reader, take func(exported) error) error {
	lines := bufio.NewReaderSize(from, 64<<10)
	line, err := readLine(lines)
	var head struct {
		Format  *int   `json:"meta9_export"`
		Version string `json:"version"`
		VMs     int    `json:"vms"`
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if json.Unmarshal(line, &head) != nil || head.Format == nil {
		return errors.New("it is no export: its first line does not say meta9_export")
	}
	if *head.Format != exportFormat {
		return fmt.Errorf("it is an export of format %d, made by meta9d %s, and this meta9 reads format %d: use a meta9 and a meta9d of that version", *head.Format, head.Version, exportFormat)
	}
	for n := 0; ; n++ {
		line, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("line %d: %w", n+2, err)
		}
		if len(line) == 0 {
			return fmt.Errorf("it is cut or damaged after %d of %d VMs", n, head.VMs)
		}
		// Maps, since a VM may have properties that differ from others in case alone ("Alias"),
		// and the members of a struct are found without regard to case.
		var is map[string]json.RawMessage
		if err := json.Unmarshal(line, &is); err != nil {
			return fmt.Errorf("it is cut or damaged after %d of %d VMs: line %d: %w", n, head.VMs, n+2, err)
		}
		if text, ok := is["end"]; ok {
			var end int
			if err := json.Unmarshal(text, &end); err != nil || end != n || head.VMs != n {
				return fmt.Errorf("%d VMs are in it, and it had %d", n, max(end, head.VMs))
			}
			return nil
		}
		var of map[string]json.RawMessage
		if json.Unmarshal(is["vm"], &of) != nil || of == nil {
			return fmt.Errorf("line %d is no VM", n+2)
		}
		var given, alias string
		_, _ = json.Unmarshal(of["uuid"], &given), json.Unmarshal(of[vm.PropAlias], &alias) // "" is no UUID
		uuid, err := vm.ParseUUID(given)
		if err != nil {
			return fmt.Errorf("line %d: %w", n+2, err)
		}
		if err := take(exported{line, uuid, alias}); err != nil {
			return err
		}
	}
}

// readLine reads one line, without its end.
func readLine(from *bufio.Reader) (line []byte, err error) {
	for {
		part, err := from.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxExportLine:
			return nil, fmt.Errorf("longer than %d bytes", maxExportLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == nil:
			line = line[:len(line)-1]
		}
		return line, err
	}
}
