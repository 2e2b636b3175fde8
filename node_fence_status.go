// What is there to show about fencing? Who is cut off, by whom and why, what failed, and which devices would fail.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// enforcer says what ends a lease here when the daemon cannot, and what is missing.
func (n *node) enforcer(g gateReport) string {
	text, rest, gate := "the daemon itself", "", "gate"
	switch g.Kind {
	case gateBPF:
		text, rest, gate = "the kernel's gate for addresses", "the daemon for all else", ""
	case gateLifetime:
		text, rest = fmt.Sprintf("the lifetime of addresses, up to %s late", g.Slack), "the daemon for all else"
		gate = fmt.Sprintf("gate (%s)", g.Reason)
	}
	dog := "watchdog"
	switch e := n.enforcement(); {
	case e.Fault != "":
		dog = fmt.Sprintf("watchdog (%s)", e.Fault)
	case e.Watchdog > 0:
		rest, dog = fmt.Sprintf("the watchdog %s of %s for data", e.Device, e.Watchdog), ""
	case e.Device != "":
		rest, dog = fmt.Sprintf("the watchdog %s (at rest on this node) for data", e.Device), ""
	}
	parts := []string{text}
	if rest != "" {
		parts = append(parts, rest)
	}
	fence := "fence"
	if fenced := n.config.fenced(); len(fenced) > 0 {
		parts, fence = append(parts, "fencing of "+wordList(fenced, "and")), ""
	}
	text = parts[0]
	for i, part := range parts[1:] {
		if i == len(parts)-2 {
			part = "and " + part
		}
		text += ", " + part
	}
	lacks := slices.DeleteFunc([]string{gate, dog, fence}, func(s string) bool { return s == "" })
	if len(lacks) == 0 {
		return text
	}
	return text + ": no " + wordList(lacks, "or")
}

func (n *node) problemFences(now instant, s *Status) {
	clock := n.clusterClock(now)
	for i := range n.state.Fences {
		f := &n.state.Fences[i]
		p := Problem{ID: eventFenceAsked, Severity: "warning", Since: (clock - f.Since).Seconds(), Why: f.Why}
		switch f.Phase {
		case fenceAsked:
			p.What = fmt.Sprintf("%s is being fenced by %s", f.Node, f.Helper)
			if r := n.fenceRun(f.Node); r != nil && r.doing(n.config) != "" {
				p.What += " (" + r.doing(n.config) + ")"
			}
		case fenceFailed:
			p.ID, p.Severity = eventFenceFailed, "error"
			p.What = fmt.Sprintf("%s could not be fenced by %s: %s", f.Node, f.Helper, f.Reason)
			p.Next, p.Command = "it is tried again; if you switch it off yourself, say so", "hactl confirm-dead "+f.Node
		case fenceConfirmed:
			if n.unmet() == f.Node {
				continue // that was before this node's boot
			}
			p.ID, p.Since, p.Why = eventFenced, (clock - f.Clock).Seconds(), ""
			p.What, p.Next = fmt.Sprintf("%s is off, fenced by %s", f.Node, f.Helper), "switch it on when its fault is mended; it then joins by itself"
		}
		s.Problems = append(s.Problems, p)
	}
	n.problemFenceAlone(now, s)
	n.problemDevices(clock, s)
}

// problemFenceAlone is what one of two does that has nobody to record it with.
func (n *node) problemFenceAlone(now instant, s *Status) {
	other := n.otherNode()
	r := n.fenceRun(other)
	switch {
	case !n.mayForceOver(other):
	case r != nil && r.id == 0 && !r.done:
		s.Problems = append(s.Problems, Problem{ID: eventFenceAsked, Severity: "warning", What: fmt.Sprintf("this node is fencing %s (%s)", other, r.doing(n.config)), Why: r.why})
	case n.fence.reason != "":
		s.Problems = append(s.Problems, Problem{ID: eventFenceFailed, Severity: "error", What: fmt.Sprintf("%s could not be fenced: %s", other, n.fence.reason),
			Next:    fmt.Sprintf("next try in %s; if you switch it off yourself, say so", max(0, n.fence.again.sub(now)).Round(time.Second)),
			Command: "hactl confirm-dead " + other})
	}
}

// problemDevices tells of devices that would fail when they are needed: what all have told, and what this node knows and
// cannot tell.
func (n *node) problemDevices(clock time.Duration, s *Status) {
	faults := slices.DeleteFunc(slices.Clone(n.state.Devices), func(d DeviceFault) bool { return d.Node == n.name })
	for _, h := range n.fence.health {
		if h.known && h.err != "" {
			faults = append(faults, DeviceFault{Device: h.device, Node: n.name, Reason: h.err, Clock: n.deviceSince(h.device, clock)})
		}
	}
	for _, d := range faults {
		whom := "the nodes it is for"
		if f := n.config.fence(d.Device); f != nil {
			whom = strings.Join(f.targets(), ", ")
		}
		s.Problems = append(s.Problems, Problem{ID: eventDeviceFailed, Severity: "warning", Since: (clock - d.Clock).Seconds(),
			What: fmt.Sprintf("fence device %s does not answer %s: %s", d.Device, d.Node, d.Reason),
			Next: fmt.Sprintf("until it does, %s cannot fence %s with it", d.Node, whom), Command: "hactl fence test (on " + d.Node + ")"})
	}
}

func (n *node) deviceSince(device string, clock time.Duration) time.Duration {
	for _, d := range n.state.Devices {
		if d.Device == device && d.Node == n.name {
			return d.Clock
		}
	}
	return clock
}

// fenceWait is what a group waits for on the one of two nodes that is left, under two_node = "fence".
func (n *node) fenceWait(now instant, owner string) string {
	text := fmt.Sprintf("%s owns it and is silent; two_node = \"fence\": this node takes over when %s is fenced", owner, owner)
	r := n.fenceRun(owner)
	switch {
	case r != nil && r.probe, !n.opt.Joined:
		return text + "; it has not been joined since its boot, so it only asks whether " + owner + " is off already"
	case r != nil && !r.done:
		return text + "; " + r.doing(n.config)
	case n.fence.reason != "":
		return text + ", which failed: " + n.fence.reason
	}
	return text
}
