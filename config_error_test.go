// Are faults told in order, in full, and with the right guess at what was meant?

package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"deadtme", "deadtime", 1}, {"recieve", "receive", 1},
		{"ab", "ba", 1}, {"ü", "u", 1}, {"flaw", "lawn", 2},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[abc]{0,6}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := editDistance(a, b)
		if d != editDistance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a)-len(b), len(b)-len(a)) {
			t.Fatalf("%q, %q: %d", a, b, d)
		}
	})
}

func TestDidYouMean(t *testing.T) {
	for _, c := range []struct{ written, want string }{
		{"deadtme", `did you mean "deadtime"?`}, {"DeadTime", `did you mean "deadtime"?`}, {"key-file", `did you mean "key_file"?`},
		{"warn", `did you mean "warning"?`}, {"port", `did you mean "port"?`}, {"x", ""}, {"", ""}, {"something", ""},
		{"interval", `did you mean "interval"?`},
	} {
		if got := didYouMean(c.written, []string{"deadtime", "key_file", "warning", "port", "interval", "internal"}); got != c.want {
			t.Errorf("%s: %s, want %s", c.written, got, c.want)
		}
	}
	long := make([]byte, 1<<20)
	if got := didYouMean(string(long), []string{"name"}); got != "" {
		t.Errorf("a megabyte is near %s", got)
	}
}

func TestRender(t *testing.T) {
	for _, c := range []struct {
		e    configError
		want string
	}{
		{configError{12, 3, severityError, "[heartbeat] deadtime \"1x\" has no unit", "a duration", "did you mean \"1s\"?"},
			"ha.toml:12:3: error: [heartbeat] deadtime \"1x\" has no unit; expected a duration\n    hint: did you mean \"1s\"?\n"},
		{configError{0, 0, severityWarning, "eth0 is down", "", ""}, "ha.toml: warning: eth0 is down\n"},
	} {
		if got := c.e.render("ha.toml"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestSortProblems(t *testing.T) {
	at := func(line, col int, s severity) configError { return configError{line, col, s, "x", "", ""} }
	got := sortProblems([]configError{at(2, 1, severityError), at(1, 9, severityWarning), at(1, 9, severityError), at(1, 2, severityError)})
	want := []configError{at(1, 2, severityError), at(1, 9, severityError), at(1, 9, severityWarning), at(2, 1, severityError)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var many []configError
	for range problemsMax + 5 {
		many = append(many, at(1, 1, severityWarning))
	}
	if n := len(sortProblems(slices.Clone(many))); n != problemsMax {
		t.Errorf("%d warnings are told, want %d", n, problemsMax)
	}
	if diff := cmp.Diff([]configError{at(9, 9, severityError)}, sortProblems(append(many, at(9, 9, severityError)))); diff != "" {
		t.Errorf("warnings cut off an error:\n%s", diff)
	}
}

func TestWordList(t *testing.T) {
	for want, words := range map[string][]string{"": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}} {
		if got := wordList(words, "and"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
