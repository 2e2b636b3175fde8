// What does an entry change? Apply is the replicated half of the engine: the same state and the same entry give the
// same result on every node, whatever the hour. An entry whose precondition does not hold changes nothing but the
// index and the clock, so that late and repeated proposals are harmless. Pure: no clock, no I/O, no goroutine, no map.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Apply changes s by one entry. It returns the events that it added to the history, and why the entry was refused if
// it was.
func Apply(s *State, index uint64, e *Entry) (events []Event, refused string) {
	s.Index = index
	s.Clock = max(s.Clock, e.Clock)
	a := &applying{s: s, e: e}
	if e.Request != 0 {
		if slices.Contains(s.Requests, e.Request) {
			return nil, "it was applied already"
		}
		s.Requests = append(s.Requests, e.Request)
		if over := len(s.Requests) - requestMax; over > 0 {
			s.Requests = slices.Clone(s.Requests[over:])
		}
	}
	switch e.Kind {
	case entryFound:
		a.found()
	case entryConfig:
		a.config()
	case entryJoin:
		a.join()
	case entryNode:
		a.liveness()
	case entryMember:
		a.member()
	case entryLeave:
		a.leave()
	case entryFeature:
		a.feature()
	case entryPlace:
		a.place()
	case entryRevoke:
		a.revoke()
	case entryFree:
		a.free()
	case entryStarted:
		a.started()
	case entryStopped:
		a.stopped()
	case entryFailure:
		a.failure()
	case entryUnfit:
		a.unfit()
	case entryEnforce:
		a.enforce()
	case entryReach:
		a.reach()
	case entryRetry:
		a.retry()
	case entryExpire:
		a.expire()
	case entryPin, entryUnpin:
		a.pin()
	case entryStandby:
		a.standby()
	case entryMaintenance:
		a.maintenance()
	case entryCleanup:
		a.cleanup()
	case entryConfirmDead:
		a.confirmDead()
	case entryFence:
		a.askFence()
	case entryFenced:
		a.fenced()
	case entryUnfence:
		a.unfence()
	case entryDevice:
		a.device()
	case entryMark:
		a.markStale()
	case entryUnmark:
		a.unmark()
	case entryResolve:
		a.resolve()
	default:
		a.refuse("no entry of kind %q is known at feature level %d", e.Kind, s.Feature)
	}
	s.History = append(s.History, a.events...)
	if over := len(s.History) - historyMax; over > 0 {
		s.History = slices.Clone(s.History[over:]) // a clone, so that the old array can go
	}
	return a.events, a.refused
}

// applying is one entry on its way into the state.
type applying struct {
	s       *State
	e       *Entry
	events  []Event
	refused string
}

func (a *applying) refuse(format string, args ...any) {
	a.refused = fmt.Sprintf(format, args...)
}

func (a *applying) event(id, node, group, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	a.events = append(a.events, Event{Index: a.s.Index, Clock: a.s.Clock, Wall: a.e.Wall, ID: id, Node: node, Group: group, Text: text})
}

func (a *applying) mark() *Mark { return &Mark{By: a.e.By, Clock: a.s.Clock, Wall: a.e.Wall} }

// theNode is the entry's node, or nil and a refusal.
func (a *applying) theNode() *NodeState {
	n := a.s.node(a.e.Node)
	if n == nil {
		a.refuse("no node %q", a.e.Node)
	}
	return n
}

func (a *applying) theGroup() *GroupState {
	g := a.s.group(a.e.Group)
	if g == nil {
		a.refuse("no group %q", a.e.Group)
	}
	return g
}

// found begins a cluster, or a new incarnation of it: the founder is the only member.
func (a *applying) found() {
	inc := a.e.Incarnation
	if inc == nil || inc.Counter <= a.s.Incarnation.Counter {
		a.refuse("incarnation is not newer")
		return
	}
	a.s.Incarnation = *inc
	if a.s.node(a.e.Node) == nil {
		a.addNode(a.e.Node)
	}
	for i := range a.s.Nodes {
		n := &a.s.Nodes[i]
		n.Voter = n.Name == a.e.Node
		if n.Voter {
			n.Member = a.e.Member
		} else {
			n.Member, n.Joined, n.Session = 0, false, 0 // its old id voted in the parent; it comes back under a new one
		}
	}
	for i := range a.s.Groups {
		a.s.Groups[i].Unleased = a.s.Groups[i].Owner != "" && a.s.Groups[i].Owner != a.e.Node
	}
	a.s.Fences = slices.DeleteFunc(a.s.Fences, func(f FenceState) bool { return f.Phase != fenceConfirmed }) // whoever was asked is not here
	a.s.ConfIndex = a.s.Index
	if inc.Counter == 1 {
		a.s.Bootstrap = a.e.On
		a.s.Feature = a.e.Feature
		a.event(eventFounded, a.e.Node, "", "%s founded the cluster", a.e.Node)
		return
	}
	a.event(eventForced, a.e.Node, "", "%s went on alone as incarnation %d, forced by %s: %s", a.e.Node, inc.Counter, inc.By, inc.Why)
}

func (a *applying) addNode(name string) {
	i, found := slices.BinarySearchFunc(a.s.Nodes, name, func(n NodeState, name string) int { return strings.Compare(n.Name, name) })
	if !found {
		a.s.Nodes = slices.Insert(a.s.Nodes, i, NodeState{Name: name})
	}
}

func (a *applying) addGroup(name string) *GroupState {
	i, found := slices.BinarySearchFunc(a.s.Groups, name, func(g GroupState, name string) int { return strings.Compare(g.Name, name) })
	if !found {
		a.s.Groups = slices.Insert(a.s.Groups, i, GroupState{Name: name, Phase: phaseFree, Since: a.s.Clock, Wall: a.e.Wall})
	}
	return &a.s.Groups[i]
}

// config makes the next generation. What vanished from the file stays in the state until it is stopped.
func (a *applying) config() {
	s, next := a.s, a.e.Config
	if next == nil || next.Effective == nil {
		a.refuse("config entry without a config")
		return
	}
	if a.e.Base != s.Config.Generation {
		a.refuse("it was made from generation %d, and generation %d is in force", a.e.Base, s.Config.Generation)
		return
	}
	if next.Hash == s.Config.Hash {
		a.refuse("it equals generation %d", s.Config.Generation)
		return
	}
	old := s.Config
	s.Config = *next
	s.Config.Generation = old.Generation + 1
	s.Config.By, s.Config.Wall, s.Config.Clock = a.e.By, a.e.Wall, s.Clock
	s.Config.LongestL = max(old.LongestL, next.Effective.lease())
	for _, n := range next.Effective.Nodes {
		a.addNode(n.Name)
	}
	for _, g := range next.Effective.Groups {
		if old.Effective != nil && !old.Effective.group(g.Name).sameResources(&g) {
			for i := range s.Nodes { // what was said of it before says nothing of what it is now
				s.Nodes[i].Unfit = slices.DeleteFunc(s.Nodes[i].Unfit, func(u Unfit) bool { return u.Group == g.Name })
			}
		}
		gs := a.addGroup(g.Name)
		gs.Removed, gs.Last = false, nil
		if gs.Owner != "" {
			gs.hold(&g, true)
		}
	}
	for i := range s.Groups {
		if g := &s.Groups[i]; next.Effective.group(g.Name) == nil && !g.Removed {
			g.Removed = true
			if old.Effective != nil {
				g.Last = old.Effective.group(g.Name)
			}
		}
	}
	s.Groups = slices.DeleteFunc(s.Groups, func(g GroupState) bool { return g.Removed && g.Phase == phaseFree })
	s.Nodes = slices.DeleteFunc(s.Nodes, func(n NodeState) bool { return next.Effective.node(n.Name) == nil && n.Member == 0 })
	s.Resources = slices.DeleteFunc(s.Resources, func(r ResourceState) bool {
		g := next.Effective.group(r.Group)
		return g == nil || g.resource(r.Resource) == nil || next.Effective.node(r.Node) == nil
	})
	s.forgetDevices()
	s.Stale = slices.DeleteFunc(s.Stale, func(m StaleCopy) bool { return next.Effective.node(m.Node) == nil })
	for i := range s.Groups {
		if g := &s.Groups[i]; g.Pin != nil && next.Effective.node(g.Pin.Node) == nil {
			a.event(eventUnpinned, g.Pin.Node, g.Name, "pin of %s lifted: %s is no longer in the config", g.Name, g.Pin.Node)
			g.Pin = nil
		}
	}
	for i := range s.Nodes { // of another target under the same name nothing is known
		s.Nodes[i].Reach = slices.DeleteFunc(s.Nodes[i].Reach, func(r Reach) bool {
			p, before := next.Effective.ping(r.Ping), old.Effective.ping(r.Ping)
			return p == nil || before == nil || p.target() != before.target()
		})
	}
	a.event(eventConfig, "", "", "config generation %d by %s", s.Config.Generation, a.e.By)
}

// join begins a session of a node. Base makes a late copy of an older session's join harmless. What the node read back
// as not running, it does not run: it starts nothing before this entry is applied.
func (a *applying) join() {
	n := a.theNode()
	if n == nil {
		return
	}
	if n.Member == 0 || n.Member != a.e.Member {
		a.refuse("%s is no member under the id %x", n.Name, a.e.Member)
		return
	}
	if a.e.Base != n.Session || a.e.Session == n.Session {
		a.refuse("session %x does not follow %x", a.e.Session, n.Session)
		return
	}
	if n.Left {
		n.Flaps = 0 // who says goodbye and comes back does not flap
	}
	n.Reach = nil
	rebooted := n.Boot != a.e.Boot
	n.Session, n.Boot, n.Feature, n.Joined, n.Left, n.Serial = a.e.Session, a.e.Boot, a.e.Feature, true, false, 0
	n.Since = a.s.Clock
	if f := a.s.fence(n.Name); f != nil && (rebooted || f.Phase == fenceConfirmed) {
		a.dropFence(n.Name) // it spoke of the boot before, or was wrong: either way it proves nothing of what comes now
	}
	n.Enforce, n.Enforced = Enforcement{}, a.s.Index
	if a.e.Enforce != nil {
		n.Enforce = *a.e.Enforce
	}
	for i := range a.s.Groups {
		g := &a.s.Groups[i]
		if g.Owner != n.Name {
			continue
		}
		if slices.Contains(a.e.Running, g.Name) {
			// Still unleased, if it was: who joins may not have learnt yet that maintenance is over.
			if g.Proof == proofFence || g.Proof == proofDead {
				g.Proof = "" // who vouched for its death was wrong
			}
			continue
		}
		g.Unleased = false
		if g.Phase == phaseBlocked && rebooted {
			a.bar(g)
			a.setPhase(g, phaseRevoked)
			g.Proof = ""
		}
		if g.Phase == phaseRevoked && g.Proof == "" {
			g.Proof, g.Stopped = proofBoot, true
		}
	}
	how := "joined"
	if rebooted {
		how = "joined after a boot"
	}
	if len(a.e.Running) > 0 {
		how += ", running " + strings.Join(a.e.Running, ", ")
	}
	a.event(eventJoined, n.Name, "", "%s %s", n.Name, how)
}

func (a *applying) liveness() {
	n := a.theNode()
	if n == nil {
		return
	}
	switch {
	case a.e.On && n.Lost != nil:
		n.Lost, n.Since = nil, a.s.Clock
		a.event(eventBack, n.Name, "", "%s is heard again", n.Name)
	case !a.e.On && n.Lost == nil:
		n.Lost = a.mark()
		n.Flaps, n.Flapped = counted(n.Flaps, n.Flapped, a.s.Clock), a.s.Clock
		a.event(eventLost, n.Name, "", "%s is lost: %s", n.Name, a.e.Why)
		if n.Flaps >= flapLimit {
			a.event(eventFlaps, n.Name, "", "%s comes and goes (%s): once back it takes no group before it has been there for %s, unless no other node may",
				n.Name, lostTimes(n.Flaps), flapWait(n.Flaps-flapLimit))
		}
	default:
		a.refuse("no change")
	}
}

// member follows a committed conf change of raft, on which it rides.
func (a *applying) member() {
	if a.s.Config.Effective != nil && a.s.Config.Effective.node(a.e.Node) == nil && a.e.Member != 0 {
		a.addNode(a.e.Node)
	}
	n := a.theNode()
	if n == nil {
		return
	}
	a.s.ConfIndex = a.s.Index
	if a.e.Member == 0 {
		a.event(eventMember, n.Name, "", "%s is no longer a member: %s", n.Name, a.e.Why)
		n.Member, n.Voter, n.Joined, n.Session = 0, false, false, 0
		if a.s.Config.Effective == nil || a.s.Config.Effective.node(n.Name) == nil {
			a.s.Nodes = slices.DeleteFunc(a.s.Nodes, func(x NodeState) bool { return x.Name == a.e.Node })
		}
		return
	}
	if n.Member != a.e.Member {
		n.Joined, n.Session = false, 0 // the same process may come back under a new id: it joins anew
	}
	n.Member, n.Voter = a.e.Member, a.e.Voter
	role := "learner"
	if n.Voter {
		role = "voter"
	}
	a.event(eventMember, n.Name, "", "%s is a %s: %s", n.Name, role, a.e.Why)
}

// leave is a clean goodbye: what is not in the list is stopped, and stays so until the node joins again.
func (a *applying) leave() {
	n := a.theNode()
	if n == nil {
		return
	}
	if n.Session != a.e.Session || n.Left {
		a.refuse("%s has begun another session or has left", n.Name)
		return
	}
	n.Left = true
	for i := range a.s.Groups {
		g := &a.s.Groups[i]
		if g.Owner != n.Name {
			continue
		}
		if slices.Contains(a.e.Running, g.Name) {
			g.Unleased = true
			continue
		}
		a.bar(g)
		a.setPhase(g, phaseRevoked)
		g.Proof, g.Stopped = proofLeave, true
	}
	a.event(eventLeft, n.Name, "", "%s left", n.Name)
}

func (a *applying) feature() {
	if a.e.Feature <= a.s.Feature {
		a.refuse("feature level is %d already", a.s.Feature)
		return
	}
	a.s.Feature = a.e.Feature
	a.event(eventFeature, "", "", "feature level %d", a.s.Feature)
}

func (a *applying) setPhase(g *GroupState, phase string) {
	g.Phase, g.Since, g.Wall = phase, a.s.Clock, a.e.Wall
	if a.e.Why != "" {
		g.Rule, g.Why = a.e.Rule, a.e.Why
	}
}

// bar notes that the owner must never be granted this epoch again.
func (a *applying) bar(g *GroupState) {
	r := Revocation{Node: g.Owner, Epoch: g.Epoch, Index: a.s.Index}
	i, found := slices.BinarySearchFunc(g.Revoked, g.Owner, func(r Revocation, node string) int { return strings.Compare(r.Node, node) })
	switch {
	case !found:
		g.Revoked = slices.Insert(g.Revoked, i, r)
	case g.Revoked[i].Epoch < r.Epoch:
		g.Revoked[i] = r
	}
}

func (a *applying) place() {
	g, n := a.theGroup(), a.theNode()
	if g == nil || n == nil {
		return
	}
	free := g.Phase == phaseFree
	proven := g.Phase == phaseRevoked && (g.Proof != "" || a.e.Proof == proofLease || a.e.Proof == proofIgnore)
	if a.e.Epoch != g.Epoch || !free && !proven {
		a.refuse("%s is %s at epoch %d", g.Name, g.Phase, g.Epoch)
		return
	}
	if n.Member == 0 || !n.Joined || n.Left || a.s.Config.Effective.node(n.Name) == nil || a.s.Config.Effective.node(n.Name).witness() {
		a.refuse("%s cannot own a group", n.Name)
		return
	}
	if a.e.Proof == proofLease && g.Proof == "" && !a.s.leaseProves(g) {
		a.refuse("%s may still run %s: nothing ends it there", g.Owner, g.Name)
		return
	}
	if m := a.s.staleCopy(a.s.Config.Effective.group(g.Name), n.Name); m != nil {
		a.refuse("%s", m)
		return
	}
	clean := g.Clean
	if !free {
		clean = g.Stopped
		if g.Rule == "G10" && g.Owner != n.Name {
			a.bounce(g, n.Name)
		}
	}
	c := a.s.Config.Effective.group(g.Name)
	g.hold(c, false)
	a.s.LastEpoch++
	g.Owner, g.Epoch, g.Clean, g.Stopped, g.Proof, g.Unleased = n.Name, a.s.LastEpoch, clean, false, "", false
	a.setPhase(g, phasePlaced)
	a.event(eventPlaced, n.Name, g.Name, "%s goes to %s: %s", g.Name, n.Name, a.e.Why)
}

// bounce counts a move on the ground of failures.
func (a *applying) bounce(g *GroupState, to string) {
	g.Bounces, g.Bounced = counted(g.Bounces, g.Bounced, a.s.Clock), a.s.Clock
	if g.Bounces >= bounceLimit {
		a.event(eventBounces, to, g.Name, "%s fails on one node after the other (moved %s): it moves again in %s at the earliest, and is tried where it is until then",
			g.Name, times(g.Bounces), flapWait(g.Bounces-bounceLimit))
	}
}

func (a *applying) revoke() {
	g := a.theGroup()
	if g == nil {
		return
	}
	if g.Epoch != a.e.Epoch || g.Owner != a.e.Node || g.Phase != phasePlaced && g.Phase != phaseStarted {
		a.refuse("%s is %s on %q at epoch %d", g.Name, g.Phase, g.Owner, g.Epoch)
		return
	}
	a.bar(g)
	a.setPhase(g, phaseRevoked)
	g.Proof, g.Stopped = "", false
	a.event(eventRevoked, g.Owner, g.Name, "%s must stop on %s: %s", g.Name, g.Owner, a.e.Why)
}

func (a *applying) free() {
	g := a.theGroup()
	if g == nil {
		return
	}
	if g.Epoch != a.e.Epoch || g.Phase != phaseRevoked || g.Proof == "" && (a.e.Proof == "" || a.e.Proof == proofLease && !a.s.leaseProves(g)) {
		a.refuse("%s is %s at epoch %d", g.Name, g.Phase, g.Epoch)
		return
	}
	a.event(eventFreed, g.Owner, g.Name, "%s runs nowhere: %s", g.Name, a.e.Why)
	a.setPhase(g, phaseFree)
	g.Owner, g.Clean, g.Stopped, g.Proof, g.Stateful, g.Guards = "", g.Stopped, false, "", false, nil
	if g.Removed {
		a.event(eventRemoved, "", g.Name, "%s is forgotten: it is no longer in the config", g.Name)
		a.s.Groups = slices.DeleteFunc(a.s.Groups, func(x GroupState) bool { return x.Name == a.e.Group })
	}
}

// fromOwner checks that the entry speaks of the group's present epoch and comes from a living session of its owner.
func (a *applying) fromOwner() *GroupState {
	g, n := a.theGroup(), a.theNode()
	if g == nil || n == nil {
		return nil
	}
	if g.Owner != n.Name || g.Epoch != a.e.Epoch || n.Session != a.e.Session {
		a.refuse("%s is %s on %q at epoch %d", g.Name, g.Phase, g.Owner, g.Epoch)
		return nil
	}
	return g
}

func (a *applying) started() {
	g := a.fromOwner()
	if g == nil {
		return
	}
	if a.s.node(g.Owner).Left {
		a.refuse("%s has left: what it runs no daemon stops when its lease ends", g.Owner)
		return
	}
	c := a.s.Config.Effective.group(g.Name)
	relaxes := g.relaxedBy(c) && a.e.Base == a.s.Config.Generation
	obeys := g.Unleased || relaxes
	g.Unleased = false
	if relaxes {
		g.hold(c, false)
	}
	if g.Phase == phaseStarted && obeys {
		return // its owner has seen the end of maintenance, or an edit, and lives by its lease again
	}
	if g.Phase != phasePlaced {
		a.refuse("%s is %s", g.Name, g.Phase)
		return
	}
	why, rule := g.Why, g.Rule
	a.setPhase(g, phaseStarted)
	g.Why, g.Rule = why, rule // the reason for the placement stays
	a.event(eventStarted, g.Owner, g.Name, "%s runs on %s", g.Name, g.Owner)
}

func (a *applying) stopped() {
	g := a.fromOwner()
	if g == nil {
		return
	}
	if g.Phase != phaseRevoked || g.Stopped {
		a.refuse("%s is %s", g.Name, g.Phase)
		return
	}
	g.Stopped, g.Proof = true, proofStopped
	a.event(eventStopped, g.Owner, g.Name, "%s is stopped on %s", g.Name, g.Owner)
}

// failure counts one failed operation. What it leads to is decided by the rules; only a failed stop speaks for itself:
// the group may still run there, so it starts nowhere else.
func (a *applying) failure() {
	g, n := a.theGroup(), a.theNode()
	if g == nil || n == nil {
		return
	}
	if n.Session != a.e.Session || a.e.Serial <= n.Serial {
		a.refuse("failure %d of session %x does not follow %d", a.e.Serial, a.e.Session, n.Serial)
		return
	}
	n.Serial = a.e.Serial
	onFail := ""
	if c := a.s.Config.Effective.group(g.Name); c != nil {
		if rc := c.resource(a.e.Resource); rc != nil {
			onFail = rc.OnFail
		}
	}
	r := a.remember(g.Name, a.e.Resource, n.Name)
	r.Op, r.Reason, r.Tail, r.Clock, r.Wall = a.e.Op, a.e.Reason, a.e.Tail, a.s.Clock, a.e.Wall
	count := "ignored"
	if onFail != "ignore" || a.e.Op != opMonitor {
		r.Failcount++
		count = fmt.Sprintf("failure %d", r.Failcount)
	}
	// What a caretaker tells late and has overcome since is counted, and no reason to leave what runs or to touch it no more.
	r.Fatal = r.Fatal || !a.e.On && (a.e.Op == opStart || a.e.Op == opMonitor && onFail == "move")
	a.event(eventFailure, n.Name, g.Name, "%s of %s failed on %s (%s): %s", a.e.Op, a.e.Resource, n.Name, count, a.e.Reason)
	if g.Owner != n.Name || g.Epoch != a.e.Epoch || g.Phase == phaseBlocked || a.e.On {
		return
	}
	if a.e.Op == opStop || onFail == "block" && a.e.Op == opMonitor {
		a.setPhase(g, phaseBlocked)
		g.Why = fmt.Sprintf("%s of %s failed on %s: %s", a.e.Op, a.e.Resource, n.Name, a.e.Reason)
		a.event(eventBlocked, n.Name, g.Name, "%s is blocked: %s; %smend it, then: hactl cleanup %s", g.Name, g.Why, fenceHint(a.s.Config.Effective, n.Name), g.Name)
	}
}

// remember is the record of a resource on a node, made when there is none.
func (a *applying) remember(group, resource, node string) *ResourceState {
	i, found := slices.BinarySearchFunc(a.s.Resources, ResourceState{Group: group, Resource: resource, Node: node}, func(x, y ResourceState) int {
		return strings.Compare(x.Group+"\x00"+x.Resource+"\x00"+x.Node, y.Group+"\x00"+y.Resource+"\x00"+y.Node)
	})
	if !found {
		a.s.Resources = slices.Insert(a.s.Resources, i, ResourceState{Group: group, Resource: resource, Node: node})
	}
	return &a.s.Resources[i]
}

func (a *applying) unfit() {
	n := a.theNode()
	if n == nil {
		return
	}
	i, found := slices.BinarySearchFunc(n.Unfit, a.e.Group, func(u Unfit, group string) int { return strings.Compare(u.Group, group) })
	switch {
	case a.e.Reason == "" && found:
		n.Unfit = slices.Delete(n.Unfit, i, i+1)
		a.event(eventFit, n.Name, a.e.Group, "%s can run %s again", n.Name, a.e.Group)
	case a.e.Reason != "" && !found:
		n.Unfit = slices.Insert(n.Unfit, i, Unfit{a.e.Group, a.e.Reason})
		a.event(eventUnfit, n.Name, a.e.Group, "%s cannot run %s: %s", n.Name, a.e.Group, a.e.Reason)
	case a.e.Reason != "" && n.Unfit[i].Reason != a.e.Reason:
		n.Unfit[i].Reason = a.e.Reason
	default:
		a.refuse("no change")
	}
}

// reach takes what a node says of a target; every join begins anew, since what was so before may have changed.
func (a *applying) reach() {
	n := a.theNode()
	if n == nil {
		return
	}
	told := n.reach(a.e.Ping)
	if n.Session != a.e.Session || a.s.Config.Effective.ping(a.e.Ping) == nil || told != nil && (told.Reason == "") == (a.e.Reason == "") {
		a.refuse("no change of %q, or of another session", a.e.Ping)
		return
	}
	switch {
	case a.e.Reason != "":
		a.event(eventUnreached, n.Name, "", "%s does not reach %s: %s", n.Name, a.e.Ping, a.e.Reason)
	case told != nil:
		a.event(eventReached, n.Name, "", "%s reaches %s again", n.Name, a.e.Ping)
	}
	r := Reach{a.e.Ping, a.e.Reason, a.s.Clock}
	i, found := slices.BinarySearchFunc(n.Reach, a.e.Ping, func(r Reach, ping string) int { return strings.Compare(r.Ping, ping) })
	if found {
		n.Reach[i] = r
	} else {
		n.Reach = slices.Insert(n.Reach, i, r)
	}
}

// enforce takes what a node says that ends a lease there.
func (a *applying) enforce() {
	n := a.theNode()
	if n == nil {
		return
	}
	if n.Session != a.e.Session || a.e.Enforce == nil || n.Enforce.equal(a.e.Enforce) {
		a.refuse("no change, or of another session")
		return
	}
	if n.Enforced != a.e.Base { // a copy that comes late must not take back what was said since
		a.refuse("%s has said something else at %d, after %d", n.Name, n.Enforced, a.e.Base)
		return
	}
	was := n.Enforce
	n.Enforce, n.Enforced = *a.e.Enforce, a.s.Index
	if was.equalBut(&n.Enforce) {
		return // no news
	}
	a.event(eventEnforce, n.Name, "", "what ends a lease on %s: %s", n.Name, n.Enforce)
}

// retry gives the owner another try with what has used up its tries, since nobody else can take the group.
func (a *applying) retry() {
	g := a.theGroup()
	if g == nil {
		return
	}
	c, r := a.s.Config.Effective.group(g.Name), a.s.resource(g.Name, a.e.Resource, g.Owner)
	if g.Epoch != a.e.Epoch || g.Phase != phasePlaced && g.Phase != phaseStarted || c == nil || r == nil || !r.banned(c) || r.Clock != a.e.Until {
		a.refuse("%s is %s at epoch %d", g.Name, g.Phase, g.Epoch)
		return
	}
	r.Tries++
	r.Fatal = false
	if c.MigrationThreshold > 0 {
		r.Failcount = min(r.Failcount, c.MigrationThreshold-1)
	}
	a.event(eventRetry, g.Owner, g.Name, "%s", a.e.Why)
}

// expire forgets what is over its time: a failcount, a pin, the memory of a longer lease.
func (a *applying) expire() {
	switch {
	case a.e.Resource != "":
		r := a.s.resource(a.e.Group, a.e.Resource, a.e.Node)
		if r == nil || r.Clock != a.e.Until {
			a.refuse("no failures of %s on %s, or newer ones", a.e.Resource, a.e.Node)
			return
		}
		a.forget(a.e.Group, a.e.Resource, a.e.Node)
		a.event(eventExpired, a.e.Node, a.e.Group, "failures of %s on %s are forgotten: %s", a.e.Resource, a.e.Node, a.e.Why)
	case a.e.Group != "":
		g := a.theGroup()
		if g == nil {
			return
		}
		if g.Pin == nil || g.Pin.Until == 0 || g.Pin.Until != a.e.Until {
			a.refuse("no pin of %s is over its time", g.Name)
			return
		}
		a.event(eventUnpinned, g.Pin.Node, g.Name, "pin of %s to %s is over its time", g.Name, g.Pin.Node)
		g.Pin = nil
	default:
		if a.e.Epoch != a.s.Config.Generation {
			a.refuse("config generation is %d", a.s.Config.Generation)
			return
		}
		a.s.Config.LongestL = a.s.Config.Effective.lease()
		a.event(eventLeaseShorter, "", "", "no owner holds a lease longer than %s any more", a.s.Config.LongestL)
	}
}

// forget drops records; an empty resource or node stands for all.
func (a *applying) forget(group, resource, node string) {
	a.s.Resources = slices.DeleteFunc(a.s.Resources, func(r ResourceState) bool {
		return r.Group == group && (resource == "" || r.Resource == resource) && (node == "" || r.Node == node)
	})
}

func (a *applying) pin() {
	g := a.theGroup()
	if g == nil {
		return
	}
	if a.e.Kind == entryUnpin {
		if g.Pin == nil {
			a.refuse("%s is not pinned", g.Name)
			return
		}
		a.event(eventUnpinned, g.Pin.Node, g.Name, "pin of %s to %s lifted by %s", g.Name, g.Pin.Node, a.e.By)
		g.Pin = nil
		return
	}
	if a.theNode() == nil {
		return
	}
	g.Pin = &Pin{Node: a.e.Node, Until: a.e.Until, Mark: *a.mark()}
	a.event(eventPinned, a.e.Node, g.Name, "%s pinned to %s by %s%s", g.Name, a.e.Node, a.e.By, untilText(a.e.Until, a.s.Clock))
}

func untilText(until, now time.Duration) string {
	if until == 0 {
		return ""
	}
	return " for " + (until - now).Round(time.Second).String()
}

func (a *applying) standby() {
	n := a.theNode()
	if n == nil {
		return
	}
	switch {
	case a.e.On && n.Standby == nil:
		n.Standby = a.mark()
		a.event(eventStandby, n.Name, "", "%s set to standby by %s", n.Name, a.e.By)
	case !a.e.On && n.Standby != nil:
		n.Standby = nil
		a.event(eventOnline, n.Name, "", "%s set online by %s", n.Name, a.e.By)
	default:
		a.refuse("no change")
	}
}

func (a *applying) maintenance() {
	switch {
	case a.e.On && a.s.Maintenance == nil:
		a.s.Maintenance = a.mark()
		a.event(eventMaintenance, "", "", "maintenance on, by %s: nothing is started, stopped or moved", a.e.By)
	case !a.e.On && a.s.Maintenance != nil:
		a.s.Maintenance = nil
		for i := range a.s.Groups {
			// An owner that is out of reach by now still believes in maintenance and lets no lease end anything.
			a.s.Groups[i].Unleased = a.s.Groups[i].Unleased || a.s.Groups[i].Owner != ""
		}
		a.event(eventMaintained, "", "", "maintenance off, by %s", a.e.By)
	default:
		a.refuse("no change")
	}
}

// cleanup forgets failures. A blocked group goes back to where its stop is tried again.
func (a *applying) cleanup() {
	g := a.theGroup()
	if g == nil {
		return
	}
	a.forget(g.Name, a.e.Resource, a.e.Node)
	g.Bounces = 0
	if g.Phase == phaseBlocked && (a.e.Node == "" || a.e.Node == g.Owner) {
		a.bar(g)
		a.setPhase(g, phaseRevoked)
		g.Unleased = true // who is blocked ends with no lease: if it is out of reach now, it does not know of the cleanup
		g.Why = "cleaned up by " + a.e.By + ": its stop is tried again"
	}
	a.event(eventCleaned, a.e.Node, g.Name, "failures of %s forgotten by %s", g.Name, a.e.By)
}

// confirmDead takes an operator's word that a node runs nothing.
func (a *applying) confirmDead() {
	n := a.theNode()
	if n == nil {
		return
	}
	if a.e.Session != n.Session || n.Lost == nil && !n.Left && n.Joined {
		a.refuse("%s has joined since", n.Name)
		return
	}
	a.dropFence(n.Name)
	a.dead(n, proofDead)
	a.event(eventConfirmDead, n.Name, "", "%s confirmed dead by %s", n.Name, a.e.By)
}

// dead: the node runs nothing any more, by this proof.
func (a *applying) dead(n *NodeState, proof string) {
	n.Joined, n.Session = false, 0 // if it lives after all it must join anew
	for i := range a.s.Groups {
		g := &a.s.Groups[i]
		if g.Owner == n.Name && g.Phase != phaseFree {
			rule, why, kept := g.Rule, g.Why, g.Phase == phaseRevoked
			a.bar(g)
			a.setPhase(g, phaseRevoked)
			if g.Proof = proof; kept {
				g.Rule, g.Why = rule, why // the reason for the revoke stays
			}
		}
	}
}
