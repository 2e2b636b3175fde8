// What can happen to a cluster in a chaos run, and what an operator does about it? Hosts are switched off by faults and by
// the fence device, which run beside each other: each step here holds mu, looks first, and does nothing where it is too late.

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A fault happens to a host. What it has to choose it takes from its dice, so that a seed chooses all.
type fault struct {
	name  string
	alone bool // not beside others: two that lose their memory are too many
	begin func(x *mischief, h *clusterHost, dice *rand.Rand)
	end   func(x *mischief, h *clusterHost)
}

func chaosFaults(x *mischief) []fault {
	all := []fault{
		{"power off", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.powerOff(h) }, (*mischief).powerOn},
		{"power cycle", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.powerOff(h); x.powerOn(h) }, nil},
		{"all hosts' power off", true, func(x *mischief, _ *clusterHost, _ *rand.Rand) { x.each(x.powerOff) }, func(x *mischief, _ *clusterHost) { x.each(x.powerOn) }},
		{"state lost", true, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.powerOff(h); os.RemoveAll(h.path("state")) }, (*mischief).powerOn},
		{"daemon killed", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.end(h, syscall.SIGKILL) }, (*mischief).start},
		{"daemon killed and started", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.end(h, syscall.SIGKILL); x.start(h) }, nil},
		{"all daemons killed", false, func(x *mischief, _ *clusterHost, _ *rand.Rand) {
			x.each(func(h *clusterHost) { x.end(h, syscall.SIGKILL) })
			x.each(x.start)
		}, nil},
		{"daemon stopped", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.end(h, syscall.SIGTERM) }, (*mischief).start},
		{"daemon frozen", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.signal(h, syscall.SIGSTOP) }, func(x *mischief, h *clusterHost) { x.signal(h, syscall.SIGCONT) }},
		{"daemon frozen and apart", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.isolate(h); x.signal(h, syscall.SIGSTOP) },
			func(x *mischief, h *clusterHost) { x.signal(h, syscall.SIGCONT); x.c.together() }},
		{"partition", false, (*mischief).cut, func(x *mischief, _ *clusterHost) { x.c.together() }},
		{"all links cut", false, func(_ *mischief, h *clusterHost, _ *rand.Rand) { h.cut() }, func(_ *mischief, h *clusterHost) { h.heal() }},
		{"lan cut", false, func(_ *mischief, h *clusterHost, _ *rand.Rand) { h.cut(0) }, func(_ *mischief, h *clusterHost) { h.heal(0) }},
		{"lan cable out", false, func(_ *mischief, h *clusterHost, _ *rand.Rand) { h.cable(0, false) }, func(_ *mischief, h *clusterHost) { h.cable(0, true) }},
		{"both cables out", false, func(_ *mischief, h *clusterHost, _ *rand.Rand) { h.cable(0, false); h.cable(1, false) },
			func(_ *mischief, h *clusterHost) { h.cable(0, true); h.cable(1, true) }},
		{"loss", false, (*mischief).lose, func(_ *mischief, h *clusterHost) { h.nft("add table inet loss; delete table inet loss") }},
		{"move", false, func(x *mischief, h *clusterHost, dice *rand.Rand) {
			x.ask(x.other(h), "move", x.names()[dice.IntN(len(x.groups))], h.name, "--no-wait")
		}, nil},
		{"standby", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.ask(x.other(h), "standby", h.name, "--no-wait") },
			func(x *mischief, h *clusterHost) { x.ask(h, "online", h.name, "--no-wait") }},
		{"maintenance", false, func(x *mischief, h *clusterHost, _ *rand.Rand) { x.ask(h, "maintenance", "on") },
			func(x *mischief, h *clusterHost) { x.ask(h, "maintenance", "off") }},
		{"config edit", false, (*mischief).edit, nil},
		{"key roll", false, (*mischief).newKey, (*mischief).dropKey},
	}
	if x.power != nil {
		all = append(all,
			fault{"service killed", false, func(x *mischief, _ *clusterHost, _ *rand.Rand) { x.each((*clusterHost).killWriter) }, nil},
			fault{"fence device bad", false, func(x *mischief, _ *clusterHost, dice *rand.Rand) {
				x.power.how([]string{"lies", "hangs", "fails"}[dice.IntN(3)])
			}, func(x *mischief, _ *clusterHost) { x.power.how("works") }})
	}
	return all
}

func (x *mischief) isOff(h *clusterHost) bool {
	return x.off[h.name] || x.power != nil && x.power.isOff(h)
}

func (x *mischief) each(do func(*clusterHost)) {
	for _, h := range x.c.hosts {
		do(h)
	}
}

// other is a host that is not this one, the next in the file.
func (x *mischief) other(h *clusterHost) *clusterHost {
	return x.c.hosts[(slices.Index(x.c.hosts, h)+1)%len(x.c.hosts)]
}

func (x *mischief) powerOff(h *clusterHost) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.isOff(h) {
		return
	}
	h.powerOff()
	x.off[h.name] = true
	if x.power != nil {
		x.power.write("power."+h.name, "off", 0o644)
	}
}

func (x *mischief) powerOn(h *clusterHost) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.isOff(h) {
		return
	}
	os.Remove(h.path("etc/writer.pid"))
	delete(x.off, h.name)
	delete(x.told, h.name)
	if x.power != nil {
		x.power.write("power."+h.name, "on", 0o644)
	}
	h.powerOn()
}

// signal is for a daemon that may have ended.
func (x *mischief) signal(h *clusterHost, s syscall.Signal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.isOff(h) && h.runs() {
		_ = h.daemon.Process.Signal(s) // it may end just now
	}
}

// end makes a daemon end, now or in good order.
func (x *mischief) end(h *clusterHost, s syscall.Signal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.isOff(h) || !h.runs() {
		return
	}
	x.told[h.name] = true
	_ = h.daemon.Process.Signal(s) // it may end just now
	if s == syscall.SIGKILL {
		h.wait()
	}
}

// start lets a daemon run again, when the one that was told to end has done so.
func (x *mischief) start(h *clusterHost) {
	x.c.t.Helper()
	x.mu.Lock()
	told := x.told[h.name]
	x.mu.Unlock()
	if told {
		x.signal(h, syscall.SIGCONT)
		x.c.await("the daemon of "+h.name+" ends", func() bool {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.isOff(h) || !h.runs()
		})
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.isOff(h) || h.runs() {
		return
	}
	delete(x.told, h.name)
	h.start()
}

func (h *clusterHost) runs() bool {
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// statusSoon is the status of a daemon that may be frozen.
func (h *clusterHost) statusSoon() *Status {
	out, _, _ := h.hactlWithin(3*time.Second, "status", "--json")
	s := new(Status)
	if json.Unmarshal([]byte(out), s) != nil {
		return nil
	}
	return s
}

// ask is for a command that may be refused; what it was to bring about may be had later or not at all.
func (x *mischief) ask(h *clusterHost, args ...string) { h.hactlWithin(3*time.Second, args...) }

func (h *clusterHost) nft(rules string) {
	h.c.t.Helper()
	h.c.must("ip", "netns", "exec", h.c.ns(h.name), "nft", rules)
}

func (x *mischief) lose(h *clusterHost, dice *rand.Rand) {
	h.nft(fmt.Sprintf("add table inet loss; add chain inet loss in { type filter hook input priority 0; }; add rule inet loss in numgen random mod 100 < %d drop", 5+dice.IntN(60)))
}

// cut is any shape of partition, with the hosts in any part.
func (x *mischief) cut(_ *clusterHost, dice *rand.Rand) {
	p, hosts := x.parts[dice.IntN(len(x.parts))], cast{}
	for i, n := range dice.Perm(len(x.c.hosts)) {
		hosts[[]string{"owner", "other", "witness"}[i]] = x.c.hosts[n]
	}
	x.c.apart(hosts, p.cuts)
}

// isolate keeps a host from its peers and not from the clients: nobody hears that it still answers, but those whom it harms.
func (x *mischief) isolate(h *clusterHost) {
	hosts, cuts := cast{}, []deaf{}
	for _, o := range x.c.hosts {
		hosts[o.name] = o
		for link := range 2 {
			if o != h {
				cuts = append(cuts, deaf{h.name, o.name, link}, deaf{o.name, h.name, link})
			}
		}
	}
	x.c.apart(hosts, cuts)
}

var deadtimeLine = regexp.MustCompile(`deadtime = "[^"]*"`)

// edit changes the file of one host: the timing of all, in the middle of whatever is going on.
func (x *mischief) edit(h *clusterHost, dice *rand.Rand) {
	to := []string{"800ms", "1s", "1.5s"}[dice.IntN(3)]
	h.replace("ha.toml", deadtimeLine.ReplaceAllString(h.file("ha.toml"), fmt.Sprintf("deadtime = %q", to)), 0o644)
}

// newKey adds a key on one host and copies the file to the others; dropKey takes the old one out of all.
func (x *mischief) newKey(h *clusterHost, _ *rand.Rand) {
	x.ask(h, "keygen", "--add", h.path("etc/ha.key"))
	for _, o := range x.c.hosts {
		if o != h {
			x.c.copyKey(h, o)
		}
	}
}

func (x *mischief) dropKey(*clusterHost) {
	for _, h := range x.c.hosts {
		x.ask(h, "keygen", "--drop", h.path("etc/ha.key"))
	}
}

// killWriter ends the service behind the daemon's back.
func (h *clusterHost) killWriter() {
	pid, err := strconv.Atoi(strings.TrimSpace(h.file("etc/writer.pid")))
	if err != nil {
		return
	}
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(b), writerCommand) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may end just now
	}
}

// mend undoes whatever is left of any fault, and answers what status asks an operator to do.
func (x *mischief) mend() {
	for _, h := range x.c.hosts {
		x.signal(h, syscall.SIGCONT)
		x.powerOn(h)
		x.start(h)
	}
	for _, h := range x.c.hosts {
		s := h.statusSoon()
		if s == nil {
			continue
		}
		if s.testProblem("config-stale") != nil || s.testProblem("config-bad") != nil {
			if o := x.other(h); o.statusSoon() != nil {
				h.replace("ha.toml", o.file("ha.toml"), 0o644)
			}
		}
		if !s.Quorum {
			continue
		}
		if s.Maintenance != nil {
			x.ask(h, "maintenance", "off")
		}
		for _, n := range s.Nodes {
			if n.State == "standby" {
				x.ask(h, "online", n.Name, "--no-wait")
			}
		}
		for _, g := range s.Groups {
			if g.Pin != nil {
				x.ask(h, "unmove", g.Name, "--no-wait")
			}
		}
		for _, p := range s.Problems {
			if p.ID == "resource-failed" || p.ID == "group-blocked" {
				for _, g := range x.names() {
					x.ask(h, "cleanup", g)
				}
				break
			}
		}
	}
}
