package main

import (
	"errors"
	"flag"
	"io"
	"regexp"
)

const usage = `Usage: meta9d [OPTION]...
Serve the metadata of virtual machines over 9P.

  --data DIR         where the metadata is kept (default ./meta9-data);
                     "" keeps it in memory only
  --run DIR          where sockets are made: DIR/admin.sock for the admin, and
                     for each VM DIR/UUID/9p.sock and, for the Joyent metadata
                     protocol, DIR/UUID/mdata.sock (default ./meta9-run)
  --listen ADDR      listen there too; may be repeated. ADDR is unix:PATH,
                     tcp:HOST:PORT, tls:HOST:PORT or vsock:PORT; and, with
                     --insecure, tcp:HOST:PORT,as=admin or ,as=vm:UUID
  --insecure         allow tcp listeners that take everyone for the admin
                     or for one VM
  --mdata-from ADDR  show the metadata service at ADDR (the Joyent protocol) as
                     the admin's folder upstream/; ADDR is unix:PATH or tty:PATH
  --qmp ADDR         follow the QEMU whose QMP socket is at ADDR, unix:PATH: it
                     becomes a VM; may be repeated
  --qmp-dir GLOB     follow those at all paths that match, as they come and go;
                     may be repeated
  --qmp-listen ADDR  speak QMP at ADDR, unix:PATH, to the admin
  --http ADDR        serve vminfod's HTTP API there; may be repeated. ADDR is
                     HOST:PORT, :PORT (on the loopback) or unix:PATH. On
                     RUN/vminfo.sock the admin always has it
  --http-internal    show internal_metadata there, to whoever can connect
  --vminfod-from URL mirror the vminfod, or meta9d, at http://HOST:PORT or
                     unix:PATH; everything is read-only then
  --config FILE      read settings from FILE (TOML); flags win over it
  --log-level LEVEL  debug, info, warn or error (default info)
  --trace            log every message, without secrets
  --check            look for damage in the data folder, report it, and exit
  --salvage          start in spite of damage, and list what is skipped
  --version          print the version and exit
  --help             print this and exit

Ready is said on standard output ("ready") and to systemd. SIGTERM and SIGINT
end it after what has begun is done; a second one ends it at once.

Exit status: 0 done, no damage; 1 data folder in use or damaged, or a failure;
2 a flag, setting, file or listener that cannot be used.
`

// command is what the command line asks for.
type command struct {
	help, version, check, salvage bool
	config                        config
}

// parse reads the command line and, if it names one, the settings file. It goes
// through the flags twice: the first time to find the file, the second time so
// that they win over it.
func parse(args []string) (command, error) {
	c := command{config: defaults()}
	file, err := c.flags(args)
	if err != nil || c.help || c.version {
		return c, err
	}
	if file != "" {
		c.config = defaults()
		if err := c.config.load(file); err != nil {
			return c, err
		}
		if _, err := c.flags(args); err != nil {
			return c, err
		}
	}
	return c, c.config.validate()
}

// flags reads the command line into c and returns the settings file's name.
func (c *command) flags(args []string) (file string, err error) {
	f := flag.NewFlagSet("meta9d", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVar(&c.version, "version", c.version, "")
	f.BoolVar(&c.check, "check", c.check, "")
	f.BoolVar(&c.salvage, "salvage", c.salvage, "")
	f.StringVar(&file, "config", "", "")
	f.StringVar(&c.config.Data, "data", c.config.Data, "")
	f.StringVar(&c.config.Run, "run", c.config.Run, "")
	f.StringVar(&c.config.LogLevel, "log-level", c.config.LogLevel, "")
	f.BoolVar(&c.config.Trace, "trace", c.config.Trace, "")
	f.BoolVar(&c.config.Insecure, "insecure", c.config.Insecure, "")
	f.StringVar(&c.config.MdataFrom, "mdata-from", c.config.MdataFrom, "")
	f.BoolVar(&c.config.HTTP.Internal, "http-internal", c.config.HTTP.Internal, "")
	f.StringVar(&c.config.VminfodFrom, "vminfod-from", c.config.VminfodFrom, "")
	settle := []func(){
		repeated(f, "listen", &c.config.Listen), repeated(f, "http", &c.config.HTTP.Listen), repeated(f, "qmp", &c.config.QMP.Sockets),
		repeated(f, "qmp-dir", &c.config.QMP.Dirs), repeated(f, "qmp-listen", &c.config.QMP.Listen),
	}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		c.help = true
		return "", nil
	case err != nil:
		return "", misused("%s (meta9d --help lists the flags)", longFlags(err.Error()))
	case f.NArg() > 0:
		return "", misused("unexpected argument %q (meta9d --help lists the flags)", f.Arg(0))
	}
	for _, set := range settle {
		set()
	}
	return file, nil
}

// repeated adds a flag that may be repeated. What it was given in all takes the
// place of what list had when settle is called, if it was given at all.
func repeated(f *flag.FlagSet, name string, list *[]string) (settle func()) {
	var given []string
	f.Func(name, "", func(s string) error {
		given = append(given, s)
		return nil
	})
	return func() {
		if given != nil {
			*list = given
		}
	}
}

var shortFlag = regexp.MustCompile(` -([a-z])`)

// longFlags spells the flags in package flag's errors as we do.
func longFlags(text string) string { return shortFlag.ReplaceAllString(text, " --$1") }
