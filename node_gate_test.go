package main

import (
	"testing"
	"time"
)

// last is what the kernel was told last about the group web.
func (r *rig) lastLease() instant {
	r.t.Helper()
	all := r.leases["web"]
	if len(all) == 0 {
		r.t.Fatal("the kernel was told nothing")
	}
	return all[len(all)-1]
}

// TestGrantsMoveTheGate: by L from the heartbeat that was acked, and no more often than there are heartbeats.
func TestGrantsMoveTheGate(t *testing.T) {
	r := newRig(t, rigConfig("alice"))
	r.started()
	told, beats := len(r.leases["web"]), r.beats
	end := r.now.add(10 * time.Second)
	r.until("a while", time.Minute, func() bool {
		if left := r.lastLease().sub(r.now); left <= 0 || left > r.n.deadtime() {
			t.Fatalf("the deadline is %s away", left)
		}
		return r.now >= end
	})
	told, beats = len(r.leases["web"])-told, r.beats-beats
	if told > beats+1 || told < beats-1 || beats < 90 {
		t.Errorf("the deadline moved %d times in %d heartbeats", told, beats)
	}
}

// TestGateStaysOpenWhereNobodyTakesOver: in maintenance, so that even the end of the daemon takes nothing away, and no
// longer than that.
func TestGateStaysOpenWhereNobodyTakesOver(t *testing.T) {
	r := newRig(t, rigConfig("alice"))
	r.started()
	r.command(Command{Name: "maintenance", On: true, By: "root@test"})
	r.until("it is open for good", 10*time.Second, func() bool { return r.lastLease() == openForGood })
	r.command(Command{Name: "maintenance", By: "root@test"})
	r.until("it is the lease's again", 10*time.Second, func() bool {
		return r.lastLease() > r.now && r.lastLease() <= r.now.add(r.n.deadtime())
	})
	r.fails["stop vip"] = true
	r.command(Command{Name: "standby", Node: "alice", On: true, NoWait: true, By: "root@test"})
	r.until("it is blocked", time.Minute, func() bool { return r.n.state.group("web").Phase == phaseBlocked })
	r.until("it is open for good", 10*time.Second, func() bool { return r.lastLease() == openForGood })
}

// TestGateIsShutByNodeThatOwnsNothing: a node that knows that the group is not its own waits for no deadline.
func TestGateIsShutByNodeThatOwnsNothing(t *testing.T) {
	r := newRig(t, rigConfig("alice"))
	r.started()
	r.command(Command{Name: "standby", Node: "alice", On: true, NoWait: true, By: "root@test"})
	r.until("web is free", time.Minute, func() bool { return r.n.state.group("web").Phase == phaseFree })
	r.until("it is shut", 10*time.Second, func() bool { return r.lastLease() == 0 })
	r.command(Command{Name: "standby", NoWait: true, Node: "alice", By: "root@test"})
	r.started()
	if r.lastLease() <= r.now {
		t.Errorf("it runs and its gate is shut since %s", r.now.sub(r.lastLease()))
	}
}

func TestEnforcerInWords(t *testing.T) {
	for _, c := range []struct {
		gate  gateReport
		says  string
		level string
	}{
		{(*gates)(nil).report(), "the daemon itself: no gate, watchdog or fence", levelNote},
		{(&gates{}).report(), "the kernel's gate for addresses, and the daemon for all else: no watchdog or fence", levelNote},
		{(&gates{refused: "it is old"}).report(), "the lifetime of addresses, up to 1.25s late, and the daemon for all else: no gate (it is old), watchdog or fence", levelWarn},
		{(&gates{fails: map[string]string{"eth1": "b", "eth0": "a"}}).report(), "the lifetime of addresses, up to 1.25s late, and the daemon for all else: no gate (a; b), watchdog or fence", levelWarn},
	} {
		s := newRig(t, rigConfig("alice")).n.Status(at(1000), surroundings{gate: c.gate})
		if s.Enforcer != c.says || s.Gate != c.gate.Kind {
			t.Errorf("%+v: %s", c.gate, s.Enforcer)
		}
		if f := gateFinding(s); f.Level != c.level || f.What != "never two: held by "+c.says {
			t.Errorf("%+v: %+v", c.gate, f)
		}
	}
}

// TestEnforcerKnowsOfWatchdogsAndFences: what is there is named, and the rest is said to be missing.
func TestEnforcerKnowsOfWatchdogsAndFences(t *testing.T) {
	r := newRig(t, rigConfig("alice"))
	bpf := (&gates{}).report()
	r.n.config.Watchdog = WatchdogConfig{Device: "/dev/watchdog", Timeout: Duration(10 * time.Second)}
	r.n.opt.Watchdog = &hostDog{}
	says := func(want string) {
		t.Helper()
		if got := r.n.enforcer(bpf); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	r.n.dog.is = dogState{Fault: "it is busy"}
	says("the kernel's gate for addresses, and the daemon for all else: no watchdog (it is busy) or fence")
	r.n.dog.is = dogState{Device: "iTCO"}
	says("the kernel's gate for addresses, and the watchdog iTCO (at rest on this node) for data: no fence")
	r.n.dog.is = dogState{Device: "iTCO", Armed: true, Timeout: 10 * time.Second}
	says("the kernel's gate for addresses, and the watchdog iTCO of 10s for data: no fence")
	r.n.config.Fences = []FenceConfig{{Name: "ipmi", Node: "alice"}}
	says("the kernel's gate for addresses, the watchdog iTCO of 10s for data, and fencing of alice")
}

// TestSlackOfTheGateIsTold: nothing starts before the others count with what this host has.
func TestSlackOfTheGateIsTold(t *testing.T) {
	r := newRig(t, rigConfig("alice"))
	r.started()
	r.n.GateIs(gateLifetime, lifetimeSlack)
	if r.n.Wake() > r.now || r.n.backed(r.n.config.group("web")) {
		t.Error("the others do not know how late an address goes, and a group may start")
	}
	r.until("the others are told", time.Minute, func() bool {
		return r.n.state.node("alice").Enforce.Slack == lifetimeSlack && r.n.backed(r.n.config.group("web"))
	})
}
