package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What fails, and what the others do about it.

func TestClusterColdStart(t *testing.T) {
	for name, order := range map[string][]string{"founder first": {"alice", "bob", "carol"}, "founder last": {"carol", "bob", "alice"}} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, vipGroup, "alice", "bob", "carol")
			c.witness = "carol"
			c.up(order[0])
			first := c.host(order[0])
			first.await("waits for the others", func(s *Status) bool {
				p := s.testProblem("no-cluster")
				return p != nil && strings.Contains(p.Why, "first time")
			})
			c.host(order[1]).start()
			c.host(order[2]).start()
			c.host("alice").runsOn("web", "alice")
			for _, h := range c.hosts {
				h.settled("alice", "bob", "carol")
			}
			if out, _, code := c.host("bob").hactl("status"); code != 0 {
				t.Errorf("all is well, and status exits with %d:\n%s", code, out)
			}
			if !c.host("alice").holds(clusterVIP) {
				t.Error("alice does not hold the address")
			}
		})
	}
}

func TestClusterNodeDeathAndReturn(t *testing.T) {
	c := newCluster(t, webGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob", "carol")
	p := c.probe("http://" + clusterVIP + "/")
	alice.powerOff()
	bob.runsOn("web", "bob")
	c.await("bob serves the page", func() bool { return bob.hasLogged("group-started", "web runs on bob") })
	outage, last := p.stop()
	t.Logf("measured: node death, outage %d ms with apache", outage.Milliseconds())
	if last != "bob serves" {
		t.Errorf("the page was last answered by %q", last)
	}
	alice.powerOn()
	bob.settled("alice", "bob", "carol")
	if g := bob.runsOn("web", "bob"); g.Epoch != 2 {
		t.Errorf("epoch %d: it moved back by itself", g.Epoch)
	}
	if alice.holds(clusterVIP) {
		t.Error("alice holds the address too")
	}
}

func TestClusterDaemonKilled(t *testing.T) {
	c := newCluster(t, webGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice := c.host("alice")
	before := alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	p := c.probe("http://" + clusterVIP + "/")
	alice.kill()
	alice.start() // as systemd does at once
	alice.logged("node-joined", "alice joined, running web")
	after := alice.runsOn("web", "alice")
	longest, _ := p.stop()
	t.Logf("measured: daemon killed and restarted, longest gap %d ms", longest.Milliseconds())
	if before.Epoch != after.Epoch {
		t.Errorf("epoch %d became %d: it was not adopted", before.Epoch, after.Epoch)
	}
	if alice.hasLogged("stop of httpd") {
		t.Error("httpd was stopped")
	}
}

func apachePID(t *testing.T, h *clusterHost) int {
	b, err := os.ReadFile(filepath.Join(h.dir, "apache.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("apache's pid file: %q", b)
	}
	return pid
}

func TestClusterHttpdCrashes(t *testing.T) {
	c := newCluster(t, strings.Replace(webGroup, `prefer = ["alice"]`, "prefer = [\"alice\"]\nfailure_timeout = \"20s\"", 1), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	crash := func(failcount int) {
		t.Helper()
		pid := apachePID(t, alice)
		begun := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		alice.logged("resource-failed", "(failure "+strconv.Itoa(failcount)+")")
		t.Logf("measured: httpd's crash is in the log after %d ms", time.Since(begun).Milliseconds())
		c.await("another apache runs", func() bool { p := apachePID(t, alice); return p != 0 && p != pid || failcount == 3 })
	}
	for i := range 2 {
		crash(i + 1)
		alice.await("httpd runs again", func(s *Status) bool {
			g := s.testGroup("web")
			return g.Owner == "alice" && len(g.Resources) == 2 && g.Resources[1].State == "running"
		})
	}
	crash(3)
	bob.runsOn("web", "bob")
	if g := bob.status().testGroup("web"); !strings.Contains(g.Why, "httpd failed on alice") {
		t.Errorf("it is on bob because %q", g.Why)
	}
	bob.await("the failures are forgotten", func(s *Status) bool { return s.testProblem("resource-failed") == nil })
	bob.logged("failcount-expired")
}

func TestClusterServerStatusOff(t *testing.T) {
	_, alice, bob := servingCluster(t, webGroup)
	path := filepath.Join(alice.dir, "etc/apache.conf")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The file is bound into alice's mount namespace: it must stay the same inode.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.ReplaceAll(string(b), "Require local", "Require all denied")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := syscall.Kill(apachePID(t, alice), syscall.SIGUSR1); err != nil { // graceful: it reads its config anew
		t.Fatal(err)
	}
	alice.logged("resource-failed", "403")
	bob.runsOn("web", "bob") // it cannot start on alice either
	if p := bob.status().testProblem("resource-failed"); p == nil || !strings.Contains(p.What, "server-status") {
		t.Errorf("the problem does not name server-status: %+v", p)
	}
}

func TestClusterLinks(t *testing.T) {
	c, alice, bob := servingCluster(t, vipGroup)

	alice.cut(1)
	bob.await("the silent link is named", func(s *Status) bool {
		p := s.testProblem("link-silent")
		return p != nil && strings.Contains(p.What, "repl") && s.testNode("alice").State == "online"
	})
	alice.heal(1)
	bob.await("all is well", func(s *Status) bool { return s.testProblem("link-silent") == nil })
	if g := bob.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("one dead link of two moved the group: epoch %d", g.Epoch)
	}

	alice.cable(0, false) // the service link loses its carrier; heartbeats go on over the other
	bob.runsOn("web", "bob")
	if s := bob.status(); s.testNode("alice").State != "online" || s.testProblem("node-unfit") == nil {
		t.Errorf("alice is %s, problems %+v", s.testNode("alice").State, s.Problems)
	}
	alice.cable(0, true)
	bob.await("alice is fit again", func(s *Status) bool { return s.testProblem("node-unfit") == nil })

	bob.cut() // both links of the owner: only frames are lost
	alice.runsOn("web", "alice")
	bob.logged("lease-over")
	c.await("bob lets go", func() bool { return !bob.holds(clusterVIP) })
	bob.heal()
	alice.settled("alice", "bob", "carol")
	if bob.holds(clusterVIP) {
		t.Error("bob took the address back")
	}
}

// TestClusterLoss is a minute of 20 % loss on both links at default timing.
func TestClusterLoss(t *testing.T) {
	c := newCluster(t, vipGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice := c.host("alice")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	for _, h := range c.hosts {
		c.must("ip", "netns", "exec", c.ns(h.name), "nft", "add table inet loss; add chain inet loss in { type filter hook input priority 0; }; add rule inet loss in numgen random mod 100 < 20 drop")
	}
	c.steady(time.Minute)
	for _, h := range c.hosts {
		c.must("ip", "netns", "exec", c.ns(h.name), "nft", "delete", "table", "inet", "loss")
	}
	if g := alice.runsOn("web", "alice"); g.Epoch != 1 {
		t.Errorf("a false failover: epoch %d", g.Epoch)
	}
	for _, h := range c.hosts {
		if h.hasLogged("node-lost") {
			t.Errorf("%s took a node for lost", h.name)
		}
	}
}

// steady lets time pass: the only thing that is waited for here is that nothing happens.
func (c *cluster) steady(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && !c.t.Failed(); {
		c.pause(min(100*time.Millisecond, time.Until(end)))
	}
}

func TestClusterThreeNodesTwoGroups(t *testing.T) {
	c := newCluster(t, strings.ReplaceAll(vipGroup, `prefer = ["alice"]`, "")+`
[[group]]
name = "mail"
[[group.resource]]
type = "vip"
address = "10.77.0.101"
interface = "eth0"
[[group]]
name = "report"
after = ["mail"]
apart = ["web"]
[[group.resource]]
type = "vip"
address = "fd77:0::102"
interface = "eth0"
`, "alice", "bob", "carol")
	c.up()
	alice := c.host("alice")
	for _, g := range []string{"web", "mail", "report"} {
		alice.await(g+" runs", func(s *Status) bool { return s.testGroup(g).State == "started" })
	}
	alice.settled("alice", "bob", "carol")
	s := alice.status()
	web, mail, report := s.testGroup("web").Owner, s.testGroup("mail").Owner, s.testGroup("report").Owner
	if web == mail || report == web {
		t.Errorf("web on %s, mail on %s, report on %s: they are not spread", web, mail, report)
	}
	if !c.host(report).holds("fd77::102") {
		t.Errorf("%s does not hold the IPv6 address", report)
	}
	c.host(web).powerOff()
	var other *clusterHost
	for _, h := range c.hosts {
		if h.name != web {
			other = h
		}
	}
	other.await("web runs elsewhere", func(s *Status) bool {
		g := s.testGroup("web")
		return g.State == "started" && g.Owner != web && g.Owner != s.testGroup("report").Owner
	})
	other.mustHactl("standby", mail)
	other.await("mail has left, and report is back after it", func(s *Status) bool {
		return s.testGroup("mail").State == "started" && s.testGroup("mail").Owner != mail
	})
}
