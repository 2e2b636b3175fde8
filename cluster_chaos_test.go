package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClusterChaos lets a row of random faults happen to a cluster, one or two at a time, and demands after each that it
// comes back by itself to where all is well, with every address in one place all along. HACTL_CHAOS_SEED repeats a row,
// HACTL_CHAOS_ROUNDS makes a longer one.
func TestClusterChaos(t *testing.T) {
	seed, rounds := rand.Uint64(), 6
	if s, err := strconv.ParseUint(os.Getenv("HACTL_CHAOS_SEED"), 10, 64); err == nil {
		seed = s
	}
	if n, err := strconv.Atoi(os.Getenv("HACTL_CHAOS_ROUNDS")); err == nil {
		rounds = n
	}
	for _, kind := range []string{"witness", "three", "manual"} {
		t.Run(kind, func(t *testing.T) {
			names := []string{"alice", "bob", "carol"}
			if kind == "manual" {
				names = names[:2]
			}
			c := newCluster(t, vipGroup+addressGroup("mail", "10.77.0.101", `prefer = ["bob"]`), names...)
			switch kind {
			case "witness":
				c.witness = "carol"
			case "manual":
				c.extra = `two_node = "manual"`
			}
			t.Logf("HACTL_CHAOS_SEED=%d", seed)
			c.up()
			x := &mischief{c: c, r: rand.New(rand.NewPCG(seed, uint64(len(kind))))}
			x.wellAgain("start")
			for i := range rounds {
				x.round(i + 1)
			}
		})
	}
}

type mischief struct {
	c *cluster
	r *rand.Rand
}

// fault is something that happens to a host and can be undone.
type fault struct {
	name     string
	do, undo func(*clusterHost)
}

func chaosFaults() []fault {
	none := func(*clusterHost) {}
	return []fault{
		{"power off", (*clusterHost).powerOff, (*clusterHost).powerOn},
		{"kill the daemon", (*clusterHost).kill, func(h *clusterHost) { h.start() }},
		{"kill the daemon for a moment", func(h *clusterHost) { h.kill(); h.start() }, none},
		{"stop the daemon", func(h *clusterHost) { h.signal(syscall.SIGTERM); h.wait() }, func(h *clusterHost) { h.start() }},
		{"cut off", func(h *clusterHost) { h.cut() }, func(h *clusterHost) { h.heal() }},
		{"cut from lan", func(h *clusterHost) { h.cut(0) }, func(h *clusterHost) { h.heal(0) }},
		{"cut from repl", func(h *clusterHost) { h.cut(1) }, func(h *clusterHost) { h.heal(1) }},
		{"pull lan", func(h *clusterHost) { h.cable(0, false) }, func(h *clusterHost) { h.cable(0, true) }},
		{"pull both", func(h *clusterHost) { h.cable(0, false); h.cable(1, false) }, func(h *clusterHost) { h.cable(0, true); h.cable(1, true) }},
		{"standby", func(h *clusterHost) { h.hactl("standby", h.name, "--no-wait") }, func(h *clusterHost) {
			h.c.await(h.name+" is taken out of standby", func() bool { _, _, code := h.hactl("online", h.name); return code == 0 })
		}},
		{"lose the state", func(h *clusterHost) { h.powerOff(); os.RemoveAll(h.path("state")) }, (*clusterHost).powerOn},
	}
}

func (x *mischief) round(number int) {
	x.c.t.Helper()
	faults := chaosFaults()
	hosts := x.r.Perm(len(x.c.hosts))
	h, f := x.c.hosts[hosts[0]], faults[x.r.IntN(len(faults))]
	what := fmt.Sprintf("round %d: %s %s", number, h.name, f.name)
	undo := func() { f.undo(h) }
	f2, h2 := faults[x.r.IntN(len(faults)-1)], x.c.hosts[hosts[1]] // the last is no second one: two that lose their memory are too many
	two := x.r.IntN(3) == 0
	if two {
		what += fmt.Sprintf(", %s %s", h2.name, f2.name)
	}
	x.c.t.Log(what)
	f.do(h)
	if two {
		x.c.steady(x.lasting() / 4)
		f2.do(h2)
		undo = func() {
			f.undo(h)
			x.c.steady(x.lasting() / 4)
			f2.undo(h2)
		}
	}
	// How long it lasts must not depend on what the others make of it: from a glimpse to well beyond every timer.
	x.c.steady(x.lasting())
	undo()
	x.wellAgain(what)
}

func (x *mischief) lasting() time.Duration {
	return time.Duration(x.r.IntN(4000)) * time.Millisecond
}

// wellAgain waits until every daemon says that all is well, and looks whether each address is where they say.
func (x *mischief) wellAgain(after string) {
	x.c.t.Helper()
	for _, h := range x.c.hosts {
		h.await("all is well after "+after, func(s *Status) bool { return s.Overall == "ok" })
	}
	x.c.await("the addresses are where the daemons say, after "+after, func() bool {
		for group, address := range map[string]string{"web": clusterVIP, "mail": "10.77.0.101"} {
			s := x.c.hosts[0].status()
			if s == nil {
				return false
			}
			for _, h := range x.c.hosts {
				if h.holds(address) != (s.testGroup(group).Owner == h.name) {
					return false
				}
			}
		}
		return true
	})
	for _, h := range x.c.hosts {
		if log := h.file("log"); strings.Contains(log, "panic") || strings.Contains(log, "DATA RACE") {
			x.c.t.Fatalf("%s after %s:\n%s", h.name, after, log)
		}
	}
}
