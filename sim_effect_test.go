// What if a process is stopped between its decision and what it does? In a third of the simulated clusters the two are separate
// events: a grant that the node has counted reaches the kernel a moment later, a message or an announcement leaves a moment
// later, an operation begins a moment later, and a freeze in between lets them happen when it is over, in their order.

package main

import (
	"fmt"
	"time"
)

// effectTakes is that moment. It is the same for all, so that they keep their order.
const effectTakes = 150 * time.Microsecond

// effect lets what the process has decided happen.
func (l *life) effect(do func()) {
	if !l.w.split {
		do()
		return
	}
	l.w.after(effectTakes, func() {
		switch {
		case l.m.life != l:
		case l.m.snag > 0 && !l.frozen:
			l.freeze(l.m.snag)
			l.m.snag = 0
			fallthrough
		case l.frozen:
			l.w.checks.meet("frozen before the effect")
			l.thaw = append(l.thaw, do)
		default:
			do()
		}
	})
}

// snagFault freezes an owner exactly there, in place of another fault; false: it does not.
func (s *simRun) snagFault() bool {
	o := s.owner()
	if !s.split || o == "" || s.extra.IntN(6) != 0 {
		return false
	}
	return s.play(fmt.Sprintf("snag %s %s", o, s.extraTime()))
}
