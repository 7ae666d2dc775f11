package main

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"set_customer_metadata", "set_tags", "add_nics", "stop", "start"}
	for word, want := range map[string]string{
		"set_costumer_metadata": "set_customer_metadata", "set_tag": "set_tags", "add_nisc": "add_nics", "stpo": "stop",
		"satrt": "start", "": "", "x": "", "set_quota": "", "ünïcödé": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q is %q, not %q", word, got, want)
		}
	}
}
