// How does an address come to this host and leave it? The resource type vip: Start, Stop, Monitor, and the quick pair
// Suspend and Resume. It never decides who may have the address: it asks the network once before it takes it, and
// does what it is told. Asking is in vip_probe.go, telling in vip_announce.go, watching in vip_watch.go.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	defaultProbeWait    = 10 * time.Millisecond
	defaultProbeTimeout = 10 * time.Second
)

// vip is one address on one interface.
//
// The kernel knows until when the address may answer before it gets it (vip_gate.go), so Suspend leaves it where it is:
// it is silent already. Only where there is no gate the address goes.
//
// Suspend holds until Resume or Stop; a Start meanwhile is errWaiting, so that one which was already on its way when the
// lease ended adds nothing. Whoever suspends a group therefore resumes it when it has a lease again, or stops it.
// While it is suspended on purpose Monitor says running: the absence of the address is nobody's failure.
type vip struct {
	prefix       netip.Prefix // as configured: host bits are the address
	iface        string
	probeWait    time.Duration
	probeTimeout time.Duration
	log          *slog.Logger

	place netPlace        // nil but in tests
	burst []time.Duration // announceBurst but in tests
	slow  time.Duration

	mu        sync.Mutex
	active    bool   // started or adopted: the address shall be there, and is announced
	suspended bool   // shall not be there for now
	held      bool   // while suspended: Resume puts it back
	wells     uint64 // counts how often the caller was told that it is well, so that Watch tells a second loss from the first
	cancel    context.CancelFunc
	waiting   instant // when another host was first found to answer; 0: nobody was

	gates    *gates  // nil: nobody but the daemon ends a lease
	gateless string  // why the address has a lifetime instead
	renewed  instant // when it was last given one
	leaseMu  sync.Mutex
	lease    vipLease
}

var _ interface {
	resource
	watcher
	fitter
	suspender
	leaser
	statuser
} = (*vip)(nil)

func newVIP(c ResourceConfig, env resourceEnv) (resource, error) {
	p, err := parseVIPAddress(c.Address)
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", c.Name, err)
	}
	if c.Interface == "" {
		return nil, fmt.Errorf("resource %s: no interface: write interface = \"eth0\"", c.Name)
	}
	v := &vip{
		prefix: p, iface: c.Interface, probeWait: c.ProbeWait.D(), probeTimeout: c.ProbeTimeout.D(),
		burst: announceBurst, slow: announceSlow, gates: env.Gates,
	}
	if v.gates != nil {
		v.place = v.gates.place
	}
	if v.probeWait <= 0 {
		v.probeWait = defaultProbeWait
	}
	if v.probeTimeout <= 0 {
		v.probeTimeout = defaultProbeTimeout
	}
	log := env.Log
	if log == nil {
		log = slog.Default()
	}
	v.log = log.With("group", env.Group, "resource", c.Name, "address", v.prefix.Addr().String(), "interface", v.iface)
	return v, nil
}

// parseVIPAddress reads an address as written in the file; a bare one is alone in its network.
func parseVIPAddress(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, bare := netip.ParseAddr(s)
		if bare != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("address %q: expected one such as \"192.168.10.100\" or \"2001:db8::100/64\"", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return netip.Prefix{}, fmt.Errorf("address %q: expected one that other hosts can send to", s)
	}
	return p, nil
}

// stateError has a text of its own for the operator and says beside it what the failure means to the caller.
type stateError struct {
	text string
	kind error // errHopeless or errWaiting
}

func (e *stateError) Error() string { return e.text }
func (e *stateError) Unwrap() error { return e.kind }

func hopeless(format string, args ...any) error {
	return &stateError{fmt.Sprintf(format, args...), errHopeless}
}

// Start leaves the prefix length of an address that is there already as it is: it answers, and it could be one that the
// host was given by somebody else.
func (v *vip) Start(ctx context.Context, hint startHint) error {
	s, err := v.look()
	if err != nil {
		return err
	}
	if err := v.startable(s); err != nil {
		return err
	}
	if !s.present() && !hint.Clean && !hint.Restart {
		if err := v.ask(ctx, s.link, hint); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start %s: %w", v.prefix.Addr(), err)
	}
	if v.suspended || v.lapsed() {
		return &stateError{fmt.Sprintf("%s is suspended: waiting until this node has a lease for it", v.prefix.Addr()), errWaiting}
	}
	v.guard() // before the address, so that it never answers without
	if err := v.put(); err != nil {
		return err
	}
	v.waiting = 0
	v.activate()
	return nil
}

// activate is called with mu held once the address is there.
func (v *vip) activate() {
	v.active = true
	v.wells++
	v.announceBurst()
}

func (v *vip) look() (s whereabouts, err error) {
	err = v.place.netlink(func(h *netlink.Handle) error {
		s, err = findAddress(h, v.iface, v.prefix.Addr())
		return err
	})
	return s, err
}

// startable says why the address cannot be had here.
func (v *vip) startable(s whereabouts) error {
	switch fault := s.link.fault(); {
	case s.link.Index == 0:
		return hopeless("no interface %s on this host: see the names in ip link", v.iface)
	case fault != nil:
		return hopeless("%v", fault)
	case s.elsewhere != "":
		return hopeless("%s is on %s of this host, not on %s: ip address del it there", v.prefix.Addr(), s.elsewhere, v.iface)
	case v.prefix.Addr().Is6() && v.sysctl("disable_ipv6"):
		return hopeless("IPv6 is off on %s: sysctl net.ipv6.conf.%s.disable_ipv6=0", v.iface, v.iface)
	}
	return nil
}

// sysctl reads a switch of the interface's IPv6; what cannot be read is off.
func (v *vip) sysctl(name string) bool {
	var b []byte
	err := v.place.do(func() (err error) {
		b, err = os.ReadFile("/proc/sys/net/ipv6/conf/" + v.iface + "/" + name)
		return err
	})
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// put adds the address and reads it back. With mu held.
func (v *vip) put() error {
	ip := v.prefix.Addr()
	return v.place.netlink(func(h *netlink.Handle) error {
		s, err := findAddress(h, v.iface, ip)
		if err != nil {
			return err
		}
		if s.link.Index == 0 {
			return hopeless("no interface %s on this host: see the names in ip link", v.iface)
		}
		if s.sick() {
			if _, err := removeAddress(h, v.iface, ip); err != nil {
				return err
			}
			s.here = nil
		}
		if s.present() {
			p, _ := addrPrefix(s.here[0])
			if p != v.prefix {
				v.log.Warn("the address was there already with another prefix length: left as it is",
					"event", "vip-prefix", "there", p.String(), "configured", v.prefix.String())
			}
			if v.gates == nil {
				return nil
			}
			return keepAddress(h, s.link.Index, p, v.lifetime()) // it may be about to go
		}
		if err := addAddress(h, s.link.Index, v.prefix, v.lifetime()); err != nil {
			return fmt.Errorf("add %s to %s: %w", v.prefix, v.iface, explainAdd(err))
		}
		if s, err = findAddress(h, v.iface, ip); err != nil {
			return err
		}
		if !s.present() || s.sick() {
			return fmt.Errorf("add %s to %s: the kernel took it, but it is not there: find out what removes it (NetworkManager, systemd-networkd, keepalived)", v.prefix, v.iface)
		}
		return nil
	})
}

func explainAdd(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (needs CAP_NET_ADMIN)", err)
	}
	return err
}

// Stop removes the address whatever its prefix length is now.
func (v *vip) Stop(context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.active, v.suspended, v.held, v.waiting = false, false, false, 0
	v.silence()
	if err := v.remove(); err != nil {
		return err
	}
	return v.leave()
}

// remove has read back that the address is gone when it returns nil. With mu held.
func (v *vip) remove() error {
	return v.place.netlink(func(h *netlink.Handle) error {
		removed, err := removeAddress(h, v.iface, v.prefix.Addr())
		for _, p := range removed {
			if p != v.prefix {
				v.log.Warn("removed the address with another prefix length too, since it would have answered",
					"event", "vip-prefix", "there", p.String(), "configured", v.prefix.String())
			}
		}
		return err
	})
}

// Monitor looks at this host only. That another host answers too is for Watch.
func (v *vip) Monitor(context.Context) (condition, error) {
	v.mu.Lock() // all the way, so that Watch looks either before this or after it
	defer v.mu.Unlock()
	deliberate := v.suspended && v.held
	s, err := v.look()
	switch {
	case err != nil:
		return conditionUnknown, err
	case s.link.Index == 0 || !s.present() && !deliberate:
		return conditionStopped, nil
	}
	if fault := s.link.fault(); fault != nil {
		return conditionFailed, hopeless("%v", fault)
	}
	if err := v.hold(s); err != nil {
		return conditionUnknown, err
	}
	if s.sick() {
		return conditionFailed, fmt.Errorf("%s on %s does not answer: the kernel's duplicate address detection holds it back; it is added anew by the next start", v.prefix.Addr(), v.iface)
	}
	v.wells++
	return conditionRunning, nil
}

// Fit says whether this host could have the address now.
func (v *vip) Fit(context.Context) error {
	s, err := v.look()
	if err != nil {
		return err
	}
	return v.startable(s)
}

// Suspend silences the address at once and remembers that it was here.
func (v *vip) Suspend() error {
	v.setShut(true)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.suspended {
		v.held = v.active
		if !v.held {
			s, err := v.look()
			v.held = err == nil && s.present()
		}
	}
	v.suspended = true
	v.silence()
	if v.held && !v.leased().holds() {
		v.guard() // a restarted daemon has not looked yet
	}
	if v.leased().holds() {
		return nil
	}
	return v.remove()
}

// Resume lets the address answer again, puts it back where Suspend took it, and announces it.
func (v *vip) Resume() error {
	v.setShut(false)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.suspended {
		return nil
	}
	held := v.held
	v.suspended, v.held = false, false
	if !held {
		return nil
	}
	v.active = true // even if the address cannot be added: then it is missed, and Watch and Monitor say so
	v.guard()
	if err := v.put(); err != nil {
		return err
	}
	v.activate()
	return nil
}
