// What do fence devices really do? They cut the power of a machine, whatever its daemon is doing, or fail, hang, lie and
// come late as a story says. They are the fencer of each daemon; what they are told goes over no network of the cluster.

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// worldDevice is a device that does not do as it should.
type worldDevice struct {
	name string
	from string // only when this node calls it; "": whoever does
	// works; fails; hangs; lies: says that off went well, and does nothing; late: does not answer, and acts after delay;
	// false: says off of what is on; onboard: works while there is power at all where the machine is
	how   string
	delay time.Duration
}

// worldFence is a call that runs.
type worldFence struct {
	s     fenceStep
	said  string
	ended bool
}

// fenceTakes is how long a device needs for off, a quarter more at most.
const fenceTakes = 400 * time.Millisecond

// says is the device's word about the machine as it is now, or was last.
func (w *world) says(call *worldFence, m *machine, power string) {
	call.said = power
	if power == "on" {
		return
	}
	m.saidOff = max(m.saidOff, m.boot)
	if m.power {
		m.lied = m.bootID()
		w.checks.meet("a device lied")
	}
}

func (w *world) device(name, from string) worldDevice {
	for _, d := range w.power {
		if d.name == name && (d.from == "" || d.from == from) {
			return *d
		}
	}
	return worldDevice{name: name, how: "works"}
}

// onboard tells whether the device has the power of the machine that it switches.
func (w *world) onboard(name string) bool {
	return slices.ContainsFunc(w.power, func(d *worldDevice) bool { return d.name == name && d.how == "onboard" })
}

// device NAME works|fails|hangs|lies|false|onboard [from NODE], or NAME late DURATION, or NAME mended
func (s *story) device(f []string) error {
	d := &worldDevice{name: f[1], how: f[2]}
	switch {
	case d.how == "mended":
		s.w.power = slices.DeleteFunc(s.w.power, func(x *worldDevice) bool { return x.name == d.name && x.how != "onboard" })
		return nil
	case !slices.Contains([]string{"works", "fails", "hangs", "lies", "late", "false", "onboard"}, d.how):
		return fmt.Errorf("no such device")
	case d.how == "late":
		var err error
		if d.delay, err = time.ParseDuration(f[3]); err != nil {
			return err
		}
	case len(f) == 5 && f[3] == "from":
		d.from = f[4]
	}
	s.w.power = append([]*worldDevice{d}, s.w.power...)
	return nil
}

// Fence is the fencer of the daemon.
func (l *life) Fence(s fenceStep) {
	l.w.mark(s.Action, l.m.name+s.Device.Name+s.Node, s.ID)
	device := l.w.device(s.Device.Name, l.m.name)
	call := &worldFence{s: s}
	l.fences = append(l.fences, call)
	takes := 50 * time.Millisecond
	if s.Action == fenceOff {
		takes = fenceTakes
		l.w.checks.fences(l, s)
	}
	takes += time.Duration(l.w.chance.act.Int64N(int64(takes) / 4))
	target := l.w.host(cmp.Or(s.Node, s.Device.Node))
	silent := target != nil && target.unplugged && l.w.onboard(s.Device.Name)
	if silent {
		l.w.checks.meet("a device without power")
	}
	switch {
	case silent:
		l.w.after(takes, func() { l.fenceEnds(call, "", "no route to host") })
	case device.how == "hangs" || device.how == "late":
		l.w.after(s.Timeout, func() { l.fenceEnds(call, "", "not done after "+s.Timeout.String()) })
	case device.how == "fails":
		l.w.after(takes, func() { l.fenceEnds(call, "", "connection refused") })
	case s.Action == fenceStatus:
		l.w.after(takes, func() {
			l.w.says(call, target, map[bool]string{true: "on", false: "off"}[target.power && device.how != "false"])
			l.fenceEnds(call, call.said, "")
		})
	default:
		l.w.after(takes, func() { l.fenceEnds(call, "", "") })
	}
	if s.Action == fenceOff && !silent && (device.how == "works" || device.how == "onboard" || device.how == "late") {
		l.w.cutting++
		l.w.after(max(takes*3/4, device.delay), func() {
			l.w.cutting--
			if target.power {
				l.w.tell("%s cuts the power of %s", s.Device.Name, target.name)
				if len(l.w.hosts) == 2 {
					l.w.checks.meet("fenced by one of two")
				}
				target.powerOff()
			}
		})
	}
}

func (l *life) CancelFence(id uint64) {
	for _, call := range slices.Clone(l.fences) {
		if call.s.ID == id {
			l.w.after(time.Millisecond, func() { l.fenceEnds(call, "", "canceled") })
		}
	}
}

func (l *life) fenceEnds(call *worldFence, power, err string) {
	if call.ended {
		return
	}
	call.ended = true
	l.fences = slices.DeleteFunc(l.fences, func(c *worldFence) bool { return c == call })
	d := fenceDone{fenceStep: call.s, Power: power, Err: err, Took: 10 * time.Millisecond}
	l.enter(func(l *life) { l.node.FenceDone(l.m.now(), d) })
}

// fences is called when a node turns another off: who has not been joined since its boot may not.
func (c *worldChecks) fences(l *life, s fenceStep) {
	switch {
	case s.Node == l.m.name:
		c.fail("%s fences itself", l.m.name)
	case l.m.disk.joined != l.m.bootID():
		c.fail("%s fences %s and has not been joined since its boot", l.m.name, s.Node)
	}
}
