// Which of all that happened is to blame? Faults are left out as long as the seed still fails; what remains is told as a
// story.

package main

import (
	"fmt"
	"slices"
	"strings"
)

// shrinkRuns bounds the search.
const shrinkRuns = 80

// shrink returns the story of the fewest faults that still break something.
func shrink(s *simRun) string {
	best, steps := s, s.played
	never := s.w != nil && len(s.w.checks.broken) > 0
	runs := 0
	fails := func(script []simStep) bool {
		if runs++; runs > shrinkRuns {
			return false
		}
		n := s.again(script)
		n.run()
		// Something else that breaks on the way is another fault, or an operator who did what nobody does.
		if len(n.problems()) == 0 || (n.w != nil && len(n.w.checks.broken) > 0) != never {
			return false
		}
		best, steps = n, n.played
		return true
	}
	for size := (len(steps) + 1) / 2; size >= 1; size /= 2 {
		for from := 0; from < len(steps); {
			to := min(from+size, len(steps))
			rest := slices.Clone(steps[:from])
			for _, p := range steps[from:to] {
				if strings.HasPrefix(p.line, "allow ") { // an operator's wrong word is judged with what it allows
					rest = append(rest, p)
				}
			}
			rest = append(rest, steps[to:]...)
			if len(rest) == len(steps) || !fails(rest) {
				from += size
			}
		}
	}
	return best.tale()
}

// tale is the simulation as a story, and after it what came of it.
func (s *simRun) tale() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nscene\n", s.heading())
	at := s.begun
	for _, p := range append(append([]simStep{}, s.played...), s.repairs...) {
		if d := s.begun + p.at - at; d > 0 {
			fmt.Fprintf(&b, "tick %s\n", d)
			at += d
		}
		fmt.Fprintf(&b, "%s\n", p.line)
	}
	if s.w != nil {
		fmt.Fprintf(&b, "tick %s\n----\n%s\n%s", s.w.now-at, lastOf(s.story.out.String(), 120), strings.Join(s.problems(), "\n"))
	}
	return b.String()
}

// lastOf is the end of a long text, line by line.
func lastOf(text string, lines int) string {
	all := strings.Split(text, "\n")
	if over := len(all) - lines; over > 0 {
		all = append([]string{fmt.Sprintf("… %d lines before", over)}, all[over:]...)
	}
	return strings.Join(all, "\n")
}
