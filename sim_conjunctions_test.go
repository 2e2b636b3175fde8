// Which mistakes show only when several things meet? Random faults hardly ever come in such an order, so here each order is
// brought about on purpose, with times that are drawn.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// conjunction is one of them in place of another fault, sometimes; false: it is not.
func (s *simRun) conjunction() bool {
	if s.more.IntN(6) != 0 {
		return false
	}
	all := []func() bool{s.oldFolder, s.oldFolder, s.downgrade, s.shortened, s.forgetfulOwner, s.oldReports, s.maintenanceAgain}
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
