// Package version says which meta9 this is, for both programs and for QMP.
package version

import "runtime/debug"

// named is set by the linker (make VERSION=v1.2.3), where a build cannot see
// git's history, as a distribution's.
var named string

// String is the tag that the source has, "v1.2.3"; between two tags the next one
// with the time and the commit, "v1.2.4-0.20261121144655-b9f6d0da680b", and before
// the first tag the same with v0.0.0; "+dirty" follows where the source was changed
// since. Where nothing was recorded it says so: "(unknown)".
func String() string {
	if named != "" {
		return named
	}
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return of(bi)
}

// of is the version that the Go toolchain recorded.
func of(bi *debug.BuildInfo) string {
	if v := bi.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "", ""
	for _, s := range bi.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+dirty"
		}
	}
	if revision == "" {
		return "(unknown)"
	}
	return "(commit " + revision[:min(12, len(revision))] + changed + ")"
}
