// What does this node ask outside the cluster, and what does silence there mean? It sends the echoes, reports what has
// changed, and for two nodes judges whether it is itself that is cut off (needs_ping). The judgement of each target is in
// reach.go, the rules that use the reports in engine_hold.go.

package main

import (
	"fmt"
	"slices"
	"time"
)

// isolation is that one of two nodes hears the other no more and its needs_ping targets neither.
type isolation struct {
	target string  // that answers nothing; "": this node is not cut off
	last   instant // when that was last found
}

// Pinged is the event that an echo was answered, or not in time; failure is "" for an answer.
func (n *node) Pinged(now instant, id uint64, failure string) {
	if n.reach.ended(id, failure) {
		n.version++
		n.decideAt = 0
	}
	n.advance(now)
}

// askTargets sends the echoes that are due. Only who runs groups needs to know.
func (n *node) askTargets(now instant) {
	if n.reachFor != n.config {
		n.reachFor = n.config
		n.reach.configure(now, n.config.Pings)
	}
	if n.config.isWitness(n.name) || n.config.node(n.name) == nil {
		return
	}
	alone := n.otherSilentFor(now) >= n.deadtime()/2
	for _, t := range n.reach.targets {
		pace := t.config.Interval.D()
		if alone && slices.Contains(n.config.Cluster.NeedsPing, t.config.Name) {
			pace = min(pace, n.config.alonePace())
		}
		if p, ok := n.reach.ask(now, t, pace); ok {
			n.act.Ping(p)
		}
		n.wake(t.next(now))
	}
	n.judgeIsolation(now)
}

// otherSilentFor is how long the other of two nodes has not been heard, 0 where there are more or this node has just begun.
func (n *node) otherSilentFor(now instant) time.Duration {
	if !n.config.twoVoters() {
		return 0
	}
	return min(n.peers.silence(now, n.otherNode()), now.sub(n.opt.Born))
}

// judgeIsolation: an active side that hears neither the other nor a target is cut off itself. It ends only when the
// targets have answered for a while, since the other must be heard first if it is there.
func (n *node) judgeIsolation(now instant) {
	if !n.config.twoVoters() {
		n.isolated = isolation{}
		return
	}
	was := n.isolated
	other := n.peers.get(n.otherNode()).at
	silent := n.otherSilentFor(now)
	heard := now.sub(n.peers.get(n.otherNode()).beatAt) < n.deadtime() // and what it lives in is known
	if silent < n.deadtime() && (heard || was.target == "") {
		n.isolated = isolation{}
	} else {
		for _, name := range n.config.Cluster.NeedsPing {
			t := n.reach.target(name)
			if t == nil {
				continue
			}
			if left := n.config.aloneLimit() - t.quiet(now, other); left > 0 {
				n.wake(now.add(left))
				continue
			}
			n.isolated = isolation{name, now}
			break
		}
	}
	if n.isolated.target != "" && now.sub(n.isolated.last) >= n.config.aloneLimit() {
		n.isolated = isolation{}
	}
	switch {
	case was.target == "" && n.isolated.target != "":
		n.version++
		n.log.Warn(fmt.Sprintf("neither %s nor %s answers: this node is cut off", n.otherNode(), n.isolated.target), "event", "isolated", "target", n.isolated.target)
	case was.target != "" && n.isolated.target == "":
		n.version++
		n.log.Info("this node is not cut off any more", "event", "isolated-over")
	}
}

// unconfirmed is a needs_ping target that has answered nothing since the other fell silent, "" when all have: then it is
// not this node that is cut off. Who would go on in the other's place must ask.
func (n *node) unconfirmed(now instant) string {
	if n.isolated.target != "" {
		return n.isolated.target // or has answered only now: the other may be heard in a moment too
	}
	other := n.peers.get(n.otherNode()).at
	for _, name := range n.config.Cluster.NeedsPing {
		t := n.reach.target(name)
		if t == nil || t.answered <= other || now.sub(t.answered) >= n.config.aloneLimit() {
			return name
		}
	}
	return ""
}

// reportReach proposes what has changed: a target out of reach, or back.
func (n *node) reportReach(now instant, me *NodeState) {
	if n.config.isWitness(n.name) {
		return
	}
	for _, t := range n.reach.targets {
		told := me.reach(t.config.Name)
		if !t.known || n.config.ping(t.config.Name) == nil || told != nil && (told.Reason == "") == t.up {
			continue
		}
		e := Entry{Kind: entryReach, Node: n.name, Ping: t.config.Name, Session: n.opt.Session}
		if !t.up {
			e.Reason = t.lost()
		}
		n.propose(now, e)
	}
}

// statusPings shows each target as the nodes have told of it, and as this one knows it.
func (n *node) statusPings(now instant, s *Status) {
	clock := n.clusterClock(now)
	for _, p := range n.config.Pings {
		x := PingStatus{Name: p.Name, Target: p.target()}
		for _, name := range n.config.fullNodes() {
			at := PingReach{Node: name, State: "unknown"}
			if m := n.state.node(name); m != nil && m.reach(p.Name) != nil && (name == n.name || !n.isLost(now, name)) {
				told := m.reach(p.Name)
				at.State, at.Reason, at.Since = "reached", told.Reason, (clock - told.Since).Seconds()
				if told.Reason != "" {
					at.State = "lost"
				}
			}
			if t := n.reach.target(p.Name); name == n.name && t != nil && t.known && t.up != (at.State == "reached") {
				at.State, at.Reason, at.Since = "reached", "", 0
				if !t.up {
					at.State, at.Reason = "lost", t.lost()
				}
			}
			x.Nodes = append(x.Nodes, at)
		}
		s.Pings = append(s.Pings, x)
	}
}

// problemPing: a target that answers nobody is down; one that answers some says which node is cut off from it.
func (n *node) problemPing(s *Status, p *PingStatus) {
	reached, lost := 0, []PingReach{}
	for _, x := range p.Nodes {
		switch x.State {
		case "reached":
			reached++
		case "lost":
			lost = append(lost, x)
		}
	}
	switch {
	case len(lost) == 0:
	case reached == 0:
		s.Problems = append(s.Problems, Problem{ID: "target-down", Severity: "warning", Since: lost[0].Since, What: fmt.Sprintf("%s answers no node (%s)", p.Name, lost[0].Reason),
			Why: "it is down, or what lies before it", Next: "nothing moves on its account"})
	default:
		for _, x := range lost {
			s.Problems = append(s.Problems, Problem{ID: eventUnreached, Severity: "warning", Since: x.Since,
				What: fmt.Sprintf("%s does not reach %s (%s)", x.Node, p.Name, x.Reason), Next: "nothing that needs it goes there while another node reaches it"})
		}
	}
}

// problemIsolated says what needs_ping does here, and what it does not.
func (n *node) problemIsolated(s *Status) {
	next := fmt.Sprintf("Because of needs_ping what it ran is stopped until %s answers. Two nodes that do not hear each other and are both answered "+
		"it does not keep apart", n.isolated.target)
	if n.config.Cluster.TwoNode == "manual" {
		next = "It goes on with what it runs, since the other takes nothing over unasked. Do not confirm the other dead from here"
	}
	s.problem("isolated", "error", fmt.Sprintf("this node is cut off: neither %s nor %s answers it", n.otherNode(), n.isolated.target), "", next, "ip link; ip route")
}
