package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// More of two nodes: what each may do alone, and after what.

// TestClusterCaretaker: the owner whose peer is dead looks after its own web server, and tells of it later.
func TestClusterCaretaker(t *testing.T) {
	c := newCluster(t, webGroup, "alice", "bob")
	c.extra = `two_node = "manual"`
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob")
	p, begun := c.probe("http://"+clusterVIP+"/"), time.Now()
	bob.powerOff()
	alice.await("caretaker", func(s *Status) bool { return s.Caretaker })
	p.noOutage("the death of the standby side", begun)
	for range 4 { // more often than the migration threshold: there is nobody to move to
		pid := apachePID(t, alice)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.await("apache is started again", func() bool { now := apachePID(t, alice); return now != 0 && now != pid })
		p.answers()
	}
	bob.powerOn()
	alice.settled("alice", "bob")
	bob.await("the failures are told", func(s *Status) bool { return s.testProblem("resource-failed") != nil })
	p.answers()
}

// TestClusterPairDaemonsKilled kills both daemons of two nodes at once. What they run goes on, and the next daemons adopt
// it; the owner's does so too while it is the only one that is back.
func TestClusterPairDaemonsKilled(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"manual", "ignore", "fence"} {
		t.Run(mode, func(t *testing.T) {
			c := newCluster(t, webGroup, "alice", "bob")
			c.extra = fmt.Sprintf("two_node = %q", mode)
			if mode == "fence" {
				c.groups += powerDevice
				f := c.power()
				defer func() {
					if f.isOff(c.hosts[0]) {
						t.Error("the owner was fenced: it was there all the time")
					}
				}()
			}
			c.up()
			alice, bob := c.host("alice"), c.host("bob")
			alice.runsOn("web", "alice")
			alice.settled("alice", "bob")
			bob.settled("alice", "bob")
			pid := apachePID(t, alice)
			p := c.probe("http://" + clusterVIP + "/")
			for _, alone := range []bool{false, true} {
				if alone && mode == "fence" {
					continue // it has the other fenced then: TestClusterFencePair
				}
				begun := time.Now()
				alice.signal(syscall.SIGKILL)
				bob.signal(syscall.SIGKILL)
				alice.wait()
				bob.wait()
				alice.start()
				if alone {
					alice.await("it goes on alone", func(s *Status) bool { return s.Caretaker && s.testGroup("web").Owner == "alice" })
					p.answeredBy("alice serves")
				}
				bob.start()
				alice.settled("alice", "bob")
				bob.settled("alice", "bob")
				if g := bob.runsOn("web", "alice"); g.Epoch != 1 {
					t.Errorf("alone %v: epoch %d: it was not adopted", alone, g.Epoch)
				}
				back := time.Since(begun)
				longest, _ := p.outage(begun)
				t.Logf("measured: two_node = %s, both daemons killed (owner back alone first: %v): all well after %d ms, longest gap %d ms", mode, alone, back.Milliseconds(), longest.Milliseconds())
				if longest > back {
					t.Errorf("%s without an answer, and all was well after %s", longest, back)
				}
				if now := apachePID(t, alice); now != pid {
					t.Errorf("apache was process %d and is %d", pid, now)
				}
			}
			if alice.hasLogged("stop of") || alice.hasLogged("group-revoked") {
				t.Error("something was stopped")
			}
		})
	}
}

// TestClusterManualPartition: each hears nobody. The owner goes on, the other waits, and when they hear each other again
// nothing has happened.
func TestClusterManualPartition(t *testing.T) {
	c, alice, bob := newPair(t, "manual")
	p, begun := c.probe("tcp:"+clusterVIP+":80"), time.Now()
	bob.cut()
	bob.await("bob waits", func(s *Status) bool { return s.testProblem("group-waiting") != nil })
	alice.await("caretaker", func(s *Status) bool { return s.Caretaker })
	bob.heal()
	alice.settled("alice", "bob")
	bob.settled("alice", "bob")
	if g := bob.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d: it moved", g.Epoch)
	}
	p.noOutage("a partition under two_node = manual", begun)
	if s := bob.status(); s.Incarnation != 1 {
		t.Errorf("incarnation %d", s.Incarnation)
	}
}

// TestClusterLeftAloneBoots: who was left alone by a goodbye is the only voter, and may boot alone.
func TestClusterLeftAloneBoots(t *testing.T) {
	_, alice, bob := newPair(t, "manual")
	bob.signal(syscall.SIGTERM)
	bob.wait()
	alice.await("it decides alone", func(s *Status) bool { return s.Quorum && s.Voters == 1 })
	alice.powerOff()
	alice.powerOn()
	alice.runsOn("web", "alice")
	// And the one that left waits when it boots alone: the other may know more.
	alice.powerOff()
	bob.powerOff()
	bob.powerOn()
	bob.await("it waits for the other", func(s *Status) bool { return !s.Quorum && len(s.Problems) > 0 })
	bob.c.steady(3 * time.Second)
	if bob.holds(clusterVIP) {
		t.Error("a node that had left started the group alone")
	}
	alice.powerOn()
	alice.settled("alice", "bob")
	bob.settled("alice", "bob")
	alice.await("all is well", func(s *Status) bool { return s.Overall == "ok" })
}

// TestClusterBothOffOneForGood: after a power cut one of two never comes back. The other must not start by itself, and must
// start when it is told that the first is dead.
func TestClusterBothOffOneForGood(t *testing.T) {
	for _, mode := range []string{"manual", "ignore"} {
		t.Run(mode, func(t *testing.T) {
			c, alice, bob := newPair(t, mode)
			alice.powerOff()
			bob.powerOff()
			bob.powerOn()
			bob.await("it waits", func(s *Status) bool { return !s.Quorum && s.testProblem("no-quorum") != nil })
			c.steady(listenFor(&Config{}) + time.Second)
			if bob.holds(clusterVIP) {
				t.Fatal("it started alone after a boot")
			}
			s := bob.await("it names the command", func(s *Status) bool { return s.testProblem("no-quorum") != nil })
			if p := s.testProblem("no-quorum"); !strings.Contains(p.Next+p.Command, "hactl confirm-dead alice") {
				t.Errorf("what it says: %+v", p)
			}
			bob.mustHactl("confirm-dead", "alice", "--yes")
			bob.runsOn("web", "bob")
			alice.powerOn()
			alice.settled("alice", "bob")
			bob.settled("alice", "bob")
			bob.runsOn("web", "bob")
		})
	}
}

// TestClusterPairOwnerLosesState: the owner's disk is replaced.
func TestClusterPairOwnerLosesState(t *testing.T) {
	_, alice, bob := newPair(t, "manual")
	alice.powerOff()
	if err := os.RemoveAll(alice.path("state")); err != nil {
		t.Fatal(err)
	}
	bob.await("bob waits", func(s *Status) bool { return s.testProblem("group-waiting") != nil })
	alice.powerOn()
	bob.settled("alice", "bob")
	alice.settled("alice", "bob")
	bob.await("web runs, and all is well", func(s *Status) bool { return s.testGroup("web").State == "started" && s.Overall == "ok" })
}

// TestClusterIgnorePartitionBoth: after a partition in which both served, one owner is left, and it is the one that the
// client reaches.
func TestClusterIgnorePartitionBoth(t *testing.T) {
	c := newCluster(t, webGroup, "alice", "bob")
	c.extra = `two_node = "ignore"`
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob")
	c.guard.allow(`two_node = "ignore" in a partition`)
	p := c.probe("http://" + clusterVIP + "/")
	bob.cut()
	bob.runsOn("web", "bob")
	c.await("both have it", func() bool { return alice.holds(clusterVIP) && bob.holds(clusterVIP) })
	p.answeredBy("alice serves") // the client is on her side
	bob.heal()
	alice.settled("alice", "bob")
	bob.settled("alice", "bob")
	c.await("exactly one has it", func() bool { return alice.holds(clusterVIP) != bob.holds(clusterVIP) })
	c.guard.allow("")
	owner := bob.await("web runs", func(s *Status) bool { return s.testGroup("web").State == "started" }).testGroup("web").Owner
	p.answeredBy(owner + " serves")
	loser := alice
	if owner == "alice" {
		loser = bob
	}
	c.await("the loser has stopped apache", func() bool { pid := apachePID(t, loser); return pid == 0 || syscall.Kill(pid, 0) != nil })
	if !loser.hasLogged("incarnation") {
		t.Errorf("%s does not say why it stopped", loser.name)
	}
}

// TestClusterWitnessGone: without the witness two still are a majority; without the other one too, the owner closes.
func TestClusterWitnessGone(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	p, begun := c.probe("tcp:"+clusterVIP+":80"), time.Now()
	carol.powerOff()
	alice.await("carol is lost", func(s *Status) bool { return s.testNode("carol").State == "lost" && s.Quorum })
	p.noOutage("the death of the witness", begun)
	bob.powerOff()
	alice.logged("lease-over")
	c.await("alice lets go", func() bool { return !alice.holds(clusterVIP) })
	bob.powerOn()
	alice.await("two are a majority again", func(s *Status) bool { return s.testGroup("web").State == "started" && s.Quorum })
	p.answers()
	carol.powerOn()
	alice.settled("alice", "bob", "carol")
}
