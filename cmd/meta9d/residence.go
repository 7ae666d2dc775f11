package main

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"meta9/fs"
	"meta9/session/residence"
)

// home is what the data folder's residence must belong to, as it is now.
func (d *daemon) home() residence.Home {
	if d.folder == nil {
		return residence.Home{Folder: d.folderID} // a host's place in its fleet has no number of its own
	}
	return residence.Home{Folder: d.folderID, Number: d.folder.Number("")}
}

// openJournal takes the place of the journal in the run folder. Where there is none, a
// kill ends the sessions, and that is all.
func (d *daemon) openJournal() {
	j, err := residence.OpenJournal(d.cfg.Run, d.log)
	if err == nil {
		d.boot, err = residence.Boot()
	}
	if err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) { // the start will fail, and say so
			d.log.Warn().Err(err).Msg("no session will outlive a kill: there is no journal")
		}
		return
	}
	d.journal = j
	d.atEnd(func() {
		if err := j.End(d.left); err != nil {
			d.log.Error().Err(err).Msg("ending the journal")
		}
	})
}

// identify learns the data folder's identity, before its first change.
func (d *daemon) identify() {
	if d.member != nil {
		sum := sha256.Sum256(fmt.Appendf(nil, "meta9 host of a fleet\x00%s\x00%s", d.cfg.Cluster.Prefix, d.member.Instance()))
		d.folderID = [16]byte(sum[:])
	}
	if d.folder == nil {
		return
	}
	var err error
	if d.folderID, err = d.folder.ID(); err != nil {
		d.log.Warn().Err(err).Msg("no session will outlive this meta9d: the data folder has no identity")
		d.folder = nil
	}
}

// restore takes up the sessions that the last meta9d has left, before anybody is served:
// in the data folder, if it was stopped, or else in the journal. What it cannot take up is
// told, and set aside.
func (d *daemon) restore(tree *fs.Tree) (err error) {
	switch {
	case d.fleet != nil:
		d.keepsSessions = true // beside the VMs, from where restoreFleet takes them
		if d.from != nil {
			return d.takeOver(tree)
		}
		return d.restoreKilled(tree)
	case d.folder == nil:
		d.dropJournal("nothing is kept in a data folder")
		return nil
	case d.from != nil:
		return d.takeOver(tree)
	}
	d.restored, err = residence.Load(d.cfg.Data, d.home(), d.server, tree, func(r *residence.Report) error {
		return d.beginJournal(r, tree)
	})
	if err != nil {
		return fmt.Errorf("data folder %s: the sessions that were kept: %w", d.cfg.Data, err)
	}
	d.tellRestored(&d.restored)
	d.keepsSessions = true
	return nil
}

// tellRestored logs what became of a residence or a journal.
func (d *daemon) tellRestored(r *residence.Report) {
	if r.Why != "" {
		d.log.Warn().Int("lost", r.Lost).Int("restored", r.Sessions).Str("why", r.Why).Str("aside", r.Aside).
			Msg("not all sessions were restored")
	} else if r.Sessions > 0 {
		d.log.Info().Int("sessions", r.Sessions).Msg("restored")
	}
}

// place is what the journal belongs to.
func (d *daemon) place() residence.Place {
	p := residence.Place{Home: d.home(), Boot: d.boot, Rev: d.store.Rev()}
	if d.fleet != nil {
		p.Stays = d.etcd
	}
	return p
}

// restoreKilled restores the sessions of a fleet's host whose meta9d was killed.
func (d *daemon) restoreKilled(tree *fs.Tree) (err error) {
	if d.journal == nil || !d.cfg.Session.Journal {
		return nil
	}
	if d.restored, err = d.journal.Restore(d.place(), d.server, tree); err == nil {
		d.tellRestored(&d.restored)
	}
	return err
}

// keepJournal begins a journal of what there is now, when all sessions are restored.
func (d *daemon) keepJournal(tree *fs.Tree) {
	if d.journal == nil {
		return
	}
	if !d.cfg.Session.Journal {
		d.dropJournal("session.journal is off")
		return
	}
	if err := d.journal.Begin(d.place(), d.server, tree); err != nil {
		d.log.Warn().Err(err).Msg("no session will outlive a kill: the journal cannot be begun")
		d.dropJournal("it cannot be gone on with")
	}
}

// beginJournal restores what a killed meta9d has left, unless the data folder had it, and
// begins a journal of what there is now.
func (d *daemon) beginJournal(r *residence.Report, tree *fs.Tree) (err error) {
	var from residence.Report
	switch {
	case d.journal == nil || !d.cfg.Session.Journal:
	case r.Found && !r.Refused:
		from, err = d.journal.Spare(d.place())
	default: // it says by itself whether it is this folder's, as that is now
		from, err = d.journal.Restore(d.place(), d.server, tree)
	}
	switch {
	case err != nil:
		return err
	case !r.Found:
		*r = from
	default:
		r.Add(from)
		d.tellRestored(&from)
	}
	d.keepJournal(tree)
	return nil
}

// dropJournal sets a journal aside that this meta9d will not go on with: the next must not
// take up the sessions as they were before.
func (d *daemon) dropJournal(why string) {
	if d.journal == nil {
		return
	}
	aside, err := d.journal.SetAside()
	if err != nil {
		d.log.Error().Err(err).Msg("a journal of sessions is in the run folder and must be removed")
	} else if aside != "" {
		d.log.Warn().Str("why", why).Str("aside", aside).Msg("a journal of sessions was set aside")
	}
}

// leave leaves the sessions for the next meta9d, when nothing changes any more.
func (d *daemon) leave(tree *fs.Tree) {
	if !d.keepsSessions {
		return
	}
	d.store.Stop()
	if d.fleet != nil {
		d.leaveBeside(tree)
		return
	}
	kept, lost, err := residence.Save(d.cfg.Data, d.home(), d.server, tree)
	switch {
	case err != nil && d.journal != nil && d.journal.Epoch() != 0:
		d.log.Error().Int("sessions", kept+lost).Err(err).Msg("the sessions are left in the journal: they could not be kept in the data folder, and are lost with this boot of the host")
	case err != nil:
		d.log.Error().Int("sessions", kept+lost).Err(err).Msg("the sessions are lost: they could not be kept for the next start")
	default:
		d.left = true
		if kept > 0 {
			d.log.Info().Int("sessions", kept).Msg("kept for the next start")
		}
	}
	if lost > 0 && err == nil {
		d.log.Error().Int("sessions", lost).Msg("sessions are lost: they take too much to be kept for the next start")
	}
	if d.leaves() {
		d.handState(tree)
	}
}

// leaveBeside is leave of a fleet's host: the sessions are left beside the VMs in etcd. A live
// update takes them along instead.
func (d *daemon) leaveBeside(tree *fs.Tree) {
	if d.leaves() {
		if d.handState(tree); d.upgrades.fault == nil {
			return // the journal stays until the next program begins its own
		}
	}
	kept, lost, why := d.fleet.Leave()
	if kept > 0 {
		d.log.Info().Int("sessions", kept).Msg("kept beside their VMs in etcd")
	}
	// Where not all are there, the next start takes from the journal those that are not: the
	// others are of a later stay.
	d.left = lost == 0
	if lost > 0 {
		line := d.log.Error().Int("sessions", lost)
		if why != nil {
			line = line.Str("error", oneLine(why))
		}
		line.Msg("sessions could not be kept beside their VMs in etcd, and are lost unless the journal has them")
	}
}
