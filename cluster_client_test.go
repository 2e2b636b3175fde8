// What does somebody outside see? A client that asks for a page at a steady pace and knows how long nobody answered, and
// a guard that looks into every host for the one thing that must never be: an address in two places.

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// probeCommand is the name under which the test program is a client; see TestMain.
const probeCommand = "cluster-client"

const (
	probeEvery   = 5 * time.Millisecond
	probeTimeout = 50 * probeEvery
)

// probed is the end of one question. Times are Unix nanoseconds.
type probed struct {
	Start, End int64
	Who        string // what was answered
	Err        string `json:",omitempty"`
}

// probeMain asks until its input is closed. Questions overlap: a slow one delays no other.
func probeMain() {
	url := os.Args[1]
	every, err := time.ParseDuration(os.Args[2])
	if err != nil {
		panic(err)
	}
	timeout := every * (probeTimeout / probeEvery)
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	// One connection for each question: a kept one would hide that a new host is silent.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tick := time.NewTicker(every)
	for {
		go func() {
			p := probed{Start: time.Now().UnixNano()}
			var err error
			if p.Who, err = askPage(client, url, timeout); err != nil {
				p.Err = err.Error()
			}
			p.End = time.Now().UnixNano()
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(p) // the test is gone: so are we in a moment
		}()
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// askPage gets a page, or with tcp: only a connection.
func askPage(client *http.Client, url string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if to, ok := strings.CutPrefix(url, "tcp:"); ok {
		// Nobody listens: that the host itself says so is the answer.
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
		if errors.Is(err, unix.ECONNREFUSED) {
			return "refused", nil
		}
		if err == nil {
			c.Close()
		}
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return strings.TrimSpace(string(b)), err
}

// prober is a running client.
type prober struct {
	c    *cluster
	mu   sync.Mutex
	seen []probed
}

// probe starts a client and waits for its first answer.
func (c *cluster) probe(url string) *prober {
	c.t.Helper()
	return c.probeFrom(url, "ip", "netns", "exec", c.ns("client"))
}

// probeFrom starts the client by the command that enters its network.
func (c *cluster) probeFrom(url string, enter ...string) *prober {
	c.t.Helper()
	p := &prober{c: c}
	// The program that is executed keeps the first argument that it was given: the name by which TestMain knows it.
	cmd := exec.Command(enter[0], append(enter[1:], probeCommand, url, cmp.Or(c.pace, probeEvery).String())...)
	c.listen(cmd, func(line []byte) {
		var x probed
		if json.Unmarshal(line, &x) == nil {
			p.mu.Lock()
			p.seen = append(p.seen, x)
			p.mu.Unlock()
		}
	})
	p.answers()
	return p
}

// listen runs a client until the test ends, which the end of its input tells it, and takes each line that it says.
func (c *cluster) listen(cmd *exec.Cmd, each func(line []byte)) {
	c.t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			each(lines.Bytes())
		}
	}()
	c.t.Cleanup(func() {
		in.Close()
		<-done
		_ = cmd.Wait() // it has said all that it had to say
	})
}

// answers waits until a question that is asked from now on is answered, and returns by whom.
func (p *prober) answers() string {
	p.c.t.Helper()
	return p.answered("somebody", func(string) bool { return true })
}

func (p *prober) answered(by string, is func(string) bool) string {
	p.c.t.Helper()
	since, who := time.Now().UnixNano(), ""
	p.c.await("the client is answered by "+by, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := slices.IndexFunc(p.seen, func(x probed) bool { return x.Start >= since && x.Err == "" && is(x.Who) })
		if i >= 0 {
			who = p.seen[i].Who
		}
		return i >= 0
	})
	return who
}

func (p *prober) answeredBy(name string) {
	p.c.t.Helper()
	p.answered(name, func(who string) bool { return who == name })
}

// outage is the longest time without an answer between a moment and now, and what the first failure in it was.
func (p *prober) outage(since time.Time) (longest time.Duration, why string) {
	p.c.t.Helper()
	p.answers()
	// Those asked before now that are still in the air are waited for.
	now := time.Now()
	p.c.await("all questions are answered or given up", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.seen[len(p.seen)-1].Start > now.Add(probeTimeout).UnixNano()
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	var last, from, to int64
	for _, x := range p.seen {
		if x.Err != "" {
			continue
		}
		if last != 0 && x.End > since.UnixNano() && last < now.UnixNano() && time.Duration(x.End-last) > longest {
			longest, from, to = time.Duration(x.End-last), last, x.End
		}
		last = max(last, x.End)
	}
	for _, x := range p.seen {
		if x.Err != "" && x.Start < to && x.End > from {
			return longest, x.Err
		}
	}
	return longest, "" // a stall: every question was answered
}

// failures are the questions since a moment that nobody answered.
func (p *prober) failures(since time.Time) (n int, first string) {
	p.c.t.Helper()
	p.outage(since)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.seen {
		if x.Start >= since.UnixNano() && x.Err != "" {
			if n++; n == 1 {
				first = x.Err
			}
		}
	}
	return n, first
}

// stall is how long these machines may stand still by themselves: what is silent for less is no outage of the cluster's.
const stall = 500 * time.Millisecond

// noOutage fails the test if the service was silent since then. A question that is lost alone may be the machine's doing.
func (p *prober) noOutage(what string, since time.Time) {
	p.c.t.Helper()
	longest, _ := p.outage(since)
	if n, first := p.failures(since); n > 0 && longest > stall {
		p.c.t.Errorf("%s: %d questions were not answered (longest silence %s): %s", what, n, longest.Round(time.Millisecond), first)
	}
}

// addressGuard samples the addresses of all hosts.
type addressGuard struct {
	t     *testing.T
	mu    sync.Mutex
	hosts []guardedHost

	allowed string // why two places are no fault now
	wrong   []string
	stop    chan struct{}
	done    chan struct{}
}

type guardedHost struct {
	host *clusterHost
	nl   *netlink.Handle
}

const guardEvery = 4 * time.Millisecond

func newAddressGuard(c *cluster) *addressGuard {
	g := &addressGuard{t: c.t, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(g.done)
		tick := time.NewTicker(guardEvery)
		defer tick.Stop()
		for {
			select {
			case <-g.stop:
				return
			case <-tick.C:
				g.look()
			}
		}
	}()
	return g
}

func (g *addressGuard) watch(h *clusterHost) {
	g.t.Helper()
	nl := h.netlink()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hosts = append(g.hosts, guardedHost{h, nl})
}

// netlink opens a handle in the host's namespace.
func (h *clusterHost) netlink() *netlink.Handle {
	h.c.t.Helper()
	ns, err := netns.GetFromName(h.c.ns(h.name))
	if err != nil {
		h.c.t.Fatal(err)
	}
	defer ns.Close()
	nl, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		h.c.t.Fatal(err)
	}
	return nl
}

// forget is for a host whose plug is pulled: what its memory held is gone. It is watched again from its next boot on.
func (g *addressGuard) forget(h *clusterHost) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hosts = slices.DeleteFunc(g.hosts, func(x guardedHost) bool {
		if x.host == h {
			x.nl.Close()
		}
		return x.host == h
	})
}

// allow says why an address may be in two places from now on; "" forbids it again.
func (g *addressGuard) allow(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allowed = why
}

// look takes one sample. A host that had an address before and after another was seen with it had it at that time too:
// so an address that has just moved is no fault.
func (g *addressGuard) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var before [][]netip.Addr
	for _, h := range g.hosts {
		before = append(before, h.floating())
	}
	for i, h := range g.hosts {
		for j := i + 1; j < len(g.hosts); j++ {
			for _, a := range before[i] {
				if slices.Contains(before[j], a) && slices.Contains(h.floating(), a) && g.allowed == "" && len(g.wrong) < 20 {
					g.wrong = append(g.wrong, fmt.Sprintf("%s: %s is on %s and on %s", time.Now().Format("15:04:05.000"), a, h.host.name, g.hosts[j].host.name))
				}
			}
		}
	}
}

// floating are the addresses of a host that are not its own and that its kernel answers for: not those behind a gate
// that is shut.
func (h guardedHost) floating() []netip.Addr {
	shut := map[netip.Addr]bool{}
	for _, a := range h.addresses() {
		shut[a.ip] = !h.opens(a.link, a.ip)
	}
	var out []netip.Addr
	for _, a := range h.addresses() { // a gate goes after its address: one that was not there proves nothing until now
		if !shut[a.ip] {
			out = append(out, a.ip)
		}
	}
	return out
}

type linkAddress struct {
	link int
	ip   netip.Addr
}

func (h guardedHost) addresses() (out []linkAddress) {
	list, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil // asked again in a moment
	}
	for _, x := range list {
		a, ok := netip.AddrFromSlice(x.IP)
		if a = a.Unmap(); ok && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !h.host.c.isNodeAddress(a) {
			out = append(out, linkAddress{x.LinkIndex, a})
		}
	}
	return out
}

// opens tells whether the kernel lets an address's packets through now.
func (h guardedHost) opens(index int, a netip.Addr) bool {
	x, err := readGate(h.nl, &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil || x.programs[0] == 0 || x.programs[1] == 0 {
		return true
	}
	m, err := deadlinesOf(x.programs[0])
	if err != nil {
		return true // it is being taken away
	}
	defer m.Close()
	var until uint64
	return m.Lookup(gateKey(a), &until) != nil || instant(until) > boottime()
}

// isNodeAddress tells whether an address is one that a host has whatever runs there.
func (c *cluster) isNodeAddress(a netip.Addr) bool {
	for _, h := range c.hosts {
		for link := range 2 {
			for _, own := range []string{fmt.Sprintf("10.77.%d.%d", link, h.number), fmt.Sprintf("fd77:%d::%d", link, h.number)} {
				if netip.MustParseAddr(own) == a {
					return true
				}
			}
		}
	}
	return false
}

func (g *addressGuard) end() {
	close(g.stop)
	<-g.done
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.wrong {
		g.t.Errorf("an address in two places: %s", w)
	}
	for _, h := range g.hosts {
		h.nl.Close()
	}
	g.hosts = nil
}

// stop ends the asking for a step of a test, and returns the longest silence since the probe began and who answered last.
func (p *prober) stop() (longest time.Duration, last string) {
	p.c.t.Helper()
	longest, _ = p.outage(time.Time{})
	p.mu.Lock()
	defer p.mu.Unlock()
	var at int64
	for _, x := range p.seen {
		if x.Err == "" && x.End > at {
			at, last = x.End, x.Who
		}
	}
	return longest, last
}
