package main

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// Targets outside the cluster: a gateway on both links that answers whom the test lets it answer.

// gateway is a host that is no node.
type gateway struct {
	c     *cluster
	name  string
	muted bool
}

const gatewayPings = `
[[ping]]
name = "gateway"
address = "10.77.0.1"
[[ping]]
name = "six"
address = "fd77::1"
[[ping]]
name = "shop"
tcp = "10.77.1.1:8080"
`

func needing(targets string) string {
	return gatewayPings + strings.Replace(vipGroup, `prefer = ["alice"]`, "prefer = [\"alice\"]\nneeds = ["+targets+"]", 1)
}

// newGateway plugs one in; it takes connections on port 8080.
func newGateway(c *cluster) *gateway {
	c.t.Helper()
	g := &gateway{c: c, name: "gw"}
	c.plug(g.name, 1)
	c.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", c.ns(g.name)).Run() }) // ends with its last socket at the latest
	fd, err := netns.GetFromName(c.ns(g.name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer fd.Close()
	var l net.Listener
	if err := (&testHost{t: c.t, fd: fd}).do(func() (err error) { l, err = net.Listen("tcp", "10.77.1.1:8080"); return err }); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return g
}

// mute lets the gateway obey these rules on what comes in, such as "ip saddr 10.77.0.11 icmp type echo-request drop".
func (g *gateway) mute(rules ...string) {
	g.c.t.Helper()
	g.speak()
	text := "add table inet mute; add chain inet mute in { type filter hook input priority 0; };"
	for _, r := range rules {
		text += " add rule inet mute in " + r + ";"
	}
	g.c.must("ip", "netns", "exec", g.c.ns(g.name), "nft", text)
	g.muted = true
}

// speak lets it answer everybody again.
func (g *gateway) speak() {
	g.c.t.Helper()
	if g.muted {
		g.c.must("ip", "netns", "exec", g.c.ns(g.name), "nft", "delete", "table", "inet", "mute")
	}
	g.muted = false
}

// pings is what a host's status says of a target: "alice reached, bob lost".
func (s *Status) pings(name string) string {
	var parts []string
	for _, p := range s.Pings {
		for _, n := range p.Nodes {
			if p.Name == name {
				parts = append(parts, n.Node+" "+n.State)
			}
		}
	}
	return strings.Join(parts, ", ")
}

func (h *clusterHost) awaitPings(name, want string) *Status {
	h.c.t.Helper()
	return h.await(fmt.Sprintf("%s: %s", name, want), func(s *Status) bool { return s.pings(name) == want })
}

func TestClusterNeeds(t *testing.T) {
	c := newCluster(t, needing(`"gateway", "six", "shop"`), "alice", "bob", "carol")
	c.witness = "carol"
	gw := newGateway(c)
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	for _, name := range []string{"gateway", "six", "shop"} {
		alice.awaitPings(name, "alice reached, bob reached")
	}
	epoch := alice.status().testGroup("web").Epoch

	// It answers one node no more: the group goes to the other, and stays there.
	gw.mute("ip saddr 10.77.0.11 icmp type echo-request drop")
	s := bob.awaitPings("gateway", "alice lost, bob reached")
	if p := s.testProblem("target-lost"); p == nil || !strings.Contains(p.What, "alice does not reach gateway") {
		t.Errorf("problems %+v", s.Problems)
	}
	bob.runsOn("web", "bob")
	if x := bob.status().testNode("alice"); x.State != "online" {
		t.Errorf("alice is %s", x.State)
	}
	if out, _, code := bob.hactl("move", "web", "alice"); code == 0 {
		t.Errorf("moved to where it does not reach what it needs: %s", out)
	}
	gw.speak()
	bob.awaitPings("gateway", "alice reached, bob reached")

	// It answers nobody any more: it is down, and nothing moves.
	gw.mute("icmp type echo-request drop", "icmpv6 type echo-request drop")
	bob.awaitPings("six", "alice lost, bob lost")
	s = bob.await("it is down", func(s *Status) bool {
		return s.testProblem("target-down") != nil && s.pings("gateway") == "alice lost, bob lost"
	})
	before := s.testGroup("web").Epoch
	c.steady(2 * (&PingConfig{Interval: Duration(time.Second), Timeout: Duration(time.Second), Failures: 3}).settle())
	if g := bob.runsOn("web", "bob"); g.Epoch != before || before == epoch {
		t.Errorf("epoch %d, before %d, at first %d", g.Epoch, before, epoch)
	}
	gw.speak()
	bob.await("it is back", func(s *Status) bool {
		return s.testProblem("target-down") == nil && s.testProblem("target-lost") == nil
	})
	if g := bob.runsOn("web", "bob"); g.Epoch != before {
		t.Errorf("it moved when the target came back: epoch %d, before %d", g.Epoch, before)
	}

	// A connection that is refused is no answer either.
	gw.mute("ip saddr 10.77.1.12 tcp dport 8080 reject with tcp reset")
	s = alice.awaitPings("shop", "alice reached, bob lost")
	if p := s.testProblem("target-lost"); p == nil || !strings.Contains(p.What, "connection refused") {
		t.Errorf("problems %+v", s.Problems)
	}
	alice.runsOn("web", "alice")
	if !alice.holds(clusterVIP) || bob.holds(clusterVIP) {
		t.Error("the address is not where the group is")
	}
}

// TestClusterNeedsPing: the cables of the active one of two nodes are out. It stops by itself, the other takes over.
func TestClusterNeedsPing(t *testing.T) {
	c := newCluster(t, gatewayPings+vipGroup, "alice", "bob")
	c.extra = "two_node = \"ignore\"\nneeds_ping = [\"gateway\"]"
	newGateway(c)
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob")
	alice.settled("alice", "bob")
	alice.awaitPings("gateway", "alice reached, bob reached")

	c.guard.allow("the active side has two deadtimes to find out that it is cut off")
	alice.cut()
	bob.runsOn("web", "bob")
	alice.await("it says that it is cut off", func(s *Status) bool { return s.testProblem("isolated") != nil && s.testGroup("web").State != "started" })
	c.await("alice lets go", func() bool { return !alice.holds(clusterVIP) })
	c.guard.allow("")
	if !bob.holds(clusterVIP) {
		t.Error("bob has taken web over and does not hold its address")
	}
	alice.heal()
	alice.settled("alice", "bob")
	bob.settled("alice", "bob")
	bob.runsOn("web", "bob")

	// The standby side's cables: it is not answered, so it takes nothing over, and the owner goes on.
	p, begun := c.probe("tcp:"+clusterVIP+":80"), time.Now()
	alice.cut()
	s := alice.await("it waits, and says why", func(s *Status) bool { return s.testProblem("isolated") != nil })
	if w := s.testGroup("web").Why; !strings.Contains(w, "gateway (needs_ping) does not answer") {
		t.Errorf("why: %s", w)
	}
	bob.await("bob is caretaker", func(s *Status) bool { return s.Caretaker && s.testProblem("isolated") == nil })
	p.noOutage("the standby side is cut off", begun)
	if alice.holds(clusterVIP) {
		t.Error("the side that is cut off took over")
	}
	alice.heal()
	alice.settled("alice", "bob")
	alice.await("all is well", func(s *Status) bool { return s.Overall == "ok" && s.testGroup("web").Owner == "bob" })

	// And a death is still a death.
	bob.powerOff()
	alice.runsOn("web", "alice")
}
