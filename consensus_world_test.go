// How do members behave together? A network, disks and state machines in memory for the tests of the raft adapter: the
// stories in testdata/consensus and the random runs.

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

const (
	worldElection  = 8
	worldHeartbeat = 2
)

// raftWorld moves messages in the order of sending; nothing in it is random.
type raftWorld struct {
	t         *testing.T
	members   []*raftMember // by id
	flight    []flying
	cut       map[[2]uint64]bool
	committed map[string]string // incarnation/index → term and data: all members must agree
	leaders   map[string]uint64 // incarnation/term → leader: at most one
	lost      func() bool       // chaos: drop this message?
}

type flying struct {
	from, to, incarnation uint64
	outgoing
}

type raftMember struct {
	id, incarnation uint64
	life            uint32
	c               *consensus // nil: down
	disk            *restored  // durable; nil: blank
	unsaved         []write
	lazy            []write // reported as saved without need of an fsync: a crash loses them
	diskOff         bool
	state           []string
	applied, term   uint64
	pendingStable   []logEntry // stable and not settled
	manual          bool       // compacts only when a story says so
	err             error
}

func newRaftWorld(t *testing.T) *raftWorld {
	return &raftWorld{t: t, cut: map[[2]uint64]bool{}, committed: map[string]string{}, leaders: map[string]uint64{}}
}

func (w *raftWorld) member(id uint64) *raftMember {
	i, ok := slices.BinarySearchFunc(w.members, id, func(m *raftMember, id uint64) int { return int(m.id) - int(id) })
	if !ok {
		w.members = slices.Insert(w.members, i, &raftMember{id: id})
	}
	return w.members[i]
}

// start brings a member up from its disk.
func (w *raftWorld) start(m *raftMember) error {
	m.life++
	var disk *restored
	if m.disk != nil {
		disk = cloneRestored(m.disk)
	}
	c, err := newConsensus(consensusConfig{ID: m.id, Incarnation: m.incarnation, Life: m.life, Restored: disk,
		ElectionTicks: worldElection, HeartbeatTicks: worldHeartbeat})
	if err != nil {
		return err
	}
	m.c, m.state, m.applied, m.term, m.err, m.pendingStable = c, nil, 0, 0, nil, nil
	return nil
}

// crash loses what is not durable. A write that needs no fsync may be lost too; here it is.
func (m *raftMember) crash() { m.c, m.unsaved, m.lazy = nil, nil, nil }

func cloneRestored(r *restored) *restored {
	out := &restored{Entries: slices.Clone(r.Entries)}
	if r.Snapshot != nil {
		out.Snapshot = proto.CloneOf(r.Snapshot)
	}
	if r.HardState != nil {
		out.HardState = proto.CloneOf(r.HardState)
	}
	return out
}

// work does all of a member's Ready, as the contract of consensus.go says. It returns false when there was nothing.
func (w *raftWorld) work(m *raftMember) bool {
	if m.c == nil || m.err != nil {
		return false
	}
	rd, err := m.c.Ready()
	if err != nil {
		m.err = err
		return true
	}
	m.unsaved = append(m.unsaved, rd.Writes...)
	for _, o := range rd.Messages {
		w.flight = append(w.flight, flying{from: m.id, to: o.To, incarnation: m.incarnation, outgoing: o})
	}
	if s := rd.Snapshot; s != nil {
		m.state, m.applied, m.term = splitState(s.Data), s.Index, s.Term
		w.settle(m, s.Index)
	}
	for _, e := range rd.Committed {
		w.apply(m, e)
	}
	if n := len(rd.Committed); n > 0 || rd.Snapshot != nil {
		if err := m.c.Applied(m.applied); err != nil {
			m.err = err
		}
	}
	if m.c.CompactDue() && !m.manual {
		if err := m.c.Compact([]byte(strings.Join(m.state, ","))); err != nil {
			m.err = err
		}
		return true
	}
	w.checkLeader(m)
	return len(rd.Writes)+len(rd.Messages)+len(rd.Committed) > 0 || rd.Snapshot != nil
}

func (w *raftWorld) apply(m *raftMember, e logEntry) {
	if e.Index != m.applied+1 || e.Term < m.term {
		w.t.Fatalf("member %d applies %d of term %d after %d of term %d", m.id, e.Index, e.Term, m.applied, m.term)
	}
	m.applied, m.term = e.Index, e.Term
	key := fmt.Sprintf("%d/%d", m.incarnation, e.Index)
	value := fmt.Sprintf("%d %q %v", e.Term, e.Data, e.Conf)
	if e.Conf != nil {
		value = fmt.Sprintf("%d %v", e.Term, e.Conf.Steps)
	}
	if old, ok := w.committed[key]; ok && old != value {
		w.t.Fatalf("member %d applies %s at %s, another has applied %s", m.id, value, key, old)
	}
	w.committed[key] = value
	if e.Conf != nil {
		if _, err := m.c.ApplyConf(e.Conf); err != nil {
			m.state = append(m.state, "refused")
		}
	} else if len(e.Data) > 0 {
		m.state = append(m.state, string(e.Data))
	}
	w.settle(m, e.Index)
}

func (w *raftWorld) settle(m *raftMember, index uint64) {
	m.pendingStable = slices.DeleteFunc(m.pendingStable, func(e logEntry) bool { return e.Index <= index })
}

func (w *raftWorld) checkLeader(m *raftMember) {
	s := m.c.Status()
	if s.Role != roleLeader {
		return
	}
	key := fmt.Sprintf("%d/%d", m.incarnation, s.Term)
	if old, ok := w.leaders[key]; ok && old != m.id {
		w.t.Fatalf("members %d and %d both lead in %s", old, m.id, key)
	}
	w.leaders[key] = m.id
}

// save makes a member's oldest write durable.
func (w *raftWorld) save(m *raftMember) bool {
	if m.c == nil || m.diskOff || len(m.unsaved) == 0 {
		return false
	}
	wr := m.unsaved[0]
	m.unsaved = m.unsaved[1:]
	if m.disk == nil {
		m.disk = &restored{}
	}
	m.lazy = append(m.lazy, wr)
	if wr.Sync {
		for _, l := range m.lazy {
			if err := m.disk.apply(l); err != nil {
				w.t.Fatalf("member %d writes what cannot be read: %v", m.id, err)
			}
		}
		m.lazy = nil
	}
	if err := m.disk.check(); err != nil {
		w.t.Fatalf("member %d would not start after this write: %v", m.id, err)
	}
	st, err := m.c.Persisted(wr.Done)
	if err != nil {
		m.err = err
	}
	m.pendingStable = append(m.pendingStable, st.Entries...)
	return true
}

func (w *raftWorld) deliver() bool {
	if len(w.flight) == 0 {
		return false
	}
	f := w.flight[0]
	w.flight = w.flight[1:]
	from, to := w.member(f.from), w.member(f.to)
	ok := to.c != nil && !w.cut[[2]uint64{f.from, f.to}] && (w.lost == nil || !w.lost())
	if ok {
		err := to.c.Step(f.from, f.incarnation, f.Data)
		switch {
		case errors.Is(err, errBadMessage):
			w.t.Fatalf("member %d sends to %d: %v", f.from, f.to, err)
		case errors.Is(err, errOtherIncarnation):
			ok = false
		case err != nil:
			to.err = err
		}
	}
	if from.c != nil && f.Snapshot {
		from.c.ReportSnapshot(f.to, ok)
	} else if from.c != nil && !ok {
		from.c.ReportUnreachable(f.to)
	}
	return true
}

// run goes on until nothing moves without time.
func (w *raftWorld) run() {
	for round := 0; ; round++ {
		if round > 100000 {
			w.t.Fatal("the members never come to rest")
		}
		moved := false
		for _, m := range w.members {
			for w.work(m) {
				moved = true
			}
			for w.save(m) {
				moved = true
			}
		}
		if w.deliver() {
			moved = true
		}
		if !moved {
			return
		}
	}
}

func (w *raftWorld) tick(n int) {
	for range n {
		for _, m := range w.members {
			if m.c != nil && m.err == nil {
				m.c.Tick()
			}
		}
		w.run()
	}
}

func splitState(data []byte) []string {
	if len(data) == 0 {
		return nil
	}
	return strings.Split(string(data), ",")
}
