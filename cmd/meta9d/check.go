package main

import (
	"fmt"
	"io"

	"meta9/fs/store"
)

// checked is what --check-config says of settings in which nothing is wrong.
func (c command) checked() string {
	if c.config.Cluster.off() {
		return "the settings can be used"
	}
	return "nothing is wrong in the settings and the files that they name; whether etcd can be used a start finds out: it was not asked"
}

// check walks a data folder, prints every damaged record and a summary. The error
// says that there is damage, or that the folder cannot be read.
func check(dir string, out io.Writer) error {
	if dir == "" {
		return misused("--check: --data \"\" keeps nothing that could be damaged")
	}
	e, err := openToRead("data", dir)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }() // it was read only
	var said error                   // the first error of writing to out
	say := func(format string, args ...any) {
		if _, err := fmt.Fprintf(out, format, args...); said == nil {
			said = err
		}
	}
	st, err := store.Check(e, func(d store.Damage) { say("%v\n", d) })
	say("%d VMs, %d keys, %d bytes; %d damaged\n", st.VMs, st.Keys, st.Bytes, st.Damaged)
	switch {
	case err != nil:
		return fmt.Errorf("data folder %s: %d damaged; %w", dir, st.Damaged, err)
	case st.Damaged > 0:
		return fmt.Errorf("%s: %d damaged; --salvage starts without them", dir, st.Damaged)
	}
	return said
}
