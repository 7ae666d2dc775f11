package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const about = `Serve the metadata of virtual machines over 9P.

Ready is said on standard output ("ready") and to systemd. SIGTERM and SIGINT
end it after what has begun is done, and keep the sessions that have a key for
the next start (DATA/residence); a second one ends it at once. SIGHUP reads the
settings again (--config FILE): the level of the log, the trace, the
certificates and the list of denied ones (tls) change at once; the log names
what wants a restart. Settings that cannot be used change nothing. SIGUSR2 puts
the program that is now where this one was started in its place, without a
restart (meta9 upgrade).

Exit status:
0  done, no damage
1  the data folder is in use or damaged, or a failure
2  a flag, setting, file or listener that cannot be used`

// command is what the command line asks for.
type command struct {
	version, check, checkConfig, salvage bool
	checkUpgrade                         bool
	args                                 []string // as they were given
	restore                              string   // a backup to make the data folder of
	importFrom, exportTo                 string   // a data folder whose VMs go into the fleet, or that gets this host's
	file                                 string   // the settings file, if any
	config                               config
	from                                 *handover // nil: the process has begun with this program
}

// newRoot is the command meta9d, which does what args and the settings file ask
// for; complete is command.complete, or in its place. Help and completion are cobra's.
func newRoot(args []string, complete func(command) (command, error), do func(command) error) *cobra.Command {
	c := command{args: args, config: defaults()}
	root := &cobra.Command{
		Use:                   "meta9d [OPTION]...",
		Short:                 "serve the metadata of virtual machines over 9P",
		Long:                  about,
		SilenceUsage:          true,
		SilenceErrors:         true,
		DisableAutoGenTag:     true,
		DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misused("unexpected argument %q (meta9d --help lists the flags)", args[0])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			c, err := complete(c)
			if err != nil {
				return err
			}
			return do(c)
		},
	}
	root.SetArgs(args)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s\n\nUsage: %s\n\n%s", cmd.Long, cmd.UseLine(), cmd.Flags().FlagUsagesWrapped(helpWidth))
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return misused("%w (meta9d --help lists the flags)", err)
	})
	c.bind(root.Flags())
	for flag, values := range map[string][]string{"log-level": {"debug", "info", "warn", "error"}} {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = root.MarkFlagDirname("data")
	_ = root.MarkFlagDirname("run")
	_ = root.MarkFlagDirname("import")
	_ = root.MarkFlagDirname("export")
	_ = root.MarkFlagFilename("config", "toml")
	_ = root.MarkFlagFilename("libvirt")
	return root
}

// helpWidth is that of a terminal: 80 columns.
const helpWidth = 80

// complete reads the settings file that c names, and then the flags again, so that flags
// win over the file.
func (c command) complete() (command, error) {
	if c.version {
		return c, nil
	}
	if c.file != "" {
		c.config = defaults()
		if err := c.config.load(c.file); err != nil {
			return c, err
		}
		again := pflag.NewFlagSet("meta9d", pflag.ContinueOnError)
		again.SetOutput(io.Discard)
		c.bind(again)
		if err := again.Parse(c.args); err != nil {
			return c, misused("%w", err)
		}
	}
	if err := c.config.validate(); err != nil {
		return c, err
	}
	return c, c.checkFolder()
}

// bind makes the flags set c's fields. A flag for a list, if it is given, replaces the
// list of the settings file.
func (c *command) bind(f *pflag.FlagSet) {
	o := &c.config
	f.SortFlags = false
	f.StringVar(&o.Data, "data", o.Data, "keep the metadata in `DIR`; \"\" keeps it in memory only")
	f.StringVar(&o.Run, "run", o.Run, "make sockets in `DIR`: DIR/admin.sock for the admin, and for each VM DIR/UUID/9p.sock and, for the Joyent metadata protocol, DIR/UUID/mdata.sock")
	f.StringArrayVar(&o.Listen, "listen", o.Listen, "listen at `ADDR` too; may be repeated. ADDR is unix:PATH (the admin's), unix:PATH,as=vm:UUID, tcp:HOST:PORT, tls:HOST:PORT or vsock:PORT; and, with --insecure, tcp:HOST:PORT,as=admin or ,as=vm:UUID")
	f.BoolVar(&o.Insecure, "insecure", o.Insecure, "allow tcp listeners that take everyone for the admin or for one VM")
	f.StringVar(&o.AdminGroup, "admin-group", o.AdminGroup, "take the members of `GROUP` for the admin on unix sockets, as root and meta9d's own user are")
	f.StringVar(&o.MdataFrom, "mdata-from", o.MdataFrom, "show the metadata service at `ADDR` (the Joyent protocol) as the admin's folder upstream/; ADDR is unix:PATH or tty:PATH")
	f.StringArrayVar(&o.QMP.Sockets, "qmp", o.QMP.Sockets, "follow the QEMU whose QMP socket is at `ADDR`, unix:PATH: it becomes a VM; may be repeated")
	f.StringArrayVar(&o.QMP.Dirs, "qmp-dir", o.QMP.Dirs, "follow those at all paths that match `GLOB`, as they come and go; may be repeated")
	f.StringArrayVar(&o.QMP.Listen, "qmp-listen", o.QMP.Listen, "speak QMP at `ADDR`, unix:PATH, to the admin")
	f.StringArrayVar(&o.HTTP.Listen, "http", o.HTTP.Listen, "serve vminfod's HTTP API at `ADDR`; may be repeated. ADDR is HOST:PORT, :PORT (on the loopback) or unix:PATH. On RUN/vminfo.sock the admin always has it")
	f.BoolVar(&o.HTTP.Internal, "http-internal", o.HTTP.Internal, "show internal_metadata there, to whoever can connect")
	f.StringArrayVar(&o.HTTP.Metrics, "metrics", o.HTTP.Metrics, "serve /metrics, /healthz and /readyz alone, which have nothing of any VM, at `ADDR`, as of --http; may be repeated")
	f.StringVar(&o.VminfodFrom, "vminfod-from", o.VminfodFrom, "mirror the vminfod, or meta9d, at `URL`, http://HOST:PORT or unix:PATH; everything is read-only then")
	f.StringVar(&o.Libvirt, "libvirt", o.Libvirt, "have the states of VMs from libvirt, by its read-only socket at `PATH`; \"\" is the usual one, off follows none")
	f.StringVar(&c.file, "config", "", "read settings from `FILE` (TOML); flags win over it")
	f.StringVar(&o.LogLevel, "log-level", o.LogLevel, "log from `LEVEL` on: debug, info, warn or error")
	f.BoolVar(&o.Trace, "trace", o.Trace, "log every message, without secrets")
	f.BoolVar(&c.checkConfig, "check-config", c.checkConfig, "look whether the settings and the files and groups that they name can be used, say what is wrong, and exit")
	f.BoolVar(&c.check, "check", c.check, "look for damage in the data folder, report it, and exit")
	f.StringVar(&c.restore, "restore", "", "make the data folder of the backup in `FILE` ('meta9 backup'), and exit; the folder must have no data")
	f.StringVar(&c.importFrom, "import", "", "make the VMs of the data folder `DIR` VMs of the fleet, this host's, and exit; [cluster] must be set, and this host's meta9d not run")
	f.StringVar(&c.exportTo, "export", "", "write this host's VMs of the fleet into a new data folder `DIR`, and exit; likewise")
	f.BoolVar(&c.salvage, "salvage", c.salvage, "start in spite of damage, and list what is skipped")
	f.BoolVar(&c.checkUpgrade, "check-upgrade", c.checkUpgrade, "say whether this program can take over; meta9d asks it")
	f.BoolVar(&c.version, "version", c.version, "print the version and exit")
	f.BoolP("help", "h", false, "print this and exit")
}
