// Confine executes what a unit of systemd's starts, with the unit's bounding set of
// capabilities, filter of system calls, umask and limit of open files: what matters of its
// confinement where there is no systemd. Which calls a group such as @system-service has,
// systemd-analyze says.
//
//	confine UNIT [FLAG]...
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

func main() {
	fmt.Fprintln(os.Stderr, "confine:", run(os.Args[1], os.Args[2:]))
	os.Exit(1)
}

// capabilities are those that units here name.
var capabilities = map[string]int{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_FOWNER": unix.CAP_FOWNER,
	"CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
}

func run(unit string, flags []string) error {
	runtime.LockOSThread() // capabilities are a thread's, and the one that executes has them
	text, err := os.ReadFile(unit)
	if err != nil {
		return err
	}
	var argv []string
	kept := map[int]bool{}
	calls := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ExecStart":
			argv = append(strings.Fields(value), flags...)
		case "CapabilityBoundingSet":
			for _, c := range strings.Fields(value) {
				number, ok := capabilities[c]
				if !ok {
					return fmt.Errorf("unknown: %s", c)
				}
				kept[number] = true
			}
		case "SystemCallFilter":
			value, without := strings.CutPrefix(value, "~")
			for _, c := range strings.Fields(value) {
				if err := add(calls, c, !without); err != nil {
					return err
				}
			}
		case "UMask":
			mask, err := strconv.ParseInt(value, 8, 32)
			if err != nil {
				return err
			}
			unix.Umask(int(mask))
		case "LimitNOFILE":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return err
			}
			var now unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
				return err
			}
			n = min(n, now.Max) // a container may not let even root have more
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
				return fmt.Errorf("open files: %w", err)
			}
		}
	}
	if len(argv) == 0 || len(kept) == 0 || len(calls) < 100 {
		return fmt.Errorf("%s has %d words, %d capabilities, %d calls", unit, len(argv), len(kept), len(calls))
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if !kept[c] {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("capability %d: %w", c, err)
			}
		}
	}
	known, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	var names []string
	for c := range calls {
		if _, ok := known.SyscallNames[c]; ok {
			names = append(names, c)
		}
	}
	err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionAllow, Names: names}},
	}})
	if err != nil {
		return fmt.Errorf("the filter: %w", err)
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

// add allows a call, or those of a group, or takes them away.
func add(calls map[string]bool, name string, allowed bool) error {
	if !strings.HasPrefix(name, "@") {
		if calls[name] = allowed; !allowed {
			delete(calls, name)
		}
		return nil
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", name).Output()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for line := range bytes.Lines(out) {
		if name := strings.TrimSpace(string(line)); strings.HasPrefix(string(line), " ") && !strings.HasPrefix(name, "#") {
			if err := add(calls, name, allowed); err != nil {
				return err
			}
		}
	}
	return nil
}
