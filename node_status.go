// What is there to show? The Status document from the state and from what this node knows: is my service up, where, is
// its data safe, what needs me. Sentences only; how they look is for cmd_status_render.go.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// surroundings is what only the shell knows.
type surroundings struct {
	version string
	links   []LinkStatus
	keys    map[string]string       // node → ids of keys that it seals with
	details map[string]groupDetails // by group
	gate    gateReport
	cutOff  bool // it talks over links that are not those of the config in force, which this host has not
}

// pauseShown is how long status tells of a pause.
const pauseShown = 10 * time.Minute

// Status is the document as of now.
func (n *node) Status(now instant, out surroundings) *Status {
	s := &Status{Cluster: n.config.Cluster.Name, Node: n.name, Version: out.version, Wall: time.Unix(0, n.opt.Wall()),
		Gate: out.gate.Kind, Enforcer: n.enforcer(out.gate), Caretaker: n.caretaker, Quorum: n.hasQuorum(), Links: out.links}
	n.statusNodes(now, s, out)
	n.statusLinks(now, s)
	if n.state == nil {
		s.Problems = append(s.Problems, Problem{ID: "no-cluster", Severity: "error", What: "this node is not part of a running cluster",
			Why: n.whyBlank(), Next: "it goes on by itself when that has changed"})
		for _, g := range n.config.Groups {
			s.Groups = append(s.Groups, n.statusBlankGroup(&g))
		}
	} else {
		st := n.cons.Status()
		s.Generation, s.Incarnation, s.Maintenance, s.Voters = n.state.Config.Generation, n.state.Incarnation.Counter, n.state.Maintenance, len(st.Members.Voters)
		s.Leader = n.nameOf(st.Leader)
		if st.Leader == n.member {
			s.Leader = n.name
		}
		n.statusGroups(now, s, out)
		n.statusPings(now, s)
		n.statusProblems(now, s)
	}
	if out.cutOff {
		s.problem("links-kept", "error", fmt.Sprintf("this host has none of the links of config generation %d", s.Generation), "their interfaces, or its addresses on them, are not there",
			"it keeps to the links that it has; mend the config, or take it back", fmt.Sprintf("hactl config rollback %d", max(1, s.Generation-1)))
	}
	s.Problems = append(s.Problems, n.problems...)
	s.Overall = overall(s)
	return s
}

// overall: down when a group that should run does not, degraded when anything needs somebody.
func overall(s *Status) string {
	worst := "ok"
	for _, p := range s.Problems {
		worst = "degraded"
		_ = p
	}
	for _, g := range s.Groups {
		if g.State != "started" && s.Maintenance == nil {
			return "down"
		}
	}
	for _, x := range s.Nodes {
		if x.State != "online" {
			worst = "degraded"
		}
	}
	if len(s.Groups) == 0 && !s.Quorum {
		return "down"
	}
	return worst
}

func (n *node) statusNodes(now instant, s *Status, out surroundings) {
	for i := range n.config.Nodes {
		c := &n.config.Nodes[i]
		p := n.peers.get(c.Name)
		x := NodeStatus{Name: c.Name, Role: c.Role, State: "never seen", Key: out.keys[c.Name], Heard: c.Name == n.name}
		if c.Name != n.name {
			x.Links = p.on(now, n.deadtime())
			x.Heard = len(x.Links) > 0
			if x.Heard && p.beatAt != 0 {
				x.Clock = (time.Duration(p.beat.Wall-n.opt.Wall()) + now.sub(p.beatAt)).Seconds()
			}
		}
		if n.state != nil {
			n.statusMember(now, &x)
		} else if x.Heard {
			x.State = "joining"
		}
		s.Nodes = append(s.Nodes, x)
	}
}

func (n *node) statusMember(now instant, x *NodeStatus) {
	m := n.state.node(x.Name)
	if m == nil {
		return
	}
	x.Voter = m.Voter
	if x.Role != "witness" && m.Joined {
		e := m.Enforce
		x.Enforce = &e
	}
	x.Leader = m.Member != 0 && n.cons.Status().Leader == m.Member
	clock := n.clusterClock(now)
	f := n.state.fence(x.Name)
	switch {
	case f != nil && f.Phase == fenceConfirmed && !m.Joined && !x.Heard && n.unmet() != x.Name:
		x.State, x.Since = "fenced", (clock - f.Clock).Seconds()
	case m.Member == 0 && !x.Heard && m.Boot == "":
	case m.Member == 0 && !x.Heard:
		x.State = "lost"
	case m.Left:
		x.State = "left"
	case m.Lost != nil:
		x.State, x.Since = "lost", (clock - m.Lost.Clock).Seconds()
	case !x.Heard && !n.hasQuorum():
		x.State = "lost"
		if d := n.peers.silence(now, x.Name); d < 1<<61 {
			x.Since = d.Seconds()
		}
	case !m.Joined:
		x.State = "joining"
	case m.Standby != nil:
		x.State, x.Since = "standby", (clock - m.Standby.Clock).Seconds()
	default:
		x.State, x.Since = "online", (clock - m.Since).Seconds()
	}
}

// statusLinks finds the nodes that are heard, but not on every link that both are on.
func (n *node) statusLinks(now instant, s *Status) {
	me := n.config.node(n.name)
	for i := range s.Links {
		l := &s.Links[i]
		for j := range n.config.Nodes {
			c := &n.config.Nodes[j]
			if c.Name == n.name || me.on(l.Name) == "" || c.on(l.Name) == "" {
				continue
			}
			p := n.peers.get(c.Name)
			if on := p.on(now, n.deadtime()); len(on) > 0 && !slices.Contains(on, l.Name) && now.sub(p.since) > n.deadtime() {
				l.Silent = append(l.Silent, c.Name)
			}
		}
		switch {
		case me.on(l.Name) == "":
		case l.State != "up":
			s.problem("link-down", "warning", fmt.Sprintf("link %s (%s): %s", l.Name, l.Interface, l.State), "", "heartbeats go over the other links", "ip link show "+l.Interface)
		case len(l.Silent) > 0:
			s.problem("link-silent", "warning", fmt.Sprintf("link %s (%s): %s heard on another link but not on this one", l.Name, l.Interface, strings.Join(l.Silent, ", ")),
				"its cable, switch or a firewall", "heartbeats go over the other links", "")
		}
	}
	if len(s.Links) > 0 && !slices.ContainsFunc(s.Links, func(l LinkStatus) bool { return l.State == "up" }) {
		for i := range s.Problems {
			if p := &s.Problems[i]; p.ID == "link-down" {
				p.Severity, p.Next = "error", "nobody can be heard; if an edit of the links was wrong, mend /etc/ha.toml on each node: it is used although it is not in force"
			}
		}
	}
}

func (s *Status) problem(id, severity, what, why, next, command string) {
	s.Problems = append(s.Problems, Problem{ID: id, Severity: severity, What: what, Why: why, Next: next, Command: command})
}

func (n *node) statusBlankGroup(g *GroupConfig) GroupStatus {
	x := GroupStatus{Name: g.Name, State: "stopped", Why: n.whyBlank()}
	for _, r := range g.Resources {
		x.Resources = append(x.Resources, ResourceStatus{Name: r.Name, Type: r.Type})
	}
	return x
}

func (n *node) statusGroups(now instant, s *Status, out surroundings) {
	clock := n.clusterClock(now)
	v := n.view(now)
	for _, verdict := range n.verdicts {
		g := n.state.group(verdict.Group)
		if g == nil {
			continue
		}
		x := GroupStatus{Name: g.Name, Owner: g.Owner, Epoch: g.Epoch, Since: (clock - g.Since).Seconds(), Rule: verdict.Rule, Why: verdict.Text,
			State: groupWord(g), Pin: g.Pin, Nodes: why(n.state, v, g.Name)}
		if g.Phase == phaseStarted && n.isLost(now, g.Owner) {
			x.State = "waiting"
		}
		switch mine := g.Owner == n.name; {
		case n.unmet() != "":
			x.State, x.Rule = "waiting", ""
			x.Why = fmt.Sprintf("this node has booted and not met %s, which may run it by now", n.unmet())
		case mine && n.beaten():
			x.State, x.Why = "stopping", "another incarnation of the cluster lives, and may run it elsewhere"
			if n.agent.stopped(g.Name) {
				x.State, x.Rule = "waiting", ""
			}
		case mine && n.kept(g.Name):
			x.State, x.Rule = "waiting", ""
			x.Why = fmt.Sprintf("%s is kept as it is on %s: no majority, so its addresses are shut; they open again with the next lease, and it stops when another node was given it", g.Name, n.name)
		case mine && n.isShut(g.Name):
			x.State, x.Rule = "waiting", "" // what the log that is known here says of it may be over
			x.Why = fmt.Sprintf("the lease of %s is over: its addresses are shut here, and what else runs is stopped soon; another node may run it by now", n.name)
		}
		if g.Owner == n.name && !n.beaten() {
			if left := n.leaseEnd(g.Name, g.Epoch).sub(now); left > 0 {
				x.Lease = left.Seconds()
			}
		}
		if g.Pin != nil {
			x.PinAge = (clock - g.Pin.Clock).Seconds()
			if g.Pin.Until != 0 {
				x.PinLeft = max(0, g.Pin.Until-clock).Seconds()
			}
		}
		if !s.Quorum && x.State == "waiting" && n.config.twoVoters() && g.Owner != n.name {
			x.Why = fmt.Sprintf("%s owns it and is silent; two_node = %q: this node takes over only when %s is confirmed dead", g.Owner, n.config.Cluster.TwoNode, g.Owner)
			switch n.config.Cluster.TwoNode {
			case "fence":
				x.Why = n.fenceWait(now, g.Owner)
			case "ignore":
				x.Why = fmt.Sprintf("%s owns it and is silent; this node has not met it since its boot, so it does not take over by itself", g.Owner)
				if target := n.unconfirmed(now); target != "" {
					x.Why = fmt.Sprintf("%s owns it and is silent, and %s (needs_ping) does not answer either: it may be this node that is cut off, so it takes over when that answers", g.Owner, target)
				}
			}
		}
		x.Data = n.whereData(out.details[g.Name].data)
		n.statusResources(g, &x, out)
		if why := n.impaired(g, &x); x.State == "started" && why != "" {
			x.State, x.Why = "impaired", why
		}
		s.Groups = append(s.Groups, x)
	}
}

// impaired is what keeps a group from serving whole though the cluster has it started: something of it does not run, as its
// owner sees at once and says to the others when it cannot mend it.
func (n *node) impaired(g *GroupState, x *GroupStatus) string {
	if g.Owner != n.name {
		if o := n.state.node(g.Owner); o != nil && o.Enforce.Fault == "" && o.unfit(g.Name) != "" {
			return fmt.Sprintf("not all of it runs on %s: %s", g.Owner, o.unfit(g.Name))
		}
		return ""
	}
	for _, r := range x.Resources {
		switch r.State {
		case conditionStopped.String(), conditionFailed.String(), "starting", "stopping":
			text := fmt.Sprintf("not all of it runs: %s is %s", r.Name, r.State)
			if r.Detail != "" {
				text += ": " + r.Detail
			}
			return text
		}
	}
	return ""
}

// whereData says on which nodes all replicated data of a group is good; "" when it has none or this node cannot know.
func (n *node) whereData(all []copies) string {
	if len(all) == 0 {
		return ""
	}
	var good []string
	for i, c := range all {
		if !c.Known {
			return ""
		}
		on := n.peerNames(c.Peers, c.Of)
		if c.Here {
			on = append(on, n.name)
		}
		if i == 0 {
			good = on
		}
		good = slices.DeleteFunc(good, func(name string) bool { return !slices.Contains(on, name) })
	}
	slices.Sort(good)
	switch len(good) {
	case 0:
		return "is good on no node that is connected"
	case 1:
		return "has one good copy only, on " + good[0]
	}
	return "is safe on " + strings.Join(good[:len(good)-1], ", ") + " and " + good[len(good)-1]
}

// peerNames puts nodes for the peers of a resource: its names for them are host names, which need not be the nodes', and
// the one peer of two nodes that may run groups is the other.
func (n *node) peerNames(peers []string, of int) []string {
	others := slices.DeleteFunc(n.config.fullNodes(), func(name string) bool { return name == n.name })
	var on []string
	for _, p := range peers {
		if n.config.node(p) == nil && len(others) == 1 && of == 2 {
			p = others[0]
		}
		on = append(on, p)
	}
	return on
}

func groupWord(g *GroupState) string {
	switch g.Phase {
	case phaseStarted:
		return "started"
	case phasePlaced:
		return "starting"
	case phaseRevoked:
		if g.Proof == "" {
			return "stopping"
		}
		return "waiting"
	case phaseBlocked:
		return "blocked"
	}
	return "stopped"
}

func (n *node) isLost(now instant, node string) bool {
	m := n.state.node(node)
	return m != nil && (m.Lost != nil || node != n.name && !n.hasQuorum() && n.peers.silence(now, node) > n.deadtime())
}

func (n *node) statusResources(g *GroupState, x *GroupStatus, out surroundings) {
	c := n.state.Config.Effective.group(g.Name)
	if c == nil {
		return
	}
	a := n.agent.group(g.Name)
	for _, rc := range c.Resources {
		r := ResourceStatus{Name: rc.Name, Type: rc.Type, Replica: out.details[g.Name].replicas[rc.Name]}
		if a != nil {
			// What is stopped here is no news where another node owns the group.
			if ra := a.resource(rc.Name); ra != nil && (g.Owner == n.name || ra.cond != conditionStopped) {
				r.State, r.Detail = ra.word(), out.details[g.Name].lines[rc.Name]
				if r.State == "running" && rc.Type == "vip" && n.isShut(g.Name) {
					r.State = "shut"
				}
				if ra.detail != "" {
					r.Detail = ra.detail
				}
			}
		}
		if r.Detail == "" && r.Replica.hurts() {
			r.Detail = "here: " + out.details[g.Name].lines[rc.Name]
		}
		for _, f := range n.state.Resources {
			if f.Group == g.Name && f.Resource == rc.Name {
				r.Failures = append(r.Failures, f)
			}
		}
		x.Resources = append(x.Resources, r)
	}
}

// word is the resource's state as the operator reads it.
func (r *resourceAgent) word() string {
	switch {
	case r.busy != 0 && r.op == opStart:
		return "starting"
	case r.busy != 0 && r.op == opStop:
		return "stopping"
	}
	return r.cond.String()
}

func (n *node) statusProblems(now instant, s *Status) {
	if n.config.node(n.name) == nil { // what else it sees is the view of one who was left
		s.problem("not-in-config", "error", n.name+" is no longer in the config of the cluster", "", "it may run nothing; end it here, or put it into the config on another node, copy that file here and restart it", "systemctl disable --now ha")
		return
	}
	if !s.Quorum {
		n.problemQuorum(s)
	}
	if n.storeErr != "" {
		s.problem("store-failed", "error", "the state of this node cannot be stored: "+n.storeErr, "", "it does nothing that depends on it, and asks for no lease", "df -h; dmesg")
	}
	if n.storeErr == "" && n.sick(now) != "" {
		s.problem("node-sick", "error", "this node is not well: "+n.sick(now), "", "it asks for no lease, so it loses its groups; it takes some again by itself when it is well", "dmesg; journalctl -u ha")
	}
	for _, x := range s.Nodes {
		if e := x.Enforce; e != nil && e.Fault != "" {
			s.problem("watchdog-failed", "error", fmt.Sprintf("the watchdog of %s cannot be used: %s", x.Name, e.Fault), "", "nothing stateful starts there", "hactl check (on "+x.Name+")")
		}
	}
	if s.Maintenance != nil {
		s.problem("maintenance", "warning", "maintenance is on, by "+s.Maintenance.By, "", "nothing is started, stopped or moved; nothing fails over", "hactl maintenance off")
	}
	if n.isolated.target != "" {
		n.problemIsolated(s)
	}
	if other := n.unmet(); other != "" {
		n.problemUnmet(s, other)
	}
	if p := n.paused; p.at != 0 && now.sub(p.at) < pauseShown {
		s.problem("stood-still", "warning", fmt.Sprintf("this host stood still for %s, %s ago, by the clock of %s", p.took.Round(10*time.Millisecond), age(now.sub(p.at).Seconds()), p.peer),
			"a paused virtual machine, or a snapshot of one", "Its leases were void at the first message from a peer; until that it may have answered for its addresses although another had taken over", "")
	}
	for _, x := range s.Nodes {
		n.problemNode(s, x)
	}
	for i := range s.Pings {
		n.problemPing(s, &s.Pings[i])
	}
	n.problemFences(now, s)
	for i := range s.Groups {
		n.problemGroup(s, &s.Groups[i])
	}
	n.problemStale(now, s)
	n.problemUnguarded(now, s)
	if n.lostFork != "" && now.sub(n.lostForkAt) < time.Hour {
		s.Problems = append(s.Problems, Problem{ID: "fork-lost", Severity: "warning", Since: now.sub(n.lostForkAt).Seconds(), What: n.lostFork,
			Why: "one of two lives goes on", Next: "what was decided in the other is not in force; its state is kept aside in the state folder"})
	}
	for _, p := range n.peers.all {
		if p.better != 0 {
			s.Problems = append(s.Problems, Problem{ID: "incarnation-met", Severity: "error", Since: now.sub(p.better).Seconds(),
				What: p.name + " was heard in another incarnation of the cluster, to which this one yields", Why: "it went on without this node",
				Next: "what runs here stops; this node joins it when it has heard it for a while", Command: "hactl status (on " + p.name + ")"})
		}
		if p.strange != 0 && now.sub(p.strange) < 2*time.Minute {
			s.problem("stranger", "error", p.name+" belongs to another cluster with our name and key", "two clusters were founded", "stop one of them and remove its state folder", "")
		}
		if p.differs != 0 {
			s.problem("state-differs", "error", "the state of this node differs from that of "+p.name+" at the same point of the log", "a memory, a disk or a program is faulty",
				"the one that does not lead takes the other's as soon as it owns no group", "hactl standby "+n.name)
		}
	}
}

func (n *node) problemQuorum(s *Status) {
	h := toHint(n.noMajority())
	p := Problem{ID: "no-quorum", Severity: "error", What: h.msg, Command: "", Next: h.hint}
	if s.Caretaker {
		p.What = "the other node is not there to decide with: this one goes on as caretaker"
		p.Severity = "warning"
		p.Why = "it restarts its own resources and changes nothing else"
	}
	s.Problems = append(s.Problems, p)
}

func (n *node) problemUnmet(s *Status, other string) {
	p := Problem{ID: "other-unmet", Severity: "error", What: "this node has booted and not met " + other + ", without which it had gone on",
		Why: other + " may have come back meanwhile and gone on alone as well", Command: "hactl confirm-dead " + other,
		Next: fmt.Sprintf("nothing starts here until %s is heard; if it is off for sure, say so", other)}
	if n.config.Cluster.TwoNode == "fence" {
		p.Next = fmt.Sprintf("nothing starts here until %s is heard or a fence device says that it is off; if it is off for sure, say so", other)
		if n.fence.reason != "" {
			p.Next += " (" + n.fence.reason + ")"
		}
	}
	s.Problems = append(s.Problems, p)
}

func (n *node) problemNode(s *Status, x NodeStatus) {
	if m := n.state.node(x.Name); m != nil && x.State == "online" {
		if left := m.unsteady(n.clusterClock(n.lastRun)); left > 0 {
			s.problem("node-flaps", "warning", fmt.Sprintf("%s comes and goes: %s", x.Name, lostTimes(m.Flaps)), "",
				fmt.Sprintf("it takes no group for %s more, unless no other node may", left.Round(time.Second)), "")
		}
	}
	switch {
	case x.State == "fenced": // problemFences says so
	case x.State == "lost":
		s.Problems = append(s.Problems, Problem{ID: "node-lost", Severity: "error", What: x.Name + " is lost", Since: x.Since,
			Next: "it comes back by itself when it runs and is reached; " + s.without(x, " until then"), Command: "systemctl status ha (on " + x.Name + ")"})
	case x.State == "left":
		s.problem("node-left", "warning", x.Name+" left", "its daemon was stopped", s.without(x, ""), "systemctl start ha (on "+x.Name+")")
	case x.State == "never seen":
		s.problem("node-never-seen", "warning", x.Name+" has never joined", "", "install hactl, the key and the file there, then: systemctl start ha", "")
	case x.State == "standby":
		next := "nothing runs there"
		if s.Maintenance != nil {
			next = "what it runs leaves it when maintenance is off"
		}
		s.problem("node-standby", "warning", x.Name+" is in standby", "", next, "hactl online "+x.Name)
	case x.Clock > 1 || x.Clock < -1:
		s.problem("clock-apart", "warning", fmt.Sprintf("the clock of %s is %s %s ours", x.Name, (time.Duration(x.Clock*1e9)).Abs().Round(time.Second), aheadBehind(x.Clock)),
			"", "no decision depends on it, but times in logs and histories do: look at time synchronisation", "timedatectl")
	}
}

// without is what the absence of a node costs: a place to fail over to, or, of a witness, a vote.
func (s *Status) without(x NodeStatus, meanwhile string) string {
	if x.Role != "witness" {
		return "nothing can fail over to it" + meanwhile
	}
	left := 0
	for _, o := range s.Nodes {
		if o.Voter && o.State != "lost" && o.State != "left" && o.State != "fenced" {
			left++
		}
	}
	text := fmt.Sprintf("%d of %d voters %s left: ", left, s.Voters, plural(left, "is", "are"))
	switch spare := left - s.Voters/2 - 1; {
	case !x.Voter:
		return "it has no vote" + meanwhile
	case spare < 0:
		return text + "too few to decide anything"
	case spare == 0:
		return text + "with one less nothing can be decided"
	default:
		return text + fmt.Sprintf("%d more may be lost", spare)
	}
}

func aheadBehind(d float64) string {
	if d > 0 {
		return "ahead of"
	}
	return "behind"
}

// needsWord: no wait and no device proves that the silent owner does not run the group. Where there is a device, what it
// says comes first.
func (n *node) needsWord(g *GroupState) bool {
	return g.Phase == phaseRevoked && g.Proof == "" && !n.state.leaseProves(g) && len(n.config.fencesOf(g.Owner)) == 0 && n.isLost(n.lastRun, g.Owner)
}

// heldFor is how long a start may wait for another host before somebody should look.
const heldFor = 10 * time.Second

// problemHeld tells of a start here that another host keeps from going on: DRBD where a kernel without a daemon is still Primary,
// or an address that is answered elsewhere. It goes on by itself.
func (n *node) problemHeld(s *Status, g *GroupState) {
	a := n.agent.group(g.Name)
	if a == nil || g.Owner != n.name || g.Phase != phasePlaced {
		return
	}
	for _, r := range a.res {
		held := n.lastRun.sub(r.heldAt)
		if r.heldAt == 0 || held < heldFor {
			continue
		}
		p := Problem{ID: "start-held", Severity: "error", Since: held.Seconds(), What: fmt.Sprintf("%s cannot start %s yet: %s", g.Name, r.config.Name, r.detail),
			Next: "it goes on by itself when that is over", Command: "hactl why " + g.Name}
		if lost := slices.DeleteFunc(n.config.fullNodes(), func(name string) bool { return name == n.name || !n.isLost(n.lastRun, name) }); len(lost) > 0 {
			p.Why = fmt.Sprintf("%s may hold it: its daemon is silent, its kernel need not be", wordList(lost, "or"))
			p.Next = "start the daemon there, or switch that machine off; then it goes on by itself"
			p.Command = fmt.Sprintf("systemctl start ha (on %s)", lost[0])
		}
		s.Problems = append(s.Problems, p)
	}
}

func (n *node) problemGroup(s *Status, g *GroupStatus) {
	state := n.state.group(g.Name)
	switch {
	case g.State == "blocked":
		s.problem("group-blocked", "error", g.Name+" is blocked: "+g.Why, "it is not started elsewhere, since it may still run there", fenceHint(n.config, g.Owner)+"mend the cause, then", "hactl cleanup "+g.Name)
	case g.State == "stopped":
		s.problem("group-stopped", "error", g.Name+" runs nowhere: "+g.Why, "", "", "hactl why "+g.Name)
	case g.State == "waiting" || g.Rule == "G6":
		command := "hactl why " + g.Name
		if g.Owner != "" && g.Owner != n.name && (!s.Quorum && n.config.twoVoters() && n.isolated.target == "" || n.needsWord(state)) {
			command = "hactl confirm-dead " + g.Owner
		}
		s.problem("group-waiting", "error", g.Name+" waits: "+g.Why, "", "", command)
	case g.Rule == "G11":
		s.problem("group-failing", "error", g.Name+": "+g.Why, "", "", "hactl cleanup "+g.Name)
	}
	n.problemHeld(s, state)
	n.problemApart(s, g)
	if p := state.Pin; p != nil && p.Node != g.Owner {
		s.problem("pin-elsewhere", "warning", fmt.Sprintf("%s is pinned to %s but is %s", g.Name, p.Node, where(g.Owner)), "it cannot go there now",
			"it goes there when it can", "hactl unmove "+g.Name)
	}
	if r := (&ruling{v: &View{Clock: n.clusterClock(n.lastRun)}, g: state}); r.bouncing() > 0 {
		s.problem("group-bounces", "warning", fmt.Sprintf("%s has failed on one node after the other: moved %s", g.Name, times(state.Bounces)), "",
			fmt.Sprintf("it is tried where it is, and moves again in %s at the earliest", r.bouncing().Round(time.Second)), "hactl cleanup "+g.Name)
	}
	for _, r := range g.Resources {
		for _, f := range r.Failures {
			s.Problems = append(s.Problems, Problem{ID: "resource-failed", Severity: "warning",
				What:  fmt.Sprintf("%s of %s failed %s on %s: %s", f.Op, r.Name, times(max(f.Failcount, 1)), f.Node, f.Reason),
				Since: (n.clusterClock(n.lastRun) - f.Clock).Seconds(), Next: "forgotten by itself after failure_timeout", Command: "hactl cleanup " + g.Name})
		}
	}
	for _, u := range n.state.Nodes {
		if reason := u.unfit(g.Name); reason != "" {
			s.problem("node-unfit", "warning", fmt.Sprintf("%s cannot run %s: %s", u.Name, g.Name, reason), "", "it cannot fail over there", "")
		}
	}
}
