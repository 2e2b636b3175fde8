package main

import (
	"slices"
	"testing"
	"time"
)

func testReceived(from string, session uint64, link string, ms int) received {
	return received{From: from, Session: session, Confirmed: true, Link: link, Kind: kindHeartbeat, At: when(ms)}
}

func TestPeerIsHeardOnlyWhileItHearsMe(t *testing.T) {
	const mine = 7
	p := peers{self: "alice"}
	bob := p.heard(testReceived("bob", 1, "lan", 0))
	if bob.hears(when(1), "alice", mine, time.Second) {
		t.Error("counts before its first heartbeat said that it hears me")
	}
	echo := func(age time.Duration) []heardPeer {
		return []heardPeer{{Name: nameHash("alice"), Session: mine, Age: age}}
	}
	bob.beatFrom(when(0), heartbeat{Seq: 1, Heard: echo(0)})
	if !bob.hears(when(900), "alice", mine, time.Second) {
		t.Error("does not count although it was heard 0.9 s ago and heard me then")
	}
	if bob.hears(when(1000), "alice", mine, time.Second) {
		t.Error("counts after a deadtime of silence")
	}
	bob = p.heard(testReceived("bob", 1, "lan", 2000))
	bob.beatFrom(when(2000), heartbeat{Seq: 2, Heard: echo(3 * time.Second)})
	if bob.hears(when(2000), "alice", mine, time.Second) {
		t.Error("counts although it has not heard me for 3 s: silence in one direction is silence")
	}
	bob.beatFrom(when(2000), heartbeat{Seq: 3, Heard: []heardPeer{{Name: nameHash("alice"), Session: 99}}})
	if bob.hears(when(2000), "alice", mine, time.Second) {
		t.Error("counts although it hears my former session")
	}
}

func TestOldAndUnconfirmedChangeNothing(t *testing.T) {
	p := peers{self: "alice"}
	r := testReceived("bob", 1, "lan", 0)
	r.Confirmed = false
	bob := p.heard(r)
	if bob.at != 0 || bob.unsure != when(0) {
		t.Error("an unconfirmed session counts as heard")
	}
	bob = p.heard(testReceived("bob", 1, "lan", 10))
	if !bob.beatFrom(when(10), heartbeat{Seq: 5}) || bob.beatFrom(when(11), heartbeat{Seq: 5}) || bob.beatFrom(when(12), heartbeat{Seq: 4}) {
		t.Error("a copy or an older heartbeat took the place of a newer one")
	}
	bob = p.heard(testReceived("bob", 2, "lan", 20))
	if bob.beatAt != 0 || !bob.beatFrom(when(20), heartbeat{Seq: 1}) {
		t.Error("a new session does not begin anew")
	}
}

func TestAgeIsTheYoungestThatAnyVoterTells(t *testing.T) {
	voters := []string{"alice", "bob", "carol"}
	p := peers{self: "alice"}
	if age := p.age(when(0), "carol", voters, time.Second); age < time.Hour {
		t.Errorf("the age of a node that was never heard is %s", age)
	}
	p.heard(testReceived("carol", 1, "lan", 0))
	bob := p.heard(testReceived("bob", 2, "lan", 900))
	bob.beatFrom(when(900), heartbeat{Seq: 1, Heard: []heardPeer{{Name: nameHash("carol"), Age: 50 * time.Millisecond}}})
	if age := p.age(when(1000), "carol", voters, time.Second); age != 150*time.Millisecond {
		t.Errorf("age %s, want 150 ms: bob heard it 50 ms before his word, which is 100 ms old", age)
	}
	if age := p.age(when(1000), "carol", []string{"alice", "carol"}, time.Second); age != time.Second {
		t.Errorf("age %s, want 1 s: bob does not vote", age)
	}
	if age := p.age(when(2500), "carol", voters, time.Second); age != 2500*time.Millisecond {
		t.Errorf("age %s, want 2.5 s: bob himself is silent, so what he said does not count", age)
	}
}

func TestLinksAreJudgedOnTheirOwn(t *testing.T) {
	p := peers{self: "alice"}
	p.heard(testReceived("bob", 1, "lan", 0))
	bob := p.heard(testReceived("bob", 1, "repl", 900))
	p.heard(testReceived("bob", 1, "", 950)) // over the stream
	if on := bob.on(when(1000), time.Second); !slices.Equal(on, []string{"repl"}) {
		t.Errorf("heard on %v, want repl alone", on)
	}
	list := p.list(when(1000), []string{"lan", "repl"}, time.Second)
	if len(list) != 1 || list[0].Links != 2 || list[0].Age != 50*time.Millisecond || list[0].Session != 1 {
		t.Errorf("it tells %+v", list)
	}
	if list := p.list(when(60_000), []string{"lan"}, time.Second); len(list) != 0 {
		t.Errorf("after a minute of silence it still tells %+v", list)
	}
}

// when is a moment of these tests; 0 would mean never.
func when(ms int) instant { return at(ms + 1000) }
