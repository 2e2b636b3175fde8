// Does only what a peer has sealed open, once, and does only a peer that is alive now count?

package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update-wire", false, "write testdata/wire anew")

// Fixed secrets and sessions: nothing in these tests is random unless rapid draws it.
func testSecret(n byte) secret     { return secret(bytes.Repeat([]byte{n}, secretSize)) }
func testSession(n byte) sessionID { return sessionID(bytes.Repeat([]byte{n}, 16)) }

// wireNode is a sealer and an opener of one process of one node.
type wireNode struct {
	*opener
	seal *sealer
	last uint64
	keys []secret
	now  instant
}

func newWireNode(name string, run byte, keys ...secret) *wireNode {
	return &wireNode{opener: newOpener(name, testSession(run), "web", keys, []string{"alice", "bob", "carol"}),
		seal: newSealer(testSession(run), "web"), keys: keys, now: instant(time.Hour)}
}

func (w *wireNode) message(kind messageKind, to uint64, body []byte) message {
	w.last++
	return message{Kind: kind, Sender: w.self, Receiver: to, Serial: w.last, Body: body}
}

func (w *wireNode) datagram(kind messageKind, to uint64, body []byte) []byte {
	return w.seal.seal(w.keys[0], w.message(kind, to, body))
}

// beat is a heartbeat that hears these runs.
func (w *wireNode) beat(hears ...*wireNode) []byte {
	var h heartbeat
	for _, p := range hears {
		h.Heard = append(h.Heard, heardPeer{Name: nameHash(p.self), Session: p.session.short()})
	}
	return w.datagram(kindHeartbeat, 0, h.encode())
}

func (w *wireNode) get(raw []byte) (opened, error) { return w.open(raw, "lan", w.now) }

// talk lets a datagram and all hellos that follow from it cross, and returns what each side opened.
func talk(t *testing.T, from, to *wireNode, raw []byte) (trace []string) {
	t.Helper()
	for range 10 {
		m, err := to.get(raw)
		line := to.self
		if m.Confirmed {
			line += " confirmed"
		}
		if err != nil {
			line += " error: " + err.Error()
		}
		trace = append(trace, line)
		if m.Reply == nil {
			return trace
		}
		raw = to.datagram(kindHello, m.Session.short(), m.Reply.encode())
		from, to = to, from
	}
	t.Fatalf("hellos do not end: %v", trace)
	return nil
}

func TestGoldenDatagram(t *testing.T) {
	s := newSealer(sessionID([]byte("0123456789abcdef")), "web")
	k := secret([]byte("an example secret of 32 bytes ok"))
	hb := heartbeat{Seq: 7, Clock: 1e9, Interval: 100 * time.Millisecond, Lease: time.Second, Member: 0xA, Cluster: 0xB,
		Counter: 1, Incarnation: 0xC, Ancestors: []Ancestor{{ID: 0xD, Fork: 42}}, Flags: flagJoined, Boot: 0xE,
		Generation: 3, FileHash: 0xF, Term: 2, Leader: 0xA, Applied: 99, StateHash: 0x10, Feature: 1, Wall: 1e18,
		Heard: []heardPeer{{Name: nameHash("bob"), Session: 0x11, Age: 5 * time.Millisecond, Links: 3}}}
	ackBody, _ := (&ack{Seq: 7, Member: 0xA, Incarnation: 0xC, Lease: time.Second, Generation: 3, Clock: 2e9, Revoked: []groupEpoch{{"web", 4}}}).encode()
	var text strings.Builder
	for _, m := range []message{
		{Kind: kindHeartbeat, Sender: "alice", Serial: 1, Body: hb.encode()},
		{Kind: kindAck, Sender: "alice", Receiver: 0x3031323334353637, Serial: 2, Body: ackBody},
		{Kind: kindHold, Sender: "alice", Receiver: 1, Serial: 3, Body: (&hold{"bob", "web", 4, 21, time.Second}).encode()},
		{Kind: kindHello, Sender: "alice", Receiver: 1, Serial: 4, Body: (&hello{Challenge: 5, Answer: 6}).encode()},
		{Kind: kindRaft, Sender: "alice", Receiver: 1, Serial: 5},
	} {
		text.WriteString("body " + hex.EncodeToString(m.Body) + "\nsealed " + hex.EncodeToString(s.seal(k, m)) + "\n")
	}
	f := frameSealer{aead: streamCipher(k, "web", s.session, testSession(2), make([]byte, 16), make([]byte, 16))}
	text.WriteString("frame " + hex.EncodeToString(f.seal(kindRaft, []byte("first"))) + "\n")
	text.WriteString("frame " + hex.EncodeToString(f.seal(kindRaft, nil)) + "\n")

	const path = "testdata/wire/sealed.golden"
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("what goes over the wire has changed, so nodes of the last release are not understood (-want +got):\n%s", diff)
	}
}

func TestSealOpensAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
		m := message{Kind: messageKind(rapid.SampledFrom([]messageKind{kindAck, kindRaft, kindHold}).Draw(t, "kind")),
			Sender: "alice", Receiver: b.session.short(), Serial: rapid.Uint64Min(1).Draw(t, "serial"),
			Body: rapid.SliceOfN(rapid.Byte(), 0, maxBody).Draw(t, "body")}
		raw := a.seal.seal(testSecret(1), m)
		if len(raw) > maxDatagram || !fitsDatagram(m) {
			t.Fatalf("a body of %d bytes makes a datagram of %d", len(m.Body), len(raw))
		}
		if bytes.Contains(raw, []byte("alice")) || (len(m.Body) > 8 && bytes.Contains(raw, m.Body)) {
			t.Fatal("the datagram can be read without the key")
		}
		keep := bytes.Clone(raw)
		// One bit anywhere but in the magic, version, tag, key and counter, which have reasons of their own.
		bit := rapid.IntRange(8*headerSize, 8*len(raw)-1).Draw(t, "bit")
		raw[bit/8] ^= 1 << (bit % 8)
		if _, err := b.get(raw); err != errForged {
			t.Fatalf("bit %d turned: %v", bit, err)
		}
		got, err := b.get(keep)
		if err != nil || !got.Confirmed {
			t.Fatalf("confirmed %v, %v", got.Confirmed, err)
		}
		if diff := cmp.Diff(m, got.message); diff != "" && len(m.Body) > 0 {
			t.Fatalf("came back different:\n%s", diff)
		}
		if _, err := b.get(keep); err != errReplayed {
			t.Fatalf("the same again: %v", err)
		}
	})
}

func TestDatagramsRefused(t *testing.T) {
	key, other := testSecret(1), testSecret(2)
	fresh := func() []byte { return newWireNode("alice", 1, key).beat() }
	with := func(at int, b ...byte) func(*wireNode) []byte {
		return func(*wireNode) []byte { raw := fresh(); copy(raw[at:], b); return raw }
	}
	sealed := func(m message) func(*wireNode) []byte {
		return func(*wireNode) []byte { return newSealer(testSession(1), "web").seal(key, m) }
	}
	for _, tc := range []struct {
		name string
		raw  func(bob *wireNode) []byte
		want unopened
	}{
		{"empty", func(*wireNode) []byte { return nil }, errTruncated},
		{"one byte", func(*wireNode) []byte { return []byte("H") }, errTruncated},
		{"cut in the header", func(*wireNode) []byte { return fresh()[:headerSize-1] }, errTruncated},
		{"cut in the tag", func(*wireNode) []byte { return fresh()[:headerSize+tagSize-1] }, errTruncated},
		{"cut in what is sealed", func(*wireNode) []byte { return fresh()[:60] }, errForged},
		{"longer", func(*wireNode) []byte { return append(fresh(), 0) }, errForged},
		{"of another program", func(*wireNode) []byte { return []byte("GET / HTTP/1.1\r\n") }, errNotOurs},
		{"of no version", with(2, 0), errNotOurs},
		{"of a newer version", with(2, wireVersion+1), errNewerVersion},
		{"of a newer version, short", func(*wireNode) []byte { return []byte{'H', 'A', 9, 9} }, errNewerVersion},
		{"another key", func(*wireNode) []byte { return newWireNode("alice", 1, other).beat() }, errUnknownKey},
		{"another key under this one's id", func(*wireNode) []byte {
			raw := newWireNode("alice", 1, other).beat()
			copy(raw[3:8], fresh()[3:8])
			return raw
		}, errForged},
		{"another session", with(8, 0xFF), errForged},
		{"another counter", with(31, 77), errForged},
		{"counter zero", with(31, 0), errReplayed},
		{"another cluster", func(*wireNode) []byte {
			return newSealer(testSession(1), "shop").seal(key, message{Kind: kindHeartbeat, Sender: "alice"})
		}, errOtherCluster},
		{"another cluster that says it is this one", func(*wireNode) []byte {
			raw := newSealer(testSession(1), "shop").seal(key, message{Kind: kindHeartbeat, Sender: "alice"})
			raw[3] = key.clusterTag("web")
			return raw
		}, errForged},
		{"replayed", func(bob *wireNode) []byte { raw := fresh(); bob.get(raw); return raw }, errReplayed},
		{"own name", sealed(message{Kind: kindHeartbeat, Sender: "bob"}), errOwnName},
		{"own datagram", func(bob *wireNode) []byte { return bob.beat() }, errLooped},
		{"not in the config", sealed(message{Kind: kindHeartbeat, Sender: "mallory"}), errUnknownSender},
		{"one session, two names", func(bob *wireNode) []byte {
			s := newSealer(testSession(1), "web")
			bob.get(s.seal(key, message{Kind: kindHeartbeat, Sender: "alice"}))
			return s.seal(key, message{Kind: kindHeartbeat, Sender: "carol"})
		}, errUnknownSender},
		{"to nobody", sealed(message{Kind: kindRaft, Sender: "alice"}), errOtherSession},
		{"to an earlier run", sealed(message{Kind: kindRaft, Sender: "alice", Receiver: 99}), errOtherSession},
		{"malformed hello", func(bob *wireNode) []byte {
			return newSealer(testSession(1), "web").seal(key, message{Kind: kindHello, Sender: "alice", Receiver: bob.session.short()})
		}, errMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bob := newWireNode("bob", 2, key)
			raw := tc.raw(bob)
			m, err := bob.get(raw)
			var got unopened
			if !errors.As(err, &got) || got != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if m.Confirmed && tc.want != errMalformed {
				t.Error("it confirmed a session")
			}
			if m.Reply != nil && !slices.Contains([]unopened{errMalformed}, tc.want) {
				t.Errorf("it is answered: %+v", m.Reply)
			}
		})
	}
	if _, err := parseMessage([]byte{1, 200, 'x'}); err != errMalformed {
		t.Errorf("a name that is longer than the message: %v", err)
	}
}

func TestForgedSessionsLeaveNoTrace(t *testing.T) {
	bob := newWireNode("bob", 2, testSecret(1))
	for i := range 1000 {
		raw := newWireNode("alice", byte(i), testSecret(1)).beat()
		raw[len(raw)-1] ^= 1
		if _, err := bob.get(raw); err != errForged && i != 2 {
			t.Fatal(err)
		}
	}
	if len(bob.sessions) != 0 {
		t.Errorf("%d sessions remembered for what did not open", len(bob.sessions))
	}
	for i := range 100 {
		bob.get(newWireNode("alice", byte(100+i), testSecret(1)).beat())
	}
	if got := len(bob.sessions); got != maxPending {
		t.Errorf("%d unconfirmed sessions kept, %d are allowed", got, maxPending)
	}
}

func TestFirstContactTakesOneRoundTrip(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	got := talk(t, a, b, a.beat())
	want := []string{"bob", "alice confirmed", "bob confirmed"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first contact (-want +got):\n%s", diff)
	}
	if m, err := b.get(a.datagram(kindRaft, b.session.short(), []byte("x"))); err != nil || !m.Confirmed || m.Reply != nil {
		t.Errorf("the first message: %+v, %v", m, err)
	}
}

func TestEchoInAHeartbeatConfirms(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	if m, _ := b.get(a.beat()); m.Confirmed {
		t.Error("confirmed without an echo")
	}
	stranger := newWireNode("bob", 3, testSecret(1))
	if m, _ := b.get(a.beat(stranger)); m.Confirmed {
		t.Error("confirmed by the echo of an earlier run")
	}
	if m, _ := b.get(a.beat(b)); !m.Confirmed || m.Reply != nil {
		t.Errorf("not confirmed by an echo: %+v", m)
	}
}

func TestARestartedPeerReplacesItself(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	talk(t, a, b, a.beat())
	again := newWireNode("alice", 3, testSecret(1))
	got := talk(t, again, b, again.beat())
	if diff := cmp.Diff([]string{"bob", "alice confirmed", "bob confirmed"}, got); diff != "" {
		t.Errorf("after the restart (-want +got):\n%s", diff)
	}
	if id, _ := b.confirmed("alice"); id != testSession(3) {
		t.Errorf("session %x", id)
	}
}

// The recording has all that an earlier run ever sent, its echoes of my present session and its answers included.
func TestARecordingCannotComeBack(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	var recording [][]byte
	record := func(raw []byte) []byte { recording = append(recording, bytes.Clone(raw)); return raw }

	m, _ := b.get(record(a.beat()))
	m, _ = a.get(b.datagram(kindHello, m.Session.short(), m.Reply.encode()))
	if m, _ = b.get(record(a.datagram(kindHello, m.Session.short(), m.Reply.encode()))); !m.Confirmed {
		t.Fatal("alice is not confirmed")
	}
	withheld := a.beat(b) // recorded, and kept from bob until later
	record(a.datagram(kindRaft, b.session.short(), []byte("old")))
	record(withheld)

	again := newWireNode("alice", 3, testSecret(1))
	talk(t, again, b, again.beat())
	for range 2 { // and it is no better the second time
		for i, raw := range recording {
			b.now += instant(time.Second)
			if m, err := b.get(raw); m.Confirmed || (err == nil && m.Kind != kindHeartbeat && m.Kind != kindHello) {
				t.Errorf("recorded datagram %d passes: %+v, %v", i, m, err)
			}
		}
	}
	if id, _ := b.confirmed("alice"); id != testSession(3) {
		t.Errorf("the recording took over: session %x", id)
	}
	if m, err := b.get(again.datagram(kindRaft, b.session.short(), nil)); err != nil || !m.Confirmed {
		t.Errorf("the live session is not heard any more: %+v, %v", m, err)
	}

	// For a run of bob that starts later, all of it is old.
	later := newWireNode("bob", 4, testSecret(1))
	for i, raw := range recording {
		if m, _ := later.get(raw); m.Confirmed {
			t.Errorf("recorded datagram %d confirms a session to a process that started after it", i)
		}
	}
}

// An answer that was withheld while a newer run was confirmed comes too late.
func TestALateAnswerComesTooLate(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	talk(t, a, b, a.beat())
	second := newWireNode("alice", 3, testSecret(1))
	m, _ := b.get(second.beat())
	answer, _ := second.get(b.datagram(kindHello, m.Session.short(), m.Reply.encode()))
	late := second.datagram(kindHello, b.session.short(), answer.Reply.encode())

	third := newWireNode("alice", 4, testSecret(1))
	talk(t, third, b, third.beat())
	if m, _ := b.get(late); m.Confirmed {
		t.Error("the late answer is taken")
	}
	if id, _ := b.confirmed("alice"); id != testSession(4) {
		t.Errorf("session %x", id)
	}
}

func TestTwoNodesOfOneName(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	twin := newWireNode("alice", 3, testSecret(1))
	talk(t, a, b, a.beat())
	talk(t, twin, b, twin.beat())
	got := talk(t, a, b, a.beat(b))
	if last := got[len(got)-1]; !strings.Contains(last, "error: "+string(errTwin)) {
		t.Errorf("nobody says that there are two: %v", got)
	}
	if id, _ := b.confirmed("alice"); id != testSession(3) {
		t.Errorf("they take turns: session %x", id)
	}
}

func TestUnconfirmedMessagesAreNotTaken(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	talk(t, a, b, a.beat())
	again := newWireNode("alice", 3, testSecret(1))
	m, err := b.get(again.datagram(kindRaft, b.session.short(), nil))
	if err != errUnconfirmed || m.Reply == nil || m.Reply.Challenge == 0 {
		t.Errorf("a message of a run that has not answered: %+v, %v", m, err)
	}
	if m, err := b.get(again.beat(b)); err != nil || m.Confirmed {
		t.Errorf("its heartbeat is delivered as unconfirmed: %+v, %v", m, err)
	}
}

func TestCopiesAreDeliveredOnce(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	talk(t, a, b, a.beat())
	raft, beat := a.message(kindRaft, b.session.short(), nil), a.message(kindHeartbeat, 0, (&heartbeat{}).encode())
	for _, tc := range []struct {
		m    message
		link string
		dup  bool
	}{
		{raft, "lan", false}, {raft, "lan", true}, {raft, "repl", true},
		{beat, "lan", false}, {beat, "lan", true}, {beat, "repl", false}, {beat, "repl", true},
	} {
		b.now++
		got, err := b.open(a.seal.seal(testSecret(1), tc.m), tc.link, b.now)
		if err != nil || got.Duplicate != tc.dup {
			t.Errorf("kind %d on %s: duplicate %v, %v; want %v", tc.m.Kind, tc.link, got.Duplicate, err, tc.dup)
		}
		if at := b.heardOn("alice", tc.link); at != b.now {
			t.Errorf("kind %d does not count for %s", tc.m.Kind, tc.link)
		}
	}
	b.open(a.seal.seal(testSecret(1), a.message(kindStream, b.session.short(), nil)), "", b.now+1)
	if at := b.heardOn("alice", ""); at != 0 {
		t.Error("a stream counts as a link")
	}
}

func TestHellosAreLimited(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	count := func(datagrams int) (hellos int) {
		for range datagrams {
			if m, _ := b.get(a.beat()); m.Reply != nil {
				hellos++
			}
		}
		return hellos
	}
	if got := count(1000); got != helloBurst {
		t.Errorf("%d hellos at once, want %d", got, helloBurst)
	}
	b.now = b.now.add(3 * helloEvery)
	if got := count(1000); got != 3 {
		t.Errorf("%d hellos after three intervals, want 3", got)
	}
}

func TestKeysDuringARoll(t *testing.T) {
	old, next := testSecret(1), testSecret(2)
	a, b := newWireNode("alice", 1, old, next), newWireNode("bob", 2, old)
	talk(t, a, b, a.beat())
	m := a.message(kindRaft, b.session.short(), nil)
	if got, err := b.get(a.seal.seal(next, m)); err != errUnknownKey {
		t.Errorf("under the key that bob has not: %+v, %v", got, err)
	}
	if got, err := b.get(a.seal.seal(old, m)); err != nil || got.Duplicate {
		t.Errorf("under the key that bob has: %+v, %v", got, err)
	}
	b.opener.keys = []secret{old, next}
	b.get(a.seal.seal(old, a.message(kindHeartbeat, 0, nil)))
	b.get(a.seal.seal(next, a.message(kindHeartbeat, 0, nil)))
	if got := b.keysOf("alice", b.now); !slices.Equal(got, []uint32{old.id(), next.id()}) {
		t.Errorf("alice seals with %x", got)
	}
	if k, ok := b.streamKey("alice", b.now); !ok || k != next {
		t.Error("the stream does not use the newest common key")
	}
	b.now = b.now.add(keySeenFor)
	b.get(a.seal.seal(next, a.message(kindHeartbeat, 0, nil)))
	b.now++
	if got := b.keysOf("alice", b.now); !slices.Equal(got, []uint32{next.id()}) {
		t.Errorf("after the old key was dropped alice seals with %x", got)
	}
	b.opener.keys = []secret{next}
	if _, err := b.get(a.seal.seal(old, a.message(kindHeartbeat, 0, nil))); err != errUnknownKey {
		t.Errorf("a dropped key still opens: %v", err)
	}
}

func TestForgottenPeers(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	talk(t, a, b, a.beat())
	b.setPeers([]string{"bob", "carol"})
	if _, err := b.get(a.beat(b)); err != errUnknownSender {
		t.Errorf("a node that was removed: %v", err)
	}
	if len(b.sessions) != 0 || b.peer("bob") != nil {
		t.Errorf("%d sessions kept, bob his own peer: %v", len(b.sessions), b.peer("bob") != nil)
	}
}

// A node that was removed and added again has left recordings behind that echo my session.
func TestANodeThatIsBackMustAnswer(t *testing.T) {
	a, b := newWireNode("alice", 1, testSecret(1)), newWireNode("bob", 2, testSecret(1))
	talk(t, a, b, a.beat())
	recorded := a.beat(b)
	b.get(recorded)
	b.setPeers([]string{"bob", "carol"})
	b.setPeers([]string{"alice", "bob", "carol"})
	if m, _ := b.get(recorded); m.Confirmed || m.Reply == nil {
		t.Errorf("a recording from before it was removed: %+v", m)
	}
	again := newWireNode("alice", 3, testSecret(1))
	got := talk(t, again, b, again.beat())
	if diff := cmp.Diff([]string{"bob", "alice confirmed", "bob confirmed"}, got); diff != "" {
		t.Errorf("the node itself (-want +got):\n%s", diff)
	}
}

// The window against the plain set that it stands for.
func TestWindowAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		seen, top := map[uint64]bool{}, uint64(0)
		step := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(0, 70), rapid.Uint64Range(1000, 1100),
			rapid.Uint64Range(1900, 2200), rapid.Uint64())
		for range rapid.IntRange(1, 300).Draw(t, "numbers") {
			d := step.Draw(t, "distance")
			n := top + d
			if rapid.Bool().Draw(t, "back") {
				n = top - min(d, top)
			}
			want := n > 0 && !seen[n] && n+windowSize > top
			if n > ^uint64(0)-windowSize {
				continue // a counter never gets there
			}
			if w.fresh(n) != want || w.take(n) != want {
				t.Fatalf("number %d with newest %d: want %v", n, top, want)
			}
			if want {
				seen[n], top = true, max(top, n)
			}
		}
	})
}

func FuzzDatagram(f *testing.F) {
	a := newWireNode("alice", 1, testSecret(1))
	seed := a.beat()
	for _, raw := range [][]byte{seed, seed[:40], {'H', 'A', 2}, a.datagram(kindHello, 5, (&hello{1, 2}).encode())} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := newWireNode("bob", 2, testSecret(1))
		given := bytes.Clone(raw)
		m, err := b.get(raw)
		if !bytes.Equal(given, raw) {
			t.Fatal("opening changes the datagram")
		}
		if err == nil && !bytes.Equal(raw, seed) {
			t.Fatalf("a datagram opens that nobody sealed: %+v", m)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{1, 3, 'b', 'o', 'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseMessage(b); err == nil && sealedSize(m) != len(b) {
			t.Fatalf("%d of %d bytes accounted for", sealedSize(m), len(b))
		}
	})
}
