// Command next is a program that meta9d is told to be upgraded to, and to which
// something happens only when it is executed: it lets the real one, NEXT_REAL, answer the
// check.
package main

import (
	"os"
	"runtime"
	"slices"
	"syscall"
)

func main() {
	args := os.Args
	if !slices.Contains(args, "--check-upgrade") {
		switch os.Getenv("NEXT_MODE") {
		case "dies":
			os.Exit(3)
		case "refuses": // its own arguments
			args = append(args, "--log-level=loud")
		case "fails": // when much is done
			args = append(args, "--listen=unix:/proc/nowhere/x.sock")
		case "hangup": // before it waits for signals
			runtime.LockOSThread()
			if err := syscall.Tgkill(os.Getpid(), syscall.Gettid(), syscall.SIGHUP); err != nil {
				os.Exit(5)
			}
		}
	}
	if err := syscall.Exec(os.Getenv("NEXT_REAL"), args, os.Environ()); err != nil {
		os.Exit(4)
	}
}
