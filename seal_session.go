// Which run of a peer is speaking, and is it alive? The opener opens datagrams and keeps the sessions of each peer. Pure:
// what shall be answered is handed back, and nothing is delivered here.
//
// A session is *confirmed* when it has shown that it hears this process:
//
//   - The first session of a peer is confirmed by an echo: a datagram that names my session as its receiver, or a
//     heartbeat whose list of heard peers has it. My session is new for each process, so no recording made before I
//     started can do that.
//   - A node that was removed from the config and is back has no such first session: there may be recordings.
//   - Another session takes a confirmed one's place only by answering a challenge, a number that I never used before.
//     So datagrams of a run that is over cannot bring it back, though they echo my session too. That also stops what
//     was withheld on the way and arrives late.
//   - A session that was replaced and then answers a challenge is alive: two nodes use one name. The newer one stays.
//
// An unconfirmed session gets a hello with the challenge, and a hello with a challenge is answered by a hello; so both
// sides know each other one round trip after the first datagram. Hellos are limited for each peer, and go to its
// configured addresses, wherever the datagram came from.

package main

import (
	"slices"
	"time"
)

const (
	maxPending = 4 // unconfirmed sessions kept for each peer
	maxRetired = 8 // replaced sessions remembered for each peer

	helloBurst = 16                    // hellos to a peer at once …
	helloEvery = 50 * time.Millisecond // … and then one in this time

	// keySeenFor is how long a peer is taken to still have a key after it last sealed with it: above the longest
	// heartbeat interval, so that a key in use is never forgotten.
	keySeenFor = 30 * time.Second
)

// session is one run of a peer.
type session struct {
	id        sessionID
	peer      string
	ciphers   []keyedAEAD
	counters  window    // of datagrams
	serials   window    // of messages that were delivered
	beats     []beat    // newest heartbeat on each link
	seen      []keySeen // keys that it sealed with
	challenge uint64    // what it must answer to be confirmed; 0: not asked yet
}

type beat struct {
	link   string
	serial uint64
}

type keySeen struct {
	id uint32
	at instant
}

// peerSessions is what is known of a peer's runs.
type peerSessions struct {
	name      string
	confirmed *session
	pending   []*session  // the longest unused first
	retired   []sessionID // oldest first
	heard     []linkHeard // when the confirmed session was last heard, on each link
	refused   refusedPeer // what last came from its address and did not open
	returned  bool        // was removed and is back: nothing but a challenge confirms it
	tokens    int         // hellos that may be sent at once
	tokensAt  instant
}

type linkHeard struct {
	link string
	at   instant
}

// opener opens what the peers have sealed.
type opener struct {
	self       string
	session    sessionID
	ring       keyRing
	keys       []secret
	peers      []*peerSessions // in the config's order
	former     []string        // nodes that were removed
	sessions   map[sessionID]*session
	challenges uint64 // the last one that was used
	nonce      [12]byte
}

func newOpener(self string, own sessionID, cluster string, keys []secret, peers []string) *opener {
	o := &opener{self: self, session: own, ring: keyRing{cluster: cluster}, keys: keys, sessions: make(map[sessionID]*session)}
	o.setPeers(peers)
	return o
}

// setPeers forgets those that are not named.
func (o *opener) setPeers(names []string) {
	var peers []*peerSessions
	sessions := make(map[sessionID]*session)
	for _, name := range names {
		if name == o.self {
			continue
		}
		p := o.peer(name)
		if p == nil {
			p = &peerSessions{name: name, tokens: helloBurst, returned: slices.Contains(o.former, name)}
		}
		peers = append(peers, p)
		for _, s := range p.pending {
			sessions[s.id] = s
		}
		if p.confirmed != nil {
			sessions[p.confirmed.id] = p.confirmed
		}
	}
	for _, p := range o.peers {
		if !slices.Contains(names, p.name) && !slices.Contains(o.former, p.name) {
			o.former = append(o.former, p.name)
		}
	}
	o.peers, o.sessions = peers, sessions
}

func (o *opener) peer(name string) *peerSessions {
	for _, p := range o.peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

// confirmed is the confirmed session of a peer; false if it has none yet.
func (o *opener) confirmed(name string) (sessionID, bool) {
	p := o.peer(name)
	if p == nil || p.confirmed == nil {
		return sessionID{}, false
	}
	return p.confirmed.id, true
}

// opened is a datagram that was taken.
type opened struct {
	message
	Session   sessionID
	Key       uint32
	Confirmed bool
	Duplicate bool   // another copy was delivered before
	Reply     *hello // to be sent to this session, though the message itself may be refused
}

// open opens a datagram. With an error the message is not for delivery; a Reply is still due then.
func (o *opener) open(raw []byte, link string, now instant) (opened, error) {
	h, err := parseHeader(raw)
	if err != nil {
		return opened{}, err
	}
	key, ok := o.key(h.Key)
	if !ok {
		return opened{}, errUnknownKey
	}
	if h.Tag != key.tag {
		return opened{}, errOtherCluster
	}
	s := o.sessions[h.Session]
	if s == nil {
		s = &session{id: h.Session}
	}
	if !s.counters.fresh(h.Counter) {
		return opened{}, errReplayed
	}
	c := s.cipher(key, o.ring.cluster)
	plain, err := c.aead.Open(nil, nonce(&o.nonce, h.Counter), raw[headerSize:], raw[:headerSize])
	if err != nil {
		return opened{}, errForged
	}
	m, err := parseMessage(plain)
	if err != nil {
		return opened{}, err
	}
	if s.id == o.session {
		return opened{}, errLooped
	}
	if m.Sender == o.self {
		return opened{}, errOwnName
	}
	p := o.peer(m.Sender)
	if p == nil || (s.peer != "" && s.peer != m.Sender) {
		return opened{}, errUnknownSender
	}
	s.counters.take(h.Counter)
	s.keep(c, now)
	o.remember(p, s)
	return o.admit(p, s, opened{message: m, Session: s.id, Key: h.Key}, link, now)
}

func (o *opener) key(id uint32) (keyFacts, bool) {
	for _, k := range o.keys {
		if f := o.ring.of(k); f.id == id {
			return f, true
		}
	}
	return keyFacts{}, false
}

// cipher does not store a new one: that is for datagrams that have opened.
func (s *session) cipher(key keyFacts, cluster string) keyedAEAD {
	for _, c := range s.ciphers {
		if c.id == key.id {
			return c
		}
	}
	return keyedAEAD{key.id, key.secret.aead(s.id[:], datagramInfo+cluster)}
}

// keep stores a cipher that has opened a datagram, and notes that the session has that key.
func (s *session) keep(c keyedAEAD, now instant) {
	for i := range s.ciphers {
		if s.ciphers[i].id == c.id {
			s.seen[i].at = now
			return
		}
	}
	s.ciphers, s.seen = append(s.ciphers, c), append(s.seen, keySeen{c.id, now})
	if len(s.ciphers) > maxKeys {
		s.ciphers, s.seen = s.ciphers[1:], s.seen[1:]
	}
}

// remember makes a session that is not confirmed the most recently used of the pending ones, of which it keeps few.
func (o *opener) remember(p *peerSessions, s *session) {
	if s == p.confirmed {
		return
	}
	s.peer = p.name
	o.sessions[s.id] = s
	for i, q := range p.pending {
		if q == s {
			p.pending = append(append(p.pending[:i:i], p.pending[i+1:]...), s)
			return
		}
	}
	p.pending = append(p.pending, s)
	if len(p.pending) > maxPending {
		delete(o.sessions, p.pending[0].id)
		p.pending = p.pending[1:]
	}
}

// admit decides on an opened message: is its session confirmed, now or already, is it meant for this run, is it new,
// and what is to be answered.
func (o *opener) admit(p *peerSessions, s *session, m opened, link string, now instant) (opened, error) {
	mine := m.Receiver == o.session.short()
	if !mine && (m.Receiver != 0 || m.Kind != kindHeartbeat) {
		return m, errOtherSession
	}
	var h hello
	if m.Kind == kindHello {
		var err error
		if h, err = decodeHello(m.Body); err != nil {
			return m, errMalformed
		}
	}
	var twin bool
	if s != p.confirmed {
		answered := s.challenge != 0 && h.Answer == s.challenge
		switch {
		case p.wasRetired(s.id):
			twin = answered
		case answered, p.confirmed == nil && !p.returned && (mine || o.echoed(m.message)):
			o.confirm(p, s)
		}
	}
	m.Confirmed = s == p.confirmed
	if m.Confirmed {
		p.hears(link, now)
		m.Duplicate = !s.firstCopy(m.message, link)
	}
	if !m.Duplicate && (!m.Confirmed || h.Challenge != 0) && p.mayHello(now) {
		m.Reply = &hello{Answer: h.Challenge}
		if !m.Confirmed {
			m.Reply.Challenge = o.challenge(s)
		}
	}
	switch {
	case twin: // it may be asked again when it speaks again
		m.Reply, s.challenge = nil, 0
		return m, errTwin
	case !m.Confirmed && m.Kind != kindHeartbeat && m.Kind != kindHello:
		return m, errUnconfirmed
	}
	return m, nil
}

// echoed is whether a heartbeat says that its sender hears this very process.
func (o *opener) echoed(m message) bool {
	if m.Kind != kindHeartbeat {
		return false
	}
	h, err := decodeHeartbeat(m.Body)
	if err != nil {
		return false
	}
	me, ok := h.heard(o.self)
	return ok && me.Session == o.session.short()
}

// confirm makes s the peer's session. The other candidates and their challenges end here: an answer of theirs that is
// still on its way must not replace s.
func (o *opener) confirm(p *peerSessions, s *session) {
	for _, q := range p.pending {
		if q != s {
			delete(o.sessions, q.id)
		}
	}
	if old := p.confirmed; old != nil {
		delete(o.sessions, old.id)
		p.retired = append(p.retired, old.id)
		if len(p.retired) > maxRetired {
			p.retired = p.retired[1:]
		}
	}
	p.confirmed, p.pending, p.heard, s.challenge = s, nil, nil, 0
}

func (p *peerSessions) wasRetired(id sessionID) bool { return slices.Contains(p.retired, id) }

// hears notes that the confirmed session came in on a link; a stream says nothing about one.
func (p *peerSessions) hears(link string, now instant) {
	if link == "" {
		return
	}
	for i := range p.heard {
		if p.heard[i].link == link {
			p.heard[i].at = now
			return
		}
	}
	p.heard = append(p.heard, linkHeard{link, now})
}

// firstCopy is whether a message is to be delivered: once, or for a heartbeat once on each link, since it tells of the
// link too.
func (s *session) firstCopy(m message, link string) bool {
	if m.Kind != kindHeartbeat {
		return s.serials.take(m.Serial)
	}
	for i := range s.beats {
		if s.beats[i].link == link {
			first := s.beats[i].serial != m.Serial
			s.beats[i].serial = m.Serial
			return first
		}
	}
	s.beats = append(s.beats, beat{link, m.Serial})
	return true
}

// challenge is the number that a session must answer. It stays the same until it is answered or the session forgotten.
func (o *opener) challenge(s *session) uint64 {
	if s.challenge == 0 {
		o.challenges++
		s.challenge = o.challenges
	}
	return s.challenge
}

// mayHello takes a token if there is one.
func (p *peerSessions) mayHello(now instant) bool {
	if n := now.sub(p.tokensAt) / helloEvery; n > 0 {
		p.tokens = int(min(time.Duration(p.tokens)+n, helloBurst))
		p.tokensAt = now
	}
	if p.tokens == 0 {
		return false
	}
	p.tokens--
	return true
}

// heardOn is when a peer was last heard on a link; 0: never.
func (o *opener) heardOn(name, link string) instant {
	if p := o.peer(name); p != nil {
		for _, h := range p.heard {
			if h.link == link {
				return h.at
			}
		}
	}
	return 0
}

// keysOf are the ids of the keys that a peer sealed with lately, in my file's order; one that it has and I have not
// shows as a datagram that did not open.
func (o *opener) keysOf(name string, now instant) []uint32 {
	p := o.peer(name)
	if p == nil || p.confirmed == nil {
		return nil
	}
	var ids []uint32
	for _, k := range o.keys {
		for _, seen := range p.confirmed.seen {
			if seen.id == o.ring.of(k).id && now.sub(seen.at) <= keySeenFor {
				ids = append(ids, seen.id)
			}
		}
	}
	return ids
}

// streamKey is the newest key that the peer is known to have as well.
func (o *opener) streamKey(name string, now instant) (secret, bool) {
	ids := o.keysOf(name, now)
	if len(ids) == 0 {
		return secret{}, false
	}
	f, ok := o.key(ids[len(ids)-1])
	return f.secret, ok
}
