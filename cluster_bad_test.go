package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Bad surroundings: each a clear message, and nothing done on a guess.

func TestClusterCorruptState(t *testing.T) {
	_, alice, bob := servingCluster(t, vipGroup)
	bob.powerOff()
	logs, err := filepath.Glob(filepath.Join(bob.dir, "state", "raft", "snapshot*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no snapshot in bob's folder: %v", err)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(logs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	bob.powerOn()
	alice.settled("alice", "bob", "carol")
	bob.logged("corrupt", "aside=")
	kept, err := filepath.Glob(filepath.Join(bob.dir, "state", "corrupt-*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept aside: %v %v", kept, err)
	}
	alice.runsOn("web", "alice")
}

func TestClusterFullDisk(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	alice, bob := c.host("alice"), c.host("bob")
	// Alice's state folder is a small tmpfs, which the test fills from within her mount namespace.
	alice.write("mounts", "#!/bin/sh\nmount -t tmpfs -o size=256k tmpfs "+alice.dir+"/state\n")
	if err := os.Chmod(filepath.Join(alice.dir, "mounts"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.up()
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	inside := []string{"nsenter", "-t", strconv.Itoa(alice.daemon.Process.Pid), "-m", "sh", "-c"}
	c.must(append(inside, "dd if=/dev/zero of="+alice.dir+"/state/fill bs=4k 2>/dev/null || true")...)
	alice.await("it says so", func(s *Status) bool {
		bob.hactl("move", "web", "alice", "--no-wait") // something that alice must store, until the last page is full
		p := s.testProblem("store-failed")
		return p != nil && strings.Contains(p.What, "no space left")
	})
	bob.runsOn("web", "bob") // what cannot store its state asks for no lease
	c.await("alice lets go", func() bool { return !alice.holds(clusterVIP) })
	c.must(append(inside, "rm "+alice.dir+"/state/fill")...)
	alice.await("it can be stored again", func(s *Status) bool { return s.testProblem("store-failed") == nil })
	bob.settled("alice", "bob", "carol")
}

func TestClusterReadOnlyState(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob")
	c.extra = `two_node = "manual"`
	alice := c.host("alice")
	alice.write("mounts", "#!/bin/sh\nmount -t tmpfs -o ro tmpfs "+alice.dir+"/state\n")
	if err := os.Chmod(filepath.Join(alice.dir, "mounts"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.up("alice")
	alice.wait()
	if log := alice.file("log"); !strings.Contains(log, "read-only file system") || !strings.Contains(log, "make it writable") {
		t.Errorf("the daemon ended with:\n%s", log)
	}
}

// TestClusterForeignAddress has another machine on the network with the group's address.
func TestClusterForeignAddress(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.guard.allow("the client has it to itself")
	c.must("ip", "-n", c.ns("client"), "addr", "add", clusterVIP+"/32", "dev", "eth0")
	c.up()
	alice := c.host("alice")
	alice.await("it waits and names who answers", func(s *Status) bool {
		g := s.testGroup("web")
		return g.State == "starting" && len(g.Resources) == 1 && strings.Contains(g.Resources[0].Detail, "answer")
	})
	if alice.holds(clusterVIP) || alice.hasLogged("resource-failed") {
		t.Error("the address was taken, or a failure counted")
	}
	c.must("ip", "-n", c.ns("client"), "addr", "del", clusterVIP+"/32", "dev", "eth0")
	alice.runsOn("web", "alice")
}

func TestClusterInterfaceComesLater(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	alice := c.host("alice")
	c.must("ip", "-n", c.ns("sw"), "link", "del", port("alice", 0))
	c.up()
	alice.logged("link-missing", "eth0")
	alice.await("it is unfit, and runs nothing", func(s *Status) bool {
		g := s.testGroup("web")
		return s.Quorum && g.Owner == "bob" && g.State == "started"
	})
	if p := alice.await("the missing interface is named", func(s *Status) bool { return s.testProblem("link-down") != nil }).testProblem("link-down"); !strings.Contains(p.What, "eth0") {
		t.Errorf("the problem is %q", p.What)
	}
	c.must("ip", "-n", c.ns("sw"), "link", "add", port("alice", 0), "type", "veth", "peer", "name", "eth0", "netns", c.ns("alice"))
	c.must("ip", "-n", c.ns("sw"), "link", "set", port("alice", 0), "master", "br0", "up")
	c.must("ip", "-n", c.ns("alice"), "addr", "add", "10.77.0.11/24", "brd", "+", "dev", "eth0")
	c.must("ip", "-n", c.ns("alice"), "link", "set", "eth0", "up")
	alice.await("all is well", func(s *Status) bool { return s.testProblem("link-down") == nil && s.testProblem("node-unfit") == nil })
	alice.mustHactl("move", "web", "alice")
}

// TestClusterTwins is a second machine that believes to be bob.
func TestClusterTwins(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol", "dave")
	c.witness = "carol"
	dave := c.hosts[3]
	c.hosts = c.hosts[:3]
	c.up()
	alice := c.host("alice")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	c.hosts = append(c.hosts, dave)
	dave.write("ha.toml", alice.file("ha.toml"))
	for link, net := range []string{"10.77.0", "10.77.1"} {
		c.must("ip", "-n", c.ns("dave"), "addr", "add", net+".12/24", "dev", "eth"+strconv.Itoa(link))
	}
	dave.start("--node", "bob")
	alice.logged("node-twice")
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("epoch %d", g.Epoch)
	}
}

func TestClusterQuorumForce(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob, carol := c.host("alice"), c.host("bob"), c.host("carol")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob", "carol")
	alice.powerOff()
	carol.powerOff()
	bob.await("no majority", func(s *Status) bool {
		return !s.Quorum && s.testNode("alice").State == "lost" && s.testNode("carol").State == "lost"
	})
	c.await("confirm-dead says what helps without a majority", func() bool {
		_, errs, code := bob.hactl("confirm-dead", "alice", "--yes")
		return code != 0 && strings.Contains(errs, "quorum force")
	})
	c.await("quorum force is taken", func() bool {
		_, _, code := bob.hactl("quorum", "force", "--yes")
		return code == 0
	})
	bob.runsOn("web", "bob")
	alice.powerOn()
	carol.powerOn()
	bob.settled("alice", "bob", "carol")
	bob.runsOn("web", "bob")
}
