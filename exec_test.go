// The operator's commands: what their exit codes mean, what is read back, what a restarted daemon remembers.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// execIn makes a resource whose commands find the folder in $D.
func execIn(t *testing.T, env resourceEnv, dir, start, stop, monitor string) *execResource {
	t.Helper()
	r, err := newExec(ResourceConfig{
		Type: "exec", Name: "app", Environment: []string{"D=" + dir},
		Start: OpConfig{Command: start}, Stop: OpConfig{Command: stop}, Monitor: OpConfig{Command: monitor},
	}, env)
	if err != nil {
		t.Fatal(err)
	}
	return r.(*execResource)
}

// briefly is for operations that are meant to run out of time.
func briefly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func wantCondition(t *testing.T, r resource, want condition, sentence string) {
	t.Helper()
	c, err := r.Monitor(patient(t))
	if c != want || (err == nil) != (sentence == "") || err != nil && !strings.Contains(err.Error(), sentence) {
		t.Fatalf("monitor: %s, %v; want %s, %q", c, err, want, sentence)
	}
}

func TestExecMonitorExitCodes(t *testing.T) {
	tests := []struct {
		command string
		want    condition
		err     string
	}{
		{"echo 3 users; exit 0", conditionRunning, ""},
		{"exit 7", conditionStopped, ""},
		{"exit 3", conditionStopped, ""},
		{"echo queue is stuck; exit 1", conditionFailed, "app monitor: exit status 1: queue is stuck"},
		{"exit 9", conditionFailed, "app monitor: exit status 9"},
		{"no-such-command-here", conditionFailed, "app monitor: exit status 127"},
		{"kill -9 $$", conditionFailed, "app monitor: signal: killed"},
	}
	for _, test := range tests {
		t.Run(test.command, func(t *testing.T) {
			e := execIn(t, testEnv(t), "", "true", "true", test.command)
			wantCondition(t, e, test.want, test.err)
			said, err := e.Status(t.Context())
			if want := strings.Contains(test.command, "echo") || strings.Contains(test.command, "no-such"); err != nil || (said != "") != want {
				t.Errorf("status %q, %v", said, err)
			}
		})
	}
}

func TestExecMonitorOverruns(t *testing.T) {
	e := execIn(t, testEnv(t), "", "true", "true", "sleep 1000")
	if c, err := e.Monitor(briefly(t)); c != conditionFailed || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("monitor: %s, %v", c, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := e.Monitor(cancelled); c != conditionUnknown || err == nil {
		t.Errorf("cancelled monitor: %s, %v", c, err)
	}
}

func TestExecEnvironment(t *testing.T) {
	dir := t.TempDir()
	const say = `echo "$HA_GROUP $HA_RESOURCE $HA_OP $D" >> $D/said; `
	e := execIn(t, testEnv(t), dir, say+"touch $D/up", say+"rm -f $D/up", say+"[ -e $D/up ] || exit 7")
	if err := e.Start(patient(t), startHint{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	var want string
	for _, op := range []string{"monitor", "start", "monitor", "stop", "monitor"} {
		want += fmt.Sprintf("web app %s %s\n", op, dir)
	}
	if string(got) != want {
		t.Errorf("commands were\n%swant\n%s", got, want)
	}
}

// Start and stop believe only what the monitor reads back.
func TestExecReadsBack(t *testing.T) {
	const monitor = "[ -e $D/up ] || { echo no process; exit 7; }"
	t.Run("a background program is waited for", func(t *testing.T) {
		dir := t.TempDir()
		e := execIn(t, testEnv(t), dir, `(while [ ! -e $D/go ]; do sleep 0.01; done; touch $D/up) & touch $D/begun`, "rm -f $D/up", monitor)
		started := make(chan error, 1)
		ctx := patient(t)
		go func() { started <- e.Start(ctx, startHint{}) }()
		until(t, "the start command to end", func() bool { _, err := os.Stat(filepath.Join(dir, "begun")); return err == nil })
		if len(started) != 0 {
			t.Fatal("said to be started before it was")
		}
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		wantCondition(t, e, conditionRunning, "")
	})
	t.Run("start does nothing", func(t *testing.T) {
		e := execIn(t, testEnv(t), t.TempDir(), "true", "true", monitor)
		err := e.Start(briefly(t), startHint{})
		if err == nil || !strings.Contains(err.Error(), "start went well, and yet: ") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("stop does nothing", func(t *testing.T) {
		e := execIn(t, testEnv(t), t.TempDir(), "touch $D/up", "true", monitor)
		if err := e.Start(patient(t), startHint{}); err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(briefly(t)); err == nil || !strings.Contains(err.Error(), "stop went well, and yet: ") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("running already", func(t *testing.T) {
		e := execIn(t, testEnv(t), t.TempDir(), "exit 1", "true", "true")
		if err := e.Start(patient(t), startHint{}); err != nil {
			t.Errorf("error %v", err)
		}
	})
	t.Run("stop fails", func(t *testing.T) {
		e := execIn(t, testEnv(t), t.TempDir(), "true", "echo busy >&2; exit 2", "exit 7")
		if err := e.Stop(patient(t)); err == nil || err.Error() != "app stop: exit status 2: busy" {
			t.Errorf("error %v", err)
		}
	})
}

// Without a monitor command a mark in the run folder is all that is known; it is kept across a daemon restart.
func TestExecWithoutMonitor(t *testing.T) {
	env, dir := testEnv(t), t.TempDir()
	restarted := func(start string) *execResource { return execIn(t, env, dir, start, "echo stop >> $D/said", "") }
	wantCondition(t, restarted("true"), conditionStopped, "")
	e := restarted("echo start >> $D/said")
	for range 2 { // the second start does nothing
		if err := e.Start(patient(t), startHint{}); err != nil {
			t.Fatal(err)
		}
	}
	wantCondition(t, restarted("true"), conditionRunning, "")
	for range 2 {
		if err := restarted("true").Stop(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
	wantCondition(t, restarted("true"), conditionStopped, "")
	if said, _ := os.ReadFile(filepath.Join(dir, "said")); string(said) != "start\nstop\nstop\n" {
		t.Errorf("commands were %q", said)
	}
	err := restarted("echo out of disk; exit 5").Start(patient(t), startHint{})
	var out *outputError
	if !errors.As(err, &out) || out.tail != "out of disk\n" || err.Error() != "app start: exit status 5: out of disk" {
		t.Errorf("error %v", err)
	}
	wantCondition(t, restarted("true"), conditionFailed, "a start did not end well")
}

func TestExecMarks(t *testing.T) {
	for name, test := range map[string]struct {
		mark string
		want condition
		err  string
	}{
		"another boot": {`{"boot":"11111111-2222-3333-4444-555555555555","started":true}`, conditionStopped, ""},
		"garbage":      {"{", conditionUnknown, "remove it when the resource is stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			e := execIn(t, testEnv(t), "", "true", "true", "")
			if err := os.WriteFile(e.base+".exec", []byte(test.mark), 0o600); err != nil {
				t.Fatal(err)
			}
			wantCondition(t, e, test.want, test.err)
		})
	}
	env := testEnv(t)
	env.RunDir = filepath.Join(env.RunDir, "missing")
	dir := t.TempDir()
	if err := execIn(t, env, dir, "touch $D/up", "true", "").Start(patient(t), startHint{}); err == nil {
		t.Error("started although nothing could be remembered")
	}
	if _, err := os.Stat(filepath.Join(dir, "up")); err == nil {
		t.Error("the command was run although nothing could be remembered")
	}
}

func TestExecNeedsCommands(t *testing.T) {
	for _, c := range []ResourceConfig{
		{Name: "app"}, {Name: "app", Start: OpConfig{Command: "true"}}, {Name: "app", Stop: OpConfig{Command: "true"}},
	} {
		if _, err := newExec(c, testEnv(t)); err == nil || !strings.Contains(err.Error(), "resource app: ") {
			t.Errorf("%+v: error %v", c, err)
		}
	}
}

// A stop command that fails is followed by the end of what the start command left running, by this daemon or the next.
func TestExecForceKillsWhatTheStartLeftRunning(t *testing.T) {
	dir, env := t.TempDir(), testEnv(t)
	start := "sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > $D/pid"
	make := func() *execResource {
		return execIn(t, env, dir, start, "exit 1", "kill -0 $(cat $D/pid) || exit 7")
	}
	e := make()
	if err := e.Start(patient(t), startHint{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(patient(t)); err == nil {
		t.Fatal("a stop command that fails has stopped it")
	}
	wantCondition(t, e, conditionRunning, "")
	if _, err := newCgroup("test"); err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	if err := make().Force(patient(t)); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, e, conditionStopped, "")
	if err := make().Force(patient(t)); err == nil || !strings.Contains(err.Error(), "no control group of its start is known") {
		t.Errorf("once more: %v", err)
	}
}
