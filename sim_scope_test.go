// Is there any order of a few events that breaks something? Not chance but all of them: every sequence of a handful of
// events up to a depth, breadth first, each from a fresh world, with the same checks and the same repair as the simulator.
// Where two sequences lead to the same situation, only one is gone on from.

package main

import (
	"flag"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"
	"time"
)

var scopeDepth = flag.Int("sim.depth", 0, "how many events in a row; 0: as many as the kind of test run is for")

// scope is a small cluster and what may happen to it. An event of two lines is a switch: the first time the one, then the
// other.
type scope struct {
	name   string
	setup  clusterSetup
	events [][2]string
	depth  int
	gap    time.Duration // between events: not a whole number of deadtimes, so that they meet each wait in its middle
}

func scopes() []scope {
	return []scope{
		{"two nodes and a witness", clusterSetup{nodes: []string{"alice", "bob", "carol=witness"}, deadtime: "1s", interval: "200ms", groups: simGroups[0]},
			[][2]string{{"kill alice", "start alice"}, {"cut alice bob carol", "heal"}, {"crash bob", "boot bob"}, {"pause alice 1400ms"},
				{"kill carol", "start carol"}, {"ask bob standby alice", "ask bob online alice"}}, 3, 700 * time.Millisecond},
		{"two nodes with a forced incarnation", clusterSetup{nodes: []string{"alice", "bob"}, deadtime: "1s", interval: "200ms", groups: simGroups[0],
			cluster: []string{"two_node = \"manual\"\n"}},
			[][2]string{{"crash alice", "boot alice"}, {"ask bob confirm-dead alice force"}, {"cut alice bob", "heal"}, {"kill bob", "start bob"},
				{"ask bob move web bob", "ask bob unmove web"}}, 3, 1100 * time.Millisecond},
		{"two nodes with DRBD", clusterSetup{nodes: []string{"alice", "bob"}, deadtime: "1s", interval: "200ms", groups: onReplica(simGroups[2], "r0"),
			cluster: []string{"two_node = \"manual\"\n"}},
			[][2]string{{"crash alice", "boot alice"}, {"ask bob confirm-dead alice force"}, {"cut alice bob on repl", "heal"}, {"restart alice", "start alice"},
				{"adjust r0 handler none on alice", "adjust r0 handler hactl on alice"}}, 3, 1100 * time.Millisecond},
	}
}

func TestSmallScope(t *testing.T) {
	for _, c := range scopes() {
		t.Run(c.name, func(t *testing.T) {
			depth := c.depth
			if testing.Short() {
				depth = 2
			}
			if *scopeDepth > 0 {
				depth = *scopeDepth
			}
			c.explore(t, depth)
		})
	}
}

// explore goes through all sequences, the shorter ones first.
func (c *scope) explore(t *testing.T, depth int) {
	seen := map[uint64]bool{}
	runs, same := 0, 0
	frontier := [][]simStep{nil}
	for range depth {
		var next [][]simStep
		for _, before := range frontier {
			for _, e := range c.events {
				line := c.line(before, e)
				if strings.Contains(line, "confirm-dead") && c.line(before, c.events[0]) == c.events[0][0] {
					continue // it is not off: no operator who has looked says so
				}
				script := append(slices.Clone(before), simStep{time.Duration(len(before)+1) * c.gap, line})
				s := c.run(t, script)
				runs++
				if p := s.problems(); len(p) > 0 {
					t.Fatalf("%s\n%s", p, s.tale())
				}
				if seen[s.mark] || len(s.played) < len(script) { // the last event could not be, or made no difference
					same++
					continue
				}
				seen[s.mark] = true
				next = append(next, script)
			}
		}
		frontier = next
	}
	t.Logf("measured: %d sequences of up to %d events, %d of them to a known situation", runs, depth, same)
}

// line is the event, or its reverse when it was the last of the two.
func (c *scope) line(before []simStep, e [2]string) string {
	on := false
	for _, s := range before {
		if s.line == e[0] {
			on = true
		}
		if s.line == e[1] {
			on = false
		}
	}
	if on && e[1] != "" {
		return e[1]
	}
	return e[0]
}

func (c *scope) run(t *testing.T, script []simStep) *simRun {
	s := newSimRun(t, 1)
	s.kind, s.setup, s.script = simChaos, c.setup, script
	s.look = func() {
		s.w.run(c.gap / 2)
		s.mark = s.situation()
	}
	s.run()
	return s
}

// situation is what matters of a world for what can happen next, without what only counts up. Ages are taken roughly.
func (s *simRun) situation() uint64 {
	h := fnv.New64a()
	w := s.w
	rough := func(d time.Duration) int64 { return int64(min(d, 4*s.deadtime()) / (s.deadtime() / 4)) }
	fmt.Fprint(h, w.net.cuts)
	for _, d := range w.drbds {
		fmt.Fprint(h, d.name, d.connected, d.async, d.synced != 0)
		for _, c := range d.sides {
			fmt.Fprint(h, c.frozen, c.alone, c.fencing, c.handler, c.version < c.peer().version)
		}
	}
	for _, m := range w.hosts {
		fmt.Fprint(h, m.name, m.power, m.life != nil, m.ended, m.running(), rough(m.still()))
		if m.life == nil {
			continue
		}
		n := m.life.node
		fmt.Fprint(h, m.life.frozen, n.joined, n.leaving, n.caretaker, len(n.lapsed), n.yielded != "", n.hasQuorum())
		for _, k := range n.marks {
			fmt.Fprint(h, k.Group, rough(max(0, k.Until.sub(m.now()))))
		}
		if n.state == nil {
			continue
		}
		st := n.cons.Status()
		fmt.Fprint(h, st.Role, st.Voter, n.nameOf(st.Leader), n.state.Incarnation.Counter, n.state.Maintenance != nil)
		for _, x := range n.state.Nodes {
			fmt.Fprint(h, x.Name, x.Member != 0, x.Voter, x.Joined, x.Left, x.Lost != nil, x.Standby != nil)
		}
		for _, m := range n.state.Stale {
			fmt.Fprint(h, m.Resource, m.Node, m.By)
		}
		for _, g := range n.state.Groups {
			fmt.Fprint(h, g.Name, g.Phase, g.Owner, g.Proof, g.Unleased, g.Pin != nil)
		}
		for _, v := range n.waits {
			fmt.Fprint(h, v.group, len(v.told))
		}
		for _, p := range n.peers.all {
			fmt.Fprint(h, p.name, rough(m.now().sub(p.at)), p.better != 0)
		}
	}
	return h.Sum64()
}
