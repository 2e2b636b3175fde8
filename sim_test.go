// Does anything ever go wrong? Many clusters, each on a seeded world in which all that can happen to machines happens at
// the worst moment: sim_faults_test.go has the faults, sim_plan_test.go makes clusters and times from a seed,
// world_check_test.go says what must never be, and here is what must be afterwards. What a seed does is a story: its
// faults are lines of story_verbs_test.go, and when it fails, the fewest of them that still fail are printed as one.
//
//	go test -run TestSimulator                         the batch of `make test`
//	go test -run TestSimulator -sim.seed=7             one seed, as a story
//	go test -run TestSimulator -sim.runs=5000          more of them
//	go test -run TestSimulator -sim.soak=8h            until then
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "run this seed of the simulator alone and tell its story")
	simRuns   = flag.Int("sim.runs", 0, "how many seeds the simulator runs; 0: as many as the kind of test run is for")
	simFrom   = flag.Uint64("sim.from", 1, "the first seed")
	simSoak   = flag.Duration("sim.soak", 0, "go on with fresh seeds for so long")
	simEvery  = flag.Uint64("sim.step", 1, "from one seed to the next")
	simFor    = flag.Duration("sim.for", 0, "begin no further seed after so long; 0: run them all")
	simFirst  = flag.Bool("sim.first", false, "stop at the first seed that fails, and do not look for the fault to blame")
	simReport = flag.String("sim.report", "", "write what came of the seeds into this file instead of judging the batch")
)

// A batch is of fixed seeds and a few fresh ones; a slow machine runs fewer of them.
const (
	simBatch      = 500             // of `make test`
	simFresh      = 20              // of `make test`, beside the fixed ones
	simBatchTime  = 8 * time.Minute // for the fixed ones, where the machine is that slow
	simShortBatch = 20              // of `make check`
	simShortTime  = 30 * time.Second
)

// simResult is what came of seeds.
type simResult struct {
	Runs      int
	Kinds     map[string]int
	Simulated time.Duration
	CPU       time.Duration
	Rules     map[string]int
	Met       map[string]int // events, and situations of sim_plan_test.go
	Most      int            // longest queue
	Settled   time.Duration  // longest way back after a repair
	Takeover  time.Duration  // longest after the death of an owner
	Outages   []time.Duration
	Writes    int
	Windows   []simWindow
	Failures  []simFailure
}

type simWindow struct {
	Why     string
	Times   int
	Longest time.Duration
}

type simFailure struct {
	Seed  uint64
	Text  string
	Story string
}

func (r *simResult) add(o *simResult) {
	r.Runs += o.Runs
	r.Simulated += o.Simulated
	r.CPU += o.CPU
	r.Most, r.Settled, r.Takeover = max(r.Most, o.Most), max(r.Settled, o.Settled), max(r.Takeover, o.Takeover)
	r.Writes += o.Writes
	r.Outages = append(r.Outages, o.Outages...)
	r.Failures = append(r.Failures, o.Failures...)
	if r.Rules == nil {
		r.Kinds, r.Rules, r.Met = map[string]int{}, map[string]int{}, map[string]int{}
	}
	for k, n := range o.Kinds {
		r.Kinds[k] += n
	}
	for k, n := range o.Rules {
		r.Rules[k] += n
	}
	for k, n := range o.Met {
		r.Met[k] += n
	}
	for _, v := range o.Windows {
		i := slices.IndexFunc(r.Windows, func(x simWindow) bool { return x.Why == v.Why })
		if i < 0 {
			r.Windows = append(r.Windows, v)
			continue
		}
		r.Windows[i].Times += v.Times
		r.Windows[i].Longest = max(r.Windows[i].Longest, v.Longest)
	}
}

func TestSimulator(t *testing.T) {
	switch {
	case *simSeed != 0:
		tellSeed(t, *simSeed)
	case *simReport != "":
		workSeeds(t)
	case *simSoak > 0:
		for end := time.Now().Add(*simSoak); time.Now().Before(end); {
			from := uint64(time.Now().UnixNano())
			r := runSeeds(t, from, 100, 0)
			t.Logf("measured: %d seeds from %d, %s simulated, %d failures", r.Runs, from, r.Simulated, len(r.Failures))
			judgeBatch(t, &r)
		}
	default:
		runs, limit, fresh := *simRuns, *simFor, false
		switch {
		case runs != 0:
		case testing.Short():
			runs, limit = simShortBatch, simShortTime
		default:
			runs, limit, fresh = simBatch, simBatchTime, true
		}
		r := runSeeds(t, *simFrom, runs, limit)
		judgeBatch(t, &r)
		if r.Runs >= simBatch {
			sometimes(t, &r)
		} else {
			t.Logf("measured: %d of %d seeds were run: what a batch comes to is asked of %d", r.Runs, runs, simBatch)
		}
		if fresh && !t.Failed() {
			freshSeeds(t, time.Minute)
		}
	}
}

// freshSeeds runs what nobody has run before. A failure prints its seed, which repeats it.
func freshSeeds(t *testing.T, limit time.Duration) {
	from := uint64(time.Now().UnixNano())
	r := runSeeds(t, from, simFresh, limit)
	t.Logf("measured: %d fresh seeds from %d on", r.Runs, from)
	judgeBatch(t, &r)
}

// tellSeed is for people: what happens under one seed.
func tellSeed(t *testing.T, seed uint64) {
	s := newSimRun(t, seed)
	s.run()
	t.Logf("seed %d\n%s\n%s", seed, s.heading(), s.story.out.String())
	if len(s.problems()) > 0 {
		t.Fatalf("%s\n%s", strings.Join(s.problems(), "\n"), shrink(s))
	}
}

// runSeeds shares seeds among as many processes as there are processors: the jitter of raft is one for a process. They take
// turns, so that what there was no time for is the end of the batch.
func runSeeds(t *testing.T, from uint64, n int, limit time.Duration) simResult {
	workers := min(runtime.GOMAXPROCS(0), n)
	var cmds []*exec.Cmd
	var outs []string
	for i := range workers {
		out := filepath.Join(t.TempDir(), fmt.Sprintf("report-%d", i))
		cmd := exec.Command(os.Args[0], "-test.run=^TestSimulator$", "-test.timeout=0", "-sim.report="+out, fmt.Sprintf("-sim.for=%s", limit),
			fmt.Sprintf("-sim.from=%d", from+uint64(i)), fmt.Sprintf("-sim.step=%d", workers), fmt.Sprintf("-sim.runs=%d", (n-i+workers-1)/workers))
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=1600")
		if err := cmd.Start(); err != nil {
			t.Fatalf("start a worker: %v", err)
		}
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	var all simResult
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("worker: %v", err)
			continue
		}
		b, err := os.ReadFile(outs[i])
		var r simResult
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			t.Errorf("report of a worker: %v", err)
		}
		r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		all.add(&r)
	}
	return all
}

// workSeeds is one worker. Every tenth seed runs twice and must leave the same trace.
func workSeeds(t *testing.T) {
	var all simResult
	begun := time.Now()
	for seed := *simFrom; all.Runs < *simRuns && (all.Runs == 0 || *simFor == 0 || time.Since(begun) < *simFor); seed += *simEvery {
		s := newSimRun(t, seed)
		s.run()
		if seed%10 == 0 && len(s.problems()) == 0 {
			again := newSimRun(t, seed)
			again.run()
			if a, b := s.story.hash(), again.story.hash(); a != b {
				s.fail("two runs of this seed differ: %s, %s", a, b)
			}
		}
		r := s.result()
		if p := s.problems(); len(p) > 0 && len(all.Failures) < 5 {
			f := simFailure{Seed: seed, Text: strings.Join(p, "\n")}
			if !*simFirst {
				f.Story = shrink(s)
			}
			r.Failures = append(r.Failures, f)
		}
		all.add(&r)
		if *simFirst && len(all.Failures) > 0 {
			break
		}
	}
	b, err := json.Marshal(&all)
	if err == nil {
		err = os.WriteFile(*simReport, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// judgeBatch prints what a batch did, and fails for what it found.
func judgeBatch(t *testing.T, r *simResult) {
	t.Logf("measured: %d clusters %v, %s simulated, %s of one processor for an hour of a cluster, longest queue %d, %d acknowledged writes",
		r.Runs, r.Kinds, r.Simulated.Round(time.Minute), time.Duration(float64(r.CPU)*float64(time.Hour)/float64(max(1, r.Simulated))).Round(10*time.Millisecond), r.Most, r.Writes)
	slices.Sort(r.Outages)
	if n := len(r.Outages); n > 0 {
		t.Logf("measured: %d outages of a client, median %s, nine in ten within %s, longest %s", n, r.Outages[n/2].Round(time.Millisecond),
			r.Outages[n*9/10].Round(time.Millisecond), r.Outages[n-1].Round(time.Millisecond))
	}
	t.Logf("measured: all well at most %s after the repair, a takeover at most %s after a death", r.Settled.Round(time.Millisecond), r.Takeover.Round(time.Millisecond))
	for _, v := range r.Windows {
		t.Logf("measured: not prevented yet: %s: %d times, longest %s", v.Why, v.Times, v.Longest.Round(time.Millisecond))
	}
	for _, f := range r.Failures {
		t.Errorf("seed %d: %s\nrepeat it: go test -run TestSimulator -sim.seed=%d .\n%s", f.Seed, f.Text, f.Seed, f.Story)
	}
}

// sometimes: a batch that never came to an interesting place has tested nothing.
func sometimes(t *testing.T, r *simResult) {
	everyRule(t, r.Rules)
	for _, id := range slices.Concat(interesting, interestingPower, interestingReach, interestingGuard, interestingLives, []string{"frozen before the effect"}) {
		if r.Met[id] == 0 {
			t.Errorf("no seed of this batch came to %q", id)
		}
	}
	t.Logf("measured: rules %v", r.Rules)
	for _, id := range slices.Sorted(maps.Keys(r.Met)) {
		t.Logf("measured: met %s %d times", id, r.Met[id])
	}
}
