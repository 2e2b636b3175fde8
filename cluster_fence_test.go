package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Fencing with real daemons: an agent of the tests' own that speaks the protocol of fence_* and cuts the power of a host.

// powerAgent asks the test for the power cut by a file, and waits until it is done. How it behaves is in a file too, one for
// each name that it is called by.
const powerAgent = `#!/bin/sh
dir=$(dirname "$0") action= plug= password=
while IFS= read -r line; do
	case $line in
	action=*) action=${line#action=} ;;
	plug=*) plug=${line#plug=} ;;
	password=*) password=${line#password=} ;;
	esac
done
[ "$password" = "not for the log" ] || { echo "login refused: $password" >&2; exit 1; }
echo "$action $plug" >>"$dir/calls"
case $action in
monitor) exit 0 ;;
status) [ "$(cat "$dir/power.$plug")" = on ] && exit 0; exit 2 ;;
off)
	case $(cat "$dir/how.${0##*/}") in
	lies) exit 0 ;;
	hangs) sleep 1000; exit 0 ;;
	fails) echo "Unable to connect" >&2; exit 1 ;;
	esac
	: >"$dir/cut.$plug"
	while [ "$(cat "$dir/power.$plug")" = on ]; do sleep 0.02; done
	exit 0 ;;
esac
exit 1
`

const powerDevice = `
[[fence]]
name = "power"
agent = "$DIR/power/fence_own"
plugs = { alice = "alice", bob = "bob" }
password_file = "$DIR/power/password"
timeout = "2s"
retries = 0
monitor = { interval = "2s", timeout = "5s" }
`

// fencePower is the power of the hosts.
type fencePower struct {
	c   *cluster
	dir string
	mu  sync.Mutex // hosts are switched on by the test and off by serve
}

func (c *cluster) power() *fencePower {
	c.t.Helper()
	f := &fencePower{c: c, dir: filepath.Join(c.dir, "power")}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	for _, agent := range []string{"fence_own", "fence_second"} {
		f.write(agent, powerAgent, 0o755)
		f.write("how."+agent, "works", 0o644)
	}
	f.write("password", "not for the log\n", 0o600)
	for _, h := range c.hosts {
		f.write("power."+h.name, "on", 0o644)
	}
	return f
}

// serve cuts the power of whoever is asked for, from when the hosts are up.
func (f *fencePower) serve() {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				f.cutWhatIsAsked()
			}
		}
	}()
	f.c.t.Cleanup(func() { close(stop); <-ended })
}

func (f *fencePower) cutWhatIsAsked() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.c.hosts {
		if os.Remove(filepath.Join(f.dir, "cut."+h.name)) == nil {
			h.powerOff()
			f.write("power."+h.name, "off", 0o644)
		}
	}
}

// write puts a file there in one step: agents read it at any time.
func (f *fencePower) write(name, text string, mode os.FileMode) {
	path := filepath.Join(f.dir, name)
	err := os.WriteFile(path+".new", []byte(text), mode)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		f.c.t.Error(err)
	}
}

func (f *fencePower) how(word string) { f.write("how.fence_own", word, 0o644) }

func (f *fencePower) on(h *clusterHost) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write("power."+h.name, "on", 0o644)
	h.powerOn()
}

func (f *fencePower) isOff(h *clusterHost) bool {
	b, _ := os.ReadFile(filepath.Join(f.dir, "power."+h.name))
	return string(b) == "off"
}

func newFencedPair(t *testing.T) (f *fencePower, alice, bob *clusterHost) {
	t.Helper()
	c := newCluster(t, powerDevice+vipGroup, "alice", "bob")
	c.extra = `two_node = "fence"`
	f = c.power()
	c.up()
	f.serve()
	alice, bob = c.host("alice"), c.host("bob")
	bob.runsOn("web", "alice")
	bob.settled("alice", "bob")
	alice.settled("alice", "bob")
	return f, alice, bob
}

// Either of two dies: the other has it cut off and goes on alone, and it comes back when it is switched on.
func TestClusterFencePair(t *testing.T) {
	f, alice, bob := newFencedPair(t)
	alice.powerOff()
	bob.runsOn("web", "bob")
	if !f.isOff(alice) {
		t.Error("bob took over before alice was off")
	}
	s := bob.await("alice is shown as fenced", func(s *Status) bool { return s.testNode("alice").State == "fenced" })
	if p := s.testProblem(eventFenced); p == nil || s.Incarnation != 2 {
		t.Errorf("incarnation %d, problems %+v", s.Incarnation, s.Problems)
	}
	f.on(alice)
	bob.settled("alice", "bob")
	alice.settled("alice", "bob")
	bob.runsOn("web", "bob")

	// The standby side dies: the owner loses nothing, and can decide alone afterwards.
	p, begun := bob.c.probe("tcp:"+clusterVIP+":80"), time.Now()
	alice.powerOff()
	bob.await("it decides alone", func(s *Status) bool { return s.Quorum && s.Voters == 1 && s.testNode("alice").State == "fenced" })
	p.noOutage("the death of the standby side under two_node = fence", begun)
	bob.mustHactl("move", "web", "bob")
}

// A partition: exactly one survives, and the loser is off.
func TestClusterFencePartition(t *testing.T) {
	f, alice, bob := newFencedPair(t)
	p, begun := bob.c.probe("tcp:"+clusterVIP+":80"), time.Now()
	bob.cut()
	alice.await("it decides alone", func(s *Status) bool { return s.Quorum && s.Voters == 1 })
	p.noOutage("a partition under two_node = fence", begun)
	if f.isOff(alice) || !f.isOff(bob) {
		t.Fatalf("alice off %v, bob off %v", f.isOff(alice), f.isOff(bob))
	}
	f.on(bob)
	alice.settled("alice", "bob")
	bob.settled("alice", "bob")
	bob.runsOn("web", "alice")
}

// A frozen daemon keeps its address. Its host is cut off before the other takes it.
func TestClusterFenceFrozen(t *testing.T) {
	f, alice, bob := newFencedPair(t)
	alice.signal(syscall.SIGSTOP)
	bob.runsOn("web", "bob")
	if !f.isOff(alice) || alice.holds(clusterVIP) {
		t.Errorf("off %v, holds the address %v", f.isOff(alice), alice.holds(clusterVIP))
	}
}

// Devices that lie, hang and fail: nobody takes over until one has really worked, or somebody gives his word.
func TestClusterFenceBadDevice(t *testing.T) {
	f, alice, bob := newFencedPair(t)
	for _, k := range []struct{ how, says string }{
		{"lies", "off went well, and yet its status is on"}, {"hangs", "not done after"}, {"fails", "Unable to connect"},
	} {
		f.how(k.how)
		if k.how == "lies" {
			alice.powerOff()
		}
		s := bob.await(k.how+" is told", func(s *Status) bool {
			p := s.testProblem(eventFenceFailed)
			return p != nil && strings.Contains(p.What, k.says)
		})
		if p := s.testProblem(eventFenceFailed); p.Command != "hactl confirm-dead alice" || s.testGroup("web").State != "waiting" || bob.holds(clusterVIP) {
			t.Errorf("%s: %+v, web is %s", k.how, p, s.testGroup("web").State)
		}
		bob.mustNotRun("sleep")
	}
	f.how("works")
	bob.runsOn("web", "bob")
}

// TestClusterFenceLiar: the owner of a group that may write on is frozen, and its service is not. A device that says that
// it has cut the power, and has not, must not bring a second writer; a second one that works, does.
func TestClusterFenceLiar(t *testing.T) {
	second := strings.NewReplacer(`name = "power"`, "name = \"second\"\nlevel = 2", "fence_own", "fence_second").Replace(powerDevice)
	c := newCluster(t, powerDevice+second+writerGroup, "alice", "bob", "carol")
	c.witness = "carol"
	c.writerSetup()
	f := c.power()
	c.up()
	f.serve()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("data", "bob")
	alice.settled("alice", "bob", "carol")
	w := c.writes()
	w.acknowledged()

	f.how("lies")
	f.write("how.fence_second", "lies", 0o644)
	bob.signal(syscall.SIGSTOP)
	for _, device := range []string{"power", "second"} {
		s := alice.await("the lie of "+device+" is told", func(s *Status) bool {
			p := s.testProblem(eventFenceFailed)
			return p != nil && strings.Contains(p.What, device+": off went well, and yet its status is on")
		})
		if g := s.testGroup("data"); g.State == "started" || g.Owner != "bob" {
			t.Errorf("data is %s on %s, whose end nobody has proven", g.State, g.Owner)
		}
	}
	if alice.exists("etc/writer.pid") || alice.has(writesAddress) || f.isOff(bob) {
		t.Errorf("on alice a writer %v, the address %v; bob off %v", alice.exists("etc/writer.pid"), alice.has(writesAddress), f.isOff(bob))
	}
	bob.signal(syscall.SIGCONT)
	owner := c.host(alice.await("data runs", func(s *Status) bool { return s.testGroup("data").State == "started" && s.Overall == "ok" }).testGroup("data").Owner)
	w.acknowledged()
	w.judge(t, "after a lying device")

	f.write("how.fence_second", "works", 0o644)
	other := map[*clusterHost]*clusterHost{alice: bob, bob: alice}[owner]
	owner.signal(syscall.SIGSTOP)
	other.runsOn("data", other.name)
	if !f.isOff(owner) {
		t.Errorf("%s took data over while %s was on", other.name, owner.name)
	}
	w.acknowledged()
	f.on(owner)
	owner.settled("alice", "bob", "carol")
	other.runsOn("data", other.name)
	w.judge(t, "after the second level")
}

// mustNotRun: what a killed agent has started is gone too.
func (h *clusterHost) mustNotRun(program string) {
	h.c.t.Helper()
	for _, pid := range strings.Fields(h.c.must("ip", "netns", "pids", h.c.ns(h.name))) {
		comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		if strings.TrimSpace(string(comm)) == program && strings.Contains(string(args), "1000") {
			h.c.t.Errorf("%s still runs", program)
		}
	}
}

// Three nodes and a group whose owner may write on after its lease: it is fenced through the log. Then by command, with a
// device that does not answer first; and no word of the password anywhere.
func TestClusterFenceByMajority(t *testing.T) {
	c := newCluster(t, powerDevice+vipGroup+`
[[group.resource]]
type = "exec"
start = { command = "touch $DIR/etc/runs" }
stop = { command = "rm -f $DIR/etc/runs" }
monitor = { command = "test -e $DIR/etc/runs || exit 7", interval = "1s" }
`, "alice", "bob", "carol")
	c.witness = "carol"
	f := c.power()
	c.up()
	f.serve()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")

	begun := time.Now()
	alice.signal(syscall.SIGSTOP)
	bob.runsOn("web", "bob")
	t.Logf("measured: frozen owner fenced and taken over in %d ms", time.Since(begun).Milliseconds())
	if !f.isOff(alice) {
		t.Error("bob took over and alice is not off")
	}
	if err := os.Remove(alice.path("etc/runs")); err != nil {
		t.Fatal(err) // its file system is gone with it
	}
	f.on(alice)
	bob.settled("alice", "bob", "carol")

	out := alice.mustHactl("fence", "test")
	if !strings.Contains(out, "power status of bob: on") || !strings.Contains(out, "nothing was turned off") {
		t.Errorf("fence test: %s", out)
	}
	f.write("password", "a wrong one\n", 0o600)
	alice.await("the dead device is a warning", func(s *Status) bool { return s.testProblem(eventDeviceFailed) != nil })
	if out, errs, code := alice.hactl("fence", "test", "bob"); code != 1 || !strings.Contains(out, "FAILED") || strings.Contains(out+errs, "a wrong one") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if _, errs, code := alice.hactl("fence", "bob", "--yes"); code != 1 || !strings.Contains(errs, "could not be fenced") {
		t.Errorf("exit %d: %s", code, errs)
	}
	f.write("password", "not for the log\n", 0o600)
	alice.await("the device answers again", func(s *Status) bool { return s.testProblem(eventDeviceFailed) == nil })
	out = alice.mustHactl("fence", "bob", "--yes")
	if !strings.Contains(out, "bob is off: power says that it is off") || !f.isOff(bob) {
		t.Errorf("fence bob: %s", out)
	}
	alice.runsOn("web", "alice")
	if out := alice.mustHactl("history"); !strings.Contains(out, "bob is fenced by alice") || !strings.Contains(out, fmt.Sprintf("asked for by %s@alice", userName(0))) {
		t.Errorf("history: %s", out)
	}
	for _, secret := range []string{"not for the log", "a wrong one"} {
		for _, h := range c.hosts {
			if found := c.grep(secret, h.path("state"), h.path("run"), h.path("log")); found != "" {
				t.Errorf("the password is in %s", found)
			}
		}
	}
}

// grep names the files that hold a text.
func (c *cluster) grep(text string, folders ...string) (found string) {
	for _, folder := range folders {
		_ = filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
			if err != nil || !info.Mode().IsRegular() {
				return nil
			}
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
				found += path + " "
			}
			return nil
		})
	}
	return found
}
