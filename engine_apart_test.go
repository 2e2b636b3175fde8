package main

import (
	"fmt"
	"strings"
	"testing"
)

// Of groups that run apart the one that comes first in the file has its way: the other gives way where there is no other
// node, and never the reverse.
func TestApartGivesWayToWhatComesFirst(t *testing.T) {
	for _, c := range []struct {
		name        string
		lost        []string
		first, last GroupState
		want        []string // entries: kind group node
		says        string   // the sentence for the first
	}{
		{"no other node: the later one leaves", []string{"alice", "carol"},
			GroupState{Phase: phaseFree}, GroupState{Phase: phaseStarted, Owner: "bob", Epoch: 2},
			[]string{"revoke last bob"}, "waiting for last to leave bob"},
		{"it is stopping: wait", []string{"alice", "carol"},
			GroupState{Phase: phaseFree}, GroupState{Phase: phaseRevoked, Owner: "bob", Epoch: 2},
			nil, "waiting for last to leave bob"},
		{"it has stopped: the node changes hands at once", []string{"alice", "carol"},
			GroupState{Phase: phaseFree}, GroupState{Phase: phaseRevoked, Owner: "bob", Epoch: 2, Proof: proofStopped},
			[]string{"place first bob", "free last "}, "it had no owner"},
		{"a stop failed there: touch nothing", []string{"alice", "carol"},
			GroupState{Phase: phaseFree}, GroupState{Phase: phaseBlocked, Owner: "bob", Epoch: 2},
			nil, "waiting for last to leave bob"},
		{"another node is free: nobody has to leave", []string{"alice"},
			GroupState{Phase: phaseFree}, GroupState{Phase: phaseStarted, Owner: "bob", Epoch: 2},
			[]string{"place first carol"}, "it had no owner"},
		{"the later one never displaces the first", []string{"alice", "carol"},
			GroupState{Phase: phaseStarted, Owner: "bob", Epoch: 1}, GroupState{Phase: phaseFree},
			nil, "it runs on bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, v := three(t)
			resources := s.Config.Effective.Groups[0].Resources
			s.Config.Effective.Groups = []GroupConfig{{Name: "first", Resources: resources}, {Name: "last", Resources: resources, Apart: []string{"first"}}}
			c.first.Name, c.last.Name = "first", "last"
			s.Groups, v.Groups = []GroupState{c.first, c.last}, nil
			for i := range v.Nodes {
				n := &v.Nodes[i]
				heard := !strings.Contains(strings.Join(c.lost, " "), n.Name)
				n.Heard, n.Direct, n.Age = heard, heard, 0
				if !heard {
					s.Nodes[i].Lost = &Mark{}
				}
			}
			d := Decide(s, v)
			var got []string
			for _, e := range d.Entries {
				if e.Group != "" {
					got = append(got, fmt.Sprintf("%s %s %s", e.Kind, e.Group, e.Node))
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("entries %q, want %q", got, c.want)
			}
			if !strings.Contains(d.Verdicts[0].Text, c.says) {
				t.Errorf("it says %q, want %q", d.Verdicts[0].Text, c.says)
			}
		})
	}
}
