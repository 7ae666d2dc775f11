package wire

import "strings"

// dialects is a set of Dialect values, one bit each.
type dialects uint16

func (s dialects) has(d Dialect) bool { return s>>d&1 != 0 }

// The sets that share a message or a trait.
const (
	plainLike  dialects = 1<<Plain | 1<<U | 1<<E | 1<<EN | 1<<EN2
	linuxLike  dialects = 1<<L | 1<<LE | 1<<LE2
	negotiated dialects = plainLike | linuxLike
	beforeAny  dialects = 1<<None | 1<<Unknown
	everywhere dialects = negotiated | beforeAny
	withKeys   dialects = 1<<E | withNums              // sessions and macros
	withNums   dialects = 1<<LE | 1<<EN | withTokens   // numbered requests
	withTokens dialects = 1<<LE2 | 1<<EN2              // a count and a token in Tresume
	withUIDs   dialects = 1<<U | linuxLike             // n_uname beside uname
	withText   dialects = 1<<U | 1<<E | 1<<EN | 1<<EN2 // error texts with a detail
)

// Negotiate chooses the dialect to answer a Tversion with, from version(5): the
// same, or one that is the same up to a period, or Unknown.
func Negotiate(asked string) Dialect {
	for d := Plain; d < Unknown; d++ {
		if asked == versions[d] {
			return d
		}
	}
	switch {
	case isGoogle(asked):
		return L
	case strings.HasPrefix(asked, "9P2000."):
		return Plain // a suffix that nobody knows
	}
	return Unknown
}

// isGoogle tells 9P2000.L.Google.N, which hugelgupf/p9 and gVisor ask for; they
// take the answer 9P2000.L.
func isGoogle(version string) bool {
	n, ok := strings.CutPrefix(version, "9P2000.L.Google.")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

var versions = [...]string{
	None:    "none",
	Plain:   "9P2000",
	U:       "9P2000.u",
	L:       "9P2000.L",
	E:       "9P2000.e",
	LE:      "9P2000.L.e",
	EN:      "9P2000.e.n",
	LE2:     "9P2000.L.e.2",
	EN2:     "9P2000.e.n.2",
	Unknown: "unknown",
}

// String is the version string of d as it stands in Rversion; "none" before.
func (d Dialect) String() string {
	if int(d) >= len(versions) {
		d = Unknown
	}
	return versions[d]
}

// IsL says that Linux's messages are spoken: Rlerror, Tlopen, Tgetattr.
func (d Dialect) IsL() bool { return linuxLike.has(d) }

// IsU says that 9P2000.u is spoken: numbers beside names, errno in Rerror.
func (d Dialect) IsU() bool { return d == U }

// Sessions says that Tsession, Tsread and Tswrite exist.
func (d Dialect) Sessions() bool { return withKeys.has(d) }

// Numbered says that Tresume exists and both sides count requests.
func (d Dialect) Numbered() bool { return withNums.has(d) }

// Tokens says that Tresume has a count and a token, by which a client that has gone back in
// time, or runs twice, is told.
func (d Dialect) Tokens() bool { return withTokens.has(d) }

// Follows says that a session that spoke old may be resumed in d, and speaks d from then
// on.
func (d Dialect) Follows(old Dialect) bool {
	return d == old || d == LE2 && old == LE || d == EN2 && old == EN
}

// Detail says that an error's text may go on after a colon. In plain 9P2000 it
// may not: Linux maps the text to an errno by exact match.
func (d Dialect) Detail() bool { return withText.has(d) }

// numericIDs says that Tauth and Tattach carry n_uname.
func (d Dialect) numericIDs() bool { return withUIDs.has(d) }
