package payload

import (
	"maps"
	"slices"

	"meta9/fs/vm"
)

// Edits are the members by which an update changes what is in a property, sorted:
// add_nics, remove_tags, set_routes and so on. Any other member replaces a property.
func Edits() (names []string) {
	props := slices.Collect(maps.Keys(lists))
	for s := range vm.NumSpaces {
		props = append(props, vm.Space(s).Member())
	}
	for _, prop := range append(props, vm.PropTags, vm.PropRoutes) {
		for _, verb := range verbs[1:] {
			if takesVerb(verb, prop) {
				names = append(names, verb+prop)
			}
		}
	}
	slices.Sort(names)
	return names
}
