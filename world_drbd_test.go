// What does DRBD do to the data? Two copies of a resource, on the first two machines that run groups, and what lies between
// them: a write is acknowledged when both have it or when its Primary goes on alone, which, with fencing, it does only when
// its handler has said so. Nobody here asks a daemon but that handler.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	drbdTurn     = 50 * time.Millisecond  // between two looks at the connection
	drbdNotices  = 300 * time.Millisecond // until a connection that carries nothing is given up
	drbdResyncs  = 2 * time.Second
	drbdAskAgain = 250 * time.Millisecond // of the handler
)

// worldDRBD is a resource of DRBD.
type worldDRBD struct {
	w         *world
	name      string
	group     string
	sides     [2]*worldCopy
	async     bool // protocol A, which both sides must agree on: a write is acknowledged when it is sent
	connected bool
	connects  uint64        // how often; what a handler says about an earlier time is dropped
	silent    time.Duration // since when nothing comes through although it is connected; 0: something does
	synced    time.Duration // when what is being copied will be complete; 0: nothing is
}

// worldCopy is what one machine has of it. It stays when the power goes.
type worldCopy struct {
	d       *worldDRBD
	m       *machine
	version uint64 // what was newest of what it has
	frozen  bool   // I/O of the Primary waits for the handler
	alone   bool   // the handler has said that the peer is stale; until they are connected again
	calls   uint64 // of the handler; only the last one counts
	lone    string // why nothing could record what it has written without its peer, "" if it has not or something could
	// What its kernel has, and an operator may change while it runs.
	fencing bool   // resource-and-stonith
	handler string // handler*
	dropped bool   // its guard was taken away while it was Primary, and the cluster does not know it yet
}

// What DRBD calls when it loses its peer.
const (
	handlerOurs  = "hactl"
	handlerNone  = "none"  // it cannot be run, which is no leave to go on
	handlerOther = "other" // it says at once that the peer is stale, and tells nobody
)

// unfenced is how a story names a resource without fencing.
const unfenced = "plain"

// replicate sets the copies of a config's DRBD resources up.
func (w *world) replicate(cfg *Config) {
	full := cfg.fullNodes()
	for _, g := range cfg.Groups {
		for _, r := range g.Resources {
			if r.Type != "drbd" || len(full) < 2 {
				continue
			}
			d := &worldDRBD{w: w, name: r.Resource, group: g.Name}
			for i := range d.sides {
				d.sides[i] = &worldCopy{d: d, m: w.host(full[i]), fencing: !strings.HasPrefix(r.Resource, unfenced), handler: handlerOurs}
			}
			w.drbds = append(w.drbds, d)
			w.after(0, d.turn)
		}
	}
}

// copies are what a machine has of DRBD resources.
func (m *machine) copies() (out []*worldCopy) {
	for _, d := range m.w.drbds {
		for _, s := range d.sides {
			if s.m == m {
				out = append(out, s)
			}
		}
	}
	return out
}

func (m *machine) copyThat(is func(*worldDRBD) bool) *worldCopy {
	for _, s := range m.copies() {
		if is(s.d) {
			return s
		}
	}
	return nil
}

// drbd is what a machine has of a DRBD resource, nil if nothing; copyOf of the data of a group, nil where that is not
// replicated.
func (m *machine) drbd(resource string) *worldCopy {
	return m.copyThat(func(d *worldDRBD) bool { return d.name == resource })
}
func (m *machine) copyOf(group string) *worldCopy {
	return m.copyThat(func(d *worldDRBD) bool { return d.group == group })
}

func (s *worldCopy) peer() *worldCopy {
	if s.d.sides[0] == s {
		return s.d.sides[1]
	}
	return s.d.sides[0]
}

// ware is the resource as its group has it, if it is Primary here.
func (s *worldCopy) ware() *ware {
	for _, x := range s.m.wares {
		if x.config.Type == "drbd" && x.config.Resource == s.d.name && x.present {
			return x
		}
	}
	return nil
}

// guarded: as its kernel is set, it changes nothing that its peer does not get before it is recorded. Of one that has gone on
// without its peer already, since it was set otherwise when it lost that, it does not hold.
func (s *worldCopy) guarded() bool {
	return s.fencing && s.handler == handlerOurs && !s.d.async
}

// guards: and it holds now. What is still mounted where DRBD was given up has nothing below it that it could change.
func (s *worldCopy) guards() bool {
	return s.guarded() && (s.ware() == nil || s.d.connected || s.frozen)
}

// claimed: the cluster counts with its guard.
func (s *worldCopy) claimed() bool {
	n := s.d.w.best()
	if n == nil {
		return false
	}
	x := n.state.node(s.m.name)
	return x != nil && slices.Contains(x.Enforce.Guarded, s.d.name)
}

// unwarned: its guard was taken away so lately that nobody could know.
func (s *worldCopy) unwarned() bool {
	s.dropped = s.dropped && !s.guarded() && s.ware() != nil && s.claimed()
	return s.dropped
}

// adjust is an operator's `drbdadm adjust`, with another option in the file. It thaws nothing and freezes nothing.
func (s *worldCopy) adjust(option, value string) error {
	was := s.guarded()
	switch option + " " + value {
	case "fencing resource-and-stonith", "fencing dont-care":
		s.fencing = value != "dont-care"
	case "handler " + handlerOurs, "handler " + handlerNone, "handler " + handlerOther:
		s.handler = value
	case "protocol A", "protocol C":
		other := s.peer().guarded()
		s.d.async = value == "A"
		s.peer().noteGuard(other)
	default:
		return fmt.Errorf("adjust: no option %s %s", option, value)
	}
	s.noteGuard(was)
	return nil
}

func (s *worldCopy) noteGuard(was bool) {
	if was && !s.guarded() && s.ware() != nil {
		s.dropped = true
	}
	s.d.w.truth++
}

// link is what replication goes over: the last of the config.
func (d *worldDRBD) link() string { return d.w.config.Links[len(d.w.config.Links)-1].Name }

// carries tells whether anything comes through now.
func (d *worldDRBD) carries() bool {
	a, b := d.sides[0].m, d.sides[1].m
	return a.power && b.power && a.still() == 0 && b.still() == 0 && d.w.net.passes(a, b, d.link()) && d.w.net.passes(b, a, d.link())
}

func (d *worldDRBD) turn() {
	d.w.after(drbdTurn, d.turn)
	switch carries := d.carries(); {
	case d.connected && carries:
		d.silent = 0
		for _, s := range d.sides {
			if s.ware() != nil && d.synced == 0 { // what was sent has come
				s.peer().version = s.version
			}
		}
		if d.synced != 0 && d.w.now >= d.synced {
			d.synced = 0
			from := d.source()
			from.peer().version = from.version
			from.lone, from.peer().lone = "", ""
			d.changed("the copies are equal")
		}
	case d.connected:
		if d.silent == 0 {
			d.silent = d.w.now
		}
		if d.w.now-d.silent >= drbdNotices {
			d.connected, d.synced, d.silent = false, 0, 0
			d.changed("not connected")
			for _, s := range d.sides {
				if s.ware() != nil && s.fencing {
					s.frozen = true
					d.w.tell("%s: I/O of %s is frozen", s.m.name, d.name)
					s.call()
				}
			}
		}
	case carries && d.sides[0].ware() != nil && d.sides[1].ware() != nil: // each stands alone until one is Secondary
	case carries:
		d.connected = true
		d.connects++
		for _, s := range d.sides {
			if s.alone || s.version != s.peer().version {
				d.synced = d.w.now + drbdResyncs
			}
		}
		for _, s := range d.sides {
			s.frozen, s.alone = false, false
		}
		d.changed("connected")
	}
}

// changed lets the daemons' eyes see it.
func (d *worldDRBD) changed(what string) {
	d.w.truth++
	d.w.tell("%s: %s", d.name, what)
	for _, s := range d.sides {
		if x := s.ware(); x != nil {
			s.m.notice(x, what)
		}
	}
}

// source is whom the other is copied from.
func (d *worldDRBD) source() *worldCopy {
	a, b := d.sides[0], d.sides[1]
	if b.ware() != nil || a.ware() == nil && b.version > a.version {
		return b
	}
	return a
}

// call is the handler: `hactl drbd fence-peer`.
func (s *worldCopy) call() {
	s.calls++
	call, connects, until := s.calls, s.d.connects, s.d.w.now+fencePeerTime
	var ask func()
	ask = func() {
		if !s.m.power || s.calls != call || s.d.connects != connects {
			return
		}
		switch {
		case s.d.w.now > until || s.handler == handlerNone:
			s.calls++ // given up
			return
		case s.handler == handlerOther:
			s.goOn("another handler has said so")
			s.alone = true
			return
		}
		l := s.m.life
		if l == nil || l.frozen || !l.awake {
			s.m.after(drbdAskAgain, ask)
			return
		}
		answered := false
		s.m.after(answerTime, func() { // the daemon has died over it
			if !answered {
				answered = true
				ask()
			}
		})
		l.enter(func(l *life) {
			l.node.Command(s.m.now(), Command{Name: commandFencePeer, Resource: s.d.name, Node: s.peer().m.name, By: "root@" + s.m.name}, func(p Progress) {
				if !p.Done || answered {
					return
				}
				answered = true
				s.m.after(drbdAskAgain, func() {
					switch {
					case p.Err != "":
						s.d.w.tell("%s: the handler of %s is refused: %s", s.m.name, s.d.name, p.Err)
						ask()
					case s.m.power && s.calls == call && s.d.connects == connects:
						s.goOn("its handler has said so")
						s.alone = true
					}
				})
			})
		})
	}
	s.m.after(time.Millisecond, ask)
}

func (s *worldCopy) goOn(why string) {
	if s.frozen {
		s.frozen, s.alone = false, true
		s.d.w.tell("%s: I/O of %s goes on: %s", s.m.name, s.d.name, why)
		s.d.changed("thawed")
	}
}

// promote is why it cannot become Primary, "" if it can.
func (s *worldCopy) promote() (why string, hopeless bool) {
	switch {
	case s.d.connected && s.peer().ware() != nil:
		return s.d.name + " is still Primary on " + s.peer().m.name, false
	case s.d.synced != 0 && s.d.source() != s:
		return s.d.name + " here is Inconsistent", true
	case !s.d.connected && s.fencing && !s.alone:
		s.call() // drbdadm primary waits for it; the next try finds what it has said
		return "the handler of " + s.d.name + " has not answered", false
	}
	return "", false
}

// copies is what its monitor reads.
func (s *worldCopy) copies() *copies {
	c := &copies{Known: true, Here: true, Of: 2, Frozen: s.frozen, Guarded: s.guarded()}
	if s.d.connected && s.d.synced == 0 {
		c.Peers = []string{s.peer().m.name}
	} else {
		c.Stale = []string{s.peer().m.name}
	}
	return c
}

// writable: what is written here now is acknowledged.
func (s *worldCopy) writable() bool {
	return s.ware() != nil && !s.frozen && !(s.d.connected && !s.d.async && !s.d.carries())
}

// write is a client's; false: it is not acknowledged.
func (s *worldCopy) write(c *worldClient) bool {
	d := s.d.w.lan.of(s.d.group)
	if !s.writable() {
		return false
	}
	if s.version != d.newest {
		if why := s.excuse(); why != "" {
			c.w.checks.window("acknowledged writes are lost: " + why)
		} else {
			c.w.checks.fail("%s writes to the data of %s over %d acknowledged writes", s.m.name, c.group, d.newest-s.version)
		}
	}
	d.newest++
	s.version = d.newest
	switch {
	case s.d.connected && s.d.synced == 0 && !s.d.async:
		s.peer().version = s.version
	case s.unwarned():
		s.lone = guardDropped
	case !s.guarded() || !s.alone && !s.d.connected && !s.claimed():
		s.lone = "DRBD without a guard"
	}
	c.writes++
	return true
}

// excuse is why nothing could have kept the newest writes from being where this copy is not.
func (s *worldCopy) excuse() string {
	checks := &s.d.w.checks
	switch x, y := s.ware(), s.peer().ware(); {
	case slices.Contains(checks.allowed, s.d.group):
		return "two_node = \"ignore\""
	case s.m.word:
		return "an operator's word for a node that went on as caretaker"
	case y != nil:
		return checks.excuse(x, y)
	}
	return s.peer().lone
}
