// How does one link keep its sockets alive? A goroutine for each link looks at its interface, opens the sockets when it
// is there, and opens them again when the interface or its address has come back. Trouble here is counted, told once,
// and never ends anything: a link that is dead today may be plugged in tomorrow.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A link is looked at when the kernel says that an interface or address has changed. Beside that, lookEvery is how soon it is
// tried again to open sockets that could not be, and lookAgain how soon a change is found that the kernel did not tell. They
// bound healing, not detection: peers notice by deadtime.
const (
	lookEvery = 500 * time.Millisecond
	lookAgain = 10 * time.Second
)

// States of a link.
const (
	linkUp        = "up"
	linkNoCarrier = "no carrier"
	linkMissing   = "missing"
)

// Event ids of links.
const (
	eventLinkMissing   = "link-missing"
	eventLinkNoCarrier = "link-no-carrier"
	eventLinkNoAddress = "link-no-address"
	eventLinkUp        = "link-up"
	eventLinkSocket    = "link-socket"
	eventLinkSend      = "link-send"
	eventLinkSendAgain = "link-send-again"
)

// linkPlan is what the config says about one link, as seen by one node.
type linkPlan struct {
	name      string
	device    string
	own       netip.AddrPort
	multicast netip.AddrPort            // not valid: unicast
	peers     map[string]netip.AddrPort // the other nodes that are on this link
}

func planLink(cfg *Config, l LinkConfig, self string) (linkPlan, error) {
	p := linkPlan{name: l.Name, device: l.Interface, peers: make(map[string]netip.AddrPort)}
	for _, node := range cfg.Nodes {
		text := node.on(l.Name)
		if text == "" {
			continue
		}
		addr, err := linkAddr(text, l.Interface, cfg.Heartbeat.Port)
		if err != nil {
			return p, fmt.Errorf("link %s: address of %s: %w", l.Name, node.Name, err)
		}
		if node.Name == self {
			p.own = addr
		} else {
			p.peers[node.Name] = addr
		}
	}
	if l.Multicast != "" {
		var err error
		if p.multicast, err = linkAddr(l.Multicast, l.Interface, cfg.Heartbeat.Port); err != nil {
			return p, fmt.Errorf("link %s: multicast: %w", l.Name, err)
		}
		if !p.multicast.Addr().IsMulticast() || p.multicast.Addr().Is4() != p.own.Addr().Is4() {
			return p, fmt.Errorf("link %s: multicast: %s is no multicast address of the same family as %s",
				l.Name, p.multicast.Addr(), p.own.Addr())
		}
	}
	return p, nil
}

// linkAddr adds the interface to addresses that mean nothing without it.
func linkAddr(text, device string, port int) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a = a.Unmap()
	if a.IsLinkLocalUnicast() && a.Is6() || a.IsLinkLocalMulticast() && a.Is6() {
		a = a.WithZone(device)
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// link is a link with its sockets, if it has any at the moment.
type link struct {
	n        *network
	plan     linkPlan
	peers    map[string]netip.AddrPort // as in plan; guarded by n.mu
	everyone []netip.AddrPort          // whom a heartbeat goes to; guarded by n.mu
	quit     chan struct{}
	changed  chan struct{}   // look again; holds one
	started  bool            // guarded by n.mu
	kernel   *netlink.Handle // of the one goroutine that looks; nil: none open
	unsure   bool            // its: the kernel could not say

	counts linkCounts

	mu     sync.Mutex
	index  int             // of the interface that the sockets are for
	opened int             // how often sockets were opened: streams from before may lead nowhere
	out    syscall.RawConn // the unicast socket; nil: none open
	files  []interface{ Close() error }
	state  linkState
	broken string // why sending fails; "": it does not
}

type linkCounts struct {
	sent, sendErrors, full, received, refused, readErrors atomic.Uint64
}

// linkState is what was seen of the interface.
type linkState struct {
	Name, Interface string
	State           string // link*
	Detail          string // what to look at, if something is wrong
}

func newLink(n *network, p linkPlan) *link {
	l := &link{n: n, plan: p, quit: make(chan struct{}), changed: make(chan struct{}, 1), state: linkState{Name: p.name, Interface: p.device}}
	l.setPlan(p)
	return l
}

// samePlace is whether sockets for l serve the plan as well.
func (l *link) samePlace(p linkPlan) bool {
	return l.plan.name == p.name && l.plan.device == p.device && l.plan.own == p.own && l.plan.multicast == p.multicast
}

// setPlan takes up the peers. The caller holds n.mu.
func (l *link) setPlan(p linkPlan) {
	l.peers = p.peers
	if p.multicast.IsValid() {
		l.everyone = []netip.AddrPort{p.multicast}
		return
	}
	l.everyone = nil
	for _, name := range slices.Sorted(maps.Keys(p.peers)) {
		l.everyone = append(l.everyone, p.peers[name])
	}
}

// start looks at the interface once before it returns, so that what is there is in use at once. The caller holds n.mu.
func (l *link) start() {
	if l.started {
		return
	}
	l.started = true
	last := l.look(sighting{})
	l.n.running.Go(func() {
		again := time.NewTimer(l.patience(last))
		defer again.Stop()
		for {
			select {
			case <-l.quit:
				l.hangUp()
				return
			case <-l.changed:
			case <-again.C:
			}
			last = l.look(last)
			again.Reset(l.patience(last))
		}
	})
}

// stop closes the sockets; their goroutines end by that. The caller holds n.mu.
func (l *link) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.quit)
	l.shut()
}

// sighting is what must stay the same for sockets to go on working.
type sighting struct {
	index   int // 0: no such interface
	up      bool
	address bool // own address is on it
	open    bool // sockets are open
}

// patience is for how long nothing is expected to happen that the kernel does not tell.
func (l *link) patience(s sighting) time.Duration {
	if l.unsure || s.index != 0 && !s.open {
		return lookEvery
	}
	return lookAgain
}

// look reads the interface, and opens sockets anew when it is not the one that they were opened for, when it has been
// set up again, or when the address has come back (multicast memberships may have gone with it).
func (l *link) look(last sighting) sighting {
	now, state := l.see(last)
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.quit:
		return last
	default:
	}
	l.tell(state)
	now.open = last.open
	if now == last && (now.open || now.index == 0) {
		return now
	}
	l.shut()
	if now.open = false; now.index == 0 {
		return now
	}
	if err := l.open(now.index); err != nil {
		l.shut()
		if last.open || last.index != now.index {
			l.n.log.Warn("cannot open the sockets of a link; trying again", "event", eventLinkSocket,
				"link", l.plan.name, "interface", l.plan.device, "error", err)
		}
		return now
	}
	now.open = true
	return now
}

// see reads the interface. When the kernel cannot say, nothing has changed.
func (l *link) see(last sighting) (sighting, linkState) {
	s := linkState{Name: l.plan.name, Interface: l.plan.device, State: linkMissing}
	l.unsure = true
	h, err := l.ask()
	if err != nil {
		return last, l.seen()
	}
	dev, err := h.LinkByName(l.plan.device)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) || errors.Is(err, unix.ENODEV) {
		l.unsure = false
		s.Detail = "there is no interface " + l.plan.device
		return sighting{}, s
	}
	if err != nil {
		l.hangUp()
		return last, l.seen()
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(dev, netlink.FAMILY_ALL) })
	if err != nil {
		l.hangUp()
		return last, l.seen()
	}
	l.unsure = false
	attrs, own := dev.Attrs(), l.plan.own.Addr().WithZone("")
	now := sighting{index: attrs.Index, up: attrs.Flags&net.FlagUp != 0}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		// On lo every address of a prefix is the host's own.
		within := attrs.Flags&net.FlagLoopback != 0 && a.Contains(own.AsSlice())
		now.address = now.address || ip.Unmap() == own || within
	}
	switch {
	case !now.up:
		s.State, s.Detail = linkNoCarrier, fmt.Sprintf("%s is set down: ip link set %s up", s.Interface, s.Interface)
	case attrs.RawFlags&unix.IFF_LOWER_UP == 0:
		s.State, s.Detail = linkNoCarrier, fmt.Sprintf("%s has no carrier: look at its cable and switch", s.Interface)
	case !now.address:
		s.State, s.Detail = linkUp, fmt.Sprintf("address %s is not on %s", own, s.Interface)
	default:
		s.State = linkUp
	}
	return now, s
}

// ask is the socket over which the kernel is asked; it stays open, since that is done all the time.
func (l *link) ask() (*netlink.Handle, error) {
	if l.kernel == nil {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return nil, err
		}
		l.kernel = h
	}
	return l.kernel, nil
}

// hangUp closes it: the next question opens another.
func (l *link) hangUp() {
	if l.kernel != nil {
		l.kernel.Close()
		l.kernel = nil
	}
}

// tell logs a change of the link's state. The caller holds l.mu.
func (l *link) tell(s linkState) {
	old := l.state
	l.state = s
	if old == s {
		return
	}
	attrs := []any{"link", s.Name, "interface", s.Interface, "detail", s.Detail}
	switch {
	case s.State == linkMissing && old.State != linkMissing:
		l.n.log.Warn("interface of a link is missing; waiting for it", append(attrs, "event", eventLinkMissing)...)
	case s.State == linkMissing: // only the words have changed
	case s.State == linkUp && s.Detail != "":
		l.n.log.Warn("own address of a link is missing", append(attrs, "event", eventLinkNoAddress)...)
	case s.Detail != "":
		l.n.log.Warn("link is not working", append(attrs, "event", eventLinkNoCarrier)...)
	default:
		l.n.log.Info("link is up", "event", eventLinkUp, "link", s.Name, "interface", s.Interface)
	}
}

// shut closes the sockets. The caller holds l.mu.
func (l *link) shut() {
	for _, f := range l.files {
		f.Close()
	}
	l.files, l.out = nil, nil
}

// open opens the link's sockets: one at the own address for all that is sent and for what comes to it alone, one at the
// group's address if there is a group, and a listener for streams. The caller holds l.mu.
func (l *link) open(index int) error {
	l.index = index
	l.opened++
	conn, err := l.listenPacket(l.plan.own, l.sendsOn)
	if err != nil {
		return err
	}
	conns := []syscall.RawConn{conn}
	if l.plan.multicast.IsValid() {
		group, err := l.listenPacket(l.plan.multicast, l.joins)
		if err != nil {
			return err
		}
		conns = append(conns, group)
	}
	listener, err := l.listenStream()
	if err != nil {
		return err
	}
	l.out = conn
	for _, c := range conns {
		l.n.running.Go(func() { l.read(c) })
	}
	l.n.running.Go(func() { l.n.accept(l, listener) })
	return nil
}

// listenPacket binds exactly the given address. The net package cannot: it turns a group's address into "everything",
// and then the socket would take datagrams from the one at the own address.
func (l *link) listenPacket(addr netip.AddrPort, options func(fd int) error) (syscall.RawConn, error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "udp")
	defer f.Close() // the connection has a copy
	if err := errors.Join(l.basics(fd), options(fd)); err != nil {
		return nil, err
	}
	at := sockaddrOf(addr, l.index)
	if err := bindTo(fd, &at); err != nil {
		return nil, fmt.Errorf("bind UDP %s: %w", addr, err)
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	l.files = append(l.files, c)
	return c.(*net.UDPConn).SyscallConn()
}

func (l *link) listenStream() (net.Listener, error) {
	lc := net.ListenConfig{Control: l.control}
	lc.SetMultipathTCP(false)
	listener, err := lc.Listen(context.Background(), "tcp", l.plan.own.String())
	if err != nil {
		return nil, err
	}
	l.files = append(l.files, listener)
	return listener, nil
}

// basics are what all sockets of a link have: they see only its interface, and they can be opened before the address is
// there.
func (l *link) basics(fd int) error {
	v4 := l.plan.own.Addr().Is4()
	return errors.Join(bindDevice(fd, l.plan.device), freeBind(fd, v4), onlyV6(fd, v4))
}

// control is basics for the net package's sockets.
func (l *link) control(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = l.basics(int(fd)) })
	return errors.Join(cerr, err)
}

func bindDevice(fd int, device string) error {
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
		return fmt.Errorf("bind to interface %s: %w", device, err)
	}
	return nil
}

func freeBind(fd int, v4 bool) error {
	if v4 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
}

func onlyV6(fd int, v4 bool) error {
	if v4 {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
}

// sendsOn: multicasts leave by this interface, reach no further than the next host, and do not come back.
func (l *link) sendsOn(fd int) error {
	if l.plan.own.Addr().Is4() {
		return errors.Join(
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(l.index)}),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0))
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, l.index),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0))
}

// joins the group. The port may be shared: another cluster on this host may use the same group.
func (l *link) joins(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	group := l.plan.multicast.Addr()
	var err error
	if group.Is4() {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(l.index)})
	} else {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(l.index)})
	}
	if err != nil {
		return fmt.Errorf("join multicast group %s on %s: %w", group, l.plan.device, err)
	}
	return nil
}

// read receives until the socket is closed.
func (l *link) read(c syscall.RawConn) {
	buf := make([]byte, 2048) // more than a datagram may have, so that a longer one does not pass for whole
	var size int
	var from sockaddr
	var err error
	once := func(fd uintptr) (done bool) {
		size, err = receiveDatagram(fd, buf, &from)
		return err != unix.EAGAIN
	}
	for {
		if closed := c.Read(once); closed != nil {
			err = closed
		}
		at := boottime()
		switch {
		case err == nil:
			l.n.receive(l, buf[:size], from.addr(), at)
		case errors.Is(err, net.ErrClosed):
			return
		default: // what the interface went through; the socket lives on
			l.counts.readErrors.Add(1)
			select {
			case <-l.quit:
				return
			case <-time.After(lookEvery / 10):
			}
		}
	}
}

// send never waits: a datagram that the kernel has no room for is dropped and counted, as a network would.
func (l *link) send(b []byte, to netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out == nil {
		return
	}
	var err error
	addr := sockaddrOf(to, l.index)
	if werr := l.out.Write(func(fd uintptr) bool {
		err = sendDatagram(fd, b, &addr)
		return true
	}); werr != nil {
		err = werr
	}
	switch {
	case err == nil:
		l.counts.sent.Add(1)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		l.counts.full.Add(1)
		return // a busy moment, no fault
	default:
		l.counts.sendErrors.Add(1)
	}
	l.tellSend(err, to)
}

// tellSend logs when sending begins to fail and when it works again. One peer's address may fail while another's does
// not, so it works again only for the address that failed. The caller holds l.mu.
func (l *link) tellSend(err error, to netip.AddrPort) {
	switch {
	case err != nil && l.broken == "":
		l.broken = to.String()
		l.n.log.Warn("cannot send on a link", "event", eventLinkSend, "link", l.plan.name,
			slog.String("to", l.broken), "error", err)
	case err == nil && l.broken == to.String():
		l.broken = ""
		l.n.log.Info("sending on a link works again", "event", eventLinkSendAgain, "link", l.plan.name)
	}
}

// openings tells whether the sockets are still those of before.
func (l *link) openings() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened
}
