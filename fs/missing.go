package fs

import "meta9/fs/errs"

// Op is something that is asked of a Node.
type Op uint8

// The operations, by the capabilities that they need.
const (
	OpWalk    Op = iota // Folder
	OpRead              // Opener for reading, Valuer
	OpWrite             // Opener for writing, Writer
	OpCreate            // Creator, Putter
	OpRemove            // Remover, Unlinker
	OpRename            // Renamer
	OpSetStat           // Setter
)

// readOnlyFolder is a folder of which nobody can change the entries.
type readOnlyFolder interface{ readOnly() }

// Missing is the error for what n cannot do: the one place that says what a
// refused operation gets.
//
//	walk, create, remove in, rename in a file   NotDir
//	read or write a folder whole                IsDir
//	read, write a file that does not allow it   Permission (EACCES)
//	create, remove, rename in derived folders   ReadOnly (EROFS)
//	all else                                    NotPermitted (EPERM)
//	anything of what was not restored           Stale
func Missing(n Node, op Op) error {
	_, dir := n.(Folder)
	_, derived := n.(readOnlyFolder)
	_, gone := n.(goneNode)
	switch {
	case gone:
		return errs.Stale
	case op == OpWalk, !dir && (op == OpCreate || op == OpRename):
		return errs.NotDir
	case dir && (op == OpRead || op == OpWrite):
		return errs.IsDir
	case op == OpRead, op == OpWrite:
		return errs.Permission
	case derived && op != OpSetStat:
		return errs.ReadOnly
	}
	return errs.NotPermitted
}
