package main

import (
	"strings"
	"testing"
	"time"
)

// fenceState is a cluster of three in which alice owned a group, is lost and has been told to stop it.
func fenceState(t *testing.T) *State {
	t.Helper()
	c := rigConfig("alice", "bob", "dave")
	for _, n := range []string{"alice", "bob", "dave"} {
		c.Fences = append(c.Fences, FenceConfig{Name: "ipmi-" + n, Agent: "fence_ipmilan", Node: n, Level: 1, Timeout: Duration(time.Second)})
	}
	c.Groups[0].Resources[0].Type = "filesystem"
	s := &State{Incarnation: Incarnation{Counter: 1, ID: 1}, Config: ConfigState{Generation: 1, Effective: c}, LastEpoch: 5}
	for i, n := range []string{"alice", "bob", "dave"} {
		s.Nodes = append(s.Nodes, NodeState{Name: n, Member: uint64(i + 1), Voter: true, Session: uint64(10 + i), Boot: n + "-1", Joined: true})
	}
	s.Nodes[0].Lost = &Mark{}
	s.Groups = []GroupState{{Name: "web", Phase: phaseRevoked, Owner: "alice", Epoch: 5, Why: "alice is lost", Stateful: true}}
	return s
}

func (s *State) testApply(t *testing.T, e Entry) (refused string) {
	t.Helper()
	_, refused = Apply(s, s.Index+1, &e)
	return refused
}

func (s *State) mustApply(t *testing.T, e Entry) {
	t.Helper()
	if refused := s.testApply(t, e); refused != "" {
		t.Fatalf("%s of %s is refused: %s", e.Kind, e.Node, refused)
	}
}

func askedOf(s *State, helper string) Entry {
	e := Entry{Kind: entryFence, Node: "alice", Boot: s.node("alice").Boot, Helper: helper, Why: "a test"}
	if f := s.fence("alice"); f != nil {
		e.Base = f.ID
	}
	return e
}

func TestConfirmedFenceIsAProof(t *testing.T) {
	s := fenceState(t)
	s.mustApply(t, askedOf(s, "bob"))
	id := s.fence("alice").ID
	s.mustApply(t, Entry{Kind: entryFenced, Node: "alice", Boot: "alice-1", Epoch: id, Helper: "bob", On: true, Reason: "ipmi-alice says that it is off"})
	g, n := s.group("web"), s.node("alice")
	if g.Proof != proofFence || g.Phase != phaseRevoked || g.Why != "alice is lost" || n.Joined || n.Session != 0 || s.fence("alice").Phase != fenceConfirmed {
		t.Fatalf("group %+v, node %+v, fence %+v", g, n, s.fence("alice"))
	}
	s.mustApply(t, Entry{Kind: entryPlace, Group: "web", Epoch: 5, Node: "bob", Proof: proofFence})
	// It boots and joins: nothing is left of it.
	s.mustApply(t, Entry{Kind: entryJoin, Node: "alice", Member: 1, Session: 20, Boot: "alice-2"})
	if s.fence("alice") != nil {
		t.Errorf("it has booted since, and still: %+v", s.fence("alice"))
	}
}

// A word that comes late says nothing of a node that has booted since, nor does one about another request, or from somebody
// who was not asked, or was asked and given up.
func TestLateFenceProvesNothing(t *testing.T) {
	late := func(id uint64) Entry {
		return Entry{Kind: entryFenced, Node: "alice", Boot: "alice-1", Epoch: id, Helper: "bob", On: true}
	}
	for name, between := range map[string]func(s *State){
		"it has booted and joined": func(s *State) {
			s.mustApply(t, Entry{Kind: entryJoin, Node: "alice", Member: 1, Base: 10, Session: 20, Boot: "alice-2"})
		},
		"it was heard again": func(s *State) {
			s.mustApply(t, Entry{Kind: entryNode, Node: "alice", On: true})
			s.mustApply(t, Entry{Kind: entryUnfence, Node: "alice", Epoch: s.fence("alice").ID, Why: "it is heard again"})
		},
		"another was asked since":   func(s *State) { s.mustApply(t, askedOf(s, "dave")) },
		"it was confirmed dead":     func(s *State) { s.mustApply(t, Entry{Kind: entryConfirmDead, Node: "alice", Session: 10}) },
		"another incarnation began": func(s *State) { s.mustApply(t, found(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := fenceState(t)
			s.mustApply(t, askedOf(s, "bob"))
			id := s.fence("alice").ID
			between(s)
			proof, joined := s.group("web").Proof, s.node("alice").Joined
			if refused := s.testApply(t, late(id)); refused == "" {
				t.Error("it was taken")
			}
			if g := s.group("web"); g.Proof != proof || s.node("alice").Joined != joined {
				t.Errorf("group %+v", g)
			}
		})
	}
}

func found(counter uint64) Entry {
	return Entry{Kind: entryFound, Node: "bob", Member: 2, Incarnation: &Incarnation{Counter: counter, ID: counter}}
}

// One of two voters sees to it alone: outside the log, but tied to the boot all the same, and harmless when it is there twice.
func TestFenceAlone(t *testing.T) {
	alone := Entry{Kind: entryFenced, Node: "alice", Boot: "alice-1", Helper: "bob", On: true}
	s := fenceState(t)
	s.mustApply(t, found(2))
	other := alone
	other.Boot = "alice-0"
	if s.testApply(t, other) == "" || s.group("web").Proof != "" {
		t.Error("a fence of another boot was taken")
	}
	s.mustApply(t, alone)
	s.mustApply(t, alone)
	if s.group("web").Proof != proofFence {
		t.Errorf("group %+v", s.group("web"))
	}
}

// The device was wrong: the node comes back in the same boot and still runs its group. Nobody goes on believing it dead.
func TestWrongFenceIsRefuted(t *testing.T) {
	s := fenceState(t)
	s.mustApply(t, askedOf(s, "bob"))
	s.mustApply(t, Entry{Kind: entryFenced, Node: "alice", Boot: "alice-1", Epoch: s.fence("alice").ID, Helper: "bob", On: true})
	s.mustApply(t, Entry{Kind: entryJoin, Node: "alice", Member: 1, Session: 11, Boot: "alice-1", Running: []string{"web"}})
	if g := s.group("web"); g.Proof != "" || s.fence("alice") != nil {
		t.Fatalf("group %+v, fence %+v", g, s.fence("alice"))
	}
	if refused := s.testApply(t, Entry{Kind: entryPlace, Group: "web", Epoch: 5, Node: "bob", Proof: proofFence}); refused == "" {
		t.Error("the group is placed on the strength of a proof that is gone")
	}
}

func TestFenceIsAskedOfOneAfterTheOther(t *testing.T) {
	s := fenceState(t)
	for name, e := range map[string]Entry{
		"itself":           askedOf(s, "alice"),
		"a stranger":       askedOf(s, "zoe"),
		"of another boot":  {Kind: entryFence, Node: "alice", Boot: "alice-0", Helper: "bob"},
		"of who is heard":  {Kind: entryFence, Node: "dave", Boot: "dave-1", Helper: "bob"},
		"on a wrong base":  {Kind: entryFence, Node: "alice", Boot: "alice-1", Helper: "bob", Base: 77},
		"of nobody at all": {Kind: entryFence, Node: "zoe", Helper: "bob"},
	} {
		if s.testApply(t, e) == "" {
			t.Errorf("a fence %s was taken", name)
		}
	}
	failed := func(helper string) Entry {
		return Entry{Kind: entryFenced, Node: "alice", Boot: "alice-1", Epoch: s.fence("alice").ID, Helper: helper, Reason: "no route"}
	}
	s.mustApply(t, askedOf(s, "bob"))
	s.mustApply(t, failed("bob"))
	s.mustApply(t, askedOf(s, "dave"))
	s.mustApply(t, failed("dave"))
	if f := s.fence("alice"); strings.Join(f.Tried, " ") != "bob dave" || f.Rounds != 0 || f.Phase != fenceFailed {
		t.Errorf("after one round: %+v", f)
	}
	s.mustApply(t, askedOf(s, "bob"))
	if f := s.fence("alice"); len(f.Tried) != 0 || f.Rounds != 1 || f.Phase != fenceAsked {
		t.Errorf("in the second round: %+v", f)
	}
	s.mustApply(t, askedOf(s, "dave")) // bob was given up
	if f := s.fence("alice"); strings.Join(f.Tried, " ") != "bob" || f.Helper != "dave" {
		t.Errorf("after bob was given up: %+v", f)
	}
}

func TestDeviceFaultsAreToldOnce(t *testing.T) {
	s := fenceState(t)
	fault := Entry{Kind: entryDevice, Node: "bob", Resource: "ipmi-alice", Reason: "no route"}
	s.mustApply(t, fault)
	if s.testApply(t, fault) == "" || len(s.Devices) != 1 {
		t.Errorf("devices %+v", s.Devices)
	}
	fault.Node = "dave"
	s.mustApply(t, fault)
	fault.Node, fault.Reason = "bob", ""
	s.mustApply(t, fault)
	if len(s.Devices) != 1 || s.Devices[0].Node != "dave" || s.testApply(t, fault) == "" {
		t.Errorf("devices %+v", s.Devices)
	}
	next := *s.Config.Effective
	next.Fences = nil
	s.mustApply(t, Entry{Kind: entryConfig, Base: 1, Config: &ConfigState{Hash: "next", Effective: &next}})
	if len(s.Devices) > 0 {
		t.Errorf("of a device that is no longer in the config: %+v", s.Devices)
	}
}

// The end of a lease proves something of addresses, and of data where a watchdog resets their owner.
func TestLeaseProves(t *testing.T) {
	s := fenceState(t)
	web, alice := s.group("web"), s.node("alice")
	if s.leaseProves(web) {
		t.Error("data, and nothing resets its owner")
	}
	alice.Enforce.Watchdog = 10 * time.Second
	if !s.leaseProves(web) {
		t.Error("data, and a watchdog resets its owner")
	}
	web.Unleased = true
	if s.leaseProves(web) {
		t.Error("left running in maintenance")
	}
	alice.Enforce.Watchdog, web.Stateful, web.Unleased = 0, false, false
	if !s.leaseProves(web) {
		t.Error("addresses alone")
	}
	s.Config.Effective.Nodes = s.Config.Effective.Nodes[:2]
	if s.leaseProves(web) {
		t.Error("two voters")
	}
	s.Config.Effective, web.Owner = rigConfig("alice", "bob", "dave"), "zoe"
	if s.leaseProves(web) {
		t.Error("an owner that nobody knows")
	}
}

func TestFenceRoundPause(t *testing.T) {
	for rounds, want := range map[int]time.Duration{0: 10 * time.Second, 1: 20 * time.Second, 4: 160 * time.Second, 5: 5 * time.Minute, 1000: 5 * time.Minute} {
		if got := fenceRoundPause(rounds); got != want {
			t.Errorf("after %d rounds %s, want %s", rounds, got, want)
		}
	}
}

func TestSimulateFences(t *testing.T) {
	s := fenceState(t)
	s.node("alice").Lost = nil
	s.group("web").Phase = phaseStarted
	v := &View{Now: at(1000), Self: "bob"}
	for _, n := range s.Nodes {
		v.Nodes = append(v.Nodes, NodeView{Name: n.Name, Heard: true, Direct: true, Member: n.Member, Session: n.Session, CaughtUp: true})
	}
	text, err := simulate(encodeSimulation(t, s, v), []string{"kill alice"})
	if err != nil || !strings.Contains(text, "alice is fenced by bob") || !strings.Contains(text, "web runs on bob") {
		t.Errorf("%v\n%s", err, text)
	}
	s.Nodes, v.Nodes = s.Nodes[:2], v.Nodes[:2]
	s.Config.Effective.Nodes, s.Config.Effective.Cluster.TwoNode = s.Config.Effective.Nodes[:2], "fence"
	text, err = simulate(encodeSimulation(t, s, v), []string{"kill alice"})
	if err != nil || !strings.Contains(text, "alice is fenced by bob") || !strings.Contains(text, "web runs on bob") {
		t.Errorf("two nodes: %v\n%s", err, text)
	}
}
