// Does the scanner find whatever the TOML library finds, and at the right place?

package main

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocate(t *testing.T) {
	text := strings.Join([]string{
		`top = 1 # a comment = 2`, // 1
		`[cluster]`,               // 2
		`  name = "a = [b] # c"`,  // 3
		`[[node]]`,                // 4
		`address = { lan = "x", "y z" = [1, { w = 2 }] }`, // 5
		`[[node]]`,                         // 6
		`address.lan = 7`,                  // 7
		`  [[node.sub]]`,                   // 8
		`deep.er = """`,                    // 9
		`no = "key" \"""`,                  // 10
		`still text"""`,                    // 11
		`[node.table]`,                     // 12
		`list = [ # one`,                   // 13
		`  '''a`,                           // 14
		`]''',`,                            // 15
		`  2 ]`,                            // 16
		`"qu\"oted" = 1979-05-27 07:32:00`, // 17
		`last = ["""x"""", '''y''''', 3]`,  // 18
	}, "\n")
	s := locate(text)
	var got []string
	for path, l := range s.at {
		kl, kc := s.position(l.key)
		vl, vc := s.position(l.value)
		got = append(got, fmt.Sprintf("%02d:%d %02d:%d %s", kl, kc, vl, vc, path))
	}
	sort.Strings(got)
	want := []string{
		`01:1 01:7 top`,
		`02:1 02:1 cluster`,
		`03:3 03:10 cluster.name`,
		`04:1 04:1 node`,
		`04:1 04:1 node[0]`,
		`05:1 05:11 node[0].address`,
		`05:13 05:19 node[0].address.lan`,
		`05:24 05:32 node[0].address."y z"`,
		`05:33 05:33 node[0].address."y z"[0]`,
		`05:36 05:36 node[0].address."y z"[1]`,
		`05:38 05:42 node[0].address."y z"[1].w`,
		`06:1 06:1 node[1]`,
		`07:1 07:15 node[1].address`,
		`07:1 07:15 node[1].address.lan`,
		`08:3 08:3 node[1].sub`,
		`08:3 08:3 node[1].sub[0]`,
		`09:1 09:11 node[1].sub[0].deep`,
		`09:1 09:11 node[1].sub[0].deep.er`,
		`12:1 12:1 node[1].table`,
		`13:1 13:8 node[1].table.list`,
		`14:3 14:3 node[1].table.list[0]`,
		`16:3 16:3 node[1].table.list[1]`,
		`17:1 17:14 node[1].table."qu\"oted"`,
		`18:1 18:8 node[1].table.last`,
		`18:19 18:19 node[1].table.last[1]`,
		`18:30 18:30 node[1].table.last[2]`,
		`18:9 18:9 node[1].table.last[0]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if tree, err := decode(text); err != nil {
		t.Error(err)
	} else if missing := unlocated(s, "", tree); len(missing) > 0 {
		t.Errorf("not found: %v", missing)
	}
}

// unlocated lists what the library read and the scanner did not see.
func unlocated(s *source, path string, v any) []string {
	var missing []string
	see := func(path string, v any) {
		if !s.has(path) {
			missing = append(missing, path)
		}
		missing = append(missing, unlocated(s, path, v)...)
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			see(pathKey(path, k), e)
		}
	case []map[string]any:
		for i, e := range v {
			see(pathIndex(path, i), e)
		}
	case []any:
		for i, e := range v {
			see(pathIndex(path, i), e)
		}
	}
	return missing
}

// invented lists what the scanner saw and the library did not read.
func invented(s *source, tree map[string]any) []string {
	real := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		real[path] = true
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(pathKey(path, k), e)
			}
		case []map[string]any:
			for i, e := range v {
				walk(pathIndex(path, i), e)
			}
		case []any:
			for i, e := range v {
				walk(pathIndex(path, i), e)
			}
		}
	}
	walk("", tree)
	var extra []string
	for path := range s.at {
		if !real[path] {
			extra = append(extra, path)
		}
	}
	return extra
}

func TestLocateDuplicates(t *testing.T) {
	s := locate("a = [1]\nb = 2\na = [3]\n[c]\nd = 1\n[[e]]\nd = 1\n[[e]]\nd = 1\n")
	if diff := cmp.Diff([]duplicate{{"a", 0, 14}}, s.duplicates, cmp.AllowUnexported(duplicate{})); diff != "" {
		t.Error(diff)
	}
}

func TestLocateTooDeep(t *testing.T) {
	for _, c := range []struct {
		name, text string
		deep       bool
	}{
		{"arrays", "x = " + strings.Repeat("[", depthMax-1) + strings.Repeat("]", depthMax-1), false},
		{"more arrays", "x = " + strings.Repeat("[", 1000) + strings.Repeat("]", 1000), true},
		{"tables", "x = " + strings.Repeat("{a=", 1000) + "1" + strings.Repeat("}", 1000), true},
		{"dots", strings.Repeat("a.", 1000) + "a = 1", true},
		{"header", "[" + strings.Repeat("a.", 1000) + "a]", true},
		{"header with key", "[" + strings.Repeat("a.", 9) + "a]\n" + strings.Repeat("b.", 9) + "b = 1", true},
		{"key", strings.Repeat("k", keyLengthMax+1) + " = 1", true},
		{"string", "k = '" + strings.Repeat("[", 1000) + "'", false},
		{"never closed", "x = " + strings.Repeat("[", textMax), true},
	} {
		if s := locate(c.text); (s.tooDeep >= 0) != c.deep {
			t.Errorf("%s: too deep at %d, want %v", c.name, s.tooDeep, c.deep)
		}
	}
}

func TestSourceFind(t *testing.T) {
	s := locate("[cluster]\nname = 'x'\n[[group]]\n")
	for path, want := range map[string]int{"cluster.name": 10, "cluster.two_node": 0, "group[0].resource[3].start.timeout": 21, "nothing": 0, "": 0} {
		if got := s.keyAt(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestPosition(t *testing.T) {
	s := locate("ab\nü€x\n")
	for offset, want := range map[int][2]int{-1: {1, 1}, 0: {1, 1}, 2: {1, 3}, 3: {2, 1}, 5: {2, 2}, 8: {2, 3}, 9: {2, 4}, 10: {3, 1}, 99: {3, 1}} {
		if line, col := s.position(offset); [2]int{line, col} != want {
			t.Errorf("offset %d: %d:%d, want %v", offset, line, col, want)
		}
	}
}

// FuzzLocate holds the scanner against the library.
func FuzzLocate(f *testing.F) {
	seedConfigs(f)
	for _, s := range []string{
		"a=[1]\na=2", "[a.b]\n[a]\nc.d=1", "[[a]]\n[a.b]\n[[a.c]]\n[[a]]\n[a.b]", "a={b={c=[{d=1},{e=''''f'''}]}}", `a."b\u00e9".'c'=1`,
		"[[a.b]]\n[a]\nb.c=1", "a=\"\"\"\\\"\"\"\"\"\"\nb=1", "a=''''''\nb=1", "a=[[],[[]],\n#x\n]", "\"\"=1", "[\"\"]\n''.x=1", "a=-inf\nb=07:32:00\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return
		}
		s := locate(text)
		for path, l := range s.at {
			if l.key < 0 || l.key > len(text) || l.value < 0 || l.value > len(text) {
				t.Fatalf("%s at %+v of %d", path, l, len(text))
			}
		}
		if s.tooDeep >= 0 || strings.HasPrefix(text, "\ufeff") || strings.HasPrefix(text, "\xff") || strings.HasPrefix(text, "\xfe") {
			return // never comes to the library, or not with the same offsets
		}
		tree, err := decode(text)
		if err != nil {
			return
		}
		if missing := unlocated(s, "", tree); len(missing) > 0 {
			t.Errorf("%q: not found: %q", text, missing)
		}
		if extra := invented(s, tree); len(extra) > 0 && len(s.duplicates) == 0 {
			t.Errorf("%q: found what is not there: %q", text, extra)
		}
	})
}
