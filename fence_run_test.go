package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func encodeSimulation(t *testing.T, s *State, v *View) []byte {
	t.Helper()
	b, err := json.Marshal(&simulation{State: s, View: v})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fenceBench lets a run call devices that answer as a script says.
type fenceBench struct {
	c     *Config
	run   fenceRun
	now   instant
	calls uint64
	log   []string // what was called
}

func newFenceBench(devices ...FenceConfig) *fenceBench {
	c := rigConfig("alice", "bob")
	for _, d := range devices {
		d.Node, d.Agent = "alice", "fence_test"
		if d.Timeout == 0 {
			d.Timeout = Duration(10 * time.Second)
		}
		c.Fences = append(c.Fences, d)
	}
	return &fenceBench{c: c, run: fenceRun{node: "alice"}, now: at(1000)}
}

// play goes on to the end. Answer returns nil for a call that hangs.
func (b *fenceBench) play(t interface{ Fatalf(string, ...any) }, answer func(s fenceStep) *fenceDone) {
	for range 2000 {
		s, wake := b.run.next(b.now, b.c)
		switch {
		case b.run.done:
			return
		case s == nil:
			if wake <= b.now {
				t.Fatalf("nothing is due and nothing is waited for: %+v", b.run)
			}
			b.now = wake
			continue
		}
		b.calls++
		s.ID = b.calls
		b.run.call = s.ID
		b.log = append(b.log, s.Device.Name+" "+s.Action)
		if d := answer(*s); d != nil {
			d.fenceStep = *s
			b.now = b.now.add(time.Millisecond)
			b.run.answer(b.now, b.c, *d)
		}
	}
	t.Fatalf("it does not end: %s", strings.Join(b.log, ", "))
}

func TestFenceRun(t *testing.T) {
	ok, on, off, fails := fenceDone{}, fenceDone{Power: "on"}, fenceDone{Power: "off"}, fenceDone{Err: "no route"}
	for name, k := range map[string]struct {
		devices []FenceConfig
		probe   bool
		answers map[string][]*fenceDone // by device and action; the last goes on; nil: it hangs
		want    string                  // calls
		ok      bool
		result  string
	}{
		"off, and status says so": {devices: []FenceConfig{{Name: "a", Level: 1}},
			answers: map[string][]*fenceDone{"a off": {&ok}, "a status": {&off}},
			want:    "a off, a status", ok: true, result: "a says that it is off"},
		"off takes a moment": {devices: []FenceConfig{{Name: "a", Level: 1}},
			answers: map[string][]*fenceDone{"a off": {&ok}, "a status": {&on, &on, &off}},
			want:    "a off, a status, a status, a status", ok: true, result: "a says that it is off"},
		"off fails although it is off": {devices: []FenceConfig{{Name: "a", Level: 1, Retries: 1}},
			answers: map[string][]*fenceDone{"a off": {&fails}, "a status": {&off}},
			want:    "a off, a off", result: "a: no route"},
		"off hangs, and then works": {devices: []FenceConfig{{Name: "a", Level: 1, Retries: 1}},
			answers: map[string][]*fenceDone{"a off": {nil, &ok}, "a status": {&off}},
			want:    "a off, a off, a status", ok: true, result: "a says that it is off"},
		"status hangs": {devices: []FenceConfig{{Name: "a", Level: 1}},
			answers: map[string][]*fenceDone{"a off": {&ok}, "a status": {nil}},
			want:    "a off, a status", result: "a: it does not come back"},
		"status says nothing": {devices: []FenceConfig{{Name: "a", Level: 1}},
			answers: map[string][]*fenceDone{"a off": {&ok}, "a status": {&fails}},
			want:    "a off, a status", result: "a: no route"},
		"the next level": {devices: []FenceConfig{{Name: "b", Level: 2}, {Name: "a", Level: 1, Retries: 1}},
			answers: map[string][]*fenceDone{"a off": {&fails}, "b off": {&ok}, "b status": {&off}},
			want:    "a off, a off, b off, b status", ok: true, result: "b says that it is off"},
		"both of a level": {devices: []FenceConfig{{Name: "a", Level: 1}, {Name: "b", Level: 1}},
			answers: map[string][]*fenceDone{"a off": {&ok}, "a status": {&off}, "b off": {&ok}, "b status": {&off}},
			want:    "a off, a status, b off, b status", ok: true, result: "a, b say that it is off"},
		"one of a level is not enough": {devices: []FenceConfig{{Name: "a", Level: 1}, {Name: "b", Level: 1}, {Name: "c", Level: 3}},
			answers: map[string][]*fenceDone{"a off": {&ok}, "a status": {&off}, "b off": {&fails}, "c off": {&fails}},
			want:    "a off, a status, b off, c off", result: "b: no route; c: no route"},
		"no device": {result: "it has no fence device any more"},
		"only asked, and off": {devices: []FenceConfig{{Name: "a", Level: 1}}, probe: true,
			answers: map[string][]*fenceDone{"a status": {&off}}, want: "a status", ok: true, result: "a says that it is off"},
		"only asked, and on": {devices: []FenceConfig{{Name: "a", Level: 1, Retries: 2}}, probe: true,
			answers: map[string][]*fenceDone{"a status": {&on}}, want: "a status", result: "a: it is on"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFenceBench(k.devices...)
			b.run.probe = k.probe
			b.play(t, func(s fenceStep) *fenceDone {
				list := k.answers[s.Device.Name+" "+s.Action]
				if len(list) == 0 {
					t.Fatalf("%s %s was not to be called", s.Device.Name, s.Action)
				}
				if len(list) > 1 {
					k.answers[s.Device.Name+" "+s.Action] = list[1:]
				}
				if list[0] == nil {
					return nil
				}
				d := *list[0]
				return &d
			})
			if got := strings.Join(b.log, ", "); got != k.want || b.run.ok != k.ok || b.run.result() != k.result {
				t.Errorf("calls %q, ok %v: %s\nwant %q, %v: %s", got, b.run.ok, b.run.result(), k.want, k.ok, k.result)
			}
		})
	}
}

// A device that says on for ever is looked at until its time is over, and no longer.
func TestFenceRunThatIsLiedTo(t *testing.T) {
	b := newFenceBench(FenceConfig{Name: "a", Level: 1, Retries: 1})
	b.play(t, func(s fenceStep) *fenceDone {
		if s.Action == fenceStatus {
			return &fenceDone{Power: "on"}
		}
		return &fenceDone{}
	})
	if b.run.ok || b.run.result() != "a: off went well, and yet its status is on" {
		t.Errorf("ok %v: %s", b.run.ok, b.run.result())
	}
	if took := b.now.sub(at(1000)); took > fenceLimit(b.c, "alice") {
		t.Errorf("it took %s, and another helper is asked after %s", took, fenceLimit(b.c, "alice"))
	}
}

// An answer to a call that was given up is not taken for the answer to the one that followed.
func TestFenceRunIgnoresLateAnswers(t *testing.T) {
	b := newFenceBench(FenceConfig{Name: "a", Level: 1, Retries: 5})
	var hung *fenceStep
	b.play(t, func(s fenceStep) *fenceDone {
		switch {
		case hung == nil:
			hung = &s
			return nil
		case s.Action == fenceOff:
			b.run.answer(b.now, b.c, fenceDone{fenceStep: *hung}) // off went well, at last
			if b.run.looking {
				t.Fatal("the answer to the first call was taken for that to the second")
			}
			return &fenceDone{Err: "busy"}
		}
		return &fenceDone{Power: "off"}
	})
	if b.run.ok {
		t.Error("confirmed")
	}
}

// A new config in the middle: what the old devices have said counts no more.
func TestFenceRunBeginsAgainUnderAnotherConfig(t *testing.T) {
	b := newFenceBench(FenceConfig{Name: "a", Level: 1}, FenceConfig{Name: "b", Level: 1})
	b.play(t, func(s fenceStep) *fenceDone {
		if s.Action == fenceOff {
			if s.Device.Name == "b" {
				b.c.Fences = b.c.Fences[:0]
				b.c.Fences = append(b.c.Fences, FenceConfig{Name: "x", Node: "alice", Level: 1, Timeout: Duration(time.Second)},
					FenceConfig{Name: "y", Node: "alice", Level: 1, Timeout: Duration(time.Second)})
			}
			return &fenceDone{}
		}
		return &fenceDone{Power: "off"}
	})
	if got := strings.Join(b.log, ", "); got != "a off, a status, b off, x off, x status, y off, y status" || b.run.result() != "x, y say that it is off" {
		t.Errorf("%s: %s", got, b.run.result())
	}
}

// Whatever devices do: confirmed means that every device of one level has done off and then said off, in this order and
// with nothing between; and it ends within its limit.
func TestFenceRunProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var devices []FenceConfig
		for i := range rapid.IntRange(1, 4).Draw(t, "devices") {
			devices = append(devices, FenceConfig{Name: fmt.Sprint("d", i), Level: rapid.IntRange(1, 3).Draw(t, "level"), Retries: rapid.IntRange(0, 2).Draw(t, "retries"), Timeout: Duration(time.Second)})
		}
		b := newFenceBench(devices...)
		last, proven := map[string]string{}, map[string]bool{}
		b.play(t, func(s fenceStep) *fenceDone {
			d := s.Device.Name
			proven[d] = false
			switch rapid.IntRange(0, 3).Draw(t, s.Action) {
			case 0:
				last[d] = ""
				return nil
			case 1:
				last[d] = ""
				return &fenceDone{Err: "no"}
			case 2:
				if s.Action == fenceOff {
					last[d] = fenceOff
					return &fenceDone{}
				}
				return &fenceDone{Power: "on"}
			}
			if s.Action == fenceOff {
				last[d] = fenceOff
				return &fenceDone{}
			}
			proven[d] = last[d] == fenceOff
			return &fenceDone{Power: "off"}
		})
		if took := b.now.sub(at(1000)); took > fenceLimit(b.c, "alice") {
			t.Fatalf("it took %s of %s: %s", took, fenceLimit(b.c, "alice"), strings.Join(b.log, ", "))
		}
		if !b.run.ok {
			return
		}
		level := b.c.fencesOf("alice")[b.run.step-1].Level
		for _, d := range b.c.fencesOf("alice") {
			if d.Level == level && !proven[d.Name] {
				t.Fatalf("confirmed, and %s has not: %s", d.Name, strings.Join(b.log, ", "))
			}
		}
	})
}

// Exactly one of two has the head start, whatever they run.
func TestHeadStart(t *testing.T) {
	c := rigConfig("alice", "bob")
	for _, k := range []struct {
		owners []string
		first  string
	}{{nil, "alice"}, {[]string{"bob"}, "bob"}, {[]string{"alice", "bob"}, "alice"}, {[]string{"alice", "bob", "bob"}, "bob"}, {[]string{""}, "alice"}} {
		s := &State{}
		for i, o := range k.owners {
			s.Groups = append(s.Groups, GroupState{Name: fmt.Sprint("g", i), Owner: o})
		}
		a, b := headStart(s, c, "alice", "bob"), headStart(s, c, "bob", "alice")
		if a == b || a != (k.first == "alice") {
			t.Errorf("groups of %v: alice %v, bob %v", k.owners, a, b)
		}
	}
	c.Fences = []FenceConfig{{Node: "alice", Delay: Duration(3 * time.Second)}, {Node: "alice"}, {Node: "bob", Delay: Duration(time.Minute)}}
	if got := c.headStartWait("alice"); got != 5*time.Second {
		t.Errorf("the other waits %s, want 2 D and the longest delay", got)
	}
}
