// What must wait for what? The raft adapter's log: what raft wants written, what may be sent or applied only when that is
// durable, and what becomes known when it is. See consensus.go for the contract and for why membership changes wait
// longer than raft asks. It must not touch a clock, a disk, a socket or a goroutine.

package main

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// appendLog turns raft's order to its storage into a write, and keeps the responses until it is durable.
func (c *consensus) appendLog(m *raftpb.Message) error {
	p := &pendingWrite{snapshot: m.GetSnapshot(), entries: m.GetEntries(), responses: m.GetResponses()}
	must := p.snapshot != nil || len(p.entries) > 0
	if p.snapshot != nil {
		c.confLog = nil
	}
	c.noteConf(p.entries)
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		p.hard = &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}
		// A commit index alone may get lost: it is learnt again. So it costs no fsync of its own.
		must = must || p.hard.GetTerm() != c.hard.GetTerm() || p.hard.GetVote() != c.hard.GetVote() ||
			len(c.confLog) > 0 && c.confLog[0] <= p.hard.GetCommit()
		c.hard = p.hard
	}
	if p.hard == nil && !must {
		// Nothing to write: the responses wait only for what is being written already.
		if len(c.pending) == 0 {
			return c.release(p.responses)
		}
		last := c.pending[len(c.pending)-1]
		last.responses = append(last.responses, p.responses...)
		return nil
	}
	hard := p.hard
	if p.snapshot != nil {
		hard = c.hard // a write with a snapshot replaces everything, so it must be complete
	}
	w, err := newWrite(p.snapshot, hard, p.entries)
	if err != nil {
		return err
	}
	w.Sync, p.sync = must, must
	p.done = c.enqueue(w)
	c.pending = append(c.pending, p)
	return nil
}

func (c *consensus) enqueue(w write) uint64 {
	c.serial++
	w.Done = c.life | c.serial
	c.writes = append(c.writes, w)
	return w.Done
}

// noteConf keeps confLog: entries overwrite what stood at their place and after.
func (c *consensus) noteConf(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	at, _ := slices.BinarySearch(c.confLog, entries[0].GetIndex())
	c.confLog = c.confLog[:at]
	for _, e := range entries {
		if e.GetType() != raftpb.EntryNormal {
			c.confLast = max(c.confLast, e.GetIndex())
			c.confLog = append(c.confLog, e.GetIndex())
		}
	}
}

// commitDurable says that what savedCommit covers will still be known to be committed after a crash.
func (c *consensus) commitDurable() {
	for len(c.confLog) > 0 && c.confLog[0] <= c.savedCommit {
		c.confLog = c.confLog[1:]
	}
}

func (c *consensus) queueApply(m *raftpb.Message) error {
	p := pendingApply{response: m.GetResponses()[0]} // raft makes exactly one for each batch
	for _, e := range m.GetEntries() {
		entry, err := decodeEntry(e)
		if err != nil {
			return err
		}
		p.entries, p.last = append(p.entries, entry), entry.Index
	}
	c.queued = append(c.queued, p)
	return nil
}

// handOut stops before a batch with a membership change whose commit is not durable.
func (c *consensus) handOut() (out []logEntry) {
	for len(c.queued) > 0 && (len(c.confLog) == 0 || c.queued[0].last < c.confLog[0]) {
		p := c.queued[0]
		c.queued = c.queued[1:]
		for _, e := range p.entries {
			if e.Index > c.applied { // a snapshot may have come before them
				out = append(out, e)
			}
		}
		p.entries = nil
		c.applying = append(c.applying, p)
	}
	return out
}

// sendInTime keeps entries for a member whose vote will not count until they are durable here.
func (c *consensus) sendInTime(m *raftpb.Message) error {
	n := len(m.GetEntries())
	if m.GetType() == raftpb.MsgApp && n > 0 && !c.staysVoter(m.GetTo()) {
		last := m.GetEntries()[n-1].GetIndex()
		for _, p := range slices.Backward(c.pending) {
			if len(p.entries) > 0 && p.entries[0].GetIndex() <= last {
				p.held = append(p.held, m)
				return nil
			}
		}
	}
	return c.send(m)
}

func (c *consensus) send(m *raftpb.Message) error {
	if t := m.GetType(); t == raftpb.MsgApp || t == raftpb.MsgHeartbeat {
		if len(c.confLog) > 0 && m.GetCommit() >= c.confLog[0] {
			m.Commit = new(c.confLog[0] - 1) // to know less is always safe; the next heartbeat tells more
		}
	}
	m.From = new(c.id) // a proposal that is passed on keeps its first sender's id, which nobody vouches for
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode raft message: %w", err)
	}
	snap := m.GetType() == raftpb.MsgSnap
	if snap {
		c.sending = slices.DeleteFunc(c.sending, func(s snapshotSending) bool { return s.to == m.GetTo() })
		c.sending = append(c.sending, snapshotSending{to: m.GetTo()})
	}
	c.outbox = append(c.outbox, outgoing{To: m.GetTo(), Data: data, Snapshot: snap})
	return nil
}

// Persisted says that a write is durable. It returns the entries that became stable with it.
func (c *consensus) Persisted(done uint64) (stable, error) {
	var out stable
	if done&^math.MaxUint32 != c.life {
		return out, nil // of a former instance
	}
	err := c.must(func() error {
		if len(c.pending) == 0 || done < c.pending[0].done {
			return nil // a snapshot of Compact: nothing waits for it
		}
		if p := c.pending[0]; done != p.done {
			return fmt.Errorf("write %d was saved before write %d: the store must keep the order", done, p.done)
		}
		p := c.pending[0]
		c.pending = slices.Delete(c.pending, 0, 1)
		if err := c.stabilize(p, &out); err != nil {
			return err
		}
		for _, m := range p.held {
			if err := c.send(m); err != nil {
				return err
			}
		}
		return c.release(p.responses)
	})
	return out, err
}

func (c *consensus) stabilize(p *pendingWrite, out *stable) error {
	if p.snapshot != nil {
		if err := c.mem.ApplySnapshot(p.snapshot); err != nil {
			return fmt.Errorf("take over snapshot: %w", err)
		}
		c.installed = proto.CloneOf(p.snapshot)
	}
	if len(p.entries) > 0 {
		last, _ := c.mem.LastIndex() // of memory storage: never an error
		if first := p.entries[0].GetIndex(); first <= last {
			out.Cut = first
		}
		if err := c.mem.Append(p.entries); err != nil {
			return fmt.Errorf("take over entries: %w", err)
		}
		for _, e := range p.entries {
			entry, err := decodeEntry(e)
			if err != nil {
				return err
			}
			out.Entries = append(out.Entries, entry)
		}
	}
	if p.hard != nil {
		c.savedCommit = p.hard.GetCommit()
		if err := c.mem.SetHardState(p.hard); err != nil {
			return fmt.Errorf("take over hard state: %w", err)
		}
	}
	if p.sync {
		c.commitDurable()
	}
	return nil
}

// release delivers what had to wait: to raft itself, or to other members with the next Ready.
func (c *consensus) release(responses []*raftpb.Message) error {
	for _, m := range responses {
		if m.GetTo() != c.id {
			if err := c.send(m); err != nil {
				return err
			}
			continue
		}
		// An answer to itself by a member that has just been removed finds no peer: nothing is lost.
		if err := c.node.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
			return fmt.Errorf("step own response: %w", err)
		}
	}
	return nil
}

// Applied says that the state machine has applied all up to this index.
func (c *consensus) Applied(index uint64) error {
	return c.must(func() error {
		if index < c.applied {
			return nil
		}
		for len(c.applying) > 0 && c.applying[0].last <= index {
			p := c.applying[0]
			c.applying = slices.Delete(c.applying, 0, 1)
			for _, e := range p.response.GetEntries() {
				c.grown += len(e.GetData())
			}
			if err := c.node.Step(p.response); err != nil {
				return fmt.Errorf("step apply response: %w", err)
			}
		}
		c.applied = index
		return nil
	})
}
