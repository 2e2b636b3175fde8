// When may a node run a group? The arithmetic of docs/design.md section 4, for its three parties: the owner, which
// counts grants; the voter, which gives them and tells how long they may still hold; the taker, which waits. It knows
// nothing of sockets or of why a group was revoked. Pure.

package main

import (
	"slices"
	"time"
)

// quorum is the smallest majority of n voters.
func quorum(n int) int { return n/2 + 1 }

// grants is the owner's side: what it asked for, and who acked what.
type grants struct {
	seq    uint64
	sent   []sentBeat // newest last, at most sentMax
	voters []voterAck // one for each voter that has acked this session
}

const sentMax = 256 // heartbeats that an ack may still refer to

type sentBeat struct {
	seq uint64
	at  instant
	l   time.Duration
}

// voterAck is the newest ack of one voter.
type voterAck struct {
	voter   string
	beat    sentBeat
	revoked []groupEpoch
}

// ask notes that a heartbeat which asks for a lease of l is sent now, and returns its sequence number.
func (g *grants) ask(now instant, l time.Duration) uint64 {
	g.seq++
	g.sent = append(g.sent, sentBeat{g.seq, now, l})
	if len(g.sent) > sentMax {
		g.sent = slices.Delete(g.sent, 0, len(g.sent)-sentMax)
	}
	return g.seq
}

// sentAt is when the heartbeat left; 0: not known any more.
func (g *grants) sentAt(seq uint64) instant {
	for _, b := range g.sent {
		if b.seq == seq {
			return b.at
		}
	}
	return 0
}

// ack notes a voter's answer. One that is older than another of that voter, repeats a wrong L or answers nothing that
// was asked is dropped.
func (g *grants) ack(voter string, a ack) bool {
	i := slices.IndexFunc(g.sent, func(b sentBeat) bool { return b.seq == a.Seq })
	if i < 0 || g.sent[i].l != a.Lease || a.Lease <= 0 {
		return false
	}
	v := voterAck{voter, g.sent[i], a.Revoked}
	j := slices.IndexFunc(g.voters, func(v voterAck) bool { return v.voter == voter })
	switch {
	case j < 0:
		g.voters = append(g.voters, v)
	case g.voters[j].beat.seq >= a.Seq:
		return false
	default:
		g.voters[j] = v
	}
	return true
}

// bars tells whether the newest ack of a voter names anything that it does not grant.
func (g *grants) bars(voter string) bool {
	return slices.ContainsFunc(g.voters, func(v voterAck) bool { return v.voter == voter && len(v.revoked) > 0 })
}

// until is when the owner's grant for the epoch of a group ends: the newest sending time that a majority has acked
// without naming the pair, plus the L that was asked for then. 0: no grant. An ack of the owner's own counts as given
// when it sends; selfVotes is false when it is no voter or has itself stored a revoke of the pair.
func (g *grants) until(group string, epoch uint64, voters []string, self string, selfVotes bool) instant {
	var room [maxHeard + 1]instant // for more than so many it takes memory
	ends := room[:0]
	for _, v := range voters {
		switch {
		case v != self:
			for i := range g.voters {
				if a := &g.voters[i]; a.voter == v && !bars(a.revoked, group, epoch) {
					ends = append(ends, a.beat.at.add(a.beat.l))
				}
			}
		case selfVotes && len(g.sent) > 0:
			last := g.sent[len(g.sent)-1]
			ends = append(ends, last.at.add(last.l))
		}
	}
	q := quorum(len(voters))
	if len(ends) < q {
		return 0
	}
	slices.Sort(ends)
	return ends[len(ends)-q]
}

// void forgets all that was granted and asked: only a heartbeat that is sent from now on can bring a grant.
func (g *grants) void() { g.sent, g.voters = nil, nil }

// clockBase is a moment that a peer's clock and this one have in common: its ack said acked when it took the heartbeat
// that was sent here at sent, and so after that.
type clockBase struct{ sent, acked instant }

// stoodStill is for how long, or longer, this host stood still since b, clocks and all, as a hypervisor's pause does; 0: not so
// that anybody could tell. A datagram that came now says clock. What the peer counts since b happened within what this
// host counts, so its clock can be ahead by no more than two rates differ (1.1 / 0.9 - 1 = 2/9), however long any message
// was on its way; a fifth of a lease is that much of the time in which it matters.
func (b clockBase) stoodStill(now, clock instant, l time.Duration) time.Duration {
	if b.sent == 0 {
		return 0
	}
	mine, theirs := now.sub(b.sent), clock.sub(b.acked)
	if ahead := theirs - mine; ahead > max(l/5, mine/9*2+1) {
		return ahead
	}
	return 0
}

func bars(pairs []groupEpoch, group string, epoch uint64) bool {
	return slices.ContainsFunc(pairs, func(p groupEpoch) bool { return p.Group == group && epoch <= p.Epoch })
}

// ledger is the voter's side: to whom it gave what, and which revokes lie on its disk.
type ledger struct {
	born   instant // this process may have forgotten what was given before
	given  []given // by owner and L
	stored []storedRevoke
}

type given struct {
	owner string
	l     time.Duration
	at    instant
}

// storedRevoke is a revoke in this voter's log, committed or not.
type storedRevoke struct {
	owner string
	group string
	epoch uint64
	index uint64
}

// store notes a revoke that has reached this voter's disk and says how long grants that it gave may still hold.
func (v *ledger) store(now instant, r storedRevoke, longest time.Duration) time.Duration {
	if !slices.Contains(v.stored, r) {
		v.stored = append(v.stored, r)
	}
	return v.hold(now, r.owner, longest)
}

// settle forgets revokes that are decided: the owner has applied them, or something else was committed at their index.
// A revoke that is merely cut off this voter's log may come back from another's, so it bars the epoch until then.
// committed tells whether the state has the pair as revoked.
func (v *ledger) settle(applied uint64, ownerApplied func(owner string) uint64, committed func(storedRevoke) bool) {
	v.stored = slices.DeleteFunc(v.stored, func(r storedRevoke) bool {
		return r.index <= applied && (!committed(r) || ownerApplied(r.owner) >= r.index)
	})
}

// give notes an ack that is sent now and lists the owner's pairs that it does not cover.
func (v *ledger) give(now instant, owner string, l time.Duration) []groupEpoch {
	i := slices.IndexFunc(v.given, func(g given) bool { return g.owner == owner && g.l == l })
	if i < 0 {
		v.given = slices.DeleteFunc(v.given, func(g given) bool { return now.sub(g.at) > holdFor(g.l) })
		v.given = append(v.given, given{owner, l, now})
	} else {
		v.given[i].at = now
	}
	var pairs []groupEpoch
	for _, r := range v.stored {
		if r.owner == owner {
			pairs = append(pairs, groupEpoch{r.group, r.epoch})
		}
	}
	return pairs
}

// revoked tells whether this voter has stored a revoke of the pair.
func (v *ledger) revoked(owner, group string, epoch uint64) bool {
	return slices.ContainsFunc(v.stored, func(r storedRevoke) bool {
		return r.owner == owner && r.group == group && epoch <= r.epoch
	})
}

// hold is how long, from now, grants of this voter to the owner may still be in force. What this process cannot
// remember it takes for the worst: a grant of the longest lease just before it was born.
func (v *ledger) hold(now instant, owner string, longest time.Duration) time.Duration {
	h := holdFor(longest) - now.sub(v.born)
	for _, g := range v.given {
		if g.owner == owner {
			h = max(h, holdFor(g.l)-now.sub(g.at))
		}
	}
	return max(h, 0)
}

// waiting is the taker's side, for one revoked epoch of one group.
type waiting struct {
	group string
	epoch uint64
	index uint64  // of the revoke in the log
	known instant // when this node knew that the revoke is committed
	told  []toldHold
}

type toldHold struct {
	voter string
	end   instant
}

// tell notes what a voter reports now. Its first word stands: having stored the revoke it acked nothing since, and what
// comes later is a repetition.
func (w *waiting) tell(now instant, voter string, h time.Duration) {
	if !slices.ContainsFunc(w.told, func(t toldHold) bool { return t.voter == voter }) {
		w.told = append(w.told, toldHold{voter, now.add(h)})
	}
}

// over is when the lease of the revoked epoch has surely ended on the owner's clock. A grant needs a majority, so it
// is over when it is for some majority. While fewer have told, it is the longest that a grant given before the commit
// can last.
func (w *waiting) over(voters []string, longest time.Duration) instant {
	worst := w.known.add(holdFor(longest))
	var ends []instant
	for _, t := range w.told {
		if slices.Contains(voters, t.voter) {
			ends = append(ends, t.end)
		}
	}
	q := quorum(len(voters))
	if len(ends) < q {
		return worst
	}
	slices.Sort(ends)
	return min(ends[q-1], worst)
}
