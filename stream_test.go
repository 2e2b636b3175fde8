// Does what is too large for a datagram arrive whole, from the right process only, and is a bad stream ended?

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func testFrames() (*frameSealer, *frameOpener) {
	aead := streamCipher(testSecret(1), "web", testSession(1), testSession(2), make([]byte, 16), make([]byte, 16))
	return &frameSealer{aead: aead}, &frameOpener{aead: aead}
}

func TestFramesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, o := testFrames()
		var wire bytes.Buffer
		var sent [][]byte
		for range rapid.IntRange(1, 5).Draw(t, "frames") {
			body := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body")
			if rapid.Bool().Draw(t, "long") { // across the steps in which memory is asked for
				body = append(bytes.Repeat([]byte{7}, rapid.IntRange(chunkSize-100, 3*chunkSize).Draw(t, "size")), body...)
			}
			sent = append(sent, body)
			wire.Write(s.seal(kindRaft, body))
		}
		for _, want := range sent {
			kind, got, err := o.next(&wire)
			if err != nil || kind != kindRaft || !bytes.Equal(got, want) {
				t.Fatalf("kind %d, %d bytes, %v; want %d bytes", kind, len(got), err, len(want))
			}
		}
		if _, _, err := o.next(&wire); err != io.EOF {
			t.Fatalf("after the last: %v", err)
		}
	})
}

func TestFramesRefused(t *testing.T) {
	s, _ := testFrames()
	first, second := s.seal(kindRaft, []byte("first")), s.seal(kindRaft, []byte("second"))
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	other := frameSealer{aead: streamCipher(testSecret(1), "web", testSession(1), testSession(2), make([]byte, 16),
		append(make([]byte, 15), 1))}
	for _, tc := range []struct {
		name string
		wire []byte
		good int // frames before the error
		want string
	}{
		{"repeated", slices.Concat(first, first), 1, string(errForged)},
		{"left out", second, 0, string(errForged)},
		{"changed", flip(first, 6), 0, string(errForged)},
		{"changed length", append(flip(first, 3), second...), 0, string(errForged)},
		{"of another stream", other.seal(kindRaft, []byte("first")), 0, string(errForged)},
		{"cut", first[:len(first)-1], 0, "unexpected EOF"},
		{"cut in the length", first[:3], 0, "unexpected EOF"},
		{"too short", []byte{0, 0, 0, 16}, 0, "frame of 16 bytes, 17 to 16777216 are allowed"},
		{"too long", []byte{1, 0, 0, 1}, 0, "frame of 16777217 bytes"},
		{"long and never sent", []byte{0, 255, 255, 255, 1, 2, 3}, 0, "unexpected EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, o := testFrames()
			r := bytes.NewReader(tc.wire)
			for range tc.good {
				if _, _, err := o.next(r); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := o.next(r); err == nil || !bytes.Contains([]byte(err.Error()), []byte(tc.want)) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestAClaimedLengthCostsNoMemory(t *testing.T) {
	_, o := testFrames()
	head := binary.BigEndian.AppendUint32(nil, maxStreamFrame)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			o.next(bytes.NewReader(head))
		}
	})
	if n := result.AllocedBytesPerOp(); n > 2*chunkSize {
		t.Errorf("%d bytes asked for before one of %d came", n, maxStreamFrame)
	}
}

func TestStreamCarriesWhatIsLarge(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	keys := []secret{testSecret(1)}
	var log wireLog
	a, b := startWire(t, "alice", cfg, keys, log.logger()), startWire(t, "bob", cfg, keys, log.logger())
	wireWait(t, "both know each other", func() bool { return a.knows(b) })
	for _, size := range []int{maxDatagram, 100_000, maxStreamBody} {
		body := bytes.Repeat([]byte{byte(size), 1, 2, 3}, size/4)
		a.net.Send("bob", kindRaft, body)
		b.net.Send("alice", kindRaft, body)
		wireWait(t, fmt.Sprintf("%d bytes both ways", size), func() bool { return a.count(body) == 1 && b.count(body) == 1 })
		b.mu.Lock()
		r := b.got[len(b.got)-1]
		b.mu.Unlock()
		if r.Link != "" || !r.Confirmed || r.From != "alice" || r.Session != a.net.Session() || r.Kind != kindRaft {
			t.Errorf("received as from %s over %q, kind %d, confirmed %v", r.From, r.Link, r.Kind, r.Confirmed)
		}
	}
	if s := a.net.Stats(); s.StreamsOut != 1 || s.StreamsIn != 1 || s.FramesOut != 3 || s.FramesIn != 3 {
		t.Errorf("three messages each way on one stream each: %+v", s)
	}
	a.net.Send("bob", kindRaft, make([]byte, maxStreamBody+1))
	if s := a.net.Stats(); s.TooLarge != 1 || log.lines(eventTooLarge) != 1 {
		t.Errorf("what is too large is not told: %+v", s)
	}
}

// Between heartbeats and the stream nothing is shared: with the stream's port shut both nodes stay alive to each other,
// and what waits is bounded.
func TestTheStreamIsNoSignOfLife(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	keys := []secret{testSecret(1)}
	var log wireLog
	a, b := startWire(t, "alice", cfg, keys, log.logger()), startWire(t, "bob", cfg, keys, slog.New(slog.DiscardHandler))
	wireWait(t, "both know each other", func() bool { return a.knows(b) })
	b.net.mu.Lock()
	for _, l := range b.net.links {
		l.mu.Lock()
		for _, f := range l.files {
			if listener, ok := f.(net.Listener); ok {
				listener.Close()
			}
		}
		l.mu.Unlock()
	}
	b.net.mu.Unlock()
	for i := range 3 * maxQueued {
		a.net.Send("bob", kindRaft, binary.BigEndian.AppendUint64(make([]byte, 2000), uint64(i)))
	}
	wireWait(t, "the stream fails", func() bool { return a.net.Stats().StreamErrors >= 2 })
	if n := log.lines(eventStream); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.buf.String())
	}
	if s := a.net.Stats(); s.FramesDropped < 2*maxQueued-1 || s.FramesDropped > 2*maxQueued {
		t.Errorf("%d frames dropped of %d with room for %d", s.FramesDropped, 3*maxQueued, maxQueued)
	}
	small := []byte("small")
	a.net.Send("bob", kindRaft, small)
	wireWait(t, "datagrams go on", func() bool { return b.count(small) == 1 && a.knows(b) })

	s := a.net.streams["bob"]
	s.mu.Lock()
	first := binary.BigEndian.Uint64(s.queue[0].body[2000:])
	s.mu.Unlock()
	// One more may be in the hands of the goroutine that dials, which has taken the first or the oldest left.
	if want := uint64(2 * maxQueued); first != want && first != want+1 {
		t.Errorf("the oldest that waits is %d, want %d or the next", first, want)
	}
	for range 4 {
		a.net.Send("bob", kindRaft, make([]byte, maxStreamBody))
	}
	s.mu.Lock()
	if s.bytes > maxQueuedBytes {
		t.Errorf("%d bytes wait, %d may", s.bytes, maxQueuedBytes)
	}
	s.mu.Unlock()
}

// What waited for a run of the peer that ended is not for the next one.
func TestFramesForAnEarlierRunAreDropped(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	keys := []secret{testSecret(1)}
	quiet := slog.New(slog.DiscardHandler)
	a := startWire(t, "alice", cfg, keys, quiet)
	first, err := newWireDaemon("bob", cfg, keys, quiet)
	if err != nil {
		t.Fatal(err)
	}
	wireWait(t, "both know each other", func() bool { return a.knows(first) })
	first.close()
	old, next := bytes.Repeat([]byte("old"), 1000), bytes.Repeat([]byte("new"), 1000)
	a.net.Send("bob", kindRaft, old)
	wireWait(t, "it cannot be delivered", func() bool { return a.net.Stats().StreamErrors > 0 })
	second := startWire(t, "bob", cfg, keys, quiet)
	wireWait(t, "the next run is known", func() bool { return a.knows(second) })
	a.net.Send("bob", kindRaft, next)
	wireWait(t, "what is meant for it arrives", func() bool { return second.count(next) == 1 })
	if second.count(old) > 0 || a.net.Stats().FramesDropped != 1 {
		t.Errorf("what was meant for the first run arrived %d times; %d dropped", second.count(old), a.net.Stats().FramesDropped)
	}
}

// dialBob connects to bob from an address on his lan.
func dialBob(t *testing.T, cfg *Config, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp4", fmt.Sprintf("127.7.1.2:%d", cfg.Heartbeat.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(wireTimeout))
	return c
}

// ended is whether bob closed the connection without a word.
func ended(c net.Conn) error {
	n, err := c.Read(make([]byte, 1))
	if n > 0 {
		return errors.New("it was answered")
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return nil
}

func TestBadStreamsAreEnded(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	key := testSecret(1)
	bob := startWire(t, "bob", cfg, []secret{key}, slog.New(slog.DiscardHandler))

	if err := ended(dialBob(t, cfg, "127.7.1.77")); err != nil {
		t.Errorf("a stranger: %v", err)
	}
	wireWait(t, "the stranger is counted", func() bool { return bob.net.Stats().StreamStrangers == 1 })

	opening := func(raw []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...) }
	seal := func(run byte, m message) []byte { return newSealer(testSession(run), "web").seal(key, m) }
	me := bob.net.Session()
	nonce := make([]byte, streamNonce)
	again := seal(8, message{Kind: kindStream, Sender: "alice", Receiver: me, Serial: 1, Body: nonce})
	for _, tc := range []struct {
		name    string
		wire    []byte
		want    unopened
		silence bool // it is ended without an answer
	}{
		{"no hactl", opening([]byte("GET / HTTP/1.1\r\n")), errNotOurs, true},
		{"too long", binary.BigEndian.AppendUint32(nil, maxDatagram+1), errMalformed, true},
		{"to another run", opening(seal(1, message{Kind: kindStream, Sender: "alice", Receiver: 5, Serial: 1, Body: nonce})), errOtherSession, true},
		// The first datagram that names bob's session confirms alice's; later sessions would have to answer first.
		{"no nonce", opening(seal(8, message{Kind: kindStream, Sender: "alice", Receiver: me, Serial: 9})), errReplayed, true},
		{"another kind", opening(newNth(testSession(8), 2, key, message{Kind: kindRaft, Sender: "alice", Receiver: me, Serial: 2})), errKind, true},
		{"recorded", opening(again), errReplayed, true},
		{"another session", opening(seal(9, message{Kind: kindStream, Sender: "alice", Receiver: me, Serial: 1, Body: nonce})), errUnconfirmed, true},
		{"rubbish for frames", append(opening(newNth(testSession(8), 3, key, message{Kind: kindStream, Sender: "alice",
			Receiver: me, Serial: 3, Body: nonce})), make([]byte, 100)...), "", false},
		{"short nonce", opening(newNth(testSession(8), 4, key, message{Kind: kindStream, Sender: "alice", Receiver: me,
			Serial: 4, Body: nonce[1:]})), errMalformed, true},
	} {
		if tc.name == "no nonce" { // confirm alice's run 8 with the counter that the next ones repeat
			c := dialBob(t, cfg, "127.7.1.1")
			c.Write(opening(again))
			if _, err := io.ReadFull(c, make([]byte, 4+headerSize)); err != nil {
				t.Fatalf("a good opening is not answered: %v", err)
			}
			c.Close()
		}
		t.Run(tc.name, func(t *testing.T) {
			count := func() (n uint64) {
				for _, r := range bob.net.Stats().Refused {
					if r.Reason == string(tc.want) {
						n = r.Count
					}
				}
				return n
			}
			before, errs := count(), bob.net.Stats().StreamErrors
			c := dialBob(t, cfg, "127.7.1.1")
			c.Write(tc.wire)
			if tc.silence {
				if err := ended(c); err != nil {
					t.Error(err)
				}
			} else if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the stream goes on")
			}
			wireWait(t, "it is counted", func() bool {
				return bob.net.Stats().StreamErrors > errs && (tc.want == "" || count() > before)
			})
		})
	}
	bob.mu.Lock()
	defer bob.mu.Unlock()
	if len(bob.got) > 0 {
		t.Errorf("delivered: %+v", bob.got)
	}
}

// newNth seals with the given counter.
func newNth(session sessionID, counter uint64, key secret, m message) []byte {
	s := newSealer(session, "web")
	s.counter = counter - 1
	return s.seal(key, m)
}

// A heartbeat in a stream would make the stream a sign of life.
func TestNoHeartbeatThroughAStream(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	key := testSecret(1)
	bob := startWire(t, "bob", cfg, []secret{key}, slog.New(slog.DiscardHandler))
	alice := newSealer(testSession(8), "web")
	nonce := bytes.Repeat([]byte{5}, streamNonce)
	raw := alice.seal(key, message{Kind: kindStream, Sender: "alice", Receiver: bob.net.Session(), Serial: 1, Body: nonce})
	c := dialBob(t, cfg, "127.7.1.1")
	c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	o := newOpener("alice", testSession(8), "web", []secret{key}, []string{"bob"})
	m, err := o.open(answer, "", boottime())
	if err != nil || !m.Confirmed || !bytes.Equal(m.Body[:streamNonce], nonce) {
		t.Fatalf("the answer: %+v, %v", m, err)
	}
	s := frameSealer{aead: streamCipher(key, "web", testSession(8), m.Session, nonce, m.Body[streamNonce:])}
	good := []byte("good")
	c.Write(s.seal(kindRaft, good))
	wireWait(t, "a good frame", func() bool { return bob.count(good) == 1 })
	c.Write(s.seal(kindHeartbeat, (&heartbeat{}).encode()))
	if err := ended(c); err != nil {
		t.Errorf("the stream goes on: %v", err)
	}
	wireWait(t, "it is counted", func() bool {
		return slices.ContainsFunc(bob.net.Stats().Refused, func(r refusal) bool { return r.Reason == string(errKind) })
	})
	bob.mu.Lock()
	defer bob.mu.Unlock()
	if len(bob.beats) > 0 || len(bob.net.Stats().Peers[0].Links) > 0 {
		t.Errorf("alice counts as heard: %+v", bob.beats)
	}
}

// A peer that opens one stream after the other keeps the newest.
func TestStreamsOfOnePeerAreBounded(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	key := testSecret(1)
	bob := startWire(t, "bob", cfg, []secret{key}, slog.New(slog.DiscardHandler))
	alice := newSealer(testSession(8), "web")
	var conns []net.Conn
	for i := range maxFromPeer + 2 {
		raw := alice.seal(key, message{Kind: kindStream, Sender: "alice", Receiver: bob.net.Session(), Serial: uint64(i + 1),
			Body: make([]byte, streamNonce)})
		c := dialBob(t, cfg, "127.7.1.1")
		c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
		wireWait(t, "it is open", func() bool { return bob.net.Stats().StreamsIn == uint64(i+1) })
		conns = append(conns, c)
	}
	for i, c := range conns[:2] {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stream %d is still open", i)
		}
	}
	wireWait(t, "the oldest are gone", func() bool {
		bob.net.mu.Lock()
		defer bob.net.mu.Unlock()
		return len(bob.net.serving) == maxFromPeer
	})
}

func FuzzStreamFrame(f *testing.F) {
	s, _ := testFrames()
	good := s.seal(kindRaft, []byte("good"))
	f.Add(good)
	f.Add(good[:10])
	f.Add([]byte{0, 0, 0, 17})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, o := testFrames()
		kind, body, err := o.next(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, good) {
			t.Fatalf("a frame opens that nobody sealed: kind %d, %x", kind, body)
		}
	})
}
