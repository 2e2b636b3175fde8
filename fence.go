// Who is to be fenced, and what came of it? The part of the state and of the rules that is about fencing: a node that may
// still run what only its death ends is asked to be cut off, one helper after the other, and only a confirmed fence is a
// proof. How a helper goes about it is fence_run.go's. Pure.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// FenceState is how far the fencing of a node is. It speaks of one kernel boot: who has booted since is another, whose
// coming ends it.
type FenceState struct {
	Node     string        `json:"node"`
	ID       uint64        `json:"id"` // raft index of the newest request
	Boot     string        `json:"boot"`
	Phase    string        `json:"phase"`            // fenceAsked, fenceFailed, fenceConfirmed
	Helper   string        `json:"helper"`           // who carries it out, or has
	Tried    []string      `json:"tried,omitempty"`  // helpers that have failed in this round, in their order
	Rounds   int           `json:"rounds,omitempty"` // how often all helpers have failed
	Operator bool          `json:"operator,omitempty"`
	Asker    string        `json:"asker"` // who asked first: a node, or user@node
	Why      string        `json:"why"`
	Reason   string        `json:"reason,omitempty"` // why it failed, or which devices confirmed it
	Since    time.Duration `json:"since"`            // cluster time of the first request
	Clock    time.Duration `json:"clock"`            // of the last change
	Wall     int64         `json:"wall"`
}

// DeviceFault is a fence device that does not answer a node which may need it.
type DeviceFault struct {
	Device string        `json:"device"`
	Node   string        `json:"node"` // whom it does not answer
	Reason string        `json:"reason"`
	Clock  time.Duration `json:"clock"`
}

// Phases of a fence.
const (
	fenceAsked     = "asked"
	fenceFailed    = "failed"
	fenceConfirmed = "confirmed"
)

func (s *State) fence(node string) *FenceState {
	for i := range s.Fences {
		if s.Fences[i].Node == node {
			return &s.Fences[i]
		}
	}
	return nil
}

// leaseProves tells whether the owner of a group surely ends with its lease: what may change data while nobody can reach
// it only where a watchdog resets its host. Else a fence, its own word, its next boot or an operator's word prove it. The
// one place that decides it. Of two voters one alone has no lease that could end, and the other goes on as caretaker.
func (s *State) leaseProves(g *GroupState) bool {
	_, ends := s.beyond(g)
	return ends && !g.Unleased && !s.Config.Effective.twoVoters()
}

// targets are the nodes that the device fences.
func (f *FenceConfig) targets() []string {
	if f.Node != "" {
		return []string{f.Node}
	}
	var names []string
	for _, p := range f.Plugs {
		names = append(names, p.Name)
	}
	return names
}

func (f *FenceConfig) fences(node string) bool { return slices.Contains(f.targets(), node) }

// neededBy: the device fences another node than this one.
func (f *FenceConfig) neededBy(node string) bool {
	return slices.ContainsFunc(f.targets(), func(target string) bool { return target != node })
}

// plug is what the device calls a node, "" if it knows only one.
func (f *FenceConfig) plug(node string) string {
	for _, p := range f.Plugs {
		if p.Name == node {
			return p.Value
		}
	}
	return ""
}

// fencesOf are the devices of a node, in the order of levels, then of the file.
func (c *Config) fencesOf(node string) []*FenceConfig {
	var out []*FenceConfig
	for i := range c.Fences {
		if c.Fences[i].fences(node) {
			out = append(out, &c.Fences[i])
		}
	}
	slices.SortStableFunc(out, func(a, b *FenceConfig) int { return a.Level - b.Level })
	return out
}

// fenced and unfenced are the full nodes with a device and those without.
func (c *Config) fenced() []string {
	return slices.DeleteFunc(c.fullNodes(), func(n string) bool { return len(c.fencesOf(n)) == 0 })
}

func (c *Config) unfenced() []string {
	return slices.DeleteFunc(c.fullNodes(), func(n string) bool { return len(c.fencesOf(n)) > 0 })
}

func (c *Config) fence(name string) *FenceConfig {
	for i := range c.Fences {
		if c.Fences[i].Name == name {
			return &c.Fences[i]
		}
	}
	return nil
}

// fenceHint is what helps a group whose stop has failed, and needs nothing mended; "" where there is no device.
func fenceHint(c *Config, owner string) string {
	if len(c.fencesOf(owner)) == 0 {
		return ""
	}
	return fmt.Sprintf("have %s cut off, and others take it: hactl fence %s; or ", owner, owner)
}

// What the entries do.

// askFence makes somebody cut off a node. Base is the request that this one takes the place of.
func (a *applying) askFence() {
	n := a.theNode()
	if n == nil {
		return
	}
	old, base := a.s.fence(n.Name), uint64(0)
	if old != nil {
		base = old.ID
	}
	switch {
	case a.e.Base != base || a.e.Boot != n.Boot || old != nil && old.Phase == fenceConfirmed:
		a.refuse("%s has booted since, or another request stands", n.Name)
		return
	case a.e.Helper == n.Name || a.s.Config.Effective.node(a.e.Helper) == nil:
		a.refuse("%s cannot fence %s", a.e.Helper, n.Name)
		return
	case !a.e.On && n.Lost == nil && a.e.Reason == "":
		a.refuse("%s is heard", n.Name)
		return
	}
	f := FenceState{Node: n.Name, ID: a.s.Index, Boot: n.Boot, Phase: fenceAsked, Helper: a.e.Helper, Operator: a.e.On, Asker: a.e.By,
		Why: a.e.Why, Since: a.s.Clock, Clock: a.s.Clock, Wall: a.e.Wall}
	if old != nil {
		f.Tried, f.Rounds, f.Operator, f.Asker, f.Why, f.Since = old.Tried, old.Rounds, old.Operator || a.e.On, old.Asker, old.Why, old.Since
		if old.Phase == fenceAsked && !slices.Contains(f.Tried, old.Helper) {
			f.Tried = append(f.Tried, old.Helper) // it was given up
		}
		if slices.Contains(f.Tried, f.Helper) { // all have had their turn: the next round
			f.Tried, f.Rounds = nil, f.Rounds+1
		}
	}
	a.keepFence(f)
	a.event(eventFenceAsked, n.Name, "", "%s shall be fenced by %s: %s", n.Name, f.Helper, f.Why)
}

func (a *applying) keepFence(f FenceState) {
	i, found := slices.BinarySearchFunc(a.s.Fences, f.Node, func(f FenceState, node string) int { return strings.Compare(f.Node, node) })
	if found {
		a.s.Fences[i] = f
		return
	}
	a.s.Fences = slices.Insert(a.s.Fences, i, f)
}

func (a *applying) dropFence(node string) {
	a.s.Fences = slices.DeleteFunc(a.s.Fences, func(f FenceState) bool { return f.Node == node })
}

// fenced is what came of a request, or of a fence that one of two voters saw to alone (Epoch 0). It is tied to the boot
// that was to be fenced: a word that comes late says nothing of a node that has booted since.
func (a *applying) fenced() {
	n := a.theNode()
	if n == nil {
		return
	}
	f := a.s.fence(n.Name)
	switch {
	case a.e.Boot != n.Boot:
		a.refuse("%s has booted since", n.Name)
		return
	case a.e.Epoch == 0 && f == nil:
		f = &FenceState{Node: n.Name, ID: a.s.Index, Boot: n.Boot, Asker: a.e.By, Why: a.e.Why, Since: a.s.Clock}
	case a.e.Epoch == 0 && f.Phase == fenceConfirmed:
		return // it was recorded before this incarnation was forced
	case f == nil || a.e.Epoch != 0 && (f.ID != a.e.Epoch || f.Phase != fenceAsked || f.Helper != a.e.Helper):
		a.refuse("no such fence of %s is asked for", n.Name)
		return
	}
	next := *f
	next.Helper, next.Reason, next.Clock, next.Wall = a.e.Helper, a.e.Reason, a.s.Clock, a.e.Wall
	if !a.e.On {
		next.Phase, next.Tried = fenceFailed, append(slices.Clone(f.Tried), a.e.Helper)
		a.keepFence(next)
		a.event(eventFenceFailed, n.Name, "", "%s could not be fenced by %s: %s", n.Name, a.e.Helper, a.e.Reason)
		return
	}
	next.Phase, next.Tried, next.Rounds = fenceConfirmed, nil, 0
	a.keepFence(next)
	a.dead(n, proofFence)
	a.event(eventFenced, n.Name, "", "%s is fenced by %s: %s", n.Name, a.e.Helper, a.e.Reason)
}

// unfence ends a request that has lost its point.
func (a *applying) unfence() {
	f := a.s.fence(a.e.Node)
	if f == nil || f.ID != a.e.Epoch || f.Phase == fenceConfirmed {
		a.refuse("no such fence of %s is asked for", a.e.Node)
		return
	}
	a.dropFence(f.Node)
	a.event(eventFenceDropped, a.e.Node, "", "%s is not to be fenced any more: %s", a.e.Node, a.e.Why)
}

// device notes that a fence device does not answer a node, or does again.
func (a *applying) device() {
	key := DeviceFault{Device: a.e.Resource, Node: a.e.Node, Reason: a.e.Reason, Clock: a.s.Clock}
	i, found := slices.BinarySearchFunc(a.s.Devices, key, func(x, y DeviceFault) int {
		return strings.Compare(x.Device+"\x00"+x.Node, y.Device+"\x00"+y.Node)
	})
	switch {
	case a.e.Reason == "" && found:
		a.s.Devices = slices.Delete(a.s.Devices, i, i+1)
		a.event(eventDeviceMended, key.Node, "", "fence device %s answers %s again", key.Device, key.Node)
	case a.e.Reason != "" && !found:
		a.s.Devices = slices.Insert(a.s.Devices, i, key)
		a.event(eventDeviceFailed, key.Node, "", "fence device %s does not answer %s: %s", key.Device, key.Node, key.Reason)
	case a.e.Reason != "" && a.s.Devices[i].Reason != key.Reason:
		a.s.Devices[i].Reason = key.Reason
	default:
		a.refuse("no change")
	}
}

// forgetDevices drops what is known of devices and nodes that are not in the config any more.
func (s *State) forgetDevices() {
	c := s.Config.Effective
	s.Devices = slices.DeleteFunc(s.Devices, func(d DeviceFault) bool { return c.fence(d.Device) == nil || c.node(d.Node) == nil })
	s.Fences = slices.DeleteFunc(s.Fences, func(f FenceState) bool { return c.node(f.Node) == nil })
}

// The rules.

const (
	fencePause    = 10 * time.Second // before all helpers are asked once more; it doubles with each round
	fencePauseMax = 5 * time.Minute
	muteFence     = 10 // deadtimes in which an owner that says it has no lease may say that it has stopped
)

// fenceRoundPause is the pause after so many rounds.
func fenceRoundPause(rounds int) time.Duration {
	return min(fencePause<<min(rounds, 10), fencePauseMax)
}

// fenceLost asks for what only a fence can prove, and asks the next helper when one has failed or is gone.
func (r *ruling) fenceLost() bool {
	matched := false
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		if len(r.s.Config.Effective.fencesOf(n.Name)) == 0 {
			continue
		}
		f := r.s.fence(n.Name)
		why, mute := r.mustFence(n)
		if why == "" && f != nil && f.Operator && !r.triedByAll(f) {
			why = f.Why
		}
		if why == "" || f != nil && !r.fenceDue(f) {
			continue
		}
		e := Entry{Kind: entryFence, Node: n.Name, Boot: n.Boot, Helper: r.helperFor(n.Name, f), Rule: "C9", Why: why, Reason: mute}
		if f != nil {
			e.Base, e.On = f.ID, f.Operator
		}
		if e.Helper != "" {
			r.propose(e)
			matched = true
		}
	}
	return matched
}

// mustFence is why a node must be fenced for others to go on, "" if it need not. Mute: it is heard, but says that it has
// no lease, so it cannot say that it has stopped either.
func (r *ruling) mustFence(n *NodeState) (why, mute string) {
	v := r.v.node(n.Name)
	if n.Name == r.v.Self {
		return "", ""
	}
	limit := muteFence * r.s.Config.Effective.Heartbeat.Deadtime.D()
	if n.Left || r.s.Maintenance != nil || v.Heard && v.NoLease < limit {
		if v.Heard && v.NoLease > 0 {
			r.after(limit - v.NoLease)
		}
		return "", ""
	}
	for i := range r.s.Groups {
		g := &r.s.Groups[i]
		if g.Owner != n.Name || g.Proof != "" || g.Phase != phaseRevoked && g.Phase != phaseBlocked {
			continue
		}
		if g.Phase != phaseBlocked && !g.Unleased && r.s.class(g) != classStateful {
			continue // the end of its lease is proof enough; data are not left to wait for a watchdog
		}
		if v.Heard {
			mute = "it has no lease for " + v.NoLease.Round(time.Millisecond).String()
			return fmt.Sprintf("%s: %s, and it does not say that %s is stopped", n.Name, mute, g.Name), mute
		}
		return fmt.Sprintf("%s is lost and may still run %s", n.Name, g.Name), ""
	}
	return "", ""
}

// fenceDue tells whether somebody must be asked again.
func (r *ruling) fenceDue(f *FenceState) bool {
	switch f.Phase {
	case fenceConfirmed:
		return false
	case fenceAsked:
		if !r.canFence(f.Helper, f.Node) {
			return true
		}
		left := fenceLimit(r.s.Config.Effective, f.Node) - (r.v.Clock - f.Clock)
		if left > 0 {
			r.after(left)
		}
		return left <= 0
	}
	if next := r.helperFor(f.Node, f); next != "" && !slices.Contains(f.Tried, next) {
		return true
	}
	left := fenceRoundPause(f.Rounds) - (r.v.Clock - f.Clock)
	if left > 0 {
		r.after(left)
	}
	return left <= 0
}

// helperFor is who shall carry it out next: of those that have not failed yet the leader, then file order.
func (r *ruling) helperFor(node string, f *FenceState) string {
	var fresh, tried []string
	for _, name := range append([]string{r.v.Self}, r.s.Config.Effective.fullNodes()...) {
		switch {
		case !r.canFence(name, node):
		case f != nil && (slices.Contains(f.Tried, name) || f.Phase == fenceAsked && f.Helper == name):
			tried = append(tried, name)
		default:
			fresh = append(fresh, name)
		}
	}
	if all := append(fresh, tried...); len(all) > 0 {
		return all[0]
	}
	return ""
}

// canFence: any full node that has joined since its boot, and not the one that is to be fenced.
func (r *ruling) canFence(helper, node string) bool {
	n, v := r.s.node(helper), r.v.node(helper)
	c := r.s.Config.Effective.node(helper)
	return helper != node && n != nil && c != nil && !c.witness() && n.Joined && !n.Left && v.Session == n.Session && (v.Heard || helper == r.v.Self)
}

// triedByAll: an operator's request ends when every node that could has failed.
func (r *ruling) triedByAll(f *FenceState) bool {
	next := r.helperFor(f.Node, f)
	return f.Phase == fenceFailed && (next == "" || slices.Contains(f.Tried, next))
}

// fenceBack ends the fencing of a node that has come back by itself, and an operator's that nobody could carry out, lest
// it happens when nobody wants it any more.
func (r *ruling) fenceBack() bool {
	matched := false
	for i := range r.s.Fences {
		f := &r.s.Fences[i]
		v := r.v.node(f.Node)
		n, why := r.s.node(f.Node), "it is heard again"
		switch {
		case n == nil || f.Phase == fenceConfirmed:
			continue
		case f.Operator && r.triedByAll(f):
			why = "every node that could has tried"
			if must, _ := r.mustFence(n); must != "" {
				continue
			}
		case f.Operator || !v.Heard || v.NoLease > 0 || n.Lost != nil:
			continue
		}
		r.propose(Entry{Kind: entryUnfence, Node: f.Node, Epoch: f.ID, Rule: "C10", Why: why})
		matched = true
	}
	return matched
}

// fenceText says how far the fencing of a group's owner is, for those who wait for it.
func (r *ruling) fenceText(node string) string {
	f := r.s.fence(node)
	switch {
	case f == nil || f.Phase == fenceConfirmed:
		return ""
	case f.Phase == fenceAsked:
		return fmt.Sprintf("%s is fencing %s", f.Helper, node)
	}
	left := max(0, fenceRoundPause(f.Rounds)-(r.v.Clock-f.Clock))
	return fmt.Sprintf("%s could not be fenced by %s: %s; next try in %s", node, f.Helper, f.Reason, left.Round(time.Second))
}
