// What do other hosts see of an address that starts, moves, is disputed or goes? The parts of vip.go that talk.

package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestVIPAnnounces counts every form of the burst, its repetition after a heal, and the slow announcements.
func TestVIPAnnounces(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, client := lan.host("alice"), lan.host("client")
			seen := client.capture()
			v := alice.vip(f.vip)
			frames := announceFrames(alice.mac("eth0"), v.ip(), false)
			round := 1 + len(v.burst)
			all := func(want int) {
				t.Helper()
				for i, frame := range frames {
					await(t, "announcements", func() bool { return seen.count(frame) >= want })
					if got := seen.count(frame); got != want {
						t.Fatalf("form %d: %d announcements, want %d", i, got, want)
					}
				}
			}
			v.mustStart(startHint{})
			all(round)
			if got := seen.count(probeFrame(alice.mac("eth0"), v.ip())); got != 1 {
				t.Errorf("%d probes, want 1", got)
			}
			v.Announce()
			all(2 * round)
			alice.must("stop", v.Stop(background))
			v.Announce()
			v.mustStart(startHint{Clean: true})
			all(3 * round) // and none from the Announce in between
			v.slow = time.Millisecond
			v.watch()
			await(t, "slow announcements", func() bool { return seen.count(frames[0]) >= 4*round })
		})
	}
}

// TestVIPAnnounceTimes: 0, 1, 2 and 5 seconds, and nothing once it is silenced.
func TestVIPAnnounceTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := newVIP(ResourceConfig{Name: "vip", Address: "192.168.10.100", Interface: "eth0"}, resourceEnv{})
		if err != nil {
			t.Fatal(err)
		}
		v := r.(*vip)
		first := time.Now()
		var at []time.Duration
		v.place = func(func() error) error { // every announcement looks here first
			at = append(at, time.Since(first))
			return nil
		}
		v.active = true
		v.Announce()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []time.Duration{0, time.Second, 2 * time.Second, 5 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("announced at %v, want %v", at, want)
		}
		at = nil
		v.Announce()
		v.mu.Lock()
		v.silence()
		v.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(at) != 1 {
			t.Errorf("announced %d times, want once", len(at))
		}
	})
}

// TestVIPAnnouncesNothingElse: not what it does not have, and not what it shall not have.
func TestVIPAnnouncesNothingElse(t *testing.T) {
	lan := newTestLAN(t)
	alice, client := lan.host("alice"), lan.host("client")
	seen := client.capture()
	v := alice.vip("192.168.10.100")
	announced := announceFrames(alice.mac("eth0"), v.ip(), false)[0]
	for i, c := range []struct{ active, suspended, there bool }{
		{true, false, false}, {false, false, true}, {true, true, true}, {true, false, true},
	} {
		if c.there {
			alice.add("eth0", "192.168.10.100/32")
		}
		v.mu.Lock()
		v.active, v.suspended = c.active, c.suspended
		v.announce()
		v.active, v.suspended = false, false
		v.mu.Unlock()
		if c.there {
			alice.del("eth0", "192.168.10.100/32")
		}
		mark := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		alice.says("eth0", mark)
		await(t, "the mark", func() bool { return seen.count(announceFrames(alice.mac("eth0"), mark, false)[0]) == 1 })
		want := 0
		if c.active && c.there && !c.suspended {
			want = 1
		}
		if got := seen.count(announced); got != want {
			t.Errorf("%+v: announced %d times", c, got)
		}
	}
}

// TestVIPRouter: what forwards must not be taken off its neighbours' lists of routers.
func TestVIPRouter(t *testing.T) {
	lan := newTestLAN(t)
	alice, client := lan.host("alice"), lan.host("client")
	seen := client.capture()
	alice.sysctl("ipv6/conf/eth0/forwarding", "1")
	v := alice.vip("2001:db8::100")
	v.mustStart(startHint{Clean: true})
	frame := announceFrames(alice.mac("eth0"), v.ip(), true)[0]
	await(t, "an announcement as router", func() bool { return seen.count(frame) > 0 })
}

// TestVIPMoves: a client that knows the address at one host finds it at the other without asking.
func TestVIPMoves(t *testing.T) {
	for _, f := range families[:2] {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, bob, client := lan.host("alice"), lan.host("bob"), lan.host("client")
			client.add("eth0", f.client)
			if f.name == "v6" { // to answer, a host needs a way back
				alice.add("eth0", "2001:db8::10:11/64")
				bob.add("eth0", "2001:db8::10:12/64")
			} else {
				alice.add("eth0", "192.168.10.11/24")
				bob.add("eth0", "192.168.10.12/24")
			}
			at, other := alice.vip(f.vip), bob.vip(f.vip)
			at.mustStart(startHint{Clean: true})
			client.talkTo(at.ip())
			for range 3 {
				await(t, "the client knows it at "+at.host.String(), func() bool {
					return client.neighbour(at.ip()) == at.host.mac("eth0").String()
				})
				at.host.must("stop", at.Stop(background))
				other.mustStart(startHint{Clean: true})
				at, other = other, at
			}
		})
	}
}

func TestVIPWaitsForAnother(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, bob := lan.host("alice"), lan.host("bob")
			v := alice.vip(f.vip, waitLong)
			theirs := v.prefix.String()
			bob.add("eth0", theirs)
			want := v.ip().String() + " is answered by " + bob.mac("eth0").String() + ": waiting until it goes; "
			waits := func(hint startHint) {
				t.Helper()
				err := v.Start(background, hint)
				if !errors.Is(err, errWaiting) || !strings.HasPrefix(err.Error(), want) && !hint.Insist {
					t.Fatalf("start: %v; want %s", err, want)
				}
				if p, _ := alice.has("eth0", v.ip()); p != nil {
					t.Fatalf("was added nevertheless: %v", p)
				}
			}
			waits(startHint{})
			waits(startHint{Insist: true})
			if v.waiting == 0 {
				t.Fatal("the wait has no beginning")
			}
			v.waiting = boottime().add(-v.probeTimeout)
			waits(startHint{}) // others wait for as long as it takes
			v.mustStart(startHint{Insist: true})
			v.mustBe(conditionRunning)
			if log := v.log.String(); !strings.Contains(log, "vip-insist") || !strings.Contains(log, bob.mac("eth0").String()) {
				t.Errorf("log: %s", log)
			}
			alice.must("stop", v.Stop(background))
			if v.waiting != 0 {
				t.Error("the next wait would begin in the past")
			}
			waits(startHint{Insist: true})
			bob.del("eth0", theirs)
			v.probeWait = defaultProbeWait
			v.mustStart(startHint{})
			if v.waiting != 0 {
				t.Error("the wait did not end")
			}
		})
	}
}

// TestVIPInsistTime is the same by the clock.
func TestVIPInsistTime(t *testing.T) {
	lan := newTestLAN(t)
	alice, bob := lan.host("alice"), lan.host("bob")
	const timeout = 50 * time.Millisecond
	v := alice.vip("192.168.10.100", waitLong, func(c *ResourceConfig) { c.ProbeTimeout = Duration(timeout) })
	bob.add("eth0", "192.168.10.100/32")
	var waited int
	begin := boottime()
	await(t, "taken", func() bool {
		err := v.Start(background, startHint{Insist: true})
		if err != nil && !errors.Is(err, errWaiting) {
			t.Fatal(err)
		}
		if err != nil {
			waited++
		}
		return err == nil
	})
	if took := boottime().sub(begin); waited == 0 || took < timeout {
		t.Errorf("taken after %s and %d waits", took, waited)
	}
}

// TestVIPSkipsProbe: when the former owner has reported it gone, and when it is put back in place.
func TestVIPSkipsProbe(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, client := lan.host("alice"), lan.host("client")
			seen := client.capture()
			v := alice.vip(f.vip)
			announced := announceFrames(alice.mac("eth0"), v.ip(), false)[0]
			for i, hint := range []startHint{{Clean: true}, {Restart: true}} {
				v.mustStart(hint)
				await(t, "an announcement", func() bool { return seen.count(announced) > i*(1+len(v.burst)) })
				if n := seen.count(probeFrame(alice.mac("eth0"), v.ip())); n != 0 {
					t.Errorf("%+v: %d probes", hint, n)
				}
				await(t, "the burst", func() bool { return seen.count(announced) == (i+1)*(1+len(v.burst)) })
				alice.must("stop", v.Stop(background))
			}
		})
	}
}

// TestVIPPutBack: somebody removes it; the caller starts it again as soon as it is told, again and again.
func TestVIPPutBack(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice := lan.host("alice")
			v := alice.vip(f.vip)
			v.mustStart(startHint{Clean: true})
			reasons := v.watch()
			for range 5 {
				alice.del("eth0", v.prefix.String())
				expectReason(t, reasons, "address removed by somebody else")
				v.mustBe(conditionStopped)
				v.mustStart(startHint{Restart: true})
				v.mustBe(conditionRunning)
			}
			// Neither is what is done on purpose: the reason that comes next is the next loss.
			alice.must("suspend", v.Suspend())
			alice.must("resume", v.Resume())
			alice.must("stop", v.Stop(background))
			v.mustStart(startHint{Clean: true})
			lan.hub.down(lan.port(alice, "eth0"))
			expectReason(t, reasons, "no carrier on eth0: check its cable and the switch port")
			alice.must("delete eth0", alice.nl.LinkDel(alice.link("eth0")))
			await(t, "the interface missed", func() bool { // after its address, perhaps
				select {
				case reason := <-reasons:
					return reason == "interface eth0 is gone"
				default:
					return false
				}
			})
		})
	}
}

func TestVIPCarrierLoss(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	v := alice.vip("192.168.10.100")
	v.mustStart(startHint{Clean: true})
	reasons := v.watch()
	for range 5 { // the next loss may come before the watch has seen the recovery
		lan.hub.down(lan.port(alice, "eth0"))
		expectReason(t, reasons, "no carrier on eth0: check its cable and the switch port")
		v.mustBe(conditionFailed)
		lan.hub.up(lan.port(alice, "eth0"))
		await(t, "carrier", func() bool { c, _ := v.Monitor(background); return c == conditionRunning })
	}
	alice.down("eth0")
	expectReason(t, reasons, "eth0 is down: ip link set eth0 up")
}

// TestVIPWatchFinds: what happened before Watch began.
func TestVIPWatchFinds(t *testing.T) {
	lan := newTestLAN(t)
	alice, client := lan.host("alice"), lan.host("client")
	seen := client.capture()
	v := alice.vip("192.168.10.100")
	expectReason(t, v.watch(), "address is not there")

	// A restarted daemon announces what it adopts, and misses it from then on.
	alice.add("eth0", "192.168.10.101/32")
	adopted := alice.vip("192.168.10.101")
	reasons := adopted.watch()
	announced := announceFrames(alice.mac("eth0"), adopted.ip(), false)[0]
	await(t, "announced", func() bool { return seen.count(announced) > 0 })
	alice.del("eth0", "192.168.10.101/32")
	expectReason(t, reasons, "address removed by somebody else")

	lost := alice.vip("192.168.10.102")
	lost.mustStart(startHint{Clean: true})
	alice.del("eth0", "192.168.10.102/32")
	expectReason(t, lost.watch(), "address removed by somebody else")
}

// TestVIPDispute: another host claims it; the own other ports may say what they like.
func TestVIPDispute(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, bob, client := lan.host("alice"), lan.host("bob"), lan.host("client")
			lan.plug(alice, "eth1")
			seen := client.capture()
			v := alice.vip(f.vip)
			v.mustStart(startHint{Clean: true})
			announced := announceFrames(alice.mac("eth0"), v.ip(), false)[0]
			await(t, "the burst", func() bool { return seen.count(announced) == 1+len(v.burst) })
			reasons := v.watch()
			other := netip.MustParseAddr(strings.Replace(f.vip, "100", "101", 1))
			heard := make(chan struct{})
			go func() {
				defer close(heard)
				expectReason(t, reasons, "also answered by "+bob.mac("eth0").String())
			}()
			await(t, "noticed", func() bool { // until the watch listens
				alice.says("eth1", v.ip())
				bob.says("eth0", other)
				bob.says("eth0", v.ip())
				select {
				case <-heard:
					return true
				case <-time.After(time.Millisecond):
					return false
				}
			})
			await(t, "a defence", func() bool { return seen.count(announced) > 1+len(v.burst) })
			if n := len(reasons); n != 0 {
				t.Errorf("%d more reports: %s", n, <-reasons)
			}
			if log := v.log.String(); strings.Count(log, "vip-dispute") != 1 {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestVIPDisputesDue(t *testing.T) {
	d := disputes{}
	at := instant(time.Hour)
	steps := []struct {
		who  mac
		at   instant
		want bool
	}{
		{mac{2, 1}, at, true},
		{mac{2, 1}, at.add(disputeQuiet - 1), false},
		{mac{2, 2}, at.add(disputeQuiet - 1), true},
		{mac{2, 1}, at.add(disputeQuiet), true},
		{mac{2, 1}, at.add(disputeQuiet + 1), false},
	}
	for i, s := range steps {
		if got := d.due(s.who, s.at); got != s.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	at = at.add(time.Hour)
	for i := range 10 * disputesMax {
		if got := d.due(mac{2, 3, byte(i >> 8), byte(i)}, at); got != (len(d) <= disputesMax && i < disputesMax) {
			t.Fatalf("host %d: %v with %d remembered", i, got, len(d))
		}
	}
	if !d.due(mac{2, 4}, at.add(disputeQuiet)) || len(d) != 1 {
		t.Errorf("the flood is not forgotten: %d", len(d))
	}
}

// TestVIPOwnAnswer: the host's other port in the same network does not stand in its own way.
func TestVIPOwnAnswer(t *testing.T) {
	lan := newTestLAN(t)
	alice, bob := lan.host("alice"), lan.host("bob")
	lan.plug(alice, "eth1")
	v := alice.vip("192.168.10.100", waitLong)
	probe := make(chan mac, 1)
	go func() {
		s, err := v.look()
		if err != nil {
			t.Error(err)
		}
		who, err := v.probe(background, s.link)
		if err != nil {
			t.Error(err)
		}
		probe <- who
	}()
	await(t, "an answer", func() bool {
		alice.says("eth1", v.ip())
		bob.says("eth0", v.ip())
		select {
		case who := <-probe:
			if who != bob.mac("eth0") {
				t.Errorf("answered by %s", who)
			}
			return true
		case <-time.After(time.Millisecond):
			return false
		}
	})
}

// TestVIPLateReader: the answer lies in the queue when the process gets to run again, past probe_wait.
func TestVIPLateReader(t *testing.T) {
	lan := newTestLAN(t)
	alice, bob := lan.host("alice"), lan.host("bob")
	seen := alice.capture()
	ip := netip.MustParseAddr("192.168.10.100")
	var p *packetSocket
	alice.must("listen", alice.do(func() (err error) {
		p, err = openListener(alice.link("eth0").Attrs().Index, ip)
		return err
	}))
	defer p.close()
	bob.says("eth0", ip)
	last := announceFrames(bob.mac("eth0"), ip, false)[1]
	await(t, "frames in the queue", func() bool { return seen.count(last) == 1 })
	var got []claim
	alice.must("listen", p.listen(background, time.Unix(1, 0), func(c claim) bool { got = append(got, c); return true }))
	if want := (claim{ip, bob.mac("eth0")}); !slices.Equal(got, []claim{want, want}) {
		t.Errorf("read %v", got)
	}
}

// TestVIPFilter: the kernel passes nothing but claims of that address, and none that a VLAN on top has received.
func TestVIPFilter(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, bob := lan.host("alice"), lan.host("bob")
			ip := netip.MustParseAddr(f.vip)
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			var p *packetSocket
			alice.must("listen", alice.do(func() (err error) {
				p, err = openListener(alice.link("eth0").Attrs().Index, ip)
				return err
			}))
			defer p.close()
			tagged := false
			for _, h := range []*testHost{alice, bob} {
				vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "vlan7", ParentIndex: h.link("eth0").Attrs().Index}, VlanId: 7}
				if err := h.nl.LinkAdd(vlan); errors.Is(err, unix.EOPNOTSUPP) {
					continue // this kernel has none: the rest of the test holds without
				} else if err != nil {
					t.Fatal(err)
				}
				tagged = true
				h.must("own address for it", h.nl.LinkSetHardwareAddr(vlan, []byte{0x52, 0x54, 0, 0, 2, h.mac("eth0")[5]}))
				h.up("vlan7")
			}
			bob.says("eth0", netip.MustParseAddr(strings.Replace(f.vip, "100", "101", 1)))
			if tagged {
				bob.says("vlan7", ip)
			}
			bob.says("eth0", ip)
			var got []claim
			alice.must("listen", p.listen(ctx, time.Time{}, func(c claim) bool { got = append(got, c); return false }))
			if want := (claim{ip, bob.mac("eth0")}); !slices.Equal(got, []claim{want}) {
				t.Errorf("got %v, want %v", got, want)
			}
			cancel()
			alice.must("listen", p.listen(ctx, time.Time{}, func(claim) bool { return true })) // ends with ctx
		})
	}
}
