package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"text/tabwriter"
	"time"
)

// result is a row with its figures, as it is printed and written as JSON.
type result struct {
	Row    string    `json:"row"`
	Title  string    `json:"title"`
	Unit   string    `json:"unit"`
	Base   string    `json:"base,omitempty"` // what ratios are of
	Pinned bool      `json:"pinned"`         // server and load had a CPU each
	Lines  []line    `json:"figures"`
	Bars   []verdict `json:"bars"`
}

// line is the median figure of one entry.
type line struct {
	Entry string        `json:"entry"`
	Value float64       `json:"value"`
	P50   time.Duration `json:"p50_ns,omitempty"`
	P99   time.Duration `json:"p99_ns,omitempty"`
	Ratio float64       `json:"ratio,omitempty"`

	Unpinned      float64 `json:"unpinned,omitempty"` // Value and Ratio where nothing was pinned
	UnpinnedRatio float64 `json:"unpinned_ratio,omitempty"`
}

func (r result) missed() (n int) {
	for _, v := range r.Bars {
		if v.State == "MISSED" {
			n++
		}
	}
	return n
}

// print writes the row as a part of the table.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Row, r.Title)
	if len(r.Lines) == 0 {
		return // -only left none
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	ratio := ""
	if r.Base != "" && r.Lines[0].Ratio != 0 {
		ratio = "of " + r.Base
	}
	fmt.Fprintf(t, "\t%s\tp50\tp99\t%s\t", r.Unit, ratio)
	if r.Pinned {
		fmt.Fprintf(t, "unpinned\t%s\t", ratio)
	}
	fmt.Fprintln(t)
	for _, l := range r.Lines {
		fmt.Fprintf(t, "%s\t%.*f\t%s\t%s\t%s\t", l.Entry, decimals(l.Value), l.Value, short(l.P50), short(l.P99), optional(l.Ratio))
		if r.Pinned {
			fmt.Fprintf(t, "%.*f\t%s\t", decimals(l.Unpinned), l.Unpinned, optional(l.UnpinnedRatio))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	for _, v := range r.Bars {
		fmt.Fprintf(w, "  bar: %s: %s\n", v.Entry, v)
	}
}

func decimals(v float64) int {
	if v < 100 {
		return 2
	}
	return 0
}

func short(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.Round(time.Microsecond / 10).String()
}

func optional(ratio float64) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", ratio)
}

// writeJSON writes all figures to o.out, if that is wanted.
func writeJSON(o options, results []result) error {
	if o.out == "" {
		return nil
	}
	b, err := json.MarshalIndent(map[string]any{
		"cpus": runtime.NumCPU(), "go": runtime.Version(), "rounds": o.rounds,
		"seconds": o.time.Seconds(), "time": time.Now().UTC().Format(time.RFC3339), "rows": results,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.out, append(b, '\n'), 0o644)
}
