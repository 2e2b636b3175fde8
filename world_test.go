// How does a whole cluster behave? A seeded world in memory for the stories and the simulator: machines with clocks,
// disks, resources and a network, and on each the real node over the real raft. One goroutine and a heap of
// (time, sequence, event); equal seeds and equal calls give equal runs, and the trace's hash proves it. Nothing here may
// look at what a node believes in order to act: a world does what it is told, and remembers what is true.

package main

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"
)

// world is everything around the nodes. Its time is the true one; machines have clocks of their own.
type world struct {
	now    time.Duration
	seq    uint64
	queue  happenings
	hosts  []*machine // in the order of the config
	net    worldNet
	trace  hash.Hash64
	config *Config // of the first founding: what the machines are called and where they are

	chance struct{ net, disk, act *rand.Rand } // one for each concern, so that a change in one leaves the others as they were

	told   func(at time.Duration, text string) // what people would see; nil: nobody looks
	checks worldChecks
	level  slog.Level
	power  []*worldDevice // fence devices that do not do as they should
}

// happening is one event of the world.
type happening struct {
	at  time.Duration
	seq uint64
	do  func()
}

type happenings []happening

func (q happenings) Len() int { return len(q) }
func (q happenings) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q happenings) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *happenings) Push(x any)   { *q = append(*q, x.(happening)) }
func (q *happenings) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = happening{}
	*q = old[:len(old)-1]
	return x
}

// worldEpoch is the wall clock at the world's beginning, for people's eyes only.
var worldEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newWorld makes machines for the nodes of a config; none runs. Raft draws its jitter from crypto/rand, which this makes
// repeatable too, so a world cannot be used in a parallel test.
func newWorld(t *testing.T, seed uint64, text []byte) (*world, error) {
	cryptotest.SetGlobalRandom(t, seed)
	cfg, problems := parseConfig(text)
	if errs, _ := countProblems(problems); errs > 0 {
		return nil, fmt.Errorf("config of the world:\n%s", renderProblems("ha.toml", problems))
	}
	w := &world{trace: fnv.New64a(), config: cfg, level: slog.LevelWarn}
	w.chance.net, w.chance.disk, w.chance.act = rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)), rand.New(rand.NewPCG(seed, 3))
	w.net.w, w.checks.w = w, w
	w.net.latency, w.net.jitter = 150*time.Microsecond, 100*time.Microsecond
	for _, n := range cfg.Nodes {
		w.hosts = append(w.hosts, newMachine(w, n.Name, text))
	}
	return w, nil
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
	heap.Push(&w.queue, happening{at, w.seq, do})
}

// step does the next happening that is due by limit; false when there is none, and then it is limit.
func (w *world) step(limit time.Duration) bool {
	if len(w.queue) == 0 || w.queue[0].at > limit {
		w.now = limit
		return false
	}
	h := heap.Pop(&w.queue).(happening)
	w.now = h.at
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
	var b [8]byte
	put := func(v uint64) {
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		w.trace.Write(b[:])
	}
	put(uint64(w.now))
	w.trace.Write([]byte(what))
	w.trace.Write([]byte(who))
	for _, v := range more {
		put(v)
	}
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
	w     *world
	name  string
	power bool
	boot  int // counts kernel boots
	clock worldClock
	wall  time.Duration // how far its wall clock is ahead
	disk  worldDisk
	run   leaseNote // /run/ha/lease: emptied by a reboot
	file  []byte    // /etc/ha.toml
	links []downed  // interfaces without a carrier
	wares []*ware   // resources that exist here, by group and name
	odds  []*odd    // operations that shall not go as they should
	life  *life     // the daemon's process; nil: not running
	dog   worldDog

	runs int           // of the daemon, for its session ids
	woke time.Duration // when it goes on after a standstill of all its clocks; 0: it never stood still
}

type downed struct{ iface string }

func newMachine(w *world, name string, text []byte) *machine {
	m := &machine{w: w, name: name, file: text}
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
	c.t0, c.l0, c.ppm = now, c.local(now), ppm
}

func (m *machine) now() instant { return m.clock.local(m.w.now) }

// powerOn boots the kernel; the daemon is another matter.
func (m *machine) powerOn() {
	if m.power {
		return
	}
	m.power = true
	m.boot++
	// Boottimes of machines have nothing to do with each other.
	m.clock.t0, m.clock.l0 = m.w.now, instant(10*time.Second)+instant(m.w.chance.act.Int64N(int64(1000*time.Second)))
	m.run, m.wares = leaseNote{}, nil
}

// powerOff is a power cut.
func (m *machine) powerOff() {
	m.kill()
	m.power = false
	m.disk.crash()
	for _, x := range m.wares {
		if x.up() {
			m.w.tell("%s: %s is gone with the machine", m.name, x.label())
		}
	}
	m.wares = nil
	m.dog.runs, m.dog.open = false, false
}

func (m *machine) bootID() string { return fmt.Sprintf("%s-boot-%d", m.name, m.boot) }

// life is one run of the daemon on a machine.
type life struct {
	m      *machine
	w      *world
	node   *node
	port   *worldPort
	timer  uint64 // the one that counts; others are stale
	due    time.Duration
	frozen bool                 // stopped by a signal: nothing is taken
	held   []func(*life)        // what waits for a frozen process
	fresh  time.Duration        // since when it runs unfrozen
	going  bool                 // it has been told to leave
	acts   map[uint64]*worldAct // running operations, by id
	fences []*worldFence        // running calls of fence devices
	shut   map[string]bool      // groups whose addresses are shut
	leases map[string]instant   // until when they may answer, as the node said last
	seen   watermarks
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
		if st, err := stateOf(rs); err == nil && st.Config.Effective != nil {
			inForce = st.Config.Effective
		}
	}
	m.runs++
	l := &life{m: m, w: m.w, acts: map[uint64]*worldAct{}, shut: map[string]bool{}, leases: map[string]instant{}, fresh: m.w.now}
	l.port = m.w.net.open(l, inForce)
	opt := nodeOptions{
		Name: m.name, Session: l.port.session.short(), Boot: m.bootID(), Bootstrap: bootstrap, Member: mem.ID, Born: m.now(),
		Wall: func() int64 { return worldEpoch.Add(m.w.now + m.wall).UnixNano() }, Random: m.w.random,
		Log: slog.New(worldLog{m}), Config: inForce, FileHash: configHash(m.file), FileText: compress(m.file), Restored: rs,
		Joined: m.disk.joined == m.bootID(), Fencer: l, Watchdog: l, DogLeft: m.dog.state(),
	}
	if m.run.Boot == m.bootID() {
		opt.Lease, opt.Caretaker = slices.Clone(m.run.Marks), m.run.Caretaker
	}
	n, err := newNode(m.now(), opt, l.port, l, l)
	if err != nil {
		return fmt.Errorf("start the daemon of %s: %w", m.name, err)
	}
	l.node, m.life = n, l
	m.w.after(0, func() { l.enter(func(l *life) { l.node.Tick(m.now()) }) })
	return nil
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
	do(l)
	l.arm()
	if l.going {
		if gone, _ := l.node.Gone(l.m.now()); gone {
			l.w.tell("%s: the daemon has ended", l.m.name)
			l.m.disk.flush()
			l.m.kill()
		}
	}
}

// arm sets the timer to when the node wants to be woken.
func (l *life) arm() {
	due := l.m.clock.when(l.node.Wake())
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
		l.timer++
		m.disk.killed()
		m.dog.closed()
		for _, a := range l.running() {
			a.abandoned()
		}
		for _, x := range m.wares { // what is shut is an address that is not there; only its daemon knew why
			x.suspended, x.heldUp = false, false
		}
		m.w.mark("killed", m.name)
	}
}

// freeze stops the process for a while, as SIGSTOP does; the kernel goes on.
func (l *life) freeze(d time.Duration) {
	l.frozen = true
	l.w.after(d, func() {
		if l.m.life != l {
			return
		}
		l.frozen = false
		l.fresh = l.w.now
		held := l.held
		l.held = nil
		// Its timer is over due as well; which of the two comes first is chance in the daemon's select.
		if l.w.chance.act.IntN(2) == 0 {
			l.enter(func(l *life) { l.node.Tick(l.m.now()) })
		}
		for _, do := range held {
			l.enter(do)
		}
		l.enter(func(l *life) { l.node.Tick(l.m.now()) })
	})
}

// stall stops the whole machine for a while, clocks and all, as a hypervisor's pause does.
func (m *machine) stall(d time.Duration) {
	m.clock.l0, m.clock.t0 = m.now(), m.w.now+d
	m.woke = m.clock.t0
	if m.life != nil {
		m.life.freeze(d)
	}
}

// still is for how much longer the machine stands still.
func (m *machine) still() time.Duration { return m.clock.t0 - m.w.now }

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
