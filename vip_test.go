package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var background = context.Background()

// families are the two kinds of address that everything is tried with, and what a client in the same network has.
var families = []struct{ name, vip, client string }{
	{"v4", "192.168.10.100", "192.168.10.50/24"},
	{"v6", "2001:db8::10:100", "2001:db8::10:50/64"},
	{"v6 link-local", "fe80::10:100", "fe80::10:50/64"},
}

func TestVIPConfig(t *testing.T) {
	for _, c := range []struct{ address, iface, want string }{
		{"192.168.10.100", "eth0", "192.168.10.100/32"},
		{"192.168.10.100/24", "eth0", "192.168.10.100/24"},
		{"2001:db8::1", "eth0", "2001:db8::1/128"},
		{"2001:db8::1/64", "eth0", "2001:db8::1/64"},
		{"", "eth0", "expected one such as"},
		{"192.168.10.300", "eth0", "expected one such as"},
		{"192.168.10.100/33", "eth0", "expected one such as"},
		{"fe80::1%eth0", "eth0", "expected one such as"},
		{"0.0.0.0", "eth0", "other hosts can send to"},
		{"127.0.0.1", "eth0", "other hosts can send to"},
		{"224.0.0.1", "eth0", "other hosts can send to"},
		{"ff02::1", "eth0", "other hosts can send to"},
		{"::ffff:192.168.10.100", "eth0", "other hosts can send to"},
		{"192.168.10.100", "", "no interface"},
	} {
		r, err := newVIP(ResourceConfig{Name: "vip", Address: c.address, Interface: c.iface}, resourceEnv{})
		got := fmt.Sprint(err)
		if err == nil {
			got = r.(*vip).prefix.String()
		}
		if !strings.Contains(got, c.want) || err != nil && !strings.HasPrefix(got, "resource vip: ") {
			t.Errorf("%q on %q: %s; want %s", c.address, c.iface, got, c.want)
		}
	}
}

func TestVIPStartStopMonitor(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice := lan.host("alice")
			alice.sysctl("ipv6/conf/eth0/accept_dad", "1") // the kernel's own detection would take a second
			v := alice.vip(f.vip)
			v.mustBe(conditionStopped)
			for range 2 { // the second finds it there
				v.mustStart(startHint{})
				v.mustBe(conditionRunning)
			}
			prefixes, addrs := alice.has("eth0", v.ip())
			if !slices.Equal(prefixes, []string{v.prefix.String()}) {
				t.Fatalf("configured as %v", prefixes)
			}
			if v6 := v.ip().Is6(); (addrs[0].Flags&unix.IFA_F_DEPRECATED != 0) != v6 || (addrs[0].Flags&unix.IFA_F_PERMANENT == 0) {
				t.Errorf("flags %#x", addrs[0].Flags)
			}
			for range 2 {
				alice.must("stop", v.Stop(background))
				v.mustBe(conditionStopped)
			}
			if prefixes, _ := alice.has("eth0", v.ip()); prefixes != nil {
				t.Errorf("left behind: %v", prefixes)
			}
		})
	}
}

func TestVIPPrefixes(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	for _, c := range []struct {
		address, broadcast string
		deprecated         bool
	}{
		{"192.168.10.100/24", "192.168.10.255", false},
		{"192.168.10.100/30", "192.168.10.103", false},
		{"192.168.10.100/31", "<nil>", false},
		{"192.168.10.100/32", "<nil>", false},
		{"2001:db8::100/64", "<nil>", false},
		{"2001:db8::100/128", "<nil>", true},
	} {
		v := alice.vip(c.address)
		v.mustStart(startHint{Clean: true})
		prefixes, addrs := alice.has("eth0", v.ip())
		if !slices.Equal(prefixes, []string{c.address}) || addrs[0].Broadcast.String() != c.broadcast ||
			addrs[0].Flags&unix.IFA_F_DEPRECATED != 0 != c.deprecated {
			t.Errorf("%s: %v, %+v", c.address, prefixes, addrs)
		}
		alice.must("stop", v.Stop(background))
	}
}

// TestVIPOtherPrefix: what is there already stays as it is, and Stop takes it away nevertheless.
func TestVIPOtherPrefix(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	v := alice.vip("192.168.10.100")
	alice.add("eth0", "192.168.10.100/24")
	v.mustBe(conditionRunning)
	v.mustStart(startHint{})
	if p, _ := alice.has("eth0", v.ip()); !slices.Equal(p, []string{"192.168.10.100/24"}) {
		t.Errorf("configured: %v", p)
	}
	alice.add("eth0", "192.168.10.100/32")
	alice.must("stop", v.Stop(background))
	v.mustBe(conditionStopped)
	if log := v.log.String(); strings.Count(log, "vip-prefix") != 2 {
		t.Errorf("log: %s", log)
	}
}

// TestVIPBystanders: the kernel removes the secondary addresses of a network with its first one.
func TestVIPBystanders(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	alice.sysctl("ipv4/conf/all/promote_secondaries", "0")
	alice.sysctl("ipv4/conf/eth0/promote_secondaries", "0")
	other := netip.MustParseAddr("192.168.10.101")

	alice.add("eth0", "192.168.10.100/24")
	alice.add("eth0", "192.168.10.101/24")
	alice.del("eth0", "192.168.10.100/24")
	if p, _ := alice.has("eth0", other); p != nil {
		t.Skip("this kernel keeps secondary addresses")
	}

	v := alice.vip("192.168.10.100/24")
	v.mustStart(startHint{Clean: true})
	alice.add("eth0", "192.168.10.101/24")
	alice.add("eth0", "192.168.20.101/24")
	alice.must("stop", v.Stop(background))
	v.mustBe(conditionStopped)
	if p, _ := alice.has("eth0", other); !slices.Equal(p, []string{"192.168.10.101/24"}) {
		t.Errorf("the other address: %v", p)
	}
}

func TestVIPHopeless(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	lan.plug(alice, "eth1")
	check := func(v *testVIP, want string) {
		t.Helper()
		for what, err := range map[string]error{"fit": v.Fit(background), "start": v.Start(background, startHint{Clean: true})} {
			if !errors.Is(err, errHopeless) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: %v; want hopeless %q", what, err, want)
			}
		}
		if p, _ := alice.has("eth0", v.ip()); p != nil {
			t.Errorf("was added nevertheless: %v", p)
		}
	}
	v := alice.vip("192.168.10.100")
	lan.hub.down(lan.port(alice, "eth0"))
	await(t, "no carrier", func() bool { return !asInterface(alice.link("eth0").Attrs()).Carrier })
	check(v, "no carrier on eth0: ")
	lan.hub.up(lan.port(alice, "eth0"))
	await(t, "carrier", func() bool { return v.Fit(background) == nil })
	alice.down("eth0")
	check(v, "eth0 is down: ")
	alice.up("eth0")
	await(t, "carrier", func() bool { return v.Fit(background) == nil })
	alice.add("eth1", "192.168.10.100/32")
	check(v, "192.168.10.100 is on eth1 of this host, not on eth0: ")
	alice.sysctl("ipv6/conf/eth0/disable_ipv6", "1")
	check(alice.vip("2001:db8::100"), "IPv6 is off on eth0: ")
	check(alice.vip("192.168.10.101", func(c *ResourceConfig) { c.Interface = "eth9" }), "no interface eth9 on this host: ")
}

// TestVIPKinds: an interface that appears later, and those on top of another.
func TestVIPKinds(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	on := func(name string) func(*ResourceConfig) { return func(c *ResourceConfig) { c.Interface = name } }
	kinds := []struct {
		name string
		make func() error
	}{
		{"vlan7", func() error {
			return alice.nl.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "vlan7", ParentIndex: alice.link("eth0").Attrs().Index}, VlanId: 7})
		}},
		{"br1", func() error {
			lan.plug(alice, "eth2")
			if err := alice.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br1"}}); err != nil {
				return err
			}
			return alice.nl.LinkSetMaster(alice.link("eth2"), alice.link("br1"))
		}},
		{"eth3", func() error { lan.plug(alice, "eth3"); return nil }},
		{"dummy0", func() error {
			return alice.nl.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy0"}})
		}},
		{"bond0", func() error {
			if err := alice.nl.LinkAdd(netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})); err != nil {
				return err
			}
			lan.plug(alice, "eth1")
			alice.down("eth1")
			return alice.nl.LinkSetMaster(alice.link("eth1"), alice.link("bond0"))
		}},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			v := alice.vip("192.168.10.100", on(k.name))
			if err := v.Fit(background); !errors.Is(err, errHopeless) {
				t.Fatalf("fit before there is one: %v", err)
			}
			if err := k.make(); errors.Is(err, unix.EOPNOTSUPP) {
				t.Skipf("this kernel has no %s: %v", k.name, err)
			} else if err != nil {
				t.Fatal(err)
			}
			alice.up(k.name)
			await(t, "fit", func() bool { return v.Fit(background) == nil })
			v.mustStart(startHint{})
			v.mustBe(conditionRunning)
			alice.must("stop", v.Stop(background))
			v.mustBe(conditionStopped)
		})
	}
}

func TestVIPSuspend(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			lan := newTestLAN(t)
			alice, client := lan.host("alice"), lan.host("client")
			seen := client.capture()
			v := alice.vip(f.vip)
			there := func(want bool) {
				t.Helper()
				if p, _ := alice.has("eth0", v.ip()); (p != nil) != want {
					t.Fatalf("address: %v", p)
				}
			}

			// One that comes before the start holds the start back.
			alice.must("suspend", v.Suspend())
			if err := v.Start(background, startHint{Clean: true}); !errors.Is(err, errWaiting) {
				t.Fatalf("start while suspended: %v", err)
			}
			v.mustBe(conditionStopped)
			alice.must("resume", v.Resume())
			there(false) // Resume puts back only what was there

			v.mustStart(startHint{Clean: true})
			for range 2 {
				alice.must("suspend", v.Suspend())
				there(false)
				v.mustBe(conditionRunning)
			}
			v.Announce() // is silent: the frames are counted below
			announced := announceFrames(alice.mac("eth0"), v.ip(), false)[0]
			await(t, "the first announcement", func() bool { return seen.count(announced) >= 1 })
			before := seen.count(announced)
			for range 2 {
				alice.must("resume", v.Resume())
				there(true)
				v.mustBe(conditionRunning)
			}
			await(t, "a burst after resume", func() bool { return seen.count(announced) >= before+1+len(v.burst) })

			alice.must("suspend", v.Suspend())
			alice.must("stop", v.Stop(background))
			v.mustBe(conditionStopped)
			alice.must("resume", v.Resume())
			there(false) // a stop is the end of it
			v.mustStart(startHint{Clean: true})
		})
	}
}

// TestVIPSuspendAdopted: the daemon was restarted, so nobody has called Start, and then the lease ends.
func TestVIPSuspendAdopted(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	alice.add("eth0", "192.168.10.100/32")
	v := alice.vip("192.168.10.100")
	alice.must("suspend", v.Suspend())
	if p, _ := alice.has("eth0", v.ip()); p != nil {
		t.Fatalf("address: %v", p)
	}
	alice.must("resume", v.Resume())
	if p, _ := alice.has("eth0", v.ip()); p == nil {
		t.Fatal("it did not come back")
	}
}

func TestVIPResumeWithoutInterface(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	v := alice.vip("192.168.10.100")
	v.mustStart(startHint{Clean: true})
	alice.must("suspend", v.Suspend())
	alice.must("delete eth0", alice.nl.LinkDel(alice.link("eth0")))
	if err := v.Resume(); !errors.Is(err, errHopeless) {
		t.Errorf("resume: %v", err)
	}
	v.mustBe(conditionStopped)
	alice.must("stop", v.Stop(background))
}

func TestVIPMonitorFailed(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	v := alice.vip("192.168.10.100")
	v.mustStart(startHint{Clean: true})
	lan.hub.down(lan.port(alice, "eth0"))
	await(t, "no carrier", func() bool { return !asInterface(alice.link("eth0").Attrs()).Carrier })
	v.mustBe(conditionFailed)
	if _, err := v.Monitor(background); !errors.Is(err, errHopeless) || !strings.HasPrefix(err.Error(), "no carrier on eth0: ") {
		t.Errorf("monitor: %v", err)
	}
	alice.must("stop", v.Stop(background))
	v.mustBe(conditionStopped)
}

// TestVIPDuplicateDetected: the kernel holds back an address that somebody added with its duplicate detection on.
func TestVIPDuplicateDetected(t *testing.T) {
	lan := newTestLAN(t)
	alice, bob := lan.host("alice"), lan.host("bob")
	bob.add("eth0", "2001:db8::100/128")
	v := alice.vip("2001:db8::100")
	alice.sysctl("ipv6/conf/eth0/accept_dad", "1")
	alice.add("eth0", "2001:db8::100/128", 0)
	await(t, "a duplicate", func() bool {
		_, addrs := alice.has("eth0", v.ip())
		return len(addrs) == 1 && addrs[0].Flags&unix.IFA_F_DADFAILED != 0
	})
	v.mustBe(conditionFailed)
	bob.del("eth0", "2001:db8::100/128")
	v.mustStart(startHint{})
	v.mustBe(conditionRunning)
}

func TestVIPStartCancelled(t *testing.T) {
	lan := newTestLAN(t)
	v := lan.host("alice").vip("192.168.10.100", waitLong)
	ctx, cancel := context.WithTimeout(background, time.Millisecond)
	defer cancel()
	for _, hint := range []startHint{{}, {Clean: true}} { // the second comes when ctx is over
		if err := v.Start(ctx, hint); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("start: %v", err)
		}
		v.mustBe(conditionStopped)
	}
}

// TestVIPOnTwoLinks: only a link-local address means another thing on each link.
func TestVIPOnTwoLinks(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	lan.plug(alice, "eth1")
	for address, want := range map[string]error{
		"fe80::10:100": nil, "169.254.10.100": errHopeless, "192.168.10.100": errHopeless, "2001:db8::10:100": errHopeless,
	} {
		v := alice.vip(address)
		alice.add("eth1", v.prefix.String())
		if err := v.Start(background, startHint{Clean: true}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
		alice.must("stop", v.Stop(background))
		if p, _ := alice.has("eth1", v.ip()); p == nil {
			t.Errorf("%s: the one on eth1 is gone", address)
		}
	}
}

func BenchmarkVIPStartStop(b *testing.B) {
	for _, f := range families[:2] {
		b.Run(f.name, func(b *testing.B) {
			lan := newTestLAN(b)
			alice := lan.host("alice")
			v := alice.vip(f.vip)
			for b.Loop() {
				v.mustStart(startHint{Clean: true})
				if err := v.Stop(background); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVIPStop(b *testing.B) {
	lan := newTestLAN(b)
	v := lan.host("alice").vip("192.168.10.100")
	for b.Loop() {
		b.StopTimer()
		v.mustStart(startHint{Clean: true})
		b.StartTimer()
		if err := v.Stop(background); err != nil {
			b.Fatal(err)
		}
	}
}
