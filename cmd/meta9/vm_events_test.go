package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/mdbridge/vminfo"
)

const vectors = "../../../shared/vectors/"

// TestEventLines: the recorded stream, printed, is what was recorded beside it.
func TestEventLines(t *testing.T) {
	stream, err := os.ReadFile(vectors + "vminfod-events.ndjson")
	if err != nil {
		t.Skip("no recorded vectors beside the repository")
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
