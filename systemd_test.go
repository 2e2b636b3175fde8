// Units are started and stopped by jobs, owned by a drop-in meanwhile, and watched: against a systemd that is faked at
// the interface for what unit does, and on the wire for what the D-Bus adapter does.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const testUnit = "apache2.service"

// fakeSystemd has one loaded unit; what is asked of it is written down.
type fakeSystemd struct {
	mu       sync.Mutex
	calls    []string
	state    unitState
	main     int    // MainPID when it runs
	result   string // of jobs; "" is "done"
	after    string // ActiveState after a job that failed, or "" for none
	hang     bool   // a stop job ends only after Kill
	killed   bool
	err      error                             // of every call
	onReload func()                            // looks at the files
	file     string                            // the drop-in
	unloaded bool                              // when it does not run it is read anew, as nothing keeps it loaded
	watchers map[*fakeConnection](chan string) // of Changes
	dials    int
}

type fakeConnection struct{ *fakeSystemd }

func newFakeSystemd(active string) *fakeSystemd {
	f := &fakeSystemd{main: os.Getpid(), watchers: map[*fakeConnection]chan string{}}
	f.state = unitState{Load: "loaded", UnitFile: "disabled", Restart: "on-abort", Result: "success"}
	f.set(active)
	return f
}

func (f *fakeSystemd) set(active string) {
	f.state.Active, f.state.MainPID = active, 0
	if active == "active" {
		f.state.MainPID = f.main
	}
}

// turn changes the state from outside and tells the watchers.
func (f *fakeSystemd) turn(change func(*unitState)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.state)
	for _, ch := range f.watchers {
		ch <- testUnit
	}
}

func (f *fakeSystemd) dial(context.Context) (unitManager, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.err != nil {
		return nil, f.err
	}
	return &fakeConnection{f}, nil
}

func (f *fakeSystemd) said() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (c *fakeConnection) State(_ context.Context, name string) (unitState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name != testUnit {
		return unitState{Load: "not-found", Active: "inactive"}, c.err
	}
	if c.unloaded && c.state.Active == "inactive" {
		c.read()
	}
	st := c.state
	st.NeedReload = st.NeedReload || exists(c.file) != (st.Restart == "no")
	return st, c.err
}

// read takes the unit's files in.
func (f *fakeSystemd) read() {
	f.state.NeedReload, f.state.Restart = false, "on-abort"
	if exists(f.file) {
		f.state.Restart = "no"
	}
}

func (c *fakeConnection) job(what, success string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, what)
	if c.result != "" {
		if c.after != "" {
			c.set(c.after)
			c.state.Result = "exit-code"
		}
		return c.result, c.err
	}
	c.set(success)
	return "done", c.err
}

func (c *fakeConnection) Start(context.Context, string) (string, error) {
	return c.job("start", "active")
}

func (c *fakeConnection) Stop(ctx context.Context, _ string) (string, error) {
	c.mu.Lock()
	wait := c.hang && !c.killed
	c.mu.Unlock()
	if wait {
		<-ctx.Done()
		return "", ctx.Err()
	}
	success := "inactive"
	if c.hang {
		success = "failed" // by SIGKILL
	}
	return c.job("stop", success)
}

func (c *fakeConnection) Kill(context.Context, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.killed = append(c.calls, "kill"), true
	return c.err
}

func (c *fakeConnection) ResetFailed(context.Context, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, "reset")
	if c.state.Active == "failed" {
		c.set("inactive")
	}
	return c.err
}

func (c *fakeConnection) Reload(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, "reload")
	c.read()
	if c.onReload != nil {
		c.onReload()
	}
	return c.err
}

func (c *fakeConnection) Changes(context.Context) (<-chan string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan string, 10)
	c.watchers[c] = ch
	return ch, c.err
}

// drop breaks the connections of all watchers.
func (f *fakeSystemd) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, ch := range f.watchers {
		close(ch)
		delete(f.watchers, c)
	}
}

func (c *fakeConnection) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watchers, c)
}

func testUnitOf(t *testing.T, f *fakeSystemd) *unit {
	t.Helper()
	u := newUnit("apache2", testEnv(t), f.dial)
	u.dropIn = t.TempDir()
	f.file = u.dropInFile()
	return u
}

func (u *unit) dropInFile() string { return filepath.Join(u.dropIn, u.name+".d", dropInName) }

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func wantCalls(t *testing.T, f *fakeSystemd, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, f.said()); diff != "" {
		t.Errorf("calls: %s", diff)
	}
}

func TestUnitStartStop(t *testing.T) {
	f := newFakeSystemd("inactive")
	u := testUnitOf(t, f)
	var seen []bool // the drop-in, whenever systemd reads its files
	f.onReload = func() { seen = append(seen, exists(u.dropInFile())) }
	if err := u.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, f, "reload", "start")
	if b, err := os.ReadFile(u.dropInFile()); err != nil || !strings.HasSuffix(string(b), "\n[Service]\nRestart=no\n") {
		t.Errorf("drop-in %q, %v", b, err)
	}
	if err := u.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, f, "start") // nothing to read anew
	f.state.NeedReload = true
	if err := u.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, f, "reload", "start")
	if err := u.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.returned.Wait()
	wantCalls(t, f, "stop", "reload")
	if exists(u.dropInFile()) {
		t.Error("the drop-in is left")
	}
	if err := u.stop(t.Context()); err != nil { // stopped already
		t.Fatal(err)
	}
	wantCalls(t, f, "stop")
	if diff := cmp.Diff([]bool{true, true, false}, seen); diff != "" {
		t.Errorf("drop-in at each reload: %s", diff)
	}
}

// A node that is made ready waits for no daemon-reload when it takes over, nor when it gives away.
func TestUnitTakeoverWithoutReload(t *testing.T) {
	f := newFakeSystemd("inactive")
	f.unloaded = true
	u := testUnitOf(t, f)
	for range 2 {
		if err := u.fit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if calls := f.calls; len(calls) > 0 {
			t.Fatalf("only asked whether it could, it did %v", calls)
		}
	}
	for range 2 {
		u.prepare(t.Context())
	}
	wantCalls(t, f, "reload") // once
	if err := u.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, f, "start")
	if f.state.Restart != "no" {
		t.Error("systemd restarts it by itself")
	}
	if err := u.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.returned.Wait()
	wantCalls(t, f, "stop")
	if st, err := u.state(t.Context()); err != nil || st.Restart == "no" {
		t.Errorf("not given back: %+v, %v", st, err)
	}
}

func TestUnitStartOfAFailedOne(t *testing.T) {
	f := newFakeSystemd("failed")
	u := testUnitOf(t, f)
	if err := u.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, f, "reload", "reset", "start")
}

func TestUnitStartErrors(t *testing.T) {
	tests := []struct {
		name     string
		change   func(*fakeSystemd)
		want     string
		hopeless bool
	}{
		{"fails", func(f *fakeSystemd) { f.result, f.after = "failed", "failed" }, "start job failed: unit apache2.service is failed (exit-code): see `journalctl -u apache2.service`", false},
		{"dependency", func(f *fakeSystemd) { f.result = "dependency" }, "start unit apache2.service: job dependency: see `journalctl -u apache2.service`", false},
		{"masked", func(f *fakeSystemd) { f.state.Load = "masked" }, "unit apache2.service is masked: `systemctl unmask apache2.service`", true},
		{"unknown", func(f *fakeSystemd) { f.state.Load = "not-found" }, "systemd knows no unit apache2.service: install it, or correct unit", true},
		{"bad", func(f *fakeSystemd) { f.state.Load = "bad-setting" }, "unit apache2.service cannot be loaded (bad-setting): see `systemctl status apache2.service`", true},
		{"no systemd", func(f *fakeSystemd) { f.err = errors.New("no such file") }, "reach systemd: no such file", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeSystemd("inactive")
			test.change(f)
			u := testUnitOf(t, f)
			err := u.start(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || errors.Is(err, errHopeless) != test.hopeless {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if fit := u.fit(t.Context()); (fit != nil) != (test.hopeless || f.err != nil) {
				t.Errorf("fit %v", fit)
			}
		})
	}
}

func TestUnitStartWithoutAPlaceForTheDropIn(t *testing.T) {
	f := newFakeSystemd("inactive")
	u := testUnitOf(t, f)
	u.dropIn = "/proc/nowhere"
	if err := u.start(t.Context()); err == nil || !strings.Contains(err.Error(), "take unit apache2.service over: ") {
		t.Errorf("error %v", err)
	}
	wantCalls(t, f) // systemd could restart it behind the cluster's back: it is not started
}

func TestUnitStopErrors(t *testing.T) {
	t.Run("hangs", func(t *testing.T) {
		f := newFakeSystemd("active")
		f.hang = true
		u := testUnitOf(t, f)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // four fifths of it politely
		defer cancel()
		if err := u.stop(ctx); err != nil {
			t.Fatal(err)
		}
		u.returned.Wait()
		wantCalls(t, f, "kill", "stop", "reset")
	})
	t.Run("job fails", func(t *testing.T) {
		f := newFakeSystemd("active")
		f.result = "timeout"
		if err := testUnitOf(t, f).stop(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "stop unit apache2.service: job timeout: see `journalctl") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("not stopped after all", func(t *testing.T) {
		f := newFakeSystemd("active")
		f.result, f.after = "done", "deactivating"
		u := testUnitOf(t, f)
		if err := os.MkdirAll(filepath.Dir(u.dropInFile()), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(u.dropInFile(), []byte(dropInContent), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := u.stop(t.Context()); err == nil || !strings.Contains(err.Error(), "is deactivating after its stop") {
			t.Errorf("error %v", err)
		}
		if !exists(u.dropInFile()) {
			t.Error("given back to systemd although it is not stopped")
		}
	})
	t.Run("no such unit", func(t *testing.T) {
		f := newFakeSystemd("inactive")
		f.state.Load = "not-found"
		if err := testUnitOf(t, f).stop(t.Context()); err != nil {
			t.Error(err)
		}
		wantCalls(t, f)
	})
	t.Run("somebody else's drop-in stays", func(t *testing.T) {
		f := newFakeSystemd("inactive")
		u := testUnitOf(t, f)
		if err := u.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		theirs := filepath.Join(filepath.Dir(u.dropInFile()), "10-local.conf")
		if err := os.WriteFile(theirs, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := u.stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if exists(u.dropInFile()) || !exists(theirs) {
			t.Error("the wrong drop-in was removed")
		}
	})
}

func TestUnitProbe(t *testing.T) {
	tests := []struct {
		active string
		want   condition
		err    string
	}{
		{"active", conditionRunning, ""},
		{"reloading", conditionRunning, ""},
		{"inactive", conditionStopped, ""},
		{"failed", conditionFailed, "unit apache2.service is failed (success): see `journalctl -u apache2.service`"},
		{"activating", conditionUnknown, "unit apache2.service is activating: a job is under way"},
		{"deactivating", conditionUnknown, "unit apache2.service is deactivating: a job is under way"},
	}
	for _, test := range tests {
		f := newFakeSystemd(test.active)
		_, c, err := testUnitOf(t, f).probe(t.Context())
		if c != test.want || (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s: %s, %v", test.active, c, err)
		}
		wantCalls(t, f) // a probe changes nothing
	}
	f := newFakeSystemd("active")
	f.err = errors.New("gone")
	if _, c, err := testUnitOf(t, f).probe(t.Context()); c != conditionUnknown || err == nil {
		t.Errorf("without systemd: %s, %v", c, err)
	}
}

func TestUnitEnabledAtBootIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	f := newFakeSystemd("active")
	f.state.UnitFile = "enabled"
	u := testUnitOf(t, f)
	u.log = slog.New(slog.NewTextHandler(&log, nil))
	for range 3 {
		if _, c, err := u.probe(t.Context()); c != conditionRunning {
			t.Fatal(c, err)
		}
	}
	if n := strings.Count(log.String(), `fix="systemctl disable apache2.service"`); n != 1 {
		t.Errorf("told %d times: %s", n, &log)
	}
}

func TestUnitWatch(t *testing.T) {
	f := newFakeSystemd("inactive")
	cmd, id := sleeper(t)
	f.main = id.PID
	f.set("active")
	u := testUnitOf(t, f)
	reasons := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { defer close(watched); u.watch(ctx, func(r string) { reasons <- r }) }()
	until(t, "the unit that was active already to be owned", func() bool { return exists(u.dropInFile()) })
	wantReason := func(want string) {
		t.Helper()
		select {
		case got := <-reasons:
			if got != want {
				t.Fatalf("reason %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%q was not told", want)
		}
	}
	watching := func() {
		until(t, "the watch", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.watchers) == 1 })
	}
	watching()
	killed := time.Now()
	if err := signalProcess(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantReason(fmt.Sprintf("unit apache2.service: process %d exited", id.PID))
	t.Logf("the crash was noticed %s after the signal, before systemd knew", time.Since(killed))
	cmd.Wait()
	f.turn(func(s *unitState) { s.Active, s.Result, s.MainPID = "failed", "signal", 0 })
	wantReason("unit apache2.service is failed (signal)")
	f.turn(func(s *unitState) { s.Active, s.Result, s.MainPID = "active", "success", os.Getpid() })
	f.turn(func(s *unitState) { s.Active = "reloading" })
	f.turn(func(s *unitState) { s.Active = "active" }) // none of this is news
	f.drop()
	watching() // over a new connection
	f.turn(func(s *unitState) { s.Active, s.MainPID = "inactive", 0 })
	wantReason("unit apache2.service is inactive (success)")
	cancel()
	<-watched
	if len(reasons) != 0 {
		t.Errorf("also told: %q", <-reasons)
	}
}

// The whole resource over a unit: the web server is this test, so that it is seen to listen on the port.
func TestHTTPDThroughUnit(t *testing.T) {
	f := newFakeSystemd("inactive")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, goodStatus) })
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: served}}
	server.Start()
	defer server.Close()
	c := ResourceConfig{Type: "httpd", Name: "site", StatusURL: server.URL + "/server-status"}
	probe, err := newStatusProbe(c)
	if err != nil {
		t.Fatal(err)
	}
	env := testEnv(t)
	dropIn := t.TempDir()
	h := &httpd{probe: probe, log: env.Log, choose: func(ctx context.Context) (runner, error) {
		r, err := chooseRunner(ctx, c, env, true, f.dial)
		if u, ok := r.(*unit); ok {
			u.dropIn = dropIn
		}
		return r, err
	}}
	f.err = errors.New("not up yet")
	if c, err := h.Monitor(patient(t)); c != conditionUnknown || err == nil {
		t.Fatalf("monitor before systemd is up: %s, %v", c, err)
	}
	f.err = nil
	wantCondition(t, h, conditionStopped, "")
	if err := h.Start(patient(t), startHint{}); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, h, conditionRunning, "")
	if err := h.Stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, h, conditionStopped, "")
	f.state.Active = "activating" // by the boot, at the same moment
	if err := h.Start(patient(t), startHint{}); err != nil {
		t.Fatal(err)
	}
	f.main = os.Getppid() // another process than the one that has the port
	f.set("inactive")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.Start(ctx, startHint{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("is held by process %d (", os.Getpid())) {
		t.Errorf("another server's answer was taken for its own: %v", err)
	}
}

func TestChooseRunner(t *testing.T) {
	tests := []struct {
		name   string
		c      ResourceConfig
		booted bool
		want   string
	}{
		{"its unit", ResourceConfig{}, true, testUnit},
		{"its unit, with the file that the unit reads", ResourceConfig{ConfigFile: "/etc/apache2/apache2.conf"}, true, testUnit},
		{"another file than the unit reads", ResourceConfig{ConfigFile: "/srv/site/httpd.conf"}, true, "foreground"},
		{"a file of a unit that is not known", ResourceConfig{ConfigFile: "/etc/httpd/conf/httpd.conf"}, true, "foreground"},
		{"another program", ResourceConfig{Program: "/opt/httpd/bin/httpd"}, true, "foreground"},
		{"none wanted", ResourceConfig{Unit: "none"}, true, "foreground"},
		{"named", ResourceConfig{Unit: "apache2@site"}, true, "apache2@site.service"},
		{"no systemd", ResourceConfig{}, false, "foreground"},
		{"named, no systemd", ResourceConfig{Unit: "apache2.service"}, false, "absent"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := chooseRunner(t.Context(), test.c, testEnv(t), test.booted, newFakeSystemd("inactive").dial)
			if err != nil {
				t.Fatal(err)
			}
			got := "foreground"
			switch r := r.(type) {
			case *unit:
				got = r.name
			case absent:
				got = "absent"
				if r.fit(t.Context()) == nil || !errors.Is(r.start(t.Context()), errHopeless) || r.stop(t.Context()) != nil {
					t.Errorf("%+v", r)
				}
			}
			if got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// wireSystemd answers D-Bus calls as systemd does over its private socket: no hello, no match rules.
type wireSystemd struct {
	t      *testing.T
	mu     sync.Mutex
	conns  []*dbus.Conn
	calls  []string
	result string
	active string
	ownJob string // for testUnit, which this process is of
}

func (w *wireSystemd) StartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return w.job("start", name, mode, "active")
}

func (w *wireSystemd) StopUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return w.job("stop", name, mode, "inactive")
}

func (w *wireSystemd) job(what, name, mode, active string) (dbus.ObjectPath, *dbus.Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, strings.Join([]string{what, name, mode}, " "))
	const job = dbus.ObjectPath("/org/freedesktop/systemd1/job/7")
	if w.result != "" {
		w.active = active
		go w.tell(job, name, w.result)
	}
	return job, nil
}

// tell sends what systemd sends when a job has ended.
func (w *wireSystemd) tell(job dbus.ObjectPath, name, result string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		changed := map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(w.active)}
		path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(name))
		c.Emit(path, "org.freedesktop.DBus.Properties.PropertiesChanged", "org.freedesktop.systemd1.Unit", changed, []string{})
		c.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", uint32(7), job, name, result)
	}
}

func (w *wireSystemd) note(s string) *dbus.Error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, s)
	return nil
}

func (w *wireSystemd) Subscribe() *dbus.Error                        { return w.note("subscribe") }
func (w *wireSystemd) Reload() *dbus.Error                           { return w.note("reload") }
func (w *wireSystemd) ResetFailedUnit(name string) *dbus.Error       { return w.note("reset " + name) }
func (w *wireSystemd) GetUnit(string) (dbus.ObjectPath, *dbus.Error) { return "/", nil }

// GetUnitByPID and ListJobs: this process is of the unit, which is being restarted; another unit is being stopped.
func (w *wireSystemd) GetUnitByPID(pid uint32) (dbus.ObjectPath, *dbus.Error) {
	if pid != uint32(os.Getpid()) {
		return "", dbus.MakeFailedError(errors.New("no unit"))
	}
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(testUnit)), nil
}

func (w *wireSystemd) ListJobs() ([]systemd.JobStatus, *dbus.Error) {
	jobs := []systemd.JobStatus{{Id: 6, Unit: "other.service", JobType: "stop", Status: "running", JobPath: "/job/6", UnitPath: "/unit/6"}}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ownJob != "" {
		jobs = append(jobs, systemd.JobStatus{Id: 7, Unit: testUnit, JobType: w.ownJob, Status: "running", JobPath: "/job/7", UnitPath: "/unit/7"})
	}
	return jobs, nil
}

func (w *wireSystemd) KillUnit(name, who string, signal int32) *dbus.Error {
	return w.note(fmt.Sprintf("kill %s %s %d", name, who, signal))
}

// wireProperties are those of one unit.
type wireProperties struct {
	w     *wireSystemd
	known bool
}

func (p wireProperties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	if !p.known {
		return map[string]dbus.Variant{"LoadState": dbus.MakeVariant("not-found"), "ActiveState": dbus.MakeVariant("inactive")}, nil
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return map[string]dbus.Variant{
		"LoadState": dbus.MakeVariant("loaded"), "ActiveState": dbus.MakeVariant(p.w.active), "SubState": dbus.MakeVariant("running"),
		"UnitFileState": dbus.MakeVariant("enabled"), "Restart": dbus.MakeVariant("on-abort"), "Result": dbus.MakeVariant("success"),
		"MainPID": dbus.MakeVariant(uint32(4711)), "NeedDaemonReload": dbus.MakeVariant(true),
	}, nil
}

// dial makes one connection; its other end is served here.
func (w *wireSystemd) dial() (*dbus.Conn, error) {
	client, clientEnd := wireEnd(w.t)
	server, serverEnd := wireEnd(w.t)
	go func() { io.Copy(clientEnd, serverEnd); clientEnd.Close() }()
	go func() { io.Copy(serverEnd, clientEnd); serverEnd.Close() }()
	err := errors.Join(
		server.Export(w, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
		server.Export(wireProperties{w, true}, dbus.ObjectPath("/org/freedesktop/systemd1/unit/"+systemd.PathBusEscape(testUnit)), "org.freedesktop.DBus.Properties"),
		server.Export(wireProperties{w, false}, dbus.ObjectPath("/org/freedesktop/systemd1/unit/"+systemd.PathBusEscape("httpd.service")), "org.freedesktop.DBus.Properties"),
	)
	w.mu.Lock()
	w.conns = append(w.conns, server)
	w.mu.Unlock()
	return client, err
}

// wireEnd is a connection that has gone through the opening of the protocol, and the bytes that follow.
func wireEnd(t *testing.T) (*dbus.Conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	conn, err := dbus.NewConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	opened := make(chan error, 1)
	go func() { opened <- openWire(theirs) }()
	if err := errors.Join(conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}), <-opened); err != nil {
		t.Fatal(err)
	}
	return conn, theirs
}

// openWire plays the server's part of the authentication, byte by byte, since messages follow at once.
func openWire(c net.Conn) error {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := c.Read(b); err != nil {
			return err
		}
		if b[0] == 0 {
			continue
		}
		line = append(line, b[0])
		if !bytes.HasSuffix(line, []byte("\r\n")) {
			continue
		}
		answer := "ERROR\r\n"
		switch words := strings.Fields(string(line)); {
		case words[0] == "BEGIN":
			return nil
		case words[0] == "AUTH" && len(words) == 1:
			answer = "REJECTED EXTERNAL\r\n"
		case words[0] == "AUTH" && words[1] == "EXTERNAL":
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		}
		line = nil
		if _, err := c.Write([]byte(answer)); err != nil {
			return err
		}
	}
}

func TestSystemdBus(t *testing.T) {
	w := &wireSystemd{t: t, active: "inactive", result: "done"}
	conn, err := systemd.NewConnection(w.dial)
	if err != nil {
		t.Fatal(err)
	}
	b := &systemdBus{conn}
	defer b.Close()
	ctx := patient(t)
	changes, err := b.Changes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.State(ctx, testUnit)
	want := unitState{Load: "loaded", Active: "inactive", Sub: "running", UnitFile: "enabled", Restart: "on-abort", Result: "success", MainPID: 4711, NeedReload: true}
	if diff := cmp.Diff(want, st); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if st, err := b.State(ctx, "httpd.service"); err != nil || st.known() {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := b.State(ctx, "other.service"); err == nil {
		t.Error("a unit out of nothing")
	}
	if result, err := b.Start(ctx, testUnit); result != "done" || err != nil {
		t.Errorf("start: %q, %v", result, err)
	}
	if name := <-changes; name != testUnit {
		t.Errorf("change of %q", name)
	}
	w.mu.Lock()
	w.result = "failed"
	w.mu.Unlock()
	if result, err := b.Stop(ctx, testUnit); result != "failed" || err != nil {
		t.Errorf("stop: %q, %v", result, err)
	}
	if err := errors.Join(b.Reload(ctx), b.ResetFailed(ctx, testUnit), b.Kill(ctx, testUnit)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"subscribe", "start apache2.service replace", "stop apache2.service replace", "reload",
		"reset apache2.service", "kill apache2.service all 9"}, w.calls); diff != "" {
		t.Errorf("calls: %s", diff)
	}
}

func TestSystemdBusEnds(t *testing.T) {
	w := &wireSystemd{t: t, active: "inactive"} // jobs never end
	conn, err := systemd.NewConnection(w.dial)
	if err != nil {
		t.Fatal(err)
	}
	b := &systemdBus{conn}
	defer b.Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Start(short, testUnit); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	changes, err := b.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx := patient(t)
	go func() { _, err := b.Stop(ctx, testUnit); ended <- err }()
	until(t, "the stop to be asked for", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.calls) > 0 && strings.HasPrefix(w.calls[len(w.calls)-1], "stop")
	})
	for _, c := range w.conns {
		c.Close()
	}
	if err := <-ended; err == nil {
		t.Error("a job went well on a dead connection")
	}
	for name := range changes { // ends
		t.Errorf("change of %q", name)
	}
}

// The daemon stays what it was only when systemd says in so many words that it starts it again.
func TestStartsAgain(t *testing.T) {
	w := &wireSystemd{t: t}
	dial := func(context.Context) (*systemdBus, error) {
		conn, err := systemd.NewConnection(w.dial)
		return &systemdBus{conn}, err
	}
	t.Setenv("NOTIFY_SOCKET", "/dev/null")
	for job, want := range map[string]bool{"": false, "stop": false, "start": false, "restart": true, "try-restart": true} {
		w.ownJob = job
		if again, err := startsAgain(patient(t), dial); err != nil || again != want {
			t.Errorf("job %q: starts again %v, %v; want %v", job, again, err, want)
		}
	}
	w.ownJob = "restart"
	gone := func(context.Context) (*systemdBus, error) { return nil, errors.New("gone") }
	if again, err := startsAgain(patient(t), gone); again || err == nil {
		t.Errorf("without an answer: %v, %v", again, err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if again, err := startsAgain(patient(t), dial); again || err != nil {
		t.Errorf("not started by systemd: %v, %v", again, err)
	}
}
