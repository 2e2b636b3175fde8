// Does it survive what nobody has thought of? Random faults from a printed seed, a few at a time, on a cluster whose clients
// go on asking and writing. What must never be is judged from outside, after each round.

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	chaosFor    = flag.Duration("chaos.for", 0, "begin rounds of random faults for so long: make chaos; 0: as many as -chaos.rounds")
	chaosRounds = flag.Int("chaos.rounds", 12, "how many rounds of random faults")
	chaosSeed   = flag.Uint64("chaos.seed", 1, "the row of random faults")
)

// TestClusterChaos lets a row of random faults happen to a cluster, and demands after each round that it comes back by
// itself, when all is mended that an operator would mend. Always: no address answers from two hosts, nobody writes beside
// another, and no acknowledged write is lost.
func TestClusterChaos(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"witness", "three", "manual"} {
		t.Run(kind, func(t *testing.T) { testChaos(t, kind) })
	}
}

func testChaos(t *testing.T, kind string) {
	names, parts := []string{"alice", "bob", "carol"}, []string{"owner", "other", "witness"}
	if kind == "manual" {
		names, parts = names[:2], parts[:2]
	}
	c := newCluster(t, vipGroup, names...)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	c.stopped = ctx.Done()
	c.timing = "deadtime = \"1s\"\n" // there to be edited
	x := &mischief{c: c, seed: *chaosSeed, kind: kind, parts: partitions(parts...), mu: new(sync.Mutex), off: map[string]bool{}, told: map[string]bool{},
		wires: map[string]*wire{}, placed: map[string]int{}, events: map[string]int{}, groups: map[string]string{"web": clusterVIP}, lulls: map[string]lullTable{}}
	switch kind {
	case "witness":
		c.witness = "carol"
		c.groups = needing(`"gateway"`)
		newGateway(c)
	case "manual":
		c.extra = `two_node = "manual"`
	}
	if kind != "manual" {
		x.groups["data"] = writesAddress
		c.groups += writerGroup + powerDevice
		if kind == "three" {
			c.groups = strings.Replace(c.groups, `bob = "bob" }`, `bob = "bob", carol = "carol" }`, 1)
		}
		c.writerSetup()
		x.power = c.power()
		x.mu = &x.power.mu
	} else {
		x.groups["mail"] = "10.77.0.103"
		c.groups += addressGroup("mail", x.groups["mail"], `prefer = ["bob"]`)
	}
	c.up()
	if x.power != nil {
		x.power.serve()
	}
	for _, g := range x.names() {
		x.wires[g] = c.wire(x.groups[g])
	}
	x.calm("start")
	if x.power != nil {
		x.writes = c.writes()
	}
	x.heard()
	x.count()
	clear(x.events)
	t.Logf("make chaos SEED=%d", x.seed)
	defer x.report()
	longest := 4 * time.Second
	if *chaosFor > 0 {
		longest = 30 * time.Second
	}
	begun := time.Now()
	for n := uint64(1); ; n++ {
		if *chaosFor > 0 && time.Since(begun) > *chaosFor || *chaosFor == 0 && n > uint64(*chaosRounds) {
			break
		}
		x.round(n, longest)
		if t.Failed() {
			return
		}
	}
}

// mischief is a cluster to which things happen. Its hosts are switched off by faults and by the fence device, which run
// beside each other: whoever touches a host holds mu.
type mischief struct {
	c      *cluster
	seed   uint64
	kind   string
	parts  []partition
	groups map[string]string // name → address
	power  *fencePower
	writes *writes
	wires  map[string]*wire

	mu   *sync.Mutex
	off  map[string]bool // hosts without power
	told map[string]bool // daemons that were made to end

	index  uint64         // of the last event that was counted
	placed map[string]int // how often a group was placed since the last count
	events map[string]int // of each id, in all
	lulls  map[string]lullTable
	took   []time.Duration // from the end of the faults until all was well
	sick   int             // how often a daemon had said that its host is not well
	rounds int
	faults int
}

func (x *mischief) names() (all []string) {
	for g := range x.groups {
		all = append(all, g)
	}
	slices.Sort(all)
	return all
}

// planned is a fault with its time, from the begin of the round.
type planned struct {
	fault
	host     *clusterHost
	from, to time.Duration
	dice     *rand.Rand
}

// plan is what a round does. It hangs on the seed, on the number of the round, and on where the groups run when it begins:
// half of all faults happen to an owner.
func (x *mischief) plan(number uint64, longest time.Duration) (all []planned) {
	r := rand.New(rand.NewPCG(x.seed, number<<8+uint64(len(x.kind))))
	faults, hosts := chaosFaults(x), slices.Clone(x.c.hosts)
	for i, g := range x.names() { // as many owners as hosts, or nearly
		if s := x.c.hosts[i].status(); s != nil && len(hosts) < 2*len(x.c.hosts) {
			hosts = append(hosts, x.c.host(s.testGroup(g).Owner))
		}
	}
	count := []int{1, 1, 1, 2, 2, 3}[r.IntN(6)]
	for _, i := range r.Perm(len(faults))[:count] {
		p := planned{fault: faults[i], host: hosts[r.IntN(len(hosts))], dice: rand.New(rand.NewPCG(r.Uint64(), 0))}
		// From a glimpse to well beyond every timer, short ones as often as long ones.
		p.from = time.Duration(r.Int64N(int64(min(longest/4, 3*time.Second))))
		p.to = p.from + time.Duration(float64(longest/60)*math.Pow(60, r.Float64()))
		if p.alone && count > 1 {
			continue
		}
		all = append(all, p)
	}
	return all
}

func (x *mischief) round(number uint64, longest time.Duration) {
	x.c.t.Helper()
	plan := x.plan(number, longest)
	if len(plan) == 0 {
		return
	}
	type step struct {
		at time.Duration
		do func()
	}
	var steps []step
	var words []string
	for _, p := range plan {
		words = append(words, fmt.Sprintf("%s: %s for %.1f s from %.1f s", p.host.name, p.name, (p.to-p.from).Seconds(), p.from.Seconds()))
		steps = append(steps, step{p.from, func() { p.begin(x, p.host, p.dice) }})
		if p.end != nil {
			steps = append(steps, step{p.to, func() { p.end(x, p.host) }})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	what := fmt.Sprintf("round %d (%s)", number, strings.Join(words, "; "))
	x.c.t.Log(time.Now().UTC().Format("15:04:05 ") + what)
	x.heard()
	x.sick = x.c.sick()
	begun := time.Now()
	for _, s := range steps {
		x.c.steady(s.at - time.Since(begun))
		s.do()
	}
	x.noneDied(what)
	ended := time.Now()
	x.calm(what)
	x.rounds++
	x.faults += len(plan)
	x.took = append(x.took, time.Since(ended))
	x.judge(what, plan)
}

// heard forgets what the clients were told.
func (x *mischief) heard() {
	x.c.t.Helper()
	for _, g := range x.names() {
		w := x.wires[g]
		w.forget()
		x.c.await(g+" answers", func() bool { return len(w.since(0)) > 0 })
	}
	if x.writes != nil {
		x.writes.acknowledged()
		x.writes.forget()
	}
}

// judge looks at what the clients have seen in a round.
func (x *mischief) judge(what string, plan []planned) {
	t := x.c.t
	t.Helper()
	kind := "several at once"
	if len(plan) == 1 {
		kind = plan[0].name
	}
	if x.c.sick() > x.sick { // of no fault's making: no fault here stalls a disk
		kind = "(the machine's disk stalled)"
	}
	said := fmt.Sprintf("  all well %.1f s after; longest silence", x.took[len(x.took)-1].Seconds())
	answers := map[string][]wireAnswer{}
	for _, g := range x.names() {
		n := len(x.wires[g].since(0))
		x.c.await(g+" answers", func() bool { return len(x.wires[g].since(0)) > n })
		answers[g] = x.wires[g].since(0)
	}
	x.count() // later than the last answer, since even now it may move
	for _, g := range x.names() {
		all := answers[g]
		if n := hands(all); n > x.placed[g] {
			t.Errorf("%s: %s changed hands %d times in %d placements: both answered", what, x.groups[g], n, x.placed[g])
		}
		x.lulled(g, kind, lull(all))
		said += fmt.Sprintf(" %s %d ms (%s to %s)", g, lull(all).Milliseconds(), all[0].who, all[len(all)-1].who)
	}
	if x.writes != nil {
		x.writes.acknowledged()
		x.writes.judge(t, what)
		x.lulled("writes", kind, x.writes.lull())
		said += fmt.Sprintf(" writes %d ms", x.writes.lull().Milliseconds())
	}
	t.Log(said + map[bool]string{true: "; the machine's disk stalled"}[x.c.sick() > x.sick])
	x.c.guard.mu.Lock()
	defer x.c.guard.mu.Unlock()
	for _, w := range x.c.guard.wrong {
		t.Errorf("%s: an address in two places: %s", what, w)
	}
}

// count finds out how often each group was placed since the last time.
func (x *mischief) count() {
	x.c.t.Helper()
	last := x.index
	clear(x.placed)
	for _, line := range strings.Split(strings.TrimSpace(x.c.hosts[0].mustHactl("history", "-n", fmt.Sprint(historyMax), "--json")), "\n") {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			x.c.t.Fatalf("history: %v: %s", err, line)
		}
		if e.Index <= last {
			continue
		}
		x.events[e.ID]++
		if e.ID == eventPlaced {
			x.placed[e.Group]++
		}
		x.index = max(x.index, e.Index)
	}
}

// noneDied: a daemon ends only when somebody ends it.
func (x *mischief) noneDied(what string) {
	x.c.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range x.c.hosts {
		if !x.isOff(h) && !h.runs() && !x.told[h.name] {
			x.c.t.Errorf("%s: the daemon of %s has ended by itself", what, h.name)
		}
		if log := h.file("log"); strings.Contains(log, "panic:") || strings.Contains(log, "DATA RACE") {
			x.c.t.Errorf("%s: %s has panicked", what, h.name)
		}
	}
}

// calm does what an operator would do until all is well, and waits for it.
func (x *mischief) calm(after string) {
	x.c.t.Helper()
	for end := time.Now().Add(clusterPatience); ; x.c.pause(20 * time.Millisecond) {
		x.mend()
		why := x.notWell()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			x.c.t.Fatalf("%s after %s, all is not well: %s", clusterPatience, after, why)
		}
	}
}

// notWell says what is amiss.
func (x *mischief) notWell() string {
	var first *Status
	for _, h := range x.c.hosts {
		s := h.statusSoon()
		if s == nil {
			return h.name + " does not answer"
		}
		if !s.calm() {
			return fmt.Sprintf("%s: quorum %v, %+v", h.name, s.Quorum, s.Problems)
		}
		for _, n := range s.Nodes {
			if n.State != "online" || !n.Voter {
				return fmt.Sprintf("%s: %s is %s", h.name, n.Name, n.State)
			}
		}
		if first == nil {
			first = s
		}
		if s.Generation != first.Generation || h.file("ha.toml") != x.c.hosts[0].file("ha.toml") {
			return h.name + " has another config"
		}
		for _, g := range x.names() {
			if a, b := s.testGroup(g), first.testGroup(g); a.State != "started" || a.Owner != b.Owner || a.Epoch != b.Epoch {
				return fmt.Sprintf("%s: %s is %s on %s, epoch %d", h.name, g, a.State, a.Owner, a.Epoch)
			}
		}
	}
	for _, g := range x.names() {
		for _, h := range x.c.hosts {
			if h.holds(x.groups[g]) != (first.testGroup(g).Owner == h.name) {
				return fmt.Sprintf("%s is on %s, and %s says otherwise", g, first.testGroup(g).Owner, h.name)
			}
		}
	}
	return ""
}
