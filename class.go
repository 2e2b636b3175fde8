// What must have ended before another node may take a group? Each resource has a class: what only its group's addresses
// lead to is gone when those are, what may write data is gone only when its host was reset. From the class and from what
// the owner's host has to end a lease follows how long a taker waits, or that no wait proves anything. Pure.

package main

import (
	"fmt"
	"strings"
	"time"
)

// class says what proves that a resource of a silent node does no harm any more.
type class string

const (
	classAddressed class = "addressed" // reachable only through the group's addresses: the end of the lease shuts them
	classStateful  class = "stateful"  // may change data while nobody can reach it: only a reset of its host ends it
)

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
	case r.Type == "filesystem" && onDRBD(r):
		below := class("")
		for i := range g.Resources {
			if d := &g.Resources[i]; d.Type == "drbd" && below != classStateful {
				below = g.classOf(d)
			}
		}
		if below != "" {
			return below
		}
	}
	return classStateful
}

// forcible: its type has a harder way to stop.
func (r *ResourceConfig) forcible() bool { return r.Type == "drbd" || r.Type == "exec" }

func onDRBD(r *ResourceConfig) bool { return strings.HasPrefix(r.Device, "/dev/drbd") }

// strictest is the resource that gives the group its class, the first one of several; nil: all are addressed.
func (g *GroupConfig) strictest() *ResourceConfig {
	for i := range g.Resources {
		if g.classOf(&g.Resources[i]) == classStateful {
			return &g.Resources[i]
		}
	}
	return nil
}

// class of a group is its strictest.
func (g *GroupConfig) class() class {
	if g.strictest() != nil {
		return classStateful
	}
	return classAddressed
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
}

// beyond is how much longer than its lease a group of that class may run on the node, by the node's own clocks; false: for
// ever. A watchdog is petted for a grant that holds, so at most a lease after that was asked for; a process that is
// stopped between this look and the petting has at most one timeout for it, and the reset comes one timeout later.
func (e *Enforcement) beyond(c class) (time.Duration, bool) {
	switch {
	case c == classAddressed:
		return e.Slack, true
	case e.Watchdog > 0:
		return max(2*e.Watchdog, e.Slack), true
	}
	return 0, false
}

// covers tells whether whoever counts with e waits long enough for a node that has is.
func (e *Enforcement) covers(is *Enforcement) bool {
	return e.Slack >= is.Slack && (e.Watchdog >= is.Watchdog || is.Watchdog == 0)
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
	return n.Enforce.beyond(g.class())
}

// class is the strictest that anything of the group may have had since it was placed.
func (g *GroupState) class() class {
	if g.Stateful {
		return classStateful
	}
	return classAddressed
}
