// What would happen if? Runs steps on a copy of the live state and view, with the rules that decide in the daemon.
// Nothing is touched: what a daemon would do is assumed to succeed unless a step says that it fails. Pure.

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// simulation is what GET /v1/state gives, and what steps change.
type simulation struct {
	State *State         `json:"state"`
	View  *View          `json:"view"`
	Links []linkedByLink `json:"links"` // who hears whom: for cut

	failing []failingResource
	dead    []string // killed; who is only cut off runs on
	stuck   bool     // nobody is left who may decide
	out     strings.Builder
}

// linkedByLink is the nodes on a link.
type linkedByLink struct {
	Link  string   `json:"link"`
	Nodes []string `json:"nodes"`
}

type failingResource struct{ group, resource, node string }

// snapshot is what simulate starts from.
func (n *node) snapshot(now instant) []byte {
	s := simulation{State: n.state, View: n.view(now)}
	for _, l := range n.config.Links {
		on := linkedByLink{Link: l.Name}
		for _, c := range n.config.Nodes {
			if c.on(l.Name) != "" {
				on.Nodes = append(on.Nodes, c.Name)
			}
		}
		s.Links = append(s.Links, on)
	}
	b, err := json.Marshal(&s)
	if err != nil {
		panic("encode snapshot: " + err.Error()) // plain data: cannot fail
	}
	return b
}

const simulateRounds = 1000 // far more than any cluster needs to come to rest

// simulate tells, as text for the operator, what the cluster with this state would do in each step. The steps have
// passed parseSteps.
func simulate(state []byte, steps []string) (string, error) {
	sim := &simulation{}
	if err := json.Unmarshal(state, sim); err != nil {
		return "", fmt.Errorf("read the live state: %w", err)
	}
	if sim.State == nil || sim.View == nil || sim.State.Config.Effective == nil {
		return "", fmt.Errorf("read the live state: there is no running cluster yet")
	}
	sim.stuck = !sim.quorate()
	sim.line("now: " + sim.where())
	for _, step := range steps {
		sim.line("")
		sim.line("if " + step + ":")
		if err := sim.step(strings.Fields(step)); err != nil {
			return "", err
		}
		sim.settle()
		sim.line("then: " + sim.where())
	}
	return sim.out.String(), nil
}

func (sim *simulation) line(s string) { sim.out.WriteString(s + "\n") }

// where is the placement in one line.
func (sim *simulation) where() string {
	var parts []string
	for _, g := range sim.State.Groups {
		switch {
		case sim.stuck && g.Owner != "":
			parts = append(parts, sim.stuckWhere(&g))
		case sim.broken(&g):
			parts = append(parts, g.Name+" fails on "+g.Owner+" whenever it is tried")
		case g.Phase == phaseStarted:
			parts = append(parts, g.Name+" runs on "+g.Owner)
		case g.Owner != "":
			parts = append(parts, fmt.Sprintf("%s is %s on %s", g.Name, phaseWord(g.Phase), g.Owner))
		default:
			parts = append(parts, g.Name+" runs nowhere")
		}
	}
	if len(parts) == 0 {
		return "no groups"
	}
	return strings.Join(parts, "; ")
}

// stuckWhere is what becomes of a group when nobody may decide any more.
func (sim *simulation) stuckWhere(g *GroupState) string {
	switch dead := slices.Contains(sim.dead, g.Owner); {
	case sim.State.Config.Effective.Cluster.TwoNode == "" && dead:
		return g.Name + " runs nowhere: " + g.Owner + " is dead and nobody may take over"
	case sim.State.Config.Effective.Cluster.TwoNode == "":
		return g.Name + " runs nowhere: " + g.Owner + " closes itself"
	case dead:
		return g.Name + " runs nowhere until: hactl confirm-dead " + g.Owner
	case g.Phase == phaseStarted:
		return g.Name + " runs on " + g.Owner
	}
	return fmt.Sprintf("%s is %s on %s", g.Name, phaseWord(g.Phase), g.Owner)
}

func (sim *simulation) step(words []string) error {
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch arg(0) {
	case "kill":
		sim.dead = append(sim.dead, arg(1))
		sim.unheard(arg(1))
	case "cut":
		sim.cut(arg(1), arg(2))
	case "fail":
		sim.failing = append(sim.failing, failingResource{arg(1), arg(2), arg(3)})
		if g := sim.State.group(arg(1)); !sim.fail(g) {
			sim.line(fmt.Sprintf("  nothing yet: %s does not run on %s; it will fail there when it is tried", arg(1), arg(3)))
		}
	case "move":
		sim.apply(Entry{Kind: entryPin, Group: arg(1), Node: arg(2), By: "you"})
	case "unmove":
		sim.apply(Entry{Kind: entryUnpin, Group: arg(1), By: "you"})
	case "standby", "online":
		sim.apply(Entry{Kind: entryStandby, Node: arg(1), On: arg(0) == "standby", By: "you"})
	default:
		return fmt.Errorf("simulate %q: no such step", strings.Join(words, " "))
	}
	return nil
}

// unheard is a node that nobody hears any more. If it is the one that answers, another leads.
func (sim *simulation) unheard(node string) {
	deadtime := sim.State.Config.Effective.Heartbeat.Deadtime.D()
	for i := range sim.View.Nodes {
		if n := &sim.View.Nodes[i]; n.Name == node {
			n.Heard, n.Direct, n.Age, n.CaughtUp = false, false, deadtime, false
		}
	}
	sim.line(fmt.Sprintf("  %s is not heard; after %s of silence it is lost", node, deadtime))
	if node == sim.View.Self {
		sim.newLeader(node)
	}
}

func (sim *simulation) newLeader(not string) {
	for _, n := range sim.State.Nodes {
		if n.Name != not && n.Voter && sim.View.node(n.Name).Heard {
			sim.View.Self = n.Name
			return
		}
	}
	sim.View.Self = ""
}

// cut takes a link away from everybody, or every link between two nodes. Whoever then hears nobody of the majority is
// lost to it.
func (sim *simulation) cut(a, b string) {
	if b == "" {
		sim.line("  heartbeats go over the other links, if nodes share one")
		sim.Links = slices.DeleteFunc(sim.Links, func(l linkedByLink) bool { return l.Link == a })
		for _, n := range sim.State.Nodes {
			if n.Name != sim.View.Self && !sim.reachable(sim.View.Self, n.Name) && sim.View.node(n.Name).Heard {
				sim.unheard(n.Name)
			}
		}
		return
	}
	for _, n := range sim.State.Nodes {
		if n.Name != a && n.Name != b && sim.View.node(n.Name).Heard {
			sim.line(fmt.Sprintf("  %s still hears both: neither is lost", n.Name))
			return
		}
	}
	lost := a
	if sim.View.Self == a {
		lost = b
	}
	sim.unheard(lost)
}

func (sim *simulation) reachable(a, b string) bool {
	return slices.ContainsFunc(sim.Links, func(l linkedByLink) bool { return slices.Contains(l.Nodes, a) && slices.Contains(l.Nodes, b) })
}

func (sim *simulation) apply(e Entry) {
	if sim.stuck {
		sim.line("  nothing: there is no majority to record it")
		return
	}
	e.Clock = sim.View.Clock
	events, refused := Apply(sim.State, sim.State.Index+1, &e)
	for _, ev := range events {
		sim.line("  " + ev.Text)
	}
	if refused != "" {
		sim.line("  nothing: " + refused)
	}
}

// settle runs the rules until nothing more follows, or only time would bring something.
func (sim *simulation) settle() {
	if sim.stuck = !sim.majority(); sim.stuck {
		return
	}
	waited, again := time.Duration(0), false
	for range simulateRounds {
		d := Decide(sim.State, sim.View)
		before := sim.State.Index
		for _, e := range d.Entries {
			e.Clock = sim.View.Clock
			sim.State.Index++
			events, _ := Apply(sim.State, sim.State.Index, &e)
			for _, ev := range events {
				sim.line("  " + ev.Text)
			}
			if e.Kind == entryRevoke {
				sim.known(e.Group)
			}
			again = again || e.Kind == entryRetry && sim.broken(sim.State.group(e.Group))
		}
		if again {
			break // what a step has broken fails as often as it is tried: once is enough to tell
		}
		if sim.obey() || sim.State.Index > before {
			continue
		}
		// At rest. A lease or a try that is due within a while belongs to the answer; an expiry in ten minutes does not.
		const patience = 30 * time.Second
		if d.Wake == 0 || d.Wake.sub(sim.View.Now) > patience-waited {
			break
		}
		step := max(time.Millisecond, d.Wake.sub(sim.View.Now))
		waited += step
		sim.View.Now, sim.View.Clock, sim.View.InForce = sim.View.Now.add(step), sim.View.Clock+step, sim.View.InForce+step
	}
	for _, v := range Decide(sim.State, sim.View).Verdicts {
		if v.Rule == "G6" || v.Rule == "G17" || v.Rule == "G2" || v.Rule == "G11" {
			sim.line(fmt.Sprintf("  %s: %s", v.Group, v.Text))
		}
	}
}

// quorate tells whether a majority of the voters is there.
func (sim *simulation) quorate() bool {
	voters, heard := 0, 0
	for _, n := range sim.State.Nodes {
		if n.Voter {
			voters++
			if n.Name == sim.View.Self || sim.View.node(n.Name).Heard {
				heard++
			}
		}
	}
	return sim.View.Self != "" && heard >= quorum(voters)
}

// majority tells whether anybody is left who may decide.
func (sim *simulation) majority() bool {
	if sim.quorate() {
		return true
	}
	c := sim.State.Config.Effective.Cluster
	switch {
	case sim.View.Self != "" && c.TwoNode == "fence":
		sim.line("  no majority: two_node = \"fence\": the other is cut off, and this one goes on alone when that is confirmed")
		for _, n := range sim.State.Nodes {
			if n.Name != sim.View.Self && n.Boot != "" {
				sim.apply(Entry{Kind: entryFenced, Node: n.Name, Boot: n.Boot, Helper: sim.View.Self, On: true, Reason: "as if its devices did what they are told"})
			}
		}
		for i := range sim.State.Nodes {
			sim.State.Nodes[i].Voter = sim.State.Nodes[i].Name == sim.View.Self
		}
		return true
	case sim.View.Self != "" && c.TwoNode == "ignore":
		sim.line("  no majority: two_node = \"ignore\" takes silence for death, the other goes on alone")
		for _, n := range sim.State.Nodes {
			if n.Name != sim.View.Self && n.Voter && !slices.Contains(sim.dead, n.Name) {
				sim.line(fmt.Sprintf("  %s is not dead and goes on too: both may run everything", n.Name))
			}
		}
		sim.View.Alone = true
		return true
	case c.TwoNode == "manual":
		sim.line("  no majority: the active side goes on as caretaker, the other waits for hactl confirm-dead")
	default:
		sim.line("  no majority: owners close themselves when their leases end, until voters come back or hactl quorum force")
	}
	return false
}

// known makes the end of a lease as it would be: the last ack is as old as the silence.
func (sim *simulation) known(group string) {
	g := sim.State.group(group)
	beyond, _ := sim.State.beyond(g)
	over := sim.View.Now.add(max(0, holdFor(sim.State.Config.Effective.lease()+beyond)-sim.View.node(g.Owner).Age))
	for i := range sim.View.Groups {
		if sim.View.Groups[i].Name == group {
			sim.View.Groups[i].Known, sim.View.Groups[i].Over = sim.View.Now, over
			return
		}
	}
	sim.View.Groups = append(sim.View.Groups, GroupView{Name: group, Known: sim.View.Now, Over: over})
}

// obey lets the owners do what they are told: everything works but what a step has broken.
func (sim *simulation) obey() bool {
	did := false
	for _, f := range slices.Clone(sim.State.Fences) {
		if f.Phase == fenceAsked {
			sim.apply(Entry{Kind: entryFenced, Node: f.Node, Boot: f.Boot, Epoch: f.ID, Helper: f.Helper, On: true, Reason: "as if its devices did what they are told"})
			did = true
		}
	}
	for i := range sim.State.Groups {
		g := &sim.State.Groups[i]
		n := sim.State.node(g.Owner)
		if n == nil || !sim.View.node(g.Owner).Heard && g.Owner != sim.View.Self {
			continue
		}
		switch {
		case g.Phase == phasePlaced && sim.fail(g):
		case g.Phase == phasePlaced && sim.broken(g):
			continue
		case g.Phase == phasePlaced:
			sim.apply(Entry{Kind: entryStarted, Group: g.Name, Node: g.Owner, Epoch: g.Epoch, Session: n.Session})
		case g.Phase == phaseRevoked && !g.Stopped:
			sim.apply(Entry{Kind: entryStopped, Group: g.Name, Node: g.Owner, Epoch: g.Epoch, Session: n.Session})
		default:
			continue
		}
		did = true
	}
	return did
}

// broken tells whether a step has broken the group where it is.
func (sim *simulation) broken(g *GroupState) bool {
	return slices.ContainsFunc(sim.failing, func(f failingResource) bool { return f.group == g.Name && f.node == g.Owner })
}

// fail reports a start that a step has broken, until its node gives up.
func (sim *simulation) fail(g *GroupState) bool {
	if g == nil || g.Owner == "" {
		return false
	}
	c, n := sim.State.Config.Effective.group(g.Name), sim.State.node(g.Owner)
	for _, f := range sim.failing {
		if f.group != g.Name || f.node != g.Owner || c == nil {
			continue
		}
		if r := sim.State.resource(f.group, f.resource, f.node); r != nil && r.banned(c) {
			return false
		}
		for range max(1, c.MigrationThreshold) {
			sim.apply(Entry{Kind: entryFailure, Group: g.Name, Resource: f.resource, Node: g.Owner, Epoch: g.Epoch, Session: n.Session, Serial: n.Serial + 1,
				Op: opMonitor, Reason: "as this step says"})
		}
		return true
	}
	return false
}
