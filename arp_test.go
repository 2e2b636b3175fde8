package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

var (
	arpTestMAC  = mac{0x52, 0x54, 0x00, 0xaa, 0xbb, 0x01}
	arpTestPeer = mac{0x52, 0x54, 0x00, 0xaa, 0xbb, 0x02}
	arpTestV4   = netip.MustParseAddr("192.168.10.100")
	arpTestV6   = netip.MustParseAddr("2001:db8::10:100")
)

// TestARPGolden compares each frame with one that was written down and read by tcpdump, checksums included.
func TestARPGolden(t *testing.T) {
	frames := map[string][]byte{
		"probe v4":                        probeFrame(arpTestMAC, arpTestV4),
		"announce v4, request":            announceFrames(arpTestMAC, arpTestV4, false)[0],
		"announce v4, reply":              announceFrames(arpTestMAC, arpTestV4, true)[1],
		"probe v6":                        probeFrame(arpTestMAC, arpTestV6),
		"announce v6":                     announceFrames(arpTestMAC, arpTestV6, false)[0],
		"announce v6, router":             announceFrames(arpTestMAC, arpTestV6, true)[0],
		"probe v6, link-local":            probeFrame(arpTestMAC, netip.MustParseAddr("fe80::100")),
		"announce v6, carries in the sum": announceFrames(arpTestMAC, netip.MustParseAddr("ffff:ffff:ffff:ffff::ffff"), false)[0],
	}
	b, err := os.ReadFile("testdata/arp/frames.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, frame, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			want[name] = strings.ReplaceAll(frame, " ", "")
		}
	}
	for name, f := range frames {
		if got := hex.EncodeToString(f); got != want[name] {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want[name])
		}
	}
	if len(frames) != len(want) {
		t.Errorf("%d frames built, %d written down", len(frames), len(want))
	}
}

// edit is a copy of a frame with bytes changed: pairs of offset and value.
func edit(frame []byte, pairs ...int) []byte {
	f := bytes.Clone(frame)
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = byte(pairs[i+1])
	}
	return f
}

// resum repairs the checksum after an edit, so that a test rejects a frame for the reason it names.
func resum(f []byte) []byte {
	p := f[etherLen:]
	p[ipv6Len+2], p[ipv6Len+3] = 0, 0
	n := int(p[4])<<8 | int(p[5])
	s := ^icmpv6Sum([16]byte(p[8:24]), [16]byte(p[24:40]), p[ipv6Len:ipv6Len+n])
	p[ipv6Len+2], p[ipv6Len+3] = byte(s>>8), byte(s)
	return f
}

func TestParseClaim(t *testing.T) {
	request := announceFrames(arpTestPeer, arpTestV4, false)[0]
	reply := arpFrame(arpReply, arpTestPeer, arpTestV4, arpTestMAC, netip.IPv4Unspecified())
	na := announceFrames(arpTestPeer, arpTestV6, false)[0]
	bare := na[:etherLen+ipv6Len+ndLen]
	v4, v6 := claim{arpTestV4, arpTestPeer}, claim{arpTestV6, arpTestPeer}
	none := claim{}
	cases := []struct {
		name  string
		frame []byte
		want  claim
	}{
		{"gratuitous request", request, v4},
		{"reply to a probe", reply, v4},
		{"padded to Ethernet's least", append(bytes.Clone(reply), make([]byte, 18)...), v4},
		{"probe", probeFrame(arpTestPeer, arpTestV4), none},
		{"ARP cut short", request[:etherLen+arpLen-1], none},
		{"ARP of another hardware", edit(request, etherLen+1, 6), none},
		{"ARP of another protocol", edit(request, etherLen+2, 0x86), none},
		{"ARP with long addresses", edit(request, etherLen+4, 8), none},
		{"ARP with short protocol addresses", edit(request, etherLen+5, 0), none},
		{"reverse ARP's operation", edit(request, etherLen+7, 3), none},
		{"ARP from a broadcast address", edit(request, etherLen+8, 0xff), none},
		{"ARP from no address", edit(request, etherLen+8, 0, etherLen+9, 0, etherLen+10, 0, etherLen+11, 0, etherLen+12, 0, etherLen+13, 0), none},
		{"advertisement", na, v6},
		{"advertisement padded", append(bytes.Clone(na), 1, 2, 3), v6},
		{"advertisement without option: Ethernet's sender", resum(edit(bare, etherLen+5, ndLen)), v6},
		{"option names another than Ethernet's sender", edit(na, 6, 2), v6},
		{"solicitation", probeFrame(arpTestPeer, arpTestV6), none},
		{"advertisement cut short", na[:etherLen+ipv6Len+ndLen-1], none},
		{"length beyond the frame", edit(na, etherLen+4, 1), none},
		{"length short of a target", resum(edit(na, etherLen+5, ndLen-1)), none},
		{"wrong checksum", edit(na, offsetND+3, int(na[offsetND+3])^1), none},
		{"has passed a router", edit(na, etherLen+7, 64), none},
		{"not version 6", edit(na, etherLen, 0x40), none},
		{"UDP", edit(na, offsetNextHeader, 17), none},
		{"code not 0", resum(edit(na, offsetND+1, 1)), none},
		{"answer to somebody, but to all", resum(edit(na, offsetND+4, ndFlagSolicited)), none},
		{"answer to somebody", resum(edit(na, offsetND+4, ndFlagSolicited, etherLen+24, 0xfe, etherLen+25, 0x80)), v6},
		{"target is multicast", resum(edit(na, offsetNDTarget, 0xff)), none},
		{"option of length 0", resum(edit(na, offsetND+ndLen+1, 0)), none},
		{"option beyond the end", resum(edit(na, offsetND+ndLen+1, 2)), none},
		{"unknown option", resum(edit(na, offsetND+ndLen, 14)), v6},
		{"another Ethernet type", edit(na, 12, 0x08, 13, 0), none},
		{"no Ethernet header", na[:etherLen-1], none},
		{"nothing", nil, none},
	}
	for _, c := range cases {
		got, ok := parseClaim(c.frame)
		if ok != (c.want != none) || ok && got != c.want {
			t.Errorf("%s: got %v %v, want %v", c.name, got, ok, c.want)
		}
	}
}

func TestMACString(t *testing.T) {
	if got := arpTestMAC.String(); got != "52:54:00:aa:bb:01" {
		t.Error(got)
	}
}

func FuzzParseClaim(f *testing.F) {
	for _, a := range []netip.Addr{arpTestV4, arpTestV6} {
		f.Add(probeFrame(arpTestMAC, a))
		for _, b := range announceFrames(arpTestMAC, a, true) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseClaim(b)
		if !ok {
			return
		}
		if !c.Addr.IsValid() || c.Addr.IsUnspecified() || !c.MAC.unicast() {
			t.Fatalf("claims nothing: %v", c)
		}
		// What is read as a claim is the claim that we would send.
		again, ok := parseClaim(announceFrames(c.MAC, c.Addr, false)[0])
		if c.Addr.Is4In6() { // never seen on a network, and IPv4 to netip
			return
		}
		if !ok || again != c {
			t.Fatalf("got %v %v from our own frame for %v", again, ok, c)
		}
	})
}

// TestClaimFilterOffsets keeps the offsets of the kernel's filter and those of the parser together.
func TestClaimFilterOffsets(t *testing.T) {
	na := announceFrames(arpTestPeer, arpTestV6, false)[0]
	request := announceFrames(arpTestPeer, arpTestV4, false)[0]
	v4, v6 := arpTestV4.As4(), arpTestV6.As16()
	if !bytes.Equal(request[offsetARPSender:offsetARPSender+4], v4[:]) || !bytes.Equal(na[offsetNDTarget:offsetNDTarget+16], v6[:]) ||
		na[offsetNextHeader] != ipProtoICMPv6 || na[offsetND] != ndAdvertisement {
		t.Error("an offset points at the wrong field")
	}
	if got := fmt.Sprint(len(claimFilter(arpTestV4)), len(claimFilter(arpTestV6))); got != "4 14" {
		t.Errorf("instructions: %s", got)
	}
}
