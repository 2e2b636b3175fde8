// How does a message that is larger than a datagram get to a peer? Over a sealed TCP stream in each direction, on the
// heartbeats' port and links. Whoever needs to send dials; frames flow from the dialer only. Its loss is no sign of
// anything: whether a peer is alive is for the heartbeats alone to say. Delivery is not promised either, so a frame that
// was on its way when a stream broke is lost, and what waits too long is dropped.
//
//	dialer   → length (4), a datagram of kind 6 as seal.go makes it, body: its nonce (16)
//	acceptor → length (4), the same, body: the dialer's nonce (16), its own nonce (16)
//	dialer   → frames: length of the sealed part (4), sealed: kind (1), body
//
// Both opening messages name the other's confirmed session, so a stream exists only between two processes that hear each
// other now. Frames are sealed with AES-256-GCM under HKDF-SHA256(secret, salt = both nonces, info = "hactl stream v1" +
// both session ids + the cluster's name), the nonce is the frame's number from 1, and the length is authenticated. Both
// sides add 16 random bytes, so a recorded stream opens nowhere, and cutting, repeating or reordering frames ends it.

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxStreamFrame = 16 << 20                     // sealed part of a frame
	maxStreamBody  = maxStreamFrame - 64          // of a message
	maxQueued      = 256                          // messages that wait for one peer's stream …
	maxQueuedBytes = 2 * maxStreamFrame           // … and their size
	maxFromPeer    = 4                            // incoming streams of one peer: the one in use, others that are ending
	maxServing     = maxFromPeer * (maxHeard + 1) // … of all, those included that have not said who they are

	handshakeWithin = 3 * time.Second  // to open a stream over one link
	chunkWithin     = 3 * time.Second  // to hand the kernel the next chunkSize bytes
	chunkSize       = 64 << 10         //
	unackedWithin   = 3 * time.Second  // TCP_USER_TIMEOUT: then the link is taken for dead and another is tried
	idleAfter       = 60 * time.Second // the dialer closes a stream that it does not need
	silentFor       = 90 * time.Second // the acceptor closes one whose dialer should have
	redialFirst     = 100 * time.Millisecond
	redialLast      = 2 * time.Second

	eventStream      = "stream-failed"
	eventStreamAgain = "stream-again"
	eventTooLarge    = "message-too-large"
)

const streamNonce = 16

// frameSealer numbers and seals the frames of one stream; frameOpener undoes it.
type frameSealer struct {
	aead   cipher.AEAD
	number uint64
}

func (s *frameSealer) seal(kind messageKind, body []byte) []byte {
	s.number++
	size := 1 + len(body) + tagSize
	b := make([]byte, 5, 4+size)
	binary.BigEndian.PutUint32(b, uint32(size))
	b[4] = byte(kind)
	b = append(b, body...)
	return s.aead.Seal(b[:4], nonce(new([12]byte), s.number), b[4:], b[:4]) // in place
}

type frameOpener struct {
	aead   cipher.AEAD
	number uint64
}

// next reads a frame. It asks for memory as the bytes arrive, not as the length says, which is not proven yet.
func (o *frameOpener) next(r io.Reader) (messageKind, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 1+tagSize || size > maxStreamFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes, %d to %d are allowed", size, 1+tagSize, maxStreamFrame)
	}
	sealed := make([]byte, 0, min(size, chunkSize))
	for uint32(len(sealed)) < size {
		sealed = slices.Grow(sealed, int(min(size-uint32(len(sealed)), chunkSize)))
		part := sealed[len(sealed):min(cap(sealed), int(size))]
		if _, err := io.ReadFull(r, part); err != nil {
			return 0, nil, io.ErrUnexpectedEOF
		}
		sealed = sealed[:len(sealed)+len(part)]
	}
	o.number++
	plain, err := o.aead.Open(sealed[:0], nonce(new([12]byte), o.number), sealed, head[:])
	if err != nil {
		return 0, nil, errForged
	}
	return messageKind(plain[0]), plain[1:], nil
}

// streamCipher is the key of one stream.
func streamCipher(k secret, cluster string, dialer, acceptor sessionID, dialerNonce, acceptorNonce []byte) cipher.AEAD {
	return k.aead(slices.Concat(dialerNonce, acceptorNonce), streamInfo+string(dialer[:])+string(acceptor[:])+cluster)
}

// outStream is the stream to one peer, with what waits for it.
type outStream struct {
	n    *network
	peer string
	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{}

	mu    sync.Mutex
	queue []streamFrame
	bytes int

	// Its goroutine's own:
	conn    net.Conn
	closed  chan struct{} // by the other side
	sealer  frameSealer
	way     way
	key     uint32
	session sessionID
	failing bool // told in the log
}

type streamFrame struct {
	session sessionID // the run of the peer that it is meant for
	kind    messageKind
	body    []byte
}

// newOutStream's goroutine dials when there is something to send. The caller holds n.mu.
func newOutStream(n *network, peer string) *outStream {
	s := &outStream{n: n, peer: peer, wake: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	n.running.Go(s.run)
	return s
}

// put queues a message; when too much waits, the oldest goes.
func (s *outStream) put(session sessionID, kind messageKind, body []byte) {
	if len(body) > maxStreamBody {
		s.n.counts.tooLarge.Add(1)
		s.n.log.Error("message is too large to be sent", "event", eventTooLarge, "to", s.peer, "bytes", len(body),
			"limit", maxStreamBody)
		return
	}
	s.mu.Lock()
	s.queue, s.bytes = append(s.queue, streamFrame{session, kind, body}), s.bytes+len(body)
	for len(s.queue) > maxQueued || s.bytes > maxQueuedBytes {
		s.bytes -= len(s.queue[0].body)
		s.queue = slices.Delete(s.queue, 0, 1)
		s.n.counts.framesDropped.Add(1)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it has been woken already
	}
}

func (s *outStream) pop() (streamFrame, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return streamFrame{}, false
	}
	f := s.queue[0]
	s.queue, s.bytes = slices.Delete(s.queue, 0, 1), s.bytes-len(f.body)
	return f, true
}

func (s *outStream) run() {
	defer s.hangUp()
	for {
		var gone <-chan struct{}
		idle := make(<-chan time.Time)
		if s.conn != nil {
			gone, idle = s.closed, time.After(idleAfter)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-gone:
			s.hangUp()
		case <-idle:
			s.hangUp()
		case <-s.wake:
			if !s.flush() {
				return
			}
		}
	}
}

// flush writes what waits; false if the network is being closed.
func (s *outStream) flush() bool {
	for {
		f, ok := s.pop()
		if !ok {
			return true
		}
		sent, ok := s.send(f)
		if !ok {
			return false
		}
		if sent {
			s.n.counts.framesOut.Add(1)
		} else {
			s.n.counts.framesDropped.Add(1)
		}
	}
}

// send writes a frame. When the stream breaks under it, it gets one more attempt, and then it is lost; so is one that
// was meant for a run of the peer that is over, as a datagram would be.
func (s *outStream) send(f streamFrame) (sent, ok bool) {
	for range 2 {
		if !s.connect() {
			return false, false
		}
		if f.session != s.session {
			return false, true
		}
		if s.write(s.sealer.seal(f.kind, f.body)) == nil {
			return true, true
		}
		s.hangUp()
		s.n.counts.streamErrors.Add(1)
	}
	return false, true
}

// write gives the kernel a chunk at a time: what counts is that it gets on, not how long a snapshot takes.
func (s *outStream) write(b []byte) error {
	for len(b) > 0 {
		part := b[:min(len(b), chunkSize)]
		if err := s.conn.SetWriteDeadline(time.Now().Add(chunkWithin)); err != nil {
			return err
		}
		if _, err := s.conn.Write(part); err != nil {
			return err
		}
		b = b[len(part):]
	}
	return nil
}

// connect sees to it that there is a stream to the peer's present session under its newest key; false if the network is
// being closed first.
func (s *outStream) connect() bool {
	for wait := redialFirst; ; wait = min(2*wait, redialLast) {
		if s.conn != nil && s.current() {
			return true
		}
		s.hangUp()
		err := s.dialAny()
		s.tell(err)
		if err == nil {
			return true
		}
		s.n.counts.streamErrors.Add(1)
		select {
		case <-s.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// current is whether the open stream still is the one to use.
func (s *outStream) current() bool {
	select {
	case <-s.closed:
		return false
	default:
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	session, ok := s.n.opener.confirmed(s.peer)
	key, known := s.n.opener.streamKey(s.peer, boottime())
	same := slices.Contains(s.n.links, s.way.link) && s.way.link.openings() == s.way.opened
	return same && ok && session == s.session && (!known || key.id() == s.key)
}

// tell logs the first failure and the end of it.
func (s *outStream) tell(err error) {
	switch {
	case err != nil && !s.failing:
		s.n.log.Warn("cannot open the stream to a peer; trying again", "event", eventStream, "peer", s.peer, "error", err)
	case err == nil && s.failing:
		s.n.log.Info("stream to a peer is open again", "event", eventStreamAgain, "peer", s.peer)
	}
	s.failing = err != nil
}

func (s *outStream) hangUp() {
	if s.conn != nil {
		s.conn.Close()
		<-s.closed // its reader has ended
		s.conn = nil
	}
}

// way is a link over which a peer may be reached.
type way struct {
	link   *link
	opened int // link's openings
	to     netip.AddrPort
	heard  instant
}

// dialAny tries the links, the one first on which the peer was heard last.
func (s *outStream) dialAny() error {
	n := s.n
	n.mu.Lock()
	session, ok := n.opener.confirmed(s.peer)
	key, known := n.opener.streamKey(s.peer, boottime())
	var ways []way
	for _, l := range n.links {
		if addr, on := l.peers[s.peer]; on {
			ways = append(ways, way{l, l.openings(), addr, n.opener.heardOn(s.peer, l.plan.name)})
		}
	}
	n.mu.Unlock()
	if !ok || !known {
		return errors.New("the peer has not been heard")
	}
	slices.SortStableFunc(ways, func(a, b way) int { return cmp.Compare(b.heard, a.heard) })
	err := errors.New("no link leads to the peer")
	for i, w := range ways {
		werr := s.dial(w, key, session)
		if werr == nil {
			return nil
		}
		if werr = fmt.Errorf("dial %s over link %s: %w", w.to, w.link.plan.name, werr); i == 0 {
			err = werr
		} else {
			err = errors.Join(err, werr)
		}
		select {
		case <-s.ctx.Done():
			return err
		default:
		}
	}
	return err
}

func (s *outStream) dial(w way, key secret, session sessionID) error {
	ctx, cancel := context.WithTimeout(s.ctx, handshakeWithin)
	defer cancel()
	own := net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.link.plan.own.Addr(), 0))
	d := net.Dialer{LocalAddr: own, Control: w.link.control}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", w.to.String())
	if err != nil {
		return err
	}
	abort := context.AfterFunc(ctx, func() { conn.Close() })
	aead, err := s.n.openStream(conn, key, s.peer, session)
	if !abort() {
		err = errors.Join(ctx.Err(), err)
	}
	if err == nil {
		err = unackedLimit(conn)
	}
	if err != nil {
		conn.Close()
		return err
	}
	closed := make(chan struct{})
	s.conn, s.closed, s.sealer = conn, closed, frameSealer{aead: aead}
	s.way, s.key, s.session = w, key.id(), session
	s.n.counts.streamsOut.Add(1)
	s.n.running.Go(func() {
		defer close(closed)
		conn.Read(make([]byte, 1)) // nothing comes this way: whatever ends this ends the stream
	})
	return nil
}

// unackedLimit makes the kernel give a connection up when the other side does not acknowledge what was sent.
func unackedLimit(conn net.Conn) error {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedWithin.Milliseconds()))
	})
	return errors.Join(cerr, err)
}

// openStream is the dialer's side of the opening.
func (n *network) openStream(conn net.Conn, key secret, peer string, session sessionID) (cipher.AEAD, error) {
	var mine [streamNonce]byte
	rand.Read(mine[:])
	if err := n.sendOpening(conn, key, session, mine[:]); err != nil {
		return nil, err
	}
	m, err := n.readOpening(conn)
	if err != nil {
		return nil, err
	}
	if m.Sender != peer || m.Session != session || len(m.Body) < 2*streamNonce || !bytes.Equal(m.Body[:streamNonce], mine[:]) {
		return nil, errors.New("answered by another node, or by an earlier run of the peer")
	}
	return streamCipher(key, n.sealer.ring.cluster, n.session, session, mine[:], m.Body[streamNonce:2*streamNonce]), nil
}

func (n *network) sendOpening(conn net.Conn, key secret, to sessionID, body []byte) error {
	n.mu.Lock()
	raw := n.sealer.seal(key, n.message(kindStream, to.short(), body))
	n.mu.Unlock()
	_, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	return err
}

func (n *network) readOpening(conn net.Conn) (opened, error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return opened{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxDatagram {
		return opened{}, errMalformed
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(conn, raw); err != nil {
		return opened{}, err
	}
	m, err := n.open(raw, "", boottime())
	switch {
	case err != nil:
		return opened{}, err
	case !m.Confirmed:
		return opened{}, errUnconfirmed
	case m.Duplicate:
		return opened{}, errReplayed
	case m.Kind != kindStream:
		return opened{}, errKind
	}
	return m, nil
}

// inStream is a connection that was accepted.
type inStream struct {
	conn net.Conn
	peer string // "" until the peer has proven who it is
}

// accept takes connections on a link until its listener is closed.
func (n *network) accept(l *link, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors, or the connection ended before it was taken
			n.counts.streamErrors.Add(1)
			select {
			case <-l.quit:
				return
			case <-time.After(redialFirst):
			}
		default:
			if s := n.letIn(l, conn); s != nil {
				n.running.Go(func() { n.serve(l, s) })
			} else {
				n.counts.strangerIn.Add(1)
				conn.Close()
			}
		}
	}
}

// letIn allows connections from the peers' addresses on that link, as many as can be meant. nil: not this one.
func (n *network) letIn(l *link, conn net.Conn) *inStream {
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	n.mu.Lock()
	defer n.mu.Unlock()
	known := false
	for _, p := range n.opener.peers {
		known = known || l.peers[p.name].Addr() == from
	}
	if n.closed || !known || len(n.serving) >= maxServing {
		return nil
	}
	s := &inStream{conn: conn}
	n.serving = append(n.serving, s)
	return s
}

// serve reads one stream to its end.
func (n *network) serve(l *link, s *inStream) {
	err := n.serveFrames(s)
	s.conn.Close()
	n.mu.Lock()
	n.serving = slices.DeleteFunc(n.serving, func(o *inStream) bool { return o == s })
	n.mu.Unlock()
	var reason unopened
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return
	case errors.As(err, &reason):
		n.refused.note(err, l.plan.name, s.conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(), boottime())
	}
	n.counts.streamErrors.Add(1)
	n.log.Debug("stream ended", "link", l.plan.name, "peer", s.peer, "error", err)
}

func (n *network) serveFrames(s *inStream) error {
	if err := s.conn.SetDeadline(time.Now().Add(handshakeWithin)); err != nil {
		return err
	}
	m, err := n.readOpening(s.conn)
	if err != nil {
		return err
	}
	if len(m.Body) < streamNonce {
		return errMalformed
	}
	key, ok := n.keyFor(m.Key)
	if !ok {
		return errUnknownKey
	}
	body := append(bytes.Clone(m.Body[:streamNonce]), make([]byte, streamNonce)...)
	rand.Read(body[streamNonce:])
	if err := n.sendOpening(s.conn, key, m.Session, body); err != nil {
		return err
	}
	aead := streamCipher(key, n.sealer.ring.cluster, m.Session, n.session, body[:streamNonce], body[streamNonce:])
	n.own(s, m.Sender)
	n.counts.streamsIn.Add(1)
	for frames := (frameOpener{aead: aead}); ; {
		if err := s.conn.SetDeadline(time.Now().Add(silentFor)); err != nil {
			return err
		}
		kind, body, err := frames.next(s.conn)
		if err != nil {
			return err
		}
		at := boottime()
		if kind != kindAck && kind != kindRaft && kind != kindHold {
			return errKind // a heartbeat above all: a stream is no sign of life
		}
		if err := n.stillValid(m); err != nil {
			return err
		}
		n.counts.framesIn.Add(1)
		select { // here waiting does no harm: the peer's queue is bounded
		case n.queue <- received{From: m.Sender, Session: m.Session.short(), Confirmed: true, Kind: kind, Body: body, At: at}:
		case <-n.quit:
			return net.ErrClosed
		}
	}
}

// own notes whose stream it is. A peer that opens one after the other loses the oldest.
func (n *network) own(s *inStream, peer string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.peer = peer
	var same []*inStream
	for _, o := range n.serving {
		if o.peer == peer {
			same = append(same, o)
		}
	}
	for _, o := range same[:max(0, len(same)-maxFromPeer)] {
		o.conn.Close()
	}
}

// stillValid is whether the session and the key that a stream was opened with still count.
func (n *network) stillValid(m opened) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if session, ok := n.opener.confirmed(m.Sender); !ok || session != m.Session {
		return errOtherSession
	}
	if _, ok := n.opener.key(m.Key); !ok {
		return errUnknownKey
	}
	return nil
}

func (n *network) keyFor(id uint32) (secret, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.opener.key(id)
	return f.secret, ok
}
