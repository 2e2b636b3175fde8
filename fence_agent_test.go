package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// agentScript speaks the protocol of fence agents: options on stdin, the answer in the exit status. It notes what it read
// in a file beside it, and does what the file do says: a line of shell for each action.
const agentScript = `#!/bin/sh
here=$(dirname "$0")
while read -r line; do
	echo "$line" >>"$here/read"
	case $line in action=*) action=${line#action=} ;; esac
done
. "$here/do"
`

// ownAgent is an agent in a folder of its own.
func ownAgent(t *testing.T, do string) (agent string) {
	t.Helper()
	dir := t.TempDir()
	agent = filepath.Join(dir, "fence_own")
	for name, text := range map[string]string{"fence_own": agentScript, "do": do} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return agent
}

func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFenceAgentIsToldItsOptionsOnStdin(t *testing.T) {
	d := FenceConfig{Name: "own", Agent: ownAgent(t, "exit 0"), Plugs: []Option{{"alice", "3"}, {"bob", "4"}},
		Options: []Option{{"ip", "10.9.0.1"}, {"username", "ha ha"}}, PasswordFile: secretFile(t, "hunter 2\n", 0o600), Secrets: []Option{{"snmp_priv_passwd", secretFile(t, "hunter3", 0o400)}}}
	if _, err := callFence(t.Context(), fenceStep{Device: d, Node: "bob", Action: fenceOff}); err != nil {
		t.Fatal(err)
	}
	want := "action=off\nplug=4\nsnmp_priv_passwd=hunter3\npassword=hunter 2\nip=10.9.0.1\nusername=ha ha\n"
	if got := string(readFile(t, filepath.Join(filepath.Dir(d.Agent), "read"))); got != want {
		t.Errorf("it read\n%swant\n%s", got, want)
	}
}

func TestFenceAgentAnswers(t *testing.T) {
	for name, k := range map[string]struct{ action, do, power, err string }{
		"off":                      {action: fenceOff, do: "exit 0"},
		"off fails":                {action: fenceOff, do: "echo 'Failed: Unable to connect' >&2; exit 1", err: "exit status 1: Failed: Unable to connect"},
		"off with the status of 2": {action: fenceOff, do: "exit 2", err: "exit status 2"},
		"on":                       {action: fenceStatus, do: "echo Status: ON; exit 0", power: "on"},
		"is off":                   {action: fenceStatus, do: "echo Status: OFF; exit 2", power: "off"},
		"status fails":             {action: fenceStatus, do: "exit 1", err: "exit status 1"},
		"status of 3":              {action: fenceStatus, do: "exit 3", err: "exit status 3"},
		"killed":                   {action: fenceStatus, do: "kill -9 $$", err: "killed"},
		"monitor":                  {action: fenceMonitor, do: "exit 0"},
		"monitor with 2":           {action: fenceMonitor, do: "exit 2", err: "exit status 2"},
		"does not read":            {action: fenceOff, do: "exit 0"},
		"repeats a secret":         {action: fenceOff, do: "echo \"login ha/hunter2 refused\" >&2; exit 1", err: "login ha/*** refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := FenceConfig{Name: "own", Agent: ownAgent(t, k.do), Node: "bob", PasswordFile: secretFile(t, "hunter2\n", 0o600)}
			power, err := callFence(t.Context(), fenceStep{Device: d, Node: "bob", Action: k.action})
			if power != k.power || (err == nil) != (k.err == "") || err != nil && !strings.Contains(err.Error(), k.err) {
				t.Errorf("power %q, %v; want %q, %q", power, err, k.power, k.err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

// An agent that hangs is ended with all that it started, and its late success counts for nothing.
func TestFenceAgentThatHangs(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		agent := ownAgent(t, `here=$(dirname "$0"); sleep 1000 & echo $! >"$here/child"; trap "" TERM; wait; exit 0`)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		type result struct {
			power string
			err   error
		}
		done := make(chan result, 1)
		go func() {
			power, err := callFence(ctx, fenceStep{Device: FenceConfig{Name: "own", Agent: agent, Node: "bob"}, Node: "bob", Action: fenceStatus})
			done <- result{power, err}
		}()
		child := pidIn(t, filepath.Join(filepath.Dir(agent), "child"))
		cancel()
		if r := <-done; r.err == nil || r.power != "" {
			t.Errorf("power %q, %v", r.power, r.err)
		}
		until(t, "its child to be gone", func() bool { return !lives(child) })
	})
}

func TestFenceByCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "said")
	note := "echo $HA_FENCE_ACTION $HA_FENCE_NODE $HA_FENCE_PLUG >>" + file
	d := FenceConfig{Name: "own", Agent: agentExec, Plugs: []Option{{"alice", "3"}, {"bob", "4"}}, Off: note, Status: note + "; exit 2"}
	for _, s := range []fenceStep{{Node: "bob", Action: fenceOff}, {Node: "bob", Action: fenceStatus}, {Action: fenceMonitor}} {
		s.Device = d
		power, err := callFence(t.Context(), s)
		if err != nil || s.Action == fenceStatus && power != "off" {
			t.Errorf("%s: %q %v", s.Action, power, err)
		}
	}
	d.Monitor.Command = note + "; exit 2"
	if _, err := callFence(t.Context(), fenceStep{Device: d, Action: fenceMonitor}); err == nil {
		t.Error("a monitor of its own that fails is a failure")
	}
	if got, want := string(readFile(t, file)), "off bob 4\nstatus bob 4\nstatus alice 3\nmonitor\n"; got != want {
		t.Errorf("called\n%swant\n%s", got, want)
	}
}

func TestFenceSecretsAndPrograms(t *testing.T) {
	good := ownAgent(t, "exit 0")
	for name, k := range map[string]struct {
		d   FenceConfig
		err string
	}{
		"no such file":     {FenceConfig{Agent: good, PasswordFile: "/nonexistent/pw"}, "no such file"},
		"others read it":   {FenceConfig{Agent: good, PasswordFile: secretFile(t, "x", 0o640)}, "chmod 600"},
		"empty":            {FenceConfig{Agent: good, PasswordFile: secretFile(t, "\n", 0o600)}, "is empty"},
		"two lines":        {FenceConfig{Agent: good, PasswordFile: secretFile(t, "a\nb\n", 0o600)}, "more than one line"},
		"too long":         {FenceConfig{Agent: good, PasswordFile: secretFile(t, strings.Repeat("x", fenceSecretMax+1), 0o600)}, "no password"},
		"a folder":         {FenceConfig{Agent: good, PasswordFile: t.TempDir()}, "no file"},
		"no such program":  {FenceConfig{Agent: "fence_nonexistent"}, "no such file"},
		"no such path":     {FenceConfig{Agent: "/nonexistent/agent"}, "no such file"},
		"a folder as well": {FenceConfig{Agent: t.TempDir()}, "is no program"},
	} {
		k.d.Name, k.d.Node = "own", "bob"
		if _, err := callFence(t.Context(), fenceStep{Device: k.d, Node: "bob", Action: fenceOff}); err == nil || !strings.Contains(err.Error(), k.err) {
			t.Errorf("%s: %v, want %q", name, err, k.err)
		}
	}
}

// The fencer ends each call as one event, in time.
func TestFenceAgentsEvents(t *testing.T) {
	events := make(chan fenceDone, 4)
	f := newFenceAgents(testEnv(t).Log, func(e any) { events <- e.(fenceDone) })
	d := FenceConfig{Name: "own", Agent: agentExec, Node: "bob", Off: "sleep 1000", Status: "echo " + strings.Repeat("x", 2*fenceReasonMax) + "; exit 1"}
	f.Fence(fenceStep{ID: 1, Device: d, Node: "bob", Action: fenceOff, Timeout: 50 * time.Millisecond})
	f.Fence(fenceStep{ID: 2, Device: d, Node: "bob", Action: fenceStatus, Timeout: time.Minute})
	f.Fence(fenceStep{ID: 3, Device: d, Node: "bob", Action: fenceOff, Timeout: time.Hour})
	f.CancelFence(3)
	f.CancelFence(99)
	got := map[uint64]fenceDone{}
	for range 3 {
		e := <-events
		got[e.ID] = e
	}
	if !strings.Contains(got[1].Err, "not done after") || len(got[2].Err) > fenceReasonMax+len("…") || got[2].Power != "" || !strings.Contains(got[3].Err, "cancel") {
		t.Errorf("%q, %q, %q", got[1].Err, got[2].Err, got[3].Err)
	}
	f.Close()
}

func TestShortReasonCutsBetweenCharacters(t *testing.T) {
	if got := shortReason(strings.Repeat("ü", fenceReasonMax)); got != strings.Repeat("ü", fenceReasonMax/2)+"…" {
		t.Errorf("%q", got)
	}
	if got := shortReason("two\nlines\x1b[2J"); got != "two lines [2J" {
		t.Errorf("%q", got)
	}
}
