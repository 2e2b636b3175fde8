// A foreground program outlives the daemon, is found again by the next one and by no means mistaken for another.

package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forkingServer writes its number, has a child that writes its own, and ends both on SIGTERM.
const forkingServer = `echo $$ > $D/main; sh -c 'echo $$ > $D/child; exec sleep 1000' & trap 'kill $!; wait; exit 0' TERM; echo ready; wait`

func startServer(t *testing.T, env resourceEnv, script string) (s *service, main, child processID) {
	t.Helper()
	dir := t.TempDir()
	s = newService(env, "app")
	if err := s.start([]string{"/bin/sh", "-c", script}, append(childEnv(), "D="+dir)); err != nil {
		t.Fatal(err)
	}
	main, child = pidIn(t, filepath.Join(dir, "main")), pidIn(t, filepath.Join(dir, "child"))
	endLater(t, main)
	endLater(t, child)
	return s, main, child
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestServiceStartStop(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		env := testEnv(t)
		s, main, child := startServer(t, env, forkingServer)
		until(t, "its output", func() bool { return s.tail() == "ready\n" })
		if st, err := readStat(main.PID); err != nil || st.Sess != main.PID {
			t.Errorf("it has no session of its own: %+v %v", st, err)
		}
		if err := s.start([]string{"/bin/true"}, nil); err == nil {
			t.Error("started a second time")
		}
		for range 2 { // stopped already is no error
			if err := s.stop(patient(t)); err != nil {
				t.Fatal(err)
			}
		}
		if lives(main) || lives(child) {
			t.Error("it still runs")
		}
		if _, err := os.Stat(s.base + ".service"); !os.IsNotExist(err) {
			t.Errorf("state file: %v", err)
		}
	})
}

// One that ignores SIGTERM is killed within the time of the stop, and so are its children.
func TestServiceStopOfAStubbornOne(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		script := `trap '' TERM; echo $$ > $D/main; sh -c 'trap "" TERM; echo $$ > $D/child; while :; do sleep 1; done' & while :; do sleep 1; done`
		s, main, child := startServer(t, testEnv(t), script)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // how long it is asked politely
		defer cancel()
		if err := s.stop(ctx); err != nil {
			t.Fatal(err)
		}
		if lives(main) || lives(child) {
			t.Error("it still runs")
		}
	})
}

func TestServiceCrashIsNoticedAndItsOrphansEnded(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		env := testEnv(t)
		s, main, child := startServer(t, env, forkingServer)
		ctx, stopWatching := context.WithCancel(t.Context())
		reasons, watched := make(chan string, 10), make(chan struct{})
		go func() { defer close(watched); s.watch(ctx, func(r string) { reasons <- r }) }()
		killed := time.Now()
		if err := signalProcess(main, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if r := <-reasons; !strings.HasSuffix(r, " was killed by SIGKILL") {
			t.Errorf("reason %q", r)
		}
		t.Logf("the crash was noticed after %s", time.Since(killed))
		if !lives(child) {
			t.Fatal("the child went with it: nothing is tested")
		}
		// The next daemon finds the orphan, without ever having seen the main process.
		next := newService(env, "app")
		run, _ := next.current()
		if run == nil || run.proc.alive() || !strings.Contains(run.proc.ending(), "while no daemon watched") {
			t.Fatalf("the next daemon sees %+v", run)
		}
		if err := s.stop(patient(t)); err != nil {
			t.Fatal(err)
		}
		if lives(child) {
			t.Error("the orphan still runs")
		}
		if err := s.start([]string{"/bin/sleep", "1000"}, nil); err != nil { // the same watch goes on with the next run
			t.Fatal(err)
		}
		run, _ = s.current()
		if err := run.proc.signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if r := <-reasons; !strings.HasSuffix(r, " was killed by SIGTERM") {
			t.Errorf("reason %q", r)
		}
		if err := s.stop(patient(t)); err != nil {
			t.Fatal(err)
		}
		stopWatching()
		<-watched
		if len(reasons) != 0 {
			t.Errorf("also told: %q", <-reasons)
		}
	})
}

func TestServiceWatchDoesNotTellAStop(t *testing.T) {
	s, _, _ := startServer(t, testEnv(t), forkingServer)
	ctx, stopWatching := context.WithCancel(t.Context())
	watched, told := make(chan struct{}), make(chan string, 10)
	go func() { defer close(watched); s.watch(ctx, func(r string) { told <- r }) }()
	if err := s.stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	stopWatching()
	<-watched
	if len(told) != 0 {
		t.Errorf("told %q", <-told)
	}
}

// The child half of TestServiceOutlivesTheDaemon: a daemon that starts a service and is killed.
func TestServiceDaemonToKill(t *testing.T) {
	dir := os.Getenv("HACTL_TEST_RUNDIR")
	if dir == "" {
		return // not called for
	}
	s := newService(resourceEnv{Group: "web", RunDir: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, "app")
	if err := s.start([]string{"/bin/sh", "-c", forkingServer}, append(childEnv(), "D="+dir)); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done() // ends by SIGKILL
}

func TestServiceOutlivesTheDaemon(t *testing.T) {
	env := testEnv(t)
	daemon := exec.Command(os.Args[0], "-test.run=^TestServiceDaemonToKill$")
	daemon.Env = append(os.Environ(), "HACTL_TEST_RUNDIR="+env.RunDir)
	// The test ends when its context does, a moment before its cleanups: it has to be killed before.
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	main, child := pidIn(t, filepath.Join(env.RunDir, "main")), pidIn(t, filepath.Join(env.RunDir, "child"))
	endLater(t, main)
	endLater(t, child)
	state := filepath.Join(env.RunDir, "web.app.service")
	until(t, "the state file", func() bool {
		b, err := os.ReadFile(state)
		var st serviceState
		return err == nil && json.Unmarshal(b, &st) == nil && st.processID == main
	})
	daemon.Process.Kill()
	daemon.Wait()
	s := newService(env, "app")
	run, _ := s.current()
	if run == nil || !run.proc.alive() || run.proc.processID != main {
		t.Fatalf("the next daemon sees %+v", run)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reasons := make(chan string, 1)
	watched := make(chan struct{})
	go func() { defer close(watched); s.watch(ctx, func(r string) { reasons <- r }) }()
	killed := time.Now()
	if err := signalProcess(main, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Logf("the crash of an adopted process was noticed after %s: %s", time.Since(killed), <-reasons)
	cancel()
	<-watched
	if err := s.stop(patient(t)); err != nil {
		t.Fatal(err)
	}
}

func TestServiceStateFiles(t *testing.T) {
	boot, err := kernelBoot()
	if err != nil {
		t.Fatal(err)
	}
	_, id := sleeper(t)
	tests := []struct {
		name  string
		state serviceState
		text  string
		found bool
	}{
		{name: "good", state: serviceState{processID: id, Boot: boot}, found: true},
		{name: "another boot", state: serviceState{processID: id, Boot: "11111111-2222-3333-4444-555555555555"}},
		{name: "number used again", state: serviceState{processID: processID{id.PID, id.Start + 1}, Boot: boot, Program: exeOf(id.PID)}},
		{name: "gone", state: serviceState{processID: processID{1 << 22, 1}, Boot: boot, Program: exeOf(id.PID)}},
		{name: "never got a number", state: serviceState{Boot: boot}},
		{name: "foreign control group", state: serviceState{Boot: boot, Cgroup: "/"}},
		{name: "empty", text: "\n"},
		{name: "garbage", text: "{"},
		{name: "wrong type", text: `{"pid":"1"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := testEnv(t)
			b := []byte(test.text)
			if test.text == "" {
				b, _ = json.Marshal(test.state)
			}
			if err := os.WriteFile(filepath.Join(env.RunDir, "web.app.service"), b, 0o600); err != nil {
				t.Fatal(err)
			}
			s := newService(env, "app")
			if run, _ := s.current(); (run != nil) != test.found {
				t.Fatalf("found %+v", run)
			}
			if !test.found {
				if err := s.stop(patient(t)); err != nil {
					t.Error(err)
				}
			}
			if !lives(id) {
				t.Fatal("the process was ended")
			}
		})
	}
}

// A daemon that dies between starting the program and noting its number leaves its control group's name and its token.
func TestServiceHalfStartedIsFound(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		env := testEnv(t)
		first, main, child := startServer(t, env, forkingServer)
		run, _ := first.current()
		if err := first.save(family{group: run.family.group, token: run.family.token}); err != nil {
			t.Fatal(err)
		}
		s := newService(env, "app")
		again, _ := s.current()
		if again == nil || again.proc.processID != main {
			t.Fatalf("found %+v, want process %d", again, main.PID)
		}
		if err := s.stop(patient(t)); err != nil {
			t.Fatal(err)
		}
		if lives(main) || lives(child) {
			t.Error("it still runs")
		}
	})
}

func TestServiceThatCannotBeStarted(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		env := testEnv(t)
		s := newService(env, "app")
		if err := s.start([]string{"/nonexistent/server"}, nil); err == nil || !strings.Contains(err.Error(), "web.app: ") {
			t.Errorf("error %v", err)
		}
		if run, _ := s.current(); run != nil {
			t.Errorf("run %+v", run)
		}
		if err := s.start([]string{"/bin/true"}, nil); err != nil {
			t.Errorf("the failed start stands in the way: %v", err)
		}
		if err := s.stop(patient(t)); err != nil {
			t.Error(err)
		}
		env.RunDir = filepath.Join(env.RunDir, "missing") // no log, no state: it must not run
		if err := newService(env, "app").start([]string{"/bin/true"}, nil); err == nil {
			t.Error("started without a place for its state")
		}
	})
}

func TestServiceLog(t *testing.T) {
	env := testEnv(t)
	s := newService(env, "app")
	old := strings.Repeat("old\n", serviceLogLimit/4)
	if err := os.WriteFile(s.base+".log", []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(text string) {
		t.Helper()
		if err := s.start([]string{"/bin/echo", text}, nil); err != nil {
			t.Fatal(err)
		}
		r, _ := s.current()
		<-r.proc.done
	}
	run("new") // at the limit: kept
	if got := s.tail(); got != "new\n" {
		t.Errorf("tail %q has more than this run's output", got)
	}
	s.trimLog() // over it: emptied
	if info, err := os.Stat(s.base + ".log"); err != nil || info.Size() != 0 {
		t.Errorf("log: %v %v", info, err)
	}
	if err := s.stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	run("newer")
	if got := s.tail(); got != "newer\n" {
		t.Errorf("tail %q", got)
	}
	if err := s.stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	if got := s.tail(); got != "" {
		t.Errorf("tail %q of nothing", got)
	}
}

func TestFileTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	long := strings.Repeat("x", 3*tailLimit) + "end"
	tests := []struct {
		text string
		from int64
		want string
	}{
		{"", 0, ""}, {"abc", 1, "bc"}, {"abc", 3, ""}, {"abc", 9, "abc"}, {long, 0, long[len(long)-tailLimit:]}, {long, 3 * tailLimit, "end"},
	}
	for _, test := range tests {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := fileTail(path, test.from); got != test.want {
			t.Errorf("fileTail of %d bytes from %d = %q", len(test.text), test.from, got)
		}
	}
	if got := fileTail(path+".missing", 0); got != "" {
		t.Errorf("%q", got)
	}
}

func TestMostOf(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	most, cancelMost := mostOf(ctx)
	defer cancelMost()
	end, _ := ctx.Deadline()
	polite, ok := most.Deadline()
	if left := end.Sub(polite); !ok || left <= 0 || left > 20*time.Second {
		t.Errorf("%s is left", left)
	}
	most, cancelMost = mostOf(t.Context())
	defer cancelMost()
	if _, ok := most.Deadline(); ok {
		t.Error("a deadline out of nothing")
	}
}
