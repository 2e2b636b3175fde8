package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Several groups, what they are to each other, and what a failure of each does.

func addressGroup(name, address string, lines ...string) string {
	return fmt.Sprintf("[[group]]\nname = %q\n%s\n[[group.resource]]\ntype = \"vip\"\naddress = %q\ninterface = \"eth0\"\n", name, strings.Join(lines, "\n"), address)
}

// place waits until all groups run, and returns where.
func (h *clusterHost) place(groups ...string) map[string]string {
	h.c.t.Helper()
	s := h.await(fmt.Sprintf("%v run", groups), func(s *Status) bool {
		return !slices.ContainsFunc(groups, func(g string) bool { return s.testGroup(g).State != "started" })
	})
	out := map[string]string{}
	for _, g := range groups {
		out[g] = s.testGroup(g).Owner
	}
	return out
}

func TestClusterTwoGroupsTwoNodes(t *testing.T) {
	c := newCluster(t, addressGroup("one", "10.77.0.101", `prefer = ["alice"]`)+addressGroup("two", "10.77.0.102", `prefer = ["bob"]`), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("one", "alice")
	alice.runsOn("two", "bob")
	alice.settled("alice", "bob", "carol")
	one, two, begun := c.probe("tcp:10.77.0.101:80"), c.probe("tcp:10.77.0.102:80"), time.Now()
	bob.powerOff()
	alice.runsOn("two", "alice")
	one.noOutage("the death of the other group's node", begun)
	bob.powerOn()
	bob.settled("alice", "bob", "carol")
	bob.runsOn("two", "alice") // failback is never
	bob.runsOn("one", "alice")
	bob.mustHactl("move", "one", "bob") // alice may still wait for the first word of bob's new daemon
	alice.mustHactl("standby", "alice")
	bob.runsOn("one", "bob") // bob learns of it a moment later than alice, who was asked
	bob.runsOn("two", "bob")
	alice.mustHactl("online", "alice")
	two.stop()
	for _, a := range []string{"10.77.0.101", "10.77.0.102"} {
		if alice.holds(a) || !bob.holds(a) {
			t.Errorf("%s is not on bob alone", a)
		}
	}
}

func TestClusterRelations(t *testing.T) {
	c := newCluster(t, addressGroup("base", "10.77.0.101", `prefer = ["alice"]`)+
		addressGroup("top", "10.77.0.102", `with = ["base"]`)+
		addressGroup("later", "10.77.0.103", `after = ["base"]`)+
		addressGroup("far", "10.77.0.104", `apart = ["base"]`), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	all := []string{"base", "top", "later", "far"}
	where := alice.place(all...)
	if where["base"] != "alice" || where["top"] != "alice" || where["far"] != "bob" {
		t.Errorf("they run on %v", where)
	}
	alice.settled("alice", "bob", "carol")
	// Base goes to bob: top goes along, and far gives way, since base comes first in the file.
	alice.mustHactl("move", "base", "bob")
	alice.await("top has followed and far has given way", func(s *Status) bool {
		return s.testGroup("top").Owner == "bob" && s.testGroup("top").State == "started" && s.testGroup("far").Owner == "alice" && s.testGroup("far").State == "started"
	})
	where = alice.place(all...)
	if where["base"] != "bob" {
		t.Errorf("they run on %v", where)
	}
	// Without bob everything but far can run on alice.
	bob.powerOff()
	s := alice.await("what can run runs on alice", func(s *Status) bool {
		return s.testGroup("base").Owner == "alice" && s.testGroup("top").State == "started" && s.testGroup("later").State == "started" && s.testGroup("far").State == "stopped"
	})
	if g := s.testGroup("far"); !strings.Contains(g.Why, "base") {
		t.Errorf("far does not say what is in its way: %q", g.Why)
	}
	bob.powerOn()
	if where := alice.place(all...); where["far"] == where["base"] || where["top"] != where["base"] {
		t.Errorf("they run on %v", where)
	}
	alice.settled("alice", "bob", "carol")
}

// onFailGroup is a group whose resource fails on a host as long as there is a file for it.
func onFailGroup(name, onFail string) string {
	return fmt.Sprintf(`
[[group]]
name = %[1]q
prefer = ["alice"]
migration_threshold = 2
[[group.resource]]
type = "exec"
state = "addressed" # a file on each host
on_fail = %[2]q
start = { command = "test ! -e $DIR/etc/%[1]s.broken && touch $DIR/etc/%[1]s.runs", timeout = "2s" }
stop = { command = "rm -f $DIR/etc/%[1]s.runs" }
monitor = { command = "test -e $DIR/etc/%[1]s.runs || exit 7; test ! -e $DIR/etc/%[1]s.sick", interval = "200ms" }
`, name, onFail)
}

func TestClusterOnFail(t *testing.T) {
	c := newCluster(t, onFailGroup("restart", "restart")+onFailGroup("move", "move")+onFailGroup("block", "block")+onFailGroup("ignore", "ignore"), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	all := []string{"restart", "move", "block", "ignore"}
	if where := alice.place(all...); where["restart"] != "alice" || where["block"] != "alice" {
		t.Fatalf("they run on %v", where)
	}
	alice.settled("alice", "bob", "carol")
	for _, g := range all {
		alice.write("etc/"+g+".sick", "")
	}
	bob.runsOn("restart", "bob") // at the threshold: twice
	bob.runsOn("move", "bob")    // at once
	bob.await("block is blocked, ignore is left alone", func(s *Status) bool {
		return s.testGroup("block").State == "blocked" && s.testGroup("ignore").State == "started" && s.testGroup("ignore").Owner == "alice"
	})
	if !alice.hasLogged("resource-failed", "group=restart", "(failure 2)") || alice.hasLogged("resource-failed", "group=move", "(failure 2)") {
		t.Error("restart must fail twice before it moves, and move once")
	}
	for _, g := range []string{"block", "ignore"} {
		if alice.file("etc/"+g+".runs") != "" || !alice.exists("etc/"+g+".runs") {
			t.Errorf("%s was stopped", g)
		}
	}
	p := bob.await("blocked is a problem", func(s *Status) bool { return s.testProblem("group-blocked") != nil }).testProblem("group-blocked")
	if p.Command != "hactl cleanup block" {
		t.Errorf("what helps is %q", p.Command)
	}
	for _, g := range all {
		if err := os.Remove(alice.path("etc/" + g + ".sick")); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range all {
		bob.mustHactl("cleanup", g)
	}
	bob.await("all is well", func(s *Status) bool { return s.Overall == "ok" })
	where := bob.place(all...)
	if where["restart"] != "bob" || where["move"] != "bob" || where["block"] != "alice" || where["ignore"] != "alice" {
		t.Errorf("after the clean-up they run on %v", where)
	}
}

func (h *clusterHost) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// TestClusterStopFails: where a stop has failed the group may still run, so nobody else may start it.
func TestClusterStopFails(t *testing.T) {
	c := newCluster(t, strings.Replace(onFailGroup("web", "restart"), `"rm -f`, `"test ! -e $DIR/etc/web.stuck && rm -f`, 1), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	alice.write("etc/web.stuck", "")
	if _, errs, code := bob.hactl("move", "web", "bob"); code == 0 || !strings.Contains(errs, "blocked") || !strings.Contains(errs, "hactl cleanup web") {
		t.Errorf("a move that cannot stop: exit %d, %s", code, errs)
	}
	bob.await("it is blocked", func(s *Status) bool { return s.testGroup("web").State == "blocked" })
	if bob.exists("etc/web.runs") {
		t.Error("it was started on bob although it may still run on alice")
	}
	// A daemon that ends then leaves it running, and a note for who removes the package.
	alice.signal(syscall.SIGTERM)
	alice.wait()
	if got := alice.file("run/" + leftNote); got != "web\n" {
		t.Errorf("noted as left running: %q", got)
	}
	alice.start()
	alice.await("it is blocked", func(s *Status) bool { return s.Quorum && s.testGroup("web").State == "blocked" })
	if alice.exists("run/" + leftNote) {
		t.Error("the note outlives the next start")
	}
	if err := os.Remove(alice.path("etc/web.stuck")); err != nil {
		t.Fatal(err)
	}
	bob.mustHactl("cleanup", "web")
	bob.runsOn("web", "bob") // the pin still holds
	if alice.exists("etc/web.runs") {
		t.Error("it runs on both")
	}
	alice.signal(syscall.SIGTERM)
	alice.wait()
	if alice.exists("run/" + leftNote) {
		t.Errorf("noted as left running, on a node that runs nothing: %q", alice.file("run/"+leftNote))
	}
}

// TestClusterStartFails: a start that fails moves the group at once; when nobody can start it, it is said why.
func TestClusterStartFails(t *testing.T) {
	c := newCluster(t, onFailGroup("web", "restart"), "alice", "bob", "carol")
	c.witness = "carol"
	alice, bob := c.host("alice"), c.host("bob")
	alice.write("etc/web.broken", "")
	c.up()
	bob.runsOn("web", "bob")
	bob.settled("alice", "bob", "carol")
	if _, errs, code := bob.hactl("move", "web", "alice"); code == 0 || !strings.Contains(errs, "hactl") {
		t.Errorf("a move to a node that cannot start it: exit %d, %s", code, errs)
	}
	bob.runsOn("web", "bob")
	if err := os.Remove(alice.path("etc/web.broken")); err != nil {
		t.Fatal(err)
	}
	bob.mustHactl("cleanup", "web")
	bob.mustHactl("move", "web", "alice")
}

func TestClusterIPv6(t *testing.T) {
	c := newCluster(t, strings.Replace(webGroup, clusterVIP, "fd77:0::100", 1), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	p, begun := c.probe("http://[fd77:0::100]/"), time.Now()
	bob.mustHactl("move", "web", "bob")
	p.answeredBy("bob serves")
	moved, _ := p.outage(begun)
	begun = time.Now()
	bob.powerOff()
	p.answeredBy("alice serves")
	died, _ := p.outage(begun)
	t.Logf("measured: IPv6, planned move with apache %d ms, node death %d ms", moved.Milliseconds(), died.Milliseconds())
}

// TestClusterThreeFull: of three nodes one may die. When the second dies, the third has no majority and serves nothing.
func TestClusterThreeFull(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.up()
	bob := c.host("bob")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob", "carol")
	c.host("alice").powerOff()
	where := bob.await("it runs elsewhere", func(s *Status) bool {
		g := s.testGroup("web")
		return g.State == "started" && g.Owner != "alice"
	}).testGroup("web").Owner
	other := c.host(map[string]string{"bob": "carol", "carol": "bob"}[where])
	other.powerOff()
	last := c.host(where)
	last.await("no majority", func(s *Status) bool { return !s.Quorum })
	c.await("the last one lets go", func() bool { return !last.holds(clusterVIP) })
	other.powerOn()
	last.await("two of three serve again", func(s *Status) bool { return s.testGroup("web").State == "started" && s.Quorum })
	c.host("alice").powerOn()
	last.settled("alice", "bob", "carol")
	last.await("all is well", func(s *Status) bool { return s.Overall == "ok" })
}
