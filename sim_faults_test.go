// What happens to a cluster? The faults of the simulator, each as lines that a story could have, at the moment at which
// they are drawn and for those who matter then: the owner, the leader, somebody. Most end by themselves.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// simFault is one kind of fault. weight says how often it is drawn.
type simFault struct {
	name   string
	weight int
	happen func(*simRun)
}

func simFaults() []simFault {
	return []simFault{
		{"kill", 6, (*simRun).killOne},
		{"crash", 6, (*simRun).crashOne},
		{"crash loop", 2, (*simRun).crashLoop},
		{"freeze", 6, (*simRun).freezeOne},
		{"stall", 3, (*simRun).stallOne},
		{"cut", 8, (*simRun).cutSome},
		{"isolate", 5, (*simRun).isolate},
		{"half-deaf", 4, (*simRun).halfDeaf},
		{"flapping link", 2, (*simRun).flap},
		{"bad network", 5, (*simRun).badNetwork},
		{"carrier", 3, (*simRun).pull},
		{"disk", 5, (*simRun).badDisk},
		{"forget", 3, (*simRun).forget},
		{"clock", 3, (*simRun).badClock},
		{"operation", 6, (*simRun).badOperation},
		{"resource", 5, (*simRun).breakOne},
		{"operator", 8, (*simRun).operator},
		{"edit", 4, (*simRun).edit},
		{"leave", 4, (*simRun).leave},
		{"word", 3, (*simRun).word},
		{"takeover", 14, (*simRun).duringTakeover},
		{"move", 8, (*simRun).duringMove},
		{"maintenance", 6, (*simRun).duringMaintenance},
		{"split second", 4, (*simRun).splitSecond},
		{"wrong word", 2, (*simRun).wrongWord},
	}
}

// fault draws one and lets it happen.
func (s *simRun) fault() {
	if s.powerFault() || s.reachFault() || s.snagFault() || s.guardFault() || s.conjunction() {
		return
	}
	faults, sum := simFaults(), 0
	for _, f := range faults {
		sum += f.weight
	}
	k := s.chance.IntN(sum)
	for _, f := range faults {
		if k -= f.weight; k < 0 {
			f.happen(s)
			return
		}
	}
}

func (s *simRun) some() string { return s.w.hosts[s.chance.IntN(len(s.w.hosts))].name }

// target is whom it hurts: the owner of something, the leader, or anybody.
func (s *simRun) target() string {
	switch s.chance.IntN(3) {
	case 0:
		if o := s.owner(); o != "" {
			return o
		}
	case 1:
		if m := s.w.leader(); m != nil {
			return m.name
		}
	}
	return s.some()
}

// owner is a machine that has an address.
func (s *simRun) owner() string {
	for _, m := range s.w.hosts {
		if slices.ContainsFunc(m.wares, func(x *ware) bool { return x.present && x.config.Type == "vip" }) {
			return m.name
		}
	}
	return ""
}

// other is one of them.
func (s *simRun) other(name string) string {
	names := strings.Fields(s.others(name))
	return names[s.chance.IntN(len(names))]
}

func (s *simRun) others(name string) string {
	var out []string
	for _, m := range s.w.hosts {
		if m.name != name {
			out = append(out, m.name)
		}
	}
	return strings.Join(out, " ")
}

// between is a length of time.
func (s *simRun) between(from, to time.Duration) time.Duration {
	return (from + time.Duration(s.chance.Int64N(int64(to-from)))).Round(time.Millisecond)
}

func (s *simRun) deadtime() time.Duration { return s.w.config.Heartbeat.Deadtime.D() }

// around is about the time in which a cluster notices something: a part of a deadtime, or a few of them.
func (s *simRun) around() time.Duration {
	return s.between(s.deadtime()/10, []time.Duration{s.deadtime(), 2 * s.deadtime(), 8 * s.deadtime()}[s.chance.IntN(3)])
}

func (s *simRun) killOne() {
	name, end := s.target(), "kill "
	if s.more.IntN(3) == 0 {
		end = "restart " // the next daemon is announced, and may be late all the same
	}
	if s.newer && s.more.IntN(2) == 0 {
		s.play(fmt.Sprintf("version %s %d", name, featureLevel+1))
	}
	if s.play(end + name) {
		s.later(s.around(), "start %s", name)
	}
}

func (s *simRun) crashOne() {
	name := s.target()
	if s.chance.IntN(3) == 0 {
		s.play("reboot " + name)
		return
	}
	s.play("crash " + name)
	s.later(s.around(), "boot %s", name)
}

func (s *simRun) crashLoop() {
	name, at := s.target(), time.Duration(0)
	for range 2 + s.chance.IntN(6) {
		s.later(at, "kill %s", name)
		at += s.between(time.Millisecond, 300*time.Millisecond)
		s.later(at, "start %s", name)
		at += s.between(time.Millisecond, 500*time.Millisecond)
	}
}

func (s *simRun) freezeOne() {
	name := s.target()
	if name == s.owner() {
		s.w.checks.meet("frozen owner")
	}
	s.play(fmt.Sprintf("pause %s %s", name, s.around()))
}

func (s *simRun) stallOne() {
	name := s.target()
	if name == s.owner() {
		s.w.checks.meet("stalled owner")
	}
	s.play(fmt.Sprintf("stall %s %s", name, s.around()))
}

func (s *simRun) cutSome() {
	a, b := s.target(), s.some()
	if a == b {
		return
	}
	link := []string{"", "", " on lan", " on repl"}[s.chance.IntN(4)]
	switch s.chance.IntN(3) {
	case 0:
		s.play(fmt.Sprintf("cut %s -> %s%s", a, b, link))
	case 1:
		s.play(fmt.Sprintf("cut %s -> %s%s", b, a, link))
	default:
		s.play(fmt.Sprintf("cut %s %s%s", a, b, link))
	}
	s.later(s.around(), "heal %s %s", a, b)
}

func (s *simRun) isolate() {
	name := s.target()
	s.play("cut " + name + " " + s.others(name))
	s.later(s.around(), "heal %s", name)
}

// halfDeaf: somebody is heard by all and hears nobody, or the reverse.
func (s *simRun) halfDeaf() {
	name := s.target()
	deaf := s.chance.IntN(2) == 0
	for _, other := range strings.Fields(s.others(name)) {
		if deaf {
			s.play(fmt.Sprintf("cut %s -> %s", other, name))
		} else {
			s.play(fmt.Sprintf("cut %s -> %s", name, other))
		}
	}
	s.later(s.around(), "heal %s", name)
}

func (s *simRun) flap() {
	name, at := s.target(), time.Duration(0)
	for range 3 + s.chance.IntN(5) {
		s.later(at, "cut %s %s", name, s.others(name))
		at += s.between(s.deadtime()/4, 2*s.deadtime())
		s.later(at, "heal %s", name)
		at += s.between(s.deadtime()/4, 2*s.deadtime())
	}
}

func (s *simRun) badNetwork() {
	switch s.chance.IntN(6) {
	case 4, 5:
		s.stragglers()
	case 0:
		s.play(fmt.Sprintf("loss %d%%", 5+s.chance.IntN(40)))
		s.later(s.between(time.Second, 8*time.Second), "loss 0%%")
	case 1:
		s.play(fmt.Sprintf("duplicate %d%%", 5+s.chance.IntN(50)))
		s.later(s.between(time.Second, 8*time.Second), "duplicate 0%%")
	case 2:
		s.play(fmt.Sprintf("jitter %s", s.between(time.Millisecond, s.deadtime()/3)))
		s.later(s.between(time.Second, 8*time.Second), "latency 150us")
	default:
		s.play(fmt.Sprintf("latency %s", s.between(time.Millisecond, s.deadtime()/4)))
		s.later(s.between(time.Second, 8*time.Second), "latency 150us")
	}
}

// stragglers: some messages come late, and in another order.
func (s *simRun) stragglers() {
	s.play(fmt.Sprintf("straggle %d%% %s", 5+s.chance.IntN(45), s.between(s.deadtime()/4, 4*s.deadtime())))
	s.later(s.between(time.Second, 8*time.Second), "straggle 0%% 0s")
}

func (s *simRun) pull() {
	name, iface := s.target(), []string{"eth0", "eth1"}[s.chance.IntN(2)]
	s.play(fmt.Sprintf("carrier %s down on %s", iface, name))
	s.later(s.around(), "carrier %s up on %s", iface, name)
}

func (s *simRun) badDisk() {
	name := s.target()
	if s.chance.IntN(2) == 0 {
		s.play(fmt.Sprintf("slow disk on %s %s", name, s.between(5*time.Millisecond, 2*s.deadtime())))
		s.later(s.around(), "slow disk on %s 1ms", name)
		return
	}
	s.play("full disk on " + name)
	s.later(s.around(), "room on %s", name)
}

// forget: a state folder is lost, where the others can make up for it; a second one at a time would be the loss of the
// majority's memory, which only an operator may call survivable. Or its power goes while it replaces it.
func (s *simRun) forget() {
	name := s.target()
	if s.chance.IntN(4) == 0 {
		s.play("trap " + name)
		return
	}
	if !s.mayForget(name) {
		return
	}
	s.play("kill " + name)
	s.play([]string{"wipe ", "corrupt "}[s.chance.IntN(2)] + name)
	if s.chance.IntN(2) == 0 {
		s.play("crash " + name)
		s.later(s.around(), "boot %s", name)
		return
	}
	s.later(s.around(), "start %s", name)
}

func (s *simRun) mayForget(name string) bool {
	n := s.w.best()
	if n == nil {
		return false
	}
	voters, intact := 0, 0
	for i := range n.state.Nodes {
		if x := &n.state.Nodes[i]; x.Voter {
			voters++
			m := s.w.host(x.Name)
			if x.Name == name || m.disk.member.ID != x.Member || m.disk.durable == nil {
				continue
			}
			// Who does not know yet who votes may need the vote of the one that forgets.
			if l := m.life; l != nil && l.node.state != nil && l.node.state.ConfIndex == n.state.ConfIndex {
				intact++
			}
		}
	}
	return intact >= quorum(voters) || voters == 2 && intact == 1 && len(s.w.hosts) == 2
}

func (s *simRun) badClock() {
	name := s.target()
	if s.chance.IntN(3) == 0 {
		s.play(fmt.Sprintf("wall %s %dm", name, s.chance.IntN(200)-100))
		return
	}
	s.play(fmt.Sprintf("clock %s %+d%%", name, s.chance.IntN(21)-10))
}

// ware draws a resource of the config.
func (s *simRun) resource() string {
	g := s.w.config.Groups[s.chance.IntN(len(s.w.config.Groups))]
	return g.Resources[s.chance.IntN(len(g.Resources))].Name
}

func (s *simRun) badOperation() {
	name, r := s.target(), s.resource()
	op := []string{opStart, opStop, opStop, opMonitor, opFit}[s.chance.IntN(5)]
	how := []string{"fail", "fail", "hang", "late", "hopeless"}[s.chance.IntN(5)]
	switch {
	case how == "late" && (op == opStart || op == opStop):
		s.play(fmt.Sprintf("late %s %s on %s %s", op, r, name, s.between(s.deadtime()/4, 4*s.deadtime())))
		s.w.checks.meet("late end")
	case how == "hopeless" && op != opStart || how == "late":
		return
	case op == opFit:
		s.play(fmt.Sprintf("fail fit %s on %s %d", r, name, 1+s.chance.IntN(3)))
	default:
		s.play(fmt.Sprintf("%s %s %s on %s %d times", how, op, r, name, 1+s.chance.IntN(4)))
	}
	if s.chance.IntN(2) == 0 {
		s.later(s.around(), "mend %s", name)
	}
}

func (s *simRun) breakOne() {
	if o := s.owner(); o != "" {
		s.play(fmt.Sprintf("%s %s on %s", []string{"break", "break", "sicken"}[s.chance.IntN(3)], s.resource(), o))
	}
}

func (s *simRun) full() string {
	names := s.w.config.fullNodes()
	return names[s.chance.IntN(len(names))]
}

func (s *simRun) groupName() string {
	return s.w.config.Groups[s.chance.IntN(len(s.w.config.Groups))].Name
}

func (s *simRun) operator() {
	at, g, n := s.some(), s.groupName(), s.full()
	switch s.chance.IntN(7) {
	case 0:
		s.play(fmt.Sprintf("ask %s move %s %s", at, g, n))
		s.later(s.around(), "ask %s unmove %s", s.some(), g)
	case 1:
		s.play(fmt.Sprintf("ask %s move %s %s for %s", at, g, n, s.around()))
	case 2, 3:
		s.play(fmt.Sprintf("ask %s standby %s", at, n))
		s.later(s.around(), "ask %s online %s", s.some(), n)
	case 4:
		s.play(fmt.Sprintf("ask %s maintenance on", at))
		s.later(s.around(), "ask %s maintenance off", s.some())
	default:
		s.play(fmt.Sprintf("ask %s cleanup %s", at, g))
	}
}

func (s *simRun) edit() {
	at := s.some()
	switch k := len(s.setup.nodes); {
	case s.chance.IntN(3) == 0 && len(s.w.config.Groups) > 1:
		s.play(fmt.Sprintf("edit %s drop=%s", at, s.groupName()))
	case s.chance.IntN(3) == 0 && k > 3:
		i := s.chance.IntN(k)
		rest := slices.Delete(slices.Clone(s.setup.nodes), i, i+1)
		s.play(fmt.Sprintf("edit %s nodes=%s", at, strings.ReplaceAll(strings.Join(rest, ","), "=", ":")))
	default:
		s.play(fmt.Sprintf("edit %s deadtime=%s interval=%s", at, []string{"600ms", "1s", "3s"}[s.chance.IntN(3)], []string{"50ms", "100ms"}[s.chance.IntN(2)]))
	}
}

func (s *simRun) leave() {
	name := s.target()
	if s.play("leave " + name) {
		s.later(s.between(s.deadtime(), 10*s.deadtime()), "start %s", name)
	}
}

// word: an operator who has looked says that somebody is dead. One who has not looked can break anything.
func (s *simRun) word() {
	if len(s.w.hosts) == 2 && s.chance.IntN(2) == 0 {
		s.play("crash " + s.target())
		s.goTo(s.w.now - s.begun + s.between(2*s.deadtime(), 4*s.deadtime()))
	}
	var off, on []string
	for _, m := range s.w.hosts {
		switch {
		case !m.power:
			off = append(off, m.name)
		case m.life != nil:
			on = append(on, m.name)
		}
	}
	if on = s.newest(on); len(off) == 0 || len(on) == 0 {
		return
	}
	if len(on)+len(off) == len(s.w.hosts) && len(on) == 1 && s.chance.IntN(2) == 0 {
		if s.more.IntN(3) != 0 {
			s.play("trap " + on[0])
		}
		s.play("ask " + on[0] + " quorum force")
		return
	}
	s.play(fmt.Sprintf("ask %s confirm-dead %s force", on[s.chance.IntN(len(on))], off[0]))
}

// newest are those of them that live in the newest incarnation of the cluster: an operator who has looked forces none that
// another machine's has taken the place of, though that one is off.
func (s *simRun) newest(names []string) []string {
	newest := uint64(0)
	counters := map[string]uint64{}
	for _, m := range s.w.hosts {
		if st, err := stateOf(m.disk.durable); err == nil {
			counters[m.name] = st.Incarnation.Counter
		}
		if l := m.life; l != nil && l.node.state != nil {
			counters[m.name] = l.node.state.Incarnation.Counter
		}
		newest = max(newest, counters[m.name])
	}
	return slices.DeleteFunc(names, func(name string) bool { return counters[name] < newest })
}

// powerCuts: everything goes, and comes back in some order.
func (s *simRun) powerCuts() {
	for range 1 + s.chance.IntN(3) {
		s.goTo(s.w.now - s.begun + s.gap())
		if s.chance.IntN(2) == 0 {
			s.fault()
			s.goTo(s.w.now - s.begun + s.gap())
		}
		if len(s.w.checks.broken) > 0 {
			return
		}
		s.w.checks.meet("cold start")
		for _, i := range s.chance.Perm(len(s.w.hosts)) {
			s.play("crash " + s.w.hosts[i].name)
			s.later(s.between(100*time.Millisecond, 15*time.Second), "boot %s", s.w.hosts[i].name)
		}
		s.goTo(s.lastPending() + s.between(time.Millisecond, 4*time.Second))
	}
}

// single is one failure that touches neither an owner nor data.
func (s *simRun) single() {
	s.w.checks.meet("single failure")
	var idle []string
	for _, m := range s.w.hosts {
		if m.running() == "" {
			idle = append(idle, m.name)
		}
	}
	d := s.between(s.deadtime()/10, 10*s.deadtime())
	if len(idle) == 0 || s.chance.IntN(6) == 0 { // a link between two, of which there is another
		a, b := s.some(), s.some()
		if a != b {
			s.play(fmt.Sprintf("cut %s %s on %s", a, b, []string{"lan", "repl"}[s.chance.IntN(2)]))
			s.later(d, "heal")
		}
		return
	}
	name := idle[s.chance.IntN(len(idle))]
	switch s.chance.IntN(10) {
	case 0:
		s.play("kill " + name)
		s.later(d, "start %s", name)
	case 1:
		s.play("crash " + name)
		s.later(d, "boot %s", name)
	case 2:
		s.play(fmt.Sprintf("pause %s %s", name, d))
	case 3:
		s.play(fmt.Sprintf("stall %s %s", name, d))
	case 4:
		s.play("cut " + name + " " + s.others(name))
		s.later(d, "heal")
	case 5:
		s.play("full disk on " + name)
		s.later(d, "room on %s", name)
	case 6:
		s.play(fmt.Sprintf("slow disk on %s %s", name, d))
		s.later(2*d, "slow disk on %s 1ms", name)
	case 7:
		s.play("kill " + name)
		s.play("wipe " + name)
		s.later(d, "start %s", name)
	case 8:
		s.play("leave " + name)
		s.later(d+time.Second, "start %s", name)
	default:
		s.play(fmt.Sprintf("clock %s %+d%%", name, s.chance.IntN(21)-10))
	}
}

// uninterrupted: no client has noticed anything, but that what has a copy elsewhere waits until DRBD misses that and it is
// recorded.
func (s *simRun) uninterrupted() {
	for _, c := range s.w.lan.clients {
		patience := time.Duration(0)
		if slices.ContainsFunc(s.w.drbds, func(d *worldDRBD) bool { return d.group == c.group }) {
			patience = drbdNotices + s.deadtime() + 2*drbdAskAgain
		}
		if len(c.outages) > 0 && slices.Max(c.outages) > patience {
			s.fail("a failure that touches neither owner nor data took %s away for %s", c.address, slices.Max(c.outages))
		}
	}
}

// death: the owner's machine dies, perhaps one that an operator has moved it to. Nothing else is wrong.
func (s *simRun) death() {
	s.w.checks.meet("death of an owner")
	if s.chance.IntN(2) == 0 {
		s.play(fmt.Sprintf("ask %s move %s %s", s.some(), s.groupName(), s.full()))
	}
	s.goTo(s.w.now - s.begun + s.between(8*time.Second, 12*time.Second))
	if o := s.owner(); o != "" {
		s.play("crash " + o)
		d, _ := s.w.config.silentFor(classStateful)
		s.goTo(s.w.now - s.begun + 2*d + 10*s.deadtime() + 5*time.Second)
	}
}

// silentFor is how long nobody takes a group over from a silent owner, or what runs after it; false: nobody before the next boot.
func (s *simRun) silentFor(group string) (time.Duration, bool) {
	g := s.w.config.group(group)
	class := g.class()
	if class == classGuarded && (len(s.w.config.fenced()) > 0 || slices.ContainsFunc(s.w.drbds, func(d *worldDRBD) bool { return d.group == group && !d.sides[0].guarded() })) {
		class = classStateful
	}
	d, ends := s.w.config.silentFor(class)
	for _, other := range slices.Concat(g.After, g.With) {
		below, too := s.silentFor(other)
		d, ends = max(d, below), ends && too
	}
	return d, ends
}

// takenOver: the death of a machine was over for each client when it was noticed, the lease over, and all started anew;
// what runs after another group waits for that first, and data for the time of the watchdog. Without one data, and what runs
// after them, wait for the machine's next boot.
func (s *simRun) takenOver() {
	more := s.w.config.electionMax() + 2*s.w.config.Heartbeat.Interval.D() + 800*time.Millisecond
	for _, c := range s.w.lan.clients {
		silent, ends := s.silentFor(c.group)
		if !ends {
			continue
		}
		limit := silent*10/9 + more // clocks may be slow
		for _, d := range c.outages {
			s.w.checks.slowest = max(s.w.checks.slowest, d)
			if d > limit {
				s.fail("the death of a machine took %s away for %s, and at most %s were promised", c.address, d, limit)
			}
		}
	}
}
