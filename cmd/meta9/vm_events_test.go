package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

const vectors = "../../mdbridge/vminfo/testdata/"

// TestEventLines: the recorded stream, printed, is what was recorded beside it.
func TestEventLines(t *testing.T) {
	stream, err := os.ReadFile(vectors + "vminfod-events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	cli, err := os.ReadFile(vectors + "vmadm-cli.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(cli), "vminfod-events.ndjson\n")
	var got []byte
	for line := range bytes.Lines(stream) {
		ev, err := vminfo.ParseEvent(bytes.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, eventOptions{}.lines(ev)...)
	}
	date := regexp.MustCompile(`(?m)^\[[0-9:.]+Z\]`)
	wanted := strings.TrimSpace(date.ReplaceAllString(want, "[D]"))
	printed := date.ReplaceAllString(string(got), "[D]")
	if wanted == "" {
		t.Fatal("nothing was recorded")
	}
	if !strings.HasPrefix(printed, wanted) {
		t.Error(cmp.Diff(wanted, printed))
	}
	if rest := strings.TrimSpace(strings.TrimPrefix(printed, wanted)); rest != "[D] 11111111 - delete" {
		t.Errorf("after what was recorded: %q", rest)
	}
}

// TestEventOfNewOrder: a modify without changes is a line, too.
func TestEventOfNewOrder(t *testing.T) {
	const head = `{"type":"modify","date":"2026-11-21T05:02:14.167Z","zonename":"z-1","uuid":"u","vm":{"alias":"a"}`
	ev, err := vminfo.ParseEvent([]byte(head + `,"changes":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(eventOptions{}.lines(ev)); got != "[05:02:14.167Z] z a modify\n" {
		t.Errorf("%q", got)
	}
}

// TestColours: they are there for a terminal, and move no column.
func TestColours(t *testing.T) {
	on, off := tableOptions{colours: true}, tableOptions{}
	for state, colour := range map[string]string{"running": green, "failed": red, "stopped": ""} {
		o, err := ordjson.Parse([]byte(`{"uuid":"u","state":"` + state + `","alias":"running"}`))
		if err != nil {
			t.Fatal(err)
		}
		order, vms := []string{"uuid", "state", "alias"}, []listed{listed(o.Members)}
		plain := string(off.table(order, vms))
		want := strings.Replace(plain, " "+state, " "+paint(colour, state), 1)
		if got := string(on.table(order, vms)); got != want || strings.Contains(plain, "\x1b") || !strings.Contains(plain, "\nu ") {
			t.Errorf("%q, without colours %q", got, plain)
		}
	}
	ev := &vminfo.Event{Type: vminfo.Delete, Zonename: "z"}
	if got := string(eventOptions{colours: true}.lines(ev)); !strings.HasSuffix(got, "z - \x1b[31mdelete\x1b[0m\n") {
		t.Errorf("%q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if (&app{tty: true}).coloured() || (&app{}).coloured() {
		t.Error("colours that nobody wants")
	}
}
