package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// readers is how many files are read at a time for one answer.
const readers = 32

// failed is an answer that says what is wrong, with its status of HTTP.
type failed struct {
	code int
	text string
}

func (f failed) Error() string { return f.text }

// handler answers a request by do; the error of do becomes the answer.
func handler(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := do(w, r)
		var f failed
		switch {
		case err == nil:
		case errors.As(err, &f):
			refuse(w, f.code, f.text)
		case errors.Is(err, errs.NotFound):
			refuse(w, http.StatusNotFound, err.Error())
		case errors.Is(err, errs.Canceled):
			refuse(w, http.StatusConflict, err.Error())
		case errors.Is(err, client.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
			refuse(w, http.StatusServiceUnavailable, "meta9d does not answer: "+err.Error())
		default:
			refuse(w, http.StatusUnprocessableEntity, err.Error())
		}
	})
}

// refuse answers {"error": text}.
func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text}) // else the page has gone
}

// answer answers v as JSON.
func answer(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // who does not take its answer has gone
	return nil
}

// withTimeout is the request's context, as long as an answer may take.
func withTimeout(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), patience)
}

// fields are the lines of a ctl file, "name value", as strings.
func fields(ctl []byte) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(string(ctl)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if text, err := strconv.Unquote(value); err == nil {
			value = text
		}
		m[name] = value
	}
	return m
}

// status answers what the root's ctl says.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := withTimeout(r)
	defer cancel()
	ctl, err := s.files.ReadFile(ctx, "ctl")
	if err != nil {
		return err
	}
	return answer(w, fields(ctl))
}

// row is a VM as the table has it: what its ctl says, and when it changed.
type row struct {
	UUID    string            `json:"uuid"`
	State   map[string]string `json:"state"` // null: there is no such VM
	Changed time.Time         `json:"changed"`
}

// vms answers a row a line, as each is read: of all VMs, or of those that ?of=UUID,...
// names. The first line of all has their number.
func (s *Server) vms(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := withTimeout(r)
	defer cancel()
	var rows []row
	if of := r.FormValue("of"); of != "" {
		for uuid := range strings.SplitSeq(of, ",") {
			info, err := s.files.Stat(ctx, vmPath(uuid))
			if err != nil && !errors.Is(err, errs.NotFound) {
				return err
			}
			rows = append(rows, row{UUID: uuid, Changed: info.Mtime})
		}
	} else {
		list, err := s.files.ReadDir(ctx, "vms")
		if err != nil {
			return err
		}
		for i := range list {
			rows = append(rows, row{UUID: list[i].Name, Changed: list[i].Mtime})
		}
	}
	return s.sendRows(ctx, w, rows)
}

// sendRows reads the state of each row, several at a time, and sends them in the order in
// which they come.
func (s *Server) sendRows(ctx context.Context, w http.ResponseWriter, rows []row) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	if err := out.Encode(map[string]int{"count": len(rows)}); err != nil {
		return nil // who asked has gone
	}
	next, read := make(chan *row), make(chan *row, readers)
	var all sync.WaitGroup
	for range min(readers, len(rows)) {
		all.Go(func() {
			for o := range next {
				ctl, err := s.files.ReadFile(ctx, vmPath(o.UUID, "ctl"))
				switch {
				case err == nil:
					o.State = fields(ctl)
				case !errors.Is(err, errs.NotFound):
					stop(err)
				}
				read <- o
			}
		})
	}
	go func() {
		defer close(read)
		defer all.Wait()
		defer close(next)
		for i := range rows {
			select {
			case next <- &rows[i]:
			case <-ctx.Done():
				return
			}
		}
	}()
	for o := range read {
		if err := out.Encode(o); err != nil {
			stop(err) // who asked has gone; what is under way ends
		}
	}
	if err := context.Cause(ctx); err != nil {
		_ = out.Encode(map[string]string{"error": err.Error()}) // as above
	}
	return nil
}

// key is a key of a VM, without its value.
type key struct {
	Space   string    `json:"space"`
	Name    string    `json:"name"`
	Size    uint64    `json:"size"`
	By      string    `json:"by"`
	Changed time.Time `json:"changed"`
	Version uint32    `json:"version"`
}

// vm answers what a VM is and has, without values.
func (s *Server) vm(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := withTimeout(r)
	defer cancel()
	uuid := r.PathValue("uuid")
	ctl, err := s.files.ReadFile(ctx, vmPath(uuid, "ctl"))
	if err != nil {
		return err
	}
	var all struct {
		State map[string]string `json:"state"`
		Keys  []key             `json:"keys"`
	}
	all.State = fields(ctl)
	for _, space := range []vm.Space{vm.Keys, vm.Internal} {
		list, err := s.files.ReadDir(ctx, vmPath(uuid, space.String()))
		if err != nil {
			return err
		}
		for i := range list {
			o := &list[i]
			name, err := vm.KeyName(o.Name)
			if err != nil {
				return err
			}
			all.Keys = append(all.Keys, key{space.String(), name, o.Length, o.Muid, o.Mtime, o.QID.Version})
		}
	}
	return answer(w, &all)
}

// value answers the value of ?space=&name=, with its version.
//
// The version is read first. If somebody writes in between it is too old: a change on the
// condition of that version fails without need, but never replaces a value that the user
// has not seen.
func (s *Server) value(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := withTimeout(r)
	defer cancel()
	space, err := spaceOf(r.FormValue("space"))
	if err != nil {
		return err
	}
	file := vmPath(r.PathValue("uuid"), space, vm.FileName(r.FormValue("name")))
	info, err := s.files.Stat(ctx, file)
	if err != nil {
		return err
	}
	b, err := s.files.ReadFile(ctx, file)
	if err != nil {
		return err
	}
	v := struct {
		Version uint32    `json:"version"`
		By      string    `json:"by"`
		Changed time.Time `json:"changed"`
		Text    *string   `json:"text,omitempty"`
		Base64  []byte    `json:"base64,omitempty"`
	}{Version: info.QID.Version, By: info.Muid, Changed: info.Mtime}
	if utf8.Valid(b) {
		text := string(b)
		v.Text = &text
	} else {
		v.Base64 = b
	}
	return answer(w, &v)
}

// spaceOf is the folder of a space of keys.
func spaceOf(name string) (string, error) {
	if name != vm.Keys.String() && name != vm.Internal.String() {
		return "", failed{http.StatusBadRequest, "there is no space of keys " + strconv.Quote(name)}
	}
	return name, nil
}

// txn does a transaction. One of which a condition does not hold is a conflict.
func (s *Server) txn(w http.ResponseWriter, r *http.Request) error {
	if s.opt.ReadOnly {
		return failed{http.StatusForbidden, "this page is read-only: 'meta9 web' was started with --read-only"}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return failed{http.StatusRequestEntityTooLarge, err.Error()}
	}
	line := append(bytes.TrimSpace(body), '\n')
	if bytes.IndexByte(line, '\n') != len(line)-1 {
		return failed{http.StatusBadRequest, "a transaction is one line"}
	}
	ctx, cancel := withTimeout(r)
	defer cancel()
	if err := s.files.WriteFile(ctx, vmPath(r.PathValue("uuid"), "txn"), line); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

// attach answers the lines that attach the VM.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	if s.opt.Attach == nil {
		return failed{http.StatusNotFound, "there are no such lines"}
	}
	ctx, cancel := withTimeout(r)
	defer cancel()
	lines, err := s.opt.Attach(ctx, r.PathValue("uuid"))
	if err != nil {
		return err
	}
	return answer(w, map[string]string{"lines": lines})
}

// events answers the events of all VMs as they come, a line each, as the file events has
// them. A page that does not keep up reads a line "lost" in place of some.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return failed{http.StatusTooManyRequests, "there are " + strconv.Itoa(maxStreams) + " streams of events already"}
	}
	ctx := r.Context()
	f, err := s.files.Open(ctx, "events")
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	_ = flush.Flush() // the first write tells who has gone
	buf := make([]byte, 32<<10)
	for off := int64(0); ; {
		n, err := f.ReadAt(ctx, buf, off)
		off += int64(n)
		_ = flush.SetWriteDeadline(time.Now().Add(s.slow)) // for this write, not for the stream
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return nil // the stream ends, and the page asks for another
		}
		_ = flush.Flush() // as above
	}
}

// vmPath is the path of a file of a VM. A UUID that is none gives a path that is not
// there, and leads nowhere else.
func vmPath(uuid string, names ...string) string {
	if _, err := vm.ParseUUID(uuid); err != nil {
		uuid = "-"
	}
	return strings.Join(append([]string{"vms", uuid}, names...), "/")
}
