// Package packet carries 9P over a byte stream that may hold leftovers of an
// earlier link: a virtio-serial port, or any character device. The device
// outlives the programs at its ends, so bytes that one of them wrote before it
// went are read by who comes next; and neither end is told that the other is new.
//
// So all bytes travel in packets, each with a mark, the number of its link and a
// CRC32C, and a link begins with a handshake:
//
//	host    Hello, link 0      on a fresh stream, and whenever a link was lost:
//	                           whoever is there may ask
//	guest   Ask, a nonce       once a second until it is answered; it says where the guest's
//	                           program was last, its link and how much it sent there
//	host    Hello, link N      with the nonce: the link begins, in both directions
//	either  Data, link N       packets 1, 2, 3, ... of its direction
//	guest   End, link N        it wants no more
//
// Until the handshake both ends look for the one packet that they wait for, byte
// by byte, and trust no length that they read: what stands before it is a
// leftover. From then on the stream has nothing but packets of the link, and
// anything else ends it: a lost, torn or damaged packet must not become a hole in
// what is carried. A whole packet of another link, or one that has come already, tells the
// host that the guest went back in time (ErrPast), since all that a stream had of
// earlier links stood before the handshake. An Ask ends it too, for the guest's program is another one, and
// so does a Hello, for the host's is. A packet that is left unfinished for 30 s
// ends the stream; one that another program's Hello or Ask has cut short, in a moment.
//
// A live update of the host's program hands a stream over with the link that is on it
// (Link.Leave, Link.State, Resume): the guest notices a pause.
//
// Layout, little-endian: mark[4] kind[1] link[8] seq[4] length[4]
// payload[length] crc[4]. The CRC32C (Castagnoli) is of all that stands before it.
//
// Concurrency: a link is a net.Conn: one goroutine may read while another writes,
// and Close may be called at any time. Locks: stream.writing is held over a write,
// stream.mu and the deadline's never over anything that waits; writing before mu.
package packet
