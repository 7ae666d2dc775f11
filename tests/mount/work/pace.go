package work

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

// paceTime is between two lines of Pace.
const paceTime = 20 * time.Millisecond

// Pace [-stop FILE] [-tell FILE] NAME appends the lines 1, 2, 3 ... to a file that stays open, until
// the file of -stop is there, and prints how many there are. The file of -tell has how long the
// longest took, in microseconds, since somebody removed that file last.
func Pace(args []string) error {
	flags := flag.NewFlagSet("pace", flag.ContinueOnError)
	stop := flags.String("stop", "/tmp/stop", "end when this file is there")
	tell := flags.String("tell", "/tmp/pace", "write the longest time to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	f, err := os.OpenFile(flags.Arg(0), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	var longest time.Duration
	for n := 1; ; n++ {
		from := time.Now()
		if _, err := f.WriteString(strconv.Itoa(n) + "\n"); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		took := time.Since(from)
		if _, err := os.Stat(*tell); err != nil || took > longest {
			longest = took
			if err := os.WriteFile(*tell, fmt.Appendln(nil, took.Microseconds()), 0o644); err != nil {
				return err
			}
		}
		if _, err := os.Stat(*stop); err == nil {
			fmt.Println(n)
			return f.Close()
		}
		time.Sleep(paceTime)
	}
}
