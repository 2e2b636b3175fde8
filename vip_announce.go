// How do the neighbours learn where the address is now? Gratuitous ARP and unsolicited neighbour advertisements: at once,
// again after 1, 2 and 5 seconds because a frame may be lost and a switch port may still be learning, and slowly for as
// long as the address is watched. Nothing is ever announced that is not on this host at that moment.

package main

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
)

// announceBurst is when the first announcements are repeated, counted from the first.
var announceBurst = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second}

// announceSlow is the time between two announcements after that. A neighbour that missed the burst is wrong for no
// longer.
const announceSlow = time.Minute

// Announce tells the neighbours again, as after the network has healed, if the address is active here.
func (v *vip) Announce() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.active && !v.suspended {
		v.announceBurst()
	}
}

// announceBurst sends the first announcement before it returns and leaves the others to a goroutine that ends with the
// last of them, or with silence. With mu held.
func (v *vip) announceBurst() {
	v.silence()
	v.announce()
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	go func() {
		defer cancel()
		first := time.Now()
		for _, at := range v.burst {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(first.Add(at))):
			}
			v.mu.Lock()
			if ctx.Err() == nil {
				v.announce()
			}
			v.mu.Unlock()
		}
	}()
}

// silence ends a burst. With mu held, so that nothing is announced after it.
func (v *vip) silence() {
	if v.cancel != nil {
		v.cancel()
		v.cancel = nil
	}
}

// announce sends one announcement, if the address is there. That it fails is no failure of the resource: the address
// answers whoever asks, and the next announcement is on its way. With mu held.
func (v *vip) announce() {
	if !v.active || v.suspended {
		return
	}
	router := v.prefix.Addr().Is6() && v.sysctl("forwarding")
	err := v.place.netlink(func(h *netlink.Handle) error {
		s, err := findAddress(h, v.iface, v.prefix.Addr())
		if err != nil || !s.present() || !s.link.Ethernet || s.link.fault() != nil {
			return err
		}
		p, err := openSender(s.link.Index)
		if err != nil {
			return err
		}
		defer p.close()
		for _, f := range announceFrames(s.link.MAC, v.prefix.Addr(), router) {
			if err := p.send(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		v.log.Warn("cannot announce the address: neighbours may look for it at its former host for a while",
			"event", "vip-announce", "error", err)
	}
}
