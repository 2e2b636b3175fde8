// What must happen on this node? For each group the agent compares what the state and the lease allow (an order) with
// what runs here, and asks for the next operations. It decides nothing for the cluster: it obeys, restarts what it may,
// and reports. Pure: operations go out as actions and come back as actionDone; nothing is taken to have worked before.

package main

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// want is what a group shall do on this node.
type want int

const (
	wantLook   want = iota // only look what is there: this session has not joined yet
	wantStop               // not mine: it must not run here
	wantRun                // mine, and I may run it
	wantFreeze             // touch nothing: maintenance, blocked, or mine with a lease that has just ended
)

func (w want) String() string { return [...]string{"look", "stop", "run", "freeze"}[w] }

// order is what the rest of the node tells the agent about one group.
type order struct {
	want    want
	epoch   uint64
	config  *GroupConfig
	hint    startHint
	again   time.Duration   // of the phase; when it changes, a stop that failed is tried again
	counts  []ResourceState // failures on this node, as counted by the state
	counted uint64          // serial of the last failure report of this session that the state has counted
	alone   bool            // caretaker, or without a state: nobody counts failures, and nobody can be asked
	by      instant         // when the host is reset if it has not stopped; 0: it is not
	known   uint64          // raft index of the state that it comes from
	thaw    []string        // resources that may go on without their peers
	rejoin  []rejoin        // resources that shall find their peers again after a split brain
	kept    bool            // in place without a lease: what waits for frozen data does not answer, and has not failed
}

// rejoin is what this node does for the end of a split brain: its copy gives way, or it is the good one.
type rejoin struct {
	resource string
	how      string // rejoin*
}

// rejoins is the part of an operation in that.
func (o *order) rejoins(resource, op string) string {
	i := slices.IndexFunc(o.rejoin, func(r rejoin) bool { return r.resource == resource })
	if i < 0 || op != opFit && (op != opMonitor || o.rejoin[i].how != rejoinKeep) {
		return ""
	}
	return o.rejoin[i].how
}

// outcome is what the agent has to say; node.go makes entries of it and repeats them until they are applied.
type outcome struct {
	kind     string // entryStarted, entryStopped, entryFailure
	group    string
	epoch    uint64
	resource string
	op       string
	reason   string
	tail     string
	serial   uint64
	at       instant // of a failure
	alone    bool    // a failure that nobody could be told of then
}

const (
	fitInterval    = 2 * time.Second
	waitingRetry   = 500 * time.Millisecond // after errWaiting
	unknownsToFail = 3                      // monitors in a row that could not be read
	untoldMax      = 100                    // failures that wait to be told
	shareMin       = 500 * time.Millisecond // of a stop in a hurry
	overdueAfter   = 10 * time.Second       // past its timeout an action that has not ended is stuck in the kernel
)

// agent is all groups on this node.
type agent struct {
	groups   []*groupAgent // in the order they were first seen
	nextID   uint64
	serial   uint64 // of failure reports, counts the session
	actions  []action
	cancels  []uint64
	outcomes []outcome
	watches  []watchSwitch
	doomed   string // a stop of what is stateful failed for good, and this is why the host may have to go
}

type watchSwitch struct {
	group, resource string
	on              bool
}

type groupAgent struct {
	a       *agent
	name    string
	config  *GroupConfig
	order   order
	res     []*resourceAgent // of config, in its order, and between them what is no longer in it but not stopped yet
	started uint64           // epoch that was reported started
	stopped uint64           // epoch that was reported stopped
	saidAt  time.Duration    // under this order.again; another phase has forgotten it
}

// resourceAgent is one resource as this node knows it.
type resourceAgent struct {
	config   ResourceConfig
	cond     condition
	busy     uint64 // id of the action that runs on it
	op       string // of that action
	cancel   bool   // that action was told to end early: how it ends says nothing about the resource
	mustStop bool   // it, or what it stands on, must be restarted
	gone     bool   // no longer in the config: forget it when it is stopped
	hold     bool   // failed; what follows is not for this node to decide
	watched  bool
	next     instant // of the monitor
	retryAt  instant // no start before this: it waits for somebody else
	heldAt   instant // since when its start waits for somebody else; 0: it does not
	fitAt    instant
	unfit    string // why this node cannot run it
	unknowns int
	detail   string
	failed   []uint64 // serials of its failures that the state may not have counted yet
	failedOp string   // what failed last
	failedAt instant
	row      int  // failures since there was none for failure_timeout
	ignored  bool // it is not well and on_fail says "ignore": told once
	noticed  bool // its watcher saw something while a monitor was under way
	stuck    bool // its stop failed under order.again == stuckAt
	stuckAt  time.Duration
	rung     stopRung
	detour   bool    // it is forced for the sake of what stands on it, before its own turn
	stopErr  string  // why the ordinary stop failed
	due      instant // when the running action has surely ended, or will not
	since    instant
}

// stopRung is how far up the ladder a stop has come; see climb.
type stopRung int

const (
	rungStop  stopRung = iota // as the resource's type stops
	rungForce                 // by the harder way that some types have
	rungBelow                 // what it stands on was forced away under it, and it is tried once more
)

func (a *agent) group(name string) *groupAgent {
	for _, g := range a.groups {
		if g.name == name {
			return g
		}
	}
	return nil
}

func (g *groupAgent) resource(name string) *resourceAgent {
	for _, r := range g.res {
		if r.config.Name == name {
			return r
		}
	}
	return nil
}

// obey takes a group's order and asks for what follows from it now. It returns when to look again, 0 for no need.
func (a *agent) obey(now instant, o order) instant {
	g := a.group(o.config.Name)
	if g == nil {
		g = &groupAgent{a: a, name: o.config.Name}
		a.groups = append(a.groups, g)
	}
	g.order = o
	if g.config != o.config {
		if g.config == nil || !reflect.DeepEqual(g.config, o.config) {
			g.reconfigure(now, o.config)
		}
		g.config = o.config
	}
	switch o.want {
	case wantLook, wantFreeze: // what is not known can be looked at without touching it
		g.look(now)
	case wantStop:
		g.stop(now)
	case wantRun:
		g.run(now)
	}
	if o.want != wantStop {
		g.monitor(now)
	}
	g.checkFit(now)
	return g.wake(now)
}

// forget drops a group that is stopped and no longer in the config.
func (a *agent) forget(name string) bool {
	g := a.group(name)
	if g == nil || !g.idle() {
		return g == nil
	}
	i := slices.Index(a.groups, g)
	a.groups = slices.Concat(a.groups[:i], a.groups[i+1:]) // anew: the old list may be gone through
	return true
}

func (g *groupAgent) idle() bool {
	return !slices.ContainsFunc(g.res, func(r *resourceAgent) bool { return !r.still() })
}

// do asks for an operation.
func (g *groupAgent) do(now instant, r *resourceAgent, op string, timeout time.Duration) {
	g.a.nextID++
	r.busy, r.op, r.cancel, r.due = g.a.nextID, op, false, now.add(timeout+overdueAfter)
	hint := g.order.hint
	hint.Group = g.name
	hint.Restart = len(r.failed) > 0 || g.started == g.order.epoch
	g.a.actions = append(g.a.actions, action{ID: r.busy, Group: g.name, Resource: r.config.Name, Epoch: g.order.epoch, Op: op, Timeout: timeout, Hint: hint,
		Ready: op == opFit && g.order.want == wantStop, Rejoin: g.order.rejoins(r.config.Name, op), Known: g.order.known, Config: r.config})
}

// watch turns the resource's own eyes on or off.
func (g *groupAgent) watch(r *resourceAgent, on bool) {
	if r.watched != on {
		r.watched = on
		g.a.watches = append(g.a.watches, watchSwitch{g.name, r.config.Name, on})
	}
}

// look reads what is there, once.
func (g *groupAgent) look(now instant) {
	for _, r := range g.res {
		if r.cond == conditionUnknown && r.busy == 0 && r.next <= now {
			g.do(now, r, opMonitor, r.config.Monitor.Timeout.D())
		}
	}
}

// looked tells whether every resource of every group has been read, or could not be.
func (a *agent) looked() bool {
	return !slices.ContainsFunc(a.groups, func(g *groupAgent) bool { return !g.looked() })
}

func (g *groupAgent) looked() bool {
	return !slices.ContainsFunc(g.res, func(r *resourceAgent) bool { return r.cond == conditionUnknown && r.unknowns == 0 })
}

// running lists the groups that are not read back as stopped.
func (a *agent) running() []string {
	var out []string
	for _, g := range a.groups {
		if !g.idle() {
			out = append(out, g.name)
		}
	}
	slices.Sort(out)
	return out
}

// stopped tells whether all of a group is read back as stopped here.
func (a *agent) stopped(name string) bool {
	g := a.group(name)
	return g == nil || g.idle()
}

// moving is the resource on which a start or stop runs, or nil: one at a time in a group.
func (g *groupAgent) moving() *resourceAgent {
	for _, r := range g.res {
		if r.busy != 0 && (r.op == opStart || r.op == opStop || r.op == opForce) {
			return r
		}
	}
	return nil
}

// stop takes the group down from the top, and says so when all of it is read back as stopped.
func (g *groupAgent) stop(now instant) {
	for _, r := range g.res {
		switch {
		case r.busy != 0 && r.op != opStop && r.op != opForce && r.cond != conditionUnknown && !r.still():
			g.cancel(r)
		case r.busy == 0 && r.cond == conditionUnknown && r.unknowns == 0:
			// A stop may have effects: not for what is stopped anyway. And what stands below is looked at too although what is above
			// may not stop: a node joins, and tells that, only when all has been looked at.
			g.do(now, r, opMonitor, r.config.Monitor.Timeout.D())
		}
	}
	for i := len(g.res) - 1; i >= 0; i-- {
		r := g.res[i]
		switch {
		case r.still():
			continue
		case r.busy != 0 || g.moving() != nil:
			return
		case g.isStuck(now, r):
			return // reported; blocked until somebody helps
		}
		g.stopOne(now, r)
		return
	}
	g.drop()
	for _, r := range g.res {
		r.hold = false // whoever decides on it places the group anew
	}
	if g.order.epoch != 0 && (g.stopped != g.order.epoch || g.saidAt != g.order.again) {
		g.stopped, g.saidAt = g.order.epoch, g.order.again
		g.a.outcomes = append(g.a.outcomes, outcome{kind: entryStopped, group: g.name, epoch: g.order.epoch})
	}
}

// still tells whether the resource is stopped and nothing but a look at its surroundings goes on.
func (r *resourceAgent) still() bool {
	return r.cond == conditionStopped && (r.busy == 0 || r.op == opFit)
}

func (g *groupAgent) stopOne(now instant, r *resourceAgent) {
	if i := slices.IndexFunc(g.res, func(d *resourceAgent) bool { return d.detour && d.busy == 0 }); i >= 0 {
		r = g.res[i] // what is to be taken away below comes first
	}
	g.watch(r, false)
	r.hold = false
	if r.rung == rungForce {
		g.do(now, r, opForce, g.share(now, forceTimeout))
		return
	}
	g.do(now, r, opStop, g.share(now, r.config.Stop.Timeout.D()))
}

// share cuts a timeout to this resource's part of the time that is left before the host is reset, so that what follows
// below still has its own.
func (g *groupAgent) share(now instant, timeout time.Duration) time.Duration {
	if g.order.by == 0 {
		return timeout
	}
	left := 0
	for _, r := range g.res {
		if !r.still() {
			left++
		}
	}
	return min(timeout, max(shareMin, g.order.by.sub(now)/time.Duration(max(left, 1))))
}

// isStuck tells whether a failed stop must not be tried again by itself. It may be in another phase, or when the record of
// the failure is gone: cleaned up, or over its time. Where nobody records it, it is tried again after a while.
func (g *groupAgent) isStuck(now instant, r *resourceAgent) bool {
	if g.order.alone {
		return r.stuck && g.mustPause(now, r)
	}
	recorded := slices.ContainsFunc(g.order.counts, func(c ResourceState) bool { return c.Resource == r.config.Name })
	return r.stuck && r.stuckAt == g.order.again && (recorded || g.uncounted(r) > 0)
}

// uncounted is how many failures of a resource the state has not counted yet.
func (g *groupAgent) uncounted(r *resourceAgent) int {
	n := 0
	for _, s := range r.failed {
		if s > g.order.counted {
			n++
		}
	}
	return n
}

// mustPause keeps a lasting failure from spinning where nobody counts.
func (g *groupAgent) mustPause(now instant, r *resourceAgent) bool {
	r.retryAt = r.failedAt.add(tryDelay(max(0, r.row-2)))
	return r.retryAt > now
}

// cancel asks the action on a resource to end early.
func (g *groupAgent) cancel(r *resourceAgent) {
	r.cancel = true
	g.a.cancels = append(g.a.cancels, r.busy)
}

// drop forgets stopped resources that are no longer in the config.
func (g *groupAgent) drop() {
	g.res = slices.DeleteFunc(g.res, func(r *resourceAgent) bool { return r.gone && r.still() })
}

// run brings the group up from the bottom. Each call re-reads the order, so that every rung is started under an epoch
// and a lease that hold now.
func (g *groupAgent) run(now instant) {
	if g.moving() != nil {
		return
	}
	for i := len(g.res) - 1; i >= 0; i-- { // first what must go down, from the top
		r := g.res[i]
		if !r.mustStop && !r.gone {
			continue
		}
		switch {
		case r.cond == conditionStopped:
			r.mustStop = false
		case r.busy != 0:
			g.cancel(r)
			return
		case g.isStuck(now, r):
			return
		default:
			g.stopOne(now, r)
			return
		}
	}
	g.drop()
	for _, r := range g.res {
		switch r.cond {
		case conditionRunning:
			continue
		case conditionUnknown:
			if r.unknowns >= unknownsToFail {
				r.cond, r.unknowns = conditionFailed, 0 // cannot be read: made sure of by a stop and a start
				g.run(now)
			} else if r.busy == 0 && r.next <= now {
				g.do(now, r, opMonitor, r.config.Monitor.Timeout.D())
			}
		case conditionFailed:
			if g.mayRestart(now, r) {
				r.mustStop = true
				g.run(now)
			}
		case conditionStopped:
			if r.busy == 0 && r.retryAt <= now && g.mayRestart(now, r) {
				r.hold = false
				g.do(now, r, opStart, r.config.Start.Timeout.D())
			}
		}
		return
	}
	if g.started != g.order.epoch {
		g.started = g.order.epoch
		g.a.outcomes = append(g.a.outcomes, outcome{kind: entryStarted, group: g.name, epoch: g.order.epoch})
	}
}

// mayRestart tells whether a resource may be started here without asking: it has not failed, is below the threshold,
// or the leader has said that it is to be tried again.
func (g *groupAgent) mayRestart(now instant, r *resourceAgent) bool {
	if r.unfit != "" {
		return false
	}
	if r.hold && r.config.OnFail == "block" {
		return false // the state follows with phase blocked; cleanup lifts it
	}
	if g.order.alone {
		return r.row < 2 || !g.mustPause(now, r) // nobody counts, and nobody else can take it
	}
	uncounted := g.uncounted(r)
	var f ResourceState
	for _, c := range g.order.counts {
		if c.Resource == r.config.Name {
			f = c
		}
	}
	if uncounted > 0 && (r.config.OnFail == "move" || g.order.want != wantRun) {
		return false
	}
	f.Failcount += uncounted
	f.Fatal = f.Fatal || uncounted > 0 && r.failedOp == opStart
	return !f.banned(g.config)
}

// monitor looks again at what runs, when its time has come.
func (g *groupAgent) monitor(now instant) {
	for _, r := range g.res {
		switch {
		case r.cond != conditionRunning || r.busy != 0:
		case slices.Contains(g.order.thaw, r.config.Name): // also where nothing else is touched: DRBD waits for that word alone
			g.do(now, r, opThaw, r.config.Monitor.Timeout.D())
		case g.order.kept && r.config.Type != "drbd":
		case r.next <= now && r.config.Monitor.Interval > 0:
			g.do(now, r, opMonitor, r.config.Monitor.Timeout.D())
		}
	}
}

// checkFit asks, for what does not run here, whether it could.
func (g *groupAgent) checkFit(now instant) {
	for _, r := range g.res {
		if r.busy == 0 && r.fitAt <= now && !r.gone && (r.cond == conditionStopped || r.unfit != "") {
			r.fitAt = now.add(fitInterval)
			g.do(now, r, opFit, r.config.Monitor.Timeout.D())
		}
	}
}

// unfit is why this node cannot run the group, "" if it can.
func (g *groupAgent) unfit() string {
	for _, r := range g.res {
		if r.unfit != "" {
			return fmt.Sprintf("%s: %s", r.config.Name, r.unfit)
		}
	}
	return ""
}

func (g *groupAgent) wake(now instant) instant {
	var at instant
	earlier := func(t instant) {
		if t > now && (at == 0 || t < at) {
			at = t
		}
	}
	for _, r := range g.res {
		if r.busy == 0 {
			earlier(r.next)
			earlier(r.retryAt)
			if r.cond == conditionStopped || r.unfit != "" {
				earlier(r.fitAt)
			}
		}
	}
	return at
}

// done takes the end of an action. An answer to an action that is not awaited is dropped.
func (a *agent) done(now instant, d actionDone) {
	g := a.group(d.Group)
	if g == nil {
		return
	}
	i := slices.IndexFunc(g.res, func(r *resourceAgent) bool { return r.busy == d.ID })
	if i < 0 {
		return
	}
	r := g.res[i]
	r.busy = 0
	switch d.Op {
	case opStart:
		g.startDone(now, r, d)
	case opStop, opForce:
		g.stopDone(now, r, d)
	case opMonitor:
		g.monitorDone(now, r, d)
	case opThaw:
		r.detail, r.next = d.Err, now
	case opFit:
		r.unfit = d.Err
		r.fitAt = now.add(fitInterval)
		if d.Condition == conditionRunning && r.cond == conditionStopped {
			r.cond, r.next = conditionUnknown, now // somebody has started it: looked at, and treated, as what is found at the start
		}
	}
}

func (g *groupAgent) startDone(now instant, r *resourceAgent, d actionDone) {
	r.detail = d.Err
	if !d.Waiting {
		r.heldAt = 0
	} else if r.heldAt == 0 {
		r.heldAt = now
	}
	switch {
	case d.Err == "":
		r.cond, r.since, r.unfit, r.mustStop = conditionRunning, now, "", false
		r.next = now.add(r.config.Monitor.Interval.D())
		if r.config.Type == "drbd" {
			r.next = now // how it is guarded, and which copies lack something, the others must know before this node is lost
		}
		g.watch(r, true)
	case d.Waiting:
		r.cond = conditionStopped
		r.retryAt = now.add(waitingRetry)
	case r.cancel || d.Epoch != g.order.epoch || g.order.want != wantRun:
		r.cond, r.next = conditionUnknown, now // cancelled, or late: what follows finds out, be it a stop or, with a lease again, a start
	case d.Hopeless:
		r.cond, r.unfit = conditionUnknown, d.Err
	default:
		r.cond = conditionFailed // something of it may be there: it is stopped before the next try
		g.fail(now, r, d)
	}
}

func (g *groupAgent) stopDone(now instant, r *resourceAgent, d actionDone) {
	r.detail = d.Err
	if d.Err == "" {
		r.cond, r.mustStop, r.stuck, r.since, r.heldAt = conditionStopped, false, false, now, 0
		r.rung, r.stopErr, r.detour = rungStop, "", false
		return
	}
	if d.TimedOut && d.Timeout < r.config.Stop.Timeout.D() && d.Op == opStop && g.order.by == 0 {
		r.cond, r.next = conditionUnknown, now // its time was cut short for a hurry that is over: no word on whether it can stop
		return
	}
	r.cond = conditionFailed
	if r.stopErr == "" {
		r.stopErr = d.Err
	} else if d.Err != r.stopErr {
		d.Err = r.stopErr + "; then: " + d.Err
	}
	if r.detour {
		g.endDetour(r)
		return
	}
	if g.climb(now, r) {
		return
	}
	d.Op = opStop
	r.stuck, r.stuckAt, r.rung, r.stopErr = true, g.order.again, rungStop, ""
	g.fail(now, r, d)
	if g.config.classOf(&r.config).writes() && !g.order.alone {
		g.a.doomed = fmt.Sprintf("stop of %s in %s failed: %s", r.config.Name, g.name, d.Err)
	}
}

// climb goes one rung up the ladder of a failed stop, false when there is none left: the harder way of its type; then, for
// what is mounted on a DRBD device of the group, that device is taken away under it and it is tried once more. Behind the
// last rung is the reset of the host, where data is at stake and the config allows it.
func (g *groupAgent) climb(now instant, r *resourceAgent) bool {
	switch {
	case r.rung == rungStop && r.config.forcible():
		r.rung = rungForce
		return true
	case r.rung == rungStop && r.config.Type == "filesystem" && onDRBD(&r.config):
		for i := slices.Index(g.res, r) - 1; i >= 0; i-- {
			if d := g.res[i]; d.config.Type == "drbd" && !d.still() && d.busy == 0 {
				r.rung, d.rung, d.detour = rungBelow, rungForce, true
				return true
			}
		}
	}
	return false
}

// endDetour: the device could not be taken away either. Its own stop has not been tried yet; what stands on it says both
// reasons when its last try has failed.
func (g *groupAgent) endDetour(d *resourceAgent) {
	for _, r := range g.res {
		if r.rung == rungBelow {
			r.stopErr += "; then: " + d.stopErr
		}
	}
	d.cond, d.rung, d.stopErr, d.detour = conditionRunning, rungStop, "", false
}

func (g *groupAgent) monitorDone(now instant, r *resourceAgent, d actionDone) {
	r.next = now.add(max(r.config.Monitor.Interval.D(), 100*time.Millisecond))
	if r.noticed {
		r.next, r.noticed = now, false // it may have happened behind the monitor's back
	}
	was := r.cond
	if d.Condition == conditionUnknown && !d.TimedOut {
		r.unknowns++
		r.detail = d.Err
		if was != conditionRunning || r.unknowns < unknownsToFail {
			return
		}
	} else {
		r.unknowns = 0
	}
	if was != conditionRunning || g.order.want != wantRun {
		r.cond, r.detail = d.Condition, d.Err
		if r.cond == conditionUnknown {
			r.unknowns = 1
		}
		if r.cond == conditionRunning {
			r.since, r.unfit = now, ""
			g.watch(r, true)
		}
		return
	}
	if d.Condition == conditionRunning {
		r.detail, r.unfit, r.ignored = d.Err, "", false
		return
	}
	if d.Err == "" {
		d.Err = "it is " + d.Condition.String()
	}
	if r.config.OnFail == "ignore" && r.detail == d.Err {
		return // told already: a lasting failure must not fill the history
	}
	r.detail = d.Err
	if d.Hopeless {
		r.unfit = d.Err
		r.cond = conditionFailed
		return
	}
	if d.Condition == conditionUnknown {
		d.Condition = conditionFailed
	}
	g.monitorFailed(now, r, d)
}

// monitorFailed is what on_fail says.
func (g *groupAgent) monitorFailed(now instant, r *resourceAgent, d actionDone) {
	told := r.ignored
	if r.ignored = r.config.OnFail == "ignore"; r.ignored {
		if !told {
			g.fail(now, r, d)
		}
		return
	}
	g.fail(now, r, d)
	switch r.config.OnFail {
	case "block", "move":
		r.hold = true
		r.cond = d.Condition
		return
	}
	r.cond = d.Condition
	if r.config.Type == "vip" {
		return // put back at once; what runs above does not depend on when
	}
	for i := slices.Index(g.res, r) + 1; i < len(g.res); i++ {
		g.res[i].mustStop = g.res[i].cond != conditionStopped
	}
}

// fail reports a failed operation.
func (g *groupAgent) fail(now instant, r *resourceAgent, d actionDone) {
	g.a.serial++
	if t := g.config.FailureTimeout.D(); t > 0 && now.sub(r.failedAt) > t {
		r.row = 0
	}
	r.row++
	r.failedAt = now
	r.failed = append(slices.DeleteFunc(r.failed, func(s uint64) bool { return s <= g.order.counted }), g.a.serial)
	r.failed = r.failed[max(0, len(r.failed)-untoldMax):]
	r.failedOp = d.Op
	g.a.outcomes = append(g.a.outcomes, outcome{kind: entryFailure, group: g.name, epoch: g.order.epoch, resource: r.config.Name,
		op: d.Op, reason: d.Err, tail: d.Tail, serial: g.a.serial, at: now, alone: g.order.alone})
}

// runs tells whether a resource is read back as running here.
func (a *agent) runs(group, resource string) bool {
	g := a.group(group)
	if g == nil {
		return false
	}
	r := g.resource(resource)
	return r != nil && r.cond == conditionRunning
}

// renumber begins to count failures from 1, as the state does from a join on; what is not told yet keeps its order.
func (a *agent) renumber(untold []outcome) {
	a.serial = 0
	for i := range untold {
		if untold[i].kind == entryFailure {
			a.serial++
			untold[i].serial = a.serial
		}
	}
	for _, g := range a.groups {
		for _, r := range g.res {
			r.failed = nil
		}
	}
}

// forgetEpochs: another incarnation counts its epochs on its own, and what was told of an equal number was another one.
func (a *agent) forgetEpochs() {
	for _, g := range a.groups {
		g.started, g.stopped = 0, 0
	}
}

// notice takes what a watcher saw: look now instead of later.
func (a *agent) notice(now instant, n noticed) {
	if g := a.group(n.Group); g != nil {
		if r := g.resource(n.Resource); r != nil {
			r.next = min(r.next, now)
			r.noticed = r.busy != 0 && r.op == opMonitor
		}
	}
}

// lookAt makes the monitors of what is replicated due, all of it or one DRBD resource.
func (a *agent) lookAt(now instant, resource string) {
	for _, g := range a.groups {
		for _, r := range g.res {
			if r.config.Type == "drbd" && (resource == "" || r.config.Resource == resource) {
				a.notice(now, noticed{Group: g.name, Resource: r.config.Name})
			}
		}
	}
}

// recheck makes every fitness check due: a link has changed.
func (a *agent) recheck() {
	for _, g := range a.groups {
		for _, r := range g.res {
			r.fitAt = 0
		}
	}
}

// reconfigure takes the group's new config: what changed in substance restarts, with what stands on it; an address
// carries nothing, so it changes alone.
func (g *groupAgent) reconfigure(now instant, next *GroupConfig) {
	old := g.res
	var res []*resourceAgent
	for _, c := range next.Resources {
		i := slices.IndexFunc(old, func(r *resourceAgent) bool { return r.config.Name == c.Name && !r.gone })
		if i < 0 || !sameSubstance(old[i].config, c) {
			res = append(res, &resourceAgent{config: c})
			continue
		}
		old[i].config = c
		res = append(res, old[i])
	}
	heavy := false
	for i, r := range old {
		if slices.Contains(res, r) {
			r.mustStop = r.mustStop || heavy && r.cond != conditionStopped
			continue
		}
		r.gone = true
		heavy = heavy || r.config.Type != "vip"
		// It is stopped under its old config, in its old place: after what stood on it, before anything starts.
		at := len(res)
		for _, above := range old[i+1:] {
			if j := slices.Index(res, above); j >= 0 {
				at = j
				break
			}
		}
		res = slices.Insert(res, at, r)
	}
	g.config, g.res = next, res
}

// sameResources tells whether a running group would notice no difference.
func (g *GroupConfig) sameResources(next *GroupConfig) bool {
	return g != nil && slices.EqualFunc(g.Resources, next.Resources, sameSubstance)
}

// sameSubstance tells whether two configs of a resource differ in nothing that a running one would notice.
func sameSubstance(a, b ResourceConfig) bool {
	for _, c := range []*ResourceConfig{&a, &b} {
		c.OnFail, c.State, c.Probe, c.Expect, c.StatusURL, c.TLSInsecure, c.ProbeWait, c.ProbeTimeout = "", "", "", nil, "", false, 0, 0
		c.Monitor.Interval, c.Monitor.Timeout, c.Start.Timeout, c.Stop.Timeout = 0, 0, 0, 0
		c.Monitor.Command = ""
	}
	return reflect.DeepEqual(a, b)
}
