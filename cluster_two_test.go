package main

import (
	"strings"
	"syscall"
	"testing"
)

// Two nodes and nobody else: there is no majority without the other.

func newPair(t *testing.T, mode string) (c *cluster, alice, bob *clusterHost) {
	t.Helper()
	c = newCluster(t, vipGroup, "alice", "bob")
	c.extra = `two_node = "` + mode + `"`
	c.up()
	alice, bob = c.host("alice"), c.host("bob")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob")
	alice.settled("alice", "bob")
	return c, alice, bob
}

func TestClusterManual(t *testing.T) {
	_, alice, bob := newPair(t, "manual")

	// The standby side dies: the owner goes on as caretaker, and restarts what is its own.
	bob.powerOff()
	alice.await("caretaker", func(s *Status) bool { return s.Caretaker && s.testGroup("web").State == "started" })
	if !alice.holds(clusterVIP) {
		t.Error("the caretaker gave its address up")
	}
	alice.c.must("ip", "-n", alice.c.ns("alice"), "addr", "del", clusterVIP+"/32", "dev", "eth0")
	alice.c.await("the address is put back", func() bool { return alice.holds(clusterVIP) })
	if _, errs, code := alice.hactl("standby", "alice"); code == 0 || !strings.Contains(errs, "hactl confirm-dead bob") {
		t.Errorf("a command that cannot be recorded: exit %d, %s", code, errs)
	}
	bob.powerOn()
	alice.settled("alice", "bob")
	alice.runsOn("web", "alice")

	// The owner dies: the other waits for a word.
	alice.powerOff()
	bob.await("it waits and says for what", func(s *Status) bool {
		p := s.testProblem("group-waiting")
		return p != nil && p.Command == "hactl confirm-dead alice"
	})
	if bob.holds(clusterVIP) {
		t.Error("bob took over unasked")
	}
	bob.c.await("confirm-dead is taken", func() bool { // not while alice was heard a moment ago
		_, _, code := bob.hactl("confirm-dead", "alice", "--yes")
		return code == 0
	})
	bob.runsOn("web", "bob")
	alice.powerOn()
	bob.settled("alice", "bob")
	bob.runsOn("web", "bob")
	if s := alice.await("it has joined the new incarnation", func(s *Status) bool { return s.Incarnation == 2 && s.Quorum }); s.testGroup("web").Owner != "bob" {
		t.Errorf("alice thinks that web is on %q", s.testGroup("web").Owner)
	}
	if _, errs, code := bob.hactl("confirm-dead", "alice", "--yes"); code == 0 || !strings.Contains(errs, "alice is alive") {
		t.Errorf("a living node was declared dead: exit %d, %s", code, errs)
	}
}

func TestClusterIgnore(t *testing.T) {
	c, alice, bob := newPair(t, "ignore")
	alice.powerOff()
	bob.runsOn("web", "bob")
	alice.powerOn()
	bob.settled("alice", "bob")
	bob.runsOn("web", "bob")
	alice.settled("alice", "bob") // a learner that does not know yet that it votes takes nothing over

	c.guard.allow("two_node = \"ignore\" in a partition")
	alice.cut()
	alice.runsOn("web", "alice")
	bob.await("bob goes on", func(s *Status) bool { return s.Caretaker })
	alice.heal()
	alice.settled("alice", "bob")
	bob.settled("alice", "bob")
	owner := alice.status().testGroup("web").Owner
	alice.runsOn("web", owner)
	c.await("exactly one holds the address", func() bool { return alice.holds(clusterVIP) != bob.holds(clusterVIP) })
}

func TestClusterLeave(t *testing.T) {
	c, alice, bob := newPair(t, "manual")
	p := c.probe("tcp:" + clusterVIP + ":80")
	alice.signal(syscall.SIGTERM)
	alice.wait()
	bob.runsOn("web", "bob")
	longest, _ := p.stop()
	t.Logf("measured: clean stop of the owner's daemon, longest gap %d ms", longest.Milliseconds())
	s := bob.await("bob decides alone", func(s *Status) bool { return s.Quorum && s.Voters == 1 })
	if x := s.testNode("alice"); x.State != "left" {
		t.Errorf("alice is %q", x.State)
	}
	bob.mustHactl("move", "web", "bob") // it can decide
	bob.mustHactl("unmove", "web")
	alice.start()
	bob.settled("alice", "bob")
	bob.runsOn("web", "bob")
}

func TestClusterBothReboot(t *testing.T) {
	_, alice, bob := newPair(t, "ignore")
	alice.mustHactl("move", "web", "bob")
	alice.powerOff()
	bob.powerOff()
	alice.powerOn()
	// wait_for_all: alone after a boot it starts nothing, whatever two_node says.
	alice.await("it waits for the other", func(s *Status) bool { return !s.Quorum && s.testProblem("no-quorum") != nil })
	alice.c.steady(listenFor(&Config{}) * 2)
	if alice.holds(clusterVIP) {
		t.Error("it started the group without having met the other since its boot")
	}
	bob.powerOn()
	alice.settled("alice", "bob")
	if g := alice.runsOn("web", "bob"); g.Pin == nil {
		t.Error("the pin did not survive a reboot of both")
	}
}

func TestClusterLostState(t *testing.T) {
	_, alice, bob := newPair(t, "manual")
	bob.powerOff()
	bob.c.must("rm", "-rf", bob.dir+"/state")
	bob.powerOn()
	alice.settled("alice", "bob")
	if g := alice.runsOn("web", "alice"); g.Owner != "alice" {
		t.Errorf("web is on %s", g.Owner)
	}
	bob.runsOn("web", "alice")
}
