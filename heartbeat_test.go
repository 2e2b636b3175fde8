// Do nodes hear each other over real sockets, and only each other? On loopback addresses; what needs interfaces of its
// own is in heartbeat_link_test.go.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wireTimeout ends a test that waits for what never comes. Nothing is measured against it.
const wireTimeout = 60 * time.Second

// wireWait waits until a state is there.
func wireWait(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(wireTimeout); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// wireDaemon is a node that does what node.go does with a transport: it sends heartbeats that say whom it hears, and
// keeps what it gets.
type wireDaemon struct {
	net  *network
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	heard map[string]heardPeer
	got   []received // heartbeats apart
	beats []received
}

func startWire(t *testing.T, self string, cfg *Config, keys []secret, log *slog.Logger) *wireDaemon {
	t.Helper()
	d, err := newWireDaemon(self, cfg, keys, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func newWireDaemon(self string, cfg *Config, keys []secret, log *slog.Logger) (*wireDaemon, error) {
	d := &wireDaemon{heard: make(map[string]heardPeer)}
	var err error
	if d.net, err = openNetwork(self, cfg, keys, log); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.done.Go(func() { watchLinks(ctx, log, d.net.LinksChanged) })
	d.done.Go(func() {
		for {
			select {
			case r := <-d.net.Received():
				d.take(r)
			case <-ctx.Done():
				return
			}
		}
	})
	d.done.Go(func() {
		tick := time.NewTicker(cfg.Heartbeat.Interval.D())
		defer tick.Stop()
		for seq := uint64(1); ctx.Err() == nil; seq++ {
			d.net.Heartbeat(d.body(seq))
			<-tick.C
		}
	})
	return d, nil
}

func (d *wireDaemon) body(seq uint64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := heartbeat{Seq: seq}
	for _, p := range d.heard {
		h.Heard = append(h.Heard, p)
	}
	return h.encode()
}

func (d *wireDaemon) take(r received) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Kind == kindHello {
		return
	}
	if r.Kind != kindHeartbeat {
		d.got = append(d.got, r)
		return
	}
	d.heard[r.From] = heardPeer{Name: nameHash(r.From), Session: r.Session}
	if d.beats = append(d.beats, r); len(d.beats) > 1000 {
		d.beats = d.beats[500:]
	}
}

func (d *wireDaemon) close() {
	d.stop()
	d.done.Wait()
	d.net.Close()
}

// hears is whether a confirmed heartbeat of this run of the peer came in on the link.
func (d *wireDaemon) hears(peer *wireDaemon, link string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.beats, func(r received) bool {
		return r.Session == peer.net.Session() && r.Link == link && r.Confirmed
	})
}

// knows is whether a message to the peer would be sent, and taken there.
func (d *wireDaemon) knows(peer *wireDaemon) bool {
	return slices.ContainsFunc(d.net.Stats().Peers, func(p peerStats) bool { return p.Session == peer.net.Session() }) &&
		slices.ContainsFunc(peer.net.Stats().Peers, func(p peerStats) bool { return p.Session == d.net.Session() })
}

func (d *wireDaemon) count(body []byte) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.got {
		if bytes.Equal(r.Body, body) {
			n++
		}
	}
	return n
}

// wireLog keeps the log.
type wireLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *wireLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *wireLog) lines(with string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range strings.Split(l.buf.String(), "\n") {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}

func (l *wireLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// loopConfig has the nodes on two links, both on lo, at a port that is free.
func loopConfig(t *testing.T, nodes ...string) *Config {
	t.Helper()
	cfg := &Config{Cluster: ClusterConfig{Name: "web"},
		Heartbeat: HeartbeatConfig{Interval: Duration(10 * time.Millisecond), Deadtime: Duration(time.Second), Port: freePort(t)},
		Links:     []LinkConfig{{Name: "lan", Interface: "lo"}, {Name: "repl", Interface: "lo"}}}
	for i, name := range nodes {
		cfg.Nodes = append(cfg.Nodes, NodeConfig{Name: name, Address: []LinkAddress{
			{"lan", fmt.Sprintf("127.7.1.%d", i+1)}, {"repl", fmt.Sprintf("127.7.2.%d", i+1)}}})
	}
	return cfg
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.7.1.1:0")
	if err != nil {
		t.Skipf("no loopback address 127.7.1.1: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestNodesHearEachOther(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob", "carol")
	keys := []secret{testSecret(1)}
	var log wireLog
	nodes := []*wireDaemon{}
	for _, n := range cfg.Nodes {
		nodes = append(nodes, startWire(t, n.Name, cfg, keys, log.logger()))
	}
	for i, a := range nodes {
		for j, b := range nodes {
			if i == j {
				continue
			}
			wireWait(t, fmt.Sprintf("node %d hears %d on both links", i, j), func() bool {
				return a.hears(b, "lan") && a.hears(b, "repl") && a.knows(b)
			})
			body := fmt.Appendf(nil, "from %d to %d", i, j)
			before := boottime()
			a.net.Send(cfg.Nodes[j].Name, kindRaft, body)
			wireWait(t, string(body), func() bool { return b.count(body) > 0 })
			b.mu.Lock()
			r := b.got[len(b.got)-1]
			b.mu.Unlock()
			if r.From != cfg.Nodes[i].Name || r.Kind != kindRaft || !r.Confirmed || r.Session != a.net.Session() ||
				(r.Link != "lan" && r.Link != "repl") || r.At < before || r.At > boottime() {
				t.Errorf("received %+v", r)
			}
		}
	}
	// The second link's copies have come by now or will be told apart all the same: a heartbeat later, still one each.
	for _, n := range nodes {
		n.mu.Lock()
		if len(n.got) != len(nodes)-1 {
			t.Errorf("%d messages, want one from each peer: %v", len(n.got), n.got)
		}
		n.mu.Unlock()
	}
	if n := log.lines("level=WARN"); n > 0 {
		t.Errorf("%d warnings:\n%s", n, log.buf.String())
	}
}

func TestNothingIsSentToThePeerThatDoesNotAnswer(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	a := startWire(t, "alice", cfg, []secret{testSecret(1)}, slog.New(slog.DiscardHandler))
	for _, to := range []string{"bob", "nobody", "alice"} {
		a.net.Send(to, kindRaft, []byte("x"))
	}
	if got := a.net.Stats().Unconfirmed; got != 3 {
		t.Errorf("%d messages counted as not sent, want 3", got)
	}
	a.net.Heartbeat(make([]byte, maxDatagram))
	if got := a.net.Stats().TooLarge; got != 1 {
		t.Errorf("%d heartbeats counted as too large, want 1", got)
	}
}

// A node with another key is named on the healthy side, by its address, until it is heard.
func TestRefusedPeerIsNamed(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob", "carol")
	bob := startWire(t, "bob", cfg, []secret{testSecret(1)}, slog.New(slog.DiscardHandler))
	startWire(t, "alice", cfg, []secret{testSecret(2)}, slog.New(slog.DiscardHandler))
	carol := startWire(t, "carol", cfg, []secret{testSecret(1)}, slog.New(slog.DiscardHandler))
	wireWait(t, "carol is heard, alice is refused", func() bool {
		peers := bob.net.Stats().Peers
		return bob.hears(carol, "lan") && slices.ContainsFunc(peers, func(p peerStats) bool { return p.Name == "alice" && p.Refused.At != 0 })
	})
	told := func(heard bool, since time.Duration) string {
		s := &Status{Nodes: []NodeStatus{{Name: "alice", State: "lost", Heard: heard}, {Name: "bob", State: "online", Heard: true}, {Name: "carol", State: "online", Heard: true}}}
		s.tellRefused(bob.net.Stats().Peers, boottime().add(since))
		text := ""
		for _, p := range s.Problems {
			text += p.ID + ": " + p.What + "; " + p.Next + "; " + p.Command
		}
		if (s.Overall != "") != (text != "") {
			t.Errorf("overall %q with %q", s.Overall, text)
		}
		return text
	}
	want := "datagram-refused: what alice (127.7.1.1) sends is refused: sealed with a key that is not in the key file; " +
		"it counts as silent until then: is it the same key file there?; hactl check (on alice)"
	if got := strings.Replace(told(false, 0), "127.7.2.1", "127.7.1.1", 1); got != want { // whichever link was last
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := told(true, 0) + told(false, time.Hour); got != "" {
		t.Errorf("it is heard, or was refused long ago: %s", got)
	}
	// A copy under a key that is not here yet, beside one that opened, when the node died in a roll.
	now := boottime()
	s := &Status{Nodes: []NodeStatus{{Name: "alice"}}}
	s.tellRefused([]peerStats{{Name: "alice", Links: []peerOnALink{{"lan", now}}, Refused: refusedPeer{Reason: errUnknownKey, At: now.add(time.Millisecond)}}}, now.add(time.Minute/4))
	if len(s.Problems) > 0 {
		t.Errorf("after a death in a roll: %+v", s.Problems)
	}
}

func TestWhatDoesNotOpenIsCountedAndNeverAnswered(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	var log wireLog
	bob := startWire(t, "bob", cfg, []secret{testSecret(1)}, log.logger())
	raw := func() []byte { return newWireNode("alice", 1, testSecret(1)).beat() }
	change := func(at int, b byte) []byte { r := raw(); r[at] = b; return r }
	twice := newWireNode("carol", 9, testSecret(1)).beat()
	sends := []struct {
		raw  []byte
		want unopened
	}{
		{raw()[:20], errTruncated},
		{change(40, 1), errForged},
		{change(2, 2), errNewerVersion},
		{newWireNode("alice", 1, testSecret(2)).beat(), errUnknownKey},
		{newSealer(testSession(1), "shop").seal(testSecret(1), message{Kind: kindHeartbeat, Sender: "alice"}), errOtherCluster},
		{[]byte("hello"), errNotOurs},
		{twice, errUnknownSender},
		{newWireNode("bob", 1, testSecret(1)).beat(), errOwnName},
	}
	// From an address that no node has, so that only an answer could come back to it.
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 7, 1, 99)},
		net.UDPAddrFromAddrPort(netip.MustParseAddrPort(fmt.Sprintf("127.7.1.2:%d", cfg.Heartbeat.Port))))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const times = 5
	for _, s := range sends {
		for range times {
			if _, err := c.Write(s.raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A recorded datagram that opens: taken once as unconfirmed, then refused. No hello goes to where it came from.
	replay := raw()
	for range times {
		c.Write(replay)
	}
	wireWait(t, "all are counted", func() bool {
		var n uint64
		for _, r := range bob.net.Stats().Refused {
			n += r.Count
		}
		bob.mu.Lock() // what opened comes to the loop by itself
		defer bob.mu.Unlock()
		return n >= uint64(times*len(sends)+times-1) && len(bob.got)+len(bob.beats) > 0
	})
	stats := bob.net.Stats()
	for _, want := range append(sends, struct {
		raw  []byte
		want unopened
	}{nil, errReplayed}) {
		i := slices.IndexFunc(stats.Refused, func(r refusal) bool { return r.Reason == string(want.want) })
		if i < 0 {
			t.Errorf("%s: not counted", want.want)
			continue
		}
		r := stats.Refused[i]
		n := uint64(times)
		if want.want == errReplayed {
			n--
		}
		if r.Count != n || r.LastFrom.String() != "127.7.1.99" || r.LastLink != "lan" {
			t.Errorf("%s: %+v, want %d", want.want, r, n)
		}
		if lines := log.lines("reason=\"" + string(want.want) + "\""); lines != 1 {
			if lines = log.lines("reason=" + string(want.want)); lines != 1 {
				t.Errorf("%s: %d lines in the log, want 1:\n%s", want.want, lines, log.buf.String())
			}
		}
	}
	bob.mu.Lock()
	for _, r := range append(bob.got, bob.beats...) {
		if r.Confirmed || r.Kind != kindHeartbeat {
			t.Errorf("delivered: %+v", r)
		}
	}
	if len(bob.beats) != 1 {
		t.Errorf("%d heartbeats delivered, want the one that opened", len(bob.beats))
	}
	bob.mu.Unlock()
	// An answer would have been sent before the counters moved.
	c.SetReadDeadline(time.Now())
	buf := make([]byte, 2048)
	if n, err := c.Read(buf); err == nil {
		t.Errorf("answered with %d bytes", n)
	}
}

func TestRefusalsAreLoggedOncePerInterval(t *testing.T) {
	var log wireLog
	r := refusals{log: log.logger()}
	from := netip.MustParseAddr("192.0.2.1")
	now := instant(time.Hour)
	for range 100 {
		r.note(errForged, "lan", from, now)
	}
	if n := log.lines(string(errForged)); n != 1 {
		t.Errorf("%d lines at once", n)
	}
	r.note(errForged, "lan", from, now.add(refusalEvery))
	if n := log.lines("count=100 from=192.0.2.1"); n != 1 {
		t.Errorf("the second line does not tell of the 100 since the first:\n%s", log.buf.String())
	}
	r.note(errors.New("other"), "lan", from, now)
	if got := r.snapshot(); len(got) != 2 || got[0].Count != 101 || got[1].Reason != "other" {
		t.Errorf("counted %+v", got)
	}
}

func TestARestartIsHeardAtOnce(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	keys := []secret{testSecret(1)}
	quiet := slog.New(slog.DiscardHandler)
	a := startWire(t, "alice", cfg, keys, quiet)
	for run := range 5 {
		b, err := newWireDaemon("bob", cfg, keys, quiet)
		if err != nil {
			t.Fatal(err)
		}
		wireWait(t, "both know each other", func() bool { return a.knows(b) && b.knows(a) })
		for _, size := range []int{10, 10_000} {
			body := bytes.Repeat([]byte{byte(run)}, size)
			a.net.Send("bob", kindRaft, body)
			b.net.Send("alice", kindAck, body)
			wireWait(t, fmt.Sprintf("run %d: %d bytes both ways", run, size), func() bool {
				return b.count(body) == 1 && a.count(body) == 1
			})
		}
		b.close()
	}
}

// The roll as key.go has it, in every order, while messages go both ways between all: none may be lost, though no
// message is sent twice.
func TestKeyRollWithoutAGap(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob", "carol")
	old, next := testSecret(1), testSecret(2)
	for _, order := range [][3]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}} {
		var nodes []*wireDaemon
		for _, n := range cfg.Nodes {
			d, err := newWireDaemon(n.Name, cfg, []secret{old}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, d)
		}
		serial := 0
		exchange := func(when string) {
			for i, a := range nodes {
				for j, b := range nodes {
					if i == j {
						continue
					}
					for _, size := range []int{20, 3000} {
						serial++
						body := fmt.Appendf(nil, "%0*d", size, serial)
						a.net.Send(cfg.Nodes[j].Name, kindRaft, body)
						wireWait(t, fmt.Sprintf("%s: message of %d bytes from %d to %d", when, size, i, j),
							func() bool { return b.count(body) > 0 })
					}
				}
			}
		}
		seen := func(keys ...secret) {
			var want []string
			for _, k := range keys {
				want = append(want, keyName(k.id()))
			}
			wireWait(t, fmt.Sprintf("all are seen to use %v", want), func() bool {
				for _, n := range nodes {
					for _, p := range n.net.Stats().Peers {
						if p.Session == 0 || !slices.Equal(p.Keys, want) {
							return false
						}
					}
				}
				return true
			})
		}
		seen(old)
		exchange("before")
		for _, i := range order {
			if err := nodes[i].net.setKeys([]secret{old, next}); err != nil {
				t.Fatal(err)
			}
			exchange(fmt.Sprintf("%d has both", i))
		}
		seen(old, next)
		exchange("all have both")
		for _, i := range order {
			if err := nodes[i].net.setKeys([]secret{next}); err != nil {
				t.Fatal(err)
			}
			exchange(fmt.Sprintf("%d has dropped the old one", i))
		}
		seen(next)
		for i, n := range nodes {
			if s := n.net.Stats(); s.FramesDropped > 0 || s.QueueFull > 0 {
				t.Errorf("node %d: %+v", i, s)
			}
			n.close()
		}
	}
}

func TestSetKeysRefuses(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	if _, err := openNetwork("alice", cfg, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a network without a key")
	}
	a := startWire(t, "alice", cfg, []secret{testSecret(1)}, slog.New(slog.DiscardHandler))
	if err := a.net.setKeys(make([]secret, maxKeys+1)); err == nil {
		t.Error("too many keys are taken")
	}
}

func TestReconfigure(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	keys := []secret{testSecret(1)}
	quiet := slog.New(slog.DiscardHandler)
	a, b := startWire(t, "alice", cfg, keys, quiet), startWire(t, "bob", cfg, keys, quiet)
	wireWait(t, "both know each other", func() bool { return a.knows(b) })

	// Another port, a third node, and one link less.
	moved := loopConfig(t, "alice", "bob", "carol")
	moved.Links = moved.Links[1:]
	if err := a.net.Reconfigure(moved); err != nil {
		t.Fatal(err)
	}
	if err := b.net.Reconfigure(moved); err != nil {
		t.Fatal(err)
	}
	c := startWire(t, "carol", moved, keys, quiet)
	wireWait(t, "carol is heard by both", func() bool { return a.knows(c) && b.knows(c) && c.hears(a, "repl") })
	for _, size := range []int{10, 5000} {
		body := bytes.Repeat([]byte("m"), size)
		a.net.Send("bob", kindRaft, body)
		wireWait(t, "a message on the new port", func() bool { return b.count(body) == 1 })
	}
	if s := a.net.LinkStates(); len(s) != 1 || s[0].Name != "repl" || s[0].State != linkUp || s[0].Detail != "" {
		t.Errorf("links %+v", s)
	}

	// Bob is removed: he is a stranger now.
	less := *moved
	less.Nodes = []NodeConfig{moved.Nodes[0], moved.Nodes[2]}
	if err := a.net.Reconfigure(&less); err != nil {
		t.Fatal(err)
	}
	wireWait(t, "bob is refused", func() bool {
		return slices.ContainsFunc(a.net.Stats().Refused, func(r refusal) bool { return r.Reason == string(errUnknownSender) })
	})
	before := a.net.Stats().Unconfirmed
	a.net.Send("bob", kindRaft, []byte("x"))
	if a.net.Stats().Unconfirmed != before+1 {
		t.Error("a removed node is still sent to")
	}

	// What cannot be leaves all as it was.
	bad := func(change func(c *Config)) *Config {
		c := *moved
		c.Links, c.Nodes = slices.Clone(moved.Links), slices.Clone(moved.Nodes)
		change(&c)
		return &c
	}
	for _, tc := range []struct {
		want string
		cfg  *Config
	}{
		{"node alice is not in the config", bad(func(c *Config) { c.Nodes = c.Nodes[1:] })},
		{"link repl: address of bob", bad(func(c *Config) { c.Nodes[1].Address = []LinkAddress{{"repl", "bob.example"}} })},
		{"is no multicast address", bad(func(c *Config) { c.Links[0].Multicast = "10.0.0.1" })},
		{"of the same family", bad(func(c *Config) { c.Links[0].Multicast = "ff02::1" })},
		{"link repl: multicast", bad(func(c *Config) { c.Links[0].Multicast = "all" })},
		{"name cannot change from web to shop", bad(func(c *Config) { c.Cluster.Name = "shop" })},
	} {
		if err := a.net.Reconfigure(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
	wireWait(t, "alice and carol still know each other", func() bool { return a.knows(c) })
}

// A loop that does not get on costs messages, which are counted, and nothing else.
func TestASlowLoopBlocksNobody(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	keys := []secret{testSecret(1)}
	quiet := slog.New(slog.DiscardHandler)
	a, err := openNetwork("alice", cfg, keys, quiet)
	if err != nil {
		t.Fatal(err)
	}
	b := startWire(t, "bob", cfg, keys, quiet)
	wireWait(t, "the queue overflows", func() bool {
		b.net.Heartbeat((&heartbeat{}).encode())
		a.Heartbeat((&heartbeat{}).encode()) // does not wait for the loop
		return a.Stats().QueueFull > 0
	})
	a.Close()
}

// Closing ends every goroutine, with streams open, being opened, and refused.
func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	cfg := loopConfig(t, "alice", "bob", "carol")
	keys := []secret{testSecret(1)}
	quiet := slog.New(slog.DiscardHandler)
	for range 3 {
		a, err := newWireDaemon("alice", cfg, keys, quiet)
		if err != nil {
			t.Fatal(err)
		}
		b, err := newWireDaemon("bob", cfg, keys, quiet)
		if err != nil {
			t.Fatal(err)
		}
		wireWait(t, "both know each other", func() bool { return a.knows(b) && b.knows(a) })
		big := make([]byte, 1<<20)
		a.net.Send("bob", kindRaft, big)
		b.net.Send("alice", kindRaft, big)
		wireWait(t, "streams both ways", func() bool { return a.count(big) == 1 && b.count(big) == 1 })
		b.close()
		a.net.Send("bob", kindRaft, big) // cannot arrive: alice is trying when she closes
		wireWait(t, "alice fails to reach bob", func() bool { return a.net.Stats().StreamErrors > 0 || a.net.Stats().FramesOut > 1 })
		a.close()
		a.net.Close() // once more does no harm
		if err := a.net.Reconfigure(cfg); err == nil {
			t.Error("a closed network is reconfigured")
		}
		a.net.Send("bob", kindRaft, big)
		a.net.Heartbeat(nil)
	}
	wireWait(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// sniffs that the options are as section 8 and the package of a link have them.
func TestSocketsAreBoundToTheirInterface(t *testing.T) {
	cfg := loopConfig(t, "alice", "bob")
	a := startWire(t, "alice", cfg, []secret{testSecret(1)}, slog.New(slog.DiscardHandler))
	a.net.mu.Lock()
	defer a.net.mu.Unlock()
	for _, l := range a.net.links {
		l.mu.Lock()
		err := l.out.Control(func(fd uintptr) {
			if dev, err := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || dev != "lo" {
				t.Errorf("link %s: bound to %q, %v", l.plan.name, dev, err)
			}
			if sa, err := unix.Getsockname(int(fd)); err != nil || netip.AddrFrom4(sa.(*unix.SockaddrInet4).Addr) != l.plan.own.Addr() {
				t.Errorf("link %s: at %+v, %v", l.plan.name, sa, err)
			}
		})
		l.mu.Unlock()
		if err != nil {
			t.Error(err)
		}
	}
}
