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
	hashes  map[[2]uint64]uint64 // incarnation, index → state hash
	epochs  map[string]uint64    // group and incarnation → highest epoch that was started
	rules   map[string]int       // how often each rule has matched
	most    int                  // longest queue seen in a node
}

// worldTale is how far the history of an incarnation was told.
type worldTale struct{ incarnation, shown uint64 }

// watermarks are what must not go back in one life.
type watermarks struct {
	member, incarnation, counter, index, generation, epoch uint64
	clock                                                  time.Duration
}

// enforcerGrace is how long a daemon may take to shut what its lease no longer covers when it has just been started or
// resumed: until then there was nobody to enforce anything.
const enforcerGrace = 100 * time.Millisecond

// queueLimit bounds every list that a node keeps.
const queueLimit = 600

func (c *worldChecks) fail(format string, args ...any) {
	text := fmt.Sprintf("at %s: ", c.w.now) + fmt.Sprintf(format, args...)
	c.broken = append(c.broken, text)
	c.w.tell("BROKEN: %s", text)
}

func (c *worldChecks) run() {
	for _, m := range c.w.hosts {
		if m.life != nil && !m.life.frozen {
			c.tale(m.life.node)
			c.past(m.life)
			c.queues(m.life)
		}
	}
	c.addresses()
}

// answers tells whether a machine answers for an address that is there. One that stands still answers for nothing, and one
// that stood still may, until its first message from a peer: its clocks do not know. docs/design.md section 4 says so.
func (x *ware) answers() bool {
	return x.up() && (x.m.woke == 0 || x.m.w.now >= x.m.woke+enforcerGrace)
}

// addresses: never two machines that answer for one address, whatever has become of their daemons: the kernels hold the
// ends of the leases.
func (c *worldChecks) addresses() {
	for i, a := range c.w.hosts {
		for _, x := range a.wares {
			if x.config.Type != "vip" || !x.answers() {
				continue
			}
			for _, b := range c.w.hosts[i+1:] {
				for _, y := range b.wares {
					if y.config.Type == "vip" && y.config.Address == x.config.Address && y.answers() && !slices.Contains(c.allowed, x.group) {
						c.fail("%s answers on %s and on %s", x.config.Address, a.name, b.name)
					}
				}
			}
		}
	}
}

// enforced: there is a daemon that runs, and had the time to look around.
func (m *machine) enforced() bool {
	return m.power && m.life != nil && !m.life.frozen && m.w.now-m.life.fresh >= enforcerGrace
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
	if n.state == nil {
		c.fail("%s starts %s and is blank", l.m.name, a.Resource)
		return
	}
	if c.epochs == nil {
		c.epochs = map[string]uint64{}
	}
	key := fmt.Sprintf("%s/%x", a.Group, n.state.Incarnation.ID)
	if a.Epoch < c.epochs[key] {
		c.fail("%s starts %s under epoch %d, and %d was started already", l.m.name, a.Resource, a.Epoch, c.epochs[key])
	}
	c.epochs[key] = max(c.epochs[key], a.Epoch)
	if slices.Contains(c.allowed, a.Group) {
		return
	}
	for _, m := range c.w.hosts {
		for _, x := range m.wares {
			if m == l.m || x.group != a.Group || !x.present {
				continue
			}
			// What is stateful must be gone, whoever should have stopped it. Without an address a web server is out of
			// reach, so it may still be on its way down.
			if x.stateful() || x.answers() && (m.enforced() || x.config.Type == "vip") && x.config.Type != "httpd" {
				c.fail("%s starts %s of %s while %s has %s", l.m.name, a.Resource, a.Group, m.name, x.config.Name)
			}
		}
	}
}

// stateful: it may change data although nobody can reach it.
func (x *ware) stateful() bool {
	g := x.m.w.group(x.group)
	return g != nil && g.classOf(&x.config) == classStateful
}

// past: nothing that a node has said goes back.
func (c *worldChecks) past(l *life) {
	n := l.node
	if n.state == nil {
		l.seen = watermarks{}
		return
	}
	s, old := n.state, &l.seen
	if s.Index == old.index && s.Incarnation.ID == old.incarnation {
		return
	}
	now := watermarks{member: n.member, incarnation: s.Incarnation.ID, counter: s.Incarnation.Counter, index: s.Index,
		generation: s.Config.Generation, epoch: s.LastEpoch, clock: s.Clock}
	if old.member == now.member && old.incarnation != 0 {
		if now.counter < old.counter || now.generation < old.generation || now.epoch < old.epoch || now.index < old.index || now.clock < old.clock {
			c.fail("%s went back from %+v to %+v", l.m.name, *old, now)
		}
	}
	*old = now
	if c.hashes == nil {
		c.hashes = map[[2]uint64]uint64{}
	}
	h, key := hashState(s), [2]uint64{s.Incarnation.ID, s.Index}
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

func (c *worldChecks) queues(l *life) {
	n := l.node
	for _, k := range []int{len(n.waits), len(n.holds), len(n.outcomes), len(n.proposals), len(n.waiters), len(n.ledger.stored),
		len(n.ledger.given), len(n.lapsed), len(n.marks), len(n.agent.outcomes), len(l.acts)} {
		if k > c.most {
			if c.most = k; k > queueLimit {
				c.fail("a queue of %s has %d items", l.m.name, k)
			}
		}
	}
	if c.rules == nil {
		c.rules = map[string]int{}
	}
	if n.cons != nil && n.cons.Status().Role == roleLeader {
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
	if slices.Contains(historyOnly, id) || r.Level < h.m.w.level && !slices.Contains(telling, id) {
		return nil
	}
	text := r.Message
	if len(more) > 0 {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	h.m.w.tell("%s: %s", h.m.name, text)
	if r.Level >= slog.LevelError && slices.Contains([]string{"log-broken", "entry-unreadable", "begin-refused", "state-differs"}, id) {
		h.m.w.checks.fail("%s: %s", h.m.name, text)
	}
	return nil
}
