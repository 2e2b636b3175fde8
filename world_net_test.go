// What does the network do to a message? Links with latency, loss and cuts in each direction, and on every machine the
// real sealing and sessions of seal.go. A datagram goes over each link on its own; what is larger goes over a stream,
// which delivers in order or not at all.

package main

import (
	"encoding/binary"
	"slices"
	"time"
)

// worldNet is what lies between the machines.
type worldNet struct {
	w       *world
	latency time.Duration
	jitter  time.Duration
	loss    float64 // of datagrams, on every link
	twice   float64 // as many of them come twice
	slow    float64 // so many messages are held up on their way, all copies of them, by up to slowBy
	slowBy  time.Duration
	cuts    []worldCut
	sent    uint64 // datagrams
	silent  []silence
}

// silence is a target outside the cluster that does not answer a machine, or with "" nobody.
type silence struct{ target, machine string }

func (n *worldNet) mute(target, machine string) bool {
	return slices.Contains(n.silent, silence{target, machine}) || slices.Contains(n.silent, silence{target, ""})
}

// setSilent lets a target answer a machine (or, "", all) no more, or again.
func (n *worldNet) setSilent(target, machine string, silent bool) {
	n.silent = slices.DeleteFunc(n.silent, func(s silence) bool { return s.target == target && (machine == "" || s.machine == machine) })
	if silent {
		n.silent = append(n.silent, silence{target, machine})
	}
}

// worldCut keeps messages from one machine to another away, on one link or, with "", on all.
type worldCut struct{ from, to, link string }

func (n *worldNet) cut(from, to, link string) {
	if c := (worldCut{from, to, link}); !slices.Contains(n.cuts, c) {
		n.cuts = append(n.cuts, c)
	}
}

// heal ends cuts; an empty name stands for all.
func (n *worldNet) heal(a, b string) {
	n.cuts = slices.DeleteFunc(n.cuts, func(c worldCut) bool {
		return a == "" || c.from == a && (b == "" || c.to == b) || c.to == a && (b == "" || c.from == b)
	})
}

// open tells whether a link carries anything from one machine to another now.
func (n *worldNet) passes(from, to *machine, link string) bool {
	for _, c := range n.cuts {
		if c.from == from.name && c.to == to.name && (c.link == link || c.link == "") {
			return false
		}
	}
	i := slices.IndexFunc(n.w.config.Links, func(l LinkConfig) bool { return l.Name == link })
	return i < 0 || from.carrier(n.w.config.Links[i].Interface) && to.carrier(n.w.config.Links[i].Interface)
}

func (m *machine) carrier(iface string) bool { return !slices.Contains(m.links, downed{iface}) }

// setCarrier plugs a cable in or out; the daemon hears of it.
func (m *machine) setCarrier(iface string, up bool) {
	m.links = slices.DeleteFunc(m.links, func(d downed) bool { return d.iface == iface })
	if !up {
		m.links = append(m.links, downed{iface})
	}
	m.after(time.Millisecond, func() {
		if l := m.life; l != nil {
			l.enter(func(l *life) { l.node.LinksChanged(m.now()) })
		}
	})
	if !up {
		for _, x := range m.wares {
			if x.config.Type == "vip" && x.config.Interface == iface && x.present {
				m.notice(x, "no carrier")
			}
		}
	}
}

// worldPort is the transport of one run of a daemon.
type worldPort struct {
	l       *life
	session sessionID
	cluster string
	names   []string
	links   []worldOn
	sealer  *sealer
	opener  *opener
	serial  uint64
	dropped int // by the opener
}

// worldOn is a peer on a link that both are on.
type worldOn struct{ link, peer string }

// worldKey is the one secret of the world.
var worldKey = secret{1, 2, 3}

func (n *worldNet) open(l *life, cfg *Config) *worldPort {
	p := &worldPort{l: l, cluster: cfg.Cluster.Name}
	binary.BigEndian.PutUint64(p.session[:], n.w.chance.net.Uint64())
	binary.BigEndian.PutUint64(p.session[8:], uint64(l.m.runs))
	p.sealer = newSealer(p.session, p.cluster)
	p.opener = newOpener(l.m.name, p.session, p.cluster, []secret{worldKey}, nil)
	p.reconfigure(cfg)
	return p
}

func (p *worldPort) reconfigure(cfg *Config) {
	p.names, p.links = cfg.voters(), nil
	p.opener.setPeers(p.names)
	me := cfg.node(p.l.m.name)
	for _, link := range cfg.Links {
		for _, c := range cfg.Nodes {
			if me != nil && c.Name != me.Name && me.on(link.Name) != "" && c.on(link.Name) != "" {
				p.links = append(p.links, worldOn{link.Name, c.Name})
			}
		}
	}
}

// Heartbeat is the transport's.
func (p *worldPort) Heartbeat(body []byte) {
	p.serial++
	p.datagram(message{Kind: kindHeartbeat, Sender: p.l.m.name, Serial: p.serial, Body: body}, "")
}

// Send is the transport's.
func (p *worldPort) Send(to string, kind messageKind, body []byte) {
	session, ok := p.opener.confirmed(to)
	if !ok {
		return
	}
	p.serial++
	m := message{Kind: kind, Sender: p.l.m.name, Receiver: session.short(), Serial: p.serial, Body: body}
	if fitsDatagram(m) {
		p.datagram(m, to)
		return
	}
	p.stream(to, session, m)
}

// datagram sends a copy over each link, to one peer or to all.
func (p *worldPort) datagram(m message, to string) {
	n := &p.l.w.net
	held := n.straggle()
	for _, on := range p.links {
		if to != "" && on.peer != to {
			continue
		}
		raw := p.sealer.seal(worldKey, m)
		if !n.w.split {
			p.transmit(on, raw, held) // as effect does, without memory for it
			continue
		}
		p.l.effect(func() { p.transmit(on, raw, held) })
	}
}

func (p *worldPort) transmit(on worldOn, raw []byte, held time.Duration) {
	n := &p.l.w.net
	n.sent++
	target := n.w.host(on.peer)
	if target == nil || !n.passes(p.l.m, target, on.link) || n.loss > 0 && n.w.chance.net.Float64() < n.loss {
		return
	}
	sent := n.w.now
	deliver := func() {
		if l := target.life; l != nil {
			l.enter(func(l *life) {
				// Only who was there before can have a moment of both clocks to compare with.
				knew := max(l.began, p.l.began) <= target.slept
				if l.port.take(raw, on.link) && target.heard == 0 && sent >= target.woke && knew {
					target.heard = n.w.now
				}
			})
		}
	}
	n.w.after(n.delay()+held, deliver)
	if n.twice > 0 && n.w.chance.net.Float64() < n.twice {
		n.w.after(n.delay(), deliver)
	}
}

// straggle is for how long a message is held up: what was sent after it may arrive long before it.
func (n *worldNet) straggle() time.Duration {
	if n.slow == 0 || n.w.chance.net.Float64() >= n.slow {
		return 0
	}
	return time.Duration(n.w.chance.net.Int64N(int64(n.slowBy) + 1))
}

func (n *worldNet) delay() time.Duration {
	return n.latency + time.Duration(n.w.chance.net.Int64N(int64(n.jitter)+1))
}

// take opens what came over a link, and tells whether it was a message for the node.
func (p *worldPort) take(raw []byte, link string) bool {
	now := p.l.m.now()
	m, err := p.opener.open(raw, link, now)
	if m.Reply != nil {
		p.serial++
		p.datagram(message{Kind: kindHello, Sender: p.l.m.name, Receiver: m.Session.short(), Serial: p.serial, Body: m.Reply.encode()}, m.Sender)
	}
	if err != nil || m.Duplicate || m.Kind == kindHello && !m.Confirmed {
		p.dropped++
		return false
	}
	p.l.w.mark("received", p.l.m.name, uint64(m.Kind), m.Session.short(), m.Serial)
	p.receive(now, received{From: m.Sender, Session: m.Session.short(), Confirmed: m.Confirmed, Link: link, Kind: m.Kind, Body: m.Body, At: now})
	return true
}

// receive gives the node a message. One of raft that belongs to another incarnation must not change what this one has voted
// for, or whom it follows; what the passing of time does is another matter.
func (p *worldPort) receive(now instant, r received) {
	n := p.l.node
	cons, tick := n.cons, n.nextTick
	if r.Kind != kindRaft || cons == nil || len(r.Body) < 8 || binary.BigEndian.Uint64(r.Body) == n.incarnation() || tick <= now {
		n.Received(now, r)
		return
	}
	before := cons.node.BasicStatus()
	n.Received(now, r)
	after := cons.node.BasicStatus()
	if n.cons == cons && n.nextTick == tick && (before.GetTerm() != after.GetTerm() || before.GetVote() != after.GetVote() || before.Lead != after.Lead) {
		p.l.w.checks.fail("%s has listened to raft in another incarnation of %s", p.l.m.name, r.From)
	}
}

// stream needs a link that works in both directions, and a little longer.
func (p *worldPort) stream(to string, session sessionID, m message) {
	n := &p.l.w.net
	target := n.w.host(to)
	works := func() bool {
		return target != nil && slices.ContainsFunc(p.links, func(on worldOn) bool {
			return on.peer == to && n.passes(p.l.m, target, on.link) && n.passes(target, p.l.m, on.link)
		})
	}
	if !works() {
		return
	}
	n.w.after(4*n.latency, func() {
		l := target.life
		if l == nil || !works() || l.port.session != session {
			return
		}
		l.enter(func(l *life) {
			if mine, ok := l.port.opener.confirmed(p.l.m.name); !ok || mine != p.session {
				return
			}
			n.w.mark("stream", to, uint64(m.Kind), m.Serial)
			l.port.receive(l.m.now(), received{From: p.l.m.name, Session: p.session.short(), Confirmed: true, Kind: m.Kind, Body: m.Body, At: l.m.now()})
		})
	})
}
