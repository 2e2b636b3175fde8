// Commands end in time with all that they started, whatever that did to get away, and the end of their output is kept.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds waits in tests; reached only when what is waited for does not come at all.
const patience = time.Minute

// until waits for a state.
func until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var b pollBackoff
	for !reached() {
		if !b.wait(ctx, nil) {
			t.Fatalf("waited %s in vain for: %s", patience, what)
		}
	}
}

func testEnv(t *testing.T) resourceEnv {
	t.Helper()
	return resourceEnv{Group: "web", RunDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// withoutCgroups makes this test fall back to process groups and sessions.
func withoutCgroups(t *testing.T) {
	old := cgroupRoot
	cgroupRoot = func() (cgroupHierarchy, error) { return cgroupHierarchy{}, errors.New("none, for this test") }
	t.Cleanup(func() { cgroupRoot = old })
}

// needCgroups skips where none can be made.
func needCgroups(t *testing.T) {
	t.Helper()
	g, err := newCgroup("probe")
	if err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	if err := g.remove(); err != nil {
		t.Fatal(err)
	}
}

// bothWays runs a test with control groups and without.
func bothWays(t *testing.T, f func(t *testing.T)) {
	t.Run("cgroup", func(t *testing.T) { needCgroups(t); f(t) })
	t.Run("process group", func(t *testing.T) { withoutCgroups(t); f(t) })
}

// pidIn waits for a process to write its number into a file, and names it.
func pidIn(t *testing.T, path string) processID {
	t.Helper()
	var id processID
	until(t, "a process number in "+path, func() bool {
		b, err := os.ReadFile(path)
		pid, perr := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || perr != nil {
			return false
		}
		s, err := readStat(pid)
		if err != nil {
			t.Fatalf("process %d: %v", pid, err)
		}
		id = s.processID
		return true
	})
	return id
}

func lives(id processID) bool {
	s, err := readStat(id.PID)
	return err == nil && s.processID == id && !s.ended()
}

// endLater ends a process that a test meant to outlive its command.
func endLater(t *testing.T, id processID) {
	t.Cleanup(func() {
		if err := signalProcess(id, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		until(t, "it to be gone", func() bool { return !lives(id) })
		(*cgroup)(nil).leave() // its command's control group is empty now
	})
}

func TestCommandResult(t *testing.T) {
	tests := []struct {
		name, script   string
		tail, err      string
		code           int
		notAnExitError bool
	}{
		{name: "good", script: "echo out; echo err >&2", tail: "out\nerr\n"},
		{name: "silent", script: "true"},
		{name: "failed", script: "echo first; echo 'disk is full' >&2; exit 3", tail: "first\ndisk is full\n", err: "t: exit status 3: disk is full", code: 3},
		{name: "failed silently", script: "exit 1", err: "t: exit status 1", code: 1},
		{name: "killed itself", script: "kill -9 $$", err: "t: signal: killed", code: -1},
		{name: "terminal sequences", script: `printf 'a\033[2Jb\r\n\000\377c\n'`, tail: "a[2Jb\n?c\n"},
		{name: "stdin is empty", script: "cat; echo end", tail: "end\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tail, err := runCommand(t.Context(), "t", []string{"/bin/sh", "-c", test.script})
			if tail != test.tail {
				t.Errorf("tail %q, want %q", tail, test.tail)
			}
			if test.err == "" {
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			}
			var out *outputError
			var exit *exec.ExitError
			if !errors.As(err, &out) || !errors.As(err, &exit) {
				t.Fatalf("error %#v is no outputError around an ExitError", err)
			}
			if err.Error() != test.err || exit.ExitCode() != test.code || out.tail != test.tail {
				t.Errorf("error %q code %d tail %q, want %q %d %q", err, exit.ExitCode(), out.tail, test.err, test.code, test.tail)
			}
		})
	}
}

func TestCommandThatCannotBeRun(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		_, err := runCommand(t.Context(), "web.app.start", []string{"/nonexistent/program"})
		if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "web.app.start: ") {
			t.Errorf("error %v", err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		mark := filepath.Join(t.TempDir(), "ran")
		if _, err := runCommand(gone, "t", []string{"/usr/bin/touch", mark}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Error("it ran although there was no time left")
		}
	})
}

func TestCommandTailIsBounded(t *testing.T) {
	var all bytes.Buffer
	tail, err := command{
		Name: "t", Argv: []string{"/bin/sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done"},
		Stdout: &all,
	}.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(tail) != tailLimit || !strings.HasSuffix(tail, "line 4998\nline 4999\n") {
		t.Errorf("tail of %d bytes ends with %q", len(tail), lastLine(tail))
	}
	if n := strings.Count(all.String(), "\n"); n != 5000 {
		t.Errorf("Stdout got %d lines, want 5000", n)
	}
}

func TestTailBuffer(t *testing.T) {
	tests := map[string][]int{ // sizes of writes
		"empty": nil, "one": {1}, "exact": {tailLimit}, "one over": {tailLimit + 1}, "grows past": {tailLimit - 1, 2, 1},
		"small after large": {5 * tailLimit, 3}, "large after small": {3, 5 * tailLimit},
	}
	for name, sizes := range tests {
		t.Run(name, func(t *testing.T) {
			var b tailBuffer
			var all string
			for i, n := range sizes {
				p := strings.Repeat(string(rune('a'+i)), n)
				if m, err := b.Write([]byte(p)); m != n || err != nil {
					t.Fatalf("Write = %d, %v", m, err)
				}
				all += p
			}
			if want := all[max(0, len(all)-tailLimit):]; b.String() != want {
				t.Errorf("%d bytes kept, want %d", len(b.String()), len(want))
			}
		})
	}
}

// A background process that holds the pipe must not hold up the command, and lives on.
func TestCommandWithPipeHolder(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		tail, err := runCommand(ctx, "t", []string{"/bin/sh", "-c", "sleep 1000 & echo $! > $F; echo started"}, "F="+file)
		if err != nil || tail != "started\n" {
			t.Errorf("tail %q, error %v", tail, err)
		}
		id := pidIn(t, file)
		endLater(t, id)
		if !lives(id) {
			t.Error("the background process did not outlive the command")
		}
	})
}

// What a command leaves in the background is no longer disturbed by the end of its output.
func TestCommandWithOutputFile(t *testing.T) {
	dir := t.TempDir()
	out, _, err := openAppend(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	script := `(echo $$ >/dev/null; while [ ! -e "$D/go" ]; do sleep 0.01; done; echo late; echo done > "$D/done") & echo $! > "$D/pid"; echo early`
	c := command{Name: "t", Argv: []string{"/bin/sh", "-c", script}, Env: append(childEnv(), "D="+dir), Output: out}
	if _, err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	out.Close()
	endLater(t, pidIn(t, filepath.Join(dir, "pid")))
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the background process to go on", func() bool { _, err := os.Stat(filepath.Join(dir, "done")); return err == nil })
	if got := fileTail(filepath.Join(dir, "log"), 0); got != "early\nlate\n" {
		t.Errorf("log %q", got)
	}
}

// An overrun ends the command, children that ignore SIGTERM, and, in a control group, children that made themselves a
// session of their own.
func TestCommandOverrun(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		dir := t.TempDir()
		script := `trap '' TERM
			echo working
			sh -c 'trap "" TERM; echo $$ > $D/child; while :; do sleep 1; done' &
			setsid sh -c 'trap "" TERM; echo $$ > $D/session; while :; do sleep 1; done' &
			while :; do sleep 1; done`
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		deadline, stop := context.WithTimeout(ctx, patience)
		defer stop()
		type result struct {
			tail string
			err  error
		}
		done := make(chan result, 1)
		go func() {
			tail, err := runCommand(deadline, "web.app.start", []string{"/bin/sh", "-c", script}, "D="+dir)
			done <- result{tail, err}
		}()
		child, session := pidIn(t, filepath.Join(dir, "child")), pidIn(t, filepath.Join(dir, "session"))
		endLater(t, session)
		cancel(errors.New("the test has seen enough"))
		r := <-done
		if !errors.Is(r.err, context.Canceled) || !strings.HasPrefix(r.err.Error(), "web.app.start: cancelled after ") {
			t.Errorf("error %v", r.err)
		}
		if !strings.Contains(r.tail, "working") {
			t.Errorf("tail %q", r.tail)
		}
		until(t, "the child to be gone", func() bool { return !lives(child) })
		if _, err := cgroupRoot(); err == nil {
			until(t, "the child with a session to be gone", func() bool { return !lives(session) })
		}
	})
}

func TestCommandTimeout(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := runCommand(ctx, "t", []string{"/bin/sleep", "1000"})
	if err == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "t: not ") {
		t.Errorf("error %v", err) // "not done after", or on a busy machine "not run"
	}
}

// No control group stays behind, not even that of a command that left a process.
func TestCommandLeavesNoCgroup(t *testing.T) {
	needCgroups(t)
	own, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	root, _ := cgroupRoot()
	name := "leave" + strconv.Itoa(os.Getpid())
	groups := func() []string {
		found, err := filepath.Glob(filepath.Join(root.at(own).dir, cgroupPrefix+name+"-*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	file := filepath.Join(t.TempDir(), "pid")
	if _, err := runCommand(t.Context(), name, []string{"/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! > " + file}); err != nil {
		t.Fatal(err)
	}
	if got := groups(); len(got) != 1 {
		t.Fatalf("groups %q: want one while the background process lives", got)
	}
	id := pidIn(t, file)
	if err := signalProcess(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the group to go with the next command", func() bool {
		if _, err := runCommand(t.Context(), name, []string{"/bin/true"}); err != nil {
			t.Fatal(err)
		}
		return len(groups()) == 0
	})
}

func TestChildEnv(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("HACTL_TEST_KEPT", "a=b")
	t.Setenv("PATH", "")
	env := childEnv()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"} {
		if v := variable(env, name); v != "" {
			t.Errorf("%s=%s was meant for the daemon", name, v)
		}
	}
	if variable(env, "HACTL_TEST_KEPT") != "a=b" || variable(env, "PATH") != defaultPath {
		t.Errorf("environment %q", env)
	}
}

func TestRoundShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234567 * time.Nanosecond: "1ms", 1234 * time.Millisecond: "1.2s", 20*time.Second + 300*time.Millisecond: "20s",
	} {
		if got := fmt.Sprint(roundShort(d)); got != want {
			t.Errorf("roundShort(%d) = %s, want %s", d, got, want)
		}
	}
}
