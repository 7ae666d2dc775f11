package payload

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// TestTable holds the table of properties to testdata/vmadm-props.json.
func TestTable(t *testing.T) {
	b, err := os.ReadFile("testdata/vmadm-props.json")
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		Type           string
		Create, Update any
		Required       map[string][]string
		Min, Max       *float64
		Default        any
	}
	var want struct {
		Brands     []string
		Properties map[string]record
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]kind{
		"string": textKind, "zpool": textKind, "uuid": uuidKind, "boolean": boolKind, "integer": integerKind,
		"list": listKind, "flat-object": flatKind, "object-array": objectsKind,
	}
	set := func(of any) (b brands) {
		if of == "all" {
			return all
		}
		for _, name := range of.([]any) {
			b |= brandNamed[name.(string)]
		}
		return b
	}
	if len(properties) != len(want.Properties) || len(want.Brands) != len(brandNamed) {
		t.Errorf("%d properties and %d brands, want %d and %d", len(properties), len(brandNamed), len(want.Properties), len(want.Brands))
	}
	for name, w := range want.Properties {
		p := property{kind: kinds[w.Type], create: set(w.Create), update: set(w.Update), none: w.Type == "integer" && w.Default == "none"}
		for brand := range w.Required {
			p.required |= brandNamed[brand]
		}
		if w.Min != nil {
			p.min = int64(*w.Min)
		}
		if w.Max != nil {
			p.max = int64(min(*w.Max, math.MaxInt64-1023)) // the next float64 is past an int64
		}
		got, known := properties[name]
		if got.max == math.MaxInt64 {
			got.max = math.MaxInt64 - 1023
		}
		if !known || got != p {
			t.Errorf("%s is %+v, want %+v", name, got, p)
		}
	}
}
