// Stands in for config_*.go and key.go until they are merged, with their signatures; then this file goes.

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

type severity string

const severityError severity = "error"

type configError struct {
	Line, Col  int
	Severity   severity
	What       string
	Want, Hint string
}

type hostInterface struct {
	Name        string
	Up, Carrier bool
	Prefixes    []netip.Prefix
}

func parseConfig(text []byte) (*Config, []configError) {
	var v map[string]any
	if err := toml.Unmarshal(text, &v); err != nil {
		return nil, []configError{{What: err.Error(), Severity: severityError}}
	}
	return new(Config), nil
}

func checkReport(name string, cfg *Config, problems []configError, strict bool) (string, int) {
	if len(problems) > 0 {
		return name + ": " + problems[0].What + "\n", 2
	}
	return name + ": good\n", 0
}

func identify(c *Config, local []netip.Addr, override string) (string, error) { return "alice", nil }

func checkHost(c *Config, text []byte, node string, host []hostInterface) []configError { return nil }

func configHash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func configShow(c *Config) string {
	b, _ := json.MarshalIndent(c, "", "  ")
	return string(b) + "\n"
}

func configExplain(c *Config) string { return fmt.Sprintf("deadtime %s\n", c.Heartbeat.Deadtime) }

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

func keygen(path string, force bool) (string, error) {
	if _, err := os.Stat(path); err == nil && !force {
		return "", errors.New("it exists; to replace its key without an outage: hactl keygen --add")
	}
	return "1f0c", os.WriteFile(path, []byte(rand.Text()), 0o600)
}

func keygenAdd(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is none; make one with: hactl keygen %s", path)
	}
	return "2d1e", nil
}

func keygenDrop(path, id string) (string, error) { return "1f0c", nil }
