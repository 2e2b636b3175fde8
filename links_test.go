package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestHostInterfaces(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	alice.add("eth0", "192.168.10.11/24")
	alice.add("eth0", "2001:db8::11/64")
	lan.plug(alice, "eth1")
	lan.hub.down(lan.port(alice, "eth1"))
	await(t, "no carrier", func() bool { return !asInterface(alice.link("eth1").Attrs()).Carrier })
	lan.plug(alice, "eth2")
	alice.down("eth2")

	var all []hostInterface
	var addrs []netip.Addr
	alice.must("list", alice.do(func() (err error) {
		if all, err = hostInterfaces(); err != nil {
			return err
		}
		addrs, err = localAddrs()
		return err
	}))
	by := map[string]hostInterface{}
	for _, i := range all {
		by[i.Name] = i
	}
	for _, want := range []struct {
		name                  string
		up, carrier, ethernet bool
		fault                 string
	}{
		{"lo", true, true, false, ""},
		{"eth0", true, true, true, ""},
		{"eth1", true, false, true, "no carrier on eth1: check its cable and the switch port"},
		{"eth2", false, false, true, "eth2 is down: ip link set eth2 up"},
	} {
		i := by[want.name]
		fault := ""
		if err := i.fault(); err != nil {
			fault = err.Error()
		}
		if i.Up != want.up || i.Carrier != want.carrier || i.Ethernet != want.ethernet || fault != want.fault {
			t.Errorf("%s: %+v, %q", want.name, i, fault)
		}
	}
	eth0 := by["eth0"]
	if eth0.Index != alice.link("eth0").Attrs().Index || eth0.MAC != alice.mac("eth0") {
		t.Errorf("eth0: %+v", eth0)
	}
	for _, want := range []string{"192.168.10.11/24", "2001:db8::11/64"} {
		if !slices.Contains(eth0.Addresses, netip.MustParsePrefix(want)) {
			t.Errorf("eth0 has %v, not %s", eth0.Addresses, want)
		}
	}
	for _, want := range []string{"127.0.0.1", "::1", "192.168.10.11", "2001:db8::11"} {
		if !slices.Contains(addrs, netip.MustParseAddr(want)) {
			t.Errorf("local: %v, not %s", addrs, want)
		}
	}
}

func TestAsInterface(t *testing.T) {
	for _, c := range []struct {
		flags uint32
		state netlink.LinkOperState
		want  bool
	}{
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperUp, true},
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperUnknown, true}, // drivers that say no more: tun, dummy
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperDown, true},    // just came up
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperLowerLayerDown, false},
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperDormant, false},
		{unix.IFF_UP, netlink.OperUp, false},
		{unix.IFF_LOWER_UP, netlink.OperUp, false},
	} {
		if got := asInterface(&netlink.LinkAttrs{RawFlags: c.flags, OperState: c.state}).Carrier; got != c.want {
			t.Errorf("flags %#x, %s: carrier %v", c.flags, c.state, got)
		}
	}
}

func TestDump(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		fails []error
		want  error
		calls int
	}{
		{"well", []error{nil}, nil, 1},
		{"changed meanwhile", []error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, nil, 3},
		{"broken", []error{netlink.ErrDumpInterrupted, broken}, broken, 2},
		{"never still", slices.Repeat([]error{netlink.ErrDumpInterrupted}, 2*dumpTries), netlink.ErrDumpInterrupted, dumpTries},
	} {
		calls := 0
		l, err := dump(func() ([]int, error) { calls++; return []int{calls}, c.fails[calls-1] })
		if !errors.Is(err, c.want) || calls != c.calls || l[0] != calls {
			t.Errorf("%s: %v %v after %d calls", c.name, l, err, calls)
		}
	}
}

// fakeEvents is a subscription that breaks on demand.
type fakeEvents struct {
	events chan error // nil: something happened
	closed chan struct{}
}

func (f *fakeEvents) Receive() error {
	select {
	case err := <-f.events:
		return err
	case <-f.closed:
		return errors.New("closed")
	}
}

func (f *fakeEvents) Close() { close(f.closed) }

// TestRouteEventsResubscribe: whatever breaks the subscription, there is a new one and a look after it; only other
// reasons than lost events are worth a pause.
func TestRouteEventsResubscribe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	opened := make(chan *fakeEvents)
	opens := 0
	e := routeEvents{log: quietLog(), pause: time.Millisecond, open: func() (eventSource, error) {
		if opens++; opens == 3 {
			return nil, unix.EMFILE
		}
		f := &fakeEvents{make(chan error), make(chan struct{})}
		opened <- f
		return f, nil
	}}
	looks := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.run(ctx, func() { looks <- struct{}{} })
	}()
	f := <-opened
	<-looks
	f.events <- nil
	<-looks
	f.events <- unix.ENOBUFS
	second := <-opened
	<-f.closed
	<-looks
	second.events <- errors.New("odd message") // the third opening fails
	fourth := <-opened
	<-second.closed
	<-looks
	cancel()
	<-done
	<-fourth.closed
	if opens != 4 {
		t.Errorf("opened %d times", opens)
	}
}

// TestRouteEventsLost overruns a real subscription, and the look after it comes.
func TestRouteEventsLost(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	ctx, cancel := context.WithCancel(context.Background())
	var opens, looks atomic.Int32
	stalled, goOn := make(chan struct{}), make(chan struct{})
	e := routeEvents{log: quietLog(), pause: time.Hour, open: func() (src eventSource, err error) {
		opens.Add(1)
		err = alice.do(func() error {
			src, err = openRouteEvents()
			return err
		})
		if err == nil {
			err = src.(routeSocket).SetReceiveBufferSize(1, false) // the kernel's least
		}
		return slowEvents{src, stalled, goOn}, err
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.run(ctx, func() { looks.Add(1) })
	}()
	await(t, "the first look", func() bool { return looks.Load() > 0 })
	alice.add("eth0", "192.168.10.1/32")
	<-stalled
	for i := range 100 {
		alice.add("eth0", netip.AddrFrom4([4]byte{192, 168, 20, byte(i)}).String()+"/32")
	}
	before := looks.Load()
	close(goOn)
	await(t, "a new subscription", func() bool { return opens.Load() == 2 })
	await(t, "a look after it", func() bool { return looks.Load() > before })
	cancel()
	<-done
}

// slowEvents holds the reader up after its first event.
type slowEvents struct {
	eventSource
	stalled, goOn chan struct{}
}

func (s slowEvents) Receive() error {
	err := s.eventSource.Receive()
	select {
	case s.stalled <- struct{}{}:
		<-s.goOn
	case <-s.goOn:
	}
	return err
}

func TestWatchLinks(t *testing.T) {
	lan := newTestLAN(t)
	alice := lan.host("alice")
	ctx, cancel := context.WithCancel(context.Background())
	changed := make(chan []hostInterface, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := alice.do(func() error {
			watchLinks(ctx, quietLog(), func() {
				all, err := hostInterfaces()
				if err != nil {
					t.Error(err)
				}
				changed <- all
			})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}()
	saw := func(what string, is func(hostInterface) bool) {
		t.Helper()
		for end := time.After(testPatience); ; {
			select {
			case all := <-changed:
				if slices.ContainsFunc(all, func(i hostInterface) bool { return i.Name == "eth0" && is(i) }) {
					return
				}
			case <-end:
				t.Fatalf("never seen: %s", what)
			}
		}
	}
	p := netip.MustParsePrefix("192.168.10.11/24")
	saw("the beginning", func(i hostInterface) bool { return i.Carrier })
	alice.add("eth0", p.String())
	saw("an address", func(i hostInterface) bool { return slices.Contains(i.Addresses, p) })
	alice.del("eth0", p.String())
	saw("no address", func(i hostInterface) bool { return !slices.Contains(i.Addresses, p) })
	lan.hub.down(lan.port(alice, "eth0"))
	saw("no carrier", func(i hostInterface) bool { return !i.Carrier })
	cancel()
	<-done
}
