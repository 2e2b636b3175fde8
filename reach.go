// Which targets outside the cluster does this node reach? When to ask each, and what its answers say: a target is lost
// after so many failures in a row, and back after so many answers, so that one lost echo changes nothing. What follows
// from it is for the rules (engine_hold.go) and for needs_ping (node_reach.go). Pure.

package main

import (
	"fmt"
	"slices"
	"time"
)

// reach is what this node knows of the targets, in the config's order.
type reach struct {
	targets []*target
	nextID  uint64
}

type target struct {
	config   PingConfig
	born     instant // since when it is asked
	due      instant // of the next echo
	open     []echo  // on their way, oldest first
	row      int     // answers in a row, or, negative, failures
	known    bool    // whether it is up has been judged
	up       bool
	reason   string  // of the last failure
	answered instant // when the newest echo that was answered left; 0: none
}

type echo struct {
	id   uint64
	sent instant
}

// openMax bounds the echoes to one target that are on their way.
const openMax = 16

// configure takes the config's targets; one that stays keeps what is known of it.
func (r *reach) configure(now instant, pings []PingConfig) {
	old := r.targets
	r.targets = nil
	for _, c := range pings {
		i := slices.IndexFunc(old, func(t *target) bool { return t.config.Name == c.Name && t.config.target() == c.target() })
		if i < 0 {
			r.targets = append(r.targets, &target{config: c, born: now, due: now})
			continue
		}
		old[i].config = c
		old[i].due = min(old[i].due, now.add(c.Interval.D()))
		r.targets = append(r.targets, old[i])
	}
}

func (r *reach) target(name string) *target {
	for _, t := range r.targets {
		if t.config.Name == name {
			return t
		}
	}
	return nil
}

// ask returns the echo that is due to a target now, if one is. A pace that is quicker than the interval does not wait for
// the answers to earlier ones.
func (r *reach) ask(now instant, t *target, pace time.Duration) (ping, bool) {
	for len(t.open) > 0 && now.sub(t.open[0].sent) > 2*t.config.Timeout.D() {
		r.ended(t.open[0].id, "nothing came of it") // its end was lost: the next must not wait for it for ever
	}
	t.due = min(t.due, now.add(pace))
	if now < t.due || len(t.open) >= openMax || len(t.open) > 0 && pace >= t.config.Interval.D() {
		return ping{}, false
	}
	t.due = now.add(pace)
	r.nextID++
	t.open = append(t.open, echo{r.nextID, now})
	return ping{ID: r.nextID, Address: t.config.Address, TCP: t.config.TCP, Timeout: t.config.Timeout.D()}, true
}

// next is when there may be something to ask, if no answer comes before.
func (t *target) next(now instant) instant {
	if t.due <= now && len(t.open) > 0 {
		return t.open[0].sent.add(2 * t.config.Timeout.D())
	}
	return t.due
}

// ended takes what became of an echo, "" for an answer. It tells whether that changed what is believed.
func (r *reach) ended(id uint64, failure string) (changed bool) {
	i := slices.IndexFunc(r.targets, func(t *target) bool {
		return slices.ContainsFunc(t.open, func(e echo) bool { return e.id == id })
	})
	if i < 0 {
		return false // of a target that is gone, or given up
	}
	t := r.targets[i]
	j := slices.IndexFunc(t.open, func(e echo) bool { return e.id == id })
	sent := t.open[j].sent
	t.open = slices.Delete(t.open, j, j+1)
	was, wasKnown := t.up, t.known
	if failure == "" {
		t.row = max(t.row, 0) + 1
		t.answered = max(t.answered, sent)
		if !t.known || t.row >= t.config.Failures {
			t.known, t.up, t.reason = true, true, ""
		}
	} else {
		t.row = min(t.row, 0) - 1
		t.reason = failure
		if t.row <= -t.config.Failures {
			t.known, t.up = true, false
		}
	}
	return was != t.up || wasKnown != t.known
}

// quiet is how long the target has answered nothing, counted from since at the earliest.
func (t *target) quiet(now, since instant) time.Duration {
	return now.sub(max(t.answered, t.born, since))
}

// lost says why the target counts as out of reach.
func (t *target) lost() string { return fmt.Sprintf("%s: %s", t.config.target(), t.reason) }
