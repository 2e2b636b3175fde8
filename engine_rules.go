// What should happen next? Decide is the leader's half of the engine: a table of numbered rules, of which for the
// cluster and then for each group the first that matches wins. Its sentence is what the operator reads in `why`, in
// `status` and in the log. The table is docs/design.md section 6. Pure: it proposes, and assumes nothing to have
// happened until an entry is applied.

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// View is what the leader knows beside the state. All slices are in the order of the state's nodes and groups.
type View struct {
	Now   instant       `json:"now"`
	Clock time.Duration `json:"clock"` // cluster time now
	// InForce is for how long this node has known the config in force. Cluster time would not do for what leases hang on: it may
	// be ahead of what the entry was stamped with.
	InForce time.Duration `json:"in_force"`
	Self    string        `json:"self"`
	Nodes   []NodeView    `json:"nodes"`
	Groups  []GroupView   `json:"groups"`
	// ConfBusy: a change of members is under way.
	ConfBusy bool `json:"conf_busy"`
	// Alone: this incarnation was forced on the ground of two_node = "ignore": silence is taken for death.
	Alone bool `json:"alone"`
	// Founding ends when every configured node that is heard has joined, or founder's patience is over.
	Founding bool `json:"founding"`
}

type NodeView struct {
	Name     string        `json:"name"`
	Age      time.Duration `json:"age"`   // since a living voter last heard it
	Heard    bool          `json:"heard"` // Age < deadtime
	Direct   bool          `json:"direct"`
	Leaving  bool          `json:"leaving"`
	Awaited  bool          `json:"awaited,omitempty"` // it has announced its restart, and has time left for it
	Sick     string        `json:"sick,omitempty"`    // it asks for no grants
	NoLease  time.Duration `json:"no_lease"`          // it says for so long that no majority grants it anything
	Asks     bool          `json:"asks"`              // wants to become a member
	Member   uint64        `json:"member"`            // the id it advertises
	Session  uint64        `json:"session"`           // that is heard
	CaughtUp bool          `json:"caught_up"`         // its log is near the leader's
}

type GroupView struct {
	Name  string  `json:"name"`
	Known instant `json:"known"` // when this node knew the revoke committed; 0: it is not
	Over  instant `json:"over"`  // when the lease of the revoked epoch has surely ended
}

// Decision is what Decide asks for.
type Decision struct {
	Entries  []Entry
	Conf     *memberChange
	Transfer string    // hand leadership to this node
	Wake     instant   // look again then, even if nothing has happened; 0: no need
	Cluster  []string  // ids of the cluster rules that matched
	Verdicts []Verdict // one for each group
}

// Verdict is the rule that matched a group, and why.
type Verdict struct {
	Group string
	Rule  string
	Text  string
	Until instant // when the wait ends by itself, 0 if it does not
}

// memberChange is a change of members, one at a time.
type memberChange struct {
	Node   string
	Remove uint64 // member id that goes; 0: none
	Add    uint64 // member id that comes or changes its role; 0: none
	Voter  bool
	Why    string
}

// ruling is one evaluation of the table.
type ruling struct {
	s *State
	v *View
	d *Decision
	// of the group rules
	g   *GroupState
	c   *GroupConfig
	may []Candidate // of the present group, best first among those that may
	// owners after the decisions so far, so that one evaluation does not put two groups where only one may go
	planned []groupOwner
	// groups that must leave their node, since one that comes earlier in the file and runs apart from them has no other
	room []makeRoom
}

type makeRoom struct{ group, forGroup string }

type groupOwner struct{ group, owner string }

type clusterRule struct {
	id   string
	text string
	// then returns true when the rule matches; it has added what it wants to the decision.
	then func(*ruling) bool
}

type groupRule struct {
	id   string
	text string // what the rule is about, for the docs
	// then returns the operator's sentence when the rule matches.
	then func(*ruling) (sentence string, matched bool)
}

// Decide says what to propose. It is called on the leader only; on other nodes its verdicts explain what they see.
func Decide(s *State, v *View) Decision {
	d := Decision{}
	if s.Config.Effective == nil {
		return d
	}
	r := &ruling{s: s, v: v, d: &d}
	d.Verdicts = make([]Verdict, 0, len(s.Groups))
	r.planned = make([]groupOwner, 0, len(s.Groups))
	for i := range s.Groups {
		r.planned = append(r.planned, groupOwner{s.Groups[i].Name, s.Groups[i].Owner})
	}
	for _, rule := range clusterRules() {
		if rule.then(r) { // cluster rules do not exclude each other; conf changes do, by themselves
			d.Cluster = append(d.Cluster, rule.id)
		}
	}
	for _, name := range r.order() {
		r.g = s.group(name)
		r.c = s.Config.Effective.group(name)
		r.may = nil
		if r.c != nil {
			r.may = r.candidates()
		}
		for _, rule := range groupRules() {
			if text, ok := rule.then(r); ok {
				r.verdict(rule.id, text)
				break
			}
		}
	}
	return d
}

// order is the groups in file order, then those no longer in the file.
func (r *ruling) order() []string {
	var names []string
	for _, c := range r.s.Config.Effective.Groups {
		if r.s.group(c.Name) != nil {
			names = append(names, c.Name)
		}
	}
	for _, g := range r.s.Groups {
		if r.s.Config.Effective.group(g.Name) == nil {
			names = append(names, g.Name)
		}
	}
	return names
}

// verdict stamps rule and sentence on the group's verdict and on the entry that the rule has proposed.
func (r *ruling) verdict(id, text string) {
	v := Verdict{Group: r.g.Name, Rule: id, Text: text}
	if w := r.d.Wake; w != 0 && id == "G6" && r.s.leaseProves(r.g) {
		v.Until = r.view().Over
	}
	for i := range r.d.Entries {
		if e := &r.d.Entries[i]; e.Group == r.g.Name && e.Why == "" {
			e.Rule, e.Why = id, text
		}
	}
	r.d.Verdicts = append(r.d.Verdicts, v)
}

func (r *ruling) propose(e Entry) { r.d.Entries = append(r.d.Entries, e) }

// wake asks for another evaluation.
func (r *ruling) wake(at instant) {
	if r.d.Wake == 0 || at < r.d.Wake {
		r.d.Wake = at
	}
}

func (r *ruling) after(d time.Duration) { r.wake(r.v.Now.add(d)) }

func (r *ruling) view() GroupView {
	for _, g := range r.v.Groups {
		if g.Name == r.g.Name {
			return g
		}
	}
	return GroupView{}
}

func (v *View) node(name string) NodeView {
	for _, n := range v.Nodes {
		if n.Name == name {
			return n
		}
	}
	return NodeView{Name: name, Age: 1<<62 - 1}
}

func (r *ruling) voters() int {
	n := 0
	for i := range r.s.Nodes {
		if r.s.Nodes[i].Voter {
			n++
		}
	}
	return n
}

func (r *ruling) owns(node string) bool {
	return slices.ContainsFunc(r.s.Groups, func(g GroupState) bool { return g.Owner == node })
}

func clusterRules() []clusterRule {
	return []clusterRule{
		{"C1", "a node under a new member id asks to join", (*ruling).admit},
		{"C2", "a learner has caught up", (*ruling).promote},
		{"C3", "one of exactly two voters has left and owns nothing", (*ruling).demote},
		{"C4", "a member is no longer in the config", (*ruling).remove},
		{"C5", "a node's liveness changed", (*ruling).lifeSigns},
		{"C6", "a failcount, a pin or a longer lease is over its time", (*ruling).expiries},
		{"C7", "the leader owns a group and another voter could lead without", (*ruling).handOver},
		{"C8", "all members can do more", (*ruling).raiseFeature},
		{"C9", "a node may still run what only a fence can end", (*ruling).fenceLost},
		{"C10", "a node that was to be fenced is heard again", (*ruling).fenceBack},
	}
}

func (r *ruling) conf(c memberChange) bool {
	if r.v.ConfBusy || r.d.Conf != nil {
		return false
	}
	r.d.Conf = &c
	return true
}

func (r *ruling) admit() bool {
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		v := r.v.node(n.Name)
		if !v.Direct || !v.Asks || v.Member == 0 || v.Member == n.Member || r.s.Config.Effective.node(n.Name) == nil || r.owns(n.Name) && n.Member != 0 && !v.Heard {
			continue
		}
		return r.conf(memberChange{Node: n.Name, Remove: n.Member, Add: v.Member, Why: "it asks to join"})
	}
	return false
}

func (r *ruling) promote() bool {
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		v := r.v.node(n.Name)
		if n.Member != 0 && !n.Voter && n.Joined && !n.Left && v.Direct && v.CaughtUp && !v.Leaving && v.Member == n.Member && r.s.Config.Effective.node(n.Name) != nil {
			return r.conf(memberChange{Node: n.Name, Add: n.Member, Voter: true, Why: "it has caught up"})
		}
	}
	return false
}

func (r *ruling) demote() bool {
	if r.voters() != 2 {
		return false
	}
	for i := range r.s.Nodes {
		if n := &r.s.Nodes[i]; n.Voter && n.Left && n.Name != r.v.Self && !r.owns(n.Name) {
			return r.conf(memberChange{Node: n.Name, Add: n.Member, Why: "it left, and the other decides alone"})
		}
	}
	return false
}

func (r *ruling) remove() bool {
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		if n.Member != 0 && r.s.Config.Effective.node(n.Name) == nil && !r.owns(n.Name) && n.Name != r.v.Self {
			return r.conf(memberChange{Node: n.Name, Remove: n.Member, Why: "it is no longer in the config"})
		}
	}
	return false
}

func (r *ruling) lifeSigns() bool {
	matched := false
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		v := r.v.node(n.Name)
		switch {
		case n.Name == r.v.Self || n.Member == 0:
		case !v.Heard && !v.Awaited && n.Lost == nil && !n.Left:
			r.propose(Entry{Kind: entryNode, Node: n.Name, Rule: "C5", Why: notHeard(v.Age)})
			matched = true
		case v.Heard && n.Lost != nil:
			r.propose(Entry{Kind: entryNode, Node: n.Name, On: true, Rule: "C5", Why: "heard"})
			matched = true
		case v.Heard:
			r.after(r.s.Config.Effective.Heartbeat.Deadtime.D() - v.Age)
		}
	}
	return matched
}

// notHeard puts the age in words; a fresh leader knows none.
func notHeard(age time.Duration) string {
	if age > 24*time.Hour {
		return "not heard since this node leads"
	}
	return "not heard for " + age.Round(time.Millisecond).String()
}

func (r *ruling) expiries() bool {
	matched := false
	for i := range r.s.Resources {
		f := &r.s.Resources[i]
		c := r.s.Config.Effective.group(f.Group)
		if c == nil || c.FailureTimeout == 0 {
			continue
		}
		left := c.FailureTimeout.D() - (r.v.Clock - f.Clock)
		if left > 0 {
			r.after(left)
			continue
		}
		r.propose(Entry{Kind: entryExpire, Group: f.Group, Resource: f.Resource, Node: f.Node, Until: f.Clock, Rule: "C6",
			Why: "the last was over " + c.FailureTimeout.String() + " ago"})
		matched = true
	}
	for i := range r.s.Groups {
		g := &r.s.Groups[i]
		if g.Pin == nil || g.Pin.Until == 0 {
			continue
		}
		if left := g.Pin.Until - r.v.Clock; left > 0 {
			r.after(left)
			continue
		}
		r.propose(Entry{Kind: entryExpire, Group: g.Name, Until: g.Pin.Until, Rule: "C6", Why: "its time is over"})
		matched = true
	}
	if c := r.s.Config; c.LongestL > c.Effective.lease() {
		if left := 2*c.LongestL - r.v.InForce; left > 0 {
			r.after(left)
		} else {
			r.propose(Entry{Kind: entryExpire, Epoch: c.Generation, Rule: "C6", Why: "every longer lease is over"})
			matched = true
		}
	}
	return matched
}

// handOver keeps the death of an owner from being the death of the leader too.
func (r *ruling) handOver() bool {
	leaving := r.v.node(r.v.Self).Leaving || r.s.Config.Effective.node(r.v.Self) == nil
	if !leaving && !r.owns(r.v.Self) && !r.s.Config.Effective.isWitness(r.v.Self) {
		return false
	}
	best, rank := "", 0
	for i := range r.s.Nodes {
		n := &r.s.Nodes[i]
		v := r.v.node(n.Name)
		if n.Name == r.v.Self || !n.Voter || n.Left || r.s.Config.Effective.node(n.Name) == nil || !v.Direct || !v.CaughtUp || v.Leaving || v.Sick != "" || !leaving && n.unsteady(r.v.Clock) > 0 {
			continue
		}
		if k := r.leaderRank(n.Name); best == "" || k > rank {
			best, rank = n.Name, k
		}
	}
	if best == "" || !leaving && rank <= r.leaderRank(r.v.Self) {
		return false
	}
	r.d.Transfer = best
	return true
}

// leaderRank: a full node without groups leads best, then a witness, then an owner.
func (r *ruling) leaderRank(node string) int {
	switch {
	case r.owns(node):
		return 0
	case r.s.Config.Effective.isWitness(node):
		return 1
	}
	return 2
}

func (r *ruling) raiseFeature() bool {
	lowest := -1
	for i := range r.s.Nodes {
		if n := &r.s.Nodes[i]; n.Member != 0 && (lowest < 0 || n.Feature < lowest) {
			lowest = n.Feature
		}
	}
	if lowest <= r.s.Feature {
		return false
	}
	r.propose(Entry{Kind: entryFeature, Feature: lowest, Rule: "C8", Why: "all members can do it"})
	return true
}

func groupRules() []groupRule {
	return []groupRule{
		{"G1", "maintenance: nothing is touched", (*ruling).inMaintenance},
		{"G2", "blocked: a stop failed, or on_fail = \"block\"", (*ruling).isBlocked},
		{"G3", "no longer in the config: stop it", (*ruling).isRemoved},
		{"G4", "revoked, and the owner has stopped it", (*ruling).hasStopped},
		{"G5", "revoked, and the owner is proven inactive", (*ruling).provenInactive},
		{"G6", "revoked: wait for a proof", (*ruling).waitForProof},
		{"G7", "the owner is lost", (*ruling).ownerLost},
		{"G8", "the owner is leaving or in standby", (*ruling).ownerRetires},
		{"G9", "pinned to another node that may take it", (*ruling).pinnedElsewhere},
		{"G10", "the owner has reached the migration threshold and another node may take it", (*ruling).overThreshold},
		{"G11", "the same, and no other node may take it, or it has failed there too: try again here", (*ruling).tryAgain},
		{"G12", "the owner cannot run it, or does not reach what it needs, and another node does", (*ruling).ownerUnfit},
		{"G13", "after, with or apart does not hold any more", (*ruling).relationsBroken},
		{"G14", "failback, and a better preferred node may take it", (*ruling).failback},
		{"G15", "the owner is heard but has no lease", (*ruling).ownerWithoutLease},
		{"G16", "no owner, and a node may take it", (*ruling).placeIt},
		{"G17", "no owner, and nobody may run it", (*ruling).nobodyMay},
		{"G18", "it runs", (*ruling).allWell},
	}
}

func (r *ruling) owned() bool { return r.g.Phase == phasePlaced || r.g.Phase == phaseStarted }

func (r *ruling) inMaintenance() (string, bool) {
	return "maintenance is on: nothing is started, stopped or moved", r.s.Maintenance != nil
}

func (r *ruling) isBlocked() (string, bool) { return r.g.Why, r.g.Phase == phaseBlocked }

func (r *ruling) isRemoved() (string, bool) {
	if !r.g.Removed || !r.owned() {
		return "", false // G4 to G6 bring what is revoked to its end
	}
	r.revokeIt()
	return "it is no longer in the config", true
}

// revokeIt asks the owner to stop.
func (r *ruling) revokeIt() {
	r.propose(Entry{Kind: entryRevoke, Group: r.g.Name, Epoch: r.g.Epoch, Node: r.g.Owner})
}

// placeOn proposes the best candidate, or no owner if there is none. It returns the node.
func (r *ruling) placeOn(proof string) string {
	if len(r.may) > 0 && r.may[0].May && !r.g.Removed && r.upstreamStarted() == "" && !r.v.Founding {
		node := r.may[0].Node
		if other := r.inTheWay(node); other != "" {
			r.room = append(r.room, makeRoom{other, r.g.Name})
			return r.release(proof)
		}
		r.propose(Entry{Kind: entryPlace, Group: r.g.Name, Epoch: r.g.Epoch, Node: node, Proof: proof})
		r.plan(node)
		return node
	}
	return r.release(proof)
}

// release lets go of a revoked group that cannot be placed at once.
func (r *ruling) release(proof string) string {
	if r.g.Phase == phaseRevoked {
		r.propose(Entry{Kind: entryFree, Group: r.g.Name, Epoch: r.g.Epoch, Proof: proof})
		r.plan("")
	}
	return ""
}

func (r *ruling) plan(owner string) {
	for i := range r.planned {
		if r.planned[i].group == r.g.Name {
			r.planned[i].owner = owner
		}
	}
}

func (r *ruling) hasStopped() (string, bool) {
	if r.g.Phase != phaseRevoked || r.g.Proof != proofStopped {
		return "", false
	}
	old := r.g.Owner
	if r.placeOn(proofStopped) == "" {
		return r.keepWhy(old + " has stopped it"), true
	}
	return r.keepWhy(old + " has stopped it"), true
}

// keepWhy carries the reason for the revoke over to the placement that follows it.
func (r *ruling) keepWhy(s string) string {
	if r.g.Why == "" {
		return s
	}
	return r.g.Why + "; " + s
}

func (r *ruling) provenInactive() (string, bool) {
	if r.g.Phase != phaseRevoked {
		return "", false
	}
	proof, text := r.g.Proof, ""
	switch {
	case proof == proofBoot:
		text = r.g.Owner + " has booted since and does not run it"
	case proof == proofLeave:
		text = r.g.Owner + " left and does not run it"
	case proof == proofDead:
		text = r.g.Owner + " is confirmed dead"
	case proof == proofFence:
		text = r.g.Owner + " is fenced"
	case r.leaseOver():
		proof, text = proofLease, r.g.Owner+"'s lease is over"
		if r.s.class(r.g) == classStateful {
			text += ", and its watchdog has had its time"
		}
	case r.v.Alone && !r.v.node(r.g.Owner).Heard:
		proof, text = proofIgnore, r.g.Owner+" is silent, and two_node = \"ignore\" takes that for death"
	default:
		return "", false
	}
	r.placeOn(proof)
	return r.keepWhy(text), true
}

// leaseOver is proof 3. Where there are two voters no lease exists for one alone, so its end proves nothing: the other
// goes on as caretaker.
func (r *ruling) leaseOver() bool {
	v := r.view()
	// While the owner is heard it will say itself that it has stopped: a slow stop is no proof.
	if n := r.v.node(r.g.Owner); v.Known == 0 || !r.s.leaseProves(r.g) || n.Heard && n.NoLease == 0 {
		return false
	}
	r.wake(v.Over)
	return r.v.Now >= v.Over
}

func (r *ruling) waitForProof() (string, bool) {
	if r.g.Phase != phaseRevoked {
		return "", false
	}
	owner, v := r.g.Owner, r.view()
	n, fencing := r.v.node(owner), r.fenceText(owner)
	ends := v.Known != 0 && r.s.leaseProves(r.g) && (!n.Heard || n.NoLease > 0)
	switch {
	case fencing != "" && ends:
		return fmt.Sprintf("%s; %s, else %s", r.g.Why, fencing, r.waitText()), true
	case fencing != "":
		return fmt.Sprintf("%s; %s", r.g.Why, fencing), true
	case n.Heard && !ends:
		return fmt.Sprintf("%s; waiting for %s to stop it", r.g.Why, owner), true
	case ends:
		return fmt.Sprintf("%s; %s", r.g.Why, r.waitText()), true
	case !r.g.Unleased && !r.s.Config.Effective.twoVoters() && len(r.s.Config.Effective.fencesOf(owner)) == 0:
		return fmt.Sprintf("%s; %s was not proven inactive, and no watchdog or fence ends it: make sure that it is off, then: hactl confirm-dead %s", r.g.Why, owner, owner), true
	}
	return fmt.Sprintf("%s; %s may still run it: make sure that it is off, then: hactl confirm-dead %s", r.g.Why, owner, owner), true
}

// waitText says what the end of the owner's lease brings, and when.
func (r *ruling) waitText() string {
	left, what := roundWait(r.view().Over.sub(r.v.Now)), r.g.Owner+"'s lease ends"
	if r.s.class(r.g) == classStateful {
		what = r.g.Owner + "'s watchdog has reset it"
	}
	if len(r.may) > 0 && r.may[0].May {
		return fmt.Sprintf("%s takes over in %s: %s", r.may[0].Node, left, what)
	}
	return fmt.Sprintf("waiting until %s, in %s", what, left)
}

// roundWait counts a long wait down in seconds, so that who follows it reads no more lines than that.
func roundWait(left time.Duration) time.Duration {
	if left >= 2*time.Second {
		return left.Round(time.Second)
	}
	return max(0, left).Round(10 * time.Millisecond)
}

func (r *ruling) ownerLost() (string, bool) {
	n := r.s.node(r.g.Owner)
	if !r.owned() || n == nil {
		return "", false
	}
	v := r.v.node(r.g.Owner)
	if v.Heard || v.Awaited || r.g.Owner == r.v.Self {
		return "", false
	}
	r.revokeIt()
	return fmt.Sprintf("%s is lost: %s", r.g.Owner, notHeard(v.Age)), true
}

func (r *ruling) ownerRetires() (string, bool) {
	if !r.owned() {
		return "", false
	}
	n, v := r.s.node(r.g.Owner), r.v.node(r.g.Owner)
	text := ""
	switch {
	case r.s.Config.Effective.node(r.g.Owner) == nil:
		text = r.g.Owner + " is no longer in the config"
	case r.s.Config.Effective.isWitness(r.g.Owner):
		text = r.g.Owner + " is a witness now"
	case n.Left || v.Leaving:
		text = r.g.Owner + " is leaving"
	case n.Standby != nil:
		text = fmt.Sprintf("%s was set to standby by %s", r.g.Owner, n.Standby.By)
	default:
		return "", false
	}
	if dep := r.dependentRunning(); dep != "" {
		return fmt.Sprintf("%s; %s runs after it and stops first", text, dep), true
	}
	r.revokeIt()
	return text, true
}

func (r *ruling) pinnedElsewhere() (string, bool) {
	p := r.g.Pin
	if !r.owned() || p == nil || p.Node == r.g.Owner || !r.mayTake(p.Node) {
		return "", false
	}
	text := fmt.Sprintf("moved to %s by %s", p.Node, p.By)
	if dep := r.dependentRunning(); dep != "" {
		return fmt.Sprintf("%s; %s runs after it and stops first", text, dep), true
	}
	r.revokeIt()
	return text, true
}

// overCount is a resource of the group that has used up its tries on the owner, or nil.
func (r *ruling) overCount() *ResourceState {
	for i := range r.s.Resources {
		f := &r.s.Resources[i]
		if f.Group == r.g.Name && f.Node == r.g.Owner && r.c != nil && f.banned(r.c) {
			return f
		}
	}
	return nil
}

// banned tells whether a node has used up its tries with a resource.
func (f *ResourceState) banned(c *GroupConfig) bool {
	return f.Fatal || c.MigrationThreshold > 0 && f.Failcount >= c.MigrationThreshold
}

func (r *ruling) overThreshold() (string, bool) {
	f := r.overCount()
	if !r.owned() || f == nil || !r.elsewhere() {
		return "", false
	}
	if left := r.bouncing(); left > 0 {
		r.after(left)
		return "", false // G11 tries it here
	}
	r.revokeIt()
	return fmt.Sprintf("%s failed on %s (%s): %s", f.Resource, r.g.Owner, times(f.Failcount), f.Reason), true
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// elsewhere tells whether some other node may take the group.
func (r *ruling) elsewhere() bool {
	return slices.ContainsFunc(r.may, func(c Candidate) bool { return c.May && c.Node != r.g.Owner })
}

// tryDelay doubles with each try: 1 s … 64 s.
func tryDelay(tries int) time.Duration { return time.Second << min(tries, 6) }

func (r *ruling) tryAgain() (string, bool) {
	f := r.overCount()
	if !r.owned() || f == nil {
		return "", false
	}
	because := "no other node may take " + r.g.Name
	if left := r.bouncing(); left > 0 && r.elsewhere() {
		because = fmt.Sprintf("%s has failed on one node after the other (moved %s) and moves again in %s", r.g.Name, times(r.g.Bounces), left.Round(time.Second))
	}
	text := fmt.Sprintf("%s failed on %s (%s: %s) and %s", f.Resource, r.g.Owner, times(f.Failcount), f.Reason, because)
	// A lasting failure must not spin: the wait doubles with each try.
	if left := tryDelay(f.Tries) - (r.v.Clock - f.Clock); left > 0 {
		r.after(left)
		return fmt.Sprintf("%s; next try in %s", text, left.Round(100*time.Millisecond)), true
	}
	r.propose(Entry{Kind: entryRetry, Group: r.g.Name, Epoch: r.g.Epoch, Resource: f.Resource, Until: f.Clock,
		Rule: "G11", Why: fmt.Sprintf("%s is tried again on %s: %s", f.Resource, r.g.Owner, because)})
	return text + "; it is tried again here", true
}

func (r *ruling) ownerUnfit() (string, bool) {
	n := r.s.node(r.g.Owner)
	if !r.owned() || n == nil || !r.elsewhere() {
		return "", false
	}
	reason := n.unfit(r.g.Name)
	if v := r.v.node(r.g.Owner); reason == "" && v.Sick != "" {
		reason = v.Sick
	}
	if reason == "" {
		reason = r.ownerBlind()
	}
	if reason == "" {
		return "", false
	}
	r.revokeIt()
	return fmt.Sprintf("%s cannot run it: %s", r.g.Owner, reason), true
}

// unfit is why the node cannot run the group, "" if it can.
func (n *NodeState) unfit(group string) string {
	for _, u := range n.Unfit {
		if u.Group == group {
			return u.Reason
		}
	}
	return ""
}

func (r *ruling) relationsBroken() (string, bool) {
	if !r.owned() || r.c == nil {
		return "", false
	}
	if text := r.upstreamStarted(); text != "" {
		r.revokeIt()
		return text, true
	}
	for _, w := range r.c.With {
		if o := r.ownerOf(w); o != "" && o != r.g.Owner {
			r.revokeIt()
			return fmt.Sprintf("it runs with %s, which is on %s", w, o), true
		}
	}
	for _, m := range r.room {
		if m.group == r.g.Name {
			r.revokeIt()
			return fmt.Sprintf("it makes room for %s, which runs apart from it, comes first in the file and has no other node", m.forGroup), true
		}
	}
	for _, other := range r.apart() {
		if r.ownerOf(other) == r.g.Owner && r.before(other) {
			r.revokeIt()
			return fmt.Sprintf("it runs apart from %s, which is on %s too and comes first in the file", other, r.g.Owner), true
		}
	}
	return "", false
}

func (r *ruling) failback() (string, bool) {
	if !r.owned() || r.c == nil || r.c.Failback != "always" || r.g.Pin != nil || r.g.Phase != phaseStarted {
		return "", false
	}
	for _, p := range r.c.Prefer {
		if p == r.g.Owner {
			return "", false
		}
		if !r.mayTake(p) || r.inTheWay(p) != "" {
			continue
		}
		// A node that comes and goes must not take its groups along each time.
		n, steady := r.s.node(p), max(30*time.Second, 30*r.s.Config.Effective.Heartbeat.Deadtime.D())
		since := n.Since
		for _, name := range r.c.Needs {
			if told := n.reach(name); told != nil {
				since = max(since, told.Since)
			}
		}
		if left := steady - (r.v.Clock - since); left > 0 {
			r.after(left)
		} else {
			r.revokeIt()
			return fmt.Sprintf("%s is preferred and may take it back", p), true
		}
	}
	return "", false
}

// ownerWithoutLease: the leader hears the owner, but the owner hears no majority and has closed itself.
func (r *ruling) ownerWithoutLease() (string, bool) {
	v := r.v.node(r.g.Owner)
	deadtime := r.s.Config.Effective.Heartbeat.Deadtime.D()
	if !r.owned() || v.NoLease == 0 || r.g.Owner == r.v.Self {
		return "", false
	}
	if v.NoLease < deadtime {
		r.after(deadtime - v.NoLease)
		return "", false
	}
	if !r.elsewhere() {
		return "", false
	}
	r.revokeIt()
	return fmt.Sprintf("%s has had no lease for %s: it does not hear a majority", r.g.Owner, v.NoLease.Round(time.Millisecond)), true
}

func (r *ruling) placeIt() (string, bool) {
	if r.g.Phase != phaseFree || r.v.Founding || r.upstreamStarted() != "" {
		return "", false
	}
	if node := r.placeOn(""); node != "" {
		return "it had no owner; " + r.may[0].Why, true
	}
	return "", false
}

func (r *ruling) nobodyMay() (string, bool) {
	if r.g.Phase != phaseFree {
		return "", false
	}
	switch up := r.upstreamStarted(); {
	case r.v.Founding:
		return "waiting until every configured node that is heard has joined", true
	case up != "":
		return up, true
	}
	if len(r.may) > 0 && r.may[0].May {
		return fmt.Sprintf("waiting for %s to leave %s", r.inTheWay(r.may[0].Node), r.may[0].Node), true
	}
	var why []string
	for _, c := range r.may {
		why = append(why, c.Why)
	}
	return "no node may run it: " + strings.Join(why, "; "), true
}

func (r *ruling) allWell() (string, bool) {
	if r.g.Phase == phasePlaced {
		return fmt.Sprintf("%s starts it: %s", r.g.Owner, r.g.Why), true
	}
	return fmt.Sprintf("it runs on %s: %s", r.g.Owner, r.g.Why), true
}
