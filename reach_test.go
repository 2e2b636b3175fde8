package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var gatewayPing = PingConfig{Name: "gateway", Address: "192.0.2.1", Interval: Duration(time.Second), Timeout: Duration(time.Second), Failures: 3}

// asked is one target, and what was asked of it.
type asked struct {
	t   *testing.T
	r   reach
	now instant
}

func newAsked(t *testing.T) *asked {
	a := &asked{t: t, now: at(1000)}
	a.r.configure(a.now, []PingConfig{gatewayPing})
	return a
}

// answers lets an echo be answered for each "+", and fail for each "-".
func (a *asked) answers(row string) {
	a.t.Helper()
	for _, c := range row {
		p, ok := a.r.ask(a.now, a.r.targets[0], time.Second)
		if !ok {
			a.t.Fatalf("nothing is due at %d", a.now)
		}
		failure := ""
		if c == '-' {
			failure = "no answer within 1s"
		}
		a.r.ended(p.ID, failure)
		a.now = a.now.add(time.Second)
	}
}

func TestReachIsDamped(t *testing.T) {
	for _, c := range []struct{ row, want string }{
		{"", "unknown"},
		{"-", "unknown"}, {"--", "unknown"}, {"---", "lost"},
		{"+", "up"}, {"--+", "up"}, // the first answer says all
		{"+-", "up"}, {"+--", "up"}, {"+--+--+--", "up"}, {"+---", "lost"},
		{"---+", "lost"}, {"---++", "lost"}, {"---++-++", "lost"}, {"---+++", "up"},
	} {
		a := newAsked(t)
		a.answers(c.row)
		got := map[[2]bool]string{{false, false}: "unknown", {true, true}: "up", {true, false}: "lost"}[[2]bool{a.r.targets[0].known, a.r.targets[0].up}]
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.row, got, c.want)
		}
	}
}

func TestOneEchoAtATimeUnlessInAHurry(t *testing.T) {
	a := newAsked(t)
	tg := a.r.targets[0]
	if _, ok := a.r.ask(a.now, tg, time.Second); !ok {
		t.Fatal("the first echo is not due at once")
	}
	if _, ok := a.r.ask(a.now.add(1500*time.Millisecond), tg, time.Second); ok {
		t.Error("a second echo left while the first was on its way")
	}
	if _, ok := a.r.ask(a.now.add(100*time.Millisecond), tg, 250*time.Millisecond); ok {
		t.Error("a hurry is no reason to ask twice within its pace")
	}
	if p, ok := a.r.ask(a.now.add(350*time.Millisecond), tg, 250*time.Millisecond); !ok || p.Timeout != time.Second {
		t.Error("in a hurry it waited for an answer")
	}
	if len(tg.open) != 2 {
		t.Fatalf("%d echoes are on their way, want 2", len(tg.open))
	}
	if _, ok := a.r.ask(a.now.add(3*time.Second), tg, time.Second); !ok || len(tg.open) != 1 || tg.row != -2 {
		t.Errorf("echoes of which nothing comes are not given up: %d on their way, row %d", len(tg.open), tg.row)
	}
	for i := range 3 * openMax {
		a.r.ask(a.now.add(4*time.Second+time.Duration(i)*time.Millisecond), tg, time.Millisecond)
	}
	if len(tg.open) > openMax {
		t.Errorf("%d echoes are on their way", len(tg.open))
	}
}

func TestQuietCountsFromWhatWasAnsweredLast(t *testing.T) {
	a := newAsked(t)
	tg := a.r.targets[0]
	if got := tg.quiet(at(3000), 0); got != 2*time.Second {
		t.Errorf("never answered: quiet for %s, want since it is asked", got)
	}
	a.answers("+")
	if got := tg.quiet(at(3500), 0); got != 2500*time.Millisecond {
		t.Errorf("quiet for %s, want since the answered echo left", got)
	}
	if got := tg.quiet(at(3500), at(3000)); got != 500*time.Millisecond {
		t.Errorf("quiet for %s, want not from before 3000", got)
	}
	late, _ := a.r.ask(at(2000), tg, time.Second)
	a.r.ended(late.ID, "")
	a.r.ended(late.ID, "")
	if tg.row != 2 {
		t.Errorf("an answer counted twice: row %d", tg.row)
	}
}

func TestConfigureKeepsWhatStays(t *testing.T) {
	a := newAsked(t)
	a.answers("+")
	slower, moved := gatewayPing, gatewayPing
	slower.Interval = Duration(5 * time.Second)
	moved.Address = "192.0.2.2"
	a.r.configure(a.now, []PingConfig{slower})
	if tg := a.r.target("gateway"); !tg.up || tg.config.Interval != slower.Interval {
		t.Errorf("another interval: %+v", tg)
	}
	a.r.configure(a.now, []PingConfig{moved})
	if tg := a.r.target("gateway"); tg.known {
		t.Errorf("another address under the same name: %+v", tg)
	}
}

// TestReachFollowsAnyRow: whatever the answers, the judgement changes only after enough in a row, and always then.
func TestReachFollowsAnyRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := gatewayPing
		c.Failures = rapid.IntRange(pingFailures, 6).Draw(t, "failures")
		var r reach
		r.configure(0, []PingConfig{c})
		tg, row := r.targets[0], []bool{}
		for i := range 100 {
			p, _ := r.ask(at(i*1000), tg, time.Second)
			up := rapid.Bool().Draw(t, "answers")
			row = append(row, up)
			failure := map[bool]string{true: "", false: "no"}[up]
			was, known := tg.up, tg.known
			r.ended(p.ID, failure)
			same := 0
			for j := len(row) - 1; j >= 0 && row[j] == up; j-- {
				same++
			}
			if changed := known && tg.up != was; changed && same < c.Failures {
				t.Fatalf("it changed after %d in a row", same)
			}
			if same >= c.Failures && (!tg.known || tg.up != up) {
				t.Fatalf("%d in a row and it says known %v, up %v", same, tg.known, tg.up)
			}
		}
	})
}

// needy is three nodes of which alice owns web, which needs these targets; reach tells for each node, by target, "+" for
// reached and "-" for not, anything else for nothing said.
func needy(t *testing.T, needs string, reach map[string]string) (*State, *View) {
	t.Helper()
	s, v := three(t)
	v.Nodes[0].Heard, v.Nodes[0].Direct, v.Nodes[0].Age = true, true, 0
	c := s.Config.Effective
	c.Groups[0].Needs = strings.Fields(needs)
	for _, name := range c.Groups[0].Needs {
		p := gatewayPing
		p.Name = name
		c.Pings = append(c.Pings, p)
	}
	for i := range s.Nodes {
		for j, said := range reach[s.Nodes[i].Name] {
			if j < len(c.Pings) && said != ' ' {
				s.Nodes[i].Reach = append(s.Nodes[i].Reach, Reach{Ping: c.Pings[j].Name, Reason: map[rune]string{'+': "", '-': "no answer"}[said]})
			}
		}
	}
	return s, v
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		name  string
		needs string
		reach map[string]string
		want  string // the rule of web, and where it goes: "" stays
	}{
		{"all reach it", "a", map[string]string{"alice": "+", "bob": "+", "carol": "+"}, "G18"},
		{"the owner does not", "a", map[string]string{"alice": "-", "bob": "+", "carol": "-"}, "G12"},
		{"it is down", "a", map[string]string{"alice": "-", "bob": "-", "carol": "-"}, "G18"},
		{"nobody has said anything", "a", nil, "G18"},
		{"the owner has said nothing yet", "a", map[string]string{"bob": "+", "carol": "+"}, "G18"},
		{"the others have said nothing yet", "a", map[string]string{"alice": "-"}, "G18"},
		{"each misses one", "a b", map[string]string{"alice": "+-", "bob": "-+", "carol": "-+"}, "G18"},
		{"the owner misses one more", "a b c", map[string]string{"alice": "+--", "bob": "-++", "carol": "---"}, "G12"},
		{"of two that it misses one is down", "a b", map[string]string{"alice": "--", "bob": "-+", "carol": "--"}, "G12"},
		{"what it does not need", "", map[string]string{"alice": "-", "bob": "+"}, "G18"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, v := needy(t, c.needs, c.reach)
			d := Decide(s, v)
			if got := d.Verdicts[0].Rule; got != c.want {
				t.Errorf("%s: %s, want %s", got, d.Verdicts[0].Text, c.want)
			}
		})
	}
}

// What has only just changed may be about to change for the others too.
func TestNeedsWaitForTheOthers(t *testing.T) {
	settle := gatewayPing.settle()
	for _, c := range []struct {
		name             string
		lost, reachedBob time.Duration // ago
		want             string
	}{
		{"both long ago", time.Hour, time.Hour, "G12"},
		{"the owner lost it just now", settle - time.Millisecond, time.Hour, "G18"},
		{"it has been long enough", settle, time.Hour, "G12"},
		{"it was down, and bob is the first that it answers again", time.Hour, settle - time.Millisecond, "G18"},
		{"and alice does not follow", time.Hour, settle, "G12"},
	} {
		s, v := needy(t, "a", map[string]string{"alice": "-", "bob": "+", "carol": "-"})
		v.Clock = 2 * time.Hour
		s.Nodes[0].Reach[0].Since, s.Nodes[1].Reach[0].Since = v.Clock-c.lost, v.Clock-c.reachedBob
		d := Decide(s, v)
		if got := d.Verdicts[0].Rule; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if c.want == "G18" && d.Wake != v.Now.add(time.Millisecond) {
			t.Errorf("%s: looks again at %d, want in a millisecond", c.name, d.Wake-v.Now)
		}
	}
}

func TestReachEntries(t *testing.T) {
	s, _ := needy(t, "a b", nil)
	apply := func(e Entry) string { _, refused := Apply(s, s.Index+1, &e); return refused }
	say := func(ping, reason string, session uint64) string {
		return apply(Entry{Kind: entryReach, Node: "bob", Ping: ping, Reason: reason, Session: session})
	}
	if r := say("b", "no answer", 12); r != "" {
		t.Fatal(r)
	}
	if r := say("a", "", 12); r != "" {
		t.Fatal(r)
	}
	for what, refused := range map[string]string{
		"the same again":    say("b", "refused", 12),
		"another session":   say("b", "", 99),
		"an unknown target": say("z", "", 12),
	} {
		if refused == "" {
			t.Errorf("%s was taken", what)
		}
	}
	bob := s.node("bob")
	if got := fmt.Sprint(bob.Reach); got != "[{a  0s} {b no answer 0s}]" {
		t.Errorf("bob has said %s", got)
	}
	next := *s.Config.Effective
	next.Pings = []PingConfig{next.Pings[0], next.Pings[1]}
	next.Pings[0].Address = "192.0.2.99"
	if r := apply(Entry{Kind: entryConfig, Base: 1, Config: &ConfigState{Hash: "next", Effective: &next}}); r != "" {
		t.Fatal(r)
	}
	if bob.reach("a") != nil || bob.reach("b") == nil {
		t.Errorf("after a change of a's address bob has said %v", bob.Reach)
	}
	if r := apply(Entry{Kind: entryJoin, Node: "bob", Member: 2, Base: 12, Session: 13}); r != "" {
		t.Fatal(r)
	}
	if len(s.node("bob").Reach) != 0 {
		t.Error("a new session begins with what the last one said")
	}
}

func TestFlapsAreCountedAndForgotten(t *testing.T) {
	for _, c := range []struct {
		before    int
		ago       time.Duration
		want      int
		wait      time.Duration
		wantSteps string
	}{
		{0, 0, 1, 0, "the first"},
		{1, time.Minute, 2, 0, "the second"},
		{2, flapWindow, 3, flapHold, "the third within the window"},
		{3, time.Minute, 4, 2 * flapHold, "the fourth"},
		{40, time.Minute, 41, flapHoldMax, "bounded"},
		{40, flapWindow + 1, 1, 0, "after the window"},
	} {
		n := &NodeState{Since: time.Hour}
		if n.Flaps = counted(c.before, time.Hour-c.ago, time.Hour); n.Flaps != c.want {
			t.Errorf("%s: %d, want %d", c.wantSteps, n.Flaps, c.want)
		}
		if got := n.unsteady(time.Hour); got != c.wait {
			t.Errorf("%s: waits %s, want %s", c.wantSteps, got, c.wait)
		}
		if got := n.unsteady(time.Hour + flapHoldMax); got != 0 {
			t.Errorf("%s: waits %s though it was steady for long", c.wantSteps, got)
		}
	}
	if flapWindow <= flapHoldMax {
		t.Error("a flap would be forgotten before its wait is over")
	}
}

// Who comes and goes is handed no leadership, unless the leader leaves.
func TestLeadershipPassesByWhoComesAndGoes(t *testing.T) {
	for _, c := range []struct {
		name    string
		flaps   []int // of bob and carol
		leaving bool
		want    string
	}{
		{"both steady", []int{0, 0}, false, "bob"},
		{"bob comes and goes", []int{flapLimit, 0}, false, "carol"},
		{"both do", []int{flapLimit, flapLimit}, false, ""},
		{"both do, and the leader leaves", []int{flapLimit, flapLimit}, true, "bob"},
	} {
		s, v := needy(t, "", nil)
		v.Self, v.Nodes[0].Leaving = "alice", c.leaving
		for i, flaps := range c.flaps {
			s.Nodes[i+1].Flaps, s.Nodes[i+1].Since = flaps, v.Clock
		}
		if d := Decide(s, v); d.Transfer != c.want {
			t.Errorf("%s: handed to %q, want %q", c.name, d.Transfer, c.want)
		}
	}
}
