package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"meta9/tests/daemon"
)

// siegeMemory is how much meta9d may grow beside what is stored, however many VMs are
// hostile.
const siegeMemory = 1 << 30

// besiege runs all attacks at once, and measures the guests meanwhile. The error says
// that meta9d has ended, that a guest was refused or that too much memory was taken.
func (o options) besiege(chosen []attack, out io.Writer) error {
	dir, err := os.MkdirTemp(o.dir, "meta9-fair-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.meta9d == "" {
		if o.meta9d, err = daemon.Build(dir, "meta9d"); err != nil {
			return err
		}
	}
	d, err := daemon.Start(daemon.Options{
		Bin: o.meta9d, Dir: dir, Config: o.config,
		Wrap: []string{"sh", "-c", `ulimit -v 8388608 && exec "$@"`, "sh"},
	})
	if err != nil {
		return err
	}
	defer d.Kill()
	vm := func(i int) string { return fmt.Sprintf("99999999-0000-4000-8000-%012d", i) }
	var stored int64
	for i, a := range chosen {
		if err := a.prepare(d, vm(i)); err != nil {
			return fmt.Errorf("the VM of %s: %w", a.name, err)
		}
		stored += a.stores
	}
	g, err := newGuests(d, o.guests)
	if err != nil {
		return err
	}
	defer g.close()
	if err := rest(d); err != nil {
		return err
	}
	before, err := d.Anon()
	if err != nil {
		return err
	}
	alone, err := g.measure(o.time, before)
	if err != nil {
		return err
	}
	for i, a := range chosen {
		by, err := startAttack(a.name, filepath.Dir(d.VM(vm(i))))
		if err != nil {
			return fmt.Errorf("attack %s: %w", a.name, err)
		}
		defer by.kill()
	}
	fmt.Fprintf(out, "%d attacks at once for %v, 8 GiB of address space, %d guests\n", len(chosen), o.siege, o.guests)
	f, err := g.measure(o.siege, before)
	if err != nil {
		return err
	}
	if _, err := d.CPUTime(); err != nil {
		return errors.New("meta9d is gone: " + d.Log())
	}
	print := func(who string, f figures) {
		fmt.Fprintf(out, "%s: read p50, p99 %s, %s ms; write p50, p99 %s, %s ms; %.0f a second; memory %d MiB\n", who,
			ms(f.readP50), ms(f.readP99), ms(f.writeP50), ms(f.writeP99), f.rate, f.memory>>20)
	}
	print("alone", alone)
	print("besieged", f)
	if f.memory > siegeMemory+stored {
		return fmt.Errorf("it grew by %d MiB, %d are allowed", f.memory>>20, (siegeMemory+stored)>>20)
	}
	return nil
}
