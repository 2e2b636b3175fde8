// What was meant? After a slip of syntax the text is read again as it was probably meant, so that one slip hides no other fault and
// the hint can show the line as it should be. What is mended is only ever checked, never put in force: a file with a slip is
// refused.

package main

import (
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mending is a text on its way to one that can be read.
type mending struct {
	text  string
	added []addition // by place
}

// addition is what was put into the text: n bytes, of which the first is at offset at.
type addition struct{ at, n int }

// original is where a byte of the mended text was in the file; what was added is where it was put.
func (m *mending) original(offset int) int {
	moved := 0
	for _, a := range m.added {
		if a.at >= offset {
			break
		}
		moved += min(a.n, offset-a.at)
	}
	return offset - moved
}

func (m *mending) insert(at int, s string) {
	for i := range m.added {
		if m.added[i].at >= at {
			m.added[i].at += len(s)
		}
	}
	m.added = append(m.added, addition{at, len(s)})
	sort.Slice(m.added, func(i, j int) bool { return m.added[i].at < m.added[j].at })
	m.text = m.text[:at] + s + m.text[at:]
}

// overwrite puts s over the text from at on; it is as long as what it replaces.
func (m *mending) overwrite(at int, s string) { m.text = m.text[:at] + s + m.text[at+len(s):] }

// replace puts s where a word was.
func (m *mending) replace(from, to int, s string) {
	if fill := to - from - len(s); fill >= 0 {
		m.overwrite(from, s+strings.Repeat(" ", fill))
		return
	}
	m.overwrite(from, s[:to-from])
	m.insert(to, s[to-from:])
}

// line is the line of an offset, without its end.
func (m *mending) line(offset int) (from, to int) {
	from = strings.LastIndexByte(m.text[:offset], '\n') + 1
	to = len(m.text)
	if i := strings.IndexByte(m.text[offset:], '\n'); i >= 0 {
		to = offset + i
	}
	return from, to
}

// slip is what was wrong, and where in the text before it was mended.
type slip struct {
	offset     int
	what, hint string
}

// repairs are tried in this order; each looks at what the parser said and at the text around.
var repairs = []struct {
	said   string // part of the parser's message
	repair func(m *mending, offset int) (slip, bool)
}{
	{"newlines not allowed within inline tables", (*mending).closeTable},
	{"array terminator", (*mending).closeArray},
	{"strings cannot contain newlines", (*mending).closeString},
	{"expected '.' or '='", (*mending).equals},
	{"expected value but found '='", (*mending).equalsTwice},
	{"trailing comma", (*mending).lastComma},
	{"to end table name", (*mending).closeHeader},
	{"end of table array", (*mending).closeHeader},
	{"", (*mending).quote},
	{"expected a comma", (*mending).comma},
	{"to end with a newline", (*mending).rest},
}

// repair mends one slip, or says that it cannot.
func (m *mending) repair(message string, offset int) (slip, bool) {
	for _, r := range repairs {
		if strings.Contains(message, r.said) {
			if s, ok := r.repair(m, offset); ok {
				return s, true
			}
		}
	}
	return slip{}, false
}

// shown is the line of an offset as it is now.
func (m *mending) shown(offset int) string {
	from, _ := m.line(offset)
	line := strings.Join(strings.Fields(m.text[from:m.contentEnd(from)]), " ")
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, line)
	if r := []rune(line); len(r) > shownMax {
		line = string(r[:shownMax]) + "…"
	}
	return "write " + line
}

const shownMax = 100 // characters of a line in a hint

// contentEnd is the end of what a line says, without blanks and comment.
func (m *mending) contentEnd(offset int) int {
	from, to := m.line(offset)
	quote := byte(0)
	for i := from; i < to; i++ {
		switch c := m.text[i]; {
		case quote != 0:
			if c == '\\' && quote == '"' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '#':
			to = i
		}
	}
	return from + len(strings.TrimRight(m.text[from:to], " \t\r"))
}

// before is the last byte before an offset that is no blank, comment or line end.
func (m *mending) before(offset int) int {
	for offset > 0 {
		from, _ := m.line(offset)
		if end := min(m.contentEnd(from), offset); end > from && strings.TrimSpace(m.text[from:end]) != "" {
			return from + len(strings.TrimRight(m.text[from:end], " \t\r"))
		}
		offset = from - 1
	}
	return 0
}

const wordEnds = " \t\r\n,=#[]{}\"'"

// word is the run of bytes around an offset that could be a value without quotes.
func (m *mending) word(offset int) (from, to int) {
	from, to = offset, offset
	for from > 0 && !strings.ContainsRune(wordEnds, rune(m.text[from-1])) {
		from--
	}
	for to < len(m.text) && !strings.ContainsRune(wordEnds, rune(m.text[to])) {
		to++
	}
	return from, to
}

// quote puts quotes around a word that is a value.
func (m *mending) quote(offset int) (slip, bool) {
	from, to := m.word(offset)
	start, _ := m.line(from)
	lead := strings.TrimRight(m.text[start:from], " \t")
	if from == to || lead == "" || !strings.ContainsAny(lead[len(lead)-1:], "=[,") || strings.HasPrefix(strings.TrimLeft(lead, " \t"), "[") {
		return slip{}, false
	}
	word := m.text[from:to]
	s := slip{offset: from}
	switch plain := strings.Trim(word, "“”„‘’"); {
	case plain != word && plain != "" && !strings.ContainsAny(plain, `"\`):
		s.what = "these are not the quotes of a keyboard"
		m.replace(from, to, `"`+plain+`"`)
	case slices.Contains([]string{"yes", "on", "true"}, strings.ToLower(word)):
		m.replace(from, to, "true")
		return slip{from, word + " is no value", "true and false are written so, and all other words need quotes"}, true
	case slices.Contains([]string{"no", "off", "false"}, strings.ToLower(word)):
		m.replace(from, to, "false")
		return slip{from, word + " is no value", "true and false are written so, and all other words need quotes"}, true
	default:
		s.what = abbreviate(word) + " is not in quotes"
		m.insert(to, `"`)
		m.insert(from, `"`)
	}
	s.hint = m.shown(from)
	return s, true
}

// comma separates what stands in one array or inline table.
func (m *mending) comma(offset int) (slip, bool) {
	at := m.before(offset)
	if from, _ := m.line(offset); at <= from || offset >= len(m.text) || !bareKeyByte(m.text[offset]) && !strings.ContainsRune("\"'{[", rune(m.text[offset])) {
		return slip{}, false
	}
	m.insert(at, ",")
	return slip{offset: offset, what: "a comma is missing", hint: m.shown(at)}, true
}

// rest drops what stands behind a value.
func (m *mending) rest(offset int) (slip, bool) {
	end := m.contentEnd(offset)
	for offset < end && (m.text[offset] == ' ' || m.text[offset] == '\t') {
		offset++
	}
	if end <= offset {
		return slip{}, false
	}
	s := slip{offset: offset, what: abbreviate(m.text[offset:end]) + " stands behind the value", hint: "each key begins a line of its own, a comment begins with #"}
	m.overwrite(offset, strings.Repeat(" ", end-offset))
	return s, true
}

// closeTable ends an inline table with its line. One that goes on is read as if it were in one line.
func (m *mending) closeTable(offset int) (slip, bool) {
	at := offset
	if at < len(m.text) && m.text[at] != '\n' || at == len(m.text) {
		if at = strings.LastIndexByte(m.text[:offset], '\n'); at < 0 {
			return slip{}, false
		}
	}
	end := m.before(at)
	if end == 0 {
		return slip{}, false
	}
	if last := m.text[end-1]; last == '{' || last == ',' {
		m.join(end)
		return slip{end - 1, "{ … } goes over several lines", "write { … } on one line, or as a section of its own"}, true
	}
	m.insert(end, " }")
	return slip{end, "the closing brace is missing", m.shown(end)}, true
}

// join makes one line of the rest of an inline table that goes on behind an offset, up to where it or its section ends. Comments
// and a last comma go.
func (m *mending) join(offset int) {
	b := []byte(m.text)
	depth, quote, comma := 1, byte(0), -1
	for i := offset; i < len(b) && depth > 0; i++ {
		c := b[i]
		switch {
		case c == '\n':
			next := i + 1
			for next < len(b) && (b[next] == ' ' || b[next] == '\t') {
				next++
			}
			if next < len(b) && b[next] == '[' {
				depth = 0
				break
			}
			b[i], quote = ' ', 0
			i = next - 1
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote, comma = c, -1
		case c == '#':
			for ; i < len(b) && b[i] != '\n'; i++ {
				b[i] = ' '
			}
			i--
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 && comma >= 0 {
				b[comma] = ' '
			}
		case c == ',':
			comma = i
		case c != ' ' && c != '\t' && c != '\r':
			comma = -1
		}
	}
	m.text = string(b)
}

// closeArray ends an array where the next key or section begins.
func (m *mending) closeArray(offset int) (slip, bool) {
	from, to := m.line(offset)
	head := strings.TrimSpace(m.text[from:min(offset, len(m.text))])
	next := strings.TrimSpace(m.text[offset:to])
	if head != "" || offset < len(m.text) && !strings.HasPrefix(next, "[") && !strings.Contains(next, "=") {
		return slip{}, false
	}
	end := m.before(from)
	if end == 0 {
		return slip{}, false
	}
	m.insert(end, "]")
	return slip{offset: end, what: "the closing bracket is missing", hint: m.shown(end)}, true
}

// closeString ends a string with its line, before what closes around it.
func (m *mending) closeString(offset int) (slip, bool) {
	from, to := m.line(min(offset, len(m.text)))
	if offset == from && from > 0 {
		from, to = m.line(from - 1)
	}
	text := m.text[from:to]
	if i := strings.Index(text, " #"); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimRight(text, " \t\r")
	if strings.ContainsAny(text, "{[") {
		text = strings.TrimRight(text, " \t}]")
	}
	quote := `"`
	if strings.Count(text, `"`)%2 == 0 {
		quote = "'"
	}
	if strings.Count(text, quote)%2 == 0 {
		return slip{}, false
	}
	at := from + len(text)
	m.insert(at, quote)
	return slip{offset: at, what: "the closing quote is missing", hint: m.shown(at)}, true
}

// equals puts the sign between key and value.
func (m *mending) equals(offset int) (slip, bool) {
	from, to := m.line(offset)
	key := m.text[from:offset]
	key = strings.TrimSpace(key[strings.LastIndexAny(key, "{,")+1:])
	if key == "" || !bareKey(key) || strings.TrimSpace(strings.TrimLeft(m.text[offset:to], ": \t\r")) == "" {
		return slip{}, false
	}
	if m.text[offset] == ':' {
		m.overwrite(offset, "=")
	} else {
		m.insert(offset, "= ")
	}
	return slip{offset: offset, what: "there is no = between key and value", hint: m.shown(offset)}, true
}

func (m *mending) equalsTwice(offset int) (slip, bool) {
	m.overwrite(offset, " ")
	return slip{offset, "the = is there twice", m.shown(offset)}, true
}

// several makes [name] one of several, where there may be.
func (m *mending) several(offset int) (slip, bool) {
	from, _ := m.line(offset)
	end := m.contentEnd(from)
	header := strings.TrimSpace(m.text[from:end])
	name := strings.TrimSpace(strings.Trim(header, "[]"))
	if !strings.HasPrefix(header, "[") || strings.HasPrefix(header, "[[") || !slices.Contains([]string{"link", "node", "ping", "fence", "group", "group.resource"}, name) {
		return slip{}, false
	}
	m.insert(end, "]")
	m.insert(from+strings.IndexByte(m.text[from:end], '['), "[")
	return slip{from, name + " is a table; expected sections [[" + name + "]]", "there may be several: write [[" + name + "]], not [" + name + "]"}, true
}

func (m *mending) lastComma(offset int) (slip, bool) {
	at := m.before(offset) - 1
	if at < 0 || m.text[at] != ',' {
		return slip{}, false
	}
	m.overwrite(at, " ")
	return slip{at, "there is a comma before the closing brace", m.shown(at)}, true
}

// closeHeader ends the header of a section.
func (m *mending) closeHeader(offset int) (slip, bool) {
	from, _ := m.line(min(offset, len(m.text)))
	if from > 0 && offset == from {
		from, _ = m.line(from - 1)
	}
	end := m.contentEnd(from)
	header := strings.TrimSpace(m.text[from:end])
	opens, closes := len(header)-len(strings.TrimLeft(header, "[")), len(header)-len(strings.TrimRight(header, "]"))
	if opens == 0 || opens > 2 || closes >= opens || !bareKey(strings.ReplaceAll(strings.Trim(header, "[]"), ".", "")) {
		return slip{}, false
	}
	m.insert(end, strings.Repeat("]", opens-closes))
	return slip{offset: end, what: "the closing bracket is missing", hint: m.shown(end)}, true
}
