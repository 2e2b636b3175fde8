// When does this host's watchdog run, and what is it petted for? It runs while anything stateful may run here, and is
// petted once for each new grant and never otherwise: so whoever waits long enough for a silent owner knows that it was
// reset. What it does not save is given up first: a stop of data that fails for good resets the host at once. The
// arithmetic is in class.go and docs/design.md section 4; the device is watchdog.go's.

package main

import (
	"fmt"
	"slices"
	"time"
)

// dogState is the watchdog of this host as the shell reports it.
type dogState struct {
	Device   string        // what it calls itself; "": there is none, or it cannot be used
	Soft     bool          // the kernel's own timer
	Armed    bool          // it runs, and this process pets it
	Left     bool          // it runs since a process before this one, and nobody pets it
	Timeout  time.Duration // while it runs
	Fault    string        // why the configured one cannot be used
	Reported bool          // the shell has looked
}

// dogCare is what the node has asked of it.
type dogCare struct {
	is     dogState
	asked  bool    // to arm or disarm; what came of it is not known yet
	paid   instant // end of the newest grant that it was petted for
	petted instant
	next   instant // no other try to arm before this
	lookAt instant // and no other look
	looked string  // device that the shell was asked to look at
}

// doom is a reset that this node has decided on.
type doom struct {
	why  string
	at   instant // done then at the latest: before that the others may learn why
	done bool
}

const armRetry = 2 * time.Second

// WatchdogIs is the event that the watchdog was looked at, armed or disarmed, or could not be.
func (n *node) WatchdogIs(now instant, s dogState) {
	was := n.dog.is
	n.dog.is, n.dog.asked = s, false
	n.dog.is.Reported = true
	if s.Armed && !was.Armed {
		n.dog.petted = now
		n.log.Info(fmt.Sprintf("the watchdog %s resets this host when it is not petted for %s", s.Device, s.Timeout), "event", "watchdog-armed")
	}
	if was.Armed && !s.Armed {
		n.log.Info("the watchdog is at rest", "event", "watchdog-disarmed")
	}
	if s.Fault != "" {
		n.dog.next = now.add(armRetry)
	}
	if s.Fault != was.Fault && s.Fault != "" {
		n.log.Error("the watchdog cannot be used: "+s.Fault, "event", "watchdog-failed")
	}
	n.version++
	n.advance(now)
}

// GateIs says what ends the traffic of addresses on this host, as often as it may have changed.
func (n *node) GateIs(kind string, slack time.Duration) {
	if n.gateKind == kind && n.gateSlack == slack {
		return
	}
	n.gateKind, n.gateSlack = kind, slack
	n.version++
	n.dueAt = 0 // the others must know
}

// watched: the config wants a device, and this process has hands for one.
func (n *node) watched() bool { return n.config.Watchdog.watched() && n.opt.Watchdog != nil }

// enforcement is what this node says of itself.
func (n *node) enforcement() Enforcement {
	e := Enforcement{Gate: n.gateKind, Slack: n.gateSlack, Guarded: n.guarded()}
	if n.watched() {
		e.Device, e.Soft, e.Fault = n.dog.is.Device, n.dog.is.Soft, n.dog.is.Fault
		switch {
		case n.dog.is.Armed || n.dog.is.Left:
			e.Watchdog = n.dog.is.Timeout
		case n.ownsStopped():
			e.Watchdog = n.state.node(n.name).Enforce.Watchdog
		}
	}
	return e
}

// ownsStopped: the cluster takes this node for the owner of something stateful, and nothing of that kind runs here. Then
// what the others count with stays true, although the watchdog rests: nothing starts before it runs again.
func (n *node) ownsStopped() bool {
	if n.state == nil || n.state.Maintenance != nil || n.left {
		return false
	}
	me := n.state.node(n.name)
	if me == nil || me.Session != n.opt.Session || !slices.ContainsFunc(n.state.Groups, func(g GroupState) bool { return g.Owner == n.name && g.Stateful }) {
		return false
	}
	return !slices.ContainsFunc(n.agent.groups, (*groupAgent).endangers)
}

// reportEnforcement tells the others when it has changed.
func (n *node) reportEnforcement(now instant, me *NodeState) {
	if e := n.enforcement(); !me.Enforce.equal(&e) {
		n.propose(now, Entry{Kind: entryEnforce, Node: n.name, Session: n.opt.Session, Base: me.Enforced, Enforce: new(e)})
	}
}

// backed tells whether a group may be started here: who would take it over counts with what this host has, and where a
// watchdog is configured it runs before anything stateful does.
func (n *node) backed(c *GroupConfig) bool {
	me, is := n.state.node(n.name), n.enforcement()
	if me == nil || me.Session == n.opt.Session && !me.Enforce.covers(&is) {
		return false
	}
	return !c.class().writes() || !n.watched() || n.dog.is.Armed && me.Enforce.Watchdog > 0
}

// tendWatchdog arms it before anything stateful starts, pets it for each new grant, and lets it rest when nothing of that
// kind is left.
func (n *node) tendWatchdog(now instant) {
	if n.opt.Watchdog == nil || n.dog.asked || n.doom.done {
		return
	}
	is := &n.dog.is
	n.lookAtWatchdog(now)
	end := n.petFor(now)
	switch need := n.needsWatchdog(); {
	case need && n.watched() && !is.Armed && end > now && now >= n.dog.next:
		timeout := n.config.Watchdog.Timeout.D()
		if is.Left {
			timeout = 0 // whoever waits for this node counts with what is set
		}
		n.dog.asked, n.dog.paid = true, end
		n.opt.Watchdog.Arm(n.config.Watchdog.Device, timeout, end)
		return
	case need && n.watched() && !is.Armed:
		n.wake(n.dog.next)
	case (is.Armed || is.Left) && n.mayRest(need):
		n.dog.asked = true
		n.opt.Watchdog.Disarm()
		return
	}
	if is.Armed && end > n.dog.paid && end > now {
		n.dog.paid, n.dog.petted = end, now
		n.opt.Watchdog.Pet(end)
	}
}

// lookAtWatchdog asks what the configured device is, and again while it cannot be used.
func (n *node) lookAtWatchdog(now instant) {
	device := n.config.Watchdog.Device
	if !n.watched() || n.dog.is.Armed || n.dog.is.Left || n.dog.looked == device && (n.dog.is.Fault == "" || now < n.dog.lookAt) {
		return
	}
	n.dog.looked, n.dog.lookAt = device, now.add(armRetry)
	n.opt.Watchdog.Look(device)
}

// petFor is the end of the newest grant that the watchdog may be petted for, 0 if there is none: anything that a majority
// grants this node, since a node that is heard says itself what it has stopped. A caretaker has nobody to ask: it pets as
// long as its loop turns.
func (n *node) petFor(now instant) instant {
	switch {
	case n.doom.why != "":
		return 0
	case n.caretaker && now.sub(n.dog.petted) >= n.config.Heartbeat.Interval.D():
		return now.add(n.config.lease())
	case n.caretaker:
		n.wake(n.dog.petted.add(n.config.Heartbeat.Interval.D()))
		return 0
	case n.sick(now) != "":
		return 0
	}
	return n.leaseEnd("", 0)
}

// needsWatchdog tells whether anything stateful is here, or is to start here.
func (n *node) needsWatchdog() bool {
	if n.state == nil {
		return slices.ContainsFunc(n.agent.groups, (*groupAgent).endangers)
	}
	if n.state.Maintenance != nil || n.left {
		return false // nobody takes over what still runs: in maintenance, or as the goodbye has named it
	}
	return slices.ContainsFunc(n.state.Groups, func(g GroupState) bool {
		mine := g.Owner == n.name && (g.Phase == phasePlaced || g.Phase == phaseStarted) && !n.isShut(g.Name)
		a := n.agent.group(g.Name)
		return g.Stateful && mine || a != nil && a.endangers()
	})
}

// mayRest tells whether the watchdog may be disarmed. When the config wants none any more the others must know first.
func (n *node) mayRest(need bool) bool {
	if n.dog.is.Left && !n.agent.looked() {
		return false
	}
	if !need {
		return true
	}
	if n.watched() || n.state == nil {
		return false
	}
	me := n.state.node(n.name)
	return me != nil && me.Session == n.opt.Session && me.Enforce.Watchdog == 0
}

// endangers tells whether anything of a stateful group is here, or may be.
func (g *groupAgent) endangers() bool {
	return g.config.class().writes() && slices.ContainsFunc(g.res, func(r *resourceAgent) bool {
		return !r.still() && (r.cond != conditionUnknown || r.unknowns > 0 || r.busy != 0 && r.op != opMonitor && r.op != opFit)
	})
}

// resetAt is when the watchdog resets this host if it is petted no more; 0: it does not run. A tenth is left for its
// clock.
func (n *node) resetAt() instant {
	if !n.dog.is.Armed {
		return 0
	}
	return n.dog.petted.add(n.dog.is.Timeout - n.dog.is.Timeout/10)
}

// mayReset tells whether a stop of data that fails for good resets this host.
func (n *node) mayReset() bool {
	return n.config.Watchdog.resets() && n.opt.Watchdog != nil && (n.state == nil || n.state.Maintenance == nil)
}

// resetIfDoomed carries out what the agent could not prevent. The others get a moment to learn why; what is no longer
// granted waits for nobody.
func (n *node) resetIfDoomed(now instant) {
	if n.agent.doomed != "" && n.doom.why == "" && n.mayReset() {
		n.doom = doom{why: n.agent.doomed, at: now.add(n.deadtime() / 2)}
		n.version++
		n.log.Error("this host is about to be reset: "+n.doom.why, "event", "self-fence")
	}
	n.agent.doomed = ""
	if n.doom.why == "" || n.doom.done {
		return
	}
	untold := slices.ContainsFunc(n.outcomes, func(o outcome) bool { return o.kind == entryFailure && o.op == opStop })
	if untold && now < n.doom.at && n.hasQuorum() {
		n.wake(n.doom.at)
		return
	}
	n.doom.done = true
	n.opt.Watchdog.Reset(n.doom.why)
}
