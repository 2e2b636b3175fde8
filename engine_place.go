// Who may take a group, and who should? The candidates of the rules and of `why`, each with its reason. Pure.

package main

import (
	"fmt"
	"slices"
	"strings"
)

// candidates lists the full nodes, those that may take the group first, best first, each with a sentence.
func (r *ruling) candidates() []Candidate {
	nodes := r.s.Config.Effective.Nodes
	out := make([]Candidate, 0, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		if n.witness() {
			continue
		}
		may, why := r.judge(n.Name)
		out = append(out, Candidate{n.Name, may, why})
	}
	r.holdBack(out)
	slices.SortStableFunc(out, func(a, b Candidate) int {
		if a.May != b.May {
			if a.May {
				return -1
			}
			return 1
		}
		return r.rank(a.Node) - r.rank(b.Node)
	})
	return out
}

// judge says whether a node may take the group now. It does not ask who owns it at present.
func (r *ruling) judge(name string) (may bool, why string) {
	n, v := r.s.node(name), r.v.node(name)
	switch {
	case n == nil || n.Member == 0:
		return false, name + " has never joined"
	case !v.Heard && name != r.v.Self:
		return false, name + " is not heard"
	case n.Left || v.Leaving:
		return false, name + " has left"
	case !n.Joined || v.Session != n.Session:
		return false, name + " has not joined since its daemon started"
	case r.s.Config.Effective.twoVoters() && !n.Voter:
		return false, name + " has not caught up with the log yet"
	case v.NoLease >= r.s.Config.Effective.Heartbeat.Deadtime.D():
		return false, name + " does not hear a majority"
	case n.Standby != nil:
		return false, fmt.Sprintf("%s is in standby (lift it: hactl online %s)", name, name)
	case v.Sick != "":
		return false, fmt.Sprintf("%s is not well: %s", name, v.Sick)
	case r.s.staleCopy(r.c, name) != nil:
		return false, r.s.staleCopy(r.c, name).String()
	case n.unfit(r.g.Name) != "":
		return false, fmt.Sprintf("%s cannot run it: %s", name, n.unfit(r.g.Name))
	}
	for i := range r.s.Resources {
		if f := &r.s.Resources[i]; f.Group == r.g.Name && f.Node == name && f.banned(r.c) {
			return false, fmt.Sprintf("%s failed on %s (%s: %s; try again: hactl cleanup %s)", f.Resource, name, times(f.Failcount), f.Reason, r.g.Name)
		}
	}
	for _, w := range r.c.With {
		if o := r.ownerOf(w); o != name {
			return false, fmt.Sprintf("it runs with %s, which is %s", w, where(o))
		}
	}
	for _, other := range r.apart() {
		if r.ownerOf(other) == name && r.before(other) {
			return false, fmt.Sprintf("it runs apart from %s, which is on %s", other, name)
		}
	}
	if other := r.inTheWay(name); other != "" {
		return true, fmt.Sprintf("%s; %s, which comes later in the file, gives way", r.praise(name), other)
	}
	return true, r.praise(name)
}

// inTheWay is a group on the node that must stop first if this one is to go there, "" if there is none: of groups that
// run apart the one that comes first in the file has its way.
func (r *ruling) inTheWay(node string) string {
	for _, other := range r.apart() {
		g := r.s.group(other)
		if r.ownerOf(other) == node && !r.before(other) && g != nil && (g.Phase != phaseRevoked || g.Proof == "") {
			return other
		}
	}
	return ""
}

func where(owner string) string {
	if owner == "" {
		return "nowhere"
	}
	return "on " + owner
}

// praise says what speaks for a node that may take the group.
func (r *ruling) praise(name string) string {
	switch i := slices.Index(r.c.Prefer, name); {
	case r.g.Pin != nil && r.g.Pin.Node == name:
		return fmt.Sprintf("%s is where %s moved it", name, r.g.Pin.By)
	case i == 0:
		return name + " is preferred"
	case i > 0:
		return fmt.Sprintf("%s is number %d of those preferred", name, i+1)
	case r.load(name) == 0:
		return name + " runs no other group"
	case r.load(name) == 1:
		return name + " runs 1 other group"
	}
	return fmt.Sprintf("%s runs %d other groups", name, r.load(name))
}

// rank orders those that may: the pin, then those where no group has to give way, then the preferred in their order, the
// present owner, the fewest groups, file order. Smaller is better.
func (r *ruling) rank(name string) int {
	const step = 1000 // above any number of groups or nodes
	if r.g.Pin != nil && r.g.Pin.Node == name {
		return -step
	}
	if r.inTheWay(name) != "" {
		return step*step + r.rankAmong(name, step)
	}
	return r.rankAmong(name, step)
}

func (r *ruling) rankAmong(name string, step int) int {
	if i := slices.Index(r.c.Prefer, name); i >= 0 {
		return i
	}
	if r.g.Owner == name {
		return step
	}
	file := slices.IndexFunc(r.s.Config.Effective.Nodes, func(n NodeConfig) bool { return n.Name == name })
	return (2+r.load(name))*step + file
}

// load is how many other groups the node owns, or will by the decisions so far.
func (r *ruling) load(name string) int {
	n := 0
	for _, p := range r.planned {
		if p.owner == name && p.group != r.g.Name {
			n++
		}
	}
	return n
}

func (r *ruling) mayTake(name string) bool {
	return slices.ContainsFunc(r.may, func(c Candidate) bool { return c.Node == name && c.May })
}

func (r *ruling) ownerOf(group string) string {
	for _, p := range r.planned {
		if p.group == group {
			return p.owner
		}
	}
	return ""
}

// apart is the groups that must not share a node with this one; the relation holds in both directions.
func (r *ruling) apart() []string {
	out := slices.Clone(r.c.Apart)
	for _, c := range r.s.Config.Effective.Groups {
		if slices.Contains(c.Apart, r.g.Name) && !slices.Contains(out, c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

// before tells whether another group comes earlier in the file.
func (r *ruling) before(other string) bool {
	for _, c := range r.s.Config.Effective.Groups {
		switch c.Name {
		case other:
			return true
		case r.g.Name:
			return false
		}
	}
	return false
}

// upstreamStarted is "" when every group that this one runs after or with is started, else why it must wait or stop.
func (r *ruling) upstreamStarted() string {
	if r.c == nil {
		return ""
	}
	for _, name := range slices.Concat(r.c.After, r.c.With) {
		up := r.s.group(name)
		switch {
		case up == nil || up.Removed:
			return fmt.Sprintf("it runs after %s, which is not there", name)
		case up.Phase != phaseStarted:
			return fmt.Sprintf("it runs after %s, which is %s", name, phaseWord(up.Phase))
		case r.stopsSoon(up):
			return fmt.Sprintf("it runs after %s, which is about to stop", name)
		}
	}
	return ""
}

func phaseWord(phase string) string {
	switch phase {
	case phasePlaced:
		return "starting"
	case phaseRevoked:
		return "stopping"
	case phaseFree:
		return "stopped"
	}
	return phase
}

// stopsSoon tells whether a group that runs will be asked to stop for a planned reason, so that those which run after
// it stop first.
func (r *ruling) stopsSoon(up *GroupState) bool {
	n, v := r.s.node(up.Owner), r.v.node(up.Owner)
	if n == nil {
		return false
	}
	if n.Left || v.Leaving || n.Standby != nil {
		return true
	}
	if up.Pin == nil || up.Pin.Node == up.Owner {
		return false
	}
	c := r.s.Config.Effective.group(up.Name)
	if c == nil {
		return false
	}
	other := ruling{s: r.s, v: r.v, d: &Decision{}, g: up, c: c, planned: r.planned}
	other.may = other.candidates()
	return other.mayTake(up.Pin.Node)
}

// dependentRunning is a group that runs after or with this one and still has an owner, "" if there is none.
func (r *ruling) dependentRunning() string {
	for _, c := range r.s.Config.Effective.Groups {
		if !slices.Contains(c.After, r.g.Name) && !slices.Contains(c.With, r.g.Name) {
			continue
		}
		if g := r.s.group(c.Name); g != nil && g.Owner != "" && g.Phase != phaseBlocked {
			return c.Name
		}
	}
	return ""
}

// why is the answer of `hactl why`: for each full node whether it may take the group, and the reason.
func why(s *State, v *View, group string) []Candidate {
	g, c := s.group(group), s.Config.Effective.group(group)
	if g == nil || c == nil {
		return nil
	}
	r := &ruling{s: s, v: v, d: &Decision{}, g: g, c: c}
	for _, g := range s.Groups {
		r.planned = append(r.planned, groupOwner{g.Name, g.Owner})
	}
	out := r.candidates()
	for i := range out {
		if out[i].Node == g.Owner {
			out[i].Why = strings.TrimSuffix(out[i].Why, ".") + " and owns it now"
		}
	}
	return out
}
