// What if a power switch is part of it? A third of the simulated clusters has fence devices, which fail, hang, lie and come
// late, and sit in the machine itself, where they have no power when it has none. What is drawn for that has a source of
// chance of its own, so that it leaves the other clusters as they were.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// interestingPower is what a batch has to come to beside interesting.
var interestingPower = []string{eventFenceAsked, eventFenced, eventFenceFailed, eventFenceDropped, eventDeviceFailed, eventDeviceMended,
	"fenced by one of two", "a device lied", "a device without power"}

// drawFences gives the cluster of a seed its devices.
func (s *simRun) drawFences(c *clusterSetup) {
	if s.extra.IntN(3) != 0 {
		return
	}
	c.fenced, c.levels = true, s.extra.IntN(3) == 0
	s.onboard = s.kind != simDeath && s.extra.IntN(2) == 0
	if len(c.nodes) == 2 && s.extra.IntN(4) != 0 {
		i := slices.IndexFunc(c.cluster, func(l string) bool { return strings.HasPrefix(l, "two_node") })
		c.cluster[i] = "two_node = \"fence\"\n"
	}
}

// furnish is what the machines have from the beginning.
func (s *simRun) furnish() {
	for _, name := range s.devices() {
		if s.onboard && name != "pdu" {
			s.play("device " + name + " onboard")
		}
	}
}

func (s *simRun) devices() (names []string) {
	for i := range s.w.config.Fences {
		names = append(names, s.w.config.Fences[i].Name)
	}
	return names
}

// powerFault is a fault of this kind, in place of another; false: there is none.
func (s *simRun) powerFault() bool {
	if !s.setup.fenced || s.extra.IntN(2) != 0 {
		return false
	}
	switch s.extra.IntN(8) {
	case 0, 1, 2:
		s.badDevice()
	case 3:
		names := s.w.config.fullNodes()
		s.play(fmt.Sprintf("ask %s fence %s force", s.extraOne(), names[s.extra.IntN(len(names))]))
	default: // whoever was cut off is switched on again
		for _, m := range s.w.hosts {
			if !m.power {
				return s.play("boot " + m.name)
			}
		}
		s.apart()
	}
	return true
}

func (s *simRun) extraOne() string { return s.w.hosts[s.extra.IntN(len(s.w.hosts))].name }

// extraTime is a length of time around that in which a cluster notices something.
func (s *simRun) extraTime() time.Duration {
	d := s.deadtime()
	return (d/2 + time.Duration(s.extra.Int64N(int64(6*d)))).Round(time.Millisecond)
}

func (s *simRun) badDevice() {
	names := s.devices()
	name := names[s.extra.IntN(len(names))]
	how := []string{"fails", "fails", "hangs", "hangs", "lies", "lies", "late", "false"}[s.extra.IntN(8)]
	switch {
	case how == "late":
		how += " " + s.extraTime().String()
	case how != "false" && s.extra.IntN(2) == 0:
		how += " from " + s.extraOne()
	}
	owner := s.owner()
	if owner != "" && s.extra.IntN(3) != 0 {
		name = "ipmi-" + owner
	}
	s.play("device " + name + " " + how)
	s.later(s.extraTime()+s.extraTime(), "device %s mended", name)
	if name != "ipmi-"+owner {
		return
	}
	switch d := s.extraTime(); s.extra.IntN(4) { // it is needed now
	case 0:
		s.play("crash " + owner)
		s.later(3*d, "boot %s", owner)
	case 1:
		s.play(fmt.Sprintf("pause %s %s", owner, d))
	case 2:
		s.play("cut " + owner + " " + s.others(owner))
		s.later(d, "heal %s", owner)
	}
}

// apart: none hears another, and all devices can be reached: who cuts off whom?
func (s *simRun) apart() {
	for _, m := range s.w.hosts {
		s.play("cut " + m.name + " " + s.others(m.name))
	}
	s.later(s.extraTime(), "heal")
}

// mendDevices is a part of the repair.
func (s *simRun) mendDevices() {
	for _, name := range s.devices() {
		s.play("device " + name + " mended")
	}
}

// fencedOver: where a device that works confirms that a dead owner is off, its data are taken over without waiting for its
// next boot.
func (s *simRun) fencedOver() {
	if !s.setup.fenced {
		return
	}
	c := s.w.config
	limit := c.Heartbeat.Deadtime.D()*10/9 + c.electionMax() + 2*c.Heartbeat.Interval.D() + 2*fenceTakes + 1200*time.Millisecond
	for _, x := range s.w.lan.clients {
		if g := c.group(x.group); g.class() != classStateful {
			continue
		}
		for _, d := range x.outages {
			if d > limit {
				s.fail("the death of a machine took the data of %s away for %s, and it was fenced: at most %s were promised", x.group, d, limit)
			}
		}
	}
}

// fenceTruth: a fence counts as confirmed only if a device has said that this boot of the machine is off, or a later one, and what a device
// has said is true unless that device lies.
func (c *worldChecks) fenceTruth(l *life) {
	s := l.node.state
	for i := range s.Fences {
		f := &s.Fences[i]
		m := c.w.host(f.Node)
		if f.Phase != fenceConfirmed || m == nil {
			continue
		}
		boot := 0
		if _, err := fmt.Sscanf(f.Boot, m.name+"-boot-%d", &boot); err != nil || boot > m.saidOff {
			c.fail("%s counts %s as fenced, and no device has said that it is off", l.m.name, f.Node)
		}
		if m.power && m.bootID() == f.Boot {
			if m.lied != f.Boot {
				c.fail("%s counts %s as fenced, and it is on", l.m.name, f.Node)
			}
			m.liedIn = s.Incarnation.ID
		}
	}
	for _, m := range c.w.hosts { // it is over when it has joined anew and stopped what was given to others
		if x := s.node(m.name); m.lied != "" && m != l.m && m.liedIn != 0 && (s.Incarnation.ID == m.liedIn || descendsFrom(s.Incarnation.Ancestors, m.liedIn)) && s.fence(m.name) == nil && x != nil && x.Joined &&
			!slices.ContainsFunc(m.wares, func(x *ware) bool { g := s.group(x.group); return x.present && (g == nil || g.Owner != m.name) }) {
			m.lied, m.liedIn = "", 0
		}
	}
}

// misjudged: a device has said that the machine is off, so the others may do what only its end would allow. Two owners, two
// addresses, two mounts, a lost write and a start beside what still runs are what a lying device can bring about for what was on this
// machine, until it has joined those who believe it and stopped that, and for nothing else.
func (m *machine) misjudged() bool { return m.power && m.lied == m.bootID() }
