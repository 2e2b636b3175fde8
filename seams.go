// Where does the pure part end? The interfaces between node.go, which decides, and the world. The daemon puts
// sockets, processes, a disk and a clock behind them; a simulator puts a seeded world there. Nothing here blocks: what
// takes time ends as an event (see node.go).

package main

import (
	"time"
)

// transport carries messages between nodes. Delivery is not promised: what must arrive is sent again by its owner.
type transport interface {
	// Heartbeat sends to every peer on every link.
	Heartbeat(body []byte)
	// Send sends one message to one peer: as a datagram on every link that is up, or over the stream to it when it
	// is larger than a datagram holds.
	Send(to string, kind messageKind, body []byte)
}

// messageKind is the first sealed byte of a datagram or stream frame.
type messageKind byte

const (
	kindHeartbeat messageKind = 1
	kindAck       messageKind = 2
	kindRaft      messageKind = 3
	kindHold      messageKind = 4
	kindHello     messageKind = 5 // answers a session that is not confirmed yet; nothing in it for the node but the echo
	kindStream    messageKind = 6 // opens a stream; never delivered
)

// received is a message that opened, was no replay, and (heartbeats apart) came from a confirmed session.
type received struct {
	From      string
	Session   uint64 // first 8 bytes of the sender's session id
	Confirmed bool   // the sender has echoed my session: it hears me, and this is no recording
	Link      string // "" for a stream
	Kind      messageKind
	Body      []byte
	At        instant
}

// actuator runs operations on resources. Each ends as an actionDone event, within its timeout and a little.
type actuator interface {
	Do(a action)
	// Cancel asks a running action to end early; its actionDone still comes.
	Cancel(id uint64)
	// Lease says until when a group's addresses may answer: a moment that moves with each grant, openForGood when nobody
	// may take the group over unasked, or 0 for at once. What the kernel enforces it needs nobody to end it.
	Lease(group string, until instant)
	// Suspend shuts, Resume opens the traffic of a group's addresses at once, without waiting for running actions.
	Suspend(group string)
	Resume(group string)
	// Watch turns the eyes of a started resource on or off; what they notice comes as noticed events.
	Watch(group, resource string, on bool)
	// Announce tells the network again who has the group's addresses.
	Announce(group string)
	// Ping sends an echo; whether it was answered comes as a Pinged event, within the timeout and a little.
	Ping(p ping)
}

// ping is one echo to a target outside the cluster.
type ping struct {
	ID      uint64
	Address string // by ICMP
	TCP     string // or a connection
	Timeout time.Duration
}

// pinged is the event that ends it.
type pinged struct {
	ID      uint64
	Failure string // "": it was answered
}

// Operations.
const (
	opStart   = "start"
	opStop    = "stop"
	opMonitor = "monitor" // also the probe after a daemon start
	opFit     = "fit"
	opForce   = "force" // a harder stop, of those types that have one
	opThaw    = "thaw"  // let what waits for a word about its peers go on without them
)

type action struct {
	ID       uint64
	Group    string
	Resource string
	Epoch    uint64
	Op       string
	Timeout  time.Duration
	Hint     startHint
	Ready    bool           // fit: the node that runs it may be helped (readier)
	Rejoin   string         // fit, monitor: "", or how it ends a split brain (rejoiner)
	Known    uint64         // raft index of the state when it was begun
	Config   ResourceConfig // a changed resource is stopped under its old one
}

// actionDone is the event that ends an action.
type actionDone struct {
	action
	Condition condition // monitor
	Copies    *copies   // monitor, of what is replicated: nil where that could not be read
	Err       string    // "" for success; monitor: why it is failed or unknown
	Tail      string
	Hopeless  bool // errHopeless
	Waiting   bool // errWaiting
	TimedOut  bool
	Took      time.Duration
}

// noticed is the event of a watcher.
type noticed struct {
	Group, Resource string
	Reason          string
}

// watchdog resets this host unless it is petted. What became of a call comes as a dogState. nil: the host has none.
type watchdog interface {
	// Arm starts it, for a grant that ends then: one that has ended when it comes to it starts nothing. A timeout of 0 is
	// for one that runs already, and leaves it as it is set.
	Arm(device string, timeout time.Duration, until instant)
	// Pet puts the reset off, for a grant that ends then: one that has ended when it comes to it changes nothing.
	Pet(until instant)
	// Disarm lets it rest. A process that ends without that leaves it running.
	Disarm()
	// Look says whether the device could be used, and what it is. It does not start it.
	Look(device string)
	// Reset resets the host at once, without a word to disks or processes.
	Reset(why string)
}

// fencer calls fence devices. Each call ends as a fenceDone event, within its timeout and a little.
type fencer interface {
	Fence(s fenceStep)
	// CancelFence asks a running call to end early; its fenceDone still comes.
	CancelFence(id uint64)
}

// fenceStep is one call of one device.
type fenceStep struct {
	ID      uint64
	Device  FenceConfig
	Node    string // whom it is about; "" for a monitor of the device itself
	Action  string // off, status, monitor
	Timeout time.Duration
}

// fenceDone is the event that ends a call.
type fenceDone struct {
	fenceStep
	Power string // status: on or off
	Err   string // "": the device did what it was told, or said what it was asked
	Took  time.Duration
}

// store keeps what must survive. Save is asynchronous and in order; a saved event follows each batch.
type store interface {
	Save(w write)
	// Replace puts a new folder in the place of the old one at once: this member, and a forged snapshot or nothing.
	// The old one is kept under a name that begins with why. A saved event follows. Failing writes before it are
	// given up.
	Replace(why string, m member, w write)
}

// write is one batch that becomes durable as a whole, in this order. Done is handed back in the saved event.
type write struct {
	Done      uint64
	Snapshot  []byte   // raft snapshot (protobuf), replaces everything before it
	HardState []byte   // raft hard state (protobuf)
	Entries   [][]byte // raft entries (protobuf), each overwriting from its index on
	Sync      bool     // false: durability may wait for the next batch
}

// saved is the event that a batch is durable, or that it could not be made so.
type saved struct {
	Done uint64
	Err  string
	Took time.Duration
}
