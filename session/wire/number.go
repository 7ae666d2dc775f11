package wire

// MaxKept is the length in bytes of the longest reply that a server of a numbered
// dialect keeps. No reply to a request that changes something is longer.
const MaxKept = 256

// again are the requests that change nothing, or nothing more when they come
// twice: a Tlock locks what its owner has locked, a Tflush ends what has ended, a
// Tread of a stream gets what it got, if it keeps its tag and offset.
var again = [256]bool{
	Tread: true, Tsread: true, Tstat: true, Tflush: true,
	Tgetattr: true, Treaddir: true, Tstatfs: true, Treadlink: true, Tlock: true, Tgetlock: true,
}

// Again tells whether a request of type t whose reply was lost is simply sent
// again, as a new one. Of all others a server of a numbered dialect keeps the
// reply. Both sides of a session go by it.
func (t Type) Again() bool { return again[t] }

// Counted tells whether both sides of a numbered session count a message of type
// t. Those that begin or resume a session are not.
func (t Type) Counted() bool { return t != Tversion && t != Tsession && t != Tresume }
