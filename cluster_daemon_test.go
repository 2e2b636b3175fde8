package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The daemon goes away and comes back; what it runs does not care.

// TestClusterAllDaemonsKilled kills all at once: nobody is left to adopt anything from. The address is silent from the end
// of the lease until there are grants again, if that is later.
func TestClusterAllDaemonsKilled(t *testing.T) {
	c := newCluster(t, webGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice := c.host("alice")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	pid := apachePID(t, alice)
	p, begun := c.probe("http://"+clusterVIP+"/"), time.Now()
	for _, h := range c.hosts {
		h.signal(syscall.SIGKILL)
	}
	for _, h := range c.hosts {
		h.wait()
		h.start()
	}
	for _, h := range c.hosts {
		h.settled("alice", "bob", "carol")
	}
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d: it was not adopted", g.Epoch)
	}
	back := time.Since(begun)
	longest, _ := p.outage(begun)
	t.Logf("measured: all daemons killed at once, all well after %d ms, longest gap %d ms", back.Milliseconds(), longest.Milliseconds())
	if longest > back {
		t.Errorf("%s without an answer, and all was well after %s", longest, back)
	}
	if alice.hasLogged("stop of") || alice.hasLogged("group-revoked") {
		t.Error("something was stopped")
	}
	if now := apachePID(t, alice); now != pid {
		t.Errorf("apache was process %d and is %d", pid, now)
	}
}

// TestClusterOthersKilled kills the daemons that own nothing, the leader's among them, one after the other.
func TestClusterOthersKilled(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice := c.host("alice")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	p, begun := c.probe("tcp:"+clusterVIP+":80"), time.Now()
	for _, name := range []string{"bob", "carol"} {
		h := c.host(name)
		h.kill()
		alice.await(name+" is missed", func(s *Status) bool { return s.testNode(name).State == "lost" && s.Quorum })
		h.start()
		alice.settled("alice", "bob", "carol")
	}
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d: it moved", g.Epoch)
	}
	p.noOutage("the other daemons killed", begun)
}

// TestClusterStoppedInMaintenance takes the daemon away for as long as it likes.
func TestClusterStoppedInMaintenance(t *testing.T) {
	c, alice, bob := servingCluster(t, webGroup)
	pid := apachePID(t, alice)
	p, begun := c.probe("http://"+clusterVIP+"/"), time.Now()
	bob.mustHactl("maintenance", "on")
	alice.await("it knows", func(s *Status) bool { return s.Maintenance != nil })
	alice.signal(syscall.SIGTERM)
	alice.wait()
	bob.await("alice has left", func(s *Status) bool { return s.testNode("alice").State == "left" })
	if !alice.holds(clusterVIP) {
		t.Error("in maintenance, the stop of the daemon took the address away")
	}
	alice.start()
	bob.settled("alice", "bob", "carol")
	bob.mustHactl("maintenance", "off")
	bob.runsOn("web", "alice")
	bob.await("all is well", func(s *Status) bool { return s.Overall == "ok" })
	p.noOutage("the daemon stopped in maintenance", begun)
	if now := apachePID(t, alice); now != pid {
		t.Errorf("apache was process %d and is %d", pid, now)
	}
}

// TestClusterLeaveThree stops the owner's daemon in good order: the groups are handed over first.
func TestClusterLeaveThree(t *testing.T) {
	c, alice, bob := servingCluster(t, webGroup)
	p := c.probe("http://" + clusterVIP + "/")
	alice.signal(syscall.SIGTERM)
	alice.wait()
	if pid := apachePID(t, alice); pid != 0 && syscall.Kill(pid, 0) == nil {
		t.Errorf("the daemon has ended and left apache %d behind", pid)
	}
	bob.runsOn("web", "bob")
	longest, last := p.stop()
	t.Logf("measured: clean stop of the owner's daemon with apache, longest gap %d ms", longest.Milliseconds())
	if last != "bob serves" {
		t.Errorf("the page was last answered by %q", last)
	}
	s := bob.await("alice has left", func(s *Status) bool { return s.testNode("alice").State == "left" })
	if p := s.testProblem("node-left"); p == nil || p.Command == "" && p.Next == "" {
		t.Errorf("nothing says what to do: %+v", s.Problems)
	}
	alice.start()
	bob.settled("alice", "bob", "carol")
	bob.runsOn("web", "bob")
}

// TestClusterOwnerLosesState takes the state folder away under a running group.
func TestClusterOwnerLosesState(t *testing.T) {
	c, alice, bob := servingCluster(t, webGroup)
	alice.kill()
	if err := os.RemoveAll(alice.path("state")); err != nil {
		t.Fatal(err)
	}
	alice.start()
	bob.settled("alice", "bob", "carol")
	alice.settled("alice", "bob", "carol")
	s := bob.await("web runs", func(s *Status) bool { return s.testGroup("web").State == "started" })
	owner := s.testGroup("web").Owner
	c.await("the owner alone has the address", func() bool {
		return c.host(owner).holds(clusterVIP) && alice.holds(clusterVIP) != bob.holds(clusterVIP)
	})
	bob.await("all is well", func(s *Status) bool { return s.Overall == "ok" })
}

// TestClusterHistory: what happened can be read afterwards, on a node that was not there.
func TestClusterHistory(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	carol.powerOff()
	alice.await("carol is missed", func(s *Status) bool { return s.testNode("carol").State == "lost" })
	alice.mustHactl("move", "web", "bob")
	bob.mustHactl("unmove", "web")
	carol.powerOn()
	carol.runsOn("web", "bob") // it has caught up
	carol.settled("alice", "bob", "carol")
	out := carol.mustHactl("history")
	for _, words := range []string{"web goes to alice", "carol is lost", "web runs on bob"} {
		if !strings.Contains(out, words) {
			t.Errorf("the history does not say %q:\n%s", words, out)
		}
	}
	if out := carol.mustHactl("why", "web"); !strings.Contains(out, "bob") {
		t.Errorf("why says:\n%s", out)
	}
}
