// A unit as a resource, against the systemd that systemd_test.go fakes.

package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func testUnitResource(t *testing.T, f *fakeSystemd) (unitResource, *unit) {
	u := testUnitOf(t, f)
	return unitResource{u}, u
}

func TestUnitResourceStartsAndStops(t *testing.T) {
	f := newFakeSystemd("inactive")
	r, u := testUnitResource(t, f)
	if err := r.Fit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Start(t.Context(), startHint{}); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := r.Monitor(t.Context()); c != conditionRunning || err != nil || f.state.Restart != "no" {
		t.Errorf("%s, %v, Restart=%s", c, err, f.state.Restart)
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.returned.Wait()
	if c, err := r.Monitor(t.Context()); c != conditionStopped || err != nil || exists(u.dropInFile()) {
		t.Errorf("%s, %v, drop-in %t", c, err, exists(u.dropInFile()))
	}
}

// What somebody started by hand, with Restart=always, is the cluster's from the start on; before that Fit tells of it.
func TestUnitResourceTakesOverWhatRuns(t *testing.T) {
	f := newFakeSystemd("active")
	f.state.Restart = "always"
	r, u := testUnitResource(t, f)
	if err := r.Fit(t.Context()); !errors.Is(err, errRunsHere) {
		t.Errorf("fit: %v", err)
	}
	if err := r.Start(t.Context(), startHint{}); err != nil {
		t.Fatal(err)
	}
	if !exists(u.dropInFile()) || f.state.Restart != "no" {
		t.Error("systemd may restart it")
	}
}

func TestUnitResourceReadsBack(t *testing.T) {
	for _, test := range []struct{ after, want string }{
		{"inactive", "has ended by itself"},
		{"failed", "journalctl -u " + testUnit},
		{"activating", "a job is under way"},
	} {
		f := newFakeSystemd("inactive")
		f.result, f.after = "done", test.after
		r, _ := testUnitResource(t, f)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := r.Start(ctx, startHint{})
		cancel()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.after, err)
		}
	}
}

func TestUnitResourceWithoutSystemd(t *testing.T) {
	r, err := chooseRunner(t.Context(), ResourceConfig{Type: "systemd", Unit: testUnit}, testEnv(t), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (unitResource{r}).Fit(t.Context()); err == nil || err.Error() != "unit apache2.service needs systemd, which does not run here" {
		t.Errorf("fit: %v", err)
	}
}

// A fit that finds it running is no fault of the node, and is told to the agent.
func TestHostTellsWhatRunsUnasked(t *testing.T) {
	f := newFakeSystemd("active")
	r, _ := testUnitResource(t, f)
	told := make(chan actionDone, 1)
	h := newHost(t.TempDir(), nil, slog.New(slog.DiscardHandler), func(e any) { told <- e.(actionDone) })
	defer h.Close()
	a := action{ID: 1, Group: "web", Resource: "u", Op: opFit, Timeout: patience, Config: ResourceConfig{Type: "systemd", Name: "u", Unit: testUnit}}
	h.things[thingKey("web", a.Config)] = &thing{group: "web", name: "u", res: r}
	h.Do(a)
	if d := <-told; d.Err != "" || d.Condition != conditionRunning {
		t.Errorf("%+v", d)
	}
}
