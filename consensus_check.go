// Can this come from a sane peer, or from a sane disk? What raft would panic on is caught here where it can be seen
// without raft. The durable raft state as a value, and how writes change it, for the store, the simulator and the start.
// Pure.

package main

import (
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// checkMessage lets pass what members say to each other, and nothing that is meant for raft's inside.
func checkMessage(m *raftpb.Message, from, me uint64) error {
	switch {
	case from == raft.None || raft.IsLocalMsgTarget(from) || from == me || m.GetFrom() != from:
		return fmt.Errorf("says it comes from %x", m.GetFrom())
	case m.GetTo() != me:
		return fmt.Errorf("is for member %x", m.GetTo())
	case len(m.GetResponses()) > 0:
		return errors.New("carries responses")
	case m.GetTerm() > maxTerm || m.GetLogTerm() > maxTerm || m.GetIndex() > maxTerm || m.GetCommit() > maxTerm:
		return errors.New("has a term or index out of range")
	case m.GetType() != raftpb.MsgProp && m.GetTerm() == 0:
		return errors.New("has no term")
	case m.GetType() != raftpb.MsgProp && m.GetType() != raftpb.MsgApp && len(m.GetEntries()) > 0:
		return errors.New("carries entries")
	case m.GetType() != raftpb.MsgSnap && !raft.IsEmptySnap(m.GetSnapshot()):
		return errors.New("carries a snapshot")
	}
	switch m.GetType() {
	case raftpb.MsgProp:
		return checkProposal(m)
	case raftpb.MsgApp:
		return checkAppend(m)
	case raftpb.MsgSnap:
		if m.GetSnapshot().GetMetadata().GetTerm() > m.GetTerm() {
			return errors.New("has a snapshot of a later term than its own")
		}
		return checkSnapshot(m.GetSnapshot())
	case raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow:
		return nil
	}
	return fmt.Errorf("is of type %s, which no member sends", m.GetType())
}

// checkProposal: members pass on ordinary entries only. Membership changes are the leader's own.
func checkProposal(m *raftpb.Message) error {
	if len(m.GetEntries()) == 0 || m.GetTerm() != 0 {
		return errors.New("is a proposal without an entry, or with a term")
	}
	for _, e := range m.GetEntries() {
		if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
			return fmt.Errorf("proposes an entry of type %s with %d bytes", e.GetType(), len(e.GetData()))
		}
	}
	return nil
}

func checkAppend(m *raftpb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		index++
		if e.GetIndex() != index || e.GetTerm() < max(term, 1) || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("has entry %d of term %d where %d of %d to %d belongs",
				e.GetIndex(), e.GetTerm(), index, term, m.GetTerm())
		}
		term = e.GetTerm()
		if _, err := decodeEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func checkSnapshot(s *raftpb.Snapshot) error {
	md := s.GetMetadata()
	if md.GetIndex() == 0 || md.GetIndex() > maxTerm || md.GetTerm() == 0 || len(md.GetConfState().GetVoters()) == 0 {
		return fmt.Errorf("snapshot at %d of term %d has no place or no voters", md.GetIndex(), md.GetTerm())
	}
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(maxInflight, 0)}
	cfg, progress, err := confchange.Restore(changer, raftpb.EnsureConfState(md.GetConfState()))
	if err != nil {
		return fmt.Errorf("snapshot at %d has impossible members: %w", md.GetIndex(), err)
	}
	// What raft makes of the members must be what they say, or it panics.
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	if err := md.GetConfState().Equivalent(changer.Tracker.ConfState()); err != nil {
		return fmt.Errorf("snapshot at %d has impossible members: %w", md.GetIndex(), err)
	}
	return nil
}

// restored is the raft state that is durable. The entries follow on the snapshot, or begin at 1.
type restored struct {
	Snapshot  *raftpb.Snapshot
	HardState *raftpb.HardState
	Entries   []*raftpb.Entry
}

func newWrite(s *raftpb.Snapshot, h *raftpb.HardState, entries []*raftpb.Entry) (write, error) {
	opts := proto.MarshalOptions{Deterministic: true}
	var w write
	var err error
	if s != nil {
		if w.Snapshot, err = opts.Marshal(s); err != nil {
			return write{}, fmt.Errorf("encode snapshot: %w", err)
		}
	}
	if h != nil {
		if w.HardState, err = opts.Marshal(h); err != nil {
			return write{}, fmt.Errorf("encode hard state: %w", err)
		}
	}
	for _, e := range entries {
		data, err := opts.Marshal(e)
		if err != nil {
			return write{}, fmt.Errorf("encode entry: %w", err)
		}
		w.Entries = append(w.Entries, data)
	}
	return w, nil
}

// restoredFrom is the state in which one write leaves an empty store.
func restoredFrom(w write) (*restored, error) {
	r := &restored{}
	if err := r.apply(w); err != nil {
		return nil, err
	}
	return r, r.check()
}

// apply does to the state what a write does to the disk.
func (r *restored) apply(w write) error {
	if w.Snapshot != nil {
		s := &raftpb.Snapshot{}
		if err := proto.Unmarshal(w.Snapshot, s); err != nil {
			return fmt.Errorf("decode snapshot: %w", err)
		}
		*r = restored{Snapshot: raftpb.EnsureSnapshot(s)}
	}
	if w.HardState != nil {
		h := &raftpb.HardState{}
		if err := proto.Unmarshal(w.HardState, h); err != nil {
			return fmt.Errorf("decode hard state: %w", err)
		}
		r.HardState = h
	}
	for _, data := range w.Entries {
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(data, e); err != nil {
			return fmt.Errorf("decode entry: %w", err)
		}
		if err := r.put(e); err != nil {
			return err
		}
	}
	return nil
}

// put adds an entry and cuts off what follows its place.
func (r *restored) put(e *raftpb.Entry) error {
	base := r.Snapshot.GetMetadata().GetIndex() + 1
	if e.GetIndex() < base || e.GetIndex() > base+uint64(len(r.Entries)) {
		return fmt.Errorf("entry %d does not follow on %d", e.GetIndex(), r.last())
	}
	at := int(e.GetIndex() - base)
	if at < len(r.Entries) {
		r.Entries = r.Entries[:at:at] // others may hold what is cut off
	}
	r.Entries = append(r.Entries, e)
	return nil
}

func (r *restored) last() uint64 {
	return r.Snapshot.GetMetadata().GetIndex() + uint64(len(r.Entries))
}

// check says whether raft can start with it. A commit index beyond the log means that entries were lost.
func (r *restored) check() error {
	md := r.Snapshot.GetMetadata()
	index, term := md.GetIndex(), md.GetTerm()
	if r.Snapshot != nil {
		if err := checkSnapshot(r.Snapshot); err != nil {
			return err
		}
	}
	for _, e := range r.Entries {
		if index++; e.GetIndex() != index || e.GetTerm() < max(term, 1) || e.GetTerm() > maxTerm {
			return fmt.Errorf("entry %d of term %d is where %d of %d or later belongs", e.GetIndex(), e.GetTerm(), index, term)
		}
		term = e.GetTerm()
		if _, err := decodeEntry(e); err != nil {
			return err
		}
	}
	if h := r.HardState; h.GetCommit() < md.GetIndex() || h.GetCommit() > index || h.GetTerm() < term || h.GetTerm() > maxTerm {
		return fmt.Errorf("commit index %d and term %d do not fit a log from %d to %d of term %d",
			h.GetCommit(), h.GetTerm(), md.GetIndex(), index, term)
	}
	return nil
}

// raftLogger sends raft's chatter to the debug level: what matters of it is an event of the node's own.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(v ...any) { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Debugf(format string, v ...any) {
	l.log.Debug("raft: " + fmt.Sprintf(format, v...))
}
func (l raftLogger) Info(v ...any)                 { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Infof(format string, v ...any) { l.log.Debug("raft: " + fmt.Sprintf(format, v...)) }
func (l raftLogger) Warning(v ...any)              { l.log.Info("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.log.Info("raft: " + fmt.Sprintf(format, v...))
}
func (l raftLogger) Error(v ...any) { l.log.Error("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any) {
	l.log.Error("raft: " + fmt.Sprintf(format, v...))
}
func (l raftLogger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) } // never ends the process; see guard
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
