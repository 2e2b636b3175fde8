// What does this node do about fencing? It carries out what the state asks of it, sees to it alone where one of two voters
// is left, monitors the devices before they are needed, and tells what came of it. Whom to fence is fence.go's, how is
// fence_run.go's.

package main

import (
	"fmt"
	"slices"
	"time"
)

// fenceDesk is everything about fencing that only this node knows.
type fenceDesk struct {
	runs   []*fenceRun     // at most one for each node
	health []*deviceHealth // of the devices that this node may need, by name
	tests  []*fenceTest
	calls  uint64  // ids given out
	again  instant // alone: not before
	failed int     // alone: how often it failed in a row
	reason string  // alone: why it failed last
}

// deviceHealth is what the last monitor of a device said.
type deviceHealth struct {
	device string
	call   uint64 // under way; 0: none
	due    instant
	known  bool
	err    string // "": it answers
}

// FenceDone is the event that a call of a fence device has ended.
func (n *node) FenceDone(now instant, d fenceDone) {
	for _, r := range n.fence.runs {
		r.answer(now, n.config, d)
	}
	for _, h := range n.fence.health {
		if h.call == d.ID {
			h.call, h.known, h.err = 0, true, d.Err
			h.due = now.add(d.Device.Monitor.Interval.D())
		}
	}
	for _, t := range n.fence.tests {
		t.answer(d)
	}
	n.version++
	n.advance(now)
}

// fencing does all that is due.
func (n *node) fencing(now instant) {
	n.followFences()
	n.fenceAlone(now)
	for _, r := range slices.Clone(n.fence.runs) {
		n.driveFence(now, r)
		if r.done {
			n.recordFence(now, r)
		}
	}
	n.monitorDevices(now)
	for _, t := range n.fence.tests {
		if s := t.next(); s != nil {
			t.call = n.callDevice(now, s)
		}
	}
}

// callDevice makes a call and returns its id.
func (n *node) callDevice(now instant, s *fenceStep) uint64 {
	n.fence.calls++
	s.ID = n.fence.calls
	n.opt.Fencer.Fence(*s)
	return s.ID
}

func (n *node) fenceRun(node string) *fenceRun {
	for _, r := range n.fence.runs {
		if r.node == node {
			return r
		}
	}
	return nil
}

// dropRun gives a request up. What its device still does, nobody listens to.
func (n *node) dropRun(r *fenceRun) {
	if r.call != 0 {
		n.opt.Fencer.CancelFence(r.call)
		r.call = 0
	}
	n.fence.runs = slices.DeleteFunc(n.fence.runs, func(x *fenceRun) bool { return x == r })
	n.version++
}

// followFences begins what the state asks of this node and drops what it does not ask any more.
func (n *node) followFences() {
	asked := func(r *fenceRun) bool {
		f := n.state.fence(r.node)
		return f != nil && f.ID == r.id && f.Phase == fenceAsked && f.Helper == n.name
	}
	for _, r := range slices.Clone(n.fence.runs) {
		if r.id != 0 && (n.state == nil || !asked(r)) {
			n.dropRun(r)
		}
	}
	if n.state == nil || !n.joined || !n.hasQuorum() {
		return // who has not been joined since its boot fences nobody
	}
	for i := range n.state.Fences {
		f := &n.state.Fences[i]
		r := n.fenceRun(f.Node)
		if f.Phase != fenceAsked || f.Helper != n.name || r != nil && r.id == f.ID {
			continue
		}
		if r != nil {
			n.dropRun(r)
		}
		n.beginRun(&fenceRun{id: f.ID, node: f.Node, boot: f.Boot, asker: f.Asker, why: f.Why})
	}
}

func (n *node) beginRun(r *fenceRun) {
	n.fence.runs = append(n.fence.runs, r)
	n.version++
	if !r.probe {
		n.log.Warn(fmt.Sprintf("fencing %s: %s", r.node, r.why), "event", "fence-begun", "node", r.node)
	}
}

// driveFence makes the call that is due.
func (n *node) driveFence(now instant, r *fenceRun) {
	if r.id != 0 && !n.hasQuorum() && len(n.cons.Status().Members.Voters) != 2 && r.call == 0 {
		return // the others may want something else by now
	}
	if r.call != 0 && now >= r.due {
		n.opt.Fencer.CancelFence(r.call)
	}
	s, wake := r.next(now, n.config)
	if s != nil {
		n.hushMonitor(s.Device.Name)
		r.call = n.callDevice(now, s)
		n.version++
	}
	n.wake(wake)
}

// recordFence has the outcome recorded. One of two voters that is left alone goes on by a confirmed fence as a new
// incarnation, provided that the other is as silent as one that is off.
func (n *node) recordFence(now instant, r *fenceRun) {
	e := Entry{Kind: entryFenced, Node: r.node, Boot: r.boot, Epoch: r.id, Helper: n.name, On: r.ok, Reason: r.result(), Why: r.why}
	switch {
	case n.hasQuorum() && r.id != 0:
		n.propose(now, e)
	case n.unmet() == r.node && r.ok:
		if n.peers.get(r.node).unsure > r.at {
			n.dropRun(r)
			return
		}
		n.vouched = n.incarnation()
		n.log.Info(fmt.Sprintf("%s is off: %s; this node goes on without it", r.node, r.result()), "event", "seen-off", "node", r.node)
		n.dropRun(r)
	case n.hasQuorum() && n.unmet() == "":
		n.dropRun(r) // the other is there: it was not off, or has booted since
	case r.ok && n.mayForceOver(r.node):
		silent, p := n.peers.silence(now, r.node), n.peers.get(r.node)
		switch {
		case max(p.at, p.unsure) > r.at:
			n.dropRun(r) // it has been heard since: whatever was off is on again
			return
		case silent < n.deadtime():
			n.wake(now.add(n.deadtime() - silent))
			return
		}
		e.Epoch, e.By = 0, r.asker
		n.tryForce(now, r.asker, fmt.Sprintf("fence: %s is off: %s", r.node, r.result()), e)
		if n.alone == n.incarnation() {
			n.fence.failed, n.fence.reason = 0, ""
			n.dropRun(r)
		}
	case r.id == 0 && !r.ok:
		if r.result() != n.fence.reason && !r.probe {
			n.log.Error(fmt.Sprintf("%s could not be fenced", r.node), "event", eventFenceFailed, "node", r.node, "err", r.result())
		}
		n.fence.again = now.add(fenceRoundPause(n.fence.failed))
		if !r.probe { // to ask costs nothing
			n.fence.failed++
		}
		n.fence.reason = r.result()
		n.dropRun(r)
	}
}

// mayForceOver: this node is one of exactly two voters, and there is no majority without the other.
func (n *node) mayForceOver(other string) bool {
	if n.state == nil || n.cons == nil || !n.config.twoVoters() || n.config.node(n.name) == nil || n.hasQuorum() || n.storeErr != "" || n.otherNode() != other {
		return false
	}
	st := n.cons.Status()
	return st.Voter && !st.Learner && len(st.Members.Voters) == 2
}

// fenceAlone is two_node = "fence": who is left alone fences the other. The active side goes on meanwhile, as caretaker;
// the other takes over when it is confirmed.
func (n *node) fenceAlone(now instant) {
	other := n.otherNode()
	if n.config.Cluster.TwoNode != "fence" || !n.mayForceOver(other) && n.unmet() == "" {
		n.dropAlone()
		return
	}
	p, o := n.peers.get(other), n.state.node(other)
	heard := max(p.at, p.unsure)
	lost := max(heard.add(n.deadtime()), p.awaited(n.deadtime()))
	if !n.joined { // a fresh daemon listens first
		lost = max(lost, n.ledger.born.add(listenFor(n.config)))
	}
	switch {
	case heard != 0 && now < heard.add(n.deadtime()):
		n.wake(heard.add(n.deadtime()))
		n.dropAlone()
		return
	case n.config.isWitness(n.name), n.leaving, n.beaten(), n.state.Maintenance != nil, o == nil || o.Boot == "":
		n.dropAlone()
		return
	case p.better != 0:
		n.dropAlone() // what this node knows is older than what was decided there
		return
	case n.unconfirmed(now) != "":
		n.dropAlone() // it may be this node that is cut off: needs_ping
		return
	case now < n.blindUntil, now < lost:
		n.wake(max(n.blindUntil, lost))
		return
	}
	probe := !n.opt.Joined // it fences nobody, but may ask
	at := max(n.fence.again, lost)
	if !probe && !headStart(n.state, n.config, n.name, other) {
		at = max(at, lost.add(n.config.headStartWait(other)))
	}
	if now < at {
		n.wake(at)
		return
	}
	if n.fenceRun(other) == nil {
		n.beginRun(&fenceRun{node: other, boot: o.Boot, asker: n.name, probe: probe, why: fmt.Sprintf("%s is silent for %s, and two_node = \"fence\"", other, silenceText(n.peers.silence(now, other)))})
	}
}

func silenceText(d time.Duration) string {
	if d > 24*time.Hour {
		return "as long as this daemon runs"
	}
	return d.Round(time.Millisecond).String()
}

// dropAlone ends what this node saw to alone and nobody asked it for.
func (n *node) dropAlone() {
	n.fence.failed, n.fence.reason, n.fence.again = 0, "", 0
	for _, r := range slices.Clone(n.fence.runs) {
		if r.id == 0 && r.asker == n.name {
			n.dropRun(r)
		}
	}
}

// monitorDevices looks after the devices that this node may need one day, so that a dead one is known before.
func (n *node) monitorDevices(now instant) {
	if n.config.isWitness(n.name) || n.config.node(n.name) == nil {
		n.fence.health = nil
		return
	}
	n.fence.health = slices.DeleteFunc(n.fence.health, func(h *deviceHealth) bool {
		f := n.config.fence(h.device)
		return f == nil || !f.neededBy(n.name)
	})
	for i := range n.config.Fences {
		if f := &n.config.Fences[i]; f.neededBy(n.name) {
			n.monitorDevice(now, f)
		}
	}
}

func (n *node) monitorDevice(now instant, f *FenceConfig) {
	i := slices.IndexFunc(n.fence.health, func(h *deviceHealth) bool { return h.device == f.Name })
	if i < 0 {
		n.fence.health = append(n.fence.health, &deviceHealth{device: f.Name, due: now})
		i = len(n.fence.health) - 1
	}
	h := n.fence.health[i]
	if h.call == 0 && now >= h.due {
		h.due = now.add(f.Monitor.Timeout.D() + fenceSlack)
		h.call = n.callDevice(now, &fenceStep{Device: *f, Action: fenceMonitor, Timeout: f.Monitor.Timeout.D()})
	} else if now >= h.due {
		n.opt.Fencer.CancelFence(h.call)
		h.call, h.known, h.err, h.due = 0, true, "its monitor does not come back", now.add(f.Monitor.Interval.D())
	}
	n.wake(h.due)
	n.reportDevice(now, h)
}

// hushMonitor: some devices talk to one at a time, and fencing goes first.
func (n *node) hushMonitor(device string) {
	for _, h := range n.fence.health {
		if h.device == device && h.call != 0 {
			n.opt.Fencer.CancelFence(h.call)
			h.call = 0
		}
	}
}

// reportDevice has the state say what this node knows.
func (n *node) reportDevice(now instant, h *deviceHealth) {
	if !h.known || n.state == nil || !n.joined || !n.hasQuorum() {
		return
	}
	told := ""
	for _, d := range n.state.Devices {
		if d.Device == h.device && d.Node == n.name {
			told = d.Reason
		}
	}
	if told != h.err {
		n.propose(now, Entry{Kind: entryDevice, Node: n.name, Resource: h.device, Reason: h.err})
	}
}
