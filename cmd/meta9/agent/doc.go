// Package agent keeps files of a guest as keys of its host have them, by recipes: what
// `meta9 agent` does in a guest that mounts nothing.
//
// A recipe is a set of files, each with the key that it is made of. When one of the keys
// changes, all of the set are read as they are at one moment, written beside their places,
// looked at by the recipe's check, renamed into place, and told of by its command.
//
// # What must stay true
//
// The host is not trusted. It gives values, and nothing else: which file is written, how
// long it may be, who owns it and what is run are the recipe's to say. No name, number or
// text of the host's becomes part of a path, of a command line, or of its environment. What the host
// does makes at most a run a second of each recipe, and the logger that is passed in
// bounds the lines.
//
// Local users are not trusted either. A recipe is root's (or that user's whose agent it
// is). The way to a file has no symbolic link in it, as place.go sees to, and no file that
// is there is ever opened for writing: it is replaced. A check gets what the agent has open,
// and no path that who owns the folder could lead elsewhere meanwhile. All may read the
// status: what a check or a command printed is in the log alone.
//
// What was written and not told of is told of after a restart: before the first file of a
// set is renamed, a mark is made in the state folder, and it goes when the command has
// ended well.
//
// # Concurrency
//
// One goroutine follows the events, and each recipe has a worker of its own, so that a
// command that hangs holds up its recipe alone. They share the client and the health,
// which has a lock of its own; nothing is waited for while it is held.
package agent
