// Which mistakes show only when several things meet? Random faults hardly ever come in such an order, so here each order is
// brought about on purpose, with times that are drawn.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// interestingLives is what a batch has to come to beside interesting.
var interestingLives = []string{"alone in turn", "a glimpse", "a learner out of reach"}

// conjunction is one of them in place of another fault, sometimes; false: it is not.
func (s *simRun) conjunction() bool {
	if s.more.IntN(6) != 0 {
		return false
	}
	all := []func() bool{s.oldFolder, s.oldFolder, s.downgrade, s.shortened, s.forgetfulOwner, s.oldReports, s.maintenanceAgain}
	if len(s.w.hosts) == 2 && s.lives.IntN(2) == 0 {
		all = []func() bool{s.inTurn, s.glimpse, s.lateLearner}
		return all[s.lives.IntN(len(all))]()
	}
	return all[s.more.IntN(len(all))]()
}

// moreTime is between the two, from the stream of what is done here.
func (s *simRun) moreTime(from, to time.Duration) time.Duration {
	return (from + time.Duration(s.more.Int64N(int64(to-from)))).Round(time.Millisecond)
}

func (s *simRun) wait(from, to time.Duration) { s.goTo(s.w.now - s.begun + s.moreTime(from, to)) }

// oldFolder puts an old copy of a state folder back, while all is well: its node has forgotten what it promised, and only a
// leader's word can tell it.
func (s *simRun) oldFolder() bool {
	if len(s.pending) > 0 || !s.well() {
		return false
	}
	name := s.target()
	if leader := s.w.leader(); leader != nil && leader.name == name { // who leads hears of nobody who knows more
		name = s.other(name)
	}
	if !s.play("copy " + name) {
		return false
	}
	s.wait(0, 3*time.Second)
	if leader := s.w.leader(); leader == nil || leader.name == name || !s.well() || !s.mayForget(name) {
		return true
	}
	s.play("kill " + name)
	s.play("roll-back " + name)
	s.play("start " + name)
	s.goTo(s.w.now - s.begun + 2*s.deadtime())
	return true
}

// downgrade: somebody puts the version before back on a node, when the cluster has agreed on more than that can do.
func (s *simRun) downgrade() bool {
	if n := s.w.best(); n == nil || n.state.Feature <= featureLevel {
		if !s.newer || len(s.pending) > 0 || !s.well() {
			return false
		}
		for _, m := range s.w.hosts { // it agrees at once
			s.play(fmt.Sprintf("version %s %d", m.name, featureLevel+1))
			s.play("restart " + m.name)
			s.play("start " + m.name)
			s.wait(s.deadtime(), 2*s.deadtime())
		}
	}
	name := s.target()
	s.play(fmt.Sprintf("version %s %d", name, featureLevel))
	if s.play("kill " + name) {
		s.play("start " + name)
	}
	return true
}

// shortened: leases become shorter while the owner of a long one is out of reach, and all who have granted it start anew.
func (s *simRun) shortened() bool {
	name := s.owner()
	if name == "" || len(s.w.hosts) < 3 {
		return false
	}
	at := s.other(name)
	s.play(fmt.Sprintf("edit %s deadtime=3s interval=100ms", at))
	s.wait(500*time.Millisecond, 3*time.Second)
	s.play("cut " + name + " " + s.others(name))
	s.play(fmt.Sprintf("edit %s deadtime=600ms interval=50ms", at))
	s.wait(time.Millisecond, 300*time.Millisecond)
	for _, other := range strings.Fields(s.others(name)) {
		s.play("kill " + other)
		s.later(s.moreTime(time.Millisecond, 20*time.Millisecond), "start %s", other)
	}
	s.later(s.moreTime(2*time.Second, 6*time.Second), "heal %s", name)
	s.wait(time.Second, 3*time.Second)
	return true
}

// forgetfulOwner: it knows that it has to stop, and has said so, cannot, and is killed before its disk has that it is committed.
// The next daemon takes itself for the owner, and hears only those who do not lead.
func (s *simRun) forgetfulOwner() bool {
	name, leader := s.owner(), s.w.leader()
	if name == "" || leader == nil || leader.name == name || len(s.w.hosts) < 3 {
		return false
	}
	for _, g := range s.w.config.Groups {
		s.play(fmt.Sprintf("hang stop %s on %s 9 times", g.Resources[len(g.Resources)-1].Name, name))
	}
	if s.more.IntN(3) != 0 { // its disk is behind
		s.play(fmt.Sprintf("slow disk on %s %s", name, s.moreTime(s.deadtime()/4, s.deadtime())))
		s.later(s.moreTime(4*s.deadtime(), 6*s.deadtime()), "slow disk on %s 1ms", name)
	}
	s.play(fmt.Sprintf("ask %s standby %s", leader.name, name))
	s.later(s.moreTime(8*time.Second, 12*time.Second), "mend %s", name)
	s.later(s.moreTime(8*time.Second, 12*time.Second), "ask %s online %s", s.some(), name)
	s.until(2*time.Second, func() bool {
		l := s.w.host(name).life
		return l != nil && l.node.state != nil && slices.ContainsFunc(l.node.state.Groups, func(g GroupState) bool { return g.Owner == name && g.Phase == phaseRevoked })
	})
	s.play("cut " + name + " " + leader.name)
	s.later(s.moreTime(3*s.deadtime(), 6*s.deadtime()), "heal %s %s", name, leader.name)
	s.wait(s.deadtime()/10, s.deadtime())
	s.play("kill " + name)
	s.wait(time.Millisecond, s.deadtime())
	s.play("start " + name)
	s.wait(s.deadtime()/2, 2*s.deadtime())
	return true
}

// livesTime is between the two, from the stream of what two nodes do without each other.
func (s *simRun) livesTime(from, to time.Duration) time.Duration {
	return (from + time.Duration(s.lives.Int64N(int64(to-from)))).Round(time.Millisecond)
}

// leftAlone: the power of one of two goes, and the other goes on in a life of the cluster of its own, where it must be told so
// by an operator who has looked.
func (s *simRun) leftAlone(gone, stays string) bool {
	if !s.until(10*time.Second, s.well) {
		return false
	}
	was := s.w.best().incarnation()
	s.play("crash " + gone)
	alone := func() bool {
		l := s.w.host(stays).life
		return l != nil && l.node.state != nil && l.node.incarnation() != was
	}
	if s.until(4*s.deadtime(), alone) {
		return true
	}
	s.play(fmt.Sprintf("ask %s confirm-dead %s force", stays, gone))
	return s.until(4*s.deadtime(), alone)
}

// inTurn: each of two goes on alone while the other is off, one after the other; the first is switched on again and hears nothing
// of the second.
func (s *simRun) inTurn() bool {
	first := s.w.hosts[s.lives.IntN(2)].name
	second := s.others(first)
	if !s.leftAlone(second, first) {
		return false
	}
	s.goTo(s.w.now - s.begun + s.livesTime(0, 4*s.deadtime()))
	s.play("crash " + first)
	s.play("boot " + second)
	s.goTo(s.w.now - s.begun + s.livesTime(6*s.deadtime(), 20*s.deadtime()))
	s.play("cut " + first + " " + second)
	s.play("boot " + first)
	s.goTo(s.w.now - s.begun + s.livesTime(6*s.deadtime(), 20*s.deadtime()))
	s.play("heal")
	s.w.checks.meet("alone in turn")
	return true
}

// glimpse: one of two comes back, hears of the life in which the other went on, and loses sight of it again before it has joined
// that; its daemon or its kernel is a new one then, and the other is off.
func (s *simRun) glimpse() bool {
	first := s.w.hosts[s.lives.IntN(2)].name
	second := s.others(first)
	if !s.leftAlone(second, first) {
		return false
	}
	s.play("boot " + second)
	if !s.until(20*s.deadtime(), func() bool { m := s.w.host(second); return m.life != nil && m.life.node.beaten() }) {
		return true
	}
	s.w.checks.meet("a glimpse")
	s.goTo(s.w.now - s.begun + s.livesTime(0, s.deadtime()))
	s.play("cut " + first + " " + second)
	s.play([]string{"kill ", "crash "}[s.lives.IntN(2)] + second)
	s.play("crash " + first)
	s.play([]string{"boot ", "start "}[s.lives.IntN(2)] + second)
	s.play("boot " + second)
	s.goTo(s.w.now - s.begun + s.livesTime(6*s.deadtime(), 20*s.deadtime()))
	s.play("heal")
	s.play("boot " + first)
	return true
}

// lateLearner: one of two has lost its memory and is taken in again, is out of reach before it votes, and stays so while the other
// goes on alone by an operator's word: it runs nothing.
func (s *simRun) lateLearner() bool {
	first := s.w.hosts[s.lives.IntN(2)].name
	second := s.others(first)
	if !s.until(10*time.Second, s.well) || !s.mayForget(second) {
		return false
	}
	s.play("kill " + second)
	s.play("wipe " + second)
	s.play("start " + second)
	if !s.until(20*s.deadtime(), func() bool {
		l := s.w.host(second).life
		return l != nil && l.node.state != nil && l.node.cons != nil && l.node.cons.Status().Learner
	}) {
		return true
	}
	s.goTo(s.w.now - s.begun + s.livesTime(0, s.deadtime()/4))
	s.play("cut " + first + " " + second)
	s.w.checks.meet("a learner out of reach")
	s.goTo(s.w.now - s.begun + s.livesTime(14*s.deadtime(), 20*s.deadtime()))
	s.play(fmt.Sprintf("ask %s confirm-dead %s force", first, second))
	s.goTo(s.w.now - s.begun + s.livesTime(s.deadtime(), 4*s.deadtime()))
	s.play("heal")
	return true
}

// oldReports: what a node said of one epoch arrives when it has the group again, and must stop it again.
func (s *simRun) oldReports() bool {
	name, leader := s.owner(), s.w.leader()
	if name == "" || leader == nil || leader.name == name {
		return false
	}
	s.play(fmt.Sprintf("straggle 50%% %s", 4*s.deadtime()))
	s.later(8*s.deadtime(), "straggle 0%% 0s")
	for range 4 {
		if s.more.IntN(2) == 0 {
			for _, g := range s.w.config.Groups {
				s.play(fmt.Sprintf("late stop %s on %s %s", g.Resources[len(g.Resources)-1].Name, name, s.moreTime(s.deadtime()/4, 2*s.deadtime())))
			}
		}
		s.play(fmt.Sprintf("ask %s standby %s", leader.name, name))
		s.wait(10*time.Millisecond, s.deadtime())
		s.play(fmt.Sprintf("ask %s online %s", leader.name, name))
		for _, g := range s.w.config.Groups {
			s.play(fmt.Sprintf("ask %s move %s %s", leader.name, g.Name, name))
		}
		s.wait(100*time.Millisecond, s.deadtime())
		for _, g := range s.w.config.Groups {
			s.play(fmt.Sprintf("ask %s unmove %s", leader.name, g.Name))
		}
		if len(s.w.checks.broken) > 0 {
			return true
		}
	}
	return true
}

// maintenanceAgain: an owner says that it lives by its lease, which is so between one maintenance and the next; it arrives when
// the owner has left what it runs to nobody.
func (s *simRun) maintenanceAgain() bool {
	name, leader := s.owner(), s.w.leader()
	if name == "" || leader == nil || leader.name == name {
		return false
	}
	s.play("ask " + leader.name + " maintenance on")
	s.wait(10*time.Millisecond, s.deadtime())
	s.play(fmt.Sprintf("straggle 60%% %s", 2*s.deadtime()))
	s.later(3*s.deadtime(), "straggle 0%% 0s")
	s.play("ask " + leader.name + " maintenance off")
	s.wait(time.Millisecond, 60*time.Millisecond)
	s.play("ask " + leader.name + " maintenance on")
	s.play("leave " + name)
	s.until(2*s.deadtime(), func() bool { return s.w.host(name).life == nil })
	s.play("ask " + leader.name + " maintenance off")
	s.later(s.moreTime(4*s.deadtime(), 10*s.deadtime()), "start %s", name)
	s.wait(s.deadtime(), 3*s.deadtime())
	return true
}
