// What happens to the address while it is here? Somebody removes it, the carrier goes, another host claims it: each is
// told to the caller at once. It mends nothing but the gate, without which the end of a lease would be late: announcing the
// address slowly, and once more when it is disputed, changes nothing on this host.

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// disputeQuiet is the least time between two reports, or defences, of one dispute (RFC 5227's DEFEND_INTERVAL).
const disputeQuiet = 10 * time.Second

// watchRetry is how long a broken subscription rests before it is opened again.
const watchRetry = time.Second

// Watch also adopts an address that it finds: after a restart of the daemon nobody has called Start.
func (v *vip) Watch(ctx context.Context, changed func(reason string)) {
	if ctx.Err() != nil {
		return
	}
	if reason := v.adopt(); reason != "" {
		changed(reason)
	}
	var wg sync.WaitGroup
	wg.Go(func() { v.watchDisputes(ctx, changed) })
	wg.Go(func() { v.repeatSlowly(ctx) })
	w := vipWatch{v: v, changed: changed}
	open := func() (src eventSource, err error) {
		err = v.place.do(func() error {
			src, err = openRouteEvents()
			return err
		})
		return src, err
	}
	routeEvents{open: open, log: v.log, pause: watchRetry}.run(ctx, w.look)
	wg.Wait()
}

func (v *vip) adopt() (missing string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.active || v.suspended {
		return ""
	}
	s, err := v.look()
	switch {
	case err != nil:
		return err.Error()
	case !s.present():
		return "address is not there"
	}
	v.activate()
	return ""
}

// vipWatch remembers what was reported.
type vipWatch struct {
	v        *vip
	changed  func(string)
	reported string
	wells    uint64
}

// look reports a fault once, and again if the caller believes since that all is well: a short recovery that a monitor
// saw may have passed between two events.
func (w *vipWatch) look() {
	fault, wells := w.v.fault()
	if fault != "" && (fault != w.reported || wells != w.wells) {
		w.changed(fault)
	}
	w.reported, w.wells = fault, wells
}

// fault says what is wrong now with an address that shall be here, "" if nothing is.
func (v *vip) fault() (string, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.active || v.suspended {
		return "", v.wells
	}
	s, err := v.look()
	if err == nil && s.present() && v.leased().holds() {
		v.guard()
	}
	switch {
	case err != nil:
		return err.Error(), v.wells
	case s.link.Index == 0:
		return "interface " + v.iface + " is gone", v.wells
	case s.link.fault() != nil:
		return s.link.fault().Error(), v.wells
	case !s.present():
		return "address removed by somebody else", v.wells
	case s.sick():
		return "address replaced by somebody else", v.wells
	}
	return "", v.wells
}

func (v *vip) repeatSlowly(ctx context.Context) {
	t := time.NewTicker(v.slow)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			v.mu.Lock()
			v.announce()
			v.mu.Unlock()
		}
	}
}

// watchDisputes reports other hosts that claim the address, and answers them with an announcement, so that the
// neighbours go on sending here.
func (v *vip) watchDisputes(ctx context.Context, changed func(string)) {
	quiet := disputes{}
	for warned := false; ctx.Err() == nil; {
		err := v.claims(ctx, func(who mac) {
			if quiet.due(who, boottime()) {
				v.dispute(who, changed)
			}
		})
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETDOWN) && !warned && ctx.Err() == nil {
			warned = true
			v.log.Warn("cannot watch who else claims the address: trying again", "event", "vip-watch", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

// disputes are the hosts that claimed the address, and when that was last told.
type disputes map[mac]instant

// disputesMax bounds the hosts that are remembered: a flood of invented ones must fill neither memory nor log.
const disputesMax = 64

func (d disputes) due(who mac, now instant) bool {
	if at, seen := d[who]; seen && now.sub(at) < disputeQuiet {
		return false
	}
	if len(d) >= disputesMax {
		for m, at := range d {
			if now.sub(at) >= disputeQuiet {
				delete(d, m)
			}
		}
		if len(d) >= disputesMax {
			return false
		}
	}
	d[who] = now
	return true
}

func (v *vip) dispute(who mac, changed func(string)) {
	if own, err := v.own(who); err != nil || own {
		return
	}
	v.mu.Lock()
	ours := v.active && !v.suspended
	if ours {
		v.announce()
	}
	v.mu.Unlock()
	if !ours {
		return
	}
	v.log.Warn("another host claims the address too: find it and remove the address there",
		"event", "vip-dispute", "mac", who.String())
	changed("also answered by " + who.String())
}
