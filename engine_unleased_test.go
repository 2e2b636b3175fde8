package main

import (
	"slices"
	"testing"
	"time"
)

// three is a cluster of alice, bob and carol whose group web is started on alice, and what bob sees of it: alice is
// silent, and its lease would be over for long.
func three(t *testing.T) (*State, *View) {
	t.Helper()
	c := rigConfig("alice", "bob", "carol")
	s := &State{LastEpoch: 1, Config: ConfigState{Generation: 1, Effective: c, LongestL: c.lease()},
		Groups: []GroupState{{Name: "web", Phase: phaseStarted, Owner: "alice", Epoch: 1}}}
	v := &View{Now: at(100000), Clock: 100 * time.Second, Self: "bob"}
	for i, n := range c.Nodes {
		s.Nodes = append(s.Nodes, NodeState{Name: n.Name, Member: uint64(i + 1), Voter: true, Joined: true, Session: uint64(i + 11)})
		v.Nodes = append(v.Nodes, NodeView{Name: n.Name, Heard: true, Direct: true, CaughtUp: true, Member: uint64(i + 1), Session: uint64(i + 11)})
	}
	v.Nodes[0].Heard, v.Nodes[0].Direct, v.Nodes[0].Age = false, false, 90*time.Second
	v.Groups = []GroupView{{Name: "web", Known: at(1000), Over: at(5000)}}
	return s, v
}

func applied(t *testing.T, s *State, entries ...Entry) {
	t.Helper()
	for _, e := range entries {
		if _, refused := Apply(s, s.Index+1, &e); refused != "" {
			t.Fatalf("%s refused: %s", e.Kind, refused)
		}
	}
}

func TestEndOfALeaseProvesNothingOfWhoDoesNotLiveByIt(t *testing.T) {
	revoke := Entry{Kind: entryRevoke, Group: "web", Epoch: 1, Node: "alice"}
	off := []Entry{{Kind: entryMaintenance, On: true}, {Kind: entryMaintenance}}
	for _, c := range []struct {
		name   string
		before []Entry
		taken  bool
	}{
		{"an owner that is lost", []Entry{revoke}, true},
		{"blocked there, and cleaned up when it is out of reach", []Entry{
			{Kind: entryFailure, Group: "web", Resource: "vip", Node: "alice", Epoch: 1, Session: 11, Serial: 1, Op: opStop, Reason: "busy"},
			{Kind: entryCleanup, Group: "web"}}, false},
		{"lost before it learnt that maintenance is over", append(slices.Clone(off), revoke), false},
		{"lost after it learnt that maintenance is over", append(slices.Clone(off),
			Entry{Kind: entryStarted, Group: "web", Node: "alice", Epoch: 1, Session: 11}, revoke), true},
		{"lost in maintenance, and confirmed dead", append(slices.Clone(off), Entry{Kind: entryNode, Node: "alice"}, revoke,
			Entry{Kind: entryConfirmDead, Node: "alice", Session: 11}), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, v := three(t)
			applied(t, s, c.before...)
			d := Decide(s, v)
			taken := slices.ContainsFunc(d.Entries, func(e Entry) bool { return e.Kind == entryPlace && e.Group == "web" })
			if taken != c.taken {
				t.Fatalf("taken over: %v, want %v; %+v", taken, c.taken, d.Verdicts)
			}
		})
	}
}

func TestRemovedGroupOfALostOwnerComesToItsEnd(t *testing.T) {
	s, v := three(t)
	applied(t, s, Entry{Kind: entryRevoke, Group: "web", Epoch: 1, Node: "alice"})
	s.Groups[0].Removed = true
	s.Config.Effective.Groups = nil
	d := Decide(s, v)
	if !slices.ContainsFunc(d.Entries, func(e Entry) bool { return e.Kind == entryFree && e.Group == "web" }) {
		t.Fatalf("not freed: %+v", d)
	}
}

func TestLeaderThatIsRemovedFromTheConfigHandsLeadershipOver(t *testing.T) {
	s, v := three(t)
	s.Groups[0].Owner = "carol"
	s.Config.Effective.Nodes = slices.Delete(s.Config.Effective.Nodes, 1, 2)
	if d := Decide(s, v); d.Transfer != "carol" {
		t.Fatalf("transfer to %q, want to carol, which is in the config and heard", d.Transfer)
	}
}
