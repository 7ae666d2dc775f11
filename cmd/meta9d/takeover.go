package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"meta9/cmd/version"
	tree "meta9/fs"
	"meta9/fs/store"
	mdata "meta9/mdbridge/mdata/server"
	"meta9/session"
	"meta9/session/listen"
	"meta9/session/packet"
	"meta9/session/residence"
)

// What the next program makes of that, or the way back to the one before.

// inheritedHandover is what the program before this one in the process has said; nil: there
// was none.
func inheritedHandover() (*handover, error) {
	text := os.Getenv(handoverEnv)
	if text == "" {
		return nil, nil
	}
	_ = os.Unsetenv(handoverEnv)
	h := new(handover)
	if err := json.Unmarshal([]byte(text), h); err != nil || h.Format < oldestHandover || h.Format > newestHandover {
		return nil, fmt.Errorf("%s: not what this version hands over", handoverEnv)
	}
	h.file = os.NewFile(uintptr(h.State), "handover")
	h.fds = []int{h.Exe, h.Next}
	if h.Settings != 0 {
		h.fds = append(h.fds, h.Settings)
	}
	return h, nil
}

// settings is command.complete, but for a program that goes on after another one has
// failed: it keeps the settings that it had, since those that are there now may be why.
func (h *handover) settings(c command) (command, error) {
	if h == nil || !h.isBack() || h.Settings == 0 {
		return c.complete()
	}
	f, err := os.Open(descriptorPath(h.Settings))
	if err != nil {
		return c, err
	}
	defer f.Close()
	var had config // it must be empty: what is empty is not written
	if err := gob.NewDecoder(f).Decode(&had); err != nil {
		return c, fmt.Errorf("the settings before the live update: %w", err)
	}
	c.config = had
	return c, c.config.validate()
}

// isBack tells that another program has failed, and executed this one again.
func (h *handover) isBack() bool { return h.Tally.Error != "" }

// serves removes the residence in the data folder ("": a fleet's host has none). From then on
// there is no way back to the program before. After an error there still is.
func (h *handover) serves(data string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return errors.New("it took too long")
	}
	var err error
	if data != "" {
		err = os.Remove(filepath.Join(data, residence.FileName))
		if err == nil || errors.Is(err, os.ErrNotExist) {
			err = store.SyncDir(data)
		}
	}
	h.over = err == nil
	return err
}

// back executes the program before this one, which goes on with what it has handed over.
// It returns where that cannot be.
func (h *handover) back(why error) error {
	err := why
	if h.isBack() {
		return err // it is this one
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.over = true
		h.Tally.Failed++
		h.Tally.Error = oneLine(why)
		err = errors.Join(why, execProgram(h.Exe, h.Args, h.Hangups, h))
	}
	return err
}

// takeOver restores what the program before this one has handed over. Nothing is served
// yet.
func (d *daemon) takeOver(t *tree.Tree) (err error) {
	h := d.from
	d.restored, err = residence.TakeOver(h.file, d.home(), d.server, t, d.takeExtra,
		func(fd int, s *session.Handed) (net.Conn, error) {
			h.fds = append(h.fds, fd)
			c, err := listen.FromDescriptor(fd)
			if err != nil || s.Link == nil {
				return c, err
			}
			return packet.Resume(c, *s.Link), nil
		},
		func(c net.Conn, s *session.Handed, run func(ended func())) {
			who := tree.Principal{Admin: s.Admin, VM: s.VM}
			if l, is := c.(*packet.Link); is {
				c, run = l.NetConn(), d.goOnWithLinks(l, who, s.Via, s.Addr, run)
			}
			d.adopt(c, s.Via, who, run)
		})
	if lost := d.restored.Lost; err == nil && lost > 0 {
		if !h.isBack() {
			return fmt.Errorf("%d of what was handed over cannot be taken: %s", lost, d.restored.Why)
		}
		d.log.Error().Int("lost", lost).Str("why", d.restored.Why).Msg("not all sessions were taken over")
	}
	if err != nil {
		return fmt.Errorf("what was handed over: %w", err)
	}
	d.keepsSessions = true
	d.restored.Found = true // whatever the journal has is older
	if d.fleet != nil {
		return nil // startFleet begins it
	}
	return d.beginJournal(&d.restored, t)
}

// takeExtra takes one record of ours.
func (d *daemon) takeExtra(b []byte) error {
	var e extra
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	if e.Socket != nil {
		d.from.fds = append(d.from.fds, e.Socket.FD)
		return d.inherited.Socket(*e.Socket)
	}
	if e.Fleet != nil {
		d.fleetBefore = e.Fleet
	}
	if w := e.Waits; w != nil {
		d.from.fds = append(d.from.fds, w.FD)
		c, err := listen.FromDescriptor(w.FD)
		if err != nil {
			return err
		}
		serve := d.serve
		if w.Lines {
			serve = d.serveMdata
		}
		who := tree.Principal{VM: w.VM}
		d.adopt(c, w.Via, who, func(ended func()) { serve(c, who, w.Via, w.Addr, ended) })
	}
	if l := e.Lines; l != nil {
		d.from.fds = append(d.from.fds, l.FD)
		c, err := listen.FromDescriptor(l.FD)
		if err != nil {
			return err
		}
		who := tree.Principal{VM: l.VM}
		d.adopt(c, l.Via, who, func(ended func()) {
			defer ended()
			d.mdata.Adopt(mdata.Handed{Conn: c, Who: who, Via: l.Via, Input: l.Input, Output: l.Output})
		})
	}
	return nil
}

// adopt keeps a connection for its listener, until the daemon is open.
func (d *daemon) adopt(c net.Conn, via string, who tree.Principal, run func(ended func())) {
	d.from.conns++
	d.inherited.Conn(via, listen.Adopted{Conn: c, Who: who, Run: func(ended func()) {
		d.waitOpen() // where not: it runs to be ended with the others
		run(ended)
	}})
}

// beginServing lets all be served that waits for it: everything is there. After that there is no
// way back.
func (d *daemon) beginServing(told context.Context) error {
	for _, left := range d.inherited.Rest() {
		d.log.Warn().Str("what", left).Msg("inherited, and not in the settings: closed")
	}
	h := d.from
	if h == nil {
		err := d.startFleet(told)
		if err == nil {
			close(d.opened)
		}
		return err
	}
	data := d.cfg.Data
	if d.fleet != nil {
		data = ""
	}
	if err := h.serves(data); err != nil {
		return err
	}
	if err := d.startFleet(told); err != nil {
		return err
	}
	u := d.upgrades
	u.tally = h.Tally
	u.tally.Pause = now() - h.Began
	if h.Tally.Error == "" {
		u.tally.Done++
		d.log.Info().Str("from", h.From).Str("to", version.String()).Int("connections", h.conns).Int("parked", d.restored.Sessions).
			Dur("pause", time.Duration(u.tally.Pause)).Msg("live update done")
	} else {
		d.log.Error().Str("error", h.Tally.Error).Dur("pause", time.Duration(u.tally.Pause)).
			Msg("the live update has failed; this program goes on")
	}
	close(d.opened)
	for _, fd := range h.fds {
		_ = unix.Close(fd)
	}
	return h.file.Close()
}

// startFailed is the end of a start that has failed. Where there is a program to go back to,
// what was handed over must stay for it: nothing is closed but the store, which only one
// may have open.
func (d *daemon) startFailed() {
	if d.from == nil || d.from.isBack() {
		close(d.failed)
		return
	}
	d.undo = nil
	if d.store != nil {
		if err := d.store.Close(); err != nil {
			d.log.Error().Err(err).Msg("closing the store")
		}
	}
}
