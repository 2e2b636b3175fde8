// Who may take a group, but had better not? A node that does not reach what the group needs while another does, and a node
// that comes and goes. Both stand back for a better one and serve where there is none. Pure.

package main

import (
	"fmt"
	"strings"
	"time"
)

const (
	// flapLimit losses, none later than flapWindow after the one before, make a node unsteady: it takes nothing until it
	// has been there for flapHold, twice as long with each more, at most flapHoldMax.
	flapLimit   = 3
	flapWindow  = 20 * time.Minute
	flapHold    = 30 * time.Second
	flapHoldMax = 10 * time.Minute

	// bounceLimit moves on the ground of failures, counted alike, make a group that fails everywhere in turn: it is tried
	// where it is until it moves again.
	bounceLimit = 2
)

// flapWait is how long the steadiness must last after so many losses or moves past the limit.
func flapWait(past int) time.Duration { return min(flapHold<<min(past, 10), flapHoldMax) }

// holdBack takes out of the running who is worse off than another: first by needs, then by steadiness.
func (r *ruling) holdBack(all []Candidate) {
	least, unmet := -1, make([][]string, len(all))
	for i := range all {
		if unmet[i] = r.unmet(all[i].Node); all[i].May && (least < 0 || len(unmet[i]) < least) {
			least = len(unmet[i])
		}
	}
	for i := range all {
		c := &all[i]
		switch {
		case !c.May || len(unmet[i]) == 0:
		case len(unmet[i]) > least:
			c.May, c.Why = false, fmt.Sprintf("%s does not reach %s (another node does)", c.Node, strings.Join(unmet[i], ", "))
		default:
			c.Why += fmt.Sprintf(", though it does not reach %s", strings.Join(unmet[i], ", "))
		}
	}
	steady := false
	for _, c := range all {
		steady = steady || c.May && r.unsteady(c.Node) == 0
	}
	for i := range all {
		c := &all[i]
		left := r.unsteady(c.Node)
		if !c.May || left == 0 {
			continue
		}
		r.after(left)
		if steady {
			c.May, c.Why = false, fmt.Sprintf("%s comes and goes (%s): it takes groups again when it has been there for %s more", c.Node,
				lostTimes(r.s.node(c.Node).Flaps), left.Round(time.Second))
		} else {
			c.Why += fmt.Sprintf(", though it comes and goes (%s)", lostTimes(r.s.node(c.Node).Flaps))
		}
	}
}

func lostTimes(n int) string { return "lost " + times(n) }

// unmet are the targets that the group needs and the node does not reach, though some node does: what answers nobody is
// down, and no reason to move.
func (r *ruling) unmet(node string) []string {
	var out []string
	for _, name := range r.c.Needs {
		if n := r.s.node(node); n == nil || n.reaches(name) {
			continue
		}
		if _, answers := r.reachedSince(name); answers {
			out = append(out, name)
		}
	}
	return out
}

// reachedSince is since when some node that is there reaches the target.
func (r *ruling) reachedSince(name string) (since time.Duration, answers bool) {
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		v := r.v.node(n.Name)
		if !n.reaches(name) || !n.Joined || n.Left || !v.Heard && n.Name != r.v.Self {
			continue
		}
		if at := n.reach(name).Since; !answers || at < since {
			since, answers = at, true
		}
	}
	return since, answers
}

// ownerBlind is what the group needs, another node that may take it reaches, and its owner has not reached for long
// enough that the others would know if it were the target's fault.
func (r *ruling) ownerBlind() string {
	n := r.s.node(r.g.Owner)
	var sure []string
	reason := ""
	for _, name := range r.unmet(r.g.Owner) {
		told, p := n.reach(name), r.s.Config.Effective.ping(name)
		if told == nil || p == nil {
			continue // it has just begun, and says so soon
		}
		since, _ := r.reachedSince(name)
		if left := p.settle() - (r.v.Clock - max(since, told.Since)); left > 0 {
			r.after(left)
			continue
		}
		sure = append(sure, name)
		reason = fmt.Sprintf("it does not reach %s (%s)", name, told.Reason)
	}
	for _, c := range r.may {
		if c.May && c.Node != r.g.Owner && len(r.unmet(c.Node)) < len(sure) {
			return reason
		}
	}
	return ""
}

// unsteady is how much longer a node that comes and goes must be there before it takes the group over; 0: it may. What it
// owns it keeps.
func (r *ruling) unsteady(name string) time.Duration {
	n := r.s.node(name)
	if n == nil || r.g.Owner == name {
		return 0
	}
	return n.unsteady(r.v.Clock)
}

func (n *NodeState) unsteady(clock time.Duration) time.Duration {
	if n.Flaps < flapLimit {
		return 0
	}
	return max(0, flapWait(n.Flaps-flapLimit)-(clock-n.Since))
}

// bouncing is how much longer a group that fails on one node after the other stays where it is.
func (r *ruling) bouncing() time.Duration {
	if r.g.Bounces < bounceLimit {
		return 0
	}
	return max(0, flapWait(r.g.Bounces-bounceLimit)-(r.v.Clock-r.g.Bounced))
}

// counted is a number of losses or moves, one more now: those that lie further back than the window are forgotten.
func counted(before int, last, now time.Duration) int {
	if before > 0 && now-last > flapWindow {
		before = 0
	}
	return before + 1
}
