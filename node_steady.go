// Which events call for no decision? Nearly all: copies of heartbeats over another link, heartbeats that say what the last
// one said, and raft's own. They are taken in, and what could follow from them waits for the next moment at which
// something is due, at most a heartbeat interval. Everything else goes through advance, at once.

package main

// standing is what raft and the node have come to; while it is unchanged nothing can have been decided.
type standing struct {
	version            uint64 // of what status shows: everything that matters raises it
	role               string
	term, leader       uint64
	commit, last       uint64
	unsaved, proposals int
	spins              string
}

func (n *node) standing() standing {
	s := standing{version: n.version, unsaved: len(n.vitals.unsaved), proposals: len(n.proposals), spins: n.vitals.spins}
	if n.cons != nil {
		st := n.cons.Status()
		s.role, s.term, s.leader, s.commit, s.last = st.Role, st.Term, st.Leader, st.Commit, st.Last
	}
	return s
}

// steady: this node is a member of a cluster that can decide, its affairs are settled, and nothing is due but raft's clock.
func (n *node) steady(now instant) bool {
	return now < n.dueAt && n.joined && n.hasQuorum() && n.state != nil && n.cons != nil && n.yielded == "" && n.isolated.target == "" && !n.leaving && !n.beaten()
}

// rests lets raft have its way, and tells whether the node stands where it stood.
func (n *node) rests(now instant, was standing) bool {
	n.tickRaft(now)
	for n.standing() == was {
		if !n.drain(now) {
			return n.standing() == was && n.steady(now)
		}
	}
	return false
}

// repeats tells whether a heartbeat that came after another says of its sender what that one said.
func (h *heartbeat) repeats(was *heartbeat) bool {
	return h.Flags == was.Flags && h.Member == was.Member && h.Cluster == was.Cluster && h.Incarnation == was.Incarnation && h.Counter == was.Counter &&
		h.Boot == was.Boot && h.Generation == was.Generation && h.FileHash == was.FileHash && h.Term == was.Term && h.Leader == was.Leader &&
		h.Feature == was.Feature && h.Lease == was.Lease && len(h.Heard) == len(was.Heard)
}
