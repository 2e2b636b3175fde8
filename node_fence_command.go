// What does an operator want fenced, or tested? `hactl fence NODE` has a node cut off, whether it is lost or not; `hactl
// fence test` asks each device whether it would do, and never turns anything off.

package main

import (
	"fmt"
	"slices"
	"strings"
)

func (n *node) beginFence(now instant, w *waiter) (*waiter, error) {
	c := w.command
	x := n.state.node(c.Node)
	devices := n.config.fencesOf(c.Node)
	f := n.state.fence(c.Node)
	switch {
	case x == nil || c.Node == n.name:
		return nil, &hintError{msg: fmt.Sprintf("%q is not another node of this cluster", c.Node), code: exitUsage}
	case len(devices) == 0:
		return nil, &hintError{msg: c.Node + " has no fence device", hint: "add a [[fence]] for it; if you have switched it off yourself: hactl confirm-dead " + c.Node}
	case f != nil && f.Phase == fenceConfirmed:
		w.say(Progress{Text: fmt.Sprintf("%s was fenced already by %s and has not joined since: %s", c.Node, f.Helper, f.Reason)})
		return nil, nil
	case !n.opt.Joined:
		return nil, &hintError{msg: n.name + " has not been joined since its boot: it fences nobody", hint: "hactl status"}
	case !n.hasQuorum() && !n.mayForceOver(c.Node):
		return nil, n.noMajority()
	}
	if !c.Force {
		n.sayBeforeFence(now, w, devices)
		return nil, nil
	}
	w.finish = func(instant) (string, bool, error) { return n.fenceProgress(c.Node) }
	if !n.hasQuorum() {
		if r := n.fenceRun(c.Node); r != nil {
			n.dropRun(r)
		}
		n.beginRun(&fenceRun{node: c.Node, boot: x.Boot, asker: c.By, why: "asked for by " + c.By})
		w.applied = true
		return w, nil
	}
	if f != nil && f.Phase == fenceAsked {
		w.applied = true // it is under way
		return w, nil
	}
	w.entry.Kind, w.entry.Boot, w.entry.On, w.entry.Why = entryFence, x.Boot, true, "asked for by "+c.By
	if f != nil {
		w.entry.Base = f.ID
	}
	r := &ruling{s: n.state, v: n.view(now), d: &Decision{}}
	if w.entry.Helper = r.helperFor(c.Node, nil); w.entry.Helper == "" {
		return nil, &hintError{msg: "no node can fence " + c.Node + ": a full node is needed that has joined", hint: "hactl status"}
	}
	return w, nil
}

// sayBeforeFence tells the operator what it would mean.
func (n *node) sayBeforeFence(now instant, w *waiter, devices []*FenceConfig) {
	node := w.command.Node
	if on := n.stillHeard(now, node); on != "" {
		w.say(Progress{Text: fmt.Sprintf("%s is alive: it is heard on %s; it will be cut off without a warning", node, on)})
	} else {
		w.say(Progress{Text: n.lastContact(now, node)})
	}
	var owned, names []string
	for i := range n.state.Groups {
		if g := &n.state.Groups[i]; g.Owner == node {
			owned = append(owned, g.Name)
		}
	}
	for _, d := range devices {
		names = append(names, fmt.Sprintf("%s (level %d)", d.Name, d.Level))
	}
	if len(owned) > 0 {
		w.say(Progress{Text: fmt.Sprintf("it owns %s, which others take over once it is off", strings.Join(owned, ", "))})
	}
	w.say(Progress{Text: "its devices: " + strings.Join(names, ", ")})
}

// fenceProgress is how far the fencing of a node is.
func (n *node) fenceProgress(node string) (text string, done bool, err error) {
	f, r := n.state.fence(node), n.fenceRun(node)
	gaveUp := &hintError{msg: node + " could not be fenced", hint: "hactl fence test " + node + "; if you switch it off yourself: hactl confirm-dead " + node}
	switch {
	case f != nil && f.Phase == fenceConfirmed:
		return fmt.Sprintf("%s is off: %s", node, f.Reason), true, nil
	case r != nil && r.doing(n.config) != "":
		return "fencing " + node + ": " + r.doing(n.config), false, nil
	case f != nil && f.Phase == fenceFailed:
		return fmt.Sprintf("%s could not: %s", f.Helper, f.Reason), false, nil // another may be asked, or C10 gives up
	case f != nil:
		return fmt.Sprintf("%s is fencing %s", f.Helper, node), false, nil
	case r != nil:
		return node + " is off; waiting for this node to go on alone", false, nil
	case n.fence.reason != "" && !n.hasQuorum():
		gaveUp.msg += ": " + n.fence.reason
	default:
		for _, e := range slices.Backward(n.state.History) {
			if e.ID == eventFenceFailed && e.Node == node {
				gaveUp.msg = e.Text
				break
			}
		}
	}
	return "", false, gaveUp
}

// fenceTest is one `hactl fence test` on its way: its calls, one after the other.
type fenceTest struct {
	steps []fenceStep
	at    int
	call  uint64 // under way; 0: none
	bad   int
	say   func(Progress)
}

func (n *node) beginFenceTest(w *waiter) (*waiter, error) {
	node := w.command.Node
	t := &fenceTest{say: w.say}
	for i := range n.config.Fences {
		f := &n.config.Fences[i]
		if node != "" && !f.fences(node) || node == "" && !f.neededBy(n.name) {
			continue
		}
		t.steps = append(t.steps, fenceStep{Device: *f, Action: fenceMonitor, Timeout: f.Monitor.Timeout.D()})
		for _, target := range f.targets() {
			if target == node || node == "" && target != n.name {
				t.steps = append(t.steps, fenceStep{Device: *f, Node: target, Action: fenceStatus, Timeout: f.Timeout.D()})
			}
		}
	}
	if len(t.steps) == 0 {
		whom := "any other node"
		if node != "" {
			whom = node
		}
		return nil, &hintError{msg: "there is no fence device for " + whom, hint: "add a [[fence]] to the config"}
	}
	n.fence.tests = append(n.fence.tests, t)
	w.applied = true
	w.finish = func(instant) (string, bool, error) {
		if t.at < len(t.steps) {
			return "", false, nil
		}
		n.fence.tests = slices.DeleteFunc(n.fence.tests, func(x *fenceTest) bool { return x == t })
		if t.bad > 0 {
			return "", false, &hintError{msg: fmt.Sprintf("%d of %d calls failed from %s", t.bad, len(t.steps), n.name), hint: "mend the device, its options or its password file, and test again"}
		}
		return fmt.Sprintf("all %d calls went well from %s; nothing was turned off", len(t.steps), n.name), true, nil
	}
	return w, nil
}

// next is the call that is due, or nil.
func (t *fenceTest) next() *fenceStep {
	if t.call != 0 || t.at >= len(t.steps) {
		return nil
	}
	s := t.steps[t.at]
	return &s
}

func (t *fenceTest) answer(d fenceDone) {
	if t.call == 0 || d.ID != t.call {
		return
	}
	t.call = 0
	t.at++
	what, result := d.Device.Name+" monitor", "it answers"
	if d.Action == fenceStatus {
		what, result = d.Device.Name+" status of "+d.Node, d.Power
	}
	if d.Err != "" {
		t.bad++
		result = "FAILED: " + d.Err
	}
	t.say(Progress{Text: fmt.Sprintf("%s: %s (%s)", what, result, roundDuration(d.Took))})
}
