package main

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClassOfAGroupIsItsStrictest(t *testing.T) {
	drbd, vip := ResourceConfig{Type: "drbd", Resource: "r0"}, ResourceConfig{Type: "vip"}
	fs := func(device, state string) ResourceConfig {
		return ResourceConfig{Type: "filesystem", Device: device, State: state}
	}
	harmless := drbd
	harmless.State = string(classAddressed)
	for _, c := range []struct {
		name      string
		resources []ResourceConfig
		want      class
	}{
		{"nothing", nil, classAddressed},
		{"address and web server", []ResourceConfig{vip, {Type: "httpd"}}, classAddressed},
		{"a disk of its own", []ResourceConfig{vip, fs("/dev/sdb1", "")}, classStateful},
		{"a command", []ResourceConfig{vip, {Type: "exec"}}, classStateful},
		{"a command that is harmless", []ResourceConfig{vip, {Type: "exec", State: "addressed"}}, classAddressed},
		{"a web server that writes", []ResourceConfig{vip, {Type: "httpd", State: "stateful"}}, classStateful},
		{"DRBD", []ResourceConfig{drbd, fs("/dev/drbd0", ""), vip}, classGuarded},
		{"DRBD and another disk", []ResourceConfig{drbd, fs("/dev/drbd0", ""), fs("/dev/sdb1", "")}, classStateful},
		{"DRBD that a person does not trust", []ResourceConfig{{Type: "drbd", State: "stateful"}, fs("/dev/drbd0", "")}, classStateful},
		{"what is on DRBD is as that", []ResourceConfig{harmless, fs("/dev/drbd0", "")}, classAddressed},
		{"what is on DRBD has its own word", []ResourceConfig{harmless, fs("/dev/drbd0", "stateful")}, classStateful},
		{"the strictest of two devices", []ResourceConfig{harmless, drbd, fs("/dev/drbd/by-res/r0/0", "")}, classGuarded},
		{"another resource's device by name", []ResourceConfig{drbd, fs("/dev/drbd/by-res/r1/0", "")}, classStateful},
		{"another disk beside DRBD", []ResourceConfig{harmless, fs("/dev/sdb1", "")}, classStateful},
		{"DRBD of another group", []ResourceConfig{fs("/dev/drbd0", "")}, classStateful},
	} {
		if got := (&GroupConfig{Resources: c.resources}).class(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestHowLongAHostOutlivesItsLease(t *testing.T) {
	for _, c := range []struct {
		e    Enforcement
		of   class
		want time.Duration
		ends bool
	}{
		{Enforcement{}, classAddressed, 0, true},
		{Enforcement{Gate: gateBPF}, classAddressed, 0, true},
		{Enforcement{Gate: gateLifetime, Slack: 1250 * time.Millisecond}, classAddressed, 1250 * time.Millisecond, true},
		{Enforcement{Gate: gateBPF}, classStateful, 0, false},
		{Enforcement{Watchdog: 5 * time.Second}, classStateful, 10 * time.Second, true},
		{Enforcement{Watchdog: 5 * time.Second}, classAddressed, 0, true},
		{Enforcement{Gate: gateLifetime, Slack: 3 * time.Second, Watchdog: time.Second}, classStateful, 3 * time.Second, true},
		{Enforcement{Device: "softdog", Fault: "busy"}, classStateful, 0, false},
	} {
		if got, ends := c.e.beyond(c.of); got != c.want || ends != c.ends {
			t.Errorf("%+v, %s: %s %v, want %s %v", c.e, c.of, got, ends, c.want, c.ends)
		}
	}
}

// TestNeverPlacedBeforeTheReset draws the last moments of an owner of data: grants, a process that may be stopped at any
// point between the look at a grant and the petting, and be killed then, with clocks of owner, watchdog and taker that are
// each up to 10 % off. In true time the watchdog resets it before the taker's wait is over.
func TestNeverPlacedBeforeTheReset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := func(who string) float64 { return rapid.Float64Range(0.9, 1.1).Draw(t, "rate of "+who) }
		owner, dog, taker := rate("owner"), rate("watchdog"), rate("taker")
		l := float64(testL / time.Millisecond)
		w := float64(rapid.IntRange(2, 20).Draw(t, "W in s") * 1000)
		fires := w / dog // it was armed at 0, for a grant of then
		last := 0.0      // sending of the newest grant that anybody gave
		process := 0.0   // when the loop goes on
		late := false    // it was stopped between its last look and the petting
		for i := range 30 {
			sent := float64(i) * 100
			if sent < process {
				continue // it stands still: nothing is sent
			}
			if sent >= fires {
				break // it was reset before
			}
			if rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
				continue
			}
			last = sent
			look := sent + rapid.Float64Range(0, 1.5*l).Draw(t, "answer and queue")
			if look >= sent+l/owner || look >= fires {
				continue // the grant has ended when it is looked at
			}
			effect := look
			if late = rapid.IntRange(0, 5).Draw(t, "stopped") == 0; late {
				effect += rapid.Float64Range(0, 2*w).Draw(t, "for")
			}
			process = max(process, effect)
			if effect >= fires {
				break
			}
			fires = effect + w/dog
		}
		if fires > process && !late && rapid.Bool().Draw(t, "killed") { // both at once: see docs/design.md section 4
			fires = rapid.Float64Range(process, fires).Draw(t, "killed at") + w/dog // the kernel pets when it closes the device
		}
		beyond, ends := (&Enforcement{Watchdog: time.Duration(w) * time.Millisecond}).beyond(classStateful)
		if !ends {
			t.Fatal("a watchdog proves nothing")
		}
		placed := last + float64(holdFor(testL+beyond)/time.Millisecond)/taker
		if placed < fires {
			t.Fatalf("placed at %.1f ms, reset at %.1f ms; the last grant was sent at %.1f ms, W is %.0f ms", placed, fires, last, w)
		}
	})
}

// An edit makes a group stricter at once, and laxer only by the word of an owner that follows this very generation.
func TestEditRelaxesAGroupOnlyByItsOwnersWord(t *testing.T) {
	c := rigConfig("alice", "bob", "carol")
	c.Groups[0].Resources[0].State = string(classStateful)
	r := newRig(t, c)
	r.started()
	g := r.n.state.group("web")
	if !g.Stateful {
		t.Fatal("a stateful group was placed as another")
	}
	s := cloneState(r.n.state)
	lax := rigConfig("alice", "bob", "carol")
	if _, refused := Apply(s, s.Index+1, &Entry{Kind: entryConfig, Base: s.Config.Generation, Config: &ConfigState{Hash: "lax", Effective: lax}}); refused != "" {
		t.Fatal(refused)
	}
	word := Entry{Kind: entryStarted, Group: "web", Node: "alice", Epoch: g.Epoch, Session: r.n.opt.Session, Base: s.Config.Generation - 1}
	Apply(s, s.Index+1, &word)
	if !s.group("web").Stateful {
		t.Error("relaxed by the word of an owner that follows an older generation")
	}
	word.Base = s.Config.Generation
	if _, refused := Apply(s, s.Index+1, &word); refused != "" || s.group("web").Stateful {
		t.Errorf("not relaxed by its owner's word: %q", refused)
	}
	r.edit("lax", lax, r.n.state.Config.Generation)
	r.until("the owner says so by itself", 5*time.Second, func() bool { return !r.n.state.group("web").Stateful })
	strict := rigConfig("alice", "bob", "carol")
	strict.Groups[0].Resources[0].State = string(classStateful)
	r.edit("strict", strict, r.n.state.Config.Generation)
	if !r.n.state.group("web").Stateful {
		t.Error("an edit does not make it stricter at once")
	}
}

// What a group may have had counts until its owner follows the edit: DRBD that was dropped, a disk that no guard helps.
func TestGuardsOfAGroup(t *testing.T) {
	group := func(resources ...ResourceConfig) *GroupConfig { return &GroupConfig{Name: "web", Resources: resources} }
	r0, r1, disk := ResourceConfig{Type: "drbd", Resource: "r0"}, ResourceConfig{Type: "drbd", Resource: "r1"}, ResourceConfig{Type: "exec"}
	s := &State{Config: ConfigState{Effective: rigConfig("alice", "bob", "carol")}, Nodes: []NodeState{{Name: "alice"}}}
	alice := &s.Nodes[0].Enforce
	for _, c := range []struct {
		name     string
		was, is  *GroupConfig // is: an edit that its owner does not follow yet
		claimed  []string
		want     class
		relaxing bool
	}{
		{"not claimed", group(r0), nil, nil, classStateful, false},
		{"claimed", group(r0), nil, []string{"r0"}, classGuarded, false},
		{"one of two is claimed", group(r0, r1), nil, []string{"r1"}, classStateful, false},
		{"both are", group(r1, r0), nil, []string{"r0", "r1"}, classGuarded, false},
		{"beside a disk", group(r0, disk), nil, []string{"r0"}, classStateful, false},
		{"one more by an edit", group(r0), group(r0, r1), []string{"r0"}, classStateful, false},
		{"one less by an edit", group(r0, r1), group(r0), []string{"r0"}, classStateful, true},
		{"a disk goes by an edit", group(r0, disk), group(r0), []string{"r0"}, classStateful, true},
		{"a disk comes by an edit", group(r0), group(r0, disk), []string{"r0"}, classStateful, false},
		{"all of it goes by an edit", group(r0), group(), []string{"r0"}, classGuarded, true},
		{"a group that is in no config", nil, nil, []string{"r0"}, classStateful, false},
	} {
		g := &GroupState{Name: "web", Owner: "alice"}
		g.hold(c.was, false)
		now := c.was
		if c.is != nil {
			g.hold(c.is, true)
			now = c.is
		}
		alice.Guarded = c.claimed
		if got := s.class(g); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := g.relaxedBy(now); got != c.relaxing {
			t.Errorf("%s: relaxed by its owner's word: %v", c.name, got)
		}
		if g.hold(now, false); now != nil && g.relaxedBy(now) {
			t.Errorf("%s: relaxed for ever", c.name)
		}
	}
	g := &GroupState{Name: "web", Owner: "alice", Stateful: true, Guards: []string{"r0"}}
	alice.Guarded = g.Guards
	s.Config.Effective.Fences = []FenceConfig{{Name: "pdu", Node: "alice"}}
	if got := s.class(g); got != classStateful {
		t.Errorf("a node that can be fenced: %s", got)
	}
}

// A node claims a guard for what its last monitor has read of a Primary, for as long as that is one.
func TestGuardIsClaimed(t *testing.T) {
	c := rigConfig("alice", "bob", "carol")
	disk := ResourceConfig{Type: "drbd", Name: "disk", Resource: "r0"}
	r := newRig(t, c)
	r.started()
	n := r.n
	done := func(op string, c *copies) func() {
		return func() {
			d := actionDone{action: action{Group: "web", Resource: "disk", Op: op, Config: disk}, Copies: c, Condition: conditionUnknown}
			if c != nil {
				d.Condition = conditionRunning
			} else if op != opMonitor {
				d.Condition = conditionStopped
			}
			n.noteCopies(d)
		}
	}
	read := func(guarded, frozen bool, stale ...string) func() {
		return done(opMonitor, &copies{Known: true, Here: true, Of: 2, Guarded: guarded, Frozen: frozen, Stale: stale})
	}
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing is read", func() {}, false},
		{"DRBD does not freeze it", read(false, false), false},
		{"a copy lacks something, and that is not recorded", read(true, false, "bob"), false},
		{"now it is", func() { n.state.Stale = []StaleCopy{{Resource: "r0", Node: "bob", ID: 9}} }, true},
		{"the record is gone", func() { n.state.Stale = nil }, false},
		{"frozen", read(true, true, "bob"), true},
		{"a monitor that could not read", done(opMonitor, nil), true},
		{"thawed", done(opThaw, nil), true},
		{"somebody has changed DRBD", read(false, false), false},
		{"and changed it back", read(true, false), true},
		{"stopped", done(opStop, nil), false},
		{"started, and not read yet", done(opStart, nil), false},
		{"read", read(true, false), true},
		{"it failed to stop, and was forced", done(opForce, nil), false},
	} {
		step.do()
		if got := slices.Equal(n.guarded(), []string{"r0"}); got != step.want {
			t.Errorf("%s: claimed: %v", step.name, got)
		}
	}
	read(true, false)()
	two := rigConfig("alice", "bob")
	n.config = two
	if claims := n.guarded(); claims != nil {
		t.Errorf("claimed among two voters: %v", claims)
	}
}

// A copy of what a node has said before, as a proposal that is repeated makes one, takes nothing back.
func TestEnforceIsTakenInItsOrder(t *testing.T) {
	s := &State{Config: ConfigState{Effective: rigConfig("alice", "bob", "carol")}, Nodes: []NodeState{{Name: "alice", Session: 7, Enforced: 3}}}
	say := func(base uint64, guarded ...string) *Entry {
		return &Entry{Kind: entryEnforce, Node: "alice", Session: 7, Base: base, Enforce: &Enforcement{Guarded: guarded}}
	}
	for i, step := range []struct {
		entry   *Entry
		refused bool
		want    int // how much it claims then
	}{
		{say(3, "r0"), false, 1},
		{say(3), true, 1}, // begun before the claim was known: it is said again
		{say(4), false, 0},
		{say(3, "r0"), true, 0},
		{say(4, "r0"), true, 0},
		{say(6, "r0"), false, 1},
	} {
		_, refused := Apply(s, uint64(4+i), step.entry)
		if (refused != "") != step.refused || len(s.Nodes[0].Enforce.Guarded) != step.want {
			t.Errorf("step %d: refused %q, claims %v", i, refused, s.Nodes[0].Enforce.Guarded)
		}
	}
	if a, b := say(3, "r0").key(), say(3).key(); a == b {
		t.Errorf("what it says now would wait for what it said before: %s", a)
	}
}

func TestLeaseProvesNothingWhereNothingResetsTheHost(t *testing.T) {
	s := &State{Config: ConfigState{Effective: rigConfig("alice", "bob", "carol")},
		Nodes:  []NodeState{{Name: "alice", Member: 1, Joined: true}, {Name: "bob", Member: 2, Joined: true}},
		Groups: []GroupState{{Name: "web", Phase: phaseRevoked, Owner: "alice", Epoch: 4, Stateful: true}}}
	for _, kind := range []string{entryPlace, entryFree} {
		c := cloneState(s)
		e := Entry{Kind: kind, Group: "web", Node: "bob", Epoch: 4, Proof: proofLease}
		if _, refused := Apply(c, 1, &e); refused == "" {
			t.Errorf("%s by the end of a lease: taken, though alice may still write", kind)
		}
		c.Nodes[0].Enforce.Watchdog = 5 * time.Second
		if _, refused := Apply(c, 1, &e); refused != "" {
			t.Errorf("%s by the end of a lease with a watchdog: %s", kind, refused)
		}
	}
}
