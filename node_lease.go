// May this node run its groups now? Heartbeats out and in, acks, holds, the end of a lease, and from all of that the
// order for each group that the agent obeys. The arithmetic is in lease.go, the reasons in docs/design.md section 4.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Received is the event that a message came.
func (n *node) Received(now instant, r received) {
	was := n.standing()
	p := n.peers.get(r.From)
	present := p.at != 0 && now.sub(p.at) < n.deadtime()/2 && p.session == r.Session
	p = n.peers.heard(r)
	news := true
	switch r.Kind {
	case kindHeartbeat:
		news = n.heartbeatFrom(now, p, r)
	case kindAck:
		if a, err := decodeAck(r.Body); err == nil {
			n.compareClocks(now, p, r.At, a.Clock)
			news = n.ackFrom(now, p, a)
		}
	case kindHold:
		if h, err := decodeHold(r.Body); err == nil {
			n.holdFrom(now, r.From, h)
		}
	case kindRaft:
		n.raftFrom(now, r)
		news = false // it would show
	}
	if present && !news && n.steady(now) && n.rests(now, was) {
		return
	}
	n.advance(now)
}

// heartbeatFrom tells whether there was anything new in it.
func (n *node) heartbeatFrom(now instant, p *peer, r received) bool {
	h, err := decodeHeartbeat(r.Body)
	if err != nil {
		n.log.Debug("heartbeat dropped", "from", r.From, "err", err)
		return false
	}
	if r.Confirmed {
		n.compareClocks(now, p, r.At, h.Clock)
	}
	before := p.beat
	if !r.Confirmed || !p.beatFrom(r.At, h) {
		return !r.Confirmed
	}
	if before.Flags != h.Flags || before.Member != h.Member || before.Incarnation != h.Incarnation || before.Generation != h.Generation {
		n.decideAt = 0
		n.version++
	}
	n.meet(now, p)
	n.compareStates(now, p)
	n.answer(now, p)
	n.keepPace(now, p)
	return !h.repeats(&before)
}

// answer grants an owner what it asks for, if this node is a member and the owner knows of the members what it should. A
// learner's word counts only once it votes; it is given before, so that the promotion costs the owner no lease.
func (n *node) answer(now instant, p *peer) {
	h := &p.beat
	if n.cons == nil || n.state == nil || h.Incarnation != n.incarnation() || p.better != 0 {
		return
	}
	a := ack{Seq: h.Seq, Member: n.member, Incarnation: n.incarnation(), Lease: h.Lease, Generation: n.state.Config.Generation, Clock: now}
	switch st := n.cons.Status(); {
	case n.state.nameOf(h.Member) != p.name:
		a.Lease = 0 // it takes itself for a member and is none: see removedFrom
	case h.Lease <= 0 || !st.Voter && !st.Learner || h.Applied < n.confsDue() || h.Lease > n.longestLease():
		return
	default:
		a.Revoked = n.state.withRevoked(n.ledger.give(now, p.name, h.Lease), p.name, h.Applied)
	}
	if body, ok := a.encode(); ok {
		n.tr.Send(p.name, kindAck, body)
	}
}

// withRevoked adds to an owner's pairs what is revoked and not applied there: not known yet, or not known any more. Which of
// its log is committed a killed owner forgets, and it comes back as the owner that it was.
func (s *State) withRevoked(pairs []groupEpoch, owner string, applied uint64) []groupEpoch {
	for i := range s.Groups {
		for _, r := range s.Groups[i].Revoked {
			if r.Node == owner && r.Index > applied && !bars(pairs, s.Groups[i].Name, r.Epoch) {
				pairs = append(pairs, groupEpoch{s.Groups[i].Name, r.Epoch})
			}
		}
	}
	return pairs
}

// confsDue is the change of members that whoever is granted anything must have applied: the last one that this node has
// applied itself, and all on its disk but the last. One step does no harm, since majorities before and after it have a
// voter in common; and a change is in the log only when the one before it is committed, so nobody waits for a commit.
func (n *node) confsDue() uint64 {
	if len(n.confs) < 2 {
		return n.state.ConfIndex
	}
	return max(n.state.ConfIndex, n.confs[0])
}

// nameOf is the node that a member id belongs to.
func (s *State) nameOf(member uint64) string {
	for i := range s.Nodes {
		if s.Nodes[i].Member == member && member != 0 {
			return s.Nodes[i].Name
		}
	}
	return ""
}

// ackFrom tells whether anything follows from it: that a grant lasts longer, or that something is not granted any more.
func (n *node) ackFrom(now instant, p *peer, a ack) bool {
	if n.state == nil || a.Incarnation != n.incarnation() {
		return false
	}
	if a.Lease == 0 {
		n.removedFrom(now, p, a)
		return true
	}
	end, barred := n.leaseEnd("", 0), n.grants.bars(p.name)
	if v := n.state.node(p.name); v != nil && v.Member == a.Member && n.grants.ack(p.name, a) {
		p.base = clockBase{n.grants.sentAt(a.Seq), a.Clock}
	}
	return barred || len(a.Revoked) > 0 || n.leaseEnd("", 0) != end
}

// removedFrom is a word that this node is no member any more, which it takes from the leader alone: it was away when it was
// removed, and whoever is none is sent no log from which it could learn that. The first word counts only if the leader
// had applied what made this node a member, the second only if it answers what was sent after the first: so both speak
// of a time after that. It comes back as a new member.
func (n *node) removedFrom(now instant, p *peer, a ack) {
	me := n.state.node(n.name)
	if me == nil || me.Member != n.member || p.beat.Leader != a.Member || p.beat.Applied < n.state.ConfIndex {
		return
	}
	switch {
	case n.disowned == 0:
		n.disowned = now
	case n.grants.sentAt(a.Seq) > n.disowned:
		n.log.Warn("the cluster had removed this node while it was away; it joins anew", "event", "rejoin-after-removal")
		n.setAside(now, "the cluster had removed it")
	}
}

// standstill is the last time that this host stood still, clocks and all.
type standstill struct {
	at   instant // when it was found; 0: never
	took time.Duration
	peer string // whose clock told
}

// compareClocks finds out from a datagram that this host stood still: what it was granted may be over by everybody else's
// clock, and another may have taken over. So the addresses go first, until a heartbeat that is sent from now on is granted.
func (n *node) compareClocks(now instant, p *peer, at, clock instant) {
	took := p.base.stoodStill(at, clock, n.config.lease())
	if took == 0 {
		return
	}
	p.base.acked = p.base.acked.add(took) // what comes next may show that it was longer
	n.grants.void()
	for i := range n.marks {
		n.marks[i].Until = min(n.marks[i].Until, now)
	}
	n.nextBeat, n.doubtUntil = now, now.add(n.deadtime())
	n.version++
	known := n.paused.at != 0 && now.sub(n.paused.at) < n.deadtime()
	switch {
	case !known:
		n.paused = standstill{now, took, p.name}
	case n.paused.peer == p.name:
		n.paused.took += took // the messages of that time are read one after the other
	}
	if n.state != nil && n.state.Maintenance == nil {
		for i := range n.state.Groups {
			g := &n.state.Groups[i]
			if m := n.mark(g); m != nil && g.Owner == n.name && !n.caretakes(g, m) {
				l, _ := n.shut(now, g.Name)
				l.told = true
			}
		}
	}
	if known {
		return
	}
	n.log.Warn(fmt.Sprintf("this host stood still for %s or more, by the clock of %s: its leases are void until they are granted anew",
		took.Round(10*time.Millisecond), p.name), "event", "stood-still", "peer", p.name)
}

// holdFrom keeps what a voter tells, even before this node knows the revoke: it may soon lead.
func (n *node) holdFrom(now instant, from string, h hold) {
	n.waitFor(h.Group, h.Epoch, h.Index).tell(now, from, h.Hold)
	n.decideAt = 0
}

func (n *node) waitFor(group string, epoch, index uint64) *waiting {
	for _, w := range n.waits {
		if w.group == group && w.epoch == epoch && w.index == index {
			return w
		}
	}
	w := &waiting{group: group, epoch: epoch, index: index}
	n.waits = append(n.waits, w)
	if len(n.waits) > 256 { // far more than groups; what is old is decided
		n.waits = slices.Delete(n.waits, 0, 128)
	}
	return w
}

// knowRevoke notes when this node learnt that a revoke is committed, and drops waits that are over.
func (n *node) knowRevoke(now instant, e Entry, refused string) {
	if e.Kind == entryRevoke && refused == "" {
		n.waitFor(e.Group, e.Epoch, n.state.Index).known = now
	}
	n.waits = slices.DeleteFunc(n.waits, func(w *waiting) bool {
		g := n.state.group(w.group)
		return g == nil || g.Epoch > w.epoch || g.Epoch == w.epoch && g.Phase == phaseFree
	})
	n.holds = slices.DeleteFunc(n.holds, func(h hold) bool {
		g := n.state.group(h.Group)
		return h.Index <= n.state.Index && (g == nil || g.Epoch != h.Epoch || g.Phase != phaseRevoked)
	})
}

// tellHolds repeats them until they are settled: the leader may have changed or missed one.
func (n *node) tellHolds(now instant) {
	for _, h := range n.holds {
		n.waitFor(h.Group, h.Epoch, h.Index).tell(now, n.name, h.Hold)
		for _, c := range n.config.Nodes {
			if c.Name != n.name {
				n.tr.Send(c.Name, kindHold, h.encode())
			}
		}
	}
}

// beat sends the heartbeat when it is due.
func (n *node) beat(now instant) {
	interval := n.config.Heartbeat.Interval.D()
	if n.lastRun != 0 && now.sub(n.lastRun) > n.deadtime()/4+interval {
		// The loop stood still. What the others sent meanwhile still waits to be read.
		n.blindUntil = now.add(2 * interval)
		n.doubtUntil = now.add(n.deadtime())
	}
	n.lastRun = now
	if now < n.nextBeat {
		return
	}
	n.nextBeat = n.nextBeat.add(interval)
	if n.pacer(now) != nil {
		n.nextBeat = now.add(interval + interval/paceSlack)
	} else if n.nextBeat <= now {
		n.nextBeat = now.add(interval)
	}
	if n.beatsAlike() && !n.beaten() {
		n.tickRaft(now.add(n.config.raftTick() / 4)) // rather a little early than for itself
	}
	h := n.describe(now)
	n.tr.Heartbeat(h.encode())
	n.tellHolds(now)
}

// pacer is the peer with whose heartbeats this node's own leave: the first by name of those that are heard. So all that nodes
// say to each other in an interval comes at once, and each is woken a few times instead of for every message.
func (n *node) pacer(now instant) *peer {
	interval := n.config.Heartbeat.Interval.D()
	for _, p := range n.peers.all {
		if p.name > n.name {
			break
		}
		if p.beatAt != 0 && p.beat.Interval == interval && now.sub(p.beatAt) < 2*interval {
			return p
		}
	}
	return nil
}

// keepPace sends the heartbeat that is soon due together with the pacer's.
func (n *node) keepPace(now instant, p *peer) {
	if now < n.nextBeat && n.nextBeat.sub(now) <= n.config.Heartbeat.Interval.D()/2 && n.pacer(now) == p {
		n.nextBeat = now
		n.wake(now)
	}
}

// describe is this node's heartbeat. A full node always asks for a lease, so that what is placed on it can start at
// once; it does not while it cannot store its state.
func (n *node) describe(now instant) heartbeat {
	h := heartbeat{Clock: now, Interval: n.config.Heartbeat.Interval.D(), Member: n.member, Boot: n.bootPrefix.of(n.opt.Boot),
		Feature: uint16(n.opt.Level), Wall: n.opt.Wall(), FileHash: n.filePrefix.of(n.opt.FileHash), Heard: n.peers.list(now, n.linkNames(), n.deadtime())}
	flag := func(f uint16, on bool) {
		if on {
			h.Flags |= f
		}
	}
	if n.yielded != "" {
		h.Member = 0 // joins only when everything is stopped
	}
	flag(flagBlank, n.state == nil)
	flag(flagForceable, n.state == nil)
	flag(flagWitness, n.config.isWitness(n.name))
	flag(flagLeaving, n.leaving)
	flag(flagRestarting, n.restarting)
	flag(flagJoined, n.opt.Joined)
	flag(flagSick, n.sick(now) != "")
	flag(flagQuorum, n.hasQuorum() && now >= n.doubtUntil && n.unmet() == "")
	if n.state != nil && n.cons != nil {
		st := n.cons.Status()
		h.Cluster, h.Counter, h.Incarnation = clusterPrefix(n.state.ClusterID), n.state.Incarnation.Counter, n.state.Incarnation.ID
		h.Ancestors = n.state.Incarnation.Ancestors[:min(4, len(n.state.Incarnation.Ancestors))]
		h.Generation, h.Applied, h.StateHash = n.state.Config.Generation, n.state.Index, n.stateHash
		h.Term, h.Leader = st.Term, st.Leader
		if !n.config.isWitness(n.name) && n.sick(now) == "" {
			h.Lease = n.config.lease()
		}
		flag(flagNoLease, h.Lease == 0 || !n.granted(now))
	}
	h.Seq = n.grants.ask(now, h.Lease)
	if h.Lease > 0 {
		n.ledger.give(now, n.name, h.Lease)
	}
	return h
}

func (n *node) linkNames() []string {
	out := make([]string, 0, len(n.config.Links))
	for _, l := range n.config.Links {
		out = append(out, l.Name)
	}
	return out
}

// granted tells whether a majority grants this node anything at all.
func (n *node) granted(now instant) bool { return n.leaseEnd("", 0) > now }

// leaseEnd is when this node's grant for an epoch of a group ends. In a joint change of members it needs both
// majorities.
func (n *node) leaseEnd(group string, epoch uint64) instant {
	if n.cons == nil || n.state == nil {
		return 0
	}
	m := n.cons.Status().Members
	own := !n.ledger.revoked(n.name, group, epoch) && n.state.Index >= n.confsDue()
	var room [maxHeard + 1]string // for more than so many it takes memory
	end := n.grants.until(group, epoch, n.appendNames(room[:0], m.Voters), n.name, own)
	if len(m.Outgoing) > 0 {
		end = min(end, n.grants.until(group, epoch, n.appendNames(room[:0], m.Outgoing), n.name, own))
	}
	return end
}

func (n *node) names(members []uint64) []string {
	return n.appendNames(make([]string, 0, len(members)), members)
}

func (n *node) appendNames(out []string, members []uint64) []string {
	for _, id := range members {
		name := n.nameOf(id)
		if id == n.member {
			name = n.name
		}
		out = append(out, name) // "" never acks, but counts
	}
	return out
}

// hasQuorum tells whether a leader with a majority is known here.
func (n *node) hasQuorum() bool { return n.quorumAt != 0 && n.quorumNow }

// judgeQuorum follows raft: a leader that has lost its majority steps down, a follower that hears none campaigns.
func (n *node) judgeQuorum(now instant) {
	had := n.quorumNow
	n.quorumNow = false
	if n.cons != nil && n.state != nil {
		st := n.cons.Status()
		var room [maxHeard + 1]string
		n.judgeHearing(now, n.appendNames(room[:0], st.Members.Voters))
		n.quorumNow = st.Leader != 0 && (st.Voter || st.Learner && n.follows(now, st.Leader))
	}
	if n.quorumNow {
		n.quorumAt = now
		if n.proven != n.state.Config.Generation && now.sub(n.configAt) > 2*n.deadtime() {
			n.proven = n.state.Config.Generation
		}
	}
	if had != n.quorumNow {
		n.version++
		n.decideAt = 0
		n.agent.lookAt(now, "") // what froze meanwhile can be settled, and what was written alone be recorded
		n.quorumSince = now
	}
	// Leadership changes hands within milliseconds; only what lasts is worth a line.
	if n.quorumNow == n.quorumTold || !n.quorumNow && now.sub(n.quorumSince) < n.deadtime() {
		if n.quorumNow != n.quorumTold {
			n.wake(n.quorumSince.add(n.deadtime()))
		}
		return
	}
	n.quorumTold = n.quorumNow
	if n.quorumNow {
		n.log.Info("a leader with a majority is known", "event", "quorum-found", "leader", n.nameOf(n.cons.Status().Leader))
	} else {
		n.log.Warn("no leader with a majority is known", "event", "quorum-lost")
	}
}

// follows tells whether the leader is heard, lives in this node's incarnation and says itself that it leads. Raft tells a voter
// when that is over; a learner holds no elections and keeps its leader for ever.
func (n *node) follows(now instant, leader uint64) bool {
	name := n.nameOf(leader)
	if name == "" {
		return false
	}
	p := n.peers.get(name)
	until := p.at.add(n.deadtime())
	if p.at == 0 || now >= until || p.beat.Incarnation != n.incarnation() || p.beat.Leader != leader {
		return false
	}
	n.wake(until)
	return true
}

// cutOff tells whether there is no leader to say goodbye to, and not only because one is being elected.
func (n *node) cutOff(now instant) bool {
	if n.hasQuorum() {
		return false
	}
	over := max(n.quorumSince, n.ledger.born).add(2 * n.deadtime())
	if now < over {
		n.wake(over)
	}
	return now >= over
}

// judgeHearing notes since when this node hears a majority. Before that it was itself that was cut off, and the silence of
// others proves nothing.
func (n *node) judgeHearing(now instant, voters []string) {
	heard := 0
	for _, v := range voters {
		if v == n.name || n.peers.silence(now, v) < n.deadtime() {
			heard++
		}
	}
	switch {
	case heard < quorum(len(voters)):
		n.hearing = 0
	case n.hearing == 0:
		n.hearing = now
	}
}

// mark is what this node was granted for an epoch in this boot, or nil.
func (n *node) mark(g *GroupState) *leaseMark {
	for i := range n.marks {
		if n.marks[i].Group == g.Name && n.marks[i].Epoch == g.Epoch {
			return &n.marks[i]
		}
	}
	return nil
}

// orderAgent tells the agent for each group what holds now.
func (n *node) orderAgent(now instant) {
	wasCaretaker := n.caretaker
	n.caretaker = false
	marks := n.marks[:0:0]
	for _, o := range n.orders(now, &marks) {
		n.wake(n.agent.obey(now, o))
	}
	n.dropGroups()
	n.keepMarks(marks, wasCaretaker)
	n.dispatch()
}

// dispatch hands the agent's wishes to the actuator.
func (n *node) dispatch() {
	actions, cancels, watches := n.agent.actions, n.agent.cancels, n.agent.watches
	n.agent.actions, n.agent.cancels, n.agent.watches = nil, nil, nil
	for _, id := range cancels {
		n.act.Cancel(id)
	}
	for _, w := range watches {
		n.act.Watch(w.group, w.resource, w.on)
	}
	for _, a := range actions {
		n.act.Do(a)
	}
}

// keepMarks remembers, where a restarted daemon finds it, what is granted. A pair leaves the file as soon as it is known
// to be revoked.
func (n *node) keepMarks(marks []leaseMark, wasCaretaker bool) {
	changed := wasCaretaker != n.caretaker || !slices.Equal(marks, n.marks)
	n.marks = marks
	if changed {
		n.keep.KeepLease(marks, n.caretaker)
	}
	if wasCaretaker != n.caretaker {
		n.version++
		if n.caretaker {
			n.log.Warn("going on as caretaker: the other node is not there to decide with", "event", "caretaker-on")
		} else {
			n.log.Info("no longer caretaker", "event", "caretaker-off")
		}
	}
}

// orders is what shall happen to each group here.
func (n *node) orders(now instant, marks *[]leaseMark) []order {
	var out []order
	if n.config.isWitness(n.name) {
		return nil
	}
	if n.state == nil || n.state.Config.Effective == nil {
		for i := range n.config.Groups {
			out = append(out, n.blankOrder(now, &n.config.Groups[i], marks))
		}
		return out
	}
	for i := range n.state.Groups {
		g := &n.state.Groups[i]
		c := n.state.Config.Effective.group(g.Name)
		if c == nil {
			c = g.Last
		}
		if c == nil {
			continue
		}
		o := order{config: c, epoch: g.Epoch, again: g.Since, known: n.state.Index, thaw: n.mayThaw(g), rejoin: n.mayRejoin(c)}
		o.hint = startHint{Clean: g.Clean, Insist: n.config.Cluster.TwoNode == "ignore"}
		if me := n.state.node(n.name); me != nil && me.Session == n.opt.Session {
			o.counted = me.Serial
		}
		for _, r := range n.state.Resources {
			if r.Group == g.Name && r.Node == n.name {
				o.counts = append(o.counts, r)
			}
		}
		n.decideWant(now, g, &o, marks)
		out = append(out, o)
	}
	return out
}

// blankOrder is for a node without a state: it keeps what its predecessor was granted, and runs nothing else. When that
// has ended it is closed like any other whose lease has ended, in case the cluster takes this node in meanwhile.
func (n *node) blankOrder(now instant, c *GroupConfig, marks *[]leaseMark) order {
	o := order{config: c, want: wantStop, alone: true}
	if n.yielded != "" {
		n.open(c.Name)
		n.lease(c.Name, 0)
		return o
	}
	for _, m := range n.marks {
		if m.Group != c.Name || m.Until <= now && n.agent.stopped(c.Name) {
			continue
		}
		*marks = append(*marks, m)
		if m.Until > now {
			n.wake(m.Until)
			o.want = wantLook
		} else {
			n.lapse(now, &GroupState{Name: m.Group, Epoch: m.Epoch}, &o)
		}
	}
	if o.want == wantStop {
		n.lease(c.Name, 0)
	}
	return o
}

// decideWant is the heart: may it run here, now?
func (n *node) decideWant(now instant, g *GroupState, o *order, marks *[]leaseMark) {
	mine := g.Owner == n.name && !n.beaten()
	switch {
	case n.state.Maintenance != nil && !n.beaten():
		o.want = wantFreeze
		if mine && g.Phase != phaseRevoked && g.Phase != phaseFree {
			n.lease(g.Name, openForGood) // nobody takes it over now
			n.reopen(g.Name)
		}
		n.keepMark(g, marks)
		return
	case mine && g.Phase == phaseBlocked:
		o.want = wantFreeze
		n.lease(g.Name, openForGood) // nobody takes it over unasked
		n.keepMark(g, marks)
		return
	case !mine || g.Phase == phaseRevoked || g.Phase == phaseFree || n.left || n.leaving && n.cutOff(now):
		if n.beaten() && !n.agent.stopped(g.Name) {
			n.shut(now, g.Name) // another life of the cluster may have it already, and a stop takes its time
		}
		n.closeLate(now, g)
		n.open(g.Name)
		o.want = wantStop
		if !mine || g.Phase != phaseRevoked {
			o.epoch = 0
		}
		if !n.joined && !mine && !n.beaten() && now.sub(n.ledger.born) < n.config.closeAfter() {
			o.want = wantLook // this state may be old: first hear what the others say
			return
		}
		if !mine || n.gate(g.Name) == openForGood {
			n.lease(g.Name, 0) // what was granted before may stand while it stops, and nothing longer
		}
		return
	}
	end, old := n.leaseEnd(g.Name, g.Epoch), n.mark(g)
	if old != nil && end < old.Until {
		end = old.Until // a grant stands, of the process before this one too, whatever is not granted any more
	}
	if end > now {
		n.wake(end)
		mark := leaseMark{g.Name, g.Epoch, end}
		*marks = append(*marks, mark)
		if !n.hasQuorum() && n.caretakes(g, &mark) {
			end = max(end, n.caretakerUntil(now, g.Name)) // the lease goes over into it without a gap
		}
		n.lease(g.Name, end)
		n.reopen(g.Name)
		o.want = wantRun
		if !n.joined || n.leaving || !n.backed(o.config) {
			// Keep what runs. A start needs a log that has caught up, and its watchdog; and a goodbye may be on its way that
			// says what runs here.
			o.want = wantFreeze
		}
		return
	}
	if old != nil && n.config.twoVoters() {
		*marks = append(*marks, *old) // it may go on with it when the other is gone, or this node not cut off any more
	}
	if n.caretakes(g, old) && (n.isolated.target == "" || n.config.Cluster.TwoNode == "manual") {
		n.caretaker = true
		n.lease(g.Name, n.caretakerUntil(now, g.Name))
		n.reopen(g.Name)
		o.want, o.alone = wantRun, true
		if n.joining && !n.joined || n.leaving {
			o.want = wantFreeze // what is told about what runs here must stay true
		}
		return
	}
	n.lapse(now, g, o)
}

// beaten: another incarnation lives, and this one is about to be set aside. Silence ends that only where it counts as death;
// else what was heard once holds until this node has joined, or was told to go on in a new incarnation.
func (n *node) beaten() bool {
	dies := n.config.Cluster.TwoNode == "ignore"
	return slices.ContainsFunc(n.peers.all, func(p *peer) bool {
		return p.better != 0 && (!dies || n.lastRun.sub(p.at) < n.deadtime())
	})
}

func (n *node) keepMark(g *GroupState, marks *[]leaseMark) {
	if m := n.mark(g); m != nil && g.Owner == n.name {
		if end := n.leaseEnd(g.Name, g.Epoch); end > m.Until {
			m.Until = end
		}
		*marks = append(*marks, *m)
	}
}

// caretakes: one of exactly two voters goes on with what it was granted in this boot when nobody grants it anything, also
// when a leader is known again and has not granted it anything yet. Nothing can have been decided without it: every
// commit needs its own disk.
func (n *node) caretakes(g *GroupState, old *leaseMark) bool {
	if !n.config.twoVoters() || old == nil || n.otherLife() || n.doubts() {
		return false
	}
	st := n.cons.Status()
	return st.Voter && !st.Learner && len(st.Members.Voters) == 2
}

// doubts: this host has just stood still, and where the other takes over unasked it may have done so.
func (n *node) doubts() bool {
	return n.paused.at != 0 && n.lastRun.sub(n.paused.at) < n.deadtime() && n.config.Cluster.TwoNode != "manual"
}

// otherLife tells whether a peer is heard that lives in another incarnation: until it is clear which of the two lives,
// this node takes nothing up on its own.
func (n *node) otherLife() bool {
	return slices.ContainsFunc(n.peers.all, func(p *peer) bool {
		return p.beatAt != 0 && n.lastRun.sub(p.beatAt) < n.deadtime() && p.beat.Flags&flagBlank == 0 &&
			p.beat.Incarnation != 0 && p.beat.Incarnation != n.incarnation()
	})
}

// lapse is the end of a lease: the addresses are silent at once, the rest goes when the revoke is learnt or after a
// while. Data that others could mount goes at once too, since nothing but this daemon ends its lease.
func (n *node) lapse(now instant, g *GroupState, o *order) {
	l, fresh := n.shut(now, g.Name)
	if fresh {
		if l.told = n.mark(g) != nil && !n.revoking(g); l.told {
			n.log.Warn(fmt.Sprintf("the lease of %s is over: its addresses are shut", g.Name), "event", "lease-over", "group", g.Name, "epoch", g.Epoch)
		}
	}
	o.want = wantFreeze
	since, after := l.since, n.config.closeAfter()
	l.kept = n.mayKeep(now, o.config)
	switch {
	case l.kept && !n.hasQuorum():
		o.kept = true
		if !l.said {
			l.said = true
			n.log.Warn(fmt.Sprintf("%s is kept as it is, with its addresses shut, until there is a majority again: no_quorum is \"freeze\"", g.Name), "event", "group-kept", "group", g.Name)
		}
		if !n.standsFrozen(o.config) {
			since, after = max(since, l.frozen), lossSeen
			break
		}
		l.frozen = now
		return
	case l.kept: // who leads grants it again, or has it taken away
		o.kept, since = true, max(since, n.quorumSince)
	case o.config.class().writes():
		after, o.by = 0, n.resetAt()
	}
	if left := after - now.sub(since); left > 0 {
		n.wake(now.add(left))
		return
	}
	l.kept = false
	o.want, o.epoch, o.kept = wantStop, 0, false
}

// lossSeen is how soon DRBD has found out that its peer is gone: its ping-int (10 s by default), and a half more. What
// is connected after that stands in the way of whoever takes over, and cannot write alone.
const lossSeen = 15 * time.Second

// mayKeep tells whether no_quorum = "freeze" keeps a group in place when its lease is over: what writes is under a guard that
// is claimed, or this daemon is new and has not looked yet. A watchdog that is petted for grants alone would reset this host.
func (n *node) mayKeep(now instant, c *GroupConfig) bool {
	if n.config.Cluster.NoQuorum != "freeze" || n.config.twoVoters() || n.state == nil || n.leaving || n.sick(now) != "" {
		return false
	}
	switch guards := c.guards(); {
	case !c.class().writes():
		return true
	case len(guards) == 0 || n.watched():
		return false
	default:
		a := n.agent.group(c.Name)
		return a == nil || !a.looked() || (&Enforcement{Guarded: guards}).guardedAmong(n.guarded())
	}
}

// standsFrozen: nothing of the group changes any data here until the cluster has a word for it.
func (n *node) standsFrozen(c *GroupConfig) bool {
	for _, r := range c.guards() {
		if !slices.ContainsFunc(n.seen, func(s copySeen) bool { return s.resource == r && s.frozen }) {
			return false
		}
	}
	return true
}

// kept tells whether a group stays in place here without a lease.
func (n *node) kept(group string) bool {
	return slices.ContainsFunc(n.lapsed, func(l lapse) bool { return l.group == group && l.kept })
}

// shut lets no traffic of a group's addresses through any more, until reopen or open.
func (n *node) shut(now instant, group string) (l *lapse, fresh bool) {
	i := slices.IndexFunc(n.lapsed, func(l lapse) bool { return l.group == group })
	if i < 0 {
		n.lapsed = append(n.lapsed, lapse{group: group, since: now})
		i, fresh = len(n.lapsed)-1, true
		n.lease(group, 0)
		n.act.Suspend(group)
		n.version++
	}
	return &n.lapsed[i], fresh
}

// isShut tells whether the addresses of a group of this node are shut, since its lease is over.
func (n *node) isShut(group string) bool {
	return slices.ContainsFunc(n.lapsed, func(l lapse) bool { return l.group == group })
}

// revoking tells whether a voter has said that the group is being taken away: this node is about to learn why.
func (n *node) revoking(g *GroupState) bool {
	return n.ledger.revoked(n.name, g.Name, g.Epoch) ||
		slices.ContainsFunc(n.grants.voters, func(v voterAck) bool { return bars(v.revoked, g.Name, g.Epoch) })
}

// closeLate shuts the addresses of what is being stopped when its lease ends before its stop does: whoever takes the group
// over waits for the one and not for the other.
func (n *node) closeLate(now instant, g *GroupState) {
	n.closing = slices.DeleteFunc(n.closing, func(m leaseMark) bool {
		x := n.state.group(m.Group)
		return x == nil || x.Epoch != m.Epoch || x.Owner != n.name || x.Phase != phaseRevoked
	})
	if g.Owner != n.name || g.Phase != phaseRevoked || n.agent.stopped(g.Name) || n.isShut(g.Name) {
		return
	}
	i := slices.IndexFunc(n.closing, func(m leaseMark) bool { return m.Group == g.Name })
	if i < 0 {
		last := leaseMark{g.Name, g.Epoch, now}
		if m := n.mark(g); m != nil {
			last = *m
		}
		n.closing = append(n.closing, last)
		i = len(n.closing) - 1
	}
	if end := n.closing[i].Until; end > now {
		n.wake(end)
		return
	}
	n.shut(now, g.Name)
}

// reopen lets traffic in again after a lapse.
func (n *node) reopen(group string) {
	if i := slices.IndexFunc(n.lapsed, func(l lapse) bool { return l.group == group }); i >= 0 {
		told := n.lapsed[i].told
		n.lapsed = slices.Delete(n.lapsed, i, i+1)
		n.act.Resume(group)
		n.version++
		if !told {
			return // it had none before: nothing is back
		}
		n.log.Info(fmt.Sprintf("%s has its lease again", group), "event", "lease-back", "group", group)
	}
}

// open ends a lapse of what stops anyway: a later start must find its address open.
func (n *node) open(group string) {
	if i := slices.IndexFunc(n.lapsed, func(l lapse) bool { return l.group == group }); i >= 0 && n.agent.stopped(group) {
		n.lapsed = slices.Delete(n.lapsed, i, i+1)
		n.act.Resume(group)
	}
}

// dropGroups lets the agent forget what is stopped and in no config any more.
func (n *node) dropGroups() {
	for _, g := range n.agent.groups { // forget makes a list anew
		known := n.config.group(g.name) != nil
		if n.state != nil {
			known = n.state.group(g.name) != nil
		}
		if !known {
			g.stop(n.lastRun)
			if n.agent.forget(g.name) {
				n.gates = slices.DeleteFunc(n.gates, func(w gateWord) bool { return w.group == g.name })
			}
		}
	}
}

// Leave is the event that the daemon shall end: hand the groups over, say goodbye, go.
func (n *node) Leave(now instant) {
	n.leaving = true
	n.nextBeat = now
	n.version++
	n.decideAt = 0
	n.advance(now)
}

// Restart announces that another daemon follows at once, which finds everything running. The last thing that a node says.
func (n *node) Restart(now instant) {
	n.restarting = true
	for range restartWords {
		n.nextBeat = now
		n.beat(now)
	}
}

// restartWords: a datagram may get lost, and there is no time to see whether it did.
const restartWords = 3

// Gone tells whether the goodbye is done, or cannot be said and everything is stopped.
func (n *node) Gone(now instant) (gone bool, why string) {
	running := n.agent.running()
	switch {
	case n.state == nil:
		return len(running) == 0, "blank"
	case n.state.Maintenance != nil:
		return n.left || n.cutOff(now), "maintenance: everything is left running"
	case !n.left && len(running) > 0:
		return false, "waiting for " + strings.Join(running, ", ") + " to stop"
	case !n.left:
		return n.cutOff(now), "the goodbye is not recorded yet"
	}
	if n.dog.is.Armed && !n.needsWatchdog() {
		return false, "the watchdog is not at rest yet"
	}
	// What still runs is named in the goodbye: a stop failed, and waiting does not mend it. Who owns it stays a voter.
	owns := slices.ContainsFunc(n.state.Groups, func(g GroupState) bool { return g.Owner == n.name && g.Proof == "" })
	st := n.cons.Status()
	if len(st.Members.Voters) == 2 && st.Voter && n.hasQuorum() && !owns {
		return false, "waiting for the other to decide alone"
	}
	return true, ""
}

// Unproven: nobody was heard by the config in force for long enough to tell that it can be done.
func (n *node) Unproven() bool {
	return n.state != nil && !n.hasQuorum() && n.proven != n.state.Config.Generation
}
