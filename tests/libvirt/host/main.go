package host

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"meta9/tests/testenv"
)

// inside says which process of the test this is: "" is what go test has started, "init"
// the first one of a process namespace, whose end ends all in it, and "test" is there.
const inside = "META9_TEST_LIBVIRT"

// Main runs a test package in processes of its own: TestMain calls it.
func Main(m *testing.M) {
	switch os.Getenv(inside) {
	case "test":
		testenv.Main(m)
	case "init":
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount /proc:", err)
			os.Exit(1)
		}
		cmd := again("test", nil)
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(reap(cmd.Process.Pid))
	default:
		attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
		as := "init"
		if os.Geteuid() != 0 {
			as, attr = "test", nil // which says what it needs
		}
		cmd := again(as, attr)
		if err := cmd.Run(); cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
}

// again is this program once more.
func again(as string, attr *syscall.SysProcAttr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+as)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	return cmd
}

// reap waits for every process that is left to the first one, as libvirtd's are, until
// the one of that number ends.
func reap(pid int) int {
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 1
		case got == pid && status.Exited():
			return status.ExitStatus()
		case got == pid:
			return 1
		}
	}
}
