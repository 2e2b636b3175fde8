// What does this node propose? As leader, what the rules decide from its view of the cluster; on every node, what only
// it knows: that it has joined or leaves, and what became of its groups. A proposal is repeated until its entry is seen
// applied or has lost its point, which is harmless: entries check their preconditions.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// proposal is an entry on its way.
type proposal struct {
	key string
	at  instant
}

// key names what an entry is about, so that it is not proposed twice at once.
func (e *Entry) key() string {
	if e.Kind == entryEnforce { // what it says now must not wait for what it said before
		said, _ := json.Marshal(e.Enforce) // of such fields it cannot fail
		return fmt.Sprintf("%s/%s/%d/%s", e.Kind, e.Node, e.Base, said)
	}
	return fmt.Sprintf("%s/%s/%s/%s/%s/%s/%d/%d/%v/%x", e.Kind, e.Group, e.Resource, e.Peer, e.Ping, e.Node, e.Epoch, e.Serial, e.On, e.Request)
}

// repeatAfter is how long a proposal may take before it is made again.
func (n *node) repeatAfter() time.Duration {
	return max(n.deadtime()/4, 4*n.config.raftTick())
}

// propose makes a proposal unless the same is under way. It returns false when it could not even be sent.
func (n *node) propose(now instant, e Entry) bool {
	if n.cons == nil || n.state == nil {
		return false
	}
	key := e.key()
	i := slices.IndexFunc(n.proposals, func(p proposal) bool { return p.key == key })
	if i >= 0 && now.sub(n.proposals[i].at) < n.repeatAfter() {
		n.wake(n.proposals[i].at.add(n.repeatAfter()))
		return true
	}
	e.Clock, e.Wall = n.clusterClock(now), n.opt.Wall()
	if e.By == "" {
		e.By = n.name
	}
	data, err := json.Marshal(&e)
	if err != nil {
		n.log.Error("entry cannot be encoded", "event", "entry-unreadable", "kind", e.Kind, "err", err)
		return false
	}
	if err := n.cons.Propose(data); err != nil {
		if !errors.Is(err, errNoLeader) {
			n.log.Warn("proposal failed", "event", "proposal-failed", "kind", e.Kind, "err", err)
		}
		n.wake(now.add(n.config.raftTick()))
		return false
	}
	if i >= 0 {
		n.proposals[i].at = now
	} else {
		n.proposals = append(n.proposals, proposal{key, now})
	}
	n.wake(now.add(n.repeatAfter()))
	return true
}

// settleProposal forgets a proposal whose entry has come through the log.
func (n *node) settleProposal(e Entry, refused string) {
	key := e.key()
	n.proposals = slices.DeleteFunc(n.proposals, func(p proposal) bool { return p.key == key })
	for _, w := range n.waiters {
		if e.Request != 0 && w.request == e.Request && !w.applied { // a copy of it is refused
			w.applied, w.refused = true, refused
		}
	}
}

// lead lets the rules decide when this node leads; elsewhere they explain what it sees.
func (n *node) lead(now instant) {
	if n.state == nil || n.cons == nil || n.state.Config.Effective == nil {
		n.verdicts = nil
		return
	}
	n.proposals = slices.DeleteFunc(n.proposals, func(p proposal) bool { return now.sub(p.at) > 10*n.repeatAfter() })
	// Most events are heartbeats that change nothing: the rules run when something may have, and at each beat; on who does
	// not lead, where they are for people to read, less often while they would change nothing.
	leads := n.cons.Status().Role == roleLeader
	if now < n.decideAt && leads == n.led {
		n.wake(n.decideAt)
		return
	}
	v := n.view(now)
	d := Decide(n.state, v)
	n.verdicts, n.ruled = d.Verdicts, d.Cluster
	n.decideAt, n.led = now.add(n.config.Heartbeat.Interval.D()), leads
	if !leads && len(d.Entries) == 0 {
		n.decideAt = now.add(n.deadtime())
	}
	if d.Wake > now {
		n.decideAt = min(n.decideAt, d.Wake)
	}
	n.wake(n.decideAt)
	if !leads {
		return
	}
	if now < n.blindUntil {
		n.wake(n.blindUntil) // silence while this loop stood still is no silence
		return
	}
	for _, e := range d.Entries {
		n.propose(now, e)
	}
	if d.Conf != nil {
		n.changeMembers(now, d.Conf)
	}
	if d.Transfer != "" && d.Conf == nil && len(n.proposals) == 0 {
		n.handOver(now, d.Transfer)
	}
}

func (n *node) changeMembers(now instant, c *memberChange) {
	if n.confAt != 0 && now.sub(n.confAt) < n.repeatAfter() {
		return
	}
	n.confAt = now
	e := Entry{Kind: entryMember, Node: c.Node, Member: c.Add, Voter: c.Voter, Why: c.Why, By: n.name, Clock: n.clusterClock(now), Wall: n.opt.Wall()}
	context, err := json.Marshal(&e)
	if err != nil {
		return
	}
	ch := confChange{Context: context}
	if c.Remove != 0 {
		ch.Steps = append(ch.Steps, confStep{confRemove, c.Remove})
	}
	switch {
	case c.Add != 0 && c.Voter:
		ch.Steps = append(ch.Steps, confStep{confVoter, c.Add})
	case c.Add != 0:
		ch.Steps = append(ch.Steps, confStep{confLearner, c.Add})
	}
	if err := n.cons.ProposeConf(ch); err != nil {
		n.log.Debug("change of members not proposed", "node", c.Node, "err", err)
	}
	n.wake(now.add(n.repeatAfter()))
}

// transferPause keeps a node that cannot lead from being asked again and again: while leadership is on its way nothing
// can be proposed.
const transferPause = 30 * time.Second

func (n *node) handOver(now instant, to string) {
	if n.transfer != 0 && now.sub(n.transfer) < transferPause && !n.leaving {
		return
	}
	if n.leaving && n.transfer != 0 && now.sub(n.transfer) < n.deadtime() {
		return
	}
	n.transfer = now
	if err := n.cons.TransferLeader(n.state.node(to).Member); err != nil {
		n.log.Debug("leadership not handed over", "to", to, "err", err)
		return
	}
	n.log.Info("handing leadership over", "event", "leader-hand-over", "to", to)
}

// view is what this node knows beside the state.
func (n *node) view(now instant) *View {
	st := n.cons.Status()
	voters := n.names(st.Members.Voters)
	v := &View{Now: now, Clock: n.clusterClock(now), InForce: now.sub(n.configAt), Self: n.name, Alone: n.alone != 0 && n.alone == n.state.Incarnation.ID && n.config.Cluster.TwoNode == "ignore",
		ConfBusy: len(st.Members.Outgoing) > 0}
	progress := n.cons.Progress()
	v.Nodes, v.Groups = make([]NodeView, 0, len(n.state.Nodes)), make([]GroupView, 0, len(n.state.Groups))
	for i := range n.state.Nodes {
		s := &n.state.Nodes[i]
		v.Nodes = append(v.Nodes, n.viewNode(now, s, voters, progress))
	}
	for i := range n.state.Groups {
		v.Groups = append(v.Groups, n.viewGroup(now, &n.state.Groups[i], voters, n.names(st.Members.Outgoing), v.node(n.state.Groups[i].Owner)))
	}
	v.Founding = n.founding(now, v)
	return v
}

func (n *node) viewNode(now instant, s *NodeState, voters []string, progress []peerProgress) NodeView {
	if s.Name == n.name {
		return NodeView{Name: s.Name, Heard: true, Direct: true, Leaving: n.leaving, Sick: n.sick(now), Member: n.member,
			Session: n.opt.Session, CaughtUp: true, NoLease: n.noLeaseFor(now, s.Name, n.opt.Session, !n.config.isWitness(n.name) && !n.granted(now))}
	}
	p := n.peers.get(s.Name)
	age := n.peers.age(now, s.Name, voters, n.deadtime())
	age = min(age, now.sub(n.opt.Born)) // before this process nobody could be heard: that is no silence yet
	h := &p.beat
	x := NodeView{Name: s.Name, Age: age, Heard: age < n.deadtime(), Direct: p.hears(now, n.name, n.opt.Session, n.deadtime())}
	if p.beatAt == 0 {
		return x
	}
	x.Leaving = h.Flags&flagLeaving != 0
	x.Awaited = now < p.awaited(n.deadtime())
	x.Asks = h.Flags&flagBlank != 0 && h.Member != 0
	x.Member, x.Session = h.Member, p.session
	if h.Flags&flagSick != 0 {
		x.Sick = "it asks for no lease, its own hactl status says why"
	}
	x.NoLease = n.noLeaseFor(now, s.Name, p.session, now.sub(p.beatAt) < n.deadtime() && h.Flags&flagNoLease != 0 && h.Flags&(flagWitness|flagBlank) == 0)
	for _, q := range progress {
		if q.Member == s.Member {
			x.CaughtUp = q.CaughtUp
		}
	}
	return x
}

// noLeaseFor counts for how long a session of a node has said that no majority grants it anything. While members change
// nobody who has not applied the change can be granted anything: that time is not held against it.
func (n *node) noLeaseFor(now instant, node string, session uint64, says bool) time.Duration {
	i := slices.IndexFunc(n.noLease, func(x noLeaseSince) bool { return x.node == node })
	switch {
	case !says:
		if i >= 0 {
			n.noLease = slices.Delete(n.noLease, i, i+1)
		}
		return 0
	case i < 0:
		n.noLease = append(n.noLease, noLeaseSince{node, session, now})
		return 1
	case n.noLease[i].session != session:
		n.noLease[i] = noLeaseSince{node, session, now}
	}
	return max(1, now.sub(max(n.noLease[i].since, n.confKnown)))
}

func (n *node) viewGroup(now instant, g *GroupState, voters, outgoing []string, owner NodeView) GroupView {
	x := GroupView{Name: g.Name}
	if g.Phase != phaseRevoked && g.Phase != phaseBlocked {
		return x
	}
	index := n.state.revokedAt(g.Owner, g.Name, g.Epoch)
	w := n.waitFor(g.Name, g.Epoch, index)
	if w.known == 0 {
		w.known = now // learnt from a snapshot
	}
	x.Known = w.known
	longest := n.longestLease()
	x.Over = w.over(voters, longest)
	if len(outgoing) > 0 {
		x.Over = max(x.Over, w.over(outgoing, longest))
	}
	// Grants given before the last change of members may have had another majority.
	if n.confKnown != 0 {
		x.Over = max(x.Over, n.confKnown.add(holdFor(longest)))
	}
	beyond, _ := n.state.beyond(g)
	x.Over = x.Over.add(holdFor(beyond))
	if n.state.class(g) == classStateful {
		// Its watchdog may have been petted for what else it was granted, as long as anybody acknowledged anything.
		x.Over = max(x.Over, now.add(holdFor(longest+beyond)-max(owner.Age, owner.NoLease)))
	}
	return x
}

// founding: the first placements wait until a majority of the configured nodes votes and every one that is heard has
// joined, or for a bounded time after that majority is there.
func (n *node) founding(now instant, v *View) bool {
	s := n.state
	if s.LastEpoch > 0 || s.Incarnation.Counter > 1 || s.Bootstrap {
		return false
	}
	voters, waiting := 0, false
	for _, c := range s.Config.Effective.Nodes {
		x := s.node(c.Name)
		if x != nil && x.Voter && (x.Joined || c.Name == n.name) {
			voters++
		} else if p := n.peers.get(c.Name); p.at != 0 && now.sub(p.at) < n.deadtime() {
			waiting = true
		}
	}
	if voters < quorum(len(s.Config.Effective.Nodes)) {
		return true
	}
	patience := max(10*n.deadtime(), 5*time.Second)
	if waiting && v.Clock < patience {
		n.wake(now.add(patience - v.Clock))
		return true
	}
	return false
}

// report proposes what only this node knows.
func (n *node) report(now instant) {
	n.collect(now)
	if n.yielded != "" && len(n.agent.running()) == 0 {
		n.log.Info("everything is stopped; joining the cluster anew", "event", "yielded", "why", n.yielded)
		n.yielded = ""
		n.outcomes = nil
		n.version++
	}
	if n.state == nil || n.cons == nil || !n.hasQuorum() {
		return
	}
	me := n.state.node(n.name)
	if me == nil || me.Member != n.member {
		return
	}
	if !n.joined {
		n.proposeJoin(now, me)
		return
	}
	n.reportObedience()
	n.reportGroups(now, me)
	n.reportCopies(now)
	n.reportFitness(now, me)
	n.reportEnforcement(now, me)
	n.reportReach(now, me)
	n.proposeLeave(now, me)
}

// collect takes what the agent has to say. What a caretaker cannot tell is in its log at least; failures that would be
// forgotten by now had they been counted are dropped.
func (n *node) collect(now instant) {
	for _, o := range n.agent.outcomes {
		if o.kind == entryFailure && o.alone {
			n.log.Warn(fmt.Sprintf("%s of %s failed: %s; it is counted when there is a majority again", o.op, o.resource, o.reason),
				"event", "failure-untold", "group", o.group)
		}
	}
	n.outcomes = append(n.outcomes, n.agent.outcomes...)
	n.agent.outcomes = nil
	untold := 0
	for i := len(n.outcomes) - 1; i >= 0; i-- {
		o := &n.outcomes[i]
		if o.kind != entryFailure || !o.alone {
			continue
		}
		untold++
		c := n.config.group(o.group)
		if untold > untoldMax || c != nil && c.FailureTimeout > 0 && now.sub(o.at) > c.FailureTimeout.D() {
			n.outcomes = slices.Delete(n.outcomes, i, i+1)
		}
	}
}

// Looked tells whether it is known what runs here, as far as there is a state that says what could.
func (n *node) Looked() bool { return n.lastRun != 0 && n.agent.looked() }

func (n *node) proposeJoin(now instant, me *NodeState) {
	if n.unmet() != "" {
		return // whatever this node decided, the other may have decided as well
	}
	if !n.agent.looked() {
		return // also who is leaving joins: only who has joined can say what it runs, and goodbye
	}
	enforce := n.enforcement()
	if n.propose(now, Entry{Kind: entryJoin, Node: n.name, Member: n.member, Session: n.opt.Session, Base: me.Session, Boot: n.opt.Boot,
		Running: n.agent.running(), Feature: n.opt.Level, Enforce: &enforce}) {
		n.joining = true
	}
}

// relaxes: an edit has made the group less strict, and nothing of what was there runs here any more.
func (n *node) relaxes(g *GroupState) bool {
	c := n.state.Config.Effective.group(g.Name)
	return g.relaxedBy(c) && n.agent.group(g.Name).follows(c)
}

// follows: nothing of an older config of the group is left.
func (g *groupAgent) follows(c *GroupConfig) bool {
	return g != nil && g.config == c && !slices.ContainsFunc(g.res, func(r *resourceAgent) bool { return r.gone })
}

// reportObedience says again that a group is started where the state doubts that the end of a lease means anything to
// its owner, or that nothing stateful is left of it: this one does live by its lease.
func (n *node) reportObedience() {
	for i := range n.state.Groups {
		g := &n.state.Groups[i]
		if g.Owner != n.name || g.Phase != phaseStarted || !g.Unleased && !n.relaxes(g) || n.state.Maintenance != nil ||
			slices.ContainsFunc(n.outcomes, func(o outcome) bool { return o.kind == entryStarted && o.group == g.Name && o.epoch == g.Epoch }) {
			continue
		}
		if a := n.agent.group(g.Name); a != nil && !n.backed(a.config) {
			continue
		}
		n.outcomes = append(n.outcomes, outcome{kind: entryStarted, group: g.Name, epoch: g.Epoch})
	}
}

// reportGroups keeps a report as long as it has a point, and proposes it. Failures go in order, one at a time.
func (n *node) reportGroups(now instant, me *NodeState) {
	failure := false
	n.outcomes = slices.DeleteFunc(n.outcomes, func(r outcome) bool {
		g := n.state.group(r.group)
		if g == nil {
			return r.kind != entryFailure || r.serial <= me.Serial
		}
		mine := g.Owner == n.name && g.Epoch == r.epoch
		switch r.kind {
		case entryStarted:
			if !mine || g.Phase != phasePlaced && !(g.Phase == phaseStarted && (g.Unleased || n.relaxes(g))) {
				return true
			}
		case entryStopped:
			if !mine || g.Phase != phaseRevoked || g.Stopped {
				return true
			}
		case entryFailure:
			if r.serial <= me.Serial {
				return true
			}
			if failure {
				return false
			}
			failure = true
		}
		e := Entry{Kind: r.kind, Group: r.group, Node: n.name, Epoch: r.epoch, Session: n.opt.Session, Resource: r.resource,
			Op: r.op, Reason: r.reason, Tail: r.tail, Serial: r.serial,
			On: r.alone && n.agent.runs(r.group, r.resource)}
		if r.kind == entryStarted && n.agent.group(r.group).follows(n.state.Config.Effective.group(r.group)) {
			e.Base = n.state.Config.Generation
		}
		n.propose(now, e)
		return false
	})
}

func (n *node) reportFitness(now instant, me *NodeState) {
	for _, g := range n.agent.groups {
		if n.state.group(g.name) == nil {
			continue
		}
		reason := g.unfit()
		if reason == "" && n.watched() && n.dog.is.Fault != "" && g.config.class().writes() {
			reason = "its watchdog cannot be used: " + n.dog.is.Fault
		}
		if reason != me.unfit(g.name) {
			n.propose(now, Entry{Kind: entryUnfit, Node: n.name, Group: g.name, Reason: reason})
		}
	}
}

// proposeLeave says goodbye when nothing is left to hand over.
func (n *node) proposeLeave(now instant, me *NodeState) {
	if !n.leaving {
		return
	}
	if me.Left {
		n.left = true
		return
	}
	if n.state.Maintenance == nil {
		for i := range n.state.Groups {
			if g := &n.state.Groups[i]; g.Owner == n.name && g.Phase != phaseBlocked && !(g.Phase == phaseRevoked && g.Stopped) {
				return
			}
		}
	}
	n.propose(now, Entry{Kind: entryLeave, Node: n.name, Session: n.opt.Session, Running: n.agent.running()})
}
