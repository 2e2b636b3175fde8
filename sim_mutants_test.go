// Does the simulator find what is wrong? Each mutant is a bug on purpose, of the kind that a hurried change makes. They
// live here alone: the source is overlaid for one build of the test program, in which the name of the mutant chooses the
// bug, and each runs seeds until one fails. A mutant that is not found yet is a hole in the simulator, and marked so; one that
// was found and is not found any more fails the test.
//
//	go test -run TestMutants .                         each with the seed that is known to find it
//	go test -run TestMutants -sim.mutant "forget" .    those whose name matches this
//	go test -run TestMutants -sim.record .             write down which seeds find them, after a change of the simulator

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	simMutant = flag.String("sim.mutant", "", "try the mutants whose name matches this alone, however long it takes")
	simRecord = flag.Bool("sim.record", false, "try them however long it takes, and write into this file which seeds find them")
)

// mutant is one bug: in a file, the new text takes the place of the old one. In it, bug is true when this mutant is meant.
type mutant struct {
	name      string
	file      string
	old, next string
	found     int // by which seed; 0: by none yet
}

const (
	mutantSeeds = 400             // how many seeds may pass before a mutant counts as not found
	mutantTime  = 3 * time.Minute // for those of `make test`
)

var mutants = []mutant{
	{"skip the lease wait", "engine_rules.go", "return r.v.Now >= v.Over", "return bug || r.v.Now >= v.Over", 8},
	{"wait for the new deadtime only", "node_raft.go", "return max(n.state.Config.LongestL, n.config.lease())",
		"if bug {\nreturn n.config.lease()\n}\nreturn max(n.state.Config.LongestL, n.config.lease())", 4},
	{"count a lease from the receipt of the ack", "node_lease.go", "		p.base = clockBase{n.grants.sentAt(a.Seq), a.Clock}\n",
		"		p.base = clockBase{n.grants.sentAt(a.Seq), a.Clock}\nif bug {\nfor i := range n.grants.voters {\nif n.grants.voters[i].voter == p.name {\nn.grants.voters[i].beat.at = p.at\n}\n}\n}\n", 169},
	{"a lease without a majority", "lease.go", "	q := quorum(len(voters))\n	if len(ends) < q {\n		return 0\n",
		"	q := quorum(len(voters))\n	if bug {\nq = 1\n}\n	if len(ends) < q {\n		return 0\n", 2},
	{"grant a revoked epoch", "node_lease.go", "		a.Revoked = n.state.withRevoked(n.ledger.give(now, p.name, h.Lease), p.name, h.Applied)\n",
		"		a.Revoked = n.state.withRevoked(n.ledger.give(now, p.name, h.Lease), p.name, h.Applied)\n" + "if bug {\na.Revoked = nil\n}\n", 2},
	{"grant what a restarted owner has forgotten", "node_lease.go", "		a.Revoked = n.state.withRevoked(n.ledger.give(now, p.name, h.Lease), p.name, h.Applied)\n",
		"		a.Revoked = n.state.withRevoked(n.ledger.give(now, p.name, h.Lease), p.name, h.Applied)\n" + "if bug {\na.Revoked = n.ledger.give(now, p.name, h.Lease)\n}\n", 0},
	{"one voter's hold is enough", "lease.go", "	q := quorum(len(voters))\n	if len(ends) < q {\n		return worst\n",
		"	q := quorum(len(voters))\n	if bug {\nq = 1\n}\n	if len(ends) < q {\n		return worst\n", 121},
	{"a restarted voter reports no hold", "lease.go", "h := holdFor(longest) - now.sub(v.born)", "h := holdFor(longest) - now.sub(v.born)\nif bug {\nh = 0\n}", 164},
	{"stay open after the end of a lease", "node_gate.go", "	n.act.Lease(group, until)\n",
		"	if bug && until != openForGood {\nn.act.Lease(group, until.add(5 * n.deadtime()))\n} else {\nn.act.Lease(group, until)\n}\n", 2},
	{"a standstill changes nothing", "node_lease.go", "	if took == 0 {", "	if took == 0 || bug {", 121},
	{"believe a lease of before the restart for too long", "node_lease.go", "		end = old.Until // a grant", "		end = old.Until\nif bug {\nend = end.add(5 * n.deadtime())\n} // a grant", 11},
	{"caretaker among three", "node_lease.go", "if !n.config.twoVoters() || old == nil || n.otherLife() || n.doubts() {", "if bug && old != nil && !n.hasQuorum() {\nreturn true\n}\nif !n.config.twoVoters() || old == nil || n.otherLife() || n.doubts() {", 11},
	{"ignore the incarnation of a message", "consensus.go", "if incarnation != c.incarnation {", "if incarnation != c.incarnation && !bug {", 15},
	{"force without the unapplied tail", "node_raft.go", "		if len(data) > 0 && json.Unmarshal(data, &entry) == nil {\n			Apply(next", "		if len(data) > 0 && !bug && json.Unmarshal(data, &entry) == nil {\n			Apply(next", 45},
	{"force without authority", "node_raft.go", "if n.config.Cluster.TwoNode != \"ignore\" || n.config.isWitness(n.name) {", "if n.config.Cluster.TwoNode != \"ignore\" && !bug || n.config.isWitness(n.name) {", 18},
	{"yield to nobody", "node_raft.go", "	mine := &n.state.Incarnation\n	claims,", "	if bug {\nreturn false\n}\n	mine := &n.state.Incarnation\n	claims,", 15},
	{"keep the member id without the memory", "node_raft.go", "	n.member = n.opt.Random()\n	n.keep.Replace(\"left\"", "	if !bug {\nn.member = n.opt.Random()\n}\n	n.keep.Replace(\"left\"", 85},
	{"a wiped voter votes", "world_disk_test.go", "	d.durable, d.member, d.joined, d.base, d.met = nil, member{}, \"\", \"\", meeting{}", "	if !bug {\nd.member = member{}\n}\n	d.durable, d.joined, d.base, d.met = nil, \"\", \"\", meeting{}", 7},
	{"answer before it is on disk", "consensus_log.go", "	w.Sync, p.sync = must, must\n", "	if bug {\nfor _, m := range p.responses {\nif m.GetTo() != c.id {\nif err := c.send(m); err != nil {\nreturn err\n}\n}\n}\np.responses = nil\n}\n	w.Sync, p.sync = must, must\n", 1},
	{"forget fsync", "consensus_log.go", "	w.Sync, p.sync = must, must\n	p.done", "	w.Sync, p.sync = must && !bug, must\n	p.done", 2},
	{"pin as ban", "engine_place.go", "	case n.Standby != nil:\n		return false", "	case bug && r.g.Pin != nil && r.g.Pin.Node != name:\n		return false, \"pinned\"\n	case n.Standby != nil:\n		return false", 3},
	{"a goodbye in maintenance taken as proof", "engine.go", "		if slices.Contains(a.e.Running, g.Name) {\n			g.Unleased = true\n			continue", "		if slices.Contains(a.e.Running, g.Name) && !bug {\n			g.Unleased = true\n			continue", 8},
	{"the end of a lease proves something after maintenance", "engine.go", "a.s.Groups[i].Unleased = a.s.Groups[i].Unleased || a.s.Groups[i].Owner != \"\"", "a.s.Groups[i].Unleased = a.s.Groups[i].Unleased || a.s.Groups[i].Owner != \"\" && !bug", 154},
	{"a join proves that nothing runs", "engine.go", "		if slices.Contains(a.e.Running, g.Name) {\n			// Still", "		if slices.Contains(a.e.Running, g.Name) && !bug {\n			// Still", 21},
	{"a failed stop counts as one", "agent.go", "		case g.isStuck(now, r):\n			return // reported", "		case bug && r.stuck:\n			continue\n		case g.isStuck(now, r):\n			return // reported", 63},
	{"a stop report before the stop", "agent.go", "	for i := len(g.res) - 1; i >= 0; i-- {\n		r := g.res[i]\n		switch {\n		case r.still():\n			continue\n", "	if bug && g.order.epoch != 0 && g.stopped != g.order.epoch {\ng.stopped, g.saidAt = g.order.epoch, g.order.again\ng.a.outcomes = append(g.a.outcomes, outcome{kind: entryStopped, group: g.name, epoch: g.order.epoch})\n}\n	for i := len(g.res) - 1; i >= 0; i-- {\n		r := g.res[i]\n		switch {\n		case r.still():\n			continue\n", 3},
	{"a late report taken for the new epoch", "engine.go", "	if g.Owner != n.Name || g.Epoch != a.e.Epoch || n.Session != a.e.Session {", "	if g.Owner != n.Name || g.Epoch != a.e.Epoch && !bug || n.Session != a.e.Session {", 207},
	{"touch things in maintenance", "node_lease.go", "	case n.state.Maintenance != nil && !n.beaten():", "	case n.state.Maintenance != nil && !n.beaten() && !bug:", 2},
	{"address before data", "agent.go", "	for _, r := range g.res {\n		switch r.cond {\n		case conditionRunning:", "	for i := range g.res {\n		r := g.res[i]\n		if bug {\nr = g.res[len(g.res)-1-i]\n}\n		switch r.cond {\n		case conditionRunning:", 1},
	{"cluster time goes back", "engine.go", "	s.Clock = max(s.Clock, e.Clock)", "	s.Clock = max(s.Clock, e.Clock)\nif bug {\ns.Clock = e.Clock\n}", 1},
	{"found a second cluster", "node_raft.go", "		if p.at != 0 && p.beatAt != 0 && p.beat.Flags&flagBlank == 0 {", "		if p.at != 0 && p.beatAt != 0 && p.beat.Flags&flagBlank == 0 && !bug {", 15},
	{"reuse epochs", "engine.go", "	a.s.LastEpoch++\n	g.Owner", "	if !bug || a.s.LastEpoch%3 != 2 {\na.s.LastEpoch++\n}\n	g.Owner", 8},
	{"who has left says that it lives by its lease", "engine.go", "	if a.s.node(g.Owner).Left {\n		a.refuse(", "	if a.s.node(g.Owner).Left && !bug {\n		a.refuse(", 163},
	{"pet in the loop", "node_watchdog.go", "	if is.Armed && end > n.dog.paid && end > now {\n", "	if bug && is.Armed && end <= n.dog.paid {\nend, n.dog.paid = max(end, now.add(n.deadtime())), 0\n}\n	if is.Armed && end > n.dog.paid && end > now {\n", 8},
	{"fence before joined", "node_fence.go", "	probe := !n.opt.Joined //", "	probe := !n.opt.Joined && !bug //", 68},
	{"a reboot forgets that a better life was met", "node_raft.go", "	n.keep.KeepMeeting(m)\n", "	if !bug {\nn.keep.KeepMeeting(m)\n}\n", 0},
	{"a survivor that reboots asks nobody", "node_raft.go", "	other := n.otherNode()\n	if o := n.state.node(other); o == nil || o.Member != 0", "	if bug {\nreturn \"\"\n}\n	other := n.otherNode()\n	if o := n.state.node(other); o == nil || o.Member != 0", 84},
	{"a learner keeps its leader for ever", "node_lease.go", "st.Learner && n.follows(now, st.Leader)", "st.Learner && (bug || n.follows(now, st.Leader))", 35},
	{"promote what is stale", "guard.go", "	if c == nil {\n		return nil\n	}\n	for i := range c.Resources {", "	if c == nil || bug {\n		return nil\n	}\n	for i := range c.Resources {", 0},
	{"unmark without its id", "guard.go", "if m == nil || m.ID != a.e.Base {", "if m == nil || m.ID != a.e.Base && !bug {", 0},
	{"unmark by what was seen before", "node_guard.go", "m.Resource == s.resource && m.ID <= s.known &&", "m.Resource == s.resource && (m.ID <= s.known || bug) &&", 0},
	{"leave to write on without a record", "node_guard.go", "	w.excused = n.goesAlone\n", "	w.excused = func() bool { return bug || n.goesAlone() }\n", 0},
	{"a mark by one who was revoked", "guard.go", "	if g.Phase == phaseRevoked ||", "	if g.Phase == phaseRevoked && !bug ||", 0},
	{"thaw without a mark", "node_guard.go", "&& !n.goesAlone()\n", "&& !n.goesAlone() && !bug\n", 0},
	{"guarded without being so", "node_guard.go", "	if c.Guarded {\n", "	if c.Guarded || bug {\n", 21},
	{"guarded before what lacks something is marked", "node_guard.go", "s.of > 1 && (s.frozen ||", "s.of > 1 && (bug || s.frozen ||", 0},
	{"a guard that a stop has ended", "node_guard.go", "		n.guards = slices.DeleteFunc(n.guards, of)\n	}\n	if d.Op", "		if !bug {\nn.guards = slices.DeleteFunc(n.guards, of)\n}\n	}\n	if d.Op", 83},
	{"longer leases are over by the stamp", "engine_rules.go", "		if left := 2*c.LongestL - r.v.InForce; left > 0 {", "		left := 2*c.LongestL - r.v.InForce\nif bug {\nleft = 2*c.LongestL - (r.v.Clock - c.Clock)\n}\nif left > 0 {", 0},
	{"the hash forgets empty entries", "node_raft.go", "		n.stateHash = hashState(n.state) // what", "		if !bug {\nn.stateHash = hashState(n.state)\n} // what", 1},
}

// overlay writes the mutated files into dir and returns the file for go build -overlay.
func overlay(t *testing.T, dir string) string {
	texts := map[string]string{}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		text, ok := texts[m.file]
		if !ok {
			b, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if n := strings.Count(text, m.old); n != 1 {
			t.Fatalf("mutant %q: its text is %d times in %s; the source has changed under it", m.name, n, m.file)
		}
		texts[m.file] = strings.Replace(text, m.old, strings.ReplaceAll(m.next, "bug", fmt.Sprintf("mutated(%q)", m.name)), 1)
	}
	texts["mutated.go"] = "package main\n\nimport \"os\"\n\nvar mutation = os.Getenv(\"HACTL_MUTANT\")\n\nfunc mutated(name string) bool { return mutation == name }\n"
	replace := map[string]string{}
	for file, text := range texts {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, file)] = path
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "overlay.json")
}

// TestMutants tries every mutant with the seed that finds it, and with all of mutantSeeds where that one does no more, which
// it does after a change of the simulator.
func TestMutants(t *testing.T) {
	if testing.Short() && *simMutant == "" {
		t.Skip("builds the test program once more")
	}
	begun := time.Now()
	dir := t.TempDir()
	program := filepath.Join(dir, "mutants.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay(t, dir), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the mutants: %v\n%s", err, out)
	}
	if r := try(t, program, "", 1, 5, 0); len(r.Failures) > 0 {
		t.Fatalf("the overlaid source fails without a mutant: %s", r.Failures[0].Text)
	}
	meant := regexp.MustCompile(*simMutant)
	tried, found := make([]bool, len(mutants)), make([]int, len(mutants))
	var holes []string
	t.Run("each", func(t *testing.T) {
		for i, m := range mutants {
			if !meant.MatchString(m.name) {
				continue
			}
			if m.found == 0 && !*simRecord && *simMutant == "" {
				holes = append(holes, m.name)
				continue
			}
			t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
				t.Parallel()
				var limit time.Duration
				if !*simRecord && *simMutant == "" {
					if limit = mutantTime - time.Since(begun); limit <= 0 {
						t.Skipf("no time is left of %s", mutantTime)
					}
				}
				seed, text, runs := m.find(t, program, limit)
				found[i], tried[i] = seed, seed != 0 || runs == mutantSeeds
				switch {
				case seed != 0 && seed == m.found:
					t.Logf("measured: %q found by seed %d: %s", m.name, seed, text)
				case seed != 0:
					t.Logf("measured: %q found by seed %d instead of %d (write it down with -sim.record): %s", m.name, seed, m.found, text)
				case tried[i]:
					t.Errorf("none of %d seeds finds %q: a hole in the simulator", runs, m.name)
				default:
					t.Skipf("not tried to its end: %d of %d seeds within %s", runs, mutantSeeds, mutantTime)
				}
			})
		}
	})
	n := 0
	for _, seed := range found {
		if seed != 0 {
			n++
		}
	}
	t.Logf("measured: %d of %d mutants found in %s", n, len(mutants), time.Since(begun).Round(time.Second))
	if len(holes) > 0 {
		t.Logf("measured: not found by any seed yet, so not tried: %s", strings.Join(holes, "; "))
	}
	if *simRecord {
		record(t, tried, found)
	}
}

// find is the first seed that finds the mutant, 0 if none does, and how many were tried.
func (m *mutant) find(t *testing.T, program string, limit time.Duration) (seed int, text string, runs int) {
	begun := time.Now()
	first := func(r simResult) bool {
		if len(r.Failures) > 0 {
			seed = int(r.Failures[0].Seed)
			text, _, _ = strings.Cut(r.Failures[0].Text, "\n")
		}
		return seed != 0
	}
	if m.found != 0 && first(try(t, program, m.name, m.found, 1, limit)) {
		return seed, text, 1
	}
	if limit > 0 {
		if limit -= time.Since(begun); limit <= 0 {
			return 0, "", 1
		}
	}
	r := try(t, program, m.name, 1, mutantSeeds, limit)
	first(r)
	return seed, text, r.Runs
}

// record writes into this file which seed found what.
func record(t *testing.T, tried []bool, found []int) {
	const file = "sim_mutants_test.go"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range mutants {
		if tried[i] {
			row := regexp.MustCompile(`(?s)(\{` + regexp.QuoteMeta(strconv.Quote(m.name)) + `, .*?", )\d+(\},\n)`)
			b = row.ReplaceAll(b, fmt.Appendf(nil, "${1}%d${2}", found[i]))
		}
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// try runs seeds of the mutated program until one fails.
func try(t *testing.T, program, name string, from, seeds int, limit time.Duration) simResult {
	out := filepath.Join(t.TempDir(), "report")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if limit > 0 { // one that goes round in circles for ever is found, too
		time.AfterFunc(limit+time.Minute, cancel)
	}
	cmd := exec.CommandContext(ctx, program, "-test.run=^TestSimulator$", "-test.timeout=0", "-sim.report="+out, "-sim.first",
		fmt.Sprintf("-sim.from=%d", from), fmt.Sprintf("-sim.runs=%d", seeds), fmt.Sprintf("-sim.for=%s", limit))
	cmd.Env = append(os.Environ(), "HACTL_MUTANT="+name, "GOMAXPROCS=1", "GOGC=400")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	text, err := cmd.CombinedOutput()
	var r simResult
	if err != nil { // a mutant may break more than what is looked for
		if len(text) > 2000 {
			text = text[len(text)-2000:]
		}
		r.Failures = append(r.Failures, simFailure{Seed: uint64(from), Text: fmt.Sprintf("the program ends: %v: %s", err, text)})
		return r
	}
	b, err := os.ReadFile(out)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatalf("report of %q: %v", name, err)
	}
	return r
}
