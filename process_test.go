// A process is never taken for another one that has its number, and its end is known at once.

package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
	tests := []struct {
		in   string
		want processStat
		err  string
	}{
		{"7 (cat) S" + rest, processStat{processID{7, 4711}, "cat", 'S', 1, 2, 3}, ""},
		{"7 (a) b (c) Z" + rest, processStat{processID{7, 4711}, "a) b (c", 'Z', 1, 2, 3}, ""},
		{"7 () X" + rest, processStat{processID{7, 4711}, "", 'X', 1, 2, 3}, ""},
		{"", processStat{}, "no name"},
		{"7 cat S", processStat{}, "no name"},
		{"7 )cat( S" + rest, processStat{}, "no name"},
		{"x (cat) S" + rest, processStat{}, "malformed"},
		{"7 (cat) S 1 2 3", processStat{}, "malformed"},
		{"7 (cat) S" + strings.Replace(rest, "4711", "-1", 1), processStat{}, "invalid syntax"},
		{"7 (cat) S" + strings.Replace(rest, " 2 ", " y ", 1), processStat{}, "invalid syntax"},
	}
	for _, test := range tests {
		got, err := parseStat(test.in)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("parseStat(%q): error %v, want %q", test.in, err, test.err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(processStat{})); err != nil || diff != "" {
			t.Errorf("parseStat(%q): %v %s", test.in, err, diff)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("7 (a) b (c) Z 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseStat(s); err == nil && !strings.Contains(s, "("+p.Comm+")") {
			t.Errorf("parseStat(%q) makes up the name %q", s, p.Comm)
		}
	})
}

// sleeper is a child of the test that lives until it is ended.
func sleeper(t *testing.T) (*exec.Cmd, processID) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, s.processID
}

func TestOpenProcessSeesTheEndAtOnce(t *testing.T) {
	cmd, id := sleeper(t)
	p, err := openProcess(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	if !p.alive() {
		t.Fatal("said to have ended")
	}
	killed := time.Now()
	if err := p.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done: // although nobody has reaped it yet
		t.Logf("the end was noticed %s after the signal", time.Since(killed))
	case <-time.After(patience):
		t.Fatal("the end was not noticed")
	}
	if got := p.ending(); !strings.HasSuffix(got, " exited") {
		t.Errorf("ending %q", got)
	}
	if _, err := openProcess(id); !errors.Is(err, errGone) {
		t.Errorf("a zombie was held: %v", err)
	}
	cmd.Wait()
	if _, err := openProcess(id); !errors.Is(err, errGone) {
		t.Errorf("a process that is gone was held: %v", err)
	}
}

// A number alone is not enough: the start time has to be right too.
func TestReusedNumberIsNotTouched(t *testing.T) {
	_, id := sleeper(t)
	other := processID{PID: id.PID, Start: id.Start - 1} // as if it had been given to another process since
	if _, err := openProcess(other); !errors.Is(err, errGone) {
		t.Errorf("held: %v", err)
	}
	if err := signalProcess(other, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if fam := (family{root: other, exe: exeOf(id.PID)}); len(fam.members()) != 0 {
		t.Errorf("family %v", fam.members())
	} else if err := fam.kill(); err != nil {
		t.Error(err)
	}
	if !lives(id) {
		t.Fatal("another process was killed")
	}
	for _, bad := range []int{0, -1} {
		if _, err := openProcess(processID{PID: bad}); !errors.Is(err, errGone) {
			t.Errorf("openProcess(%d): %v", bad, err)
		}
	}
}

func TestReleaseLetsGo(t *testing.T) {
	_, id := sleeper(t)
	p, err := openProcess(id)
	if err != nil {
		t.Fatal(err)
	}
	p.release()
	if !p.alive() || !lives(id) {
		t.Error("letting go ended it")
	}
	endedProcess(id, "ended").release() // holds nothing
}

func TestExitReason(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0": "exited with status 0", "exit 41": "exited with status 41", "kill -TERM $$": "was killed by SIGTERM",
	} {
		err := exec.Command("/bin/sh", "-c", script).Run()
		if got := exitReason(err); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	if got := exitReason(errors.New("wait: no child")); got != "exited" {
		t.Errorf("%q", got)
	}
}

func TestProcessTree(t *testing.T) {
	p := func(pid int, start uint64, state byte, parent, group, sess int) processStat {
		return processStat{processID: processID{pid, start}, State: state, Parent: parent, Group: group, Sess: sess}
	}
	root := processID{100, 50}
	tests := []struct {
		name  string
		all   []processStat
		want  []processID
		known bool
	}{
		{"nothing", nil, nil, false},
		{"alone", []processStat{p(100, 50, 'S', 1, 100, 100)}, []processID{root}, true},
		{"children, their children and a new session", []processStat{
			p(103, 53, 'S', 102, 103, 103), p(102, 52, 'S', 100, 100, 100), p(100, 50, 'S', 1, 100, 100), p(7, 10, 'S', 1, 7, 7),
		}, []processID{root, {102, 52}, {103, 53}}, true},
		{"orphans of the session and the group", []processStat{
			p(102, 52, 'S', 1, 102, 100), p(103, 53, 'S', 1, 100, 9), p(7, 10, 'S', 1, 7, 7),
		}, []processID{{102, 52}, {103, 53}}, false},
		{"a zombie root keeps its number", []processStat{
			p(100, 50, 'Z', 1, 100, 100), p(102, 52, 'S', 1, 102, 100),
		}, []processID{{102, 52}}, true},
		{"the number belongs to another process", []processStat{
			p(100, 90, 'S', 1, 100, 100), p(102, 92, 'S', 100, 100, 100),
		}, nil, true},
		{"older than the root", []processStat{
			p(100, 50, 'S', 1, 100, 100), p(90, 40, 'S', 1, 100, 100),
		}, []processID{root}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, known := processTree(root, test.all)
			if diff := cmp.Diff(test.want, got); diff != "" || known != test.known {
				t.Errorf("known %v, want %v; %s", known, test.known, diff)
			}
		})
	}
}

func TestProcessesHoldsThisOne(t *testing.T) {
	for _, s := range processes() {
		if s.PID == os.Getpid() {
			if s.Parent != os.Getppid() || s.Group != syscall.Getpgrp() {
				t.Errorf("%+v", s)
			}
			return
		}
	}
	t.Error("this process is not listed")
}
