// What if a target outside the cluster falls silent? A quarter of the simulated clusters has targets: groups that need them,
// and pairs that ask them before they take silence for death. They die for one node, for all, or together with its links.

package main

import (
	"fmt"
	"strings"
	"time"
)

// interestingReach is what a batch has to come to beside interesting.
var interestingReach = []string{eventUnreached, eventReached, "isolated"}

const simTargets = "[[ping]]\nname = \"gateway\"\naddress = \"192.168.10.1\"\n[[ping]]\nname = \"store\"\ntcp = \"10.0.0.99:5432\"\ninterval = \"2s\"\n"

// drawTargets gives the cluster of a seed its targets.
func (s *simRun) drawTargets(c *clusterSetup) {
	if s.kind == simSingle || s.kind == simDeath || s.extra.IntN(4) != 0 {
		return
	}
	needs := []string{"\"gateway\"", "\"store\"", "\"gateway\", \"store\""}[s.extra.IntN(3)]
	const key = "failure_timeout = \"20s\"\n"
	c.groups = simTargets + strings.Replace(c.groups, key, key+"needs = ["+needs+"]\n", 1)
	if len(c.nodes) == 2 && s.extra.IntN(2) == 0 {
		c.set("needs_ping", []string{"gateway", "store"}[s.extra.IntN(2)])
	}
}

// reachFault is a fault of this kind, in place of another; false: there is none.
func (s *simRun) reachFault() bool {
	if len(s.w.config.Pings) == 0 || s.extra.IntN(4) != 0 {
		return false
	}
	target := s.w.config.Pings[s.extra.IntN(len(s.w.config.Pings))].Name
	names := s.w.config.fullNodes()
	name := names[s.extra.IntN(len(names))]
	d := s.extraTime() + time.Duration(s.extra.IntN(10))*time.Second
	switch s.extra.IntN(5) {
	case 0:
		s.play("target " + target + " silent")
	case 1: // half blind on both sides
		for i, p := range s.w.config.Pings {
			s.play(fmt.Sprintf("target %s silent on %s", p.Name, names[i%len(names)]))
			s.later(d, "target %s answers", p.Name)
		}
	case 2, 3: // its cable is out: neither the others nor a target
		if o := s.owner(); o != "" {
			name = o
		}
		s.play("cut " + name + " " + s.others(name))
		for _, p := range s.w.config.Pings {
			s.play("target " + p.Name + " silent on " + name)
			s.later(d, "target %s answers", p.Name)
		}
		s.later(d+time.Duration(s.extra.IntN(2000)-1000)*time.Millisecond, "heal %s", name)
	default:
		s.play("target " + target + " silent on " + name)
	}
	s.later(d, "target %s answers", target)
	return true
}

// answerAgain is a part of the repair.
func (s *simRun) answerAgain() {
	for _, p := range s.w.config.Pings {
		s.play("target " + p.Name + " answers")
	}
}
