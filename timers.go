// Which time follows from which? The one place for the formulas that derive every timer from deadtime; the core, the
// checks and `config explain` all ask here. No clock: only lengths of time.

package main

import "time"

const (
	ticksInDead   = 20 // raft ticks in a deadtime
	electionTicks = 8  // a follower waits 8 to 16 ticks, 0.4 to 0.8 of deadtime, so a leader exists when deadtime ends
	beatTicks     = 2  // a leader beats every 2 ticks: 4 beats fit into the shortest election timeout
	ticksAtOnce   = 3  // so many are made up for
	threadSlices  = 50 // of 10 ms, for which Go lets one piece of work hold up another
	paceSlack     = 32 // who sends its heartbeats with another's waits for them by this part of an interval

	// closeLeases and closeMin say how long an owner without a lease keeps its services, its address gone at once, before
	// it stops them unasked. A hiccup at a deadtime of 30 ms must stop no web server.
	closeLeases = 10
	closeMin    = 3 * time.Second

	pingLeast = 500 * time.Millisecond // between two echoes to a target, unless the file says otherwise
)

// oneThread: with such a deadtime, or a longer one, one thread at a time is enough for Go code. To hand work from one to another
// costs more than the work; and what others hold it up by, 10 ms at a time, is little beside the deadtime.
func (c *Config) oneThread() bool { return c.lease() >= threadSlices*10*time.Millisecond }

// lease is L, for how long one granted heartbeat lets an owner run a group.
func (c *Config) lease() time.Duration { return c.Heartbeat.Deadtime.D() }

// holdFor is how long after its last ack a voter's word is still good for a lease of length l, seen from another clock:
// 1.25 is more than 1.1 / 0.9, two clocks that are each off by a tenth.
func holdFor(l time.Duration) time.Duration { return l + l/4 }

func (c *Config) raftTick() time.Duration { return c.lease() / ticksInDead }

// electionMin and electionMax bound raft's random election timeout.
func (c *Config) electionMin() time.Duration { return electionTicks * c.raftTick() }
func (c *Config) electionMax() time.Duration { return 2 * electionTicks * c.raftTick() }

func (c *Config) leaderBeat() time.Duration { return beatTicks * c.raftTick() }

// linkSilence is when a link is called dead, while others still carry heartbeats.
func (c *Config) linkSilence() time.Duration { return c.lease() }

// closeAfter is how long an owner without a lease waits before it stops its services.
func (c *Config) closeAfter() time.Duration { return max(closeLeases*c.lease(), closeMin) }

// forceTimeout is for the harder way to stop that some types have, when the ordinary one has failed.
const forceTimeout = 10 * time.Second

// silentFor is how long after its last heartbeat an owner of that class is proven to run a group no more, when all is as
// configured; false: never by waiting.
func (c *Config) silentFor(of class) (time.Duration, bool) {
	e := Enforcement{}
	if c.Watchdog.watched() {
		e.Watchdog = c.Watchdog.Timeout.D()
	}
	d, ends := e.beyond(of)
	return holdFor(c.lease() + d), ends
}

// stopExtra is what the daemon needs beside the stops of its groups when it hands over.
func (c *Config) stopExtra() time.Duration { return 10*c.lease() + 5*time.Second }

// resetAfter is how long a group has to stop between the end of its lease and the reset of its host.
func (c *Config) resetAfter() time.Duration { return c.Watchdog.Timeout.D() - c.lease() }

// takeover is the usual time from the death of an owner until its group is started elsewhere: the silence, and what is
// left of the hold by then.
func (c *Config) takeover() time.Duration { return holdFor(c.lease()) }

// pace fills in what the file leaves open: one echo in each deadtime, but no more than two in a second, since a router
// has better things to do.
func (p *PingConfig) pace(deadtime time.Duration) {
	derived := Duration(max(deadtime, pingLeast))
	if p.Interval == 0 {
		p.Interval = derived
	}
	if p.Timeout == 0 {
		p.Timeout = min(p.Interval, derived)
	}
}

// noticed is how long a target is silent before a node says so.
func (p *PingConfig) noticed() time.Duration {
	return time.Duration(p.Failures)*p.Interval.D() + p.Timeout.D()
}

// settle is how much longer the others may take to notice the same, by clocks that are a tenth off: a target that dies for
// all must move nothing.
func (p *PingConfig) settle() time.Duration {
	return p.Interval.D() + p.Timeout.D() + p.noticed()/4
}

// alonePace is how often a target of needs_ping is asked while the other of two nodes is silent, and aloneLimit how old
// the newest echo that it answered may be.
func (c *Config) alonePace() time.Duration  { return c.lease() / 4 }
func (c *Config) aloneLimit() time.Duration { return 2 * c.lease() }

// startSum and stopSum bound how long a group takes: its resources start and stop one after the other.
func (g *GroupConfig) startSum() time.Duration {
	var sum time.Duration
	for i := range g.Resources {
		sum += g.Resources[i].Start.Timeout.D()
	}
	return sum
}

func (g *GroupConfig) stopSum() time.Duration {
	var sum time.Duration
	for i := range g.Resources {
		sum += g.Resources[i].Stop.Timeout.D()
		if g.Resources[i].forcible() {
			sum += forceTimeout
		}
	}
	return sum
}

// stopLongest bounds a stop of the daemon that hands everything over: groups stop side by side.
func (c *Config) stopLongest() time.Duration {
	var longest time.Duration
	for i := range c.Groups {
		longest = max(longest, c.Groups[i].stopSum())
	}
	return longest
}
