// Until when may the address answer? What the node says goes to the kernel's gate at once, without waiting for an
// operation on the address. Where there is no gate the address has a lifetime, which is renewed with each grant: the
// kernel takes it away when nobody renews it, in whole seconds.

package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
)

// vipLease is what stands between the node's word and the kernel. Its lock is apart from the vip's, which is held over
// whole operations.
type vipLease struct {
	told     bool
	until    instant // what the node said last
	shut     bool    // suspended
	gate     *gated  // its place there; nil: none
	loose    bool    // the gate may not be there any more
	renewing bool    // a renewal of the lifetime waits for its turn
}

// Lease moves the end of what the address may do. It waits for nothing: the loop calls it.
func (v *vip) Lease(until instant) {
	v.leaseMu.Lock()
	defer v.leaseMu.Unlock()
	v.lease.told, v.lease.until = true, until
	v.moveGate()
	if v.gates != nil && !v.lease.holds() && !v.lease.renewing {
		v.lease.renewing = true
		go v.renew()
	}
}

// holds tells whether the kernel looks at the address's packets.
func (l vipLease) holds() bool { return l.gate != nil && !l.loose }

// moveGate is called with leaseMu held.
func (v *vip) moveGate() {
	l := &v.lease
	if l.gate == nil || !l.told && !l.shut {
		return // a restarted daemon that has not been told: what the kernel has stands
	}
	until := l.until
	if l.shut {
		until = 0
	}
	if err := l.gate.move(until); err != nil {
		v.log.Error("cannot move the deadline of the address", "event", "gate-failed", "err", err)
	}
}

// setShut shuts the gate, or lets the deadline decide again.
func (v *vip) setShut(shut bool) {
	v.leaseMu.Lock()
	defer v.leaseMu.Unlock()
	v.lease.shut = shut
	v.moveGate()
}

// leased is a copy.
func (v *vip) leased() vipLease {
	v.leaseMu.Lock()
	defer v.leaseMu.Unlock()
	return v.lease
}

// lapsed tells whether the address may not answer now, as far as the node has said.
func (v *vip) lapsed() bool { return v.gates != nil && v.leased().until <= boottime() }

// guard puts the address into the gate of its link, with its deadline, or makes sure that it is still there. With mu held.
func (v *vip) guard() {
	if v.gates == nil {
		return
	}
	gate, mended, err := v.leased().gate, false, error(nil)
	if gate == nil {
		gate, err = v.gates.take(v.iface, v.prefix.Addr())
	} else {
		mended, err = gate.hold()
	}
	v.leaseMu.Lock()
	v.lease.gate, v.lease.loose = gate, err != nil
	v.moveGate()
	v.leaseMu.Unlock()
	switch {
	case err == nil && mended:
		v.log.Warn("the gate of the address was removed by somebody else, and is back", "event", "gate-lost")
	case err != nil && v.gateless != err.Error():
		v.log.Error("no gate in the kernel for the address: it has a lifetime of whole seconds instead", "event", "gate-missing", "err", err)
	}
	v.gateless = ""
	if err != nil {
		v.gateless = err.Error()
	}
}

// leave gives the place in the gate up, once the address is gone. With mu held.
func (v *vip) leave() error {
	v.leaseMu.Lock()
	gate := v.lease.gate
	v.lease.gate, v.lease.loose, v.lease.shut = nil, false, false
	v.leaseMu.Unlock()
	if gate == nil {
		return nil
	}
	return gate.end()
}

// forever is an address's lifetime without an end, as netlink has it.
const forever = math.MaxUint32

// lifetime is how long the address may be there without being renewed, in seconds.
func (v *vip) lifetime() uint32 {
	l := v.leased()
	if v.gates == nil || l.holds() || l.until == openForGood {
		return forever
	}
	return lifetimeFor(l.until.sub(boottime()))
}

// lifetimeFor rounds up: an address must not go before its time.
func lifetimeFor(left time.Duration) uint32 {
	return uint32(max(1, (left+time.Second-1)/time.Second))
}

// renewEvery is how often a lifetime is renewed at most: each renewal is told to everybody who watches addresses.
const renewEvery = 250 * time.Millisecond

// renew gives the address its lifetime anew, if it is there and has one.
func (v *vip) renew() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leaseMu.Lock()
	v.lease.renewing = false
	l := v.lease
	v.leaseMu.Unlock()
	now := boottime()
	if l.holds() || !v.active || v.suspended || l.until <= now || now.sub(v.renewed) < renewEvery {
		return
	}
	v.renewed = now
	if err := v.keep(); err != nil {
		v.log.Error("cannot renew the lifetime of the address", "event", "gate-failed", "err", err)
	}
}

// keep gives an address that is there its lifetime. With mu held.
func (v *vip) keep() error {
	return v.place.netlink(func(h *netlink.Handle) error {
		s, err := findAddress(h, v.iface, v.prefix.Addr())
		if err != nil || !s.present() {
			return err
		}
		p, _ := addrPrefix(s.here[0])
		return keepAddress(h, s.link.Index, p, v.lifetime())
	})
}

// hold makes sure that whatever enforces the end of the lease is in place for an address that is there: after a restart
// of the daemon too, or when somebody has taken the gate away. With mu held.
func (v *vip) hold(s whereabouts) error {
	if v.gates == nil || !s.present() {
		return nil
	}
	v.guard()
	if v.lifetime() == forever && s.here[0].ValidLft != forever {
		return v.keep()
	}
	return nil
}

// Status says what holds the end of the address's lease.
func (v *vip) Status(context.Context) (string, error) {
	where := fmt.Sprintf("%s on %s", v.prefix.Addr(), v.iface)
	l := v.leased()
	switch {
	case l.loose:
		return where + ", without a gate", nil
	case l.gate == nil: // not here
		return "", nil
	}
	until, err := l.gate.deadline()
	switch {
	case err != nil:
		return "", err
	case until == openForGood:
		return where + ", its gate is open for good", nil
	case until <= boottime():
		return where + ", its gate is shut", nil
	}
	return where + ", its gate is open", nil
}
