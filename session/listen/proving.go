package listen

import (
	"net"
	"net/netip"
	"sync"
)

// proving holds the connections that have not proved yet who they are. When there are more
// than MaxProving, one is closed: of the source that has most, the oldest. So nobody has
// to wait for silent peers: a source that opens many connections loses its own, and an
// honest peer with the same address has as long as it takes to fill all places anew.
type proving struct {
	mu    sync.Mutex
	by    map[netip.Prefix][]*candidate // first come, first
	count int
}

// candidate is a connection that has not proved yet who it is.
type candidate struct {
	from netip.Prefix
	stop func() // ends its proof; it may be called at any time
}

// add adds c. If another candidate has to go for it, that one is stopped.
func (p *proving) add(c *candidate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = make(map[netip.Prefix][]*candidate)
	}
	p.by[c.from] = append(p.by[c.from], c)
	if p.count++; p.count <= MaxProving {
		return
	}
	most := c.from
	for from, list := range p.by {
		if len(list) > len(p.by[most]) {
			most = from
		}
	}
	first := p.by[most][0]
	p.drop(first)
	first.stop()
}

// remove removes c, which may be gone already.
func (p *proving) remove(c *candidate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(c)
}

// drop is remove; mu is held.
func (p *proving) drop(c *candidate) {
	list := p.by[c.from]
	for i := range list {
		if list[i] != c {
			continue
		}
		copy(list[i:], list[i+1:])
		list[len(list)-1] = nil
		p.by[c.from] = list[:len(list)-1]
		p.count--
		break
	}
	if len(p.by[c.from]) == 0 {
		delete(p.by, c.from)
	}
}

// source is the range of addresses that one peer has: an IPv4 address, or the 64 bits of
// an IPv6 site. All peers without an IP address are one source.
func source(c net.Conn) netip.Prefix {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip, bits := a.AddrPort().Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // bits fit either family
	return p
}
