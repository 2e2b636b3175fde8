package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestConsensusStories plays testdata/consensus/*.txt; -rewrite writes what happened into them.
func TestConsensusStories(t *testing.T) {
	datadriven.Walk(t, "testdata/consensus", func(t *testing.T, path string) {
		cryptotest.SetGlobalRandom(t, 1)
		w := newRaftWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			var out strings.Builder
			if err := w.story(d, &out); err != nil {
				fmt.Fprintf(&out, "error: %v\n", err)
			}
			if out.Len() == 0 {
				return "ok\n"
			}
			return out.String()
		})
	})
}

// story does one command. Its arguments are in the order in which a sentence has them.
func (w *raftWorld) story(d *datadriven.TestData, out *strings.Builder) error {
	var words []string
	for _, a := range d.CmdArgs {
		words = append(words, a.Key)
	}
	num := func(i int) uint64 {
		n, err := strconv.ParseUint(words[i], 10, 64)
		if err != nil {
			d.Fatalf(w.t, "%v", err)
		}
		return n
	}
	switch d.Cmd {
	case "found": // MEMBER
		return w.forge(w.member(num(0)), nil, 1, 1)
	case "force": // MEMBER: a new incarnation with all that it has
		return w.force(w.member(num(0)))
	case "blank": // MEMBER INCARNATION
		m := w.member(num(0))
		m.crash()
		m.disk, m.incarnation = nil, num(1)
		return w.start(m)
	case "crash":
		w.member(num(0)).crash()
	case "restart":
		w.member(num(0)).crash()
		return w.start(w.member(num(0)))
	case "tick":
		w.tick(int(num(0)))
	case "run":
		w.run()
	case "campaign":
		w.member(num(0)).c.Campaign()
		w.run()
	case "propose": // MEMBER TEXT...
		m := w.member(num(0))
		for _, text := range words[1:] {
			if err := m.c.Propose([]byte(text)); err != nil {
				return err
			}
			w.work(m)
		}
		w.run()
	case "conf": // MEMBER OP ID [OP ID]...
		var ch confChange
		for i := 1; i < len(words); i += 2 {
			ch.Steps = append(ch.Steps, confStep{Op: confOp(words[i]), Member: num(i + 1)})
		}
		err := w.member(num(0)).c.ProposeConf(ch)
		w.run()
		return err
	case "transfer": // MEMBER TO
		err := w.member(num(0)).c.TransferLeader(num(1))
		w.run()
		return err
	case "cut", "heal": // MEMBER MEMBER
		for _, pair := range [][2]uint64{{num(0), num(1)}, {num(1), num(0)}} {
			w.cut[pair] = d.Cmd == "cut"
		}
	case "disk": // MEMBER off|on
		w.member(num(0)).diskOff = words[1] == "off"
		w.run()
	case "save": // MEMBER: its oldest write only, though its disk is off
		m := w.member(num(0))
		m.diskOff = false
		if !w.save(m) {
			return errors.New("nothing to save")
		}
		m.diskOff = true
		w.run()
	case "status":
		for _, m := range w.members {
			w.printStatus(m, out)
		}
	case "log": // MEMBER
		return w.member(num(0)).c.Unapplied(func(e logEntry, stable bool) {
			fmt.Fprintf(out, "%d term %d %q stable=%v\n", e.Index, e.Term, e.Data, stable)
		})
	case "stable": // MEMBER: durable here and not settled, by what Persisted told
		for _, e := range w.member(num(0)).pendingStable {
			fmt.Fprintf(out, "%d term %d %q\n", e.Index, e.Term, e.Data)
		}
	default:
		d.Fatalf(w.t, "unknown command")
	}
	return nil
}

func (w *raftWorld) forge(m *raftMember, state []string, index, term uint64) error {
	wr, err := forge([]byte(strings.Join(state, ",")), index, term, m.id)
	if err != nil {
		return err
	}
	m.crash()
	m.incarnation++
	if m.disk, err = restoredFrom(wr); err != nil {
		return err
	}
	return w.start(m)
}

func (w *raftWorld) force(m *raftMember) error {
	state := slices.Clone(m.state)
	err := m.c.Unapplied(func(e logEntry, _ bool) {
		if len(e.Data) > 0 {
			state = append(state, string(e.Data))
		}
	})
	if err != nil {
		return err
	}
	index, term := m.c.Fork()
	return w.forge(m, state, index, term)
}

func (w *raftWorld) printStatus(m *raftMember, out *strings.Builder) {
	if m.c == nil {
		fmt.Fprintf(out, "%d down\n", m.id)
		return
	}
	s := m.c.Status()
	kind := "blank"
	switch {
	case s.Voter:
		kind = "voter"
	case s.Learner:
		kind = "learner"
	case m.applied > 0:
		kind = "removed"
	}
	fmt.Fprintf(out, "%d %s %s of %d, term %d, commit %d, voters %d", m.id, kind, s.Role, m.incarnation, s.Term, s.Commit, s.Members.Voters)
	if len(s.Members.Learners) > 0 {
		fmt.Fprintf(out, ", learners %d", s.Members.Learners)
	}
	if len(s.Members.Outgoing) > 0 {
		fmt.Fprintf(out, ", leaving %d", s.Members.Outgoing)
	}
	fmt.Fprintf(out, ", leader %d: %s\n", s.Leader, strings.Join(m.state, " "))
	for _, p := range m.c.Progress() {
		fmt.Fprintf(out, "  %d has %d, active=%v, caught up=%v, snapshot=%v\n", p.Member, p.Match, p.Active, p.CaughtUp, p.Snapshot)
	}
	if m.err != nil {
		fmt.Fprintf(out, "  %v\n", m.err)
	}
}

// TestConsensusChaos drops messages, crashes members with writes under way, and changes the membership, then lets all
// be well: whatever happened, members agree, nobody forgets a vote, and in the end they decide again.
func TestConsensusChaos(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 10
	}
	var elected, crashed, snapshots, quiet int
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a := playChaos(t, seed)
			elected += len(a.leaders)
			crashed += a.crashes
			snapshots += a.snapshots
			quiet += a.quiet
			if b := playChaos(t, seed); a.trace() != b.trace() {
				t.Errorf("seed %d: two runs differ:\n%s\n%s", seed, a.trace(), b.trace())
			}
		})
	}
	if elected <= int(seeds)*2 || crashed == 0 || snapshots == 0 || quiet == 0 {
		t.Errorf("the runs saw %d leaders, %d crashes, %d snapshots to members, %d quiet ticks: too few to test anything", elected, crashed, snapshots, quiet)
	}
}

type chaos struct {
	*raftWorld
	r                  *rand.Rand
	crashes, snapshots int
	proposed, quiet    int
}

func playChaos(t *testing.T, seed uint64) *chaos {
	cryptotest.SetGlobalRandom(t, seed)
	c := &chaos{raftWorld: newRaftWorld(t), r: rand.New(rand.NewPCG(seed, 7))}
	first := c.member(1)
	if err := c.forge(first, nil, 1, 1); err != nil {
		t.Fatal(err)
	}
	first.c.Campaign()
	for id := uint64(2); id <= 3; id++ {
		m := c.member(id)
		m.incarnation = first.incarnation
		if err := c.start(m); err != nil {
			t.Fatal(err)
		}
	}
	c.lost = func() bool { return c.r.IntN(8) == 0 }
	for range 4000 {
		c.step()
	}
	c.heal()
	return c
}

func (c *chaos) step() {
	m := c.members[c.r.IntN(len(c.members))]
	switch n := c.r.IntN(100); {
	case n < 40 && len(c.flight) > 0:
		i := c.r.IntN(min(len(c.flight), 4)) // out of order, by a little
		c.flight[0], c.flight[i] = c.flight[i], c.flight[0]
		if c.flight[0].Snapshot {
			c.snapshots++
		}
		c.deliver()
	case n < 65:
		c.save(m)
	case n < 85:
		c.tickOne(m)
	case n < 95:
		if m.c != nil {
			c.proposed++
			_ = m.c.Propose(fmt.Appendf(nil, "p%d", c.proposed)) // without a leader it is dropped
		}
	case n < 97:
		if m.c != nil {
			steps := []confStep{{Op: []confOp{confLearner, confVoter, confVoter}[c.r.IntN(3)], Member: uint64(1 + c.r.IntN(3))}}
			_ = m.c.ProposeConf(confChange{Steps: steps}) // mostly impossible or pending
		}
	case n < 98 && m.c != nil:
		c.crashes++
		m.crash()
	case m.c == nil:
		c.restart(m)
	}
	for c.work(m) && m.err == nil {
	}
	c.mustBeWell(m)
}

// tickOne moves a member's clock on. While it says that it is quiet that must change nothing.
func (c *chaos) tickOne(m *raftMember) {
	if m.c == nil {
		return
	}
	quiet, before := m.c.Quiet(1) && m.c.idle(), m.c.Status()
	if quiet {
		c.quiet++
	}
	m.c.Tick()
	if after := m.c.Status(); quiet && (!m.c.idle() || after.Role != before.Role || after.Leader != before.Leader || after.Term != before.Term) {
		c.t.Fatalf("member %d is quiet, and a tick makes %+v of %+v", m.id, after, before)
	}
}

func (c *chaos) restart(m *raftMember) {
	if err := c.start(m); err != nil {
		c.t.Fatalf("member %d does not come back: %v", m.id, err)
	}
}

func (c *chaos) mustBeWell(m *raftMember) {
	if m.err != nil {
		c.t.Fatalf("member %d: %v", m.id, m.err)
	}
}

// heal ends all faults and demands that a proposal gets through to all.
func (c *chaos) heal() {
	c.lost = nil
	for _, m := range c.members {
		if m.c == nil {
			c.restart(m)
		}
	}
	for range 40 {
		c.tick(worldElection)
		for _, m := range c.members {
			c.mustBeWell(m)
			_ = m.c.Propose([]byte("end")) // only where a leader is known
		}
		c.run()
		ended := 0
		for _, m := range c.members {
			s := m.c.Status()
			if slices.Contains(m.state, "end") || !slices.Contains(c.leaderMembers(), m.id) && s.Leader == 0 {
				ended++
			}
		}
		if ended == len(c.members) {
			return
		}
	}
	var out strings.Builder
	for _, m := range c.members {
		c.printStatus(m, &out)
	}
	c.t.Fatalf("no agreement after all faults have ended:\n%s", out.String())
}

// leaderMembers are all that belong to the cluster, as the leader sees it.
func (c *chaos) leaderMembers() []uint64 {
	for _, m := range c.members {
		if s := m.c.Status(); s.Role == roleLeader {
			return slices.Concat(s.Members.Voters, s.Members.Learners, s.Members.Outgoing)
		}
	}
	return []uint64{1, 2, 3}
}

func (c *chaos) trace() string {
	var out strings.Builder
	for _, m := range c.members {
		c.printStatus(m, &out)
	}
	return out.String()
}

func TestStepRefuses(t *testing.T) {
	type msg = raftpb.Message
	entry := func(index, term uint64) *raftpb.Entry {
		return &raftpb.Entry{Index: new(index), Term: new(term), Data: []byte("x")}
	}
	snap := func(voters ...uint64) *raftpb.Snapshot {
		return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(2)),
			ConfState: &raftpb.ConfState{Voters: voters}}}
	}
	for _, tc := range []struct {
		name string
		m    *msg
		want string
	}{
		{"local", &msg{Type: raftpb.MsgHup.Enum(), Term: new(uint64(2))}, "no member sends"},
		{"storage answer", &msg{Type: raftpb.MsgStorageAppendResp.Enum(), Term: new(uint64(2))}, "no member sends"},
		{"transfer", &msg{Type: raftpb.MsgTransferLeader.Enum(), Term: new(uint64(2))}, "no member sends"},
		{"read", &msg{Type: raftpb.MsgReadIndex.Enum(), Term: new(uint64(2))}, "no member sends"},
		{"no term", &msg{Type: raftpb.MsgApp.Enum()}, "no term"},
		{"huge term", &msg{Type: raftpb.MsgVote.Enum(), Term: new(uint64(1 << 63))}, "out of range"},
		{"empty proposal", &msg{Type: raftpb.MsgProp.Enum()}, "without an entry"},
		{"membership proposal", &msg{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{
			{Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte{1}}}}, "EntryConfChangeV2"},
		{"gap", &msg{Type: raftpb.MsgApp.Enum(), Term: new(uint64(2)), Index: new(uint64(1)), LogTerm: new(uint64(1)),
			Entries: []*raftpb.Entry{entry(2, 1), entry(4, 1)}}, "entry 4"},
		{"later entry than its message", &msg{Type: raftpb.MsgApp.Enum(), Term: new(uint64(2)), Index: new(uint64(1)),
			LogTerm: new(uint64(1)), Entries: []*raftpb.Entry{entry(2, 3)}}, "term 3"},
		{"membership that cannot be read", &msg{Type: raftpb.MsgApp.Enum(), Term: new(uint64(2)), Index: new(uint64(1)),
			LogTerm: new(uint64(1)), Entries: []*raftpb.Entry{{Type: raftpb.EntryConfChangeV2.Enum(), Index: new(uint64(2)),
				Term: new(uint64(2)), Data: []byte{0xff}}}}, "decode membership"},
		{"no snapshot", &msg{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(2))}, "no place"},
		{"snapshot without voters", &msg{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(2)), Snapshot: snap()}, "no voters"},
		{"snapshot with a voter twice", &msg{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(2)), Snapshot: snap(1, 1)}, "impossible"},
		{"entries where none belong", &msg{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(2)), Entries: []*raftpb.Entry{entry(1, 1)}}, "carries entries"},
		{"responses", &msg{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(2)), Responses: []*msg{{}}}, "carries responses"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newRaftWorld(t)
			m := w.member(1)
			if err := w.forge(m, nil, 1, 1); err != nil {
				t.Fatal(err)
			}
			tc.m.From, tc.m.To = new(uint64(2)), new(uint64(1))
			err := m.c.Step(2, m.incarnation, encoded(t, tc.m))
			if !errors.Is(err, errBadMessage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want malformed with %q", err, tc.want)
			}
			if s := m.c.Status(); s.Term != 1 || s.Last != 1 {
				t.Errorf("it has changed something: %+v", s)
			}
		})
	}
}

func TestStepIdentity(t *testing.T) {
	w := newRaftWorld(t)
	m := w.member(1)
	if err := w.forge(m, nil, 1, 1); err != nil {
		t.Fatal(err)
	}
	vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)),
		Index: new(uint64(9)), LogTerm: new(uint64(4))}
	if err := m.c.Step(3, m.incarnation, encoded(t, vote)); !errors.Is(err, errBadMessage) {
		t.Errorf("a message of 2 that came from 3: %v", err)
	}
	if err := m.c.Step(2, m.incarnation+1, encoded(t, vote)); !errors.Is(err, errOtherIncarnation) {
		t.Errorf("a message of another incarnation: %v", err)
	}
	if got := m.c.Status().Term; got != 1 {
		t.Errorf("term is %d, it must not have heard of 5", got)
	}
	if err := m.c.Step(2, m.incarnation, encoded(t, vote)); err != nil {
		t.Error(err)
	}
	if got := m.c.Status().Term; got != 5 {
		t.Errorf("term is %d, want 5", got)
	}
}

// A vote must not leave before it is durable.
func TestVoteWaitsForDisk(t *testing.T) {
	w := newRaftWorld(t)
	m := w.member(1)
	if err := w.forge(m, nil, 1, 1); err != nil {
		t.Fatal(err)
	}
	w.run()
	vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)),
		Index: new(uint64(9)), LogTerm: new(uint64(4))}
	if err := m.c.Step(2, m.incarnation, encoded(t, vote)); err != nil {
		t.Fatal(err)
	}
	rd, err := m.c.Ready()
	if err != nil || len(rd.Messages) != 0 || len(rd.Writes) != 1 || !rd.Writes[0].Sync {
		t.Fatalf("before the disk: %+v, %v; want one write that must be durable and no message", rd, err)
	}
	if _, err := m.c.Persisted(rd.Writes[0].Done); err != nil {
		t.Fatal(err)
	}
	rd, err = m.c.Ready()
	if err != nil || len(rd.Messages) != 1 || rd.Messages[0].To != 2 {
		t.Fatalf("after the disk: %+v, %v; want the vote", rd, err)
	}
}

func TestPersistedTokens(t *testing.T) {
	w := newRaftWorld(t)
	m := w.member(1)
	if err := w.forge(m, nil, 1, 1); err != nil {
		t.Fatal(err)
	}
	m.c.Campaign()
	rd, err := m.c.Ready()
	if err != nil || len(rd.Writes) == 0 {
		t.Fatalf("no write for an election: %+v, %v", rd, err)
	}
	first := rd.Writes[0].Done
	if _, err := m.c.Persisted(first - 1<<32); err != nil {
		t.Errorf("a token of an earlier instance must be ignored: %v", err)
	}
	if _, err := m.c.Persisted(first + 1); !errors.Is(err, errRaftPanic) {
		t.Errorf("a write saved before an earlier one: %v", err)
	}
	if _, err := m.c.Ready(); !errors.Is(err, errRaftPanic) {
		t.Errorf("it must be dead after that: %v", err)
	}
}

// A member that lost what it had acknowledged says so instead of crashing.
func TestLostMemoryIsTyped(t *testing.T) {
	w := newRaftWorld(t)
	m := w.member(1)
	if err := w.forge(m, nil, 1, 1); err != nil {
		t.Fatal(err)
	}
	beat := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)), Commit: new(uint64(70))}
	if err := m.c.Step(2, m.incarnation, encoded(t, beat)); !errors.Is(err, errRaftPanic) {
		t.Fatalf("got %v, want errRaftPanic", err)
	}
	m.c.Tick()
	if err := m.c.Propose([]byte("x")); !errors.Is(err, errRaftPanic) {
		t.Errorf("it must stay dead: %v", err)
	}
}

func TestRestoredCheck(t *testing.T) {
	hard := func(term, commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: new(term), Vote: new(uint64(0)), Commit: new(commit)}
	}
	entry := func(index, term uint64) *raftpb.Entry { return &raftpb.Entry{Index: new(index), Term: new(term)} }
	snap := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(3)), Term: new(uint64(2)),
		ConfState: &raftpb.ConfState{Voters: []uint64{1}}}}
	for _, tc := range []struct {
		name string
		r    restored
		want string
	}{
		{"blank", restored{}, ""},
		{"blank that has voted", restored{HardState: hard(4, 0)}, ""},
		{"whole", restored{Snapshot: snap, HardState: hard(4, 4), Entries: []*raftpb.Entry{entry(4, 2), entry(5, 4)}}, ""},
		{"entries lost", restored{Snapshot: snap, HardState: hard(4, 6), Entries: []*raftpb.Entry{entry(4, 2)}}, "commit index 6"},
		{"term lost", restored{Snapshot: snap, HardState: hard(2, 4), Entries: []*raftpb.Entry{entry(4, 3)}}, "term 2"},
		{"hard state lost", restored{Snapshot: snap}, "commit index 0"},
		{"gap", restored{Snapshot: snap, HardState: hard(4, 4), Entries: []*raftpb.Entry{entry(5, 2)}}, "where 4"},
		{"term goes back", restored{Snapshot: snap, HardState: hard(4, 4), Entries: []*raftpb.Entry{entry(4, 1)}}, "or later"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.r.check()
			if tc.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			_, err = newConsensus(consensusConfig{ID: 1, Restored: &tc.r, ElectionTicks: 8, HeartbeatTicks: 2})
			if tc.want == "" != (err == nil) {
				t.Errorf("start: %v", err)
			}
		})
	}
}

// A log that grows is cut, on the disk too, and a member that was away meanwhile gets the snapshot.
func TestCompact(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 3)
	w := newRaftWorld(t)
	m := w.member(1)
	if err := w.forge(m, nil, 1, 1); err != nil {
		t.Fatal(err)
	}
	m.c.Campaign()
	w.run()
	for i := range compactEntries + 20 {
		if err := m.c.Propose(fmt.Appendf(nil, "e%d", i)); err != nil {
			t.Fatal(err)
		}
		w.run()
	}
	if n := len(m.disk.Entries); n > 30 || m.disk.Snapshot.GetMetadata().GetIndex() < compactEntries {
		t.Errorf("%d entries on the disk after a snapshot at %d", n, m.disk.Snapshot.GetMetadata().GetIndex())
	}
	first, _ := m.c.mem.FirstIndex()
	if kept := m.c.applied - first; kept > trailingEntries+30 || kept < trailingEntries {
		t.Errorf("%d entries kept in memory, want about %d", kept, trailingEntries)
	}
	before := strings.Join(m.state, ",")
	m.crash()
	if err := w.start(m); err != nil {
		t.Fatal(err)
	}
	m.c.Campaign()
	w.run()
	if got := strings.Join(m.state, ","); got != before {
		t.Errorf("after the restart the state is another one: %d and %d bytes", len(got), len(before))
	}
}

// While the leader's snapshot is on its way to the disk, an own older one must not follow it there.
func TestCompactWaitsForSnapshot(t *testing.T) {
	wr, err := forge(nil, 1, 1, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := restoredFrom(wr)
	if err != nil {
		t.Fatal(err)
	}
	w := newRaftWorld(t)
	m := w.member(1)
	m.disk, m.incarnation, m.manual = r, 1, true
	if err := w.start(m); err != nil {
		t.Fatal(err)
	}
	step := func(msg *raftpb.Message) {
		t.Helper()
		msg.From, msg.To, msg.Term = new(uint64(2)), new(uint64(1)), new(uint64(2))
		if err := m.c.Step(2, 1, encoded(t, msg)); err != nil {
			t.Fatal(err)
		}
	}
	step(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Index: new(uint64(1)), LogTerm: new(uint64(1)), Commit: new(uint64(2)),
		Entries: []*raftpb.Entry{{Index: new(uint64(2)), Term: new(uint64(2)), Data: []byte("x")}}})
	w.run()
	if m.applied != 2 || !m.c.compactable() {
		t.Fatalf("applied %d, compactable %v", m.applied, m.c.compactable())
	}
	m.diskOff = true
	step(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{Data: []byte("nine"), Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(9)), Term: new(uint64(2)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}}})
	w.run()
	if err := m.c.Compact([]byte("two")); err != nil {
		t.Fatal(err)
	}
	m.diskOff = false
	w.run()
	if got := m.disk.Snapshot.GetMetadata().GetIndex(); got != 9 || m.applied != 9 || strings.Join(m.state, ",") != "nine" {
		t.Errorf("snapshot at %d on the disk, applied %d, state %v", got, m.applied, m.state)
	}
}

func encoded(t *testing.T, m *raftpb.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzRaftMessage: whatever a peer sends, Step returns, and afterwards the member works or says that it is dead.
func FuzzRaftMessage(f *testing.F) {
	add := func(m *raftpb.Message) {
		m.From, m.To = new(uint64(2)), new(uint64(1))
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(2)), Commit: new(uint64(1))})
	add(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(2)), Index: new(uint64(1)), LogTerm: new(uint64(1)),
		Entries: []*raftpb.Entry{{Index: new(uint64(2)), Term: new(uint64(2)), Data: []byte("x")}}})
	add(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(2)), Snapshot: &raftpb.Snapshot{Data: []byte("x"),
		Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(2)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}}})
	add(&raftpb.Message{Type: raftpb.MsgVote.Enum(), Term: new(uint64(3)), Index: new(uint64(5)), LogTerm: new(uint64(2))})
	add(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), Term: new(uint64(2))})
	add(&raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Data: []byte("x")}}})
	add(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: new(uint64(2)), Index: new(uint64(1) << 40)})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, lead := range []bool{false, true} {
			w := newRaftWorld(t)
			m := w.member(1)
			if err := w.forge(m, nil, 1, 1); err != nil {
				t.Fatal(err)
			}
			if lead {
				m.c.Campaign()
			}
			w.run()
			err := m.c.Step(2, m.incarnation, data)
			if err != nil && !errors.Is(err, errBadMessage) && !errors.Is(err, errRaftPanic) {
				t.Fatalf("an error of no kind: %v", err)
			}
			w.run()
			m.c.Tick()
			w.run()
			if m.err != nil && !errors.Is(m.err, errRaftPanic) {
				t.Fatalf("an error of no kind: %v", m.err)
			}
		}
	})
}
