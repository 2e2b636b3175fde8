// Where in the text does a key stand? The TOML library says what the text means but not where; this scanner says where
// but not what. It is permissive: the library has the last word on syntax, and the scanner never fails on what that
// accepts. It decodes nothing but names of keys.

package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// duplicate is a path that was given a value a second time.
type duplicate struct {
	path          string
	first, second int // offsets of the keys
}

// location is a pair of byte offsets. For a header both are the offset of its bracket; for an element of an array both
// are where the element begins.
type location struct {
	key, value int
}

// source maps the path of everything that a text defines to its place. Paths look like group[0].resource[1].monitor.interval.
type source struct {
	text       string
	lines      []int    // offset of each line's first byte
	holes      bool     // lines were left out: what seems to be missing may stand there
	mended     *mending // what the offsets are of, if that is not the text itself
	at         map[string]location
	duplicates []duplicate
	tooDeep    int // offset of what is nested deeper than any ha.toml can be, or -1
	tables     map[string]int
	valued     map[string]bool
}

const (
	// Bounds that keep both this scanner and the library linear in the size of the text. The deepest real path is
	// group[0].resource[0].monitor.interval.
	depthMax     = 16
	keyLengthMax = 128
)

func locate(text string) *source {
	s := &source{text: text, at: map[string]location{}, tooDeep: -1, tables: map[string]int{}, valued: map[string]bool{}}
	s.lines = lineStarts(text)
	sc := scanner{source: s}
	sc.document()
	return s
}

func lineStarts(text string) []int {
	starts := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// locateMended finds everything in a mended text, and says where it was in the file.
func locateMended(m *mending, file string) *source {
	s := locate(m.text)
	s.text, s.lines, s.mended = file, lineStarts(file), m
	return s
}

// position turns an offset into line and column, both from 1, the column in characters.
func (s *source) position(offset int) (line, col int) {
	if s.mended != nil {
		offset = s.mended.original(offset)
	}
	offset = max(0, min(offset, len(s.text)))
	line = sort.Search(len(s.lines), func(i int) bool { return s.lines[i] > offset })
	return line, 1 + utf8.RuneCountInString(s.text[s.lines[line-1]:offset])
}

func (s *source) has(path string) bool {
	_, ok := s.at[path]
	return ok
}

// keyAt and valueAt are where to point for a path; for what is not written, the nearest parent that is.
func (s *source) keyAt(path string) int { return s.find(path).key }

func (s *source) valueAt(path string) int { return s.find(path).value }

func (s *source) find(path string) location {
	for path != "" {
		if l, ok := s.at[path]; ok {
			return l
		}
		path = parentPath(path)
	}
	return location{}
}

// pathKey and pathIndex make the path of a table's key and of an array's element.
func pathKey(parent, key string) string {
	if !bareKey(key) {
		key = strconv.Quote(key)
	}
	if parent == "" {
		return key
	}
	return parent + "." + key
}

func pathIndex(parent string, i int) string { return fmt.Sprintf("%s[%d]", parent, i) }

// parentPath drops the last step. Good enough for the names that an ha.toml knows, which have no dots.
func parentPath(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}

func bareKey(key string) bool {
	for i := 0; i < len(key); i++ {
		if !bareKeyByte(key[i]) {
			return false
		}
	}
	return key != ""
}

func bareKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// scanner walks over a text once.
type scanner struct {
	*source
	pos   int
	table string // path of the table that the last header opened
	depth int    // of that table
}

func (s *scanner) document() {
	for s.tooDeep < 0 {
		s.blank(true)
		if s.pos >= len(s.text) {
			return
		}
		start := s.pos
		if s.text[s.pos] == '[' {
			s.header()
		} else {
			s.pair(s.table, s.depth)
		}
		s.restOfLine()
		if s.pos == start {
			s.pos++ // nothing could be made of this byte: the library reports it
		}
	}
}

// header reads [a.b] or [[a.b]].
func (s *scanner) header() {
	start := s.pos
	array := strings.HasPrefix(s.text[s.pos:], "[[")
	s.pos++
	if array {
		s.pos++
	}
	parts := s.dotted()
	if len(parts) == 0 {
		return
	}
	path := ""
	for i, part := range parts {
		path = pathKey(path, part)
		s.record(path, location{start, start})
		if n := s.tables[path]; n > 0 && i < len(parts)-1 {
			path = pathIndex(path, n-1)
		}
	}
	if array {
		s.tables[path]++
		path = pathIndex(path, s.tables[path]-1)
		s.record(path, location{start, start})
	}
	s.table, s.depth = path, len(parts)
}

// pair reads a.b = value.
func (s *scanner) pair(table string, depth int) {
	start := s.pos
	parts := s.dotted()
	s.blank(false)
	if len(parts) == 0 || s.pos >= len(s.text) || s.text[s.pos] != '=' {
		return
	}
	s.pos++
	s.blank(false)
	path := table
	for i, part := range parts {
		path = pathKey(path, part)
		s.record(path, location{start, s.pos})
		if n := s.tables[path]; n > 0 && i < len(parts)-1 { // the library lets a dotted key reach into [[table]]
			path = pathIndex(path, n-1)
		}
	}
	if s.valued[path] {
		s.duplicates = append(s.duplicates, duplicate{path, s.at[path].key, start})
	}
	s.valued[path] = true
	s.value(path, depth+len(parts))
}

// record remembers the first place of a path: a table is where it was first mentioned.
func (s *scanner) record(path string, l location) {
	if _, ok := s.at[path]; !ok {
		s.at[path] = l
	}
}

// dotted reads the parts of a key.
func (s *scanner) dotted() []string {
	var parts []string
	start := s.pos
	for {
		s.blank(false)
		part, ok := s.keyPart()
		if !ok {
			return parts
		}
		parts = append(parts, part)
		if len(parts)+s.depth > depthMax || len(part) > keyLengthMax {
			s.tooDeep = start
			return nil
		}
		s.blank(false)
		if s.pos >= len(s.text) || s.text[s.pos] != '.' {
			return parts
		}
		s.pos++
	}
}

func (s *scanner) keyPart() (string, bool) {
	if s.pos >= len(s.text) {
		return "", false
	}
	start := s.pos
	switch s.text[s.pos] {
	case '"':
		s.quoted()
		return unescapeKey(strings.Trim(s.text[start:s.pos], `"`), s.text[start:s.pos]), true
	case '\'':
		s.quoted()
		return strings.Trim(s.text[start:s.pos], `'`), true
	}
	for s.pos < len(s.text) && bareKeyByte(s.text[s.pos]) {
		s.pos++
	}
	return s.text[start:s.pos], s.pos > start
}

// unescapeKey decodes a quoted key; Go's escapes are a superset of TOML's, but for those of its next version.
func unescapeKey(plain, quoted string) string {
	if v, err := strconv.Unquote(quoted); err == nil {
		return v
	}
	return plain
}

// value steps over a value and records what is in it.
func (s *scanner) value(path string, depth int) {
	if depth > depthMax {
		s.tooDeep = s.pos
	}
	if s.pos >= len(s.text) || s.tooDeep >= 0 {
		return
	}
	switch s.text[s.pos] {
	case '"', '\'':
		s.quoted()
	case '[':
		s.array(path, depth)
	case '{':
		s.inlineTable(path, depth)
	default:
		for s.pos < len(s.text) && !strings.ContainsRune(",]}#\r\n", rune(s.text[s.pos])) {
			s.pos++
		}
	}
}

func (s *scanner) array(path string, depth int) {
	s.pos++
	for i := 0; s.tooDeep < 0; i++ {
		s.blankOr(',')
		if s.pos >= len(s.text) {
			return
		}
		if s.text[s.pos] == ']' {
			s.pos++
			return
		}
		element, start := pathIndex(path, i), s.pos
		s.record(element, location{start, start})
		s.value(element, depth+1)
		if s.pos == start {
			s.pos++
		}
	}
}

func (s *scanner) inlineTable(path string, depth int) {
	s.pos++
	for s.tooDeep < 0 {
		s.blankOr(',')
		if s.pos >= len(s.text) {
			return
		}
		if s.text[s.pos] == '}' {
			s.pos++
			return
		}
		start := s.pos
		s.pair(path, depth)
		if s.pos == start {
			s.pos++
		}
	}
}

// quoted steps over a string of any of the four kinds.
func (s *scanner) quoted() {
	q := s.text[s.pos : s.pos+1]
	triple := strings.Repeat(q, 3)
	multi := strings.HasPrefix(s.text[s.pos:], triple)
	s.pos++
	if multi {
		s.pos += 2
	}
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		switch {
		case c == '\\' && q == `"`:
			s.pos++
		case multi && strings.HasPrefix(s.text[s.pos:], triple):
			s.pos += 3
			for n := 0; n < 2 && strings.HasPrefix(s.text[s.pos:], q); n++ { // up to two quotes may end the content
				s.pos++
			}
			return
		case !multi && c == '\n':
			return
		case !multi && s.text[s.pos:s.pos+1] == q:
			s.pos++
			return
		}
		s.pos++
	}
	s.pos = min(s.pos, len(s.text))
}

// blank steps over white space and, when lines is set, over line ends and comments.
func (s *scanner) blank(lines bool) {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == ' ' || c == '\t':
			s.pos++
		case lines && (c == '\n' || c == '\r'):
			s.pos++
		case lines && c == '#':
			s.restOfLine()
		default:
			return
		}
	}
}

func (s *scanner) blankOr(c byte) {
	for {
		s.blank(true)
		if s.pos >= len(s.text) || s.text[s.pos] != c {
			return
		}
		s.pos++
	}
}

func (s *scanner) restOfLine() {
	for s.pos < len(s.text) && s.text[s.pos] != '\n' {
		s.pos++
	}
}
