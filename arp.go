// How does a host ask who has an address, and say that it has it itself? The Ethernet frames of ARP (RFC 826, 5227) and
// IPv6 neighbour discovery (RFC 4861), built and read as bytes. Pure: sockets are in vip_packet.go.

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// mac is an Ethernet address.
type mac [6]byte

func (m mac) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd

	etherLen = 14
	arpLen   = 28
	ipv6Len  = 40

	arpEthernet = 1
	arpIPv4     = 0x0800
	arpRequest  = 1
	arpReply    = 2

	ipProtoICMPv6   = 58
	ndHopLimit      = 255 // RFC 4861: anything less has passed a router and is not from this network
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndLen           = 24 // type, code, checksum, flags, target
	ndOptTargetMAC  = 2

	ndFlagRouter    = 0x80
	ndFlagSolicited = 0x40
	ndFlagOverride  = 0x20
)

// The offsets by which vip_packet.go lets the kernel choose frames.
const (
	offsetARPSender  = etherLen + 14
	offsetNextHeader = etherLen + 6
	offsetND         = etherLen + ipv6Len
	offsetNDTarget   = offsetND + 8
)

// probeFrame asks whether anybody has the address, without claiming it: no receiver learns anything from it.
func probeFrame(from mac, target netip.Addr) []byte {
	if target.Is4() {
		return arpFrame(arpRequest, from, netip.IPv4Unspecified(), mac{}, target)
	}
	t := target.As16()
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]})
	// The solicitation of duplicate address detection: from the unspecified address and, for that reason, without
	// the sender's own address as an option (RFC 4861, 4.3). The holder answers to all nodes.
	nd := make([]byte, ndLen)
	nd[0] = ndSolicitation
	copy(nd[8:], t[:])
	return icmpv6Frame(mac{0x33, 0x33, 0xff, t[13], t[14], t[15]}, from, netip.IPv6Unspecified(), group, nd)
}

// announceFrames say that the address is at that Ethernet address from now on. ARP comes in both forms, because some
// stacks believe only requests and others only replies. A router must say that it is one, or its neighbours drop it
// from their default routes.
func announceFrames(from mac, a netip.Addr, router bool) [][]byte {
	if a.Is4() {
		return [][]byte{
			arpFrame(arpRequest, from, a, mac{}, a),
			arpFrame(arpReply, from, a, from, a),
		}
	}
	nd := make([]byte, ndLen+8)
	nd[0] = ndAdvertisement
	nd[4] = ndFlagOverride
	if router {
		nd[4] |= ndFlagRouter
	}
	t := a.As16()
	copy(nd[8:], t[:])
	nd[ndLen] = ndOptTargetMAC
	nd[ndLen+1] = 1 // in units of 8 bytes
	copy(nd[ndLen+2:], from[:])
	allNodes := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})
	return [][]byte{icmpv6Frame(mac{0x33, 0x33, 0, 0, 0, 1}, from, a, allNodes, nd)}
}

func arpFrame(op uint16, from mac, sender netip.Addr, to mac, target netip.Addr) []byte {
	f := make([]byte, etherLen+arpLen)
	broadcast := mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	copy(f, broadcast[:])
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], etherTypeARP)
	p := f[etherLen:]
	binary.BigEndian.PutUint16(p, arpEthernet)
	binary.BigEndian.PutUint16(p[2:], arpIPv4)
	p[4], p[5] = 6, 4
	binary.BigEndian.PutUint16(p[6:], op)
	s, t := sender.As4(), target.As4()
	copy(p[8:], from[:])
	copy(p[14:], s[:])
	copy(p[18:], to[:])
	copy(p[24:], t[:])
	return f
}

// icmpv6Frame fills in the checksum of nd.
func icmpv6Frame(to, from mac, src, dst netip.Addr, nd []byte) []byte {
	f := make([]byte, etherLen+ipv6Len+len(nd))
	copy(f, to[:])
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], etherTypeIPv6)
	p := f[etherLen:]
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(len(nd)))
	p[6] = ipProtoICMPv6
	p[7] = ndHopLimit
	s, d := src.As16(), dst.As16()
	copy(p[8:], s[:])
	copy(p[24:], d[:])
	copy(p[ipv6Len:], nd)
	binary.BigEndian.PutUint16(p[ipv6Len+2:], ^icmpv6Sum(s, d, nd))
	return f
}

// icmpv6Sum is the ones' complement sum over the pseudo header and the message (RFC 4443, 2.3); 0xffff for a message
// whose checksum is right.
func icmpv6Sum(src, dst [16]byte, nd []byte) uint16 {
	sum := uint32(len(nd)) + ipProtoICMPv6
	for _, b := range [][]byte{src[:], dst[:], nd} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// claim is what a frame says about an address: it is here.
type claim struct {
	Addr netip.Addr
	MAC  mac
}

// parseClaim reads a frame. A probe claims nothing, and neither does what a receiver must drop.
func parseClaim(frame []byte) (claim, bool) {
	if len(frame) < etherLen {
		return claim{}, false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeARP:
		return parseARP(frame[etherLen:])
	case etherTypeIPv6:
		return parseAdvertisement(mac(frame[6:12]), frame[etherLen:])
	}
	return claim{}, false
}

func parseARP(p []byte) (claim, bool) {
	if len(p) < arpLen || binary.BigEndian.Uint16(p) != arpEthernet || binary.BigEndian.Uint16(p[2:]) != arpIPv4 ||
		p[4] != 6 || p[5] != 4 {
		return claim{}, false
	}
	if op := binary.BigEndian.Uint16(p[6:]); op != arpRequest && op != arpReply {
		return claim{}, false
	}
	c := claim{Addr: netip.AddrFrom4([4]byte(p[14:18])), MAC: mac(p[8:14])}
	return c, !c.Addr.IsUnspecified() && c.MAC.unicast()
}

func (m mac) unicast() bool { return m != mac{} && m[0]&1 == 0 }

func parseAdvertisement(from mac, p []byte) (claim, bool) {
	if len(p) < ipv6Len+ndLen || p[0]>>4 != 6 || p[6] != ipProtoICMPv6 || p[7] != ndHopLimit {
		return claim{}, false
	}
	length := int(binary.BigEndian.Uint16(p[4:]))
	if length < ndLen || length > len(p)-ipv6Len { // what is beyond it is Ethernet's padding
		return claim{}, false
	}
	dst := [16]byte(p[24:40])
	nd := p[ipv6Len : ipv6Len+length]
	if nd[0] != ndAdvertisement || nd[1] != 0 || icmpv6Sum([16]byte(p[8:24]), dst, nd) != 0xffff {
		return claim{}, false
	}
	c := claim{Addr: netip.AddrFrom16([16]byte(nd[8:24])), MAC: from}
	if c.Addr.IsMulticast() || c.Addr.IsUnspecified() || dst[0] == 0xff && nd[4]&ndFlagSolicited != 0 {
		return claim{}, false
	}
	for opts := nd[ndLen:]; len(opts) > 0; {
		if len(opts) < 2 || opts[1] == 0 || int(opts[1])*8 > len(opts) {
			return claim{}, false
		}
		if opts[0] == ndOptTargetMAC {
			c.MAC = mac(opts[2:8])
		}
		opts = opts[int(opts[1])*8:]
	}
	return c, c.MAC.unicast()
}
