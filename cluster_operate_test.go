package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What an operator does.

func TestClusterMove(t *testing.T) {
	c, alice, bob := servingCluster(t, vipGroup)
	p := c.probe("tcp:" + clusterVIP + ":80")
	out := alice.mustHactl("move", "web", "bob")
	longest, _ := p.stop()
	t.Logf("measured: planned move of an address alone, longest gap %d ms", longest.Milliseconds())
	if !strings.Contains(out, "web runs on bob") {
		t.Errorf("move said %q", out)
	}
	if g := bob.runsOn("web", "bob"); g.Pin == nil || g.Pin.Node != "bob" {
		t.Errorf("the pin is %+v", g.Pin)
	}
	// A pin is never a ban: when its node dies the group fails over, and goes back when it can.
	bob.powerOff()
	alice.runsOn("web", "alice")
	bob.powerOn()
	alice.runsOn("web", "bob")
	alice.mustHactl("unmove", "web")
	if g := alice.runsOn("web", "bob"); g.Pin != nil {
		t.Errorf("unmove left the pin %+v", g.Pin)
	}
	alice.mustHactl("move", "web", "alice", "--for", "2s")
	alice.runsOn("web", "alice")
	alice.await("the pin lifts itself", func(s *Status) bool { return s.testGroup("web").Pin == nil })
	if g := alice.runsOn("web", "alice"); g.Pin != nil {
		t.Error("it moved when the pin went")
	}
	if _, errs, code := alice.hactl("move", "web", "bop"); code != exitUsage || !strings.Contains(errs, `did you mean "bob"?`) {
		t.Errorf("a slip: exit %d, %s", code, errs)
	}
}

func TestClusterStandbyAndMaintenance(t *testing.T) {
	c, _, bob := servingCluster(t, webGroup)
	bob.mustHactl("standby", "alice")
	bob.runsOn("web", "bob")
	if _, errs, code := bob.hactl("move", "web", "alice"); code == 0 || !strings.Contains(errs, "standby") {
		t.Errorf("a move to a node in standby: exit %d, %s", code, errs)
	}
	bob.mustHactl("online", "alice")
	bob.runsOn("web", "bob")

	bob.mustHactl("maintenance", "on")
	pid := apachePID(t, bob)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bob.await("httpd is down and left alone", func(s *Status) bool {
		for _, r := range s.testGroup("web").Resources {
			if r.Name == "httpd" && r.State != "running" {
				return true
			}
		}
		return false
	})
	if bob.hasLogged("resource-failed") {
		t.Error("a failure was counted in maintenance")
	}
	bob.mustHactl("maintenance", "off")
	c.await("httpd is started again", func() bool { p := apachePID(t, bob); return p != 0 && p != pid })
	bob.runsOn("web", "bob")
}

func (h *clusterHost) edit(old, new string) {
	h.c.t.Helper()
	path := filepath.Join(h.dir, "ha.toml")
	b, err := os.ReadFile(path)
	if err != nil {
		h.c.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		h.c.t.Fatalf("the config of %s has no %q", h.name, old)
	}
	h.write("ha.toml", strings.Replace(string(b), old, new, 1))
}

func (h *clusterHost) file(name string) string {
	b, _ := os.ReadFile(filepath.Join(h.dir, name)) // what is not there has no text
	return string(b)
}

func TestClusterEdits(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")

	// A good edit, on the node that does not own the group.
	bob.edit(clusterVIP, "10.77.0.110")
	c.await("the address changes", func() bool { return alice.holds("10.77.0.110") && !alice.holds(clusterVIP) })
	for _, h := range c.hosts {
		c.await(h.name+" has the text", func() bool { return strings.Contains(h.file("ha.toml"), "10.77.0.110") })
	}
	// A bad one changes nothing and is shown until it is mended.
	carol.edit("[heartbeat]", "[heartbeet]")
	carol.await("the error is shown", func(s *Status) bool {
		p := s.testProblem("config-bad")
		return p != nil && strings.Contains(p.What, "heartbeet")
	})
	if !strings.Contains(alice.file("ha.toml"), "[heartbeat]") {
		t.Error("the bad edit reached alice")
	}
	carol.edit("[heartbeet]", "[heartbeat]")
	carol.await("the error is gone", func(s *Status) bool { return s.testProblem("config-bad") == nil && s.Generation == 2 })
	// On both at once: one wins, the other is kept beside and named.
	done := make(chan struct{})
	go func() { alice.edit("10.77.0.110", "10.77.0.111"); close(done) }()
	bob.edit("10.77.0.110", "10.77.0.112")
	<-done
	carol.await("generation 3", func(s *Status) bool { return s.Generation == 3 })
	loser := alice
	if strings.Contains(carol.file("ha.toml"), "10.77.0.111") {
		loser = bob
	}
	loser.await("the stale edit is named", func(s *Status) bool { return s.testProblem("config-stale") != nil })
	beside, err := filepath.Glob(filepath.Join(loser.dir, "ha.toml.edit-*"))
	if err != nil || len(beside) != 1 {
		t.Fatalf("beside the file: %v %v", beside, err)
	}
	if kept, _ := os.ReadFile(beside[0]); string(kept) != loser.file("ha.toml") {
		t.Error("what is kept is not the edit")
	}
	if s := loser.status(); s.Generation != 3 {
		t.Errorf("the loser is at generation %d", s.Generation)
	}
	loser.write("ha.toml", carol.file("ha.toml"))
	loser.await("all is well", func(s *Status) bool { return s.testProblem("config-stale") == nil })
}

// TestClusterRollback: back to the text of an earlier generation, from any node, with the plan first.
func TestClusterRollback(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	first := alice.file("ha.toml")
	alice.edit(clusterVIP, "10.77.0.110")
	c.await("the address changes", func() bool { return alice.holds("10.77.0.110") && !alice.holds(clusterVIP) })
	carol.await("generation 2", func(s *Status) bool { return s.Generation == 2 })

	c.await("bob has both texts", func() bool { return strings.Contains(bob.mustHactl("config", "history"), "root@alice  in force") })
	if out := bob.mustHactl("config", "diff", "1", "2"); !strings.Contains(out, "+address = \"10.77.0.110\"") {
		t.Errorf("diff: %s", out)
	}
	out := bob.mustHactl("config", "rollback", "1", "--yes")
	for _, want := range []string{"-address = \"10.77.0.110\"", "group web: vip stops and starts again on alice", "config generation 3 is in force"} {
		if !strings.Contains(out, want) {
			t.Errorf("rollback does not say %q:\n%s", want, out)
		}
	}
	c.await("the address is back", func() bool { return alice.holds(clusterVIP) && !alice.holds("10.77.0.110") })
	for _, h := range c.hosts {
		c.await(h.name+" has the text", func() bool { return h.file("ha.toml") == first })
		h.await("all is well", func(s *Status) bool { return s.Generation == 3 && s.Overall == "ok" })
	}

	// An edit that is not in force is not overwritten; who is cut off is told so, and nothing is lost.
	bob.write("ha.toml", strings.Replace(first, "[heartbeat]", "[heartbeet]", 1))
	bob.await("the error is shown", func(s *Status) bool { return s.testProblem("config-bad") != nil })
	if out := bob.mustHactl("config", "rollback", "2", "--yes"); !strings.Contains(out, "is left as it is") {
		t.Errorf("rollback over an edit that is not in force: %s", out)
	}
	if !strings.Contains(bob.file("ha.toml"), "[heartbeet]") {
		t.Error("bob's edit was overwritten")
	}
	carol.powerOff()
	alice.powerOff()
	if out, errs, code := bob.hactl("config", "rollback", "1", "--yes"); code == 0 || !strings.Contains(errs, "no majority") {
		t.Errorf("rollback without a majority: exit %d: %s%s", code, out, errs)
	}
}

func TestClusterKeyRoll(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	p, begun := c.probe("tcp:"+clusterVIP+":80"), time.Now()
	before := alice.status().testNode("bob").Key
	alice.mustHactl("keygen", "--add", alice.path("etc/ha.key"))
	if out, errs, code := alice.hactl("keygen", "--drop", alice.path("etc/ha.key")); code != exitError || !strings.Contains(errs, "bob and carol have only key "+before) {
		t.Errorf("the only key of the others is dropped: exit %d: %s%s", code, out, errs)
	}
	for _, h := range []*clusterHost{carol, bob} { // one after the other: meanwhile they differ
		c.copyKey(alice, h)
		h.logged("keys-loaded")
		alice.await(h.name+" knows both keys", func(s *Status) bool { return len(strings.Fields(s.testNode(h.name).Key)) == 2 })
	}
	for _, h := range []*clusterHost{bob, alice, carol} {
		alice.mustHactl("keygen", "--drop", h.path("etc/ha.key"))
	}
	for _, h := range c.hosts {
		for _, x := range c.hosts {
			h.await(x.name+" seals with the new key alone", func(s *Status) bool {
				k := s.testNode(x.name).Key
				return k != "" && k != before && len(strings.Fields(k)) == 1
			})
		}
	}
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d: the roll cost a failover", g.Epoch)
	}
	p.noOutage("roll of the key", begun)
	for _, h := range c.hosts {
		if h.hasLogged("node-lost") || h.hasLogged("lease-over") {
			t.Errorf("%s lost sight of another", h.name)
		}
	}
	// A key of its own cuts carol off, and the others say why.
	alice.mustHactl("keygen", "--force", carol.path("etc/ha.key"))
	for _, h := range []*clusterHost{alice, bob} {
		h.await("carol's key is named", func(s *Status) bool {
			p := s.testProblem(eventRefused)
			return p != nil && strings.Contains(p.What, "what carol (10.77.") && strings.Contains(p.What, string(errUnknownKey))
		})
	}
}
