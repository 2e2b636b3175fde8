// Is an address silent from its deadline on, whoever has died, and is everything else left alone? Seen from another host
// on the wire.

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// gates makes those of a host.
func (h *testHost) gates() *gates {
	h.t.Helper()
	newGateBench(h.t) // skips where there can be none
	s := openGates(h.do, slog.New(slog.DiscardHandler))
	if s.refused != "" {
		h.t.Fatalf("no gates: %s", s.refused)
	}
	return s
}

// gated makes an address that is behind a gate.
func (h *testHost) gated(s *gates, address string, change ...func(*ResourceConfig)) *testVIP {
	h.t.Helper()
	v := h.vip(address, change...)
	v.gates = s
	return v
}

// mustOpen starts an address with a lease for now.
func (v *testVIP) mustOpen() {
	v.host.t.Helper()
	v.Lease(boottime().add(time.Hour))
	v.mustStart(startHint{Clean: true})
}

// expire lets the lease end as it ends for a frozen daemon: the last grant runs out, and nobody does anything.
func (v *testVIP) expire() {
	v.host.t.Helper()
	until := boottime().add(20 * time.Millisecond)
	v.Lease(until)
	await(v.host.t, "the deadline", func() bool { return boottime() >= until })
}

// hangs is what hangs on an interface: names of filters, the way out first, and whether it has a clsact qdisc.
func (h *testHost) hangs(name string) string {
	h.t.Helper()
	l := h.link(name)
	var out []string
	for _, side := range gateSides() {
		all, err := dump(func() ([]netlink.Filter, error) { return h.nl.FilterList(l, side) })
		h.must("list filters", err)
		for _, f := range all {
			if b, ok := f.(*netlink.BpfFilter); ok {
				out = append(out, b.Name)
			}
		}
	}
	all, err := dump(func() ([]netlink.Qdisc, error) { return h.nl.QdiscList(l) })
	h.must("list qdiscs", err)
	if slices.ContainsFunc(all, func(q netlink.Qdisc) bool { return q.Type() == "clsact" }) {
		out = append(out, "clsact")
	}
	return strings.Join(out, " ")
}

// asker is a host that asks on the wire who has an address, and the address itself whether it is there. Each round asks
// from an address of its own, so that an answer shows when it was asked for, however late it comes.
type asker struct {
	h     *testHost
	iface string
	sock  *packetSocket
	round byte
	mu    sync.Mutex
	heard map[answer]int
}

type answer struct {
	round byte
	who   netip.Addr
	kind  string // arp, na, echo
}

func (l *testLAN) asker() *asker { return l.host("asker").asker("eth0") }

func (h *testHost) asker(iface string) *asker {
	h.t.Helper()
	a := &asker{h: h, iface: iface, heard: map[answer]int{}}
	a.h.must("open a packet socket", a.h.do(func() (err error) {
		a.sock, err = openPacket(a.h.link(iface).Attrs().Index, unix.ETH_P_ALL, nil)
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, maxFrame)
		for {
			n, err := a.sock.file.Read(buf)
			if err != nil {
				return
			}
			if x, ok := parseAnswer(buf[:n]); ok {
				a.mu.Lock()
				a.heard[x]++
				a.mu.Unlock()
			}
		}
	}()
	h.t.Cleanup(func() { a.sock.close(); <-done })
	a.next()
	return a
}

// next begins a round.
func (a *asker) next() {
	a.h.t.Helper()
	a.round++
	a.h.add(a.iface, fmt.Sprintf("192.168.10.%d/24", 200+a.round))
	a.h.add(a.iface, fmt.Sprintf("2001:db8::10:%x/64", 0x200+int(a.round)))
}

func (a *asker) from(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::10:%x", 0x200+int(a.round)))
	}
	return netip.AddrFrom4([4]byte{192, 168, 10, 200 + a.round})
}

// ask sends both questions for an address to a host.
func (a *asker) ask(ip netip.Addr, to mac) {
	a.h.t.Helper()
	from, me := a.from(ip.Is6()), a.h.mac(a.iface)
	var frames [][]byte
	if ip.Is4() {
		echo := []byte{8, 0, 0, 0, 0, 1, 0, 1}
		binary.BigEndian.PutUint16(echo[2:], ^uint16(0x0800+1+1))
		frames = [][]byte{arpFrame(arpRequest, me, from, mac{}, ip), packet(from.String(), ip.String(), 1, echo...)}
		ipv4Sum(frames[1][etherLen:])
	} else {
		t := ip.As16()
		group := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]})
		ns := append(append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, t[:]...), append([]byte{1, 1}, me[:]...)...)
		frames = [][]byte{icmpv6Frame(mac{0x33, 0x33, 0xff, t[13], t[14], t[15]}, me, from, group, ns),
			icmpv6Frame(to, me, from, ip, []byte{128, 0, 0, 0, 0, 1, 0, 1})}
	}
	copy(frames[1], to[:])
	copy(frames[1][6:], me[:])
	for _, f := range frames {
		a.h.must("ask", a.sock.send(f))
	}
}

// ipv4Sum fills in the checksum of a header.
func ipv4Sum(p []byte) {
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
}

func parseAnswer(f []byte) (x answer, ok bool) {
	if len(f) < etherLen+arpLen {
		return x, false
	}
	p := f[etherLen:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case etherTypeARP:
		x = answer{p[27] - 200, netip.AddrFrom4([4]byte(p[14:18])), "arp"}
		return x, p[7] == arpReply
	case unix.ETH_P_IP:
		x = answer{p[19] - 200, netip.AddrFrom4([4]byte(p[12:16])), "echo"}
		return x, p[9] == 1 && p[20] == 0
	case etherTypeIPv6:
		if len(p) < ipv6Len+8 || p[6] != ipProtoICMPv6 {
			return x, false
		}
		x = answer{p[39], netip.AddrFrom16([16]byte(p[8:24])), "echo"} // 0x200 + round
		if p[ipv6Len] == ndAdvertisement && len(p) >= ipv6Len+ndLen {
			x.kind, x.who = "na", netip.AddrFrom16([16]byte(p[ipv6Len+8:ipv6Len+24]))
			return x, true
		}
		return x, p[ipv6Len] == 129
	}
	return x, false
}

// hears counts the answers of an address in this round, of both kinds.
func (a *asker) hears(ip netip.Addr) (found, reached int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heard[answer{a.round, ip, "arp"}] + a.heard[answer{a.round, ip, "na"}], a.heard[answer{a.round, ip, "echo"}]
}

// mustAnswer asks until both questions are answered.
func (a *asker) mustAnswer(ip netip.Addr, at *testHost) {
	a.h.t.Helper()
	await(a.h.t, ip.String()+" answers", func() bool {
		a.ask(ip, at.mac(a.iface))
		found, reached := a.hears(ip)
		return found > 0 && reached > 0
	})
}

// mustBeSilent asks in a new round, in which another address of the same host answers.
func (a *asker) mustBeSilent(ip, other netip.Addr, at *testHost) {
	a.h.t.Helper()
	a.next()
	await(a.h.t, other.String()+" answers", func() bool { // what was asked before it would have been answered too
		a.ask(ip, at.mac(a.iface))
		a.ask(other, at.mac(a.iface))
		found, reached := a.hears(other)
		return found >= 20 && reached >= 20
	})
	if found, reached := a.hears(ip); found+reached > 0 {
		a.h.t.Fatalf("%s answers after its deadline: it was found %d times and reached %d times", ip, found, reached)
	}
}

func TestVIPGateSilences(t *testing.T) {
	for _, f := range families[:2] {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, client := lan.host("alice"), lan.asker()
			seen := client.h.capture()
			own := map[string]string{"v4": "192.168.10.11", "v6": "2001:db8::10:11"}[f.name]
			alice.add("eth0", own+map[string]string{"v4": "/24", "v6": "/64"}[f.name])
			v := alice.gated(alice.gates(), f.vip)
			announced := announceFrames(alice.mac("eth0"), v.ip(), false)[0]
			v.mustOpen()
			client.mustAnswer(v.ip(), alice)
			await(t, "the burst", func() bool { return seen.count(announced) == 1+len(v.burst) })

			v.expire()
			before := seen.count(announced)
			v.Announce() // nothing tells it that the lease is over; the kernel does not let it out
			client.mustBeSilent(v.ip(), netip.MustParseAddr(own), alice)
			if n := seen.count(announced); n != before {
				t.Errorf("%d announcements after the deadline", n-before)
			}
			if p, _ := alice.has("eth0", v.ip()); p == nil {
				t.Error("the address is gone")
			}
			if line, err := v.Status(background); err != nil || !strings.HasSuffix(line, "its gate is shut") {
				t.Errorf("status: %q, %v", line, err)
			}

			v.Lease(boottime().add(time.Hour)) // a new grant is all that it takes
			client.next()
			client.mustAnswer(v.ip(), alice)

			alice.must("suspend", v.Suspend()) // a deadline that is far away ends at once
			client.mustBeSilent(v.ip(), netip.MustParseAddr(own), alice)
			v.mustBe(conditionRunning)
			v.Lease(openForGood)
			client.mustBeSilent(v.ip(), netip.MustParseAddr(own), alice)
			alice.must("resume", v.Resume())
			client.next()
			client.mustAnswer(v.ip(), alice)

			alice.must("stop", v.Stop(background))
			if left := alice.hangs("eth0"); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// TestVIPGateNeedsLease: no address before there is a deadline for it.
func TestVIPGateNeedsLease(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	v := alice.gated(alice.gates(), "192.168.10.100")
	for _, until := range []instant{0, boottime()} {
		v.Lease(until)
		if err := v.Start(background, startHint{Clean: true}); !errors.Is(err, errWaiting) {
			t.Errorf("start with a lease until %d: %v", until, err)
		}
	}
	v.mustBe(conditionStopped)
	v.mustOpen()
	v.mustBe(conditionRunning)
}

// TestVIPGateForEach: addresses on one link have deadlines of their own, and the gate stays until the last has gone.
func TestVIPGateForEach(t *testing.T) {
	lan := newTestLAN(t)
	alice, client := lan.host("alice"), lan.asker()
	alice.add("eth0", "192.168.10.11/24")
	s := alice.gates()
	one, two := alice.gated(s, "192.168.10.100"), alice.gated(s, "192.168.10.101")
	one.mustOpen()
	two.mustOpen()
	client.mustAnswer(one.ip(), alice)
	client.mustAnswer(two.ip(), alice)
	one.expire()
	client.mustBeSilent(one.ip(), two.ip(), alice)
	alice.must("stop", one.Stop(background))
	two.mustBe(conditionRunning)
	two.expire()
	client.mustBeSilent(two.ip(), netip.MustParseAddr("192.168.10.11"), alice)
	const all = gateFilterQdisc + " " + gateFilterQdisc + " clsact"
	if got := alice.hangs("eth0"); got != all {
		t.Errorf("hangs: %s", got)
	}
	alice.must("stop", two.Stop(background))
	if left := alice.hangs("eth0"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// TestVIPGateRestart: the next process finds the deadline of the one before, and can move it.
func TestVIPGateRestart(t *testing.T) {
	lan := newTestLAN(t)
	alice, client := lan.host("alice"), lan.asker()
	own := netip.MustParseAddr("192.168.10.11")
	alice.add("eth0", own.String()+"/24")
	old := alice.gated(alice.gates(), "192.168.10.100")
	old.mustOpen()
	next := alice.gated(alice.gates(), "192.168.10.100")
	next.mustBe(conditionRunning)
	client.mustAnswer(next.ip(), alice) // what was granted stands
	next.expire()
	client.mustBeSilent(next.ip(), own, alice)
	last := alice.gated(alice.gates(), "192.168.10.100")
	last.mustBe(conditionRunning)
	client.mustBeSilent(last.ip(), own, alice) // and so does the end of it
	last.Lease(openForGood)
	client.next()
	client.mustAnswer(last.ip(), alice)
	alice.must("stop", last.Stop(background))
	if left := alice.hangs("eth0"); left != "" {
		t.Errorf("left behind: %s", left)
	}

	// It died between gate and address, or somebody has removed the address since: nothing may stay shut.
	last.mustOpen()
	alice.del("eth0", "192.168.10.100/32")
	alice.gates()
	if left := alice.hangs("eth0"); left != "" {
		t.Errorf("left behind by a dead process: %s", left)
	}
}

// TestVIPGateSuspendAdopted: the lease of a restarted daemon ends before it has looked.
func TestVIPGateSuspendAdopted(t *testing.T) {
	lan := newTestLAN(t)
	alice, client := lan.host("alice"), lan.asker()
	own := netip.MustParseAddr("192.168.10.11")
	alice.add("eth0", own.String()+"/24")
	alice.gated(alice.gates(), "192.168.10.100").mustOpen()
	v := alice.gated(alice.gates(), "192.168.10.100")
	alice.must("suspend", v.Suspend())
	if p, _ := alice.has("eth0", v.ip()); p == nil {
		t.Error("the address is gone although there is a gate")
	}
	client.mustBeSilent(v.ip(), own, alice)
}

// TestVIPGateOfOthers: what others have on the link stays, and what they take away of ours comes back.
func TestVIPGateOfOthers(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	s := alice.gates()
	other := func() netlink.Filter {
		m := newGateBench(t)
		return &netlink.BpfFilter{Name: "theirs", DirectAction: true, Fd: m.program.FD(), FilterAttrs: netlink.FilterAttrs{
			LinkIndex: alice.link("eth0").Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL}}
	}
	v := alice.gated(s, "192.168.10.100")
	alice.must("add their qdisc", alice.nl.QdiscAdd(clsact(alice.link("eth0"))))
	v.mustOpen()
	if got := alice.hangs("eth0"); got != gateFilter+" "+gateFilter+" clsact" {
		t.Errorf("hangs: %s", got)
	}
	alice.must("stop", v.Stop(background))
	if got := alice.hangs("eth0"); got != "clsact" {
		t.Errorf("left of theirs: %s", got)
	}
	alice.must("delete their qdisc", alice.nl.QdiscDel(clsact(alice.link("eth0"))))

	v.mustOpen()
	alice.must("add their filter", alice.nl.FilterAdd(other()))
	alice.must("stop", v.Stop(background))
	if got := alice.hangs("eth0"); got != "theirs clsact" {
		t.Errorf("left of theirs: %s", got)
	}
	v.mustOpen()
	if got := alice.hangs("eth0"); got != gateFilter+" "+gateFilter+" theirs clsact" {
		t.Errorf("hangs: %s", got)
	}
	v.watch()
	alice.must("they clean up", alice.nl.QdiscDel(clsact(alice.link("eth0"))))
	until(t, "the gate is back", func() bool { return strings.Contains(v.log.String(), "gate-lost") })
	v.mustBe(conditionRunning)
	if got := alice.hangs("eth0"); got != gateFilterQdisc+" "+gateFilterQdisc+" clsact" {
		t.Errorf("was not put back: %s", got)
	}
	if r := s.report(); r.Kind != gateBPF || r.Reason != "" {
		t.Errorf("report: %+v", r)
	}
}

// TestVIPGateFallback: where the gate has no place the kernel takes the address away by itself, some time after the last
// renewal.
func TestVIPGateFallback(t *testing.T) {
	for _, f := range families[:2] {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice := lan.host("alice")
			s := alice.gates()
			l := alice.link("eth0")
			theirs := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_INGRESS}}
			alice.must("add their qdisc", alice.nl.QdiscAdd(theirs))
			v := alice.gated(s, f.vip)
			v.Lease(boottime().add(time.Hour))
			v.mustStart(startHint{Clean: true})
			if r := s.report(); r.Kind != gateLifetime || r.Slack != lifetimeSlack || !strings.Contains(r.Reason, "tc qdisc show dev eth0") {
				t.Errorf("report: %+v", r)
			}
			valid := func() int { // -1: it is not there
				_, addrs := alice.has("eth0", v.ip())
				if len(addrs) == 0 {
					return -1
				}
				return addrs[0].ValidLft
			}
			if got := valid(); got < 3500 || got > 3600 {
				t.Errorf("lifetime %d s", got)
			}
			v.Lease(openForGood)
			await(t, "a lifetime without an end", func() bool { return valid() == forever })
			await(t, "a lifetime of a second", func() bool { // not every grant is worth a renewal
				v.Lease(boottime().add(time.Second))
				return valid() <= 1
			})
			await(t, "the address is gone", func() bool { return valid() < 0 })
			if log := v.log.String(); strings.Count(log, "gate-missing") != 1 {
				t.Errorf("log: %s", log)
			}

			// Once there is room the address gets its gate, and stays.
			v.Lease(boottime().add(time.Hour))
			v.mustStart(startHint{Clean: true})
			alice.must("delete their qdisc", alice.nl.QdiscDel(theirs))
			v.mustBe(conditionRunning)
			if got := valid(); got != forever {
				t.Errorf("lifetime %d s behind a gate", got)
			}
			if r := s.report(); r.Kind != gateBPF {
				t.Errorf("report: %+v", r)
			}
		})
	}
}

// TestVIPGateKinds: the gate of an address on top of another interface.
func TestVIPGateKinds(t *testing.T) {
	onTop := func(h *testHost, name string, index int) netlink.Link {
		switch name {
		case "vlan7":
			return &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: index}, VlanId: 7}
		case "bond0":
			return netlink.NewLinkBond(netlink.LinkAttrs{Name: name})
		}
		return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	}
	for _, kind := range []string{"vlan7", "bond0", "br1"} {
		t.Run(kind, func(t *testing.T) {
			lan := newTestLAN(t)
			hosts := []*testHost{lan.host("alice"), lan.host("asker")}
			for _, h := range hosts {
				eth := h.link("eth0")
				if err := h.nl.LinkAdd(onTop(h, kind, eth.Attrs().Index)); errors.Is(err, unix.EOPNOTSUPP) {
					t.Skipf("this kernel has no %s: %v", kind, err)
				} else if err != nil {
					t.Fatal(err)
				}
				if kind != "vlan7" {
					h.down("eth0")
					h.must("enslave", h.nl.LinkSetMaster(eth, h.link(kind)))
					h.up("eth0")
				}
				h.sysctl("ipv6/conf/"+kind+"/accept_dad", "0")
				h.up(kind)
				await(t, "carrier", func() bool { return asInterface(h.link(kind).Attrs()).Carrier })
			}
			alice, client := hosts[0], hosts[1].asker(kind)
			own := netip.MustParseAddr("192.168.10.11")
			alice.add(kind, own.String()+"/24")
			v := alice.gated(alice.gates(), "192.168.10.100", func(c *ResourceConfig) { c.Interface = kind })
			v.mustOpen()
			client.mustAnswer(v.ip(), alice)
			v.expire()
			client.mustBeSilent(v.ip(), own, alice)
			alice.must("stop", v.Stop(background))
			if left := alice.hangs(kind); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// BenchmarkVIPLease is what a grant costs from the node's word to the kernel's map.
func BenchmarkVIPLease(b *testing.B) {
	lan := newTestLAN(b)
	alice := lan.host("alice")
	h := newHost(b.TempDir(), alice.gates(), slog.New(slog.DiscardHandler), func(any) {})
	defer h.Close()
	c := ResourceConfig{Type: "vip", Name: "vip", Address: "192.168.10.100", Interface: "eth0", ProbeWait: 1}
	h.Lease("web", boottime().add(time.Hour))
	t, err := h.thing("web", c)
	if err != nil {
		b.Fatal(err)
	}
	if err := t.res.Start(background, startHint{Clean: true}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		h.Lease("web", boottime().add(time.Second))
	}
	b.StopTimer()
	if err := t.res.Stop(background); err != nil {
		b.Fatal(err)
	}
}
