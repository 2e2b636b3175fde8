// When does a fault hurt most? In the middle of something: while one node takes over from another, hands over to it, is in
// maintenance, or knows what the others do not know yet. Each of these is brought about here and made worse by some of what
// else may be wrong.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// badClocks lets clocks go as badly as they may: any way, or for the owner so that it believes in its leases for longest and
// the others for the shortest time.
func (s *simRun) badClocks() {
	against := ""
	if s.chance.IntN(2) == 0 {
		against = s.owner()
	}
	for _, m := range s.w.hosts {
		percent := []int{-10, 10, 0}[s.chance.IntN(3)]
		switch against {
		case "":
		case m.name:
			percent = -10
		default:
			percent = 10
		}
		s.play(fmt.Sprintf("clock %s %+d%%", m.name, percent))
	}
}

// handicap is what was wrong before it happened to a node.
func (s *simRun) handicap(name string) {
	switch s.chance.IntN(10) {
	case 0, 1:
		s.badClocks()
	case 2: // what was granted, was granted for long, and whoever looks now sees another deadtime
		s.play(fmt.Sprintf("edit %s deadtime=3s interval=100ms", s.other(name)))
		s.goTo(s.w.now - s.begun + s.between(time.Second, 4*time.Second))
		s.later(s.moment(), "edit %s deadtime=600ms interval=50ms", s.other(name))
	case 3, 4: // somebody has granted it nothing for a while
		if other := s.some(); other != name {
			s.play("cut " + name + " " + other)
			s.later(s.between(2*s.deadtime(), 12*s.deadtime()), "heal %s %s", name, other)
			s.goTo(s.w.now - s.begun + s.between(s.deadtime()/2, 4*s.deadtime()))
		}
	case 5, 6:
		s.badNetwork()
	case 7:
		s.badStop(name)
	case 8:
		s.play(fmt.Sprintf("slow disk on %s %s", s.some(), s.between(5*time.Millisecond, s.deadtime()/2)))
	}
}

// badStop: something does not stop there as it should.
func (s *simRun) badStop(name string) {
	r := s.resource()
	if s.chance.IntN(2) == 0 { // what all else stands on
		r = s.w.config.Groups[s.chance.IntN(len(s.w.config.Groups))].Resources[0].Name
	}
	if s.chance.IntN(3) == 0 {
		s.play(fmt.Sprintf("late stop %s on %s %s", r, name, s.between(s.deadtime()/4, 20*s.deadtime())))
		return
	}
	s.play(fmt.Sprintf("%s stop %s on %s %d times", []string{"fail", "hang"}[s.chance.IntN(2)], r, name, 1+s.chance.IntN(2)))
	s.later(s.around(), "mend %s", name)
}

// goes is how a node gets out of reach, or out of its mind.
func (s *simRun) goes(name string) {
	switch s.chance.IntN(7) {
	case 0:
		s.play("crash " + name)
		s.later(s.between(3*s.deadtime(), 8*s.deadtime()), "boot %s", name)
	case 6:
		s.play(fmt.Sprintf("stall %s %s", name, s.between(s.deadtime(), 4*s.deadtime())))
	case 1, 2:
		s.play("cut " + name + " " + s.others(name))
		s.later(s.between(s.deadtime(), []time.Duration{4 * s.deadtime(), 12 * s.deadtime()}[s.chance.IntN(2)]), "heal %s", name)
	case 3:
		s.halfDeaf()
	case 4:
		s.play("kill " + name)
		s.later(s.between(s.deadtime()/10, 4*s.deadtime()), "start %s", name)
	default:
		s.play(fmt.Sprintf("pause %s %s", name, s.between(s.deadtime(), 4*s.deadtime())))
	}
}

// moment is when something else happens: at the same time, or within the time that a takeover takes.
func (s *simRun) moment() time.Duration {
	if s.chance.IntN(3) == 0 {
		return s.between(0, s.deadtime()/10)
	}
	return s.between(s.deadtime()/10, s.deadtime()*14/10)
}

// meanwhile is what happens in the middle of it.
func (s *simRun) meanwhile(name string) {
	d, at := s.moment(), s.some()
	switch s.chance.IntN(12) {
	case 0:
		s.later(d, "edit %s deadtime=600ms interval=50ms", s.other(name))
	case 1:
		s.later(d, "edit %s deadtime=3s interval=100ms", s.other(name))
	case 2:
		s.later(d, "reboot %s", at)
	case 3, 4, 5: // all who could know what was granted
		for _, other := range strings.Fields(s.others(name)) {
			s.later(d, "kill %s", other)
			s.later(d+s.between(time.Millisecond, 50*time.Millisecond), "start %s", other)
		}
	case 6:
		s.later(d, "ask %s maintenance on", at)
		s.later(d+s.around(), "ask %s maintenance off", at)
	case 7: // nobody is left there who could shut anything
		s.later(d, "kill %s", name)
		s.later(d+s.around(), "start %s", name)
	case 8:
		s.later(d, "pause %s %s", name, s.around())
	case 9:
		s.later(d, "ask %s cleanup %s", at, s.groupName())
	default:
		if m := s.w.leader(); m != nil {
			s.later(d, "pause %s %s", m.name, s.around())
		}
	}
}

// duringTakeover: the owner goes, and in the middle of the wait something else happens.
func (s *simRun) duringTakeover() {
	name := s.owner()
	if name == "" {
		return
	}
	if wait, _ := s.w.config.silentFor(classStateful); wait > 0 && s.chance.IntN(2) == 0 { // what a watchdog is there for
		s.play(fmt.Sprintf("late stop %s on %s %s", s.resource(), name, s.between(wait/2, 2*wait)))
		s.play("cut " + name + " " + s.others(name))
		s.later(s.between(wait/2, 2*wait), "heal %s", name)
		return
	}
	s.handicap(name)
	if s.chance.IntN(3) == 0 {
		s.handicap(name)
	}
	for range 1 + s.chance.IntN(4) {
		s.meanwhile(name)
	}
	s.goes(name)
}

// duringMove: an operator sends groups to and fro, and it does not go as it should. Once something has to stop, that node's
// daemon may be gone for a moment, or what is blocked be tried again on the operator's word; and what was said of one move may
// arrive in the middle of the next.
func (s *simRun) duringMove() {
	name := s.owner()
	if name == "" {
		return
	}
	s.handicap(name)
	if s.chance.IntN(2) == 0 {
		s.stragglers()
	}
	smooth := s.chance.IntN(2) == 0
	for range 1 + s.chance.IntN(6) {
		if !smooth && s.chance.IntN(2) == 0 {
			s.badStop(name)
		}
		s.play(fmt.Sprintf("ask %s standby %s", s.some(), name))
		s.untilPhase(phaseRevoked)
		switch k := s.chance.IntN(6); {
		case smooth:
		case k == 0:
			s.play("kill " + name)
			s.later(s.between(time.Millisecond, s.deadtime()), "start %s", name)
		case k == 1:
			s.meanwhile(name)
		case k == 2:
			s.goes(name)
		case k < 5:
			if s.untilPhase(phaseBlocked) {
				s.play(fmt.Sprintf("ask %s cleanup %s", s.some(), s.groupName()))
			}
		}
		s.goTo(s.w.now - s.begun + s.between(time.Millisecond, s.deadtime()/2))
		s.play(fmt.Sprintf("ask %s online %s", s.some(), name))
		s.goTo(s.w.now - s.begun + s.between(time.Millisecond, s.deadtime()/2))
		if len(s.w.checks.broken) > 0 {
			return
		}
		if o := s.owner(); o != "" {
			name = o
		}
	}
	s.later(s.around(), "ask %s online %s", s.some(), name)
}

// duringMaintenance: a daemon is stopped, killed, frozen or out of reach when it ends, or just before or after; another machine
// reboots.
func (s *simRun) duringMaintenance() {
	at, gone, reboots := s.some(), s.target(), s.some()
	if s.chance.IntN(2) == 0 && s.owner() != "" {
		gone = s.owner()
	}
	d, early := s.between(500*time.Millisecond, 6*time.Second), s.between(50*time.Millisecond, 500*time.Millisecond)
	switch s.chance.IntN(4) {
	case 0: // what is said at the end of one comes after the end of the next
		s.stragglers()
		s.play(fmt.Sprintf("ask %s maintenance on", at))
		s.goTo(s.w.now - s.begun + s.between(10*time.Millisecond, 300*time.Millisecond))
		s.play(fmt.Sprintf("ask %s maintenance off", at))
		s.goTo(s.w.now - s.begun + s.between(5*time.Millisecond, 300*time.Millisecond))
		d = early + s.between(10*time.Millisecond, 500*time.Millisecond)
	case 1, 2:
		wide := []time.Duration{4 * time.Millisecond, 40 * time.Millisecond}[s.chance.IntN(2)]
		early = d + s.between(-wide, wide)
		s.handicap(gone)
	}
	s.play(fmt.Sprintf("ask %s maintenance on", at))
	back := d + s.between(time.Millisecond, 5*time.Second)
	switch s.chance.IntN(4) {
	case 0:
		s.later(early, "cut %s %s", gone, s.others(gone))
		s.later(back, "heal %s", gone)
	case 1:
		s.later(early, "pause %s %s", gone, back-early)
	default:
		s.later(early, "%s %s", []string{"leave", "leave", "leave", "kill"}[s.chance.IntN(4)], gone)
		s.later(back, "start %s", gone)
	}
	if s.chance.IntN(2) == 0 {
		s.later(s.between(600*time.Millisecond, 2*time.Second), "reboot %s", reboots)
	}
	s.later(d, "ask %s maintenance off", at)
}

// splitSecond: the leader has decided something, and goes before the others have heard that it is decided.
func (s *simRun) splitSecond() {
	if s.chance.IntN(2) == 0 {
		s.edit()
	} else {
		s.play(fmt.Sprintf("ask %s move %s %s", s.some(), s.groupName(), s.full()))
		s.later(s.around(), "ask %s unmove %s", s.some(), s.groupName())
	}
	if !s.until(2*time.Second, s.ahead) {
		return
	}
	s.w.checks.meet("decided and not told")
	name := s.w.leader().name
	s.goes(name)
	if len(s.w.hosts) == 2 && s.chance.IntN(2) == 0 {
		s.word()
	}
}

// ahead: a leader has applied a decision that nobody else has.
func (s *simRun) ahead() bool {
	m := s.w.leader()
	return m != nil && !m.life.frozen && !slices.ContainsFunc(s.w.hosts, func(o *machine) bool {
		if o == m || o.life == nil || o.life.node.state == nil {
			return false
		}
		mine, theirs := m.life.node.state, o.life.node.state
		return mine.Incarnation.ID == theirs.Incarnation.ID && mine.LastEpoch <= theirs.LastEpoch && mine.Config.Generation <= theirs.Config.Generation
	})
}

// wrongWord: an operator takes a node that is cut off for the only one that is left. Both sides go on, and run everything
// twice: that is what the word means. All else has to hold, and the one side to yield when they meet.
func (s *simRun) wrongWord() {
	name := s.some()
	if len(s.w.hosts) < 3 || len(s.story.setup.nodes) < len(s.w.hosts) {
		return
	}
	s.play("cut " + name + " " + s.others(name))
	s.goTo(s.w.now - s.begun + s.between(3*s.deadtime(), 6*s.deadtime()))
	for range s.chance.IntN(6) { // elections on the other side, of which this one has heard nothing
		if m := s.w.leader(); m != nil && m.name != name {
			rest := strings.Fields(strings.Replace(s.others(m.name), name, "", 1))
			s.play("cut " + m.name + " " + strings.Join(rest, " "))
			s.goTo(s.w.now - s.begun + s.between(s.deadtime(), 2*s.deadtime()))
			for _, other := range rest {
				s.play("heal " + m.name + " " + other)
			}
			s.goTo(s.w.now - s.begun + s.between(s.deadtime()/2, 2*s.deadtime()))
		}
	}
	for _, g := range s.w.config.Groups {
		s.play("allow " + g.Name)
	}
	if s.play("ask " + name + " quorum force") {
		s.w.checks.meet("an operator's wrong word")
	}
	s.later(s.around(), "heal %s", name)
}

// untilPhase waits for the moment when a group has come to a phase.
func (s *simRun) untilPhase(phase string) bool {
	return s.until(3*time.Second, func() bool {
		n := s.w.best()
		return n != nil && slices.ContainsFunc(n.state.Groups, func(g GroupState) bool { return g.Phase == phase })
	})
}

// until waits for a moment, and plays what is pending.
func (s *simRun) until(limit time.Duration, holds func() bool) bool {
	for end := s.w.now + limit; ; {
		due := end
		if len(s.pending) > 0 {
			due = max(s.w.now, min(end, s.begun+s.pending[0].at))
		}
		switch {
		case s.w.until(due-s.w.now, holds):
			return true
		case due == end || len(s.w.checks.broken) > 0:
			return false
		}
		s.goTo(due - s.begun)
	}
}
