// What came of the requests of one step? Pure: from results to one line.

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// result is what came of one request.
type result struct {
	start, end time.Time
	who        string // first word of the answer, to tell one node from another
	err        error
}

// step is the sum of the requests in a span of time.
type step struct {
	gap      time.Duration // the longest time without an answer: from the last answer before to the first one after
	ok, lost int
	from, to string // who answered before, and who last
	err      string // of the first lost request
}

func (s step) line(name string) string {
	return fmt.Sprintf("step=%s gap_ms=%.1f ok=%d lost=%d from=%s to=%s err=%q",
		name, float64(s.gap.Microseconds())/1000, s.ok, s.lost, or(s.from), or(s.to), s.err)
}

func or(who string) string { return cmp.Or(who, "-") }

// sum counts what was asked in [begin, end). An answer counts by when it came, since that is when the user has it; the
// last one before begin opens the first gap. Requests overlap, so results come in no order.
func sum(results []result, begin, end time.Time) step {
	results = slices.SortedFunc(slices.Values(results), func(a, b result) int { return a.end.Compare(b.end) })
	var s step
	last := begin
	for _, r := range results {
		switch {
		case r.err != nil:
			if !r.start.Before(begin) && r.start.Before(end) {
				if s.lost++; s.lost == 1 {
					s.err = r.err.Error()
				}
			}
		case r.end.Before(begin):
			s.from, s.to, last = r.who, r.who, r.end
		case r.end.Before(end):
			if s.from == "" {
				s.from = r.who
			}
			s.ok++
			s.gap = max(s.gap, r.end.Sub(last))
			s.to, last = r.who, r.end
		}
	}
	s.gap = max(s.gap, end.Sub(last))
	return s
}

// since keeps what the next step needs: all that ended after at, and the last answer before.
func since(results []result, at time.Time) []result {
	var last result
	kept := slices.DeleteFunc(slices.Clone(results), func(r result) bool {
		if !r.end.Before(at) {
			return false
		}
		if r.err == nil && r.end.After(last.end) {
			last = r
		}
		return r.start.Before(at)
	})
	if !last.end.IsZero() && !slices.ContainsFunc(kept, func(r result) bool { return r.end.Equal(last.end) }) {
		kept = append(kept, last)
	}
	return kept
}
