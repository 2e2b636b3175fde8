// What did it cost? The longest silence that a client met in each round of a chaos run, by kind of fault.

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

var lullBuckets = []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, math.MaxInt64}

// lullTable counts rounds by kind of fault and by the longest silence in them.
type lullTable map[string]*lullRow

type lullRow struct {
	counts  [10]int
	longest time.Duration
}

func (x *mischief) lulled(who, kind string, d time.Duration) {
	if x.lulls[who] == nil {
		x.lulls[who] = lullTable{}
	}
	row := x.lulls[who][kind]
	if row == nil {
		row = &lullRow{}
		x.lulls[who][kind] = row
	}
	row.counts[slices.IndexFunc(lullBuckets, func(b time.Duration) bool { return d < b })]++
	row.longest = max(row.longest, d)
}

func (t lullTable) String() string {
	var b strings.Builder
	b.WriteString("fault                          rounds")
	for _, d := range lullBuckets[:len(lullBuckets)-1] {
		fmt.Fprintf(&b, " %6s", fmt.Sprintf("<%d", d.Milliseconds()))
	}
	b.WriteString("   more  longest\n")
	var kinds []string
	for k := range t {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		n := 0
		for _, c := range t[k].counts {
			n += c
		}
		fmt.Fprintf(&b, "%-30s %6d", k, n)
		for _, c := range t[k].counts {
			if c == 0 {
				fmt.Fprintf(&b, " %6s", ".")
			} else {
				fmt.Fprintf(&b, " %6d", c)
			}
		}
		fmt.Fprintf(&b, " %8d\n", t[k].longest.Milliseconds())
	}
	return b.String()
}

// report is printed however it ends.
func (x *mischief) report() {
	t := x.c.t
	if len(x.took) == 0 {
		return
	}
	slices.Sort(x.took)
	line := fmt.Sprintf("measured: chaos of seed %d: %d rounds, %d faults; all was well after them in %.1f s (median), %.1f s (longest)", x.seed, x.rounds, x.faults,
		x.took[len(x.took)/2].Seconds(), x.took[len(x.took)-1].Seconds())
	if x.writes != nil {
		x.writes.mu.Lock()
		line += fmt.Sprintf("; %d writes acknowledged, %d not", len(x.writes.acked), x.writes.refused)
		x.writes.mu.Unlock()
	}
	t.Log(line)
	var ids []string
	for id, n := range x.events {
		ids = append(ids, fmt.Sprintf("%s %d", id, n))
	}
	slices.Sort(ids)
	t.Logf("in the history: %s", strings.Join(ids, ", "))
	for _, id := range []string{eventPlaced, eventLost, eventJoined, eventConfig, eventFenced} {
		if x.events[id] == 0 && x.rounds >= 100 && (x.power != nil || id != eventFenced) {
			t.Errorf("%d rounds, and never %s: it has tested nothing", x.rounds, id)
		}
	}
	for _, who := range append(x.names(), "writes") {
		if x.lulls[who] != nil && *chaosFor > 0 {
			t.Logf("longest silence of each round, ms, %s:\n%s", who, x.lulls[who])
		}
	}
}
