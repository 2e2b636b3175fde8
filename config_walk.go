// Does the text have the shape that config_schema.go describes? Unknown keys, wrong types, values out of bounds, missing
// keys: one pass over the whole tree, so that no fault hides another. It fills in defaults and knows nothing of what the
// values mean together.

package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// walker collects the faults of one text.
type walker struct {
	src      *source
	problems []configError
	told     map[severity]int
	faulty   map[string]bool   // paths whose value was refused
	refused  map[string]string // and the texts that were written there
}

func newWalker(src *source) *walker {
	return &walker{src: src, told: map[severity]int{}, faulty: map[string]bool{}, refused: map[string]string{}}
}

// section is a table whose values have been checked. What was refused is not in it.
type section struct {
	spec   *tableSpec
	path   string
	label  string // for messages: [[group.resource]] web/vip
	prefix string // of its keys, for messages: monitor.
	values map[string]any
}

func (w *walker) report(offset int, s severity, what, want, hint string) {
	if w.told[s]++; w.told[s] > problemsMax {
		return // sortProblems keeps no more of either kind
	}
	line, col := w.src.position(offset)
	w.problems = append(w.problems, configError{line, col, s, what, want, hint})
}

// onKey and onValue report a fault of a path at its key or at its value.
func (w *walker) onKey(path, what, want, hint string) {
	w.report(w.src.keyAt(path), severityError, what, want, hint)
}

func (w *walker) onValue(path, what, want, hint string) {
	w.report(w.src.valueAt(path), severityError, what, want, hint)
}

func (w *walker) warn(path, what, want, hint string) {
	w.report(w.src.valueAt(path), severityWarning, what, want, hint)
}

// section checks one table. It always returns a usable one.
func (w *walker) section(spec *tableSpec, path, label, prefix string, raw map[string]any) *section {
	s := &section{spec, path, label, prefix, map[string]any{}}
	for _, k := range sortedNames(raw) {
		if spec.find(k) == nil {
			w.unknown(s, k)
		}
	}
	for i := range spec.keys {
		k := &spec.keys[i]
		v, found := raw[k.key]
		if !found {
			if !w.faulty[pathKey(path, k.key)] { // else it was misspelt, which has been told
				w.missing(s, k)
			}
			continue
		}
		at := pathKey(path, k.key)
		value, ok := w.value(s, k, at, v)
		if ok || k.kind == kindStrings && value != nil { // of a list also what is left of it
			s.values[k.key] = value
		}
		if !ok {
			w.faulty[at] = true
		}
	}
	return s
}

func (s *section) where(key string) string {
	if s.label == "" {
		return key
	}
	return s.label + " " + s.prefix + key
}

func (w *walker) missing(s *section, k *keySpec) {
	if !k.required || w.src.holes {
		return
	}
	name := s.where(k.key)
	want := map[keyKind]string{kindString: k.key + " = \"…\"", kindAddresses: k.key + " = { LINK = \"…\" }"}[k.kind]
	switch {
	case k.kind == kindTables:
		name, want = sectionLabel(s, k), "at least one"
	case k.kind == kindTable && s.path == "":
		name, want = "["+k.key+"]", "this section"
	case k.kind == kindTable:
		want = k.key + " = { command = \"…\" }"
	}
	if k.key == "type" {
		want = oneOf(resourceTypeNames())
	}
	w.onKey(s.path, name+" is missing", want, "")
}

// sectionLabel is the header of an array of tables; of resources also whose they are.
func sectionLabel(s *section, k *keySpec) string {
	if s.path == "" {
		return "[[" + k.key + "]]"
	}
	return s.label + " [[group." + k.key + "]]"
}

// otherWords are what the configurations of others call what is a key here.
var otherWords = map[string]string{
	"mountpoint": "directory", "mount_point": "directory", "mount": "directory", "dir": "directory", "fs": "fstype", "filesystem": "fstype",
	"ip": "address", "virtual_ip": "address", "vip": "address", "nic": "interface", "dev": "interface", "iface": "interface",
	"configfile": "config_file", "conf": "config_file", "statusurl": "status_url", "url": "status_url", "drbd_resource": "resource",
	"advert_int": "interval", "keepalive": "interval", "udpport": "port", "auto_failback": "failback", "priority": "prefer",
}

// unknown tells where a key belongs that nobody here knows.
func (w *walker) unknown(s *section, key string) {
	path := pathKey(s.path, key)
	hint, want := didYouMean(key, s.spec.names()), wordList(s.spec.names(), "or")
	if ours := otherWords[strings.ToLower(key)]; ours != "" && s.spec.find(ours) != nil {
		hint = fmt.Sprintf("did you mean %q?", ours)
		w.faulty[pathKey(s.path, ours)] = true
	} else if home := homeOf(key, s); home != "" && nearestIsPoor(key, s.spec) {
		hint = home
	} else if near := nearest(key, s.spec.names()); near != "" {
		w.faulty[pathKey(s.path, near)] = true
	}
	if s.spec == &anyResourceSpec {
		want = ""
	}
	w.onKey(path, s.where(shownKey(key))+": unknown key", want, hint)
}

// nearestIsPoor is false for a slip of one letter, which is likelier than a key in the wrong section.
func nearestIsPoor(key string, spec *tableSpec) bool {
	near := nearest(key, spec.names())
	return near == "" || editDistance(key, near) > 1
}

// homeOf says in which other section a key is known, if it is in few.
func homeOf(key string, here *section) string {
	switch {
	case here.prefix != "" && key == "interval":
		return "only monitor has an interval"
	case here.prefix != "" && key == "command":
		return "only a resource of type \"exec\" has commands"
	case here.prefix != "":
		return ""
	}
	var homes []string
	for _, spec := range sections() {
		if spec != here.spec && spec.find(key) != nil {
			homes = append(homes, spec.label)
		}
	}
	types := keyOfType(key)
	switch {
	case len(homes) == 0:
		return ""
	case len(types) == len(homes) && len(types) == len(resourceTypes):
		return fmt.Sprintf("%q belongs in [[group.resource]]", key)
	case len(types) == len(homes):
		return fmt.Sprintf("%q belongs in a [[group.resource]] of type %s", key, wordList(types, "or"))
	case len(homes) > 1:
		return ""
	case homes[0] == groupSpec.label:
		return fmt.Sprintf("%q belongs in [[group]], before the group's first [[group.resource]]", key)
	}
	return fmt.Sprintf("%q belongs in %s", key, homes[0])
}

// value checks one value and turns it into what section's readers return.
func (w *walker) value(s *section, k *keySpec, path string, raw any) (any, bool) {
	switch k.kind {
	case kindString:
		return w.text(s.where(k.key), k, path, raw)
	case kindStrings:
		return w.list(s, k, path, raw)
	case kindBool:
		v, ok := raw.(bool)
		if !ok {
			w.wrongType(s.where(k.key), path, raw, "true or false")
		}
		return v, ok
	case kindInt:
		return w.integer(s, k, path, raw)
	case kindDuration:
		return w.duration(s, k, path, raw)
	case kindTable:
		return w.table(s, k, path, raw)
	case kindTables:
		return w.tables(s, k, path, raw)
	case kindAddresses:
		return w.addresses(s, k, path, raw)
	case kindOptions:
		return w.options(s, k, path, raw)
	}
	return nil, true // kindAny
}

func (w *walker) table(s *section, k *keySpec, path string, raw any) (any, bool) {
	m, ok := raw.(map[string]any)
	if ok {
		label, prefix := "["+k.key+"]", ""
		if s.path != "" {
			label, prefix = s.label, s.prefix+k.key+"."
		}
		return w.section(k.table, path, label, prefix, m), true
	}
	want, hint := "a section ["+k.key+"]", ""
	if s.path != "" {
		want = fmt.Sprintf("a table such as %s = { %s = … }", k.key, k.table.keys[0].key)
	}
	if several(raw) {
		header := k.key
		if s.path != "" {
			header = "group.resource." + k.key
		}
		hint = fmt.Sprintf("there is only one: write [%s], not [[%s]]", header, header)
	}
	w.onValue(path, fmt.Sprintf("%s is %s", s.where(k.key), describeValue(raw)), want, hint)
	return nil, false
}

func several(raw any) bool {
	_, ok := raw.([]map[string]any)
	return ok
}

func (w *walker) tables(s *section, k *keySpec, path string, raw any) (any, bool) {
	header := k.key
	if s.path != "" {
		header = "group." + k.key
	}
	var elements []any
	switch v := raw.(type) {
	case []map[string]any:
		for _, m := range v {
			elements = append(elements, m)
		}
	case []any:
		elements = v
	default:
		hint := ""
		if _, ok := raw.(map[string]any); ok {
			hint = fmt.Sprintf("there may be several: write [[%s]], not [%s]", header, header)
		}
		w.onValue(path, fmt.Sprintf("%s is %s", s.where(k.key), describeValue(raw)), "sections [["+header+"]]", hint)
		return nil, false
	}
	if len(elements) == 0 && k.required && !w.src.holes {
		w.onValue(path, s.where(k.key)+" is empty", "at least one [["+header+"]]", "")
	}
	var out []*section
	for i, e := range elements {
		at := pathIndex(path, i)
		if int64(i) >= k.max {
			w.onKey(at, fmt.Sprintf("%s: one too many", sectionLabel(s, k)), fmt.Sprintf("at most %d", k.max), "")
			w.faulty[path] = true
			break
		}
		m, ok := e.(map[string]any)
		if !ok {
			w.onValue(at, fmt.Sprintf("%s holds %s", s.where(k.key), describeValue(e)), "a section [["+header+"]]", "")
			w.faulty[at] = true
			m = nil
		}
		spec := k.table
		if k.pick != nil {
			spec = k.pick(m)
		}
		label := elementLabel(s, header, i, m)
		if !ok { // keeps its place, so that indices stay those of the text
			out = append(out, &section{spec, at, label, "", map[string]any{}})
			continue
		}
		out = append(out, w.section(spec, at, label, "", m))
	}
	return out, true
}

// elementLabel names an element as the operator does: by its name, else its type, else its number.
func elementLabel(s *section, header string, i int, m map[string]any) string {
	name := fmt.Sprintf("#%d", i+1)
	for _, key := range []string{"type", "name"} {
		if v, ok := m[key].(string); ok && checkName(v) == nil {
			name = v
		}
	}
	if owner, ok := strings.CutPrefix(s.label, "[[group]] "); ok {
		name = owner + "/" + name
	}
	return "[[" + header + "]] " + name
}

// addresses reads address = { link = "…" } into pairs that are sorted by link.
func (w *walker) addresses(s *section, k *keySpec, path string, raw any) (any, bool) {
	m, ok := raw.(map[string]any)
	if !ok {
		hint := "name the link that each address is on"
		if v, isText := raw.(string); isText {
			hint = fmt.Sprintf("did you mean address = { LINK = %s }?", abbreviate(v))
		}
		w.onValue(path, fmt.Sprintf("%s is %s", s.where(k.key), describeValue(raw)), "a table such as { lan = \"192.168.10.11\" }", hint)
		return nil, false
	}
	var out []LinkAddress
	for _, l := range sortedNames(m) {
		at := pathKey(path, l)
		if v, ok := w.text(s.where(k.key+"."+shownKey(l)), k, at, m[l]); ok {
			out = append(out, LinkAddress{l, v.(string)})
		} else {
			w.faulty[at] = true
		}
	}
	return out, true
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// shownKey is a key as it stands in a message.
func shownKey(key string) string {
	if bareKey(key) {
		return key
	}
	return abbreviate(key)
}

// The readers: the value of the text, else the default of the schema.

func (s *section) text(key string) string {
	if v, ok := s.values[key].(string); ok {
		return v
	}
	if k := s.spec.find(key); k != nil {
		return k.def
	}
	return ""
}

func (s *section) flag(key string) bool {
	if v, ok := s.values[key].(bool); ok {
		return v
	}
	return s.spec.find(key) != nil && s.spec.find(key).def == "true"
}

func (s *section) number(key string) int {
	if v, ok := s.values[key].(int); ok {
		return v
	}
	if k := s.spec.find(key); k != nil && k.def != "" {
		n, err := strconv.Atoi(k.def)
		if err != nil {
			panic("default of " + key + ": " + err.Error()) // the schema is a constant of this program
		}
		return n
	}
	return 0
}

func (s *section) duration(key string) Duration {
	if v, ok := s.values[key].(Duration); ok {
		return v
	}
	if k := s.spec.find(key); k != nil && k.def != "" {
		d, err := time.ParseDuration(k.def)
		if err != nil {
			panic("default of " + key + ": " + err.Error()) // the schema is a constant of this program
		}
		return Duration(d)
	}
	return 0
}

func (s *section) list(key string) []string {
	v, _ := s.values[key].([]string)
	if len(v) == 0 {
		return nil
	}
	return v
}

// table is a nested section; one that is not written has the defaults of its keys.
func (s *section) table(key string) *section {
	if v, ok := s.values[key].(*section); ok {
		return v
	}
	none := &tableSpec{}
	if k := s.spec.find(key); k != nil && k.table != nil {
		none = k.table
	}
	return &section{none, pathKey(s.path, key), s.label, s.prefix + key + ".", map[string]any{}}
}

func (s *section) tables(key string) []*section {
	v, _ := s.values[key].([]*section)
	return v
}
