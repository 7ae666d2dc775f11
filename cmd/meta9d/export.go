package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"meta9/cmd/version"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// exportFormat is the number in the first line of an export: what `meta9 import` reads.
const exportFormat = 1

// serveExport streams VMs as lines of JSON: those of the query's vm (UUIDs), or all, as
// they are at one moment. The first line says the format, the last that all is there.
func (d *daemon) serveExport(w http.ResponseWriter, r *http.Request) {
	rows, rev, missing := d.exported(r.URL.Query()["vm"])
	if missing != "" {
		http.Error(w, "there is no VM "+missing, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	to := moving{w, http.NewResponseController(w)}
	if err := writeExport(to, rows, rev); err != nil {
		d.log.Error().Err(err).Msg("an export was broken off")
		panic(http.ErrAbortHandler) // the connection ends, so that it is seen at once
	}
}

// exported are the rows of the VMs of these UUIDs, or of all, after one commit; missing is
// one that is not there.
func (d *daemon) exported(uuids []string) (rows []*vm.VM, rev uint64, missing string) {
	wanted := make(map[string]bool, len(uuids))
	for _, uuid := range uuids {
		wanted[uuid] = true
	}
	d.store.Snapshot(func(all []*vm.VM, at uint64) {
		rev = at
		for _, v := range all {
			if len(uuids) == 0 || wanted[v.UUID] {
				rows = append(rows, v)
				delete(wanted, v.UUID)
			}
		}
	})
	for missing = range wanted {
		break
	}
	return rows, rev, missing
}

// writeExport writes the lines; of a VM no more than a piece is in memory.
func writeExport(to io.Writer, rows []*vm.VM, rev uint64) error {
	const piece = 64 << 10
	p := ordjson.NewPieces(make([]byte, 0, 2*piece), piece, func(text []byte) error {
		_, err := to.Write(text)
		return err
	})
	p.Text = fmt.Appendf(p.Text, `{"meta9_export":%d,"version":`, exportFormat)
	p.Value(ordjson.Str(version.String()))
	p.Text = fmt.Appendf(p.Text, `,"date":"%s","rev":%d,"vms":%d}`+"\n", time.Now().UTC().Format(time.RFC3339), rev, len(rows))
	for _, v := range rows {
		p.Text = append(p.Text, `{"vm":`...)
		v.WriteJSON(p, false)
		p.Text = append(p.Text, `,"keys":{`...)
		for s := range vm.NumSpaces {
			p.Text = append(ordjson.AppendName(p.Text, s.Member()), '{')
			for e := range v.Entries(s) {
				p.Text = fmt.Appendf(ordjson.AppendName(p.Text, e.Name), `{"mode":"%04o","mtime":"%s","by":`,
					e.Mode, time.Unix(0, e.Mtime).UTC().Format(time.RFC3339Nano))
				p.Value(ordjson.Str(strings.ToValidUTF8(e.Muid, "?")))
				p.Text = append(p.Text, '}')
				p.Cut()
			}
			p.Text = append(p.Text, '}')
		}
		p.Text = append(p.Text, "}}\n"...)
		p.Cut()
	}
	p.Text = fmt.Appendf(p.Text, `{"end":%d}`+"\n", len(rows))
	if err := p.Err(); err != nil {
		return err
	}
	_, err := to.Write(p.Text)
	return err
}
