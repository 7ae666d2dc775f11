package residence

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/session"
)

const (
	magic    = "meta9 residence 1\n"
	anyMagic = "meta9 residence "
	headLen  = 4 + 1 + 4 + 4

	// maxRecord bounds what one session may take, in bytes; one that is larger is lost.
	maxRecord = 256 << 20
)

// The kinds of records.
const (
	kindHome    = 'h'
	kindTail    = 't'
	kindSession = 's'
	kindExtra   = 'x'
	kindConn    = 'c'
	kindEnd     = 'e'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tailForm and eventForm are store.Tail and store.Event as JSON. What may be other than
// UTF-8 is bytes.
type tailForm struct {
	VM     string      `json:"vm,omitempty"`
	After  uint64      `json:"after"`
	Last   uint64      `json:"last"`
	Events []eventForm `json:"events,omitempty"`
}

type eventForm struct {
	Rev   uint64 `json:"rev"`
	Date  int64  `json:"date"`
	Type  string `json:"type"`
	VM    string `json:"vm,omitempty"`
	Key   []byte `json:"key,omitempty"`
	Space uint8  `json:"space,omitempty"`
	By    string `json:"by,omitempty"`
	As    []byte `json:"as,omitempty"`
}

// errTooLarge is the error of writing a record that would be too large to be read again.
var errTooLarge = fmt.Errorf("more than %d bytes", maxRecord)

// writer writes records.
type writer struct {
	out     *bufio.Writer
	records uint64
	body    []byte
}

func newWriter(to io.Writer) *writer {
	w := &writer{out: bufio.NewWriterSize(to, 64<<10)}
	_, _ = w.out.WriteString(magic) // Flush tells
	return w
}

func (w *writer) record(kind byte, body []byte) error {
	if len(body) > maxRecord {
		return errTooLarge
	}
	w.records++
	if _, err := w.out.Write(appendHead(nil, kind, body)); err != nil {
		return err
	}
	_, err := w.out.Write(body)
	return err
}

// appendHead appends what stands before a record's body.
func appendHead(b []byte, kind byte, body []byte) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(append(b, kind), crc32.Checksum(body, castagnoli))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

func (w *writer) home(h Home) error {
	body, err := h.form()
	if err != nil {
		return err
	}
	return w.record(kindHome, body)
}

func (w *writer) tail(t store.Tail) error {
	body, err := tailBody(&t)
	if err != nil {
		return err
	}
	return w.record(kindTail, body)
}

func tailBody(t *store.Tail) ([]byte, error) {
	form := tailForm{VM: t.VM, After: t.After, Last: t.Last}
	for i := range t.Events {
		form.Events = append(form.Events, formOf(&t.Events[i]))
	}
	return json.Marshal(form)
}

func formOf(ev *store.Event) eventForm {
	return eventForm{ev.Rev, ev.Date, string(ev.Type), ev.VM, []byte(ev.Key), uint8(ev.Space), ev.By, []byte(ev.As)}
}

func (ev *eventForm) event() store.Event {
	return store.Event{
		Rev: ev.Rev, Date: ev.Date, Type: store.EventType(ev.Type), VM: ev.VM, Key: string(ev.Key),
		Space: vm.Space(ev.Space), By: ev.By, As: string(ev.As),
	}
}

func (w *writer) session(st session.State) error {
	kept := st.Kept
	st.Kept = nil
	return w.withKept(kindSession, st, kept)
}

// conn writes a connection. Its session's kept replies are raw, as those of a parked
// session are.
func (w *writer) conn(fd int, h session.Handed) error {
	kept := h.Session.Kept
	h.Session.Kept = nil
	return w.withKept(kindConn, connForm{fd, h}, kept)
}

// connForm is a connection as JSON.
type connForm struct {
	FD int `json:"fd"`
	session.Handed
}

func (w *writer) withKept(kind byte, form any, kept []session.KeptReply) error {
	b, err := appendWithKept(w.body[:0], form, kept)
	if err != nil {
		return err
	}
	w.body = b
	return w.record(kind, b)
}

func (w *writer) end() error {
	return w.record(kindEnd, binary.AppendUvarint(nil, w.records))
}

// reader reads records.
type reader struct {
	in      *bufio.Reader
	left    int64 // bytes that are not read yet
	records uint64
}

var errCut = errors.New("it is cut short")

func newReader(from io.Reader, size int64) (*reader, error) {
	r := &reader{in: bufio.NewReaderSize(from, 64<<10), left: size}
	head := make([]byte, len(magic))
	if err := r.read(head); err != nil {
		return nil, err
	}
	switch {
	case string(head) == magic:
		return r, nil
	case strings.HasPrefix(string(head), anyMagic):
		return nil, fmt.Errorf("its format %q is not known to this version", head[len(anyMagic):len(magic)-1])
	}
	return nil, errors.New("it is no residence of meta9's")
}

func (r *reader) read(b []byte) error {
	if int64(len(b)) > r.left {
		return errCut
	}
	r.left -= int64(len(b))
	_, err := io.ReadFull(r.in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

// errBody says that one record is lost. After any other error the rest of the file is lost
// too.
var errBody = errors.New("a record is damaged: its checksum is wrong")

func (r *reader) next() (kind byte, body []byte, err error) {
	var head [headLen]byte
	if err := r.read(head[:]); err != nil {
		return 0, nil, err
	}
	if crc32.Checksum(head[:9], castagnoli) != binary.LittleEndian.Uint32(head[9:]) {
		return 0, nil, errors.New("it is damaged: a record's head has a wrong checksum")
	}
	size := binary.LittleEndian.Uint32(head[:])
	switch {
	case size > maxRecord:
		return 0, nil, fmt.Errorf("a record says that it has %d bytes", size)
	case int64(size) > r.left:
		return 0, nil, errCut
	}
	body = make([]byte, size)
	if err := r.read(body); err != nil {
		return 0, nil, err
	}
	r.records++
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[5:]) {
		return head[4], nil, errBody
	}
	return head[4], body, nil
}

// home reads the first record, which must be this home's.
func (r *reader) home(h Home) error {
	kind, body, err := r.next()
	if err != nil {
		return err
	}
	if kind != kindHome {
		return errors.New("it does not say what it belongs to")
	}
	return h.check(body)
}

// each gives the records after the home to take, up to the end. It calls lost for each
// record that is lost.
func (r *reader) each(take func(rec any) error, lost func(error)) error {
	for {
		kind, body, err := r.next()
		var rec any
		switch {
		case err == errBody:
		case err != nil:
			return err
		case kind == kindEnd:
			return r.ended(body)
		default:
			rec, err = readRecord(kind, body)
		}
		if err == nil {
			err = take(rec)
		}
		if err != nil {
			lost(err)
		}
	}
}

// readRecord reads the body of a record: a *store.Tail, a *session.State, a *connForm, or
// the caller's bytes.
func readRecord(kind byte, body []byte) (rec any, err error) {
	switch kind {
	case kindTail:
		return readTail(body)
	case kindSession:
		st := new(session.State)
		st.Kept, err = readKept(body, st)
		return st, err
	case kindExtra:
		return body, nil
	case kindConn:
		c := new(connForm)
		c.Session.Kept, err = readKept(body, c)
		return c, err
	}
	return nil, fmt.Errorf("a record of the kind %q is not known to this version", kind)
}

func (r *reader) ended(body []byte) error {
	n, size := binary.Uvarint(body)
	switch {
	case size != len(body) || n != r.records-1:
		return fmt.Errorf("it has %d records, and says %d", r.records-1, n)
	case r.left > 0:
		return fmt.Errorf("%d bytes follow its end", r.left)
	}
	return nil
}

func readTail(body []byte) (*store.Tail, error) {
	var form tailForm
	if err := json.Unmarshal(body, &form); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	t := &store.Tail{VM: form.VM, After: form.After, Last: form.Last}
	for i := range form.Events {
		t.Events = append(t.Events, form.Events[i].event())
	}
	return t, nil
}

var errSession = errors.New("a session's record is malformed")

// readKept reads what appendWithKept has written: the JSON into form, then the kept
// replies.
func readKept(body []byte, form any) (kept []session.KeptReply, err error) {
	size, n := binary.Uvarint(body)
	if n <= 0 || size > uint64(len(body)-n) {
		return nil, errSession
	}
	text, rest := body[n:n+int(size)], body[n+int(size):]
	if err := json.Unmarshal(text, form); err != nil {
		return nil, fmt.Errorf("a session: %w", err)
	}
	for len(rest) > 0 {
		number, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil, errSession
		}
		size, m := binary.Uvarint(rest[n:])
		if m <= 0 || size > uint64(len(rest)-n-m) {
			return nil, errSession
		}
		rest = rest[n+m:]
		kept = append(kept, session.KeptReply{Number: number, Frame: rest[:size]})
		rest = rest[size:]
	}
	return kept, nil
}
