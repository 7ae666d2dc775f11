package main

import (
	"reflect"
	"slices"

	"github.com/rs/zerolog"
)

// reloadable are the settings that a reload changes.
var reloadable = []string{"log_level", "trace", "tls.cert", "tls.key", "tls.ca", "tls.deny"}

// reload reads the settings again, and the files that they name. All is read before
// anything changes: what cannot be used leaves everything as it was. Settings that
// cannot change while the daemon runs are named, and left.
func (d *daemon) reload() {
	next, err := d.command.complete()
	if err == nil {
		err = next.config.checkFiles()
	}
	if err == nil {
		err = d.take(&next.config)
	}
	if err != nil {
		d.log.Error().Str("error", oneLine(err)).Msg("not reloaded; everything is as it was")
	}
}

// take makes next the settings, as far as they can change now.
func (d *daemon) take(next *config) error {
	certs, err := next.TLS.load()
	if err != nil {
		return err
	}
	denied, err := d.denied.Load(next.TLS.Deny)
	if err != nil {
		return usageError{err}
	}
	changed, restart := []string{}, []string{}
	for _, name := range differences("", reflect.ValueOf(d.cfg), reflect.ValueOf(*next)) {
		// Without certificates at the start there are no listeners that could use some.
		isTLS := name == "tls.cert" || name == "tls.key" || name == "tls.ca"
		if !slices.Contains(reloadable, name) || isTLS && (certs == nil || d.certs.Load() == nil) {
			restart = append(restart, name)
			continue
		}
		changed = append(changed, name)
	}
	if certs != nil && d.certs.Load() != nil {
		d.certs.Store(certs)
		d.cfg.TLS.Cert, d.cfg.TLS.Key, d.cfg.TLS.CA = next.TLS.Cert, next.TLS.Key, next.TLS.CA
	}
	d.cfg.TLS.Deny = next.TLS.Deny
	d.recheck()
	if next.Trace != d.cfg.Trace { // QMP may have set it to something else than it was set to here
		d.cfg.Trace = next.Trace
		d.server.SetTrace(d.trace(next.Trace))
	}
	d.cfg.LogLevel = next.LogLevel
	zerolog.SetGlobalLevel(levels[next.LogLevel])
	// Whatever the level is: who asked for it looks for this line.
	d.log.Log().Str("level", "info").Strs("changed", changed).Strs("want_restart", restart).Int("denied", denied).Msg("reloaded")
	return nil
}

// differences are the names of the settings that differ, as they are in the file.
func differences(prefix string, a, b reflect.Value) (names []string) {
	for i := range a.NumField() {
		name, x, y := prefix+a.Type().Field(i).Tag.Get("toml"), a.Field(i), b.Field(i)
		switch {
		case x.Kind() == reflect.Struct:
			names = append(names, differences(name+".", x, y)...)
		case (x.Kind() == reflect.Slice || x.Kind() == reflect.Map) && x.Len() == 0 && y.Len() == 0:
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			names = append(names, name)
		}
	}
	return names
}
