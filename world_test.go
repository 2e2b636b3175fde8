// How does a whole cluster behave? A seeded world in memory for the stories and the simulator: machines with clocks,
// disks, resources and a network, and on each the real node over the real raft. One goroutine and a heap of
// (time, sequence, event); equal seeds and equal calls give equal runs, and the trace's hash proves it. Nothing here may
// look at what a node believes in order to act: a world does what it is told, and remembers what is true.

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// world is everything around the nodes. Its time is the true one; machines have clocks of their own.
type world struct {
	now    time.Duration
	seq    uint64
	queue  happenings
	hosts  []*machine // in the order of the config
	net    worldNet
	lan    worldLAN
	drbds  []*worldDRBD
	trace  uint64
	config *Config // of the first founding: what the machines are called and where they are

	chance struct{ net, disk, act, lan *rand.Rand } // one for each concern, so that a change in one leaves the others as they were

	told    func(at time.Duration, text string) // what people would see; nil: nobody looks
	checks  worldChecks
	touched []*machine // whose daemon took an event in this step
	truth   uint64     // counts changes of what is there and of who can take it away
	level   slog.Level
	power   []*worldDevice // fence devices that do not do as they should
	split   bool           // a decision of a process and its effect are two events
	cutting int            // calls of them that will still cut a machine off
	packed  map[string][]byte
}

// happening is one event of the world.
type happening struct {
	at  time.Duration
	seq uint64
	do  func()
}

type happenings []happening

func (q happenings) before(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

// push and pop keep a heap, as container/heap does, without a box for each item.
func (q *happenings) push(x happening) {
	h := append(*q, x)
	for i := len(h) - 1; i > 0 && h.before(i, (i-1)/2); i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
	*q = h
}

func (q *happenings) pop() happening {
	h := *q
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], happening{}
	h = h[:last]
	for i, k := 0, 1; k < last; i, k = k, 2*k+1 {
		if k+1 < last && h.before(k+1, k) {
			k++
		}
		if !h.before(k, i) {
			break
		}
		h[i], h[k] = h[k], h[i]
	}
	*q = h
	return first
}

// worldEpoch is the wall clock at the world's beginning, for people's eyes only.
var worldEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newWorld makes machines for the nodes of a config; none runs. Raft draws its jitter from crypto/rand, which this makes
// repeatable too, so a world cannot be used in a parallel test. Without a test the jitter is as it comes.
func newWorld(t *testing.T, seed uint64, text []byte) (*world, error) {
	if t != nil {
		cryptotest.SetGlobalRandom(t, seed)
	}
	cfg, problems := parseConfig(text)
	if errs, _ := countProblems(problems); errs > 0 {
		return nil, fmt.Errorf("config of the world:\n%s", renderProblems("ha.toml", problems))
	}
	w := &world{config: cfg, level: slog.LevelWarn}
	for i, r := range []**rand.Rand{&w.chance.net, &w.chance.disk, &w.chance.act, &w.chance.lan} {
		*r = rand.New(rand.NewPCG(seed, uint64(i)+1))
	}
	w.net.w, w.checks.w, w.lan.w = w, w, w
	w.net.latency, w.net.jitter = 150*time.Microsecond, 100*time.Microsecond
	for _, n := range cfg.Nodes {
		w.hosts = append(w.hosts, newMachine(w, n.Name, text))
	}
	w.replicate(cfg)
	return w, nil
}

// compressed is what each start of a daemon makes of its file anew.
func (w *world) compressed(text []byte) []byte {
	if w.packed == nil {
		w.packed = map[string][]byte{}
	}
	b, ok := w.packed[string(text)]
	if !ok {
		b = compress(text)
		w.packed[string(text)] = b
	}
	return slices.Clone(b)
}

func (w *world) host(name string) *machine {
	for _, m := range w.hosts {
		if m.name == name {
			return m
		}
	}
	return nil
}

// after lets something happen later.
func (w *world) after(d time.Duration, do func()) { w.at(w.now+max(d, 0), do) }

func (w *world) at(at time.Duration, do func()) {
	w.seq++
	w.queue.push(happening{at, w.seq, do})
}

// step does the next happening that is due by limit; false when there is none, and then it is limit.
func (w *world) step(limit time.Duration) bool {
	if len(w.queue) == 0 || w.queue[0].at > limit {
		w.now = limit
		return false
	}
	h := w.queue.pop()
	w.now = h.at
	w.touched = w.touched[:0]
	h.do()
	w.checks.run()
	return true
}

// run goes on for d, or until a check has failed.
func (w *world) run(d time.Duration) {
	limit := w.now + d
	for len(w.checks.broken) == 0 && w.step(limit) {
	}
}

// until goes on until the condition holds, at most for d.
func (w *world) until(d time.Duration, holds func() bool) bool {
	limit := w.now + d
	for !holds() {
		if len(w.checks.broken) > 0 || !w.step(limit) {
			return holds()
		}
	}
	return true
}

// mark adds to the trace.
func (w *world) mark(what, who string, more ...uint64) {
	h := mix(w.trace, uint64(w.now))
	for i := range len(what) {
		h = mix(h, uint64(what[i]))
	}
	for i := range len(who) {
		h = mix(h, uint64(who[i]))
	}
	for _, v := range more {
		h = mix(h, v)
	}
	w.trace = h
}

// mix is FNV-1a with words for bytes, of which the upper half is folded in.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 1099511628211
	return h ^ h>>32
}

func (w *world) tell(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mark(text, "")
	if w.told != nil {
		w.told(w.now, text)
	}
}

// machine is one computer: what a power cut, a reboot or a kill leaves of it is in its fields.
type machine struct {
	w        *world
	name     string
	power    bool
	boot     int // counts kernel boots
	clock    worldClock
	wall     time.Duration // how far its wall clock is ahead
	disk     worldDisk
	run      leaseNote // /run/ha/lease: emptied by a reboot
	file     []byte    // /etc/ha.toml
	links    []downed  // interfaces without a carrier
	wares    []*ware   // resources that exist here, by group and name
	odds     []*odd    // operations that shall not go as they should
	ended    bool      // the daemon has ended in good order, and was not started since
	life     *life     // the daemon's process; nil: not running
	dog      worldDog
	glimpsed uint64 // the incarnation that it lives in and must give up, since it has met a better one; 0: none
	word     bool   // an operator has said there that others are dead

	level int           // feature level of the binary that is installed there
	runs  int           // of the daemon, for its session ids
	slept time.Duration // since when all its clocks stood still the last time
	woke  time.Duration // when they go on; 0: they never stood still

	snag      time.Duration // its daemon freezes for so long before the next thing that it has decided has its effect
	unplugged bool          // its power is gone altogether, and not by a switch: what sits in it is dead too
	saidOff   int           // the last boot of which a fence device has said that it is off
	lied      string        // the last of them that was on
	liedIn    uint64        // id of the incarnation in which that counted; 0: not yet

	heard time.Duration // when a message that was sent after that first came to a daemon that had lived through it; 0: none yet
}

type downed struct{ iface string }

func newMachine(w *world, name string, text []byte) *machine {
	m := &machine{w: w, name: name, file: text, level: featureLevel}
	m.disk.m, m.dog.m = m, m
	m.disk.delay, m.disk.jitter = time.Millisecond, time.Millisecond
	return m
}

// worldClock is a machine's CLOCK_BOOTTIME: at true time t0 it shows l0, and runs ppm too fast.
type worldClock struct {
	t0  time.Duration
	l0  instant
	ppm int64
}

func (c worldClock) local(t time.Duration) instant {
	t = max(t, c.t0) // before that it stands still
	d := int64(t - c.t0)
	return c.l0 + instant(d+d/1e6*c.ppm+d%1e6*c.ppm/1e6)
}

// when is the first true time at which the clock shows at least at.
func (c worldClock) when(at instant) time.Duration {
	d := int64(at - c.l0)
	t := c.t0 + time.Duration(d-d/(1e6+c.ppm)*c.ppm)
	for c.local(t) >= at && t > c.t0 {
		t -= time.Microsecond
	}
	for c.local(t) < at {
		t += time.Duration(max(1, int64(at-c.local(t))*9/10))
	}
	return t
}

func (c *worldClock) setRate(now time.Duration, ppm int64) {
	c.l0, c.t0, c.ppm = c.local(now), max(now, c.t0), ppm
}

func (m *machine) now() instant { return m.clock.local(m.w.now) }

// after lets something happen on this machine, which waits while the machine stands still.
func (m *machine) after(d time.Duration, do func()) {
	m.w.after(d, func() { m.awake(do) })
}

func (m *machine) awake(do func()) {
	if m.still() > 0 {
		m.w.at(m.clock.t0, func() { m.awake(do) })
		return
	}
	do()
}

// powerOn boots the kernel; the daemon is another matter.
func (m *machine) powerOn() {
	if m.power {
		return
	}
	m.power, m.unplugged = true, false
	m.boot++
	m.w.truth++
	// Boottimes of machines have nothing to do with each other.
	m.clock.t0, m.clock.l0 = m.w.now, instant(10*time.Second)+instant(m.w.chance.act.Int64N(int64(1000*time.Second)))
	m.run, m.wares, m.ended = leaseNote{}, nil, false
}

// orphans: somebody is there again who can take away what was up in the meantime.
func (m *machine) orphans() {
	for _, x := range m.wares {
		if x.present {
			x.orphan = m.w.now
		}
	}
}

// powerOff is a power cut.
func (m *machine) powerOff() {
	m.kill()
	m.power, m.woke = false, 0
	m.w.truth++
	m.disk.crash()
	for _, x := range m.wares {
		if x.up() {
			m.w.tell("%s: %s is gone with the machine", m.name, x.label())
		}
	}
	m.wares = nil
	for _, s := range m.copies() {
		s.frozen, s.alone = false, false
		s.calls++
	}
	m.dog.runs, m.dog.open = false, false
}

func (m *machine) bootID() string { return fmt.Sprintf("%s-boot-%d", m.name, m.boot) }

// life is one run of the daemon on a machine.
type life struct {
	m        *machine
	w        *world
	node     *node
	port     *worldPort
	timer    uint64 // the one that counts; others are stale
	due      time.Duration
	asked    instant       // by the node, for due
	by       worldClock    // at that time
	frozen   bool          // stopped by a signal: nothing is taken
	thawAt   time.Duration // when it goes on at the earliest
	began    time.Duration
	held     []func(*life)        // what waits for a frozen process
	thaw     []func()             // what the process itself was about to do when it was frozen
	awake    bool                 // it has had its first look around
	going    bool                 // it has been told to leave
	acts     map[uint64]*worldAct // running operations, by id
	fences   []*worldFence        // running calls of fence devices
	shut     map[string]bool      // groups whose addresses are shut
	leases   map[string]instant   // until when they may answer, as the node said last
	wired    *Config              // whom it talks to
	retiring []string             // of them, those who are no longer in the config
	seen     watermarks
	beaten   bool     // it knows a better life of the cluster than its own
	ruled    *Verdict // of the last decision that was counted
}

// start starts the daemon, as daemon.go does.
func (m *machine) start(bootstrap bool) error {
	if m.life != nil {
		return fmt.Errorf("the daemon of %s runs already", m.name)
	}
	m.powerOn()
	rs, mem := m.disk.open()
	cfg, problems := parseConfig(m.file)
	if errs, _ := countProblems(problems); errs > 0 {
		return fmt.Errorf("file of %s: %s", m.name, renderProblems("ha.toml", problems))
	}
	inForce := cfg
	if rs != nil {
		st, err := stateOf(rs)
		if err == nil && m.tooOld(st, rs.Entries, m.level) {
			return nil
		}
		if err == nil && st.Config.Effective != nil {
			inForce = st.Config.Effective
		}
	}
	if inForce.node(m.name) == nil {
		inForce = cfg // it had been removed, and is in its file again
	}
	m.runs++
	m.ended = false
	m.orphans()
	l := &life{m: m, w: m.w, acts: map[uint64]*worldAct{}, shut: map[string]bool{}, leases: map[string]instant{}, began: m.w.now}
	l.wired = inForce
	l.port = m.w.net.open(l, inForce)
	opt := nodeOptions{
		Name: m.name, Session: l.port.session.short(), Boot: m.bootID(), Bootstrap: bootstrap, Level: m.level, Member: mem.ID, Born: m.now(),
		Wall: func() int64 { return worldEpoch.Add(m.w.now + m.wall).UnixNano() }, Random: m.w.random,
		Log: slog.New(worldLog{m}), Config: inForce, FileHash: configHash(m.file), FileText: m.w.compressed(m.file), Restored: rs,
		Listed: cfg.node(m.name) != nil, Joined: m.disk.joined == m.bootID(), Fencer: l, Watchdog: l, DogLeft: m.dog.state(),
		Met: m.disk.met,
	}
	if m.run.Boot == m.bootID() {
		opt.Lease, opt.Caretaker = slices.Clone(m.run.Marks), m.run.Caretaker
	}
	n, err := newNode(m.now(), opt, l.port, l, l)
	if err != nil {
		return fmt.Errorf("start the daemon of %s: %w", m.name, err)
	}
	l.node, m.life = n, l
	m.after(0, func() {
		l.awake = true
		m.w.truth++
		l.enter(func(l *life) { l.node.Tick(m.now()) })
	})
	return nil
}

// tooOld: the daemon takes no part in what it does not know.
func (m *machine) tooOld(s *State, entries []*raftpb.Entry, level int) bool {
	err := checkLevel(s, entries, level)
	if err == nil {
		return false // asked after each event
	}
	var old *tooOld
	if !errors.As(err, &old) {
		return false
	}
	m.w.tell("%s: the cluster is at feature level %d, and this daemon, which knows no more than %d, takes no part", m.name, old.level, level)
	m.w.checks.meet("too old")
	return true
}

// random is for member and incarnation ids: never 0, never one of raft's own.
func (w *world) random() uint64 { return w.chance.disk.Uint64()>>8 + 1 }

// enter gives the process an event. A frozen one finds it when it goes on.
func (l *life) enter(do func(*life)) {
	if l.m.life != l {
		return // it is dead
	}
	if l.frozen {
		if len(l.held) < eventQueue {
			l.held = append(l.held, do)
		}
		return
	}
	l.w.touched = append(l.w.touched, l.m)
	do(l)
	if l.m.tooOld(l.node.state, nil, l.node.opt.Level) {
		l.m.kill()
		return
	}
	l.retire()
	l.arm()
	if l.going {
		if gone, _ := l.node.Gone(l.m.now()); gone {
			l.w.tell("%s: the daemon has ended", l.m.name)
			l.m.disk.flush()
			l.m.kill()
			l.m.ended = true
		}
	}
}

// arm sets the timer to when the node wants to be woken.
func (l *life) arm() {
	if l.due >= 0 && l.asked == l.node.Wake() && l.by == l.m.clock {
		return
	}
	l.asked, l.by = l.node.Wake(), l.m.clock
	due := l.m.clock.when(l.asked)
	if due == l.due {
		return
	}
	l.timer++
	l.due = due
	token := l.timer
	l.w.at(max(due, l.w.now), func() {
		if token == l.timer {
			l.due = -1
			l.enter(func(l *life) { l.node.Tick(l.m.now()) })
		}
	})
}

// kill ends the process at once; what it runs goes on.
func (m *machine) kill() {
	if l := m.life; l != nil {
		m.life = nil
		m.w.truth++
		l.timer++
		m.disk.killed()
		m.dog.closed()
		for _, a := range l.running() {
			a.abandoned()
		}
		for _, x := range m.wares { // what is shut is an address that is not there; only its daemon knew why
			x.suspended, x.heldUp, x.watched, x.waiting = false, false, false, 0
		}
		m.w.mark("killed", m.name)
	}
}

// freeze stops the process for a while, as SIGSTOP does; the kernel goes on.
func (l *life) freeze(d time.Duration) {
	l.frozen = true
	l.thawAt = max(l.thawAt, l.w.now+d)
	l.w.truth++
	l.m.after(d, func() {
		if l.m.life != l || !l.frozen || l.w.now < l.thawAt {
			return
		}
		l.frozen = false
		l.w.truth++
		l.m.orphans()
		held, thaw := l.held, l.thaw
		l.held, l.thaw = nil, nil
		// Its timer is over due as well; which of them comes first is chance in the daemon's select, and of its threads.
		if l.w.chance.act.IntN(2) == 0 {
			l.enter(func(l *life) { l.node.Tick(l.m.now()) })
		}
		for _, do := range thaw {
			do()
		}
		for _, do := range held {
			l.enter(do)
		}
		l.enter(func(l *life) { l.node.Tick(l.m.now()) })
	})
}

// stall stops the whole machine for a while, clocks and all, as a hypervisor's pause does.
func (m *machine) stall(d time.Duration) {
	if m.still() <= 0 {
		m.slept = m.w.now
	}
	m.woke, m.heard = max(m.woke, m.w.now+d), 0
	m.clock.l0, m.clock.t0 = m.now(), m.woke
	m.w.truth++
	m.w.at(m.woke, func() { m.w.truth++ })
	if m.life != nil {
		m.life.freeze(m.woke - m.w.now)
	}
}

// still is for how much longer the machine stands still.
func (m *machine) still() time.Duration { return max(0, m.clock.t0-m.w.now) }

// stood tells whether the machine stands still, or did and cannot know it: its clocks do not tell, but the first message
// from a peer that it has heard before does. docs/design.md section 4 says so. If either's daemon was not there then, the
// revoke tells, or the end of the lease.
func (m *machine) stood() bool {
	since, lease := m.w.now-m.woke, m.w.config.lease()
	for _, x := range m.w.hosts { // an edit may have made leases longer
		if x.life != nil {
			lease = max(lease, x.life.node.longestLease())
		}
	}
	return m.woke != 0 && (since < standstillGrace || m.heard == 0 && since < 2*lease || m.heard != 0 && m.w.now-m.heard < standstillGrace)
}

// best is the node that knows most: what an operator would ask.
func (w *world) best() *node {
	var best *node
	for _, m := range w.hosts {
		if m.life == nil || m.life.node.state == nil || m.life.frozen {
			continue
		}
		n := m.life.node
		if best == nil || n.state.Incarnation.Counter > best.state.Incarnation.Counter ||
			n.state.Incarnation.Counter == best.state.Incarnation.Counter && n.state.Index > best.state.Index {
			best = n
		}
	}
	return best
}

// worldLog passes on what a daemon would print, but for what is in the history, which the world tells itself.
type worldLog struct{ m *machine }

// historyOnly are the events that come through the log on every node.
var historyOnly = []string{eventFounded, eventForced, eventConfig, eventJoined, eventLost, eventBack, eventLeft, eventMember, eventPlaced,
	eventStarted, eventRevoked, eventStopped, eventFreed, eventBlocked, eventRemoved, eventFailure, eventExpired, eventRetry, eventUnfit,
	eventFit, eventPinned, eventUnpinned, eventStandby, eventOnline, eventMaintenance, eventMaintained, eventCleaned, eventConfirmDead,
	eventFeature, eventLeaseShorter, eventUnreached, eventReached, eventFlaps, eventBounces,
	eventFenceAsked, eventFenced, eventFenceFailed, eventFenceDropped, eventDeviceFailed, eventDeviceMended}

// telling are those of lower levels that belong to a tale all the same.
var telling = []string{"lease-back", "caretaker-off", "yielded", "store-mended", "isolated-over"}
