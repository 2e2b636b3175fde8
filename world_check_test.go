// What must never happen? Looked at after every event of the world: at what is true on the machines, and at what each
// node must not do to its own past. What is documented as not prevented (a daemon that is gone or frozen, the operator's
// wrong word, two_node = "ignore" in a partition) has to be allowed by name.

package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// worldChecks are the world's invariants.
type worldChecks struct {
	w       *world
	broken  []string
	allowed []string // groups that may have two owners, with the story's reason
	lives   []worldTale
	hashes  map[[2]uint64]uint64     // incarnation, index → state hash
	epochs  map[string]uint64        // group and incarnation → highest epoch that was started
	rules   map[string]int           // how often each rule has matched
	slowest time.Duration            // takeover after the death of a machine
	most    int                      // longest queue seen in a node
	truth   uint64                   // of the world, when it was last looked at
	windows []worldWindow            // what was not prevented and is documented so
	met     map[string]int           // events of histories and logs, by id
	leaders map[[2]uint64]uint64     // incarnation, term → member that led
	known   map[uint64]watermarks    // incarnation → the furthest that anybody has applied
	quorum  map[uint64]time.Duration // incarnation → when a voter last knew its leader
}

// worldTale is how far the history of an incarnation was told.
type worldTale struct{ incarnation, shown uint64 }

// watermarks are what must not go back in one life.
type watermarks struct {
	member, incarnation, counter, index, generation, epoch, term uint64
	clock                                                        time.Duration
}

// queueLimit bounds every list that a node keeps.
const queueLimit = 600

// standstillGrace is how long a daemon may take to shut what it holds when a message has told it that its machine stood
// still.
const standstillGrace = 100 * time.Millisecond

func (c *worldChecks) fail(format string, args ...any) {
	text := fmt.Sprintf("at %s: ", c.w.now) + fmt.Sprintf(format, args...)
	c.broken = append(c.broken, text)
	c.w.tell("BROKEN: %s", text)
}

func (c *worldChecks) run() {
	for _, m := range c.w.touched {
		if m.life != nil {
			c.tale(m.life.node)
			c.past(m.life)
			c.glimpses(m.life)
			c.queues(m.life)
		}
	}
	if c.truth != c.w.truth || slices.ContainsFunc(c.windows, func(v worldWindow) bool { return v.open }) {
		c.truth = c.w.truth
		c.owners()
	}
}

// owners: never two machines that answer for one address, whatever has become of their daemons: the kernels hold the ends
// of the leases. Never two with one group's data, as long as there is somebody on each who can take it away.
func (c *worldChecks) owners() {
	for i := range c.windows {
		c.windows[i].open = false
	}
	for i, a := range c.w.hosts {
		for _, x := range a.wares {
			if !x.holds() {
				continue
			}
			for _, b := range c.w.hosts[i+1:] {
				for _, y := range b.wares {
					if y.holds() && y.same(x) && !slices.Contains(c.allowed, x.group) {
						c.two(x, y)
					}
				}
			}
		}
	}
	for i := range c.windows {
		if v := &c.windows[i]; !v.open && v.since != 0 {
			v.longest, v.since = max(v.longest, c.w.now-v.since), 0
		}
	}
}

// holds tells whether a machine has what only one may have. One that stands still answers for no address, and what DRBD has
// frozen writes no data.
func (x *ware) holds() bool {
	return x.up() && (x.data() && !x.still() || x.config.Type == "vip" && x.m.still() == 0)
}

// same tells whether two resources must not be up at once: one address, or the data of one group.
func (x *ware) same(y *ware) bool {
	if x.config.Type == "vip" {
		return y.config.Type == "vip" && x.config.Address == y.config.Address
	}
	return x.data() && y.data() && x.group == y.group
}

// two machines have something that only one may have.
func (c *worldChecks) two(x, y *ware) {
	why := c.excuse(x, y)
	if why == "" {
		c.fail("%s is on %s and on %s", x.label(), x.m.name, y.m.name)
		return
	}
	c.window(map[bool]string{true: "two have data: ", false: "two have an address: "}[x.data()] + why)
}

// excuse is why nothing could have kept one of two from having something, "" if there is no such reason. An address falls
// silent by the kernel's clock, so all that excuses it is that this clock stood still; the same holds of data where a watchdog
// resets the machine. Else data takes time to unmount: a daemon that comes back too late, and one whose lease ends, can only
// begin to.
func (c *worldChecks) excuse(x, y *ware) string {
	for _, z := range []*ware{x, y} {
		if s := z.m.copyOf(z.group); z.data() && s != nil && s.unwarned() {
			return guardDropped
		}
		if z.m.stood() {
			return "its machine stood still"
		}
		if z.m.misjudged() {
			return "a fence device said that its machine was off"
		}
		if !z.data() || c.w.config.Watchdog.watched() {
			continue // what no gate shuts a watchdog has reset by then
		}
		if why := z.m.unenforced(); why != "" {
			return why
		}
		if z.orphan != 0 && c.w.now-z.orphan < c.w.stopLimit(z.group) {
			return "it is not stopped yet when its daemon is back"
		}
		if l := z.m.life; l != nil && (l.shut[z.group] || l.stops(z.group)) {
			return "data is not unmounted yet when its lease has ended"
		}
	}
	return ""
}

const guardDropped = "an operator had just taken DRBD's guard away"

// stopLimit bounds how long a daemon may take to stop what it has no lease for.
func (w *world) stopLimit(group string) time.Duration {
	d := w.config.closeAfter()
	if g := w.config.group(group); g != nil {
		d += g.stopSum()
	}
	return d
}

// stops tells whether a stop of something of the group is under way.
func (l *life) stops(group string) bool {
	for _, a := range l.running() {
		if a.a.Group == group && a.a.Op == opStop {
			return true
		}
	}
	return false
}

// worldWindow is something that must not be, and is not prevented yet: how often, and how long at most.
type worldWindow struct {
	why     string
	open    bool
	since   time.Duration // 0: not now
	times   int
	longest time.Duration
}

func (c *worldChecks) window(why string) {
	i := slices.IndexFunc(c.windows, func(v worldWindow) bool { return v.why == why })
	if i < 0 {
		c.windows = append(c.windows, worldWindow{why: why})
		i = len(c.windows) - 1
	}
	v := &c.windows[i]
	v.open = true
	if v.since == 0 {
		v.since = c.w.now
		v.times++
	}
}

// unenforced is why nobody on the machine can unmount what its lease no longer covers, "" when somebody can. Until watchdog
// and fencing are asked only the daemon does: a frozen one cannot, nor one that was killed and is not back.
func (m *machine) unenforced() string {
	switch {
	case m.life == nil && m.ended:
		return "" // it went in good order, and what it has left running nobody may take for stopped
	case m.life == nil || !m.life.awake:
		return "its daemon was killed and is not back"
	case m.life.frozen:
		return "its daemon is frozen"
	}
	return ""
}

// begins is called when a node begins an operation.
func (c *worldChecks) begins(l *life, a action) {
	if a.Op != opStart && a.Op != opStop && a.Op != opForce {
		return
	}
	n := l.node
	if n.state != nil && n.state.Maintenance != nil && !n.beaten() {
		c.fail("%s does a %s of %s in maintenance", l.m.name, a.Op, a.Resource)
	}
	if a.Op != opStart {
		return
	}
	if g := n.config.group(a.Group); g != nil {
		for _, lower := range g.Resources {
			if lower.Name == a.Resource {
				break
			}
			if x := l.m.find(a.Group, lower.Name); x == nil || !x.present && !x.suspended && x.gone != c.w.now {
				c.fail("%s starts %s of %s before %s", l.m.name, a.Resource, a.Group, lower.Name)
			}
		}
	}
	if n.state == nil {
		c.fail("%s starts %s and is blank", l.m.name, a.Resource)
		return
	}
	if c.epochs == nil {
		c.epochs = map[string]uint64{}
	}
	key := fmt.Sprintf("%s/%x", a.Group, n.state.Incarnation.ID)
	if a.Epoch < c.epochs[key] {
		if l.m.stood() { // it still believes in its lease
			c.window("started under an old epoch: its machine stood still")
			return
		}
		c.fail("%s starts %s under epoch %d, and %d was started already", l.m.name, a.Resource, a.Epoch, c.epochs[key])
	}
	c.epochs[key] = max(c.epochs[key], a.Epoch)
	if slices.Contains(c.allowed, a.Group) {
		return
	}
	for _, m := range c.w.hosts {
		for _, x := range m.wares {
			if m == l.m || x.group != a.Group || !x.present || m.misjudged() {
				continue
			}
			if s := m.copyOf(a.Group); x.data() && s != nil && s.unwarned() {
				c.window("started too early: " + guardDropped)
				continue
			}
			// What is stateful must be gone, whoever should have stopped it. Without an address a web server is out of
			// reach, so it may still be on its way down.
			if x.stateful() || x.up() && x.config.Type != "httpd" && !x.guarded() && c.excuse(x, x) == "" {
				c.fail("%s starts %s of %s while %s has %s", l.m.name, a.Resource, a.Group, m.name, x.config.Name)
			}
		}
	}
}

// stateful: it may change data although nobody can reach it, and nobody keeps another from changing them too.
func (x *ware) stateful() bool {
	g := x.m.w.group(x.group)
	return g != nil && g.classOf(&x.config).writes() && !x.guarded()
}

// guarded: it is on DRBD, which promotes no other copy as long as this one may change anything. owners looks whether it does.
func (x *ware) guarded() bool {
	s := x.m.copyOf(x.group)
	return x.data() && s != nil && s.guards()
}

// still: DRBD does not let it change anything now.
func (x *ware) still() bool {
	s := x.m.copyOf(x.group)
	return x.data() && s != nil && (s.fencing || s.frozen) && !s.writable()
}

// past: nothing that a node has said goes back.
func (c *worldChecks) past(l *life) {
	n := l.node
	if n.state == nil {
		l.seen = watermarks{}
		return
	}
	s, old := n.state, &l.seen
	term := n.cons.hard.GetTerm()
	if s.Index == old.index && s.Incarnation.ID == old.incarnation && term == old.term {
		return
	}
	now := watermarks{member: n.member, incarnation: s.Incarnation.ID, counter: s.Incarnation.Counter, index: s.Index,
		generation: s.Config.Generation, epoch: s.LastEpoch, term: term, clock: s.Clock}
	if old.member == now.member && old.incarnation != 0 {
		if term < old.term && now.incarnation == old.incarnation || now.counter < old.counter || now.generation < old.generation || now.epoch < old.epoch || now.index < old.index || now.clock < old.clock {
			c.fail("%s went back from %+v to %+v", l.m.name, *old, now)
		}
	}
	if old.incarnation != now.incarnation {
		c.inherits(l, &now)
		c.authorized(l)
	}
	*old = now
	if c.hashes == nil {
		c.hashes, c.known = map[[2]uint64]uint64{}, map[uint64]watermarks{}
	}
	if far := c.known[now.incarnation]; now.index > far.index {
		c.known[now.incarnation] = now
		c.fenceTruth(l)
	}
	h, key := hashState(s), [2]uint64{s.Incarnation.ID, s.Index}
	if n.stateHash != h {
		c.fail("%s tells others another hash than that of its state at index %d", l.m.name, s.Index)
	}
	if known, ok := c.hashes[key]; ok && known != h {
		c.fail("the state of %s at index %d differs from another's", l.m.name, s.Index)
	}
	c.hashes[key] = h
	c.w.mark("state", l.m.name, h)
	for _, g := range s.Groups {
		if (g.Owner == "") != (g.Phase == phaseFree) {
			c.fail("%s is %s and its owner is %q", g.Name, g.Phase, g.Owner)
		}
	}
}

// inherits: of two voters each has stored what was committed, so whoever goes on alone has lost nothing.
func (c *worldChecks) inherits(l *life, now *watermarks) {
	if a := l.node.state.Incarnation.Ancestors; len(c.w.hosts) == 2 && len(a) > 0 {
		if far, ok := c.known[a[0].ID]; ok && far.index <= a[0].Fork && (now.epoch < far.epoch || now.generation < far.generation) {
			c.fail("%s goes on alone with epoch %d and generation %d, and %d and %d had been committed", l.m.name, now.epoch, now.generation, far.epoch, far.generation)
		}
	}
}

// authorized: whoever goes on alone has an operator's word, or two_node says that it needs none, or the other of two has
// lost its memory. What a confirmed fence allows is judged by what it may have left running.
func (c *worldChecks) authorized(l *life) {
	inc := &l.node.state.Incarnation
	if a := inc.Ancestors; len(a) > 0 && a[0].ID == l.m.glimpsed && !l.m.word && l.node.config.Cluster.TwoNode != "ignore" && c.known[inc.ID].index == 0 {
		c.fail("%s goes on alone, and has met a better life of the cluster", l.m.name)
	}
	if _, known := c.known[inc.ID]; known || len(inc.Ancestors) == 0 || l.m.word || slices.Contains([]string{"ignore", "fence"}, l.node.config.Cluster.TwoNode) {
		return
	}
	for _, m := range c.w.hosts {
		if m != l.m && len(c.w.hosts) == 2 && m.disk.durable == nil {
			return
		}
	}
	c.fail("%s goes on alone and nobody has said that it may", l.m.name)
}

// glimpses: who has met a better life of the cluster knows that, its next daemon too, until it lives in another one. And a fork
// gives way to its parent only when voters of that go on.
func (c *worldChecks) glimpses(l *life) {
	n := l.node
	if n.state == nil || n.cons == nil {
		return
	}
	id := n.incarnation()
	if l.m.glimpsed != id {
		l.m.glimpsed = 0
	}
	if me := n.state.node(n.name); n.hasQuorum() && me != nil && me.Voter && me.Member == n.member {
		if c.quorum == nil {
			c.quorum = map[uint64]time.Duration{}
		}
		c.quorum[id] = c.w.now
	}
	better := false
	for _, p := range n.peers.all {
		if p.better == 0 {
			continue
		}
		better = true
		other := p.beat.Incarnation
		if !l.beaten && descendsFrom(n.state.Incarnation.Ancestors, other) && c.w.now-c.quorum[other] > 12*n.deadtime() {
			c.fail("%s gives way to %s, and in incarnation %x nobody has had a leader for %s", l.m.name, p.name, other, c.w.now-c.quorum[other])
		}
	}
	switch {
	case better:
		l.m.glimpsed = id
	case l.beaten:
		l.m.glimpsed = 0 // it has heard since that it is not
	}
	l.beaten = better
}

// meet counts an event.
func (c *worldChecks) meet(id string) {
	if c.met == nil {
		c.met = map[string]int{}
	}
	c.met[id]++
}

// leads: one leader in a term.
func (c *worldChecks) leads(n *node) {
	term := n.cons.node.BasicStatus().GetTerm()
	if c.leaders == nil {
		c.leaders = map[[2]uint64]uint64{}
	}
	key := [2]uint64{n.incarnation(), term}
	if old, ok := c.leaders[key]; ok && old != n.member {
		c.fail("members %x and %x both lead in term %d", old, n.member, term)
	}
	c.leaders[key] = n.member
}

func (c *worldChecks) queues(l *life) {
	n := l.node
	for _, k := range []int{len(n.waits), len(n.holds), len(n.outcomes), len(n.proposals), len(n.waiters), len(n.ledger.stored),
		len(n.ledger.given), len(n.lapsed), len(n.marks), len(n.noLease), len(n.peers.all), len(n.agent.groups), len(n.agent.outcomes),
		len(n.agent.actions), len(n.agent.watches), len(l.acts)} {
		if k > c.most {
			if c.most = k; k > queueLimit {
				c.fail("a queue of %s has %d items", l.m.name, k)
			}
		}
	}
	if c.rules == nil {
		c.rules = map[string]int{}
	}
	if len(n.verdicts) > 0 && &n.verdicts[0] != l.ruled && n.cons != nil && n.cons.Status().Role == roleLeader {
		l.ruled = &n.verdicts[0]
		c.leads(n)
		for _, id := range n.ruled {
			c.rules[id]++
		}
		for _, v := range n.verdicts {
			c.rules[v.Rule]++
		}
	}
	for _, p := range n.peers.all {
		if p.differs != 0 {
			c.fail("%s thinks that its state differs from that of %s", l.m.name, p.name)
		}
	}
}

// tale tells each event of the history once.
func (c *worldChecks) tale(n *node) {
	if n.state == nil || len(n.state.History) == 0 {
		return
	}
	id := n.state.Incarnation.ID
	i := slices.IndexFunc(c.lives, func(t worldTale) bool { return t.incarnation == id })
	if i < 0 {
		t := worldTale{incarnation: id}
		for _, a := range n.state.Incarnation.Ancestors { // what was told of a parent is not told again
			for _, old := range c.lives {
				if old.incarnation == a.ID {
					t.shown = max(t.shown, min(a.Fork, old.shown))
				}
			}
		}
		c.lives = append(c.lives, t)
		i = len(c.lives) - 1
	}
	h := n.state.History
	if h[len(h)-1].Index <= c.lives[i].shown {
		return
	}
	from, _ := slices.BinarySearchFunc(h, c.lives[i].shown+1, func(e Event, index uint64) int { return int(e.Index) - int(index) })
	for _, e := range h[from:] {
		c.w.tell("%s", e.Text)
		c.meet(e.ID)
		if e.ID == eventMember && strings.Contains(e.Text, " is a learner") && len(c.w.lan.clients) > 0 {
			c.meet("learner again")
		}
	}
	c.lives[i].shown = h[len(h)-1].Index
}

// worldLog is a daemon's log. What is in the history the world tells itself.

func (h worldLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h worldLog) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h worldLog) WithGroup(string) slog.Handler                { return h }

func (h worldLog) Handle(_ context.Context, r slog.Record) error {
	id := ""
	var more []string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "event":
			id = a.Value.String()
		case "err", "counter":
			more = append(more, a.Value.String())
		}
		return true
	})
	if !slices.Contains(historyOnly, id) {
		h.m.w.checks.meet(id)
	}
	if slices.Contains(historyOnly, id) || r.Level < h.m.w.level && !slices.Contains(telling, id) {
		return nil
	}
	text := r.Message
	if len(more) > 0 {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	h.m.w.tell("%s: %s", h.m.name, text)
	if id == "log-broken" && h.m.disk.old {
		h.m.disk.old = false // it is as it must be: a backup was put back
		h.m.w.checks.meet("an old state folder")
		return nil
	}
	if r.Level >= slog.LevelError && slices.Contains([]string{"log-broken", "entry-unreadable", "begin-refused", "state-differs"}, id) {
		h.m.w.checks.fail("%s: %s", h.m.name, text)
	}
	return nil
}
