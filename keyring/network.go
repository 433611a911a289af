package keyring

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// maxNetworks is of how many networks networkWindows count at a time.
const maxNetworks = 100_000

// network is where requests come from: an IPv4 address, or the first 64 bits of an IPv6
// address, since whoever has one address of such a network has all of them. Addresses that
// are not known are one network.
type network struct {
	bits uint64
	v4   bool
}

func networkOf(ip netip.Addr) network {
	b := ip.As16()
	if ip.Is4() || ip.Is4In6() {
		return network{uint64(binary.BigEndian.Uint32(b[12:])), true}
	}
	return network{binary.BigEndian.Uint64(b[:8]), false}
}

// networkWindows count what comes from each network, in fixed windows. They are not stored.
type networkWindows struct {
	mu sync.Mutex
	of map[network]*ratelimit.State
	// order has the networks in the order in which their windows began. All windows are of
	// the same length, so that those which end first are in front.
	order []network
}

// take counts one, unless the limit is reached.
func (n *networkWindows) take(who network, limit ratelimit.Policy, clock func() instant) ratelimit.Verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := clock().monotonic
	n.sweep(limit, now)
	state := n.of[who]
	if state == nil {
		if len(n.order) == maxNetworks {
			n.drop()
		}
		if n.of == nil {
			n.of = map[network]*ratelimit.State{}
		}
		state = new(ratelimit.State)
		n.of[who] = state
		n.order = append(n.order, who)
	}
	return state.Take(limit, now, 1)
}

// sweep removes the networks whose windows have ended.
func (n *networkWindows) sweep(limit ratelimit.Policy, now int64) {
	for len(n.order) > 0 {
		if !n.of[n.order[0]].Idle(limit, now) {
			return
		}
		n.drop()
	}
	n.of, n.order = nil, nil // a map does not shrink
}

// drop removes the network whose window began first.
func (n *networkWindows) drop() {
	delete(n.of, n.order[0])
	n.order = n.order[1:]
}
