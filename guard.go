// Whose copy of the data is old? DRBD freezes a Primary that loses its peer until a handler says what became of that peer.
// The answer is a mark in the replicated state: what the peer has is stale from now on, and it is not placed there. Only
// who owns the group may say so, so whoever was revoked stays frozen; docs/design.md section 15. Pure.

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func (m *StaleCopy) String() string {
	return fmt.Sprintf("%s's copy of %s is stale since %s went on without it", m.Node, m.Resource, m.By)
}

// staleCopy is a mark against what a node has of a group's data, nil if there is none.
func (s *State) staleCopy(c *GroupConfig, node string) *StaleCopy {
	if c == nil {
		return nil
	}
	for i := range c.Resources {
		if r := &c.Resources[i]; r.Type == "drbd" {
			if m := s.stale(r.Resource, node); m != nil {
				return m
			}
		}
	}
	return nil
}

// stale is the mark against a node's copy of a DRBD resource.
func (s *State) stale(resource, node string) *StaleCopy {
	if i, found := s.findStale(resource, node); found {
		return &s.Stale[i]
	}
	return nil
}

func (s *State) findStale(resource, node string) (int, bool) {
	return slices.BinarySearchFunc(s.Stale, StaleCopy{Resource: resource, Node: node}, func(x, y StaleCopy) int {
		return cmp.Or(strings.Compare(x.Resource, y.Resource), strings.Compare(x.Node, y.Node))
	})
}

// replicates tells whether a group has a DRBD resource.
func (g *GroupConfig) replicates(resource string) bool {
	return g != nil && slices.ContainsFunc(g.Resources, func(r ResourceConfig) bool { return r.Type == "drbd" && r.Resource == resource })
}

// groupOn is the group that has a DRBD resource, nil if none has.
func (c *Config) groupOn(resource string) *GroupConfig {
	for i := range c.Groups {
		if c.Groups[i].replicates(resource) {
			return &c.Groups[i]
		}
	}
	return nil
}

// fromWriter checks that the entry comes from the present owner of what it speaks of, and that this owner may write.
func (a *applying) fromWriter() *GroupState {
	g := a.fromOwner()
	if g == nil {
		return nil
	}
	if g.Phase == phaseRevoked || !a.s.Config.Effective.group(g.Name).replicates(a.e.Resource) {
		a.refuse("%s is %s, or has no %s", g.Name, g.Phase, a.e.Resource)
		return nil
	}
	return g
}

// markStale notes that a node's copy misses what its owner writes from now on. It always makes a new mark: one that stands
// may be about to be lifted by what was seen before.
func (a *applying) markStale() {
	g := a.fromWriter()
	if g == nil {
		return
	}
	if n := a.s.Config.Effective.node(a.e.Peer); n == nil || n.witness() || n.Name == g.Owner {
		a.refuse("%q is no other node that runs groups", a.e.Peer)
		return
	}
	if m := a.s.stale(a.e.Resource, g.Owner); m != nil {
		a.refuse("%s", m)
		return
	}
	m := StaleCopy{Resource: a.e.Resource, Node: a.e.Peer, ID: a.s.Index, By: g.Owner, Group: g.Name, Clock: a.s.Clock, Wall: a.e.Wall}
	if old := a.s.stale(m.Resource, m.Node); old != nil {
		m.GivenUp = old.GivenUp
		*old = m
		return
	}
	i, _ := a.s.findStale(m.Resource, m.Node)
	a.s.Stale = slices.Insert(a.s.Stale, i, m)
	a.event(eventStale, m.Node, g.Name, "%s goes on without %s, whose copy of %s is stale from now on", m.By, m.Node, m.Resource)
}

// unmark lifts a mark, if it is still the one that was meant: the owner's word that the copy is complete again, or an
// operator's that it is to be used as it is, which only counts while nobody has the data.
func (a *applying) unmark() {
	m := a.s.stale(a.e.Resource, a.e.Peer)
	if m == nil || m.ID != a.e.Base {
		a.refuse("no mark %d against %s's copy of %s", a.e.Base, a.e.Peer, a.e.Resource)
		return
	}
	text := fmt.Sprintf("%s's copy of %s is complete again", m.Node, m.Resource)
	if a.e.Request != 0 {
		if owner := a.s.writerOf(m.Resource); owner != "" {
			a.refuse("%s may write to %s", owner, m.Resource)
			return
		}
		text = fmt.Sprintf("%s's copy of %s counts as good by the word of %s: what %s wrote without it is given up", m.Node, m.Resource, a.e.By, m.By)
	} else if a.fromWriter() == nil {
		return
	}
	a.event(eventFresh, m.Node, m.Group, "%s", text)
	a.lift(m.Resource, m.Node)
}

func (a *applying) lift(resource, node string) {
	if i, found := a.s.findStale(resource, node); found {
		a.s.Stale = slices.Delete(a.s.Stale, i, i+1)
	}
}

// resolve is an operator's word on a split brain: one copy is the good one, and what the other alone has is thrown away. Nobody
// else may write meanwhile. The mark goes when that copy is complete again, as every mark does.
func (a *applying) resolve() {
	c := a.s.Config.Effective
	g := c.groupOn(a.e.Resource)
	for _, name := range []string{a.e.Node, a.e.Peer} {
		if n := c.node(name); g == nil || n == nil || n.witness() || a.e.Node == a.e.Peer {
			a.refuse("%s and %s are not two nodes with a copy of %s", a.e.Node, a.e.Peer, a.e.Resource)
			return
		}
	}
	if owner := a.s.writerOf(a.e.Resource); owner != "" && owner != a.e.Node {
		a.refuse("%s may write to %s", owner, a.e.Resource)
		return
	}
	a.lift(a.e.Resource, a.e.Node)
	a.lift(a.e.Resource, a.e.Peer)
	i, _ := a.s.findStale(a.e.Resource, a.e.Peer)
	a.s.Stale = slices.Insert(a.s.Stale, i, StaleCopy{Resource: a.e.Resource, Node: a.e.Peer, ID: a.s.Index, By: a.e.Node, Group: g.Name,
		Clock: a.s.Clock, Wall: a.e.Wall, GivenUp: true})
	a.event(eventResolved, a.e.Peer, g.Name, "%s's copy of %s is the good one by the word of %s: what %s alone has is thrown away", a.e.Node, a.e.Resource, a.e.By, a.e.Peer)
}

// writerOf is the owner of the group that has a DRBD resource, "" if nobody owns it.
func (s *State) writerOf(resource string) string {
	if c := s.Config.Effective.groupOn(resource); c != nil {
		if g := s.group(c.Name); g != nil {
			return g.Owner
		}
	}
	return ""
}
