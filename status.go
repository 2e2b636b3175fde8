// What does the operator see? The one document behind `status`, `status --json`, `why` and the socket. Pure: built from
// the state and what this node knows, by node.go; rendered by cmd_status.go.

package main

import (
	"slices"
	"time"
)

// Status is the answer to GET /v1/status. Times of people are Unix seconds; ages are seconds.
type Status struct {
	Cluster     string        `json:"cluster"`
	Node        string        `json:"node"` // who answers
	Version     string        `json:"version"`
	Wall        time.Time     `json:"time"`
	Overall     string        `json:"overall"` // ok, degraded, down; see Exit
	Generation  uint64        `json:"config_generation"`
	Incarnation uint64        `json:"incarnation"` // counter
	Leader      string        `json:"leader"`      // "" : none known
	Quorum      bool          `json:"quorum"`      // a leader with a majority is known here
	Voters      int           `json:"voters"`
	Caretaker   bool          `json:"caretaker"`
	Maintenance *Mark         `json:"maintenance,omitempty"`
	Enforcer    string        `json:"enforcer"`       // what backs "never two" on this node, in words
	Gate        string        `json:"gate,omitempty"` // what ends its addresses' leases: bpf, valid_lft, none
	Nodes       []NodeStatus  `json:"nodes"`
	Links       []LinkStatus  `json:"links"`
	Pings       []PingStatus  `json:"pings,omitempty"`
	Groups      []GroupStatus `json:"groups"`
	Problems    []Problem     `json:"problems"`
}

// Problem is one sentence of each: what, since when, why, what next, the command.
type Problem struct {
	ID       string  `json:"id"`       // stable, as in docs/events.md
	Severity string  `json:"severity"` // warning, error
	What     string  `json:"what"`
	Since    float64 `json:"since_seconds,omitempty"` // ago
	Why      string  `json:"why,omitempty"`
	Next     string  `json:"next,omitempty"`    // what happens by itself, or what to do
	Command  string  `json:"command,omitempty"` // to type
}

type NodeStatus struct {
	Name   string   `json:"name"`
	Role   string   `json:"role"`  // full, witness
	State  string   `json:"state"` // online, lost, fenced, left, standby, joining, never seen
	Since  float64  `json:"since_seconds,omitempty"`
	Leader bool     `json:"leader"`
	Voter  bool     `json:"voter"`
	Heard  bool     `json:"heard"`                          // by the node that answers
	Links  []string `json:"links_heard"`                    // names
	Key    string   `json:"key,omitempty"`                  // id of the key that it seals with
	Clock  float64  `json:"clock_offset_seconds,omitempty"` // wall clock ahead of ours
	// Enforce is what ends a lease there, nil where it has not said so or runs nothing.
	Enforce *Enforcement `json:"enforce,omitempty"`
}

type LinkStatus struct {
	Name      string   `json:"name"`
	Interface string   `json:"interface"`
	State     string   `json:"state"`            // up, no carrier, missing
	Silent    []string `json:"silent,omitempty"` // nodes heard on another link but not on this one
}

// PingStatus is a target outside the cluster, and what each full node says of it.
type PingStatus struct {
	Name   string      `json:"name"`
	Target string      `json:"target"`
	Nodes  []PingReach `json:"nodes"`
}

type PingReach struct {
	Node   string  `json:"node"`
	State  string  `json:"state"` // reached, lost, unknown
	Reason string  `json:"reason,omitempty"`
	Since  float64 `json:"since_seconds,omitempty"`
}

type GroupStatus struct {
	Name      string           `json:"name"`
	State     string           `json:"state"` // started, impaired (started, and not all of it runs), starting, stopping, waiting, stopped, blocked
	Owner     string           `json:"owner,omitempty"`
	Epoch     uint64           `json:"epoch"`
	Since     float64          `json:"since_seconds,omitempty"`
	Rule      string           `json:"rule,omitempty"`
	Why       string           `json:"why,omitempty"`
	Lease     float64          `json:"lease_seconds,omitempty"` // left, when this node is the owner
	Data      string           `json:"data,omitempty"`          // how many good copies there are: "is safe on alice and bob"; "": it has none to copy
	Pin       *Pin             `json:"pin,omitempty"`
	PinAge    float64          `json:"pin_age_seconds,omitempty"`
	PinLeft   float64          `json:"pin_left_seconds,omitempty"`
	Resources []ResourceStatus `json:"resources"`
	Nodes     []Candidate      `json:"nodes"` // each full node: may it take the group, and why (not)
}

// Candidate is a node seen from a group; what `why` prints.
type Candidate struct {
	Node string `json:"node"`
	May  bool   `json:"may"`
	Why  string `json:"why"` // a sentence
}

type ResourceStatus struct {
	Name     string          `json:"name"`
	Type     string          `json:"type"`
	State    string          `json:"state,omitempty"` // as this node's agent sees it, "" on other nodes
	Detail   string          `json:"detail,omitempty"`
	Failures []ResourceState `json:"failures,omitempty"`
	Replica  *Replica        `json:"replica,omitempty"` // of what is replicated, as this node's kernel sees it
}

// Replica is a DRBD resource. Its words are DRBD's own.
type Replica struct {
	Resource string `json:"resource"`
	Role     string `json:"role"`
	Frozen   string `json:"frozen,omitempty"` // why its I/O waits
	// SplitBrain: DRBD has found that each side has what the other has not, and this daemon has seen that.
	SplitBrain bool          `json:"split_brain,omitempty"`
	Volumes    []ReplicaDisk `json:"volumes"`
	Peers      []ReplicaPeer `json:"peers"` // one for each volume of each peer
}

// hurts: this node's copy is not whole, or becomes so just now.
func (r *Replica) hurts() bool {
	return r != nil && (slices.ContainsFunc(r.Volumes, func(v ReplicaDisk) bool { return v.Disk != string(diskUpToDate) }) ||
		slices.ContainsFunc(r.Peers, func(p ReplicaPeer) bool { return p.Done != nil }))
}

type ReplicaDisk struct {
	Volume int    `json:"volume"`
	Disk   string `json:"disk"`
}

type ReplicaPeer struct {
	Name        string   `json:"name"` // as DRBD calls it
	Volume      int      `json:"volume"`
	Connection  string   `json:"connection"`
	Role        string   `json:"role"`
	Disk        string   `json:"disk"`
	Replication string   `json:"replication"`
	OutOfSync   uint64   `json:"out_of_sync_bytes"`
	Done        *float64 `json:"done_percent,omitempty"` // of a sync or verify that runs
	Left        float64  `json:"left_seconds,omitempty"` // until it is over, as DRBD reckons; 0: not told
}

// Exit is the exit status of `hactl status`: 0 all well, 1 degraded, 2 down. (3, no daemon, is the client's.)
func (s *Status) Exit() int {
	switch s.Overall {
	case "ok":
		return 0
	case "degraded":
		return 1
	}
	return 2
}
