// Does a link heal by itself? Each node is a process in a network namespace of its own, joined to the others by veth
// pairs; the test takes interfaces and addresses away and gives them back. Needs root.

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostEnv marks the test binary that plays a wireHost; see TestWireHost.
const hostEnv = "HACTL_TEST_WIRE_HOST"

// hostCommand is what the test asks of a wireHost, one JSON line each.
type hostCommand struct {
	Run    []string // a command, as ip
	Start  string   // the node's name
	Config *Config
	Send   string // to whom
	Size   int
	Body   string // what Send's body begins with
	Stop   bool
}

type hostAnswer struct {
	Err     string
	Stats   networkStats
	Links   []linkState
	Session uint64
	Beats   map[string]instant // "node link" → when the last confirmed heartbeat came
	Got     map[string]int     // beginnings of bodies
	Streams []string           // beginnings of bodies that came over a stream
	Log     string
	Now     instant
}

// TestWireHost is no test but the process that plays a wireHost: it answers each line with a line.
func TestWireHost(t *testing.T) {
	if os.Getenv(hostEnv) == "" {
		t.Skip("only as a part of other tests")
	}
	var d *wireDaemon
	var log wireLog
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c hostCommand
		if err := in.Decode(&c); err != nil {
			if d != nil {
				d.close()
			}
			os.Exit(0)
		}
		var err error
		switch {
		case len(c.Run) > 0:
			var text []byte
			if text, err = exec.Command(c.Run[0], c.Run[1:]...).CombinedOutput(); err != nil {
				err = fmt.Errorf("%v: %w: %s", c.Run, err, text)
			}
		case c.Start != "":
			d, err = newWireDaemon(c.Start, c.Config, []secret{testSecret(1)}, log.logger())
		case c.Send != "":
			d.net.Send(c.Send, kindRaft, fmt.Appendf(nil, "%-*s", c.Size, c.Body))
		case c.Stop:
			d.close()
			d = nil
		}
		a := hostAnswer{Now: boottime(), Beats: map[string]instant{}, Got: map[string]int{}}
		if err != nil {
			a.Err = err.Error()
		}
		if d != nil {
			a.Stats, a.Links, a.Session = d.net.Stats(), d.net.LinkStates(), d.net.Session()
			d.mu.Lock()
			for _, r := range d.beats {
				if r.Confirmed {
					a.Beats[r.From+" "+r.Link] = r.At
				}
			}
			for _, r := range d.got {
				body := strings.TrimSpace(string(r.Body))
				if a.Got[body]++; r.Link == "" {
					a.Streams = append(a.Streams, body)
				}
			}
			d.mu.Unlock()
		}
		log.mu.Lock()
		a.Log = log.buf.String()
		log.mu.Unlock()
		out.Encode(a)
	}
}

// wireHost is such a process.
type wireHost struct {
	t   *testing.T
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func newWireHost(t *testing.T) *wireHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip (iproute2)")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWireHost$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), hostEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("wireHost: %v\n%s", err, stderr.String())
		}
	})
	h := &wireHost{t: t, cmd: cmd, in: json.NewEncoder(stdin), out: json.NewDecoder(bufio.NewReader(stdout))}
	h.ip("link set lo up")
	return h
}

func (h *wireHost) ask(c hostCommand) hostAnswer {
	h.t.Helper()
	var a hostAnswer
	if err := h.in.Encode(c); err != nil {
		h.t.Fatal(err)
	}
	if err := h.out.Decode(&a); err != nil {
		h.t.Fatal(err)
	}
	if a.Err != "" {
		h.t.Fatal(a.Err)
	}
	return a
}

func (h *wireHost) see() hostAnswer { h.t.Helper(); return h.ask(hostCommand{}) }

// ip runs commands, one in each line.
func (h *wireHost) ip(lines string) {
	h.t.Helper()
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			h.ask(hostCommand{Run: append([]string{"ip"}, words...)})
		}
	}
}

// wireTo joins two hosts by a cable: dev on both.
func (h *wireHost) wireTo(other *wireHost, dev string) {
	h.t.Helper()
	h.ip(fmt.Sprintf("link add %s type veth peer name %s netns %d", dev, dev, other.cmd.Process.Pid))
}

func (h *wireHost) start(name string, cfg *Config) {
	h.t.Helper()
	h.ask(hostCommand{Start: name, Config: cfg})
}

// hears waits until the wireHost hears the node on the link from now on.
func (h *wireHost) hears(node, link string) {
	h.t.Helper()
	since := h.see().Now
	wireWait(h.t, fmt.Sprintf("%s is heard on %s", node, link), func() bool { return h.see().Beats[node+" "+link] > since })
}

// silent waits until the node has not been heard on the link for many intervals.
func (h *wireHost) silent(node, link string) {
	h.t.Helper()
	wireWait(h.t, fmt.Sprintf("%s is silent on %s", node, link), func() bool {
		a := h.see()
		return a.Now.sub(a.Beats[node+" "+link]) > 300*time.Millisecond
	})
}

func (h *wireHost) state(link, state, detail string) {
	h.t.Helper()
	var last []linkState
	wireWait(h.t, fmt.Sprintf("link %s is %s %q", link, state, detail), func() bool {
		last = h.see().Links
		return slices.ContainsFunc(last, func(s linkState) bool {
			return s.Name == link && s.State == state && strings.Contains(s.Detail, detail) && (detail == "") == (s.Detail == "")
		})
	})
}

// pass sends a message until one has arrived: the kernel drops what it cannot yet resolve a neighbour for, and what
// waits in a socket that is opened anew. Whatever the number of links, none may be delivered twice.
func (h *wireHost) pass(other *wireHost, to, body string, size int) {
	h.t.Helper()
	attempt, sent, arrived := 0, instant(0), false
	wireWait(h.t, body+" arrives", func() bool {
		for text, n := range other.see().Got {
			if strings.HasPrefix(text, body+" #") {
				arrived = true
				if n != 1 {
					h.t.Errorf("%s arrived %d times", text, n)
				}
			}
		}
		if !arrived && boottime().sub(sent) > time.Second {
			attempt, sent = attempt+1, boottime()
			h.ask(hostCommand{Send: to, Body: fmt.Sprintf("%s #%d", body, attempt), Size: size})
		}
		return arrived
	})
}

func hostConfig(links []LinkConfig, alice, bob []LinkAddress) *Config {
	return &Config{Cluster: ClusterConfig{Name: "web"},
		Heartbeat: HeartbeatConfig{Interval: Duration(20 * time.Millisecond), Deadtime: Duration(time.Second), Port: 694},
		Links:     links, Nodes: []NodeConfig{{Name: "alice", Address: alice}, {Name: "bob", Address: bob}}}
}

// The four ways to send, on interfaces that go and come back in every way.
func TestLinksHeal(t *testing.T) {
	for _, tc := range []struct {
		name, multicast, alice, bob, prefix string
	}{
		{"unicast IPv4", "", "10.9.0.1", "10.9.0.2", "24"},
		{"multicast IPv4", "239.192.6.94", "10.9.0.1", "10.9.0.2", "24"},
		{"unicast IPv6", "", "fd00:9::1", "fd00:9::2", "64"},
		{"multicast IPv6", "ff05::694", "fd00:9::1", "fd00:9::2", "64"},
		{"link-local IPv6", "ff02::694", "fe80::9:1", "fe80::9:2", "64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, b := newWireHost(t), newWireHost(t)
			cfg := hostConfig([]LinkConfig{{Name: "lan", Interface: "eth0", Multicast: tc.multicast}},
				[]LinkAddress{{"lan", tc.alice}}, []LinkAddress{{"lan", tc.bob}})
			up := func(h *wireHost, addr string) { // an IPv6 address goes with the interface's up
				nodad := ""
				if strings.Contains(addr, ":") {
					nodad = "nodad"
				}
				h.ip(fmt.Sprintf("link set eth0 up\naddr replace %s/%s dev eth0 %s", addr, tc.prefix, nodad))
			}
			heal := func(when string) {
				t.Helper()
				a.state("lan", linkUp, "")
				b.state("lan", linkUp, "")
				a.hears("bob", "lan")
				b.hears("alice", "lan")
				a.pass(b, "bob", when, 100)
				b.pass(a, "alice", when+", large", 50_000)
			}

			a.start("alice", cfg)
			b.start("bob", cfg)
			a.state("lan", linkMissing, "there is no interface eth0")
			a.wireTo(b, "eth0")
			a.state("lan", linkNoCarrier, "ip link set eth0 up")
			up(a, tc.alice)
			up(b, tc.bob)
			heal("the interface appeared")

			a.ip("link set eth0 down")
			b.silent("alice", "lan")
			a.state("lan", linkNoCarrier, "ip link set eth0 up")
			b.state("lan", linkNoCarrier, "look at its cable")
			up(a, tc.alice)
			heal("it was down")

			a.ip("addr flush dev eth0")
			if tc.multicast == "" || tc.prefix == "24" { // an IPv6 socket goes on sending from the address it had
				b.silent("alice", "lan")
			}
			a.state("lan", linkUp, "address "+tc.alice+" is not on eth0")
			up(a, tc.alice)
			heal("the address was away")

			a.ip("link delete eth0")
			a.state("lan", linkMissing, "there is no interface eth0")
			b.silent("alice", "lan")
			a.wireTo(b, "eth0")
			up(a, tc.alice)
			up(b, tc.bob)
			heal("another interface took its place")

			log := a.see().Log
			for _, event := range []string{eventLinkMissing, eventLinkNoCarrier, eventLinkNoAddress, eventLinkUp} {
				if n := strings.Count(log, "event="+event); n < 1 || n > 6 {
					t.Errorf("event %s is in the log %d times", event, n)
				}
			}
			if n := strings.Count(log, "level=WARN") + strings.Count(log, "level=ERROR"); n > 20 {
				t.Errorf("%d warnings for four faults:\n%s", n, log)
			}
		})
	}
}

// With one of two links cut, messages of every size go on over the other, and status names the link.
func TestOneOfTwoLinksIsEnough(t *testing.T) {
	t.Parallel()
	a, b := newWireHost(t), newWireHost(t)
	a.wireTo(b, "eth0")
	a.wireTo(b, "eth1")
	a.ip("addr add 10.9.0.1/24 dev eth0\naddr add 10.9.1.1/24 dev eth1\nlink set eth0 up\nlink set eth1 up")
	b.ip("addr add 10.9.0.2/24 dev eth0\naddr add 10.9.1.2/24 dev eth1\nlink set eth0 up\nlink set eth1 up")
	cfg := hostConfig([]LinkConfig{{Name: "lan", Interface: "eth0", Multicast: "239.192.6.94"}, {Name: "repl", Interface: "eth1"}},
		[]LinkAddress{{"lan", "10.9.0.1"}, {"repl", "10.9.1.1"}}, []LinkAddress{{"lan", "10.9.0.2"}, {"repl", "10.9.1.2"}})
	a.start("alice", cfg)
	b.start("bob", cfg)
	for _, link := range []string{"lan", "repl"} {
		a.hears("bob", link)
		b.hears("alice", link)
	}
	dev := map[string]string{"lan": "eth0", "repl": "eth1"}
	for round, cut := range []string{"lan", "repl", "lan"} {
		other := map[string]string{"lan": "repl", "repl": "lan"}[cut]
		a.pass(b, "bob", fmt.Sprintf("round %d, before", round), 2000)
		b.ip("link set " + dev[cut] + " down")
		a.silent("bob", cut)
		a.hears("bob", other)
		a.state(cut, linkNoCarrier, "no carrier")
		a.pass(b, "bob", fmt.Sprintf("round %d, small", round), 10)

		a.pass(b, "bob", fmt.Sprintf("round %d, large", round), 100_000)
		b.ip("link set " + dev[cut] + " up")
		a.hears("bob", cut)
		a.state(cut, linkUp, "")
	}
	if refused := a.see().Stats.Refused; slices.ContainsFunc(refused, func(r refusal) bool {
		return r.Reason != string(errReplayed) && r.Reason != string(errUnconfirmed)
	}) {
		t.Errorf("refused: %+v", refused)
	}
}

// What multicast is for, and what it must not do: reach the group on that interface only, and not come back.
func TestMulticastStaysOnItsLink(t *testing.T) {
	t.Parallel()
	a, b := newWireHost(t), newWireHost(t)
	a.wireTo(b, "eth0")
	a.wireTo(b, "eth1")
	for h, n := range map[*wireHost]int{a: 1, b: 2} {
		h.ip(fmt.Sprintf("addr add 10.9.0.%d/24 dev eth0\naddr add 10.9.1.%d/24 dev eth1\nlink set eth0 up\nlink set eth1 up", n, n))
	}
	// Both links use one group; only the interface tells them apart.
	cfg := hostConfig([]LinkConfig{{Name: "lan", Interface: "eth0", Multicast: "239.192.6.94"},
		{Name: "repl", Interface: "eth1", Multicast: "239.192.6.94"}},
		[]LinkAddress{{"lan", "10.9.0.1"}, {"repl", "10.9.1.1"}}, []LinkAddress{{"lan", "10.9.0.2"}, {"repl", "10.9.1.2"}})
	a.start("alice", cfg)
	b.start("bob", cfg)
	a.hears("bob", "lan")
	a.hears("bob", "repl")
	b.ip("link set eth1 down")
	a.silent("bob", "repl")
	a.hears("bob", "lan")
	if refused := a.see().Stats.Refused; slices.ContainsFunc(refused, func(r refusal) bool { return r.Reason == string(errLooped) }) {
		t.Errorf("own datagrams come back: %+v", refused)
	}
}
