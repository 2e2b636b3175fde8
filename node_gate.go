// Until when may the addresses of a group answer, whatever becomes of this process? What node_lease.go has decided, as a
// moment that the kernel can hold: docs/design.md section 4, the gate.

package main

import "slices"

// gateWord is what the actuator was told last about a group.
type gateWord struct {
	group string
	until instant
}

// gate is what the actuator was told last about a group.
func (n *node) gate(group string) instant {
	for _, w := range n.gates {
		if w.group == group {
			return w.until
		}
	}
	return 0
}

// lease moves the deadline that the kernel goes by. A grant moves with every heartbeat that is acked, so this is not for
// the log.
func (n *node) lease(group string, until instant) {
	i := slices.IndexFunc(n.gates, func(w gateWord) bool { return w.group == group })
	if i < 0 {
		n.gates = append(n.gates, gateWord{group: group})
		i = len(n.gates) - 1
	} else if n.gates[i].until == until {
		return
	}
	n.gates[i].until = until
	n.act.Lease(group, until)
}

// caretakerUntil is the deadline of a group that goes on without a majority. Where the other side may take over by itself
// this loop has to prove again and again that it turns; where it waits for a word nobody takes over unasked.
func (n *node) caretakerUntil(now instant, group string) instant {
	if n.config.Cluster.TwoNode == "manual" {
		return openForGood
	}
	until, old := now.add(n.config.lease()), n.gate(group)
	if now < n.blindUntil {
		n.wake(n.blindUntil)
		return old // it stood still: first hear whether the other has taken over
	}
	if old != openForGood && until.sub(old) < n.config.Heartbeat.Interval.D()/2 {
		until = old // once for each heartbeat is enough
	}
	return until
}
