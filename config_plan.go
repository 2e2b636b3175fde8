// What would a change of the configuration do? For people who are about to make it: what is new, gone or changed, which
// resources stop and start for it and where, and what the rules then move. Pure: made from the live state, by the same
// code that acts on it.

package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// configPlan is the plan for the operator, one line each; none: nothing that anybody would notice.
func configPlan(state []byte, next *Config) ([]string, error) {
	sim := &simulation{}
	if err := json.Unmarshal(state, sim); err != nil {
		return nil, fmt.Errorf("read the live state: %w", err)
	}
	if sim.State == nil || sim.View == nil || sim.State.Config.Effective == nil {
		return nil, fmt.Errorf("read the live state: there is no running cluster yet")
	}
	was := sim.State.Config.Effective
	p := &plan{state: sim.State}
	p.nodes(was, next)
	p.network(was, next)
	for i := range was.Groups {
		p.group(&was.Groups[i], next.group(was.Groups[i].Name))
	}
	for i := range next.Groups {
		if was.group(next.Groups[i].Name) == nil {
			p.say("group %s is new", next.Groups[i].Name)
		}
	}
	p.rest(was, next)
	rules, err := sim.edit(state, next)
	return append(p.lines, rules...), err
}

type plan struct {
	state *State
	lines []string
}

func (p *plan) say(format string, a ...any) { p.lines = append(p.lines, fmt.Sprintf(format, a...)) }

func (p *plan) nodes(was, next *Config) {
	for _, n := range was.Nodes {
		if next.node(n.Name) == nil {
			p.say("node %s is removed: it stops what it runs and votes no more", n.Name)
		}
	}
	for _, n := range next.Nodes {
		switch old := was.node(n.Name); {
		case old == nil && n.witness():
			p.say("node %s is new, a witness: it votes once it has joined", n.Name)
		case old == nil:
			p.say("node %s is new: it votes and may run groups once it has joined", n.Name)
		case !reflect.DeepEqual(old.Address, n.Address):
			p.say("node %s changes its addresses: it is heard again when all nodes have this, and is lost meanwhile", n.Name)
		case old.witness() != n.witness():
			p.say("node %s is a %s from then on", n.Name, map[bool]string{true: "witness: its groups leave", false: "full node: it may run groups"}[n.witness()])
		}
	}
}

func (p *plan) network(was, next *Config) {
	if !reflect.DeepEqual(was.Links, next.Links) || was.Heartbeat.Port != next.Heartbeat.Port {
		p.say("links or port change: nodes that do not have this yet are not heard on them; keep one link as it is")
	}
	if was.Cluster.KeyFile != next.Cluster.KeyFile {
		p.say("the key file changes to %s: have it on every node first, with the present key in it", next.Cluster.KeyFile)
	}
	if a, b := was.Heartbeat.Deadtime.D(), next.Heartbeat.Deadtime.D(); a != b {
		p.say("deadtime changes from %s to %s, and all timers with it: hactl config explain", a, b)
	}
}

// group says what stops and starts, as the agents will have it.
func (p *plan) group(was, next *GroupConfig) {
	owner := ""
	if g := p.state.group(was.Name); g != nil {
		owner = g.Owner
	}
	where := "" // for a sentence about what runs
	if owner != "" {
		where = " on " + owner
	}
	switch {
	case next == nil && owner != "":
		p.say("group %s is removed: it stops%s", was.Name, where)
		return
	case next == nil:
		p.say("group %s is removed", was.Name)
		return
	case reflect.DeepEqual(was, next):
		return
	}
	agent := &groupAgent{}
	for _, c := range was.Resources {
		r := &resourceAgent{config: c, cond: conditionStopped}
		if owner != "" {
			r.cond = conditionRunning
		}
		agent.res = append(agent.res, r)
	}
	agent.reconfigure(0, next)
	var starts, stops, anew []string
	for _, r := range agent.res {
		again := slices.ContainsFunc(agent.res, func(o *resourceAgent) bool { return o != r && o.config.Name == r.config.Name })
		switch {
		case r.gone && !again:
			stops = append(stops, r.config.Name)
		case r.gone:
		case r.mustStop, again:
			anew = append(anew, r.config.Name)
		case was.resource(r.config.Name) == nil:
			starts = append(starts, r.config.Name)
		}
	}
	if owner == "" {
		p.say("group %s changes; it does not run now", was.Name)
		return
	}
	tell := func(names []string, what string) {
		if len(names) > 0 {
			p.say("group %s: %s %s%s", was.Name, strings.Join(names, ", "), what, where)
		}
	}
	tell(stops, "stops")
	tell(anew, "stops and starts again")
	tell(starts, "starts")
	if len(stops)+len(anew)+len(starts) == 0 {
		p.say("group %s changes, and nothing of it stops", was.Name)
	}
}

// rest is what the parts above do not speak of.
func (p *plan) rest(was, next *Config) {
	a, b := *was, *next
	for _, c := range []*Config{&a, &b} {
		c.Cluster.KeyFile, c.Heartbeat.Deadtime, c.Heartbeat.Port = "", 0, 0
	}
	for _, part := range []struct {
		name    string
		differs bool
	}{
		{"[cluster]", !reflect.DeepEqual(a.Cluster, b.Cluster)},
		{"[heartbeat]", !reflect.DeepEqual(a.Heartbeat, b.Heartbeat)},
		{"[watchdog]", !reflect.DeepEqual(a.Watchdog, b.Watchdog)},
		{"[[ping]]", !reflect.DeepEqual(a.Pings, b.Pings)},
		{"[[fence]]", !reflect.DeepEqual(a.Fences, b.Fences)},
	} {
		if part.differs {
			p.say("%s changes, and nothing that runs stops for it", part.name)
		}
	}
}

// edit lets the rules act on the changed configuration, and tells what they do beyond what they would do anyway.
func (sim *simulation) edit(state []byte, next *Config) ([]string, error) {
	as := &simulation{} // as it is
	if err := json.Unmarshal(state, as); err != nil {
		return nil, fmt.Errorf("read the live state: %w", err)
	}
	if sim.stuck = !sim.quorate(); sim.stuck {
		return []string{"nothing of it is recorded before there is a majority again"}, nil
	}
	sim.apply(Entry{Kind: entryConfig, Config: &ConfigState{Hash: "the next", Effective: next}, Base: sim.State.Config.Generation, By: "you"})
	sim.out.Reset()
	sim.settle()
	as.settle()
	anyway := strings.Split(as.out.String(), "\n")
	var lines []string
	for _, l := range strings.Split(sim.out.String(), "\n") {
		if !slices.Contains(anyway, l) {
			lines = append(lines, strings.TrimSpace(l))
		}
	}
	return lines, nil
}
