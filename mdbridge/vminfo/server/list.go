package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// serveVMs answers with the array of VMs, or those that the query lets through.
func (s *Server) serveVMs(w http.ResponseWriter, r *http.Request, a *endpoint) {
	q, err := vminfo.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if !q.All() {
		s.serveSome(w, r, a, q)
		return
	}
	l := s.list(a.Access)
	defer l.release()
	if matches(w, r, l.tag) {
		return
	}
	if l.body != nil {
		w.Header().Set("Content-Length", strconv.Itoa(l.body.size))
	}
	s.send(w, r, a, l)
}

// serveSome answers a query. It applies the filters first, in a bounded time, so that
// only matching VMs are kept in memory while the client reads.
func (s *Server) serveSome(w http.ResponseWriter, r *http.Request, a *endpoint, q vminfo.Query) {
	l := &list{access: a.Access, query: q}
	s.cfg.Store.Snapshot(func(rows []*vm.VM, rev uint64) { l.rows = rows })
	if matches(w, r, s.tag(l.rows)) {
		return
	}
	if q.Filters != nil && !s.filter(w, r, a, l) {
		return
	}
	s.send(w, r, a, l)
}

// filter removes from l the VMs that do not match. Where that takes too long it answers
// the request with an error, and returns false.
func (s *Server) filter(w http.ResponseWriter, r *http.Request, a *endpoint, l *list) bool {
	done, ok := s.turn(w, r, a, a.queries, 1)
	if !ok {
		return false
	}
	defer done()
	ctx, cancel := context.WithTimeout(r.Context(), queryTime)
	defer cancel()
	var some []*vm.VM
	for _, m := range l.rows {
		if l.query.Match(ctx, visible(m, a.Internal).Member) {
			some = append(some, m)
		}
	}
	l.rows = some
	if ctx.Err() != nil {
		w.Header().Del("ETag")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("the filters of this query take over %v; simpler ones, please", queryTime))
		return false
	}
	return true
}

// send sends the text of a list.
func (s *Server) send(w http.ResponseWriter, r *http.Request, a *endpoint, l *list) {
	if l.body == nil {
		sem, n := a.room(max(l.answerBytes(), listBytes))
		done, ok := s.turn(w, r, a, sem, n)
		if !ok {
			return
		}
		defer done()
	}
	out := newAnswer(w, s.cfg.Limits.Patience)
	_ = l.each(out.write) // the client has gone
}

// serveVM answers with one VM.
func (s *Server) serveVM(w http.ResponseWriter, r *http.Request, a *endpoint, name string) {
	m := visible(s.find(name), a.Internal)
	if m == nil {
		fail(w, http.StatusNotFound, "VM Not Found: "+name)
		return
	}
	if matches(w, r, fmt.Sprintf(`"%s-%d-%d"`, s.nonce, m.ID, m.Rev)) {
		return
	}
	sem, n := a.room(answerBytes(m))
	done, ok := s.turn(w, r, a, sem, n)
	if !ok {
		return
	}
	defer done()
	body := m.AppendJSON(nil, false)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_ = newAnswer(w, s.cfg.Limits.Patience).write(body)
}

// find is the VM with that zonename, or nil. Nearly always it is the uuid.
func (s *Server) find(name string) (m *vm.VM) {
	if c := s.cfg.Store.Cell(name); c != nil {
		return c.VM()
	}
	s.cfg.Store.Cells(0, func(c *store.Cell) bool {
		m = c.VM()
		if m != nil && m.Text(vm.PropZonename) != name {
			m = nil
		}
		return m == nil
	})
	return m
}

// matches sets the answer's ETag. True: the client has that answer already, and 304 was
// sent.
func matches(w http.ResponseWriter, r *http.Request, tag string) bool {
	w.Header().Set("ETag", tag)
	for _, has := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		has = strings.TrimPrefix(strings.TrimSpace(has), "W/")
		if has == tag || has == "*" {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// tag is the ETag of a list: the revision of the newest VM and the number of VMs. As long
// as that VM is the newest, others can only have been deleted, so the two tell all lists
// of one store apart.
func (s *Server) tag(rows []*vm.VM) string {
	var newest uint64
	for _, m := range rows {
		newest = max(newest, m.Rev)
	}
	return fmt.Sprintf(`"%s-%d-%d"`, s.nonce, newest, len(rows))
}

// list is the array of VMs at one revision. Its text is kept (body), or made while it is
// sent.
type list struct {
	rows   []*vm.VM
	rev    uint64
	tag    string
	access Access
	query  vminfo.Query
	body   *body
	of     *bodies
}

// list is the list as of now. The caller releases it.
func (s *Server) list(a Access) *list {
	l := &list{access: a, of: &s.lists[view(a.Internal)]}
	s.cfg.Store.Snapshot(func(rows []*vm.VM, rev uint64) { l.rows, l.rev = rows, rev })
	l.tag = s.tag(l.rows)
	l.body = l.of.take(l)
	if l.body != nil {
		l.rows = nil
	}
	return l
}

// release ends the use of the text.
func (l *list) release() {
	if l.body != nil {
		l.of.release(l.body)
	}
}

// answerBytes is about the memory that the list takes while it is sent: it is made in
// pieces, but keeps its VMs as they were.
func (l *list) answerBytes() (most int64) {
	if l.query.Fields != nil {
		return answerBytes(l.rows...)
	}
	for _, m := range l.rows {
		most = max(most, m.Size())
	}
	return most
}

// each calls fn with the text, a piece at a time.
func (l *list) each(fn func([]byte) error) error {
	if l.body == nil {
		return l.render(renderPiece, fn)
	}
	for _, text := range l.body.text {
		if err := fn(text); err != nil {
			return err
		}
	}
	return nil
}

// renderPiece is how much text is made before it is sent: a processor's cache holds
// it.
const renderPiece = 64 << 10

// render makes the text and calls fn with pieces of at least size bytes. A large VM is
// cut into pieces too, if all its members are wanted.
func (l *list) render(size int, fn func([]byte) error) error {
	p := ordjson.NewPieces(append(make([]byte, 0, 2*size), '['), size, fn)
	for i, m := range l.rows {
		m = visible(m, l.access.Internal)
		if i > 0 {
			p.Text = append(p.Text, ',')
		}
		if l.query.Fields == nil {
			m.WriteJSON(p, false)
		} else {
			p.Text = appendVM(p.Text, m, l.query)
		}
		p.Cut()
		if p.Err() != nil {
			return p.Err()
		}
	}
	return fn(append(p.Text, ']'))
}

// appendVM appends the VM with the members that the query wants, of those that it names.
func appendVM(b []byte, m *vm.VM, q vminfo.Query) []byte {
	o := make(ordjson.Members, 0, len(q.Fields))
	for _, p := range m.Props {
		if q.Wants(p.Name) {
			v, _ := m.Member(p.Name)
			o = append(o, ordjson.Member{Name: p.Name, Value: v})
		}
	}
	return o.AppendJSON(b)
}

// bodies keeps the text of the newest list, so that many clients get the same bytes. A
// text that is made while it is sent needs no memory and hardly more time; so a text is
// kept only when the same list is asked for a second time, and until nobody has asked for
// it for a while. Few texts are in memory at a time, however slowly clients read.
type bodies struct {
	mu     sync.Mutex
	asked  string // the tag of the list that was asked for last
	newest *body
	alive  int // newest, and older ones that a client is still reading
	forget *time.Timer
}

const (
	maxBodies  = 2
	forgetTime = time.Minute
)

// body is the text of the list with that tag, in blocks, since one slice would be
// copied again and again as it grows. It is never changed.
type body struct {
	tag   string
	text  [][]byte
	size  int
	users int // guarded by bodies.mu
}

// take is the kept text of l, which it makes if it must; nil: l's text is not kept.
func (bs *bodies) take(l *list) *body {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.newest == nil || bs.newest.tag != l.tag {
		again := bs.asked == l.tag
		bs.asked = l.tag
		bs.drop()
		if !again || bs.alive >= maxBodies {
			bs.forgetLater()
			return nil
		}
		bs.newest = l.makeBody()
		bs.alive++
	}
	bs.newest.users++
	return bs.newest
}

// makeBody makes the text, while others who need it wait for bodies.mu.
func (l *list) makeBody() *body {
	b := &body{tag: l.tag}
	_ = l.render(piece-renderPiece, func(some []byte) error {
		b.text = append(b.text, bytes.Clone(some))
		b.size += len(some)
		return nil
	})
	return b
}

// drop forgets the newest text; mu is held.
func (bs *bodies) drop() {
	if bs.newest != nil && bs.newest.users == 0 {
		bs.alive--
	}
	bs.newest = nil
}

func (bs *bodies) release(b *body) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b.users--
	if b != bs.newest {
		if b.users == 0 {
			bs.alive--
		}
		return
	}
	bs.forgetLater()
}

// forgetLater starts the time until expire again; mu is held.
func (bs *bodies) forgetLater() {
	if bs.forget == nil {
		bs.forget = time.AfterFunc(forgetTime, bs.expire)
	}
	bs.forget.Reset(forgetTime)
}

// expire forgets the newest text, which was neither asked for nor released for a while.
func (bs *bodies) expire() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.asked = ""
	bs.drop()
}
