package version

import (
	"runtime/debug"
	"testing"
)

func TestOf(t *testing.T) {
	for _, tt := range []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"v1.2.3", nil, "v1.2.3"},
		{"v0.0.0-20261121144655-b9f6d0da680b+dirty", nil, "v0.0.0-20261121144655-b9f6d0da680b+dirty"},
		{"(devel)", nil, "(unknown)"},
		{"", nil, "(unknown)"},
		{"(devel)", []debug.BuildSetting{{Key: "vcs.revision", Value: "b9f6d0da680bc0a368e9b0137fa8ddb03f5fd917"}, {Key: "vcs.modified", Value: "false"}}, "(commit b9f6d0da680b)"},
		{"", []debug.BuildSetting{{Key: "vcs.modified", Value: "true"}, {Key: "vcs.revision", Value: "b9f6"}}, "(commit b9f6+dirty)"},
	} {
		bi := &debug.BuildInfo{Settings: tt.settings}
		bi.Main.Version = tt.version
		if got := of(bi); got != tt.want {
			t.Errorf("%q %v: %q, want %q", tt.version, tt.settings, got, tt.want)
		}
	}
}

func TestNamed(t *testing.T) {
	defer func() { named = "" }()
	named = "v9.8.7"
	if got := String(); got != named {
		t.Errorf("got %q", got)
	}
}
