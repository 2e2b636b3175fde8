package main

import (
	"log/slog"
	"slices"
	"testing"
	"time"
)

// rig is one node with a transport that leads nowhere, a disk that never fails and resources that obey.
type rig struct {
	t       *testing.T
	n       *node
	now     instant
	writes  []write
	pending []action
	runs    map[string]bool // by group and resource
	fails   map[string]bool // operations that fail, as "stop vip"
	hold    bool            // the disk does not answer
	shut    map[string]bool
	leases  map[string][]instant // what the kernel was told, by group
	kept    []ConfigState
	random  uint64
	beats   int
}

func (r *rig) Heartbeat([]byte)                    { r.beats++ }
func (r *rig) Send(string, messageKind, []byte)    {}
func (r *rig) Do(a action)                         { r.pending = append(r.pending, a) }
func (r *rig) Cancel(uint64)                       {}
func (r *rig) Lease(group string, until instant)   { r.leases[group] = append(r.leases[group], until) }
func (r *rig) Suspend(group string)                { r.shut[group] = true }
func (r *rig) Resume(group string)                 { delete(r.shut, group) }
func (r *rig) Watch(string, string, bool)          {}
func (r *rig) Announce(string)                     {}
func (r *rig) Ping(ping)                           {}
func (r *rig) Save(w write)                        { r.writes = append(r.writes, w) }
func (r *rig) Replace(_ string, _ member, w write) { r.writes = append(r.writes, w) }
func (r *rig) KeepLease([]leaseMark, bool)         {}
func (r *rig) KeepJoined()                         {}
func (r *rig) KeepMeeting(meeting)                 {}
func (r *rig) Accept(c ConfigState)                { r.kept = append(r.kept, c) }

// rigConfig has these nodes, and a group "web" of one address.
func rigConfig(nodes ...string) *Config {
	c := &Config{
		Cluster:   ClusterConfig{Name: "shop", TwoNode: "manual"},
		Heartbeat: HeartbeatConfig{Interval: Duration(100 * time.Millisecond), Deadtime: Duration(time.Second), Port: 694},
		Links:     []LinkConfig{{Name: "lan", Interface: "eth0"}},
	}
	for _, name := range nodes {
		c.Nodes = append(c.Nodes, NodeConfig{Name: name, Role: "full", Address: []LinkAddress{{"lan", "192.0.2.1"}}})
	}
	op := OpConfig{Interval: Duration(10 * time.Second), Timeout: Duration(20 * time.Second)}
	c.Groups = []GroupConfig{{Name: "web", MigrationThreshold: 3, Resources: []ResourceConfig{
		{Type: "vip", Name: "vip", OnFail: "restart", Start: op, Stop: op, Monitor: op}}}}
	return c
}

// newRig is the first node of the config, which founds the cluster without the others.
func newRig(t *testing.T, c *Config) *rig {
	t.Helper()
	r := &rig{t: t, now: at(1000), runs: map[string]bool{}, fails: map[string]bool{}, shut: map[string]bool{}, leases: map[string][]instant{}, random: 100}
	var err error
	r.n, err = newNode(r.now, nodeOptions{Name: c.Nodes[0].Name, Session: 7, Level: featureLevel, Boot: "boot", Bootstrap: true, Member: 11, Born: r.now,
		Wall: func() int64 { return int64(r.now) }, Random: func() uint64 { r.random++; return r.random },
		Log: slog.New(slog.DiscardHandler), Config: c, FileHash: "first"}, r, r, r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// settle ends all that is on its way.
func (r *rig) settle() {
	for range 1000 {
		if len(r.writes) > 0 && !r.hold {
			w := r.writes[0]
			r.writes = r.writes[1:]
			r.n.Saved(r.now, saved{Done: w.Done})
			continue
		}
		if len(r.pending) == 0 {
			return
		}
		a := r.pending[0]
		r.pending = r.pending[1:]
		d, key := actionDone{action: a}, a.Group+"/"+a.Resource
		switch {
		case r.fails[a.Op+" "+a.Resource]:
			d.Err = "it does not work"
		case a.Op == opStart:
			r.runs[key] = true
		case a.Op == opStop:
			delete(r.runs, key)
		case a.Op == opMonitor && r.runs[key]:
			d.Condition = conditionRunning
		case a.Op == opMonitor:
			d.Condition = conditionStopped
		}
		r.n.ActionDone(r.now, d)
	}
	r.t.Fatal("the node does not come to rest")
}

// until lets time pass until something is true.
func (r *rig) until(what string, limit time.Duration, is func() bool) {
	r.t.Helper()
	for end := r.now.add(limit); ; {
		r.settle()
		if is() {
			return
		}
		if r.now >= end {
			r.t.Fatalf("%s: not within %s", what, limit)
		}
		r.now = max(r.now+1, min(r.n.Wake(), r.now.add(50*time.Millisecond)))
		r.n.Tick(r.now)
	}
}

func (r *rig) started() {
	r.t.Helper()
	r.until("web runs", time.Minute, func() bool {
		return r.n.state != nil && r.n.state.group("web") != nil && r.n.state.group("web").Phase == phaseStarted
	})
}

func (r *rig) gone() bool { gone, _ := r.n.Gone(r.now); return gone }

// command gives one and returns what it said last.
func (r *rig) command(c Command) Progress {
	r.t.Helper()
	var last Progress
	r.n.Command(r.now, c, func(p Progress) { last = p })
	r.until(c.Name, time.Minute, func() bool { return last.Done })
	return last
}

// edit offers a config that is made from the present one.
func (r *rig) edit(hash string, c *Config, base uint64) Progress {
	r.t.Helper()
	var last Progress
	r.n.Edit(r.now, ConfigState{Hash: hash, Effective: c}, base, "root@test", func(p Progress) { last = p })
	r.until("edit", time.Minute, func() bool { return last.Done })
	return last
}

func TestSoleNodeFoundsRunsAndLeaves(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.started()
	r.n.Leave(r.now)
	r.until("it is gone", 10*time.Second, r.gone)
	if len(r.runs) > 0 || !r.n.state.node("alice").Left {
		t.Fatalf("left with %v running, state %+v", r.runs, r.n.state.node("alice"))
	}
}

func TestNodeThatIsRemovedFromTheConfigStopsAndIsShown(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob", "carol"))
	r.started()
	if p := r.edit("second", rigConfig("bob", "carol"), r.n.state.Config.Generation); p.Err != "" {
		t.Fatal(p.Err)
	}
	r.until("web stops", 10*time.Second, func() bool { return len(r.runs) == 0 })
	s := r.n.Status(r.now, surroundings{links: []LinkStatus{{Name: "lan", State: "up"}}})
	if !slices.ContainsFunc(s.Problems, func(p Problem) bool { return p.ID == "not-in-config" }) {
		t.Fatalf("status does not say that this node is no longer in the config: %+v", s.Problems)
	}
}

// again is the same node after a restart of its daemon.
func (r *rig) again(c *Config, change func(*nodeOptions)) *rig {
	r.t.Helper()
	w, err := forge(encodeState(r.n.state), r.n.state.Index, 1, r.n.member)
	if err != nil {
		r.t.Fatal(err)
	}
	restored, err := restoredFrom(w)
	if err != nil {
		r.t.Fatal(err)
	}
	next := newRig(r.t, c)
	o := next.n.opt
	o.Name, o.Restored, o.Session, o.Member, o.Bootstrap, o.Born = r.n.name, restored, r.n.opt.Session+1, r.n.member, false, r.now
	change(&o)
	next.now, next.runs, next.random = r.now, r.runs, r.random
	if next.n, err = newNode(r.now, o, next, next, next); err != nil {
		r.t.Fatal(err)
	}
	return next
}

func TestNodeThatWasRemovedAndIsInItsFileAgainIsBlank(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob", "carol"))
	r.started()
	r.edit("second", rigConfig("bob", "carol"), r.n.state.Config.Generation)
	r.until("web stops", 10*time.Second, func() bool { return len(r.runs) == 0 })
	for _, listed := range []bool{false, true} {
		next := r.again(rigConfig("alice", "bob", "carol"), func(o *nodeOptions) { o.Listed = listed })
		next.n.Tick(next.now)
		next.settle()
		if blank := next.n.state == nil; blank != listed {
			t.Errorf("in its file: %v, blank: %v", listed, blank)
		}
		if changed := next.n.member != r.n.member; changed != listed {
			t.Errorf("in its file: %v, new member id: %v", listed, changed)
		}
	}
}

func TestOwnerSaysThatItLivesByItsLeaseAfterMaintenance(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.started()
	for _, on := range []bool{true, false} {
		if p := r.command(Command{Name: commandMaintenance, On: on}); p.Err != "" {
			t.Fatal(p.Err)
		}
	}
	r.until("its word is recorded", 5*time.Second, func() bool { return !r.n.state.group("web").Unleased })
	if g := r.n.state.group("web"); g.Phase != phaseStarted || len(r.n.outcomes) > 0 {
		t.Fatalf("group %+v, still to be told %+v", g, r.n.outcomes)
	}
}

func TestLeaveBeforeTheJoinOfThisSessionStillSaysGoodbye(t *testing.T) {
	first := newRig(t, rigConfig("alice", "bob"))
	first.started()
	r := first.again(rigConfig("alice", "bob"), func(*nodeOptions) {})
	r.n.Leave(r.now)
	r.until("it is gone", 5*time.Second, r.gone)
	if !r.n.state.node("alice").Left || r.n.state.group("web").Owner != "" || len(r.runs) > 0 {
		t.Fatalf("gone without a goodbye: %+v, %+v, running %v", r.n.state.node("alice"), r.n.state.group("web"), r.runs)
	}
}

func TestLeaveWithAFailedStopNamesWhatStillRunsAndGoes(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.started()
	r.fails["stop vip"] = true
	r.n.Leave(r.now)
	r.until("it is gone", 5*time.Second, r.gone)
	g := r.n.state.group("web")
	if !r.n.state.node("alice").Left || g.Phase != phaseBlocked || g.Owner != "alice" || !g.Unleased {
		t.Fatalf("want the goodbye of alice, and web blocked on it: %+v, %+v", r.n.state.node("alice"), g)
	}
}

func TestLeaveInMaintenanceStopsNothing(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.started()
	r.command(Command{Name: commandMaintenance, On: true})
	r.n.Leave(r.now)
	r.until("it is gone", 5*time.Second, r.gone)
	if !r.runs["web/vip"] || !r.n.state.node("alice").Left {
		t.Fatalf("running %v, state %+v", r.runs, r.n.state.node("alice"))
	}
}

func TestBlankNodeLeavesAtOnce(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.n.opt.Bootstrap = false
	r.n.Leave(r.now)
	r.until("it is gone", 5*time.Second, r.gone)
	if r.n.state != nil {
		t.Fatal("it founded a cluster")
	}
}

func TestWhatIsSetAsideLeavesNothingOfItsLogBehind(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.started()
	r.n.ledger.stored = []storedRevoke{{"bob", "web", 99, 999}}
	r.n.confs = []uint64{998, 999}
	r.n.setAside(r.now, "a test")
	r.until("all is stopped", 5*time.Second, func() bool { return r.n.yielded == "" })
	r.until("time passes", 20*time.Second, func() bool { return r.now > at(19000) })
	if r.n.state != nil {
		t.Error("it founded a second cluster")
	}
	if len(r.n.ledger.stored) > 0 || len(r.n.confs) > 0 {
		t.Errorf("revokes %v and the changes of members at %d of the old log still count", r.n.ledger.stored, r.n.confs)
	}
	for _, g := range r.n.agent.groups {
		if g.started != 0 || g.stopped != 0 {
			t.Errorf("%s: epochs %d and %d of the other life still count as told", g.name, g.started, g.stopped)
		}
	}
}

func TestCopyOfACommandsEntryIsNoRefusal(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	r.started()
	w := &waiter{request: 5}
	r.n.waiters = append(r.n.waiters, w)
	r.n.settleProposal(Entry{Request: 5}, "")
	r.n.settleProposal(Entry{Request: 5}, "it was applied already")
	if !w.applied || w.refused != "" {
		t.Fatalf("applied %v, refused %q", w.applied, w.refused)
	}
}

func TestWhereTheDataIs(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	on := func(disk drbdDisk, role drbdRole, peer drbdConnection, peerDisk drbdDisk) copies {
		s := &drbdStatus{Name: "r0", Role: role, Volumes: []drbdVolume{{Disk: disk}},
			Peers: []drbdPeer{{Name: "bob.example", Connection: peer, Volumes: []drbdPeerVolume{{PeerDisk: peerDisk}}}}}
		return s.copies()
	}
	both := on(diskUpToDate, drbdPrimary, connConnected, diskUpToDate)
	for _, c := range []struct {
		name string
		all  []copies
		want string
	}{
		{"nothing is replicated", nil, ""},
		{"both", []copies{both}, "is safe on alice and bob"},
		{"the peer is copied to", []copies{on(diskUpToDate, drbdPrimary, connConnected, diskInconsistent)}, "has one good copy only, on alice"},
		{"the peer is away", []copies{on(diskUpToDate, drbdPrimary, "Connecting", diskDUnknown)}, "has one good copy only, on alice"},
		{"it is away and not the one that writes", []copies{on(diskUpToDate, "Secondary", "Connecting", diskDUnknown)}, ""},
		{"the disk here failed", []copies{on(diskDiskless, drbdPrimary, connConnected, diskUpToDate)}, "has one good copy only, on bob"},
		{"the worse of two counts", []copies{both, on(diskUpToDate, drbdPrimary, connConnected, diskInconsistent)}, "has one good copy only, on alice"},
		{"nowhere", []copies{on(diskInconsistent, drbdPrimary, connConnected, diskInconsistent)}, "is good on no node that is connected"},
	} {
		if got := r.n.whereData(c.all); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRemovedNodeIsTalkedToUntilItIsNoMember(t *testing.T) {
	before, next := rigConfig("alice", "bob", "carol"), rigConfig("alice", "carol")
	s := &State{Nodes: []NodeState{{Name: "alice", Member: 1}, {Name: "bob", Member: 2}, {Name: "carol", Member: 3}}}
	wired, retiring := withMembers(next, before, s)
	if wired.node("bob") == nil || !slices.Equal(retiring, []string{"bob"}) || len(next.Nodes) != 2 {
		t.Fatalf("wired %v, retiring %v", wired.Nodes, retiring)
	}
	s.Nodes = slices.Delete(s.Nodes, 1, 2)
	wired, retiring = withMembers(next, wired, s)
	if wired.node("bob") != nil || len(retiring) > 0 {
		t.Fatalf("wired %v, retiring %v", wired.Nodes, retiring)
	}
}

func TestNobodyIsShownAsLeaderWhereNoneIsKnown(t *testing.T) {
	first := newRig(t, rigConfig("alice", "bob"))
	first.started()
	r := first.again(rigConfig("alice", "bob"), func(*nodeOptions) {})
	r.n.Tick(r.now)
	r.settle()
	for range 2 { // the first one makes entries of those who were never heard
		if s := r.n.Status(r.now, surroundings{}); s.Leader != "" || s.Quorum {
			t.Fatalf("leader %q, quorum %v", s.Leader, s.Quorum)
		}
	}
}

func TestTimeWithoutALease(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob"))
	n := r.n
	n.confKnown = at(0)
	count := func(now instant, session uint64, says bool, want time.Duration) {
		t.Helper()
		if got := n.noLeaseFor(now, "bob", session, says); got != want {
			t.Errorf("at %d ms in session %d: %s, want %s", now/1e6, session, got, want)
		}
	}
	count(at(1000), 1, true, 1)
	count(at(1700), 1, true, 700*time.Millisecond)
	count(at(1800), 2, true, 1) // what the run before it lacked is not held against this one
	count(at(2100), 2, true, 300*time.Millisecond)
	n.confKnown = at(2200)
	count(at(2300), 2, true, 100*time.Millisecond)
	count(at(2400), 2, false, 0)
	count(at(2500), 2, true, 1)
}
