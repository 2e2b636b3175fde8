// What can happen in a story? Its lines: what the world does to the cluster, what an operator does, what must come of
// it, and what is shown.

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verb plays one line.
func (s *story) verb(f []string) error {
	if s.w == nil {
		return fmt.Errorf("there is no cluster yet")
	}
	switch f[0] {
	case "#":
		return nil
	case "tick", "until", "never", "always", "expect":
		return s.wait(f)
	case "on", "ask":
		return s.operator(f)
	case "status", "why", "history", "truth", "simulate":
		return s.show(f)
	case "allow": // GROUP has two owners because …
		s.w.checks.allowed = append(s.w.checks.allowed, f[1])
		return nil
	case "forbid": // it again
		s.w.checks.allowed = slices.DeleteFunc(s.w.checks.allowed, func(g string) bool { return g == f[1] })
		return nil
	case "cut", "heal", "loss", "duplicate", "straggle", "latency", "jitter", "carrier", "target":
		return s.network(f)
	case "device":
		return s.device(f)
	case "edit":
		setup := s.setup
		for _, kv := range f[2:] {
			k, v, _ := strings.Cut(kv, "=")
			setup.set(k, v)
		}
		s.edit(f[1], setup)
		return nil
	}
	return s.machine(f)
}

// machine is what happens to one machine: VERB NODE …, or VERB … on NODE.
func (s *story) machine(f []string) error {
	name := ""
	if i := slices.Index(f, "on"); i > 0 && i+1 < len(f) {
		name = f[i+1]
	} else if len(f) > 1 {
		name = f[1]
	}
	m := s.w.host(name)
	if m == nil {
		return fmt.Errorf("no node in %q", strings.Join(f, " "))
	}
	switch f[0] {
	case "start": // NODE [bootstrap]: the daemon, on a machine that runs
		return m.start(len(f) > 2 && f[2] == "bootstrap")
	case "leave": // systemctl stop
		if m.life == nil {
			return fmt.Errorf("no daemon runs")
		}
		l := m.life
		l.enter(func(l *life) { l.going = true; l.node.Leave(m.now()) })
	case "restart": // NODE: its daemon announces that the next one follows, and ends; start is for that one
		if m.life == nil {
			return fmt.Errorf("no daemon runs")
		}
		m.life.enter(func(l *life) { l.node.Restart(m.now()) })
		if s.w.split {
			s.w.run(effectTakes) // it ends when its words are sent
		}
		m.kill()
	case "version": // NODE LEVEL: what the next daemon there can do
		level, err := strconv.Atoi(f[2])
		m.level = level
		return err
	case "kill": // the daemon alone
		m.kill()
	case "crash": // a power cut
		m.powerOff()
		m.unplugged = true
	case "boot":
		m.powerOn()
		return m.start(false)
	case "reboot":
		m.powerOff()
		m.powerOn()
		return m.start(false)
	case "pause": // NODE DURATION: the daemon alone
		d, err := time.ParseDuration(f[2])
		if err != nil || m.life == nil {
			return fmt.Errorf("pause: %v", err)
		}
		m.life.freeze(d)
	case "snag": // NODE DURATION: the daemon, between what it decides next and its effect; in a split cluster
		d, err := time.ParseDuration(f[2])
		if err != nil || m.life == nil || !s.w.split {
			return fmt.Errorf("snag: %v", err)
		}
		m.snag = d
	case "stall": // NODE DURATION: the whole machine, clocks and all
		d, err := time.ParseDuration(f[2])
		if err != nil || !m.power {
			return fmt.Errorf("stall: %v", err)
		}
		m.stall(d)
	case "trap": // NODE: its power goes while it replaces its state folder
		m.disk.trap = true
	case "wipe", "corrupt":
		if m.life != nil {
			return fmt.Errorf("the daemon runs")
		}
		if f[0] == "wipe" {
			m.disk.wipe()
		} else {
			m.disk.corrupt()
		}
	case "copy": // NODE: a backup of its state folder
		if m.disk.durable == nil {
			return fmt.Errorf("it is blank")
		}
		m.disk.backUp()
	case "roll-back": // NODE: that backup is put back
		if m.life != nil || m.disk.copied == nil {
			return fmt.Errorf("the daemon runs, or there is no copy")
		}
		m.disk.putBack()
	case "full": // disk on NODE
		m.disk.full = "no space left on device: free some space there"
	case "room": // on NODE
		m.disk.full = ""
	case "slow": // disk on NODE DURATION
		d, err := time.ParseDuration(f[4])
		m.disk.delay = d
		return err
	case "clock": // NODE +10%
		percent, err := strconv.ParseInt(strings.TrimSuffix(f[2], "%"), 10, 64)
		m.clock.setRate(s.w.now, percent*10000)
		return err
	case "wall": // NODE 1h
		d, err := time.ParseDuration(f[2])
		m.wall = d
		return err
	case "adjust": // RESOURCE OPTION VALUE on NODE: of DRBD, while it runs
		c := m.drbd(f[1])
		if c == nil {
			return fmt.Errorf("%s has no copy of %s", m.name, f[1])
		}
		return c.adjust(f[2], f[3])
	case "jam", "unjam", "nofork", "fork", "busy", "free", "dogclock":
		return m.health(f)
	default:
		return s.resource(m, f)
	}
	return nil
}

// resource is what happens to a resource: VERB … on NODE.
func (s *story) resource(m *machine, f []string) error {
	switch f[0] {
	case "late", "drag": // OP RESOURCE on NODE DURATION: once, it cannot be ended before; or it hangs, and takes so long to end
		d, err := time.ParseDuration(f[5])
		m.odds = append(m.odds, &odd{op: f[1], name: f[2], how: f[0], late: d, times: 1})
		return err
	case "fail", "hang", "hopeless", "stick": // OP RESOURCE on NODE [N times]
		o := &odd{op: f[1], name: f[2], how: f[0], times: -1}
		if len(f) > 5 {
			n, err := strconv.Atoi(f[5])
			if err != nil {
				return err
			}
			o.times = n
		}
		m.odds = append(m.odds, o)
		return nil
	case "mend": // NODE
		m.odds = nil
		for _, x := range m.wares {
			x.ill = ""
		}
		return nil
	}
	x := m.find("", f[1])
	if x == nil {
		return fmt.Errorf("%s has no resource %s", m.name, f[1])
	}
	switch f[0] {
	case "break": // RESOURCE on NODE: it dies
		x.set(false, "dies")
		m.notice(x, "it died")
	case "sicken": // RESOURCE on NODE: it is there and not well
		x.ill = "sick"
		m.notice(x, "it is sick")
	default:
		return fmt.Errorf("no such verb")
	}
	return nil
}

func (s *story) network(f []string) error {
	switch f[0] {
	case "cut": // A B, or A -> B, and perhaps: on LINK
		link := ""
		if i := slices.Index(f, "on"); i > 0 {
			link, f = f[i+1], f[:i]
		}
		if i := slices.Index(f, "->"); i > 0 {
			s.w.net.cut(f[1], f[3], link)
			return nil
		}
		for _, other := range f[2:] {
			s.w.net.cut(f[1], other, link)
			s.w.net.cut(other, f[1], link)
		}
	case "heal": // [A [B]]
		f = append(f, "", "")
		s.w.net.heal(f[1], f[2])
	case "loss": // 20%
		percent, err := strconv.Atoi(strings.TrimSuffix(f[1], "%"))
		s.w.net.loss = float64(percent) / 100
		return err
	case "duplicate": // 10%
		percent, err := strconv.Atoi(strings.TrimSuffix(f[1], "%"))
		s.w.net.twice = float64(percent) / 100
		return err
	case "straggle": // 10% 2s: so many messages are held up, for so long at most
		percent, err := strconv.Atoi(strings.TrimSuffix(f[1], "%"))
		if err != nil {
			return err
		}
		s.w.net.slow = float64(percent) / 100
		s.w.net.slowBy, err = time.ParseDuration(f[2])
		return err
	case "jitter": // 20ms: a later datagram overtakes an earlier one
		d, err := time.ParseDuration(f[1])
		s.w.net.jitter = d
		return err
	case "latency":
		d, err := time.ParseDuration(f[1])
		s.w.net.latency, s.w.net.jitter = d, d/4
		return err
	case "target": // NAME silent|answers [on NODE]
		p := s.w.config.ping(f[1])
		if n := s.w.best(); n != nil && n.config.ping(f[1]) != nil {
			p = n.config.ping(f[1])
		}
		if p == nil {
			return fmt.Errorf("no target %s", f[1])
		}
		f = append(f, "", "")
		s.w.net.setSilent(p.Address+p.TCP, f[4], f[2] == "silent")
	case "carrier": // INTERFACE up|down on NODE
		m := s.w.host(f[4])
		if m == nil {
			return fmt.Errorf("no node %s", f[4])
		}
		m.setCarrier(f[1], f[2] == "up")
	}
	return nil
}

// wait lets time go by: tick D; until CONDITION within D; never or always CONDITION for D; expect CONDITION.
func (s *story) wait(f []string) error {
	if f[0] == "tick" {
		d, err := time.ParseDuration(f[1])
		s.w.run(d)
		return err
	}
	words, d := f[1:], time.Duration(0)
	if k := len(words); k > 2 && (words[k-2] == "within" || words[k-2] == "for") {
		var err error
		if d, err = time.ParseDuration(words[k-1]); err != nil {
			return err
		}
		words = words[:k-2]
	}
	holds, err := s.condition(words)
	if err != nil {
		return err
	}
	now := func() bool { return holds() }
	switch f[0] {
	case "until":
		if !s.w.until(d, now) {
			return fmt.Errorf("it did not happen: %s", s.where())
		}
	case "never":
		if s.w.until(d, now) {
			return fmt.Errorf("it happened")
		}
	case "always":
		if s.w.until(d, func() bool { return !holds() }) {
			return fmt.Errorf("it ended: %s", s.where())
		}
	case "expect":
		if !holds() {
			return fmt.Errorf("it is not so: %s", s.where())
		}
	}
	return nil
}

// where is the truth in one line, for what went wrong.
func (s *story) where() string {
	var parts []string
	for _, m := range s.w.hosts {
		text := "[" + m.running() + "]"
		if m.life == nil {
			text = "no daemon " + text
		}
		parts = append(parts, m.name+" "+text)
	}
	if n := s.w.best(); n != nil {
		for _, v := range n.verdicts {
			parts = append(parts, fmt.Sprintf("%s: %s %s", v.Group, v.Rule, v.Text))
		}
	} else {
		for _, m := range s.w.hosts {
			if m.life != nil {
				parts = append(parts, m.name+": "+m.life.node.whyBlank())
			}
		}
	}
	return strings.Join(parts, "; ")
}

// condition is a sentence that is true or not: [not] …
//
//	GROUP runs on NODE       all of it, and the cluster knows
//	GROUP serves on NODE     all of it is there, whatever anybody knows
//	GROUP runs nowhere       nothing of it is there
//	GROUP is PHASE           free, placed, started, revoked, blocked
//	GROUP is pinned
//	NODE is lost|left|voter|learner|joined|caretaker|leader|up|blank|unfit|standby|fenced|off|sick|armed
//	somebody leads
//	told TEXT                the history has a sentence with this text
//	maintenance              is on
//	generation N everywhere
//	incarnation N on NODE
func (s *story) condition(f []string) (func() bool, error) {
	if len(f) > 0 && f[0] == "not" {
		holds, err := s.condition(f[1:])
		return func() bool { return !holds() }, err
	}
	w := s.w
	switch text := strings.Join(f, " "); {
	case len(f) == 4 && f[2] == "on" && (f[1] == "runs" || f[1] == "serves"):
		m := w.host(f[3])
		if m == nil {
			return nil, fmt.Errorf("no node %s", f[3])
		}
		return func() bool {
			n := w.best()
			if f[1] == "serves" || n == nil {
				g := w.group(f[0])
				return f[1] == "serves" && g != nil && m.runsAll(g)
			}
			c, g := n.config.group(f[0]), n.state.group(f[0])
			return c != nil && g != nil && m.runsAll(c) && g.Phase == phaseStarted && g.Owner == m.name
		}, nil
	case len(f) == 3 && f[1] == "runs" && f[2] == "nowhere":
		return func() bool { return !slices.ContainsFunc(w.hosts, func(m *machine) bool { return m.runsAny(f[0]) }) }, nil
	case text == "somebody leads":
		return func() bool { return w.leader() != nil }, nil
	case text == "maintenance":
		return func() bool { n := w.best(); return n != nil && n.state.Maintenance != nil }, nil
	case f[0] == "told":
		text := strings.Join(f[1:], " ")
		return func() bool {
			n := w.best()
			return n != nil && slices.ContainsFunc(n.state.History, func(e Event) bool { return strings.Contains(e.Text, text) })
		}, nil
	case len(f) == 3 && f[0] == "generation" && f[2] == "everywhere":
		return func() bool {
			return !slices.ContainsFunc(w.hosts, func(m *machine) bool {
				return m.life != nil && (m.life.node.state == nil || strconv.FormatUint(m.life.node.state.Config.Generation, 10) != f[1])
			})
		}, nil
	case len(f) == 4 && f[0] == "incarnation":
		m := w.host(f[3])
		return func() bool {
			return m.life != nil && m.life.node.state != nil && strconv.FormatUint(m.life.node.state.Incarnation.Counter, 10) == f[1]
		}, nil
	case len(f) == 3 && f[1] == "is" && w.host(f[0]) != nil:
		return s.nodeIs(w.host(f[0]), f[2])
	case len(f) == 3 && f[1] == "is":
		return func() bool {
			n := w.best()
			if n == nil || n.state.group(f[0]) == nil {
				return f[2] == "gone"
			}
			g := n.state.group(f[0])
			return g.Phase == f[2] || f[2] == "pinned" && g.Pin != nil
		}, nil
	}
	return nil, fmt.Errorf("no such condition")
}

func (s *story) nodeIs(m *machine, what string) (func() bool, error) {
	w := s.w
	own := func(is func(*node) bool) func() bool { return func() bool { return m.life != nil && is(m.life.node) } }
	switch what {
	case "up":
		return own(func(*node) bool { return true }), nil
	case "blank":
		return own(func(n *node) bool { return n.state == nil }), nil
	case "leader":
		return func() bool { return w.leader() == m }, nil
	case "sick":
		return own(func(n *node) bool { return n.sick(m.now()) != "" }), nil
	case "armed": // its watchdog runs
		return func() bool { return m.dog.runs }, nil
	case "off":
		return func() bool { return !m.power }, nil
	case "stale": // a mark stands against what it has
		return func() bool {
			n := w.best()
			return n != nil && slices.ContainsFunc(n.state.Stale, func(c StaleCopy) bool { return c.Node == m.name })
		}, nil
	case "frozen": // what it writes
		return func() bool {
			return slices.ContainsFunc(m.copies(), func(s *worldCopy) bool { return s.frozen })
		}, nil
	case "fenced":
		return func() bool {
			n := w.best()
			return n != nil && n.state.fence(m.name) != nil && n.state.fence(m.name).Phase == fenceConfirmed
		}, nil
	case "caretaker":
		return own(func(n *node) bool { return n.caretaker }), nil
	}
	judge, ok := map[string]func(*NodeState) bool{
		"lost":    func(x *NodeState) bool { return x.Lost != nil },
		"left":    func(x *NodeState) bool { return x.Left },
		"voter":   func(x *NodeState) bool { return x.Voter && x.Joined && x.Lost == nil },
		"learner": func(x *NodeState) bool { return x.Member != 0 && !x.Voter },
		"joined":  func(x *NodeState) bool { return x.Joined && !x.Left && x.Lost == nil },
		"standby": func(x *NodeState) bool { return x.Standby != nil },
		"unfit":   func(x *NodeState) bool { return len(x.Unfit) > 0 },
	}[what]
	if !ok {
		return nil, fmt.Errorf("no such condition")
	}
	return func() bool {
		n := w.best()
		return n != nil && n.state.node(m.name) != nil && judge(n.state.node(m.name))
	}, nil
}

func (w *world) group(name string) *GroupConfig {
	if n := w.best(); n != nil && n.config.group(name) != nil {
		return n.config.group(name)
	}
	return w.config.group(name)
}

// leader is the machine whose node leads under the highest term.
func (w *world) leader() *machine {
	var best *machine
	for _, m := range w.hosts {
		if m.life == nil || m.life.node.cons == nil || m.life.node.state == nil {
			continue
		}
		if st := m.life.node.cons.Status(); st.Role == roleLeader && (best == nil || st.Term > best.life.node.cons.Status().Term) {
			best = m
		}
	}
	return best
}

// operator gives a command: on NODE COMMAND …, and waits for its end, or ask NODE COMMAND …, and goes on.
func (s *story) operator(f []string) error {
	m := s.w.host(f[1])
	if m == nil || m.life == nil {
		return fmt.Errorf("no daemon on %s", f[1])
	}
	c := Command{By: "root@" + f[1]}
	f2 := append(slices.Clone(f[2:]), "", "", "")
	switch f2[0] {
	case "move", "unmove":
		c.Name, c.Group, c.Node = map[string]string{"move": commandMove, "unmove": commandUnmove}[f2[0]], f2[1], f2[2]
		if f2[3] == "for" {
			d, err := time.ParseDuration(f2[4])
			if err != nil {
				return err
			}
			c.For = Duration(d)
		}
	case "standby", "online":
		c.Name, c.Node, c.On = commandStandby, f2[1], f2[0] == "standby"
	case "maintenance":
		c.Name, c.On = commandMaintenance, f2[1] == "on"
	case "cleanup":
		c.Name, c.Group = commandCleanup, f2[1]
	case "confirm-dead":
		c.Name, c.Node, c.Force = commandConfirmDead, f2[1], f2[2] == "force"
	case "quorum":
		c.Name, c.Force = commandQuorum, f2[1] == "force"
	case "fence":
		c.Name, c.Node, c.Force = commandFence, f2[1], f2[2] == "force"
		if f2[1] == "test" {
			c.Name, c.Node = commandFenceTest, f2[2]
		}
	case "unmark": // RESOURCE NODE [force]
		c.Name, c.Resource, c.Node, c.Force = commandUnmark, f2[1], f2[2], f2[3] == "force"
	default:
		return fmt.Errorf("no command %q", f2[0])
	}
	if slices.Contains([]string{commandConfirmDead, commandQuorum, commandFence, commandUnmark}, c.Name) {
		m.word = true
	}
	done := false
	m.life.enter(func(l *life) { l.node.Command(m.now(), c, s.hear(m, &done)) })
	if f[0] == "on" && !s.w.until(3*time.Minute, func() bool { return done || m.life == nil }) {
		return fmt.Errorf("no end of it")
	}
	return nil
}

// hear writes what a command says.
func (s *story) hear(m *machine, done *bool) func(Progress) {
	return func(p Progress) {
		*done = *done || p.Done
		switch {
		case p.Err != "":
			s.say("%8.2fs  %s answers: error: %s (%s)", s.w.now.Seconds(), m.name, p.Err, p.Hint)
		case p.Text != "":
			s.say("%8.2fs  %s answers: %s", s.w.now.Seconds(), m.name, p.Text)
		}
	}
}

// edit is what config_file.go does with a good edit of the file.
func (s *story) edit(name string, setup clusterSetup) {
	m := s.w.host(name)
	text := setup.text()
	cfg, problems := parseConfig(text)
	if errs, _ := countProblems(problems); errs > 0 {
		s.fail("edit:\n%s", renderProblems("ha.toml", problems))
		return
	}
	s.setup = setup
	m.file = text
	if m.life == nil {
		return
	}
	base := uint64(0)
	if st := m.life.node.state; st != nil {
		base = st.Config.Generation
		s.plan(m, cfg) // what follows is what it has said
	}
	c := ConfigState{Hash: configHash(text), Text: compress(text), Effective: cfg}
	done := false
	m.life.enter(func(l *life) { l.node.Edit(m.now(), c, base, "root@"+name, s.hear(m, &done)) })
}

// plan is what an operator is told before an edit; it must not touch the live state.
func (s *story) plan(m *machine, next *Config) {
	n := m.life.node
	before := hashState(n.state)
	lines, err := configPlan(n.snapshot(m.now()), next)
	if err != nil {
		s.fail("plan: %v", err)
	}
	for _, l := range lines {
		s.say("  plan: %s", l)
	}
	if hashState(n.state) != before {
		s.fail("the plan has changed the state of %s", m.name)
	}
}

func (s *story) show(f []string) error {
	switch f[0] {
	case "truth":
		for _, m := range s.w.hosts {
			how := m.running()
			if how == "" {
				how = "nothing"
			}
			switch {
			case !m.power:
				how = "switched off"
			case m.life == nil:
				how += ", no daemon"
			case m.still() > 0:
				how += ", but it stands still"
			case m.life.frozen:
				how += ", its daemon is frozen"
			}
			s.say("%s: %s", m.name, how)
		}
		return nil
	case "history":
		n, err := strconv.Atoi(f[1])
		best := s.w.best()
		if err != nil || best == nil {
			return fmt.Errorf("no history: %v", err)
		}
		h := best.state.History
		for _, e := range h[max(0, len(h)-n):] {
			s.say("%4d  %s", e.Index, e.Text)
		}
		return nil
	}
	m := s.w.host(f[1])
	if m == nil || m.life == nil {
		return fmt.Errorf("no daemon on %s", f[1])
	}
	if f[0] == "simulate" {
		return s.simulate(m, f[2:])
	}
	out := surroundings{version: "story"}
	for _, l := range m.life.node.config.Links {
		x := LinkStatus{Name: l.Name, Interface: l.Interface, State: "up"}
		if !m.carrier(l.Interface) {
			x.State = "no carrier"
		}
		out.links = append(out.links, x)
	}
	st := m.life.node.Status(m.now(), out)
	st.Wall = st.Wall.UTC()
	if f[0] == "status" {
		s.say("%s", strings.TrimRight(renderStatus(st, 100, false), "\n"))
		return nil
	}
	for _, g := range st.Groups {
		if g.Name == f[2] {
			s.say("%s %s: %s", g.Rule, g.State, g.Why)
			for _, c := range g.Nodes {
				s.say("  %s: may %v: %s", c.Node, c.May, c.Why)
			}
		}
	}
	return nil
}

// simulate is what the command does with the live state of a node, which it must not touch.
func (s *story) simulate(m *machine, args []string) error {
	n := m.life.node
	before := hashState(n.state)
	snapshot := n.snapshot(m.now())
	names, err := stateNames(snapshot)
	if err != nil {
		return err
	}
	steps, err := splitSteps(args)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.check(names); err != nil {
			return err
		}
	}
	text, err := simulate(snapshot, stepTexts(steps))
	s.say("%s", strings.TrimRight(text, "\n"))
	if hashState(n.state) != before {
		s.fail("simulate has changed the state of %s", m.name)
	}
	return err
}
