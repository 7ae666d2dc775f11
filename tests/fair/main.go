// Command fair measures what one hostile VM does to all others: 100 honest
// guests, each with one Tsread and one durable Tswrite every 100 ms, are
// measured alone, while one VM with 64 connections attacks their meta9d, and while
// the same attack goes to a second meta9d on the same machine. The second one is
// the control: what an attack costs others as a process that is busy is nobody's
// fault.
//
// A round measures the three one after the other; a figure is the median of the
// rounds. With r = the p50 under attack / the p50 alone, r must be at most twice the
// control's, and the p99 at most twice the control's or 10 ms. The honest rate
// is printed too, since to slow everybody down is no answer, and the largest growth
// of the attacked meta9d's memory.
//
// With -siege all attacks go on at once, each by a VM of its own: meta9d must live with
// 8 GiB of address space, serve the guests, and grow by no more than siegeMemory.
//
// The attack runs in a process of its own (this program again, with -attack), so
// that it cannot slow down the clock. A new attack is a new value in attacks.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	attacks string
	guests  int
	rounds  int
	time    time.Duration
	meta9d  string
	dir     string
	config  string
	siege   time.Duration
	check   bool
	verbose bool
	attack  string // be the attacker
	socket  string // where the VM's sockets are
}

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case err != nil:
		os.Exit(2) // flag has said what
	case o.attack != "":
		err = attackFor(o.attack, o.socket, os.Stdin, os.Stdout)
	default:
		err = run(o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fair:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("fair", flag.ContinueOnError)
	f.StringVar(&o.attacks, "attacks", "", "run only these, by commas: "+strings.Join(attackNames(), ","))
	f.IntVar(&o.guests, "guests", 100, "how many honest guests there are")
	f.IntVar(&o.rounds, "rounds", 5, "rounds whose median is a figure")
	f.DurationVar(&o.time, "time", 2*time.Second, "how long the guests are measured, three times a round")
	f.StringVar(&o.meta9d, "meta9d", "", "the meta9d to measure (default: built from the tree)")
	f.StringVar(&o.dir, "dir", "", "where data folders are made (default: the system's temporary folder)")
	f.StringVar(&o.config, "config", "", "TOML for both meta9d, such as 'limits.vm_batch = \"16KiB\"'")
	f.DurationVar(&o.siege, "siege", 0, "instead: all attacks at once on one meta9d with 8 GiB of address space, each by a VM of its own, for so long")
	f.BoolVar(&o.check, "check", false, "exit 1 when a bar is missed")
	f.BoolVar(&o.verbose, "v", false, "print the figures of each round")
	f.StringVar(&o.attack, "attack", "", "be the attacker of this name, until standard input ends (fair runs itself so)")
	f.StringVar(&o.socket, "socket", "", "with -attack: the folder of the VM's sockets")
	err := f.Parse(args)
	return o, err
}

// run measures the attacks that were asked for and prints the table.
func run(o options, out io.Writer) error {
	var chosen []attack
	for _, a := range attacks {
		if o.attacks == "" || slices.Contains(strings.Split(o.attacks, ","), a.name) {
			chosen = append(chosen, a)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no such attack; there are %s", strings.Join(attackNames(), ", "))
	}
	if o.siege > 0 {
		return o.besiege(chosen, out)
	}
	fmt.Fprint(out, tableHead)
	missed := 0
	for _, a := range chosen {
		r, err := o.measure(a)
		if err != nil {
			return fmt.Errorf("attack %s: %w", a.name, err)
		}
		fmt.Fprint(out, r.row())
		if len(r.misses(strict)) > 0 {
			missed++
		}
	}
	if o.check && missed > 0 {
		return fmt.Errorf("%d of %d attacks are past a bar", missed, len(chosen))
	}
	return nil
}
