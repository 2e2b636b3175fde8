// What does this node do next? node joins the pure parts (engine, rules, lease, liveness, agent) and raft to the seams.
// It runs on one goroutine, never blocks, and knows the time only as the value it is called with: the daemon's loop and
// a simulator drive the same code. Every call is one event; advance then does all that follows from it.
//
// The parts: node_raft.go (log, founding, incarnations), node_lease.go (heartbeats, grants, orders for the agent),
// node_gate.go (the end of a grant, as the kernel holds it), node_watchdog.go (what resets this host), node_sick.go (whether
// it is well), node_lead.go (the leader's view and every proposal), node_fence*.go (who is cut off), node_command.go (the
// operator), node_status.go (what is shown).

package main

import (
	"log/slog"
	"time"
)

// nodeOptions is what a node is born with.
type nodeOptions struct {
	Name      string
	Session   uint64 // of the transport
	Boot      string // kernel boot id
	Bootstrap bool   // found a cluster without waiting for the other voters
	Level     int    // feature level that this binary can do
	Member    uint64 // raft id from the state folder
	Born      instant
	Wall      func() int64  // Unix ns, for people
	Random    func() uint64 // member and incarnation ids
	Log       *slog.Logger
	Config    *Config     // of the file; used until the cluster's own is known
	FileHash  string      // of that file's text
	FileText  []byte      // gzip
	Listed    bool        // that file has this node
	Restored  *restored   // what the state folder held
	Joined    bool        // this node has joined since its kernel booted
	Lease     []leaseMark // what the last process was granted, if in this boot
	Caretaker bool        // and whether it was a caretaker
	Met       meeting     // better incarnations that were glimpsed, before a reboot too
	Watchdog  watchdog    // nil: none
	DogLeft   dogState    // what a process before this one left running
	Fencer    fencer      // calls the fence devices of the config
}

// leaseMark is how long a group was granted; kept in /run/ha so that a restarted daemon knows.
type leaseMark struct {
	Group string  `json:"group"`
	Epoch uint64  `json:"epoch"`
	Until instant `json:"until"`
}

// keeper is the rest of the state folder: what is not raft's.
type keeper interface {
	store
	// KeepLease remembers what is granted, in a folder that a reboot empties. It does not wait for a disk.
	KeepLease(marks []leaseMark, caretaker bool)
	// KeepJoined remembers that this node has joined since its kernel booted.
	KeepJoined()
	// KeepMeeting remembers, beyond a reboot, which peers were heard in an incarnation that this node's yields to.
	KeepMeeting(m meeting)
	// Accept is told each config generation that came into force here.
	Accept(c ConfigState)
}

type node struct {
	opt    nodeOptions
	name   string
	log    *slog.Logger
	tr     transport
	act    actuator
	keep   keeper
	config *Config // in force: the state's, or the file's before there is a state

	// the log
	member     uint64
	replayed   uint64     // entries up to here were applied before this process: no news
	returning  bool       // not looked yet whether the cluster had removed this node before this process
	cons       *consensus // nil: blank and nobody has spoken to us yet
	life       uint32
	state      *State // nil: blank
	clock      nodeClock
	stateHash  uint64
	nextTick   instant
	storeErr   string // the last write could not be stored
	storeBad   instant
	confs      []uint64 // indexes of the last two changes of members in the log on this disk
	alone      uint64   // incarnation that this process has forced
	vouched    uint64   // incarnation that may go on although the other has not been met, since it is off or its operator says so
	forcedAt   instant
	blindUntil instant // the loop stood still: silence until now proves nothing
	doubtUntil instant // this node stood still: whether it has a majority is not known before
	lastRun    instant
	yielded    string  // why the state was set aside; everything that still runs must stop
	disowned   instant // when the leader first said that this node is no member; 0: it has not
	lostFork   string  // an incarnation that was given up and is no ancestor of the one that lives
	lostForkAt instant
	met        meeting // what KeepMeeting was told last

	// liveness and leases
	peers       peers
	bootPrefix  lastPrefix // as each heartbeat
	filePrefix  lastPrefix // has them
	grants      grants
	ledger      ledger
	waits       []*waiting
	holds       []hold // of revokes stored here, told again with each beat until settled
	nextBeat    instant
	lapsed      []lapse
	closing     []leaseMark // of revoked groups that are being stopped: when their leases end
	gates       []gateWord
	caretaker   bool
	marks       []leaseMark // what was granted in this boot, by this process or the one before
	quorumNow   bool
	quorumSince instant // since when quorumNow is what it is
	quorumTold  bool    // what the log says
	quorumAt    instant // when a leader was last known here
	reach       reach
	reachFor    *Config // whose targets reach has
	isolated    isolation
	paused      standstill
	hearing     instant // since when this node hears a majority of the voters; 0: it does not
	unfound     string  // why no cluster is founded yet

	// what ends a lease here when this process cannot: see node_watchdog.go
	gateKind  string // gate*
	gateSlack time.Duration
	dog       dogCare
	doom      doom
	vitals    vitals

	// leading and proposing
	agent      agent
	outcomes   []outcome
	proposals  []proposal
	accepted   uint64 // config generation that the shell was told
	configAt   instant
	proven     uint64 // generation with which a majority was heard
	joined     bool   // this session's join is applied
	joining    bool   // and has been proposed
	leaving    bool
	restarting bool // the next daemon follows at once
	left       bool
	verdicts   []Verdict
	ruled      []string // cluster rules that matched when these were made
	noLease    []noLeaseSince
	fence      fenceDesk
	confAt     instant // when a change of members was last proposed
	confKnown  instant // when one was last applied here
	transfer   instant // when leadership was last handed over
	decideAt   instant
	led        bool // it led when it decided last

	seen     []copySeen // of what this node writes, as the last monitor of each has read it
	guards   []copySeen // the same, but until it is stopped
	refused  string     // group and epoch of the handler of DRBD's that was refused last
	waiters  []*waiter
	version  uint64    // counts changes that status may show
	dueAt    instant   // when advance must run at the latest
	problems []Problem // from the shell: config file, clocks, keys
}

// nodeClock is the cluster time as this node has counted it on. Entries may come from one who has counted less of it, since it
// was not there: that must not take back what was counted here.
type nodeClock struct {
	incarnation uint64
	was         time.Duration
	at          instant
}

// lapse is a group that this node owns and has no lease for.
type lapse struct {
	group  string
	since  instant
	told   bool    // it had one before, and the log says that it is over
	kept   bool    // by no_quorum = "freeze" nothing is stopped yet
	said   bool    // the log says so
	frozen instant // its data was last seen frozen
}

type noLeaseSince struct {
	node    string
	session uint64
	since   instant
}

// newNode makes a node. Nothing is sent or started before the first event.
func newNode(now instant, opt nodeOptions, tr transport, act actuator, keep keeper) (*node, error) {
	n := &node{opt: opt, name: opt.Name, log: opt.Log, tr: tr, act: act, keep: keep, config: opt.Config, member: opt.Member,
		marks: opt.Lease, caretaker: opt.Caretaker}
	n.peers.self = opt.Name
	n.ledger.born = now
	n.dog.is = opt.DogLeft
	n.nextTick, n.nextBeat = now, now
	if opt.Restored == nil {
		return n, nil
	}
	if err := n.load(now, opt.Restored); err != nil {
		return nil, err
	}
	n.recall(now, opt.Met)
	return n, nil
}

func (n *node) deadtime() time.Duration { return n.config.Heartbeat.Deadtime.D() }

// Tick is the event that time has passed.
func (n *node) Tick(now instant) {
	was := n.standing()
	n.countTurn(now)
	if n.steady(now) && n.rests(now, was) {
		return
	}
	n.advance(now)
}

// ActionDone is the event that an operation has ended.
func (n *node) ActionDone(now instant, d actionDone) {
	n.agent.done(now, d)
	n.noteCopies(d)
	if d.Op != opMonitor || d.Err != "" {
		n.version++
	}
	n.advance(now)
}

// Noticed is the event that a resource's watcher saw something.
func (n *node) Noticed(now instant, x noticed) {
	n.agent.notice(now, x)
	n.advance(now)
}

// LinksChanged is the event that an interface has come, gone, or changed its carrier.
func (n *node) LinksChanged(now instant) {
	n.agent.recheck()
	n.version++
	n.advance(now)
}

// Saved is the event that a write is durable, or could not be made so; the store goes on trying.
func (n *node) Saved(now instant, s saved) {
	if s.Err != "" {
		if n.storeErr == "" {
			n.storeBad = now
			n.log.Error("state cannot be stored; nothing that depends on it is done until it can", "event", "store-failed", "err", s.Err)
		}
		n.storeErr = s.Err
		n.version++
		n.advance(now)
		return
	}
	if n.storeErr != "" {
		n.log.Info("state can be stored again", "event", "store-mended")
		n.storeErr = ""
		n.version++
	}
	n.savedUpTo(now, s.Done)
	n.persisted(now, s.Done)
	n.advance(now)
}

// Problems is the event that what the shell has to complain about changed.
func (n *node) Problems(now instant, p []Problem) {
	n.problems = p
	n.version++
	n.advance(now)
}

// Wake is when Tick should be called at the latest. Raft's ticks wait for the next event, as long as tickRaft makes up for
// them, where they have nothing to do or a leader's heartbeats leave with this node's own.
func (n *node) Wake() instant {
	tick := n.nextTick
	if n.cons != nil && (n.cons.Quiet(ticksAtOnce) || n.beatsAlike()) {
		tick = tick.add((ticksAtOnce - 1) * n.config.raftTick())
	}
	return min(n.dueAt, tick)
}

// beatsAlike: this node leads, and raft's heartbeats have the pace of its own.
func (n *node) beatsAlike() bool {
	return n.cons != nil && n.cons.Status().Role == roleLeader && n.config.leaderBeat() == n.config.Heartbeat.Interval.D()
}

// advance does all that follows from an event. Each round may make more to do (a commit leads to a start, a report to a
// proposal); the rounds end when the log is at rest.
func (n *node) advance(now instant) {
	n.dueAt = now.add(n.deadtime())
	n.tickRaft(now)
	for range 16 {
		if !n.drain(now) {
			break
		}
	}
	n.rejoin(now)
	n.keepMeeting()
	n.found(now)
	n.tellSick(now)
	n.beat(now)
	n.judgeQuorum(now)
	n.askTargets(now)
	n.forceIfIgnored(now)
	n.fencing(now)
	n.lead(now)
	n.tendWatchdog(now)
	n.orderAgent(now)
	n.report(now)
	n.resetIfDoomed(now)
	for range 16 {
		if !n.drain(now) {
			break
		}
	}
	n.checkWaiters(now)
	n.wake(n.nextBeat)
	if n.dueAt <= now {
		n.dueAt = now + 1
	}
}

func (n *node) wake(at instant) {
	if at != 0 && at < n.dueAt {
		n.dueAt = at
	}
}

// tickRaft moves raft's clock. After a pause it catches up by a few ticks only: a node that stood still must not think
// that the others have been silent.
func (n *node) tickRaft(now instant) {
	tick := n.config.raftTick()
	if n.cons == nil || n.beaten() {
		n.nextTick = now.add(tick)
		return
	}
	for i := 0; n.nextTick <= now && i < ticksAtOnce; i++ {
		n.cons.Tick()
		n.nextTick = n.nextTick.add(tick)
	}
	if n.nextTick <= now {
		n.nextTick = now.add(tick)
	}
}
