// How is a fault in the file told? Its position, what is wrong, what was expected, and the nearest right spelling. It
// knows nothing of any key.

package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

type severity string

const (
	severityError   severity = "error"
	severityWarning severity = "warning"
)

// configError is one fault. Line and Col count from 1, Col in characters; Line 0 means the fault has no place in the text.
type configError struct {
	Line, Col int
	Severity  severity
	What      string // [heartbeat] deadtime "1x": unknown unit "x"
	Want      string // a duration such as "500ms" or "1s"; may be empty
	Hint      string // a whole sentence that helps; may be empty
}

// problemsMax bounds what is told of one file: whoever has more has written something else than an ha.toml.
const problemsMax = 200

// render is the fault as compilers write theirs, so that editors find the place.
func (e configError) render(name string) string {
	var b strings.Builder
	b.WriteString(name)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Col)
	}
	fmt.Fprintf(&b, ": %s: %s", e.Severity, e.What)
	if e.Want != "" {
		b.WriteString("; expected " + e.Want)
	}
	b.WriteByte('\n')
	if e.Hint != "" {
		b.WriteString("    hint: " + e.Hint + "\n")
	}
	return b.String()
}

// renderProblems is one line for each fault, with its hint on a line of its own.
func renderProblems(name string, problems []configError) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(p.render(name))
	}
	return b.String()
}

func countProblems(problems []configError) (errors, warnings int) {
	for _, p := range problems {
		if p.Severity == severityError {
			errors++
		} else {
			warnings++
		}
	}
	return errors, warnings
}

// sortProblems brings faults into the order of the text; errors come before warnings of the same place. Where they are
// too many, warnings go first: an error must never be cut off by them.
func sortProblems(problems []configError) []configError {
	sort.SliceStable(problems, func(i, j int) bool {
		a, b := problems[i], problems[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		if a.Col != b.Col {
			return a.Col < b.Col
		}
		return a.Severity == severityError && b.Severity == severityWarning
	})
	if errors, _ := countProblems(problems); len(problems) > problemsMax && errors > 0 {
		problems = slices.DeleteFunc(problems, func(p configError) bool { return p.Severity != severityError })
	}
	return problems[:min(len(problems), problemsMax)]
}

// didYouMean is a hint that names the candidate nearest to what was written, or "".
func didYouMean(written string, candidates []string) string {
	if near := nearest(written, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// nearest is the candidate with the smallest edit distance to what was written, if that is small for its length. The
// first of equals wins.
func nearest(written string, candidates []string) string {
	if len(written) == 0 || len(written) > 64 {
		return ""
	}
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	best, distance := "", 1+max(1, utf8.RuneCountInString(written)/3)
	for _, c := range candidates {
		if len(written) > 2 && strings.HasPrefix(c, fold(written)) && distance > 1 { // cut short: warn for warning
			best, distance = c, 1
		}
		if d := editDistance(fold(written), fold(c)); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance is the number of letters to insert, drop, replace or swap with a neighbour (Levenshtein's distance in
// the variant that is called optimal string alignment).
func editDistance(a, b string) int {
	s, t := []rune(a), []rune(b)
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}

// oneOf is an enumeration for the operator: "a", "b" or "c".
func oneOf(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return wordList(quoted, "or")
}

// wordList joins words as prose does: a, b and c.
func wordList(words []string, last string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
	}
}

// count is a number with its noun: 1 node, 3 nodes.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
