// What if a process is stopped between its decision and what it does? In a third of the simulated clusters the two are separate
// events: a grant that the node has counted reaches the kernel a moment later, an announcement leaves a moment later, an
// operation begins a moment later, and a freeze in between lets them happen when it is over.

package main

import "time"

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
		case l.frozen:
			l.w.checks.meet("frozen before the effect")
			l.thaw = append(l.thaw, do)
		default:
			do()
		}
	})
}
