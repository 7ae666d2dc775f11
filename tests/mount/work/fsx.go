package work

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
)

// fsxMost is the longest value in bytes.
const fsxMost = 200 << 10

// fsx is a file that is operated on, and what is in it. Unlike a worker's keys it is
// written everywhere and looked at after each step, as Apple's fsx of 1991 does it.
type fsx struct {
	name  string
	f     *os.File
	rng   *rand.Rand
	model []byte
}

// Fsx FILE [-seed N] [-steps N] does random things to a file, and knows what must be in it.
func Fsx(args []string) error {
	flags := flag.NewFlagSet("fsx", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "what all that is random grows from")
	steps := flags.Int("steps", 500, "how many things are done")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	x := &fsx{name: args[0], rng: rand.New(rand.NewPCG(*seed, 1))}
	err := x.reopen()
	for n := 0; n < *steps && err == nil; n++ {
		if what, wrong := x.step(); wrong != nil {
			err = fmt.Errorf("-seed %d, step %d, %s: %w", *seed, n, what, wrong)
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(x.f.Close(), os.Remove(x.name))
}

// step does one thing, and looks at what is there then.
func (x *fsx) step() (what string, err error) {
	size := len(x.model)
	switch x.rng.IntN(10) {
	case 0, 1, 2:
		off := x.rng.IntN(min(size+size/4, fsxMost) + 1)
		data := x.bytes(min(fsxMost-off, x.length()))
		what, err = fmt.Sprintf("write %d at %d", len(data), off), x.write(off, data)
	case 3:
		to := x.rng.IntN(size + 1)
		what, err = fmt.Sprintf("truncate %d to %d", size, to), x.f.Truncate(int64(to))
		x.model = x.model[:to]
	case 4:
		to := min(fsxMost, size+x.length())
		what, err = fmt.Sprintf("truncate %d to %d by its name", size, to), os.Truncate(x.name, int64(to))
		x.model = append(x.model, make([]byte, to-size)...)
	case 5:
		what, err = "reopen", errors.Join(x.f.Close(), x.reopen())
	case 6:
		what, err = "fsync", x.f.Sync()
	case 7:
		what, err = "mmap", x.mapped()
	case 8:
		what, err = "append", x.append()
	default:
		what, err = "read", x.read()
	}
	if err != nil {
		return what, err
	}
	return what, x.whole()
}

func (x *fsx) reopen() (err error) {
	x.f, err = os.OpenFile(x.name, os.O_RDWR|os.O_CREATE, 0o600)
	return err
}

func (x *fsx) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(x.rng.Uint32())
	}
	return b
}

// length is how much is read or written: mostly little, some past a page or a message.
func (x *fsx) length() int { return 1 + x.rng.IntN([]int{100, 100, 5000, 140 << 10}[x.rng.IntN(4)]) }

// grow makes the model at least so long; what nobody has written is zero.
func (x *fsx) grow(to int) {
	if n := to - len(x.model); n > 0 {
		x.model = append(x.model, make([]byte, n)...)
	}
}

func (x *fsx) write(off int, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	x.grow(off + len(data))
	copy(x.model[off:], data)
	_, err := x.f.WriteAt(data, int64(off))
	return err
}

func (x *fsx) append() error {
	data := x.bytes(min(fsxMost-len(x.model), x.length()))
	f, err := os.OpenFile(x.name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	x.model = append(x.model, data...)
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// read reads somewhere, also past the end.
func (x *fsx) read() error {
	off := x.rng.IntN(len(x.model) + 100)
	got := make([]byte, x.length())
	n, err := x.f.ReadAt(got, int64(off))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return differ(got[:n], x.model[min(off, len(x.model)):min(off+len(got), len(x.model))])
}

// mapped looks at the file through a private mapping, which all kinds of mounts allow.
func (x *fsx) mapped() error {
	if len(x.model) == 0 {
		return nil
	}
	b, err := syscall.Mmap(int(x.f.Fd()), 0, len(x.model), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(differ(b, x.model), syscall.Munmap(b))
}

// whole looks at all of the file, as another open file and stat(2) see it.
func (x *fsx) whole() error {
	b, err := os.ReadFile(x.name)
	if err != nil {
		return err
	}
	if i, err := os.Stat(x.name); err != nil || i.Size() != int64(len(x.model)) {
		return fmt.Errorf("stat: %v bytes, want %d; %w", i.Size(), len(x.model), err)
	}
	if i, err := x.f.Stat(); err != nil || i.Size() != int64(len(x.model)) {
		return fmt.Errorf("fstat: %v bytes, want %d; %w", i.Size(), len(x.model), err)
	}
	return differ(b, x.model)
}

// differ says where what is there and what must be are not the same.
func differ(got, want []byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d of %d is %#x, want %#x", i, len(got), got[i], want[i])
		}
	}
	return nil
}
