// Who votes? Membership changes as the engine sees them, without raft's types; snapshots, which carry the members; and
// what is known of each of them. Like consensus.go it must not touch a clock, a disk, a socket or a goroutine.

package main

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

type confOp string

const (
	confLearner confOp = "learner" // add as learner, or turn a voter into one
	confVoter   confOp = "voter"   // add as voter, or promote a learner
	confRemove  confOp = "remove"
)

type confStep struct {
	Op     confOp
	Member uint64
}

// confChange is one membership change. Several steps are one joint change, which the leader leaves by itself with a
// change that has no steps and no context. Context is the caller's (an Entry as JSON).
type confChange struct {
	Steps   []confStep
	Context []byte
}

// membership is sorted. Outgoing is not empty while a joint change is under way: then a majority of both Voters and
// Outgoing is needed, and LearnersNext become learners at its end.
type membership struct {
	Voters, Learners, Outgoing, LearnersNext []uint64
}

func (m membership) voter(id uint64) bool {
	return slices.Contains(m.Voters, id) || slices.Contains(m.Outgoing, id)
}
func (m membership) learner(id uint64) bool {
	return slices.Contains(m.Learners, id) || slices.Contains(m.LearnersNext, id)
}

func membersOf(cs *raftpb.ConfState) membership {
	sorted := func(ids []uint64) []uint64 {
		ids = slices.Clone(ids)
		slices.Sort(ids)
		return ids
	}
	return membership{
		Voters: sorted(cs.GetVoters()), Learners: sorted(cs.GetLearners()),
		Outgoing: sorted(cs.GetVotersOutgoing()), LearnersNext: sorted(cs.GetLearnersNext()),
	}
}

// members are those of c.conf. Nobody may change what it returns.
func (c *consensus) members() membership {
	if c.sortedFor != c.conf {
		c.sorted, c.sortedFor = membersOf(c.conf), c.conf
	}
	return c.sorted
}

func (ch *confChange) encode() (*raftpb.ConfChangeV2, error) {
	out := &raftpb.ConfChangeV2{Context: ch.Context}
	for _, s := range ch.Steps {
		if s.Member == raft.None || raft.IsLocalMsgTarget(s.Member) {
			return nil, fmt.Errorf("member id %x is not possible", s.Member)
		}
		single := &raftpb.ConfChangeSingle{NodeId: new(s.Member)}
		switch s.Op {
		case confLearner:
			single.Type = raftpb.ConfChangeAddLearnerNode.Enum()
		case confVoter:
			single.Type = raftpb.ConfChangeAddNode.Enum()
		case confRemove:
			single.Type = raftpb.ConfChangeRemoveNode.Enum()
		default:
			return nil, fmt.Errorf("operation %q on member %x is not known", s.Op, s.Member)
		}
		out.Changes = append(out.Changes, single)
	}
	return out, nil
}

func decodeConf(v2 *raftpb.ConfChangeV2) (*confChange, error) {
	if v2.GetTransition() != raftpb.ConfChangeTransitionAuto {
		return nil, fmt.Errorf("transition %s is not known", v2.GetTransition())
	}
	ch := &confChange{Context: v2.GetContext()}
	for _, s := range v2.GetChanges() {
		step := confStep{Member: s.GetNodeId()}
		switch s.GetType() {
		case raftpb.ConfChangeAddLearnerNode:
			step.Op = confLearner
		case raftpb.ConfChangeAddNode:
			step.Op = confVoter
		case raftpb.ConfChangeRemoveNode:
			step.Op = confRemove
		default:
			return nil, fmt.Errorf("operation %s is not known", s.GetType())
		}
		ch.Steps = append(ch.Steps, step)
	}
	return ch, nil
}

func decodeEntry(e *raftpb.Entry) (logEntry, error) {
	out := logEntry{Index: e.GetIndex(), Term: e.GetTerm()}
	switch e.GetType() {
	case raftpb.EntryNormal:
		out.Data = e.GetData()
		return out, nil
	case raftpb.EntryConfChangeV2:
		v2 := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(e.GetData(), v2); err != nil {
			return out, fmt.Errorf("decode membership change %d: %w", e.GetIndex(), err)
		}
		var err error
		if out.Conf, err = decodeConf(v2); err != nil {
			return out, fmt.Errorf("decode membership change %d: %w", e.GetIndex(), err)
		}
		return out, nil
	}
	return out, fmt.Errorf("entry %d has a type that this version does not know: %s", e.GetIndex(), e.GetType())
}

// dryRun applies a change to a copy. Raft itself would panic on one that is impossible, on every member.
func dryRun(cs *raftpb.ConfState, v2 *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(maxInflight, 0)}
	cfg, progress, err := confchange.Restore(changer, cs)
	if err != nil {
		return nil, err
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	if v2.LeaveJoint() {
		cfg, progress, err = changer.LeaveJoint()
	} else if auto, ok := v2.EnterJoint(); ok {
		cfg, progress, err = changer.EnterJoint(auto, v2.GetChanges()...)
	} else {
		cfg, progress, err = changer.Simple(v2.GetChanges()...)
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	return changer.Tracker.ConfState(), err
}

// future is what the members will be when all of the log is applied, of which a part may be cut off yet.
func (c *consensus) future() membership {
	conf := c.conf
	if c.confLast > c.applied {
		entries, _ := c.tail()
		for _, e := range entries {
			if e.GetType() == raftpb.EntryNormal {
				continue
			}
			v2 := &raftpb.ConfChangeV2{}
			if proto.Unmarshal(e.GetData(), v2) != nil {
				continue // was checked when it came
			}
			if next, err := dryRun(conf, v2); err == nil {
				conf = next
			}
		}
	}
	return membersOf(conf)
}

func (c *consensus) staysVoter(id uint64) bool {
	return c.members().voter(id) && (c.confLast <= c.applied || slices.Contains(c.future().Voters, id))
}

// abdicating: this member has a vote, leads not, and its log leaves one other as the only voter. That one has all that
// can be committed, so nothing is lost by waiting for it; were this member elected, it would have to commit its own end
// and might take the news of it along.
func (c *consensus) abdicating() bool {
	if c.confLast <= c.applied || c.node.BasicStatus().RaftState == raft.StateLeader || !c.members().voter(c.id) {
		return false
	}
	f := c.future()
	return len(f.Voters) == 1 && f.Voters[0] != c.id
}

// ProposeConf asks for a membership change; only the leader may. It does not demote or remove itself: the others might
// not learn that it was committed, and with two voters the other could then neither decide nor elect. Transfer
// leadership first.
func (c *consensus) ProposeConf(ch confChange) error {
	return c.guard(func() error {
		if c.node.BasicStatus().RaftState != raft.StateLeader {
			return errNotLeader
		}
		if len(ch.Steps) == 0 {
			return errors.New("propose membership change: it has no steps")
		}
		for _, s := range ch.Steps {
			if s.Member == c.id && s.Op != confVoter {
				return errors.New("propose membership change: the leader cannot give up its own vote; transfer leadership first")
			}
		}
		v2, err := ch.encode()
		if err != nil {
			return fmt.Errorf("propose membership change: %w", err)
		}
		if len(c.conf.GetVotersOutgoing()) > 0 {
			return errConfPending
		}
		if _, err := dryRun(c.conf, v2); err != nil {
			return fmt.Errorf("propose membership change: %w", err)
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(v2)
		if err != nil {
			return fmt.Errorf("encode membership change: %w", err)
		}
		m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(c.id),
			Entries: []*raftpb.Entry{{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}}}
		if err := c.node.Step(m); errors.Is(err, raft.ErrProposalDropped) {
			return errNoLeader
		} else if err != nil {
			return fmt.Errorf("propose membership change: %w", err)
		}
		// Raft does not refuse a change while another is under way: it puts an empty entry in its place, in the
		// message too.
		if m.GetEntries()[0].GetType() != raftpb.EntryConfChangeV2 {
			return errConfPending
		}
		return nil
	})
}

// ApplyConf must be called for every committed entry that has Conf, when it is applied. A change that is impossible
// changes nothing, on all members alike, and is an error to be logged.
func (c *consensus) ApplyConf(ch *confChange) (membership, error) {
	err := c.guard(func() error {
		v2, err := ch.encode()
		if err != nil {
			return fmt.Errorf("apply membership change: %w", err)
		}
		if _, err := dryRun(c.conf, v2); err != nil {
			return fmt.Errorf("apply membership change: %w", err)
		}
		c.conf = c.node.ApplyConfChange(v2)
		c.confChanged = true
		return nil
	})
	return c.members(), err
}

// CompactDue says that a snapshot should be taken: the log has grown, or the members have changed, and a new learner
// accepts no snapshot that does not name it.
func (c *consensus) CompactDue() bool {
	return c.compactable() && (c.confChanged || c.applied-c.snapshotIndex >= compactEntries || c.grown >= compactBytes)
}

// compactable is false while a snapshot of the leader's is on its way to the disk (a later write of an older one would
// take its place), and until all that was handed out is applied.
func (c *consensus) compactable() bool {
	if c.dead != nil || c.installed != nil || len(c.applying) > 0 || c.applied <= c.snapshotIndex {
		return false
	}
	return !slices.ContainsFunc(c.pending, func(p *pendingWrite) bool { return p.snapshot != nil })
}

// Compact makes a snapshot of the state after the last applied entry. The write comes with the next Ready. It does
// nothing where CompactDue could not be true.
func (c *consensus) Compact(state []byte) error {
	return c.guard(func() error {
		if !c.compactable() {
			return nil
		}
		snap, err := c.mem.CreateSnapshot(c.applied, c.conf, state)
		if err != nil {
			return fmt.Errorf("create snapshot: %w", err)
		}
		if first, _ := c.mem.FirstIndex(); c.applied >= first+trailingEntries {
			if err := c.mem.Compact(c.applied - trailingEntries); err != nil {
				return fmt.Errorf("compact log: %w", err)
			}
		}
		// The store keeps nothing of what came before, so the tail goes along, also what is still being written.
		tail, _ := c.tail()
		w, err := newWrite(snap, c.hard, tail)
		if err != nil {
			return err
		}
		w.Sync = true
		c.enqueue(w)
		c.snapshotIndex, c.confChanged, c.grown = c.applied, false, 0
		return nil
	})
}

// tail is the log after applied as it will be when all writes that were handed out are durable; the first n entries of
// it are durable already.
func (c *consensus) tail() (entries []*raftpb.Entry, n int) {
	first, _ := c.mem.FirstIndex()
	last, _ := c.mem.LastIndex()
	base := max(c.applied+1, first)
	if last >= base {
		stored, err := c.mem.Entries(base, last+1, 1<<62)
		if err != nil {
			panic(err) // base and last come from the storage itself
		}
		entries = stored
	}
	n = len(entries)
	for _, p := range c.pending {
		if p.snapshot != nil {
			entries, n, base = nil, 0, p.snapshot.GetMetadata().GetIndex()+1
		}
		for _, e := range p.entries {
			if e.GetIndex() < base {
				continue
			}
			at := int(e.GetIndex() - base)
			n = min(n, at)
			if at < len(entries) {
				entries = entries[:at:at]
			}
			entries = append(entries, e)
		}
	}
	return entries, n
}

// Unapplied visits the log after the last applied entry: what may still be committed or be cut off again. Stable says
// that the entry is durable here. What was stepped in since the last Ready is not seen.
func (c *consensus) Unapplied(visit func(e logEntry, stable bool)) error {
	return c.guard(func() error {
		entries, n := c.tail()
		for i, e := range entries {
			entry, err := decodeEntry(e)
			if err != nil {
				return err
			}
			visit(entry, i < n)
		}
		return nil
	})
}

// Fork is where a forced incarnation begins: after all that is in this log, in a new term. Its state must have every
// entry that Unapplied visits applied.
func (c *consensus) Fork() (index, term uint64) {
	s := c.Status()
	return s.Last + 1, s.Term + 1
}

// forge makes the first snapshot of a cluster or of a forced incarnation. Load it with restoredFrom.
func forge(state []byte, index, term uint64, voters ...uint64) (write, error) {
	if index == 0 || term == 0 || len(voters) == 0 {
		return write{}, errors.New("forge snapshot: it needs an index, a term and a voter")
	}
	voters = slices.Clone(voters)
	slices.Sort(voters)
	w, err := newWrite(
		&raftpb.Snapshot{Data: state, Metadata: &raftpb.SnapshotMetadata{
			ConfState: &raftpb.ConfState{Voters: voters, AutoLeave: new(false)}, Index: new(index), Term: new(term)}},
		&raftpb.HardState{Term: new(term), Vote: new(uint64(0)), Commit: new(index)}, nil)
	w.Sync = true
	return w, err
}

// Roles of a member.
const (
	roleFollower     = "follower"
	rolePreCandidate = "pre-candidate"
	roleCandidate    = "candidate"
	roleLeader       = "leader"
)

type consensusStatus struct {
	Role       string // role*
	Term       uint64
	Leader     uint64 // 0: none known
	Commit     uint64
	Applied    uint64
	Last       uint64 // in the log
	Transferee uint64 // leadership is being handed to it; 0: to nobody
	Members    membership
	Voter      bool // this member is one; neither: it is blank or removed
	Learner    bool
}

// peerProgress is what the leader knows of another member.
type peerProgress struct {
	Member   uint64
	Learner  bool
	Match    uint64 // it has stored the log up to here
	Active   bool   // it has answered since the last check of the quorum
	Snapshot bool   // it is being sent a snapshot
	CaughtUp bool   // active and has stored all that is committed
}

// Status is cheap enough to be asked after every event. After errRaftPanic it stays as it was in part; do not use it.
func (c *consensus) Status() consensusStatus {
	if c.known {
		return c.status
	}
	s := consensusStatus{Members: c.members(), Applied: c.applied}
	_ = c.look(func() error {
		b := c.node.BasicStatus()
		s.Role = [...]string{raft.StateFollower: roleFollower, raft.StateCandidate: roleCandidate,
			raft.StateLeader: roleLeader, raft.StatePreCandidate: rolePreCandidate}[b.RaftState]
		s.Term, s.Commit, s.Leader, s.Transferee = b.GetTerm(), b.GetCommit(), b.Lead, b.LeadTransferee
		s.Voter, s.Learner = s.Members.voter(c.id), s.Members.learner(c.id)
		s.Last, _ = c.mem.LastIndex()
		for _, p := range c.pending {
			if p.snapshot != nil {
				s.Last = p.snapshot.GetMetadata().GetIndex()
			}
			if n := len(p.entries); n > 0 {
				s.Last = p.entries[n-1].GetIndex()
			}
		}
		return nil
	})
	c.status, c.known = s, true
	return s
}

// Progress is what the leader knows of the others, by member; elsewhere nothing.
func (c *consensus) Progress() []peerProgress {
	var out []peerProgress
	_ = c.look(func() error {
		b := c.node.BasicStatus()
		if b.RaftState != raft.StateLeader {
			return nil
		}
		c.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) { // in the order of ids
			if id == c.id {
				return
			}
			out = append(out, peerProgress{
				Member: id, Learner: p.IsLearner, Match: p.Match, Active: p.RecentActive,
				Snapshot: p.State == tracker.StateSnapshot,
				CaughtUp: p.RecentActive && p.State == tracker.StateReplicate && p.Match >= b.GetCommit(),
			})
		})
		return nil
	})
	return out
}
