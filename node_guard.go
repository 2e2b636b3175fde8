// What does this node say of the copies of what it writes? What a monitor of a DRBD resource has read becomes a mark where a
// peer misses something, and the end of that mark when it has caught up; a handler of DRBD's waits for a mark of its own, and
// what stays frozen without one is thawed. docs/design.md section 15.

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// guardRead is how soon a new owner has read how DRBD guards what it runs, at the latest.
const guardRead = 10 * time.Second

// copySeen is what the last monitor of a resource has read.
type copySeen struct {
	group, name string // as in the config
	resource    string // as DRBD has it
	known       uint64 // raft index of the state when that monitor was begun
	good, stale []string
	of          int
	frozen      bool
}

// noteCopies takes what a monitor has read of the copies. What was thawed must be looked at again first.
func (n *node) noteCopies(d actionDone) {
	if d.Config.Type != "drbd" || d.Op == opFit {
		return
	}
	of := func(s copySeen) bool { return s.group == d.Group && s.name == d.Resource }
	n.seen = slices.DeleteFunc(n.seen, of)
	if d.Op != opThaw && !(d.Op == opMonitor && (d.Copies != nil || d.Condition == conditionUnknown)) {
		n.guards = slices.DeleteFunc(n.guards, of)
	}
	if d.Op != opMonitor || d.Copies == nil || !d.Copies.Known {
		return
	}
	c := d.Copies
	s := copySeen{group: d.Group, name: d.Resource, resource: d.Config.Resource, known: d.Known,
		good: n.peerNames(c.Peers, c.Of), stale: n.peerNames(c.Stale, c.Of), of: c.Of, frozen: c.Frozen}
	n.seen = append(n.seen, s)
	n.guards = slices.DeleteFunc(n.guards, of)
	if c.Guarded {
		n.guards = append(n.guards, s)
	}
}

// guarded lists what is Primary here and freezes as soon as its peer misses anything: not yet where it does already and that
// is not recorded. What a daemon cannot read for a while stays as it was. Where the end of a lease proves nothing it is of no
// use, and a caretaker could not take its word back.
func (n *node) guarded() []string {
	if n.state == nil || n.config.twoVoters() {
		return nil
	}
	var out []string
	for _, s := range n.guards {
		if s.of > 1 && (s.frozen || !slices.ContainsFunc(s.stale, func(peer string) bool { return n.state.stale(s.resource, peer) == nil })) {
			out = append(out, s.resource)
		}
	}
	slices.Sort(out)
	return out
}

// writes: this node owns the group and may write its data.
func (n *node) writes(g *GroupState) bool {
	return g != nil && g.Owner == n.name && g.Phase != phaseRevoked // also where it is blocked: nobody else does
}

// reportCopies proposes what the state does not know yet. A mark is lifted only by what was begun when it stood: what was
// seen before says nothing of the writes that it is about. What is frozen needs a mark that is younger than the look that
// found it so, since an older one may be about to be lifted.
func (n *node) reportCopies(now instant) {
	for _, s := range n.seen {
		g := n.state.group(s.group)
		if !n.writes(g) {
			continue
		}
		e := Entry{Kind: entryMark, Group: g.Name, Node: n.name, Epoch: g.Epoch, Session: n.opt.Session, Resource: s.resource}
		for _, e.Peer = range s.stale {
			if m := n.state.stale(s.resource, e.Peer); n.runsGroups(e.Peer) && (m == nil || s.frozen && m.ID <= s.known) {
				n.propose(now, e)
			}
		}
		e.Kind = entryUnmark
		for i := range n.state.Stale {
			if m := &n.state.Stale[i]; m.Resource == s.resource && m.ID <= s.known && n.hasAll(&s, m.Node) {
				e.Peer, e.Base = m.Node, m.ID
				n.propose(now, e)
			}
		}
	}
}

// hasAll tells whether a node was seen to have all that is written. Tools of 8.4 do not tell what the one peer is called.
func (n *node) hasAll(s *copySeen, node string) bool {
	return slices.Contains(s.good, node) || s.of == 2 && len(s.good) == 1 && n.config.node(s.good[0]) == nil && node != n.name
}

func (n *node) runsGroups(node string) bool {
	return node != n.name && slices.Contains(n.config.fullNodes(), node)
}

// mayThaw lists the resources of a group that were seen frozen, and whose peers are all marked since.
func (n *node) mayThaw(g *GroupState) []string {
	var out []string
	for _, s := range n.seen {
		if s.group != g.Name || !s.frozen || !n.writes(g) {
			continue
		}
		if !slices.ContainsFunc(s.stale, func(peer string) bool {
			m := n.state.stale(s.resource, peer)
			return (m == nil || m.ID <= s.known) && !n.goesAlone()
		}) {
			out = append(out, s.name)
		}
	}
	return out
}

// mayRejoin is this node's part in the end of split brains that somebody has judged. Who hears no majority may not know the
// last word on that.
func (n *node) mayRejoin(c *GroupConfig) []rejoin {
	var out []rejoin
	for i := range n.state.Stale {
		m := &n.state.Stale[i]
		if !m.GivenUp || !n.hasQuorum() {
			continue
		}
		for k := range c.Resources {
			switch r := &c.Resources[k]; {
			case r.Type != "drbd" || r.Resource != m.Resource:
			case m.Node == n.name:
				out = append(out, rejoin{r.Name, rejoinGiveUp})
			case m.By == n.name:
				out = append(out, rejoin{r.Name, rejoinKeep})
			}
		}
	}
	return out
}

// beginResolve is an operator who has looked at both sides of a split brain, and says which one counts.
func (n *node) beginResolve(w *waiter) (*waiter, error) {
	c := w.command
	gc := n.config.groupOn(c.Resource)
	if gc == nil {
		return nil, &hintError{msg: fmt.Sprintf("no group has the DRBD resource %q", c.Resource), hint: "hactl status", code: exitUsage}
	}
	full := n.config.fullNodes()
	if !slices.Contains(full, c.Node) {
		return nil, &hintError{msg: fmt.Sprintf("%q is no node that runs groups", c.Node), hint: "--keep one of: " + wordList(full, "or"), code: exitUsage}
	}
	others := slices.DeleteFunc(slices.Clone(full), func(name string) bool { return name == c.Node })
	if c.Text != "" {
		others = slices.DeleteFunc(others, func(name string) bool { return name != c.Text })
	}
	if len(others) != 1 {
		return nil, &hintError{msg: "it must be said whose copy is thrown away", hint: fmt.Sprintf("hactl drbd resolve %s --keep %s --discard NODE", c.Resource, c.Node), code: exitUsage}
	}
	victim := others[0]
	if owner := n.state.writerOf(c.Resource); owner != "" && owner != c.Node {
		return nil, &hintError{msg: fmt.Sprintf("%s owns %s and may write to %s, so its copy cannot be given up now", owner, gc.Name, c.Resource),
			hint: fmt.Sprintf("hactl standby %s, which stops %s; then again; then hactl online %s", owner, gc.Name, owner)}
	}
	if !c.Force {
		for _, line := range n.previewResolve(c.Resource, c.Node, victim) {
			w.say(Progress{Text: line})
		}
		return nil, nil
	}
	w.entry.Kind, w.entry.Resource, w.entry.Node, w.entry.Peer = entryResolve, c.Resource, c.Node, victim
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("%s's copy of %s is the good one; %s throws away what it alone has and catches up: hactl status --watch", c.Node, c.Resource, victim), true, nil
	}
	return w, nil
}

// previewResolve says what is known of both sides before one is given up.
func (n *node) previewResolve(resource, keep, victim string) []string {
	lines := []string{fmt.Sprintf("what %s alone has of %s is thrown away, block by block; %s's copy stays as it is", victim, resource, keep)}
	for _, name := range []string{keep, victim} {
		other := victim
		if name == victim {
			other = keep
		}
		if m := n.state.stale(resource, other); m != nil && m.By == name {
			lines = append(lines, fmt.Sprintf("%s has gone on without %s since %s", name, other, wallTime(m.Wall).Format(time.DateTime)))
		} else {
			lines = append(lines, fmt.Sprintf("nothing is recorded of %s having written without %s", name, other))
		}
	}
	return append(lines, fmt.Sprintf("how much each has alone: hactl status on it, or out-of-sync in drbdsetup status %s --verbose --statistics", resource))
}

// beginFencePeer is DRBD's handler asking: may this node write on without that peer? Done without an error is the leave.
func (n *node) beginFencePeer(w *waiter) (*waiter, error) {
	c := w.command
	gc := n.config.groupOn(c.Resource)
	if gc == nil {
		return nil, &hintError{msg: fmt.Sprintf("no group has the DRBD resource %q", c.Resource), hint: "hactl status", code: exitUsage}
	}
	g := n.state.group(gc.Name)
	if !n.writes(g) {
		epoch := uint64(0)
		if g != nil {
			epoch = g.Epoch
		}
		if key := fmt.Sprintf("%s/%d", gc.Name, epoch); n.refused != key { // it asks again and again
			n.refused = key
			n.log.Warn(fmt.Sprintf("DRBD asks whether to go on without its peer, and may not: this node does not own %s now", gc.Name), "event", "drbd-refused", "group", gc.Name, "resource", c.Resource)
		}
		return nil, &hintError{msg: fmt.Sprintf("this node may not write to %s: it does not own %s now", c.Resource, gc.Name), hint: "hactl why " + gc.Name}
	}
	peer := n.peerNames([]string{c.Node}, 2)[0]
	if !n.runsGroups(peer) {
		return nil, &hintError{msg: fmt.Sprintf("%q is no other node that runs groups", c.Node),
			hint: "where more than two run groups, DRBD must have the same names for them as /etc/ha.toml"}
	}
	w.entry.Kind, w.entry.Group, w.entry.Epoch, w.entry.Node, w.entry.Session = entryMark, g.Name, g.Epoch, n.name, n.opt.Session
	w.entry.Resource, w.entry.Peer = c.Resource, peer
	w.finish = func(instant) (string, bool, error) {
		if n.goesAlone() {
			return fmt.Sprintf("going on without %s's copy of %s, as caretaker", peer, c.Resource), true, nil
		}
		return fmt.Sprintf("%s's copy of %s is recorded as stale", peer, c.Resource), true, nil
	}
	w.excused = n.goesAlone
	return w, nil
}

// goesAlone: a caretaker may write on though nothing can be recorded. Nobody else decides anything meanwhile, and when there is
// a majority again the monitor records what it sees then. With two_node = "fence" the other comes back only when it was off,
// but may be about to win the race.
func (n *node) goesAlone() bool {
	return n.caretaker && !n.hasQuorum() && n.config.Cluster.TwoNode != "fence"
}

// beginUnmark is an operator who gives up what only a lost node has.
func (n *node) beginUnmark(w *waiter) (*waiter, error) {
	c := w.command
	m := n.state.stale(c.Resource, c.Node)
	if m == nil {
		return nil, &hintError{msg: fmt.Sprintf("%s's copy of %q is not marked as stale", c.Node, c.Resource), hint: "hactl status lists those that are", code: exitUsage}
	}
	if owner := n.state.writerOf(c.Resource); owner != "" {
		return nil, &hintError{msg: fmt.Sprintf("%s may write to %s, so its copy is the good one", owner, c.Resource),
			hint: "connect the two, and the mark goes when the copy is complete: drbdadm status " + c.Resource}
	}
	if !c.Force {
		for _, line := range []string{
			fmt.Sprintf("%s wrote to %s without %s, and has what %s lacks", m.By, m.Resource, m.Node, m.Node),
			fmt.Sprintf("if %s can be brought back, do that instead: nothing is lost then, and the mark goes by itself", m.By),
			fmt.Sprintf("else what was written since is lost, and %s must give up its own copy when it comes back", m.By),
		} {
			w.say(Progress{Text: line})
		}
		return nil, nil
	}
	w.entry.Kind, w.entry.Resource, w.entry.Peer, w.entry.Base, w.entry.Node = entryUnmark, m.Resource, m.Node, m.ID, ""
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("%s's copy of %s counts as good", c.Node, c.Resource), true, nil
	}
	return w, nil
}

// problemStale tells which copies miss something. Where the node that has it is not there, what is left is an operator's word.
func (n *node) problemStale(now instant, s *Status) {
	for i := range n.state.Stale {
		m := &n.state.Stale[i]
		p := Problem{ID: eventStale, Severity: "warning", Since: (n.clusterClock(now) - m.Clock).Seconds(),
			What: fmt.Sprintf("%s's copy of %s is stale: %s went on without it", m.Node, m.Resource, m.By),
			Next: fmt.Sprintf("%s may run %s again when it has caught up", m.Node, m.Group), Command: "drbdadm status " + m.Resource}
		if m.GivenUp {
			p.What = fmt.Sprintf("%s's copy of %s is given up for %s's, by an operator's word", m.Node, m.Resource, m.By)
		}
		if n.state.writerOf(m.Resource) == "" && n.isLost(now, m.By) {
			p.Severity = "error"
			p.Next = fmt.Sprintf("bring %s back; only if it is lost for good, with all that it wrote since", m.By)
			p.Command = fmt.Sprintf("hactl drbd unmark %s %s", m.Resource, m.Node)
		}
		s.Problems = append(s.Problems, p)
	}
}

// problemApart tells of copies that DRBD does not bring together by itself: after a split brain, or because somebody has
// disconnected them. Which of two is better nobody here can know.
func (n *node) problemApart(s *Status, g *GroupStatus) {
	for _, r := range g.Resources {
		if r.Replica == nil || !slices.ContainsFunc(r.Replica.Peers, func(p ReplicaPeer) bool { return p.Connection == string(connStandAlone) }) ||
			slices.ContainsFunc(n.mayRejoin(n.config.group(g.Name)), func(x rejoin) bool { return x.resource == r.Name }) {
			continue
		}
		name := r.Replica.Resource
		p := Problem{ID: "drbd-apart", Severity: "error", What: fmt.Sprintf("%s is not connected here, and DRBD does not connect it by itself (StandAlone)", name),
			Why: "somebody has disconnected it, or it was found that each side has what the other has not", Command: "drbdadm connect " + name,
			Next: "what is written has no second copy; if connecting ends in a split brain, it is shown here"}
		if r.Replica.SplitBrain {
			keep := cmp.Or(g.Owner, n.name)
			p.What = fmt.Sprintf("%s has a split brain: each side has written what the other has not", name)
			p.Why = ""
			p.Next = "nothing is thrown away before you say so: look at both sides, and decide whose copy counts"
			p.Command = fmt.Sprintf("hactl drbd resolve %s --keep %s", name, keep)
		}
		s.Problems = append(s.Problems, p)
	}
}

// problemUnguarded tells which groups on DRBD would wait for an operator's word, since neither DRBD nor a reset keeps a silent
// owner from writing. The first monitor of a fresh owner must have had its time.
func (n *node) problemUnguarded(now instant, s *Status) {
	if len(n.config.Nodes) < 3 {
		return
	}
	for i := range n.state.Groups {
		g := &n.state.Groups[i]
		c, owner := n.config.group(g.Name), n.state.node(g.Owner)
		if c == nil || owner == nil || g.Phase != phaseStarted || len(g.Guards) == 0 || n.state.class(g) != classStateful ||
			owner.Enforce.Watchdog > 0 || len(n.config.fencesOf(g.Owner)) > 0 || n.isLost(now, g.Owner) {
			continue
		}
		if since := n.clusterClock(now) - g.Since; since >= guardRead {
			s.Problems = append(s.Problems, Problem{ID: eventUnguarded, Severity: "warning", Since: since.Seconds(),
				What: fmt.Sprintf("%s waits for your word if %s dies: DRBD there does not freeze %s when it loses its peer, and nothing resets that node",
					g.Name, g.Owner, wordList(g.Guards, "and")),
				Next: "it says there what is missing in DRBD's configuration", Command: fmt.Sprintf("hactl check (on %s)", g.Owner)})
		}
	}
}
