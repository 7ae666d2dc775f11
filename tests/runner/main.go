// Command runner runs the tests as make does, so that nobody has to read all of
// their output to know what was not tested.
//
//	runner test ARGUMENTS       go test ARGUMENTS, with go test's own short output
//	runner sections NAME...     make NAME, one after the other, until one fails
//
// At its end it prints each test that was skipped, with the reason, and how many
// passed, failed and were skipped; after sections also how long each took. A skip
// that is not in skips.txt is a failure. A test that is skipped for the race
// detector's sake runs once more without it, and is not skipped then.
//
// The parts of sections tell each other by files in a folder (EnvResults).
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// EnvResults names the folder to which the runs of sections write their results.
const EnvResults = "META9_TEST_RESULTS"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: runner test ARGUMENTS-OF-GO-TEST | runner sections NAME...")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "test":
		err = test(os.Args[2:])
	case "sections":
		err = sections(os.Args[2:])
	default:
		err = fmt.Errorf("no such command: %s", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
}

// test runs go test once. Within sections they print the summary.
func test(args []string) error {
	r, err := goTest(os.Stdout, args)
	if dir := os.Getenv(EnvResults); dir != "" {
		return errors.Join(err, r.save(dir))
	}
	allowed, listErr := allowedSkips()
	return errors.Join(err, listErr, r.summary(os.Stdout, allowed))
}

// sections runs sections of the Makefile.
func sections(names []string) error {
	dir, err := os.MkdirTemp("", "meta9-results-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	allowed, err := allowedSkips()
	if err != nil {
		return err
	}
	var took []string
	begin := time.Now()
	for _, name := range names {
		fmt.Printf("== %s (%s)\n", name, time.Now().UTC().Format(time.TimeOnly))
		start := time.Now()
		cmd := exec.Command("make", "--no-print-directory", name)
		cmd.Env = append(os.Environ(), EnvResults+"="+dir)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		ran := cmd.Run()
		took = append(took, fmt.Sprintf("%-12s %5.0f s", name, time.Since(start).Seconds()))
		if ran != nil {
			err = fmt.Errorf("make %s: %w", name, ran)
			break
		}
	}
	fmt.Println("== time")
	for _, line := range append(took, fmt.Sprintf("%-12s %5.0f s", "all", time.Since(begin).Seconds())) {
		fmt.Println("  " + line)
	}
	all, loadErr := loadResults(dir)
	if all.empty() { // sections without tests, or whose tests nobody counts (make quick)
		return errors.Join(err, loadErr)
	}
	return errors.Join(err, loadErr, all.summary(os.Stdout, allowed))
}
