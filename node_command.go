// What does the operator want now? Each command becomes at most one entry, proposed until it is applied, and then a wait
// for what it was meant to bring about. What was decided stands even if nobody waits any more.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// waiter is a command on its way.
type waiter struct {
	command Command
	entry   Entry
	request uint64
	begun   instant
	applied bool
	refused string
	told    string
	say     func(Progress) // must not block
	excused func() bool    // no record is needed any more; nil: it always is
	// finish says how far it is after the entry was applied: done, or what it waits for.
	finish func(now instant) (text string, done bool, err error)
}

// Command begins a command. Everything that there is to say goes to say; the last has Done.
func (n *node) Command(now instant, c Command, say func(Progress)) {
	w, err := n.prepare(now, c, say)
	if err != nil {
		say(progressOf(err))
		return
	}
	if w == nil {
		say(Progress{Done: true})
		return
	}
	w.begun = now
	n.waiters = append(n.waiters, w)
	n.advance(now)
}

func progressOf(err error) Progress {
	h := toHint(err)
	return Progress{Done: true, Err: h.msg, Hint: h.hint, Code: h.code}
}

// prepare checks the command against the state and makes its entry.
func (n *node) prepare(now instant, c Command, say func(Progress)) (*waiter, error) {
	if n.state == nil {
		return nil, &hintError{msg: "this node is not part of a running cluster: " + n.whyBlank(), hint: "hactl status"}
	}
	w := &waiter{command: c, say: say, request: n.opt.Random()}
	w.entry = Entry{By: c.By, Request: w.request, Group: c.Group, Node: c.Node}
	if g := n.state.group(c.Group); c.Group != "" && g == nil {
		return nil, &hintError{msg: fmt.Sprintf("no group %q", c.Group), hint: "hactl status", code: exitUsage}
	}
	switch c.Name {
	case commandMove:
		return w, n.beginMove(now, w)
	case commandUnmove:
		return n.beginUnmove(w)
	case commandStandby:
		return n.beginStandby(now, w)
	case commandMaintenance:
		return n.beginMaintenance(now, w)
	case commandCleanup:
		return n.beginCleanup(w)
	case commandConfirmDead:
		return n.beginConfirmDead(now, w)
	case commandQuorum:
		return n.beginQuorum(now, w)
	case commandFence:
		return n.beginFence(now, w)
	case commandFenceTest:
		return n.beginFenceTest(w)
	case commandEdit:
		return w, n.beginEdit(w)
	case commandFencePeer:
		return n.beginFencePeer(w)
	case commandUnfencePeer:
		n.agent.lookAt(now, c.Resource)
		return nil, nil
	case commandUnmark:
		return n.beginUnmark(w)
	case commandResolve:
		return n.beginResolve(w)
	}
	return nil, &hintError{msg: fmt.Sprintf("the daemon knows no command %q", c.Name), code: exitUsage}
}

func (n *node) beginMove(now instant, w *waiter) error {
	c := w.command
	g := n.state.group(c.Group)
	if !slices.Contains(n.config.fullNodes(), c.Node) {
		return &hintError{msg: fmt.Sprintf("%q is no node that runs groups", c.Node), hint: "one of: " + strings.Join(n.config.fullNodes(), ", "), code: exitUsage}
	}
	w.entry.Kind = entryPin
	if c.For > 0 {
		w.entry.Until = n.clusterClock(now) + c.For.D()
	}
	if g.Owner != c.Node {
		for _, x := range why(n.state, n.view(now), c.Group) {
			if x.Node == c.Node && !x.May {
				return &hintError{msg: fmt.Sprintf("%s cannot go to %s: %s", c.Group, c.Node, x.Why), hint: "hactl why " + c.Group}
			}
		}
	}
	if n.state.Maintenance != nil {
		return &hintError{msg: "maintenance is on: nothing is moved", hint: "hactl maintenance off"}
	}
	limit := n.moveLimit(c.Group)
	serial := n.failuresOn(c.Group, c.Node)
	w.finish = func(now instant) (string, bool, error) {
		g := n.state.group(c.Group)
		switch {
		case g == nil:
			return "", false, &hintError{msg: c.Group + " is no longer in the config"}
		case g.Owner == c.Node && g.Phase == phaseStarted:
			return fmt.Sprintf("%s runs on %s", c.Group, c.Node), true, nil
		case g.Phase == phaseBlocked:
			return "", false, &hintError{msg: fmt.Sprintf("%s is blocked: %s", c.Group, g.Why), hint: "mend it, then: hactl cleanup " + c.Group}
		case n.failuresOn(c.Group, c.Node) > serial && g.Owner != c.Node:
			return "", false, &hintError{msg: fmt.Sprintf("%s could not start on %s: %s", c.Group, c.Node, n.lastFailure(c.Group, c.Node)),
				hint: fmt.Sprintf("mend it, then: hactl cleanup %s; to give up: hactl unmove %s", c.Group, c.Group)}
		case now.sub(w.begun) > limit:
			return "", false, &hintError{msg: fmt.Sprintf("%s does not run on %s after %s: %s", c.Group, c.Node, limit, n.verdict(c.Group)), hint: "hactl why " + c.Group}
		}
		return n.verdict(c.Group), false, nil
	}
	return nil
}

// moveLimit bounds a move: everything stops and starts within its timeouts.
func (n *node) moveLimit(group string) time.Duration {
	if c := n.config.group(group); c != nil {
		return c.stopSum() + c.startSum() + 10*time.Second
	}
	return time.Minute
}

func (n *node) failuresOn(group, node string) int {
	k := 0
	for i := range n.state.Resources {
		if r := &n.state.Resources[i]; r.Group == group && r.Node == node {
			k += r.Failcount
		}
	}
	return k
}

func (n *node) lastFailure(group, node string) string {
	var last *ResourceState
	for i := range n.state.Resources {
		if r := &n.state.Resources[i]; r.Group == group && r.Node == node && (last == nil || r.Clock > last.Clock) {
			last = r
		}
	}
	if last == nil {
		return "no failure is known"
	}
	return fmt.Sprintf("%s of %s failed: %s", last.Op, last.Resource, last.Reason)
}

// verdict is the sentence of the rule that holds for a group.
func (n *node) verdict(group string) string {
	for _, v := range n.verdicts {
		if v.Group == group {
			return v.Text
		}
	}
	return ""
}

func (n *node) beginUnmove(w *waiter) (*waiter, error) {
	g := n.state.group(w.command.Group)
	if g.Pin == nil {
		w.say(Progress{Text: w.command.Group + " is not pinned"})
		return nil, nil
	}
	w.entry.Kind = entryUnpin
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("%s is no longer pinned", w.command.Group), true, nil
	}
	return w, nil
}

// warnHomeless says what will run nowhere when a node must run nothing.
func (n *node) warnHomeless(now instant, w *waiter) {
	for i := range n.state.Groups {
		g := &n.state.Groups[i]
		if c := n.config.group(g.Name); g.Owner != w.command.Node || c == nil || len(c.With) > 0 { // those go where the other goes
			continue
		}
		var reasons []string
		for _, x := range why(n.state, n.view(now), g.Name) {
			if x.May && x.Node != g.Owner {
				reasons = nil
				break
			}
			if x.Node != g.Owner {
				reasons = append(reasons, x.Why)
			}
		}
		if reasons != nil {
			w.say(Progress{Text: fmt.Sprintf("%s then runs nowhere: %s (hactl online %s takes it back)", g.Name, strings.Join(reasons, "; "), g.Owner)})
		}
	}
}

func (n *node) beginCleanup(w *waiter) (*waiter, error) {
	c, g := w.command, n.state.group(w.command.Group)
	if g == nil {
		return nil, &hintError{msg: "cleanup of which group?", hint: "hactl status", code: exitUsage}
	}
	counted := slices.ContainsFunc(n.state.Resources, func(r ResourceState) bool {
		return r.Group == c.Group && (c.Resource == "" || r.Resource == c.Resource) && (c.Node == "" || r.Node == c.Node)
	})
	leads := n.cons.Status().Leader == n.member // another node may not know yet of a failure that is recorded
	if leads && !counted && g.Bounces == 0 && g.Phase != phaseBlocked {
		w.say(Progress{Text: "there is no failure of " + c.Group + " to forget"})
		return nil, nil
	}
	w.entry.Kind, w.entry.Resource = entryCleanup, c.Resource
	w.finish = func(instant) (string, bool, error) { return "failures of " + c.Group + " are forgotten", true, nil }
	return w, nil
}

func (n *node) beginStandby(now instant, w *waiter) (*waiter, error) {
	c := w.command
	x := n.state.node(c.Node)
	if x == nil {
		return nil, &hintError{msg: fmt.Sprintf("no node %q", c.Node), code: exitUsage}
	}
	if (x.Standby != nil) == c.On {
		word := map[bool]string{true: "in standby", false: "online"}[c.On]
		w.say(Progress{Text: fmt.Sprintf("%s is %s already", c.Node, word)})
		return nil, nil
	}
	w.entry.Kind, w.entry.On = entryStandby, c.On
	if c.On && n.state.Maintenance == nil {
		n.warnHomeless(now, w)
	}
	w.finish = func(now instant) (string, bool, error) {
		lost := n.isLost(now, c.Node)
		switch {
		case !c.On && lost:
			return fmt.Sprintf("%s is lost: it may run groups again when it is back", c.Node), true, nil
		case !c.On:
			return c.Node + " may run groups again", true, nil
		}
		if n.state.Maintenance != nil {
			return fmt.Sprintf("%s is in standby: what it runs leaves it when maintenance is off", c.Node), true, nil
		}
		var left []string
		for i := range n.state.Groups {
			if g := &n.state.Groups[i]; g.Owner == c.Node {
				if g.Phase == phaseBlocked {
					return "", false, &hintError{msg: fmt.Sprintf("%s is blocked: %s", g.Name, g.Why), hint: "mend it, then: hactl cleanup " + g.Name}
				}
				left = append(left, g.Name)
			}
		}
		if len(left) > 0 {
			return fmt.Sprintf("waiting for %s to leave %s", strings.Join(left, ", "), c.Node), false, nil
		}
		if lost {
			return fmt.Sprintf("%s is lost and owns no group; when it is back it takes none, until: hactl online %s", c.Node, c.Node), true, nil
		}
		return c.Node + " is in standby and runs nothing", true, nil
	}
	return w, nil
}

func (n *node) beginMaintenance(now instant, w *waiter) (*waiter, error) {
	c := w.command
	if (n.state.Maintenance != nil) == c.On {
		w.say(Progress{Text: "maintenance is " + onOff(c.On) + " already"})
		return nil, nil
	}
	if !c.On {
		// An owner that is out of reach still takes it for maintenance and would not stop.
		v := n.view(now)
		for i := range n.state.Groups {
			g := &n.state.Groups[i]
			if o := g.Owner; o != "" && o != n.name && !v.node(o).Heard && (g.Phase != phaseRevoked || g.Proof == "") {
				return nil, &hintError{msg: fmt.Sprintf("%s owns %s and is not heard: it may still run it and believe in maintenance", o, g.Name),
					hint: fmt.Sprintf("bring %s back, or make sure that it is off, then: hactl confirm-dead %s", o, o)}
			}
		}
	}
	w.entry.Kind, w.entry.On = entryMaintenance, c.On
	w.finish = func(instant) (string, bool, error) { return "maintenance is " + onOff(c.On), true, nil }
	return w, nil
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (n *node) beginConfirmDead(now instant, w *waiter) (*waiter, error) {
	c := w.command
	x := n.state.node(c.Node)
	if x == nil || c.Node == n.name {
		return nil, &hintError{msg: fmt.Sprintf("%q is not another node of this cluster", c.Node), code: exitUsage}
	}
	if on := n.stillHeard(now, c.Node); on != "" {
		return nil, &hintError{msg: fmt.Sprintf("%s is alive: it is heard on %s", c.Node, on), hint: "a node that lives hands its groups over: hactl standby " + c.Node}
	}
	if !n.hasQuorum() && !n.config.twoVoters() {
		return nil, &hintError{msg: "there is no majority of voters to record it", hint: "if more nodes are gone for good: hactl quorum force"}
	}
	if !c.Force {
		w.say(Progress{Text: n.lastContact(now, c.Node)})
		n.warnCutOff(now, w)
		for _, line := range n.atStake(c.Node) {
			w.say(Progress{Text: line})
		}
		return nil, nil
	}
	w.entry.Kind, w.entry.Session = entryConfirmDead, x.Session
	if n.unmet() == c.Node {
		n.vouched = n.incarnation()
	}
	if x.Lost == nil && x.Joined && !x.Left && n.hasQuorum() {
		return nil, &hintError{msg: c.Node + " is not counted as lost yet", hint: "wait a moment and try again"}
	}
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("%s is recorded as dead; what it ran goes on elsewhere", c.Node), true, nil
	}
	if n.hasQuorum() {
		return w, nil
	}
	w.entry.Session = 0 // a new incarnation knows no sessions but its founder's
	if err := n.force(now, c.By, fmt.Sprintf("%s confirmed dead by %s", c.Node, c.By), w.entry); err != nil {
		return nil, err
	}
	w.applied = true
	return w, nil
}

// stillHeard names the links on which anything of a node came lately, confirmed or not.
func (n *node) stillHeard(now instant, node string) string {
	p := n.peers.get(node)
	if on := p.on(now, 2*n.deadtime()); len(on) > 0 {
		return strings.Join(on, ", ")
	}
	if p.unsure != 0 && now.sub(p.unsure) < 2*n.deadtime() {
		return "a link"
	}
	if n.cons != nil && n.peers.age(now, node, n.names(n.cons.Status().Members.Voters), n.deadtime()) < n.deadtime() {
		return "another node's link"
	}
	return ""
}

func (n *node) lastContact(now instant, node string) string {
	if d := n.peers.silence(now, node); d < 1<<61 {
		return fmt.Sprintf("%s was last heard %s ago", node, d.Round(100*time.Millisecond))
	}
	return fmt.Sprintf("%s has not been heard since this daemon started", node)
}

// warnCutOff says that it may be this node that nobody reaches.
func (n *node) warnCutOff(now instant, w *waiter) {
	if target := n.unconfirmed(now); target != "" && n.config.twoVoters() {
		w.say(Progress{Text: fmt.Sprintf("%s does not answer this node either: it may be this one that is cut off, while the other runs", target)})
	}
}

// atStake says what an operator answers for.
func (n *node) atStake(node string) []string {
	var owned []string
	for i := range n.state.Groups {
		if g := &n.state.Groups[i]; g.Owner == node {
			owned = append(owned, g.Name)
		}
	}
	if n.peers.get(node).better != 0 {
		return []string{
			fmt.Sprintf("%s went on in another incarnation while this node was away: what it has decided and written since is lost here", node),
			fmt.Sprintf("start %s instead if that can be done, and this node joins it", node),
		}
	}
	if len(owned) == 0 {
		return []string{node + " owned no group; nothing is taken over"}
	}
	return []string{
		fmt.Sprintf("%s owned %s: if it still runs, both nodes will run it and its data may diverge", node, strings.Join(owned, ", ")),
		fmt.Sprintf("make sure that %s is switched off or cut off from network and disks before you go on", node),
	}
}

func (n *node) beginQuorum(now instant, w *waiter) (*waiter, error) {
	c := w.command
	if n.hasQuorum() {
		return nil, &hintError{msg: "there is a majority already: nothing needs to be forced", hint: "hactl status"}
	}
	var gone []Entry
	var names []string
	for _, x := range n.state.Nodes {
		if x.Name == n.name || x.Member == 0 {
			continue
		}
		if n.stillHeard(now, x.Name) != "" {
			continue // it will join this incarnation
		}
		names = append(names, x.Name)
		gone = append(gone, Entry{Kind: entryConfirmDead, Node: x.Name, By: c.By}) // no session: see beginConfirmDead
	}
	if len(gone) == 0 {
		return nil, &hintError{msg: "every member is heard: a majority should come by itself", hint: "wait, or look into the links: hactl status"}
	}
	if !c.Force {
		n.warnCutOff(now, w)
		for _, name := range names {
			w.say(Progress{Text: n.lastContact(now, name)})
			for _, line := range n.atStake(name) {
				w.say(Progress{Text: line})
			}
		}
		if voters := len(n.cons.Status().Members.Voters); voters > 2 {
			w.say(Progress{Text: fmt.Sprintf("of %d voters a majority is lost: decisions that only they stored are lost with them", voters)})
		}
		return nil, nil
	}
	if err := n.force(now, c.By, "quorum forced by "+c.By+": "+strings.Join(names, ", ")+" gone", gone...); err != nil {
		return nil, err
	}
	w.applied = true
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("%s goes on alone as incarnation %d", n.name, n.state.Incarnation.Counter), true, nil
	}
	return w, nil
}

// beginEdit takes a whole configuration, made from the generation that is in force.
func (n *node) beginEdit(w *waiter) error {
	c := w.command
	cfg, problems := parseConfig([]byte(c.Text))
	if errs, _ := countProblems(problems); errs > 0 || cfg == nil {
		return &hintError{msg: fmt.Sprintf("the configuration has %s by this version", count(errs, "error")), hint: "hactl config check shows each with its place", code: exitBadConfig}
	}
	if err := sameCluster(n.config, cfg); err != nil {
		return err
	}
	w.entry.Kind, w.entry.Base = entryConfig, c.Base
	w.entry.Config = &ConfigState{Hash: configHash([]byte(c.Text)), Text: compress([]byte(c.Text)), Effective: cfg}
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("config generation %d is in force", n.state.Config.Generation), true, nil
	}
	return nil
}

// sameCluster refuses an edit that would make another cluster of it.
func sameCluster(is, next *Config) error {
	if next.Cluster.Name != is.Cluster.Name {
		return &hintError{msg: fmt.Sprintf("the cluster's name cannot change from %q to %q while it runs", is.Cluster.Name, next.Cluster.Name), hint: "every datagram's key comes from it: stop all nodes for that"}
	}
	return nil
}

// Edit is the event that the config file was edited: a good text, made from generation base.
func (n *node) Edit(now instant, c ConfigState, base uint64, by string, say func(Progress)) {
	if n.state == nil && base > 0 {
		say(Progress{Done: true, Err: "this node has no state at present: " + n.whyBlank()})
		return
	}
	if n.state == nil {
		n.opt.Config, n.opt.FileHash, n.opt.FileText = c.Effective, c.Hash, c.Text // not founded yet
		n.config = c.Effective
		say(Progress{Done: true, Text: "taken for the founding"})
		n.advance(now)
		return
	}
	w := &waiter{say: say, request: n.opt.Random(), begun: now, command: Command{Name: "config"}}
	w.entry = Entry{Kind: entryConfig, Config: &c, Base: base, By: by, Request: w.request}
	w.finish = func(instant) (string, bool, error) {
		return fmt.Sprintf("config generation %d is in force", n.state.Config.Generation), true, nil
	}
	// A newer edit takes the place of one that still waits: only the text in the file now is what the operator wants.
	n.dropEdits()
	n.waiters = append(n.waiters, w)
	n.advance(now)
}

// dropEdits proposes edits no more that are not recorded yet.
func (n *node) dropEdits() {
	n.waiters = slices.DeleteFunc(n.waiters, func(w *waiter) bool { return w.command.Name == "config" && !w.applied })
}

// checkWaiters drives every command on.
func (n *node) checkWaiters(now instant) {
	n.waiters = slices.DeleteFunc(n.waiters, func(w *waiter) bool {
		text, done, err := n.checkWaiter(now, w)
		switch {
		case err != nil:
			w.say(progressOf(err))
			return true
		case done:
			w.say(Progress{Text: text, Done: true})
			return true
		case text != "" && text != w.told:
			w.told = text
			w.say(Progress{Text: text})
		}
		return false
	})
	if len(n.waiters) > 0 {
		n.wake(now.add(n.config.raftTick()))
	}
}

func (n *node) checkWaiter(now instant, w *waiter) (text string, done bool, err error) {
	if n.state == nil {
		return "", false, &hintError{msg: "this node has left its cluster: " + n.yielded, hint: "hactl status"}
	}
	switch {
	case w.refused != "":
		return "", false, &hintError{msg: w.refused, hint: "hactl status"}
	case !w.applied && w.excused != nil && w.excused():
		w.applied = true
		return w.finish(now)
	case !w.applied:
		n.propose(now, w.entry)
		if now.sub(w.begun) > 5*n.deadtime() && !n.hasQuorum() && w.command.Name != "config" {
			return "", false, n.noMajority()
		}
		if now.sub(w.begun) > 30*n.deadtime()+30*time.Second && w.command.Name != "config" {
			return "", false, &hintError{msg: "the cluster has not recorded it", hint: "hactl status; it may still come into force"}
		}
		return "", false, nil
	case w.command.NoWait:
		return "recorded", true, nil
	}
	return w.finish(now)
}

// noMajority is why nothing can be decided now, and what helps.
func (n *node) noMajority() error {
	var silent []string
	for _, c := range n.config.Nodes {
		if c.Name != n.name && n.peers.silence(n.lastRun, c.Name) >= n.deadtime() {
			silent = append(silent, c.Name)
		}
	}
	h := &hintError{msg: "nothing can be decided: there is no majority of voters"}
	if len(silent) > 0 {
		h.msg += "; not heard: " + strings.Join(silent, ", ")
		h.hint = "bring one back; if it is gone for good: hactl confirm-dead " + silent[0]
		if !n.config.twoVoters() {
			h.hint = "bring one back; if they are gone for good: hactl quorum force"
		}
		if n.isolated.target != "" {
			h.hint = fmt.Sprintf("%s does not answer this node either: look first at its own cables and addresses", n.isolated.target)
		}
	}
	return h
}

// whyBlank says what a node without a state waits for.
func (n *node) whyBlank() string {
	switch {
	case n.yielded != "":
		return "it set its state aside (" + n.yielded + ") and stops what it runs"
	case n.unfound != "":
		return n.unfound
	}
	return "waiting for the cluster's state"
}
