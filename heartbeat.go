// How do datagrams get to the peers and back, on every link at once? The transport behind node.go: it seals, sends,
// receives, opens, and hands on what is from a confirmed session. It decides nothing about who is alive, never blocks
// its caller, and never answers a datagram that it could not open.

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
)

// queueSize bounds what waits for the loop: at a hundred heartbeats a second from each of 15 peers over two links, a
// third of a second. What comes on top is dropped and counted.
const queueSize = 1024

// network is the real transport. It is safe for use by several goroutines.
type network struct {
	self    string
	log     *slog.Logger
	queue   chan received
	quit    chan struct{}
	running sync.WaitGroup
	session sessionID

	mu      sync.Mutex // guards what follows; held for microseconds
	cfg     *Config
	keys    []secret
	sealer  *sealer
	opener  *opener
	serial  uint64
	links   []*link // in the config's order
	streams map[string]*outStream
	serving []*inStream // oldest first
	closed  bool

	refused refusals
	counts  networkCounts
}

// networkCounts are the counters that belong to no link.
type networkCounts struct {
	queueFull, unconfirmed, tooLarge               atomic.Uint64
	streamsOut, streamsIn, streamErrors            atomic.Uint64
	framesOut, framesIn, framesDropped, strangerIn atomic.Uint64
}

var _ transport = (*network)(nil)

// openNetwork starts on all links of the config that self is on. An interface that is not there is waited for, so the
// only errors are those of the config and of the keys. What arrives is had from Received.
func openNetwork(self string, cfg *Config, keys []secret, log *slog.Logger) (*network, error) {
	n := &network{
		self: self, log: log, queue: make(chan received, queueSize), quit: make(chan struct{}),
		streams: make(map[string]*outStream),
	}
	rand.Read(n.session[:]) // never fails: crypto/rand ends the program instead
	n.sealer = newSealer(n.session, cfg.Cluster.Name)
	n.opener = newOpener(self, n.session, cfg.Cluster.Name, nil, nil)
	n.refused.log = log
	if err := n.setKeys(keys); err != nil {
		return nil, err
	}
	if err := n.Reconfigure(cfg); err != nil {
		return nil, err
	}
	return n, nil
}

// Received is what has arrived, for whoever drives the node.
func (n *network) Received() <-chan received { return n.queue }

// LinksChanged says that an interface or an address of this host may have changed.
func (n *network) LinksChanged() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// Session is how others name this process.
func (n *network) Session() uint64 { return n.session.short() }

// Reconfigure takes up changed links, nodes, addresses and port. Links that stay the same keep their sockets, sessions
// of nodes that stay are kept. With an error all stays as it was.
func (n *network) Reconfigure(cfg *Config) error {
	me := cfg.node(n.self)
	if me == nil {
		return fmt.Errorf("open network: node %s is not in the config", n.self)
	}
	var plans []linkPlan
	for _, l := range cfg.Links {
		if me.on(l.Name) == "" {
			continue
		}
		p, err := planLink(cfg, l, n.self)
		if err != nil {
			return fmt.Errorf("open network: %w", err)
		}
		plans = append(plans, p)
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errors.New("open network: it is closed")
	}
	if n.cfg != nil && n.cfg.Cluster.Name != cfg.Cluster.Name {
		return fmt.Errorf("open network: the cluster's name cannot change from %s to %s while it runs; restart the daemon",
			n.cfg.Cluster.Name, cfg.Cluster.Name)
	}
	n.cfg = cfg
	var names []string
	for _, node := range cfg.Nodes {
		names = append(names, node.Name)
	}
	n.opener.setPeers(names)
	n.relink(plans)
	n.restream()
	return nil
}

// relink keeps, changes, opens and closes links. The caller holds mu.
func (n *network) relink(plans []linkPlan) {
	var links []*link
	for _, p := range plans {
		var kept *link
		for _, l := range n.links {
			if l.samePlace(p) {
				kept = l
				kept.setPlan(p)
			}
		}
		if kept == nil {
			kept = newLink(n, p)
		}
		links = append(links, kept)
	}
	for _, l := range n.links {
		stays := false
		for _, k := range links {
			stays = stays || k == l
		}
		if !stays {
			l.stop()
		}
	}
	n.links = links
	for _, l := range links {
		l.start() // after the old ones are closed: they may have had the same port
	}
}

// restream has one outgoing stream for each peer. The caller holds mu.
func (n *network) restream() {
	for _, p := range n.opener.peers {
		if n.streams[p.name] == nil {
			n.streams[p.name] = newOutStream(n, p.name)
		}
	}
	for name, s := range n.streams {
		if n.opener.peer(name) == nil {
			s.stop()
			delete(n.streams, name)
		}
	}
	for _, s := range n.serving {
		if s.peer != "" && n.opener.peer(s.peer) == nil {
			s.conn.Close()
		}
	}
}

// setKeys changes the keys of the running transport; the oldest first, as loadKeys returns them.
func (n *network) setKeys(keys []secret) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("set keys: %d given, one or %d are needed", len(keys), maxKeys)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys, n.opener.keys = keys, keys
	return nil
}

// Close ends everything and returns when no goroutine is left.
func (n *network) Close() {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.quit)
		for _, l := range n.links {
			l.stop()
		}
		for _, s := range n.streams {
			s.stop()
		}
		for _, s := range n.serving {
			s.conn.Close()
		}
	}
	n.mu.Unlock()
	n.running.Wait()
}

// Heartbeat sends to every peer on every link.
func (n *network) Heartbeat(body []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.message(kindHeartbeat, 0, body)
	if !fitsDatagram(m) {
		n.counts.tooLarge.Add(1)
		return
	}
	for _, l := range n.links {
		n.sendOn(l, m, l.everyone)
	}
}

// Send sends to one peer. Without a confirmed session of it there is nobody to send to: what must arrive is sent again.
func (n *network) Send(to string, kind messageKind, body []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	session, ok := n.opener.confirmed(to)
	if !ok {
		n.counts.unconfirmed.Add(1)
		return
	}
	m := n.message(kind, session.short(), body)
	if fitsDatagram(m) {
		n.sendTo(to, m)
	} else if s := n.streams[to]; s != nil {
		s.put(session, kind, body)
	}
}

// message gives the next serial, which all copies share. The caller holds mu.
func (n *network) message(kind messageKind, receiver uint64, body []byte) message {
	n.serial++
	return message{Kind: kind, Sender: n.self, Receiver: receiver, Serial: n.serial, Body: body}
}

// sendTo sends a copy to a peer on every link that it is on. The caller holds mu.
func (n *network) sendTo(peer string, m message) {
	for _, l := range n.links {
		if addr, ok := l.peers[peer]; ok {
			n.sendOn(l, m, []netip.AddrPort{addr})
		}
	}
}

// sendOn seals anew for each link, since a receiver takes each counter once, and for each key (key.go says why). The
// caller holds mu; the socket does not block.
func (n *network) sendOn(l *link, m message, to []netip.AddrPort) {
	for _, k := range n.keys {
		b := n.sealer.seal(k, m)
		for _, addr := range to {
			l.send(b, addr)
		}
	}
}

// open opens what came over a link, "" for a stream, and answers with a hello where one is due.
func (n *network) open(raw []byte, link string, at instant) (opened, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, err := n.opener.open(raw, link, at)
	if m.Reply != nil {
		// Only to the configured addresses: where a datagram says that it comes from proves nothing.
		n.sendTo(m.Sender, n.message(kindHello, m.Session.short(), m.Reply.encode()))
	}
	return m, err
}

// receive takes one datagram off a link. It is called by the link's goroutines; raw is theirs again when it returns.
func (n *network) receive(l *link, raw []byte, from netip.Addr, at instant) {
	m, err := n.open(raw, l.plan.name, at)
	if err == nil && (m.Kind < kindHeartbeat || m.Kind > kindHello) {
		err = errKind
	}
	if err != nil {
		n.refuse(err, l, from, at)
		return
	}
	l.counts.received.Add(1)
	if m.Duplicate || (m.Kind == kindHello && !m.Confirmed) {
		return
	}
	n.hand(received{From: m.Sender, Session: m.Session.short(), Confirmed: m.Confirmed, Link: l.plan.name,
		Kind: m.Kind, Body: m.Body, At: at})
}

// hand queues a message, or drops it: a receiver that waits would lose datagrams without counting them.
func (n *network) hand(r received) {
	select {
	case n.queue <- r:
	default:
		n.counts.queueFull.Add(1)
	}
}
