package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench drives one group's agent by hand: orders in, actions out, their ends in.
type bench struct {
	t     *testing.T
	a     agent
	now   instant
	order order
}

func newBench(t *testing.T, resources ...ResourceConfig) *bench {
	c := &GroupConfig{Name: "web", MigrationThreshold: 3}
	for _, r := range resources {
		if r.Name == "" {
			r.Name = r.Type
		}
		if r.OnFail == "" {
			r.OnFail = "restart"
		}
		r.Start.Timeout, r.Stop.Timeout, r.Monitor.Timeout = Duration(20*time.Second), Duration(20*time.Second), Duration(20*time.Second)
		if r.Monitor.Interval == 0 {
			r.Monitor.Interval = Duration(10 * time.Second)
		}
		c.Resources = append(c.Resources, r)
	}
	return &bench{t: t, now: at(1000), order: order{config: c, want: wantRun, epoch: 1}}
}

// obey gives the order again and returns the actions that it led to, fitness checks apart.
func (b *bench) obey() []action {
	b.t.Helper()
	b.a.obey(b.now, b.order)
	var out []action
	for _, x := range b.a.actions {
		if x.Op == opFit {
			b.a.done(b.now, actionDone{action: x})
			continue
		}
		out = append(out, x)
	}
	b.a.actions = nil
	return out
}

// expect gives the order and wants exactly these actions, as "start vip".
func (b *bench) expect(want ...string) []action {
	b.t.Helper()
	got := b.obey()
	var names []string
	for _, x := range got {
		names = append(names, x.Op+" "+x.Resource)
	}
	if !slices.Equal(names, want) {
		b.t.Fatalf("asked for %q, want %q", names, want)
	}
	return got
}

func (b *bench) end(x action, cond condition, err string) {
	b.a.done(b.now, actionDone{action: x, Condition: cond, Err: err})
}

// do expects one action and ends it well: a monitor with what is given.
func (b *bench) do(want string, cond condition) {
	b.t.Helper()
	b.end(b.expect(want)[0], cond, "")
}

// up brings the group up from nothing.
func (b *bench) up() {
	b.t.Helper()
	for _, r := range b.order.config.Resources {
		b.do("monitor "+r.Name, conditionStopped)
		b.do("start "+r.Name, conditionUnknown)
	}
	b.expect()
	b.said(`started epoch 1`)
}

// said takes the reports.
func (b *bench) said(want ...string) {
	b.t.Helper()
	var got []string
	for _, r := range b.a.outcomes {
		s := fmt.Sprintf("%s epoch %d", r.kind, r.epoch)
		if r.kind == entryFailure {
			s = fmt.Sprintf("failure %d of %s %s: %s", r.serial, r.op, r.resource, r.reason)
		}
		got = append(got, s)
	}
	b.a.outcomes = nil
	if !slices.Equal(got, want) {
		b.t.Fatalf("reported %q, want %q", got, want)
	}
}

// count is what the state does with the failures so far.
func (b *bench) count(resource string, failcount int, fatal bool) {
	b.order.counted = b.a.serial
	b.order.counts = []ResourceState{{Group: "web", Resource: resource, Failcount: failcount, Fatal: fatal}}
}

func TestAgentStartsFromTheBottomAndStopsFromTheTop(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "filesystem"}, ResourceConfig{Type: "vip"}, ResourceConfig{Type: "httpd"})
	b.up()
	b.order.want = wantStop
	b.do("stop httpd", conditionUnknown)
	b.do("stop vip", conditionUnknown)
	b.do("stop filesystem", conditionUnknown)
	b.expect()
	b.said("stopped epoch 1")
	b.expect()
	b.said()
}

func TestAgentAdoptsWhatRuns(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"}, ResourceConfig{Type: "httpd"})
	b.order.want = wantLook
	for _, x := range b.expect("monitor vip", "monitor httpd") {
		if b.a.looked() {
			t.Error("looked before the answers are in")
		}
		b.end(x, conditionRunning, "")
	}
	if !b.a.looked() || !slices.Equal(b.a.running(), []string{"web"}) {
		t.Errorf("looked %v, running %v", b.a.looked(), b.a.running())
	}
	b.order.want = wantRun
	b.expect()
	b.said("started epoch 1")
}

func TestAgentLooksAlsoWhenFrozen(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"})
	b.order.want = wantFreeze // mine, but this session has not joined yet
	b.do("monitor vip", conditionStopped)
	if !b.a.looked() {
		t.Error("it has not looked, so the node can never join")
	}
}

func TestAgentStopsNothingThatIsStopped(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "exec"})
	b.order.want, b.order.epoch = wantStop, 0
	b.do("monitor exec", conditionStopped)
	b.expect()
	b.said()
}

func TestAgentUndoesAStartThatIsLate(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"})
	b.do("monitor vip", conditionStopped)
	start := b.expect("start vip")[0]
	b.order.want = wantStop
	b.expect()
	if !slices.Equal(b.a.cancels, []uint64{start.ID}) {
		t.Errorf("cancelled %v, want the start", b.a.cancels)
	}
	b.said()
	b.end(start, conditionUnknown, "") // it succeeded all the same
	b.do("stop vip", conditionUnknown)
	b.expect()
	b.said("stopped epoch 1")
}

func TestAgentRestartsACrashAtOnceAndWhatStandsOnIt(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "filesystem"}, ResourceConfig{Type: "httpd"})
	b.up()
	b.a.notice(b.now, noticed{"web", "httpd", "it exited"})
	b.do("monitor httpd", conditionStopped)
	b.do("start httpd", conditionUnknown)
	b.said("failure 1 of monitor httpd: it is stopped")
	b.count("httpd", 1, false)

	b.a.notice(b.now, noticed{"web", "filesystem", "gone"})
	fs := b.expect("monitor filesystem")[0]
	b.end(fs, conditionFailed, "read-only")
	b.do("stop httpd", conditionUnknown)
	b.do("stop filesystem", conditionUnknown)
	b.do("start filesystem", conditionUnknown)
	b.do("start httpd", conditionUnknown)
	b.expect()
	b.said("failure 2 of monitor filesystem: read-only")
}

func TestAgentPutsAnAddressBackAlone(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"}, ResourceConfig{Type: "httpd"})
	b.up()
	b.a.notice(b.now, noticed{"web", "vip", "removed"})
	b.do("monitor vip", conditionStopped)
	b.do("start vip", conditionUnknown)
	b.expect()
	b.said("failure 1 of monitor vip: it is stopped")
}

func TestAgentWaitsForADecisionAtTheThreshold(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "httpd"})
	b.up()
	b.count("httpd", 2, false)
	b.a.notice(b.now, noticed{"web", "httpd", "it exited"})
	b.do("monitor httpd", conditionStopped)
	b.expect() // two counted, one not yet: three
	b.said("failure 1 of monitor httpd: it is stopped")
	b.count("httpd", 3, false)
	b.expect()
	b.count("httpd", 2, false) // the leader gives it another try
	b.do("start httpd", conditionUnknown)
	b.expect()
}

func TestAgentAsksBeforeASecondStart(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "httpd"})
	b.do("monitor httpd", conditionStopped)
	b.end(b.expect("start httpd")[0], conditionUnknown, "syntax error")
	b.expect()
	b.said("failure 1 of start httpd: syntax error")
	b.count("httpd", 1, true)
	b.expect()
	b.count("httpd", 1, false)
	b.do("stop httpd", conditionUnknown) // something of it may be there
	b.do("start httpd", conditionUnknown)
	b.expect()
	b.said("started epoch 1")
}

func TestAgentAloneRestartsWithoutAsking(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "httpd"})
	b.up()
	b.order.alone = true
	b.count("httpd", 7, true)
	b.a.notice(b.now, noticed{"web", "httpd", "it exited"})
	b.do("monitor httpd", conditionStopped)
	b.do("start httpd", conditionUnknown)
	b.expect()
}

func TestAgentOnFail(t *testing.T) {
	for onFail, then := range map[string][]string{"ignore": nil, "block": nil, "move": nil} {
		t.Run(onFail, func(t *testing.T) {
			b := newBench(t, ResourceConfig{Type: "httpd", OnFail: onFail})
			b.up()
			b.a.notice(b.now, noticed{"web", "httpd", "slow"})
			b.end(b.expect("monitor httpd")[0], conditionFailed, "timed out")
			b.expect(then...)
			b.said("failure 1 of monitor httpd: timed out")
		})
	}
}

func TestAgentWaitsForAnAddressWithoutCounting(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"})
	b.do("monitor vip", conditionStopped)
	x := b.expect("start vip")[0]
	b.a.done(b.now, actionDone{action: x, Err: "answered by 52:54", Waiting: true})
	b.expect()
	b.said()
	if r := b.a.group("web").res[0]; !strings.Contains(r.detail, "52:54") {
		t.Errorf("detail %q does not say what it waits for", r.detail)
	}
	b.now = b.now.add(waitingRetry)
	b.do("start vip", conditionUnknown)
	b.expect()
	b.said("started epoch 1")
}

func TestAgentHoldsWhatCannotBeMendedHere(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"})
	b.up()
	b.a.notice(b.now, noticed{"web", "vip", "carrier"})
	x := b.expect("monitor vip")[0]
	b.a.done(b.now, actionDone{action: x, Condition: conditionFailed, Err: "no carrier on eth0", Hopeless: true})
	if got := b.a.group("web").unfit(); got != "vip: no carrier on eth0" {
		t.Errorf("unfit %q", got)
	}
	b.said() // no failure: the node is unfit, which ends by itself
	b.a.obey(b.now, b.order)
	fit := b.a.actions
	b.a.actions = nil
	if len(fit) != 1 || fit[0].Op != opFit {
		t.Fatalf("asked for %v, want a look whether it is fit again", fit)
	}
	b.a.done(b.now, actionDone{action: fit[0], Err: "no carrier on eth0"})
	b.expect()
	b.now = b.now.add(fitInterval)
	b.a.obey(b.now, b.order)
	b.a.done(b.now, actionDone{action: b.a.actions[0]})
	b.a.actions = nil
	b.do("stop vip", conditionUnknown)
	b.do("start vip", conditionUnknown)
	b.expect()
	if got := b.a.group("web").unfit(); got != "" {
		t.Errorf("still unfit: %q", got)
	}
}

// TestAgentKeepsStandbyReady: only where another node may run the group is this one made ready to help it, and in maintenance
// nothing is touched.
func TestAgentKeepsStandbyReady(t *testing.T) {
	for order, ready := range map[want]bool{wantStop: true, wantFreeze: false, wantLook: false} {
		b := newBench(t, ResourceConfig{Type: "drbd"})
		b.order.want = wantStop
		b.a.obey(b.now, b.order)
		b.end(b.expect("monitor drbd")[0], conditionStopped, "")
		b.a.actions = nil
		b.now = b.now.add(fitInterval)
		b.order.want = order
		b.a.obey(b.now, b.order)
		if got := b.a.actions; len(got) != 1 || got[0].Op != opFit || got[0].Ready != ready {
			t.Errorf("order %d: %+v, want a fit with Ready %v", order, got, ready)
		}
	}
}

// What somebody starts by hand is stopped, or left alone, as what is found when the daemon starts.
func TestAgentLooksAtWhatSomebodyElseHasStarted(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "systemd"})
	b.order.want = wantStop
	b.do("monitor systemd", conditionStopped)
	b.expect()
	b.said("stopped epoch 1")
	for _, want := range []want{wantStop, wantFreeze} {
		b.order.want = want
		b.now = b.now.add(fitInterval)
		b.a.obey(b.now, b.order)
		fit := b.a.actions[0]
		b.a.actions = nil
		b.a.done(b.now, actionDone{action: fit, Condition: conditionRunning})
		b.do("monitor systemd", conditionRunning)
		if want == wantFreeze {
			b.expect()
			break
		}
		b.do("stop systemd", conditionUnknown)
		b.expect()
	}
	if !slices.Equal(b.a.running(), []string{"web"}) {
		t.Errorf("running: %v", b.a.running())
	}
}

func TestAgentReportsAFailedStopOnce(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "filesystem"}, ResourceConfig{Type: "httpd"})
	b.up()
	b.order.want = wantStop
	b.do("stop httpd", conditionUnknown)
	b.end(b.expect("stop filesystem")[0], conditionUnknown, "busy")
	b.expect()
	b.said("failure 1 of stop filesystem: busy")
	b.expect()
	b.order.again++ // cleanup: the phase has changed
	b.do("stop filesystem", conditionUnknown)
	b.expect()
	b.said("stopped epoch 1")
}

func TestAgentTouchesNothingWhenFrozen(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "httpd"})
	b.up()
	b.order.want = wantFreeze
	b.a.notice(b.now, noticed{"web", "httpd", "it exited"})
	b.end(b.expect("monitor httpd")[0], conditionStopped, "")
	b.expect()
	b.said()
	b.order.want = wantRun
	b.do("start httpd", conditionUnknown)
	b.expect()
	b.said()
}

func TestAgentRestartsOnlyWhatChanged(t *testing.T) {
	fs, vip, httpd := ResourceConfig{Type: "filesystem", Device: "/dev/a"}, ResourceConfig{Type: "vip", Address: "10.0.0.1"}, ResourceConfig{Type: "httpd"}
	change := func(b *bench, resources ...ResourceConfig) {
		next := newBench(t, resources...).order.config
		b.order.config = next
	}
	t.Run("an interval", func(t *testing.T) {
		b := newBench(t, fs, vip, httpd)
		b.up()
		slow := httpd
		slow.Monitor.Interval = Duration(time.Minute)
		change(b, fs, vip, slow)
		b.expect()
	})
	t.Run("an address", func(t *testing.T) {
		b := newBench(t, fs, vip, httpd)
		b.up()
		other := vip
		other.Address = "10.0.0.2"
		change(b, fs, other, httpd)
		stop := b.expect("stop vip")[0]
		if stop.Config.Address != "10.0.0.1" {
			t.Errorf("stops %s, want the old address", stop.Config.Address)
		}
		b.end(stop, conditionUnknown, "")
		b.do("monitor vip", conditionStopped)
		start := b.expect("start vip")[0]
		if start.Config.Address != "10.0.0.2" {
			t.Errorf("starts %s, want the new address", start.Config.Address)
		}
		b.end(start, conditionUnknown, "")
		b.expect()
	})
	t.Run("an address more", func(t *testing.T) {
		b := newBench(t, fs, vip, httpd)
		b.up()
		change(b, fs, vip, ResourceConfig{Type: "vip", Name: "vip-2", Address: "10.0.0.2"}, httpd)
		b.do("monitor vip-2", conditionStopped)
		b.do("start vip-2", conditionUnknown)
		b.expect()
	})
	t.Run("a device", func(t *testing.T) {
		b := newBench(t, fs, vip, httpd)
		b.up()
		other := fs
		other.Device = "/dev/b"
		change(b, other, vip, httpd)
		b.do("stop httpd", conditionUnknown)
		b.do("stop vip", conditionUnknown)
		stop := b.expect("stop filesystem")[0]
		if stop.Config.Device != "/dev/a" {
			t.Errorf("stops %s, want the old device", stop.Config.Device)
		}
		b.end(stop, conditionUnknown, "")
		b.do("monitor filesystem", conditionStopped)
		b.do("start filesystem", conditionUnknown)
		b.do("start vip", conditionUnknown)
		b.do("start httpd", conditionUnknown)
		b.expect()
	})
	t.Run("one resource less", func(t *testing.T) {
		b := newBench(t, fs, vip, httpd)
		b.up()
		change(b, fs, httpd)
		b.do("stop vip", conditionUnknown)
		b.expect()
		if n := len(b.a.group("web").res); n != 2 {
			t.Errorf("%d resources are known, want 2", n)
		}
	})
}

func TestAgentDropsAnswersThatItDoesNotAwait(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "vip"})
	b.do("monitor vip", conditionStopped)
	x := b.expect("start vip")[0]
	stale := x
	stale.ID += 100
	b.end(stale, conditionUnknown, "")
	b.a.done(b.now, actionDone{action: action{ID: 1, Group: "nobody"}})
	b.expect()
	b.end(x, conditionUnknown, "")
	b.end(x, conditionUnknown, "twice")
	b.expect()
	b.said("started epoch 1")
}

func TestAgentDoesNotSpinAlone(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "exec"})
	b.order.alone = true
	b.do("monitor exec", conditionStopped)
	fail := func() {
		t.Helper()
		b.end(b.expect("start exec")[0], conditionUnknown, "broken")
		if got := b.obey(); len(got) > 0 { // after the first one at once
			b.end(got[0], conditionUnknown, "")
		}
	}
	fail()
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		b.end(b.obey()[0], conditionUnknown, "broken")
		b.expect()
		if wake := b.a.obey(b.now, b.order); wake != b.now.add(pause) {
			t.Fatalf("looks again at %v, want after %s", wake, pause)
		}
		b.now = b.now.add(pause)
		b.do("stop exec", conditionUnknown)
	}
}

func TestAgentForgetsNoFailedStartWhenItsRestWasStopped(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "filesystem"}, ResourceConfig{Type: "exec"})
	b.do("monitor filesystem", conditionStopped)
	b.do("start filesystem", conditionUnknown)
	b.do("monitor exec", conditionStopped)
	b.end(b.expect("start exec")[0], conditionUnknown, "broken")
	b.a.groups[0].res[1].mustStop = true // as when what it stands on fails
	b.do("stop exec", conditionUnknown)
	b.expect() // a failed start is not tried again before the state has counted it
}

func TestAgentLooksAgainAfterWhatItsMonitorMayHaveMissed(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "httpd"})
	b.up()
	b.now = b.now.add(10 * time.Second)
	x := b.expect("monitor httpd")[0]
	b.a.notice(b.now, noticed{Group: "web", Resource: "httpd"})
	b.end(x, conditionRunning, "")
	b.do("monitor httpd", conditionRunning)
	b.expect()
}

func TestAgentTellsAnIgnoredFailureOnce(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "exec", OnFail: "ignore"})
	b.up()
	look := func(cond condition, err string) {
		t.Helper()
		b.now = b.now.add(10 * time.Second)
		b.end(b.expect("monitor exec")[0], cond, err)
	}
	look(conditionFailed, "slow")
	b.said(`failure 1 of monitor exec: slow`)
	look(conditionFailed, "slow")
	b.said()
	look(conditionRunning, "")
	look(conditionFailed, "slow again")
	b.said(`failure 2 of monitor exec: slow again`)
}

func TestAgentTriesAFailedStopAgainWhenItsRecordIsGone(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "exec"})
	b.order.want, b.order.epoch = wantStop, 0
	b.do("monitor exec", conditionRunning)
	b.end(b.expect("stop exec")[0], conditionUnknown, "busy")
	b.end(b.expect("force exec")[0], conditionUnknown, "busy")
	b.expect()
	b.count("exec", 1, false)
	b.expect()
	b.order.counts = nil // hactl cleanup
	b.do("stop exec", conditionUnknown)
	b.expect()
}

func TestAgentTriesAFailedStopAgainWhereNobodyRecordsIt(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "exec"})
	b.order.want, b.order.epoch, b.order.alone = wantStop, 0, true
	b.do("monitor exec", conditionRunning)
	b.end(b.expect("stop exec")[0], conditionUnknown, "busy")
	b.end(b.expect("force exec")[0], conditionUnknown, "busy")
	b.expect()
	b.now = b.now.add(time.Second)
	b.do("stop exec", conditionUnknown)
	b.expect()
}

// A stop that was cut short says nothing when there is no hurry any more; in a hurry, or with all of its time, it has failed.
func TestAgentDropsAStopThatWasCutShort(t *testing.T) {
	for _, c := range []struct {
		name    string
		by      time.Duration // of the reset, from now on; 0: none
		over    bool          // the lease is back before it ends
		failure bool
	}{{"the lease is back", 2 * time.Second, true, false}, {"it is not", 2 * time.Second, false, true}, {"no hurry", 0, true, true}} {
		b := newBench(t, ResourceConfig{Type: "httpd"})
		b.up()
		b.order.want = wantStop
		if c.by > 0 {
			b.order.by = b.now.add(c.by)
		}
		stop := b.expect("stop httpd")[0]
		if c.over {
			b.order.want, b.order.by = wantRun, 0
			b.obey()
		}
		b.a.done(b.now, actionDone{action: stop, Err: "timed out", TimedOut: true})
		failed := slices.ContainsFunc(b.a.outcomes, func(o outcome) bool { return o.kind == entryFailure })
		if failed != c.failure {
			t.Errorf("%s: failed %v", c.name, failed)
		}
		if !failed {
			b.do("monitor httpd", conditionRunning)
		}
	}
}

// What DRBD has frozen is thawed on leave, also where nothing else is touched, and looked at again.
func TestAgentThawsWhereNothingElseIsTouched(t *testing.T) {
	b := newBench(t, ResourceConfig{Type: "drbd"})
	b.do("monitor drbd", conditionRunning)
	b.order.want, b.order.thaw = wantFreeze, []string{"drbd"}
	b.do("thaw drbd", conditionUnknown)
	b.order.thaw = nil
	b.expect("monitor drbd")
}
