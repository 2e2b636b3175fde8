// How long does what take, and why? Each timer with its value, where it comes from and what it does, for the operator who
// tunes deadtime. The formulas are in timers.go, the defaults in config_schema.go and config_resource.go; this only words
// them.

package main

import (
	"fmt"
	"strings"
	"time"
)

// explainer writes a table of three columns: what, how long, and where from.
type explainer struct {
	b strings.Builder
}

func (e *explainer) head(format string, args ...any) { fmt.Fprintf(&e.b, format+"\n", args...) }

func (e *explainer) row(what string, d time.Duration, why string) {
	fmt.Fprintf(&e.b, "  %-36s %8s  %s\n", what, roundDuration(d), why)
}

// roundDuration drops digits that nobody reads: 62.5ms stays, 1.234567s becomes 1.235s.
func roundDuration(d time.Duration) string {
	switch {
	case d >= time.Second:
		d = d.Round(time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(10 * time.Microsecond)
	}
	return shortDuration(d)
}

func configExplain(c *Config) string {
	e := &explainer{}
	e.heartbeat(c)
	e.watchdog(c)
	e.takeover(c)
	for i := range c.Pings {
		e.b.WriteString("\n")
		e.ping(c, &c.Pings[i])
	}
	for i := range c.Groups {
		e.b.WriteString("\n")
		e.group(c, &c.Groups[i])
	}
	return e.b.String()
}

// from says whether a value is the schema's default. A file that writes the default itself is not told apart: it is in
// force either way.
func from(spec *tableSpec, key string, value Duration) string {
	def := time.Duration((&section{spec: spec, values: map[string]any{}}).duration(key))
	if def == value.D() {
		return "default"
	}
	return fmt.Sprintf("from the file (default %s)", shortDuration(def))
}

func (e *explainer) heartbeat(c *Config) {
	e.head("heartbeat")
	e.row("interval", c.Heartbeat.Interval.D(), from(&heartbeatSpec, "interval", c.Heartbeat.Interval)+": each node sends on each link that often")
	e.row("deadtime D", c.Heartbeat.Deadtime.D(), from(&heartbeatSpec, "deadtime", c.Heartbeat.Deadtime)+": a node not heard for so long is lost")
	e.row("link warning", c.linkSilence(), "D: a link on which a node is not heard, while another carries it")
	e.row("lease L", c.lease(), "D: one acknowledged heartbeat lets an owner run its groups for so long")
	e.row("hold", holdFor(c.lease()), "1.25 L since a voter's last ack: 1.25 > 1.1 / 0.9, clocks may be off by 10 %")
	e.row("raft tick", c.raftTick(), fmt.Sprintf("D / %d", ticksInDead))
	e.row("leader's beat", c.leaderBeat(), fmt.Sprintf("%d ticks", beatTicks))
	e.row("election, at least", c.electionMin(), fmt.Sprintf("%d ticks: 0.4 D", electionTicks))
	e.row("election, at most", c.electionMax(), fmt.Sprintf("%d ticks: 0.8 D, so that a leader exists when deadtime ends", 2*electionTicks))
	stays := ""
	if c.Cluster.NoQuorum == "freeze" {
		stays = "; by no_quorum not before there is a majority that grants nothing, but for data without a guard"
	}
	e.row("services stop after a lost lease", c.closeAfter(), fmt.Sprintf("max(%d L, %s); the address is silent at once%s", closeLeases, shortDuration(closeMin), stays))
}

func (e *explainer) watchdog(c *Config) {
	w := &c.Watchdog
	e.head("\nwatchdog")
	switch {
	case w.watched():
		e.row("timeout W", w.Timeout.D(), from(&watchdogSpec, "timeout", w.Timeout)+": a host whose daemon has no lease, or hangs, is reset; it runs while anything stateful may run")
		e.row("reset after a lost lease", c.resetAfter(), "W - L at most: what is stateful has so long to stop")
	case w.resets():
		e.head("  no device: a failed stop of what is stateful reboots the host, but nothing does when its daemon hangs")
	default:
		e.head("  none: nothing resets a host")
	}
}

// wait says how long a taker waits for a silent owner, and why.
func (e *explainer) wait(c *Config, g *GroupConfig) {
	class, why := g.class(), "all of it is reachable only through its addresses"
	if r := g.strictest(); r != nil {
		why = r.Name + " may change data while nobody can reach it"
		if r.State != "" {
			why = fmt.Sprintf("%s has state = %q", r.Name, r.State)
		}
	}
	e.head("  %s: %s", class, why)
	wait, ends := c.silentFor(class)
	if fenced := c.fenced(); class != classAddressed && len(fenced) > 0 && len(c.Nodes) > 2 {
		e.head("  after a silent %s: taken over as soon as it is confirmed to be fenced", wordList(fenced, "or"))
	}
	switch without := c.unfenced(); {
	case len(c.Nodes) < 3:
	case !ends && len(without) > 0:
		e.head("  after a silent %s: waits for `hactl confirm-dead NODE`, since nothing resets that host ([watchdog] device, [[fence]])", wordList(without, "or"))
	case !ends:
	case class == classGuarded && len(without) > 0:
		e.row("after a silent node", wait, "1.25 L since its last heartbeat: by then its addresses are shut, and DRBD lets it write no more (hactl check)")
		if wait, ends = c.silentFor(classStateful); ends {
			e.row("if DRBD does not guard it", wait, "1.25 (L + 2 W): by then its watchdog has reset it")
		} else if len(without) > 0 {
			e.head("  if DRBD does not guard it: waits for `hactl confirm-dead NODE`, since nothing resets %s", wordList(without, "or"))
		}
	case class != classAddressed:
		wait, _ = c.silentFor(classStateful)
		e.row("after a silent node", wait, "1.25 (L + 2 W) since its last heartbeat: by then its watchdog has reset it")
	default:
		e.row("after a silent node", wait, "1.25 L since its last heartbeat: by then its addresses are shut")
	}
}

// takeover explains how long the loss of an owner lasts, which depends on who may decide.
func (e *explainer) takeover(c *Config) {
	e.head("\nfailover")
	switch {
	case len(c.Nodes) == 1:
		e.head("  one node: nobody can take over")
		return
	case c.Cluster.TwoNode == "fence":
		e.row("until the active side fences", c.lease(), "D; it goes on meanwhile. Active is who runs more groups, else the first of the file")
		for _, n := range c.fullNodes() {
			e.row("until "+n+" is fenced, being active", c.lease()+c.headStartWait(n), "D + 2 D + the longest delay of its devices: its head start")
		}
		e.head("  It is taken over when its devices confirm that it is off. Not protected: a device that dies with its node,")
		e.head("  such as one on the same power supply: the other then waits for `hactl confirm-dead NODE`.")
	case c.Cluster.TwoNode == "manual":
		e.head("  two_node = \"manual\": the other node waits for `hactl confirm-dead NODE`; a clean goodbye needs no word.")
		e.head("  Not protected: a death while nobody is there to confirm it.")
	case c.Cluster.TwoNode == "ignore":
		e.row("until the other node takes over", c.lease(), "D, then the time to start (below): silence is taken for death")
		if len(c.Cluster.NeedsPing) == 0 {
			e.head("  Not protected: two nodes that cannot hear each other both run all groups.")
			break
		}
		e.row("asked while the other is silent", c.alonePace(), "D / 4: "+wordList(c.Cluster.NeedsPing, "and")+" (needs_ping) must answer, else this node does not go on alone")
		e.row("an answer counts for", c.aloneLimit(), "2 D: without one for so long a node that is alone stops what it runs")
		e.head("  Not protected: two nodes that cannot hear each other and both reach %s both run all groups.", wordList(c.Cluster.NeedsPing, "and"))
	default:
		e.row("until an addressed group is elsewhere", c.takeover(), "D + 0.25 L, then the time to start (below)")
		e.row("a stopped or leaving owner", 0, "its own word is proof: no wait")
	}
	for _, n := range c.fullNodes() {
		if len(c.fencesOf(n)) > 0 {
			e.row("fencing of "+n+", at most", fenceLimit(c, n), "all levels and tries; then another node is asked, if there is one")
		}
	}
	if len(c.Groups) > 0 {
		e.row("stop of the daemon, at most", c.stopLongest(), "the longest group: groups stop side by side")
	}
}

func (e *explainer) ping(c *Config, p *PingConfig) {
	e.head("ping %s (%s)", p.Name, p.target())
	derived := PingConfig{}
	derived.pace(c.Heartbeat.Deadtime.D())
	from := func(value, def Duration, formula string) string {
		if value == def {
			return "default: " + formula
		}
		return fmt.Sprintf("from the file (default %s: %s)", shortDuration(def.D()), formula)
	}
	formula := fmt.Sprintf("max(D, %s)", shortDuration(pingLeast))
	e.row("interval", p.Interval.D(), from(p.Interval, derived.Interval, formula)+": each full node asks it that often")
	e.row("timeout", p.Timeout.D(), from(p.Timeout, min(derived.Timeout, p.Interval), formula))
	e.row("lost or back, at most", p.noticed(), fmt.Sprintf("%s in a row, one echo lost is nothing", count(p.Failures, "failure")))
	e.row("a group that needs it moves after", p.settle(), "more (interval + timeout + 1/4 of the line above): if no node reaches it, nothing moves")
}

func (e *explainer) group(c *Config, g *GroupConfig) {
	e.head("group %s", g.Name)
	e.wait(c, g)
	if g.MigrationThreshold == 0 {
		e.head("  failures never move it: migration_threshold = 0")
	} else {
		e.head("  moves after %s of one resource on one node: migration_threshold", count(g.MigrationThreshold, "failure"))
	}
	if g.FailureTimeout == 0 {
		e.head("  a failcount is never forgotten: failure_timeout = \"0s\"")
	} else {
		e.row("failure_timeout", g.FailureTimeout.D(), from(&groupSpec, "failure_timeout", g.FailureTimeout)+": a failcount is forgotten so long after the last failure")
	}
	for i := range g.Resources {
		e.resource(&g.Resources[i])
	}
	e.row("start, at most", g.startSum(), "sum of its start timeouts")
	e.row("stop, at most", g.stopSum(), "sum of its stop timeouts, the forced ones too")
	if wait, ends := c.silentFor(g.class()); ends && len(c.Nodes) > 2 {
		e.row("failover, at most", wait+g.startSum(), fmt.Sprintf("%s and its start; usually its start takes a small part of its timeouts", roundDuration(wait)))
	}
}

func (e *explainer) resource(r *ResourceConfig) {
	spec := pickResource(map[string]any{"type": r.Type})
	name := r.Name
	if r.Name != r.Type {
		name += " (" + r.Type + ")"
	}
	if len(name) > 18 {
		e.head("  %s", name)
		name = ""
	}
	op := func(op, key string, d Duration) {
		e.row(fmt.Sprintf("%-18s %s", name, op+"."+key), d.D(), from(spec.find(op).table, key, d))
		name = ""
	}
	op("start", "timeout", r.Start.Timeout)
	op("stop", "timeout", r.Stop.Timeout)
	if r.forcible() {
		e.row("                   stop, forced", forceTimeout, "when the stop has failed")
	}
	op("monitor", "interval", r.Monitor.Interval)
	op("monitor", "timeout", r.Monitor.Timeout)
	if r.Type == "vip" {
		e.row("                   probe_wait", r.ProbeWait.D(), from(spec, "probe_wait", r.ProbeWait)+": for an answer from another host")
		e.row("                   probe_timeout", r.ProbeTimeout.D(), from(spec, "probe_timeout", r.ProbeTimeout)+": for another host to let go of it")
	}
}
