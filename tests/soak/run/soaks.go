package main

// soaks are the long forms that there are. To add one, write a test with
// tests/soak behind the build tag soak, and a line here.
var soaks = []entry{
	{"cloudinit", "./tests/mdata", "TestSoakCloudInit", "trixie's and sid's cloud-init, unpacked into a folder: the SmartOS source and NoCloud make the same network of every payload."},
	{"fleetguests", "./tests/cluster/run", "TestSoakMigrations", "A real guest under TCG migrates to and fro between two meta9d over one etcd, 20 times a round, while programs in it append, replace, hold a lock, have files open and read events over meta9 mount: no error, every line once, each change one host's."},
	{"fuzz", "./tests/soak", "TestFuzz", "Every fuzz target in turn, five minutes each, with what the parts before found interesting where they ran on the same machine."},
	{"fleet", "./tests/cluster", "TestSoak", "Three meta9d over three members of etcd, guests and admins of four VMs: cut transports, hand-overs, SIGKILL, SIGSTOP and cut links of hosts and of members, answers of etcd that are lost and transactions that come late; one order of all operations explains what each client was told. Two of four rounds have a meta9d with the race detector."},
	{"kill", "./tests/durability", "TestSoakKill", "64 writers, and SIGKILL to meta9d at random moments: what was acknowledged is there, nothing is by half."},
	{"kernels", "./tests/guest", "TestSoak", "Linux of each Debian suite, the oldest first: listings, loops over events, keys replaced while they are opened 10,000 times, times, users."},
	{"crash", "./tests/crash", "TestSoakImages", "Every system call of the engine fails once, and from then on; a loss of power at random moments of a trace of writes and syncs: each data folder starts, is sound, and holds what was acknowledged."},
	{"linear", "./tests/linear", "TestSoakLinear", "Clients of every kind at the keys of four VMs, SIGKILL, lost connections and resumed sessions meanwhile: one order of all operations explains what each was told, and what has a number is done once."},
	{"structure", "./tests/structure", "TestSoakImages", "The structure of the data file changed in one place, with checksums that are right: each image is refused at the start and by --check, or all is right and stays so."},
	{"mount", "./tests/mount", "TestSoak", "meta9 mount on Linux of each Debian suite, by v9fs, and by FUSE with its cache on this machine's kernel and on the suite's cloud kernel: 200 cuts each way, kills, sessions lost, the life of a mount."},
	{"moments", "./tests/mount", "TestSoakMoments", "A guest with meta9 mount is set back (savevm, loadvm) 20 times at random moments of work, and no write reaches another key than its own; then meta9d is updated 50 times under a guest's work by v9fs over tcp, guestfwd and a unix socket, and by meta9 mount over link.sock, with clients of the Joyent protocol beside it: no error, and every connection is the one that it was."},
	{"oracle", "./tests/oracle", "TestSoak", "Generated requests of 9P2000.L to hugelgupf/p9's Server and to meta9d: the replies are the same, but for the table of deliberate differences."},
	{"restart", "./tests/restart", "TestSoak", "Kills, planned restarts and live updates of meta9d in any order, under session/client, the command line, meta9 mount, a holder of a lock, readers of events and a raw client of 9P2000.e; between such rounds 50 kills, 20 planned restarts, or 10 live updates with clients of the kernel's dialects and of the Joyent protocol: all sessions are resumed, all connections stay at the updates, nothing is lost or done twice."},
	{"old", "./tests/restart", "TestSoakOld", "meta9d and meta9 of the commit before the names 9P2000.L.e.2 and 9P2000.e.n.2, built from the history, with those of today: old guests at a new daemon, new ones at an old daemon, and an old daemon that is restarted into, updated into, or killed and replaced by the new one."},
	{"replace", "./tests/interop", "TestSoakReplaced", "A key that is replaced 5, 50 and 500 times a second, read by its path, by a fid, by Tsread and by GET, in every dialect: 10,000 opens of each way in a round, and none fails."},
	{"sessions", "./tests/hostile", "TestSoakSessions", "Eight hostile VMs speak whole sessions at random, in all dialects of 9P, the metadata protocol, QMP and HTTP; a bystander is served meanwhile, memory and goroutines are bounded and given back. The race detector looks on where META9_TEST_RACE=1 is set."},
	{"txn", "./tests/txn", "TestSoak", "64 clients, guests and admins, add 10,000 times to one key by transactions: the sum is right."},
	{"txnguests", "./tests/guest", "TestSoakTransactions", "The shells of two guests add to one key by transactions, 500 times, over v9fs in each dialect: the sum is right."},
	{"windows", "./tests/windows", "TestSoak", "The client built for Windows, in Debian's Wine: its commands do what they do on Linux, and mount says what is missing."},
}
