package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeExit is the error of a program that ended with a status.
type fakeExit int

func (e fakeExit) Error() string { return "exit status " + strconv.Itoa(int(e)) }
func (e fakeExit) ExitCode() int { return int(e) }

// fakeDRBD answers as the real tools did in a captured state. Commands that change the state take the next of the
// answers scripted for them: "ok STATE" moves to that state, anything else is a refusal out of errors/.
type fakeDRBD struct {
	t      *testing.T
	mu     sync.Mutex
	state  string              // "connected-uptodate-uptodate/a"
	edit   func(string) string // changes what events2 says; nil: as captured
	script map[string][]string // by command: "drbdadm primary"
	calls  []string
	proc   string // of the agent: its drbd file follows the state
	json   string // file of what 9 says to status --json; "": 8.4
}

func (f *fakeDRBD) run(ctx context.Context, name string, args ...string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := strings.Join(append([]string{name}, args...), " ")
	f.calls = append(f.calls, line)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	switch line {
	case "drbdsetup status --json":
		if f.json != "" {
			return readFixture(f.t, f.json), nil
		}
		return "", f.fails(20, captured(f.t, "pausedsync/a", "drbdsetup-status-json"), "status: unrecognized option '--json'\n")
	case "drbdsetup events2 --now --statistics":
		out := captured(f.t, f.state, "drbdsetup-events2-now-statistics")
		if f.edit != nil {
			out = f.edit(out)
		}
		return out, nil
	}
	key := name + " " + args[0]
	steps := f.script[key]
	if len(steps) == 0 {
		f.t.Errorf("not scripted in state %s: %s", f.state, line)
		return "", f.fails(99, "", "not scripted")
	}
	if len(steps) > 1 {
		f.script[key] = steps[1:]
	}
	return f.answer(steps[0])
}

func (f *fakeDRBD) fails(code int, out, errs string) error {
	tail := errs
	if tail == "" {
		tail = out
	}
	return &outputError{err: fakeExit(code), tail: tail}
}

func (f *fakeDRBD) answer(step string) (string, error) {
	if state, ok := strings.CutPrefix(step, "ok "); ok {
		f.moveTo(state)
		return "", nil
	}
	if text, ok := strings.CutPrefix(step, "says "); ok {
		return text, nil
	}
	text := readFixture(f.t, filepath.Join(capturesDRBD, "errors", step+".txt"))
	_, text, _ = strings.Cut(text, "\n") // the command
	i := strings.LastIndex(text, "exit ")
	code, err := strconv.Atoi(strings.TrimSpace(text[i+len("exit "):]))
	if err != nil {
		f.t.Fatalf("%s: %v", step, err)
	}
	if code == 0 {
		return text[:i], nil
	}
	return "", f.fails(code, "", text[:i])
}

func (f *fakeDRBD) moveTo(state string) {
	f.state = state
	b := captured(f.t, state, "proc-drbd")
	if err := os.WriteFile(filepath.Join(f.proc, "drbd"), []byte(b), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeDRBD) called(command string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if strings.HasPrefix(c, command) {
			n++
		}
	}
	return n
}

func newFakeDRBD(t *testing.T, state string, script map[string][]string) (*drbd, *fakeDRBD) {
	t.Helper()
	f := &fakeDRBD{t: t, script: script, proc: t.TempDir()}
	f.moveTo(state)
	d := &drbd{name: "r0", log: slog.New(slog.DiscardHandler), run: f.run, proc: f.proc, sys: t.TempDir(),
		look: func(name string) (string, error) { return "/usr/sbin/" + name, nil },
		meet: 300 * time.Millisecond, patience: 300 * time.Millisecond, fenceTime: time.Hour}
	return d, f
}

func testContext(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// generous is long enough for any machine: nothing below waits for it to pass.
const generous = time.Minute

func TestDRBDStart(t *testing.T) {
	const primary, secondary = "connected-uptodate-uptodate/a", "connected-secondary-secondary/a"
	show := "says " + captured(t, "connected-uptodate-uptodate/b", "drbdsetup-show")
	two := "says resource r0 {\n    net {\n        allow-two-primaries\tyes;\n    }\n}\n"
	for _, c := range []struct {
		name     string
		state    string
		edit     func(string) string
		script   map[string][]string
		want     string // in the error; "": none
		is       error
		promotes int // how often drbdadm primary is run; -1: at least once
	}{
		{name: "promotes", state: secondary, script: map[string][]string{"drbdadm primary": {"ok " + primary}}, promotes: 1},
		{name: "adopts what is Primary", state: primary},
		{name: "brings up what is down", state: "down-never-created/a",
			script: map[string][]string{"drbdadm up": {"ok " + secondary}, "drbdadm primary": {"ok " + primary}}, promotes: 1},
		{name: "with the peer dead", state: "link-cut/b",
			script: map[string][]string{"drbdadm primary": {"ok both-primary-while-cut/b"}}, promotes: 1},
		{name: "alone after waiting for the peer", state: "down-never-created/a",
			script: map[string][]string{"drbdadm up": {"ok link-cut/b"}, "drbdadm primary": {"ok both-primary-while-cut/b"}}, promotes: 1},
		{name: "diskless with good data on the peer", state: "diskless-secondary/b",
			edit:   func(s string) string { return strings.Replace(s, "role:Primary", "role:Secondary", 1) },
			script: map[string][]string{"drbdadm primary": {"ok diskless-primary/a"}},
			want:   "drbdadm primary r0 said nothing", promotes: 1}, // the edit hides the new role: the read-back notices
		{name: "not in the configuration", state: "not-configured/a", script: map[string][]string{"drbdadm up": {"unknown-resource"}},
			want: "is not in DRBD's configuration", is: errHopeless},
		{name: "disk without meta data", state: "down-never-created/a", script: map[string][]string{"drbdadm up": {"up-without-metadata"}},
			want: "drbdadm create-md r0", is: errHopeless},
		{name: "up refused otherwise", state: "down-never-created/a", script: map[string][]string{"drbdadm up": {"up-twice"}},
			want: "drbdadm up r0: Device '0' is configured! (exit 1; down)"},
		{name: "Outdated", state: "outdated-standalone/b", want: "r0 here is Outdated: the newer data is on the peer", is: errHopeless},
		{name: "Inconsistent", state: "wfconnection-inconsistent/a", want: "r0 here is Inconsistent", is: errHopeless},
		{name: "half synced", state: "syncsource-synctarget/b", want: "SyncTarget 15.7%", is: errHopeless},
		{name: "DRBD itself sees no good data", state: secondary, script: map[string][]string{"drbdadm primary": {"primary-when-outdated"}},
			want: "drbdadm primary r0: Need access to UpToDate data (exit 17; Secondary/Secondary UpToDate/UpToDate Connected)", is: errHopeless, promotes: 1},
		{name: "peer stays Primary", state: "connected-uptodate-uptodate/b",
			script: map[string][]string{"drbdsetup show": {show}, "drbdadm primary": {"primary-while-peer-primary"}},
			want:   "Multiple primaries not allowed by config (exit 11; Secondary/Primary UpToDate/UpToDate Connected)", is: errWaiting, promotes: -1},
		{name: "peer steps down after a moment", state: "connected-uptodate-uptodate/b",
			script: map[string][]string{"drbdsetup show": {show}, "drbdadm primary": {"primary-while-peer-primary", "ok " + primary}}, promotes: 2},
		{name: "peer Primary and DRBD would allow two", state: "connected-uptodate-uptodate/b",
			script: map[string][]string{"drbdsetup show": {two}}, want: "allow-two-primaries", is: errWaiting},
		{name: "disk state of another age", state: secondary, edit: func(s string) string { return strings.Replace(s, "disk:UpToDate", "disk:Quantum", 1) },
			want: `"Quantum"`},
		{name: "Primary but frozen", state: "suspended-by-user/a", want: "drbdadm resume-io r0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, f := newFakeDRBD(t, c.state, c.script)
			f.edit = c.edit
			err := d.Start(testContext(t, generous), startHint{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			for _, kind := range []error{errHopeless, errWaiting} {
				if errors.Is(err, kind) != (c.is == kind) {
					t.Errorf("error %v is %q: %v", err, kind, errors.Is(err, kind))
				}
			}
			if n := f.called("drbdadm primary"); n != c.promotes && !(c.promotes < 0 && n > 0) {
				t.Errorf("ran drbdadm primary %d times, want %d: %q", n, c.promotes, f.calls)
			}
			for _, call := range f.calls {
				if strings.Contains(call, "force") {
					t.Errorf("forced: %s", call)
				}
			}
		})
	}
}

// A resource that was just brought up meets its peer, and the newer data there, before it is promoted.
func TestDRBDStartMeetsPeerFirst(t *testing.T) {
	d, f := newFakeDRBD(t, "down-never-created/a", map[string][]string{"drbdadm up": {"ok link-cut/b"}})
	d.meet = generous
	reads := 0
	f.edit = func(s string) string {
		if f.state == "link-cut/b" {
			if reads++; reads == 3 { // now the connection is up, and the data here turns out to be old
				return captured(t, "syncsource-synctarget/b", "drbdsetup-events2-now-statistics")
			}
		}
		return s
	}
	err := d.Start(testContext(t, generous), startHint{})
	if !errors.Is(err, errHopeless) || !strings.Contains(err.Error(), "Inconsistent") {
		t.Errorf("error %v, want hopeless for Inconsistent", err)
	}
	if n := f.called("drbdadm primary"); n != 0 {
		t.Errorf("promoted old data: %q", f.calls)
	}
}

// While a disk is being attached a start waits, and its end says in what state it was.
func TestDRBDStartWaitsForDisk(t *testing.T) {
	d, f := newFakeDRBD(t, "connected-secondary-secondary/a", map[string][]string{"drbdadm primary": {"ok connected-uptodate-uptodate/a"}})
	reads := 0
	f.edit = func(s string) string {
		if reads++; reads < 4 {
			return strings.Replace(s, "disk:UpToDate", "disk:Attaching", 1)
		}
		return s
	}
	if err := d.Start(testContext(t, generous), startHint{}); err != nil {
		t.Errorf("start: %v", err)
	}
	if reads < 4 {
		t.Errorf("read %d times", reads)
	}
	d, f = newFakeDRBD(t, "connected-secondary-secondary/a", nil)
	f.edit = func(s string) string { return strings.Replace(s, "disk:UpToDate", "disk:Attaching", 1) }
	err := d.Start(testContext(t, 250*time.Millisecond), startHint{})
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the end of time", err)
	}
}

func TestDRBDStop(t *testing.T) {
	const primary, secondary = "connected-uptodate-uptodate/a", "connected-secondary-secondary/a"
	for _, c := range []struct {
		name, state string
		script      map[string][]string
		limit       time.Duration
		want        string
		runs        int // of drbdadm secondary; -1: more than one
	}{
		{name: "demotes", state: primary, script: map[string][]string{"drbdadm secondary": {"ok " + secondary}}, runs: 1},
		{name: "is Secondary", state: secondary},
		{name: "is down", state: "down-never-created/a"},
		{name: "is not configured", state: "not-configured/a"},
		{name: "held open for a moment", state: primary,
			script: map[string][]string{"drbdadm secondary": {"secondary-while-mounted", "secondary-while-mounted", "ok " + secondary}}, runs: 3},
		{name: "held open to the end", state: primary, script: map[string][]string{"drbdadm secondary": {"secondary-while-mounted"}},
			limit: 400 * time.Millisecond, want: "r0 stays Primary: it is held open by the mount on /var/www, httpd (pid 4711)", runs: -1},
		{name: "refused otherwise", state: primary, script: map[string][]string{"drbdadm secondary": {"primary-when-down"}},
			want: "drbdadm secondary r0: Device minor not allocated; unknown minor (exit 10; Primary/Secondary UpToDate/UpToDate Connected)", runs: 1},
		{name: "says yes and does not", state: primary, script: map[string][]string{"drbdadm secondary": {"ok " + primary}},
			want: "its role is Primary", runs: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, f := newFakeDRBD(t, c.state, c.script)
			plantHolder(t, f.proc)
			if c.limit == 0 {
				c.limit = generous
			}
			err := d.Stop(testContext(t, c.limit))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if n := f.called("drbdadm secondary"); n != c.runs && !(c.runs < 0 && n > 0) {
				t.Errorf("ran drbdadm secondary %d times, want %d", n, c.runs)
			}
		})
	}
}

// The deadline may cut off any of the tools: the reason is told all the same.
func TestDRBDStopCutOff(t *testing.T) {
	for _, command := range []string{"drbdsetup events2", "drbdadm secondary"} {
		d, f := newFakeDRBD(t, "connected-uptodate-uptodate/a", map[string][]string{"drbdadm secondary": {"secondary-while-mounted"}})
		plantHolder(t, f.proc)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		d.run = func(ctx context.Context, name string, args ...string) (string, error) {
			if f.called("drbdadm secondary") > 0 && strings.HasPrefix(name+" "+args[0], command) {
				cancel() // and what is asked once more says what cut it off
			}
			return f.run(ctx, name, args...)
		}
		const want = "r0 stays Primary: it is held open by the mount on /var/www, httpd (pid 4711)"
		if err := d.Stop(ctx); err == nil || err.Error() != want {
			t.Errorf("cut off in %s: %v", command, err)
		}
	}
}

// plantHolder makes a /proc in which process 4711 has minor 0 of DRBD mounted, and holds nothing else.
func plantHolder(t *testing.T, proc string) {
	t.Helper()
	dir := filepath.Join(proc, "4711")
	for _, d := range []string{"ns", "fd"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mounts := "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 147:0 / /var/www rw shared:5 - ext4 /dev/drbd0 rw\n22 20 147:1 / /srv rw - ext4 /dev/drbd1 rw\n"
	for name, text := range map[string]string{"mountinfo": mounts, "comm": "httpd\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("mnt:[4026531840]", filepath.Join(dir, "ns/mnt")); err != nil {
		t.Fatal(err)
	}
	// A link of /proc/PID/fd to a device cannot be planted without the device; a node of that number can.
	node := filepath.Join(t.TempDir(), "drbd0")
	if err := mknodBlock(node, drbdMajor, 0); err != nil {
		t.Skipf("cannot make a device node (not root, or forbidden here): %v", err)
	}
	if err := os.Symlink(node, filepath.Join(dir, "fd/3")); err != nil {
		t.Fatal(err)
	}
}

func TestDRBDMonitor(t *testing.T) {
	for _, c := range []struct {
		state string
		edit  func(string) string
		want  condition
		err   string
	}{
		{"connected-uptodate-uptodate/a", nil, conditionRunning, ""},
		{"connected-uptodate-uptodate/b", nil, conditionStopped, ""},
		{"down-never-created/a", nil, conditionStopped, ""},
		{"diskless-primary/a", nil, conditionRunning, ""},
		{"diskless-primary/a", func(s string) string { return strings.Replace(s, "connection:Connected", "connection:Connecting", 1) },
			conditionFailed, "drbdadm attach r0"},
		{"split-brain/a", nil, conditionRunning, ""},
		{"suspended-by-user/a", nil, conditionFailed, "resume-io"},
		{"suspended-by-fencing/a", nil, conditionRunning, ""},
		{"syncsource-synctarget/a", nil, conditionRunning, ""},
		{"connected-uptodate-uptodate/a", func(string) string { return "garbage\n" }, conditionUnknown, "not an event"},
	} {
		d, f := newFakeDRBD(t, c.state, nil)
		f.edit = c.edit
		got, err := d.Monitor(testContext(t, generous))
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v; want %v, %q", c.state, got, err, c.want, c.err)
		}
	}
}

// Without the kernel module nothing is asked and nothing runs.
func TestDRBDMonitorWithoutModule(t *testing.T) {
	d, f := newFakeDRBD(t, "connected-uptodate-uptodate/a", nil)
	if err := os.Remove(filepath.Join(f.proc, "drbd")); err != nil {
		t.Fatal(err)
	}
	if c, err := d.Monitor(testContext(t, generous)); c != conditionStopped || err != nil || len(f.calls) != 0 {
		t.Errorf("%v, %v after %q", c, err, f.calls)
	}
}

// Frozen by fencing is waited for, but not for ever; and it is forgotten when it has passed.
func TestDRBDMonitorFencingTakesTooLong(t *testing.T) {
	d, f := newFakeDRBD(t, "suspended-by-fencing/a", nil)
	ctx := testContext(t, generous)
	if c, err := d.Monitor(ctx); c != conditionRunning {
		t.Fatalf("at first: %v, %v", c, err)
	}
	d.fenceTime = 0
	if c, err := d.Monitor(ctx); c != conditionFailed || !strings.Contains(err.Error(), "has not recorded") {
		t.Errorf("at last: %v, %v", c, err)
	}
	f.moveTo("after-fencing/a")
	if c, err := d.Monitor(ctx); c != conditionRunning || !d.frozenSince.IsZero() {
		t.Errorf("afterwards: %v, %v, since %v", c, err, d.frozenSince)
	}
}

func TestDRBDStatusLine(t *testing.T) {
	for state, want := range map[string]string{
		"connected-uptodate-uptodate/a": "Primary/Secondary UpToDate/UpToDate Connected",
		"syncsource-synctarget/a":       "Primary/Secondary UpToDate/Inconsistent Connected SyncSource 7.9%, 57s left",
		"verifying/b":                   "Secondary/Primary UpToDate/UpToDate Connected VerifyT 12.5%, 1m3s left",
		"down-never-created/a":          "down",
	} {
		d, _ := newFakeDRBD(t, state, nil)
		if c, err := d.Copies(testContext(t, generous)); c.Line != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", state, c.Line, err, want)
		}
	}
}

// 9 is asked in JSON, and with a /proc/drbd that has no states.
func TestDRBD9IsAskedInJSON(t *testing.T) {
	d, f := newFakeDRBD(t, "connected-uptodate-uptodate/a", nil)
	f.json = "testdata/drbd/9-from-documentation/connected.json"
	proc := readFixture(t, "testdata/drbd/9-from-documentation/proc-drbd")
	if err := os.WriteFile(filepath.Join(f.proc, "drbd"), []byte(proc), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := d.Copies(testContext(t, generous)); c.Line != "Primary/Secondary UpToDate/UpToDate Connected; DRBD 9: parser-tested only" || err != nil {
		t.Errorf("%q, %v", c.Line, err)
	}
	if len(f.calls) != 1 || f.calls[0] != "drbdsetup status --json" {
		t.Errorf("asked %q", f.calls)
	}
	// 8.4 behind a version that cannot be read: the refusal of --json leads to events2.
	d, f = newFakeDRBD(t, "split-brain/a", nil)
	if err := os.WriteFile(filepath.Join(f.proc, "drbd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := d.Monitor(testContext(t, generous)); c != conditionRunning || err != nil || len(f.calls) != 2 {
		t.Errorf("%v, %v after %q", c, err, f.calls)
	}
}

// Tools without events2 are asked word by word.
func TestDRBDReadsWords(t *testing.T) {
	d, f := newFakeDRBD(t, "pausedsync/b", nil)
	f.script = map[string][]string{}
	for _, w := range []string{"role", "cstate", "dstate"} {
		f.script["drbdadm "+w] = []string{"says " + captured(t, f.state, "drbdadm-"+w)}
	}
	asked := d.run
	d.run = func(ctx context.Context, name string, args ...string) (string, error) {
		if args[0] == "events2" {
			return "", f.fails(20, "", "drbdsetup: unknown command events2\n")
		}
		return asked(ctx, name, args...)
	}
	s, err := d.read(testContext(t, generous))
	if err != nil || s.Role != drbdSecondary || s.Volumes[0].Disk != diskInconsistent || s.Peers[0].Volumes[0].Replication != "PausedSyncT" {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestDRBDReady: the other node's data needs a second copy, so it is up here too, and brought up only once.
func TestDRBDReady(t *testing.T) {
	for _, c := range []struct {
		state, up string
		ups       int
		want      string
	}{
		{"down-never-created/a", "ok connected-secondary-secondary/a", 1, ""},
		{"down-never-created/a", "up-without-metadata", 1, "create-md"},
		{"connected-uptodate-uptodate/b", "ok connected-uptodate-uptodate/b", 0, ""},
		{"link-cut/b", "ok link-cut/b", 0, ""},
	} {
		d, f := newFakeDRBD(t, c.state, map[string][]string{"drbdadm up": {c.up}})
		err := d.Ready(testContext(t, generous))
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.state, err, c.want)
		}
		if n := f.called("drbdadm up"); n != c.ups || f.called("drbdadm primary") != 0 {
			t.Errorf("%s: brought up %d times, want %d: %q", c.state, n, c.ups, f.calls)
		}
	}
}

func TestDRBDFit(t *testing.T) {
	dump := map[string][]string{"drbdadm dump": {"dump"}}
	down := func(step string) map[string][]string {
		return map[string][]string{"drbdadm dump": {"dump"}, "drbdadm dstate": {step}}
	}
	for _, c := range []struct {
		name, state string
		script      map[string][]string
		want        string
	}{
		{"good data", "connected-uptodate-uptodate/b", dump, ""},
		{"peer away", "link-cut/b", dump, ""},
		{"Primary here", "connected-uptodate-uptodate/a", dump, ""},
		{"Outdated", "outdated-standalone/b", dump, "Outdated"},
		{"sync under way", "syncsource-synctarget/b", dump, "SyncTarget 15.7%"},
		{"no resource of that name", "not-configured/a", map[string][]string{"drbdadm dump": {"unknown-resource"}}, "not in DRBD's configuration"},
		{"down, good data", "down-never-created/a", down("says Consistent/DUnknown\n"), ""},
		{"down, old data", "down-never-created/a", down("says Outdated/DUnknown\n"), "Outdated"},
		{"down, half copied", "down-never-created/a", down("says Inconsistent/DUnknown\n"), "Inconsistent"},
		{"down, no meta data", "down-never-created/a", down("up-without-metadata"), "create-md"},
		{"down, cannot tell", "down-never-created/a", down("primary-when-down"), ""},
	} {
		d, _ := newFakeDRBD(t, c.state, c.script)
		err := d.Fit(testContext(t, generous))
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	d, f := newFakeDRBD(t, "connected-uptodate-uptodate/b", map[string][]string{"modprobe -n": {"unknown-resource"}})
	d.look = func(name string) (string, error) { return "", os.ErrNotExist }
	if err := d.Fit(testContext(t, generous)); err == nil || !strings.Contains(err.Error(), "install drbd-utils") {
		t.Errorf("without tools: %v", err)
	}
	d.look = func(name string) (string, error) { return name, nil }
	if err := os.Remove(filepath.Join(f.proc, "drbd")); err != nil {
		t.Fatal(err)
	}
	if err := d.Fit(testContext(t, generous)); err == nil || !strings.Contains(err.Error(), "no drbd module") {
		t.Errorf("without module: %v", err)
	}
}

// What the watcher makes of each captured stream of events.
func TestDRBDWatchGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(capturesDRBD, "events2/*.out"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no streams: %v", err)
	}
	var b strings.Builder
	for _, file := range files {
		fmt.Fprintf(&b, "%s\n", filepath.Base(file))
		w := drbdFollower{name: "r0", changed: func(reason string) { fmt.Fprintf(&b, "  %s\n", reason) }}
		for _, line := range strings.Split(readFixture(t, file), "\n") {
			w.line(line)
		}
	}
	drbdGolden(t, filepath.Join(capturesDRBD, "events2", "noticed.golden"), b.String())
}

// A stream that dies is started again, and what happened in between is noticed.
func TestDRBDWatchRestarts(t *testing.T) {
	d, _ := newFakeDRBD(t, "split-brain/a", nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	runs := 0
	d.stream = func(ctx context.Context, line func(string), name string, args ...string) error {
		if got := strings.Join(append([]string{name}, args...), " "); got != "drbdsetup events2 r0" {
			t.Errorf("ran %s", got)
		}
		state := "connected-uptodate-uptodate/a"
		if runs++; runs == 2 {
			state = "split-brain/a"
		}
		for _, l := range strings.Split(captured(t, state, "drbdsetup-events2-now"), "\n") {
			line(l)
		}
		if runs == 2 {
			line("2026-11-22T12:46:43.856337+00:00 call helper name:r0 peer-node-id:0 conn-name:peer volume:0 minor:0 helper:split-brain")
			cancel()
		}
		return errors.New("killed")
	}
	var reasons []string
	d.Watch(ctx, func(reason string) { reasons = append(reasons, reason) })
	want := "r0 connection to peer: StandAlone, was Connected; r0: DRBD has found a split brain"
	if got := strings.Join(reasons, "; "); got != want {
		t.Errorf("noticed %q, want %q", got, want)
	}
	if c, err := d.Copies(testContext(t, generous)); err != nil || !strings.Contains(c.Line, "split brain: both sides") {
		t.Errorf("status %q, %v", c.Line, err)
	}
}

// The real runner: output, refusal with its tail and status, and the end of a program that does not end.
func TestRunToEnd(t *testing.T) {
	ctx := testContext(t, generous)
	if out, err := runToEnd(ctx, "sh", "-c", "echo yes; echo no >&2"); out != "yes\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	_, err := runToEnd(ctx, "sh", "-c", "echo 'State change failed: (-12) x' >&2; exit 11")
	var exit interface{ ExitCode() int }
	if drbdCode(err) != codeInUse || !errors.As(err, &exit) || exit.ExitCode() != 11 {
		t.Errorf("refusal: %v", err)
	}
	if _, err := runToEnd(ctx, "/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing program: %v", err)
	}
	if out, err := runToEnd(ctx, "sh", "-c", "sleep 5 & echo done"); out != "done\n" || err != nil {
		t.Errorf("one that leaves a child behind: %q, %v", out, err)
	}
	short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	// The grandchild holds the pipe: only the end of the whole group ends this.
	if _, err := runToEnd(short, "sh", "-c", "sleep 600 & wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("overrun: %v", err)
	}
}

func TestStreamLines(t *testing.T) {
	var got []string
	err := streamLines(testContext(t, generous), func(l string) { got = append(got, l) }, "sh", "-c", "echo a; echo b; echo why >&2; exit 3")
	if strings.Join(got, ",") != "a,b" || err == nil || tailOf(err) != "why\n" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = streamLines(ctx, func(string) { cancel() }, "sh", "-c", "echo a; sleep 600 & wait")
	if err == nil {
		t.Error("a stream that was ended says nothing")
	}
}

// The configuration becomes an agent with the real world behind it, which can do what status and placement ask of it.
func TestNewDRBD(t *testing.T) {
	if _, err := newDRBD(ResourceConfig{Type: "drbd", Name: "drbd"}, resourceEnv{}); err == nil || !strings.Contains(err.Error(), `resource = "r0"`) {
		t.Errorf("without a resource: %v", err)
	}
	r, err := newDRBD(ResourceConfig{Type: "drbd", Name: "drbd", Resource: "r0"}, resourceEnv{})
	if err != nil {
		t.Fatal(err)
	}
	d := r.(*drbd)
	if d.name != "r0" || d.meet != drbdMeet || d.patience != drbdPatience || d.fenceTime != drbdFenceTime || d.run == nil || d.stream == nil {
		t.Errorf("agent %+v", d)
	}
	for name, ok := range map[string]bool{"watcher": isA[watcher](r), "fitter": isA[fitter](r), "replicated": isA[replicated](r)} {
		if !ok {
			t.Errorf("is no %s", name)
		}
	}
}

func isA[T any](v any) bool { _, ok := v.(T); return ok }

// What is frozen is let go of with errors, since nothing else ends what waits for it; then it is down, or what holds it can stop.
func TestDRBDGivesUpFrozenIO(t *testing.T) {
	const frozen, held = "suspended-by-fencing/a", "secondary-while-mounted"
	steps := map[string][]string{"drbdadm detach": {"ok " + frozen}, "drbdadm disconnect": {"ok " + frozen}, "drbdadm down": {held, "ok down-never-created/a"},
		"drbdadm secondary": {"ok connected-secondary-secondary/a"}}
	d, f := newFakeDRBD(t, frozen, steps)
	ctx := testContext(t, generous)
	if err := d.Force(ctx); err == nil || !strings.Contains(err.Error(), "it is still in use") {
		t.Fatalf("held open: %v", err)
	}
	if err := d.Stop(ctx); err != nil {
		t.Fatalf("stop afterwards: %v", err)
	}
	for _, call := range []string{"drbdadm detach --force r0", "drbdadm disconnect r0", "drbdadm secondary r0"} {
		if f.called(call) != 1 {
			t.Errorf("%s: %d times", call, f.called(call))
		}
	}
	if f.called("drbdadm down r0") != 2 || d.gaveUp {
		t.Errorf("down: %d times, %v", f.called("drbdadm down r0"), d.gaveUp)
	}
}

// Data that is whole but perhaps old waits for the handler's leave; only what is surely old is hopeless.
func TestDRBDWaitsForLeave(t *testing.T) {
	for state, refusal := range map[string]string{"consistent-after-reboot/a": "primary-when-consistent-and-peer-is-not-fenced", "link-cut/b": "primary-when-peer-is-not-fenced"} {
		d, _ := newFakeDRBD(t, state, map[string][]string{"drbdadm primary": {refusal}})
		if err := d.Start(testContext(t, generous), startHint{}); !errors.Is(err, errWaiting) || errors.Is(err, errHopeless) {
			t.Errorf("%s: %v", state, err)
		}
	}
}

// Thaw lets go on what its handler has left frozen, and nothing else.
func TestDRBDThaw(t *testing.T) {
	d, f := newFakeDRBD(t, "suspended-by-fencing/a", map[string][]string{"drbdadm resume-io": {"ok after-fencing/a"}})
	ctx := testContext(t, generous)
	if c, err := d.Copies(ctx); err != nil || !c.Frozen || len(c.Stale) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	for range 2 {
		if err := d.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.called("drbdadm resume-io r0"); n != 1 {
		t.Errorf("thawed %d times", n)
	}
	d, f = newFakeDRBD(t, "suspended-by-user/a", nil)
	if err := d.Thaw(ctx); err != nil || f.called("drbdadm resume-io r0") != 0 {
		t.Errorf("what an operator froze: %v", err)
	}
}

func TestDRBDRejoin(t *testing.T) {
	const primary, secondary = "split-brain/a", "outdated-standalone/b"
	for _, c := range []struct {
		name, state, how string
		calls            string // the one command; "": none
		refused          string
	}{
		{"the good copy, in use", primary, rejoinKeep, "drbdadm connect r0", ""},
		{"the good copy", secondary, rejoinKeep, "drbdadm connect r0", ""},
		{"the other one", secondary, rejoinGiveUp, "drbdadm connect --discard-my-data r0", ""},
		{"the other one, still written to", primary, rejoinGiveUp, "", "cannot be given up yet"},
		{"connected again", "connected-uptodate-uptodate/a", rejoinGiveUp, "", ""},
		{"waiting for the peer", "link-cut/b", rejoinGiveUp, "", ""},
	} {
		d, f := newFakeDRBD(t, c.state, map[string][]string{"drbdadm connect": {"ok connected-uptodate-uptodate/a"}})
		err := d.Rejoin(testContext(t, generous), c.how)
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: %v", c.name, err)
		}
		calls := slices.DeleteFunc(f.calls, func(call string) bool { return strings.HasPrefix(call, "drbdsetup") })
		if got := strings.Join(calls, "; "); got != c.calls {
			t.Errorf("%s: called %q, want %q", c.name, got, c.calls)
		}
	}
	d, _ := newFakeDRBD(t, primary, nil)
	d.noteSplitBrain("r0" + splitBrainReason)
	if c, err := d.Copies(testContext(t, generous)); err != nil || !c.Replica.SplitBrain || c.Replica.Peers[0].OutOfSync != 36<<10 {
		t.Errorf("as status has it: %+v, %v", c.Replica, err)
	}
}

func TestDRBDForce(t *testing.T) {
	const primary, secondary = "connected-uptodate-uptodate/a", "connected-secondary-secondary/a"
	for _, c := range []struct {
		name, version, want string
		steps               []string
		runs                int
	}{
		{"9.1", "9.1.14", "", []string{"ok " + secondary}, 1},
		{"9.2", "9.2.0-1", "", []string{"ok " + secondary}, 1},
		{"10", "10.0", "", []string{"ok " + secondary}, 1},
		{"8.4", "8.4.11", "DRBD 8.4.11 cannot be made secondary while it is in use: only 9.1 and later can", nil, 0},
		{"9.0", "9.0.30", "only 9.1 and later can", nil, 0},
		{"unknown", "", "only 9.1 and later can", nil, 0},
		{"says yes and does not", "9.1.14", "said nothing, but its role is Primary", []string{"ok " + primary}, 1},
	} {
		d, f := newFakeDRBD(t, primary, map[string][]string{"drbdadm secondary": c.steps})
		if c.version != "" {
			dir := filepath.Join(d.sys, "module/drbd")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "version"), []byte(c.version+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := d.Force(testContext(t, 10*time.Second))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if n := f.called("drbdadm secondary --force r0"); n != c.runs {
			t.Errorf("%s: forced %d times, want %d", c.name, n, c.runs)
		}
	}
}
