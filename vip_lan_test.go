// Hosts for the tests of addresses: network namespaces on one bridge, made anew for each test. A namespace lives as
// long as its file descriptor, so nothing is left behind however a test ends.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// testPatience is how long a state is waited for before the test gives up; a test that passes never waits so long.
const testPatience = 30 * time.Second

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// testLAN is the switch: a namespace with a bridge.
type testLAN struct {
	t     testing.TB
	hub   *testHost
	ports int
}

// testHost is a namespace.
type testHost struct {
	t    testing.TB
	name string
	fd   netns.NsHandle
	nl   *netlink.Handle
}

func newTestLAN(t testing.TB) *testLAN {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	l := &testLAN{t: t, hub: newTestHost(t, "hub")}
	noSnooping := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &noSnooping}
	l.hub.must("add bridge", l.hub.nl.LinkAdd(br))
	l.hub.up("br0")
	return l
}

func newTestHost(t testing.TB, name string) *testHost {
	t.Helper()
	h := &testHost{t: t, name: name}
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	runtime.LockOSThread()
	if h.fd, err = netns.New(); err != nil {
		runtime.UnlockOSThread()
		t.Skipf("cannot make a network namespace: %v", err)
	}
	if err := netns.Set(own); err != nil {
		t.Fatalf("leave namespace: %v", err) // the thread stays locked and ends with this test
	}
	runtime.UnlockOSThread()
	if h.nl, err = netlink.NewHandleAt(h.fd, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.nl.Close(); h.fd.Close() })
	h.up("lo")
	return h
}

// do is a netPlace.
func (h *testHost) do(f func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := netns.Set(h.fd); err != nil {
		return err
	}
	defer func() {
		if err := netns.Set(own); err != nil {
			panic("a thread cannot leave a test's namespace: " + err.Error())
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

func (h *testHost) must(what string, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%s: %s: %v", h.name, what, err)
	}
}

func (h *testHost) link(name string) netlink.Link {
	h.t.Helper()
	l, err := h.nl.LinkByName(name)
	h.must("find "+name, err)
	return l
}

func (h *testHost) up(name string) { h.must("up "+name, h.nl.LinkSetUp(h.link(name))) }

func (h *testHost) down(name string) { h.must("down "+name, h.nl.LinkSetDown(h.link(name))) }

func (h *testHost) sysctl(path, value string) {
	h.t.Helper()
	h.must("sysctl "+path, h.do(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644) }))
}

func (h *testHost) mac(name string) mac { return mac(h.link(name).Attrs().HardwareAddr) }

// add configures an address as an administrator would, without duplicate detection unless asked for.
func (h *testHost) add(name, prefix string, flags ...int) {
	h.t.Helper()
	a, err := netlink.ParseAddr(prefix)
	h.must("parse "+prefix, err)
	if a.IP.To4() == nil && len(flags) == 0 {
		a.Flags = unix.IFA_F_NODAD
	}
	h.must("add "+prefix, h.nl.AddrAdd(h.link(name), a))
	if ip := a.IP.To16(); a.IP.To4() == nil {
		// The kernel joins the group that solicitations go to a little later; until then it does not answer.
		group := fmt.Sprintf("ff0200000000000000000001ff%x", []byte(ip[13:]))
		await(h.t, prefix+" answers", func() bool {
			var b []byte
			h.must("read groups", h.do(func() (err error) {
				b, err = os.ReadFile("/proc/thread-self/net/igmp6")
				return err
			}))
			return bytes.Contains(b, []byte(group))
		})
	}
}

func (h *testHost) del(name, prefix string) {
	h.t.Helper()
	a, err := netlink.ParseAddr(prefix)
	h.must("parse "+prefix, err)
	h.must("delete "+prefix, h.nl.AddrDel(h.link(name), a))
}

// flags is what the host has of an address: prefix (with flags for what is not usual) on the interface, sorted as listed.
func (h *testHost) has(name string, ip netip.Addr) (prefixes []string, addrs []netlink.Addr) {
	h.t.Helper()
	l := h.link(name)
	all, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(l, netlink.FAMILY_ALL) })
	h.must("list addresses", err)
	for _, a := range all {
		if p, ok := addrPrefix(a); ok && p.Addr() == ip {
			prefixes, addrs = append(prefixes, p.String()), append(addrs, a)
		}
	}
	return prefixes, addrs
}

// host adds a host with eth0 on the bridge.
func (l *testLAN) host(name string) *testHost {
	l.t.Helper()
	h := newTestHost(l.t, name)
	l.plug(h, "eth0")
	return h
}

// plug connects another interface of the host to the bridge and waits until it carries.
func (l *testLAN) plug(h *testHost, name string) {
	l.t.Helper()
	l.ports++
	port := l.port(h, name)
	br := l.hub.link("br0").Attrs().Index
	hw := net.HardwareAddr{0x52, 0x54, 0, 0, 1, byte(l.ports)}
	l.hub.must("add port", l.hub.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: br}, PeerName: name,
		PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(h.fd),
	}))
	h.sysctl("ipv6/conf/"+name+"/accept_dad", "0")
	l.hub.up(port)
	h.up(name)
	await(l.t, name+" of "+h.name+" carries", func() bool {
		return asInterface(h.link(name).Attrs()).Carrier && l.hub.link(port).Attrs().OperState == netlink.OperUp
	})
}

func (l *testLAN) port(h *testHost, name string) string { return h.name + "-" + name }

// vip makes the resource as the product does and puts it on the host. The burst is as long as the real one but quick.
func (h *testHost) vip(address string, change ...func(*ResourceConfig)) *testVIP {
	h.t.Helper()
	c := ResourceConfig{Type: "vip", Name: "vip", Address: address, Interface: "eth0",
		ProbeWait: Duration(defaultProbeWait), ProbeTimeout: Duration(defaultProbeTimeout)}
	for _, f := range change {
		f(&c)
	}
	tv := &testVIP{host: h}
	r, err := newResource(c, resourceEnv{Group: "web", Log: slog.New(slog.NewTextHandler(&tv.log, nil))})
	h.must("make vip", err)
	tv.vip = r.(*vip)
	tv.vip.place = h.do
	tv.vip.burst = []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond}
	h.t.Cleanup(func() { tv.Stop(context.Background()) })
	return tv
}

// waitLong makes the probe wait for a slow machine; it ends at the first answer.
func waitLong(c *ResourceConfig) { c.ProbeWait = Duration(testPatience) }

type testVIP struct {
	*vip
	host *testHost
	log  lockedBuffer
}

func (v *testVIP) ip() netip.Addr { return v.prefix.Addr() }

func (v *testVIP) mustStart(hint startHint) {
	v.host.t.Helper()
	v.host.must("start", v.Start(context.Background(), hint))
}

func (v *testVIP) mustBe(want condition) {
	v.host.t.Helper()
	if got, err := v.Monitor(context.Background()); got != want || (err != nil) != (want == conditionFailed) {
		v.host.t.Fatalf("monitor on %s: %v, %v; want %v", v.host.name, got, err, want)
	}
}

// watch runs Watch until the test ends and hands out its reasons.
func (v *testVIP) watch() <-chan string {
	reasons := make(chan string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Watch(ctx, func(reason string) { reasons <- reason })
	}()
	v.host.t.Cleanup(func() { cancel(); <-done })
	return reasons
}

func expectReason(t testing.TB, reasons <-chan string, want string) {
	t.Helper()
	select {
	case got := <-reasons:
		if got != want {
			t.Fatalf("noticed %q, want %q", got, want)
		}
	case <-time.After(testPatience):
		t.Fatalf("never noticed %q", want)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// capture records every frame that arrives at a host's eth0, from now on.
type capture struct {
	mu     sync.Mutex
	frames [][]byte
}

func (h *testHost) capture() *capture {
	h.t.Helper()
	c := &capture{}
	var p *packetSocket
	h.must("capture", h.do(func() (err error) {
		p, err = openPacket(h.link("eth0").Attrs().Index, unix.ETH_P_ALL, nil)
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, maxFrame)
		for {
			n, err := p.file.Read(buf)
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				return
			}
			c.mu.Lock()
			c.frames = append(c.frames, bytes.Clone(buf[:n]))
			c.mu.Unlock()
		}
	}()
	h.t.Cleanup(func() { p.close(); <-done })
	return c
}

// count is how often exactly this frame has arrived.
func (c *capture) count(frame []byte) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if bytes.Equal(f, frame) {
			n++
		}
	}
	return n
}

// talkTo makes the host look up the address, as any packet to it does.
func (h *testHost) talkTo(ip netip.Addr) {
	h.t.Helper()
	h.must("send to "+ip.String(), h.do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(ip, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	}))
}

// neighbour is where the host believes the address to be; "" if it does not know.
func (h *testHost) neighbour(ip netip.Addr) string {
	h.t.Helper()
	index := h.link("eth0").Attrs().Index
	list, err := dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(index, 0) })
	h.must("list neighbours", err)
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == ip && len(n.HardwareAddr) > 0 {
			return n.HardwareAddr.String()
		}
	}
	return ""
}

// says sends frames that announce the address from an interface of the host.
func (h *testHost) says(name string, ip netip.Addr) {
	h.t.Helper()
	h.must("announce", h.do(func() error {
		p, err := openSender(h.link(name).Attrs().Index)
		if err != nil {
			return err
		}
		defer p.close()
		for _, f := range announceFrames(h.mac(name), ip, false) {
			if err := p.send(f); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (h *testHost) String() string { return fmt.Sprintf("%s (%s)", h.name, h.mac("eth0")) }
