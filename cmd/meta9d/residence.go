package main

import (
	"fmt"

	"meta9/fs"
	"meta9/session/residence"
)

// home is what the data folder's residence must belong to, as it is now.
func (d *daemon) home() residence.Home {
	return residence.Home{Folder: d.folderID, Number: d.folder.Number("")}
}

// identify learns the data folder's identity, before its first change.
func (d *daemon) identify() {
	if d.folder == nil {
		return
	}
	var err error
	if d.folderID, err = d.folder.ID(); err != nil {
		d.log.Warn().Err(err).Msg("no session will outlive this meta9d: the data folder has no identity")
		d.folder = nil
	}
}

// restore takes up the sessions that the last meta9d has left in the data folder, before
// anybody is served. What it cannot take up is told, and set aside.
func (d *daemon) restore(tree *fs.Tree) (err error) {
	if d.folder == nil {
		return nil
	}
	d.restored, err = residence.Load(d.cfg.Data, d.home(), d.server, tree)
	if err != nil {
		return fmt.Errorf("data folder %s: the sessions that were kept: %w", d.cfg.Data, err)
	}
	r := &d.restored
	if r.Why != "" {
		d.log.Warn().Int("lost", r.Lost).Int("restored", r.Sessions).Str("why", r.Why).Str("aside", r.Aside).
			Msg("not all sessions were restored")
	} else if r.Sessions > 0 {
		d.log.Info().Int("sessions", r.Sessions).Msg("restored")
	}
	d.keepsSessions = true
	return nil
}

// leave leaves the sessions for the next meta9d, when nothing changes any more.
func (d *daemon) leave(tree *fs.Tree) {
	if !d.keepsSessions {
		return
	}
	d.store.Stop()
	kept, lost, err := residence.Save(d.cfg.Data, d.home(), d.server, tree)
	switch {
	case err != nil:
		d.log.Error().Int("sessions", kept+lost).Err(err).Msg("the sessions are lost: they could not be kept for the next start")
	case kept > 0:
		d.log.Info().Int("sessions", kept).Msg("kept for the next start")
	}
	if lost > 0 && err == nil {
		d.log.Error().Int("sessions", lost).Msg("sessions are lost: they take too much to be kept for the next start")
	}
}
