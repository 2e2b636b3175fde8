package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var rewriteGolden = flag.Bool("rewrite-golden", false, "write what the renderers print into testdata/golden")

// goldenRender compares got with a file of testdata/golden.
func goldenRender(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *rewriteGolden {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (go test -run %s -rewrite-golden):\n%s", path, t.Name(), diff)
	}
}

func situationNames() []string {
	var names []string
	for name := range situations() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestRenderStatus(t *testing.T) {
	for _, name := range situationNames() {
		t.Run(name, func(t *testing.T) {
			text := renderStatus(situations()[name], plainWidth, false)
			goldenRender(t, "status-"+name+".txt", text)
			lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
			if name != "five-groups" && len(lines) > plainHeight-1 {
				t.Errorf("%d lines, and the prompt needs one of %d", len(lines), plainHeight)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > plainWidth && !strings.HasPrefix(l, "  do: ") {
					t.Errorf("wider than %d: %q", plainWidth, l)
				}
			}
			if strings.ContainsRune(text, '\x1b') {
				t.Error("escape sequence in plain text")
			}
		})
	}
}

// Colour adds escape sequences and changes nothing else, at any width.
func TestRenderStatusColor(t *testing.T) {
	for _, name := range situationNames() {
		for _, width := range []int{1, 40, 80, 200} {
			st := situations()[name]
			plainText, painted := renderStatus(st, width, false), renderStatus(st, width, true)
			if !strings.Contains(painted, "\x1b[") {
				t.Errorf("%s: no colour", name)
			}
			if diff := cmp.Diff(plainText, stripColor(painted)); diff != "" {
				t.Errorf("%s at %d: %s", name, width, diff)
			}
		}
	}
}

func stripColor(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, s, _ = strings.Cut(rest, "m")
	}
}

func TestHeadline(t *testing.T) {
	for name, want := range map[string]string{
		"well":         "web is up on alice, its data is safe on alice and bob. Nothing needs you.",
		"node-lost":    "web is up on alice, its data has one good copy only, on alice. One problem needs you.",
		"waiting":      "web is DOWN and waits. What is not well is named below.",
		"blocked":      "web is BLOCKED. One problem needs you.",
		"two-groups":   "web is up on alice, its data is safe on alice and bob; db is starting on bob. Nothing needs you.",
		"five-groups":  "db is DOWN; 4 of 5 groups are up. Nothing needs you.",
		"caretaker":    "web is up on alice, its data is safe on alice and bob. No majority: this node is caretaker of what it runs. One problem needs you.",
		"no-quorum":    "web is DOWN. This node hears no majority, so what it knows of the others may be old. One problem needs you.",
		"empty":        "No groups are configured. Nothing needs you.",
		"witness-lost": "web is up on alice, its data is safe on alice and bob. What is not well is named below.",
	} {
		if got := headline(situations()[name]); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"well":      "web is up on alice (here), its data is safe on alice and bob; 3 of 3 voters",
		"waiting":   "web is DOWN and waits; 2 of 3 voters; waiting for alice: its lease ends in 0.3 s",
		"blocked":   "web is BLOCKED; 3 of 3 voters; a stop failed on alice: www: umount /var/www: target is busy",
		"node-lost": "web is up on alice (here), its data has one good copy only, on alice; 2 of 3 voters; bob is lost",
		"empty":     "no groups are configured; 2 of 3 voters",
	} {
		if got := clusterLine(situations()[name]); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	all := situations()["five-groups"]
	all.Groups[2].State = "started"
	if got, want := headline(all), "All 5 groups are up. Nothing needs you."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	blank := &Status{Groups: []GroupStatus{{Name: "web", State: "stopped"}}}
	if got := headline(blank); !strings.Contains(got, "not part of a running cluster yet") {
		t.Errorf("before the founding: %s", got)
	}
	all.Problems = make([]Problem, 3)
	all.Problems[0].Command, all.Problems[1].Command = "a", "b"
	if got, want := headline(all), "All 5 groups are up. 2 problems need you."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRenderWhy(t *testing.T) {
	all := situations()
	for _, c := range []struct{ situation, group string }{{"well", "web"}, {"pinned", "web"}, {"blocked", "web"}, {"two-groups", "db"}, {"maintenance", "web"}} {
		goldenRender(t, "why-"+c.situation+".txt", renderWhy(all[c.situation], c.group, plainWidth, false))
	}
}

func TestAge(t *testing.T) {
	for seconds, want := range map[float64]string{
		-5: "less than 1 s", 0.4: "less than 1 s", 1: "1 s", 59.9: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h", 7260: "2 h",
		47 * 3600: "47 h", 48 * 3600: "2 days", 1e7: "115 days",
	} {
		if got := age(seconds); got != want {
			t.Errorf("age(%v) = %q, want %q", seconds, got, want)
		}
	}
}

func TestRedraw(t *testing.T) {
	if got, want := redraw("a\nb\n", 24), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got := redraw(strings.Repeat("x\n", 30), 10)
	if n := strings.Count(got, "\n"); n != 9 {
		t.Errorf("%d lines on a screen of 10 with one free", n)
	}
	if !strings.Contains(got, "… 22 more lines") {
		t.Errorf("30 lines on 9, one of which tells: %q", got)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, nil},
		{"  one  two ", 10, []string{"one two"}},
		{"one two three", 7, []string{"one two", "three"}},
		{"antidisestablishment is long", 5, []string{"antidisestablishment", "is", "long"}},
		{"häß ich", 7, []string{"häß ich"}},
		{"x y", -3, []string{"x", "y"}},
	} {
		if diff := cmp.Diff(c.want, wrap(c.text, c.width)); diff != "" {
			t.Errorf("wrap(%q, %d): %s", c.text, c.width, diff)
		}
	}
}

func TestColumns(t *testing.T) {
	got := columns([][]string{{"a", "", "bé", "x"}, {"long", "", "c"}, {}})
	if diff := cmp.Diff([]string{"a     bé  x", "long  c", ""}, got); diff != "" {
		t.Error(diff)
	}
}
