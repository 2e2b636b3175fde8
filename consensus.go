// How does etcd's raft become one part among others? An adapter around raft.RawNode with PreVote, CheckQuorum and
// asynchronous storage writes. It must not touch a clock, a disk, a socket or a goroutine: ticks, messages and finished
// writes come in as calls, everything else goes out in Ready. Equal calls (and equal random numbers for raft's election
// jitter, which it draws from crypto/rand; tests fix them with testing/cryptotest) give equal output.
//
// The contract of the caller, who runs on one goroutine:
//
//  1. After any call, call Ready and do all of it before the next call: hand Writes to the store in order, send
//     Messages at once, install Snapshot if there is one, apply Committed in order (ApplyConf for those with Conf), call
//     Applied with the last index, and, when CompactDue says so, Compact.
//  2. When the store has saved a write, call Persisted with its token, in order. Only that releases the votes and
//     append-acks which depend on it; heartbeats and appends to others never wait for the disk. A write that failed is
//     simply not reported: the store repeats it until it is saved.
//  3. After errRaftPanic nothing works any more: the state on disk and what the cluster says do not agree. Set the
//     folder aside and come back under a new member id.
//
// Beyond raft's own contract, membership changes are handled so that a crash can never leave a cluster in which the one
// who could be elected is the one who believes it may not. A leader that loses power forgets the entries that it had
// sent but not stored, and a commit index that it had not stored; a learner that is ahead of it refuses it its vote and
// never campaigns. Therefore (a) a membership change is applied only when its commit is durable here, (b) others are not
// told of that commit before, (c) learners, and voters that a change in the log makes learners, get only entries that are
// durable here, and (d) a member whose log makes another one the only voter leaves it to that one to be elected.
//
// An entry that is in a log and not committed may be cut off again (Persisted tells), but it can also come back: another
// node may hold it still and be elected. Only when something else was committed at its index, or a snapshot covers that
// index, is it certain that it never was and never will be.

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

var (
	// errRaftPanic: raft found its own state impossible. See the caller's contract, 3.
	errRaftPanic = errors.New("the raft state contradicts the cluster")
	// errOtherIncarnation: the message belongs to another life of the cluster and was dropped.
	errOtherIncarnation = errors.New("raft message of another incarnation")
	// errBadMessage: the message cannot come from a sane peer and was dropped.
	errBadMessage = errors.New("malformed raft message")
	// errNoLeader: the proposal was dropped; propose again when a leader is known.
	errNoLeader = errors.New("no leader takes proposals now")
	// errNotLeader: only the leader may do this.
	errNotLeader = errors.New("this node is not the leader")
	// errConfPending: another membership change is not applied yet; propose again later.
	errConfPending = errors.New("another membership change is under way")
)

const (
	maxMessageSize  = 256 << 10 // of the entries in one append; one larger entry still goes alone
	maxInflight     = 64        // appends to one peer without an answer
	maxUncommitted  = 16 << 20  // proposals beyond are dropped until some are committed
	compactEntries  = 1000
	compactBytes    = 4 << 20
	trailingEntries = 500 // kept in memory behind a snapshot: a peer that is a little behind needs no snapshot
	maxTerm         = 1 << 62
	readyRounds     = 64
)

type consensusConfig struct {
	ID          uint64 // member id
	Incarnation uint64
	Life        uint32 // counts the instances made in this process: tokens of an earlier one are ignored
	// Restored is what the store loaded or forge made; its snapshot comes with the first Ready. Nil or without a
	// snapshot: blank, waits for one from the leader and never campaigns.
	Restored       *restored
	ElectionTicks  int // an election starts after 1 to 2 times this many ticks without a leader
	HeartbeatTicks int
	Log            *slog.Logger // nil: silent
}

type consensus struct {
	id, incarnation uint64
	life            uint64
	electionTicks   int
	log             *slog.Logger
	node            *raft.RawNode
	mem             *raft.MemoryStorage // what is stable; see Persisted
	conf            *raftpb.ConfState   // as of applied
	sorted          membership          // of sortedFor
	sortedFor       *raftpb.ConfState
	status          consensusStatus // while known
	known           bool
	applied         uint64
	hard            *raftpb.HardState // the newest that a write carried
	serial          uint64
	writes          []write // made since the last Ready
	pending         []*pendingWrite
	queued          []pendingApply    // not handed out yet, see membership changes above
	applying        []pendingApply    // handed out
	confLog         []uint64          // membership changes in the log whose commit is not durable
	silent          int               // ticks without the leader
	confLast        uint64            // index of the last membership change that was ever in the log
	savedCommit     uint64            // in the newest write that was saved
	outbox          []outgoing        // released by Persisted since the last Ready
	installed       *raftpb.Snapshot  // durable, not yet handed to the state machine
	sending         []snapshotSending // by member
	confChanged     bool              // since the last snapshot
	grown           int               // bytes of entries applied since the last snapshot
	snapshotIndex   uint64
	dead            error
}

// pendingWrite is an append that raft asked for and that is not durable yet.
type pendingWrite struct {
	done      uint64
	snapshot  *raftpb.Snapshot
	hard      *raftpb.HardState
	entries   []*raftpb.Entry
	sync      bool
	responses []*raftpb.Message
	held      []*raftpb.Message // to learners
}

// pendingApply is a batch of committed entries that is not applied yet.
type pendingApply struct {
	entries  []logEntry
	last     uint64
	response *raftpb.Message
}

type snapshotSending struct {
	to    uint64
	ticks int
}

// ready is all that is to be done; see the caller's contract.
type ready struct {
	Messages  []outgoing
	Writes    []write
	Snapshot  *appliedSnapshot
	Committed []logEntry
}

type outgoing struct {
	To       uint64 // member id
	Data     []byte
	Snapshot bool // tell ReportSnapshot what became of it
}

// appliedSnapshot takes the place of the whole state.
type appliedSnapshot struct {
	Index, Term uint64
	Data        []byte
	Members     membership
}

// logEntry is one of the log. Data is empty in the entry with which a leader starts its term.
type logEntry struct {
	Index, Term uint64
	Data        []byte
	Conf        *confChange // nil: an ordinary entry
}

// stable tells what a write has made durable here, committed or not.
type stable struct {
	Entries []logEntry
	Cut     uint64 // entries from this index on had been stable before and are overwritten; 0: none
}

func newConsensus(cfg consensusConfig) (*consensus, error) {
	c := &consensus{
		id:            cfg.ID,
		incarnation:   cfg.Incarnation,
		life:          uint64(cfg.Life) << 32,
		electionTicks: cfg.ElectionTicks,
		log:           cfg.Log,
		mem:           raft.NewMemoryStorage(),
		conf:          &raftpb.ConfState{},
		hard:          &raftpb.HardState{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.ElectionTicks <= cfg.HeartbeatTicks || cfg.HeartbeatTicks < 1 || cfg.ID == raft.None || raft.IsLocalMsgTarget(cfg.ID) {
		return nil, fmt.Errorf("start raft: member %x with election %d, heartbeat %d ticks is not possible",
			cfg.ID, cfg.ElectionTicks, cfg.HeartbeatTicks)
	}
	err := c.guard(func() error {
		if err := c.load(cfg.Restored); err != nil {
			return err
		}
		var err error
		c.node, err = raft.NewRawNode(&raft.Config{
			ID:                        cfg.ID,
			ElectionTick:              cfg.ElectionTicks,
			HeartbeatTick:             cfg.HeartbeatTicks,
			Storage:                   c.mem,
			Applied:                   c.applied,
			AsyncStorageWrites:        true,
			MaxSizePerMsg:             maxMessageSize,
			MaxUncommittedEntriesSize: maxUncommitted,
			MaxInflightMsgs:           maxInflight,
			CheckQuorum:               true,
			PreVote:                   true,
			StepDownOnRemoval:         true,
			Logger:                    raftLogger{c.log.With("event", "raft")},
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return c, nil
}

// load fills the memory storage. The state machine starts at the snapshot: raft hands out the committed entries after
// it once more.
func (c *consensus) load(r *restored) error {
	if r == nil {
		return nil
	}
	if err := r.check(); err != nil {
		return err
	}
	if r.Snapshot != nil {
		snap := proto.CloneOf(r.Snapshot)
		if err := c.mem.ApplySnapshot(snap); err != nil {
			return err
		}
		c.installed = snap
		c.conf = snap.GetMetadata().GetConfState()
		c.applied = snap.GetMetadata().GetIndex()
		c.snapshotIndex = c.applied
	}
	if r.HardState != nil {
		c.hard = proto.CloneOf(r.HardState)
		if err := c.mem.SetHardState(c.hard); err != nil {
			return err
		}
	}
	c.savedCommit = c.hard.GetCommit()
	c.noteConf(r.Entries)
	c.commitDurable()
	return c.mem.Append(slices.Clone(r.Entries))
}

// guard runs what may panic inside raft. After a panic the instance is dead: its state may be half changed.
func (c *consensus) guard(do func() error) error {
	c.known = false
	return c.look(do)
}

// look is guard for what changes nothing.
func (c *consensus) look(do func() error) (err error) {
	if c.dead != nil {
		return c.dead
	}
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("raft panicked", "event", "raft-panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.dead = fmt.Errorf("%w: %v", errRaftPanic, p)
			err = c.dead
		}
	}()
	return do()
}

// must is guard for what only fails when raft, the store or the caller broke the contract.
func (c *consensus) must(do func() error) error {
	if err := c.guard(do); err != nil && c.dead == nil {
		c.dead = fmt.Errorf("%w: %w", errRaftPanic, err)
	}
	return c.dead
}

// Tick moves raft's clock on.
func (c *consensus) Tick() {
	_ = c.guard(func() error { // the next Ready returns what happened
		c.silent++
		if !c.abdicating() {
			c.node.Tick()
		} else if c.silent >= c.electionTicks && c.node.BasicStatus().Lead != raft.None {
			// Raft's own clock stands still, so it would deny its vote as long as it knows a leader.
			if err := c.node.ForgetLeader(); err != nil {
				return err
			}
		}
		c.giveUpSnapshots()
		return nil
	})
}

// Quiet tells whether that many more ticks change nothing: this node follows a leader that it has heard lately.
func (c *consensus) Quiet(ticks int) bool {
	return c.Status().Role == roleFollower && c.Status().Leader != raft.None && c.silent+ticks < c.electionTicks
}

// giveUpSnapshots reports a snapshot as failed when nobody has said what became of it in four election timeouts. Raft
// itself would wait for ever and send that peer nothing else.
func (c *consensus) giveUpSnapshots() {
	for i := 0; i < len(c.sending); i++ {
		c.sending[i].ticks++
		if c.sending[i].ticks > 4*c.electionTicks {
			c.node.ReportSnapshot(c.sending[i].to, raft.SnapshotFailure)
			c.sending = slices.Delete(c.sending, i, i+1)
			i--
		}
	}
}

// Step takes a message from a peer whose identity the transport vouches for. What is not for this incarnation or is
// malformed is dropped with an error; what contradicts the state here is errRaftPanic.
func (c *consensus) Step(from, incarnation uint64, data []byte) error {
	return c.guard(func() error {
		if incarnation != c.incarnation {
			return errOtherIncarnation
		}
		m := &raftpb.Message{}
		if err := proto.Unmarshal(data, m); err != nil {
			return fmt.Errorf("%w: %w", errBadMessage, err)
		}
		if err := checkMessage(m, from, c.id); err != nil {
			return fmt.Errorf("%w from member %x: %w", errBadMessage, from, err)
		}
		switch m.GetType() {
		case raftpb.MsgApp, raftpb.MsgHeartbeat:
			if m.GetTerm() >= c.node.BasicStatus().GetTerm() {
				c.silent = 0
			}
		case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
			if c.abdicating() {
				return nil
			}
		}
		if err := c.node.Step(m); err != nil &&
			!errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
			return fmt.Errorf("step raft message: %w", err)
		}
		return nil
	})
}

// Propose asks for an entry; a follower passes it on to the leader. It may get lost or come twice: propose it again
// until it is seen applied, or can no longer have an effect.
func (c *consensus) Propose(data []byte) error {
	return c.guard(func() error {
		if len(data) == 0 {
			return errors.New("propose entry: it is empty")
		}
		if err := c.node.Propose(data); errors.Is(err, raft.ErrProposalDropped) {
			return errNoLeader
		} else if err != nil {
			return fmt.Errorf("propose entry: %w", err)
		}
		return nil
	})
}

// Campaign starts an election now. A member that is the only voter calls it after the start.
func (c *consensus) Campaign() {
	_ = c.guard(func() error {
		if c.abdicating() {
			return nil
		}
		return c.node.Campaign()
	})
}

// TransferLeader hands leadership to a voter; Status tells when it is done or has been given up, which is after one
// election timeout. Until then proposals are dropped.
func (c *consensus) TransferLeader(to uint64) error {
	return c.guard(func() error {
		if c.node.BasicStatus().RaftState != raft.StateLeader {
			return errNotLeader
		}
		if !slices.Contains(c.conf.GetVoters(), to) {
			return fmt.Errorf("transfer leadership to member %x: it is not a voter", to)
		}
		c.node.TransferLeader(to)
		return nil
	})
}

// ReportUnreachable says that a message to that member was lost for certain.
func (c *consensus) ReportUnreachable(id uint64) {
	_ = c.guard(func() error { c.node.ReportUnreachable(id); return nil })
}

// ReportSnapshot says whether a snapshot message was delivered.
func (c *consensus) ReportSnapshot(id uint64, ok bool) {
	_ = c.guard(func() error {
		c.sending = slices.DeleteFunc(c.sending, func(s snapshotSending) bool { return s.to == id })
		status := raft.SnapshotFinish
		if !ok {
			status = raft.SnapshotFailure
		}
		c.node.ReportSnapshot(id, status)
		return nil
	})
}

// Ready hands out what is to be done. It is empty when there is nothing.
func (c *consensus) Ready() (ready, error) {
	if c.idle() {
		return ready{}, nil
	}
	var out ready
	err := c.must(func() error {
		if s := c.installed; s != nil {
			c.installed = nil
			out.Snapshot = c.install(s)
		}
		// A response that need not wait for the disk may make more to do, but each round ends closer to rest.
		for round := 0; round < readyRounds && c.node.HasReady(); round++ {
			if err := c.takeOver(c.node.Ready().Messages); err != nil {
				return err
			}
		}
		out.Committed = c.handOut()
		return nil
	})
	if err != nil {
		return ready{}, err
	}
	out.Messages, c.outbox = c.outbox, nil
	out.Writes, c.writes = c.writes, nil
	return out, nil
}

// idle tells whether there is nothing to hand out, as after most events.
func (c *consensus) idle() bool {
	nothing := false
	_ = c.look(func() error {
		nothing = c.installed == nil && len(c.queued)+len(c.outbox)+len(c.writes) == 0 && !c.node.HasReady()
		return nil
	})
	return nothing
}

// takeOver sorts what raft wants. The log comes first, since it says what must wait for it.
func (c *consensus) takeOver(messages []*raftpb.Message) error {
	for _, m := range messages {
		if m.GetTo() == raft.LocalAppendThread {
			if err := c.appendLog(m); err != nil {
				return err
			}
		}
	}
	for _, m := range messages {
		var err error
		switch m.GetTo() {
		case raft.LocalAppendThread:
		case raft.LocalApplyThread:
			err = c.queueApply(m)
		default:
			err = c.sendInTime(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *consensus) install(s *raftpb.Snapshot) *appliedSnapshot {
	md := s.GetMetadata()
	c.conf = md.GetConfState()
	c.applied = max(c.applied, md.GetIndex())
	c.snapshotIndex = md.GetIndex()
	c.confChanged, c.grown = false, 0
	return &appliedSnapshot{Index: md.GetIndex(), Term: md.GetTerm(), Data: s.GetData(), Members: c.members()}
}
