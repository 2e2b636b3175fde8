package main

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const testL = time.Second

func at(ms int) instant { return instant(ms) * instant(time.Millisecond) }

func TestGrantNeedsAMajorityAndLastsFromSending(t *testing.T) {
	var g grants
	voters := []string{"alice", "bob", "carol"}
	if got := g.until("web", 5, voters, "alice", true); got != 0 {
		t.Fatalf("granted until %d before anything was asked", got)
	}
	first := g.ask(at(0), testL)
	if got := g.until("web", 5, voters, "alice", true); got != 0 {
		t.Fatalf("one of three granted until %d", got)
	}
	second := g.ask(at(100), testL)
	if !g.ack("bob", ack{Seq: first, Lease: testL}) {
		t.Fatal("a good ack was refused")
	}
	if got := g.until("web", 5, voters, "alice", true); got != at(1000) {
		t.Errorf("granted until %d, want 1 s from the sending of what bob acked", got)
	}
	g.ack("carol", ack{Seq: second, Lease: testL})
	if got := g.until("web", 5, voters, "alice", true); got != at(1100) {
		t.Errorf("granted until %d, want 1 s from the newest that a majority acked", got)
	}
	if got := g.until("web", 5, voters, "alice", false); got != at(1000) {
		t.Errorf("without its own vote granted until %d, want the older of the two acks", got)
	}
	if got := g.until("web", 5, []string{"bob", "carol"}, "alice", true); got != at(1000) {
		t.Errorf("an owner that is no voter was granted until %d, want both acks to count", got)
	}
}

func TestAckThatProvesNothingIsDropped(t *testing.T) {
	var g grants
	voters := []string{"alice", "bob", "carol"}
	first := g.ask(at(0), testL)
	second := g.ask(at(100), testL)
	for name, a := range map[string]ack{
		"not asked":  {Seq: 99, Lease: testL},
		"other L":    {Seq: first, Lease: 2 * testL},
		"no L":       {Seq: first},
		"negative L": {Seq: first, Lease: -1},
	} {
		if g.ack("bob", a) || g.until("web", 1, voters, "alice", true) != 0 {
			t.Errorf("%s: counted", name)
		}
	}
	if !g.ack("bob", ack{Seq: second, Lease: testL}) || g.ack("bob", ack{Seq: first, Lease: testL}) {
		t.Error("an ack that came late took the place of a newer one")
	}
	if got := g.until("web", 1, voters, "alice", true); got != at(1100) {
		t.Errorf("granted until %d, want by the newer ack", got)
	}
}

func TestAckThatNamesThePairGrantsTheRest(t *testing.T) {
	var g grants
	voters := []string{"alice", "bob", "carol"}
	seq := g.ask(at(0), testL)
	g.ack("bob", ack{Seq: seq, Lease: testL, Revoked: []groupEpoch{{"web", 5}}})
	for _, c := range []struct {
		group string
		epoch uint64
		want  instant
	}{{"web", 5, 0}, {"web", 4, 0}, {"web", 6, at(1000)}, {"db", 5, at(1000)}} {
		if got := g.until(c.group, c.epoch, voters, "alice", true); got != c.want {
			t.Errorf("%s at epoch %d is granted until %d, want %d", c.group, c.epoch, got, c.want)
		}
	}
}

func TestWhatIsForgottenOfSentBeatsGrantsNothing(t *testing.T) {
	var g grants
	old := g.ask(at(0), testL)
	for i := range sentMax {
		g.ask(at(i), testL)
	}
	if len(g.sent) != sentMax {
		t.Errorf("%d beats are kept, want %d", len(g.sent), sentMax)
	}
	if g.ack("bob", ack{Seq: old, Lease: testL}) {
		t.Error("an ack of a beat that is forgotten counted")
	}
}

func TestHold(t *testing.T) {
	v := ledger{born: at(0)}
	if got := v.hold(at(100), "alice", testL); got != 1150*time.Millisecond {
		t.Errorf("a voter that is 100 ms old holds %s, want what its former process may have given: 1.15 s", got)
	}
	now := at(10_000)
	if got := v.hold(now, "alice", testL); got != 0 {
		t.Errorf("a voter that has given nothing for long holds %s", got)
	}
	v.give(now, "alice", testL)
	if got := v.hold(now.add(200*time.Millisecond), "alice", testL); got != 1050*time.Millisecond {
		t.Errorf("200 ms after an ack the hold is %s, want 1.05 s", got)
	}
	v.give(now.add(-5*time.Second), "alice", 20*time.Second) // under an older deadtime
	if got := v.hold(now, "alice", testL); got != 20*time.Second {
		t.Errorf("the hold is %s, want by the longer lease given before: 20 s", got)
	}
	if got := v.hold(now.add(time.Hour), "alice", testL); got != 0 {
		t.Errorf("after an hour the hold is %s", got)
	}
	if got := v.hold(now, "bob", testL); got != 0 {
		t.Errorf("a grant to alice holds for bob: %s", got)
	}
}

func TestStoredRevokeIsNamedUntilItIsSettled(t *testing.T) {
	v := ledger{born: at(-60_000)}
	r := storedRevoke{"alice", "web", 5, 40}
	v.store(at(0), r, testL)
	v.store(at(1), r, testL)
	if got := v.give(at(2), "alice", testL); !slices.Equal(got, []groupEpoch{{"web", 5}}) {
		t.Fatalf("the ack names %v", got)
	}
	if got := v.give(at(2), "bob", testL); len(got) != 0 {
		t.Errorf("an ack to bob names %v", got)
	}
	if !v.revoked("alice", "web", 5) || !v.revoked("alice", "web", 4) || v.revoked("alice", "web", 6) || v.revoked("bob", "web", 5) {
		t.Error("the wrong pairs are barred")
	}
	none := func(string) uint64 { return 0 }
	yes := func(storedRevoke) bool { return true }
	v.settle(39, none, yes)
	v.settle(40, none, yes)
	if !v.revoked("alice", "web", 5) {
		t.Fatal("forgotten although the owner does not know it")
	}
	v.settle(40, func(string) uint64 { return 40 }, yes)
	if v.revoked("alice", "web", 5) {
		t.Error("still barred after the owner has applied it")
	}

	// Cut off this log it may come back from another's, until something else is committed at its index.
	v.store(at(3), storedRevoke{"alice", "web", 6, 41}, testL)
	no := func(storedRevoke) bool { return false }
	v.settle(40, func(string) uint64 { return 99 }, no)
	if !v.revoked("alice", "web", 6) {
		t.Error("forgotten before its index was decided")
	}
	v.settle(41, none, no)
	if v.revoked("alice", "web", 6) {
		t.Error("barred although something else was committed at its index")
	}
}

func TestWaitingTakesTheBestMajority(t *testing.T) {
	voters := []string{"alice", "bob", "carol", "dave", "erin"}
	w := waiting{group: "web", epoch: 5, known: at(1000)}
	if got := w.over(voters, testL); got != at(2250) {
		t.Errorf("with no word it is over at %d, want 1.25 L after the commit was known", got)
	}
	w.tell(at(1000), "bob", 250*time.Millisecond)
	w.tell(at(1000), "carol", 0)
	if got := w.over(voters, testL); got != at(2250) {
		t.Errorf("with two of five it is over at %d, want 2250", got)
	}
	w.tell(at(1500), "dave", 740*time.Millisecond)
	if got := w.over(voters, testL); got != at(2240) {
		t.Errorf("with three of five it is over at %d, want the latest of them, from when it came in: 2240", got)
	}
	w.tell(at(1500), "erin", 100*time.Millisecond)
	if got := w.over(voters, testL); got != at(1600) {
		t.Errorf("with four of five it is over at %d, want the third earliest: 1600", got)
	}
	w.tell(at(9000), "carol", 1250*time.Millisecond)
	if got := w.over(voters, testL); got != at(1600) {
		t.Errorf("a repetition moved the end to %d", got)
	}
	w.tell(at(1500), "mallory", 0)
	w.tell(at(1500), "oscar", 0)
	if got := w.over(voters, testL); got != at(1600) {
		t.Errorf("words of nodes that do not vote moved the end to %d", got)
	}
}

// TestNeverPlacedWhileGranted draws whole histories of one owner, voters and a taker, each with a clock of its own that
// is up to 10 % off, and checks in true time that the taker's wait ends after the owner's grant.
func TestNeverPlacedWhileGranted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "voters")
		names := []string{"v0", "v1", "v2", "v3", "v4"}[:n]
		rate := func(who string) float64 { return rapid.Float64Range(0.9, 1.1).Draw(t, "rate of "+who) }
		ownerRate, takerRate := rate("owner"), rate("taker")
		local := func(trueMS, rate float64) instant { return instant(trueMS * rate * float64(time.Millisecond)) }

		type voter struct {
			ledger
			rate     float64
			storesAt float64 // true ms; never: > end
		}
		vs := make([]*voter, n)
		const end, beats = 3000.0, 20
		for i := range vs {
			r := rate(names[i])
			vs[i] = &voter{ledger{born: local(-1e6, r)}, r, rapid.Float64Range(900, end*1.5).Draw(t, "stores at")}
		}
		var g grants
		w := waiting{group: "web", epoch: 1}
		var stored []float64
		for _, v := range vs {
			stored = append(stored, v.storesAt)
		}
		slices.Sort(stored)
		committed := stored[quorum(n)-1] // a majority has stored it
		w.known = local(committed, takerRate)

		for b := range beats {
			sent := float64(b) * 100
			seq := g.ask(local(sent, ownerRate), testL)
			for i, v := range vs {
				if rapid.Bool().Draw(t, "lost") {
					continue
				}
				acked := sent + rapid.Float64Range(0, 300).Draw(t, "delay")
				if acked >= v.storesAt {
					continue // it names the pair from then on
				}
				v.give(local(acked, v.rate), "owner", testL)
				g.ack(names[i], ack{Seq: seq, Lease: testL})
			}
		}
		for i, v := range vs {
			if v.storesAt > end {
				continue
			}
			h := v.store(local(v.storesAt, v.rate), storedRevoke{"owner", "web", 1, 1}, testL)
			told := v.storesAt + rapid.Float64Range(0, 200).Draw(t, "word under way")
			w.tell(local(told, takerRate), names[i], h)
		}
		grantEnd := float64(g.until("web", 1, names, "nobody", false)) / float64(time.Millisecond) / ownerRate
		placed := float64(w.over(names, testL)) / float64(time.Millisecond) / takerRate
		if placed < committed {
			placed = committed // nothing is placed before the commit is known
		}
		if placed < grantEnd {
			t.Fatalf("placed at %.1f ms while the owner was granted until %.1f ms (committed at %.1f)", placed, grantEnd, committed)
		}
	})
}

func TestVoidGrantsNothingUntilANewHeartbeatIsAcked(t *testing.T) {
	var g grants
	voters := []string{"alice", "bob", "carol"}
	old := g.ask(at(0), testL)
	g.ack("bob", ack{Seq: old, Lease: testL})
	late := g.ask(at(100), testL)
	g.void()
	if got := g.until("web", 1, voters, "alice", true); got != 0 {
		t.Errorf("granted until %d after it was void", got)
	}
	if g.ack("carol", ack{Seq: late, Lease: testL}) {
		t.Error("an ack of a heartbeat from before counted")
	}
	fresh := g.ask(at(200), testL)
	if !g.ack("carol", ack{Seq: fresh, Lease: testL}) || g.until("web", 1, voters, "alice", true) != at(1200) {
		t.Error("a new heartbeat's ack does not grant anew")
	}
}

func TestStoodStill(t *testing.T) {
	b := clockBase{sent: at(1000), acked: at(500_000)}
	for _, c := range []struct {
		name       string
		now, clock instant
		want       time.Duration
	}{
		{"both go on", at(1100), at(500_100), 0},
		{"the peer stood still", at(6000), at(500_100), 0},
		{"less than a fifth of a lease", at(1100), at(500_299), 0},
		{"more", at(1100), at(500_350), 250 * time.Millisecond},
		{"a pause of ten seconds", at(1100), at(510_100), 10 * time.Second},
		{"rates that are far apart, for long", at(10_000), at(510_999), 0},
		{"more than rates can be apart", at(10_000), at(511_100), 2100 * time.Millisecond},
		{"a message that was long on its way", at(9000), at(500_050), 0},
	} {
		if got := b.stoodStill(c.now, c.clock, testL); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := (clockBase{}).stoodStill(at(1), at(1_000_000), testL); got != 0 {
		t.Errorf("without a moment in common: %s", got)
	}
}

// TestClockRatesVoidNoLease draws two clocks up to 10 % off and messages that are late, lost or out of order: where nothing
// stands still, nothing is ever void.
func TestClockRatesVoidNoLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := anyRate(t, "my rate"), anyRate(t, "the peer's rate")
		slow := rapid.SampledFrom([]float64{1, 50, 2000}).Draw(t, "a message takes up to")
		delay := func() float64 { return rapid.Float64Range(0, slow).Draw(t, "a message takes") }
		b := clockBase{localAt(1, mine), localAt(1, theirs)}
		for i := range 60 {
			sent := float64(i) * 100
			acked := sent + delay()
			if still := b.stoodStill(localAt(acked+delay(), mine), localAt(acked, theirs), testL); still != 0 {
				t.Fatalf("void by %s at %.0f ms", still, sent)
			}
			if rapid.Bool().Draw(t, "the ack is kept") {
				b = clockBase{localAt(sent, mine), localAt(acked, theirs)}
			}
		}
	})
}

// TestPauseIsFound: whatever the rates, a pause of more than a fifth of a lease, and what messages and rates can hide, is
// found by a message that the peer sends after it.
func TestPauseIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := anyRate(t, "my rate"), anyRate(t, "the peer's rate")
		sent := rapid.Float64Range(1, 900).Draw(t, "the ack's heartbeat leaves")
		acked := sent + rapid.Float64Range(0, 20).Draw(t, "there")
		begin := acked + rapid.Float64Range(0, 300).Draw(t, "then it stands still")
		took := rapid.Float64Range(600, 60_000).Draw(t, "for")
		said := begin + took + rapid.Float64Range(0, 100).Draw(t, "the next message leaves")
		came := said + rapid.Float64Range(0, 20).Draw(t, "and takes")
		b := clockBase{localAt(sent, mine), localAt(acked, theirs)}
		if b.stoodStill(localAt(came-took, mine), localAt(said, theirs), testL) == 0 {
			t.Fatalf("a pause of %.0f ms was not found", took)
		}
	})
}

func anyRate(t *rapid.T, whose string) float64 { return rapid.Float64Range(0.9, 1.1).Draw(t, whose) }

// localAt is what a clock of that rate shows at a true time in ms.
func localAt(ms, rate float64) instant { return instant(ms * rate * float64(time.Millisecond)) }
