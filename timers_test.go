// Are the timers what docs/design.md says, and does the safety of the lease hold for every deadtime?

package main

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func clusterOf(deadtime, interval time.Duration) *Config {
	return &Config{Heartbeat: HeartbeatConfig{Deadtime: Duration(deadtime), Interval: Duration(interval)}}
}

func TestTimers(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		deadtime                                          time.Duration
		lease, hold, tick, least, most, beat, close, take time.Duration
	}{
		{30 * ms, 30 * ms, 37500 * time.Microsecond, 1500 * time.Microsecond, 12 * ms, 24 * ms, 3 * ms, 3 * time.Second, 37500 * time.Microsecond},
		{time.Second, time.Second, 1250 * ms, 50 * ms, 400 * ms, 800 * ms, 100 * ms, 10 * time.Second, 1250 * ms},
		{time.Minute, time.Minute, 75 * time.Second, 3 * time.Second, 24 * time.Second, 48 * time.Second, 6 * time.Second, 10 * time.Minute, 75 * time.Second},
	} {
		k := clusterOf(c.deadtime, c.deadtime/10)
		for name, pair := range map[string][2]time.Duration{
			"lease": {k.lease(), c.lease}, "hold": {holdFor(k.lease()), c.hold}, "tick": {k.raftTick(), c.tick},
			"election, at least": {k.electionMin(), c.least}, "election, at most": {k.electionMax(), c.most},
			"beat": {k.leaderBeat(), c.beat}, "close": {k.closeAfter(), c.close}, "takeover": {k.takeover(), c.take},
			"link": {k.linkSilence(), c.deadtime},
		} {
			if pair[0] != pair[1] {
				t.Errorf("deadtime %v: %s is %v, want %v", c.deadtime, name, pair[0], pair[1])
			}
		}
	}
}

func TestOneThreadOnlyWhereTimeIsNotShort(t *testing.T) {
	for deadtime, one := range map[time.Duration]bool{30 * time.Millisecond: false, 499 * time.Millisecond: false, 500 * time.Millisecond: true, time.Minute: true} {
		if got := clusterOf(deadtime, deadtime/10).oneThread(); got != one {
			t.Errorf("deadtime %v: one thread: %v", deadtime, got)
		}
	}
}

// What the lease's safety and the election's promptness rest on, for every deadtime that the file may have.
func TestTimersFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := time.Duration(rapid.Int64Range(int64(deadtimeMin), int64(deadtimeMax)).Draw(t, "deadtime"))
		c := clusterOf(l, l/10)
		// The owner's clock runs slow by a tenth, the taker's fast by a tenth: the owner's L must end first.
		if owner, taker := float64(c.lease())/0.9, float64(holdFor(c.lease()))/1.1; taker <= owner {
			t.Fatalf("a taker is through after %v, the owner after %v", time.Duration(taker), time.Duration(owner))
		}
		if c.electionMax() >= c.Heartbeat.Deadtime.D() {
			t.Fatalf("no leader for up to %v of a deadtime of %v", c.electionMax(), l)
		}
		if 3*c.leaderBeat() > c.electionMin() {
			t.Fatalf("three lost beats of %v are an election at %v", c.leaderBeat(), c.electionMin())
		}
		if c.raftTick() <= 0 || c.closeAfter() < c.lease() || c.closeAfter() < closeMin {
			t.Fatalf("tick %v, close after %v", c.raftTick(), c.closeAfter())
		}
	})
}

func TestStopLongest(t *testing.T) {
	c := &Config{Groups: []GroupConfig{
		{Resources: []ResourceConfig{{Start: OpConfig{Timeout: 5}, Stop: OpConfig{Timeout: 1}}, {Start: OpConfig{Timeout: 6}, Stop: OpConfig{Timeout: 2}}}},
		{Resources: []ResourceConfig{{Stop: OpConfig{Timeout: 7}}}},
	}}
	if a, b, l := c.Groups[0].startSum(), c.Groups[0].stopSum(), c.stopLongest(); a != 11 || b != 3 || l != 7 {
		t.Errorf("start %d, stop %d, longest %d; want 11, 3, 7", a, b, l)
	}
	if l := (&Config{}).stopLongest(); l != 0 {
		t.Errorf("no groups: %d", l)
	}
}
