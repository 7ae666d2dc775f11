package payload

import (
	"slices"
	"testing"
)

func TestEdits(t *testing.T) {
	all := Edits()
	for _, name := range []string{"add_nics", "update_disks", "remove_filesystems", "set_customer_metadata", "remove_internal_metadata", "set_tags", "remove_routes"} {
		if !slices.Contains(all, name) {
			t.Errorf("no %s in %v", name, all)
		}
	}
	for _, name := range all {
		if verb, prop := splitVerb(name); verb == "" || verb+prop != name {
			t.Errorf("an update takes %s for a property", name)
		}
	}
}
