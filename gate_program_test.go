package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// gateBench is a gate that hangs nowhere: frames are given to its program by hand.
type gateBench struct {
	t         testing.TB
	deadlines *ebpf.Map
	program   *ebpf.Program
}

func newGateBench(t testing.TB) *gateBench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads a BPF program")
	}
	b := &gateBench{t: t}
	var err error
	if b.deadlines, err = ebpf.NewMap(gateMapSpec()); err != nil {
		t.Fatal(err)
	}
	if b.program, err = ebpf.NewProgram(gateProgramSpec(b.deadlines)); err != nil {
		t.Fatalf("the kernel refuses the program: %+v", err)
	}
	t.Cleanup(func() { b.program.Close(); b.deadlines.Close() })
	return b
}

func (b *gateBench) set(ip string, until instant) {
	b.t.Helper()
	if err := b.deadlines.Put(gateKey(netip.MustParseAddr(ip)), uint64(until)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *gateBench) drops(frame []byte) bool {
	b.t.Helper()
	got, err := b.program.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		b.t.Fatalf("run: %v", err)
	}
	switch int32(got) {
	case gatePass:
		return false
	case gateDrop:
		return true
	}
	b.t.Fatalf("verdict %d on %x", int32(got), frame)
	return false
}

// refuses is why no packet can be made of a frame, such as one that says IPv4 and is shorter than its header.
func (b *gateBench) refuses(frame []byte) error {
	_, err := b.program.Run(&ebpf.RunOptions{Data: frame})
	return err
}

// packet is an IP packet of the addresses' family in an Ethernet frame.
func packet(from, to string, protocol byte, payload ...byte) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	if src.Is4() {
		f = append(f, 8, 0, 0x45, 0, 0, byte(20+len(payload)), 0, 0, 0, 0, 64, protocol, 0, 0)
		f = append(append(f, src.AsSlice()...), dst.AsSlice()...)
	} else {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(payload)), protocol, 64)
		f = append(append(f, src.AsSlice()...), dst.AsSlice()...)
	}
	return append(f, payload...)
}

// tagged puts VLAN tags into a frame, the outer one first.
func tagged(frame []byte, types ...uint16) []byte {
	out := append([]byte{}, frame[:12]...)
	for _, t := range types {
		out = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(out, t), 7)
	}
	return append(out, frame[12:]...)
}

const (
	gatedV4, otherV4 = "192.0.2.100", "192.0.2.50"
	gatedV6, otherV6 = "2001:db8::100", "2001:db8::50"
)

// TestGateFrames: what belongs to a gated address passes only before its deadline, everything else at any time.
func TestGateFrames(t *testing.T) {
	v4, v6 := netip.MustParseAddr(gatedV4), netip.MustParseAddr(gatedV6)
	from := mac{2, 0, 0, 0, 0, 1}
	advert := announceFrames(from, netip.MustParseAddr(otherV6), false)[0]
	asked := packet(otherV6, "ff02::1:ff00:100", ipProtoICMPv6, append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, v6.AsSlice()...)...)
	told := packet(otherV6, "ff02::1", ipProtoICMPv6, append([]byte{ndAdvertisement, 0, 0, 0, 0, 0, 0, 0}, v6.AsSlice()...)...)
	echo := packet(otherV6, "ff02::1", ipProtoICMPv6, append([]byte{128, 0, 0, 0, 0, 0, 0, 0}, v6.AsSlice()...)...)
	rarp := announceFrames(from, v4, false)[0]
	rarp[13] = 0x35
	longARP := announceFrames(from, v4, false)[0]
	longARP[etherLen+4] = 8
	for _, c := range []struct {
		name  string
		frame []byte
		gated bool
	}{
		{"IPv4 from it", packet(gatedV4, otherV4, 6), true},
		{"IPv4 to it", packet(otherV4, gatedV4, 17), true},
		{"IPv4 between others", packet(otherV4, "192.0.2.101", 6), false},
		{"IPv4 with its number in the payload", packet(otherV4, "192.0.2.101", 6, v4.AsSlice()...), false},
		{"ARP asks for it", arpFrame(arpRequest, from, netip.MustParseAddr(otherV4), mac{}, v4), true},
		{"ARP probes for it", probeFrame(from, v4), true},
		{"ARP announces it by a request", announceFrames(from, v4, false)[0], true},
		{"ARP announces it by a reply", announceFrames(from, v4, false)[1], true},
		{"ARP asks from it", arpFrame(arpRequest, from, v4, mac{}, netip.MustParseAddr(otherV4)), true},
		{"ARP of another", arpFrame(arpRequest, from, netip.MustParseAddr(otherV4), mac{}, netip.MustParseAddr("192.0.2.1")), false},
		{"ARP with longer hardware addresses", longARP, false},
		{"reverse ARP", rarp, false},
		{"IPv6 from it", packet(gatedV6, otherV6, 6), true},
		{"IPv6 to it", packet(otherV6, gatedV6, 17), true},
		{"IPv6 between others", packet(otherV6, "2001:db8::101", 6), false},
		{"solicitation for it", asked, true},
		{"duplicate address detection of it", probeFrame(from, v6), true},
		{"advertisement of it", told, true},
		{"announcement of it", announceFrames(from, v6, false)[0], true},
		{"announcement of another", advert, false},
		{"echo with its number in the payload", echo, false},
		{"behind a VLAN tag", tagged(packet(gatedV4, otherV4, 6), 0x8100), true},
		{"behind a provider's tag and another", tagged(probeFrame(from, v6), 0x88a8, 0x8100), true},
		{"behind three tags", tagged(announceFrames(from, v4, false)[0], 0x8100, 0x8100, 0x8100), true},
		{"another behind a tag", tagged(packet(otherV4, "192.0.2.101", 6), 0x8100), false},
		{"no network protocol that it knows", append(packet(gatedV4, otherV4, 6)[:12], 0x88, 0xcc, 1, 2, 3), false},
		{"nothing after the Ethernet header", probeFrame(from, v4)[:etherLen], false},
		{"cut off before the target of ARP", probeFrame(from, v4)[:etherLen+24], false},
		{"cut off before the target of the advertisement", told[:etherLen+ipv6Len+8], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newGateBench(t)
			if b.drops(c.frame) {
				t.Error("dropped although nothing is gated")
			}
			for _, d := range []struct {
				until instant
				shut  bool
			}{{0, true}, {boottime(), true}, {boottime().add(time.Hour), false}, {openForGood, false}} {
				b.set(gatedV4, d.until)
				b.set(gatedV6, d.until)
				if got, want := b.drops(c.frame), c.gated && d.shut; got != want {
					t.Errorf("deadline %d: dropped %v, want %v", d.until, got, want)
				}
			}
		})
	}
}

// TestGateDeadline: nobody has to do anything for the deadline to come, and each address has its own.
func TestGateDeadline(t *testing.T) {
	b := newGateBench(t)
	early, late := packet(otherV4, gatedV4, 6), packet(otherV6, gatedV6, 6)
	b.set(gatedV6, boottime().add(time.Hour))
	until := boottime().add(20 * time.Millisecond)
	b.set(gatedV4, until)
	for {
		before := boottime()
		dropped := b.drops(early)
		after := boottime()
		if dropped && after < until {
			t.Fatalf("shut %s too early", until.sub(after))
		}
		if !dropped && before >= until {
			t.Fatalf("open %s too long", before.sub(until))
		}
		if dropped {
			break
		}
	}
	if b.drops(late) {
		t.Error("the other address is shut too")
	}
	b.set(gatedV4, boottime().add(time.Hour))
	if b.drops(early) {
		t.Error("a new deadline does not open it")
	}
}

// gateModel is the program once more, in Go: the gated addresses that a frame names.
func gateModel(frame []byte) (names []netip.Addr) {
	at := 12
	field := func(offset, size int) []byte {
		if len(frame) < offset+size {
			return nil
		}
		return frame[offset : offset+size]
	}
	var kind uint16
	for tags := 0; ; tags++ {
		b := field(at, 2)
		if b == nil {
			return nil
		}
		kind = binary.BigEndian.Uint16(b)
		at += 2
		if tags == gateTags || kind != 0x8100 && kind != 0x88a8 {
			break
		}
		at += 2
	}
	take := func(offset, size int) bool {
		b := field(at+offset, size)
		if b != nil {
			a, _ := netip.AddrFromSlice(b)
			names = append(names, a)
		}
		return b != nil
	}
	switch kind {
	case 0x0800:
		_ = take(12, 4) && take(16, 4)
	case etherTypeARP:
		if b := field(at+2, 4); b != nil && binary.BigEndian.Uint32(b) == 0x08000604 {
			_ = take(14, 4) && take(24, 4)
		}
	case etherTypeIPv6:
		if !take(8, 16) || !take(24, 16) || field(at+6, 1)[0] != ipProtoICMPv6 {
			return names
		}
		if b := field(at+40, 1); b != nil && (b[0] == ndSolicitation || b[0] == ndAdvertisement) {
			take(48, 16)
		}
	}
	return names
}

// FuzzGateFrame: whatever comes over the wire gets one of two verdicts, the same as the model's.
func FuzzGateFrame(f *testing.F) {
	for _, frame := range [][]byte{
		packet(gatedV4, otherV4, 6), packet(otherV6, gatedV6, ipProtoICMPv6, 135, 0, 0, 0), probeFrame(mac{2}, netip.MustParseAddr(gatedV6)),
		announceFrames(mac{2}, netip.MustParseAddr(gatedV4), false)[0], announceFrames(mac{2}, netip.MustParseAddr(gatedV6), true)[0],
		tagged(packet(otherV4, gatedV4, 1), 0x88a8, 0x8100), tagged(packet(otherV4, gatedV4, 1), 0x8100, 0x8100, 0x8100, 0x8100),
	} {
		for cut := etherLen; cut <= len(frame); cut += 5 {
			f.Add(frame[:cut])
		}
	}
	b := newGateBench(f)
	gated := []netip.Addr{netip.MustParseAddr(gatedV4), netip.MustParseAddr(gatedV6)}
	for _, a := range gated {
		b.set(a.String(), 0)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < etherLen || len(frame) > 1500 {
			return // no frame: neither the kernel nor a wire has one
		}
		if err := b.refuses(frame); err != nil {
			return // the kernel makes no packet of it
		}
		b.t = t
		want := false
		for _, a := range gateModel(frame) {
			want = want || a == gated[0] || a == gated[1] || a.Unmap() == gated[0]
		}
		if got := b.drops(frame); got != want {
			t.Errorf("dropped %v, want %v: %x", got, want, frame)
		}
	})
}

func TestSameBoottime(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "monotonic           0         0\nboottime            0         0\n": true,
		"monotonic  5 0\nboottime 0 0\n": true, "monotonic 0 0\nboottime 7 0\n": false, "boottime -1 999\n": false, "boottime 0 1\n": false,
	} {
		if got := sameBoottime(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestGateTimeNamespace: where the daemon's clock is not the kernel's there must be no gate, said loudly.
func TestGateTimeNamespace(t *testing.T) {
	newGateBench(t)
	const inside = "HACTL_TEST_TIME_NAMESPACE"
	if os.Getenv(inside) != "" {
		if err := tryGate(); err == nil || !strings.Contains(err.Error(), "time namespace") {
			t.Errorf("try: %v", err)
		}
		return
	}
	if err := tryGate(); err != nil {
		t.Fatalf("outside: %v", err)
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("unshare is not installed (util-linux)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(unshare, "--time", "--boottime", "1000", "--fork", self, "-test.run", "^TestGateTimeNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "unshare failed") {
		t.Skipf("no time namespaces here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestGateTimeNamespace") {
		t.Errorf("inside: %v\n%s", err, out)
	}
}

// BenchmarkGateFrame is what the gate costs a frame of an address that is gated, and of one that is not.
func BenchmarkGateFrame(b *testing.B) {
	for _, c := range []struct{ name, to string }{{"gated", gatedV4}, {"other", "192.0.2.101"}} {
		b.Run(c.name, func(b *testing.B) {
			g := newGateBench(b)
			g.set(gatedV4, openForGood)
			frame := packet(otherV4, c.to, 6)
			const times = 100_000
			for b.Loop() {
				_, took, err := g.program.Benchmark(frame, times, nil)
				if err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
					b.Fatal(err)
				}
				b.ReportMetric(float64(took.Nanoseconds()), "ns/frame")
			}
		})
	}
}

// BenchmarkGateMove is what a grant costs.
func BenchmarkGateMove(b *testing.B) {
	g := newGateBench(b)
	a := &gated{ip: netip.MustParseAddr(gatedV4), gate: &gate{deadlines: g.deadlines}}
	for b.Loop() {
		if err := a.move(boottime().add(time.Second)); err != nil {
			b.Fatal(err)
		}
	}
}
