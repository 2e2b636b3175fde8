package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestLoopThatTurnsWithoutEndIsSick(t *testing.T) {
	r := newRig(t, rigConfig("alice", "bob", "carol"))
	r.started()
	spin := func(every time.Duration) {
		for end := r.now.add(3 * r.n.deadtime()); r.now < end; r.now = r.now.add(every) {
			r.n.Tick(r.now)
			r.settle()
		}
	}
	spin(10 * time.Millisecond)
	if why := r.n.sick(r.now); why != "" {
		t.Fatalf("a loop that is woken every 10 ms: %s", why)
	}
	spin(200 * time.Microsecond)
	if why := r.n.sick(r.now); !strings.Contains(why, "its loop has turned") {
		t.Fatalf("a loop that turns 5,000 times a second: %q", why)
	}
	if h := r.n.describe(r.now); h.Lease != 0 || h.Flags&flagSick == 0 {
		t.Errorf("it asks for a lease of %s", h.Lease)
	}
	spin(50 * time.Millisecond)
	if why := r.n.sick(r.now); why != "" {
		t.Errorf("a loop that has come to rest: %s", why)
	}
}

func TestForkWatchTellsWhenItFailsTwiceAndWhenItIsWell(t *testing.T) {
	told := make(chan string)
	f := newForkWatch(func(fault string) { told <- fault })
	f.every = time.Millisecond
	if err := f.try(t.Context()); err != nil {
		t.Fatalf("this host can start no process: %v", err)
	}
	results := make(chan error)
	f.start = func() error { return <-results }
	go f.run(t.Context())
	for _, err := range []error{errors.New("once"), nil, errors.New("a"), errors.New("b")} {
		results <- err
	}
	if got := <-told; got != "b" {
		t.Errorf("told %q, want the second in a row", got)
	}
	results <- errors.New("c")
	results <- nil
	if got := <-told; got != "" {
		t.Errorf("told %q, want that it is well", got)
	}
}
