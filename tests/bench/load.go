package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// readCount is what a Tread of the load asks for: more than there is, as
// clients do.
const readCount = 4096

// A script is the frames of one operation: each is sent when the one before it
// was answered. The bytes are made once, before the clock starts.
type script struct {
	frames [][]byte
	want   []wire.Type // the type of each reply
	bare   int         // not 9P: the length of each reply, in bytes
	each   bool        // each frame is an operation of its own
}

func (s *script) add(want wire.Type, frame []byte) {
	s.frames = append(s.frames, frame)
	s.want = append(s.want, want)
}

// verify runs the script once, with care: every reply must be of the type that
// is wanted, and what is read must be the value.
func (s script) verify(c *raw.Conn) error {
	for i, want := range s.want {
		if err := c.Send(s.frames[i]); err != nil {
			return err
		}
		r, err := c.Recv()
		if err != nil {
			return err
		}
		if r.Type != want {
			return fmt.Errorf("%v came, not %v: %v", r.Type, want, r.Err())
		}
		if (want == wire.Rread || want == wire.Rsread) && string(r.Data()) != fileValue() {
			return fmt.Errorf("another value was read: %.40q", r.Data())
		}
	}
	return nil
}

// A prepare makes connection number i ready and gives what it will repeat.
type prepare func(in *instance, c *raw.Conn, i int) (script, error)

// openRead opens a file beforehand and reads it by Tread.
func openRead(in *instance, c *raw.Conn, i int) (s script, err error) {
	read := raw.Frame(wire.Tread, 1, uint32(1), uint64(0), uint32(readCount))
	s.add(wire.Rread, read)
	if in.speech.version == "" {
		return s, nil
	}
	if err := c.Walk(0, 1, fileName(i)); err != nil {
		return s, err
	}
	if err := c.Send(in.speech.open(0, 1)); err != nil {
		return s, err
	}
	r, err := c.Recv()
	if err != nil {
		return s, err
	}
	return s, r.Err()
}

// byWalk reads a file as a client without macros does: four round trips.
func byWalk(in *instance, _ *raw.Conn, i int) (s script, err error) {
	open := in.speech.open(1, 1)
	s.add(wire.Rwalk, raw.Frame(wire.Twalk, 1, uint32(0), uint32(1), []string{fileName(i)}))
	s.add(wire.Type(open[4])+1, open)
	s.add(wire.Rread, raw.Frame(wire.Tread, 1, uint32(1), uint64(0), uint32(readCount)))
	s.add(wire.Rclunk, raw.Frame(wire.Tclunk, 1, uint32(1)))
	return s, nil
}

// byMacro reads a file by Tsread; the echo answers by Rread as ever.
func byMacro(in *instance, _ *raw.Conn, i int) (s script, err error) {
	want := wire.Rsread
	if in.speech.version == "" {
		want = wire.Rread
	}
	s.add(want, raw.Frame(wire.Tsread, 1, uint32(0), []string{fileName(i)}))
	return s, nil
}

// byWrite replaces a value by Tswrite, which is answered when it is durable.
func byWrite(_ *instance, _ *raw.Conn, i int) (s script, err error) {
	s.add(wire.Rswrite, raw.Frame(wire.Tswrite, 1, uint32(0), []string{fileName(i)}, raw.Data(fileValue())))
	return s, nil
}

// byTxn replaces ten values by one transaction.
func byTxn(in *instance, c *raw.Conn, i int) (s script, err error) {
	const vm = 1
	if err := c.Attach(vm, path.Dir(in.speech.aname)); err != nil {
		return s, err
	}
	line := fmt.Appendf(nil, `{"do":[`)
	for j := range 10 {
		if j > 0 {
			line = append(line, ',')
		}
		line = fmt.Appendf(line, `{"put":%q,"value":%q}`, fileName(i+j), fileValue())
	}
	s.add(wire.Rswrite, raw.Frame(wire.Tswrite, 1, uint32(vm), []string{"txn"}, raw.Data(append(line, "]}"...))))
	return s, nil
}

// largeName is the key of the value that bySplice writes into.
const largeName, largeValue = "large", 1 << 20

// bySplice makes a large value, opens it, and writes one byte in its middle.
func bySplice(in *instance, c *raw.Conn, _ int) (s script, err error) {
	wide, err := in.daemon.Dial(in.speech.aname)
	if err != nil {
		return s, err
	}
	defer wide.Close()
	if err := wide.Swrite(0, make([]byte, largeValue), largeName); err != nil {
		return s, err
	}
	if err := c.Walk(0, 1, largeName); err != nil {
		return s, err
	}
	if err := c.Open(1, wire.OWrite); err != nil {
		return s, err
	}
	s.add(wire.Rwrite, raw.Frame(wire.Twrite, 1, uint32(1), uint64(largeValue/2), raw.Data("x")))
	return s, nil
}

// eachOf repeats the operation of another script with each of the files.
func eachOf(p prepare) prepare {
	return func(in *instance, c *raw.Conn, i int) (s script, err error) {
		for j := range nFiles {
			one, err := p(in, c, i+j)
			if err != nil {
				return s, err
			}
			s.frames, s.want = append(s.frames, one.frames...), append(s.want, one.want...)
		}
		s.each = true
		return s, nil
	}
}

// readsBeside is how long reads take at p99 while so many connections write what is
// read.
func (b *bench) readsBeside(server string, writers int) (figure, error) {
	in, err := b.instance(server)
	if err != nil {
		return figure{}, err
	}
	const readers = 64
	loaders := make([]*loader, readers+writers)
	for i := range loaders {
		p := eachOf(byMacro)
		if i >= readers {
			p = eachOf(byWrite)
		}
		if loaders[i], err = newLoader(in, i, 1, p); err != nil {
			return figure{}, err
		}
		defer loaders[i].c.Close()
	}
	if _, err := drive(loaders, b.time); err != nil {
		return figure{}, err
	}
	var took []time.Duration
	for _, l := range loaders[:readers] {
		took = append(took, l.took...)
	}
	f, err := summary(took, b.time)
	f.value = float64(f.p99) / float64(time.Millisecond)
	return f, err
}

// load runs conns connections to a server for b.time, each with depth requests
// in flight; a script of several frames has depth 1.
func (b *bench) load(name string, conns, depth int, p prepare) (figure, error) {
	in, err := b.instance(name)
	if err != nil {
		return figure{}, err
	}
	loaders := make([]*loader, conns)
	for i := range loaders {
		l, err := newLoader(in, i, depth, p)
		if err != nil {
			return figure{}, err
		}
		defer l.c.Close()
		loaders[i] = l
	}
	return drive(loaders, b.time)
}

// drive lets all loaders run at once and adds up what they did.
func drive(loaders []*loader, d time.Duration) (figure, error) {
	var wg sync.WaitGroup
	begin := time.Now()
	for _, l := range loaders {
		wg.Go(func() { l.err = l.run(begin.Add(d)) })
	}
	wg.Wait()
	elapsed := time.Since(begin)
	var took []time.Duration
	var errs []error
	for _, l := range loaders {
		took = append(took, l.took...)
		errs = append(errs, l.err)
	}
	if err := errors.Join(errs...); err != nil {
		return figure{}, err
	}
	return summary(took, elapsed)
}

// summary makes the figure of operations that took so long each, in elapsed
// altogether.
func summary(took []time.Duration, elapsed time.Duration) (figure, error) {
	if len(took) == 0 {
		return figure{}, errors.New("not one operation was done")
	}
	slices.Sort(took)
	return figure{
		value: float64(len(took)) / elapsed.Seconds(),
		p50:   took[len(took)/2],
		p99:   took[len(took)*99/100],
	}, nil
}

// loader is one connection under load, in one goroutine.
type loader struct {
	c      *raw.Conn
	script script
	depth  int
	out    []byte          // frames to be written at once
	sent   []time.Time     // by tag: when the request was made
	took   []time.Duration // of every operation
	in     []byte          // what was read and not yet looked at
	buf    []byte
	err    error
}

func newLoader(in *instance, i, depth int, p prepare) (*loader, error) {
	c, err := in.dial()
	if err != nil {
		return nil, err
	}
	s, err := p(in, c, i)
	if err == nil {
		err = s.verify(c)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &loader{
		c: c, script: s, depth: depth,
		sent: make([]time.Time, depth+1),
		took: make([]time.Duration, 0, 1<<16),
		buf:  make([]byte, 64<<10),
	}, nil
}

func (l *loader) run(until time.Time) error {
	l.c.Net.SetDeadline(until.Add(10 * time.Second)) // a server that hangs is an error
	if l.depth > 1 {
		return l.runAhead(until)
	}
	return l.runSerial(until)
}

// runSerial sends each frame of the script when the last was answered.
func (l *loader) runSerial(until time.Time) (err error) {
	for now := time.Now(); now.Before(until) && err == nil; {
		now, err = l.once(now)
	}
	return err
}

// once runs the script once, from now on, and gives the time when it is done.
func (l *loader) once(now time.Time) (time.Time, error) {
	begin := now
	for i, frame := range l.script.frames {
		if _, err := l.c.Net.Write(frame); err != nil {
			return now, err
		}
		if err := l.reply(i); err != nil {
			return now, err
		}
		if l.script.each || i == len(l.script.frames)-1 {
			now = time.Now()
			l.took = append(l.took, now.Sub(begin))
			begin = now
		}
	}
	return now, nil
}

// reply takes the reply to frame i of the script.
func (l *loader) reply(i int) error {
	if l.script.bare == 0 {
		_, err := l.next(l.script.want[i])
		return err
	}
	for len(l.in) < l.script.bare {
		if err := l.fill(); err != nil {
			return err
		}
	}
	l.in = l.in[l.script.bare:]
	return nil
}

// runAhead keeps depth copies of the one frame in flight, under the tags 1 to
// depth, and writes what it has to send when it has seen all that came.
func (l *loader) runAhead(until time.Time) error {
	now := time.Now()
	for tag := 1; tag <= l.depth; tag++ {
		l.again(uint16(tag), now)
	}
	for waiting := l.depth; waiting > 0; waiting-- {
		if len(l.in) == 0 {
			if err := l.flush(); err != nil {
				return err
			}
		}
		tag, err := l.next(l.script.want[0])
		if err != nil {
			return err
		}
		if tag == 0 || int(tag) >= len(l.sent) {
			return fmt.Errorf("a reply to tag %d, which was not used", tag)
		}
		now = time.Now()
		l.took = append(l.took, now.Sub(l.sent[tag]))
		if now.Before(until) {
			l.again(tag, now)
			waiting++
		}
	}
	return nil
}

// again puts the frame into the output under a tag.
func (l *loader) again(tag uint16, now time.Time) {
	at := len(l.out)
	l.out = append(l.out, l.script.frames[0]...)
	binary.LittleEndian.PutUint16(l.out[at+5:], tag)
	l.sent[tag] = now
}

func (l *loader) flush() error {
	if len(l.out) == 0 {
		return nil
	}
	_, err := l.c.Net.Write(l.out)
	l.out = l.out[:0]
	return err
}

// next takes one reply, which must be of the type wanted, and gives its tag.
func (l *loader) next(want wire.Type) (uint16, error) {
	for len(l.in) < raw.HeaderLen || len(l.in) < int(binary.LittleEndian.Uint32(l.in)) {
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
	size := int(binary.LittleEndian.Uint32(l.in))
	if t := wire.Type(l.in[4]); t != want {
		r := raw.Reply{Type: t, Body: l.in[raw.HeaderLen:size]}
		return 0, fmt.Errorf("%v came, not %v: %v", t, want, r.Err())
	}
	tag := binary.LittleEndian.Uint16(l.in[5:])
	l.in = l.in[size:]
	return tag, nil
}

// fill reads more, keeping the half frame that is there.
func (l *loader) fill() error {
	n := copy(l.buf, l.in)
	m, err := l.c.Net.Read(l.buf[n:])
	l.in = l.buf[:n+m]
	if m > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
