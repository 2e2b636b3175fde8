// Who is alive? What this node hears itself, and what the others say they hear. It judges silence only; what follows
// from it is for the rules. Pure.

package main

import (
	"slices"
	"strings"
	"time"
)

// peers is everything that this node hears, by name.
type peers struct {
	self string
	all  []*peer // by name
}

type peer struct {
	name    string
	session uint64
	since   instant    // of the session's first confirmed datagram
	at      instant    // last datagram of a confirmed session, any link; 0: none yet
	links   []linkTime // by link
	beat    heartbeat  // the newest of the session
	beatAt  instant    // when it came; 0: none yet
	better  instant    // it lives in an incarnation that ours yields to, since then; 0: no
	differs instant    // its state differs from ours at the same index, since then; 0: no
	strange instant    // it belongs to another cluster; when that was last logged
	base    clockBase  // of its newest ack in this session
	unsure  instant    // last heartbeat of a session that has not echoed ours; 0: none
}

type linkTime struct {
	link string
	at   instant
}

func (p *peers) get(name string) *peer {
	i, found := slices.BinarySearchFunc(p.all, name, func(p *peer, name string) int { return strings.Compare(p.name, name) })
	if !found {
		p.all = slices.Insert(p.all, i, &peer{name: name})
	}
	return p.all[i]
}

// heard notes a datagram of a session that has echoed ours.
func (p *peers) heard(r received) *peer {
	q := p.get(r.From)
	if !r.Confirmed {
		q.unsure = r.At
		return q
	}
	if q.session != r.Session {
		// A daemon that starts anew has said nothing yet of the incarnation that it lives in.
		*q = peer{name: q.name, session: r.Session, since: r.At, unsure: q.unsure, better: q.better}
	}
	q.at = max(q.at, r.At)
	if r.Link != "" {
		i := slices.IndexFunc(q.links, func(l linkTime) bool { return l.link == r.Link })
		if i < 0 {
			q.links = append(q.links, linkTime{r.Link, r.At})
		} else {
			q.links[i].at = max(q.links[i].at, r.At)
		}
	}
	return q
}

// beatFrom notes a heartbeat; copies over other links and old ones change nothing.
func (q *peer) beatFrom(at instant, h heartbeat) (newer bool) {
	if q.beatAt != 0 && h.Seq <= q.beat.Seq {
		return false
	}
	q.beat, q.beatAt = h, at
	return true
}

// hears tells whether a peer is heard and hears me: silence in either direction is silence.
func (q *peer) hears(now instant, self string, session uint64, deadtime time.Duration) bool {
	if q.at == 0 || now.sub(q.at) >= deadtime || q.beatAt == 0 {
		return false
	}
	for _, h := range q.beat.Heard {
		if h.Name == nameHash(self) && h.Session == session {
			return h.Age+now.sub(q.beatAt) < 2*deadtime // its word is one beat old; its own silence is judged above
		}
	}
	return false
}

// awaited is until when a peer that has announced its restart is waited for, 0 where none has: a daemon that is started again
// at once needs longer than a short deadtime, and is dearer to move away from than to wait for.
func (q *peer) awaited(deadtime time.Duration) instant {
	if q.beatAt == 0 || q.beat.Flags&flagRestarting == 0 {
		return 0
	}
	return q.beatAt.add(restartHold(deadtime))
}

// restartHold is for how long after its last word: no longer than an owner without a lease keeps what is addressed.
func restartHold(deadtime time.Duration) time.Duration { return max(2*deadtime, 3*time.Second) }

// age is how long ago anybody that I hear heard the node: the youngest of my own last datagram and of the ages that
// living voters tell, extrapolated to now.
func (p *peers) age(now instant, name string, voters []string, deadtime time.Duration) time.Duration {
	const never = time.Duration(1<<62 - 1)
	best := never
	if q := p.get(name); q.at != 0 {
		best = now.sub(q.at)
	}
	for _, v := range voters {
		if v == p.self || v == name {
			continue
		}
		q := p.get(v)
		if q.at == 0 || now.sub(q.at) >= deadtime {
			continue
		}
		for _, h := range q.beat.Heard {
			if h.Name == nameHash(name) {
				best = min(best, h.Age+now.sub(q.beatAt))
			}
		}
	}
	return best
}

// list is what this node's own heartbeat says about whom it hears.
func (p *peers) list(now instant, links []string, deadtime time.Duration) []heardPeer {
	out := make([]heardPeer, 0, len(p.all))
	for _, q := range p.all {
		if q.at == 0 || now.sub(q.at) > 10*deadtime {
			continue
		}
		h := heardPeer{Name: nameHash(q.name), Session: q.session, Age: now.sub(q.at)}
		for _, l := range q.links {
			if i := slices.Index(links, l.link); i >= 0 && i < 16 && now.sub(l.at) < deadtime {
				h.Links |= 1 << i
			}
		}
		out = append(out, h)
	}
	return out
}

// on lists the links on which the peer is heard.
func (q *peer) on(now instant, deadtime time.Duration) []string {
	var out []string
	for _, l := range q.links {
		if now.sub(l.at) < deadtime {
			out = append(out, l.link)
		}
	}
	slices.Sort(out)
	return out
}

// silence is how long nothing came from the peer.
func (p *peers) silence(now instant, name string) time.Duration {
	if q := p.get(name); q.at != 0 {
		return now.sub(q.at)
	}
	return 1<<62 - 1
}
