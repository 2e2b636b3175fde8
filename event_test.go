package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Operators look ids up: docs/events.md has each that the source can log or remember.
func TestEveryEventIsExplained(t *testing.T) {
	doc, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	ids := regexp.MustCompile(`"event", "([a-z-]+)"|\bevent[A-Z]\w* += "([a-z-]+)"`)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ids.FindAllStringSubmatch(string(text), -1) {
			found++
			id := m[1] + m[2]
			if !regexp.MustCompile(`[| ,]` + id + `[ ,|]`).Match(doc) {
				t.Errorf("%s: event %s is not in docs/events.md", file, id)
			}
		}
	}
	if found < 100 {
		t.Fatalf("only %d ids were found in the source: the pattern does not fit it any more", found)
	}
}
