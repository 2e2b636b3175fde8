// Can any text upset the reader, and does what it accepts survive being shown and read again?

package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func seedConfigs(f *testing.F) {
	f.Helper()
	for _, file := range append(configFiles(f, "*.toml"), "ha.toml.example") {
		if text := readFile(f, file); len(text) < 1<<14 {
			f.Add(string(text))
		}
	}
}

func FuzzConfig(f *testing.F) {
	seedConfigs(f)
	f.Fuzz(func(t *testing.T, text string) { holdConfig(t, text) })
}

// holdConfig checks what must hold for every text.
func holdConfig(t *testing.T, text string) {
	t.Helper()
	c, problems := parseConfig([]byte(text))
	errors, _ := countProblems(problems)
	if (c == nil) != (errors > 0) {
		t.Fatalf("configuration %v with %d errors", c != nil, errors)
	}
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	for i, p := range problems {
		if p.Line < 1 || p.Line > len(lines) || p.Col < 1 || p.Col > 1+utf8.RuneCountInString(lines[p.Line-1]) {
			t.Fatalf("a place outside of the text: %+v", p)
		}
		if p.What == "" || p.Severity != severityError && p.Severity != severityWarning {
			t.Fatalf("a problem without words: %+v", p)
		}
		if strings.ContainsAny(p.render("x"), "\x00\x1b") {
			t.Fatalf("a control character reaches the terminal: %q", p.render("x"))
		}
		if i > 0 && (p.Line < problems[i-1].Line || p.Line == problems[i-1].Line && p.Col < problems[i-1].Col) {
			t.Fatalf("not in the order of the text: %+v after %+v", p, problems[i-1])
		}
	}
	if c == nil {
		return
	}
	shown := configShow(c)
	again, problems := parseConfig([]byte(shown))
	if errors, _ := countProblems(problems); errors > 0 {
		t.Fatalf("what is shown does not read back:\n%s\n%s", shown, renderProblems("shown", problems))
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Fatalf("what is shown reads back differently:\n%s\n%s", diff, shown)
	}
	if twice := configShow(again); twice != shown {
		t.Fatalf("shown twice differs:\n%s", cmp.Diff(shown, twice))
	}
	if configExplain(c) == "" {
		t.Fatal("nothing explained")
	}
}

// TestConfigTorn reads each seed cut at many places, and with each line dropped: half a file is what an editor that saves
// in two steps leaves for a moment.
func TestConfigTorn(t *testing.T) {
	text := string(readFile(t, "ha.toml.example"))
	step := 7
	if testing.Short() {
		step = 41
	}
	for i := 0; i < len(text); i += step {
		holdConfig(t, text[:i])
	}
	lines := strings.SplitAfter(text, "\n")
	for i := range lines {
		holdConfig(t, strings.Join(lines[:i], "")+strings.Join(lines[i+1:], ""))
	}
}
