package main

import (
	"testing"
	"time"
)

// paced drives a node for so many intervals beside a peer that sends a heartbeat in each, from a moment on; it returns when the
// node's own left.
func (r *rig) paced(peer string, first instant, beats uint64, until instant) (own []instant) {
	r.t.Helper()
	interval := r.n.config.Heartbeat.Interval.D()
	seq, next := uint64(1), first
	for r.now < until {
		was := r.beats
		if r.now = max(r.now+1, r.n.Wake()); seq <= beats && next <= r.now {
			r.now = next
			h := heartbeat{Seq: seq, Clock: r.now, Interval: interval, Flags: flagBlank}
			r.n.Received(r.now, received{From: peer, Session: 9, Confirmed: true, Link: "lan", Kind: kindHeartbeat, Body: h.encode(), At: r.now})
			seq, next = seq+1, next.add(interval)
		} else {
			r.n.Tick(r.now)
		}
		if r.beats > was+1 {
			r.t.Fatalf("%d heartbeats at once", r.beats-was)
		} else if r.beats > was {
			own = append(own, r.now)
		}
		r.settle()
	}
	return own
}

// gaps must all be within bounds.
func gapsWithin(t *testing.T, own []instant, least, most time.Duration) {
	t.Helper()
	for i := range own[1:] {
		if gap := own[i+1].sub(own[i]); gap < least || gap > most {
			t.Errorf("heartbeats at %v and %v", own[i], own[i+1])
		}
	}
}

// Whatever the phases are at first, a node's heartbeats soon leave with those of the first by name, and are never later than
// an interval and the slack.
func TestHeartbeatsLeaveWithThoseOfTheFirst(t *testing.T) {
	const interval, slack = 100 * time.Millisecond, 100 * time.Millisecond / paceSlack
	for offset := time.Duration(1); offset < interval; offset += 7 * time.Millisecond {
		r := newRig(t, rigConfig("bob", "alice"))
		begun, first := r.now, r.now.add(offset)
		own := r.paced("alice", first, 40, begun.add(41*interval))
		gapsWithin(t, own, interval/2, interval+slack)
		for _, at := range own[len(own)-5:] {
			if late := at.sub(first) % interval; at.sub(first) < 40*interval-interval && late != 0 {
				t.Errorf("offset %v: still %v apart at %v", offset, late, at.sub(begun))
			}
		}
		alone := r.paced("alice", 0, 0, r.now.add(10*interval))
		gapsWithin(t, alone[3:], interval, interval)
	}
}

// The first by name goes by its own clock, and so does everybody beside a peer with another interval.
func TestTheFirstSetsThePace(t *testing.T) {
	const interval = 100 * time.Millisecond
	r := newRig(t, rigConfig("alice", "bob"))
	gapsWithin(t, r.paced("bob", r.now.add(60*time.Millisecond), 40, r.now.add(40*interval))[1:], interval, interval)
	p := &peer{name: "aaron", at: r.now, beatAt: r.now, beat: heartbeat{Interval: interval / 2}}
	r.n.peers.all = []*peer{p}
	if r.n.pacer(r.now) != nil {
		t.Error("paced by a node with another interval")
	}
	if p.beat.Interval = interval; r.n.pacer(r.now) != p || r.n.pacer(r.now.add(2*interval)) != nil {
		t.Error("paced by whoever is heard, and by nobody else")
	}
}
