// What do all nodes agree on? The replicated state and the entries that change it. Data only: engine.go applies the
// entries. docs/design.md sections 2 and 3 say what each part is for. Every slice is sorted by its key and nothing is
// a map, so that equal states are equal bytes.

package main

import "time"

// State is the same on every node that has applied the same entries.
type State struct {
	Clock       time.Duration   `json:"clock"` // cluster time: since bootstrap, moved forward by each entry
	Index       uint64          `json:"index"` // raft index of the last applied entry
	ClusterID   string          `json:"cluster_id"`
	Incarnation Incarnation     `json:"incarnation"`
	Feature     int             `json:"feature"` // Apply behaves by it; raised when all members report more
	Config      ConfigState     `json:"config"`
	LastEpoch   uint64          `json:"last_epoch"`          // never used twice, whatever becomes of a group
	Bootstrap   bool            `json:"bootstrap,omitempty"` // founded by command, without waiting for the others
	Requests    []uint64        `json:"requests,omitempty"`  // the newest ids of operators' entries
	Maintenance *Mark           `json:"maintenance,omitempty"`
	ConfIndex   uint64          `json:"conf_index"`        // raft index of the last change of members
	Nodes       []NodeState     `json:"nodes"`             // by name
	Groups      []GroupState    `json:"groups"`            // by name
	Resources   []ResourceState `json:"resources"`         // by group, resource, node; only where there is something to remember
	Fences      []FenceState    `json:"fences,omitempty"`  // by node
	Devices     []DeviceFault   `json:"devices,omitempty"` // by device and node
	Stale       []StaleCopy     `json:"stale,omitempty"`   // by DRBD's resource and node
	History     []Event         `json:"history"`           // oldest first, at most historyMax
}

const (
	historyMax   = 500
	requestMax   = 64
	featureLevel = 1 // what this binary can do
)

// Incarnation tells one life of the cluster from another; see docs/design.md section 7.
type Incarnation struct {
	Counter   uint64     `json:"counter"`
	ID        uint64     `json:"id"`
	Ancestors []Ancestor `json:"ancestors,omitempty"` // newest first, at most 8
	By        string     `json:"by,omitempty"`        // who forced it
	Why       string     `json:"why,omitempty"`
}

// Ancestor is an incarnation that this one comes from, with the raft index at which it was left.
type Ancestor struct {
	ID   uint64 `json:"id"`
	Fork uint64 `json:"fork"`
}

type ConfigState struct {
	Generation uint64        `json:"generation"`
	Hash       string        `json:"hash"` // SHA-256 of the text, hex
	Text       []byte        `json:"text"` // gzip
	Effective  *Config       `json:"effective"`
	By         string        `json:"by"`   // user@node
	Wall       int64         `json:"wall"` // Unix ns, for people
	Clock      time.Duration `json:"clock"`
	LongestL   time.Duration `json:"longest_l"` // the longest lease that an owner may still hold
}

// Mark says who set something, and when.
type Mark struct {
	By    string        `json:"by"`
	Clock time.Duration `json:"clock"`
	Wall  int64         `json:"wall"`
}

type NodeState struct {
	Name     string        `json:"name"`
	Member   uint64        `json:"member"` // raft id; 0: never joined
	Voter    bool          `json:"voter"`
	Session  uint64        `json:"session"`
	Boot     string        `json:"boot"` // kernel boot id
	Feature  int           `json:"feature"`
	Joined   bool          `json:"joined"` // has sent a join entry since it became a member
	Left     bool          `json:"left"`   // said goodbye, has not joined since
	Lost     *Mark         `json:"lost,omitempty"`
	Standby  *Mark         `json:"standby,omitempty"`
	Unfit    []Unfit       `json:"unfit,omitempty"` // by group
	Reach    []Reach       `json:"reach,omitempty"` // by ping; what it has said in this session
	Flaps    int           `json:"flaps,omitempty"` // how often it was lost, each time not long after the time before
	Flapped  time.Duration `json:"flapped,omitempty"`
	Since    time.Duration `json:"since"`              // cluster time since which it is a member that is heard
	Serial   uint64        `json:"serial"`             // last failure report of this session that was counted
	Enforce  Enforcement   `json:"enforce"`            // what ends a lease there, as this session has said last
	Enforced uint64        `json:"enforced,omitempty"` // raft index of that word
}

// Unfit says why a node cannot run a group, though it is well otherwise.
type Unfit struct {
	Group  string `json:"group"`
	Reason string `json:"reason"`
}

// Reach is what a node says of a target outside the cluster.
type Reach struct {
	Ping   string        `json:"ping"`
	Reason string        `json:"reason,omitempty"` // why it does not reach it; "": it does
	Since  time.Duration `json:"since"`            // cluster time
}

// Phases of a group; docs/design.md section 2.
const (
	phaseFree    = "free"
	phasePlaced  = "placed"
	phaseStarted = "started"
	phaseRevoked = "revoked"
	phaseBlocked = "blocked"
)

type GroupState struct {
	Name    string        `json:"name"`
	Phase   string        `json:"phase"`
	Owner   string        `json:"owner,omitempty"`
	Epoch   uint64        `json:"epoch"`
	Since   time.Duration `json:"since"` // cluster time of the last change of phase
	Wall    int64         `json:"wall"`
	Rule    string        `json:"rule,omitempty"` // of the decision that led here
	Why     string        `json:"why,omitempty"`
	Stopped bool          `json:"stopped,omitempty"` // the owner has reported this epoch stopped
	Clean   bool          `json:"clean,omitempty"`   // the owner before this one had reported it stopped
	Proof   string        `json:"proof,omitempty"`   // phase revoked: proven inactive by this; see proof* below
	Pin     *Pin          `json:"pin,omitempty"`
	Bounces int           `json:"bounces,omitempty"` // how often it moved since it had failed, each time not long after the time before
	Bounced time.Duration `json:"bounced,omitempty"`
	Removed bool          `json:"removed,omitempty"` // no longer in the config: stop it, then forget it
	Revoked []Revocation  `json:"revoked,omitempty"` // by node
	// Unleased: the end of a lease proves nothing for this epoch, since it was left running by a goodbye in maintenance
	// was blocked, was placed in a parent incarnation, or its owner may not know yet that maintenance is over.
	Unleased bool `json:"unleased,omitempty"`
	// Stateful: something of it was, or is, under this epoch. An edit relaxes that only when the owner says that it obeys.
	Stateful bool `json:"stateful,omitempty"`
	// Guards are the DRBD resources that keep it from harm where its owner is silent; none: only a reset of the host does.
	Guards []string `json:"guards,omitempty"`
	// Last is the effective config of a removed group, so that its owner can still stop it.
	Last *GroupConfig `json:"last,omitempty"`
}

// Revocation bars a node from every epoch of the group up to this one.
type Revocation struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Index uint64 `json:"index"`
}

type Pin struct {
	Node  string        `json:"node"`
	Until time.Duration `json:"until,omitempty"` // cluster time; 0: until unmove
	Mark
}

type ResourceState struct {
	Group     string        `json:"group"`
	Resource  string        `json:"resource"`
	Node      string        `json:"node"`
	Failcount int           `json:"failcount"`
	Tries     int           `json:"tries,omitempty"` // how often it was tried again here past the threshold
	Fatal     bool          `json:"fatal,omitempty"` // a start failed, or on_fail = "move": no more tries on this node by itself
	Op        string        `json:"op"`
	Reason    string        `json:"reason"`
	Tail      string        `json:"tail,omitempty"`
	Clock     time.Duration `json:"clock"`
	Wall      int64         `json:"wall"`
}

// StaleCopy marks what a node has of a DRBD resource as older than what was written elsewhere since; see guard.go.
type StaleCopy struct {
	Resource string        `json:"resource"` // DRBD's name of it, so that a group can be renamed
	Node     string        `json:"node"`
	ID       uint64        `json:"id"`    // raft index of the entry that made the mark: a new one each time
	By       string        `json:"by"`    // the owner that goes on without it
	Group    string        `json:"group"` // then
	Clock    time.Duration `json:"clock"`
	Wall     int64         `json:"wall"`
	GivenUp  bool          `json:"given_up,omitempty"` // by an operator, after a split brain: what this copy alone has is thrown away
}

// Event is a line of the history.
type Event struct {
	Index uint64        `json:"index"`
	Clock time.Duration `json:"clock"`
	Wall  int64         `json:"wall"`
	ID    string        `json:"id"` // stable, from the table in event.go
	Node  string        `json:"node,omitempty"`
	Group string        `json:"group,omitempty"`
	Text  string        `json:"text"`
}

// Kinds of entries.
const (
	entryFound       = "found" // first entry of a cluster or of a forced incarnation
	entryConfig      = "config"
	entryJoin        = "join"
	entryNode        = "node"
	entryPlace       = "place"
	entryRevoke      = "revoke"
	entryFree        = "free"
	entryStarted     = "started"
	entryStopped     = "stopped"
	entryFailure     = "failure"
	entryUnfit       = "unfit"
	entryReach       = "reach"
	entryEnforce     = "enforce"
	entryRetry       = "retry"
	entryExpire      = "expire"
	entryPin         = "pin"
	entryUnpin       = "unpin"
	entryStandby     = "standby"
	entryMaintenance = "maintenance"
	entryCleanup     = "cleanup"
	entryConfirmDead = "confirm-dead"
	entryLeave       = "leave"
	entryMember      = "member" // rides on a raft conf change
	entryFeature     = "feature"
	entryFence       = "fence"
	entryFenced      = "fenced"
	entryUnfence     = "unfence"
	entryDevice      = "device"
	entryMark        = "mark"
	entryUnmark      = "unmark"
	entryResolve     = "resolve"
)

// What proves that the owner of a revoked epoch runs it no more.
const (
	proofStopped = "stopped"      // it said so
	proofBoot    = "boot"         // it has booted since and does not run it
	proofLeave   = "leave"        // it said goodbye
	proofDead    = "confirm-dead" // an operator vouches for it
	proofFence   = "fence"        // it was fenced, and its devices confirm that it is off
	proofLease   = "lease"        // its lease is over
	proofIgnore  = "ignore"       // two_node = "ignore": silence is taken for death
)

// Entry is what goes through the log, as JSON. Only the fields of its kind are set.
type Entry struct {
	Kind  string        `json:"kind"`
	Clock time.Duration `json:"clock"` // cluster time at the proposer
	Wall  int64         `json:"wall"`  // Unix ns at the proposer, for people
	By    string        `json:"by"`    // node, or user@node for an operator's
	Rule  string        `json:"rule,omitempty"`
	Why   string        `json:"why,omitempty"`

	Node     string   `json:"node,omitempty"`
	Group    string   `json:"group,omitempty"`
	Resource string   `json:"resource,omitempty"` // mark, unmark: DRBD's name of it
	Peer     string   `json:"peer,omitempty"`     // mark, unmark, resolve: whose copy is meant
	Ping     string   `json:"ping,omitempty"`
	Epoch    uint64   `json:"epoch,omitempty"`
	Proof    string   `json:"proof,omitempty"`
	Session  uint64   `json:"session,omitempty"`
	Boot     string   `json:"boot,omitempty"`
	Member   uint64   `json:"member,omitempty"`
	Voter    bool     `json:"voter,omitempty"`
	Helper   string   `json:"helper,omitempty"`  // fence: who shall carry it out; fenced: who has
	On       bool     `json:"on,omitempty"`      // node: alive; standby, maintenance: on; failure: overcome since; leave: false; fence: an operator's; fenced: confirmed
	Running  []string `json:"running,omitempty"` // join, leave: groups that are not read back as stopped
	Feature  int      `json:"feature,omitempty"`

	Op     string        `json:"op,omitempty"`
	Reason string        `json:"reason,omitempty"`
	Tail   string        `json:"tail,omitempty"`
	Serial uint64        `json:"serial,omitempty"`
	Until  time.Duration `json:"until,omitempty"`

	Enforce     *Enforcement `json:"enforce,omitempty"` // join, enforce
	Config      *ConfigState `json:"config,omitempty"`
	Base        uint64       `json:"base,omitempty"` // config: generation, join: session, fence: request, unmark: id, enforce: index of its last word that the proposer saw; a stale one is refused. started: generation that all of the group follows
	Incarnation *Incarnation `json:"incarnation,omitempty"`
	Request     uint64       `json:"request,omitempty"` // an operator's: applied once, however often proposed
}

func (s *State) node(name string) *NodeState {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// reach is what the node has said of a target, nil if nothing yet.
func (n *NodeState) reach(ping string) *Reach {
	for i := range n.Reach {
		if n.Reach[i].Ping == ping {
			return &n.Reach[i]
		}
	}
	return nil
}

func (n *NodeState) reaches(ping string) bool {
	r := n.reach(ping)
	return r != nil && r.Reason == ""
}

func (s *State) group(name string) *GroupState {
	for i := range s.Groups {
		if s.Groups[i].Name == name {
			return &s.Groups[i]
		}
	}
	return nil
}

func (s *State) resource(group, name, node string) *ResourceState {
	for i := range s.Resources {
		if r := &s.Resources[i]; r.Group == group && r.Resource == name && r.Node == node {
			return r
		}
	}
	return nil
}
