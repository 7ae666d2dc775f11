package main

import (
	"strings"
	"testing"
)

// TestTerminalOfHostileNames has a guest's names and values steer a terminal, by every
// command that prints them: nothing but our own colours reaches it.
func TestTerminalOfHostileNames(t *testing.T) {
	const clear = "\u001b[2J\u009b31m\u202e"
	w := newWorld(t)
	w.must(`{"alias": "web", "nested": "`+`\u001b[2J\u009b31m\u202e`+`"}`, "vm", "update", testVM)
	w.must(clear, "put", "vms/"+testVM+"/keys/motd")
	ctrl, tty := openPTY(t)
	s := watch(ctrl)
	folder := "vms/" + testVM
	for _, args := range [][]string{
		{"cat", folder + "/keys/motd"},
		{"cat", folder + "/vm.json"},
		{"vm", "get", testVM},
		{"vm", "list", "-o", "uuid,alias"},
		{"ls", "-l", folder + "/keys"},
		{"stat", folder + "/keys/motd"},
		{"stat", folder + "/keys/none" + clear},
	} {
		run(t.Context(), w.args(args), nil, tty, tty)
		if _, err := tty.WriteString("END-OF-COMMAND\n"); err != nil {
			t.Fatal(err)
		}
	}
	s.shows(t, "END-OF-COMMAND", 7)
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := s.buf.String()
	for _, bad := range []string{"\u001b[2J", "\u009b", "\u202e"} {
		if strings.Contains(shown, bad) {
			t.Errorf("the terminal was sent %q", bad)
		}
	}
	if want := `\u001b[2J\u009b31m\u202e`; strings.Count(shown, want) < 3 {
		t.Errorf("%s is not shown by cat and vm get: %q", want, shown)
	}
}
