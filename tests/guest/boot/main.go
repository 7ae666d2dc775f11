// Command boot runs a shell script in a Linux guest of package machine. In tests/:
//
//	go run ./guest/boot -connect unix:/run/meta9/UUID/9p.sock -mount - <<<'ls -l'
//	go run ./guest/boot -kernel sid -connect tcp:127.0.0.1:5640 script.sh
//	go run ./guest/boot -kernel trixie -fetch
//
// Its exit status is the script's; 124 past the time limit, 125 if the script did
// not run to its end, 2 for a wrong command line.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"meta9/tests/guest/kernel"
	"meta9/tests/guest/machine"
)

const usage = `boot [flags] SCRIPT

Runs a shell script ("-" is standard input) as root in a Linux guest. Beside
busybox's commands it has
  mount9p DIR [OPTIONS]     mounts the server of -connect; later options win
  as UID COMMAND...         runs a command as another user

`

func main() { os.Exit(run()) }

func run() int {
	o := machine.Options{Env: map[string]string{}, Files: map[string]string{}}
	flag.StringVar(&o.Kernel, "kernel", kernel.Default, "a Debian `SUITE` ("+strings.Join(kernel.Suites, ", ")+"), FILE.deb[,FILE.deb...] of a kernel, or an image")
	flag.StringVar(&o.Connect, "connect", "", "the `server` on this host: unix:PATH or tcp:HOST:PORT")
	flag.StringVar(&o.Via, "via", machine.Net, "how the guest reaches it: net, trans=tcp by a forward; user, trans=tcp to\nthe host's loopback; serial, trans=fd over virtio-serial")
	flag.IntVar(&o.Ports, "ports", 4, "how many ports there are with -via serial")
	flag.IntVar(&o.Memory, "memory", 256, "the guest's memory, in `MB`")
	flag.BoolVar(&o.Debian, "debian", false, "Debian's dash, sed, rsync, coreutils in /debian")
	flag.BoolVar(&o.Input, "input", false, "the script reads standard input")
	mount := flag.Bool("mount", false, "mount at /mnt first, and run the script there")
	version := flag.String("version", "9p2000.L", "of 9P, for mount9p")
	options := flag.String("mount-opts", "", "more `options` for mount9p, such as msize=65536")
	limit := flag.Duration("timeout", 2*time.Minute, "for the whole run")
	fetch := flag.Bool("fetch", false, "only fetch the kernel and the programs")
	log := flag.String("kernel-log", "", "write the end of the kernel's log to this `file`")
	flag.Func("env", "`NAME=VALUE` for the script (repeatable)", pairs(o.Env))
	flag.Func("add", "`GUEST=HOST`: put a file into the guest (repeatable)", pairs(o.Files))
	flag.Func("qemu-arg", "one more `argument` for QEMU (repeatable)", func(arg string) error {
		o.QEMU = append(o.QEMU, arg)
		return nil
	})
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if *fetch {
		k, err := kernel.Get(o.Kernel)
		if err == nil {
			_, err = kernel.Programs()
		}
		if err != nil {
			return fail(err)
		}
		fmt.Println(k.Version, k.Image)
		return 0
	}
	if flag.NArg() != 1 || o.Input && flag.Arg(0) == "-" {
		flag.Usage()
		return 2
	}
	script, err := read(flag.Arg(0))
	if err != nil {
		return fail(err)
	}
	o.Script = string(script)
	if *mount {
		o.Script = "mount9p /mnt && cd /mnt || exit 125\n" + o.Script
	}
	o.Env["NP_VERSION"], o.Env["NP_OPTIONS"] = *version, *options
	m, err := machine.Start(o)
	if err != nil {
		return fail(err)
	}
	var late atomic.Bool
	defer time.AfterFunc(*limit, func() {
		late.Store(true)
		m.Stop()
	}).Stop()
	if o.Input {
		go io.Copy(m.In, os.Stdin)
	}
	io.Copy(os.Stdout, m.Out)
	if *log != "" {
		if err := os.WriteFile(*log, []byte(m.KernelLog()), 0o644); err != nil {
			return fail(err)
		}
	}
	status, err := m.Wait()
	if err == nil {
		return status
	}
	fail(err)
	if late.Load() {
		fmt.Fprintf(os.Stderr, "boot: no end after %v\n", *limit)
		return 124
	}
	return 125
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "boot:", err)
	return 125
}

func read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}

// pairs puts NAME=VALUE into m.
func pairs(m map[string]string) func(string) error {
	return func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("no = in it")
		}
		m[name] = value
		return nil
	}
}
