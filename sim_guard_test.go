// What if an operator changes DRBD's configuration while it runs? The options that keep an owner from writing alone go and come
// back: at any time, between a stop and the next start, and while the copies are apart. What is drawn for that has a source of
// chance of its own.

package main

import (
	"fmt"
	"strings"
	"time"
)

// interestingGuard is what a batch has to come to beside interesting.
var interestingGuard = []string{"guard dropped at rest", "guard dropped on a Secondary", "guard back while apart", "guard claimed anew"}

// unguarding are the options that end a guard, each with what it is otherwise.
var unguarding = [][3]string{
	{"fencing", "dont-care", "resource-and-stonith"}, {"fencing", "dont-care", "resource-and-stonith"},
	{"handler", handlerOther, handlerOurs}, {"handler", handlerNone, handlerOurs}, {"protocol", "A", "C"},
}

func (s *simRun) tuneTime(from, to time.Duration) time.Duration {
	return (from + time.Duration(s.tune.Int64N(int64(to-from)))).Round(time.Millisecond)
}

// guardFault is a fault of this kind, in place of another; false: there is none.
func (s *simRun) guardFault() bool {
	if len(s.w.drbds) == 0 || s.tune.IntN(3) != 0 {
		return false
	}
	d := s.w.drbds[s.tune.IntN(len(s.w.drbds))]
	side := d.sides[s.tune.IntN(2)]
	if p := side.peer(); p.ware() != nil {
		side = p
	}
	o := unguarding[s.tune.IntN(len(unguarding))]
	k := s.tune.IntN(5)
	atRest := k == 0 || side.ware() == nil
	if atRest && s.tune.IntN(3) == 0 {
		side = side.peer()
	}
	off := fmt.Sprintf("adjust %s %s %s on %s", d.name, o[0], o[1], side.m.name)
	on := fmt.Sprintf("adjust %s %s %s on %s", d.name, o[0], o[2], side.m.name)
	switch {
	case atRest:
		if s.play(off) {
			s.w.checks.meet("guard dropped at rest")
		}
		s.later(s.tuneTime(100*time.Millisecond, 10*time.Second), "%s", on)
	case k < 3:
		s.guardBetween(side, off)
		s.later(s.tuneTime(time.Second, 10*time.Second), "%s", on)
	default:
		s.guardApart(side, off, on)
	}
	return true
}

// guardBetween: it goes after a stop, so that nothing of the time before may count for the next start; and the owner goes as soon
// as it has started.
func (s *simRun) guardBetween(side *worldCopy, off string) {
	name, group := side.m.name, side.d.group
	s.play(fmt.Sprintf("ask %s standby %s", s.tuneOne(), name))
	if s.until(5*time.Second, func() bool { return side.ware() == nil }) && s.play(off) {
		s.w.checks.meet("guard dropped on a Secondary")
	}
	if s.tune.IntN(3) == 0 {
		s.goTo(s.w.now - s.begun + s.tuneTime(0, s.deadtime()))
	}
	s.play(fmt.Sprintf("ask %s online %s", s.tuneOne(), name))
	s.play(fmt.Sprintf("ask %s move %s %s", s.tuneOne(), group, name))
	s.later(s.tuneTime(s.deadtime(), 4*s.deadtime()), "ask %s unmove %s", s.tuneOne(), group)
	if !s.until(8*time.Second, func() bool { return side.ware() != nil }) {
		return
	}
	s.goTo(s.w.now - s.begun + s.tuneTime(0, s.deadtime()/2))
	s.outOfSight(name)
}

// guardApart: the copies lose each other while nothing is frozen, and the guard is back at that moment; the owner goes as soon as
// the cluster counts with it, or before.
func (s *simRun) guardApart(side *worldCopy, off, on string) {
	d, name := side.d, side.m.name
	s.play(off)
	s.until(5*time.Second, func() bool { return !side.claimed() })
	if s.tune.IntN(2) == 0 {
		s.play(fmt.Sprintf("loss %d%%", 15+s.tune.IntN(40)))
		s.later(s.tuneTime(2*time.Second, 6*time.Second), "loss 0%%")
	}
	s.play(fmt.Sprintf("cut %s %s on %s", name, side.peer().m.name, d.link()))
	s.later(s.tuneTime(2*s.deadtime(), 12*s.deadtime()), "heal")
	s.until(3*time.Second, func() bool { return !d.connected })
	if s.tune.IntN(3) == 0 {
		s.goTo(s.w.now - s.begun + s.tuneTime(0, 2*s.deadtime()))
	}
	if s.play(on) {
		s.w.checks.meet("guard back while apart")
	}
	if s.until(s.tuneTime(time.Second, 4*time.Second), side.claimed) {
		s.w.checks.meet("guard claimed anew")
	}
	s.outOfSight(name)
}

func (s *simRun) tuneOne() string { return s.w.hosts[s.tune.IntN(len(s.w.hosts))].name }

// outOfSight: nobody hears it, and it goes on, for as long as a takeover takes.
func (s *simRun) outOfSight(name string) {
	s.play("cut " + name + " " + s.others(name))
	s.later(s.tuneTime(2*s.deadtime(), 8*s.deadtime()), "heal")
	s.goTo(s.w.now - s.begun + s.tuneTime(s.deadtime(), 3*s.deadtime()))
}

// guardAgain is a part of the repair: some operators leave it as it is.
func (s *simRun) guardAgain() {
	for _, d := range s.w.drbds {
		for _, c := range d.sides {
			for _, o := range unguarding {
				if s.script == nil && s.tune.IntN(4) == 0 {
					continue
				}
				if o[0] != "fencing" || !strings.HasPrefix(d.name, unfenced) {
					s.play(fmt.Sprintf("adjust %s %s %s on %s", d.name, o[0], o[2], c.m.name))
				}
			}
		}
	}
}

// claims: at rest the cluster counts with the guards that are there, and with no others.
func (s *simRun) claims() {
	n := s.w.best()
	for _, d := range s.w.drbds {
		for _, c := range d.sides {
			want := c.ware() != nil && c.guards() && !n.config.twoVoters() && d.synced == 0
			if got := c.claimed(); got != want && len(s.w.checks.broken) == 0 {
				s.fail("%s counts as guarded on %s: %t, and it is %t", d.name, c.m.name, got, want)
			}
		}
	}
}
