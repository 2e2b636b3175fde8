// Which cluster does a seed make, and what must be true of it in the end? One simulation: a cluster that comes up, a
// minute in which things happen to it, a repair such as a good operator does, and then the demand that all is well within
// a bound and stays quiet. Nothing here acts on what a node believes, but the operator, who may look at `status`.

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Kinds of simulations.
const (
	simChaos  = "chaos"  // anything
	simSingle = "single" // one failure that touches neither owner nor data: the service must not be interrupted
	simCold   = "cold"   // power cuts of everything
	simDeath  = "death"  // the owner dies, all else is well: somebody else serves within the promised time
)

// interesting are situations that a batch has to come to; see worldChecks.meet.
var interesting = []string{
	"cold start", eventBlocked, eventForced, "learner again", "caretaker-on", "lease-over", "lease-back", "yielded", "store-failed",
	"incarnation-met", "crash while the folder is replaced", eventMaintained, eventRemoved, eventRetry, eventConfirmDead, eventUnfit,
	"single failure", "frozen owner", "stalled owner", "late end", eventLeft, "leader-hand-over", eventLeaseShorter,
	"decided and not told", "an operator's wrong word", "reset", "too old", "an old state folder", "a crash while it is forced",
	eventFeature, "group-kept",
}

// simRun is one seed.
type simRun struct {
	t       *testing.T
	seed    uint64
	kind    string
	chance  *rand.Rand
	extra   *rand.Rand   // for what only some clusters have
	more    *rand.Rand   // for what an operator does with a daemon and its folder
	tune    *rand.Rand   // for what an operator does with DRBD
	lives   *rand.Rand   // for what two nodes do without each other
	newer   bool         // its nodes get a newer version one after the other
	split   bool         // see sim_effect_test.go
	onboard bool         // their fence devices have the power of the machine
	setup   clusterSetup // as it was founded
	story   *story
	w       *world
	begun   time.Duration // when the cluster had come up
	end     time.Duration // of the bad time
	script  []simStep     // play these, instead of drawing; nil: draw
	played  []simStep     // what happened, with its time
	pending []simStep     // what will end by itself, by time
	repairs []simStep
	looks   int // of the operator after the repair
	failed  []string
	look    func()        // at what has become of it before the repair
	mark    uint64        // of the situation then, where it is asked for
	settled time.Duration // how long it took after the repair
}

type simStep struct {
	at   time.Duration
	line string
}

func newSimRun(t *testing.T, seed uint64) *simRun {
	s := &simRun{t: t, seed: seed, chance: rand.New(rand.NewPCG(seed, 100)), extra: rand.New(rand.NewPCG(seed, 101)),
		more: rand.New(rand.NewPCG(seed, 102)), tune: rand.New(rand.NewPCG(seed, 104)), lives: rand.New(rand.NewPCG(seed, 105))}
	s.kind = []string{simChaos, simChaos, simChaos, simChaos, simChaos, simSingle, simCold, simDeath}[s.chance.IntN(8)]
	s.setup = s.draw()
	s.drawReplica()
	s.drawFences(&s.setup)
	s.drawTargets(&s.setup)
	s.split = s.extra.IntN(3) == 0
	s.newer = (s.kind == simChaos || s.kind == simCold) && s.more.IntN(3) == 0
	return s
}

// again is the same simulation with other faults.
func (s *simRun) again(script []simStep) *simRun {
	n := newSimRun(s.t, s.seed)
	n.script = slices.Clone(script)
	if n.script == nil {
		n.script = []simStep{}
	}
	return n
}

// drawReplica puts what is mounted on DRBD in some clusters.
func (s *simRun) drawReplica() {
	chance := rand.New(rand.NewPCG(s.seed, 103))
	if !strings.Contains(s.setup.groups, simMount) || chance.IntN(2) == 0 {
		return
	}
	name := "r0"
	if chance.IntN(4) == 0 {
		name = unfenced
	}
	if kept := rand.New(rand.NewPCG(s.seed, 106)); name != unfenced && len(s.setup.nodes) > 2 && kept.IntN(2) == 0 {
		s.setup.set("no_quorum", "freeze")
		if kept.IntN(2) == 0 {
			s.setup.watchdog = nil // with one it has no effect
		}
	}
	s.setup.groups = onReplica(s.setup.groups, name)
}

// onReplica puts what is mounted on a DRBD resource.
func onReplica(groups, name string) string {
	return strings.Replace(groups, simMount, fmt.Sprintf("type = \"drbd\"\nresource = %q\n", name)+simTimes+
		"[[group.resource]]\n"+strings.Replace(simMount, "/dev/sdb1", "/dev/drbd0", 1), 1)
}

// simGroups are what the clusters run. Timeouts are short, so that a hanging operation ends within a simulation.
var simGroups = []string{
	simGroup("web", "", simVIP(100), simHTTPD),
	simGroup("web", "failback = \"always\"\nprefer = [\"bob\"]\n", simVIP(100), simHTTPD),
	simGroup("data", "prefer = [\"alice\"]\n", simMount, simVIP(100), simHTTPD),
	simGroup("data", "", simMount, simVIP(100)),
	simGroup("web", "migration_threshold = 2\n", simVIP(100), strings.Replace(simHTTPD, "\n", "\non_fail = \"block\"\n", 1)) +
		simGroup("blue", "apart = [\"web\"]\n", simVIP(101)),
	simGroup("data", "", simMount, simVIP(100)) + simGroup("app", "after = [\"data\"]\n", simVIP(101), simHTTPD) +
		simGroup("side", "with = [\"data\"]\n", simVIP(102)),
	simGroup("web", "", simVIP(100), strings.Replace(simHTTPD, "\n", "\non_fail = \"move\"\n", 1)) + simGroup("blue", "", simVIP(101)),
}

const (
	simTimes = "start = { timeout = \"2s\" }\nstop = { timeout = \"2s\" }\nmonitor = { interval = \"2s\", timeout = \"1s\" }\n"
	simHTTPD = "type = \"httpd\"\n" + simTimes
	simMount = "type = \"filesystem\"\ndevice = \"/dev/sdb1\"\ndirectory = \"/srv\"\nfstype = \"ext4\"\n" + simTimes
)

func simVIP(n int) string {
	return fmt.Sprintf("type = \"vip\"\naddress = \"192.168.10.%d\"\ninterface = \"eth0\"\n", n) + simTimes
}

func simGroup(name, keys string, resources ...string) string {
	text := fmt.Sprintf("[[group]]\nname = %q\nfailure_timeout = \"20s\"\n", name) + keys
	for _, r := range resources {
		text += "[[group.resource]]\n" + r
	}
	return text
}

// draw makes the cluster of a seed.
func (s *simRun) draw() clusterSetup {
	names := [][]string{
		{"alice", "bob"}, {"alice", "bob"},
		{"alice", "bob", "carol=witness"}, {"alice", "bob", "carol=witness"}, {"alice", "bob", "carol=witness"}, {"alice", "bob", "carol"},
		{"alice", "bob", "carol", "dave=witness"},
		{"alice", "bob", "carol", "dave=witness", "erin=witness"},
	}
	if s.kind == simSingle || s.kind == simDeath {
		names = names[2:]
	}
	c := clusterSetup{nodes: names[s.chance.IntN(len(names))], groups: simGroups[s.chance.IntN(len(simGroups))]}
	if s.kind == simDeath && strings.Contains(c.groups, "apart") {
		c.groups = simGroups[0] // with one node left, the later of two that run apart has none
	}
	times := [][2]string{{"1s", "100ms"}, {"1s", "100ms"}, {"1s", "100ms"}, {"400ms", "50ms"}, {"2s", "200ms"}}[s.chance.IntN(5)]
	c.deadtime, c.interval = times[0], times[1]
	if strings.Contains(c.groups, "filesystem") && s.chance.IntN(4) != 0 { // what is stateful is then ended by a reset
		c.set("watchdog", map[string]string{"400ms": "1s", "1s": "2s", "2s": "4s"}[c.deadtime])
	}
	if len(c.nodes) == 2 {
		c.set("two_node", []string{"manual", "ignore"}[s.chance.IntN(2)])
		if s.chance.IntN(4) == 0 {
			c.set("wait_for_all", "false")
		}
	}
	return c
}

func (s *simRun) ignores() bool {
	return slices.Contains(s.setup.cluster, "two_node = \"ignore\"\n")
}

// heading is the directive of a story that makes this cluster.
func (s *simRun) heading() string {
	line := fmt.Sprintf("cluster %s deadtime=%s interval=%s", strings.Join(s.setup.nodes, " "), s.setup.deadtime, s.setup.interval)
	for _, c := range s.setup.cluster {
		key, value, _ := strings.Cut(strings.TrimSpace(c), " = ")
		line += " " + key + "=" + strings.Trim(value, "[\"]")
	}
	if s.setup.fenced {
		line += " fenced"
	}
	if s.setup.levels {
		line += " levels"
	}
	if len(s.setup.watchdog) > 0 {
		line += " watchdog=" + s.w.config.Watchdog.Timeout.String()
	}
	if s.split {
		line += " split"
	}
	return fmt.Sprintf("%s seed=%d\n%s", line, s.seed, s.setup.groups)
}

func (s *simRun) fail(format string, args ...any) {
	s.failed = append(s.failed, fmt.Sprintf(format, args...))
}

// problems is what went wrong.
func (s *simRun) problems() []string {
	if s.w == nil {
		return s.failed
	}
	return slices.Concat(s.w.checks.broken, s.failed)
}

// run is the whole of it.
func (s *simRun) run() {
	w, err := newWorld(s.t, s.seed, s.setup.text())
	if err != nil {
		s.fail("%v", err)
		return
	}
	s.w, s.story = w, &story{t: s.t, w: w, worlds: []*world{w}, setup: s.setup}
	w.told = func(at time.Duration, text string) { s.story.say("%10.4fs  %s", at.Seconds(), text) }
	w.split = s.split
	if s.ignores() {
		// In a partition, or when the other is merely frozen, silence is taken for death: two owners, two addresses and lost
		// writes are what this mode cannot prevent. What it keeps is checked all the same: nothing goes back, equal logs give
		// equal states, maintenance is respected, and after the repair there is one owner of everything.
		for _, g := range w.config.Groups {
			w.checks.allowed = append(w.checks.allowed, g.Name)
		}
	}
	for _, m := range w.hosts {
		if err := m.start(false); err != nil {
			s.fail("%v", err)
			return
		}
	}
	if !w.until(20*time.Second, w.settled) {
		s.fail("the cluster does not come up: %s", s.story.where())
		return
	}
	w.run(w.now.Truncate(time.Second) + time.Second - w.now)
	w.lan.watch(w.config)
	s.begun = w.now
	s.story.say("%10.4fs  it is up", w.now.Seconds())
	s.badTime()
	if s.look != nil {
		s.look()
	}
	if len(s.problems()) == 0 {
		s.repair()
	}
}

// play does a line, and notes it if it could be done.
func (s *simRun) play(line string) bool {
	at := len(s.story.out.String())
	s.story.say("%10.4fs  > %s", s.w.now.Seconds(), line)
	err := s.story.verb(strings.Fields(line))
	if len(s.story.failed) > 0 {
		err, s.story.failed = fmt.Errorf("%s", s.story.failed[0]), nil
	}
	if err != nil {
		text := s.story.out.String()[:at]
		s.story.out.Reset()
		s.story.out.WriteString(text)
		return false
	}
	s.played = append(s.played, simStep{s.w.now - s.begun, line})
	return true
}

// later lets a line be played in a while.
func (s *simRun) later(d time.Duration, format string, args ...any) {
	step := simStep{s.w.now - s.begun + d, fmt.Sprintf(format, args...)}
	i, _ := slices.BinarySearchFunc(s.pending, step, func(a, b simStep) int {
		if a.at <= b.at {
			return -1
		}
		return 1
	})
	s.pending = slices.Insert(s.pending, i, step)
}

// goTo plays what is pending until then.
func (s *simRun) goTo(at time.Duration) {
	for len(s.pending) > 0 && s.pending[0].at <= at && len(s.w.checks.broken) == 0 {
		step := s.pending[0]
		s.pending = s.pending[1:]
		s.w.run(s.begun + step.at - s.w.now)
		if len(s.w.checks.broken) == 0 {
			s.play(step.line)
		}
	}
	s.w.run(s.begun + at - s.w.now)
}

// badTime is what the seed, or the script, has in store.
func (s *simRun) badTime() {
	if s.script != nil {
		s.pending = s.script
		if n := len(s.script); n > 0 {
			s.goTo(s.script[n-1].at)
		}
		return
	}
	s.furnish()
	if s.chance.IntN(2) == 0 { // clocks that go as badly as they may leave the least of every margin
		s.badClocks()
	}
	switch s.kind {
	case simSingle:
		s.single()
	case simCold:
		s.powerCuts()
	case simDeath:
		s.death()
	default:
		s.chaos()
	}
}

func (s *simRun) chaos() {
	until := simLength - time.Duration(15+s.chance.IntN(30))*time.Second
	for s.w.now-s.begun < until && len(s.w.checks.broken) == 0 {
		s.goTo(s.w.now - s.begun + s.gap())
		s.worstMoment()
		if len(s.w.checks.broken) == 0 {
			s.fault()
		}
	}
	s.goTo(s.w.now - s.begun + time.Duration(s.chance.IntN(5000))*time.Millisecond)
}

// gap is the time to the next fault: mostly too short for the last one to be over.
func (s *simRun) gap() time.Duration {
	if s.chance.IntN(3) == 0 {
		return time.Duration(s.chance.IntN(400)) * time.Millisecond
	}
	return time.Duration(s.chance.IntN(6000)) * time.Millisecond
}

// worstMoment sometimes waits for the moment when something has been decided and is not done.
func (s *simRun) worstMoment() {
	if s.chance.IntN(3) != 0 {
		return
	}
	s.untilPhase([]string{phaseRevoked, phasePlaced, phaseFree}[s.chance.IntN(3)])
}

// repair ends everything that is wrong, and then the cluster has to come to rest by itself.
func (s *simRun) repair() {
	s.goTo(max(s.w.now-s.begun, s.lastPending())) // what ends by itself does
	s.pending = nil
	faults := s.played
	s.end = s.w.now
	for _, line := range []string{"heal", "loss 0%", "duplicate 0%", "straggle 0% 0s", "latency 150us"} {
		s.play(line)
	}
	s.mendDevices()
	s.answerAgain()
	s.guardAgain()
	for _, m := range s.w.hosts {
		for _, d := range slices.Clone(m.links) {
			s.play("carrier " + d.iface + " up on " + m.name)
		}
		m.disk.trap, m.snag = false, 0
		for _, line := range []string{"mend", "room on", "slow disk on"} {
			line += " " + m.name
			if strings.HasPrefix(line, "slow") {
				line += " 1ms"
			}
			s.play(line)
		}
		if s.newer {
			s.play(fmt.Sprintf("version %s %d", m.name, featureLevel+1))
			if m.life != nil && m.life.node.opt.Level < m.level {
				s.play("restart " + m.name)
			}
		}
		if l := m.life; l != nil && l.going && !s.w.until(time.Minute, func() bool { return m.life != l }) {
			s.play("kill " + m.name)
		}
		switch {
		case !m.power:
			s.play("boot " + m.name)
		case m.life == nil:
			s.play("start " + m.name)
		}
	}
	s.w.run(time.Second)
	s.w.until(time.Minute, func() bool { // what a device was told before, it does; and who is frozen may be reset
		return s.w.cutting == 0 && !slices.ContainsFunc(s.w.hosts, func(m *machine) bool { return m.life != nil && m.life.frozen })
	})
	s.end = s.w.now
	bound := s.bound()
	for s.w.now-s.end < bound && !s.well() && len(s.w.checks.broken) == 0 {
		s.w.until(3*time.Second, s.well)
		if !s.well() {
			s.operate()
		}
	}
	s.played, s.repairs = faults, s.played[len(faults):]
	s.settled = s.w.now - s.end
	if len(s.w.checks.broken) > 0 {
		return
	}
	if !s.well() {
		s.fail("it has not come to rest %s after the repair: %s", bound, s.story.where())
		return
	}
	s.quiet()
	switch s.kind {
	case simSingle:
		s.uninterrupted()
	case simDeath:
		s.takenOver()
		s.fencedOver()
	}
}

func (s *simRun) lastPending() time.Duration {
	if n := len(s.pending); n > 0 {
		return s.pending[n-1].at
	}
	return 0
}

// bound is how long the way back may take: whoever listens first listens, whoever yields waits and stops, whoever has lost
// its memory is taken in, operations that hang end by their timeouts, and the operator looks again each 3 s.
func (s *simRun) bound() time.Duration {
	c := s.w.config
	sum := 2*listenFor(c) + 2*c.closeAfter() + 20*c.Heartbeat.Deadtime.D() + 20*time.Second
	for i := range c.Groups {
		sum += c.Groups[i].startSum() + c.Groups[i].stopSum()
	}
	return sum
}

// operate is what an operator does who sees in `status` what is not as it should be.
func (s *simRun) operate() {
	n := s.w.best()
	if n == nil {
		return
	}
	for _, m := range s.w.hosts {
		switch {
		case !m.power:
			s.play("boot " + m.name) // its power went when it replaced its folder
		case m.life == nil:
			s.play("start " + m.name)
		}
	}
	if n.state.Maintenance != nil {
		s.play("ask " + n.name + " maintenance off")
	}
	s.looks++
	if s.looks%8 == 0 && s.orphaned(n) {
		s.force(n)
	}
	for _, m := range s.w.hosts {
		x := n.state.node(m.name)
		switch {
		case x != nil && x.Standby != nil:
			s.play("ask " + n.name + " online " + x.Name)
		case (x == nil || x.Member == 0 || m.life != nil && m.life.node.state == nil) && m.name != n.name && s.looks%4 == 0: // it was removed or has forgotten all, and may have an old file
			s.play("kill " + m.name)
			m.file = s.w.host(n.name).file
			s.play("start " + m.name)
		}
	}
	if s.story.setup.groups != s.setup.groups || n.config.Heartbeat.Deadtime != s.w.config.Heartbeat.Deadtime || len(n.config.Nodes) != len(s.w.hosts) {
		s.putBack(n)
	}
	for _, m := range s.w.hosts { // one that was forced to go on alone may be in no file but its own
		if m.life != nil && m.life.node.state != nil && m.life.node.incarnation() != n.incarnation() && len(m.life.node.config.Nodes) != len(s.w.hosts) && s.looks%2 == 0 {
			s.putBack(m.life.node)
			break
		}
	}
	for i := range n.state.Groups {
		if g := &n.state.Groups[i]; g.Phase != phaseStarted {
			s.play("ask " + n.name + " cleanup " + g.Name)
		}
	}
}

// orphaned: this node alone remembers the cluster, and cannot decide without those who have forgotten it. After a wrong word
// two lives of a cluster may give way to each other.
func (s *simRun) orphaned(n *node) bool {
	return !n.hasQuorum() && !slices.ContainsFunc(s.w.hosts, func(m *machine) bool {
		return m.life != nil && m.life.node != n && m.life.node.state != nil
	})
}

// force is what its operator does then: no word is taken against a node that is heard, so the others are silent for a while.
func (s *simRun) force(n *node) {
	others := strings.Fields(s.others(n.name))
	for _, name := range others {
		s.play("kill " + name)
	}
	s.w.run(4 * n.deadtime())
	s.play("ask " + n.name + " quorum force")
	for _, name := range others {
		s.play("start " + name)
	}
}

// putBack edits the file back to what it was.
func (s *simRun) putBack(n *node) {
	s.story.setup.groups, s.story.setup.cluster = s.setup.groups, s.setup.cluster
	s.play(fmt.Sprintf("edit %s deadtime=%s interval=%s nodes=%s", n.name, s.setup.deadtime, s.setup.interval,
		strings.ReplaceAll(strings.Join(s.setup.nodes, ","), "=", ":")))
}

// well: all have joined, and each group runs, on one machine and on no other.
func (s *simRun) well() bool {
	if !s.w.settled() {
		return false
	}
	n := s.w.best()
	if s.w.cutting > 0 || slices.ContainsFunc(n.state.Fences, func(f FenceState) bool { return f.Phase != fenceConfirmed }) {
		return false // somebody will be cut off yet
	}
	for i := range n.config.Groups {
		g := &n.config.Groups[i]
		for _, m := range s.w.hosts {
			if m.name == n.state.group(g.Name).Owner {
				if !m.runsAll(g) {
					return false
				}
			} else if m.runsAny(g.Name) {
				return false
			}
		}
	}
	return len(n.config.Groups) == len(s.w.config.Groups) && len(n.config.Nodes) == len(s.w.hosts) // who is to go has not gone yet
}

// simLength is what each seed simulates at the least.
const simLength = 2 * time.Minute

// quietFor is how long nothing may be decided any more once all is well.
const quietFor = 5 * time.Second

// quiet waits until the log stands still: a preferred node takes its group back only after it has been there for a while.
func (s *simRun) quiet() {
	limit := s.w.now + 45*time.Second
	index, since := uint64(0), s.w.now
	s.w.until(limit-s.w.now, func() bool {
		if n := s.w.best(); n != nil && n.state.Index != index {
			index, since = n.state.Index, s.w.now
		}
		return s.w.now-since >= quietFor
	})
	switch {
	case len(s.w.checks.broken) > 0:
	case s.w.now-since < quietFor:
		s.fail("it does not come to rest: there are entries still: %s", s.story.where())
	case !s.well():
		s.fail("it was well for a moment only: %s", s.story.where())
	default:
		s.peace()
		s.claims()
	}
}

// peace is the rest of the time, in which all stays well. A group may still move once, to a node that it prefers and that has
// now been there for long enough.
func (s *simRun) peace() {
	s.w.run(simLength - s.w.now)
	if !s.w.until(10*time.Second, s.well) && len(s.w.checks.broken) == 0 {
		s.fail("it was well, nothing happened, and now: %s", s.story.where())
	}
}

// result is what the batch adds up.
func (s *simRun) result() simResult {
	r := simResult{Runs: 1, Kinds: map[string]int{s.kind: 1}}
	if s.w == nil {
		return r
	}
	r.Simulated, r.Most, r.Settled, r.Takeover = s.w.now, s.w.checks.most, s.settled, s.w.checks.slowest
	r.Rules, r.Met = s.w.checks.rules, s.w.checks.met
	for _, c := range s.w.lan.clients {
		r.Outages = append(r.Outages, c.outages...)
		r.Writes += c.writes
	}
	for _, v := range s.w.checks.windows {
		r.Windows = append(r.Windows, simWindow{v.why, v.times, v.longest})
	}
	return r
}
