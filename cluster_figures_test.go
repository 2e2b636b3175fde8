package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClusterFigures measures what the README promises, with nothing of this suite beside it. It prints and does not judge:
// a machine that is busy with other things would fail it.
func TestClusterFigures(t *testing.T) {
	c := newQuietCluster(t, webGroup+addressGroup("bare", "10.77.0.101", `prefer = ["alice"]`), "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob := c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.runsOn("bare", "alice")
	alice.settled("alice", "bob", "carol")
	web, bare := c.probe("http://"+clusterVIP+"/"), c.probe("tcp:10.77.0.101:80")

	var moves, webMoves, crashes, restarts []time.Duration
	for i := range 6 {
		to := []string{"bob", "alice"}[i%2]
		begun := time.Now()
		alice.mustHactl("move", "bare", to)
		gap, _ := bare.outage(begun)
		begun = time.Now()
		alice.mustHactl("move", "web", to)
		webGap, _ := web.outage(begun)
		moves, webMoves = append(moves, gap), append(webMoves, webGap)
	}
	for range 5 {
		pid := apachePID(t, alice)
		begun := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.await("apache is started again", func() bool { p := apachePID(t, alice); return p != 0 && p != pid })
		gap, _ := web.outage(begun)
		restarts = append(restarts, gap)
		crashes = append(crashes, alice.loggedAfter(begun, "resource-failed").Sub(begun))
		alice.mustHactl("cleanup", "web")
	}
	begun := time.Now()
	alice.powerOff()
	web.answeredBy("bob serves")
	bareGap, _ := bare.outage(begun)
	webGap, _ := web.outage(begun)
	t.Logf("measured: planned move of an address alone: %s", spread(moves))
	t.Logf("measured: planned move of an address and apache: %s", spread(webMoves))
	t.Logf("measured: httpd crash to its line in the log: %s", spread(crashes))
	t.Logf("measured: httpd crash to the next page: %s", spread(restarts))
	t.Logf("measured: node death, address alone: %d ms; with apache: %d ms (deadtime 1 s)", bareGap.Milliseconds(), webGap.Milliseconds())
	bob.runsOn("web", "bob")
}

func spread(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("median %d ms, longest %d ms of %d", all[len(all)/2].Milliseconds(), all[len(all)-1].Milliseconds(), len(all))
}

// loggedAfter is the daemon's own time of the first line with these words since a moment.
func (h *clusterHost) loggedAfter(since time.Time, words string) time.Time {
	h.c.t.Helper()
	for _, line := range strings.Split(h.file("log"), "\n") {
		stamp, rest, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err == nil && !at.Before(since.Truncate(time.Millisecond)) && strings.Contains(rest, words) {
			return at
		}
	}
	h.c.t.Fatalf("%s has not logged %q", h.name, words)
	return time.Time{}
}
