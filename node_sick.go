// Is this node well enough to run groups? A sick one asks for no grants and pets no watchdog, so it loses its groups by
// itself; its heartbeats go on, so that the others know it for sick and not for dead. Pure: what only the shell can see
// (that the host cannot start a process) comes in as an event, the rest is in what the node waits for.

package main

import (
	"fmt"
	"slices"
	"time"
)

// vitals is what the node watches of itself.
type vitals struct {
	unsaved []unsaved // writes that must be durable and are not yet, oldest first
	saved   instant   // when the last one became so: a slow disk answers, a stalled one does not
	fork    string    // why the host cannot start a process, "" if it can
	turns   int       // ticks since from
	from    instant
	spins   string // the loop turns without end
	told    string // the last that was logged
}

type unsaved struct {
	done uint64
	at   instant
}

const (
	unsavedMax = 64  // the oldest counts; behind it as many as fit
	turnsMax   = 100 // ticks in the time of one raft tick: a loop that has work needs a few
)

// CanFork is the event that the shell has tried to start a process: "" is well.
func (n *node) CanFork(now instant, fault string) {
	n.vitals.fork = fault
	n.advance(now)
}

// saving notes a write that others wait for.
func (n *node) saving(now instant, w write) {
	if w.Sync && len(n.vitals.unsaved) < unsavedMax {
		n.vitals.unsaved = append(n.vitals.unsaved, unsaved{w.Done, now})
	}
}

// savedUpTo forgets a write that is durable, and those before it: they come to the disk in order.
func (n *node) savedUpTo(now instant, done uint64) {
	n.vitals.saved = now
	if i := slices.IndexFunc(n.vitals.unsaved, func(u unsaved) bool { return u.done == done }); i >= 0 {
		n.vitals.unsaved = slices.Delete(n.vitals.unsaved, 0, i+1)
	}
}

// countTurn notices a loop that is woken again and again for nothing.
func (n *node) countTurn(now instant) {
	v := &n.vitals
	v.turns++
	if now.sub(v.from) < n.deadtime() {
		return
	}
	v.spins = ""
	if limit := turnsMax * ticksInDead; v.turns > limit && now.sub(v.from) < 2*n.deadtime() {
		v.spins = fmt.Sprintf("its loop has turned %d times in %s", v.turns, now.sub(v.from).Round(time.Millisecond))
	}
	v.turns, v.from = 0, now
}

// sick is why this node must not be given groups, "" if it is well.
func (n *node) sick(now instant) string {
	patience := n.deadtime() / 2
	stalled := time.Duration(0)
	if len(n.vitals.unsaved) > 0 {
		stalled = now.sub(max(n.vitals.saved, n.vitals.unsaved[0].at))
	}
	switch stuck := n.agent.overdue(now); {
	case n.doom.why != "":
		return "it is about to be reset: " + n.doom.why
	case n.storeErr != "" && now.sub(n.storeBad) >= patience:
		return "its state cannot be stored: " + n.storeErr
	case stalled >= n.deadtime():
		return "its state disk does not answer"
	case n.vitals.fork != "":
		return "it can start no process: " + n.vitals.fork
	case stuck != "":
		return stuck
	case n.vitals.spins != "":
		return n.vitals.spins
	}
	if len(n.vitals.unsaved) > 0 {
		n.wake(now.add(n.deadtime() - stalled))
	}
	return ""
}

// overdue is an operation that has not ended though its time, and the time to end it, are over: what hangs in the kernel.
func (a *agent) overdue(now instant) string {
	for _, g := range a.groups {
		for _, r := range g.res {
			if r.busy != 0 && now >= r.due {
				return fmt.Sprintf("%s of %s in %s hangs and cannot be ended", r.op, r.config.Name, g.name)
			}
		}
	}
	return ""
}

// tellSick logs when it becomes sick and when it is well again.
func (n *node) tellSick(now instant) {
	why := n.sick(now)
	if (why == "") == (n.vitals.told == "") {
		return
	}
	n.vitals.told = why
	n.version++
	n.nextBeat = now
	if why != "" {
		n.log.Error("this node is not well and asks for no lease: "+why, "event", "node-sick")
		return
	}
	n.log.Info("this node is well again", "event", "node-well")
}
