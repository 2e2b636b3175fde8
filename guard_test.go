// Whose copy counts? What entries about marks do to the state, and what a node makes of them.

package main

import (
	"slices"
	"strings"
	"testing"
)

// An operator's word on a split brain turns the marks round, and nobody writes beside the copy that is kept.
func TestSplitBrainIsResolvedByWord(t *testing.T) {
	cfg := rigConfig("alice", "bob", "carol")
	cfg.Groups[0].Resources = append([]ResourceConfig{{Type: "drbd", Name: "disk", Resource: "r0"}}, cfg.Groups[0].Resources...)
	word := Entry{Kind: entryResolve, Resource: "r0", Node: "alice", Peer: "bob", By: "root@alice", Request: 1}
	for _, c := range []struct {
		name    string
		owner   string
		stale   []StaleCopy
		change  func(*Entry)
		refused string
	}{
		{"nobody owns it", "", []StaleCopy{{Resource: "r0", Node: "alice", ID: 4, By: "bob"}}, nil, ""},
		{"the kept one owns it", "alice", []StaleCopy{{Resource: "r0", Node: "bob", ID: 4, By: "alice"}}, nil, ""},
		{"both are marked", "", []StaleCopy{{Resource: "r0", Node: "alice", ID: 4, By: "bob"}, {Resource: "r0", Node: "bob", ID: 5, By: "alice"}}, nil, ""},
		{"nothing is recorded", "", nil, nil, ""},
		{"the other one owns it", "bob", nil, nil, "bob may write to r0"},
		{"against itself", "", nil, func(e *Entry) { e.Peer = "alice" }, "not two nodes"},
		{"a node that is none", "", nil, func(e *Entry) { e.Peer = "dave" }, "not two nodes"},
		{"a resource of no group", "", nil, func(e *Entry) { e.Resource = "r9" }, "not two nodes"},
	} {
		s := &State{Config: ConfigState{Effective: cfg}, Groups: []GroupState{{Name: "web", Owner: c.owner, Phase: phaseStarted}}, Stale: slices.Clone(c.stale)}
		e := word
		if c.change != nil {
			c.change(&e)
		}
		_, refused := Apply(s, 9, &e)
		if c.refused != "" {
			if !strings.Contains(refused, c.refused) || !slices.Equal(s.Stale, c.stale) {
				t.Errorf("%s: refused %q, marks %+v", c.name, refused, s.Stale)
			}
			continue
		}
		if refused != "" || len(s.Stale) != 1 || s.Stale[0].Node != "bob" || s.Stale[0].By != "alice" || s.Stale[0].ID != 9 || !s.Stale[0].GivenUp {
			t.Errorf("%s: refused %q, marks %+v", c.name, refused, s.Stale)
		}
	}
}

// What is given up stays so when the mark is renewed, until the copy is complete.
func TestGivenUpOutlivesARenewedMark(t *testing.T) {
	cfg := rigConfig("alice", "bob")
	cfg.Groups[0].Resources = append([]ResourceConfig{{Type: "drbd", Name: "disk", Resource: "r0"}}, cfg.Groups[0].Resources...)
	s := &State{Config: ConfigState{Effective: cfg}, Nodes: []NodeState{{Name: "alice", Session: 7}, {Name: "bob"}},
		Groups: []GroupState{{Name: "web", Owner: "alice", Epoch: 3, Phase: phaseStarted}},
		Stale:  []StaleCopy{{Resource: "r0", Node: "bob", ID: 4, By: "alice", GivenUp: true}}}
	owner := Entry{Group: "web", Node: "alice", Session: 7, Epoch: 3, Resource: "r0", Peer: "bob"}
	renew := owner
	renew.Kind = entryMark
	if _, refused := Apply(s, 10, &renew); refused != "" || !s.Stale[0].GivenUp || s.Stale[0].ID != 10 {
		t.Fatalf("refused %q, marks %+v", refused, s.Stale)
	}
	whole := owner
	whole.Kind, whole.Base = entryUnmark, 10
	if _, refused := Apply(s, 11, &whole); refused != "" || len(s.Stale) != 0 {
		t.Errorf("refused %q, marks %+v", refused, s.Stale)
	}
}

// Each side does its part, and only who hears a majority does.
func TestEachSideRejoins(t *testing.T) {
	c := rigConfig("alice", "bob", "carol")
	c.Groups[0].Resources = append([]ResourceConfig{{Type: "drbd", Name: "disk", Resource: "r0"}}, c.Groups[0].Resources...)
	r := newRig(t, c)
	r.started()
	n := r.n
	for _, x := range []struct {
		name    string
		mark    StaleCopy
		want    string
		monitor string // the part of a monitor in it
	}{
		{"its copy counts", StaleCopy{Resource: "r0", Node: "bob", By: "alice", GivenUp: true}, rejoinKeep, rejoinKeep},
		{"its copy is given up", StaleCopy{Resource: "r0", Node: "alice", By: "bob", GivenUp: true}, rejoinGiveUp, ""},
		{"others settle it", StaleCopy{Resource: "r0", Node: "carol", By: "bob", GivenUp: true}, "", ""},
		{"no split brain", StaleCopy{Resource: "r0", Node: "bob", By: "alice"}, "", ""},
	} {
		n.state.Stale = []StaleCopy{x.mark}
		o := order{rejoin: n.mayRejoin(&c.Groups[0])}
		if fit, monitor := o.rejoins("disk", opFit), o.rejoins("disk", opMonitor); fit != x.want || monitor != x.monitor {
			t.Errorf("%s: %q, at a monitor %q", x.name, fit, monitor)
		}
		if start := o.rejoins("disk", opStart); start != "" {
			t.Errorf("%s: at a start %q", x.name, start)
		}
	}
	n.state.Stale = []StaleCopy{{Resource: "r0", Node: "alice", By: "bob", GivenUp: true}}
	n.quorumNow = false
	if got := n.mayRejoin(&c.Groups[0]); got != nil {
		t.Errorf("without a majority: %v", got)
	}
}
