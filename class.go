// What must have ended before another node may take a group? Each resource has a class: what only its group's addresses
// lead to is gone when those are, what may write data is gone only when its host was reset. From the class and from what
// the owner's host has to end a lease follows how long a taker waits, or that no wait proves anything. Pure.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// class says what proves that a resource of a silent node does no harm any more.
type class string

const (
	classAddressed class = "addressed" // reachable only through the group's addresses: the end of the lease shuts them
	classGuarded   class = "guarded"   // on DRBD, which freezes it there before the other copy is written; as stateful where it does not
	classStateful  class = "stateful"  // may change data while nobody can reach it: only a reset of its host ends it
)

// writes: it may change data while nobody can reach it, unless something keeps it from that.
func (c class) writes() bool { return c != classAddressed }

// What [watchdog] device may be beside a path.
const (
	watchdogNone   = "none"
	watchdogReboot = "reboot" // no device; a failed stop of what is stateful reboots the host
)

// watched: a device resets the host when its daemon cannot.
func (w *WatchdogConfig) watched() bool { return strings.HasPrefix(w.Device, "/") }

// resets: a failed stop of what is stateful may reset the host.
func (w *WatchdogConfig) resets() bool { return w.watched() || w.Device == watchdogReboot }

// classOf is the class of a resource of this group: as configured, or as its type has it. What is mounted on a DRBD device
// of the group is as safe as that.
func (g *GroupConfig) classOf(r *ResourceConfig) class {
	switch {
	case r.State != "":
		return class(r.State)
	case r.Type == "vip" || r.Type == "httpd" || r.Type == "systemd":
		return classAddressed
	case r.Type == "drbd":
		return classGuarded
	case r.Type == "filesystem" && onDRBD(r):
		below := class("")
		for i := range g.Resources {
			if d := &g.Resources[i]; d.Type == "drbd" && mayBeOf(r.Device, d.Resource) {
				below = stricter(below, g.classOf(d))
			}
		}
		if below != "" {
			return below
		}
	}
	return classStateful
}

func stricter(a, b class) class {
	order := []class{"", classAddressed, classGuarded, classStateful}
	if slices.Index(order, a) < slices.Index(order, b) {
		return b
	}
	return a
}

// forcible: its type has a harder way to stop.
func (r *ResourceConfig) forcible() bool { return r.Type == "drbd" || r.Type == "exec" }

func onDRBD(r *ResourceConfig) bool { return strings.HasPrefix(r.Device, "/dev/drbd") }

// mayBeOf: a device of DRBD is that resource's, as far as its path tells. A number tells nothing.
func mayBeOf(device, resource string) bool {
	path, named := strings.CutPrefix(device, "/dev/drbd/by-res/")
	name, _, _ := strings.Cut(path, "/")
	return !named || name == resource
}

// strictest is the resource that gives the group its class, the first one of several; nil: all are addressed.
func (g *GroupConfig) strictest() *ResourceConfig {
	c := g.class()
	for i := range g.Resources {
		if r := &g.Resources[i]; c.writes() && g.classOf(r) == c {
			return r
		}
	}
	return nil
}

// class of a group is its strictest.
func (g *GroupConfig) class() class {
	c := classAddressed
	for i := range g.Resources {
		c = stricter(c, g.classOf(&g.Resources[i]))
	}
	return c
}

// guards are the DRBD resources whose guard is all that keeps a guarded group from harm; nil for other classes.
func (g *GroupConfig) guards() []string {
	if g.class() != classGuarded {
		return nil
	}
	var out []string
	for i := range g.Resources {
		if r := &g.Resources[i]; r.Type == "drbd" && g.classOf(r) == classGuarded {
			out = append(out, r.Resource)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// What enforces the end of a lease of addresses on a host.
const (
	gateBPF      = "bpf"       // the kernel looks at each packet
	gateLifetime = "valid_lft" // the kernel takes the address away, in whole seconds
	gateNone     = "none"      // nobody but the daemon
)

// Enforcement is what ends a lease on a node whose daemon does not, as the node says itself.
type Enforcement struct {
	Gate     string        `json:"gate,omitempty"`     // gate*; "": not known
	Slack    time.Duration `json:"slack,omitempty"`    // how long after the end of a lease the gate may still be open
	Watchdog time.Duration `json:"watchdog,omitempty"` // its timeout while it runs; 0: it does not
	Device   string        `json:"device,omitempty"`   // what the watchdog calls itself; "": none is configured, or it cannot be used
	Soft     bool          `json:"soft,omitempty"`     // it is a timer of the kernel that it watches
	Fault    string        `json:"fault,omitempty"`    // why the configured one cannot be used
	Guarded  []string      `json:"guarded,omitempty"`  // what is Primary there, of DRBD, and freezes when it loses its peer; sorted
}

func (e *Enforcement) equal(o *Enforcement) bool {
	return e.Watchdog == o.Watchdog && slices.Equal(e.Guarded, o.Guarded) && e.equalBut(o)
}

// equalBut: they differ at most in what comes and goes with what the node runs.
func (e *Enforcement) equalBut(o *Enforcement) bool {
	return e.Gate == o.Gate && e.Slack == o.Slack && e.Device == o.Device && e.Soft == o.Soft && e.Fault == o.Fault
}

// beyond is how much longer than its lease a group of that class may run on the node, by the node's own clocks; false: for
// ever. A watchdog is petted for a grant that holds, so at most a lease after that was asked for; a process that is
// stopped between this look and the petting has at most one timeout for it, and the reset comes one timeout later.
func (e *Enforcement) beyond(c class) (time.Duration, bool) {
	switch {
	case c != classStateful:
		return e.Slack, true
	case e.Watchdog > 0:
		return max(2*e.Watchdog, e.Slack), true
	}
	return 0, false
}

// covers tells whether whoever counts with e waits long enough for a node that has is.
func (e *Enforcement) covers(is *Enforcement) bool {
	return e.Slack >= is.Slack && (e.Watchdog >= is.Watchdog || is.Watchdog == 0) && e.guardedAmong(is.Guarded)
}

// guardedAmong: each guard that is claimed is there.
func (e *Enforcement) guardedAmong(there []string) bool {
	return !slices.ContainsFunc(e.Guarded, func(r string) bool { return !slices.Contains(there, r) })
}

// String is for people.
func (e Enforcement) String() string {
	text := "the daemon itself"
	switch e.Gate {
	case gateBPF:
		text = "the kernel's gate"
	case gateLifetime:
		text = "the lifetime of the address"
	}
	switch {
	case e.Fault != "":
		return text + ", no watchdog: " + e.Fault
	case e.Device == "":
		return text
	case e.Watchdog == 0:
		return fmt.Sprintf("%s, watchdog %s (at rest)", text, e.Device)
	}
	return fmt.Sprintf("%s, watchdog %s of %s", text, e.Device, e.Watchdog)
}

// beyond is how long after the end of its lease a group may still run on its owner; false: no wait proves that it does
// not.
func (s *State) beyond(g *GroupState) (time.Duration, bool) {
	n := s.node(g.Owner)
	if n == nil {
		return 0, false
	}
	return n.Enforce.beyond(s.class(g))
}

// class is the strictest that anything of the group may have had since it was placed. It is guarded as long as its owner says
// so of each DRBD resource, and no fence device is there for that node: DRBD promotes nothing as long as a node without a daemon
// holds on to it, and nobody would cut that off when it owns nothing any more.
func (s *State) class(g *GroupState) class {
	n := s.node(g.Owner)
	switch {
	case !g.Stateful:
		return classAddressed
	case n != nil && len(g.Guards) > 0 && len(s.Config.Effective.fencesOf(g.Owner)) == 0 && (&Enforcement{Guarded: g.Guards}).guardedAmong(n.Enforce.Guarded):
		return classGuarded
	}
	return classStateful
}

// hold notes of what class a group is by a config, from now on; or, while it also may have what it was, the stricter.
func (g *GroupState) hold(c *GroupConfig, also bool) {
	class, guards := classStateful, []string(nil)
	if c != nil {
		class, guards = c.class(), c.guards()
	}
	if also && g.Stateful {
		if len(g.Guards) == 0 || class == classStateful {
			class, guards = classStateful, nil
		} else {
			class, guards = classGuarded, slices.Compact(slices.Sorted(slices.Values(append(guards, g.Guards...))))
		}
	}
	g.Stateful, g.Guards = class.writes(), guards
}

// relaxedBy: by that config it is less strict, once nothing of what was before is left.
func (g *GroupState) relaxedBy(c *GroupConfig) bool {
	if !g.Stateful || c == nil {
		return false
	}
	return !c.class().writes() || c.class() == classGuarded && !slices.Equal(g.Guards, c.guards())
}
