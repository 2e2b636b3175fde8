// Can a group of each class be taken over, and does its stop have the time that it needs? The part of config_check.go that
// knows of classes and of the watchdog.

package main

import (
	"fmt"
	"time"
)

// watchdog wants a timeout that the device can be set to and that a lease fits into.
func (c *checker) watchdog() {
	const at = "watchdog.timeout"
	w, l := c.cfg.Watchdog, c.cfg.lease()
	if c.faulty[at] || c.faulty["watchdog.device"] {
		return
	}
	t := w.Timeout.D()
	switch {
	case !w.watched() && c.src.has(at):
		c.warn(at, fmt.Sprintf("[watchdog] timeout has no effect with device %q", w.Device), "the path of a device, or no timeout", "")
	case t%time.Second != 0:
		c.onValue(at, fmt.Sprintf("[watchdog] timeout %q is no whole number of seconds", shortDuration(t)), "such as \"10s\"", "that is how watchdogs count")
	case w.watched() && l > 0 && t < 2*l:
		path := at
		if !c.src.has(at) {
			path = "watchdog.device"
		}
		c.onValue(path, fmt.Sprintf("[watchdog] timeout %q is shorter than two deadtimes of %q", shortDuration(t), shortDuration(l)),
			fmt.Sprintf("at least %q", shortDuration((2*l+time.Second-1).Truncate(time.Second))), "a node that loses its lease must have time to stop before it is reset")
	}
}

// classes warns of groups that need a person after a node's death, and of stops that are cut short. It is silent while the
// file has errors, since these are no mistakes.
func (c *checker) classes() {
	if errors, _ := countProblems(c.problems); errors > 0 {
		return
	}
	c.unproven()
	for i := range c.cfg.Groups {
		g, at, w := &c.cfg.Groups[i], groupPath(i), &c.cfg.Watchdog
		if share := c.cfg.resetAfter() / time.Duration(len(g.Resources)); g.class().writes() && w.watched() && share < shareMin {
			c.warn(at, fmt.Sprintf("%s has %s for each of its resources to stop between the end of its lease and the reset by the watchdog", c.groupLabel(i), roundDuration(share)),
				"a longer [watchdog] timeout", "")
		}
	}
}

// unproven warns once of all groups that no wait proves anything about.
func (c *checker) unproven() {
	if len(c.cfg.Nodes) < 3 || len(c.cfg.fullNodes()) < 2 || c.cfg.Watchdog.watched() || len(c.cfg.unfenced()) == 0 {
		return // it is not by waiting that a group is taken over, or there is what ends it
	}
	const few = 3
	var names []string
	first := -1
	for i := range c.cfg.Groups {
		r := c.cfg.Groups[i].strictest()
		if r == nil || c.cfg.Groups[i].class() != classStateful {
			continue // DRBD may guard it: the file does not tell
		}
		if first < 0 {
			first = i
		}
		if len(names) < few {
			names = append(names, fmt.Sprintf("%s (%s)", c.cfg.Groups[i].Name, r.Name))
		} else if names[few-1] != "others" {
			names = append(names[:few-1], "others")
		}
	}
	if first >= 0 {
		c.warn(groupPath(first), "stateful, and nothing resets a node that is silent: "+wordList(names, "and")+": when its node dies such a group waits for `hactl confirm-dead NODE`",
			"[watchdog] device = \"/dev/watchdog\", or a [[fence]] for each node", "or state = \"addressed\" on each resource that two nodes may run at once without harm")
	}
}
