// What really runs, and where? The resources of one machine, and the operations on them: each takes its time, may fail
// or hang as a story says, and its effect is the truth of the world whatever any node makes of it. It is the actuator of
// the machine's daemon.

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ware is a resource on a machine: a process, a mount, an address.
type ware struct {
	m       *machine
	group   string
	config  ResourceConfig
	present bool   // it runs, is mounted, is configured
	ill     string // there, but not well: what a monitor says
	watched bool
	// of an address, as vip.go has them
	suspended, heldUp bool
	gone              time.Duration // when it went
	orphan            time.Duration // when somebody else had it too, and nobody could take it away here
	version           uint64        // of data: what was newest when it was mounted, and what was written since
	waiting           time.Duration // since when another host answers for it
	// and as the kernel has it
	until instant // from here on, by the machine's clock, nothing of it passes the gate
	told  bool    // whether the tale has it answering
	timer bool    // something happens at its deadline
}

func (x *ware) label() string {
	if x.config.Type == "vip" {
		return x.config.Address
	}
	return x.config.Name
}

// up tells whether it serves. An address answers until its deadline, whatever has become of the daemon.
func (x *ware) up() bool {
	return x.present && (x.config.Type != "vip" || !x.suspended && x.m.now() < x.until)
}

// set changes the truth.
func (x *ware) set(present bool, how string) {
	if x.present == present {
		return
	}
	x.present = present
	x.orphan = 0
	if !present {
		x.gone = x.m.w.now
	}
	x.m.w.truth++
	x.m.w.lan.changed(x)
	x.m.w.tell("%s: %s %s", x.m.name, x.label(), how)
	x.told = x.up()
	x.arm()
}

// gate tells when an address that is there has fallen silent, or answers again.
func (x *ware) gate() {
	if up := x.up(); x.present && up != x.told {
		x.told = up
		x.m.w.truth++
		x.m.w.tell("%s: %s %s", x.m.name, x.label(), map[bool]string{true: "is open again", false: "is shut"}[up])
	}
	x.arm()
}

// arm lets the world look at the deadline when it comes.
func (x *ware) arm() {
	if x.timer || !x.up() || x.config.Type != "vip" || x.until == openForGood {
		return
	}
	x.timer = true
	x.m.w.at(x.m.clock.when(x.until), func() {
		x.timer = false
		if slices.Contains(x.m.wares, x) {
			x.gate()
		}
	})
}

// ware finds the resource, or makes one that is stopped.
func (m *machine) ware(group string, c ResourceConfig) *ware {
	i, found := slices.BinarySearchFunc(m.wares, [2]string{group, c.Name}, func(x *ware, key [2]string) int {
		return cmp.Or(cmp.Compare(x.group, key[0]), cmp.Compare(x.config.Name, key[1]))
	})
	if !found {
		m.wares = slices.Insert(m.wares, i, &ware{m: m, group: group, config: c})
	}
	return m.wares[i]
}

func (m *machine) find(group, name string) *ware {
	for _, x := range m.wares {
		if x.config.Name == name && (group == "" || x.group == group) {
			return x
		}
	}
	return nil
}

// odd is an operation that shall not go as it should.
type odd struct {
	op, name string
	how      string // fail, hang, hopeless; stick: it never ends; late: nothing ends it before late has passed, then it works; drag: it hangs, and takes so long to end when it shall
	late     time.Duration
	times    int // how often yet; -1: for ever
}

func (m *machine) oddity(op, name string) (string, time.Duration) {
	i := slices.IndexFunc(m.odds, func(o *odd) bool { return o.op == op && o.name == name })
	if i < 0 {
		return "", 0
	}
	o := m.odds[i]
	if o.times > 0 {
		if o.times--; o.times == 0 {
			m.odds = slices.Delete(m.odds, i, i+1)
		}
	}
	return o.how, o.late
}

// takes is how long an operation lasts when all is well: the order of magnitude of the real ones.
func takes(op, typ string) time.Duration {
	switch op {
	case opMonitor:
		return 2 * time.Millisecond
	case opFit:
		return time.Millisecond
	}
	switch typ {
	case "vip":
		return 12 * time.Millisecond
	case "httpd":
		return 120 * time.Millisecond
	case "filesystem":
		return 40 * time.Millisecond
	}
	return 80 * time.Millisecond
}

// worldAct is an operation that runs.
type worldAct struct {
	l     *life
	a     action
	x     *ware
	how   string
	late  time.Duration
	begun time.Duration
	ended bool
}

// running are the operations of a daemon, by id.
func (l *life) running() []*worldAct {
	var out []*worldAct
	for _, w := range l.acts {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *worldAct) int { return cmp.Compare(a.a.ID, b.a.ID) })
	return out
}

// The actuator of the daemon.

func (l *life) Do(a action) {
	l.w.checks.begins(l, a) // this is when it was decided
	l.effect(func() { l.begin(a) })
}

func (l *life) begin(a action) {
	l.w.mark(a.Op, l.m.name+a.Group+a.Resource, a.Epoch, a.ID)
	x := l.m.ware(a.Group, a.Config)
	x.config = a.Config
	if a.Config.Type == "vip" && l.shut[a.Group] && !x.suspended {
		x.suspend()
	}
	if until, told := l.leases[a.Group]; told && a.Op == opMonitor { // it looks for itself what the kernel has
		x.lease(until)
	}
	act := &worldAct{l: l, a: a, x: x, begun: l.w.now}
	l.acts[a.ID] = act
	d := takes(a.Op, a.Config.Type)
	d += time.Duration(l.w.chance.act.Int64N(int64(d)/4 + 1))
	how, late := l.m.oddity(a.Op, a.Resource)
	if s := l.m.copyOf(a.Group); s != nil && s.frozen && a.Op == opStop && x.data() && x.present {
		how = "hang" // what is to be written first is not
	}
	act.how = how
	switch how {
	case "hang", "drag":
		d, act.late = a.Timeout, late
	case "stick": // whatever is done to it
		delete(l.acts, a.ID)
		return
	case "late":
		l.m.after(late, func() { act.end("") })
		return
	}
	l.m.after(min(d, a.Timeout), func() { act.end(how) })
}

func (l *life) Cancel(id uint64) { l.effect(func() { l.cancel(id) }) }

func (l *life) cancel(id uint64) {
	if act := l.acts[id]; act != nil && act.how != "late" {
		l.m.after(max(time.Millisecond, act.late), func() { act.end("cancel") })
	}
}

// end does what the operation was for, and tells the daemon.
func (act *worldAct) end(how string) {
	if act.ended {
		return
	}
	l := act.l
	if l.frozen && l.m.life == l && act.x.config.Type == "vip" {
		l.thaw = append(l.thaw, func() { act.end(how) }) // the daemon does this itself
		return
	}
	act.ended = true
	delete(l.acts, act.a.ID)
	if l.m.life != l {
		return
	}
	d := actionDone{action: act.a, Took: l.w.now - act.begun}
	switch {
	case how == "fail" && act.a.Op == opMonitor:
		d.Condition, d.Err = conditionFailed, "the world says no"
	case how == "fail":
		d.Err, d.Tail = "the world says no", "no\n"
		if act.a.Op == opStart && act.x.config.Type != "vip" {
			act.x.ill = "half started"
			act.x.set(true, "is half started")
		}
	case how == "hopeless":
		d.Err, d.Hopeless = "cannot be mended here", true
	case how == "hang", how == "drag":
		d.Err, d.TimedOut = fmt.Sprintf("timed out after %s", act.a.Timeout), true
	case how == "cancel":
		d.Err = "canceled"
		// Whether it had done its work by then is chance.
		if (act.a.Op == opStart || act.a.Op == opStop || act.a.Op == opForce) && l.w.chance.act.IntN(2) == 0 {
			act.work(&d)
			d.Err = "canceled"
		}
	default:
		act.work(&d)
	}
	l.enter(func(l *life) { l.node.ActionDone(l.m.now(), d) })
}

// abandoned: the daemon died while it ran. What a command had begun may come to its end all the same.
func (act *worldAct) abandoned() {
	if act.ended {
		return
	}
	act.ended = true
	if (act.a.Op == opStart || act.a.Op == opStop) && act.l.w.chance.act.IntN(2) == 0 {
		act.work(&actionDone{action: act.a})
	}
}

func (act *worldAct) work(d *actionDone) {
	x := act.x
	switch act.a.Op {
	case opStart:
		act.startIt(d)
	case opStop, opForce:
		x.ill, x.suspended, x.heldUp, x.watched = "", false, false, false
		x.set(false, "stops")
	case opMonitor:
		d.Condition, d.Err, d.Hopeless = x.look()
		if s := x.m.drbd(x.config.Resource); s != nil && d.Condition == conditionRunning {
			d.Copies = s.copies()
		}
	case opThaw:
		if s := x.m.drbd(x.config.Resource); s != nil && x.present {
			s.goOn("the daemon has thawed it")
		}
	case opFit:
		if err := x.fault(); err != "" {
			d.Err, d.Hopeless = err, true
		}
	}
}

// fault is why the machine cannot run it.
func (x *ware) fault() string {
	if x.config.Type == "vip" && !x.m.carrier(x.config.Interface) {
		return "no carrier on " + x.config.Interface
	}
	if x.config.Type == "drbd" && x.m.drbd(x.config.Resource) == nil {
		return x.config.Resource + " is not in DRBD's configuration"
	}
	return ""
}

func (x *ware) look() (condition, string, bool) {
	switch {
	case x.config.Type == "vip" && x.suspended && x.heldUp:
		return conditionRunning, "", false
	case !x.present:
		return conditionStopped, "", false
	case x.fault() != "":
		return conditionFailed, x.fault(), true
	case x.ill != "":
		return conditionFailed, x.ill, false
	}
	return conditionRunning, "", false
}

func (act *worldAct) startIt(d *actionDone) {
	x := act.x
	if err := x.fault(); err != "" {
		d.Err, d.Hopeless = err, true
		return
	}
	if s := x.m.drbd(x.config.Resource); s != nil && !x.present {
		if err, hopeless := s.promote(); err != "" {
			d.Err, d.Hopeless, d.Waiting = err, hopeless, !hopeless
			return
		}
	}
	if x.config.Type == "vip" {
		if x.suspended || act.l.leases[x.group] <= x.m.now() {
			d.Err, d.Waiting = "suspended: waiting for a lease", true
			return
		}
		x.lease(act.l.leases[x.group])
		if other := x.answering(); other != nil && !x.present && !act.a.Hint.Clean && !act.a.Hint.Restart {
			w := x.m.w
			if x.waiting == 0 {
				x.waiting = w.now
			}
			if !act.a.Hint.Insist || w.now-x.waiting < x.config.ProbeTimeout.D() {
				d.Err, d.Waiting = other.m.name+" still answers for "+x.config.Address, true
				return
			}
		}
	}
	x.waiting, x.ill = 0, ""
	x.set(true, "starts")
}

// answering is the same address on another machine that can be reached over its link.
func (x *ware) answering() *ware {
	w := x.m.w
	for _, link := range w.config.Links {
		if link.Interface != x.config.Interface {
			continue
		}
		for _, m := range w.hosts {
			if m == x.m || !m.power || m.still() > 0 || !w.net.passes(x.m, m, link.Name) || !w.net.passes(m, x.m, link.Name) {
				continue
			}
			for _, y := range m.wares {
				if y.config.Type == "vip" && y.config.Address == x.config.Address && y.up() {
					return y
				}
			}
		}
	}
	return nil
}

func (l *life) Lease(group string, until instant) { l.effect(func() { l.grant(group, until) }) }

func (l *life) grant(group string, until instant) {
	l.leases[group] = until
	for _, x := range l.m.wares {
		if x.group == group && x.config.Type == "vip" {
			x.lease(until)
		}
	}
}

func (x *ware) lease(until instant) {
	x.until = until
	x.gate()
}

func (l *life) Suspend(group string) { l.effect(func() { l.gate(group, true) }) }
func (l *life) Resume(group string)  { l.effect(func() { l.gate(group, false) }) }

func (l *life) gate(group string, shut bool) {
	l.shut[group] = shut
	for _, x := range l.m.wares {
		switch {
		case x.group != group || x.config.Type != "vip":
		case shut:
			x.suspend()
		default:
			x.resume()
		}
	}
}

func (x *ware) suspend() {
	if !x.suspended {
		x.heldUp = x.present
	}
	x.suspended = true
	x.gate()
}

func (x *ware) resume() {
	if x.suspended {
		x.suspended = false
		if x.heldUp && !x.present { // somebody has taken it away meanwhile
			x.set(true, "is put back")
		}
		x.heldUp = false
		x.gate()
	}
}

func (l *life) Watch(group, resource string, on bool) {
	l.effect(func() {
		if x := l.m.find(group, resource); x != nil {
			x.watched = on
		}
	})
}

func (l *life) Announce(group string) { l.effect(func() { l.announce(group) }) }

func (l *life) announce(group string) {
	l.w.mark("announce", l.m.name+group)
	for _, x := range l.m.wares {
		if x.group == group && x.config.Type == "vip" {
			if !x.present {
				l.w.checks.fail("%s announces %s and does not have it", l.m.name, x.config.Address)
			}
			l.w.lan.changed(x)
		}
	}
}

// Ping asks a target outside the cluster, through the link that the addresses are on.
func (l *life) Ping(p ping) {
	n := &l.w.net
	l.w.mark("ping", l.m.name, p.ID)
	lost := n.mute(p.Address+p.TCP, l.m.name) || !l.m.carrier("eth0") || n.loss > 0 && l.w.chance.net.Float64() < n.loss
	done, d := pinged{ID: p.ID}, n.delay()+n.delay()
	if lost {
		done.Failure, d = fmt.Sprintf("no answer within %s", shortDuration(p.Timeout)), p.Timeout
	}
	l.w.after(d, func() { l.enter(func(l *life) { l.node.Pinged(l.m.now(), done.ID, done.Failure) }) })
}

// notice lets the daemon's eyes see what happened to a resource.
func (m *machine) notice(x *ware, reason string) {
	m.after(time.Millisecond, func() {
		if l := m.life; l != nil && x.watched {
			l.enter(func(l *life) {
				l.node.Noticed(m.now(), noticed{Group: x.group, Resource: x.config.Name, Reason: reason})
			})
		}
	})
}

// running lists what runs on a machine, group by group.
func (m *machine) running() string {
	var parts []string
	for _, x := range m.wares {
		if !x.present {
			continue
		}
		text := x.group + "/" + x.config.Name
		if x.ill != "" {
			text += " (" + x.ill + ")"
		} else if !x.up() {
			text += " (shut)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

// runsAll tells whether all of a group runs on a machine.
func (m *machine) runsAll(g *GroupConfig) bool {
	return m.power && !slices.ContainsFunc(g.Resources, func(c ResourceConfig) bool {
		x := m.find(g.Name, c.Name)
		return x == nil || !x.up() || x.ill != ""
	})
}

// runsAny tells whether anything of a group is there.
func (m *machine) runsAny(group string) bool {
	return slices.ContainsFunc(m.wares, func(x *ware) bool { return x.group == group && x.present })
}
