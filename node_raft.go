// How does the node keep its log? It feeds consensus.go, applies what is committed, founds a cluster, forces an
// incarnation when it has the authority, and gives its own up when another one lives. See docs/design.md section 7.

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"
)

// load begins with what the state folder held.
func (n *node) load(now instant, r *restored) error {
	s, err := stateOf(r)
	if err != nil {
		return err
	}
	if err := n.startLog(s.Incarnation.ID, r); err != nil {
		return err
	}
	n.replayed = r.HardState.GetCommit()
	n.confKnown = now // when the last change was known is forgotten
	n.returning = n.opt.Listed
	// What lies in the log bars an epoch even before it is known to be committed.
	return n.cons.Unapplied(func(e logEntry, _ bool) { n.stored(now, e, false) })
}

func stateOf(r *restored) (*State, error) {
	if r == nil || r.Snapshot == nil {
		return nil, errors.New("load state: there is a log without a snapshot")
	}
	s := &State{}
	if err := json.Unmarshal(r.Snapshot.GetData(), s); err != nil {
		return nil, fmt.Errorf("load state: %w", err)
	}
	return s, nil
}

func (n *node) startLog(incarnation uint64, r *restored) error {
	n.life++
	c, err := newConsensus(consensusConfig{ID: n.member, Incarnation: incarnation, Life: n.life, Restored: r,
		ElectionTicks: electionTicks, HeartbeatTicks: beatTicks, Log: n.log})
	if err != nil {
		return err
	}
	n.cons = c
	return nil
}

func (n *node) incarnation() uint64 {
	if n.cons == nil {
		return 0
	}
	return n.cons.incarnation
}

// drain does what raft asks for and returns whether there was anything.
func (n *node) drain(now instant) bool {
	if n.cons == nil {
		return false
	}
	out, err := n.cons.Ready()
	if err != nil {
		n.logBroken(now, err)
		return false
	}
	for _, w := range out.Writes {
		n.saving(now, w)
		n.keep.Save(w)
	}
	for _, m := range out.Messages {
		n.sendRaft(m)
	}
	if s := out.Snapshot; s != nil {
		n.install(now, s)
	}
	for _, e := range out.Committed {
		n.apply(now, e)
	}
	if k := len(out.Committed); k > 0 {
		if err := n.cons.Applied(out.Committed[k-1].Index); err != nil {
			n.logBroken(now, err)
			return false
		}
	}
	if n.cons.CompactDue() && n.state != nil {
		if err := n.cons.Compact(encodeState(n.state)); err != nil {
			n.logBroken(now, err)
			return false
		}
		return true
	}
	return len(out.Writes)+len(out.Messages)+len(out.Committed) > 0 || out.Snapshot != nil
}

// logBroken: raft found that the folder and the cluster contradict each other. The node comes back under a new id.
func (n *node) logBroken(now instant, err error) {
	n.log.Error("the log contradicts the cluster; it is kept aside and this node joins anew", "event", "log-broken", "err", err)
	n.setAside(now, err.Error())
}

func (n *node) sendRaft(m outgoing) {
	to := n.nameOf(m.To)
	if to == "" {
		n.cons.ReportUnreachable(m.To)
		return
	}
	body := make([]byte, 16, 16+len(m.Data))
	binary.BigEndian.PutUint64(body, n.incarnation())
	binary.BigEndian.PutUint64(body[8:], n.member)
	n.tr.Send(to, kindRaft, append(body, m.Data...))
}

// nameOf finds who has a member id: by the state, or by what it says itself.
func (n *node) nameOf(member uint64) string {
	if member == 0 {
		return ""
	}
	if n.state != nil {
		for i := range n.state.Nodes {
			if n.state.Nodes[i].Member == member {
				return n.state.Nodes[i].Name
			}
		}
	}
	for _, p := range n.peers.all {
		if p.beat.Member == member {
			return p.name
		}
	}
	return ""
}

// raftFrom takes a raft message of a peer.
func (n *node) raftFrom(now instant, r received) {
	if len(r.Body) < 16 {
		return
	}
	incarnation, from := binary.BigEndian.Uint64(r.Body), binary.BigEndian.Uint64(r.Body[8:])
	if n.yielded == "" && n.state == nil && incarnation != n.incarnation() {
		// Blank: whoever has made us a member may fill us.
		if err := n.startLog(incarnation, nil); err != nil {
			n.log.Error("raft does not start", "event", "log-broken", "err", err)
			return
		}
	}
	if n.cons == nil || n.beaten() {
		return // what is about to be set aside elects nobody: it must not become a quorum that the fork then yields to
	}
	err := n.cons.Step(from, incarnation, r.Body[16:])
	switch {
	case errors.Is(err, errRaftPanic):
		n.logBroken(now, err)
	case err != nil && !errors.Is(err, errOtherIncarnation):
		n.log.Debug("raft message dropped", "from", r.From, "err", err)
	}
}

// persisted releases what waited for the disk, and looks for revokes among what is stable now.
func (n *node) persisted(now instant, done uint64) {
	if n.cons == nil {
		return
	}
	s, err := n.cons.Persisted(done)
	if err != nil {
		n.logBroken(now, err)
		return
	}
	for _, e := range s.Entries {
		n.stored(now, e, true)
	}
}

// stored looks at an entry that has reached this node's disk, committed or not.
func (n *node) stored(now instant, e logEntry, tell bool) {
	n.confs = slices.DeleteFunc(n.confs, func(index uint64) bool { return index >= e.Index }) // cut off again
	if e.Conf != nil {
		n.confs = append(n.confs[max(0, len(n.confs)-1):], e.Index)
		return
	}
	var entry Entry
	if len(e.Data) == 0 || json.Unmarshal(e.Data, &entry) != nil || entry.Kind != entryRevoke {
		return
	}
	h := n.ledger.store(now, storedRevoke{entry.Node, entry.Group, entry.Epoch, e.Index}, n.longestLease())
	if !tell {
		return
	}
	n.holds = append(n.holds, hold{Owner: entry.Node, Group: entry.Group, Epoch: entry.Epoch, Index: e.Index, Hold: h})
	n.tellHolds(now)
}

func (n *node) longestLease() time.Duration {
	if n.state == nil {
		return n.config.lease()
	}
	return max(n.state.Config.LongestL, n.config.lease())
}

// install puts a snapshot in the place of the state.
func (n *node) install(now instant, s *appliedSnapshot) {
	st := &State{}
	if err := json.Unmarshal(s.Data, st); err != nil {
		n.logBroken(now, fmt.Errorf("read snapshot at %d: %w", s.Index, err))
		return
	}
	st.Index = s.Index
	if n.state == nil || n.state.ConfIndex != st.ConfIndex {
		n.confKnown = now
	}
	n.state = st
	n.afterApply(now, true)
	n.log.Debug("state taken over", "event", "state-installed", "index", s.Index, "generation", st.Config.Generation)
}

func (n *node) apply(now instant, e logEntry) {
	data := e.Data
	if e.Conf != nil {
		if _, err := n.cons.ApplyConf(e.Conf); err != nil {
			n.log.Warn("change of members refused", "event", "conf-refused", "err", err)
			data = nil
		} else {
			data = e.Conf.Context
			n.confKnown = now
		}
	}
	if n.state == nil {
		return // a snapshot comes first; raft sees to that
	}
	n.state.Index = e.Index
	if len(data) == 0 {
		n.stateHash = hashState(n.state) // what others hold against theirs is of this index
		return
	}
	var entry Entry
	if err := json.Unmarshal(data, &entry); err != nil {
		n.stateHash = hashState(n.state)
		n.log.Error("entry cannot be read; it changes nothing", "event", "entry-unreadable", "index", e.Index, "err", err)
		return
	}
	generation := n.state.Config.Generation
	events, refused := Apply(n.state, e.Index, &entry)
	n.settleProposal(entry, refused)
	for _, ev := range events {
		if e.Index > n.replayed {
			n.logEvent(ev)
		}
	}
	if refused != "" {
		n.log.Debug("entry changed nothing", "kind", entry.Kind, "group", entry.Group, "node", entry.Node, "why", refused)
	}
	n.knowRevoke(now, entry, refused)
	n.afterApply(now, n.state.Config.Generation != generation)
}

func (n *node) logEvent(e Event) {
	attrs := []any{"event", e.ID}
	if e.Node != "" {
		attrs = append(attrs, "node", e.Node)
	}
	if e.Group != "" {
		attrs = append(attrs, "group", e.Group)
	}
	switch e.ID {
	case eventLost, eventFailure, eventBlocked, eventForced, eventConfirmDead, eventUnfit, eventUnreached, eventFlaps, eventBounces,
		eventFenceAsked, eventStale, eventFenced, eventFenceFailed, eventDeviceFailed:
		n.log.Warn(e.Text, attrs...)
	default:
		n.log.Info(e.Text, attrs...)
	}
}

// afterApply follows a change of the state.
func (n *node) afterApply(now instant, configChanged bool) {
	n.countClock(now)
	n.version++
	n.decideAt = 0
	n.stateHash = hashState(n.state)
	if me := n.state.node(n.name); me != nil && me.Session == n.opt.Session && me.Member == n.member && me.Joined && !n.joined {
		n.joined = true
		n.outcomes, n.agent.outcomes = append(n.outcomes, n.agent.outcomes...), nil
		n.agent.renumber(n.outcomes)
		n.keep.KeepJoined()
		n.opt.Joined = true
	} else if me != nil && (me.Session != n.opt.Session || !me.Joined) {
		n.joined = false // confirmed dead although it lives: it joins anew
	}
	n.ledger.settle(n.state.Index, func(owner string) uint64 {
		if owner == n.name {
			return n.state.Index
		}
		return n.peers.get(owner).beat.Applied
	}, func(r storedRevoke) bool { return n.state.revokedAt(r.owner, r.group, r.epoch) == r.index })
	if configChanged && n.state.Config.Effective != nil {
		n.config = n.state.Config.Effective
		n.configAt = now
	}
	// After a restart the log on this disk may end before what the cluster has decided since: the files follow only when
	// this session's join, and so all before it, is applied.
	if n.joined && n.accepted != n.state.Config.Generation {
		n.accepted = n.state.Config.Generation
		n.keep.Accept(n.state.Config)
	}
}

// revokedAt is the raft index at which the pair was revoked, 0 if it was not.
func (s *State) revokedAt(owner, group string, epoch uint64) uint64 {
	g := s.group(group)
	if g == nil {
		return 0
	}
	for _, r := range g.Revoked {
		if r.Node == owner && r.Epoch >= epoch {
			return r.Index
		}
	}
	return 0
}

func encodeState(s *State) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("encode state: " + err.Error()) // plain data: cannot fail
	}
	return b
}

// hashState leaves the history out: its sentences may differ between versions.
func hashState(s *State) uint64 {
	c := *s
	c.History = nil
	h := fnv.New64a()
	h.Write(encodeState(&c))
	return h.Sum64()
}

// found founds a cluster when that is this node's to do, and says why it waits otherwise.
func (n *node) found(now instant) {
	if n.state != nil || n.cons != nil || n.yielded != "" {
		n.unfound = ""
		return
	}
	why := n.mayFound(now)
	if why != n.unfound {
		n.unfound = why
		n.version++
	}
	if why != "" {
		return
	}
	cluster := fmt.Sprintf("%016x", n.opt.Random())
	st := &State{ClusterID: cluster}
	entries := []Entry{
		{Kind: entryFound, Node: n.name, Member: n.member, Feature: n.opt.Level, On: n.opt.Bootstrap,
			Incarnation: &Incarnation{Counter: 1, ID: n.opt.Random()}},
		{Kind: entryConfig, By: n.name, Why: "the file of the founder", Config: &ConfigState{
			Hash: n.opt.FileHash, Text: n.opt.FileText, Effective: n.opt.Config}},
	}
	n.log.Info("founding the cluster", "event", eventFounded, "cluster", cluster)
	_ = n.begin(now, st, entries, 1, 1) // it has logged why not, and is tried again
}

// mayFound is "" when this node founds the cluster now: all voters are heard, blank, with the same file, and it is the
// first of them; or the operator has said so and nobody who has a state is heard.
func (n *node) mayFound(now instant) string {
	for _, p := range n.peers.all {
		if p.at != 0 && p.beatAt != 0 && p.beat.Flags&flagBlank == 0 {
			return fmt.Sprintf("waiting for %s's cluster to take this node in", p.name)
		}
	}
	if n.opt.Bootstrap {
		if left := listenFor(n.config) - now.sub(n.ledger.born); left > 0 {
			n.wake(now.add(left))
			return "listening for a cluster that exists already"
		}
		return ""
	}
	var missing []string
	for _, c := range n.config.Nodes {
		if c.Name == n.name {
			continue
		}
		p := n.peers.get(c.Name)
		switch {
		case p.at == 0 || p.beatAt == 0 || now.sub(p.at) > n.deadtime():
			missing = append(missing, c.Name)
		case p.beat.FileHash != hashPrefix(n.opt.FileHash):
			return fmt.Sprintf("%s has another /etc/ha.toml: make the files equal, then the cluster starts by itself", c.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Sprintf("waiting to hear %s for the first time: is the daemon running there, with the same key file? (hactl check, there)", wordList(missing, "and"))
	}
	if n.config.Nodes[0].Name != n.name {
		return fmt.Sprintf("waiting for %s to found the cluster", n.config.Nodes[0].Name)
	}
	return ""
}

// listenFor is how long silence must last at a start before it counts.
func listenFor(c *Config) time.Duration { return max(10*c.Heartbeat.Deadtime.D(), 3*time.Second) }

// lastPrefix remembers the prefix of what it was asked for last.
type lastPrefix struct {
	hash   string
	prefix uint64
}

func (p *lastPrefix) of(hash string) uint64 {
	if p.hash != hash || p.prefix == 0 {
		*p = lastPrefix{hash, hashPrefix(hash)}
	}
	return p.prefix
}

func hashPrefix(hash string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(hash))
	return h.Sum64()
}

// begin starts a log of this node alone, from a state that the entries are applied to.
func (n *node) begin(now instant, st *State, entries []Entry, index, term uint64) error {
	var events []Event
	for i := range entries {
		e := &entries[i]
		e.Clock, e.Wall = max(st.Clock, n.clusterClock(now)), n.opt.Wall()
		more, refused := Apply(st, index, e)
		if refused != "" {
			n.log.Error("cannot begin: "+refused, "event", "begin-refused", "kind", e.Kind)
			return &hintError{msg: fmt.Sprintf("this state does not allow it (%s): %s", e.Kind, refused), hint: "nothing has changed; hactl status says who is heard and what is known"}
		}
		events = append(events, more...)
	}
	w, err := forge(encodeState(st), index, term, n.member)
	var r *restored
	if err == nil {
		r, err = restoredFrom(w)
	}
	if err == nil {
		// What follows in the new log is written behind this: nothing is committed before it is durable.
		n.keep.Replace(fmt.Sprintf("incarnation-%d", st.Incarnation.Counter-1), member{Node: n.name, ID: n.member}, w)
	}
	if err == nil {
		err = n.startLog(st.Incarnation.ID, r)
	}
	if err != nil {
		n.log.Error("cannot store the new incarnation; nothing has changed", "event", "store-failed", "err", err)
		n.storeErr = err.Error()
		return &hintError{msg: "the new incarnation could not be stored", hint: "see the log: journalctl -u ha"}
	}
	for _, ev := range events {
		n.logEvent(ev)
	}
	n.joined, n.joining = false, false
	n.vitals.unsaved = nil // of the log that is given up
	n.cons.Campaign()
	for n.drain(now) {
		// to the point where only the disk is waited for
	}
	return nil
}

// clusterClock is the cluster time now.
func (n *node) clusterClock(now instant) time.Duration {
	if n.state == nil {
		return 0
	}
	return max(n.state.Clock, n.clock.was+max(0, now.sub(n.clock.at)))
}

func (n *node) countClock(now instant) {
	was := n.state.Clock
	if n.clock.incarnation == n.incarnation() {
		was = n.clusterClock(now)
	}
	n.clock = nodeClock{n.incarnation(), was, now}
}

// force goes on alone as a new incarnation. The caller has the authority.
func (n *node) force(now instant, by, reason string, more ...Entry) error {
	st := n.cons.Status()
	if n.state == nil || st.Learner || !st.Voter {
		return &hintError{msg: "this node is a learner: it does not know enough to go on alone", hint: "force it on a node that was a voter"}
	}
	if c := n.state.Config.Effective; c == nil || c.node(n.name) == nil {
		return &hintError{msg: "this node is no longer in the config: the others go on without it", hint: "force it on a node that is in the config"}
	}
	// Every entry of the own log counts, committed or not: what the lost nodes acknowledged must be in here.
	next := cloneState(n.state)
	err := n.cons.Unapplied(func(e logEntry, _ bool) {
		data := e.Data
		if e.Conf != nil {
			data = nil
		}
		var entry Entry
		if len(data) > 0 && json.Unmarshal(data, &entry) == nil {
			Apply(next, e.Index, &entry)
		}
	})
	if err != nil {
		return err
	}
	index, term := n.cons.Fork()
	inc := Incarnation{Counter: next.Incarnation.Counter + 1, ID: n.opt.Random(), By: by, Why: reason,
		Ancestors: slices.Concat([]Ancestor{{next.Incarnation.ID, index - 1}}, next.Incarnation.Ancestors)}
	if len(inc.Ancestors) > 8 {
		inc.Ancestors = inc.Ancestors[:8]
	}
	found := Entry{Kind: entryFound, Node: n.name, Member: n.member, By: by, Why: reason, Incarnation: &inc}
	for i := range more {
		if o := next.node(more[i].Node); more[i].Kind == entryFenced && o != nil {
			// Off is what was heard last, and that is the newest boot in this log: perhaps one whose joining the other did not live
			// to acknowledge, while the fence was asked for by what was committed.
			more[i].Boot = o.Boot
		}
	}
	if err := n.begin(now, next, append([]Entry{found}, more...), index, term); err != nil {
		return err
	}
	n.alone = inc.ID
	for _, p := range n.peers.all {
		p.better = 0 // the new one is compared when they are heard again
	}
	return nil
}

func cloneState(s *State) *State {
	c := &State{}
	if err := json.Unmarshal(encodeState(s), c); err != nil {
		panic("clone state: " + err.Error())
	}
	return c
}

// unmet is the other of two without which this incarnation was forced, if it has not been met since this node's kernel booted:
// it may have come back in the meantime and gone on alone in the same way. "" if nothing needs to be known of it.
func (n *node) unmet() string {
	if n.opt.Joined || n.joined || n.state == nil || !n.config.twoVoters() || n.state.Incarnation.Counter == 1 ||
		n.alone == n.incarnation() || n.vouched == n.incarnation() {
		return ""
	}
	if n.config.Cluster.TwoNode != "fence" && !n.config.Cluster.WaitForAll {
		return ""
	}
	other := n.otherNode()
	if o := n.state.node(other); o == nil || o.Member != 0 || o.Left {
		return ""
	}
	if p := n.peers.get(other); p.beatAt != 0 && (p.beat.Flags&flagBlank != 0 || p.beat.Incarnation == n.incarnation()) {
		return "" // it joins this one, and so has given up whatever it had
	}
	return other
}

// forceIfIgnored takes silence for death where two_node = "ignore" says so, or where the other of two voters says
// itself that it has lost its memory.
func (n *node) forceIfIgnored(now instant) {
	other := n.otherNode()
	if !n.mayForceOver(other) {
		return
	}
	p := n.peers.get(other)
	if p.at != 0 && now.sub(p.at) < n.deadtime() {
		o := n.state.node(other)
		if o != nil && p.beat.Flags&flagForceable != 0 && p.beat.Flags&flagBlank != 0 && p.beat.Member != o.Member && now.sub(p.since) > n.deadtime() {
			n.tryForce(now, n.name, other+" has lost its state and says so: it cannot vote under its old id again")
		}
		return
	}
	if n.config.Cluster.TwoNode != "ignore" || n.config.isWitness(n.name) {
		return
	}
	if until := p.awaited(n.deadtime()); now < until {
		n.wake(until)
		return
	}
	if n.config.Cluster.WaitForAll && !n.opt.Joined {
		return // wait_for_all
	}
	if now < n.blindUntil || now.sub(n.ledger.born) < listenFor(n.config) && !n.joined {
		n.wake(max(n.blindUntil, n.ledger.born.add(listenFor(n.config))))
		return
	}
	if !slices.ContainsFunc(n.state.Groups, func(g GroupState) bool { return g.Owner == other && g.Phase != phaseBlocked }) {
		return
	}
	if n.state.Maintenance != nil || n.unconfirmed(now) != "" {
		return
	}
	n.tryForce(now, n.name, fmt.Sprintf("two_node = \"ignore\": %s has been silent for %s", other, n.peers.silence(now, other).Round(time.Millisecond)))
}

func (n *node) tryForce(now instant, by, reason string, more ...Entry) {
	if now.sub(n.forcedAt) < n.deadtime() && n.forcedAt != 0 {
		return
	}
	n.forcedAt = now
	if err := n.force(now, by, reason, more...); err != nil {
		n.log.Error("cannot go on alone", "event", "force-failed", "err", err)
	}
}

// otherNode is the other of two.
func (n *node) otherNode() string {
	for _, c := range n.config.Nodes {
		if c.Name != n.name {
			return c.Name
		}
	}
	return ""
}

// meet compares incarnations with a peer. Who yields stops what it runs at once; its state is set aside when the peer
// has been heard for a while, so that a glimpse destroys nothing.
func (n *node) meet(now instant, p *peer) {
	h := &p.beat
	if n.state == nil || h.Flags&flagBlank != 0 || h.Incarnation == 0 || h.Incarnation == n.state.Incarnation.ID {
		p.better = 0
		return
	}
	if h.Cluster != clusterPrefix(n.state.ClusterID) {
		n.stranger(now, p)
		return
	}
	if !n.yieldsTo(h) {
		p.better = 0
		return
	}
	if p.better == 0 {
		p.better = now
		n.version++
		n.log.Warn("another incarnation of the cluster lives; what runs here stops and this node joins it", "event", "incarnation-met",
			"peer", p.name, "counter", h.Counter)
	}
	if now.sub(p.better) < 2*n.deadtime() {
		n.wake(p.better.add(2 * n.deadtime()))
		return
	}
	if mine := &n.state.Incarnation; !descendsFrom(h.Ancestors, mine.ID) {
		n.lostForkAt = now
		n.lostFork = fmt.Sprintf("incarnation %d of the cluster, forced here by %s, has given way to incarnation %d, in which %s lives", mine.Counter, mine.By, h.Counter, p.name)
	}
	n.setAside(now, fmt.Sprintf("%s lives in incarnation %d of the cluster", p.name, h.Counter))
}

// keepMeeting remembers the glimpse of a better incarnation until this node lives in another one itself: neither a reboot nor
// a new daemon is a reason to take up again what must yield. It outlives a crash while the state is set aside, too.
func (n *node) keepMeeting() {
	if n.state == nil {
		return
	}
	m := meeting{Incarnation: n.incarnation()}
	for _, p := range n.peers.all {
		if p.better != 0 {
			m.Peers = append(m.Peers, p.name)
		}
	}
	known := n.met.Incarnation == m.Incarnation
	if known && slices.Equal(n.met.Peers, m.Peers) || !known && len(m.Peers) == 0 {
		return
	}
	n.met = m
	n.keep.KeepMeeting(m)
}

// recall takes up the glimpses of the process before this one.
func (n *node) recall(now instant, m meeting) {
	if m.Incarnation != n.incarnation() {
		return
	}
	n.met = m
	for _, name := range m.Peers {
		n.peers.get(name).better = now
	}
}

func descendsFrom(ancestors []Ancestor, id uint64) bool {
	return slices.ContainsFunc(ancestors, func(a Ancestor) bool { return a.ID == id })
}

func clusterPrefix(id string) uint64 {
	v, err := strconv.ParseUint(id[:min(16, len(id))], 16, 64)
	if err != nil {
		return 0 // no cluster has made this id
	}
	return v
}

// yieldsTo decides which of two incarnations lives; both sides come to the same result. A parent whose quorum goes on
// beats its fork, else the descendant beats the parent; between two forks one that runs beats one that waits after a boot, then
// the counter decides, then how much of the parent's log is in it, then the smaller id.
func (n *node) yieldsTo(h *heartbeat) bool {
	mine := &n.state.Incarnation
	claims, idle := h.Flags&flagQuorum != 0, n.unmet() != ""
	switch {
	case descendsFrom(h.Ancestors, mine.ID):
		return !n.hasQuorum()
	case descendsFrom(mine.Ancestors, h.Incarnation):
		return claims
	case claims && idle:
		return true
	case !claims && !idle && n.hasQuorum():
		return false
	case h.Counter != mine.Counter:
		return h.Counter > mine.Counter
	}
	fork := func(a []Ancestor) uint64 {
		if len(a) == 0 {
			return 0
		}
		return a[0].Fork
	}
	if f, g := fork(h.Ancestors), fork(mine.Ancestors); f != g {
		return f > g
	}
	return h.Incarnation < mine.ID
}

// stranger is a peer of another cluster that has our key and our name.
func (n *node) stranger(now instant, p *peer) {
	if p.strange == 0 || now.sub(p.strange) > time.Minute {
		p.strange = now
		n.version++
		n.log.Error("a node of another cluster with our name and key is heard", "event", "stranger", "peer", p.name)
	}
}

// setAside gives the state up: it is kept beside, and the node comes back blank under a new member id.
func (n *node) setAside(now instant, why string) {
	n.yielded, n.disowned = why, 0
	n.member = n.opt.Random()
	n.keep.Replace("left", member{Node: n.name, ID: n.member}, write{})
	n.vitals.unsaved = nil // given up
	n.cons, n.state = nil, nil
	n.joined, n.joining, n.caretaker = false, false, false
	n.waits, n.holds, n.proposals = nil, nil, nil
	n.accepted = 0
	n.ledger.stored, n.confs = nil, nil // indexes of the log that is given up
	n.opt.Bootstrap = false             // it was for the first start; a second founding would be a second cluster
	n.agent.forgetEpochs()
	n.grants = grants{seq: n.grants.seq}
	n.version++
	for _, p := range n.peers.all {
		p.better = 0
	}
}

// rejoin sets the state aside when it says that the cluster had removed this node before this process began: its file
// has it again, and only who is blank is taken in.
func (n *node) rejoin(now instant) {
	if !n.returning || n.state == nil || n.state.Index < n.replayed {
		return
	}
	n.returning = false
	if c := n.state.Config.Effective; c != nil && c.node(n.name) == nil {
		n.log.Warn("the cluster had removed this node; it joins anew", "event", "rejoin-after-removal")
		n.config = n.opt.Config
		n.setAside(now, "the cluster had removed it")
	}
}

// differsLimit is how long a follower's state may differ from the leader's at equal indices before it is thrown away.
const differsLimit = 3 * time.Second

// compareStates holds this node's state against the leader's at the same index. They are equal unless a memory, a disk
// or a program is faulty; the follower then rebuilds its own from the leader's, once it owns nothing.
func (n *node) compareStates(now instant, p *peer) {
	h := &p.beat
	if n.state == nil || n.cons == nil || h.Incarnation != n.incarnation() || h.Applied != n.state.Index {
		return // says nothing
	}
	if h.StateHash == n.stateHash || int(h.Feature) != n.opt.Level {
		p.differs = 0
		return
	}
	if p.differs == 0 {
		p.differs = now
		n.version++
		n.log.Error("the state differs from another node's at the same index", "event", "state-differs", "peer", p.name, "index", h.Applied)
	}
	owns := slices.ContainsFunc(n.state.Groups, func(g GroupState) bool { return g.Owner == n.name })
	if now.sub(p.differs) > differsLimit && h.Leader == h.Member && n.cons.Status().Role != roleLeader && !owns {
		n.setAside(now, fmt.Sprintf("its state differed from that of %s, which leads", p.name))
	}
}
