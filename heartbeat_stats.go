// What went over the wire, and what was refused? Counters for status and metrics, and the log of datagrams that did not
// open: one line for each reason in ten seconds, so that whoever can reach the port cannot fill the disk.

package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	refusalEvery = 10 * time.Second // between two log lines for one reason

	eventRefused = "datagram-refused"
	eventTwin    = "node-twice"
)

// refusals counts what was not taken, by reason.
type refusals struct {
	log *slog.Logger

	mu   sync.Mutex
	rows []refusal
}

// refusal is what was not taken for one reason.
type refusal struct {
	Reason   string
	Count    uint64
	LastFrom netip.Addr
	LastLink string
	LastAt   instant

	told   uint64 // of Count
	toldAt instant
}

func (r *refusals) note(err error, link string, from netip.Addr, at instant) {
	var reason unopened
	if !errors.As(err, &reason) {
		reason = unopened(err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.rows, func(row refusal) bool { return row.Reason == string(reason) })
	if i < 0 {
		i = len(r.rows) // one for each unopened constant
		r.rows = append(r.rows, refusal{Reason: string(reason)})
	}
	row := &r.rows[i]
	row.Count++
	row.LastFrom, row.LastLink, row.LastAt = from, link, at
	if row.told > 0 && at.sub(row.toldAt) < refusalEvery {
		return
	}
	attrs := []any{"event", eventRefused, "reason", row.Reason, "count", row.Count - row.told, "from", from, "link", link}
	row.told, row.toldAt = row.Count, at
	switch reason {
	case errReplayed, errUnconfirmed, errOtherSession, errLooped:
		r.log.Debug("datagrams refused", attrs...) // happens when links differ in speed, and when a node restarts
	case errTwin, errOwnName:
		attrs[1] = eventTwin
		r.log.Warn("two nodes use one name, or a recording is being sent", attrs...)
	default:
		r.log.Warn("datagrams refused", attrs...)
	}
}

// refuse counts a datagram that was not taken, and keeps why where it came from the address of a peer that may be mended.
func (n *network) refuse(err error, l *link, from netip.Addr, at instant) {
	l.counts.refused.Add(1)
	n.refused.note(err, l.plan.name, from, at)
	var reason unopened
	if !errors.As(err, &reason) || reason.unlike() == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, a := range l.peers {
		if p := n.opener.peer(name); p != nil && a.Addr() == from.Unmap() {
			p.refused = refusedPeer{reason, from, at}
		}
	}
}

func (r *refusals) snapshot() []refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := slices.Clone(r.rows)
	slices.SortFunc(rows, func(a, b refusal) int { return cmp.Compare(a.Reason, b.Reason) })
	return rows
}

// networkStats is a snapshot of all counters. They count since the start of the process and never go back.
type networkStats struct {
	Links   []linkStats
	Peers   []peerStats
	Refused []refusal
	Keys    []string // what this node seals with, oldest first

	QueueFull   uint64 // received, but the loop was behind
	Unconfirmed uint64 // not sent: no confirmed session of that peer
	TooLarge    uint64 // not sent: above what may be

	StreamsOut, StreamsIn uint64 // opened
	StreamErrors          uint64 // streams that could not be opened or broke
	StreamStrangers       uint64 // connections from addresses that are no peer's
	FramesOut, FramesIn   uint64
	FramesDropped         uint64 // the stream's queue was full or the stream broke
}

type linkStats struct {
	linkState
	Sent       uint64
	SendErrors uint64
	Full       uint64 // not sent: the kernel had no room
	Received   uint64 // opened and taken, copies included
	Refused    uint64 // for the reasons in Refused
	ReadErrors uint64
}

type peerStats struct {
	Name    string
	Session uint64        // 0: none confirmed
	Keys    []string      // of this node's keys: those that the peer sealed with lately, oldest first
	Links   []peerOnALink // by link name
	Refused refusedPeer   // what last came from one of its addresses and did not open
}

// refusedPeer is why what came from an address of a peer did not open. Whoever can send may have written that address.
type refusedPeer struct {
	Reason unopened
	From   netip.Addr
	At     instant
}

const (
	refusedShown = keySeenFor  // how long it is told of a peer that is not heard: such a peer sends with every heartbeat
	refusedAfter = time.Second // the least from when it was last heard: in a roll a copy may be refused beside one that opens
)

// unlike is what differs there when what comes from a node is refused for that reason; "" where that is no mistake to mend.
func (u unopened) unlike() string {
	switch u {
	case errUnknownKey:
		return "key file"
	case errOtherCluster, errUnknownSender, errOwnName:
		return "configuration"
	case errNewerVersion:
		return "version of hactl"
	}
	return ""
}

// tellRefused names the nodes that are not heard because what they send is refused here.
func (s *Status) tellRefused(peers []peerStats, now instant) {
	for _, p := range peers {
		i := slices.IndexFunc(s.Nodes, func(x NodeStatus) bool { return x.Name == p.Name })
		r := p.Refused
		early := func(h peerOnALink) bool { return r.At.sub(h.At) < refusedAfter }
		if i < 0 || s.Nodes[i].Heard || r.Reason == "" || now.sub(r.At) > refusedShown || slices.ContainsFunc(p.Links, early) {
			continue
		}
		s.problem(eventRefused, "error", fmt.Sprintf("what %s (%s) sends is refused: %s", p.Name, r.From, r.Reason), "",
			"it counts as silent until then: is it the same "+r.Reason.unlike()+" there?", "hactl check (on "+p.Name+")")
		s.Overall = overall(s)
	}
}

// peerOnALink is when the peer's confirmed session was last heard on a link.
type peerOnALink struct {
	Link string
	At   instant
}

// Stats is what was counted so far.
func (n *network) Stats() networkStats {
	now := boottime()
	c := &n.counts
	s := networkStats{
		Refused: n.refused.snapshot(), QueueFull: c.queueFull.Load(), Unconfirmed: c.unconfirmed.Load(),
		TooLarge: c.tooLarge.Load(), StreamsOut: c.streamsOut.Load(), StreamsIn: c.streamsIn.Load(),
		StreamErrors: c.streamErrors.Load(), StreamStrangers: c.strangerIn.Load(), FramesOut: c.framesOut.Load(),
		FramesIn: c.framesIn.Load(), FramesDropped: c.framesDropped.Load(),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		s.Links = append(s.Links, linkStats{linkState: l.seen(), Sent: l.counts.sent.Load(),
			SendErrors: l.counts.sendErrors.Load(), Full: l.counts.full.Load(), Received: l.counts.received.Load(),
			Refused: l.counts.refused.Load(), ReadErrors: l.counts.readErrors.Load()})
	}
	for _, p := range n.opener.peers {
		row := peerStats{Name: p.name}
		if p.confirmed != nil {
			row.Session = p.confirmed.id.short()
		}
		for _, id := range n.opener.keysOf(p.name, now) {
			row.Keys = append(row.Keys, keyName(id))
		}
		row.Refused = p.refused
		for _, h := range p.heard {
			row.Links = append(row.Links, peerOnALink{h.link, h.at})
		}
		slices.SortFunc(row.Links, func(a, b peerOnALink) int { return cmp.Compare(a.Link, b.Link) })
		s.Peers = append(s.Peers, row)
	}
	for _, k := range n.keys {
		s.Keys = append(s.Keys, keyName(k.id()))
	}
	return s
}

// LinkStates is what the interfaces are like, in the config's order; only links that this node is on.
func (n *network) LinkStates() []linkState {
	n.mu.Lock()
	defer n.mu.Unlock()
	var states []linkState
	for _, l := range n.links {
		states = append(states, l.seen())
	}
	return states
}

func (l *link) seen() linkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}
