// Which interfaces and addresses does this host have, and when do they change? Reads only, by netlink. What is read and
// subscribed belongs to the network namespace of the calling thread; nothing here moves a thread.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// hostInterface is an interface of this host.
type hostInterface struct {
	Name      string
	Index     int
	Up        bool // by the administrator
	Carrier   bool // the other end is there: never true for an interface that is not up
	MAC       mac
	Ethernet  bool // it has an Ethernet address and resolves addresses by ARP or neighbour discovery
	Addresses []netip.Prefix
}

// fault says why nothing can be reached over the interface, nil if it can.
func (i hostInterface) fault() error {
	switch {
	case !i.Up:
		return fmt.Errorf("%s is down: ip link set %s up", i.Name, i.Name)
	case !i.Carrier:
		return fmt.Errorf("no carrier on %s: check its cable and the switch port", i.Name)
	}
	return nil
}

// hostInterfaces lists all interfaces with their addresses, by index.
func hostInterfaces() ([]hostInterface, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	links, err := dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := make([]hostInterface, 0, len(links))
	for _, l := range links {
		i := asInterface(l.Attrs())
		for _, a := range addrs {
			if p, ok := addrPrefix(a); ok && a.LinkIndex == i.Index {
				i.Addresses = append(i.Addresses, p)
			}
		}
		all = append(all, i)
	}
	return all, nil
}

// localAddrs lists the addresses that this host answers for, the loopback's included.
func localAddrs() ([]netip.Addr, error) {
	all, err := hostInterfaces()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, i := range all {
		for _, p := range i.Addresses {
			addrs = append(addrs, p.Addr())
		}
	}
	return addrs, nil
}

// asInterface leaves the addresses out. LOWER_UP is the driver's word; the operational state adds what is above it (a
// VLAN's parent, 802.1X). "down" is not taken from there: it lags behind LOWER_UP for a moment after the link came up.
func asInterface(a *netlink.LinkAttrs) hostInterface {
	i := hostInterface{Name: a.Name, Index: a.Index, Up: a.RawFlags&unix.IFF_UP != 0}
	switch a.OperState {
	case netlink.OperNotPresent, netlink.OperLowerLayerDown, netlink.OperTesting, netlink.OperDormant:
	default:
		i.Carrier = i.Up && a.RawFlags&unix.IFF_LOWER_UP != 0
	}
	if len(a.HardwareAddr) == len(i.MAC) {
		i.MAC = mac(a.HardwareAddr)
		i.Ethernet = a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0
	}
	return i
}

// addrPrefix is the address itself with its prefix length; for a point-to-point one, that of its peer.
func addrPrefix(a netlink.Addr) (netip.Prefix, bool) {
	if a.IPNet == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(a.IPNet.IP)
	mask := a.IPNet.Mask
	if a.Peer != nil {
		mask = a.Peer.Mask
	}
	ones, _ := mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones), ok
}

// dumpTries bounds how often a list is asked for again because it changed while the kernel wrote it.
const dumpTries = 20

func dump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 1; ; try++ {
		l, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			return l, err
		}
	}
}

// watchLinks calls changed once at the beginning and whenever an interface or an address of this host may have changed,
// until ctx ends. Changes in quick succession come as one, the first of them without delay. Both its sockets and
// changed stay on the calling goroutine.
func watchLinks(ctx context.Context, log *slog.Logger, changed func()) {
	routeEvents{open: openRouteEvents, log: log, pause: time.Second}.run(ctx, changed)
}

// eventSource is a subscription: Receive returns when something happened, or fails and is of no use from then on.
type eventSource interface {
	Receive() error
	Close() // wakes Receive
}

// routeEvents follows a subscription and opens it anew when it breaks. Events only say that it is time to look: one
// that was lost (ENOBUFS) is made up for by looking once after each opening.
type routeEvents struct {
	open  func() (eventSource, error)
	log   *slog.Logger
	pause time.Duration // between attempts when it is broken for another reason than too many events
}

func (e routeEvents) run(ctx context.Context, changed func()) {
	for warned := false; ctx.Err() == nil; {
		src, err := e.open()
		if err == nil {
			changed()
			err = follow(ctx, src, changed)
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, unix.ENOBUFS):
			e.log.Debug("more interface events than fit: listing again", "event", "link-events-lost")
			continue
		case !warned:
			warned = true
			e.log.Warn("cannot follow interface events: trying again; monitors go on", "event", "link-events-broken", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(e.pause):
		}
	}
}

// follow ends with ctx or with the error that broke the subscription, and closes it.
func follow(ctx context.Context, src eventSource, changed func()) error {
	something := make(chan struct{}, 1)
	broken := make(chan error, 1)
	go func() {
		for {
			if err := src.Receive(); err != nil {
				broken <- err
				return
			}
			select {
			case something <- struct{}{}:
			default:
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			src.Close()
			<-broken
			return ctx.Err()
		case err := <-broken:
			src.Close()
			return err
		case <-something:
			changed()
		}
	}
}

type routeSocket struct{ *nl.NetlinkSocket }

func (s routeSocket) Receive() error {
	_, _, err := s.NetlinkSocket.Receive()
	return err
}

func openRouteEvents() (eventSource, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_TC)
	if err != nil {
		return nil, fmt.Errorf("subscribe to interface events: %w", err)
	}
	return routeSocket{s}, nil
}
