// Does another host still have the address? One question before it is taken; who answers it is named, and the start
// waits. It never takes the address itself.

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ask returns nil when the address may be taken: nobody answers, or one has answered for probe_timeout and the caller
// insists.
func (v *vip) ask(ctx context.Context, link hostInterface, hint startHint) error {
	ip := v.prefix.Addr()
	who, err := v.probe(ctx, link)
	if err != nil {
		return fmt.Errorf("ask %s who has %s: %w", v.iface, ip, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if who == (mac{}) {
		v.waiting = 0
		return nil
	}
	now := boottime()
	if v.waiting == 0 {
		v.waiting = now
	}
	left := v.probeTimeout - now.sub(v.waiting)
	if !hint.Insist {
		return &stateError{fmt.Sprintf("%s is answered by %s: waiting until it goes; find that host and remove the address there", ip, who), errWaiting}
	}
	if left > 0 {
		return &stateError{fmt.Sprintf("%s is answered by %s: waiting until it goes, at most %s more", ip, who, left.Round(time.Millisecond)), errWaiting}
	}
	v.log.Warn("taking the address although another host answers for it, as two_node = \"ignore\" says: find that host and remove the address there",
		"event", "vip-insist", "mac", who.String(), "waited", now.sub(v.waiting).String())
	return nil
}

// probe is the Ethernet address of the first other host that claims the address within probe_wait, zero if none does.
// That another host probes for it at the same time is no claim: two who only ask would wait for each other for good.
func (v *vip) probe(ctx context.Context, link hostInterface) (mac, error) {
	if !link.Ethernet {
		return mac{}, nil
	}
	ip := v.prefix.Addr()
	var p *packetSocket
	err := v.place.do(func() (err error) {
		p, err = openListener(link.Index, ip)
		return err
	})
	if err != nil {
		return mac{}, err
	}
	defer p.close()
	if err := p.send(probeFrame(link.MAC, ip)); err != nil {
		return mac{}, err
	}
	var who mac
	var ownErr error
	err = p.listen(ctx, time.Now().Add(v.probeWait), func(c claim) bool {
		if c.Addr != ip {
			return true
		}
		var own bool
		if own, ownErr = v.own(c.MAC); ownErr == nil && own {
			return true
		}
		who = c.MAC
		return false
	})
	if err == nil {
		err = ownErr
	}
	if err == nil {
		err = ctx.Err()
	}
	return who, err
}

// own says whether the Ethernet address is one of this host's: another port in the same network hears what this one
// says.
func (v *vip) own(m mac) (own bool, err error) {
	err = v.place.do(func() error {
		all, err := hostInterfaces()
		for _, i := range all {
			own = own || i.MAC == m
		}
		return err
	})
	return own, err
}

// claims follows who claims the address, this host's other ports included, until ctx ends or the interface goes.
func (v *vip) claims(ctx context.Context, got func(mac)) error {
	s, err := v.look()
	if err != nil {
		return err
	}
	if s.link.Index == 0 || !s.link.Ethernet {
		return unix.ENODEV
	}
	var p *packetSocket
	err = v.place.do(func() (err error) {
		p, err = openListener(s.link.Index, v.prefix.Addr())
		return err
	})
	if err != nil {
		return err
	}
	defer p.close()
	return p.listen(ctx, time.Time{}, func(c claim) bool {
		if c.Addr == v.prefix.Addr() {
			got(c.MAC)
		}
		return ctx.Err() == nil
	})
}
