// What does this host have of an address, and how does it get and lose it? The netlink side of vip.go. It knows nothing
// of why.

package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netPlace runs something where a virtual IP lives: nil is the network namespace of the process, which all its threads
// share. A test that plays several hosts gives each its own.
type netPlace func(func() error) error

func (p netPlace) do(f func() error) error {
	if p == nil {
		return f()
	}
	return p(f)
}

func (p netPlace) netlink(f func(*netlink.Handle) error) error {
	return p.do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return f(h)
	})
}

// whereabouts is what this host has of an address at one moment.
type whereabouts struct {
	link      hostInterface // Index 0: there is no such interface
	here      []netlink.Addr
	elsewhere string // another interface of this host that has it
}

func (s *whereabouts) present() bool { return len(s.here) > 0 }

// sick says why the address does not answer although it is there: the kernel has found a duplicate, or still looks for
// one. Only an address that somebody else has added can be so.
func (s *whereabouts) sick() bool {
	for _, a := range s.here {
		if a.Flags&(unix.IFA_F_DADFAILED|unix.IFA_F_TENTATIVE) != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0 {
			return true
		}
	}
	return false
}

// findAddress reads the interface and who has the address.
func findAddress(h *netlink.Handle, name string, ip netip.Addr) (whereabouts, error) {
	var s whereabouts
	l, err := h.LinkByName(name)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
	case err != nil:
		return s, fmt.Errorf("read interface %s: %w", name, err)
	default:
		s.link = asInterface(l.Attrs())
	}
	addrs, err := addressesOf(h, ip)
	if err != nil {
		return s, err
	}
	for _, a := range addrs {
		if p, ok := addrPrefix(a); !ok || p.Addr() != ip {
			continue
		}
		switch {
		case a.LinkIndex == s.link.Index:
			s.here = append(s.here, a)
		case !ip.IsLinkLocalUnicast() || ip.Is4(): // a link-local one may be on several links
			s.elsewhere = fmt.Sprintf("interface %d", a.LinkIndex)
			if other, err := h.LinkByIndex(a.LinkIndex); err == nil {
				s.elsewhere = other.Attrs().Name
			}
		}
	}
	return s, nil
}

func addressesOf(h *netlink.Handle, ip netip.Addr) ([]netlink.Addr, error) {
	family := netlink.FAMILY_V4
	if ip.Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return addrs, nil
}

// addressMu keeps removals apart: each compares the addresses before and after, and puts back what the kernel took
// along, which must not be what another removal has just taken away.
var addressMu sync.Mutex

// asAddress is the address as the kernel gets it, for that many seconds. The broadcast address is the library's to add,
// as ip(8) does.
func asAddress(index int, p netip.Prefix, lifetime uint32) *netlink.Addr {
	valid := int(min(uint64(lifetime), math.MaxInt)) // where an int is short, 68 years are for ever
	a := &netlink.Addr{LinkIndex: index, IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		ValidLft: valid, PreferedLft: valid}
	if p.IsSingleIP() {
		a.Flags |= unix.IFA_F_NOPREFIXROUTE // there is no network behind it
	}
	if p.Addr().Is6() {
		// The kernel's own duplicate detection takes a second in which the address does not answer; the probe was
		// in its place.
		a.Flags |= unix.IFA_F_NODAD
		if p.IsSingleIP() {
			// Deprecated: it answers, but the host does not choose it for connections of its own, which would
			// break when it moves. IPv4 needs no such mark: a /32 is not chosen while there is another.
			a.PreferedLft = 0
		}
	}
	return a
}

// addAddress is no error when the interface has it already.
func addAddress(h *netlink.Handle, index int, p netip.Prefix, lifetime uint32) error {
	addressMu.Lock()
	defer addressMu.Unlock()
	err := h.AddrAdd(nil, asAddress(index, p, lifetime))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// keepAddress sets the lifetime of an address that is there, from now on.
func keepAddress(h *netlink.Handle, index int, p netip.Prefix, lifetime uint32) error {
	addressMu.Lock()
	defer addressMu.Unlock()
	if err := h.AddrReplace(nil, asAddress(index, p, lifetime)); err != nil {
		return fmt.Errorf("set the lifetime of %s: %w", p, err)
	}
	return nil
}

// removeAddress deletes the address from the interface, whatever its prefix length: a leftover would answer. When it
// returns nil it has read back that it is gone. An interface that is gone has no addresses.
func removeAddress(h *netlink.Handle, name string, ip netip.Addr) (removed []netip.Prefix, err error) {
	addressMu.Lock()
	defer addressMu.Unlock()
	before, err := findAddress(h, name, ip)
	if err != nil || !before.present() {
		return nil, err
	}
	bystanders, err := secondaries(h, before)
	if err != nil {
		return nil, err
	}
	for _, a := range before.here {
		p, _ := addrPrefix(a)
		if err := h.AddrDel(nil, &a); err != nil && !gone(err) {
			return removed, fmt.Errorf("delete %s from %s: %w", p, name, err)
		}
		removed = append(removed, p)
	}
	after, err := findAddress(h, name, ip)
	if err != nil {
		return removed, err
	}
	if after.present() {
		return removed, fmt.Errorf("delete %s from %s: it is there again: find out what adds it (NetworkManager, systemd-networkd, keepalived)", ip, name)
	}
	return removed, restore(h, name, ip, bystanders)
}

func gone(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}

// secondaries are the IPv4 addresses that the kernel may take along: those of a network whose first address on the
// interface goes, unless net.ipv4.conf.*.promote_secondaries is set.
func secondaries(h *netlink.Handle, s whereabouts) ([]netlink.Addr, error) {
	var networks []netip.Prefix
	for _, a := range s.here {
		if p, ok := addrPrefix(a); ok && p.Addr().Is4() && a.Flags&unix.IFA_F_SECONDARY == 0 && !p.IsSingleIP() {
			networks = append(networks, p)
		}
	}
	if len(networks) == 0 {
		return nil, nil
	}
	all, err := addressesOf(h, networks[0].Addr())
	if err != nil {
		return nil, err
	}
	var list []netlink.Addr
	for _, a := range all {
		p, ok := addrPrefix(a)
		if !ok || a.LinkIndex != s.link.Index || a.Flags&unix.IFA_F_SECONDARY == 0 || p.Addr() == networks[0].Addr() {
			continue
		}
		for _, n := range networks {
			if n.Masked() == p.Masked() {
				list = append(list, a)
			}
		}
	}
	return list, nil
}

func restore(h *netlink.Handle, name string, ip netip.Addr, bystanders []netlink.Addr) error {
	if len(bystanders) == 0 {
		return nil
	}
	for _, a := range bystanders {
		p, _ := addrPrefix(a)
		a.Flags &^= unix.IFA_F_SECONDARY | unix.IFA_F_PERMANENT
		if err := h.AddrAdd(nil, &a); err != nil && !errors.Is(err, unix.EEXIST) && !gone(err) {
			return fmt.Errorf("put %s back, which the kernel removed from %s together with %s: %w", p, name, ip, err)
		}
	}
	return nil
}
