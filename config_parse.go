// What does a text of /etc/ha.toml say? All its faults at once, or the effective configuration. It reads no file and
// asks nothing of the host: what needs the host's interfaces is in config_host.go.

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// parseConfig returns the effective configuration and the warnings, or nil and all errors and warnings, sorted by
// position. Every default is filled in and every name in it is one that exists.
func parseConfig(text []byte) (*Config, []configError) {
	if len(text) > textMax {
		return nil, []configError{{1, 1, severityError, fmt.Sprintf("the file has %d bytes", len(text)),
			fmt.Sprintf("at most %d", textMax), "is this an ha.toml?"}}
	}
	tree, src, problems := readTree(strings.TrimPrefix(string(text), "\ufeff"))
	if tree == nil {
		return nil, sortProblems(problems)
	}
	w := newWalker(src)
	w.problems = problems
	w.twice()
	file := w.section(&fileSpec, "", "", "", tree)
	cfg := build(file)
	if !w.src.holes {
		checkMeaning(w, cfg)
	}
	if errors, _ := countProblems(w.problems); errors > 0 {
		cfg = nil
	}
	return cfg, sortProblems(w.problems)
}

// configHash identifies a text.
func configHash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// checkText is `config check`: the report, and 0 for good, 1 for warnings when strict, 2 for errors.
func checkText(name string, text []byte, strict bool) (report string, exit int) {
	cfg, problems := parseConfig(text)
	return checkReport(name, cfg, problems, strict)
}

// checkReport renders what was found, with a last line that sums it up.
func checkReport(name string, cfg *Config, problems []configError, strict bool) (report string, exit int) {
	errors, warnings := countProblems(problems)
	report = renderProblems(name, problems)
	found := wordList([]string{count(errors, "error"), count(warnings, "warning")}, "and")
	switch {
	case errors > 0 || cfg == nil:
		return report + fmt.Sprintf("%s: %s\n", name, found), 2
	case warnings > 0 && strict:
		return report + fmt.Sprintf("%s: %s, refused by --strict\n", name, count(warnings, "warning")), 1
	}
	summary := wordList([]string{count(len(cfg.Nodes), "node"), count(len(cfg.Links), "link"), count(len(cfg.Groups), "group")}, "and")
	if warnings > 0 {
		summary += ", " + count(warnings, "warning")
	}
	return report + fmt.Sprintf("%s: good: %s\n", name, summary), 0
}

// syntaxMax bounds how many faults of syntax are looked for: after each the rest of the text is read again.
const syntaxMax = 20

// readTree decodes a text. After a fault of syntax it blanks the statement and reads on, so that one slip does not hide
// the next; it gives up (a nil tree) where that could lead to faults that are none.
func readTree(text string) (map[string]any, *source, []configError) {
	src := locate(text)
	var problems []configError
	report := func(offset int, what, hint string) {
		line, col := src.position(offset)
		problems = append(problems, configError{line, col, severityError, what, "", hint})
	}
	if src.tooDeep >= 0 {
		report(src.tooDeep, "nested deeper, or with a longer key, than anything that belongs here", "")
		return nil, src, problems
	}
	if !utf8.ValidString(text) {
		report(invalidUTF8(text), "this is no UTF-8", "save the file as UTF-8")
		return nil, src, problems
	}
	m, holes := &mending{text: text}, false
	for from := 0; from < len(m.text) && len(problems) < syntaxMax; { // no fault of syntax where there is one, but of what is meant
		if s, ok := m.several(from); ok {
			report(m.original(s.offset), s.what, s.hint)
		}
		_, to := m.line(from)
		from = to + 1
	}
	for len(problems) < syntaxMax {
		tree, err := decode(m.text)
		if err == nil {
			found := locateMended(m, text)
			found.holes = holes
			return tree, found, problems
		}
		var fault toml.ParseError
		if !errors.As(err, &fault) {
			report(0, err.Error(), "")
			return nil, src, problems
		}
		offset := max(0, min(fault.Position.Start, len(m.text)))
		was := *m
		was.added = slices.Clone(m.added)
		if s, ok := m.repair(fault.Message, offset); ok {
			report(was.original(s.offset), s.what, s.hint)
			continue
		}
		what, hint := syntaxWords(fault.Message)
		report(m.original(offset), what, hint)
		from, _ := m.line(offset)
		again := strings.Contains(fault.Message, "already been defined") && !strings.HasPrefix(strings.TrimSpace(m.text[from:]), "[cluster")
		holes = holes || !again // the first of two values stands
		next, ok := blankStatement(m.text, offset)
		if !ok || strings.Contains(fault.Message, "terminator") || strings.Contains(fault.Message, "EOF") { // begun on another line
			break
		}
		m.text = next
	}
	return nil, src, problems
}

func invalidUTF8(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return i
			}
		}
	}
	return 0
}

// decode calls the library, whose parser panics on what it takes for faults of its own.
func decode(text string) (tree map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			tree, err = nil, fmt.Errorf("the text cannot be read: %v", r)
		}
	}()
	tree = map[string]any{}
	_, err = toml.Decode(text, &tree)
	return tree, err
}

// syntaxWords turns the library's message into ours, with a hint for the usual slips.
func syntaxWords(message string) (what, hint string) {
	hints := []struct{ part, hint string }{
		{"newlines not allowed within inline tables", "write { … } on one line, or as a section of its own"},
		{"strings cannot contain newlines", "is the closing quote missing?"},
		{`expected value but found '\n'`, "write a value behind the =, or leave the key out"},
		{"expected value but found", "strings need quotes, and true and false are written small"},
		{"has already been defined", "each key and each section is written once; only [[…]] may come again"},
		{"was already created", "a section is either [one] or [[several]]"},
		{"expected '.' or '='", "a key and its value are written key = value"},
		{"key separator", "a key and its value are written key = value"},
		{"to end table name", "is the closing bracket missing?"},
		{"end of table array", "is a closing bracket missing?"},
		{"array terminator", "is a comma or the closing bracket missing?"},
		{"inline table terminator", "is a comma or the closing brace missing?"},
		{"invalid escape", "a backslash is written \\\\ in \"…\"; in '…' it stands for itself"},
	}
	for _, h := range hints {
		if strings.Contains(message, h.part) {
			hint = h.hint
			break
		}
	}
	first, n := utf8.DecodeRuneInString(message)
	return strings.TrimSuffix(string(unicode.ToLower(first))+message[n:], "."), hint
}

// blankStatement replaces the faulty line with spaces; a faulty header takes its whole section along, whose keys would
// otherwise fall to the section before. Not ok when the statement may go on over other lines.
func blankStatement(text string, offset int) (string, bool) {
	if offset > 0 && offset <= len(text) && (offset == len(text) || text[offset] == '\n') {
		offset-- // a fault at a line's end is that line's
	}
	lines := lineStarts(text)
	line := sort.Search(len(lines), func(i int) bool { return lines[i] > offset })
	start, end := lines[line-1], len(text)
	if line < len(lines) {
		end = lines[line] - 1
	}
	statement := strings.TrimSpace(text[start:end])
	switch {
	case statement == "" || !bareKeyByte(statement[0]) && statement[0] != '[':
		return "", false
	case statement[0] == '[':
		for l := line; l < len(lines); l++ {
			end = len(text)
			if l+1 < len(lines) {
				end = lines[l+1] - 1
			}
			if strings.HasPrefix(strings.TrimSpace(text[lines[l]:end]), "[") {
				end = lines[l] - 1
				break
			}
		}
	case strings.ContainsAny(statement, "[{") || strings.Contains(statement, `"""`) || strings.Contains(statement, "'''"):
		if strings.Count(statement, "[") != strings.Count(statement, "]") || strings.Count(statement, "{") != strings.Count(statement, "}") ||
			strings.Contains(statement, `"""`) || strings.Contains(statement, "'''") {
			return "", false
		}
	}
	blank := []byte(text[start:end]) // byte for byte, so that every offset stays what it was
	for i, c := range blank {
		if c != '\n' && c != '\r' {
			blank[i] = ' '
		}
	}
	return text[:start] + string(blank) + text[end:], true
}

// twice reports keys that were given two values where the library silently takes the second.
func (w *walker) twice() {
	for _, d := range w.src.duplicates {
		line, _ := w.src.position(d.first)
		key := d.path[strings.LastIndexByte(d.path, '.')+1:]
		w.report(d.second, severityError, fmt.Sprintf("key %s has already been defined in line %d", key, line), "", "each key is written once")
	}
}

// build makes the configuration of what the walker left over. It has holes where something was refused.
func build(file *section) *Config {
	cluster, heartbeat := file.table("cluster"), file.table("heartbeat")
	c := &Config{
		Cluster: ClusterConfig{
			Name:       cluster.text("name"),
			KeyFile:    cluster.text("key_file"),
			TwoNode:    cluster.text("two_node"),
			WaitForAll: cluster.flag("wait_for_all"),
			NeedsPing:  cluster.list("needs_ping"),
			NoQuorum:   cluster.text("no_quorum"),
			LogLevel:   cluster.text("log_level"),
		},
		Heartbeat: HeartbeatConfig{
			Interval: heartbeat.duration("interval"),
			Deadtime: heartbeat.duration("deadtime"),
			Port:     heartbeat.number("port"),
		},
	}
	dog := file.table("watchdog")
	c.Watchdog = WatchdogConfig{dog.text("device"), dog.duration("timeout")}
	for _, s := range file.tables("link") {
		c.Links = append(c.Links, LinkConfig{s.text("name"), s.text("interface"), s.text("multicast")})
	}
	for _, s := range file.tables("node") {
		addresses, _ := s.values["address"].([]LinkAddress)
		c.Nodes = append(c.Nodes, NodeConfig{s.text("name"), s.text("role"), addresses})
	}
	for _, s := range file.tables("ping") {
		p := PingConfig{s.text("name"), s.text("address"), s.text("tcp"), s.duration("interval"), s.duration("timeout"), s.number("failures")}
		p.pace(c.Heartbeat.Deadtime.D())
		c.Pings = append(c.Pings, p)
	}
	for _, s := range file.tables("fence") {
		c.Fences = append(c.Fences, buildFence(s))
	}
	for _, s := range file.tables("group") {
		c.Groups = append(c.Groups, buildGroup(s))
	}
	return c
}

func buildGroup(s *section) GroupConfig {
	g := GroupConfig{
		Name:               s.text("name"),
		Prefer:             s.list("prefer"),
		Failback:           s.text("failback"),
		MigrationThreshold: s.number("migration_threshold"),
		FailureTimeout:     s.duration("failure_timeout"),
		After:              s.list("after"),
		With:               s.list("with"),
		Apart:              s.list("apart"),
		Needs:              s.list("needs"),
	}
	for _, r := range s.tables("resource") {
		g.Resources = append(g.Resources, buildResource(r))
	}
	nameResources(g.Resources)
	return g
}

func buildResource(s *section) ResourceConfig {
	op := func(key string) OpConfig {
		t := s.table(key)
		return OpConfig{t.text("command"), t.duration("interval"), t.duration("timeout")}
	}
	r := ResourceConfig{
		Type:    s.text("type"),
		Name:    s.text("name"),
		OnFail:  s.text("on_fail"),
		State:   s.text("state"),
		Start:   op("start"),
		Stop:    op("stop"),
		Monitor: op("monitor"),

		Address:      s.text("address"),
		Interface:    s.text("interface"),
		ProbeWait:    s.duration("probe_wait"),
		ProbeTimeout: s.duration("probe_timeout"),

		ConfigFile:  s.text("config_file"),
		StatusURL:   s.text("status_url"),
		Unit:        s.text("unit"),
		Program:     s.text("program"),
		TLSInsecure: s.flag("tls_insecure"),
		Environment: s.list("environment"),

		Device:    s.text("device"),
		Directory: s.text("directory"),
		FSType:    s.text("fstype"),
		Options:   s.text("options"),
		Probe:     s.text("probe"),

		Resource: s.text("resource"),
	}
	if r.Probe == "mounted" {
		r.Probe = ""
	}
	if _, ok := s.values["expect"]; ok {
		e := s.table("expect")
		r.Expect = &Expect{e.text("url"), e.text("contains"), e.number("status")}
	}
	return r
}

// nameResources gives those without a name the name of their type, with a number where it is taken.
func nameResources(resources []ResourceConfig) {
	taken := map[string]bool{}
	for _, r := range resources {
		taken[r.Name] = true
	}
	for i := range resources {
		r := &resources[i]
		if r.Name != "" || r.Type == "" {
			continue
		}
		r.Name = r.Type
		for n := 2; taken[r.Name]; n++ {
			r.Name = fmt.Sprintf("%s-%d", r.Type, n)
		}
		taken[r.Name] = true
	}
}
