package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vmadmProps are facts of vmadm: its properties, its columns.
const vmadmProps = "../../fs/vm/payload/testdata/vmadm-props.json"

// TestColumns: a table has vmadm's columns, no more and no less.
func TestColumns(t *testing.T) {
	text, err := os.ReadFile(vmadmProps)
	if err != nil {
		t.Fatal(err)
	}
	var facts struct{ List map[string][2]any }
	if err := json.Unmarshal(text, &facts); err != nil {
		t.Fatal(err)
	}
	want := map[string]column{}
	for name, c := range facts.List {
		want[name] = column{c[0].(string), int(c[1].(float64))}
	}
	if diff := cmp.Diff(want, columns, cmp.AllowUnexported(column{})); diff != "" || len(want) == 0 {
		t.Errorf("(-vmadm +meta9):\n%s", diff)
	}
}
