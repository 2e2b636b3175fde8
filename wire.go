// What do the bytes of a message mean? The bodies of heartbeats, acks and holds; sealing is in seal.go. Pure.

package main

import "time"

// heartbeat is what a node says of itself at every interval, on every link.
type heartbeat struct {
	Seq         uint64        // counts this session's heartbeats; what an ack refers to
	Clock       instant       // the sender's CLOCK_BOOTTIME
	Interval    time.Duration // between two of them
	Lease       time.Duration // L that is asked for; 0: no grant asked
	Member      uint64        // raft member id; 0: has none yet
	Cluster     uint64        // first 8 bytes of the cluster id; 0: blank
	Counter     uint64        // of the incarnation
	Incarnation uint64
	Ancestors   []Ancestor // newest first, at most 4
	Flags       uint16     // flag*
	Boot        uint64     // first 8 bytes of SHA-256 of the kernel boot id
	Generation  uint64
	FileHash    uint64 // first 8 bytes of the hash of the config this node would found a cluster with, or runs
	Term        uint64
	Leader      uint64 // member id of the leader it knows; 0: none
	Applied     uint64 // raft index
	StateHash   uint64 // of the state at Applied
	Feature     uint16
	Wall        int64       // Unix ns, for the warning that clocks are apart
	Heard       []heardPeer // by name's hash
}

const (
	flagBlank = 1 << iota // has no state, wants to join or to found
	flagWitness
	flagLeaving    // hands its groups over and goes
	flagJoined     // has been joined since its kernel booted
	flagForceable  // lost its memory: its old member id will never vote again
	flagSick       // asks for no grants: its state writes fail or its agent is stuck
	flagNoLease    // owns a group and has no lease for it
	flagQuorum     // knows a leader that has a majority
	flagRestarting // will be back at once: a planned restart of the daemon
)

// heardPeer tells whom the sender hears.
type heardPeer struct {
	Name    uint32        // FNV-1a of the name
	Session uint64        // first 8 bytes of the session heard
	Age     time.Duration // since the last datagram, ms on the wire
	Links   uint16        // bit i: heard within deadtime on the i-th link of the config
}

// ack answers a heartbeat that asked for a grant.
type ack struct {
	Seq         uint64
	Member      uint64 // of the voter
	Incarnation uint64
	Lease       time.Duration // repeats the L that is granted
	Generation  uint64
	Clock       instant
	Revoked     []groupEpoch // pairs of that owner that are not granted
}

type groupEpoch struct {
	Group string
	Epoch uint64 // this and every lower one
}

// hold is what a voter tells about a revoke that it has stored.
type hold struct {
	Owner string
	Group string
	Epoch uint64
	Index uint64        // of the revoke in the log: it counts only for the one that is committed there
	Hold  time.Duration // max(0, 1.25 L - age of its last ack to the owner), when it stored the revoke
}
