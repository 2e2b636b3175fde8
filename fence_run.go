// How does a helper cut off a node? Level by level, device by device: off, and then status until it says off. Only both
// together count: a device that fails, hangs or says one thing and does another is tried again, and then the next level.
// It holds one request and one call at a time, knows the time only as a value, and calls nothing itself. Pure.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a device is asked.
const (
	fenceOff     = "off"
	fenceStatus  = "status"
	fenceMonitor = "monitor"
)

const (
	fenceRetryPause = time.Second            // between two tries of one device
	fencePollPause  = 200 * time.Millisecond // between two looks at a device that says on after off
	fenceSlack      = 2 * time.Second        // a call ends within its timeout and this, or counts as hung
)

// fenceRun is one request on its way. Its id is the state's, or 0 when this node sees to it alone.
type fenceRun struct {
	id    uint64
	node  string // who is to be fenced
	boot  string // in which kernel boot of it
	asker string
	why   string
	probe bool // only ask whether it is off already

	step     int // index into the devices of the node
	try      int
	looking  bool    // off was said and believed: now its status
	lookTill instant // until when a status of on may still become off
	call     uint64  // id of the call under way; 0: none
	due      instant // when the call must have ended
	pause    instant // nothing is called before

	off    []string // devices of this level that have confirmed
	failed []string // why the levels before and this one failed
	done   bool
	ok     bool
	at     instant // when it was confirmed
}

// fenceLimit is how long a helper may take for all levels before another is asked: longer than it can.
func fenceLimit(c *Config, node string) time.Duration {
	limit := 10 * time.Second
	for _, f := range c.fencesOf(node) {
		// off, and status until its own time is over, of which the last may begin at the end
		limit += time.Duration(f.Retries+1) * (3*(f.Timeout.D()+fenceSlack) + fenceRetryPause)
	}
	return limit
}

// next is the call that is due, or when to look again.
func (r *fenceRun) next(now instant, c *Config) (s *fenceStep, wake instant) {
	devices := c.fencesOf(r.node)
	if r.done {
		return nil, 0
	}
	if r.call != 0 && now >= r.due {
		r.call = 0
		r.failure(now, devices, "it does not come back")
	}
	switch {
	case r.call != 0:
		return nil, r.due
	case r.step >= len(devices):
		r.done = true
		if len(devices) == 0 {
			r.failed = append(r.failed, "it has no fence device any more")
		}
		return nil, 0
	case now < r.pause:
		return nil, r.pause
	}
	d := devices[r.step]
	s = &fenceStep{Device: *d, Node: r.node, Action: fenceOff, Timeout: d.Timeout.D()}
	if r.looking || r.probe {
		s.Action = fenceStatus
	}
	r.due = now.add(s.Timeout + fenceSlack)
	return s, r.due
}

// answer takes the end of a call. One that was given up is not listened to any more.
func (r *fenceRun) answer(now instant, c *Config, d fenceDone) {
	if r.done || r.call == 0 || d.ID != r.call {
		return
	}
	r.call = 0
	devices := c.fencesOf(r.node)
	if r.step >= len(devices) || devices[r.step].Name != d.Device.Name {
		r.step, r.try, r.looking, r.off, r.failed = 0, 0, false, nil, nil // another config came into force: from the beginning
		return
	}
	switch {
	case d.Err != "":
		r.failure(now, devices, d.Err)
	case d.Action == fenceOff:
		r.looking, r.lookTill = true, now.add(d.Device.Timeout.D())
	case d.Power == "off":
		r.success(now, devices)
	case r.probe:
		r.failure(now, devices, "it is on")
	case now < r.lookTill:
		r.pause = now.add(fencePollPause)
	default:
		r.failure(now, devices, "off went well, and yet its status is on")
	}
}

// success goes on to the next device of the level; after the last the node is off.
func (r *fenceRun) success(now instant, devices []*FenceConfig) {
	level := devices[r.step].Level
	r.off = append(r.off, devices[r.step].Name)
	r.step, r.try, r.looking = r.step+1, 0, false
	if r.step == len(devices) || devices[r.step].Level != level {
		r.done, r.ok, r.at = true, true, now
	}
}

// failure tries the device again, or goes on to the next level.
func (r *fenceRun) failure(now instant, devices []*FenceConfig, why string) {
	r.looking = false
	if r.step >= len(devices) {
		return
	}
	d := devices[r.step]
	if r.try++; r.try <= d.Retries && !r.probe {
		r.pause = now.add(fenceRetryPause)
		return
	}
	r.failed = append(r.failed, d.Name+": "+why)
	r.try, r.off = 0, nil
	for r.step < len(devices) && devices[r.step].Level == d.Level {
		r.step++
	}
}

// result is what it came to, in words.
func (r *fenceRun) result() string {
	if r.ok {
		return strings.Join(r.off, ", ") + " " + plural(len(r.off), "says", "say") + " that it is off"
	}
	return strings.Join(r.failed, "; ")
}

// doing is how far it is, for those who watch.
func (r *fenceRun) doing(c *Config) string {
	devices := c.fencesOf(r.node)
	if r.done || r.step >= len(devices) {
		return ""
	}
	d := devices[r.step]
	text := fmt.Sprintf("%s: %s", d.Name, map[bool]string{true: fenceStatus, false: fenceOff}[r.looking || r.probe])
	if r.try > 0 {
		text += fmt.Sprintf(", try %d of %d", r.try+1, d.Retries+1)
	}
	if slices.ContainsFunc(devices, func(x *FenceConfig) bool { return x.Level != d.Level }) {
		text = fmt.Sprintf("level %d, %s", d.Level, text)
	}
	return text
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// headStart tells which of two nodes that both must fence the other does so at once: the one that runs more groups, else
// the first of the file. Both come to the same answer, so that they do not cut off each other.
func headStart(s *State, c *Config, self, other string) bool {
	runs := func(node string) (n int) {
		for i := range s.Groups {
			if s.Groups[i].Owner == node {
				n++
			}
		}
		return n
	}
	if a, b := runs(self), runs(other); a != b {
		return a > b
	}
	return slices.Index(c.voters(), self) < slices.Index(c.voters(), other)
}

// headStartWait is how long the other one waits: two deadtimes, and what the slowest device says that it needs.
func (c *Config) headStartWait(node string) time.Duration {
	wait := time.Duration(0)
	for _, f := range c.fencesOf(node) {
		wait = max(wait, f.Delay.D())
	}
	return wait + 2*c.Heartbeat.Deadtime.D()
}
