package listen

import (
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
)

// healEvery is how often the files of unix sockets are looked at: somebody may clean up
// below /run. Who is connected notices nothing.
const healEvery = 2 * time.Second

// watch makes the socket's file again when it was taken away, until Close.
func (l *Listener) watch(s *socket, log zerolog.Logger) {
	defer l.running.Done()
	tick := time.NewTicker(healEvery)
	defer tick.Stop()
	for said := ""; ; {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		healed, err := s.heal(s.perm)
		switch {
		case err != nil:
			if text := err.Error(); text != said {
				said = text
				log.Error().Str("socket", s.at.path).Err(err).Msg("the socket was taken away; it cannot be made again")
			}
		case healed:
			log.Warn().Str("socket", s.at.path).Msg("the socket was taken away; it is made again")
			said = ""
		default:
			said = ""
		}
	}
}

// heal looks after the files of all VMs' sockets; work's. However many were taken away
// at once, that is one line.
func (m *VMs) heal() {
	var healed, lost int
	var example string
	var worst error
	for uuid, k := range m.kept {
		dir := filepath.Join(m.cfg.Run, uuid)
		if len(k.sockets) == 0 || !k.changed(dir) {
			continue
		}
		n, err := m.healVM(uuid, k)
		if err != nil {
			k.looked = time.Time{}
			if !k.lost {
				lost, worst, example = lost+1, err, dir
			}
		}
		if k.lost = err != nil; n > 0 {
			if healed++; worst == nil {
				example = dir
			}
		}
	}
	if healed > 0 {
		m.cfg.Log.Warn().Int("vms", healed).Str("folder", example).Msg("sockets of VMs were taken away; they are made again")
	}
	if lost > 0 {
		m.cfg.Log.Error().Int("vms", lost).Str("folder", example).Err(worst).Msg("sockets of VMs were taken away; they cannot be made again")
	}
}

// healVM makes what is missing of a VM's sockets, and tells how many.
func (m *VMs) healVM(uuid string, k *kept) (healed int, err error) {
	var perm Perm
	for _, l := range k.sockets {
		s := l.nl.(*socket)
		if !s.gone() {
			continue
		}
		if healed == 0 {
			if perm, err = m.folder(uuid, k.owner); err != nil {
				return 0, err
			}
		}
		if _, err := s.heal(perm); err != nil {
			return healed, err
		}
		healed++
	}
	return healed, nil
}

// changed says whether the VM's folder may have other files in it than when it was
// looked at last: its time goes with each that comes or goes. Thousands of VMs are
// looked at for one stat each. A time that is new says nothing of what comes in the
// same tick of the kernel's clock.
func (k *kept) changed(dir string) bool {
	fi, err := os.Lstat(dir)
	if err != nil {
		return true
	}
	was := k.looked
	if k.looked = fi.ModTime(); time.Since(k.looked) < healEvery/2 {
		k.looked = time.Time{}
	}
	return was.IsZero() || !was.Equal(fi.ModTime())
}
