package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What an edit of the file does to what runs, and what becomes of edits that the cluster has not seen.

// TestClusterEditTouchesOnlyWhatChanged edits around a running web server.
func TestClusterEditTouchesOnlyWhatChanged(t *testing.T) {
	c, alice, bob := servingCluster(t, webGroup)
	pid := apachePID(t, alice)
	p, begun := c.probe("http://"+clusterVIP+"/"), time.Now()
	inForce := func(generation uint64) {
		t.Helper()
		for _, h := range c.hosts {
			h.await(fmt.Sprintf("generation %d", generation), func(s *Status) bool { return s.Generation == generation })
		}
	}
	bob.edit("port = 6940", "port = 6940\ndeadtime = \"2s\"")
	inForce(2)
	alice.edit(`interval = "1s"`, `interval = "500ms"`)
	inForce(3)
	bob.edit("[[group]]", addressGroup("mail", "10.77.0.101", `prefer = ["bob"]`)+"[[group]]")
	inForce(4)
	bob.runsOn("mail", "bob")
	alice.write("ha.toml", alice.file("ha.toml")+"[[group.resource]]\ntype = \"vip\"\naddress = \"10.77.0.102\"\ninterface = \"eth0\"\n")
	inForce(5)
	c.await("the new address is on alice", func() bool { return alice.holds("10.77.0.102") })
	bob.edit(addressGroup("mail", "10.77.0.101", `prefer = ["bob"]`), "")
	inForce(6)
	c.await("the group is gone, and its address", func() bool {
		s := bob.status()
		return s != nil && s.testGroup("mail").Name == "" && !bob.holds("10.77.0.101")
	})
	bob.await("all is well", func(s *Status) bool { return s.Overall == "ok" })
	p.noOutage("edits of other things", begun)
	if now := apachePID(t, alice); now != pid {
		t.Errorf("apache was process %d and is %d", pid, now)
	}
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d: it moved", g.Epoch)
	}
}

// TestClusterEditWhileDown edits files of daemons that do not run.
func TestClusterEditWhileDown(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")

	// Not edited where the daemon is down: it gets what the others have decided meanwhile.
	bob.kill()
	carol.edit(clusterVIP, "10.77.0.110")
	c.await("the address changes", func() bool { return alice.holds("10.77.0.110") })
	bob.start()
	c.await("bob's file follows", func() bool { return strings.Contains(bob.file("ha.toml"), "10.77.0.110") })

	// Edited only where the daemon is down: taken when it starts.
	bob.settled("alice", "bob", "carol")
	bob.kill()
	bob.edit("10.77.0.110", "10.77.0.111")
	bob.start()
	c.await("bob's edit is taken", func() bool {
		return alice.holds("10.77.0.111") && strings.Contains(alice.file("ha.toml"), "10.77.0.111")
	})

	// Edited on both sides: bob's is stale, is kept, and changes nothing.
	bob.settled("alice", "bob", "carol")
	bob.kill()
	bob.edit("10.77.0.111", "10.77.0.112")
	alice.edit("10.77.0.111", "10.77.0.113")
	c.await("alice's edit is taken", func() bool { return alice.holds("10.77.0.113") })
	bob.start()
	problem := bob.await("bob's edit is stale", func(s *Status) bool { return s.testProblem("config-stale") != nil }).testProblem("config-stale")
	if !strings.Contains(bob.file("ha.toml"), "10.77.0.112") || alice.holds("10.77.0.112") {
		t.Error("the stale edit was overwritten or taken")
	}
	// What it says to type helps.
	c.must("sh", "-c", problem.Command)
	bob.await("the problem is gone", func(s *Status) bool { return s.testProblem("config-stale") == nil })
	if bob.file("ha.toml") != alice.file("ha.toml") {
		t.Error("the files differ")
	}
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d: it moved", g.Epoch)
	}
}

// TestClusterEditInMinority edits on a node that nobody hears: it comes into force when it can.
func TestClusterEditInMinority(t *testing.T) {
	c, alice, bob := servingCluster(t, vipGroup)
	bob.cut()
	bob.await("bob is alone", func(s *Status) bool { return !s.Quorum })
	bob.edit(clusterVIP, "10.77.0.110")
	bob.await("the edit is pending", func(s *Status) bool { return s.testProblem("config-pending") != nil })
	bob.heal()
	c.await("the edit is in force", func() bool { return alice.holds("10.77.0.110") && !alice.holds(clusterVIP) })
	alice.settled("alice", "bob", "carol")
	bob.await("nothing is pending", func(s *Status) bool { return s.testProblem("config-pending") == nil && s.Overall == "ok" })
}

// TestClusterLinkMistake edits links so that nobody could hear anybody any more. What the host that edits has not is refused;
// what only the others have not comes into force, and those keep to what they have. Whoever went along comes back by a mended
// file.
func TestClusterLinkMistake(t *testing.T) {
	c, alice, bob := servingCluster(t, vipGroup)
	good := bob.file("ha.toml")
	links := strings.NewReplacer("\ninterface = \"eth0\"\nmulticast", "\ninterface = \"eth8\"\nmulticast", "\ninterface = \"eth1\"", "\ninterface = \"eth9\"")

	bob.write("ha.toml", links.Replace(good))
	s := bob.await("the edit is refused", func(s *Status) bool { return s.testProblem("config-bad") != nil })
	if p := s.testProblem("config-bad"); !strings.Contains(p.What, `this host has no "eth8"`) {
		t.Errorf("%+v", p)
	}
	if _, stderr, code := bob.hactl("config", "rollback", "1"); code == 0 {
		t.Errorf("rollback: %d, %s", code, stderr)
	}
	bob.write("ha.toml", good)
	s = bob.await("nothing is left of it", func(s *Status) bool { return s.testProblem("config-bad") == nil })
	if s.Generation != 1 {
		t.Fatalf("generation %d", s.Generation)
	}

	for i, name := range []string{"eth8", "eth9"} {
		c.must("ip", "-n", c.ns("bob"), "link", "add", name, "type", "veth", "peer", "name", name+"x")
		c.must("ip", "-n", c.ns("bob"), "addr", "add", fmt.Sprintf("10.77.%d.%d/32", i, bob.number), "dev", name)
	}
	bob.write("ha.toml", links.Replace(good))
	bob.await("bob hears nobody", func(s *Status) bool { return s.Generation == 2 && !s.Quorum })
	alice.await("the others keep to their links", func(s *Status) bool { return s.Generation == 2 && s.Quorum && s.testProblem("links-kept") != nil })
	alice.runsOn("web", "alice")

	// One that has no other links to keep to when it starts has its mended file.
	carol := c.host("carol")
	carol.kill()
	carol.write("ha.toml", good)
	carol.start()
	alice.await("carol is heard", func(s *Status) bool { return s.testNode("carol").State == "online" })
	bob.write("ha.toml", good)
	for _, h := range c.hosts {
		h.await("all is well", func(s *Status) bool { return s.Generation == 3 && s.Overall == "ok" })
	}
}
